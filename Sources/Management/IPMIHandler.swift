// What the BMC answers on its system interface: the commands without which no driver takes it for a BMC. All others are
// answered with 0xC1, as the specification wants of what is not implemented; nothing here has side effects on the board.

public import DeviceFirmware

/// The BMC's message handler, as a pure value.
public struct IPMIHandler: Sendable {
    public struct Identity: Sendable, Hashable {
        /// Spec: IPMI 2.0 §20.1
        public var deviceID: UInt8 = 0x20
        public var deviceRevision: UInt8 = 1
        public var firmwareMajor: UInt8 = 1
        /// In BCD.
        public var firmwareMinor: UInt8 = 0x00
        /// The first byte of the auxiliary revision; the other three are 0.
        public var firmwarePatch: UInt8 = 0
        /// IANA enterprise number, 20 bits; 0 is "unspecified".
        public var manufacturer: UInt32 = 0
        public var product: UInt16 = 0x0B0C
        /// GUIDs name the node by this MAC address.
        public var mac: UInt64 = 0

        public init() {}

        /// That of a controller with firmware of this version.
        public init(_ version: FirmwareVersion) {
            firmwareMajor = version.major
            firmwareMinor = version.minorBCD
            firmwarePatch = version.patch
        }

        /// A UUID of version 1 with time zero: what tells it from all others is the MAC address and `number`.
        /// Spec: IPMI 2.0 §20.8 (least significant byte first), RFC 4122 §4.1.2
        func guid(_ number: UInt8) -> [UInt8] {
            let node = (0..<6).map { UInt8(truncatingIfNeeded: mac >> (8 * $0)) }
            return node + [number, 0x80, 0x00, 0x10] + [UInt8](repeating: 0, count: 6)
        }
    }

    private enum NetworkFunction {
        static let chassis: UInt8 = 0x00
        static let application: UInt8 = 0x06
    }

    /// Bits of Get BMC Global Enables. Spec: IPMI 2.0 §22.1
    public enum GlobalEnables {
        /// Messages for the host interrupt it, and so does every byte of the KCS interface.
        public static let receiveMessageInterrupt: UInt8 = 1 << 0
    }

    public let identity: Identity
    /// As Set BMC Global Enables left it.
    public private(set) var globalEnables: UInt8 = 0
    public private(set) var requests: UInt64 = 0
    /// Requests that were answered with another code than success.
    public private(set) var refusals: UInt64 = 0

    public init(_ identity: Identity = Identity()) { self.identity = identity }

    /// Interrupts are on.
    public var hasInterrupts: Bool { globalEnables & GlobalEnables.receiveMessageInterrupt != 0 }

    /// The response to a request as it came; both as on a KCS interface.
    public mutating func respond(to bytes: [UInt8]) -> [UInt8] {
        requests &+= 1
        guard let request = IPMIRequest(decoding: bytes) else {
            refusals &+= 1
            let header = (bytes.first ?? 0) | 1 << 2
            return [header, 0, IPMICompletionCode.invalidLength.rawValue]
        }
        let (code, data) = perform(request)
        if code != .success { refusals &+= 1 }
        return request.response(code, data)
    }

    private typealias Answer = (IPMICompletionCode, [UInt8])

    private mutating func perform(_ request: IPMIRequest) -> Answer {
        let answer: (length: Int, answer: (inout Self, [UInt8]) -> Answer)?
        switch request.networkFunction {
        case NetworkFunction.application: answer = Self.application(request.command)
        case NetworkFunction.chassis: answer = Self.chassis(request.command)
        default: answer = nil
        }
        guard let answer else { return (.invalidCommand, []) }
        guard request.lun == 0 else { return (.invalidForLUN, []) }
        guard request.data.count == answer.length else { return (.invalidLength, []) }
        return answer.answer(&self, request.data)
    }

    /// Commands of network function App: how long their data is, and what answers them.
    private static func application(_ command: UInt8) -> (Int, (inout Self, [UInt8]) -> Answer)? {
        switch command {
        case 0x01:  // Get Device ID, §20.1
            (0, { handler, _ in (.success, handler.deviceIdentity) })
        case 0x04:  // Get Self Test Results, §20.4: this controller has no self test
            (0, { _, _ in (.success, [0x56, 0x00]) })
        case 0x08:  // Get Device GUID, §20.8
            (0, { handler, _ in (.success, handler.identity.guid(0)) })
        case 0x22:  // Reset Watchdog Timer, §27.5: nobody can have set it, Set Watchdog Timer is not there
            (0, { _, _ in (.watchdogNotInitialized, []) })
        case 0x2E:  // Set BMC Global Enables, §22.1
            (1, { handler, data in handler.setGlobalEnables(data[0]) })
        case 0x2F:  // Get BMC Global Enables, §22.2
            (0, { handler, _ in (.success, [handler.globalEnables]) })
        case 0x30:  // Clear Message Flags, §22.3: none is ever set
            (1, { _, _ in (.success, []) })
        case 0x31:  // Get Message Flags, §22.4
            (0, { _, _ in (.success, [0]) })
        case 0x33:  // Get Message, §22.6
            (0, { _, _ in (.queueEmpty, []) })
        case 0x35:  // Read Event Message Buffer, §22.8
            (0, { _, _ in (.queueEmpty, []) })
        case 0x37:  // Get System GUID, §22.14
            (0, { handler, _ in (.success, handler.identity.guid(1)) })
        case 0x42:  // Get Channel Info, §22.24
            (1, { _, data in Self.channelInfo(data[0]) })
        default: nil
        }
    }

    private static func chassis(_ command: UInt8) -> (Int, (inout Self, [UInt8]) -> Answer)? {
        switch command {
        case 0x01:  // Get Chassis Status, §28.2: who asks on this interface has power
            (0, { _, _ in (.success, [0x01, 0x00, 0x00]) })
        default: nil
        }
    }

    private var deviceIdentity: [UInt8] {
        let little = { (value: UInt32, count: Int) in (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let version: UInt8 = 0x02  // IPMI 2.0
        let support: UInt8 = 0x80  // chassis device
        return [
            identity.deviceID, identity.deviceRevision, identity.firmwareMajor & 0x7F, identity.firmwareMinor, version,
            support,
        ] + little(identity.manufacturer, 3) + little(UInt32(identity.product), 2)
            + [identity.firmwarePatch, 0, 0, 0]
    }

    /// Of the enables there is the one of interrupts: no event message buffer, no event log.
    private mutating func setGlobalEnables(_ enables: UInt8) -> Answer {
        guard enables & ~GlobalEnables.receiveMessageInterrupt == 0 else { return (.invalidData, []) }
        globalEnables = enables
        return (.success, [])
    }

    /// The only channel is the system interface: 15, or 14 for "this one".
    private static func channelInfo(_ channel: UInt8) -> Answer {
        guard channel == 0xE || channel == 0xF else { return (.invalidData, []) }
        let systemInterface: UInt8 = 0x0C
        let kcs: UInt8 = 0x05
        let sessionless: UInt8 = 0x00
        // Bytes 5:7 are IPMI's own enterprise number; interrupts are not assigned by number here.
        return (.success, [0x0F, systemInterface, kcs, sessionless, 0xF2, 0x1B, 0x00, 0xFF, 0xFF])
    }
}
