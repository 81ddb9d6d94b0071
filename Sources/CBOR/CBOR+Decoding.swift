/// Why bytes are not the CBOR item that was asked for. Offsets count from the first byte given.
public enum CBORError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The input ends inside the item that begins at the offset.
    case truncated(offset: Int)
    /// Bytes follow the item.
    case trailingBytes(offset: Int)
    /// Additional information 28…30, a lone break, or a simple value in a form that does not exist.
    case reserved(offset: Int)
    /// A text string is not UTF-8.
    case invalidUTF8(offset: Int)
    /// A map holds the same key twice.
    case duplicateKey(offset: Int)
    /// Arrays, maps and tags are nested deeper than the limit.
    case tooDeep(offset: Int)
    /// There are more items than the limit.
    case tooManyItems(offset: Int)
    /// The input has more bytes than the limit.
    case tooLong(count: Int, limit: Int)
    /// Not deterministic: an indefinite length.
    case indefiniteLength(offset: Int)
    /// Not deterministic: an argument or a float that has a shorter form.
    case notShortest(offset: Int)
    /// Not deterministic: map keys out of order.
    case unsortedKeys(offset: Int)

    public var description: String {
        switch self {
        case .truncated(let offset): "the CBOR item at byte \(offset) is truncated"
        case .trailingBytes(let offset): "bytes follow the CBOR item, from byte \(offset)"
        case .reserved(let offset): "a reserved CBOR encoding at byte \(offset)"
        case .invalidUTF8(let offset): "the CBOR text at byte \(offset) is not UTF-8"
        case .duplicateKey(let offset): "the CBOR map key at byte \(offset) is a duplicate"
        case .tooDeep(let offset): "the CBOR item at byte \(offset) is nested too deeply"
        case .tooManyItems(let offset): "too many CBOR items, from byte \(offset)"
        case .tooLong(let count, let limit): "\(count) bytes of CBOR, at most \(limit) are accepted"
        case .indefiniteLength(let offset): "the CBOR item at byte \(offset) has an indefinite length"
        case .notShortest(let offset): "the CBOR number at byte \(offset) is not in its shortest form"
        case .unsortedKeys(let offset): "the CBOR map key at byte \(offset) is out of order"
        }
    }
}

extension CBOR {
    /// What a decoder accepts.
    public enum Rules: Sendable {
        /// Core deterministic encoding only (Spec: RFC 8949 §4.2.1). What we sign and hash is read so.
        case deterministic
        /// Any well-formed and valid item (Spec: RFC 8949 §5.3): indefinite lengths and long forms pass, duplicate
        /// keys and bad UTF-8 do not.
        case valid
    }

    /// Caps that keep hostile input from costing more memory or stack than its size justifies.
    public struct Limits: Sendable {
        /// Bytes of input. The default is the manifest region, the longest CBOR on a board.
        public var bytes = 64 * 1024
        /// Nesting of arrays, maps and tags. A manifest needs 4; 16 leaves room and bounds the stack.
        public var depth = 16
        /// Data items in all, those inside others included.
        public var items = 16 * 1024

        public init() {}
    }

    /// The one item that `input` holds, from its first byte to its last.
    public static func decode(_ input: [UInt8], rules: Rules = .deterministic, limits: Limits = Limits())
        throws(CBORError) -> CBOR
    {
        guard input.count <= limits.bytes else { throw .tooLong(count: input.count, limit: limits.bytes) }
        var decoder = CBORDecoder(input: input, rules: rules, limits: limits)
        let item = try decoder.item(depth: 0)
        guard decoder.offset == input.count else { throw .trailingBytes(offset: decoder.offset) }
        return item
    }
}

/// A cursor over encoded bytes.
private struct CBORDecoder {
    let input: [UInt8]
    let rules: CBOR.Rules
    let limits: CBOR.Limits
    var offset = 0
    var items = 0

    init(input: [UInt8], rules: CBOR.Rules, limits: CBOR.Limits) {
        self.input = input
        self.rules = rules
        self.limits = limits
    }

    /// An initial byte with its argument; no argument means an indefinite length or a break.
    struct Head {
        let start: Int
        let major: UInt8
        let information: UInt8
        let argument: UInt64?
    }

    private static let breakByte: UInt8 = 0xFF

    mutating func head() throws(CBORError) -> Head {
        let start = offset
        guard offset < input.count else { throw .truncated(offset: start) }
        let initial = input[offset]
        offset += 1
        let major = initial >> 5
        let information = initial & 0x1F
        switch information {
        case 0...23:
            return Head(start: start, major: major, information: information, argument: UInt64(information))
        case 24...27:
            let length = 1 << Int(information - 24)
            guard input.count - offset >= length else { throw .truncated(offset: start) }
            var argument: UInt64 = 0
            for byte in input[offset..<offset + length] { argument = argument << 8 | UInt64(byte) }
            offset += length
            if rules == .deterministic, major != 7 {
                let floor: UInt64 =
                    switch information {
                    case 24: 24
                    case 25: 0x100
                    case 26: 0x1_0000
                    default: 0x1_0000_0000
                    }
                guard argument >= floor else { throw .notShortest(offset: start) }
            }
            return Head(start: start, major: major, information: information, argument: argument)
        case 31:
            return Head(start: start, major: major, information: information, argument: nil)
        default:
            throw .reserved(offset: start)
        }
    }

    mutating func item(depth: Int) throws(CBORError) -> CBOR {
        let head = try head()
        items += 1
        guard items <= limits.items else { throw .tooManyItems(offset: head.start) }
        guard depth < limits.depth else { throw .tooDeep(offset: head.start) }
        guard let argument = head.argument else { return try indefinite(head, depth: depth) }
        switch head.major {
        case 0: return .unsigned(argument)
        case 1: return .negative(argument)
        case 2: return .bytes(try content(head, argument))
        case 3: return .text(try text(content(head, argument), head))
        case 4:
            let count = try count(argument, head, itemsEach: 1)
            var elements: [CBOR] = []
            elements.reserveCapacity(count)
            for _ in 0..<count { elements.append(try item(depth: depth + 1)) }
            return .array(elements)
        case 5:
            let count = try count(argument, head, itemsEach: 2)
            var builder = MapBuilder()
            for _ in 0..<count { try entry(into: &builder, depth: depth) }
            return .map(builder.entries)
        case 6: return .tagged(argument, try item(depth: depth + 1))
        default: return try simpleOrFloat(head, argument)
        }
    }

    /// The `length` bytes that follow.
    private mutating func content(_ head: Head, _ length: UInt64) throws(CBORError) -> [UInt8] {
        guard length <= UInt64(input.count - offset) else { throw .truncated(offset: head.start) }
        let end = offset + Int(length)
        defer { offset = end }
        return Array(input[offset..<end])
    }

    private func text(_ bytes: [UInt8], _ head: Head) throws(CBORError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .invalidUTF8(offset: head.start) }
        return text
    }

    /// The number of elements announced: each takes at least a byte, so a count beyond what is left is a lie.
    private func count(_ argument: UInt64, _ head: Head, itemsEach: UInt64) throws(CBORError) -> Int {
        guard argument <= UInt64(input.count - offset) / itemsEach else { throw .truncated(offset: head.start) }
        return Int(argument)
    }

    /// Entries with their encoded keys, for order and duplicates.
    private struct MapBuilder {
        var entries: [CBOR.Entry] = []
        var lastKey: [UInt8]?
        var keys: Set<[UInt8]> = []
    }

    private mutating func entry(into builder: inout MapBuilder, depth: Int) throws(CBORError) {
        let start = offset
        let key = try item(depth: depth + 1)
        if rules == .deterministic {
            let encoded = Array(input[start..<offset])
            if let last = builder.lastKey, !last.lexicographicallyPrecedes(encoded) {
                throw last == encoded ? .duplicateKey(offset: start) : .unsortedKeys(offset: start)
            }
            builder.lastKey = encoded
        } else if !builder.keys.insert(key.encoded()).inserted {
            throw .duplicateKey(offset: start)
        }
        builder.entries.append(CBOR.Entry(key, try item(depth: depth + 1)))
    }

    // MARK: Major type 7

    private func simpleOrFloat(_ head: Head, _ argument: UInt64) throws(CBORError) -> CBOR {
        switch head.information {
        case 0...23: return .simple(UInt8(argument))
        case 24:
            guard argument >= 32 else { throw .reserved(offset: head.start) }
            return .simple(UInt8(argument))
        case 25: return try float(HalfPrecision.value(UInt16(argument)), head)
        case 26: return try float(Double(Float(bitPattern: UInt32(argument))), head)
        default: return try float(Double(bitPattern: argument), head)
        }
    }

    private func float(_ value: Double, _ head: Head) throws(CBORError) -> CBOR {
        let item = CBOR.float(value)
        if rules == .deterministic {
            guard item.encoded().elementsEqual(input[head.start..<offset]) else {
                throw .notShortest(offset: head.start)
            }
        }
        return item
    }

    // MARK: Indefinite lengths

    private mutating func indefinite(_ head: Head, depth: Int) throws(CBORError) -> CBOR {
        guard (2...5).contains(head.major) else { throw .reserved(offset: head.start) }
        guard rules == .valid else { throw .indefiniteLength(offset: head.start) }
        switch head.major {
        case 2, 3:
            var bytes: [UInt8] = []
            while try !takeBreak(head) {
                let chunk = try self.head()
                guard chunk.major == head.major, let length = chunk.argument else {
                    throw .reserved(offset: chunk.start)
                }
                let part = try content(chunk, length)
                if head.major == 3 { _ = try text(part, chunk) }
                bytes += part
            }
            return head.major == 2 ? .bytes(bytes) : .text(try text(bytes, head))
        case 4:
            var elements: [CBOR] = []
            while try !takeBreak(head) { elements.append(try item(depth: depth + 1)) }
            return .array(elements)
        default:
            var builder = MapBuilder()
            while try !takeBreak(head) { try entry(into: &builder, depth: depth) }
            return .map(builder.entries)
        }
    }

    private mutating func takeBreak(_ head: Head) throws(CBORError) -> Bool {
        guard offset < input.count else { throw .truncated(offset: head.start) }
        guard input[offset] == Self.breakByte else { return false }
        offset += 1
        return true
    }
}
