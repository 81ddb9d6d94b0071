import LPC
import Management
import Testing

@Suite struct IPMITests {
    private func handler() -> IPMIHandler {
        var identity = IPMIHandler.Identity()
        identity.mac = 0x5254_00B0_0001
        return IPMIHandler(identity)
    }

    @Test(
        arguments: [
            // Get Device ID
            (
                [0x18, 0x01],
                [0x1C, 0x01, 0, 0x20, 1, 1, 0x00, 0x02, 0x80, 0, 0, 0, 0x0C, 0x0B, 0, 0, 0, 0]
            ),
            ([0x18, 0x01, 0x00], [0x1C, 0x01, 0xC7]),
            ([0x19, 0x01], [0x1D, 0x01, 0xC2]),
            // Get Self Test Results: not implemented, which is a result
            ([0x18, 0x04], [0x1C, 0x04, 0, 0x56, 0]),
            // Device and system GUID: UUIDs of version 1, node 52:54:00:b0:00:01, least significant byte first
            ([0x18, 0x08], [0x1C, 0x08, 0, 0x01, 0, 0xB0, 0, 0x54, 0x52, 0, 0x80, 0, 0x10, 0, 0, 0, 0, 0, 0]),
            ([0x18, 0x37], [0x1C, 0x37, 0, 0x01, 0, 0xB0, 0, 0x54, 0x52, 1, 0x80, 0, 0x10, 0, 0, 0, 0, 0, 0]),
            // Reset Watchdog Timer: never initialised
            ([0x18, 0x22], [0x1C, 0x22, 0x80]),
            // Global enables
            ([0x18, 0x2F], [0x1C, 0x2F, 0, 0]),
            ([0x18, 0x2E, 0x01], [0x1C, 0x2E, 0]),
            ([0x18, 0x2E, 0x04], [0x1C, 0x2E, 0xCC]),
            ([0x18, 0x2E], [0x1C, 0x2E, 0xC7]),
            // Messages
            ([0x18, 0x30, 0xFF], [0x1C, 0x30, 0]),
            ([0x18, 0x30], [0x1C, 0x30, 0xC7]),
            ([0x18, 0x31], [0x1C, 0x31, 0, 0]),
            ([0x18, 0x33], [0x1C, 0x33, 0x80]),
            ([0x18, 0x35], [0x1C, 0x35, 0x80]),
            // Channels
            ([0x18, 0x42, 0x0E], [0x1C, 0x42, 0, 0x0F, 0x0C, 0x05, 0, 0xF2, 0x1B, 0, 0xFF, 0xFF]),
            ([0x18, 0x42, 0x0F], [0x1C, 0x42, 0, 0x0F, 0x0C, 0x05, 0, 0xF2, 0x1B, 0, 0xFF, 0xFF]),
            ([0x18, 0x42, 0x00], [0x1C, 0x42, 0xCC]),
            ([0x18, 0x42], [0x1C, 0x42, 0xC7]),
            // Chassis: powered
            ([0x00, 0x01], [0x04, 0x01, 0, 1, 0, 0]),
            // What is not there
            ([0x18, 0xEE], [0x1C, 0xEE, 0xC1]),
            ([0x00, 0x02, 0x00], [0x04, 0x02, 0xC1]),
            ([0x28, 0x43, 1, 2, 3], [0x2C, 0x43, 0xC1]),
            ([0xB0, 0x00], [0xB4, 0x00, 0xC1]),
            // No command in it
            ([0x18], [0x1C, 0x00, 0xC7]),
            ([], [0x04, 0x00, 0xC7]),
        ] as [([UInt8], [UInt8])])
    func `requests and responses`(_ request: [UInt8], _ response: [UInt8]) {
        var handler = handler()
        #expect(handler.respond(to: request) == response)
        #expect(handler.requests == 1 && handler.refusals == (response[2] == 0 ? 0 : 1))
    }

    @Test func `no request of up to three bytes traps, and every one is answered with its command`() {
        var handler = handler()
        for first in UInt8.min...UInt8.max {
            for second in UInt8.min...UInt8.max {
                let response = handler.respond(to: [first, second, 0x0E])
                #expect(response.count >= 3 && response[0] == first | 4 && response[1] == second)
            }
        }
    }

    /// Cycles as a host makes them.
    private struct Wire {
        var system = SystemInterface(IPMIHandler.Identity())
        var interrupt = false
        var edges = 0

        mutating func write(_ port: UInt16, _ byte: UInt8) {
            _ = take(system.answer(.write(tag: 1, port: port, data: byte)))
        }
        mutating func read(_ port: UInt16) -> UInt8 { take(system.answer(.read(tag: 2, port: port))) }

        private mutating func take(_ answers: [LPCMessage]) -> UInt8 {
            for case .interrupt(11, let level) in answers {
                #expect(level != interrupt)
                interrupt = level
                edges += 1
            }
            guard case .sync(_, .ready, let data)? = answers.last else { return 0xFF }
            return data
        }

        mutating func request(_ bytes: [UInt8]) -> [UInt8] {
            write(0xCA3, 0x61)
            for byte in bytes.dropLast() { write(0xCA2, byte) }
            write(0xCA3, 0x62)
            write(0xCA2, bytes.last!)
            var response: [UInt8] = []
            while read(0xCA3) >> 6 == 1 {
                response.append(read(0xCA2))
                write(0xCA2, 0x68)
            }
            _ = read(0xCA2)
            return response
        }
    }

    @Test func `cycles at the interface's ports reach it, others nobody`() {
        var wire = Wire()
        #expect(wire.request([0x18, 0x31]) == [0x1C, 0x31, 0, 0])
        for port in [UInt16(0), 0x80, 0xCA1, 0xCA4, 0xFFFF] {
            #expect(wire.system.answer(.read(tag: 3, port: port)) == [.sync(tag: 3, .none, data: 0xFF)])
            #expect(wire.system.answer(.write(tag: 3, port: port, data: 0)) == [.sync(tag: 3, .none, data: 0xFF)])
        }
        #expect(wire.system.answer(.interrupt(11, level: true)) == [])
        #expect(wire.system.answer(.sync(tag: 1, .ready, data: 0)) == [])
    }

    @Test func `once enabled every byte to read interrupts, and reading it ends that`() {
        var wire = Wire()
        _ = wire.request([0x18, 0x2F])
        #expect(wire.edges == 0)
        #expect(wire.request([0x18, 0x2E, 0x01]) == [0x1C, 0x2E, 0])
        wire.edges = 0
        wire.write(0xCA3, 0x61)
        #expect(wire.interrupt)
        _ = wire.read(0xCA3)
        #expect(wire.interrupt, "status does not end it")
        _ = wire.read(0xCA2)
        #expect(!wire.interrupt && wire.edges == 2)
        #expect(wire.request([0x18, 0x2E, 0x00]) == [0x1C, 0x2E, 0])
        #expect(!wire.interrupt)
    }
}
