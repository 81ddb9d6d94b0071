import Machine
import QMP
import Serprog
import Sideband
import TestKit
import Testing
import Wire

/// A chip that answers FAST READ with a 4-byte address out of an array, and refuses the rest.
struct ImageTarget: SPITarget {
    let image: [UInt8]

    mutating func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        guard write.count == 6, write[0] == 0x0C else { throw SPITargetError("not a read") }
        let address = write[1...4].reduce(0) { $0 << 8 | Int($1) }
        let bytes = (0..<readCount).map { address + $0 < image.count ? image[address + $0] : 0xFF }
        try reply(bytes.span.bytes)
    }
}

/// A `host-cpu` process with a flash, a sideband, a serial line, a console and a control socket, all held by the test.
final class HostProcess {
    let folder = TemporaryFolder()
    let process: RunningProcess
    let sideband: SidebandLink
    let serial: Socket
    private let flash: Socket

    init(_ image: [UInt8], _ arguments: [String] = []) throws {
        let folder = folder
        let spi = try Listener(path: folder.file("spi"))
        let sidebandListener = try Listener(path: folder.file("sideband"), kind: .seqpacket)
        let serialListener = try Listener(path: folder.file("serial"))
        process = try RunningProcess(
            binary("host-cpu"),
            [
                "--memory", "64MiB", "--connect", "spi=\(folder.file("spi"))",
                "--connect", "sideband=\(folder.file("sideband"))", "--connect", "serial=\(folder.file("serial"))",
                "--listen", "console=\(folder.file("console"))", "--listen", "control=\(folder.file("control"))",
            ] + arguments)
        let socket = try spi.accept(until: .after(.seconds(20)))
        flash = socket
        WorkerThread("test-flash") {
            var session = SerprogSession(socket: socket, programmerName: "test", target: ImageTarget(image: image))
            _ = try? session.run()
        }
        sideband = SidebandLink(socket: try sidebandListener.accept(until: .after(.seconds(20))))
        serial = try serialListener.accept(until: .after(.seconds(20)))
        #expect(eventually { (try? Socket.connect(to: folder.file("control"))) != nil })
    }

    deinit { flash.shutdown() }

    /// Ends the spi wire.
    func closeFlash() { flash.shutdown() }

    func control() throws -> QMPClient { try QMPClient(path: folder.file("control")) }

    /// Drives RESET# and waits for POWER_GOOD to follow.
    func setReset(released: Bool) throws {
        try sideband.send(.signal(.reset, level: released))
        #expect(try sideband.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: released))
    }
}

extension Socket {
    /// Reads until the bytes end with `text`, or the deadline passes, or the peer ends.
    func read(until text: String) throws -> String {
        var bytes: [UInt8] = []
        let deadline = MonotonicTime.after(.seconds(20))
        while !String(decoding: bytes, as: UTF8.self).hasSuffix(text) {
            guard let more = try receiveBytes(limit: 4096, until: deadline) else { break }
            bytes += more
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
