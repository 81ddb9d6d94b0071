/// Where the firmware's words go: a UART, or another way of saying one byte, or nowhere.
/// Columns are made by widths: text is filled on the right, numbers on the left.
struct Console {
    var port: SerialPort?
    /// Used when there is no port.
    var fallback: (@convention(c) (UInt8) -> Void)?

    func byte(_ byte: UInt8) {
        if let port {
            port.send(byte)
        } else if let fallback {
            fallback(byte)
        }
    }

    func text(_ text: StaticString, width: Int = 0) {
        let bytes = text.bytes
        var index: UInt = 0
        while let byte = bytes.byte(at: index) {
            self.byte(byte)
            index &+= 1
        }
        spaces(width &- text.utf8CodeUnitCount)
    }

    /// Text, then the end of the line.
    func line(_ text: StaticString = "") {
        self.text(text)
        byte(0x0D)
        byte(0x0A)
    }

    func spaces(_ count: Int) {
        var left = count
        while left > 0 {
            byte(0x20)
            left &-= 1
        }
    }

    /// Text from outside: what is not printable ASCII shows as a dot, and at most `limit` bytes show.
    func untrusted(_ bytes: Bytes, limit: UInt = 64, width: Int = 0) {
        var index: UInt = 0
        while index < limit, let byte = bytes.byte(at: index), byte != 0 {
            self.byte((0x20...0x7E).contains(byte) ? byte : 0x2E)
            index &+= 1
        }
        spaces(width &- Int(index))
    }

    func hex(_ value: UInt64, digits: UInt64) {
        var left = digits
        while left > 0 {
            left &-= 1
            let nibble = UInt8(truncatingIfNeeded: value &>> (left &* 4)) & 0xF
            byte(nibble < 10 ? nibble &+ 0x30 : nibble &+ 0x57)
        }
    }

    /// `0x` and as many digits as the value needs, at least 8.
    func address(_ value: UInt64) {
        text("0x")
        hex(value, digits: value > 0xFFFF_FFFF ? (value > 0xFFFF_FFFF_FFFF ? 16 : 12) : 8)
    }

    func decimal(_ value: UInt64, width: Int = 0) {
        var divisor: UInt64 = 1
        var digits = 1
        while value / divisor >= 10 {
            divisor &*= 10
            digits &+= 1
        }
        spaces(width &- digits)
        while divisor > 0 {
            byte(UInt8(truncatingIfNeeded: value / divisor % 10) &+ 0x30)
            divisor /= 10
        }
    }

    /// A count of bytes in the largest binary unit that shows it exactly.
    func size(_ bytes: UInt64, width: Int = 0) {
        if bytes != 0, bytes & 0x3FFF_FFFF == 0 {
            decimal(bytes >> 30, width: width)
            text(" GiB")
        } else if bytes != 0, bytes & 0xF_FFFF == 0 {
            decimal(bytes >> 20, width: width)
            text(" MiB")
        } else if bytes != 0, bytes & 0x3FF == 0 {
            decimal(bytes >> 10, width: width)
            text(" KiB")
        } else {
            decimal(bytes, width: width)
            text(" B  ")
        }
    }
}
