/// A place for a firmware image in a chip.
public enum FirmwareSlot: UInt8, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    case a = 0
    case b = 1
    /// What a board falls back to when neither A nor B may run; no update touches it.
    case golden = 2

    public var description: String {
        switch self {
        case .a: "A"
        case .b: "B"
        case .golden: "golden"
        }
    }
}

/// Why a chip cannot be divided into slots.
public enum ChipLayoutError: Error, Equatable, Sendable, CustomStringConvertible {
    case badSize(UInt64)

    public var description: String {
        switch self {
        case .badSize(let size):
            "a chip of \(size) bytes cannot be divided into slots: it must be a power of two from"
                + " \(ChipLayout.minimumSize) to \(ChipLayout.maximumSize)"
        }
    }
}

/// How a chip is divided: four quarters, slot A, slot B, golden, data (docs/wiring.md, "Flash layout").
public struct ChipLayout: Sendable, Hashable {
    /// A quarter of it holds the fixed parts of an image up to the first byte that is loaded.
    public static let minimumSize: UInt64 = 1 << 20
    /// What 32-bit addresses reach.
    public static let maximumSize: UInt64 = 1 << 32

    public let chipSize: UInt64
    /// Bytes of a slot.
    public var slotSize: UInt64 { chipSize / 4 }
    /// The last quarter, kept for data that is not firmware.
    public var data: Range<UInt64> { slotSize * 3..<chipSize }

    /// - Parameter chipSize: in bytes, a power of two from 1 MiB to 4 GiB.
    public init(chipSize: UInt64) throws(ChipLayoutError) {
        guard chipSize.nonzeroBitCount == 1, (Self.minimumSize...Self.maximumSize).contains(chipSize) else {
            throw .badSize(chipSize)
        }
        self.chipSize = chipSize
    }

    /// The chip of the server board.
    public static let server = ChipLayout(unchecked: FlashLayout.chipSize)

    private init(unchecked chipSize: UInt64) { self.chipSize = chipSize }

    /// The chip address of the slot's first byte.
    public func base(of slot: FirmwareSlot) -> UInt64 { slotSize * UInt64(slot.rawValue) }

    /// The chip addresses of the slot.
    public func range(of slot: FirmwareSlot) -> Range<UInt64> { base(of: slot)..<base(of: slot) + slotSize }

    /// The slot that holds a chip address; nil in the data quarter and beyond the chip.
    public func slot(at address: UInt64) -> FirmwareSlot? {
        FirmwareSlot.allCases.first { range(of: $0).contains(address) }
    }
}

/// One slot of a larger medium, from its own first byte.
public struct SlotReader<Base: ImageReader>: ImageReader {
    private var reader: Base
    private let base: UInt64
    public let byteCount: UInt64

    /// A slot that the medium does not hold as a whole is cut where the medium ends.
    public init(_ reader: Base, base: UInt64, size: UInt64) {
        let available = reader.byteCount > base ? reader.byteCount - base : 0
        self.reader = reader
        self.base = base
        byteCount = min(size, available)
    }

    /// A slot of a chip.
    public init(_ reader: Base, layout: ChipLayout, slot: FirmwareSlot) {
        self.init(reader, base: layout.base(of: slot), size: layout.slotSize)
    }

    public mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw ImageReadError("bytes \(offset) to \(offset &+ count) of a slot of \(byteCount)")
        }
        try reader.read(offset: base + offset, count: count, body)
    }
}
