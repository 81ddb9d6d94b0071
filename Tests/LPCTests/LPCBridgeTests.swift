import LPC
import SecurityLogic
import Synchronization
import TestKit
import Testing
import Wire

/// A bridge with both its peers by hand.
final class BridgeBench: Sendable {
    let thread: LoopThread
    let bridge: LPCBridge
    let folder = TemporaryFolder()
    let host: Socket
    private let heard: Heard

    final class Heard: Sendable {
        let codes = Mutex<[UInt8]>([])
        let denials = Mutex<[LPCBridge.Denial]>([])
        let lines = Mutex<[String]>([])
    }

    init() throws {
        thread = try LoopThread()
        let heard = Heard()
        self.heard = heard
        bridge = LPCBridge(
            loop: thread.loop, host: try Listener(path: folder.file("lpc-host"), kind: .seqpacket),
            bmc: try Listener(path: folder.file("lpc-bmc"), kind: .seqpacket),
            onPostCode: { code in heard.codes.withLock { $0.append(code) } },
            onDenial: { denial in heard.denials.withLock { $0.append(denial) } },
            report: { line in heard.lines.withLock { $0.append(line) } })
        try bridge.start()
        host = try Socket.connect(to: folder.file("lpc-host"), kind: .seqpacket)
    }

    deinit { thread.end() }

    func connectBMC() throws -> Socket { try Socket.connect(to: folder.file("lpc-bmc"), kind: .seqpacket) }

    var codes: [UInt8] { heard.codes.withLock { $0 } }
    var denials: [LPCBridge.Denial] { heard.denials.withLock { $0 } }
    var lines: [String] { heard.lines.withLock { $0 } }
}

extension Socket {
    func say(_ message: LPCMessage) throws { try send(message.encoded) }

    /// The next message; an empty one's refusal when the wire has ended.
    func hear() throws -> LPCMessage {
        try LPCMessage(decoding: try receiveBytes(limit: 16, until: .after(.seconds(20))) ?? [])
    }
}

@Suite struct LPCBridgeTests {
    @Test func `POST codes end in the logic, connected or not, and the last one can be read`() throws {
        let bench = try BridgeBench()
        let bmc = try bench.connectBMC()
        for (tag, connected) in [(UInt8(1), false), (2, true)] {
            bench.bridge.setConnected(connected)
            try bench.host.say(.write(tag: tag, port: 0x80, data: 0x40 + tag))
            #expect(try bench.host.hear() == .sync(tag: tag, .ready, data: 0xFF))
            // The SYNC comes after the code's effects.
            #expect(bench.codes.last == 0x40 + tag)
            try bench.host.say(.read(tag: tag, port: 0x80))
            #expect(try bench.host.hear() == .sync(tag: tag, .ready, data: 0x40 + tag))
        }
        #expect(bench.bridge.statistics.postCodes == 2 && bench.bridge.statistics.postCode == 0x42)
        #expect(throws: WireError.timedOut) { try bmc.receiveBytes(limit: 16, until: .now) }
    }

    /// As the security logic does at boot complete: it takes them apart by the loop.
    @Test func `what a POST code has put off to the loop is done before its SYNC`() throws {
        let thread = try LoopThread()
        defer { thread.end() }
        let folder = TemporaryFolder()
        let order = Mutex<[String]>([])
        let bridge = LPCBridge(
            loop: thread.loop, host: try Listener(path: folder.file("lpc-host"), kind: .seqpacket), bmc: nil,
            onPostCode: { [loop = thread.loop] _ in loop.perform { order.withLock { $0.append("effect") } } },
            onDenial: { _ in })
        try bridge.start()
        let host = try Socket.connect(to: folder.file("lpc-host"), kind: .seqpacket)
        for round in 1...200 {
            try host.say(.write(tag: UInt8(round), port: 0x80, data: 0xAA))
            #expect(try host.hear() == .sync(tag: UInt8(round), .ready, data: 0xFF))
            #expect(order.withLock { $0.count } == round)
        }
    }

    @Test func `KCS cycles pass while connected and float while not, and the BMC sees none of those`() throws {
        let bench = try BridgeBench()
        let bmc = try bench.connectBMC()
        try bench.host.say(.read(tag: 1, port: 0xCA3))
        #expect(try bench.host.hear() == .sync(tag: 1, .none, data: 0xFF))
        bench.bridge.setConnected(true)
        #expect(eventually { try! self.isForwarded(bench, bmc) })
        try bench.host.say(.write(tag: 9, port: 0xCA2, data: 0x18))
        #expect(try bmc.hear() == .write(tag: 9, port: 0xCA2, data: 0x18))
        try bmc.say(.sync(tag: 9, .ready, data: 0xFF))
        #expect(try bench.host.hear() == .sync(tag: 9, .ready, data: 0xFF))
        bench.bridge.setConnected(false)
        for tag in UInt8(10)..<20 {
            try bench.host.say(.write(tag: tag, port: 0xCA3, data: 0x61))
            #expect(try bench.host.hear() == .sync(tag: tag, .none, data: 0xFF))
        }
        #expect(throws: WireError.timedOut) { try bmc.receiveBytes(limit: 16, until: .now) }
        #expect(bench.bridge.statistics.denied >= 11)
        #expect(bench.denials.map(\.count).starts(with: [1, 2, 4, 8]))
        #expect(bench.denials.allSatisfy { (0xCA2...0xCA3).contains($0.port) })
    }

    /// Reads Status once; true when the cycle reached the BMC, which may not have been accepted yet.
    private func isForwarded(_ bench: BridgeBench, _ bmc: Socket) throws -> Bool {
        try bench.host.say(.read(tag: 7, port: 0xCA3))
        while true {
            if (try? bmc.wait(for: .readable, until: .now)) != nil {
                guard try bmc.hear() == .read(tag: 7, port: 0xCA3) else { return false }
                try bmc.say(.sync(tag: 7, .ready, data: 0x00))
                return try bench.host.hear() == .sync(tag: 7, .ready, data: 0x00)
            }
            if (try? bench.host.wait(for: .readable, until: .after(.milliseconds(5)))) != nil {
                #expect(try bench.host.hear() == .sync(tag: 7, .none, data: 0xFF))
                return false
            }
        }
    }

    @Test func `ports of nobody float, and so do KCS's without a BMC`() throws {
        let bench = try BridgeBench()
        bench.bridge.setConnected(true)
        for (tag, port) in [UInt16(0), 0x60, 0x81, 0xCA1, 0xCA2, 0xCA3, 0xCA4, 0xFFFF].enumerated() {
            try bench.host.say(.read(tag: UInt8(tag), port: port))
            #expect(try bench.host.hear() == .sync(tag: UInt8(tag), .none, data: 0xFF))
        }
        #expect(bench.bridge.statistics.denied == 0 && bench.bridge.statistics.forwarded == 0)
    }

    @Test func `taking them apart ends the cycle that the BMC still has, and its late answer goes nowhere`() throws {
        let bench = try BridgeBench()
        let bmc = try bench.connectBMC()
        bench.bridge.setConnected(true)
        #expect(eventually { try! self.isForwarded(bench, bmc) })
        try bench.host.say(.read(tag: 30, port: 0xCA2))
        #expect(try bmc.hear() == .read(tag: 30, port: 0xCA2))
        bench.bridge.setConnected(false)
        #expect(try bench.host.hear() == .sync(tag: 30, .none, data: 0xFF))
        try bmc.say(.sync(tag: 30, .ready, data: 0x99))
        bench.bridge.setConnected(true)
        #expect(try self.isForwarded(bench, bmc))
    }

    @Test func `the BMC's interrupt reaches the host while connected, falls with the connection and with the BMC`()
        throws
    {
        let bench = try BridgeBench()
        let bmc = try bench.connectBMC()
        try bmc.say(.interrupt(11, level: true))
        bench.bridge.setConnected(true)
        #expect(try bench.host.hear() == .interrupt(11, level: true))
        bench.bridge.setConnected(false)
        #expect(try bench.host.hear() == .interrupt(11, level: false))
        bench.bridge.setConnected(true)
        #expect(try bench.host.hear() == .interrupt(11, level: true))
        bmc.shutdown()
        #expect(try bench.host.hear() == .interrupt(11, level: false))
        // A new BMC is heard again.
        let next = try bench.connectBMC()
        try next.say(.interrupt(11, level: true))
        #expect(try bench.host.hear() == .interrupt(11, level: true))
    }

    @Test func `what a side may not say is ignored with a line, and the wire goes on`() throws {
        let bench = try BridgeBench()
        let bmc = try bench.connectBMC()
        bench.bridge.setConnected(true)
        #expect(eventually { try! self.isForwarded(bench, bmc) })
        for bytes in [[0x99], [0x02, 1], [UInt8](repeating: 0, count: 100)] {
            try bmc.send(bytes)
            try bench.host.send(bytes)
        }
        try bmc.say(.read(tag: 1, port: 0x80))
        try bmc.say(.interrupt(3, level: true))
        try bench.host.say(.interrupt(11, level: true))
        try bench.host.say(.sync(tag: 1, .ready, data: 0))
        #expect(eventually { bench.lines.count == 6 }, "\(bench.lines)")
        #expect(try self.isForwarded(bench, bmc))
    }

    @Test func `a second peer on a side is closed`() throws {
        let bench = try BridgeBench()
        try bench.host.say(.read(tag: 1, port: 0))
        _ = try bench.host.hear()
        let second = try Socket.connect(to: bench.folder.file("lpc-host"), kind: .seqpacket)
        #expect(try second.receiveBytes(limit: 16, until: .after(.seconds(20))) == nil)
    }
}
