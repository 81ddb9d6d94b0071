// The offload card's register file as a value: what the host reads, and what a write sets off.

internal import PCIe
internal import VFIOUser

/// Register offsets in BAR0. Spec: docs/wiring.md "Offload card".
enum OffloadRegister {
    static let identifier: UInt64 = 0x00
    static let version: UInt64 = 0x04
    static let control: UInt64 = 0x08
    static let status: UInt64 = 0x0C
    static let ringBaseLow: UInt64 = 0x10
    static let ringBaseHigh: UInt64 = 0x14
    static let ringSize: UInt64 = 0x18
    static let producer: UInt64 = 0x1C
    static let consumer: UInt64 = 0x20
    static let vector: UInt64 = 0x24

    /// "OFBD".
    static let identifierValue: UInt32 = 0x4442_464F
    static let versionValue: UInt32 = 0x0001_0000
    /// Bits of CONTROL.
    static let enable: UInt32 = 1 << 0
    static let reset: UInt32 = 1 << 1
    /// Bits of STATUS.
    static let ready: UInt32 = 1 << 0
    static let needsReset: UInt32 = 1 << 1
    /// MSI-X vectors.
    static let vectorCount: UInt32 = 2
}

/// The card behind its registers.
///
/// A write that begins work does it before it returns: the host's next read sees the outcome. One doorbell serves at
/// most a ring full, 256 commands.
public struct OffloadRegisters: Sendable {
    /// What the host is to notice after a write.
    public struct Effect: Hashable, Sendable {
        /// The vector to raise: commands were completed.
        public var interrupt: Int?
        /// The ring turned out to be garbage with this write.
        public var fault: RingFault?
        /// Commands served by this write.
        public var served = 0

        public init(interrupt: Int? = nil, fault: RingFault? = nil, served: Int = 0) {
            self.interrupt = interrupt
            self.fault = fault
            self.served = served
        }
    }

    /// What the card is doing.
    public enum State: String, Hashable, Sendable {
        case disabled
        case ready
        case needsReset = "needs-reset"
    }

    /// What IDENTIFY answers.
    public internal(set) var identity: OffloadIdentity
    public private(set) var state = State.disabled
    public private(set) var ringBase: UInt64 = 0
    public private(set) var ringSize: UInt32 = 0
    public private(set) var producer: UInt32 = 0
    public private(set) var vector: UInt32 = 0
    /// Why the state is `needsReset`.
    public private(set) var fault: RingFault?
    /// Commands served since power-on, over resets.
    public private(set) var commandsServed: UInt64 = 0
    private var isEnabled = false
    /// The card migrates: commands wait.
    private var isPaused = false
    private var ring: CommandRing?

    public init(identity: OffloadIdentity) { self.identity = identity }

    public var consumer: UInt32 { ring?.consumer ?? 0 }

    /// The value of the 32-bit register at `offset`; 0 where there is none.
    public func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case OffloadRegister.identifier: OffloadRegister.identifierValue
        case OffloadRegister.version: OffloadRegister.versionValue
        case OffloadRegister.control: isEnabled ? OffloadRegister.enable : 0
        case OffloadRegister.status:
            switch state {
            case .disabled: 0
            case .ready: OffloadRegister.ready
            case .needsReset: OffloadRegister.needsReset
            }
        case OffloadRegister.ringBaseLow: UInt32(truncatingIfNeeded: ringBase)
        case OffloadRegister.ringBaseHigh: UInt32(truncatingIfNeeded: ringBase >> 32)
        case OffloadRegister.ringSize: ringSize
        case OffloadRegister.producer: producer
        case OffloadRegister.consumer: consumer
        case OffloadRegister.vector: vector
        default: 0
        }
    }

    /// Writes the 32-bit register at `offset`. Writes to read-only registers, and to the ring's place while the card
    /// is enabled, change nothing.
    public mutating func write<Memory: HostMemory>(_ offset: UInt64, _ value: UInt32, _ memory: Memory) -> Effect {
        switch offset {
        case OffloadRegister.control: return writeControl(value, memory)
        case OffloadRegister.ringBaseLow where !isEnabled:
            ringBase = ringBase & ~0xFFFF_FFFF | UInt64(value)
        case OffloadRegister.ringBaseHigh where !isEnabled:
            ringBase = ringBase & 0xFFFF_FFFF | UInt64(value) << 32
        case OffloadRegister.ringSize where !isEnabled: ringSize = value
        case OffloadRegister.vector where value < OffloadRegister.vectorCount: vector = value
        case OffloadRegister.producer:
            producer = value
            return serve(memory)
        default: break
        }
        return Effect()
    }

    /// Back to the state after power-on, but for the count of commands.
    public mutating func reset() {
        let (served, paused) = (commandsServed, isPaused)
        self = OffloadRegisters(identity: identity)
        commandsServed = served
        isPaused = paused
    }

    // MARK: Migration

    private static let stateVersion: UInt8 = 1

    /// From here on a doorbell is kept and not served.
    mutating func pause() { isPaused = true }

    /// Serves what was rung for meanwhile. A card that came from elsewhere interrupts for what it did there.
    mutating func resume<Memory: HostMemory>(_ memory: Memory) -> Effect {
        isPaused = false
        var effect = serve(memory)
        if state == .ready, effect.interrupt == nil { effect.interrupt = Int(vector) }
        return effect
    }

    /// version u8, control u8, state u8, ring base u64, ring size u32, producer u32, consumer u32, vector u32
    var saved: [UInt8] {
        var writer = StateWriter()
        writer.add(Self.stateVersion)
        writer.add(isEnabled)
        writer.add(UInt8(state == .disabled ? 0 : state == .ready ? 1 : 2))
        writer.add(ringBase)
        writer.add(ringSize)
        writer.add(producer)
        writer.add(consumer)
        writer.add(vector)
        return writer.bytes
    }

    /// Takes over such a state, paused. Refused: what no host can have brought a card to.
    mutating func restore(_ bytes: [UInt8]) throws(ErrorNumber) {
        var reader = StateReader(bytes)
        var new = OffloadRegisters(identity: identity)
        new.commandsServed = commandsServed
        new.isPaused = true
        try reader.expect(Self.stateVersion)
        new.isEnabled = try reader.takeBool()
        switch try reader.take(UInt8.self) {
        case 0: new.state = .disabled
        case 1: new.state = .ready
        case 2: new.state = .needsReset
        default: throw .invalid
        }
        new.ringBase = try reader.take(UInt64.self)
        new.ringSize = try reader.take(UInt32.self)
        new.producer = try reader.take(UInt32.self)
        let consumer = try reader.take(UInt32.self)
        new.vector = try reader.take(UInt32.self)
        try reader.finish()
        guard new.vector < OffloadRegister.vectorCount, new.state != .ready || new.isEnabled,
            new.state != .disabled || !new.isEnabled
        else { throw .invalid }
        do throws(RingFault) {
            // A card that is not ready keeps the consumer index only: any ring will do for it.
            new.ring =
                new.state == .ready
                ? try CommandRing(base: new.ringBase, size: new.ringSize, consumer: consumer)
                : try CommandRing(base: 0, size: CommandRing.sizes.lowerBound, consumer: consumer)
        } catch {
            throw .invalid
        }
        self = new
    }

    // MARK: Commands

    private mutating func writeControl<Memory: HostMemory>(_ value: UInt32, _ memory: Memory) -> Effect {
        if value & OffloadRegister.reset != 0 {
            reset()
            return Effect()
        }
        let wasEnabled = isEnabled
        isEnabled = value & OffloadRegister.enable != 0
        // A ring found to be garbage stays so until a reset, whatever is written meanwhile.
        guard isEnabled != wasEnabled, state != .needsReset else { return Effect() }
        guard isEnabled else {
            state = .disabled
            return Effect()
        }
        do throws(RingFault) {
            ring = try CommandRing(base: ringBase, size: ringSize, consumer: consumer)
            state = .ready
        } catch {
            return fail(error, served: 0)
        }
        return serve(memory)
    }

    private mutating func serve<Memory: HostMemory>(_ memory: Memory) -> Effect {
        guard state == .ready, !isPaused, var ring else { return Effect() }
        let before = ring.consumer
        defer { self.ring = ring }
        do throws(RingFault) {
            let served = try ring.serve(upTo: producer, memory) { execute($0) }
            commandsServed &+= UInt64(served)
            return Effect(interrupt: served > 0 ? Int(vector) : nil, fault: nil, served: served)
        } catch {
            let served = Int(ring.consumer &- before)
            commandsServed &+= UInt64(served)
            return fail(error, served: served)
        }
    }

    /// The commands before the fault were completed: the host hears of them.
    private mutating func fail(_ fault: RingFault, served: Int) -> Effect {
        state = .needsReset
        self.fault = fault
        return Effect(interrupt: served > 0 ? Int(vector) : nil, fault: fault, served: served)
    }

    private func execute(_ command: CommandEntry) -> CommandResult {
        switch command.opcode {
        case .identify:
            guard command.requestLength == 0, command.responseCapacity >= OffloadIdentity.length else {
                return CommandResult(.badLength)
            }
            return CommandResult(.success, response: identity.bytes)
        default:
            return CommandResult(.unknownOpcode)
        }
    }
}
