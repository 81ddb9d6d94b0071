import FoundationEssentials
import Synchronization
import VFIOUser
import Wire

/// vfio-user's REGION_READ between two processes, beside a ping-pong of the same sizes on the same kind of socket.
///
/// The reference makes the same system calls as both ends of vfio-user do, recvmsg with room for descriptors and send,
/// for a server must take descriptors at any time; cheaper ones (read, write) were measured and change less than the
/// noise. So what is left between the two is the protocol's own work in the caches that a sleep leaves cold.
///
/// The other process is this program again, with the hidden option `--vfio-user-peer` and the socket as descriptor 3.
/// Rounds of both alternate, so that a busy machine hurts both alike. Asleep the figures are medians; awake they are the
/// least disturbed round of each, for two threads that poll need two cores to themselves.
enum VFIOUserBench {
    /// A REGION_READ of four bytes: 32 bytes there, 36 back.
    private static let requestSize = 32
    private static let replySize = 36

    enum Peer: String {
        /// Echoes, and polls for the next message without a pause; after one that begins with 1 it sleeps for it.
        case polled
        /// Echoes, and always sleeps.
        case blocking
        /// Serves a device.
        case device
    }

    // MARK: The other process

    /// Serves on descriptor 3 until the other end closes it.
    static func serve(_ mode: String) throws {
        guard let peer = Peer(rawValue: mode) else { throw BenchPeerError.unknown(mode) }
        endWithParent()
        let socket = Socket(adopting: Descriptor(adopting: 3), kind: .stream)
        guard peer != .device else {
            let server = VFIOUserServer(
                listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: BenchDevice(),
                log: { print($0) })
            return server.serve(socket)
        }
        var buffer = [UInt8](repeating: 0, count: replySize)
        try buffer.withUnsafeMutableBytes { raw in
            raw[0] = 1
            while try receive(requestSize, on: socket, into: raw, waiting: peer == .blocking || raw[0] == 1) {
                try socket.sendShort(UnsafeRawBufferPointer(raw))
            }
        }
    }

    /// Receives exactly so many bytes; false at the end.
    private static func receive(
        _ count: Int, on socket: Socket, into raw: UnsafeMutableRawBufferPointer, waiting: Bool
    ) throws -> Bool {
        var descriptors: [Descriptor] = []
        var got = 0
        while got < count {
            let room = UnsafeMutableRawBufferPointer(rebasing: raw[got..<count])
            switch try socket.receive(into: room, descriptors: &descriptors, waiting: waiting) {
            case .bytes(let more): got += more
            case .end: return false
            case .nothing: continue
            }
        }
        return true
    }

    // MARK: This process

    private static func start(_ peer: Peer) throws -> (ChildProcess, Socket) {
        let (near, far) = try Socket.pair()
        let null = try Descriptor.open("/dev/null", flags: 2)
        let child = try ChildProcess(
            "/proc/self/exe", ["--vfio-user-peer", peer.rawValue], environment: [],
            descriptors: [null, null, null, far.descriptor])
        return (child, near)
    }

    /// One message there and back; `isLast` sends a polling peer to sleep after it.
    private static func pingPong(_ socket: Socket, waiting: Bool, isLast: Bool = false) throws {
        var buffer = [UInt8](repeating: 0, count: replySize)
        if isLast { buffer[0] = 1 }
        try buffer.withUnsafeMutableBytes { raw in
            try socket.sendShort(UnsafeRawBufferPointer(rebasing: raw[..<requestSize]))
            guard try receive(replySize, on: socket, into: raw, waiting: waiting) else {
                throw WireError.closed(inMessage: false)
            }
        }
    }

    /// Nanoseconds that a body takes each time, over so many times.
    private static func time(_ count: Int, _ body: () throws -> Void) rethrows -> Double {
        let start = MonotonicTime.now
        for _ in 0..<count { try body() }
        return Double(MonotonicTime.now.nanoseconds - start.nanoseconds) / Double(count)
    }

    /// Both figures, each with its reference.
    static func measure() throws -> [BenchRow] {
        let (polledChild, polled) = try start(.polled)
        let (blockingChild, blocking) = try start(.blocking)
        let (deviceChild, deviceSocket) = try start(.device)
        defer {
            for socket in [polled, blocking, deviceSocket] { socket.shutdown() }
            for child in [polledChild, blockingChild, deviceChild] { _ = child.wait() }
        }
        let client = try VFIOUserClient(socket: deviceSocket)
        let asleep = try asleepRounds(blocking, client)
        let awake = try awakeRounds(polled, client)
        guard !client.isGone else { throw BenchPeerError.gone(client.goneReason ?? "") }
        return [
            .ratio(
                "vfio-user REGION_READ, both awake", awake.value / 1000, "us", reference: "polled socketpair ping-pong",
                awake.reference / 1000, .lower, than: 1.5),
            .ratio(
                "vfio-user REGION_READ, asleep", asleep.value / 1000, "us", reference: "blocking socketpair ping-pong",
                asleep.reference / 1000, .lower, than: 1.05),
        ]
    }

    private static func awakeRounds(
        _ socket: Socket, _ client: VFIOUserClient
    ) throws -> (value: Double, reference: Double) {
        var values: [Double] = []
        var references: [Double] = []
        for round in 0..<101 {
            references.append(try time(200) { try pingPong(socket, waiting: false) })
            // It must not take a core from the device's round.
            try pingPong(socket, waiting: false, isLast: true)
            values.append(time(200) { _ = client.read(region: 0, offset: 0, width: 4) })
            // The first round warms both up.
            if round == 0 {
                values = []
                references = []
            }
        }
        return (values.min() ?? .nan, references.min() ?? .nan)
    }

    private static func asleepRounds(
        _ socket: Socket, _ client: VFIOUserClient
    ) throws -> (value: Double, reference: Double) {
        let (idle, other) = try Socket.pair()
        defer { other.shutdown() }
        var values: [Double] = []
        var references: [Double] = []
        for round in 0..<1001 {
            pause(idle)
            references.append(try time(1) { try pingPong(socket, waiting: true) })
            pause(idle)
            values.append(time(1) { _ = client.read(region: 0, offset: 0, width: 4) })
            // The first rounds teach the other side that polling does not pay.
            if round == 20 {
                values = []
                references = []
            }
        }
        return (median(values), median(references))
    }

    /// A millisecond asleep: long enough for every other side to sleep too.
    private static func pause(_ idle: Socket) { try? idle.wait(for: .readable, until: .after(.milliseconds(1))) }
}

enum BenchPeerError: Error, CustomStringConvertible {
    case unknown(String)
    case gone(String)

    var description: String {
        switch self {
        case .unknown(let mode): "--vfio-user-peer: no mode \(mode): use polled, blocking or device"
        case .gone(let reason): "the device under measurement is gone: \(reason)"
        }
    }
}

/// One register.
private final class BenchDevice: VFIODevice {
    let dma = DMAAddressSpace()
    let interrupts = InterruptTable()
    private let register = Atomic<UInt32>(0)

    var information: DeviceInfo { DeviceInfo(flags: DeviceInfo.reset, regionCount: 1, irqCount: 5) }
    func region(_ index: UInt32) -> VFIORegion { VFIORegion(length: 4096) }
    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        bytes.storeLittleEndian(UInt64(register.load(ordering: .relaxed)))
    }
    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        register.store(UInt32(truncatingIfNeeded: bytes.littleEndianValue), ordering: .relaxed)
    }
    func reset() {}
}
