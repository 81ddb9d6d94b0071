// The I/O space of the LPC bus as the harts see it: an access is a cycle on the wire, or as many as it has bytes.

public import LPC
public import RISCV

/// A window of 64 KiB on LPC I/O ports: the offset is the port. Accesses of 1, 2 and 4 bytes; without a peer they read
/// ones and write nowhere, as on a bus that nobody drives.
public final class LPCWindow: MachineDevice {
    private let host: LPCHost?
    private let line: InterruptLine

    /// `line` is that of `LPCPort.kcsInterrupt`; whoever makes `host` drives it between resets.
    public init(host: LPCHost?, line: InterruptLine) {
        self.host = host
        self.line = line
    }

    /// The bus goes on over a reset of the harts: what its devices assert stays asserted.
    public func reset() { line.set(host?.isAsserted(LPCPort.kcsInterrupt) ?? false) }

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width != .double else { return nil }
        var value: UInt64 = 0
        // Spec: Intel LPC 1.1 §4.2.1.4: I/O cycles carry one byte; wider accesses are split, low byte first.
        for byte in 0..<width.bytes {
            let data = host?.read(UInt16(truncatingIfNeeded: offset &+ byte)) ?? 0xFF
            value |= UInt64(data) << (8 * byte)
        }
        return value
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width != .double else { return false }
        for byte in 0..<width.bytes {
            host?.write(UInt16(truncatingIfNeeded: offset &+ byte), UInt8(truncatingIfNeeded: value >> (8 * byte)))
        }
        return true
    }
}
