import DeviceFirmware

/// Where things lie in an image (docs/wiring.md, "Flash layout"). Offsets are in bytes from the first of the slot.
public enum FlashLayout {
    /// A part of a slot.
    public struct Region: Sendable, Hashable {
        public let name: String
        public let offset: UInt64
        public let size: UInt64
        public var end: UInt64 { offset + size }

        init(name: String, offset: UInt64, size: UInt64) {
            self.name = name
            self.offset = offset
            self.size = size
        }

        /// A device's place.
        init(_ name: String, _ target: DeviceTarget) {
            self.init(name: name, offset: UInt64(target.place.lowerBound), size: UInt64(target.capacity))
        }
    }

    /// The server board's chip: 32 MiB.
    public static let chipSize: UInt64 = 32 * 1024 * 1024
    /// Where the first byte of the slot that runs appears to the host.
    public static let hostWindow: UInt64 = 0x2000_0000

    /// Runs in place, from the reset vector.
    public static let firstStage = Region(name: "first stage", offset: 0, size: 0x1_0000)
    /// A 32-bit little-endian length, then the COSE_Sign1 message.
    public static let manifest = Region(name: "manifest", offset: 0x1_0000, size: 0xF000)
    /// What the first stage copies where; a component like the others.
    public static let directory = Region(name: "directory", offset: 0x1_F000, size: 0x1000)
    /// OpenSBI's fw_dynamic.
    public static let openSBI = Region(name: "OpenSBI", offset: 0x2_0000, size: 0xE_0000)
    public static let openSBILoadAddress: UInt64 = 0x8000_0000
    /// The board's own firmware.
    public static let nextStage = Region(name: "next stage", offset: 0x10_0000, size: 0x10_0000)
    public static let nextStageLoadAddress: UInt64 = 0x8020_0000
    /// Firmware of the BMC.
    public static let bmc = Region("BMC", .bmc)
    /// Firmware of the adapter card.
    public static let adapter = Region("adapter", .adapter)
    /// Firmware of the offload card.
    public static let offload = Region("offload card", .offload)

    /// The image's boards.
    public static let boardCompatibility = "baseboard,server"
}

/// The directory at `FlashLayout.directory`, integers little-endian:
///
///     0  u32 magic "BIRD"   4  u32 count   8  entries of 32 bytes:
///     0  u64 flash offset   8  u64 size   16  u64 load address   24  u64 kind
public struct FirmwareDirectory: Hashable, Sendable {
    static let magic: UInt32 = 0x4452_4942
    static let headerLength = 8
    static let entryLength = 32

    /// What the first stage does with an entry. Unknown kinds are for newer first stages.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt64
        public init(rawValue: UInt64) { self.rawValue = rawValue }
        public static let openSBI = Kind(rawValue: 1)
        public static let nextStage = Kind(rawValue: 2)
    }

    public struct Entry: Hashable, Sendable {
        public let offset: UInt64
        public let size: UInt64
        public let loadAddress: UInt64
        public let kind: Kind

        public init(offset: UInt64, size: UInt64, loadAddress: UInt64, kind: Kind) {
            self.offset = offset
            self.size = size
            self.loadAddress = loadAddress
            self.kind = kind
        }
    }

    public let entries: [Entry]

    public init(entries: [Entry]) {
        self.entries = entries
    }

    public func encoded() -> [UInt8] {
        var bytes = LittleEndian.bytes(Self.magic) + LittleEndian.bytes(UInt32(entries.count))
        for entry in entries {
            for value in [entry.offset, entry.size, entry.loadAddress, entry.kind.rawValue] {
                bytes += LittleEndian.bytes(value)
            }
        }
        return bytes
    }

    /// Nil when the magic is another or the count does not fit the bytes.
    public init?(decoding bytes: [UInt8]) {
        guard bytes.count >= Self.headerLength, LittleEndian.uint32(bytes, at: 0) == Self.magic else { return nil }
        let count = Int(LittleEndian.uint32(bytes, at: 4))
        guard count <= (bytes.count - Self.headerLength) / Self.entryLength else { return nil }
        entries = (0..<count).map { index in
            let start = Self.headerLength + index * Self.entryLength
            return Entry(
                offset: LittleEndian.uint64(bytes, at: start),
                size: LittleEndian.uint64(bytes, at: start + 8),
                loadAddress: LittleEndian.uint64(bytes, at: start + 16),
                kind: Kind(rawValue: LittleEndian.uint64(bytes, at: start + 24)))
        }
    }
}

/// Little-endian integers in byte arrays; the callers check the bounds.
enum LittleEndian {
    static func bytes<Integer: FixedWidthInteger>(_ value: Integer) -> [UInt8] {
        (0..<Integer.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    static func uint32(_ bytes: [UInt8], at offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
    }

    static func uint64(_ bytes: [UInt8], at offset: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << (8 * UInt64($1)) }
    }
}
