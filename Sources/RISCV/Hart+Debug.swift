// A hart under a debugger: everything here is for the thread that owns it, while it does not run.

extension Hart {
    /// What a debugger's access may reach beside RAM and ROM.
    public struct DebugReach: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Devices, whose registers may change by being read.
        public static let devices = DebugReach(rawValue: 1)
        /// Memory that is filled when it is first touched, over a wire that must be ready for it.
        public static let demandFilled = DebugReach(rawValue: 2)
    }

    // Safety (all below): see `state`; register numbers are checked.

    /// Whether no interrupt is taken: a single step then is the next instruction, not a handler's first.
    public var masksInterrupts: Bool {
        get { unsafe state.pointee.masksInterrupts }
        set { unsafe state.pointee.masksInterrupts = newValue }
    }

    /// Ends a WFI that waits, as the architecture allows at any time.
    public func endWait() { unsafe state.pointee.isWaiting = false }

    /// Takes the exception of an EBREAK at `pc`, for one that `run` stopped at and that is the guest's own.
    public func takeBreakpointException() {
        unsafe state.pointee.fault(.breakpoint, state.pointee.pc)
        unsafe state.pointee.takeException()
    }

    /// Sets the bits of a floating-point register, 0…31.
    public func setF(_ number: Int, _ value: UInt64) {
        precondition(0..<32 ~= number, "f registers are numbered 0 to 31")
        unsafe state.pointee.f[UInt8(number)] = value
        if unsafe state.pointee.hasFloatState { unsafe state.pointee.noteFloatState() }
    }

    /// A CSR's value for a debugger: as `csr`, and fflags, frm and fcsr while floating point is off, too.
    public func debugCSR(_ number: UInt32) -> UInt64? {
        switch number {
        case 0x001: unsafe UInt64(state.pointee.fflags)
        case 0x002: unsafe UInt64(state.pointee.frm)
        case 0x003: unsafe UInt64(state.pointee.frm) << 5 | UInt64(state.pointee.fflags)
        default: csr(number)
        }
    }

    /// Sets a CSR as CSRRW in machine mode would. False: there is none, or it is read-only.
    public func setCSR(_ number: UInt32, _ value: UInt64) -> Bool {
        unsafe state.pointee.debugSetCSR(number & 0xFFF, value)
    }

    /// Sets the privilege mode: 0 user, 1 supervisor, 3 machine. False for another.
    public func setMode(_ mode: UInt64) -> Bool {
        guard let privilege = Privilege(encoding: mode) else { return false }
        unsafe state.pointee.privilege = privilege
        unsafe state.pointee.updateContexts()
        return true
    }

    /// The physical address behind `address` as the current mode translates it, whatever the page permits; A and D
    /// stay as they are. `nil`: nothing is mapped there.
    public func physicalAddress(of address: UInt64) -> UInt64? { unsafe state.pointee.debugTranslate(address) }

    /// Up to `count` bytes of physical memory, past PMP; fewer where memory ends.
    public func readPhysical(_ address: UInt64, count: Int, reach: DebugReach = []) -> [UInt8] {
        unsafe state.pointee.debugRead(address, count: count, reach)
    }

    /// Writes physical memory, past PMP. False when not all of it can be written; what comes before that is.
    public func writePhysical(_ address: UInt64, _ bytes: [UInt8], reach: DebugReach = []) -> Bool {
        unsafe state.pointee.debugWrite(address, bytes, reach)
    }

    /// Whether `count` bytes from a physical address are memory that can be written.
    public func isWritableMemory(_ address: UInt64, count: Int) -> Bool {
        unsafe state.pointee.isWritableMemory(address, count: count)
    }

    /// Whether `count` bytes from a physical address are memory of any kind.
    public func isMemory(_ address: UInt64, count: Int) -> Bool {
        guard let region = unsafe state.pointee.region(at: address, count: UInt64(count)) else { return false }
        return region.device == nil
    }
}
