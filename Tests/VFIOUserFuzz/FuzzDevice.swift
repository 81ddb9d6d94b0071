internal import Synchronization
internal import VFIOUser
internal import Wire

/// A device that does with memory whatever it is told: region 0 is 4 KiB of registers with doorbells, region 1 a
/// command of 8 bytes (operation, then address), region 2 memory in two parts, region 3 read-only.
final class FuzzDevice: VFIODevice {
    let dma = DMAAddressSpace()
    let interrupts = InterruptTable(intx: 1, msi: 2, msix: 4, error: 1, request: 1)
    private let shared: SharedMemory
    private let registers = Mutex([UInt8](repeating: 0, count: 4096))
    private let doorbell: EventNotifier
    private let isRunning = Atomic<Bool>(true)
    private let wakeUps: (near: Socket, far: Socket)

    init() throws {
        shared = try SharedMemory(create: "fuzz-device", size: 16384)
        doorbell = try EventNotifier()
        let (near, far) = try Socket.pair()
        wakeUps = (near, far)
    }

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

    func ioEvents(_ region: UInt32) -> [RegionIOEvent] {
        region == 0
            ? [.init(offset: 0x100, width: 4, notifier: doorbell), .init(offset: 0x108, match: 3, notifier: doorbell)]
            : []
    }

    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        guard index == 0 else { return bytes.fill(with: 0x33) }
        for place in 0..<bytes.byteCount {
            let byte = registers.withLock { $0[Int(offset) + place] }
            bytes.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
        }
    }

    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        if index == 1 { return obey(bytes.littleEndianValue) }
        guard index == 0 else { throw .notSupported }
        for place in 0..<bytes.byteCount {
            let byte = bytes.uint8(at: place)
            registers.withLock { $0[Int(offset) + place] = byte }
        }
    }

    /// The lowest three bits are what to do, the others where, in eighths of a page.
    private func obey(_ command: UInt64) {
        let address = IOVirtualAddress((command >> 3) << 9)
        do throws(DMAError) {
            switch command & 7 {
            case 0: _ = try dma.load(UInt32.self, at: address)
            case 1: try dma.store(command, at: address)
            case 2: _ = try dma.read(at: address, count: 5000)
            case 3: try dma.write([UInt8](repeating: 1, count: 777), at: address)
            case 4: try use(address)
            case 5:
                for kind in InterruptTable.Kind.allCases {
                    interrupts.raise(kind, vector: UInt32(truncatingIfNeeded: command >> 3))
                }
            case 6: interrupts.setINTx(command & 8 != 0)
            default: try? wakeUps.near.send([1], descriptors: [])
            }
        } catch {
            registers.withLock { $0[0] &+= 1 }
        }
    }

    private func use(_ address: IOVirtualAddress) throws(DMAError) {
        try dma.hold { (memory) throws(DMAError) in
            for _ in 0..<4 {
                let value = try memory.load(UInt64.self, at: address)
                try memory.store(value &+ 1, at: address)
            }
            if let place = memory.pointer(at: address, count: 64, writing: true) {
                place.storeBytes(of: 7, as: UInt8.self)
                _ = try memory.read(at: address, count: 9)
            }
        }
    }

    /// A second thread of the device, which reaches memory while the serving thread does: until `stop`.
    func runThread() -> WorkerThread {
        WorkerThread("fuzz-device") { [self] in
            var number: UInt64 = 0
            while isRunning.load(ordering: .acquiring) {
                guard (try? wakeUps.far.wait(for: .readable, until: nil)) != nil,
                    let bytes = try? wakeUps.far.receiveBytes(limit: 64), !bytes.isEmpty
                else { return }
                doorbell.drain()
                for _ in 0..<8 {
                    number &+= 4096
                    try? use(IOVirtualAddress(number & 0xFFFF))
                    interrupts.raise(.msix, vector: UInt32(truncatingIfNeeded: (number >> 12) & 3))
                }
            }
        }
    }

    func stop() {
        isRunning.store(false, ordering: .releasing)
        wakeUps.near.shutdown()
    }

    func reset() { registers.withLock { $0 = [UInt8](repeating: 0, count: 4096) } }

    var migration: (any DeviceMigration)? { Hooks(device: self) }

    private final class Hooks: DeviceMigration {
        let device: FuzzDevice
        init(device: FuzzDevice) { self.device = device }
        var maximumStateSize: Int { 4096 }
        var savesWhileRunning: Bool { true }
        func stop() {}
        func resume() {}
        func save() -> [UInt8] { device.registers.withLock { $0 } }
        func restore(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
            guard state.count == 4096 else { throw .invalid }
            device.registers.withLock { $0 = state }
        }
    }
}
