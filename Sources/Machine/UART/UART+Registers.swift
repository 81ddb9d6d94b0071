// Spec: TL16C550C (SLLS177) §"Principles of operation", registers one byte apart

extension UART {
    /// Offsets; 0 and 1 depend on `LCR.DLAB`, 2 on the direction.
    static let rbrThrDll: UInt64 = 0
    static let ierDlm: UInt64 = 1
    static let iirFcr: UInt64 = 2
    static let lcr: UInt64 = 3
    static let mcr: UInt64 = 4
    static let lsr: UInt64 = 5
    static let msr: UInt64 = 6
    static let scr: UInt64 = 7

    /// Interrupt enables.
    struct InterruptEnable: OptionSet {
        var rawValue: UInt8
        static let receivedData = InterruptEnable(rawValue: 0x01)
        static let transmitterEmpty = InterruptEnable(rawValue: 0x02)
        static let lineStatus = InterruptEnable(rawValue: 0x04)
        static let modemStatus = InterruptEnable(rawValue: 0x08)
        static let implemented = InterruptEnable(rawValue: 0x0F)
    }

    /// `IIR` bits 3:0 in falling priority; bits 7:6 are ones while the FIFOs are on.
    enum InterruptIdentification: UInt8 {
        case none = 0x01
        case lineStatus = 0x06
        case receivedData = 0x04
        case characterTimeout = 0x0C
        case transmitterEmpty = 0x02
        case modemStatus = 0x00
    }

    struct FIFOControl: OptionSet {
        var rawValue: UInt8
        static let enable = FIFOControl(rawValue: 0x01)
        static let clearReceiver = FIFOControl(rawValue: 0x02)
        static let clearTransmitter = FIFOControl(rawValue: 0x04)
    }

    /// Received bytes that raise the interrupt, by `FCR` bits 7:6.
    static let triggerLevels = [1, 4, 8, 14]

    struct ModemControl: OptionSet {
        var rawValue: UInt8
        static let dtr = ModemControl(rawValue: 0x01)
        static let rts = ModemControl(rawValue: 0x02)
        static let out1 = ModemControl(rawValue: 0x04)
        static let out2 = ModemControl(rawValue: 0x08)
        static let loopback = ModemControl(rawValue: 0x10)
        static let implemented = ModemControl(rawValue: 0x1F)
    }

    struct LineStatus: OptionSet {
        var rawValue: UInt8
        static let dataReady = LineStatus(rawValue: 0x01)
        static let overrun = LineStatus(rawValue: 0x02)
        static let transmitterHoldingEmpty = LineStatus(rawValue: 0x20)
        static let transmitterEmpty = LineStatus(rawValue: 0x40)
    }

    /// `MSR`: bits 7:4 are DCD, RI, DSR, CTS, bits 3:0 say which changed.
    struct ModemStatus: OptionSet {
        var rawValue: UInt8
        static let cts = ModemStatus(rawValue: 0x10)
        static let dsr = ModemStatus(rawValue: 0x20)
        static let ri = ModemStatus(rawValue: 0x40)
        static let dcd = ModemStatus(rawValue: 0x80)
        static let deltas = ModemStatus(rawValue: 0x0F)
    }

    static let dlab: UInt8 = 0x80
    static let fifoDepth = 16
}
