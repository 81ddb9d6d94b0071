/// The offload card: a command ring in RAM, a doorbell, an MSI-X interrupt for completions.
///
/// Spec: docs/wiring.md "Offload card".
struct OffloadCard {
    static let vendor: UInt16 = 0x1B36
    static let device: UInt16 = 0x0B0A

    let address: FunctionAddress
    private let registers: MMIO
    private let ring: MMIO
    private let response: MMIO
    private let clock: Clock
    private var producer: UInt32 = 0
    private var tag: UInt32 = 0x4244_0000
    /// How completions are noticed.
    private(set) var signal = Signal.polled

    enum Signal {
        case polled
        case messageSignalled
    }

    enum Failure: Error {
        case noRegisters
        case noMemory
        case notACard
        case unknownVersion
        case resetHangs
        case notReady
        case noAnswer
        case noInterrupt
        case foreignCompletion
        case refused(status: UInt16)
        case badLength

        var text: StaticString {
            switch self {
            case .noRegisters: "its registers (BAR 0) have no address"
            case .noMemory: "no memory is left for its command ring"
            case .notACard: "its ID register holds something else than OFBD"
            case .unknownVersion: "its registers are of a version this firmware does not know"
            case .resetHangs: "it did not finish its reset within a second"
            case .notReady: "it was enabled and is not ready after a second"
            case .noAnswer: "it did not answer IDENTIFY within two seconds"
            case .noInterrupt: "it answered, but its MSI-X interrupt did not arrive within two seconds"
            case .foreignCompletion: "it completed a command that was not asked of it"
            case .refused: "it refused IDENTIFY with status "
            case .badLength: "its answer to IDENTIFY is not 64 bytes long"
            }
        }
    }

    private enum Register {
        static let id: UInt = 0x00
        static let version: UInt = 0x04
        static let control: UInt = 0x08
        static let status: UInt = 0x0C
        static let ringBase: UInt = 0x10
        static let ringSize: UInt = 0x18
        static let producer: UInt = 0x1C
        static let vector: UInt = 0x24
    }

    private static let identifier: UInt32 = 0x4442_464F
    private static let version: UInt32 = 0x0001_0000
    private static let entries: UInt32 = 8
    private static let entrySize: UInt = 64
    private static let pending: UInt16 = 0xFFFF
    private static let identify: UInt16 = 0x0001
    private static let identityLength: UInt32 = 64

    /// Maps the card and takes memory for its ring; touches nothing but the ID and version registers.
    init(_ function: Function, clock: Clock, arena: inout Arena) throws(Failure) {
        let bar = function.bars[0]
        guard bar.isAssigned, bar.kind != .io, bar.size >= 0x28,
            let registers = MMIO(base: bar.cpuAddress, size: bar.size)
        else { throw .noRegisters }
        let ringSize = UInt(Self.entries) &* Self.entrySize
        guard let ringAddress = arena.take(ringSize, alignment: 64),
            let responseAddress = arena.take(UInt(Self.identityLength), alignment: 64),
            let ring = MMIO(base: UInt64(ringAddress), size: UInt64(ringSize)),
            let response = MMIO(base: UInt64(responseAddress), size: UInt64(Self.identityLength))
        else { throw .noMemory }
        address = function.address
        self.registers = registers
        self.ring = ring
        self.response = response
        self.clock = clock
        guard registers.read32(Register.id) == Self.identifier else { throw .notACard }
        // The low half counts compatible additions.
        guard registers.read32(Register.version) >> 16 == Self.version >> 16 else { throw .unknownVersion }
    }

    /// Resets the card and hands it the ring.
    mutating func start() throws(Failure) {
        registers.write32(Register.control, 1 << 1)
        guard poll({ registers.read32(Register.control) & 1 << 1 == 0 }) else { throw .resetHangs }
        registers.write32(Register.ringBase, UInt32(truncatingIfNeeded: ring.base))
        registers.write32(Register.ringBase &+ 4, UInt32(truncatingIfNeeded: ring.base >> 32))
        registers.write32(Register.ringSize, Self.entries)
        registers.write32(Register.vector, 0)
        registers.write32(Register.producer, 0)
        producer = 0
        memoryBarrier()
        registers.write32(Register.control, 1 << 0)
        guard poll({ registers.read32(Register.status) & 3 == 1 }) else { throw .notReady }
    }

    private func poll(_ condition: () -> Bool) -> Bool {
        let deadline = clock.deadline(milliseconds: 1000)
        while !condition() {
            if readTime() >= deadline { return false }
        }
        return true
    }

    /// Points vector 0 at an interrupt file and enables MSI-X; false when the card has no usable MSI-X.
    /// Spec: PCIe 6.0 §7.7.2.
    mutating func enableMessages(_ function: Function, _ space: ConfigurationSpace, to page: UInt64, identity: UInt)
        -> Bool
    {
        guard let capability = space.capability(ConfigurationSpace.CapabilityID.msiX, of: address) else { return false }
        let location = space.read32(address, capability &+ 4)
        let index = Int(location & 7)
        guard index < 6 else { return false }
        let bar = function.bars[index]
        let offset = UInt64(location & ~7)
        guard bar.isAssigned, bar.kind != .io, offset <= bar.size, bar.size &- offset >= 16,
            let entry = MMIO(base: bar.cpuAddress &+ offset, size: 16)
        else { return false }
        let enable: UInt16 = 1 << 15
        let maskAll: UInt16 = 1 << 14
        let control = space.read16(address, capability &+ 2)
        space.write16(address, capability &+ 2, control | enable | maskAll)
        entry.write32(0, UInt32(truncatingIfNeeded: page))
        entry.write32(4, UInt32(truncatingIfNeeded: page >> 32))
        entry.write32(8, UInt32(truncatingIfNeeded: identity))
        entry.write32(12, 0)
        memoryBarrier()
        space.write16(address, capability &+ 2, (control | enable) & ~maskAll)
        signal = .messageSignalled
        return true
    }

    /// Asks the card who it is. Returns the ticks from doorbell to answer.
    mutating func askIdentity() throws(Failure) -> UInt64 {
        let slot = UInt(producer % Self.entries) &* Self.entrySize
        tag &+= 1
        var offset: UInt = 0
        while offset < Self.entrySize {
            ring.write64(slot &+ offset, 0)
            response.write64(offset, 0)
            offset &+= 8
        }
        ring.write16(slot, Self.identify)
        ring.write16(slot &+ 2, Self.pending)
        ring.write32(slot &+ 4, tag)
        ring.write32(slot &+ 20, Self.identityLength)
        ring.write64(slot &+ 24, UInt64(response.base))

        let interrupts = unsafe traps.cardInterrupts
        producer &+= 1
        let started = readTime()
        memoryBarrier()
        registers.write32(Register.producer, producer)
        let deadline = clock.deadline(milliseconds: 2000)
        switch signal {
        case .messageSignalled:
            let interrupted = wait(until: deadline) { unsafe traps.cardInterrupts != interrupts }
            guard interrupted else { throw status(slot) == Self.pending ? .noAnswer : .noInterrupt }
        case .polled:
            while status(slot) == Self.pending {
                guard readTime() < deadline else { throw .noAnswer }
            }
        }
        let ticks = readTime() &- started
        memoryBarrier()
        let result = status(slot)
        guard result != Self.pending else { throw .noAnswer }
        guard ring.read32(slot &+ 4) == tag, ring.read16(slot) == Self.identify else { throw .foreignCompletion }
        guard result == 0 else { throw .refused(status: result) }
        guard ring.read32(slot &+ 32) == Self.identityLength else { throw .badLength }
        return ticks
    }

    private func status(_ slot: UInt) -> UInt16 {
        ring.read16(slot &+ 2)
    }

    // What IDENTIFY brought; text is the card's and may be anything.
    var model: Bytes { Bytes(base: response.base, count: 16) }
    var serial: Bytes { Bytes(base: response.base &+ 16, count: 16) }
    var firmware: Bytes { Bytes(base: response.base &+ 32, count: 16) }
    var capabilities: UInt32 { response.read32(48) }
    var maximumInstances: UInt32 { response.read32(52) }
}
