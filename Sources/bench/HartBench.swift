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
                .higher, than: 250)
        ]
    }

    struct HartBenchError: Error, CustomStringConvertible { let description: String }
}
