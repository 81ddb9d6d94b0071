// The keyboard controller style interface between a host and its BMC, the BMC's side, as a pure value.
//
// Two registers of a byte. The host writes a request byte by byte into Data_In, with a control code before the first
// (WRITE_START) and before the last (WRITE_END); then it reads the response byte by byte from Data_Out, asking for each
// next one by READ. The state bits say whose turn it is and of what. The surprise: the BMC fills Data_Out with a dummy
// byte after every byte it takes, so that a host that works by interrupts gets one.
//
// Spec: IPMI 2.0 §9 (registers §9.6, §9.7; state bits §9.7 Table 9-3; error codes Table 9-4; BMC's flow Figures 9-6…9-8)

/// A KCS interface. The host's side reads and writes registers; the BMC's side calls `service` and `respond`.
public struct KCSInterface: Sendable {
    /// Where a register is, from the base of the interface.
    public enum Register: UInt16, Sendable {
        /// Written: Data_In, read: Data_Out.
        case data = 0
        /// Written: Command, read: Status.
        case command = 1
    }

    /// Bits 7:6 of Status.
    public enum State: UInt8, Sendable {
        case idle = 0b00
        /// The host reads a response.
        case read = 0b01
        /// The host writes a request.
        case write = 0b10
        /// Out of step: the host shall ask by GET_STATUS/ABORT.
        case error = 0b11
    }

    /// Bits of Status beside the state.
    public enum StatusBit {
        public static let dataOutFull: UInt8 = 1 << 0
        public static let dataInFull: UInt8 = 1 << 1
        /// The BMC has something to say: the host should ask by Get Message Flags.
        public static let attention: UInt8 = 1 << 2
        /// What was written last: 1 Command, 0 Data_In.
        public static let command: UInt8 = 1 << 3
    }

    public enum ControlCode {
        /// Ends whatever goes on; the host gets an error code to read.
        public static let getStatus: UInt8 = 0x60
        public static let writeStart: UInt8 = 0x61
        public static let writeEnd: UInt8 = 0x62
        /// In Data_In: the next byte, please.
        public static let read: UInt8 = 0x68
    }

    /// What GET_STATUS/ABORT answers.
    public enum ErrorCode: UInt8, Sendable {
        case none = 0x00
        case abortedByCommand = 0x01
        case illegalControlCode = 0x02
        case lengthError = 0x06
        case unspecified = 0xFF
    }

    /// What the next byte of the host means.
    private enum Phase {
        case idle
        /// Bytes of a request come.
        case writing
        /// The last one comes.
        case writingLast
        /// The request is the BMC's to answer.
        case processing
        /// The host reads; `index` is of the next byte.
        case reading([UInt8], index: Int)
        /// GET_STATUS/ABORT was taken: the next byte makes the error code readable.
        case abort
        /// The error code is in Data_Out: READ ends the interface's excursion.
        case abortRead
        case failed
    }

    /// Longer than any message that Linux' driver sends (80 bytes) or a LAN packet holds.
    public static let requestCapacity = 272

    public private(set) var state = State.idle
    /// Whether the host may not have read what is in Data_Out.
    public private(set) var isDataOutFull = false
    /// SMS_ATN.
    public var needsAttention = false
    /// Times that the host was told that it is out of step.
    public private(set) var errors: UInt64 = 0

    private var phase = Phase.idle
    private var request: [UInt8] = []
    private var error = ErrorCode.none
    private var dataOut: UInt8 = 0
    private var dataIn: UInt8 = 0
    private var isDataInFull = false
    private var isCommand = false

    public init() {}

    // MARK: The host's side

    /// The host reads a register; reading Data_Out empties it.
    public mutating func read(_ register: Register) -> UInt8 {
        switch register {
        case .data:
            isDataOutFull = false
            return dataOut
        case .command:
            return state.rawValue << 6 | (isCommand ? StatusBit.command : 0)
                | (needsAttention ? StatusBit.attention : 0) | (isDataInFull ? StatusBit.dataInFull : 0)
                | (isDataOutFull ? StatusBit.dataOutFull : 0)
        }
    }

    /// The host writes a register. A byte that the BMC has not taken yet is lost: the host shall wait for IBF = 0.
    public mutating func write(_ register: Register, _ byte: UInt8) {
        dataIn = byte
        isDataInFull = true
        isCommand = register == .command
    }

    // MARK: The BMC's side

    /// Takes what the host has written, if anything; a request when its last byte has come.
    public mutating func service() -> [UInt8]? {
        guard isDataInFull else { return nil }
        isDataInFull = false
        if isCommand {
            control(dataIn)
            return nil
        }
        return data(dataIn)
    }

    /// Answers the request. Ignored when the host has begun something else meanwhile.
    public mutating func respond(_ message: [UInt8]) {
        guard case .processing = phase else { return }
        guard let first = message.first else { return fail(.unspecified) }
        phase = .reading(message, index: 1)
        put(first)
    }

    private mutating func put(_ byte: UInt8) {
        dataOut = byte
        isDataOutFull = true
    }

    /// Out of step: the host has to ask why.
    private mutating func fail(_ code: ErrorCode) {
        phase = .failed
        state = .error
        error = code
        errors &+= 1
        request.removeAll(keepingCapacity: true)
        put(0)
    }

    private mutating func control(_ code: UInt8) {
        switch code {
        case ControlCode.writeStart:
            request.removeAll(keepingCapacity: true)
            error = .none
            phase = .writing
            state = .write
            put(0)
        case ControlCode.writeEnd:
            guard case .writing = phase else { return fail(.illegalControlCode) }
            phase = .writingLast
            state = .write
            put(0)
        case ControlCode.getStatus:
            if error == .none {
                if case .idle = phase {} else { error = .abortedByCommand }
            }
            request.removeAll(keepingCapacity: true)
            phase = .abort
            state = .write
            put(0)
        default: fail(.illegalControlCode)
        }
    }

    private mutating func data(_ byte: UInt8) -> [UInt8]? {
        switch phase {
        case .writing, .writingLast:
            guard request.count < Self.requestCapacity else {
                fail(.lengthError)
                return nil
            }
            request.append(byte)
            guard case .writingLast = phase else {
                put(0)
                return nil
            }
            phase = .processing
            state = .read
            return request
        case .reading(let message, let index):
            guard byte == ControlCode.read else {
                fail(.illegalControlCode)
                return nil
            }
            guard index < message.count else {
                phase = .idle
                state = .idle
                put(0)
                return nil
            }
            phase = .reading(message, index: index + 1)
            put(message[index])
        case .abort:
            phase = .abortRead
            state = .read
            put(error.rawValue)
            error = .none
        case .abortRead:
            guard byte == ControlCode.read else {
                fail(.illegalControlCode)
                return nil
            }
            phase = .idle
            state = .idle
            put(0)
        case .idle, .processing, .failed: fail(.illegalControlCode)
        }
        return nil
    }
}
