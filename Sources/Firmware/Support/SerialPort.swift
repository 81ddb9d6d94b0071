/// A 16550 UART, driven by polling; its receive interrupt can be switched on.
///
/// Spec: PC16550D data sheet, table of registers (offsets before the shift).
struct SerialPort {
    let registers: MMIO
    /// Registers are `1 << shift` bytes apart.
    let shift: UInt
    /// Registers are 32 bits wide (devicetree `reg-io-width = <4>`), not 8.
    let wide: Bool

    private enum Register {
        static let data: UInt = 0
        static let interruptEnable: UInt = 1
        static let fifoControl: UInt = 2
        static let lineControl: UInt = 3
        static let modemControl: UInt = 4
        static let lineStatus: UInt = 5
    }

    private enum LineStatus {
        static let dataReady: UInt8 = 1 << 0
        static let transmitterHoldingEmpty: UInt8 = 1 << 5
    }

    /// Status reads before a byte is given up: a UART that never takes it must not stop a boot. A real one needs
    /// 87 µs a byte at 115200 baud.
    private static let patience = 200_000

    private func read(_ register: UInt) -> UInt8 {
        wide ? UInt8(truncatingIfNeeded: registers.read32(register << shift)) : registers.read8(register << shift)
    }

    private func write(_ register: UInt, _ value: UInt8) {
        if wide {
            registers.write32(register << shift, UInt32(value))
        } else {
            registers.write8(register << shift, value)
        }
    }

    /// 115200 baud, 8 data bits, no parity, one stop bit, FIFOs on and empty, interrupts off.
    /// `clock` is the UART's input clock in hertz; 0 leaves the divisor as it is.
    func configure(clock: UInt32) {
        write(Register.interruptEnable, 0)
        if clock != 0 {
            let divisor = UInt16(truncatingIfNeeded: max(1, clock / (16 * 115_200)))
            write(Register.lineControl, 0x83)
            write(Register.data, UInt8(truncatingIfNeeded: divisor))
            write(Register.interruptEnable, UInt8(truncatingIfNeeded: divisor >> 8))
        }
        write(Register.lineControl, 0x03)
        write(Register.fifoControl, 0x07)
        write(Register.modemControl, 0x0B)
    }

    func send(_ byte: UInt8) {
        var left = Self.patience
        while read(Register.lineStatus) & LineStatus.transmitterHoldingEmpty == 0 {
            left &-= 1
            if left == 0 { return }
        }
        write(Register.data, byte)
    }

    /// The next received byte, or nil when there is none. A port that reads as all ones is not there.
    func receive() -> UInt8? {
        let status = read(Register.lineStatus)
        guard status != 0xFF, status & LineStatus.dataReady != 0 else { return nil }
        return read(Register.data)
    }

    func enableReceiveInterrupt() {
        write(Register.interruptEnable, 0x01)
    }
}

extension DeviceTree {
    /// The first enabled 16550 of the tree.
    func serialPort() -> (node: Node, port: SerialPort, clock: UInt32)? {
        var found: (node: Node, port: SerialPort, clock: UInt32)?
        visit { node in
            guard node.isEnabled, node.isCompatible("ns16550a"), let range = node.register(0),
                let registers = MMIO(base: range.base, size: range.size)
            else { return true }
            let shift = UInt(node.value32("reg-shift") ?? 0)
            guard shift <= 3 else { return true }
            let port = SerialPort(registers: registers, shift: shift, wide: node.value32("reg-io-width") == 4)
            found = (node, port, node.value32("clock-frequency") ?? 0)
            return false
        }
        return found
    }
}
