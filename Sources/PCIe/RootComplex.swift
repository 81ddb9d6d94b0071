internal import Synchronization
public import VFIOUser
public import Wire

/// Why a device could not be put behind a root port, or taken from it.
public enum RootComplexError: Error, Sendable, CustomStringConvertible {
    case noSuchPort(FunctionPlace, ports: Int)
    case occupied(FunctionPlace)
    case empty(FunctionPlace)
    case inReset(FunctionPlace)
    case device(FunctionPlace, VFIOUserError)

    public var description: String {
        switch self {
        case .noSuchPort(let place, let ports): "there is no root port \(place.port): the ports are 0 to \(ports - 1)"
        case .occupied(let place): "root port \(place) has a device already"
        case .empty(let place): "root port \(place) has no device"
        case .inReset(let place): "the device at root port \(place) is in reset"
        case .device(let place, let error): "the device at root port \(place): \(error)"
        }
    }
}

/// What happens to cards. Delivered on any thread, with no lock held.
public enum RootComplexEvent: Sendable, Equatable {
    /// The device's process ended or closed its link: a surprise removal.
    case lost(FunctionPlace, reason: String)
    /// Software switched the power of the slot off, as it was asked to: the functions of the card are out.
    case released([FunctionPlace])
}

/// The host's PCI Express root complex.
///
///     bus 0   00.0      host bridge
///             01.0 …    root ports 0 …, each a bridge to a bus of its own, with a hot-plug slot
///     behind  00.0 …    up to eight functions, each an endpoint in another process, reached through a
///                       `VFIOUserClient`
///
/// Harts call the access methods from their threads, at any time and in parallel; what is not there reads as all ones
/// and takes no writes. Messages and INTx go out through the two closures, from the interrupt thread or from the
/// hart that let them go; neither may call back into the root complex with a lock held that an access needs.
///
/// Spec: PCI Express Base §1.3.1, §7.2.2 (ECAM), §7.5.1.3 (bridges).
public final class RootComplex: Sendable {
    /// A range of memory or I/O space that leads to a device.
    struct Route {
        var range: ClosedRange<UInt64>
        var function: AttachedFunction
        var bar: AttachedFunction.BAR
    }

    /// The ways through the ports, and the windows of ports that lead to nobody.
    struct Routes {
        var memory: [Route] = []
        var io: [Route] = []
        /// Memory windows of every port, by its number.
        var windows: [(port: Int, range: ClosedRange<UInt64>)] = []
    }

    let ports: [RootPort]
    private let bridge = Mutex(HostFunctions.hostBridge())
    let routes = Mutex(Routes())
    let loop: EventLoop
    private let ownThread: WorkerThread?
    let deriveWindows: @Sendable (RequesterID) -> [DMAWindow]
    let log: @Sendable (String) -> Void
    let onEvent: @Sendable (RootComplexEvent) -> Void
    /// What ports do for this object, which comes after them.
    private let relay: Relay

    private final class Relay: Sendable {
        private let target = Mutex<Target>(Target())
        private struct Target { weak var root: RootComplex? }
        var root: RootComplex? {
            get { target.withLock { $0.root } }
            set { target.withLock { $0.root = newValue } }
        }
    }

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
        log: @escaping @Sendable (String) -> Void = { _ in },
        onEvent: @escaping @Sendable (RootComplexEvent) -> Void = { _ in }
    ) throws(WireError) {
        precondition((1...31).contains(count), "bus 0 has room for 31 root ports")
        let relay = Relay()
        self.relay = relay
        let outputs = RootPort.Outputs(
            deliverMessage: deliverMessage, setINTx: setINTx, routesChanged: { relay.root?.route() },
            cardReleased: { relay.root?.release(port: $0) })
        ports = (0..<count).map { RootPort($0, outputs: outputs) }
        self.log = log
        self.onEvent = onEvent
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
        relay.root = self
    }

    deinit {
        for port in ports {
            for function in port.functions { function.detach() }
            for number in 0..<8 { port.dormant(number)?.end() }
        }
        guard let ownThread else { return }
        loop.stop()
        ownThread.join()
    }

    /// Resets every bridge and device, as the machine's reset does.
    public func reset() {
        bridge.withLock { $0 = HostFunctions.hostBridge() }
        for port in ports { port.reset() }
        route()
    }

    // MARK: Configuration space

    /// Reads 1, 2 or 4 bytes at an ECAM offset: bits 27–20 bus, 19–15 device, 14–12 function, 11–0 register.
    public func configRead(_ offset: UInt64, width: Int) -> UInt64 {
        let ones: UInt64 = width >= 8 ? .max : (1 << UInt64(width * 8)) - 1
        guard offset < 1 << 28, width == 1 || width == 2 || width == 4 else { return ones }
        let (bus, device, function) = Self.address(offset)
        let register = Int(offset & 0xFFF)
        guard register + width <= ConfigurationSpace.size else { return ones }
        if bus == 0 {
            guard function == 0 else { return ones }
            if device == 0 { return bridge.withLock { $0.read(register, width: width) } }
            guard ports.indices.contains(device - 1) else { return ones }
            return ports[device - 1].read(register, width: width)
        }
        guard device == 0, let port = port(behind: bus), let target = target(port, function) else { return ones }
        var value = target.function.readConfiguration(register, width: width)
        let place = ConfigurationRegister.headerType
        if function == 0, target.isMultiple, register <= place, register + width > place {
            value |= UInt64(HeaderType.multipleFunctions) << UInt64((place - register) * 8)
        }
        return value
    }

    /// Writes 1, 2 or 4 bytes at an ECAM offset.
    public func configWrite(_ offset: UInt64, width: Int, value: UInt64) {
        guard offset < 1 << 28, width == 1 || width == 2 || width == 4 else { return }
        let (bus, device, function) = Self.address(offset)
        let register = Int(offset & 0xFFF)
        guard register + width <= ConfigurationSpace.size else { return }
        if bus == 0 {
            guard function == 0 else { return }
            if device == 0 { return bridge.withLock { $0.write(register, width: width, value: value) } }
            guard ports.indices.contains(device - 1) else { return }
            return ports[device - 1].write(register, width: width, value: value)
        }
        guard device == 0, let port = port(behind: bus), let target = target(port, function) else { return }
        if target.function.writeConfiguration(register, width: width, value: value) { route() }
    }

    /// The function that an access is for; one that was in reset when it was asked last is asked again.
    private func target(_ port: RootPort, _ function: Int) -> (function: AttachedFunction, isMultiple: Bool)? {
        if port.sleeper(function) != nil { wake(FunctionPlace(port: port.number, function: function)) }
        return port.target(function)
    }

    private func port(behind bus: Int) -> RootPort? {
        ports.first { port in port.state.withLock { $0.registers.secondaryBus } == UInt8(bus) }
    }

    private static func address(_ offset: UInt64) -> (bus: Int, device: Int, function: Int) {
        (Int(offset >> 20 & 0xFF), Int(offset >> 15 & 0x1F), Int(offset >> 12 & 7))
    }
}
