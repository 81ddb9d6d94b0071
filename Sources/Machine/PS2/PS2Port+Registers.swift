// Spec: Altera University Program "PS/2 Controller" core, register map

extension PS2Port {
    /// Bits 7:0 data, 15 the data is valid, 31:16 how many bytes are there, this one counted. Reading takes a byte,
    /// writing sends one to the keyboard.
    static let data: UInt64 = 0
    /// Bit 0 enables the receive interrupt, bit 8 shows it.
    static let control: UInt64 = 4

    static let valid: UInt64 = 1 << 15
    static let enable: UInt64 = 1 << 0
    static let pending: UInt64 = 1 << 8

    /// Bytes that the receive queue holds.
    static let capacity = 256
}
