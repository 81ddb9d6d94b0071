internal import Crypto
public import Serprog
internal import Synchronization
public import Wire

/// The switch between the masters' flash ports and the chip.
///
/// A denied transaction never reaches the chip: its master sees an undriven line, 0xFF, as behind an open switch. A
/// master that may not write sees the status register without write-enable latch and busy bit, so that a programmer
/// that trusts no latch fails its verification as at a chip whose write-protect pin is held.
public final class FlashGate: Sendable {
    /// What became of a master's transactions since power-on.
    public struct Counters: Sendable, Hashable {
        public var passed: UInt64 = 0
        public var denied: UInt64 = 0
        /// Reads that were answered in part: they ran out of what is allowed or was verified.
        public var cut: UInt64 = 0
        public var lastDeniedOpcode: UInt8?
    }

    /// A denial, for the log.
    public struct Denial: Sendable, Hashable {
        public let master: FlashMaster
        public let opcode: UInt8
        public let decision: FlashGateDecision
        /// The master's denials so far, this one included.
        public let count: UInt64
    }

    private struct State {
        /// The moment that the sequence has told.
        var moment = FlashGateState.held
        var counters: [FlashMaster: Counters] = [:]
    }

    public let rules: FlashGateRules
    /// What passed while the firmware was verified.
    public let digests: PageDigests
    /// The chip as the logic itself uses it.
    public let chip: FlashChip
    private let state = Mutex(State())
    private let links: [FlashMaster: FlashLink]
    private let onDenial: @Sendable (Denial) -> Void
    private let onChange = Mutex<(@Sendable (UInt64) -> Void)?>(nil)

    /// - Parameters:
    ///   - connect: makes a connection to the chip. Each master gets one of its own, so that one that does not take
    ///     its answers holds up no other.
    ///   - onDenial: called on a port's thread for the first denial of a master, then when their number doubles, so
    ///     that a master that keeps trying does not fill the log.
    public init(
        rules: FlashGateRules = .builtIn, connect: @escaping @Sendable () throws(WireError) -> Socket,
        onDenial: @escaping @Sendable (Denial) -> Void
    ) {
        self.rules = rules
        let digests = PageDigests()
        self.digests = digests
        chip = FlashChip(connect, digests)
        links = Dictionary(uniqueKeysWithValues: FlashMaster.allCases.map { ($0, FlashLink(connect)) })
        self.onDenial = onDenial
    }

    /// Calls `body` on a port's thread, once a verification, with the address of a page that host, BMC or a
    /// card asked for and that is not what was verified. The gate has closed for all of them by then.
    func whenChanged(_ body: @escaping @Sendable (UInt64) -> Void) { onChange.withLock { $0 = body } }

    /// What passes from now on; a transaction that is under way is not cut.
    public func setState(_ moment: FlashGateState) { state.withLock { $0.moment = moment } }
    public var current: FlashGateState { state.withLock { $0.moment } }

    /// A verification begins: what an earlier one saw counts no more.
    public func forgetVerified() { digests.clear() }

    public func counters(_ master: FlashMaster) -> Counters { state.withLock { $0.counters[master] ?? Counters() } }

    /// The chip as `master`'s port shows it.
    public func target(for master: FlashMaster) -> Target { Target(gate: self, master: master) }

    // MARK: Decisions

    fileprivate func decide(
        _ master: FlashMaster, _ write: [UInt8], _ readCount: Int, chipSize: UInt64
    ) -> (FlashGateDecision, FlashGateState) {
        let (decision, moment, denial) = state.withLock { state in
            let moment = state.moment
            let decision = rules.decide(master, write, readCount: readCount, in: moment, chipSize: chipSize)
            return (decision, moment, Self.count(&state, master, write.first ?? 0, decision))
        }
        if let denial, denial.count & (denial.count &- 1) == 0 { onDenial(denial) }
        return (decision, moment)
    }

    /// What `decide` would say of any chip, uncounted.
    fileprivate func wouldDeny(_ master: FlashMaster, _ write: [UInt8], _ readCount: Int) -> Bool {
        rules.decide(master, write, readCount: readCount, in: current, chipSize: Target.unknownSize).isDenied
    }

    private static func count(
        _ state: inout State, _ master: FlashMaster, _ opcode: UInt8, _ decision: FlashGateDecision
    ) -> Denial? {
        var counters = state.counters[master] ?? Counters()
        defer { state.counters[master] = counters }
        guard decision.isDenied else {
            counters.passed &+= 1
            return nil
        }
        counters.denied &+= 1
        counters.lastDeniedOpcode = opcode
        return Denial(master: master, opcode: opcode, decision: decision, count: counters.denied)
    }

    fileprivate func noteCut(_ master: FlashMaster) {
        state.withLock { $0.counters[master, default: Counters()].cut &+= 1 }
    }

    /// Nothing passes for those who run what was verified any more; the owner is told once.
    fileprivate func reportChange(at address: UInt64, of moment: FlashGateState) {
        let isNews = state.withLock { state in
            guard state.moment.slot == moment.slot, !state.moment.released.isEmpty else { return false }
            state.moment = FlashGateState(phase: .failed)
            return true
        }
        if isNews { onChange.withLock { $0 }?(address) }
    }

    fileprivate func link(_ master: FlashMaster) -> FlashLink {
        links[master]!  // One for every case.
    }

    // MARK: Targets

    public struct Target: SPITarget {
        private let gate: FlashGate
        private let master: FlashMaster
        private let recorder: PageRecorder?
        private var buffer: [UInt8] = []
        private static let undriven = [UInt8](repeating: 0xFF, count: PageDigests.pageSize)
        /// Bytes fetched at once for a master that waits for its pages to be checked.
        private static let chunk = 16 * PageDigests.pageSize
        /// Of a chip that was not asked yet: no address is beyond it.
        fileprivate static let unknownSize = UInt64(1) << 32

        fileprivate init(gate: FlashGate, master: FlashMaster) {
            self.gate = gate
            self.master = master
            // Without a digest context nothing is recorded and nothing passes as verified.
            recorder = try? PageRecorder(gate.digests)
        }

        public mutating func transact(
            write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            var chipSize = gate.chip.knownSize
            // A master that is not let through at all learns nothing of the chip, not even that it is gone.
            if chipSize == nil, !gate.wouldDeny(master, write, readCount) { chipSize = try gate.chip.size() }
            let (decision, moment) = gate.decide(master, write, readCount, chipSize: chipSize ?? Self.unknownSize)
            switch decision {
            case .denyMaster, .denyOpcode, .denyRange: try fill(readCount, reply)
            case .read(let address, let count, let undriven):
                try fill(undriven, reply)
                if count > 0 {
                    if master.seesSlotOnly {
                        try readVerified(address, count, moment, reply)
                    } else if moment.phase == .unprotected, master == .adapter {
                        try readRecorded(address, count, reply)
                    } else {
                        try readPlain(address, count, reply)
                    }
                }
                if undriven + count < readCount {
                    gate.noteCut(master)
                    try fill(readCount - undriven - count, reply)
                }
            case .pass: try pass(write, readCount, moment, reply)
            }
        }

        /// What nobody drives.
        private func fill(_ count: Int, _ reply: (RawSpan) throws(SPITargetError) -> Void) throws(SPITargetError) {
            var left = count
            while left > 0 {
                let count = min(left, Self.undriven.count)
                // Safety: every byte of an array is initialised.
                unsafe try reply(Self.undriven.span.bytes.extracting(0..<count))
                left -= count
            }
        }

        /// Everything but reads of content.
        private func pass(
            _ write: [UInt8], _ readCount: Int, _ moment: FlashGateState,
            _ reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            guard let instruction = try? FlashInstruction(write, readCount: readCount) else { return }
            let link = gate.link(master)
            if instruction.operation != .read {
                try gate.chip.writing(link, instruction.withWideAddress(write))
            } else if instruction.effect == .status, !gate.rules.mayWrite(master, moment.phase) {
                let mask = ~(SPIFlash.statusBusy | SPIFlash.statusWriteEnabled)
                let masked = try link.transact(write, readCount).map { $0 & mask }
                // Safety: every byte of an array is initialised.
                if readCount > 0 { unsafe try reply(masked.span.bytes) }
            } else {
                try link.transact(write: write, readCount: readCount, reply: reply)
            }
        }

        /// For the verifier: streams, and digests what passes.
        private func readRecorded(
            _ address: UInt64, _ count: Int, _ reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            guard let recorder else { throw SPITargetError("no page can be digested: OpenSSL failed") }
            try gate.chip.waitUntilReady(gate.link(master))
            recorder.begin(address)
            try gate.link(master).transact(write: FlashChip.reading(address), readCount: count) {
                (piece) throws(SPITargetError) in
                recorder.take(piece)
                try reply(piece)
            }
        }

        private mutating func readPlain(
            _ address: UInt64, _ count: Int, _ reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            var done = 0
            while done < count {
                let piece = min(Self.chunk, count - done)
                try fetch(address + UInt64(done), piece)
                // Safety: every byte of an array is initialised; the chunk was just filled.
                unsafe try reply(buffer.span.bytes.extracting(0..<piece))
                done += piece
            }
        }

        /// For host, BMC and cards: whole pages are fetched and compared before a byte passes. Pages that no verifier
        /// has seen are not driven; a page that is not what was verified ends everything.
        private mutating func readVerified(
            _ address: UInt64, _ count: Int, _ moment: FlashGateState,
            _ reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            let pageSize = UInt64(PageDigests.pageSize)
            let end = address + UInt64(count)
            var place = address
            var isCut = false
            while place < end {
                let start = place - place % pageSize
                let stop = min(start + UInt64(Self.chunk), (end + pageSize - 1) / pageSize * pageSize)
                try fetch(start, Int(stop - start))
                for index in 0..<Int(stop - start) / PageDigests.pageSize {
                    let offset = index * PageDigests.pageSize
                    let page = start + UInt64(offset)
                    // Safety: every byte of an array is initialised; the chunk was just filled.
                    let bytes = unsafe buffer.span.bytes.extracting(offset..<offset + PageDigests.pageSize)
                    let from = Int(max(place, page) - page)
                    let upTo = Int(min(end, page + pageSize) - page)
                    let digest = recorder?.digest(bytes)
                    switch gate.digests.compare(page: Int(page / pageSize), digest) {
                    case .same where gate.current.slot == moment.slot: try reply(bytes.extracting(from..<upTo))
                    case .different:
                        gate.reportChange(at: page, of: moment)
                        isCut = true
                        try fill(upTo - from, reply)
                    case .neverSeen, .same:
                        isCut = true
                        try fill(upTo - from, reply)
                    }
                }
                place = min(stop, end)
            }
            if isCut { gate.noteCut(master) }
        }

        /// Fills the front of `buffer` from the chip, while nobody else writes to it.
        private mutating func fetch(_ address: UInt64, _ count: Int) throws(SPITargetError) {
            if buffer.count < Self.chunk { buffer = [UInt8](repeating: 0, count: Self.chunk) }
            var position = 0
            let link = gate.link(master)
            var bytes = buffer
            buffer = []
            defer { buffer = bytes }
            try gate.chip.reading(link) { () throws(SPITargetError) in
                try link.transact(write: FlashChip.reading(address), readCount: count) { piece in
                    // Safety: the pieces have `count` bytes together, and the buffer more.
                    unsafe piece.withUnsafeBytes { source in
                        unsafe bytes.withUnsafeMutableBytes { target in
                            let place = unsafe UnsafeMutableRawBufferPointer(rebasing: target[position...])
                            unsafe place.copyMemory(from: source)
                        }
                    }
                    position += piece.byteCount
                }
            }
            guard position == count else { throw SPITargetError("the flash chip: \(position) bytes of \(count)") }
        }
    }
}

extension FlashGate.Denial: CustomStringConvertible {
    public var description: String {
        let why =
            switch decision {
            case .denyMaster: "no access now"
            case .denyOpcode: "the instruction is not allowed"
            default: "the address is not allowed"
            }
        return "opcode 0x\(String(opcode, radix: 16)) of \(master.rawValue) denied: \(why) (\(count) so far)"
    }
}
