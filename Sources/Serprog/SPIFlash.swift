/// The instruction set of SPI NOR flash that masters, chips and gates agree on.
///
/// Spec: JESD216 §6.4 and the Macronix MX25L25635F data sheet, table 5 (command set). Addresses are big-endian.
public enum SPIFlash {
    // Identification.
    public static let readIdentification: UInt8 = 0x9F
    public static let readElectronicSignature: UInt8 = 0xAB
    public static let readManufacturerAndDevice: UInt8 = 0x90
    public static let readSFDP: UInt8 = 0x5A

    // Reading. Three address bytes, or four in 4-byte mode; the 4-byte opcodes always take four.
    public static let read: UInt8 = 0x03
    public static let fastRead: UInt8 = 0x0B
    public static let read4Byte: UInt8 = 0x13
    public static let fastRead4Byte: UInt8 = 0x0C

    // Registers.
    public static let readStatus: UInt8 = 0x05
    public static let readConfiguration: UInt8 = 0x15
    public static let readSecurity: UInt8 = 0x2B
    public static let readExtendedAddress: UInt8 = 0xC8
    public static let writeStatus: UInt8 = 0x01
    public static let writeExtendedAddress: UInt8 = 0xC5

    // Changing the content.
    public static let writeEnable: UInt8 = 0x06
    public static let writeDisable: UInt8 = 0x04
    public static let pageProgram: UInt8 = 0x02
    public static let pageProgram4Byte: UInt8 = 0x12
    public static let sectorErase: UInt8 = 0x20
    public static let sectorErase4Byte: UInt8 = 0x21
    public static let blockErase32K: UInt8 = 0x52
    public static let blockErase32K4Byte: UInt8 = 0x5C
    public static let blockErase64K: UInt8 = 0xD8
    public static let blockErase64K4Byte: UInt8 = 0xDC
    public static let chipErase: UInt8 = 0x60
    public static let chipEraseAlternative: UInt8 = 0xC7

    // Modes.
    public static let enter4ByteMode: UInt8 = 0xB7
    public static let exit4ByteMode: UInt8 = 0xE9
    public static let resetEnable: UInt8 = 0x66
    public static let resetMemory: UInt8 = 0x99
    public static let deepPowerDown: UInt8 = 0xB9
    public static let noOperation: UInt8 = 0x00

    /// Status register bits: write in progress, write enable latch.
    public static let statusBusy: UInt8 = 0x01
    public static let statusWriteEnabled: UInt8 = 0x02

    /// A 4-byte address as it goes over the wire.
    public static func addressBytes(_ address: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: address >> $0) }
    }
}
