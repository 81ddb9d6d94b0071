/// Cuts a byte stream into whole JSON objects, as QMP does: nothing but their own braces ends them, a line end is not
/// needed (the Python package qemu.qmp sends none).
public struct JSONScanner: Sendable {
    /// The longest object: a QMP command is a few hundred bytes; the bound keeps a peer from filling memory.
    public static let maximumLength = 1 << 20

    public enum Item: Equatable, Sendable {
        /// The bytes of one object with balanced braces.
        case object([UInt8])
        /// Bytes that are no object, up to the end of their line, or an object that is too long.
        case garbage
    }

    private var buffer: [UInt8] = []
    private var depth = 0
    private var inString = false
    private var escaped = false
    private var skippingLine = false

    public init() {}

    /// Takes the next bytes of the stream and returns what they complete.
    public mutating func feed(_ bytes: some Sequence<UInt8>) -> [Item] {
        var items: [Item] = []
        for byte in bytes {
            if skippingLine {
                if byte == UInt8(ascii: "\n") { skippingLine = false }
                continue
            }
            if depth == 0 {
                switch byte {
                case UInt8(ascii: "{"):
                    buffer = [byte]
                    depth = 1
                case 0x20, 0x09, 0x0A, 0x0D: break
                default:
                    items.append(.garbage)
                    skippingLine = true
                }
                continue
            }
            buffer.append(byte)
            if buffer.count > Self.maximumLength {
                items.append(.garbage)
                reset()
                skippingLine = true
                continue
            }
            if inString {
                if escaped {
                    escaped = false
                } else if byte == UInt8(ascii: "\\") {
                    escaped = true
                } else if byte == UInt8(ascii: "\"") {
                    inString = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): inString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 {
                    items.append(.object(buffer))
                    reset()
                }
            default: break
            }
        }
        return items
    }

    private mutating func reset() {
        buffer = []
        depth = 0
        inString = false
        escaped = false
    }
}
