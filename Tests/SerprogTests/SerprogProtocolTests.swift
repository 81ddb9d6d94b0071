import Serprog
import Testing

@Suite struct SerprogProtocolTests {
    static let requests: [(SerprogRequest, [UInt8])] = [
        (.plain(.nop), [0x00]), (.plain(.queryInterface), [0x01]), (.plain(.queryCommandMap), [0x02]),
        (.plain(.queryProgrammerName), [0x03]), (.plain(.querySerialBuffer), [0x04]),
        (.plain(.queryBusTypes), [0x05]), (.plain(.queryMaximumWrite), [0x08]), (.plain(.syncNOP), [0x10]),
        (.plain(.queryMaximumRead), [0x11]), (.setBusType(8), [0x12, 8]),
        (
            .spiOperation(write: [0x9F, 1], readCount: 0x030201),
            [0x13, 2, 0, 0, 0x01, 0x02, 0x03, 0x9F, 1]
        ),
        (.setSPIFrequency(0x0403_0201), [0x14, 1, 2, 3, 4]), (.setPinState(isDriven: true), [0x15, 1]),
        (.setPinState(isDriven: false), [0x15, 0]), (.setChipSelect(1), [0x16, 1]),
    ]

    @Test(arguments: requests)
    func `a request has the bytes of the specification both ways`(request: SerprogRequest, bytes: [UInt8]) {
        #expect(request.encoded == bytes)
        #expect(SerprogRequest.decode(bytes[...]) == .request(request, length: bytes.count))
        #expect(
            SerprogRequest.decode((bytes + [0xEE])[...]) == .request(request, length: bytes.count),
            "what follows is left alone")
    }

    @Test(arguments: requests)
    func `a request that is cut short is incomplete`(request: SerprogRequest, bytes: [UInt8]) {
        for count in 0..<bytes.count {
            #expect(SerprogRequest.decode(bytes[..<count]) == .incomplete, "\(count) bytes")
        }
    }

    @Test func `an unknown opcode takes one byte`() {
        #expect(
            SerprogRequest.decode([0xAA, 1, 2, 3]) == .request(.plain(SerprogCommand(rawValue: 0xAA)), length: 1))
    }

    @Test func `an operation that writes too much is known before its bytes are there`() {
        #expect(
            SerprogRequest.decode([0x13, 0xFF, 0xFF, 0xFF, 0, 0, 0]) == .oversized(length: 7 + 0xFF_FFFF))
        #expect(
            SerprogRequest.decode([0x13, 0x01, 0x00, 0x01, 0, 0, 0]) == .oversized(length: 7 + 0x1_0001))
    }
}
