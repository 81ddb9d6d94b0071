import RISCV

/// How fast a hart executes, beside the clock of the core that it runs on.
enum HartBench {
    /// An integer workload of more than a second, in processor time of the hart's thread: on a machine that others use
    /// too, the clock would show what they left of it.
    static func integer() throws -> [BenchRow] {
        let clock = IntegerWorkload.coreMegahertz()
        guard let measured = IntegerWorkload.run(rounds: 40_000) else {
            throw HartBenchError(description: "the integer workload did not end where it should: the hart is broken")
        }
        return [
            .bounded(
                "riscv integer", measured.processorMIPS, "MIPS", reference: "MHz of this core (multiply-xor chain)",
                clock,
                .higher, than: 400),
            .ratio(
                "riscv integer, host per guest", try hostInstructions(interpreted: false), "instr",
                reference: "interpreted (callgrind, both)", try hostInstructions(interpreted: true), .lower, than: 0.5),
        ]
    }

    /// Host instructions a guest instruction, counted by callgrind. Two runs of different length, so that what starting
    /// and translating takes drops out.
    private static func hostInstructions(interpreted: Bool) throws -> Double {
        let short: UInt64 = 200
        let long: UInt64 = 600
        func count(_ rounds: UInt64) throws -> Double {
            // Code that is patched is mapped from a file, which valgrind believes to stay the same unless told.
            let arguments = [
                "--tool=callgrind", "--callgrind-out-file=/dev/null", "--smc-check=all", BoardBench.folder + "/bench",
                "--integer-peer", String(rounds),
            ]
            let result = try Command.run("/usr/bin/valgrind", arguments + (interpreted ? ["--interpreted"] : []))
            for line in result.output.split(separator: "\n") where line.contains("Collected") {
                if let number = line.split(separator: " ").last.flatMap({ Double($0) }) { return number }
            }
            throw HartBenchError(description: "valgrind counted nothing: \(result.output.suffix(500))")
        }
        guard let few = IntegerWorkload.run(rounds: short), let many = IntegerWorkload.run(rounds: long) else {
            throw HartBenchError(description: "the integer workload did not end where it should: the hart is broken")
        }
        return (try count(long) - count(short)) / Double(many.instructions - few.instructions)
    }

    /// The workload and nothing else, for counting.
    static func runOnly(_ rounds: UInt64, interpreted: Bool) throws {
        guard IntegerWorkload.run(rounds: rounds, translation: interpreted ? .none : .hot) != nil else {
            throw HartBenchError(description: "the integer workload did not end where it should: the hart is broken")
        }
    }

    struct HartBenchError: Error, CustomStringConvertible { let description: String }
}
