/// The MSI-X table and pending bits of one function as the host keeps them: a pure value.
///
/// Its device knows nothing of it: it raises eventfds, and each becomes a message, or a pending bit while the vector,
/// the function or the bus master is masked. Spec: PCI Express Base §6.1.4, §7.7.2.
public struct MSIXTable: Sendable {
    /// A memory write that interrupts.
    public struct Message: Hashable, Sendable {
        public var address: UInt64
        public var data: UInt32

        public init(address: UInt64, data: UInt32) {
            self.address = address
            self.data = data
        }
    }

    public let vectors: Int
    private var entries: [UInt8]
    private var pending: [Bool]
    /// MSI-X enable of the capability's control word.
    public var isEnabled = false
    /// Function mask of the capability's control word.
    public var isMasked = false
    /// The command register's bus master enable: a message is a memory write.
    public var isMaster = false

    public init(vectors: Int) {
        self.vectors = vectors
        entries = [UInt8](repeating: 0, count: vectors * MSIXRegister.entrySize)
        pending = [Bool](repeating: false, count: vectors)
        for vector in 0..<vectors { entries[vector * MSIXRegister.entrySize + 12] = 1 }
    }

    /// Bytes of the table.
    public var tableSize: Int { entries.count }
    /// Bytes of the pending bits.
    public var pendingSize: Int { (vectors + 63) / 64 * 8 }

    private func word(_ place: Int) -> UInt32 {
        UInt32(entries[place]) | UInt32(entries[place + 1]) << 8 | UInt32(entries[place + 2]) << 16
            | UInt32(entries[place + 3]) << 24
    }

    private func message(_ vector: Int) -> Message {
        let place = vector * MSIXRegister.entrySize
        return Message(address: UInt64(word(place)) | UInt64(word(place + 4)) << 32, data: word(place + 8))
    }

    private func goesOut(_ vector: Int) -> Bool {
        isEnabled && !isMasked && isMaster
            && word(vector * MSIXRegister.entrySize + 12) & MSIXRegister.entryMask == 0
    }

    /// The device raised a vector: the message to send now, or nil and the vector is pending. A function whose MSI-X
    /// is off loses it.
    public mutating func raise(_ vector: Int) -> Message? {
        guard pending.indices.contains(vector), isEnabled else { return nil }
        if goesOut(vector) { return message(vector) }
        pending[vector] = true
        return nil
    }

    /// Takes the messages that were pending and may go out now.
    public mutating func release() -> [Message] {
        guard isEnabled, !isMasked, isMaster else { return [] }
        var messages: [Message] = []
        for vector in pending.indices where pending[vector] && goesOut(vector) {
            pending[vector] = false
            messages.append(message(vector))
        }
        return messages
    }

    /// Reads the table. Bytes outside read as zero.
    public func readTable(_ offset: Int, width: Int) -> UInt64 {
        Self.compose(width) { index in
            entries.indices.contains(offset &+ index) ? entries[offset &+ index] : 0
        }
    }

    /// Writes the table; follow with `release`. Reserved bits of the control word stay zero.
    public mutating func writeTable(_ offset: Int, width: Int, value: UInt64) {
        for index in 0..<width where entries.indices.contains(offset &+ index) {
            let place = offset &+ index
            let byte = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
            switch place % MSIXRegister.entrySize {
            case 0: entries[place] = byte & 0xFC
            case 12: entries[place] = byte & 1
            case 13...: entries[place] = 0
            default: entries[place] = byte
            }
        }
    }

    /// Reads the pending bits; software cannot write them.
    public func readPending(_ offset: Int, width: Int) -> UInt64 {
        Self.compose(width) { index in
            var byte: UInt8 = 0
            for bit in 0..<8 {
                let vector = (offset &+ index) &* 8 &+ bit
                if pending.indices.contains(vector), pending[vector] { byte |= 1 << bit }
            }
            return byte
        }
    }

    private static func compose(_ width: Int, _ byte: (Int) -> UInt8) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<min(width, 8) { value |= UInt64(byte(index)) << UInt64(index * 8) }
        return value
    }
}
