import LPC
import Machine
import RISCV
import Synchronization
import TestKit
import Testing
import Wire

@Suite struct `LPC window` {
    private let board = WireBoard()

    @Test func `each byte of an access is a cycle at its port, low byte first`() throws {
        let thread = try LoopThread()
        let (near, far) = try Socket.pair(kind: .seqpacket)
        let host = LPCHost(
            socket: near, loop: thread.loop, patience: .seconds(20), report: { _ in }, onInterrupt: { _, _ in })
        let cycles = Collected<LPCMessage>()
        let peer = WorkerThread("test-lpc") {
            while let bytes = try? far.receiveBytes(limit: 16), let message = try? LPCMessage(decoding: bytes) {
                cycles.append(message)
                switch message {
                case .read(let tag, let port):
                    try? far.send(LPCMessage.sync(tag: tag, .ready, data: UInt8(port & 0xFF)).encoded)
                case .write(let tag, _, _): try? far.send(LPCMessage.sync(tag: tag, .ready, data: 0xFF).encoded)
                default: break
                }
            }
        }
        let window = LPCWindow(host: host, line: InterruptLine(board, source: 13))
        #expect(window.read(offset: 0xCA3, width: .byte) == 0xA3)
        #expect(window.read(offset: 0xCA2, width: .half) == 0xA3A2)
        #expect(window.read(offset: 0xFFFC, width: .word) == 0xFFFE_FDFC)
        #expect(window.write(offset: 0x80, width: .half, value: 0xBBAA))
        let writes = cycles.all.compactMap { message -> [UInt16]? in
            guard case .write(_, let port, let data) = message else { return nil }
            return [port, UInt16(data)]
        }
        #expect(writes == [[0x80, 0xAA], [0x81, 0xBB]])
        #expect(window.read(offset: 0, width: .double) == nil && !window.write(offset: 0, width: .double, value: 0))
        far.shutdown()
        peer.join()
        // Nobody there any more: as a bus that floats.
        #expect(window.read(offset: 0xCA2, width: .word) == 0xFFFF_FFFF)
        #expect(window.write(offset: 0x80, width: .byte, value: 1))
    }

    @Test func `a machine whose configuration says so has the window, and an interrupt survives its reset`() throws {
        let (near, far) = try Socket.pair(kind: .seqpacket)
        let thread = try LoopThread()
        let host = LPCHost(
            socket: near, loop: thread.loop, report: { _ in },
            onInterrupt: { [board] _, level in board.set(source: 13, asserted: level) })
        try host.start()
        try far.send(LPCMessage.interrupt(LPCPort.kcsInterrupt, level: true).encoded)
        expectEventually { board.isAsserted(13) }
        let window = LPCWindow(host: host, line: InterruptLine(board, source: 13))
        board.set(source: 13, asserted: false)
        window.reset()
        #expect(board.isAsserted(13))
    }
}
