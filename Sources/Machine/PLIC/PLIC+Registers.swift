// Spec: RISC-V PLIC 1.0.0 §2 (memory map)

extension PLIC {
    /// A decoded offset. Context 2h is hart h's machine level, 2h + 1 its supervisor level.
    enum Register: Equatable {
        /// 0…7; 0 never interrupts.
        case priority(source: Int)
        /// Read-only bits.
        case pending(word: Int)
        case enable(context: Int, word: Int)
        /// Sources of a priority at or below it are masked.
        case threshold(context: Int)
        /// Read claims the best source, write completes it.
        case claim(context: Int)
        case reserved

        init(offset: UInt64) {
            switch offset {
            case 0..<0x1000: self = .priority(source: Int(offset / 4))
            case 0x1000..<0x1080: self = .pending(word: Int((offset - 0x1000) / 4))
            case 0x2000..<0x20_0000:
                let relative = offset - 0x2000
                self = .enable(context: Int(relative / 0x80), word: Int(relative % 0x80 / 4))
            case 0x20_0000...:
                let relative = offset - 0x20_0000
                switch relative % 0x1000 {
                case 0: self = .threshold(context: Int(relative / 0x1000))
                case 4: self = .claim(context: Int(relative / 0x1000))
                default: self = .reserved
                }
            default: self = .reserved
            }
        }
    }
}
