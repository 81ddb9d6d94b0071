import LPC
import TestKit
import Testing

@Suite struct LPCMessageTests {
    @Test(arguments: [
        (LPCMessage.read(tag: 7, port: 0xCA3), [UInt8]([0x00, 7, 0x0C, 0xA3])),
        (.write(tag: 0xFF, port: 0x80, data: 0xAA), [0x02, 0xFF, 0x00, 0x80, 0xAA]),
        (.sync(tag: 1, .ready, data: 0x41), [0x10, 1, 0, 0x41]),
        (.sync(tag: 1, .error, data: 0xFF), [0x10, 1, 0x0A, 0xFF]),
        (.sync(tag: 1, .none, data: 0xFF), [0x10, 1, 0x0F, 0xFF]),
        (.interrupt(11, level: true), [0x20, 11, 1]),
        (.interrupt(0, level: false), [0x20, 0, 0]),
    ])
    func `bytes both ways`(message: LPCMessage, bytes: [UInt8]) throws {
        #expect(message.encoded == bytes)
        #expect(try LPCMessage(decoding: bytes) == message)
    }

    @Test(arguments: [
        ([UInt8]([]), LPCMessage.Refusal.badLength(kind: 0, count: 0)),
        ([0x00, 1, 0], .badLength(kind: 0, count: 3)),
        ([0x00, 1, 0, 0x80, 0], .badLength(kind: 0, count: 5)),
        ([0x02, 1, 0, 0x80], .badLength(kind: 2, count: 4)),
        ([0x02, 1, 0, 0x80, 0, 0], .badLength(kind: 2, count: 6)),
        ([0x10, 1, 0], .badLength(kind: 0x10, count: 3)),
        ([0x10, 1, 5, 0], .badSync(5)),
        ([0x20, 11], .badLength(kind: 0x20, count: 2)),
        ([0x20, 16, 1], .badInterrupt(16)),
        ([0x20, 11, 2], .badLevel(2)),
        ([0x01, 1, 0, 0x80], .unknownKind(1)),
        ([0xFF], .unknownKind(0xFF)),
    ])
    func `a malformed datagram is refused with its reason`(bytes: [UInt8], refusal: LPCMessage.Refusal) {
        #expect(throws: refusal) { try LPCMessage(decoding: bytes) }
        #expect(!refusal.description.isEmpty)
    }

    @Test func `no bytes trap the parser, and what it takes it writes the same`() {
        var generator = SeededGenerator.fresh()
        for _ in 0..<20_000 {
            var bytes = generator.bytes(Int.random(in: 0...8, using: &generator))
            if !bytes.isEmpty { bytes[0] &= 0x32 }
            if let message = try? LPCMessage(decoding: bytes) { #expect(message.encoded == bytes) }
        }
    }
}
