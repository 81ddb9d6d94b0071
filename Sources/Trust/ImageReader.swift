/// Something that holds a firmware image: bytes in memory, a file, a flash chip behind wires.
public protocol ImageReader {
    /// The image's length in bytes.
    var byteCount: UInt64 { get }

    /// Reads `count` bytes from `offset` and gives them to `body` in order, in pieces of the reader's choice.
    ///
    /// The range lies within `byteCount`. `body` gets exactly `count` bytes in all or the call throws. A reader with
    /// latency should have the next piece under way while `body` works.
    mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError)
}

/// The medium failed, not the image.
public struct ImageReadError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

extension ImageReader {
    /// `count` bytes from `offset` as an array.
    public mutating func read(offset: UInt64, count: Int) throws(ImageReadError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        try read(offset: offset, count: UInt64(count)) { piece in
            piece.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
        guard bytes.count == count else {
            throw ImageReadError("\(bytes.count) bytes came instead of \(count) at offset \(offset)")
        }
        return bytes
    }
}

/// An image in memory.
public struct ByteArrayReader: ImageReader {
    private let bytes: [UInt8]

    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    public var byteCount: UInt64 { UInt64(bytes.count) }

    public mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw ImageReadError("bytes \(offset) to \(offset &+ count) of an image of \(byteCount)")
        }
        body(bytes.span.bytes.extracting(Int(offset)..<Int(offset + count)))
    }
}

/// The whole pages around a range, and what of them is wanted: for readers of a chip whose pages are digested as they pass.
public struct WholePages: Sendable {
    /// Bytes of a page.
    public static let pageSize: UInt64 = 4096

    /// Where the first page begins, and where the last one ends.
    public let start: UInt64
    public let end: UInt64
    private let wanted: Range<UInt64>
    private var place: UInt64

    /// - Parameters:
    ///   - offset: of the range, in a medium of whole pages of at most 4 GiB.
    ///   - count: its bytes, above zero.
    public init(around offset: UInt64, count: UInt64) {
        precondition(count > 0 && offset <= 1 << 32 && count <= 1 << 32, "a range lies in a chip")
        wanted = offset..<offset + count
        start = offset / Self.pageSize * Self.pageSize
        end = (offset + count + Self.pageSize - 1) / Self.pageSize * Self.pageSize
        place = start
    }

    /// Takes the next piece of the pages; gives `body` what is wanted of it, if anything is.
    public mutating func take(_ piece: RawSpan, _ body: (RawSpan) -> Void) {
        let from = max(place, wanted.lowerBound)
        let upTo = min(place + UInt64(piece.byteCount), wanted.upperBound)
        if from < upTo { body(piece.extracting(Int(from - place)..<Int(upTo - place))) }
        place += UInt64(piece.byteCount)
    }
}
