// A keyboard at the far end of a PS/2 line, as a pure value: bytes of the host in, bytes for the host out.
//
// It has one key, the power key; what a driver asks while it looks for a keyboard is answered as every keyboard does.
// Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboard"; scan code set 2.

/// A PS/2 keyboard.
struct PS2Keyboard {
    /// What it answers.
    private enum Reply {
        static let acknowledge: UInt8 = 0xFA
        static let resend: UInt8 = 0xFE
        static let selfTestPassed: UInt8 = 0xAA
        static let echo: UInt8 = 0xEE
        static let identity: [UInt8] = [0xAB, 0x83]
    }

    /// Make and break of the power key in set 2.
    private static let powerPressed: [UInt8] = [0xE0, 0x37]
    private static let powerReleased: [UInt8] = [0xE0, 0xF0, 0x37]

    /// Off by the command Disable: keys are not sent.
    private var isScanning = true
    /// The command whose argument comes next.
    private var pending: UInt8?

    /// Takes a byte of the host; what the keyboard answers.
    mutating func take(_ byte: UInt8) -> [UInt8] {
        if let command = pending, byte < 0x80 {
            pending = nil
            // Which set is in use, asked by argument 0: always 2, the only one that it has.
            if command == 0xF0, byte == 0 { return [Reply.acknowledge, 2] }
            if command == 0xF0, byte != 2 { return [Reply.resend] }
            return [Reply.acknowledge]
        }
        // A command in the place of an argument ends the one before.
        pending = nil
        switch byte {
        case 0xED, 0xF0, 0xF3:  // LEDs, scan code set, repeat rate
            pending = byte
            return [Reply.acknowledge]
        case 0xEE: return [Reply.echo]
        case 0xF2: return [Reply.acknowledge] + Reply.identity
        case 0xF4:  // Enable
            isScanning = true
            return [Reply.acknowledge]
        case 0xF5:  // Disable, and defaults
            isScanning = false
            return [Reply.acknowledge]
        case 0xF6:  // Defaults
            isScanning = true
            return [Reply.acknowledge]
        case 0xFF:  // Reset
            self = PS2Keyboard()
            return [Reply.acknowledge, Reply.selfTestPassed]
        default: return [Reply.resend]
        }
    }

    /// The power key is pressed and let go.
    func pressPower() -> [UInt8] { isScanning ? Self.powerPressed + Self.powerReleased : [] }
}
