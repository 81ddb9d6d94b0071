internal import Synchronization
internal import VFIOUser

// Memory and I/O space: which access leads to which device.

extension RootComplex {
    /// Rebuilds the table of ranges that lead to devices: a base address register behind an open window.
    ///
    /// Under the table's lock, so that of two rebuilds at once the later one sees both changes. Lock order: table,
    /// port, function; nobody takes them the other way round.
    func route() {
        routes.withLock { table in
            table = Routes()
            for port in ports { Self.addRoutes(of: port, to: &table) }
        }
    }

    private static func addRoutes(of port: RootPort, to table: inout Routes) {
        let (functions, memory, io) = port.state.withLock {
            state -> ([AttachedFunction], [ClosedRange<UInt64>], [ClosedRange<UInt64>]) in
            let space = state.registers.space
            let command = space.get16(ConfigurationRegister.command)
            let memory = command & CommandBits.memory != 0 ? [space.memoryWindow, space.prefetchableWindow] : []
            let io = command & CommandBits.io != 0 ? [space.ioWindow] : []
            let functions = state.registers.isLinkActive ? state.functions.compactMap { $0 } : []
            return (functions, memory.compactMap { $0 }, io.compactMap { $0 })
        }
        table.windows += memory.map { (port.number, $0) }
        for function in functions {
            for (bar, range) in function.decodedRanges() {
                let windows = bar.profile.isIO ? io : memory
                guard windows.contains(where: { $0.contains(range.lowerBound) && $0.contains(range.upperBound) })
                else { continue }
                let route = Route(range: range, function: function, bar: bar)
                if bar.profile.isIO { table.io.append(route) } else { table.memory.append(route) }
            }
        }
    }

    private enum Way {
        case device(Route)
        /// Into a port's window, behind which nobody takes it.
        case nobody(RootPort)
        case none
    }

    private func find(_ address: UInt64, width: Int) -> Way {
        let (last, overflow) = address.addingReportingOverflow(UInt64(width) - 1)
        guard !overflow else { return .none }
        return routes.withLock { routes in
            if let route = routes.memory.first(where: { $0.range.contains(address) && $0.range.contains(last) }) {
                return .device(route)
            }
            if let window = routes.windows.first(where: { $0.range.contains(address) }) {
                return .nobody(ports[window.port])
            }
            return .none
        }
    }

    private static func isWidth(_ width: Int) -> Bool { width == 1 || width == 2 || width == 4 || width == 8 }

    /// Reads 1, 2, 4 or 8 bytes of memory space.
    public func memoryRead(_ address: UInt64, width: Int) -> UInt64 {
        let ones: UInt64 = width >= 8 ? .max : (1 << UInt64(max(width, 1) * 8)) - 1
        guard Self.isWidth(width) else { return ones }
        switch find(address, width: width) {
        case .device(let route):
            let value = route.function.readMemory(route.bar, address - route.range.lowerBound, width: width)
            if route.function.client.isGone { lose(route.function, address, width, isWrite: false) }
            return value
        case .nobody(let port): refuse(port, address, width, isWrite: false)
        case .none: break
        }
        return ones
    }

    /// Writes 1, 2, 4 or 8 bytes of memory space.
    public func memoryWrite(_ address: UInt64, width: Int, value: UInt64) {
        guard Self.isWidth(width) else { return }
        switch find(address, width: width) {
        case .device(let route):
            route.function.writeMemory(route.bar, address - route.range.lowerBound, width: width, value: value)
        case .nobody(let port): refuse(port, address, width, isWrite: true)
        case .none: break
        }
    }

    /// Reads 1, 2 or 4 bytes of I/O space.
    public func ioRead(_ address: UInt64, width: Int) -> UInt64 {
        let ones: UInt64 = width >= 8 ? .max : (1 << UInt64(max(width, 1) * 8)) - 1
        guard width == 1 || width == 2 || width == 4, let route = findIO(address, width: width) else { return ones }
        return route.function.readMemory(route.bar, address - route.range.lowerBound, width: width)
    }

    /// Writes 1, 2 or 4 bytes of I/O space.
    public func ioWrite(_ address: UInt64, width: Int, value: UInt64) {
        guard width == 1 || width == 2 || width == 4, let route = findIO(address, width: width) else { return }
        route.function.writeMemory(route.bar, address - route.range.lowerBound, width: width, value: value)
    }

    private func findIO(_ address: UInt64, width: Int) -> Route? {
        guard address <= 0xFFFF else { return nil }
        let last = address + UInt64(width) - 1
        return routes.withLock { routes in
            routes.io.first { $0.range.contains(address) && $0.range.contains(last) }
        }
    }

    // MARK: Errors

    /// An access into a port's window that nobody takes. Where the link is down that is an Unsupported Request of the
    /// port; where it is up the card answers with it, and the port has a master abort.
    /// Spec: PCI Express Base §2.3.1, §2.9.1 (DL_Down), §7.5.1.3.7.
    private func refuse(_ port: RootPort, _ address: UInt64, _ width: Int, isWrite: Bool) {
        port.apply { state in
            state.registers.recordMasterAbort()
            // An empty slot is a port without a link too, but nobody was given addresses behind it.
            guard !state.registers.isLinkActive else { return RootPortRegisters.Effects() }
            return state.registers.detect(
                .unsupportedRequest, header: Self.header(address, width, isWrite, port.identifier),
                identifier: port.identifier)
        }
    }

    /// The device went away while it was asked: the request never completes.
    private func lose(_ function: AttachedFunction, _ address: UInt64, _ width: Int, isWrite: Bool) {
        guard let port = ports.first(where: { $0.functions.contains { $0 === function } }) else {
            // It left after the way to it was found: by now there is no link.
            let window = routes.withLock { routes in routes.windows.first { $0.range.contains(address) } }
            if let window { refuse(ports[window.port], address, width, isWrite: isWrite) }
            return
        }
        port.apply { state in
            state.registers.detect(
                .completionTimeout, header: Self.header(address, width, isWrite, port.identifier),
                identifier: port.identifier)
        }
    }

    /// The header of a memory request packet. Spec: PCI Express Base §2.2.7 (memory requests).
    private static func header(
        _ address: UInt64, _ width: Int, _ isWrite: Bool, _ requester: RequesterID
    ) -> [UInt32] {
        let isLong = address > UInt64(UInt32.max)
        let words: UInt32 = width == 8 ? 2 : 1
        let format: UInt32 = (isWrite ? 2 : 0) | (isLong ? 1 : 0)
        let first: UInt32 = width >= 4 ? 0xF : ((1 << UInt32(width)) - 1) << UInt32(address & 3) & 0xF
        let last: UInt32 = width == 8 ? 0xF : 0
        let low = UInt32(truncatingIfNeeded: address) & ~3
        return [
            format << 29 | words, UInt32(requester.rawValue) << 16 | last << 4 | first,
            isLong ? UInt32(truncatingIfNeeded: address >> 32) : low, isLong ? low : 0,
        ]
    }
}
