/// One base address register, or a pair of them.
struct BaseAddress: BitwiseCopyable {
    enum Kind: UInt8 {
        case absent
        case io
        case memory32
        case memory64
    }

    var kind = Kind.absent
    var isPrefetchable = false
    var isAssigned = false
    /// Bus address and, for memory, the address a hart uses.
    var address: UInt64 = 0
    var cpuAddress: UInt64 = 0
    var size: UInt64 = 0
}

/// What enumeration found at one address.
struct Function: BitwiseCopyable {
    var address = FunctionAddress()
    var vendor: UInt16 = 0
    var device: UInt16 = 0
    /// Base class, subclass, programming interface.
    var classCode: UInt32 = 0
    /// Subsystem vendor in the low half, subsystem in the high; 0 of a bridge.
    var subsystem: UInt32 = 0
    var isBridge = false
    /// False while a base address register has no address: the function could not be driven and stays off.
    var isComplete = true
    /// Bridges only; 0 while no bus number could be given.
    var secondaryBus: UInt8 = 0
    var subordinateBus: UInt8 = 0
    /// Bridges between here and the root bus.
    var depth: UInt8 = 0
    /// The PCI Express device/port type, 0xFF without that capability. Spec: PCIe 6.0 §7.5.3.2.
    var portType: UInt8 = 0xFF
    var bars = InlineArray<6, BaseAddress>(repeating: BaseAddress())

    static let rootPort: UInt8 = 4
    static let downstreamPort: UInt8 = 6
}

/// Walks the buses depth first, numbers them, and gives every function its addresses.
///
/// Windows of bridges are made in the same walk: a bridge's window begins where the next free address is and ends
/// behind what its bus took, rounded to what bridges can say (1 MiB of memory, 4 KiB of I/O).
struct Enumeration {
    let space: ConfigurationSpace
    private var windows: Windows
    var functions: Store<Function>
    private var highestBus: UInt8

    private typealias Register = ConfigurationSpace.Register
    private typealias Command = ConfigurationSpace.Command

    /// What the bridges above can pass on.
    private struct Path {
        var bus: UInt8
        var depth: UInt8 = 0
        /// Only device 0 can exist: the other end of a PCIe link.
        var isLink = false
        var isRoot = true
        /// 64-bit prefetchable windows all the way up.
        var prefetch64 = true
        var memory = true
        var io = true
    }

    init?(space: ConfigurationSpace, windows: Windows, arena: inout Arena) {
        guard let functions = Store<Function>(capacity: 256, in: &arena) else { return nil }
        self.space = space
        self.windows = windows
        self.functions = functions
        highestBus = space.firstBus
    }

    mutating func run() {
        scan(Path(bus: space.firstBus))
    }

    private mutating func scan(_ path: Path) {
        var device: UInt8 = 0
        while device < (path.isLink ? 1 : 32) {
            var function: UInt8 = 0
            while function < 8 {
                let address = FunctionAddress(bus: path.bus, device: device, function: function)
                let isPresent = visit(address, path)
                if function == 0 {
                    guard isPresent, space.read8(address, Register.headerType) & 0x80 != 0 else { break }
                }
                function &+= 1
            }
            device &+= 1
        }
    }

    /// False when there is no function at `address`.
    private mutating func visit(_ address: FunctionAddress, _ path: Path) -> Bool {
        let identity = space.read32(address, Register.identity)
        let vendor = UInt16(truncatingIfNeeded: identity)
        guard vendor != 0xFFFF, vendor != 0 else { return false }

        var found = Function(address: address, vendor: vendor, device: UInt16(truncatingIfNeeded: identity >> 16))
        found.depth = path.depth
        found.classCode = space.read32(address, Register.classRevision) >> 8
        let header = space.read8(address, Register.headerType) & 0x7F
        found.isBridge = header == 1
        if header == 0 { found.subsystem = space.read32(address, Register.subsystem) }
        if let capability = space.capability(ConfigurationSpace.CapabilityID.pciExpress, of: address) {
            found.portType = UInt8(truncatingIfNeeded: space.read16(address, capability &+ 2) >> 4) & 0xF
        }
        guard header <= 1 else {
            _ = functions.append(found)
            return true
        }

        space.setCommand(address, set: 0, clear: Command.decode | Command.busMaster)
        found.isComplete = assign(&found, count: found.isBridge ? 2 : 6, path)
        guard found.isBridge else {
            if found.isComplete { space.setCommand(address, set: Command.decode | Command.busMaster, clear: 0) }
            _ = functions.append(found)
            return true
        }
        let index = functions.append(found)
        bridge(&found, path)
        if let index { functions[index] = found }
        space.setCommand(address, set: Command.decode | Command.busMaster, clear: 0)
        return true
    }

    // MARK: Base address registers

    /// Sizes and places the first `count` base address registers; false when one found no place.
    private mutating func assign(_ function: inout Function, count: Int, _ path: Path) -> Bool {
        var complete = true
        var index = 0
        while index < count {
            let register = Register.baseAddress0 &+ UInt(index) &* 4
            var bar = size(function.address, register, isLast: index == count &- 1)
            let current = index
            index &+= bar.kind == .memory64 ? 2 : 1
            guard bar.kind != .absent else { continue }
            place(&bar, path)
            complete = complete && bar.isAssigned
            // One without a place holds 0, where no window is, and not the ones of the sizing.
            space.write32(function.address, register, UInt32(truncatingIfNeeded: bar.address))
            if bar.kind == .memory64 {
                space.write32(function.address, register &+ 4, UInt32(truncatingIfNeeded: bar.address >> 32))
            }
            function.bars[current] = bar
        }
        return complete
    }

    /// Finds out kind and size by writing all ones. Spec: PCIe 6.0 §7.5.1.2.1.
    private func size(_ address: FunctionAddress, _ register: UInt, isLast: Bool) -> BaseAddress {
        var bar = BaseAddress()
        space.write32(address, register, .max)
        let low = space.read32(address, register)
        guard low != 0, low != .max else { return bar }
        if low & 1 != 0 {
            bar.kind = .io
            // Functions may leave the upper half of an I/O register out.
            let mask = UInt64(low & 0xFFFC)
            bar.size = mask & (0 &- mask)
        } else {
            var mask = UInt64(low & ~0xF)
            bar.isPrefetchable = low & 1 << 3 != 0
            bar.kind = .memory32
            if low >> 1 & 3 == 2, !isLast {
                bar.kind = .memory64
                space.write32(address, register &+ 4, .max)
                mask |= UInt64(space.read32(address, register &+ 4)) << 32
            }
            // The lowest address bit that can be set is the size.
            bar.size = mask & (0 &- mask)
        }
        if bar.size == 0 { bar.kind = .absent }
        return bar
    }

    private mutating func place(_ bar: inout BaseAddress, _ path: Path) {
        let address: UInt64?
        let cpuOffset: UInt64
        switch bar.kind {
        case .absent:
            return
        case .io:
            address = path.io ? windows.io.take(bar.size) : nil
            cpuOffset = windows.io.cpuOffset
        case .memory64 where path.isRoot || (bar.isPrefetchable && path.prefetch64):
            // Above 4 GiB if there is room, else below like everybody else.
            if let high = windows.memory64.take(bar.size) {
                address = high
                cpuOffset = windows.memory64.cpuOffset
            } else {
                address = path.memory ? windows.memory32.take(bar.size) : nil
                cpuOffset = windows.memory32.cpuOffset
            }
        case .memory32, .memory64:
            address = path.memory ? windows.memory32.take(bar.size) : nil
            cpuOffset = windows.memory32.cpuOffset
        }
        guard let address else { return }
        bar.isAssigned = true
        bar.address = address
        bar.cpuAddress = address &+ cpuOffset
    }

    // MARK: Bridges

    /// Numbers the bus behind a bridge, scans it and opens the bridge's windows for what is there.
    private mutating func bridge(_ function: inout Function, _ path: Path) {
        let address = function.address
        closeWindows(address)
        guard highestBus < space.lastBus, path.depth < 64 else { return }
        highestBus &+= 1
        let secondary = highestBus
        function.secondaryBus = secondary
        space.write8(address, Register.primaryBus, path.bus)
        space.write8(address, Register.secondaryBus, secondary)
        space.write8(address, Register.subordinateBus, space.lastBus)

        var inner = Path(bus: secondary, depth: path.depth &+ 1, isRoot: false)
        inner.isLink = function.portType == Function.rootPort || function.portType == Function.downstreamPort
        inner.prefetch64 = path.prefetch64 && space.read16(address, Register.prefetchableBase) & 0xF == 1
        // The I/O window of a bridge that has none reads as zero whatever is written: closeWindows wrote 0xF0.
        inner.io = path.io && space.read8(address, Register.ioBase) & 0xF0 != 0

        let megabyte: UInt64 = 1 << 20
        let hasMemory = path.memory && windows.memory32.align(megabyte)
        let hasPrefetch = inner.prefetch64 && windows.memory64.align(megabyte)
        let hasIO = inner.io && windows.io.align(0x1000)
        inner.prefetch64 = hasPrefetch
        inner.memory = hasMemory
        inner.io = hasIO
        let memory = windows.memory32.next
        let prefetch = windows.memory64.next
        let io = windows.io.next
        scan(inner)
        function.subordinateBus = highestBus
        space.write8(address, Register.subordinateBus, highestBus)

        // What was taken is rounded up; at the very end of a window the rest of the granule is not there to take.
        if hasMemory, windows.memory32.next != memory {
            _ = windows.memory32.align(megabyte)
            openMemory(address, memory, (windows.memory32.next &- 1) | (megabyte &- 1))
        }
        if hasPrefetch, windows.memory64.next != prefetch {
            _ = windows.memory64.align(megabyte)
            openPrefetchable(address, prefetch, (windows.memory64.next &- 1) | (megabyte &- 1))
        }
        if hasIO, windows.io.next != io {
            _ = windows.io.align(0x1000)
            openIO(address, io, (windows.io.next &- 1) | 0xFFF)
        }
    }

    /// A base above the limit: nothing passes. Spec: PCIe 6.0 §7.5.1.3.
    private func closeWindows(_ address: FunctionAddress) {
        space.write8(address, Register.ioBase, 0xF0)
        space.write8(address, Register.ioLimit, 0x00)
        space.write16(address, Register.memoryBase, 0xFFF0)
        space.write16(address, Register.memoryLimit, 0x0000)
        space.write16(address, Register.prefetchableBase, 0xFFF0)
        space.write16(address, Register.prefetchableLimit, 0x0000)
        space.write32(address, Register.prefetchableBaseUpper, 0)
        space.write32(address, Register.prefetchableLimitUpper, 0)
    }

    private func openMemory(_ address: FunctionAddress, _ base: UInt64, _ last: UInt64) {
        space.write16(address, Register.memoryBase, UInt16(truncatingIfNeeded: base >> 16) & 0xFFF0)
        space.write16(address, Register.memoryLimit, UInt16(truncatingIfNeeded: last >> 16) & 0xFFF0)
    }

    private func openPrefetchable(_ address: FunctionAddress, _ base: UInt64, _ last: UInt64) {
        space.write32(address, Register.prefetchableBaseUpper, UInt32(truncatingIfNeeded: base >> 32))
        space.write32(address, Register.prefetchableLimitUpper, UInt32(truncatingIfNeeded: last >> 32))
        space.write16(address, Register.prefetchableBase, UInt16(truncatingIfNeeded: base >> 16) & 0xFFF0)
        space.write16(address, Register.prefetchableLimit, UInt16(truncatingIfNeeded: last >> 16) & 0xFFF0)
    }

    private func openIO(_ address: FunctionAddress, _ base: UInt64, _ last: UInt64) {
        space.write16(address, Register.ioBaseUpper, UInt16(truncatingIfNeeded: base >> 16))
        space.write16(address, Register.ioLimitUpper, UInt16(truncatingIfNeeded: last >> 16))
        space.write8(address, Register.ioBase, UInt8(truncatingIfNeeded: base >> 8) & 0xF0)
        space.write8(address, Register.ioLimit, UInt8(truncatingIfNeeded: last >> 8) & 0xF0)
    }
}
