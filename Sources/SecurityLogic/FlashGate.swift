public import Serprog
public import Sideband
internal import Synchronization
public import Wire

/// Who drives a flash port of the logic.
public enum FlashMaster: String, CaseIterable, Sendable, Hashable {
    case adapter
    case host
    case bmc
}

/// Which SPI instruction of which master reaches the chip, as a value.
public struct FlashGateRules: Sendable, Hashable {
    public var mode: SecurityRequest.Mode
    /// The components out of reset.
    public var released: Set<HeldComponent>

    /// As after power-on: nothing passes.
    public static let closed = FlashGateRules(mode: .protected, released: [])

    public init(mode: SecurityRequest.Mode, released: Set<HeldComponent>) {
        self.mode = mode
        self.released = released
    }

    public enum Decision: Sendable, Hashable {
        case pass
        /// The master has no access now.
        case denyMaster
        /// The master may read, and this is not reading.
        case denyOpcode
    }

    /// Instructions that change nothing in the chip, neither content nor a register nor a mode.
    public static let readOnlyOpcodes: Set<UInt8> = [
        SPIFlash.readIdentification, SPIFlash.readManufacturerAndDevice, SPIFlash.readSFDP, SPIFlash.read,
        SPIFlash.fastRead, SPIFlash.read4Byte, SPIFlash.fastRead4Byte, SPIFlash.readStatus,
        SPIFlash.readConfiguration, SPIFlash.readSecurity, SPIFlash.readExtendedAddress, SPIFlash.noOperation,
    ]

    public func decide(_ master: FlashMaster, opcode: UInt8) -> Decision {
        let hasAccess =
            switch master {
            case .adapter: mode == .unprotected
            case .host: released.contains(.host)
            case .bmc: released.contains(.bmc)
            }
        guard hasAccess else { return .denyMaster }
        return Self.readOnlyOpcodes.contains(opcode) ? .pass : .denyOpcode
    }
}

/// The switch between the masters' flash ports and the chip.
///
/// A denied transaction never reaches the chip: its master sees an undriven line, 0xFF, as behind an open switch.
public final class FlashGate: Sendable {
    /// What became of a master's transactions since power-on.
    public struct Counters: Sendable, Hashable {
        public var passed: UInt64 = 0
        public var denied: UInt64 = 0
        public var lastDeniedOpcode: UInt8?
    }

    /// A denial, for the log.
    public struct Denial: Sendable, Hashable {
        public let master: FlashMaster
        public let opcode: UInt8
        public let decision: FlashGateRules.Decision
        /// The master's denials so far, this one included.
        public let count: UInt64
    }

    private struct State {
        var rules = FlashGateRules.closed
        var counters: [FlashMaster: Counters] = [:]
    }

    private let state = Mutex(State())
    private let links: [FlashMaster: FlashLink]
    private let onDenial: @Sendable (Denial) -> Void

    /// - Parameters:
    ///   - connect: makes a connection to the chip. Each master gets one of its own, so that one that does not take
    ///     its answers holds up no other.
    ///   - onDenial: called on a port's thread for the first denial of a master, then when their number doubles, so
    ///     that a master that keeps trying does not fill the log.
    public init(
        connect: @escaping @Sendable () throws(WireError) -> Socket, onDenial: @escaping @Sendable (Denial) -> Void
    ) {
        links = Dictionary(uniqueKeysWithValues: FlashMaster.allCases.map { ($0, FlashLink(connect)) })
        self.onDenial = onDenial
    }

    /// What passes from now on; a transaction that is under way is not cut.
    public func setRules(_ rules: FlashGateRules) { state.withLock { $0.rules = rules } }

    public func counters(_ master: FlashMaster) -> Counters { state.withLock { $0.counters[master] ?? Counters() } }

    /// The chip as `master`'s port shows it.
    public func target(for master: FlashMaster) -> Target { Target(gate: self, master: master) }

    fileprivate func admit(_ master: FlashMaster, opcode: UInt8) -> Bool {
        let denial = state.withLock { state -> Denial? in
            let decision = state.rules.decide(master, opcode: opcode)
            var counters = state.counters[master] ?? Counters()
            defer { state.counters[master] = counters }
            guard decision != .pass else {
                counters.passed &+= 1
                return nil
            }
            counters.denied &+= 1
            counters.lastDeniedOpcode = opcode
            return Denial(master: master, opcode: opcode, decision: decision, count: counters.denied)
        }
        guard let denial else { return true }
        if denial.count & (denial.count - 1) == 0 { onDenial(denial) }
        return false
    }

    fileprivate func link(_ master: FlashMaster) -> FlashLink {
        links[master]!  // One for every case.
    }

    public struct Target: SPITarget {
        private let gate: FlashGate
        private let master: FlashMaster
        private static let undriven = [UInt8](repeating: 0xFF, count: 4096)

        fileprivate init(gate: FlashGate, master: FlashMaster) {
            self.gate = gate
            self.master = master
        }

        public mutating func transact(
            write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            guard let opcode = write.first, gate.admit(master, opcode: opcode) else {
                var left = readCount
                while left > 0 {
                    let count = min(left, Self.undriven.count)
                    // Safety: every byte of an array is initialised.
                    unsafe try reply(Self.undriven.span.bytes.extracting(0..<count))
                    left -= count
                }
                return
            }
            try gate.link(master).transact(write: write, readCount: readCount, reply: reply)
        }
    }
}

/// A master's connection to the chip: made when first used, made anew after a failure.
private final class FlashLink: Sendable {
    private let connect: @Sendable () throws(WireError) -> Socket
    private let client = Mutex<SerprogClient?>(nil)

    init(_ connect: @escaping @Sendable () throws(WireError) -> Socket) { self.connect = connect }

    func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        var replyFailure: SPITargetError?
        do throws(SerprogError) {
            let client = try currentClient()
            try client.spiTransaction(write: write, readCount: readCount) { (piece) throws(SerprogError) in
                do throws(SPITargetError) { try reply(piece) } catch {
                    replyFailure = error
                    throw SerprogError.targetFailed(error.description)
                }
            }
        } catch {
            if let replyFailure { throw replyFailure }
            switch error {
            case .wire, .outOfStep, .badAnswer: client.withLock { $0 = nil }
            default: break
            }
            throw SPITargetError("the flash chip: \(error)")
        }
    }

    private func currentClient() throws(SerprogError) -> SerprogClient {
        try client.withLock { (current) throws(SerprogError) in
            if let current { return current }
            let socket: Socket
            do throws(WireError) { socket = try connect() } catch { throw .wire(error) }
            let made = try SerprogClient(socket: socket)
            current = made
            return made
        }
    }
}
