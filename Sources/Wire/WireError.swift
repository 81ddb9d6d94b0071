internal import CSystem

/// Why a wire operation failed: an operational error, never a guest's or a peer's to see.
public enum WireError: Error, Equatable, Sendable {
    /// A system call failed; `subject` names the path or the thing it was for.
    case system(call: String, subject: String, errno: Int32)
    /// The peer closed the connection, in the middle of a message when `inMessage`.
    case closed(inMessage: Bool)
    /// A socket path is longer than the 107 bytes that `sockaddr_un` holds.
    case pathTooLong(String)
    /// A message announced `length` bytes; the wire carries `minimum`…`maximum`.
    case badLength(length: Int, minimum: Int, maximum: Int)
    /// More descriptors came than a message may carry, or the kernel cut a message.
    case truncated
    /// A mapping or an access lies outside its object.
    case outOfRange(offset: UInt64, count: UInt64, limit: UInt64)
    /// The deadline passed.
    case timedOut

    /// The current `errno` as an error.
    package static func last(_ call: String, _ subject: String) -> WireError {
        .system(call: call, subject: subject, errno: errno)
    }
}

extension WireError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .system(let call, let subject, let code):
            "\(subject): \(call): \(systemErrorText(code))"
        case .closed(inMessage: false): "the peer closed the connection"
        case .closed(inMessage: true): "the peer closed the connection in the middle of a message"
        case .pathTooLong(let path):
            "\(path): a socket path holds at most 107 bytes and this one has \(path.utf8.count): use a shorter folder"
        case .badLength(let length, let minimum, let maximum):
            "a message of \(length) bytes on a wire that carries \(minimum) to \(maximum)"
        case .truncated: "a message was cut: too long, or too many descriptors"
        case .outOfRange(let offset, let count, let limit):
            "\(count) bytes at \(offset) lie outside the \(limit) bytes there are"
        case .timedOut: "timed out"
        }
    }
}

/// The system's text for an error number.
public func systemErrorText(_ code: Int32) -> String {
    // Safety: strerror returns a NUL-terminated string that lives at least until the next call on this thread.
    unsafe String(cString: strerror(code))
}

/// The calling thread's last error number.
var errno: Int32 { cs_errno() }
