// What Entry.S offers to Swift.

@_extern(c, "sbi_call") func sbiCall(
    _ extension: UInt, _ function: UInt, _ a0: UInt, _ a1: UInt, _ a2: UInt, _ value: UnsafeMutablePointer<UInt>?
) -> Int

/// Handles what is pending; interrupts are taken inside of this call only, so no state changes behind Swift's back.
@_extern(c, "take_interrupts") func takeInterrupts()
@_extern(c, "enable_interrupts") func enableInterrupts(_ bits: UInt)
@_extern(c, "disable_interrupts") func disableInterrupts(_ bits: UInt)
@_extern(c, "read_time") func readTime() -> UInt64

@_extern(c, "imsic_write") func imsicWrite(_ register: UInt, _ value: UInt)
@_extern(c, "imsic_set") func imsicSet(_ register: UInt, _ bits: UInt)
@_extern(c, "imsic_claim") func imsicClaim() -> UInt

@_extern(c, "arena_start") func arenaStart() -> UInt
@_extern(c, "arena_end") func arenaEnd() -> UInt

/// Bits of sie and numbers of scause. Spec: RISC-V Privileged 20240411 §10.1.3, §10.1.8.
enum Interrupt {
    static let timer: UInt = 5
    static let external: UInt = 9
    static let flag: UInt = 1 << 63
}
