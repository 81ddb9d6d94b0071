// The chips there are: two of one family, which differ in size and identity.
// Spec: Macronix MX25L25635F and MX66L1G45G data sheets; JESD216B for their parameter tables.

/// A kind of serial NOR flash chip.
public struct SPINORModel: Sendable, Hashable {
    public let name: String
    /// Bytes of the memory array: a power of two.
    public let size: Int
    /// Manufacturer, memory type, density. Spec: data sheet, "ID definitions".
    public let identification: [UInt8]
    let electronicSignature: UInt8

    /// 32 MiB.
    public static let mx25l25635f = SPINORModel(
        name: "MX25L25635F", size: 32 * 1024 * 1024, identification: [0xC2, 0x20, 0x19], electronicSignature: 0x18)
    /// 128 MiB.
    public static let mx66l1g45g = SPINORModel(
        name: "MX66L1G45G", size: 128 * 1024 * 1024, identification: [0xC2, 0x20, 0x1B], electronicSignature: 0x1A)

    public static let all: [SPINORModel] = [.mx25l25635f, .mx66l1g45g]

    /// The model of this name, in any case.
    public init?(named name: String) {
        guard let model = Self.all.first(where: { $0.name == name.uppercased() }) else { return nil }
        self = model
    }

    private init(name: String, size: Int, identification: [UInt8], electronicSignature: UInt8) {
        self.name = name
        self.size = size
        self.identification = identification
        self.electronicSignature = electronicSignature
    }

    /// A page program wraps within this many bytes.
    public static let pageSize = 256
    static let sectorSize = 4 * 1024
    static let smallBlockSize = 32 * 1024
    static let blockSize = 64 * 1024

    /// Status register: SRWD 7, QE 6, BP3…BP0 5…2, WEL 1, WIP 0.
    enum Status {
        static let writeInProgress: UInt8 = 0x01
        static let writeEnableLatch: UInt8 = 0x02
        static let blockProtect: UInt8 = 0x3C
        /// What WRSR may change, and what stays without power.
        static let writable: UInt8 = 0xFC
    }

    /// Configuration register: DC1…DC0 7…6, 4BYTE 5, PBE 4, TB 3 (one-time programmable), ODS2…ODS0 2…0.
    enum Configuration {
        static let fourByte: UInt8 = 0x20
        static let protectFromBottom: UInt8 = 0x08
        /// What WRSR may change; TB can only be set.
        static let writable: UInt8 = 0xD7
        /// As shipped: output driver strength 111.
        static let initial: UInt8 = 0x07
    }

    /// Security register: E_FAIL 6, P_FAIL 5: the last erase or program failed, or its place is protected.
    enum Security {
        static let eraseFailed: UInt8 = 0x40
        static let programFailed: UInt8 = 0x20
    }
}

/// How long the chip is busy, as a share of the data sheet's typical times.
public struct SPINORTiming: Sendable, Hashable {
    /// 100 is as long as the data sheet says, 0 no time at all; at most ``maximumPercent``.
    public var percent: Int

    public static let maximumPercent = 10_000

    public init(percent: Int) {
        precondition((0...Self.maximumPercent).contains(percent), "a share of the data sheet's times")
        self.percent = percent
    }

    /// Operations take no time.
    public static let none = SPINORTiming(percent: 0)

    private func scaled(microseconds: Int64) -> Duration { .nanoseconds(microseconds * 10 * Int64(percent)) }

    /// Typical times as the parameter tables tell them (SFDPTable, words 10 and 11).
    func program(bytes: Int) -> Duration {
        scaled(microseconds: bytes >= SPINORModel.pageSize ? 512 : 16 + Int64(max(bytes - 1, 0)))
    }

    func erase(_ count: Int, of model: SPINORModel) -> Duration {
        switch count {
        case SPINORModel.sectorSize: scaled(microseconds: 48_000)
        case SPINORModel.smallBlockSize: scaled(microseconds: 192_000)
        case SPINORModel.blockSize: scaled(microseconds: 384_000)
        // 112 s for every 32 MiB.
        default: scaled(microseconds: Int64(model.size / SPINORModel.mx25l25635f.size) * 112_000_000)
        }
    }

    /// tW of the data sheet.
    var writeStatus: Duration { scaled(microseconds: 40_000) }
}
