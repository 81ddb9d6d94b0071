import Glibc
import PCIe
import Synchronization
import Testing
import VFIOUser
import Wire

/// Devices of other people: conventional ones without capabilities, with I/O space, an expansion ROM, memory that may
/// be mapped in part, INTx alone.
struct ForeignDeviceTests {
    private func plug(_ device: ForeignDevice) throws -> Board {
        let (near, far) = try Socket.pair()
        let server = VFIOUserServer(
            listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: device
        ) { _ in }
        WorkerThread("foreign") { server.serve(far) }
        let board = try Board(ports: 1)
        try board.root.attach(port: 0, client: VFIOUserClient(socket: near))
        // I/O windows and addresses as firmware gives them: the walk of these tests knows memory only.
        board.write(0, 1, 0x18, 0x01_01_00)
        board.write(0, 1, 0x1C, width: 2, 0x1010)
        board.write(0, 1, 0x20, 0x4000_4000)
        board.write(0, 1, 4, width: 2, 7)
        board.write(1, 0, 0x10, 0x4000_0000)
        board.write(1, 0, 0x18, 0x1000)
        board.write(1, 0, 0x30, 0x4008_0001)
        board.write(1, 0, 4, width: 2, 7)
        return board
    }

    @Test func `I/O space leads to the device, and only where it is open`() throws {
        let board = try plug(ForeignDevice())
        #expect(board.read(1, 0, 0x18) == 0x1001)
        board.root.ioWrite(0x1004, width: 2, value: 0xBEEF)
        #expect(board.root.ioRead(0x1004, width: 2) == 0xBEEF && board.root.ioRead(0x1006, width: 4) == 0)
        #expect(board.root.ioRead(0x1100, width: 1) == 0xFF && board.root.ioRead(0xFFFF, width: 2) == 0xFFFF)
        #expect(board.root.ioRead(.max, width: 1) == 0xFF && board.root.ioRead(0x1004, width: 8) == .max)
        board.write(1, 0, 4, width: 2, 6)
        #expect(board.root.ioRead(0x1004, width: 2) == 0xFFFF)
        board.write(1, 0, 4, width: 2, 7)
        board.write(0, 1, 0x1C, width: 2, 0x00F0)
        #expect(board.root.ioRead(0x1004, width: 2) == 0xFFFF)
        // The register's size, as software asks for it.
        board.write(1, 0, 0x18, 0xFFFF_FFFF)
        #expect(board.read(1, 0, 0x18) == 0xFFFF_FF01)
    }

    @Test func `an expansion ROM is read where it is enabled, and never written`() throws {
        let device = ForeignDevice()
        let board = try plug(device)
        #expect(board.root.memoryRead(0x4008_0000, width: 2) == 0xAA55)
        board.root.memoryWrite(0x4008_0000, width: 2, value: 0)
        #expect(board.root.memoryRead(0x4008_0000, width: 2) == 0xAA55 && device.writes == 0)
        board.write(1, 0, 0x30, 0x4008_0000)
        #expect(board.root.memoryRead(0x4008_0000, width: 2) == 0xFFFF)
        board.write(1, 0, 0x30, 0xFFFF_F801)
        #expect(board.read(1, 0, 0x30) == 0xFFFF_F001)
    }

    /// With a file that cannot shrink the second page of BAR 0 is reached without the device; with another it is asked.
    @Test(arguments: [true, false])
    func `memory that may be mapped is, unless the device could take it back`(_ isSealed: Bool) throws {
        let device = ForeignDevice(isSealed: isSealed)
        let board = try plug(device)
        board.root.memoryWrite(0x4000_1010, width: 4, value: 0x1234_5678)
        #expect(board.root.memoryRead(0x4000_1010, width: 4) == 0x1234_5678)
        #expect(device.writes == (isSealed ? 0 : 1))
        // The first page is not for mapping.
        board.root.memoryWrite(0x4000_0010, width: 4, value: 7)
        #expect(device.writes == (isSealed ? 1 : 2) && board.root.memoryRead(0x4000_0010, width: 4) == 7)
        // A file that is cut harms nobody.
        device.cutFile()
        _ = board.root.memoryRead(0x4000_1010, width: 4)
        #expect(board.root.isLinkUp(port: 0))
    }

    @Test func `INTx alone is enough, and its status is shown for a device that shows none`() throws {
        let device = ForeignDevice()
        let board = try plug(device)
        #expect(board.read(1, 0, 0x34, width: 1) == 0 && board.read(1, 0, 0x3D, width: 1) == 2)
        device.interrupts.setINTx(true)
        #expect(eventually { board.outputs.lines == ["1.1 true"] })
        #expect(board.read(1, 0, 6, width: 2) == 8)
        device.interrupts.setINTx(false)
        // An access by the mapping ends it as one by message does.
        _ = board.root.memoryRead(0x4000_1000, width: 4)
        #expect(board.outputs.lines == ["1.1 true", "1.1 false"] && board.read(1, 0, 6, width: 2) == 0)
    }

    @Test func `an error cannot be logged in a device without PCI Express`() throws {
        let board = try plug(ForeignDevice())
        #expect(try board.root.inject(.correctable(0), at: FunctionPlace(port: 0)) == false)
    }
}

/// A conventional device: BAR 0 two pages, BAR 2 256 bytes of I/O, a ROM of 4 KiB, INTB.
private final class ForeignDevice: VFIODevice {
    let information = DeviceInfo(flags: 3, regionCount: 9, irqCount: 1)
    let dma = DMAAddressSpace()
    let interrupts = InterruptTable(intx: 1)
    private let file: Descriptor
    private let state = Mutex((configuration: [UInt8](), registers: [UInt64: UInt8](), writes: 0))

    init(isSealed: Bool = true) {
        var configuration = [UInt8](repeating: 0, count: 256)
        configuration[0...3] = [0xAD, 0xDE, 0xEF, 0xBE]
        configuration[0x18] = 1
        configuration[0x3D] = 2
        state.withLock { $0.configuration = configuration }
        if isSealed {
            file = try! SharedMemory(create: "foreign", size: 8192).descriptor
        } else {
            file = Descriptor(adopting: memfd_create("foreign", UInt32(MFD_CLOEXEC)))
            ftruncate(file.rawValue, 8192)
        }
    }

    var writes: Int { state.withLock { $0.writes } }
    func cutFile() { ftruncate(file.rawValue, 0) }

    func region(_ index: UInt32) -> VFIORegion {
        switch index {
        case 0:
            VFIORegion(
                length: 8192, shared: .init(descriptor: file, areas: [.init(offset: 4096, length: 4096)]))
        case 2: VFIORegion(length: 256)
        case 6: VFIORegion(length: 4096, isWritable: false)
        case 7: VFIORegion(length: 256)
        default: VFIORegion(length: 0)
        }
    }

    private func key(_ index: UInt32, _ offset: UInt64) -> UInt64 { UInt64(index) << 32 | offset }

    func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        if index == 6 { return bytes.storeLittleEndian(0xAA55) }
        let copy = state.withLock { $0 }
        for place in 0..<bytes.byteCount {
            let at = offset + UInt64(place)
            let byte = index == 7 ? copy.configuration[Int(at)] : copy.registers[key(index, at)] ?? 0
            bytes.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
        }
    }

    func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        let values = (0..<bytes.byteCount).map { bytes.uint8(at: $0) }
        state.withLock { state in
            if index != 7 { state.writes += 1 }
            for (place, value) in values.enumerated() {
                let at = offset + UInt64(place)
                // Of configuration space it keeps the command register alone.
                if index == 7 {
                    if at == 4 { state.configuration[4] = value }
                } else {
                    state.registers[key(index, at)] = value
                }
            }
        }
    }

    func reset() {}
}
