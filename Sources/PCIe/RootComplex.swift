internal import Synchronization
public import VFIOUser
public import Wire

/// Why a device could not be put behind a root port.
public enum RootComplexError: Error, Sendable, CustomStringConvertible {
    case noSuchPort(Int, ports: Int)
    case occupied(Int)
    case device(Int, VFIOUserError)

    public var description: String {
        switch self {
        case .noSuchPort(let port, let ports): "there is no root port \(port): the ports are 0 to \(ports - 1)"
        case .occupied(let port): "root port \(port) has a device already"
        case .device(let port, let error): "the device at root port \(port): \(error)"
        }
    }
}

/// The host's PCI Express root complex.
///
///     bus 0   00.0      host bridge
///             01.0 …    root ports 0 …, each a bridge to a bus of its own
///     behind  00.0      an endpoint in another process, reached through a `VFIOUserClient`
///
/// Harts call the access methods from their threads, at any time and in parallel; what is not there reads as all ones
/// and takes no writes. Messages and INTx go out through the two closures, from the interrupt thread or from the
/// hart that let them go; neither may call back into the root complex with a lock held that an access needs.
///
/// Spec: PCI Express Base §1.3.1, §7.2.2 (ECAM), §7.5.1.3 (bridges).
public final class RootComplex: Sendable {
    private final class Port: Sendable {
        struct State {
            var space: ConfigurationSpace
            var function: AttachedFunction?
            var windows: [DMAWindow] = []
        }

        let number: Int
        let express: Int
        let pristine: ConfigurationSpace
        let state: Mutex<State>

        init(_ number: Int) {
            self.number = number
            pristine = HostFunctions.rootPort(number)
            express = pristine.capability(CapabilityID.express) ?? 0
            state = Mutex(State(space: pristine))
        }

        /// The bus behind the port, or nil while it is not numbered or is held in reset.
        var secondaryBus: UInt8? {
            state.withLock { state in
                let bus = state.space.get8(ConfigurationRegister.secondaryBus)
                let control = state.space.get16(ConfigurationRegister.bridgeControl)
                return bus == 0 || control & BridgeControlBits.busReset != 0 ? nil : bus
            }
        }

        var function: AttachedFunction? { state.withLock { $0.function } }
    }

    /// A range of memory space that leads to a device.
    private struct Route {
        var range: ClosedRange<UInt64>
        var function: AttachedFunction
        var bar: AttachedFunction.BAR
    }

    private let ports: [Port]
    private let bridge = Mutex(HostFunctions.hostBridge())
    private let routes = Mutex<[Route]>([])
    private let loop: EventLoop
    private let ownThread: WorkerThread?
    private let deliverMessage: @Sendable (UInt64, UInt32) -> Void
    private let setINTx: @Sendable (Int, Int, Bool) -> Void
    private let deriveWindows: @Sendable (RequesterID) -> [DMAWindow]
    private let log: @Sendable (String) -> Void

    /// A root complex with so many root ports, 1 to 31.
    ///
    /// `memory`, if given, is mapped for every device at `memoryBase`; `windows` replaces that (an IOMMU). `loop`
    /// carries the interrupts; without one the root complex makes its own and a thread for it. `deliverMessage` gets
    /// an MSI-X message's address and data, `setINTx` the device number on bus 0, the pin (0 is INTA) and the level.
    public init(
        ports count: Int, memory: SharedMemory? = nil, memoryBase: UInt64 = 0, loop: EventLoop? = nil,
        windows: (@Sendable (RequesterID) -> [DMAWindow])? = nil,
        deliverMessage: @escaping @Sendable (_ address: UInt64, _ data: UInt32) -> Void,
        setINTx: @escaping @Sendable (_ device: Int, _ pin: Int, _ level: Bool) -> Void = { _, _, _ in },
        log: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(WireError) {
        precondition((1...31).contains(count), "bus 0 has room for 31 root ports")
        ports = (0..<count).map(Port.init)
        self.deliverMessage = deliverMessage
        self.setINTx = setINTx
        self.log = log
        deriveWindows =
            windows ?? { _ in
                guard let memory else { return [] }
                return [DMAWindow(address: IOVirtualAddress(memoryBase), length: UInt64(memory.size), memory: memory)]
            }
        if let loop {
            self.loop = loop
            ownThread = nil
        } else {
            let own = try EventLoop()
            self.loop = own
            ownThread = WorkerThread("pcie-interrupts") { own.run() }
        }
    }

    deinit {
        for port in ports { port.function?.detach() }
        guard let ownThread else { return }
        loop.stop()
        ownThread.join()
    }

    // MARK: Devices

    /// Puts a device behind a root port, as it is found at power-on, and maps memory for it.
    public func attach(port number: Int, client: VFIOUserClient) throws(RootComplexError) {
        guard ports.indices.contains(number) else { throw .noSuchPort(number, ports: ports.count) }
        let port = ports[number]
        guard port.function == nil else { throw .occupied(number) }
        let device = number + 1
        let setINTx = setINTx
        do throws(VFIOUserError) {
            let function = try AttachedFunction(
                client,
                host: AttachedFunction.Host(
                    deliverMessage: deliverMessage, setINTx: { pin, level in setINTx(device, pin, level) }, loop: loop))
            port.state.withLock { $0.function = function }
            try mapWindows(port, client)
        } catch {
            detach(port: number)
            throw .device(number, error)
        }
    }

    /// Connects to the device that listens at a path and puts it behind a root port. When it goes away, the port's
    /// link is down and the log gets one line.
    public func connect(port number: Int, to path: String, tap: LinkTap = LinkTap()) throws(RootComplexError) {
        guard ports.indices.contains(number) else { throw .noSuchPort(number, ports: ports.count) }
        let log = log
        let derive = deriveWindows
        let memory = WindowMemory { derive(RequesterID(bus: UInt8(number + 1), device: 0)) }
        let client: VFIOUserClient
        do throws(VFIOUserError) {
            client = try VFIOUserClient.connect(to: path, memory: memory, tap: tap) { reason in
                log("root port \(number): the link is down: \(reason)")
            }
        } catch {
            throw .device(number, error)
        }
        try attach(port: number, client: client)
    }

    /// Takes a device away.
    public func detach(port number: Int) {
        guard ports.indices.contains(number) else { return }
        let function = ports[number].state.withLock { state in
            let function = state.function
            state.function = nil
            state.windows = []
            return function
        }
        function?.detach()
        route()
    }

    /// True while a device is there and answers.
    public func isLinkUp(port number: Int) -> Bool {
        ports.indices.contains(number) && ports[number].function?.client.isGone == false
    }

    /// Asks again for every device's windows and maps what changed: for an IOMMU whose tables changed.
    public func refreshDMA() {
        for port in ports {
            guard let function = port.function else { continue }
            do throws(VFIOUserError) {
                try mapWindows(port, function.client)
            } catch {
                log("root port \(port.number): \(error)")
            }
        }
    }

    private func mapWindows(_ port: Port, _ client: VFIOUserClient) throws(VFIOUserError) {
        let bus = port.state.withLock { $0.space.get8(ConfigurationRegister.secondaryBus) }
        let wanted = deriveWindows(RequesterID(bus: bus == 0 ? UInt8(port.number + 1) : bus, device: 0))
        let present = port.state.withLock { $0.windows }
        for window in present where !wanted.contains(where: window.isSame(as:)) {
            try client.unmapDMA(address: window.address, length: window.length)
        }
        for window in wanted where !present.contains(where: window.isSame(as:)) {
            try client.mapDMA(
                address: window.address, length: window.length, descriptor: window.memory.descriptor,
                offset: window.offset, writable: window.isWritable)
        }
        port.state.withLock { $0.windows = wanted }
    }

    /// Resets every bridge and device, as the machine's reset does.
    public func reset() {
        bridge.withLock { $0 = HostFunctions.hostBridge() }
        for port in ports {
            port.state.withLock { $0.space = port.pristine }
            port.function?.reset()
        }
        route()
    }

    // MARK: Configuration space

    /// Reads 1, 2 or 4 bytes at an ECAM offset: bits 27–20 bus, 19–15 device, 14–12 function, 11–0 register.
    public func configRead(_ offset: UInt64, width: Int) -> UInt64 {
        let ones: UInt64 = width >= 8 ? .max : (1 << UInt64(width * 8)) - 1
        guard offset < 1 << 28, width == 1 || width == 2 || width == 4 else { return ones }
        let (bus, device, function) = Self.address(offset)
        let register = Int(offset & 0xFFF)
        guard register + width <= ConfigurationSpace.size, function == 0 else { return ones }
        if bus == 0 {
            if device == 0 { return bridge.withLock { $0.read(register, width: width) } }
            guard ports.indices.contains(device - 1) else { return ones }
            return readPort(ports[device - 1], register, width: width)
        }
        guard device == 0, let port = ports.first(where: { $0.secondaryBus == UInt8(bus) }),
            let attached = port.function
        else { return ones }
        return attached.readConfiguration(register, width: width)
    }

    /// Writes 1, 2 or 4 bytes at an ECAM offset.
    public func configWrite(_ offset: UInt64, width: Int, value: UInt64) {
        guard offset < 1 << 28, width == 1 || width == 2 || width == 4 else { return }
        let (bus, device, function) = Self.address(offset)
        let register = Int(offset & 0xFFF)
        guard register + width <= ConfigurationSpace.size, function == 0 else { return }
        if bus == 0 {
            if device == 0 { return bridge.withLock { $0.write(register, width: width, value: value) } }
            guard ports.indices.contains(device - 1) else { return }
            return writePort(ports[device - 1], register, width: width, value: value)
        }
        guard device == 0, let port = ports.first(where: { $0.secondaryBus == UInt8(bus) }),
            let attached = port.function
        else { return }
        if attached.writeConfiguration(register, width: width, value: value) { route() }
    }

    private static func address(_ offset: UInt64) -> (bus: Int, device: Int, function: Int) {
        (Int(offset >> 20 & 0xFF), Int(offset >> 15 & 0x1F), Int(offset >> 12 & 7))
    }

    private func readPort(_ port: Port, _ register: Int, width: Int) -> UInt64 {
        port.state.withLock { state in
            // The link and the slot say whether a device is there now.
            let isUp = state.function?.client.isGone == false
            let link = state.space.get16(port.express + ExpressRegister.linkStatus) & ~ExpressRegister.linkActive
            state.space.set16(
                port.express + ExpressRegister.linkStatus, link | (isUp ? ExpressRegister.linkActive : 0))
            let slot = state.space.get16(port.express + ExpressRegister.slotStatus) & ~ExpressRegister.presenceDetected
            state.space.set16(
                port.express + ExpressRegister.slotStatus, slot | (isUp ? ExpressRegister.presenceDetected : 0))
            return state.space.read(register, width: width)
        }
    }

    private func writePort(_ port: Port, _ register: Int, width: Int, value: UInt64) {
        let resets = port.state.withLock { state in
            let was = state.space.get16(ConfigurationRegister.bridgeControl)
            state.space.write(register, width: width, value: value)
            return ~was & state.space.get16(ConfigurationRegister.bridgeControl) & BridgeControlBits.busReset != 0
        }
        if resets { port.function?.reset() }
        route()
    }

    // MARK: Memory space

    /// Rebuilds the table of ranges that lead to devices: a base address register behind an open window.
    ///
    /// Under the table's lock, so that of two rebuilds at once the later one sees both changes. Lock order: table,
    /// port, function; nobody takes them the other way round.
    private func route() {
        routes.withLock { table in
            table = []
            for port in ports { table += Self.routes(of: port) }
        }
    }

    private static func routes(of port: Port) -> [Route] {
        let (function, windows) = port.state.withLock { state -> (AttachedFunction?, [ClosedRange<UInt64>]) in
            guard state.space.get16(ConfigurationRegister.command) & CommandBits.memory != 0,
                state.space.get16(ConfigurationRegister.bridgeControl) & BridgeControlBits.busReset == 0
            else { return (nil, []) }
            return (state.function, [state.space.memoryWindow, state.space.prefetchableWindow].compactMap { $0 })
        }
        guard let function else { return [] }
        return function.decodedRanges().filter { _, range in
            windows.contains { $0.contains(range.lowerBound) && $0.contains(range.upperBound) }
        }.map { bar, range in Route(range: range, function: function, bar: bar) }
    }

    private func find(_ address: UInt64, width: Int) -> Route? {
        let (last, overflow) = address.addingReportingOverflow(UInt64(width) - 1)
        guard !overflow else { return nil }
        return routes.withLock { routes in
            routes.first { $0.range.contains(address) && $0.range.contains(last) }
        }
    }

    /// Reads 1, 2, 4 or 8 bytes of memory space.
    public func memoryRead(_ address: UInt64, width: Int) -> UInt64 {
        let ones: UInt64 = width >= 8 ? .max : (1 << UInt64(max(width, 1) * 8)) - 1
        guard width == 1 || width == 2 || width == 4 || width == 8, let route = find(address, width: width) else {
            return ones
        }
        return route.function.readMemory(route.bar, address - route.range.lowerBound, width: width)
    }

    /// Writes 1, 2, 4 or 8 bytes of memory space.
    public func memoryWrite(_ address: UInt64, width: Int, value: UInt64) {
        guard width == 1 || width == 2 || width == 4 || width == 8, let route = find(address, width: width) else {
            return
        }
        route.function.writeMemory(route.bar, address - route.range.lowerBound, width: width, value: value)
    }
}
