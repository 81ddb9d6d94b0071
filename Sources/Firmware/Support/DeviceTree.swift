/// A flattened devicetree, read in place. It comes from outside: every offset and length is checked, depth is
/// bounded, and what does not parse ends the walk instead of the firmware.
///
/// Spec: Devicetree Specification v0.4 §5 (header §5.2, structure block §5.4).
struct DeviceTree {
    /// The whole blob, header included.
    let blob: Bytes
    private let structure: Bytes
    private let strings: Bytes

    /// More than any machine of the `virt` family has; keeps a bad size from being walked for long.
    static let maximumSize: UInt32 = 1 << 20
    /// Nodes nested deeper than this are not looked at.
    private static let maximumDepth = 16

    /// Nil when there is no devicetree of version 17 at `address`.
    init?(at address: UInt) {
        guard address != 0, address & 3 == 0, !address.addingReportingOverflow(40).overflow else { return nil }
        let header = Bytes(base: address, count: 40)
        guard header.big32(at: 0) == 0xD00D_FEED, let size = header.big32(at: 4), size >= 40,
            size <= Self.maximumSize, !address.addingReportingOverflow(UInt(size)).overflow,
            let structureOffset = header.big32(at: 8), let stringsOffset = header.big32(at: 12),
            let version = header.big32(at: 20), let compatible = header.big32(at: 24), version >= 17, compatible <= 17,
            let stringsSize = header.big32(at: 32), let structureSize = header.big32(at: 36)
        else { return nil }
        let blob = Bytes(base: address, count: UInt(size))
        guard structureOffset & 3 == 0, let structure = blob.slice(UInt(structureOffset), UInt(structureSize)),
            let strings = blob.slice(UInt(stringsOffset), UInt(stringsSize))
        else { return nil }
        self.blob = blob
        self.structure = structure
        self.strings = strings
    }

    /// One piece of the structure block.
    fileprivate enum Token {
        case begin(name: Bytes)
        case end
        /// The name is an offset into the strings block.
        case property(name: UInt, value: Bytes)
        case finish
    }

    /// The token at `offset`, which moves behind it; anything malformed is the end.
    fileprivate func token(at offset: inout UInt) -> Token {
        while let kind = structure.big32(at: offset) {
            offset &+= 4
            switch kind {
            case 1:
                guard let name = structure.terminated(at: offset) else { return .finish }
                offset = (offset &+ name.count &+ 1 &+ 3) & ~3
                return .begin(name: name)
            case 2:
                return .end
            case 3:
                guard let length = structure.big32(at: offset), let nameOffset = structure.big32(at: offset &+ 4),
                    let value = structure.slice(offset &+ 8, UInt(length))
                else { return .finish }
                offset = (offset &+ 8 &+ UInt(length) &+ 3) & ~3
                return .property(name: UInt(nameOffset), value: value)
            case 4:
                continue
            default:
                return .finish
            }
        }
        return .finish
    }

    fileprivate func isString(_ wanted: StaticString, at offset: UInt) -> Bool {
        let length = UInt(wanted.utf8CodeUnitCount)
        guard let name = strings.slice(offset, length &+ 1) else { return false }
        return name.byte(at: length) == 0 && name.starts(with: wanted)
    }

    /// Calls `body` with every node in the order of the tree, until it returns false.
    func visit(_ body: (Node) -> Bool) {
        var cells = InlineArray<17, Cells>(repeating: Cells())
        var depth = 0
        var offset: UInt = 0
        while true {
            switch token(at: &offset) {
            case .begin(let name):
                guard depth < Self.maximumDepth else { return }
                let node = Node(tree: self, name: name, start: offset, depth: depth, cells: cells[depth])
                depth &+= 1
                cells[depth] = Cells(
                    address: node.value32("#address-cells") ?? 2, size: node.value32("#size-cells") ?? 1)
                guard body(node) else { return }
            case .end:
                guard depth > 0 else { return }
                depth &-= 1
            case .property:
                continue
            case .finish:
                return
            }
        }
    }

    /// The first node that `accepts`.
    func first(where accepts: (Node) -> Bool) -> Node? {
        var found: Node?
        visit { node in
            if accepts(node) { found = node }
            return found == nil
        }
        return found
    }

    func node(phandle: UInt32) -> Node? {
        first { $0.value32("phandle") == phandle }
    }
}

/// How many 32-bit cells an address and a size take in `reg` and `ranges`.
struct Cells {
    var address: UInt32 = 2
    var size: UInt32 = 1
}

/// One node of a devicetree.
struct Node {
    fileprivate let tree: DeviceTree
    /// With its unit address, as `serial@10000000`.
    let name: Bytes
    fileprivate let start: UInt
    let depth: Int
    /// Those of the parent: the ones that this node's `reg` is written in.
    let cells: Cells

    fileprivate init(tree: DeviceTree, name: Bytes, start: UInt, depth: Int, cells: Cells) {
        self.tree = tree
        self.name = name
        self.start = start
        self.depth = depth
        self.cells = cells
    }

    func property(_ wanted: StaticString) -> Bytes? {
        var offset = start
        while case .property(let name, let value) = tree.token(at: &offset) {
            if tree.isString(wanted, at: name) { return value }
        }
        return nil
    }

    func value32(_ name: StaticString) -> UInt32? {
        property(name)?.big32(at: 0)
    }

    /// True unless `status` says otherwise.
    var isEnabled: Bool {
        guard let status = property("status")?.terminated(at: 0) else { return true }
        return status.equals("okay") || status.equals("ok")
    }

    func isCompatible(_ wanted: StaticString) -> Bool {
        guard let list = property("compatible") else { return false }
        var offset: UInt = 0
        while let name = list.terminated(at: offset) {
            if name.equals(wanted) { return true }
            offset = offset &+ name.count &+ 1
        }
        return false
    }

    /// The range at `index` of `reg`. Buses between here and the root translate one to one on the machines served.
    func register(_ index: UInt) -> (base: UInt64, size: UInt64)? {
        guard cells.address >= 1, cells.address <= 2, cells.size <= 2, index <= 0xFFFF, let reg = property("reg") else {
            return nil
        }
        let stride = UInt(cells.address &+ cells.size) &* 4
        let offset = index &* stride
        guard reg.slice(offset, stride) != nil, let base = reg.number(at: offset, cells: cells.address),
            let size = reg.number(at: offset &+ UInt(cells.address) &* 4, cells: cells.size)
        else { return nil }
        return (base, size)
    }
}

extension Bytes {
    /// A number of 0, 1 or 2 cells.
    func number(at offset: UInt, cells: UInt32) -> UInt64? {
        switch cells {
        case 0: 0
        case 1: big32(at: offset).map(UInt64.init)
        case 2: big64(at: offset)
        default: nil
        }
    }
}
