/// Why an operation on a device over vfio-user failed.
public enum VFIOUserError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The server is dead, hangs, or does not keep to the protocol; the client is finished. The text says which.
    case gone(String)
    /// The server refused this one command; the link is well.
    case refused(VFIOUserCommand, ErrorNumber)

    public var description: String {
        switch self {
        case .gone(let reason): "the vfio-user server is gone: \(reason)"
        case .refused(let command, let error): "the vfio-user server refused \(command): \(error)"
        }
    }
}

/// What a client answers when its device reaches memory by messages: memory that was mapped without a descriptor, or
/// a server that prefers messages. Called on the client's threads, several at once.
public protocol ClientMemory: AnyObject, Sendable {
    func read(_ address: IOVirtualAddress, into bytes: inout MutableRawSpan) throws(ErrorNumber)
    func write(_ address: IOVirtualAddress, from bytes: RawSpan) throws(ErrorNumber)
}
