import FoundationEssentials
import QMP
import Synchronization
import TestKit
import Testing
import Wire

/// A vfio-user server that shares no code with ours: bytes as the specification draws them, one device with one BAR.
private final class RawServer: Sendable {
    private struct State {
        var space = [UInt8](repeating: 0, count: 256)
        var commands: Set<UInt16> = []
        var reads: Set<Int> = []
        var socket: Socket?
    }

    private let listener: Listener
    private let state: Mutex<State>

    init(path: String) throws {
        listener = try Listener(path: path)
        var state = State()
        // 1234:5678, an unassigned class, BAR 0 in memory, INTA#.
        for (place, byte) in [(0, 0x34), (1, 0x12), (2, 0x78), (3, 0x56), (11, 0xFF), (0x3D, 1)] {
            state.space[place] = UInt8(byte)
        }
        self.state = Mutex(state)
        WorkerThread("raw-server") { [self] in
            guard let socket = try? listener.accept(until: .after(.seconds(20))) else { return }
            keep(socket)
            while serve(socket) {}
            socket.shutdown()
        }
    }

    private func keep(_ socket: Socket) { state.withLock { $0.socket = socket } }

    /// Numbers of the commands that came, and the places in configuration space that were read.
    var seen: (commands: Set<UInt16>, reads: Set<Int>) { state.withLock { ($0.commands, $0.reads) } }

    func leave() {
        state.withLock { $0.socket }?.shutdown()
        listener.shutdown()
    }

    private func exactly(_ count: Int, _ socket: Socket) -> [UInt8]? {
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard let more = try? socket.receiveBytes(limit: count - bytes.count), !more.isEmpty else { return nil }
            bytes += more
        }
        return bytes
    }

    private static func number(_ bytes: [UInt8], _ place: Int, _ count: Int) -> Int {
        (0..<count).reduce(0) { $0 | Int(bytes[place + $1]) << ($1 * 8) }
    }

    private static func little(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    /// One command; false when the client has left.
    private func serve(_ socket: Socket) -> Bool {
        guard let head = exactly(16, socket) else { return false }
        let size = Self.number(head, 4, 4)
        guard size >= 16, size <= 1 << 20, let payload = exactly(size - 16, socket) else { return false }
        let command = Self.number(head, 2, 2)
        state.withLock { _ = $0.commands.insert(UInt16(command)) }
        let reply = answer(command, payload)
        if Self.number(head, 8, 4) & 16 != 0 { return true }
        let body = reply ?? []
        // Type 1 is a reply; bit 5 an error, ENOTSUP.
        let header =
            Array(head[..<4]) + Self.little(16 + body.count, 4) + Self.little(reply == nil ? 0x21 : 1, 4)
            + Self.little(reply == nil ? 95 : 0, 4)
        return (try? socket.send(header + body)) != nil
    }

    private func answer(_ command: Int, _ payload: [UInt8]) -> [UInt8]? {
        let little = Self.little
        switch command {
        case 1:
            let json = #"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":4096}}"#
            return [0, 0, 1, 0] + Array(json.utf8) + [0]
        case 2, 8, 13: return []
        case 3: return payload
        case 4: return little(16, 4) + little(3, 4) + little(9, 4) + little(5, 4)
        case 5:
            let index = Self.number(payload, 8, 4)
            let length = index == 0 ? 4096 : index == 7 ? 256 : 0
            return little(32, 4) + little(length == 0 ? 0 : 3, 4) + little(index, 4) + little(0, 4)
                + little(length, 8) + little(0, 8)
        case 7:
            let index = Self.number(payload, 8, 4)
            return little(16, 4) + little(index == 0 ? 7 : 1, 4) + little(index, 4) + little(index == 0 ? 1 : 0, 4)
        case 9, 10:
            guard payload.count >= 16 else { return nil }
            let (offset, region) = (Self.number(payload, 0, 8), Self.number(payload, 8, 4))
            let count = Self.number(payload, 12, 4)
            let limit = region == 0 ? 4096 : region == 7 ? 256 : 0
            guard offset >= 0, count >= 0, count <= limit, offset <= limit - count else { return nil }
            let access = Array(payload[..<16])
            return state.withLock { state in
                guard command == 9 else {
                    if region == 7, payload.count == 16 + count, offset < 0x10 {
                        // Command and status are all that software may write here.
                        for index in 0..<count where (4..<8).contains(offset + index) {
                            state.space[offset + index] = payload[16 + index]
                        }
                    }
                    return access
                }
                guard region == 7 else { return access + [UInt8](repeating: 0x5A, count: count) }
                for place in offset..<offset + count { state.reads.insert(place) }
                return access + state.space[offset..<offset + count]
            }
        default: return nil
        }
    }
}

@Suite struct `a foreign vfio-user server at a root port` {
    @Test func `the host takes the device that another program serves, and notices that it leaves`() throws {
        let folder = TemporaryFolder()
        let server = try RawServer(path: folder.file("foreign"))
        defer { server.leave() }
        try Data(Program.count).write(to: URL(filePath: folder.file("program")))
        let host = try ComponentProcess(
            "host-cpu", in: folder,
            [
                "--firmware", folder.file("program"), "--memory", "64MiB", "--connect",
                "rp0=\(folder.file("foreign"))",
            ])
        let slot = try #require(try host.control.execute("query-pcie-ports")[0])
        #expect(slot["present"] == true && slot["link"] == true)
        // It was asked what it is, and its identity was read.
        let seen = server.seen
        #expect(seen.commands.isSuperset(of: [1, 4, 5, 7, 9]))
        #expect(seen.reads.isSuperset(of: [0, 1, 2, 3, 0x3D]))
        server.leave()
        let event = try host.control.waitForEvent("DEVICE_DELETED", until: .after(.seconds(20)))
        #expect(event.data["bus"] == "rp0")
        #expect(try host.control.execute("query-pcie-ports")[0]?["present"] == false)
    }
}
