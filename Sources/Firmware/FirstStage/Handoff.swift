import _Volatile

/// What hart 0 leaves in RAM for the assembly of every hart, and for OpenSBI.
///
/// ```
///  0 u64 OpenSBI's entry             32 u64 fw_dynamic_info magic      56 u64 next stage's mode
///  8 u64 devicetree                  40 u64 version                    64 u64 options
/// 16 u64 address of the info (+32)   48 u64 next stage's address       72 u64 boot hart
/// 24 u64 software interrupt registers
/// ```
/// The boot hart is who relocates OpenSBI, not who boots: that is whichever hart comes first (sbi_init.c).
/// Spec: OpenSBI include/sbi/fw_dynamic.h (version 2).
struct Handoff {
    let memory: MMIO

    private static let infoOffset: UInt = 32
    /// "OSBI".
    private static let magic: UInt64 = 0x4942_534F
    private static let version: UInt64 = 2
    private static let supervisorMode: UInt64 = 1

    init?(at address: UInt) {
        guard let memory = MMIO(base: UInt64(address), size: 80) else { return nil }
        self.memory = memory
    }

    func write(opensbi: UInt64, deviceTree: UInt64, softwareInterrupts: UInt64, nextStage: UInt64, bootHart: UInt64) {
        memory.write64(0, opensbi)
        memory.write64(8, deviceTree)
        memory.write64(16, UInt64(memory.base &+ Self.infoOffset))
        memory.write64(24, softwareInterrupts)
        memory.write64(32, Self.magic)
        memory.write64(40, Self.version)
        memory.write64(48, nextStage)
        memory.write64(56, Self.supervisorMode)
        memory.write64(64, 0)
        memory.write64(72, bootHart)
    }
}
