/// The MSI capability of one function: which message a vector sends, what masks it, what is pending. The registers are
/// in the function's configuration space; this knows where.
///
/// Spec: PCI Express Base §6.1.4, §7.7.1.
struct MSIRegisters: Sendable {
    let offset: Int
    let is64Bit: Bool
    let hasMask: Bool

    /// Of the capability at an offset, as its control word says.
    init(offset: Int, control: UInt16) {
        self.offset = offset
        is64Bit = control & MSIRegister.is64Bit != 0
        hasMask = control & MSIRegister.perVectorMasking != 0
    }

    /// Bytes of the capability.
    var size: Int { hasMask ? (is64Bit ? 24 : 20) : (is64Bit ? 14 : 10) }
    private var data: Int { offset + (is64Bit ? MSIRegister.data64 : MSIRegister.data32) }
    private var mask: Int { offset + (is64Bit ? MSIRegister.mask64 : MSIRegister.mask32) }
    private var pending: Int { mask + 4 }

    /// Writes the capability's registers after reset for so many vectors, a power of two of 1 to 32.
    func reset(_ space: inout ConfigurationSpace, vectors: Int) {
        var control = UInt16(vectors.trailingZeroBitCount) << 1
        if is64Bit { control |= MSIRegister.is64Bit }
        if hasMask { control |= MSIRegister.perVectorMasking }
        space.set16(
            offset + MSIRegister.control, control, writable: MSIRegister.enable | MSIRegister.allocated)
        space.set32(offset + MSIRegister.address, 0, writable: 0xFFFF_FFFC)
        if is64Bit { space.set32(offset + MSIRegister.addressUpper, 0, writable: .max) }
        space.set16(data, 0, writable: .max)
        guard hasMask else { return }
        space.set32(mask, 0, writable: vectors == 32 ? .max : (1 << UInt32(vectors)) - 1)
        space.set32(pending, 0, writable: 0)
    }

    private func control(_ space: ConfigurationSpace) -> UInt16 { space.get16(offset + MSIRegister.control) }

    func isEnabled(_ space: ConfigurationSpace) -> Bool { control(space) & MSIRegister.enable != 0 }

    /// How many vectors software has given it: never more than it has.
    func allocated(_ space: ConfigurationSpace) -> Int {
        let control = control(space)
        return 1 << Int(min((control & MSIRegister.allocated) >> 4, (control & MSIRegister.capable) >> 1, 5))
    }

    private func message(_ space: ConfigurationSpace, _ vector: Int) -> MSIXTable.Message {
        let upper = is64Bit ? UInt64(space.get32(offset + MSIRegister.addressUpper)) << 32 : 0
        let count = UInt16(allocated(space))
        // The low bits of the data are the vector's.
        let data = space.get16(data) & ~(count - 1) | UInt16(vector)
        return MSIXTable.Message(
            address: upper | UInt64(space.get32(offset + MSIRegister.address)), data: UInt32(data))
    }

    /// A vector was raised: the message to send now, or nil and it is pending. Lost while MSI is off.
    func raise(_ space: inout ConfigurationSpace, _ vector: Int, isMaster: Bool) -> MSIXTable.Message? {
        guard isEnabled(space), vector >= 0, vector < allocated(space) else { return nil }
        let bit: UInt32 = 1 << UInt32(vector)
        if isMaster, !hasMask || space.get32(mask) & bit == 0 { return message(space, vector) }
        if hasMask { space.set32(pending, space.get32(pending) | bit) }
        return nil
    }

    /// Takes the messages that were pending and may go out now.
    func release(_ space: inout ConfigurationSpace, isMaster: Bool) -> [MSIXTable.Message] {
        guard hasMask, isMaster, isEnabled(space) else { return [] }
        let free = space.get32(pending) & ~space.get32(mask)
        guard free != 0 else { return [] }
        space.set32(pending, space.get32(pending) & ~free)
        return (0..<allocated(space)).filter { free & 1 << UInt32($0) != 0 }.map { message(space, $0) }
    }
}
