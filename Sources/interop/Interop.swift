// Baseboard's cards in a foreign machine: QEMU with Debian's kernel (scripts/interop-qemu sets both up).

import ArgumentParser
import Component
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
              ./scripts/interop-qemu --long            10^6 packets, 1000 resets

            EXIT STATUS
              0 all passed; 1 something failed; 2 wrong usage.
            """)

    @Flag(help: "10^6 packets, 1000 resets, more of everything.")
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
        func boot() -> Guest? {
            var guest: Guest?
            report.step("guest", "QEMU boots Debian's kernel with \(bench.functions.count) functions of our cards") {
                let slots = bench.functions.map { Guest.Slot(name: $0.slot, socket: $0.card.socket($0.port)) }
                let it = try Guest(files: root, in: folder, slots: slots)
                guest = it
                return "\(try Self.version(it)), Linux \(try it.run("uname -r"))"
            }
            return guest
        }
        var guests: [Guest] = []
        if let guest = boot() {
            guests.append(guest)
            for function in bench.functions { examine(function, guest, report) }
            report.step("cards", "each is alive and has complained of nothing") { try bench.checkHealth() }
            // One removal by QEMU; where that ends QEMU, cards are torn out of a second guest.
            var survivor: Guest? = guest
            for function in bench.functions where !hotplug(function, guest, report).unplugAndPlug() {
                survivor = boot()
                if let survivor { guests.append(survivor) }
                break
            }
            if let survivor {
                for function in bench.functions { hotplug(function, survivor, report).kill() }
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
        hotplug(function, guest, report).removeAndRescan()
    }

    private func hotplug(_ function: CardFunction, _ guest: Guest, _ report: Report) -> HotplugPart {
        HotplugPart(guest: guest, function: function, report: report, load: nil) {
            if function.identity != nil {
                _ = try FunctionPart(guest: guest, function: function, report: report).readRegisters()
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
