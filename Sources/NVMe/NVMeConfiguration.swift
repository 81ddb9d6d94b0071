public import BlockStore

/// What a controller is: its name plate and its namespaces, numbered from 1.
public struct NVMeConfiguration: Sendable {
    /// ASCII, at most 40 characters.
    public let model: String
    /// ASCII, at most 20 characters.
    public let serial: String
    /// ASCII, at most 8 characters.
    public private(set) var firmware: String
    public let namespaces: [BlockStore]
    /// I/O queue pairs that a host may have, 1…64; each has an MSI-X vector, as has the admin queue.
    public let queuePairs: Int

    /// Gives the controller another firmware revision; false, and nothing changes, when it cannot be one.
    mutating func setFirmware(_ revision: String) -> Bool {
        guard Self.isText(revision, limit: 8) else { return false }
        firmware = revision
        return true
    }

    private static func isText(_ text: String, limit: Int) -> Bool {
        text.utf8.count <= limit && text.utf8.allSatisfy { (0x20...0x7E).contains($0) }
    }

    /// Nil when a text is too long or not printable ASCII, or a number is out of range.
    public init?(
        model: String = "Baseboard NVMe", serial: String, firmware: String = "1.0", namespaces: [BlockStore],
        queuePairs: Int = 32
    ) {
        for (text, limit) in [(model, 40), (serial, 20), (firmware, 8)] {
            guard Self.isText(text, limit: limit) else { return nil }
        }
        guard (1...64).contains(queuePairs), namespaces.count <= 128 else { return nil }
        self.model = model
        self.serial = serial
        self.firmware = firmware
        self.namespaces = namespaces
        self.queuePairs = queuePairs
    }

    /// A universally unique identifier for a namespace, version 8 (RFC 9562 §5.8): the same for the same serial number.
    func uuid(_ namespace: UInt32) -> (UInt64, UInt64) {
        // FNV-1a over the serial number, the namespace, and a byte that tells the halves apart.
        func hash(_ half: UInt8) -> UInt64 {
            var value: UInt64 = 0xCBF2_9CE4_8422_2325
            func mix(_ byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }
            for byte in serial.utf8 { mix(byte) }
            for shift in stride(from: 0, to: 32, by: 8) { mix(UInt8(truncatingIfNeeded: namespace >> UInt32(shift))) }
            mix(half)
            return value
        }
        return (
            hash(0) & 0xFFFF_FFFF_FFFF_0FFF | 0x8000, hash(1) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        )
    }
}

/// What a controller is doing, for people.
public struct NVMeSnapshot: Sendable {
    public enum State: String, Sendable {
        /// Not enabled by the host.
        case disabled
        case ready
        /// The host's queues were garbage; a reset is needed.
        case fatal
        case shutdown
    }

    /// A command that did not succeed.
    public struct Failure: Hashable, Sendable {
        public var queue: Int
        public var opcode: UInt8
        public var status: NVMeStatus
    }

    public var state: State
    /// Why it is fatal.
    public var reason: String?
    public var submissionQueues: Int
    public var completionQueues: Int
    public var commands: UInt64
    public var failedCommands: UInt64
    public var lastFailure: Failure?
    public var resets: UInt64
    /// Whether the host writes doorbells to memory. Spec: NVM Express 1.4 §7.13.
    public var usesShadowDoorbells: Bool
    /// Commands that an injected fault holds back.
    public var delayed: Int
    /// Composite temperature, kelvin.
    public var temperature: UInt16
}
