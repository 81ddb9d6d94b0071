// The shell of the verification: a sideband, a flash chip behind the logic, and a thread that may wait for both.

public import DeviceFirmware
import Serprog
import Sideband
import Synchronization
public import Trust
public import Wire

/// Verifies the board's firmware whenever the security logic releases the adapter's RESET#.
///
/// The adapter's own firmware is a component of it: its bytes are kept from the very reading that was hashed, and the card
/// runs by them once the logic has taken the verdict. Nothing is read a second time.
///
/// Runs on a thread of its own for each connection to the logic; a lost connection is made again.
public final class FirmwareVerification: Sendable {
    /// The longest that a security command may take: the logic answers within microseconds; a stopped process is what
    /// this is for.
    static let commandTimeout = Duration.seconds(5)
    /// The longest that reading the flash may take: 32 MiB take less than a second.
    static let readTimeout = Duration.seconds(30)

    /// Where the sequence stands, for queries.
    public struct Snapshot: Sendable {
        public var phase = VerificationSequence.Phase.held
        public var verdict: FirmwareVerdict?
        /// The slot of the verdict, or the one that is being verified.
        public var slot: FirmwareSlot?
        /// How long the last verification took, from the first command to the verdict.
        public var duration: Duration?
        /// Verifications begun since the process started.
        public var runs: UInt64 = 0
        /// The card's own firmware. Until a slot is verified, and when none is, it runs what it has built in.
        public var firmware = FirmwareState.none

        /// What the register file shows.
        public var register: AdapterRegisters.Verification {
            switch verdict {
            case .verified: .verified
            case .refused: .refused
            case nil: phase == .held ? .none : .verifying
            }
        }
    }

    private let loop: EventLoop
    private let connectFlash: @Sendable () throws(WireError) -> Socket
    private let state = Mutex(Snapshot())
    private let keeper = Mutex<LinkKeeper?>(nil)
    private let emit: @Sendable (VerificationSequence.Event) -> Void
    private let run: @Sendable (FirmwareState) -> Void
    private let report: @Sendable (String) -> Void

    /// - Parameters:
    ///   - connectFlash: makes a new connection to the logic's flash port for each verification: one that an earlier
    ///     failure left in the middle of an answer is never used again.
    ///   - run: told what the card is to run from now on, on the verifying thread: `loading` when a verification begins,
    ///     then its component of the verified slot, `failed` when the card cannot run that, or `none` when nothing was
    ///     verified. With `loading` and `none` it runs what it has built in.
    ///   - emit: told what happened, on the verifying thread.
    ///   - report: given lines for the log.
    public init(
        loop: EventLoop, connectFlash: @escaping @Sendable () throws(WireError) -> Socket,
        report: @escaping @Sendable (String) -> Void, run: @escaping @Sendable (FirmwareState) -> Void = { _ in },
        emit: @escaping @Sendable (VerificationSequence.Event) -> Void
    ) {
        self.loop = loop
        self.connectFlash = connectFlash
        self.report = report
        self.run = run
        self.emit = emit
    }

    public var snapshot: Snapshot { state.withLock { $0 } }

    /// Begins to obey the logic behind the sideband `source`.
    public func start(_ source: LinkSource) throws(WireError) {
        let keeper = LinkKeeper(source, kind: .seqpacket, loop: loop, report: { [report] in report("sideband: \($0)") })
        { [weak self] socket in
            guard let self else { return }
            WorkerThread("verifier") { [self] in
                var session = Session(self, SidebandLink(socket: socket))
                session.run()
                loop.perform { [self] in self.keeper.withLock { $0 }?.linkEnded() }
            }
        }
        self.keeper.withLock { $0 = keeper }
        try keeper.start()
    }

    /// No verification begins after this.
    public func stop() { keeper.withLock { $0 }?.stop() }

    /// One connection to the logic.
    private struct Session {
        let owner: FirmwareVerification
        let link: SidebandLink
        var sequence = VerificationSequence()
        var assembler = MCTPAssembler(address: .adapter)
        var tag: UInt8 = 0
        var began = MonotonicTime.now
        /// When the response that is due must have come.
        var deadline: MonotonicTime?
        /// The adapter's component of the slot that was looked at last; empty when there is none.
        var component: [UInt8] = []
        /// What this run means for the card itself was told.
        var hasLoaded = false

        init(_ owner: FirmwareVerification, _ link: SidebandLink) {
            self.owner = owner
            self.link = link
        }

        mutating func run() {
            while let input = next() { perform(sequence.handle(input)) }
            perform(sequence.handle(.failure("the security logic is gone")))
            perform(sequence.handle(.reset(isReleased: false)))
        }

        /// The next input, waiting for it; nil when the logic is gone.
        private mutating func next() -> VerificationSequence.Input? {
            while true {
                do throws(SidebandLink.Failure) {
                    guard let message = try link.receive(until: deadline) else { return nil }
                    if let input = input(message) { return input }
                } catch {
                    switch error {
                    case .wire(.timedOut):
                        deadline = nil
                        return .failure("the security logic did not answer within \(commandTimeout)")
                    case .wire: return nil
                    case .refused: owner.report("sideband: \(error)")
                    }
                }
            }
        }

        private mutating func input(_ message: SidebandMessage) -> VerificationSequence.Input? {
            switch message {
            case .signal(.reset, let level): return .reset(isReleased: level)
            case .signal: return nil
            case .mctp(let packet):
                guard let message = assembler.receive(packet), !message.isTagOwner, message.tag == tag else {
                    return nil
                }
                deadline = nil
                guard let response = SecurityResponse(decoding: message.body) else {
                    return .failure("the security logic's answer is malformed")
                }
                return .response(response)
            }
        }

        private mutating func perform(_ actions: [VerificationSequence.Action]) {
            publish()
            for action in actions {
                switch action {
                case .emit(let event):
                    if event == .verifying {
                        began = .now
                        hasLoaded = false
                        owner.state.withLock { $0.runs += 1 }
                        owner.load(.loading)
                    }
                    owner.emit(event)
                case .send(let request): send(request)
                case .verify(let fuses, let slot):
                    component = []
                    let verdict = owner.verify(fuses, slot, &component)
                    drainSignals()
                    perform(sequence.handle(.verdict(verdict)))
                }
            }
            if sequence.phase == .finished, !hasLoaded {
                hasLoaded = true
                let isVerified = if case .verified = sequence.verdict { true } else { false }
                owner.load(isVerified ? FirmwareVerification.firmware(component) : .none)
                component = []
            }
        }

        private mutating func send(_ request: SecurityRequest) {
            tag = (tag + 1) & 7
            deadline = .after(commandTimeout)
            do throws(WireError) {
                try link.send(
                    MCTPMessage(
                        destination: .securityLogic, source: .adapter, isTagOwner: true, tag: tag,
                        body: request.encoded))
            } catch {
                // The end of the link is seen by the next receive.
                owner.report("sideband: \(request.name): \(error)")
            }
        }

        /// A power cycle may have come while the flash was read: then the verdict is of yesterday.
        private mutating func drainSignals() {
            while let message = try? link.receive(until: .now) {
                guard case .signal(.reset, let level) = message else { continue }
                perform(sequence.handle(.reset(isReleased: level)))
            }
        }

        private func publish() {
            let phase = sequence.phase
            let verdict = sequence.verdict
            let slot = sequence.slot
            let elapsed = MonotonicTime.now.since(began)
            owner.state.withLock { state in
                if verdict != nil, state.verdict == nil { state.duration = elapsed }
                state.phase = phase
                state.verdict = verdict
                state.slot = slot
            }
        }

        private var commandTimeout: Duration { FirmwareVerification.commandTimeout }
    }

    private func load(_ firmware: FirmwareState) {
        state.withLock { $0.firmware = firmware }
        run(firmware)
    }

    /// What the card runs by its component's bytes.
    private static func firmware(_ component: [UInt8]) -> FirmwareState {
        guard !component.isEmpty else { return .loaded(.builtIn) }
        do throws(FirmwarePackageError) {
            return .loaded(try FirmwarePackage(at: component, for: .adapter).map { LoadedFirmware($0) } ?? .builtIn)
        } catch {
            return .failed(reason: error.description)
        }
    }

    /// Reads and checks the image; every failure on the way to the chip is a refusal.
    ///
    /// - Parameter component: the bytes of the adapter's component are added as they are hashed.
    private func verify(_ fuses: Fuses, _ slot: FirmwareSlot, _ component: inout [UInt8]) -> FirmwareVerdict {
        let socket: Socket
        do throws(WireError) { socket = try connectFlash() } catch {
            return .refused(.unreadable("the flash port: \(error)"), imageName: nil)
        }
        // A chip or a logic that stopped ends the wait with its link.
        let watchdog = loop.schedule(at: .after(Self.readTimeout)) { socket.shutdown() }
        defer {
            loop.cancel(watchdog)
            socket.shutdown()
        }
        let client: SerprogClient
        do throws(SerprogError) { client = try SerprogClient(socket: socket) } catch {
            return .refused(.unreadable("the flash port: \(error)"), imageName: nil)
        }
        do throws(ImageReadError) {
            let chip = try FlashReader(client)
            let layout: ChipLayout
            do throws(ChipLayoutError) { layout = try ChipLayout(chipSize: chip.byteCount) } catch {
                return .refused(.unreadable(error.description), imageName: nil)
            }
            var reader = SlotReader(chip, layout: layout, slot: slot)
            var bytes: [UInt8] = []
            defer { component = bytes }
            return FirmwareVerifier.verify(
                &reader, fuses: fuses,
                taking: { part, piece in
                    // No package is longer than its place: what follows is not kept.
                    guard part.offset == FlashLayout.adapter.offset, bytes.count < FlashLayout.adapter.size else {
                        return
                    }
                    piece.withUnsafeBytes { bytes.append(contentsOf: $0) }
                })
        } catch {
            return .refused(.unreadable(error.description), imageName: nil)
        }
    }
}
