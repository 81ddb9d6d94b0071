// The cards of a run, and what each of their functions is.

import Component
import Wire

struct Bench {
    private(set) var cards: [CardProcess] = []
    private(set) var functions: [CardFunction] = []

    init(_ folder: WorkFolder, only: [String]) throws {
        func isWanted(_ slot: String) -> Bool { only.isEmpty || only.contains { slot.hasPrefix($0) } }
        if isWanted("offload") {
            let card = try CardProcess("offload-card", "offload", in: folder, ports: ["pcie"])
            cards.append(card)
            functions.append(
                CardFunction(
                    slot: "offload", card: card, port: "pcie", vendor: 0x1B36, device: 0x0B0A, classCode: "1200",
                    decoded: ["MSI-X: Enable- Count=2", "FLReset+", "Memory at"], identity: (0, 0, "0x4442464F")))
        }
        if isWanted("adapter") {
            let card = try CardProcess("adapter-card", "adapter", in: folder, ports: ["pcie", "eth-ext"])
            cards.append(card)
            functions.append(
                CardFunction(
                    slot: "adapter", card: card, port: "pcie", vendor: 0x1B36, device: 0x0B0B, classCode: "0200",
                    decoded: ["FLReset+", "Memory at"], hasMSIX: false, identity: (0, 0, "0x44424441")))
        }
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
