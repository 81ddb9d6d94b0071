// The cards of a run, and what each of their functions is. Numbers and ports are those of docs/wiring.md.

import FoundationEssentials
import Glibc
import Wire

struct Bench {
    private(set) var cards: [CardProcess] = []
    private(set) var functions: [CardFunction] = []

    /// Only those whose slot's name begins with one of `only`, unless that is empty.
    init(_ folder: WorkFolder, only: [String]) throws {
        let groups: [(WorkFolder) throws -> [CardFunction]] = [Self.offload, Self.adapter]
        for (name, make) in zip(["offload", "adapter"], groups) where Self.isWanted(name, only) {
            try add(make(folder))
        }
        for interface in ["nvme", "virtio-blk"] where Self.isWanted(interface, only) {
            try add([Self.disk(interface, folder)])
        }
    }

    private mutating func add(_ more: [CardFunction]) {
        functions += more
        for function in more where !cards.contains(where: { $0 === function.card }) { cards.append(function.card) }
    }

    private static func isWanted(_ name: String, _ only: [String]) -> Bool {
        only.isEmpty || only.contains { name.hasPrefix($0) }
    }

    /// One card with several functions.
    private static func offload(_ folder: WorkFolder) throws -> [CardFunction] {
        let card = try CardProcess(
            "offload-card", "offload", in: folder,
            ports: ["pcie", "pcie-net", "eth0", "pcie-console", "console", "pcie-rng"])
        return [
            CardFunction(
                slot: "offload", card: card, port: "pcie", vendor: 0x1B36, device: 0x0B0A, classCode: "1200",
                decoded: ["MSI-X: Enable- Count=2", "FLReset+", "Memory at"], kind: .plain(identity: "0x4442464F")),
            virtio(card, "offload-net", "pcie-net", 0x1041, "0200", .network(port: "eth0", number: 79)),
            virtio(card, "offload-console", "pcie-console", 0x1043, "0780", .console(port: "console")),
            virtio(card, "offload-rng", "pcie-rng", 0x1044, "1080", .random),
        ]
    }

    private static func adapter(_ folder: WorkFolder) throws -> [CardFunction] {
        let card = try CardProcess(
            "adapter-card", "adapter", in: folder, ports: ["pcie", "pcie1", "eth-ext"])
        return [
            virtio(
                card, "adapter", "pcie", 0x1041, "0200", .network(port: "eth-ext", number: 80)),
            virtio(card, "adapter-1", "pcie1", 0x1041, "0200", .network(port: "eth-ext", number: 81)),
        ]
    }

    private static func virtio(
        _ card: CardProcess, _ slot: String, _ port: String, _ device: UInt16, _ classCode: String,
        _ kind: CardFunction.Kind
    ) -> CardFunction {
        CardFunction(
            slot: slot, card: card, port: port, vendor: 0x1AF4, device: device, classCode: classCode,
            decoded: ["VirtIO: CommonCfg", "VirtIO: Notify", "MSI-X: Enable+", "FLReset+"], kind: kind)
    }

    private static func disk(_ interface: String, _ folder: WorkFolder) throws -> CardFunction {
        let file = folder.file(interface + ".img")
        guard FileManager.default.createFile(atPath: file, contents: nil), truncate(file, 128 << 20) == 0 else {
            throw Failure("cannot make \(file)")
        }
        let card = try CardProcess(
            "offload-card", interface, in: folder, ports: ["pcie-disk"],
            ["--disk", file, "--disk-interface", interface])
        guard interface == "nvme" else {
            return virtio(
                card, interface, "pcie-disk", 0x1042, "0180", .disk(driver: "virtio-pci", pattern: "virtio*/block/*"))
        }
        return CardFunction(
            slot: interface, card: card, port: "pcie-disk", vendor: 0x1B36, device: 0x0B0C, classCode: "0108",
            decoded: ["[NVM Express]", "MSI-X: Enable+", "FLReset+", "Kernel driver in use: nvme"],
            kind: .disk(driver: "nvme", pattern: "nvme/nvme*/nvme*n1"))
    }

    /// Pairs of network functions behind one switch.
    var neighbours: [(CardFunction, CardFunction)] {
        let networks = functions.filter { if case .network = $0.kind { true } else { false } }
        return zip(networks, networks.dropFirst()).filter { $0.card === $1.card }
    }

    /// Every card runs and logged no warning.
    func checkHealth() throws -> String {
        for card in cards {
            guard card.process.isRunning else { throw Failure("\(card.name) ended: \(card.process.text)") }
            guard card.process.text.isEmpty else { throw Failure("\(card.name): \(card.process.text)") }
        }
        return ""
    }
}
