internal import Glibc
public import Wire

extension Listener {
    /// A listener for TCP on 127.0.0.1, which nobody outside this machine reaches: for flashrom, whose serprog knows
    /// no Unix sockets. Port 0 lets the kernel choose; returns the port that it is.
    public static func loopback(port: UInt16) throws(WireError) -> (listener: Listener, port: UInt16) {
        let subject = "TCP port \(port) of 127.0.0.1"
        let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard number >= 0 else { throw .last("socket", subject) }
        let descriptor = Descriptor(adopting: number)
        var on: Int32 = 1
        // Safety: an Int32 of its size. Accepted sockets inherit both: small answers must leave at once.
        unsafe setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        unsafe setsockopt(number, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        // Safety: sockaddr_in is one form of sockaddr; the length says which bytes are there.
        let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                if unsafe bind(number, __CONST_SOCKADDR_ARG(__sockaddr__: UnsafePointer(generic)), length) != 0 {
                    return "bind"
                }
                if listen(number, 4) != 0 { return "listen" }
                if unsafe getsockname(number, __SOCKADDR_ARG(__sockaddr__: generic), &length) != 0 {
                    return "getsockname"
                }
                return ""
            }
        }
        guard status.isEmpty else { throw .last(status, subject) }
        return (Listener(adopting: descriptor, kind: .stream), UInt16(bigEndian: address.sin_port))
    }
}
