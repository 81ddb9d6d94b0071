// What a hart is connected by, made before the hart: interrupt controllers are part of the address map, and the map is
// complete before the first hart is made.

/// The wires into one hart: its interrupt lines and its interrupt files.
public struct HartWires: Sendable {
    public let signals: HartSignals
    public let machineInterruptFile: InterruptFile
    public let supervisorInterruptFile: InterruptFile

    public init() {
        signals = HartSignals()
        machineInterruptFile = InterruptFile(signals: signals)
        supervisorInterruptFile = InterruptFile(signals: signals)
    }
}

extension InterruptFile {
    /// A register as `miselect`/`siselect` 0x70…0xFF show it, for monitors and tests.
    package func register(_ select: UInt64) -> UInt64? { readRegister(select) }
}
