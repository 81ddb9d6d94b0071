import Adapter
import Ethernet
import Testing

struct AdapterRegistersTests {
    @Test func `the register file is that of the wiring document`() {
        var statistics = PortStatistics()
        statistics.receivedFrames = 0x1_0000_0002
        statistics.receivedBytes = 3
        statistics.receivedDropped = 4
        statistics.sentFrames = 5
        statistics.sentBytes = 6
        statistics.sentDropped = 7
        let registers = AdapterRegisters(
            mac: MACAddress("52:54:00:ad:00:01")!, isMaster: true, verification: .verified,
            ports: [
                .init(isUp: false, statistics: PortStatistics()), .init(isUp: true, statistics: statistics),
            ])
        let expected: [UInt64: UInt32] = [
            0x00: 0x4442_4441, 0x04: 0x0001_0000, 0x08: 0xAD00_5452, 0x0C: 0x0100, 0x10: 2, 0x14: 1, 0x18: 2,
            0x140: 1, 0x148: 2, 0x14C: 1, 0x150: 3, 0x158: 4, 0x160: 5, 0x168: 6, 0x170: 7,
        ]
        for offset in stride(from: UInt64(0), to: 4096, by: 4) {
            #expect(registers.read(offset) == expected[offset] ?? 0, "at \(offset)")
        }
        #expect(registers.read(.max - 3) == 0)
    }
}
