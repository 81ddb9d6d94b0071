/// The UNIX error number of an error reply: a value that a device or server returns to its peer, not a failure of
/// this process.
///
/// Spec: vfio-user "Header", field *Error*. The numbers are Linux's, the same on every architecture here.
public struct ErrorNumber: RawRepresentable, Error, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// EPERM: the access is not allowed (a write to memory mapped for reading).
    public static let notPermitted = ErrorNumber(rawValue: 1)
    /// ENOENT: nothing is mapped or registered there.
    public static let noEntry = ErrorNumber(rawValue: 2)
    /// EIO: the peer went away in the middle of the operation.
    public static let inputOutput = ErrorNumber(rawValue: 5)
    /// E2BIG: a count is larger than what was negotiated.
    public static let tooBig = ErrorNumber(rawValue: 7)
    /// ENOMEM: this side has no room for it.
    public static let noMemory = ErrorNumber(rawValue: 12)
    /// EFAULT: the address is not mapped.
    public static let badAddress = ErrorNumber(rawValue: 14)
    /// EEXIST: a DMA map lies over another one.
    public static let exists = ErrorNumber(rawValue: 17)
    /// EINVAL: the message is malformed or names something that does not exist.
    public static let invalid = ErrorNumber(rawValue: 22)
    /// ENOSPC: the table of DMA maps is full.
    public static let noSpace = ErrorNumber(rawValue: 28)
    /// ENOTSUP: the command is unknown or not implemented here.
    public static let notSupported = ErrorNumber(rawValue: 95)

    public var description: String {
        switch self {
        case .notPermitted: "EPERM"
        case .noEntry: "ENOENT"
        case .inputOutput: "EIO"
        case .tooBig: "E2BIG"
        case .noMemory: "ENOMEM"
        case .badAddress: "EFAULT"
        case .exists: "EEXIST"
        case .invalid: "EINVAL"
        case .noSpace: "ENOSPC"
        case .notSupported: "ENOTSUP"
        default: "errno \(rawValue)"
        }
    }
}
