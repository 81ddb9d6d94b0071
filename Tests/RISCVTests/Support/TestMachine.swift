// The least of a `virt` machine that the test programs need, around one or more harts.
import Foundation
import RISCV
import Synchronization

/// RAM at 0x8000_0000, a UART that collects, a finisher that stops, a CLINT.
final class TestMachine {
    static let ramBase: UInt64 = 0x8000_0000
    let ram: UnsafeMutableRawPointer
    let ramSize: Int
    let space = PhysicalAddressSpace()
    let time: TimeSource
    let wires: [HartWires]
    private(set) var harts: [Hart] = []
    let uart = CollectingUART()

    init(
        harts count: Int = 1, image: [UInt8], ramSize: Int = 64 << 20,
        configuration: HartConfiguration = HartConfiguration(), translation: HartConfiguration.Translation? = nil,
        clock: TimeSource.Clock = .wall, extend: (PhysicalAddressSpace) -> Void = { _ in }
    ) {
        time = TimeSource(clock)
        self.ramSize = ramSize
        var configuration = configuration
        if let translation { configuration.translation = translation }
        ram = mmap(nil, ramSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        wires = (0..<count).map { _ in HartWires() }
        ram.copyMemory(from: image, byteCount: image.count)
        space.addMemory(base: Self.ramBase, size: UInt64(ramSize), host: ram)
        space.addDevice(base: 0x1000_0000, size: 0x100, device: uart)
        space.addDevice(base: 0x10_0000, size: 0x1000, device: Finisher(wires.map(\.signals)))
        space.addDevice(base: 0x200_0000, size: 0x10000, device: SmallCLINT(wires.map(\.signals), time))
        extend(space)
        harts = wires.enumerated().map { [configuration] index, wires in
            Hart(
                id: UInt64(index), configuration: configuration, addressSpace: space, timeSource: time,
                resetVector: Self.ramBase, wires: wires)
        }
    }

    deinit { munmap(ram, ramSize) }

    /// Runs hart 0 until the program stops the machine; the lines it printed, or `nil` if it did not stop in time.
    func run(within limit: Duration = .seconds(30)) -> [String]? {
        let deadline = ContinuousClock.now + limit
        while ContinuousClock.now < deadline {
            switch harts[0].run(budget: 10_000_000) {
            case .stopRequested: return GuestProgram.lines(uart.text)
            case .waitForInterrupt: harts[0].waitForInterrupt()
            case .budget, .kicked, .resetRequested, .breakpoint: break
            }
        }
        return nil
    }

    /// A doubleword of RAM.
    func load(_ address: UInt64) -> UInt64 {
        ram.load(fromByteOffset: Int(address - Self.ramBase), as: UInt64.self)
    }

    func store(_ address: UInt64, _ value: UInt64) {
        ram.storeBytes(of: value, toByteOffset: Int(address - Self.ramBase), as: UInt64.self)
    }

    /// Instructions, from an address on.
    func store(code: [UInt32], at address: UInt64) {
        for (index, word) in code.enumerated() {
            ram.storeBytes(of: word, toByteOffset: Int(address - Self.ramBase) + index * 4, as: UInt32.self)
        }
    }
}

/// Keeps what is written to its first register; always ready.
final class CollectingUART: MemoryMappedDevice {
    private let bytes = Mutex<[UInt8]>([])
    var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
    func read(offset: UInt64, width: AccessWidth) -> UInt64? { offset == 5 ? 0x60 : 0 }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        if offset == 0 { bytes.withLock { $0.append(UInt8(truncatingIfNeeded: value)) } }
        return true
    }
}

/// Stops every hart at a write of 0x5555.
final class Finisher: MemoryMappedDevice {
    private let signals: [HartSignals]
    init(_ signals: [HartSignals]) { self.signals = signals }
    func read(offset: UInt64, width: AccessWidth) -> UInt64? { 0 }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        if offset == 0 && value == 0x5555 { signals.forEach { $0.requestStop() } }
        return true
    }
}

/// msip, mtimecmp and mtime.
final class SmallCLINT: MemoryMappedDevice {
    private let signals: [HartSignals]
    private let time: TimeSource
    init(_ signals: [HartSignals], _ time: TimeSource) {
        self.signals = signals
        self.time = time
    }
    func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        switch offset {
        case 0xBFF8: return time.ticks
        case 0x4000..<0x4000 + UInt64(signals.count) * 8: return signals[Int(offset - 0x4000) / 8].machineTimerDeadline
        case 0..<UInt64(signals.count) * 4: return signals[Int(offset) / 4].level(of: .machineSoftware) ? 1 : 0
        default: return nil
        }
    }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        switch offset {
        case 0x4000..<0x4000 + UInt64(signals.count) * 8:
            signals[Int(offset - 0x4000) / 8].machineTimerDeadline = value
        case 0..<UInt64(signals.count) * 4: signals[Int(offset) / 4].set(.machineSoftware, value & 1 != 0)
        default: return false
        }
        return true
    }
}
