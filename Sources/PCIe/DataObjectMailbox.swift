/// A kind of data object that a function's mailbox answers, besides discovery.
///
/// Spec: PCI Express Base 6.0 §6.30.1 (data objects).
public struct DataObjectProtocol: Sendable {
    /// Who defined it: 0x0001 is the PCI-SIG.
    public var vendor: UInt16
    /// The PCI-SIG's type 1 is CMA (SPDM), 2 secured CMA.
    public var type: UInt8
    /// Answers the payload of a request, in words; what it passes to `reply` is the payload of the response, nil an
    /// error of the mailbox. Called on the server's thread; `reply` may be called once, then or later, on any thread.
    public var respond: @Sendable (_ request: [UInt32], _ reply: @escaping @Sendable ([UInt32]?) -> Void) -> Void

    public init(
        vendor: UInt16, type: UInt8,
        respond: @escaping @Sendable (_ request: [UInt32], _ reply: @escaping @Sendable ([UInt32]?) -> Void) -> Void
    ) {
        self.vendor = vendor
        self.type = type
        self.respond = respond
    }
}

/// The registers of Data Object Exchange as a pure value: a mailbox into which software writes an object word by word
/// and out of which it reads the answer.
///
///     0x04 capabilities  0x08 control  0x0C status  0x10 write mailbox  0x14 read mailbox
///
/// Objects that are malformed or of an unknown kind are dropped without an answer. Spec: PCI Express Base 6.0 §6.30,
/// §7.9.24.
package struct DataObjectMailbox: Sendable {
    package enum Register {
        package static let capabilities = 0x04
        package static let control = 0x08
        package static let status = 0x0C
        package static let write = 0x10
        package static let read = 0x14
        package static let size = 0x18
    }

    package enum Bits {
        package static let interruptSupport: UInt32 = 1 << 0
        package static let abort: UInt32 = 1 << 0
        package static let interruptEnable: UInt32 = 1 << 1
        package static let go: UInt32 = 1 << 31
        package static let busy: UInt32 = 1 << 0
        package static let interruptStatus: UInt32 = 1 << 1
        package static let error: UInt32 = 1 << 2
        package static let ready: UInt32 = 1 << 31
    }

    /// What a write makes the function do.
    package enum Action: Sendable, Equatable {
        case none
        /// Answer a request of protocol `index` and hand the answer to `complete` with this generation.
        case process(protocol: Int, payload: [UInt32], generation: UInt64)
        /// Raise the mailbox's interrupt.
        case interrupt
    }

    /// The PCI-SIG, and its discovery protocol.
    private static let discovery = (vendor: UInt16(1), type: UInt8(0))
    /// Words that an object may have here: the longest SPDM messages need a quarter of it.
    package static let limit = 1 << 14

    private let protocols: [(vendor: UInt16, type: UInt8)]
    private let vector: Int?
    private var control: UInt32 = 0
    private var status: UInt32 = 0
    private var incoming: [UInt32] = []
    private var outgoing: [UInt32] = []
    private var position = 0
    /// Counts requests and aborts: an answer to an earlier one is dropped.
    private var generation: UInt64 = 0

    /// A mailbox for protocols beside discovery; `vector` is the message that it interrupts with.
    package init(protocols: [(vendor: UInt16, type: UInt8)], vector: Int?) {
        self.protocols = protocols
        self.vector = vector
    }

    package func read(_ register: Int) -> UInt32 {
        switch register {
        case Register.capabilities:
            vector.map { Bits.interruptSupport | UInt32(truncatingIfNeeded: $0 & 0x7FF) << 1 } ?? 0
        case Register.control: control
        case Register.status: status
        case Register.read: outgoing.indices.contains(position) ? outgoing[position] : 0
        default: 0
        }
    }

    package mutating func write(_ register: Int, _ value: UInt32) -> Action {
        switch register {
        case Register.control: return writeControl(value)
        case Register.status:
            status &= ~(value & Bits.interruptStatus)
            return .none
        case Register.write:
            // While it is busy or in error words go nowhere.
            guard status & (Bits.busy | Bits.error) == 0 else { return .none }
            guard incoming.count < Self.limit else { return fail() }
            incoming.append(value)
            return .none
        case Register.read:
            guard status & Bits.ready != 0 else { return .none }
            position += 1
            if position >= outgoing.count {
                status &= ~Bits.ready
                outgoing = []
                position = 0
            }
            return .none
        default: return .none
        }
    }

    private mutating func writeControl(_ value: UInt32) -> Action {
        control = vector == nil ? 0 : value & Bits.interruptEnable
        if value & Bits.abort != 0 {
            generation &+= 1
            status = 0
            (incoming, outgoing, position) = ([], [], 0)
            return .none
        }
        guard value & Bits.go != 0, status & (Bits.busy | Bits.error) == 0 else { return .none }
        let object = incoming
        incoming = []
        // Two words of header, the second with the length in words; 0 stands for 2^18, which is more than fits here.
        guard object.count >= 2, object[1] & 0x3_FFFF == UInt32(object.count) else { return .none }
        let vendor = UInt16(truncatingIfNeeded: object[0])
        let type = UInt8(truncatingIfNeeded: object[0] >> 16)
        let payload = Array(object[2...])
        if vendor == Self.discovery.vendor, type == Self.discovery.type {
            guard payload.count == 1 else { return .none }
            return answer(vendor, type, [discover(payload[0] & 0xFF)])
        }
        guard let index = protocols.firstIndex(where: { $0.vendor == vendor && $0.type == type }) else {
            return .none
        }
        generation &+= 1
        status |= Bits.busy
        status &= ~Bits.ready
        (outgoing, position) = ([], 0)
        return .process(protocol: index, payload: payload, generation: generation)
    }

    /// The answer to a request. True when the mailbox interrupts.
    package mutating func complete(protocol index: Int, generation: UInt64, payload: [UInt32]?) -> Bool {
        guard generation == self.generation, status & Bits.busy != 0, protocols.indices.contains(index) else {
            return false
        }
        status &= ~Bits.busy
        guard let payload, payload.count <= Self.limit - 2 else { return fail() == .interrupt }
        return answer(protocols[index].vendor, protocols[index].type, payload) == .interrupt
    }

    /// The protocol of an index, and the next index, 0 after the last. Index 0 is discovery itself.
    private func discover(_ index: UInt32) -> UInt32 {
        let all = [Self.discovery] + protocols
        guard Int(index) < all.count else { return 0xFFFF }
        let next = Int(index) + 1 < all.count ? index + 1 : 0
        return UInt32(all[Int(index)].vendor) | UInt32(all[Int(index)].type) << 16 | next << 24
    }

    private mutating func answer(_ vendor: UInt16, _ type: UInt8, _ payload: [UInt32]) -> Action {
        outgoing = [UInt32(vendor) | UInt32(type) << 16, UInt32(payload.count + 2)] + payload
        position = 0
        status |= Bits.ready
        return interrupt()
    }

    private mutating func fail() -> Action {
        incoming = []
        status |= Bits.error
        return interrupt()
    }

    private mutating func interrupt() -> Action {
        guard control & Bits.interruptEnable != 0 else { return .none }
        status |= Bits.interruptStatus
        return .interrupt
    }
}
