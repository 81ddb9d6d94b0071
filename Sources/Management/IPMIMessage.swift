// IPMI messages as a system interface carries them: network function and LUN, command, completion code, data.
//
// Spec: IPMI 2.0 §5.1 (network functions), §5.2 (completion codes), §9.2, §9.3 (KCS request and response)

/// A request of a host.
public struct IPMIRequest: Hashable, Sendable {
    /// Even: a request.
    public var networkFunction: UInt8
    /// Logical unit number, 0…3.
    public var lun: UInt8
    public var command: UInt8
    public var data: [UInt8]

    /// Nil when there is no command in it.
    public init?(decoding bytes: [UInt8]) {
        guard bytes.count >= 2 else { return nil }
        networkFunction = bytes[0] >> 2
        lun = bytes[0] & 3
        command = bytes[1]
        data = Array(bytes[2...])
    }

    /// The response with a completion code and what follows it.
    public func response(_ code: IPMICompletionCode, _ data: [UInt8] = []) -> [UInt8] {
        [(networkFunction | 1) << 2 | lun, command, code.rawValue] + data
    }
}

/// How a command ended. Some have values of their own from 0x80 on.
public struct IPMICompletionCode: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let success = IPMICompletionCode(rawValue: 0x00)
    public static let invalidCommand = IPMICompletionCode(rawValue: 0xC1)
    public static let invalidForLUN = IPMICompletionCode(rawValue: 0xC2)
    public static let invalidLength = IPMICompletionCode(rawValue: 0xC7)
    public static let invalidData = IPMICompletionCode(rawValue: 0xCC)
    /// Get Message, Read Event Message Buffer: the queue is empty. Spec: IPMI 2.0 §22.6, §22.8
    public static let queueEmpty = IPMICompletionCode(rawValue: 0x80)
    /// Reset Watchdog Timer: it was never set. Spec: IPMI 2.0 §27.5
    public static let watchdogNotInitialized = IPMICompletionCode(rawValue: 0x80)
}
