// The offload card's command ring in host memory, as a pure value over a memory.
//
// The card trusts nothing in it: every index, address and length is the host's. A command that is wrong is answered with
// a status; a ring that is wrong stops the card until it is reset, and touches nothing else.

/// One entry of the ring. Spec: docs/wiring.md "Offload card".
///
/// ```
/// 0        2        4     8                 16            20                  24                32              36    63
/// |opcode  |status  |tag  |request address  |request len. |response capacity  |response address |response len.  | 0 …  |
/// ```
public struct CommandEntry: Hashable, Sendable {
    public static let size = 64
    static let statusOffset: UInt64 = 2
    static let responseLengthOffset: UInt64 = 32

    public var opcode: CommandOpcode
    public var status: CommandStatus
    public var tag: UInt32
    public var requestAddress: UInt64
    public var requestLength: UInt32
    public var responseCapacity: UInt32
    public var responseAddress: UInt64

    /// Reads an entry of ``size`` bytes.
    init(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.size, "an entry has 64 bytes")
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        }
        opcode = CommandOpcode(rawValue: UInt16(truncatingIfNeeded: number(0, 2)))
        status = CommandStatus(rawValue: UInt16(truncatingIfNeeded: number(2, 2)))
        tag = UInt32(truncatingIfNeeded: number(4, 4))
        requestAddress = number(8, 8)
        requestLength = UInt32(truncatingIfNeeded: number(16, 4))
        responseCapacity = UInt32(truncatingIfNeeded: number(20, 4))
        responseAddress = number(24, 8)
    }
}

/// What a command asks for. Unknown values are representable: a host may be newer.
public struct CommandOpcode: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// No request; the response is an ``OffloadIdentity``.
    public static let identify = CommandOpcode(rawValue: 0x0001)
}

/// How a command ended.
public struct CommandStatus: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let success = CommandStatus(rawValue: 0)
    public static let unknownOpcode = CommandStatus(rawValue: 1)
    public static let badLength = CommandStatus(rawValue: 2)
    public static let badAddress = CommandStatus(rawValue: 3)
    /// The card has not answered yet; the host writes it.
    public static let pending = CommandStatus(rawValue: 0xFFFF)
}

/// Why a ring cannot be served any more: the card needs a reset.
public enum RingFault: Error, Hashable, Sendable, CustomStringConvertible {
    case badSize(UInt32)
    case misaligned(UInt64)
    case beyondAddressSpace(UInt64)
    /// The host claims to have filled more entries than there are.
    case overrun(producer: UInt32, consumer: UInt32, size: UInt32)
    /// The entry at this index lies where the card cannot read or write.
    case unreachable(index: UInt32, address: UInt64)
    /// The host handed over an entry that it did not mark as pending.
    case notPending(index: UInt32, CommandStatus)

    public var description: String {
        switch self {
        case .badSize(let size):
            "the ring has \(size) entries: a power of two from 2 to 256 is needed"
        case .misaligned(let base):
            "the ring begins at 0x\(String(base, radix: 16)): not a multiple of 64"
        case .beyondAddressSpace(let base):
            "the ring at 0x\(String(base, radix: 16)) reaches beyond the address space"
        case .overrun(let producer, let consumer, let size):
            "producer \(producer) is more than \(size) entries ahead of consumer \(consumer)"
        case .unreachable(let index, let address):
            "entry \(index) at 0x\(String(address, radix: 16)) cannot be reached by DMA"
        case .notPending(let index, let status):
            "entry \(index) was handed over with status 0x\(String(status.rawValue, radix: 16)) instead of pending"
        }
    }
}

/// A ring of commands and the card's place in it.
public struct CommandRing: Hashable, Sendable {
    /// What the host may ask for: enough for every core of a large host to have one command under way.
    static let sizes: ClosedRange<UInt32> = 2...256

    public let base: UInt64
    public let size: UInt32
    /// The next index the card takes; free running.
    public private(set) var consumer: UInt32

    /// - Throws: when no ring can be there.
    public init(base: UInt64, size: UInt32, consumer: UInt32 = 0) throws(RingFault) {
        guard Self.sizes.contains(size), size.nonzeroBitCount == 1 else { throw .badSize(size) }
        guard base % UInt64(CommandEntry.size) == 0 else { throw .misaligned(base) }
        let length = UInt64(size) * UInt64(CommandEntry.size)
        guard base <= UInt64.max - (length - 1) else { throw .beyondAddressSpace(base) }
        self.base = base
        self.size = size
        self.consumer = consumer
    }

    /// Serves every entry before `producer`, each in three steps: its response, its response length, its status.
    ///
    /// - Parameter execute: answers a command with a status and, in case of success, the response's bytes.
    /// - Returns: the number of commands served. On a fault, `consumer` is the index of the entry at fault.
    public mutating func serve<Memory: HostMemory>(
        upTo producer: UInt32, _ memory: Memory, _ execute: (CommandEntry) -> CommandResult
    ) throws(RingFault) -> Int {
        guard producer &- consumer <= size else {
            throw .overrun(producer: producer, consumer: consumer, size: size)
        }
        var served = 0
        while consumer != producer {
            // No overflow: the whole ring lies in the address space.
            let address = base + UInt64(consumer & (size - 1)) * UInt64(CommandEntry.size)
            guard let bytes = memory.read(address, count: CommandEntry.size) else {
                throw .unreachable(index: consumer, address: address)
            }
            let entry = CommandEntry(bytes)
            guard entry.status == .pending else { throw .notPending(index: consumer, entry.status) }
            try complete(entry, execute(entry), at: address, memory)
            consumer &+= 1
            served += 1
        }
        return served
    }

    private func complete<Memory: HostMemory>(
        _ entry: CommandEntry, _ result: CommandResult, at address: UInt64, _ memory: Memory
    ) throws(RingFault) {
        var result = result
        if result.status == .success {
            if result.response.count > entry.responseCapacity {
                result = CommandResult(.badLength)
            } else if !result.response.isEmpty, !memory.write(result.response, at: entry.responseAddress) {
                result = CommandResult(.badAddress)
            }
        }
        let length = UInt32(truncatingIfNeeded: result.response.count)
        let status = result.status.rawValue
        guard
            memory.write(
                (0..<4).map { UInt8(truncatingIfNeeded: length >> UInt32(8 * $0)) },
                at: address + CommandEntry.responseLengthOffset),
            memory.write(
                [UInt8(truncatingIfNeeded: status), UInt8(truncatingIfNeeded: status >> 8)],
                at: address + CommandEntry.statusOffset)
        else { throw .unreachable(index: consumer, address: address) }
    }
}

/// What a command led to.
public struct CommandResult: Hashable, Sendable {
    public var status: CommandStatus
    /// Empty unless the status is success.
    public var response: [UInt8]

    public init(_ status: CommandStatus, response: [UInt8] = []) {
        self.status = status
        self.response = response
    }
}
