internal import VFIOUser

/// A submission queue entry of 64 bytes. Spec: NVM Express 1.4 §4.2.
///
///     0 opcode u8   1 flags u8 (FUSE 1…0, PSDT 7…6)   2 command identifier u16   4 namespace u32
///     16 metadata pointer u64   24 PRP entry 1 u64   32 PRP entry 2 u64   40 … 60 doublewords 10 … 15
struct NVMeCommand {
    static let size = 64

    var opcode: UInt8
    var flags: UInt8
    var identifier: UInt16
    var namespace: UInt32
    var prp1: UInt64
    var prp2: UInt64
    var dword10: UInt32
    var dword11: UInt32
    var dword12: UInt32
    var dword13: UInt32
    var dword14: UInt32

    /// Precondition: `bytes` has 64 bytes at `offset`.
    @inline(__always)
    init(_ bytes: RawSpan, at offset: Int) {
        opcode = bytes.uint8(at: offset)
        flags = bytes.uint8(at: offset + 1)
        identifier = bytes.uint16(at: offset + 2)
        namespace = bytes.uint32(at: offset + 4)
        prp1 = bytes.uint64(at: offset + 24)
        prp2 = bytes.uint64(at: offset + 32)
        dword10 = bytes.uint32(at: offset + 40)
        dword11 = bytes.uint32(at: offset + 44)
        dword12 = bytes.uint32(at: offset + 48)
        dword13 = bytes.uint32(at: offset + 52)
        dword14 = bytes.uint32(at: offset + 56)
    }

    /// Every namespace. Spec: NVM Express 1.4 §6.1.
    static let allNamespaces: UInt32 = 0xFFFF_FFFF

    /// Starting LBA of the NVM commands.
    var startingLBA: UInt64 { UInt64(dword10) | UInt64(dword11) << 32 }
    /// Number of logical blocks, which the field holds less one.
    var blocks: UInt64 { UInt64(dword12 & 0xFFFF) + 1 }
    var forcesUnitAccess: Bool { dword12 & 1 << 30 != 0 }
}

/// Opcodes of the admin queue. Spec: NVM Express 1.4 §5.
enum AdminOpcode {
    static let deleteSubmissionQueue: UInt8 = 0x00
    static let createSubmissionQueue: UInt8 = 0x01
    static let getLogPage: UInt8 = 0x02
    static let deleteCompletionQueue: UInt8 = 0x04
    static let createCompletionQueue: UInt8 = 0x05
    static let identify: UInt8 = 0x06
    static let abort: UInt8 = 0x08
    static let setFeatures: UInt8 = 0x09
    static let getFeatures: UInt8 = 0x0A
    static let asynchronousEventRequest: UInt8 = 0x0C
    static let doorbellBufferConfig: UInt8 = 0x7C
}

/// Opcodes of the NVM command set. Spec: NVM Express 1.4 §6.
enum NVMOpcode {
    static let flush: UInt8 = 0x00
    static let write: UInt8 = 0x01
    static let read: UInt8 = 0x02
    static let compare: UInt8 = 0x05
    static let writeZeroes: UInt8 = 0x08
    static let datasetManagement: UInt8 = 0x09
    static let verify: UInt8 = 0x0C
}

/// A completion's status: code type in bits 10…8, code in bits 7…0, Do Not Retry in bit 14; as in the completion entry's
/// status field without the phase tag. Spec: NVM Express 1.4 §4.6.1.
public struct NVMeStatus: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    private static func permanent(_ code: UInt16) -> NVMeStatus { NVMeStatus(rawValue: code | 1 << 14) }
    private static func transient(_ code: UInt16) -> NVMeStatus { NVMeStatus(rawValue: code) }

    public static let success = transient(0)
    public static let invalidOpcode = permanent(0x01)
    public static let invalidField = permanent(0x02)
    public static let dataTransferError = transient(0x04)
    public static let internalError = transient(0x06)
    public static let abortRequested = transient(0x07)
    public static let abortedByQueueDeletion = transient(0x08)
    public static let invalidNamespace = permanent(0x0B)
    public static let invalidPRPOffset = permanent(0x13)
    public static let namespaceWriteProtected = permanent(0x20)
    public static let lbaOutOfRange = permanent(0x80)
    public static let capacityExceeded = permanent(0x81)
    public static let invalidCompletionQueue = permanent(0x100)
    public static let invalidQueueIdentifier = permanent(0x101)
    public static let invalidQueueSize = permanent(0x102)
    public static let eventRequestLimit = permanent(0x105)
    public static let invalidInterruptVector = permanent(0x108)
    public static let invalidLogPage = permanent(0x109)
    public static let invalidQueueDeletion = permanent(0x10C)
    public static let featureNotSaveable = permanent(0x10D)
    public static let featureNotChangeable = permanent(0x10E)
    public static let writeFault = transient(0x280)
    public static let unrecoveredReadError = transient(0x281)
    public static let compareFailure = permanent(0x285)
}

/// How a command goes on after it was looked at.
enum NVMeOutcome {
    /// It ends, with doubleword 0 of its completion.
    case done(NVMeStatus, UInt32)
    /// It waits: an event request, or a command that an injected fault holds back.
    case waits

    static func status(_ status: NVMeStatus) -> NVMeOutcome { .done(status, 0) }
    static let success = NVMeOutcome.done(.success, 0)
}
