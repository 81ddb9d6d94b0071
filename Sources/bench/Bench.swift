import ArgumentParser
import QMP

@main struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures what Baseboard promises, each figure beside its limit or peer from the same run.",
        discussion: """
            Example: ./scripts/bench --only riscv

            Machines are noisy: read the ratio, not the figure. Exit code 0 also when a goal is not met: figures are \
            for people and for trends; tests never assert a time.
            """)

    @Flag(help: "Print a JSON list of rows instead of the table.")
    var json = false

    @Option(
        help:
            "Only the groups whose name begins so: boot, memory, death, riscv, linux, firmware, vfio-user, block, network."
    )
    var only: String?

    @Option(help: .hidden)
    var vfioUserPeer: String?

    @Flag(help: .hidden)
    var networkPeer = false

    @Option(help: .hidden)
    var integerPeer: UInt64?

    @Flag(help: .hidden)
    var interpreted = false

    func run() throws {
        if let integerPeer { return try HartBench.runOnly(integerPeer, interpreted: interpreted) }
        if let vfioUserPeer { return try VFIOUserBench.serve(vfioUserPeer) }
        if networkPeer { return try NetworkBench.serve() }
        var rows: [BenchRow] = []
        if !json { print(BenchRow.heading) }
        for group in Self.groups where only.map({ group.name.hasPrefix($0) }) ?? true {
            for row in try group.measure() {
                rows.append(row)
                if !json { print(row.line) }
            }
        }
        guard !rows.isEmpty else { throw ValidationError("no group is named \(only ?? "")…") }
        if json { print(JSONValue.array(rows.map(\.json)).text(pretty: true)) }
    }

    private struct Group: Sendable {
        var name: String
        var measure: @Sendable () throws -> [BenchRow]
    }

    private static let groups: [Group] = [
        Group(name: "boot", measure: BoardBench.boot),
        Group(name: "memory", measure: BoardBench.memory),
        Group(name: "death", measure: BoardBench.death),
        Group(name: "riscv", measure: HartBench.integer),
        Group(name: "linux", measure: LinuxBench.measure),
        Group(name: "firmware", measure: FirmwareBench.measure),
        Group(name: "vfio-user", measure: VFIOUserBench.measure),
        Group(name: "block", measure: BlockBench.measure),
        Group(name: "network", measure: NetworkBench.measure),
    ]
}
