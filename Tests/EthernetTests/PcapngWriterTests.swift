import Ethernet
import TestKit
import Testing

struct PcapngWriterTests {
    @Test func `tshark reads interfaces, nanoseconds, directions and lengths`() throws {
        var writer = PcapngWriter(snapLength: 100)
        let eth0 = writer.addInterface(named: "bmc.eth0")
        let eth1 = writer.addInterface(named: "adapter.eth-ext")
        let short = frame(to: .broadcast, from: station(1), payload: 21)
        let long = frame(to: station(1), from: station(2), payload: 1000)
        writer.append(short.span, time: 1_700_000_000_123_456_789, interface: eth0, direction: .inbound)
        writer.append(long.span, time: 1_700_000_000_123_456_790, interface: eth1, direction: .outbound)
        writer.append(short.span, time: 1_700_000_001_000_000_001, interface: eth0)
        var capture: [UInt8] = []
        writer.take { capture = copy($0) }
        #expect(writer.pendingByteCount == 0)
        let rows = try tshark(
            capture,
            fields: [
                "frame.time_epoch", "frame.interface_name", "frame.len", "frame.cap_len",
                "frame.packet_flags_direction", "eth.src",
            ])
        #expect(
            rows == [
                ["1700000000.123456789", "bmc.eth0", "35", "35", "0x00000001", "52:54:00:00:00:01"],
                ["1700000000.123456790", "adapter.eth-ext", "1014", "100", "0x00000002", "52:54:00:00:00:02"],
                ["1700000001.000000001", "bmc.eth0", "35", "35", "", "52:54:00:00:00:01"],
            ])
    }

    @Test func `every block is a multiple of four bytes and says its length at both ends`() {
        var writer = PcapngWriter()
        let port = writer.addInterface(named: "x")
        for payload in 0..<9 {
            let bytes = frame(to: .broadcast, from: station(1), payload: payload)
            writer.append(bytes.span, time: 1, interface: port)
        }
        var capture: [UInt8] = []
        writer.take { capture = copy($0) }
        func number(at offset: Int) -> Int {
            (0..<4).reduce(0) { $0 | Int(capture[offset + $1]) << (8 * $1) }
        }
        var offset = 0
        var blocks = 0
        while offset < capture.count {
            let length = number(at: offset + 4)
            #expect(length % 4 == 0)
            #expect(length == number(at: offset + length - 4))
            offset += length
            blocks += 1
        }
        #expect(offset == capture.count)
        #expect(blocks == 11)
    }
}
