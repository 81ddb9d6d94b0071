// A devicetree as a value, and its flattened form.

/// A devicetree node: properties in order, then children.
///
/// Spec: Devicetree Specification 0.4 §2.2
public struct DevicetreeNode: Sendable {
    public var name: String
    public var properties: [(name: String, value: [UInt8])] = []
    public var children: [DevicetreeNode] = []

    public init(_ name: String) { self.name = name }

    /// An empty property: true by being there.
    public mutating func set(_ name: String) { properties.append((name, [])) }

    /// One or more 32-bit cells.
    public mutating func set(_ name: String, cells: [UInt32]) {
        properties.append((name, cells.flatMap(Self.bigEndian)))
    }

    public mutating func set(_ name: String, _ cell: UInt32) { set(name, cells: [cell]) }

    /// One or more strings, each with its terminating zero.
    public mutating func set(_ name: String, _ strings: String...) { set(name, strings: strings) }

    public mutating func set(_ name: String, strings: [String]) {
        properties.append((name, strings.flatMap { Array($0.utf8) + [0] }))
    }

    /// `reg` or `ranges` entries of two address and two size cells.
    public mutating func set(_ name: String, _ ranges: AddressRange...) {
        set(name, cells: ranges.flatMap { Self.cells($0.base) + Self.cells($0.size) })
    }

    /// A 64-bit number as two cells.
    public static func cells(_ value: UInt64) -> [UInt32] {
        [UInt32(truncatingIfNeeded: value >> 32), UInt32(truncatingIfNeeded: value)]
    }

    static func bigEndian(_ cell: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: cell >> $0) }
    }

    /// Adds a child that `build` fills in.
    public mutating func add(_ name: String, _ build: (inout DevicetreeNode) -> Void) {
        var child = DevicetreeNode(name)
        build(&child)
        children.append(child)
    }
}

/// The flattened devicetree ("DTB").
///
/// Spec: Devicetree Specification 0.4 §5
public struct FlattenedDevicetree {
    private static let magic: UInt32 = 0xD00D_FEED
    private static let version: UInt32 = 17
    private static let lastCompatibleVersion: UInt32 = 16
    private static let headerSize = 40
    private static let beginNode: UInt32 = 1
    private static let endNode: UInt32 = 2
    private static let property: UInt32 = 3
    private static let end: UInt32 = 9

    private var structure: [UInt8] = []
    private var strings: [UInt8] = []
    private var stringOffsets: [String: UInt32] = [:]

    private init() {}

    /// The bytes of `root`'s tree, no memory reserved, booting hart `bootHart`.
    public static func bytes(of root: DevicetreeNode, bootHart: UInt32 = 0) -> [UInt8] {
        var tree = FlattenedDevicetree()
        tree.append(root)
        tree.append(cell: Self.end)
        // Header, an empty memory reservation block (16 zero bytes), structure, strings.
        let structureOffset = headerSize + 16
        let stringsOffset = structureOffset + tree.structure.count
        let total = (stringsOffset + tree.strings.count + 7) & ~7
        let header: [UInt32] = [
            magic, UInt32(total), UInt32(structureOffset), UInt32(stringsOffset), UInt32(headerSize), version,
            lastCompatibleVersion, bootHart, UInt32(tree.strings.count), UInt32(tree.structure.count),
        ]
        var bytes = header.flatMap(DevicetreeNode.bigEndian)
        bytes += [UInt8](repeating: 0, count: 16)
        bytes += tree.structure + tree.strings
        return bytes + [UInt8](repeating: 0, count: total - bytes.count)
    }

    private mutating func append(_ node: DevicetreeNode) {
        append(cell: Self.beginNode)
        append(padded: Array(node.name.utf8) + [0])
        for (name, value) in node.properties {
            append(cell: Self.property)
            append(cell: UInt32(value.count))
            append(cell: offset(of: name))
            append(padded: value)
        }
        for child in node.children { append(child) }
        append(cell: Self.endNode)
    }

    private mutating func append(cell: UInt32) { structure += DevicetreeNode.bigEndian(cell) }

    private mutating func append(padded bytes: [UInt8]) {
        structure += bytes
        structure += [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
    }

    private mutating func offset(of name: String) -> UInt32 {
        if let known = stringOffsets[name] { return known }
        let offset = UInt32(strings.count)
        stringOffsets[name] = offset
        strings += Array(name.utf8) + [0]
        return offset
    }
}
