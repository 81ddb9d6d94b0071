// A fixed amount of integer work for one hart: the benchmark's, and a test's because its result is known.
//
// The program (scripts/workload/integer.c) reverses, searches and sorts a linked list, multiplies matrices, scans text
// with a state machine and folds everything into a CRC. Its rounds are all alike, so more rounds measure the same.
import CSystem

/// The integer workload on a hart of its own, without devices.
public enum IntegerWorkload {
    /// What a run took.
    public struct Measurement: Sendable {
        /// Instructions retired.
        public let instructions: UInt64
        /// Nanoseconds on the clock, and of the calling thread's processor time (less where the processor is shared).
        public let nanoseconds: UInt64
        public let processorNanoseconds: UInt64
        /// The program's result.
        public let digest: UInt64

        /// Millions of instructions a second by the clock.
        public var mips: Double { Double(instructions) * 1000 / Double(max(1, nanoseconds)) }
        /// Millions of instructions a second of processor time.
        public var processorMIPS: Double { Double(instructions) * 1000 / Double(max(1, processorNanoseconds)) }
    }

    /// Runs `rounds` rounds (some 100 000 instructions each) on the calling thread. `nil`: the program did not end
    /// where it should, which is a fault of the hart.
    public static func run(rounds: UInt64, translation: HartConfiguration.Translation = .hot) -> Measurement? {
        let size = 64 * 4096
        let base: UInt64 = 0x8000_0000
        // Safety: page-aligned memory of `size` bytes that outlives the hart, which is gone at the end of this scope.
        let ram = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        defer { unsafe ram.deallocate() }
        unsafe ram.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        precondition(IntegerWorkloadImage.words.count * 4 <= size)
        for (index, word) in IntegerWorkloadImage.words.enumerated() {
            unsafe ram.storeBytes(of: word.littleEndian, toByteOffset: index * 4, as: UInt32.self)
        }
        let space = PhysicalAddressSpace()
        unsafe space.addMemory(base: base, size: UInt64(size), host: ram)
        let hart = Hart(
            id: 0, configuration: HartConfiguration(translation: translation), addressSpace: space,
            timeSource: TimeSource(), resetVector: base)
        hart.setX(10, rounds)
        let (start, processorStart) = (cs_monotonic(), cs_thread_time())
        var reason = Hart.ExitReason.budget
        while reason == .budget && hart.mode == 3 && hart.csr(0x342) == 0 { reason = hart.run(budget: 50_000_000) }
        let (end, processorEnd) = (cs_monotonic(), cs_thread_time())
        guard reason == .waitForInterrupt else { return nil }
        return Measurement(
            instructions: hart.retiredInstructions, nanoseconds: end - start,
            processorNanoseconds: processorEnd - processorStart, digest: hart.x(10))
    }

    /// The clock of the core that runs the calling thread, in MHz: from processor time, so that it holds on a shared
    /// machine. A step of the chain takes four cycles (multiplication three, exclusive or one) on current cores.
    public static func coreMegahertz() -> Double {
        let steps: UInt64 = 50_000_000
        var best = UInt64.max
        for _ in 0..<3 {
            let start = cs_thread_time()
            var x = start | 1
            for _ in 0..<steps { x = x &* 6_364_136_223_846_793_005 ^ x >> 29 }
            // Using x keeps the compiler from leaving the chain out.
            best = min(best, cs_thread_time() - start + (x == 0 ? 1 : 0))
        }
        return Double(steps) * 4000 / Double(max(1, best))
    }
}
