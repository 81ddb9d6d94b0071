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
