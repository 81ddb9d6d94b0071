// Where everything is: the map of the well-known RISC-V `virt` machine.

/// A range of physical addresses.
public struct AddressRange: Sendable, Hashable {
    public var base: UInt64
    public var size: UInt64

    public init(base: UInt64, size: UInt64) {
        self.base = base
        self.size = size
    }

    /// One beyond the last address.
    public var end: UInt64 { base &+ size }

    /// Whether `count` bytes from `address` lie inside.
    public func contains(_ address: UInt64, count: UInt64 = 1) -> Bool {
        let offset = address &- base
        return offset < size && size - offset >= count
    }
}

/// The physical address map; docs/wiring.md ("Boot on the host") is its prose.
public enum MemoryMap {
    public static let bootROM = AddressRange(base: 0x1000, size: 0xF000)
    public static let testFinisher = AddressRange(base: 0x10_0000, size: 0x1000)
    public static let rtc = AddressRange(base: 0x10_1000, size: 0x1000)
    public static let clint = AddressRange(base: 0x200_0000, size: 0x1_0000)
    public static let pciePortIO = AddressRange(base: 0x300_0000, size: 0x1_0000)
    public static let plic = AddressRange(base: 0xC00_0000, size: 0x60_0000)
    public static let machineAPLIC = AddressRange(base: 0xC00_0000, size: 0x8000)
    public static let supervisorAPLIC = AddressRange(base: 0xD00_0000, size: 0x8000)
    public static let uart = AddressRange(base: 0x1000_0000, size: 0x100)
    /// Not of the `virt` machine, where these addresses are empty: the power button's keyboard.
    public static let ps2 = AddressRange(base: 0x1001_0000, size: 0x1000)
    /// Not of the `virt` machine either: LPC I/O space, where a machine has one.
    public static let lpc = AddressRange(base: 0x1002_0000, size: 0x1_0000)
    public static let flash = AddressRange(base: 0x2000_0000, size: 0x200_0000)
    /// One page a hart.
    public static let machineIMSICBase: UInt64 = 0x2400_0000
    /// One page a hart.
    public static let supervisorIMSICBase: UInt64 = 0x2800_0000
    public static let pcieECAM = AddressRange(base: 0x3000_0000, size: 0x1000_0000)
    public static let pcieMemory32 = AddressRange(base: 0x4000_0000, size: 0x4000_0000)
    public static let ramBase: UInt64 = 0x8000_0000

    /// The 64-bit PCIe window: 16 GiB at the first multiple of 16 GiB at or above the end of RAM, so 0x4_0000_0000 up
    /// to 14 GiB of RAM.
    public static func pcieMemory64(memorySize: UInt64) -> AddressRange {
        let size: UInt64 = 0x4_0000_0000
        let end = ramBase &+ memorySize
        return AddressRange(base: max(size, (end &+ (size - 1)) & ~(size - 1)), size: size)
    }
}

/// Sources of the platform's interrupt controller.
public enum InterruptSource {
    public static let count = 96
    public static let uart = 10
    public static let rtc = 11
    public static let ps2 = 12
    /// SERIRQ of the BMC's KCS interface.
    public static let lpc = 13
    /// INTA…INTD of device 0; a device's pin p is wired to source 32 + (device + p) mod 4.
    public static let pcieBase = 32
}
