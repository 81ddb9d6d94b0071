/// Bus, device and function of one PCI function.
struct FunctionAddress {
    var bus: UInt8 = 0
    var device: UInt8 = 0
    var function: UInt8 = 0
}

/// Configuration space through ECAM: 4 KiB a function. Spec: PCIe 6.0 §7.2.2.
struct ConfigurationSpace {
    let ecam: MMIO
    /// The bus at the start of the ECAM range, and the last that it holds.
    let firstBus: UInt8
    let lastBus: UInt8

    enum Register {
        static let identity: UInt = 0x00
        static let command: UInt = 0x04
        static let status: UInt = 0x06
        static let classRevision: UInt = 0x08
        static let headerType: UInt = 0x0E
        static let baseAddress0: UInt = 0x10
        static let primaryBus: UInt = 0x18
        static let secondaryBus: UInt = 0x19
        static let subordinateBus: UInt = 0x1A
        static let ioBase: UInt = 0x1C
        static let ioLimit: UInt = 0x1D
        static let memoryBase: UInt = 0x20
        static let memoryLimit: UInt = 0x22
        static let prefetchableBase: UInt = 0x24
        static let prefetchableLimit: UInt = 0x26
        static let prefetchableBaseUpper: UInt = 0x28
        static let prefetchableLimitUpper: UInt = 0x2C
        /// Type 0 headers: subsystem vendor and subsystem.
        static let subsystem: UInt = 0x2C
        static let ioBaseUpper: UInt = 0x30
        static let ioLimitUpper: UInt = 0x32
        static let capabilities: UInt = 0x34
    }

    enum Command {
        static let io: UInt16 = 1 << 0
        static let memory: UInt16 = 1 << 1
        static let busMaster: UInt16 = 1 << 2
        static let decode: UInt16 = io | memory
    }

    enum CapabilityID {
        static let pciExpress: UInt8 = 0x10
        static let msiX: UInt8 = 0x11
    }

    private func offset(_ address: FunctionAddress, _ register: UInt) -> UInt {
        guard address.bus >= firstBus else { return .max }
        return UInt(address.bus &- firstBus) << 20 | UInt(address.device & 31) << 15 | UInt(address.function & 7) << 12
            | (register & 0xFFF)
    }

    func read8(_ address: FunctionAddress, _ register: UInt) -> UInt8 { ecam.read8(offset(address, register)) }
    func read16(_ address: FunctionAddress, _ register: UInt) -> UInt16 { ecam.read16(offset(address, register)) }
    func read32(_ address: FunctionAddress, _ register: UInt) -> UInt32 { ecam.read32(offset(address, register)) }
    func write8(_ address: FunctionAddress, _ register: UInt, _ value: UInt8) {
        ecam.write8(offset(address, register), value)
    }
    func write16(_ address: FunctionAddress, _ register: UInt, _ value: UInt16) {
        ecam.write16(offset(address, register), value)
    }
    func write32(_ address: FunctionAddress, _ register: UInt, _ value: UInt32) {
        ecam.write32(offset(address, register), value)
    }

    /// The offset of a capability, or nil. A list that runs in circles ends after as many steps as fit.
    func capability(_ wanted: UInt8, of address: FunctionAddress) -> UInt? {
        guard read16(address, Register.status) & 1 << 4 != 0 else { return nil }
        var pointer = UInt(read8(address, Register.capabilities)) & 0xFC
        var steps = 48
        while pointer >= 0x40, steps > 0 {
            steps &-= 1
            let header = read16(address, pointer)
            if UInt8(truncatingIfNeeded: header) == wanted { return pointer }
            pointer = UInt(header >> 8) & 0xFC
        }
        return nil
    }

    /// Changes command bits and leaves the rest of the register (the status half is written as zero: no effect).
    func setCommand(_ address: FunctionAddress, set: UInt16, clear: UInt16) {
        let command = read16(address, Register.command)
        write16(address, Register.command, (command & ~clear) | set)
    }
}
