extension TestFinisher {
    /// The only register: a command in bits 15:0, a code in bits 31:16. Reads as zero.
    static let command: UInt64 = 0

    /// What software asks for.
    public enum Command: Equatable, Sendable {
        /// 0x5555
        case powerOff
        /// 0x7777
        case reset
        /// 0x3333: the guest ends with a failure.
        case fail(code: UInt16)

        init?(_ value: UInt64) {
            switch value & 0xFFFF {
            case 0x5555: self = .powerOff
            case 0x7777: self = .reset
            case 0x3333: self = .fail(code: UInt16(truncatingIfNeeded: value >> 16))
            default: return nil
            }
        }
    }
}
