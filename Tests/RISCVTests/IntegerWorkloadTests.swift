import RISCV
import Testing

@Suite struct IntegerWorkloadTests {
    /// The same C code compiled for the host prints these.
    @Test(arguments: [
        (rounds: 20, digest: UInt64(0xEC7E)), (rounds: 50, digest: 0xE838), (rounds: 2000, digest: 0xE82B),
    ])
    func `the integer workload ends with the digest that the host's own compilation gives`(
        _ expected: (rounds: Int, digest: UInt64)
    ) throws {
        let measured = try #require(IntegerWorkload.run(rounds: UInt64(expected.rounds)))
        #expect(measured.digest == expected.digest)
        #expect(measured.instructions > UInt64(expected.rounds) * 20_000)
    }
}
