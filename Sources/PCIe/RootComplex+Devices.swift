internal import Synchronization
public import VFIOUser
public import Wire

// Cards: plugged in before power-on or at run time, taken out in order or by surprise.

extension RootComplex {
    /// Puts a device behind a root port, as it is found at power-on; with `isHotPlug` the slot tells software.
    ///
    /// The client's hang-up is watched from now on: a device whose process ends is removed at once. `gate` is that of
    /// the client's memory, if it has any.
    public func attach(
        port: Int, function: Int = 0, client: VFIOUserClient, isHotPlug: Bool = false
    ) throws(RootComplexError) {
        try attach(FunctionPlace(port: port, function: function), client, DMAGate(), isHotPlug: isHotPlug)
    }

    /// Connects to the device that listens at a path and puts it behind a root port. When it goes away, the port's
    /// link is down and the log gets one line.
    public func connect(
        port: Int, function: Int = 0, to path: String, tap: LinkTap = LinkTap(), isHotPlug: Bool = false
    ) throws(RootComplexError) {
        let place = FunctionPlace(port: port, function: function)
        let rootPort = try free(place)
        let derive = deriveWindows
        let gate = DMAGate()
        let memory = WindowMemory { [weak rootPort] in
            guard gate.isOpen, let rootPort else { return [] }
            return derive(rootPort.identifier(of: function))
        }
        let client: VFIOUserClient
        do throws(VFIOUserError) {
            client = try VFIOUserClient.connect(to: path, memory: memory, tap: tap, ioEvents: true) {
                [weak self] reason in
                self?.lost(place, reason)
            }
        } catch {
            throw .device(place, error)
        }
        try attach(place, client, gate, isHotPlug: isHotPlug)
    }

    /// The port of a place that is free.
    private func free(_ place: FunctionPlace) throws(RootComplexError) -> RootPort {
        guard ports.indices.contains(place.port), (0..<8).contains(place.function) else {
            throw .noSuchPort(place, ports: ports.count)
        }
        guard ports[place.port].client(place.function) == nil else { throw .occupied(place) }
        return ports[place.port]
    }

    private func attach(
        _ place: FunctionPlace, _ client: VFIOUserClient, _ gate: DMAGate, isHotPlug: Bool
    ) throws(RootComplexError) {
        let port = try free(place)
        let host = host(place, port, gate)
        if DormantFunction.isDormant(client) {
            try attachDormant(place, DormantFunction(client, host: host), isHotPlug: isHotPlug)
        } else {
            let function: AttachedFunction
            do throws(VFIOUserError) { function = try AttachedFunction(client, host: host) } catch {
                throw .device(place, error)
            }
            guard port.insert(.function(function), at: place.function, isStart: !isHotPlug) else {
                function.detach()
                throw .occupied(place)
            }
        }
        // Its end must be known at once, not at the next access.
        let descriptor = client.descriptor
        try? loop.add(descriptor, .hangUp) { [weak self, weak client] _ in
            guard let self, let client else { return }
            self.loop.remove(descriptor)
            self.hungUp(place, client)
        }
    }

    // MARK: Reset from outside

    /// Puts a device behind a root port that is in reset: the slot shows a card and no link, until it answers.
    private func attachDormant(
        _ place: FunctionPlace, _ dormant: DormantFunction, isHotPlug: Bool
    ) throws(RootComplexError) {
        guard ports[place.port].insert(.dormant(dormant), at: place.function, isStart: !isHotPlug) else {
            throw .occupied(place)
        }
        attend(place, dormant)
    }

    /// Hears of the end of a device's reset; it may have ended already. Until then accesses ask.
    private func attend(_ place: FunctionPlace, _ dormant: DormantFunction) {
        dormant.watch { [weak self] in self?.wake(place) }
        wake(place)
    }

    /// Asks a function that was in reset whether it still is. Any thread.
    func wake(_ place: FunctionPlace) {
        let port = ports[place.port]
        guard let dormant = port.dormant(place.function) else { return }
        dormant.wake { port.wake(dormant, $0, at: place.function) }
    }

    /// A function answers nothing any more. Loop thread.
    private func fall(_ place: FunctionPlace) {
        let port = ports[place.port]
        guard let function = port.function(place.function) else { return }
        let dormant = DormantFunction(function.client, host: function.host)
        if port.fall(function, dormant, at: place.function) { attend(place, dormant) }
    }

    private func host(_ place: FunctionPlace, _ port: RootPort, _ gate: DMAGate) -> AttachedFunction.Host {
        let log = log
        let derive = deriveWindows
        return AttachedFunction.Host(
            deliverMessage: port.outputs.deliverMessage,
            setINTx: { [weak port] pin, level in port?.setPin(pin, by: place.function, level) },
            reportError: { [weak port] message in
                guard let port else { return }
                let source = port.identifier(of: place.function)
                port.apply { $0.registers.receive(message, from: source) }
            },
            reportPowerManagementEvent: { [weak port] in
                guard let port else { return }
                let source = port.identifier(of: place.function)
                port.apply { $0.registers.receivePowerManagementEvent(from: source) }
            },
            requestRemoval: { [weak port] in port?.requestRemoval() },
            fell: { [weak self] in self?.fall(place) },
            windows: { [weak port] in port.map { derive($0.identifier(of: place.function)) } ?? [] },
            log: { log("root port \(place): \($0)") }, loop: loop, gate: gate)
    }

    // MARK: Leaving

    /// The device's socket hung up. Loop thread.
    private func hungUp(_ place: FunctionPlace, _ client: VFIOUserClient) {
        // A device that is asked just now learns it there too, with a better reason.
        let reason = client.goneReason ?? "it closed the link"
        guard let removed = ports[place.port].remove(place.function, only: client) else { return }
        removed.close()
        report(place, reason)
    }

    /// A client of ours is gone, on whatever thread found out.
    private func lost(_ place: FunctionPlace, _ reason: String) {
        guard ports.indices.contains(place.port), let client = ports[place.port].client(place.function) else { return }
        // Locks may be held here; the loop's thread has none.
        loop.perform { [weak self] in
            guard let self, client.isGone, self.ports[place.port].remove(place.function, only: client) != nil else {
                return
            }
            self.loop.remove(client.descriptor)
            self.report(place, reason)
        }
    }

    private func report(_ place: FunctionPlace, _ reason: String) {
        log("root port \(place): the link is down: \(reason)")
        onEvent(.lost(place, reason: reason))
    }

    /// Takes a device away, at once and without asking anybody.
    public func detach(port: Int, function: Int = 0) {
        guard ports.indices.contains(port), (0..<8).contains(function) else { return }
        guard let removed = ports[port].remove(function) else { return }
        loop.remove(removed.descriptor)
    }

    /// Presses the attention button of a slot: software is asked to let the card go, and when it switches the slot's
    /// power off, the functions leave and `released` is told.
    public func requestRemoval(port: Int) throws(RootComplexError) {
        let place = FunctionPlace(port: port)
        guard ports.indices.contains(port) else { throw .noSuchPort(place, ports: ports.count) }
        guard ports[port].client(0) != nil else { throw .empty(place) }
        ports[port].requestRemoval()
    }

    /// Software let the card of a port go.
    func release(port: Int) {
        var places: [FunctionPlace] = []
        // Function 0 last: it is what the slot shows.
        for function in (0..<8).reversed() {
            guard let removed = ports[port].remove(function) else { continue }
            loop.remove(removed.descriptor)
            removed.close()
            places.append(FunctionPlace(port: port, function: function))
        }
        if !places.isEmpty { onEvent(.released(places.reversed())) }
    }

    // MARK: State

    /// True while a device is there, has power, and answers.
    public func isLinkUp(port: Int) -> Bool {
        guard ports.indices.contains(port) else { return false }
        return ports[port].state.withLock { state in
            state.registers.isLinkActive && state.functions[0]?.client.isGone == false
        }
    }

    /// What a slot's state is.
    public struct Slot: Sendable, Hashable {
        public var isPresent: Bool
        public var isPowered: Bool
        public var isLinkActive: Bool
    }

    /// The state of a port's slot. Precondition: the port exists.
    public func slot(port: Int) -> Slot {
        ports[port].state.withLock { state in
            Slot(
                isPresent: state.registers.isPresent, isPowered: state.registers.isPowered,
                isLinkActive: state.registers.isLinkActive)
        }
    }

    /// Asks again for every device's windows and maps what changed: for an IOMMU whose tables changed.
    public func refreshDMA() {
        for port in ports { for function in port.functions { function.mapWindows() } }
    }

    /// Logs an error in a function's registers, or with `onPort` in the root port's own, and sends its message.
    /// False where the function has no PCI Express capability to log it in.
    public func inject(
        _ error: PCIError, at place: FunctionPlace, onPort: Bool = false, header: [UInt32]? = nil,
        isAdvisory: Bool = false
    ) throws(RootComplexError) -> Bool {
        guard ports.indices.contains(place.port) else { throw .noSuchPort(place, ports: ports.count) }
        let port = ports[place.port]
        if onPort {
            port.apply {
                $0.registers.detect(
                    error, header: header, isAdvisory: isAdvisory, identifier: port.identifier)
            }
            return true
        }
        let function = try awake(place)
        guard function.profile.express != nil else { return false }
        function.inject(error, header: header, isAdvisory: isAdvisory)
        return true
    }

    /// A function asks for service (PME). False where it cannot or software has not enabled it.
    public func requestService(at place: FunctionPlace) throws(RootComplexError) -> Bool {
        guard ports.indices.contains(place.port) else { throw .noSuchPort(place, ports: ports.count) }
        return try awake(place).requestService()
    }

    private func awake(_ place: FunctionPlace) throws(RootComplexError) -> AttachedFunction {
        if let function = ports[place.port].function(place.function) { return function }
        throw ports[place.port].dormant(place.function) == nil ? .empty(place) : .inReset(place)
    }
}
