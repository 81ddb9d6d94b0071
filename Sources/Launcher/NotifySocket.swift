internal import Glibc
internal import Wire

/// The datagram socket on which one component says that it is ready: each has its own, so that the path says who speaks.
/// Spec: sd_notify(3).
enum NotifySocket {
    /// Makes the socket at `path`, which is known to fit an address; reads on it never wait.
    static func make(at path: String, folder: String) throws(LaunchError) -> Descriptor {
        let number = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard number >= 0 else { throw .file(path: path, call: "socket", errno: errno) }
        let descriptor = Descriptor(adopting: number)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        // Safety: sun_path holds 108 bytes; at most 107 are written and the rest is zero.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
            for (index, byte) in bytes.prefix(107).enumerated() { unsafe place[index] = byte }
        }
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(
                    number, .init(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else { throw .last("bind", path, folder: folder, code: errno) }
        return descriptor
    }
}
