// What a machine is made of, checked before anything is allocated.
public import RISCV

/// Choices that are fixed when a machine is made.
public struct MachineConfiguration: Sendable {
    /// Bytes of RAM, a multiple of 2 MiB.
    public var memorySize: UInt64
    public var hartCount: Int
    public var interrupts: HartConfiguration.InterruptArchitecture
    /// `/chosen/bootargs`.
    public var bootArguments: String?
    /// Files that are in RAM when the harts start.
    public var images: BootImages
    /// Which code is translated to code of the host.
    public var translation: HartConfiguration.Translation
    /// What guest time is made of.
    public var clock: TimeSource.Clock
    /// By the instruction clock: what the RTC shows when the machine is made, in seconds since 1970.
    public var epoch: UInt64
    /// Whether there is an LPC bus, `MemoryMap.lpc`.
    public var hasLPC: Bool

    /// 2026-01-01T00:00:00Z.
    public static let defaultEpoch: UInt64 = 1_767_225_600
    /// To the year 2262, where 63 bits of nanoseconds end.
    public static let epochs: ClosedRange<UInt64> = 0...9_223_372_035

    /// 64 MiB holds OpenSBI and the board's firmware; beyond 64 GiB nobody tests.
    public static let memorySizes: ClosedRange<UInt64> = 64 << 20...64 << 30
    /// A PLIC context and an IMSIC page a hart; the boards we build have no more.
    public static let hartCounts = 1...8

    public init(
        memorySize: UInt64 = 512 << 20, hartCount: Int = 1,
        interrupts: HartConfiguration.InterruptArchitecture = .aia, bootArguments: String? = nil,
        images: BootImages = BootImages(), translation: HartConfiguration.Translation = .hot,
        clock: TimeSource.Clock = .wall, epoch: UInt64 = MachineConfiguration.defaultEpoch,
        hasLPC: Bool = false
    ) {
        self.memorySize = memorySize
        self.hartCount = hartCount
        self.interrupts = interrupts
        self.bootArguments = bootArguments
        self.images = images
        self.translation = translation
        self.clock = clock
        self.epoch = epoch
        self.hasLPC = hasLPC
    }

    /// Where RAM is.
    public var ram: AddressRange { AddressRange(base: MemoryMap.ramBase, size: memorySize) }

    /// Throws what is wrong with it.
    public func check() throws(MachineError) {
        guard Self.memorySizes.contains(memorySize), memorySize % (2 << 20) == 0 else {
            throw .memorySize(memorySize)
        }
        guard Self.hartCounts.contains(hartCount) else { throw .hartCount(hartCount) }
        guard clock == .wall || hartCount == 1 else { throw .instructionClock(hartCount: hartCount) }
        guard Self.epochs.contains(epoch) else { throw .epoch(epoch) }
        do throws(BootImageError) { try bootLayout.check() } catch { throw .image(error) }
    }

    var bootLayout: BootLayout { BootLayout(images, memorySize: memorySize) }

    /// The flattened devicetree of such a machine.
    public var devicetree: [UInt8] {
        let hart = HartConfiguration(interrupts: interrupts)
        return FlattenedDevicetree.bytes(of: MachineDevicetree(configuration: self, hart: hart).root)
    }
}

/// Why a machine cannot be made.
public enum MachineError: Error, Equatable, CustomStringConvertible {
    case memorySize(UInt64)
    case hartCount(Int)
    /// Several harts retire in an order that nobody repeats.
    case instructionClock(hartCount: Int)
    case epoch(UInt64)
    /// The host has no such memory to give.
    case memoryUnavailable(UInt64, reason: String)
    case devicetreeTooLarge(count: Int, room: Int)
    case image(BootImageError)

    public var description: String {
        switch self {
        case .memorySize(let size):
            """
            \(size) bytes of memory: a machine has 64 MiB to 64 GiB in steps of 2 MiB \
            (\(MachineConfiguration.memorySizes.lowerBound) to \(MachineConfiguration.memorySizes.upperBound) bytes)
            """
        case .hartCount(let count): "\(count) harts: a machine has 1 to 8"
        case .instructionClock(let count):
            "\(count) harts by the instruction clock: their order does not repeat; use one hart, or the wall clock"
        case .epoch(let seconds):
            "\(seconds) seconds since 1970: the clock's last second is \(MachineConfiguration.epochs.upperBound)"
        case .memoryUnavailable(let size, let reason):
            "\(size >> 20) MiB of memory cannot be had (\(reason)): use less"
        case .devicetreeTooLarge(let count, let room):
            "the devicetree has \(count) bytes and the boot ROM holds \(room): shorten the boot arguments"
        case .image(let error): error.description
        }
    }
}
