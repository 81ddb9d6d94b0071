import RISCV
import Wire

/// How fast a hart executes, beside the clock of the core that it runs on.
enum HartBench {
    /// An integer workload of more than a second, in processor time of the hart's thread: on a machine that others use
    /// too, the clock would show what they left of it.
    static func integer() throws -> [BenchRow] {
        let clock = coreMegahertz()
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

    /// A step of this chain takes four cycles (three for the multiplication, one for the exclusive or) on current cores.
    private static func coreMegahertz() -> Double {
        let steps: UInt64 = 100_000_000
        var best = Double.infinity
        for _ in 0..<3 {
            let start = MonotonicTime.now.nanoseconds
            var x = start | 1
            for _ in 0..<steps { x = x &* 6_364_136_223_846_793_005 ^ x >> 29 }
            let elapsed = MonotonicTime.now.nanoseconds &- start
            // Printing nothing of x would let the compiler leave the chain out.
            if x == 0 { return 0 }
            best = min(best, Double(elapsed))
        }
        return Double(steps) * 4 * 1000 / best
    }
}
