internal import CSystem

/// An open file descriptor that is closed once, when its last owner lets go.
public final class Descriptor: Sendable {
    /// The descriptor's number, valid as long as this object lives.
    public let rawValue: Int32

    /// Takes over `rawValue`: nobody else may close it.
    public init(adopting rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative")
        self.rawValue = rawValue
    }

    deinit { close(rawValue) }

    /// Opens `path` close-on-exec.
    public static func open(_ path: String, flags: Int32, mode: UInt32 = 0o600) throws(WireError) -> Descriptor {
        // Safety: the string lives through the call.
        let number = unsafe cs_open(path, flags, mode)
        guard number >= 0 else { throw .last("open", path) }
        return Descriptor(adopting: number)
    }

    /// A second descriptor of the same open file.
    public func duplicate() throws(WireError) -> Descriptor {
        let number = cs_duplicate(rawValue)
        guard number >= 0 else { throw .last("dup", "descriptor \(rawValue)") }
        return Descriptor(adopting: number)
    }

    /// The size of the file in bytes, or nil where it has none.
    public var fileSize: UInt64? {
        let size = cs_file_size(rawValue)
        return size < 0 ? nil : UInt64(size)
    }

    /// False for a folder, a pipe, a device.
    public var isRegularFile: Bool { cs_is_regular_file(rawValue) }

    /// Fills `buffer` from `offset` of the file on; returns how many bytes that were: fewer only where the file ends.
    public func fill(
        _ buffer: UnsafeMutableRawBufferPointer, from offset: UInt64, subject: String = "descriptor"
    ) throws(WireError) -> Int {
        var done = 0
        while done < buffer.count, let position = Int(exactly: offset &+ UInt64(done)) {
            // Safety: done < count, so the base exists and the rest of the buffer begins there.
            let count = unsafe pread(rawValue, buffer.baseAddress! + done, buffer.count - done, position)
            if count < 0 {
                if errno == EINTR { continue }
                throw .last("read", subject)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// True when neither this process nor a peer can shrink the file any more (`F_SEAL_SHRINK`).
    public var isSealedAgainstShrinking: Bool {
        let seals = cs_seals(rawValue)
        return seals >= 0 && seals & 0x0002 != 0
    }

    /// Makes reads and writes return at once (`O_NONBLOCK`).
    public func setNonblocking(_ on: Bool) throws(WireError) {
        guard cs_set_nonblocking(rawValue, on) == 0 else { throw .last("fcntl", "descriptor \(rawValue)") }
    }

    /// Writes all of `bytes`; a full disk or a closed pipe throws.
    public func writeAll(_ bytes: [UInt8], subject: String = "descriptor") throws(WireError) {
        var sent = 0
        while sent < bytes.count {
            // Safety: the range sent..<count lies in the array.
            let count = unsafe bytes.withUnsafeBytes { unsafe write(rawValue, $0.baseAddress! + sent, $0.count - sent) }
            if count < 0 {
                if errno == EINTR { continue }
                throw .last("write", subject)
            }
            sent += count
        }
    }

    /// Up to `limit` bytes; empty at the end of the file; nil when nothing is there yet (non-blocking).
    public func readSome(limit: Int, subject: String = "descriptor") throws(WireError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: limit)
        while true {
            // Safety: read writes at most `limit` bytes into an array of `limit`.
            let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(rawValue, $0.baseAddress, $0.count) }
            if count >= 0 {
                bytes.removeLast(limit - count)
                return bytes
            }
            if errno == EINTR { continue }
            if errno == EAGAIN { return nil }
            throw .last("read", subject)
        }
    }
}
