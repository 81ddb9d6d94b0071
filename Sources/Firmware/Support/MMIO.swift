import _Volatile

@_extern(c, "wait_for_interrupt") func waitForInterrupt()
@_extern(c, "memory_barrier") func memoryBarrier()
@_extern(c, "instruction_barrier") func instructionBarrier()

/// A range of device registers. Every access is volatile, checked against the range and naturally aligned; one that
/// fits neither reads as all ones and writes nowhere, as on a bus where nobody answers.
struct MMIO {
    let base: UInt
    let size: UInt

    /// Nil when the range is empty, wraps around the address space or starts at address zero.
    init?(base: UInt64, size: UInt64) {
        guard base != 0, size != 0, !base.addingReportingOverflow(size &- 1).overflow else { return nil }
        self.base = UInt(base)
        self.size = UInt(size)
    }

    private func address(_ offset: UInt, _ width: UInt) -> UInt? {
        guard width <= size, offset <= size &- width, (base &+ offset) & (width &- 1) == 0 else { return nil }
        return base &+ offset
    }

    // Safety: the address lies in a device's range that the devicetree or a BAR gave; `address` checked range and
    // alignment, and the types have no invalid bit patterns.
    func read8(_ offset: UInt) -> UInt8 {
        guard let address = address(offset, 1) else { return .max }
        return unsafe VolatileMappedRegister<UInt8>(unsafeBitPattern: address).load()
    }

    func read16(_ offset: UInt) -> UInt16 {
        guard let address = address(offset, 2) else { return .max }
        return unsafe VolatileMappedRegister<UInt16>(unsafeBitPattern: address).load()
    }

    func read32(_ offset: UInt) -> UInt32 {
        guard let address = address(offset, 4) else { return .max }
        return unsafe VolatileMappedRegister<UInt32>(unsafeBitPattern: address).load()
    }

    func read64(_ offset: UInt) -> UInt64 {
        guard let address = address(offset, 8) else { return .max }
        return unsafe VolatileMappedRegister<UInt64>(unsafeBitPattern: address).load()
    }

    func write8(_ offset: UInt, _ value: UInt8) {
        guard let address = address(offset, 1) else { return }
        unsafe VolatileMappedRegister<UInt8>(unsafeBitPattern: address).store(value)
    }

    func write16(_ offset: UInt, _ value: UInt16) {
        guard let address = address(offset, 2) else { return }
        unsafe VolatileMappedRegister<UInt16>(unsafeBitPattern: address).store(value)
    }

    func write32(_ offset: UInt, _ value: UInt32) {
        guard let address = address(offset, 4) else { return }
        unsafe VolatileMappedRegister<UInt32>(unsafeBitPattern: address).store(value)
    }

    func write64(_ offset: UInt, _ value: UInt64) {
        guard let address = address(offset, 8) else { return }
        unsafe VolatileMappedRegister<UInt64>(unsafeBitPattern: address).store(value)
    }
}
