import Foundation
import QMP
import TestKit
import Testing
import Wire

/// Debian's virtio_net on the functions of an adapter card, unmodified. BASEBOARD_LONG=1: 10^6 frames instead of some
/// thousands.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct LinuxNetworkTests {
    private static let frames = ProcessInfo.processInfo.environment["BASEBOARD_LONG"] == nil ? 5_000 : 1_000_000

    /// A host whose first slot holds an adapter card of two functions, booted to its shell.
    final class CardHost {
        let card: ComponentProcess
        let host: LoneHost
        var console: GuestConsole { host.console }

        init() throws {
            card = try ComponentProcess("adapter-card", listens: ["pcie", "pcie1", "eth-ext"])
            host = try LoneHost([
                "--kernel", Guest.kernel, "--initrd", Guest.deviceInitramfs,
                "--connect", "rp0=\(card.folder.file("adapter-card.pcie"))",
                "--connect", "rp0.1=\(card.folder.file("adapter-card.pcie1"))",
            ])
            try Guest.waitForShell(console)
        }

        /// Runs a command that must succeed; what it printed.
        @discardableResult
        func run(_ command: String) throws -> String {
            let (status, output) = try console.run(command)
            #expect(status == 0, "\(command): \(output)")
            return output
        }

        /// A switch port's counters.
        func port(_ name: String) throws -> JSONValue {
            let ports = try card.control.execute("query-ports").arrayValue ?? []
            return try #require(ports.first { $0["name"]?.stringValue == name })
        }

        func netcheck(_ peer: String, _ frames: Int) throws {
            let output = try run("netcheck eth0 \(peer) \(frames)")
            #expect(output == "netcheck: \(frames) frames, none lost or changed\n")
        }
    }

    @Test func `virtio_net binds, carries frames between two functions, and comes back after unbinding under load`()
        throws
    {
        let it = try CardHost()
        for (function, mac) in [(0, "52:54:00:ad:00:01"), (1, "52:54:00:ad:00:02")] {
            let folder = "/sys/bus/pci/devices/0000:01:00.\(function)"
            #expect(try it.run("cat \(folder)/vendor \(folder)/device") == "0x1af4\n0x1041\n")
            #expect(try it.run("basename $(readlink \(folder)/driver)") == "virtio-pci\n")
            #expect(try it.run("cat \(folder)/virtio*/net/eth*/address") == mac + "\n")
            #expect(try it.run("basename $(readlink \(folder)/virtio*/driver)") == "virtio_net\n")
        }
        // Each queue pair of its own vectors, none of them shared by the pin.
        #expect(try it.run("grep -c 'virtio[01]-input.0' /proc/interrupts") == "2\n")
        try it.run("ip link set eth0 up; ip link set eth1 up")
        try it.netcheck("eth1", Self.frames)
        let sent = try it.port("pcie")
        #expect((sent["received-frames"]?.integerValue ?? 0) >= Self.frames)
        #expect(sent["received-dropped"] == 0 || (sent["received-dropped"]?.integerValue ?? .max) < 10)
        #expect(try it.port("pcie1")["sent-dropped"] == 0)

        let drivers = ["/sys/bus/virtio/drivers/virtio_net", "/sys/bus/pci/drivers/virtio-pci"]
        for (round, driver) in (drivers + drivers).enumerated() {
            let name = driver.contains("pci/") ? "0000:01:00.1" : "virtio1"
            // Under load: frames are under way to the function that goes.
            try it.run("netcheck eth0 eth1 100000000 \(round) >/tmp/load 2>&1 & sleep 0.2")
            try it.run("echo \(name) >\(driver)/unbind; wait; cat /tmp/load; ! ip link show eth1 2>/dev/null")
            try it.run("echo \(name) >\(driver)/bind")
            try it.run("ip link set eth1 up")
            try it.netcheck("eth1", 500)
        }
        let functions = try #require(try it.card.control.execute("query-adapter")["functions"]?.arrayValue)
        #expect(functions.count == 2)
        for function in functions { #expect(function["driver-running"] == true && function["needs-reset"] == false) }
    }

    @Test func `a station behind the external port answers pings and sends back every frame`() throws {
        let it = try CardHost()
        let station = Station(try it.card.connect("eth-ext"))
        defer { station.end() }
        try it.run("ip addr add 192.168.9.1/24 dev eth0; ip link set eth0 up")
        #expect(
            try it.run("ping -c 3 -A 192.168.9.9").contains("3 packets transmitted, 3 packets received, 0% packet loss")
        )
        try it.netcheck(Station.name, Self.frames / 2)
        #expect(try it.port("eth-ext")["sent-dropped"] == 0)
        #expect(
            try it.card.control.execute("query-stations").arrayValue?.contains {
                $0["mac"]?.stringValue == Station.name && $0["port"]?.stringValue == "eth-ext"
            } == true)
    }
}

/// A station on an Ethernet link: 192.168.9.9. Answers ARP and pings, and sends frames of netcheck back.
private final class Station: Sendable {
    static let name = "52:54:00:00:00:99"
    private static let octets: [UInt8] = [0x52, 0x54, 0, 0, 0, 0x99]
    private static let address: [UInt8] = [192, 168, 9, 9]

    private let socket: Socket
    private let thread: WorkerThread

    init(_ socket: Socket) {
        self.socket = socket
        thread = WorkerThread("station") {
            let peer = FramePeer(socket: socket)
            while let frame = try? peer.next(within: .seconds(600)) {
                if let answer = Self.answer(frame) { try? peer.send(answer) }
            }
        }
    }

    func end() {
        socket.shutdown()
        thread.join()
    }

    private static func answer(_ frame: [UInt8]) -> [UInt8]? {
        guard frame.count >= 42 else { return nil }
        let source = Array(frame[6..<12])
        let isForUs = Array(frame[..<6]) == octets
        switch UInt16(frame[12]) << 8 | UInt16(frame[13]) {
        case 0x88B5 where isForUs: return source + octets + frame[12...]
        case 0x0806 where frame[20...21] == [0, 1] && Array(frame[38..<42]) == address:
            // Spec: RFC 826.
            return source + octets + frame[12..<20] + [0, 2] + octets + address + frame[22..<32]
        case 0x0800 where isForUs && frame[23] == 1 && frame[34] == 8:
            // An echo reply differs in its type, and so its checksum by as much (RFC 792).
            var answer = source + octets + frame[12..<26] + address + frame[26..<30] + frame[34...]
            answer[34] = 0
            var sum = UInt32(answer[36]) << 8 | UInt32(answer[37])
            sum += 0x0800
            sum = (sum & 0xFFFF) + (sum >> 16)
            answer[36] = UInt8(sum >> 8)
            answer[37] = UInt8(truncatingIfNeeded: sum)
            return answer
        default: return nil
        }
    }
}
