internal import Foundation

/// A UDP socket of this machine that talks to a port of 127.0.0.1.
public final class UDPClient {
    private let descriptor: Int32

    public init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, .init(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard descriptor >= 0, result == 0 else { throw CancellationError() }
    }

    deinit { close(descriptor) }

    /// Sends one datagram; whether it arrives is UDP's affair.
    public func send(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, 0) }

    /// The next datagram, or nil when none comes in so many milliseconds.
    public func receive(within milliseconds: Int32) -> [UInt8]? {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, milliseconds) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 2048)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return count >= 0 ? Array(bytes[..<count]) : nil
    }
}

/// A UDP port that was free a moment ago.
public func freeUDPPort() throws -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, .init(__sockaddr__: $0), length) == 0
                && getsockname(descriptor, .init(__sockaddr__: $0), &length) == 0
        }
    }
    guard result else { throw CancellationError() }
    return UInt16(bigEndian: address.sin_port)
}

/// QEMU as a router between UDP port `port` of this machine and UDP port 623 of `station` on the Ethernet link whose
/// listening socket is `path`: a whole IP stack that is not ours. `network` holds the station, and `host` is QEMU's own
/// address there.
public func startQEMURouter(
    port: UInt16, station: String, network: String, host: String, path: String
) throws -> RunningProcess {
    try RunningProcess(
        "/usr/bin/qemu-system-riscv64",
        [
            "-M", "none", "-nodefaults", "-nographic", "-serial", "null", "-monitor", "null",
            "-netdev", "stream,id=wire,server=off,addr.type=unix,addr.path=\(path)",
            "-netdev", "user,id=lan,net=\(network),host=\(host),hostfwd=udp:127.0.0.1:\(port)-\(station):623",
            "-netdev", "hubport,id=h0,hubid=0,netdev=wire", "-netdev", "hubport,id=h1,hubid=0,netdev=lan",
        ])
}
