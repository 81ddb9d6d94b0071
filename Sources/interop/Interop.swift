// Baseboard's cards in a foreign machine: QEMU with Debian's kernel (scripts/interop-qemu sets both up).

import ArgumentParser
import FoundationEssentials
import Glibc
import QMP
import Wire

@main struct Interop: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "interop",
        abstract: "Puts the board's cards into QEMU and uses them from Debian's kernel there.",
        discussion: """
            Run it by scripts/interop-qemu, which fetches QEMU and the guest first.

            EXAMPLES
              ./scripts/interop-qemu
              ./scripts/interop-qemu --only disk --json
              ./scripts/interop-qemu --long            10^6 frames, 1000 resets

            EXIT STATUS
              0 all passed; 1 something failed; 64 wrong usage.
            """)

    @Flag(help: "10^6 frames, 1000 resets, more of everything.")
    var long = false

    @Option(help: ArgumentHelp("Only functions whose name begins with this. Repeatable.", valueName: "part"))
    var only: [String] = []

    @Flag(help: "Print the outcome of every step as JSON instead of the report.")
    var json = false

    @Option(help: ArgumentHelp("Where scripts/interop-qemu has put QEMU, kernel and initramfs.", valueName: "folder"))
    var files = ".build/interop"

    func run() throws {
        let report = Report(isQuiet: json)
        let folder = try WorkFolder()
        let bench = try Bench(folder, only: only)
        guard !bench.functions.isEmpty else { throw ValidationError("no function's name begins with \(only)") }
        let root = files.hasPrefix("/") ? files : FileManager.default.currentDirectoryPath + "/" + files
        func boot(_ functions: [CardFunction]) -> Guest? {
            var guest: Guest?
            report.step("guest", "QEMU boots Debian's kernel with \(functions.count) functions of our cards") {
                let slots = functions.map { Guest.Slot(name: $0.slot, socket: $0.card.socket($0.port)) }
                let it = try Guest(files: root, slots: slots)
                guest = it
                return "\(try Self.version(it)), Linux \(try it.run("uname -r"))"
            }
            return guest
        }
        var guests: [Guest] = []
        if let guest = boot(bench.functions) {
            guests.append(guest)
            for function in bench.functions { examine(function, guest, report) }
            for (one, other) in bench.neighbours {
                network(one, guest, report).cross(to: network(other, guest, report))
            }
            report.step("cards", "each is alive and has complained of nothing") { try bench.checkHealth() }
            // One removal by QEMU; where that ends QEMU, cards are torn out of a second guest.
            var survivor: Guest? = guest
            for function in bench.functions where !hotplug(function, guest, report).unplugAndPlug() {
                survivor = nil
                break
            }
            for card in bench.cards {
                let functions = bench.functions.filter { $0.card === card }
                if survivor?.isRunning != true {
                    survivor = boot(bench.functions.filter { $0.card.process.isRunning })
                    if let survivor { guests.append(survivor) }
                }
                guard let survivor else { break }
                // Under the load of one that has a driver.
                let busy = functions.first { load($0, survivor) != nil } ?? functions[0]
                if hotplug(busy, survivor, report).kill(functions) || survivor.isRunning { continue }
                // QEMU ended itself: once more, in a guest of their own and without load.
                report.step(card.name, "started again") {
                    try card.restart()
                    return ""
                }
                if let other = boot(functions) {
                    guests.append(other)
                    var part = hotplug(functions[0], other, report)
                    part.load = nil
                    part.kill(functions)
                }
                card.kill()
            }
            for guest in guests {
                report.step("guest", "its kernel found nothing wrong") { try Self.checkLog(guest) }
            }
        }
        show(json ? report.json.text(pretty: true) : report.summary)
        if report.hasFailed {
            for guest in guests {
                complain("QEMU said:\n\(guest.complaints)\nThe guest said:\n\(guest.console.suffix(4000))")
            }
            for card in bench.cards where !card.process.text.isEmpty { complain("\(card.name):\n\(card.process.text)") }
            throw ExitCode(1)
        }
    }

    private static let standardError = Descriptor(adopting: 2)

    private func complain(_ text: String) { try? Self.standardError.writeAll(Array((text + "\n").utf8)) }

    private func examine(_ function: CardFunction, _ guest: Guest, _ report: Report) {
        FunctionPart(guest: guest, function: function, report: report).run(resets: long ? 1000 : 5)
        switch function.kind {
        case .plain: break
        case .disk: disk(function, guest, report).run()
        case .network: network(function, guest, report).run()
        case .console, .random: StreamPart(guest: guest, function: function, report: report).run()
        }
        hotplug(function, guest, report).removeAndRescan()
    }

    private func disk(_ function: CardFunction, _ guest: Guest, _ report: Report) -> DiskPart {
        guard case .disk(let driver, let pattern) = function.kind else { preconditionFailure("it is a disk") }
        return DiskPart(
            guest: guest, function: function, report: report, driver: driver, pattern: pattern, isLong: long)
    }

    private func network(_ function: CardFunction, _ guest: Guest, _ report: Report) -> NetworkPart {
        guard case .network(let port, let number) = function.kind else { preconditionFailure("it is a network") }
        return NetworkPart(
            guest: guest, function: function, report: report, port: port, network: number,
            frames: long ? 1_000_000 : 20_000, isLong: long)
    }

    /// Work that keeps a function busy while it goes away.
    private func load(_ function: CardFunction, _ guest: Guest) -> String? {
        let quiet = Report(isQuiet: true)
        switch function.kind {
        case .plain, .console: return nil
        case .disk: return (try? disk(function, guest, quiet).disk()).map { DiskPart.load("/dev/" + $0) }
        case .network: return try? network(function, guest, quiet).load()
        case .random: return "cat /dev/hwrng >/dev/null"
        }
    }

    private func hotplug(_ function: CardFunction, _ guest: Guest, _ report: Report) -> HotplugPart {
        HotplugPart(guest: guest, function: function, report: report, load: load(function, guest)) {
            let quiet = Report(isQuiet: true)
            switch function.kind {
            case .plain(let identity):
                try FunctionPart(guest: guest, function: function, report: quiet).readRegisters(identity)
            case .disk: try disk(function, guest, quiet).check()
            case .network: _ = try network(function, guest, quiet).exchange(500, seed: 99)
            case .console, .random: try StreamPart(guest: guest, function: function, report: quiet).check()
            }
        }
    }

    private static func version(_ guest: Guest) throws -> String {
        let version = try guest.monitor("query-version")["qemu"]
        let numbers = ["major", "minor", "micro"].map { "\(version?[$0]?.integerValue ?? 0)" }
        return "QEMU " + numbers.joined(separator: ".")
    }

    /// Lines of the kernel's log that must not be there.
    private static func checkLog(_ guest: Guest) throws -> String {
        let bad = ["BUG:", "Oops", "WARNING:", "Call Trace", "hung task", "stall"]
        let lines = guest.console.split(separator: "\n").filter { line in bad.contains { line.contains($0) } }
        guard lines.isEmpty else { throw Failure(lines.prefix(5).joined(separator: "; ")) }
        return ""
    }
}
