import TestKit
import Testing
import Wire

@Suite struct SocketTests {
    @Test func `descriptors travel with the bytes they were sent with`() throws {
        let (left, right) = try Socket.pair()
        let memory = try SharedMemory(create: "travels", size: 4096)
        unsafe memory.mapping.baseAddress.storeBytes(of: 0x2A, as: UInt8.self)
        try left.send([1, 2, 3], descriptors: [memory.descriptor])
        var buffer = [UInt8](repeating: 0, count: 16)
        var passed: [Descriptor] = []
        let received = try unsafe buffer.withUnsafeMutableBytes {
            try unsafe right.receive(into: $0, descriptors: &passed)
        }
        #expect(received == .bytes(3))
        #expect(Array(buffer[..<3]) == [1, 2, 3])
        try #require(passed.count == 1)
        let mapped = try MappedMemory(passed[0], count: 4096)
        #expect(unsafe mapped.baseAddress.load(as: UInt8.self) == 0x2A)
    }

    @Test func `a path longer than 107 bytes is refused by name`() {
        let path = "/tmp/" + String(repeating: "x", count: 120)
        #expect(throws: WireError.pathTooLong(path)) { try Listener(path: path) }
        #expect(throws: WireError.pathTooLong(path)) { try Socket.connect(to: path) }
    }

    @Test func `a socket left behind by a dead process is replaced, a living one is not`() throws {
        let folder = TemporaryFolder()
        let path = folder.file("s")
        let first = try Listener(path: path)
        #expect(throws: WireError.self) { try Listener(path: path) }
        // What a killed process leaves: the path without a listener.
        let stale = folder.file("stale")
        let left = try Listener(path: stale)
        left.shutdown()
        #expect(throws: Never.self) { try Listener(path: stale) }
        _ = first
    }

    @Test func `a missing socket is one clear error`() {
        do throws(WireError) {
            _ = try Socket.connect(to: "/tmp/bb-nobody/nothing.sock")
            Issue.record("connected to nothing")
        } catch {
            #expect(error.description == "/tmp/bb-nobody/nothing.sock: connect: No such file or directory")
        }
    }

    @Test func `a peer that does not accept is given up, and one that does in time is not`() throws {
        let folder = TemporaryFolder()
        let path = folder.file("s")
        let listener = try Listener(path: path, backlog: 0)
        var waiting: [Socket] = []
        do throws(WireError) {
            while waiting.count < 10 { waiting.append(try Socket.connect(to: path, patience: .zero)) }
            Issue.record("a queue without end")
        } catch {
            #expect(error.description == "\(path): connect: Connection timed out")
        }
        let accepter = WorkerThread("accepter") {
            for _ in 0..<2 { _ = try? listener.accept(until: .after(.seconds(20))) }
        }
        let late = try Socket.connect(to: path, patience: .seconds(20))
        accepter.join()
        _ = (late, waiting)
    }

    @Test func `shutdown ends a receive that blocks`() throws {
        let (left, right) = try Socket.pair()
        let thread = WorkerThread("blocked") {
            #expect((try? left.receiveBytes(limit: 8)) == .some(nil))
        }
        left.shutdown()
        thread.join()
        _ = right
    }

    @Test func `sending to a peer that left is an error and no signal`() throws {
        let (left, right) = try Socket.pair()
        right.shutdown()
        #expect(throws: WireError.closed(inMessage: false)) { try left.send([1]) }
    }

    @Test func `a datagram longer than the room is refused`() throws {
        let (left, right) = try Socket.pair(kind: .seqpacket)
        try left.send([UInt8](repeating: 7, count: 100))
        #expect(throws: WireError.truncated) { try right.receiveBytes(limit: 10) }
        try left.send([1, 2])
        #expect(try right.receiveBytes(limit: 10) == [1, 2])
    }

    @Test func `a deadline that passes is told`() throws {
        let (left, right) = try Socket.pair()
        #expect(throws: WireError.timedOut) { try left.receiveBytes(limit: 8, until: .after(.milliseconds(5))) }
        _ = right
    }

    @Test func `more descriptors than a message may carry are closed, and the message refused`() throws {
        let before = openDescriptorCount()
        do {
            let (left, right) = try Socket.pair()
            let one = try EventNotifier()
            #expect(throws: WireError.self) {
                try left.send([1], descriptors: Array(repeating: one.descriptor, count: 65))
            }
            _ = right
        }
        #expect(openDescriptorCount() <= before)
    }
}
