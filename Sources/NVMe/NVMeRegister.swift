/// Controller registers, byte offsets in BAR0. Spec: NVM Express 1.4 §3.1.
public enum NVMeRegister {
    public static let capabilities: UInt64 = 0x00
    public static let version: UInt64 = 0x08
    public static let interruptMaskSet: UInt64 = 0x0C
    public static let interruptMaskClear: UInt64 = 0x10
    public static let configuration: UInt64 = 0x14
    public static let status: UInt64 = 0x1C
    public static let subsystemReset: UInt64 = 0x20
    public static let adminQueueAttributes: UInt64 = 0x24
    public static let adminSubmissionQueue: UInt64 = 0x28
    public static let adminCompletionQueue: UInt64 = 0x30
    /// Submission queue 0 tail; then completion queue 0 head, submission queue 1 tail, … a doubleword each.
    public static let doorbells: UInt64 = 0x1000

    /// What VERSION reads: 1.4.0.
    public static let version1_4: UInt32 = 0x0001_0400
    /// What SUBSYSTEM RESET takes: "NVMe".
    public static let subsystemResetValue: UInt32 = 0x4E56_4D65

    /// BAR0: registers, the MSI-X table at 8 KiB, the pending bits at 12 KiB.
    static let barSize: UInt64 = 0x4000
    static let msixTable: UInt32 = 0x2000
    static let msixPending: UInt32 = 0x3000
}

/// Controller Configuration. Spec: NVM Express 1.4 §3.1.5.
///
///     23…20  19…16  15…14  13…11  10…7  6…4  0
///     IOCQES IOSQES SHN    AMS    MPS   CSS  EN
struct ControllerConfiguration: Equatable {
    static let writable: UInt32 = 0x00FF_FFF1
    var rawValue: UInt32 = 0

    var isEnabled: Bool { rawValue & 1 != 0 }
    var commandSet: UInt32 { rawValue >> 4 & 7 }
    var memoryPageSize: UInt32 { rawValue >> 7 & 0xF }
    var arbitration: UInt32 { rawValue >> 11 & 7 }
    var shutdownNotification: UInt32 { rawValue >> 14 & 3 }
    var submissionEntrySize: UInt32 { rawValue >> 16 & 0xF }
    var completionEntrySize: UInt32 { rawValue >> 20 & 0xF }
}

/// Controller Status. Spec: NVM Express 1.4 §3.1.6.
enum ControllerStatus {
    static let ready: UInt32 = 1
    static let fatal: UInt32 = 1 << 1
    static let shutdownMask: UInt32 = 3 << 2
    static let shutdownOccurring: UInt32 = 1 << 2
    static let shutdownComplete: UInt32 = 2 << 2
    static let subsystemResetOccurred: UInt32 = 1 << 4
}

/// The registers' values; a pure value, reset by `init`.
struct ControllerRegisters {
    var interruptMask: UInt32 = 0
    var configuration = ControllerConfiguration()
    var status: UInt32 = 0
    var adminQueueAttributes: UInt32 = 0
    var adminSubmissionQueue: UInt64 = 0
    var adminCompletionQueue: UInt64 = 0

    /// Controller Capabilities. Spec: NVM Express 1.4 §3.1.1. MQES, contiguous queues, 10 s to become ready, a doorbell
    /// stride of 4 bytes, subsystem reset, the NVM command set, pages of 4 KiB.
    static let capabilities =
        UInt64(NVMeLimits.maximumEntries - 1) | 1 << 16 | 20 << 24 | 1 << 36 | 1 << 37

    /// The doubleword at an offset that is a multiple of four; 0 where there is none.
    func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case NVMeRegister.capabilities: UInt32(truncatingIfNeeded: Self.capabilities)
        case NVMeRegister.capabilities + 4: UInt32(truncatingIfNeeded: Self.capabilities >> 32)
        case NVMeRegister.version: NVMeRegister.version1_4
        case NVMeRegister.interruptMaskSet, NVMeRegister.interruptMaskClear: interruptMask
        case NVMeRegister.configuration: configuration.rawValue
        case NVMeRegister.status: status
        case NVMeRegister.adminQueueAttributes: adminQueueAttributes
        case NVMeRegister.adminSubmissionQueue: UInt32(truncatingIfNeeded: adminSubmissionQueue)
        case NVMeRegister.adminSubmissionQueue + 4: UInt32(truncatingIfNeeded: adminSubmissionQueue >> 32)
        case NVMeRegister.adminCompletionQueue: UInt32(truncatingIfNeeded: adminCompletionQueue)
        case NVMeRegister.adminCompletionQueue + 4: UInt32(truncatingIfNeeded: adminCompletionQueue >> 32)
        default: 0
        }
    }

    /// Writes one of the registers that only hold a value. False for the others.
    mutating func write(_ offset: UInt64, _ value: UInt32) -> Bool {
        let (low, high) = (UInt64(value), UInt64(value) << 32)
        switch offset {
        case NVMeRegister.adminQueueAttributes: adminQueueAttributes = value & 0x0FFF_0FFF
        // The lower 12 bits are reserved: the queue begins at a page.
        case NVMeRegister.adminSubmissionQueue:
            adminSubmissionQueue = adminSubmissionQueue & 0xFFFF_FFFF_0000_0000 | low & ~0xFFF
        case NVMeRegister.adminSubmissionQueue + 4:
            adminSubmissionQueue = adminSubmissionQueue & 0xFFFF_FFFF | high
        case NVMeRegister.adminCompletionQueue:
            adminCompletionQueue = adminCompletionQueue & 0xFFFF_FFFF_0000_0000 | low & ~0xFFF
        case NVMeRegister.adminCompletionQueue + 4:
            adminCompletionQueue = adminCompletionQueue & 0xFFFF_FFFF | high
        default: return false
        }
        return true
    }
}

/// What this controller can do.
enum NVMeLimits {
    /// Of a queue. Linux asks for 1024, and more only spreads the cache.
    static let maximumEntries: UInt32 = 1024
    static let pageSize = 4096
    static let pageShift = 12
    /// The longest data transfer as a power of two of pages: 1 MiB. Spec: Identify Controller MDTS.
    static let transferShift: UInt8 = 8
    static let maximumTransfer = pageSize << Int(transferShift)
    /// Asynchronous Event Requests at once. Spec: Identify Controller AERL, less one.
    static let eventRequests = 4
    static let errorLogEntries = 64
    /// Abort commands at once; they end at once, so this is a courtesy. Spec: Identify Controller ACL, less one.
    static let aborts = 4
    /// Commands served of one queue before it is another's turn.
    static let burst = 32
}
