// The BMC's shell: sockets around the values of this folder, all on one loop's thread.
//
//   sideband ── RESET# ──▶ firmware loads ──▶ POWER_GOOD
//   serial   ── bytes ───▶ ConsoleLog ──▶ console clients, ring buffer, syslog lines; LineMatcher ──▶ boot complete
//   lpc      ── cycles ──▶ SystemInterface ──▶ SYNC, interrupt
//   eth0     ── frames ──▶ ManagementStack ──▶ frames
//
// While RESET# is asserted, and until the firmware is loaded, nothing is answered and what comes is thrown away, as by a
// chip without a clock. A controller whose firmware cannot be loaded stays so until its next reset. The console
// log survives a reset: what the host printed before it went down is what people want to read.

public import DeviceFirmware
public import Ethernet
import LPC
import Sideband
import Synchronization
public import Wire

/// A baseboard management controller.
public final class ManagementController: Sendable {
    public struct Configuration: Sendable {
        public var mac = MACAddress(rawValue: 0x5254_00B0_0001)
        public var interface = IPv4Interface("192.168.7.2/24")!
        /// Gets every console line as a syslog message; nil for nobody.
        public var collector: IPv4Address?
        /// Names this controller in syslog messages.
        public var hostname = "bmc"
        /// Bytes of console kept, a power of two.
        public var consoleCapacity = ConsoleLog.defaultCapacity
        /// The line on COM1 that means that the host has booted; nil for that of the firmware. docs/wiring.md "Events".
        public var bootCompleteLine: String?
        /// The host firmware's last line: what the controller waits for when its own firmware does not say.
        public static let builtInBootLine = "Baseboard firmware: ready"

        /// The line to wait for by `firmware`.
        func bootLine(_ firmware: LoadedFirmware) -> String {
            bootCompleteLine ?? firmware.text("boot-line") ?? Self.builtInBootLine
        }

        /// What it says of itself on its system interface by `firmware`.
        func identity(_ firmware: LoadedFirmware) -> IPMIHandler.Identity {
            var identity = IPMIHandler.Identity(firmware.version)
            identity.mac = mac.rawValue
            if let number = firmware.unsigned("device-id") { identity.deviceID = UInt8(truncatingIfNeeded: number) }
            if let number = firmware.unsigned("manufacturer-id") {
                identity.manufacturer = UInt32(truncatingIfNeeded: number)
            }
            if let number = firmware.unsigned("product-id") { identity.product = UInt16(truncatingIfNeeded: number) }
            return identity
        }

        public init() {}
    }

    /// What happened, for the timeline.
    public enum Event: Hashable, Sendable {
        case resetAsserted
        case resetReleased
        case firmwareLoaded(LoadedFirmware)
        /// The controller does not run until its next reset.
        case firmwareFailed(reason: String)
        /// The controller runs.
        case powerGood
        /// The first byte of the host's COM1 since reset was released.
        case firstOutput
        /// The line came that means that the host has booted.
        case bootComplete
        /// A firmware image was taken and boots at the next power cycle.
        case updateStaged
        case updateFailed(reason: String)
    }

    /// What a query shows.
    public struct Snapshot: Sendable {
        /// RESET# is asserted.
        public var isHeld: Bool
        public var firmware: FirmwareState
        public var mac: MACAddress
        public var interface: IPv4Interface
        public var network: ManagementStack.Statistics
        public var port: PortStatistics
        public var isLinkUp: Bool
        public var isSerialConnected: Bool
        /// Bytes of the host's console since the process started.
        public var consoleBytes: UInt64
        /// Bytes that came while the controller did not run, and were thrown away.
        public var consoleDropped: UInt64
        public var consoleClients: Int
        public var hasBootCompleted: Bool
    }

    /// What the host's way to this controller has seen since RESET# was released.
    public struct SystemInterfaceStatus: Sendable {
        public var isConnected: Bool
        public var kcsState: KCSInterface.State
        public var cycles: UInt64
        public var kcsErrors: UInt64
        public var requests: UInt64
        public var refusals: UInt64
        public var globalEnables: UInt8
    }

    private static let serialLimit = 16 << 10
    /// What a person may type ahead of a host that does not read: more than the 16 bytes of a UART, less than a paste
    /// that went wrong.
    private static let inputCapacity = 4 << 10
    /// Console lines that wait for the collector's MAC address.
    private static let waitingLines = 64

    struct State {
        /// True while no sideband is known: in reset, as docs/wiring.md says.
        var isHeld = true
        var firmware = FirmwareState.none
        /// What was loaded last, on its way to run.
        var arrived = LoadedFirmware.builtIn
        var stack: ManagementStack
        var batch = FrameBatch()
        var log: ConsoleLog
        var consoleDropped: UInt64 = 0
        var ringPosition: UInt64 = 0
        var matcher: LineMatcher
        var splitter = LineSplitter()
        var waiting: [[UInt8]] = []
        /// When the collector's MAC address was last asked for.
        var asked = MonotonicTime(nanoseconds: 0)
        var hasOutput = false
        var hasBootCompleted = false
        var serial: Socket?
        var input = ByteQueue(capacity: ManagementController.inputCapacity)
        var assembler = MCTPAssembler(address: .bmc)
        var update = UpdateAgent()
        var updateTag: UInt8 = 0
        /// Ends the wait for the logic's answer.
        var updateTimer: EventLoop.Timer?
        /// What was told last.
        var updateTold = UpdateAgent.Phase.idle
        var system: SystemInterface
        var lpc: LPCLink?
        var complaints = Complaints()

        /// Out of reset, with firmware.
        var isRunning: Bool { firmware.loaded != nil }
    }

    private let configuration: Configuration
    private let loader: FirmwareLoader
    let loop: EventLoop
    let state: Mutex<State>
    private let port: EthernetPort
    private let console = Mutex<ConsoleServer?>(nil)
    private let serialKeeper = Mutex<LinkKeeper?>(nil)
    let power = Mutex<PowerLine?>(nil)
    let emit: @Sendable (Event) -> Void
    private let lpcKeeper = Mutex<LinkKeeper?>(nil)
    private let report: @Sendable (String) -> Void

    /// - Parameters:
    ///   - flash: the path of the logic's flash port, which the firmware comes from; nil for a controller that runs what
    ///     it has built in.
    ///   - emit: told what happened, on the loop's thread.
    ///   - report: given lines for the log.
    public init(
        _ configuration: Configuration, loop: EventLoop, flash: String? = nil,
        report: @escaping @Sendable (String) -> Void = { _ in }, emit: @escaping @Sendable (Event) -> Void
    ) {
        self.configuration = configuration
        loader = FirmwareLoader(.bmc, loop: loop, path: flash)
        self.loop = loop
        self.emit = emit
        self.report = report
        state = Mutex(
            State(
                stack: ManagementStack(
                    mac: configuration.mac, interface: configuration.interface, collector: configuration.collector),
                log: ConsoleLog(capacity: configuration.consoleCapacity),
                matcher: LineMatcher(configuration.bootLine(.builtIn)),
                system: SystemInterface(configuration.identity(.builtIn))))
        port = EthernetPort(named: "eth0", loop: loop, report: report)
        console.withLock {
            $0 = ConsoleServer(
                loop: loop,
                read: { [weak self] position, limit in
                    self?.state.withLock { $0.log.read(from: position, limit: limit) } ?? ([], position)
                },
                typed: { [weak self] in self?.typed($0) })
        }
        // What is built in is there at once.
        let load: (@Sendable (PowerLine.PowerUp) -> Void)? =
            if flash == nil { nil } else { { [weak self] in self?.powerUp($0) } }
        power.withLock {
            $0 = PowerLine(
                loop: loop,
                PowerLine.Handlers(
                    // The event comes at once, and also to a controller that does not run yet.
                    hold: {}, run: { [weak self] in self?.run() },
                    beforePowerGood: load,
                    event: { [weak self] in self?.told($0) }, packet: { [weak self] in self?.takePacket($0) },
                    report: report))
        }
    }

    // MARK: Ports

    /// Begins to serve the Ethernet port.
    public func startNetwork(_ source: LinkSource) throws(WireError) {
        try port.start(
            source,
            handlers: EthernetPort.Handlers(
                frames: { [weak self] in self?.process($0) },
                link: { [weak self] isUp in if isUp { self?.announce() } }))
    }

    /// Where a capture of the Ethernet port is put in.
    public var networkTap: LinkTap { port.tap }

    /// Begins to take the host's COM1.
    public func startSerial(_ listener: Listener) throws(WireError) {
        let keeper = LinkKeeper(.serves(listener), loop: loop) { [weak self] in self?.serialCameUp($0) }
        serialKeeper.withLock { $0 = keeper }
        try keeper.start()
    }

    /// Begins to serve the console.
    public func startConsole(_ listener: Listener) throws(WireError) {
        try console.withLock { $0 }?.serve(listener)
    }

    /// Begins to obey RESET# on the sideband; without a sideband the controller leaves reset at once.
    public func startPower(_ source: LinkSource?) throws(WireError) {
        try powerLine?.start(source)
    }

    /// Begins to answer the host's cycles on the lpc wire.
    public func startSystemInterface(_ source: LinkSource) throws(WireError) {
        let keeper = LinkKeeper(
            source, kind: .seqpacket, loop: loop, report: { [report] in report("lpc: \($0)") },
            onUp: { [weak self] in self?.lpcCameUp($0) })
        lpcKeeper.withLock { $0 = keeper }
        try keeper.start()
    }

    /// Ends every link.
    public func stop() {
        loader.cancel()
        port.stop()
        serialKeeper.withLock { $0 }?.stop()
        powerLine?.stop()
        lpcKeeper.withLock { $0 }?.stop()
        state.withLock { $0.serial }?.shutdown()
    }

    // MARK: Queries

    public var snapshot: Snapshot {
        let clients = console.withLock { $0 }?.clientCount ?? 0
        return state.withLock { state in
            Snapshot(
                isHeld: state.isHeld, firmware: state.firmware, mac: state.stack.mac, interface: state.stack.interface,
                network: state.stack.statistics, port: port.statistics, isLinkUp: port.isUp,
                isSerialConnected: state.serial != nil, consoleBytes: state.log.end,
                consoleDropped: state.consoleDropped, consoleClients: clients,
                hasBootCompleted: state.hasBootCompleted)
        }
    }

    public var systemInterface: SystemInterfaceStatus {
        state.withLock { state in
            SystemInterfaceStatus(
                isConnected: state.lpc != nil, kcsState: state.system.kcs.state, cycles: state.system.cycles,
                kcsErrors: state.system.kcs.errors, requests: state.system.handler.requests,
                refusals: state.system.handler.refusals, globalEnables: state.system.handler.globalEnables)
        }
    }

    /// Takes at most `size` bytes out of the console's ring buffer, oldest first, as QEMU's `ringbuf-read` does; the
    /// console clients are not affected.
    public func readRingBuffer(_ size: Int) -> [UInt8] {
        state.withLock { state in
            let (bytes, next) = state.log.read(from: state.ringPosition, limit: size)
            state.ringPosition = next
            return bytes
        }
    }

    // MARK: Power

    var powerLine: PowerLine? { power.withLock { $0 } }

    private func told(_ event: PowerLine.Event) {
        switch event {
        case .resetAsserted:
            loader.cancel()
            powerDown()
            failUpdate("the BMC was reset")
            emit(.resetAsserted)
        case .resetReleased:
            state.withLock { state in
                state.isHeld = false
                state.firmware = .loading
            }
            emit(.resetReleased)
        case .powerGood:
            emit(.powerGood)
            announce()
        case .powerFailed(let reason):
            state.withLock { $0.firmware = .failed(reason: reason) }
            emit(.firmwareFailed(reason: reason))
        }
    }

    /// Loads the firmware.
    private func powerUp(_ power: PowerLine.PowerUp) {
        loader.load { [weak self] outcome in
            switch outcome {
            case .success(let firmware):
                self?.state.withLock { $0.arrived = firmware }
                power.succeed()
            case .failure(let error): power.fail(error.description)
            }
        }
    }

    /// Runs the firmware that was loaded.
    private func run() {
        let firmware = state.withLock { state in
            let firmware = state.arrived
            start(&state, by: firmware)
            state.firmware = .loaded(firmware)
            return firmware
        }
        emit(.firmwareLoaded(firmware))
    }

    /// In reset, from whatever state.
    private func powerDown() {
        state.withLock { state in
            state.isHeld = true
            state.firmware = .none
            if let lpc = state.lpc, state.system.isInterruptAsserted {
                _ = lpc.send(.interrupt(LPCPort.kcsInterrupt, level: false))
            }
            start(&state, by: .builtIn)
        }
    }

    /// Everything as after a reset; the console's log survives.
    private func start(_ state: inout State, by firmware: LoadedFirmware) {
        state.stack = ManagementStack(
            mac: configuration.mac, interface: configuration.interface, collector: configuration.collector)
        state.stack.answersRMCP = firmware.boolean("rmcp") ?? true
        state.matcher = LineMatcher(configuration.bootLine(firmware))
        state.splitter.reset()
        state.waiting.removeAll()
        state.input.removeAll()
        state.hasOutput = false
        state.hasBootCompleted = false
        state.system = SystemInterface(configuration.identity(firmware))
    }

    /// False in reset and without firmware. Looks at the sideband first: RESET# may have changed before what came now.
    private func isRunningNow() -> Bool {
        if !state.withLock({ $0.isRunning }) { powerLine?.refresh() }
        return state.withLock { $0.isRunning }
    }

    // MARK: System interface

    private func lpcCameUp(_ socket: Socket) {
        let link = LPCLink(socket: socket)
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] _ in self?.drainLPC() }
        } catch {
            report("lpc: \(error)")
            lpcKeeper.withLock { $0 }?.linkEnded()
            return
        }
        state.withLock { state in
            state.lpc = link
            // A new wire knows nothing of what was asserted on the old one.
            if state.system.isInterruptAsserted { _ = link.send(.interrupt(LPCPort.kcsInterrupt, level: true)) }
        }
    }

    private func drainLPC() {
        for _ in 0..<LPCLink.messagesATurn {
            guard let link = state.withLock({ $0.lpc }) else { return }
            switch link.next() {
            case .nothing: return
            case .refused(let reason):
                if let line = state.withLock({ $0.complaints.line(reason) }) { report("lpc: \(line)") }
            case .ended(let reason): return endLPC(link, reason)
            case .message(let message):
                // In reset, or without firmware, it drives no line.
                guard isRunningNow() else { continue }
                let answers = state.withLock { $0.system.answer(message) }
                for answer in answers where !link.send(answer) {
                    return endLPC(link, "the security logic does not read its messages")
                }
            }
        }
    }

    private func endLPC(_ link: LPCLink, _ reason: String?) {
        loop.remove(link.socket.descriptor)
        link.socket.shutdown()
        state.withLock { $0.lpc = nil }
        if let reason { report("lpc: \(reason)") }
        lpcKeeper.withLock { $0 }?.linkEnded()
    }

    // MARK: Network

    private func process(_ frames: EthernetPort.Frames) {
        let isRunning = isRunningNow()
        var dropped = 0
        let answers = state.withLock { state in
            frames { frame in
                if !isRunning {
                    dropped += 1
                } else if case .refused = state.stack.receive(frame, into: &state.batch) {
                    dropped += 1
                }
            }
            if state.stack.isCollectorKnown { sendWaiting(&state) }
            return takeBatch(&state)
        }
        port.countDropped(dropped)
        port.send(answers)
    }

    private func announce() {
        let frames = state.withLock { state in
            if state.isRunning { state.stack.announce(into: &state.batch) }
            return takeBatch(&state)
        }
        port.send(frames)
    }

    private func takeBatch(_ state: inout State) -> FrameBatch {
        guard !state.batch.isEmpty else { return state.batch }
        defer { state.batch = FrameBatch() }
        return state.batch
    }

    // MARK: Serial

    private func serialCameUp(_ socket: Socket) {
        state.withLock { $0.serial = socket }
        do throws(WireError) {
            try loop.add(socket.descriptor) { [weak self] events in self?.serveSerial(socket, events) }
        } catch {
            report("serial: \(error)")
            serialEnded(socket)
        }
    }

    private func serialEnded(_ socket: Socket) {
        loop.remove(socket.descriptor)
        socket.shutdown()
        state.withLock { state in
            state.serial = nil
            state.input.removeAll()
        }
        serialKeeper.withLock { $0 }?.linkEnded()
    }

    private func serveSerial(_ socket: Socket, _ events: EventLoop.Events) {
        if events.contains(.writable) { sendInput() }
        guard !events.isDisjoint(with: [.readable, .hangUp]) else { return }
        guard let bytes = socket.receiveSome(limit: Self.serialLimit) else { return serialEnded(socket) }
        guard !bytes.isEmpty else { return }
        guard isRunningNow() else { return state.withLock { $0.consoleDropped += UInt64(bytes.count) } }
        let (isFirst, isComplete, frames) = state.withLock { state in
            let isFirst = !state.hasOutput
            state.hasOutput = true
            state.log.append(bytes.span)
            let isComplete = state.matcher.feed(bytes.span) && !state.hasBootCompleted
            if isComplete { state.hasBootCompleted = true }
            if configuration.collector != nil { export(bytes, &state) }
            return (isFirst, isComplete, takeBatch(&state))
        }
        if isFirst { emit(.firstOutput) }
        if isComplete { emit(.bootComplete) }
        console.withLock { $0 }?.pump()
        port.send(frames)
    }

    private func typed(_ bytes: [UInt8]) {
        guard isRunningNow() else { return }
        state.withLock { state in if state.serial != nil { state.input.append(bytes) } }
        sendInput()
    }

    private func sendInput() {
        state.withLock { state in
            guard let socket = state.serial else { return }
            // A host that just left is noticed at the next receive.
            try? state.input.drain(to: socket)
            try? loop.modify(socket.descriptor, state.input.isEmpty ? .readable : [.readable, .writable])
        }
    }

    // MARK: Export

    private func export(_ bytes: [UInt8], _ state: inout State) {
        state.splitter.feed(bytes.span) { line in
            guard state.waiting.count < Self.waitingLines else { return }
            state.waiting.append(
                SyslogMessage.encode(line: line, time: wallClockNanoseconds(), hostname: configuration.hostname))
        }
        // A collector that does not answer is asked for once a second. Spec: RFC 1122 §2.3.2.1.
        guard !state.stack.isCollectorKnown else { return sendWaiting(&state) }
        let now = MonotonicTime.now
        guard now.since(state.asked) >= .seconds(1) else { return }
        state.asked = now
        sendWaiting(&state)
    }

    private func sendWaiting(_ state: inout State) {
        while let line = state.waiting.first {
            guard state.stack.sendToCollector(line.span, port: SyslogMessage.port, into: &state.batch) else { return }
            state.waiting.removeFirst()
        }
    }
}
