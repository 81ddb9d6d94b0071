import Synchronization
import VFIOUser
import Wire

/// A device to test with: region 0 is 4 KiB of registers, region 1 a doorbell of 8 bytes whose writes are handed to a
/// closure, region 2 shared memory that may be mapped, region 3 read-only.
final class ScratchDevice: VFIODevice {
    let dma = DMAAddressSpace()
    let interrupts = InterruptTable(intx: 1, msix: 4, error: 1, request: 1)
    let shared: SharedMemory
    let registers = Mutex([UInt8](repeating: 0, count: 4096))
    let resets = Atomic<Int>(0)
    let mapChanges = Atomic<Int>(0)
    let onDoorbell = Mutex<(@Sendable (UInt64) -> Void)?>(nil)
    let doorbells = Mutex<[RegionIOEvent]>([])
    let hooks = Mutex<(any DeviceMigration)?>(nil)

    init() throws { shared = try SharedMemory(create: "scratch", size: 16384) }

    var information: DeviceInfo { DeviceInfo(flags: DeviceInfo.reset, regionCount: 4, irqCount: 5) }

    func region(_ index: UInt32) -> VFIORegion {
        switch index {
        case 0: VFIORegion(length: 4096)
        case 1: VFIORegion(length: 8, isReadable: false)
        case 2:
            VFIORegion(
                length: 16384,
                shared: .init(
                    descriptor: shared.descriptor,
                    areas: [.init(offset: 0, length: 4096), .init(offset: 8192, length: 4096)]))
        default: VFIORegion(length: 16, isWritable: false)
        }
    }

    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        guard index == 0 else { throw .notSupported }
        let copy = registers.withLock { $0 }
        for place in 0..<bytes.byteCount {
            bytes.storeBytes(of: copy[Int(offset) + place], toByteOffset: place, as: UInt8.self)
        }
    }

    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        if index == 1 {
            let value = bytes.littleEndianValue
            onDoorbell.withLock { $0 }?(value)
            return
        }
        guard index == 0 else { throw .notSupported }
        for place in 0..<bytes.byteCount {
            let byte = bytes.uint8(at: place)
            registers.withLock { $0[Int(offset) + place] = byte }
        }
    }

    func reset() {
        resets.add(1, ordering: .relaxed)
        registers.withLock { registers in
            for place in registers.indices { registers[place] = 0 }
        }
    }

    func ioEvents(_ region: UInt32) -> [RegionIOEvent] { region == 0 ? doorbells.withLock { $0 } : [] }
    var migration: (any DeviceMigration)? { hooks.withLock { $0 } }
    func dmaMapsChanged() { mapChanges.add(1, ordering: .relaxed) }
}

/// Memory that a client answers DMA messages from.
final class ScratchMemory: ClientMemory {
    let base: UInt64
    let bytes: Mutex<[UInt8]>

    init(base: UInt64, count: Int) {
        self.base = base
        bytes = Mutex([UInt8](repeating: 0, count: count))
    }

    private func place(_ address: IOVirtualAddress, _ count: Int, of all: Int) throws(ErrorNumber) -> Int {
        guard address.rawValue >= base, let place = Int(exactly: address.rawValue - base), place <= all - count,
            count <= all
        else { throw .badAddress }
        return place
    }

    func read(_ address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        let all = self.bytes.withLock { $0 }
        let start = try place(address, bytes.byteCount, of: all.count)
        for index in 0..<bytes.byteCount {
            bytes.storeBytes(of: all[start + index], toByteOffset: index, as: UInt8.self)
        }
    }

    func write(_ address: IOVirtualAddress, from bytes: RawSpan) throws(ErrorNumber) {
        let start = try place(address, bytes.byteCount, of: self.bytes.withLock { $0.count })
        for index in 0..<bytes.byteCount {
            let byte = bytes.uint8(at: index)
            self.bytes.withLock { $0[start + index] = byte }
        }
    }
}

/// Lines that a server logged.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
}

/// A server on one end of a socket pair, on a thread of its own, and the other end.
final class ServedDevice: Sendable {
    let device: ScratchDevice
    let socket: Socket
    let log = LogLines()
    let ended = Atomic<Bool>(false)
    private let server: VFIOUserServer

    /// The server leaves its client.
    func stop() { server.stop() }

    init(tap: LinkTap = LinkTap()) throws {
        device = try ScratchDevice()
        let (near, far) = try Socket.pair()
        socket = near
        let log = log
        let listener = try Listener(adopting: Socket.pair().0.descriptor, kind: .stream)
        server = VFIOUserServer(listener: listener, device: device, tap: tap) { log.add($0) }
        let server = server
        WorkerThread("server") { [self] in
            server.serve(far)
            ended.store(true, ordering: .releasing)
        }
    }

    func client(memory: (any ClientMemory)? = nil) throws -> VFIOUserClient {
        try VFIOUserClient(socket: socket, memory: memory)
    }
}

/// Waits for a condition, at most some seconds; false when it did not come.
func eventually(within: Duration = .seconds(10), _ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(within)
    while !condition() {
        if MonotonicTime.now > deadline { return false }
        try? Socket.pair().0.wait(for: .readable, until: .after(.milliseconds(1)))
    }
    return true
}

/// Waits until an eventfd was raised, at most some seconds.
func raised(_ notifier: EventNotifier) -> Bool {
    let socket = Socket(adopting: notifier.descriptor, kind: .stream)
    guard (try? socket.wait(for: .readable, until: .after(.seconds(10)))) != nil else { return false }
    return notifier.drain()
}
