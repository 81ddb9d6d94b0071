// Spec: RISC-V Advanced Interrupt Architecture 1.0 §3.6

extension IMSIC {
    /// Write-only: makes the identity written pending, little-endian.
    static let seteipnumLE: UInt64 = 0x000
    /// Write-only: the same, big-endian.
    static let seteipnumBE: UInt64 = 0x004
}
