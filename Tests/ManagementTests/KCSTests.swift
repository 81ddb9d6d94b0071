import Management
import TestKit
import Testing

private typealias Bit = KCSInterface.StatusBit

/// Systems software as IPMI 2.0 Figures 9-6 and 9-7 have it, on registers that it can only read and write.
private struct KCSDriver {
    enum Failure: Error, Equatable {
        /// The state bits are not what the figure wants here.
        case state(UInt8, at: String)
        case noDataOut(at: String)
    }

    var read: (KCSInterface.Register) -> UInt8
    var write: (KCSInterface.Register, UInt8) -> Void

    private func expect(_ state: KCSInterface.State, _ place: String) throws {
        let status = read(.command)
        #expect(status & Bit.dataInFull == 0)
        guard status >> 6 == state.rawValue else { throw Failure.state(status, at: place) }
    }

    private func clear() { if read(.command) & Bit.dataOutFull != 0 { _ = read(.data) } }

    func send(_ request: [UInt8]) throws {
        clear()
        write(.command, KCSInterface.ControlCode.writeStart)
        try expect(.write, "WRITE_START")
        clear()
        for byte in request.dropLast() {
            write(.data, byte)
            try expect(.write, "data")
            clear()
        }
        write(.command, KCSInterface.ControlCode.writeEnd)
        try expect(.write, "WRITE_END")
        clear()
        write(.data, request.last!)
    }

    func receive() throws -> [UInt8] {
        var response: [UInt8] = []
        while true {
            let status = read(.command)
            guard status & Bit.dataOutFull != 0 else { throw Failure.noDataOut(at: "byte \(response.count)") }
            switch status >> 6 {
            case KCSInterface.State.read.rawValue:
                response.append(read(.data))
                write(.data, KCSInterface.ControlCode.read)
            case KCSInterface.State.idle.rawValue:
                // A dummy byte ends the response.
                _ = read(.data)
                return response
            default: throw Failure.state(status, at: "byte \(response.count)")
            }
        }
    }

    /// Figure 9-8: the error code.
    func abort() throws -> UInt8 {
        write(.command, KCSInterface.ControlCode.getStatus)
        clear()
        write(.data, 0)
        try expect(.read, "abort")
        let code = read(.data)
        write(.data, KCSInterface.ControlCode.read)
        try expect(.idle, "end of abort")
        clear()
        return code
    }
}

/// A BMC that keeps requests and answers them by hand or by `answer`.
private final class KCSBench {
    var kcs = KCSInterface()
    var requests: [[UInt8]] = []
    var answer: (([UInt8]) -> [UInt8])?

    var driver: KCSDriver {
        KCSDriver(
            read: { [unowned self] in kcs.read($0) },
            write: { [unowned self] in write($0, $1) })
    }

    func write(_ register: KCSInterface.Register, _ byte: UInt8) {
        kcs.write(register, byte)
        guard let request = kcs.service() else { return }
        requests.append(request)
        if let answer { kcs.respond(answer(request)) }
    }
}

@Suite struct KCSTests {
    private let bench = KCSBench()

    private var state: KCSInterface.State { bench.kcs.state }

    @Test(arguments: [1, 2, 3, 40, 271, 272])
    func `a request and its response of any length pass`(_ count: Int) throws {
        let request = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 0x60) }
        bench.answer = { $0.reversed() + [0x61, 0x68] }
        for _ in 0..<3 {
            try bench.driver.send(request)
            #expect(try bench.driver.receive() == request.reversed() + [0x61, 0x68])
        }
        #expect(bench.requests == [request, request, request])
        #expect(state == .idle && bench.kcs.errors == 0)
    }

    @Test func `status shows what was written last, IBF until it is taken, OBF until it is read, and attention`() {
        var kcs = KCSInterface()
        #expect(kcs.read(.command) == 0)
        kcs.write(.command, KCSInterface.ControlCode.writeStart)
        #expect(kcs.read(.command) == Bit.dataInFull | Bit.command)
        #expect(kcs.service() == nil)
        #expect(kcs.read(.command) == 0b10 << 6 | Bit.command | Bit.dataOutFull)
        _ = kcs.read(.data)
        #expect(kcs.read(.command) == 0b10 << 6 | Bit.command)
        kcs.write(.data, 0x18)
        #expect(kcs.read(.command) == 0b10 << 6 | Bit.dataInFull)
        #expect(kcs.service() == nil)
        #expect(kcs.service() == nil, "nothing to take")
        kcs.needsAttention = true
        #expect(kcs.read(.command) == 0b10 << 6 | Bit.dataOutFull | Bit.attention)
    }

    @Test func `a response that takes its time: read state, no data, then data`() throws {
        try bench.driver.send([0x18, 0x01])
        #expect(state == .read)
        // The dummy byte of WRITE_END is gone; that of the response is not there.
        #expect(throws: KCSDriver.Failure.noDataOut(at: "byte 0")) { try bench.driver.receive() }
        bench.kcs.respond([0x1C, 0x01, 0x00])
        #expect(try bench.driver.receive() == [0x1C, 0x01, 0x00])
        bench.kcs.respond([1, 2, 3])
        #expect(state == .idle && !bench.kcs.isDataOutFull, "nobody asked")
    }

    /// What the host writes, as (register, byte), and the error that it must then find.
    @Test(
        arguments: [
            ("a code that is none", [(true, 0x63)], .illegalControlCode),
            ("a code that is none, in a request", [(true, 0x61), (true, 0x00)], .illegalControlCode),
            ("WRITE_END without WRITE_START", [(true, 0x62)], .illegalControlCode),
            ("WRITE_END twice", [(true, 0x61), (true, 0x62), (true, 0x62)], .illegalControlCode),
            ("data out of nowhere", [(false, 0x18)], .illegalControlCode),
            ("READ out of nowhere", [(false, 0x68)], .illegalControlCode),
            ("data after the last", [(true, 0x61), (true, 0x62), (false, 1), (false, 2)], .illegalControlCode),
            (
                "another byte than READ", [(true, 0x61), (true, 0x62), (false, 0xEE), (false, 0x67)],
                .illegalControlCode
            ),
        ] as [(String, [(Bool, UInt8)], KCSInterface.ErrorCode)])
    func `what is out of step is an error until asked`(
        _ name: String, _ writes: [(isCommand: Bool, byte: UInt8)], _ error: KCSInterface.ErrorCode
    ) throws {
        bench.answer = { $0 == [0xEE] ? [1, 2, 3] : [] }
        if !name.contains("another") { bench.answer = nil }
        for (isCommand, byte) in writes { bench.write(isCommand ? .command : .data, byte) }
        #expect(state == .error && bench.kcs.errors == 1, "\(name)")
        #expect(bench.kcs.isDataOutFull, "a host by interrupts hears of it")
        // More bytes do not help.
        bench.write(.data, 0x68)
        #expect(state == .error)
        #expect(try bench.driver.abort() == error.rawValue, "\(name)")
        #expect(try bench.driver.abort() == KCSInterface.ErrorCode.none.rawValue, "told once")
        bench.answer = { $0 }
        try bench.driver.send([0x18, 0x01])
        #expect(try bench.driver.receive() == [0x18, 0x01])
    }

    @Test func `a request without end is a length error, and its bytes are gone`() throws {
        bench.write(.command, 0x61)
        for _ in 0..<KCSInterface.requestCapacity { bench.write(.data, 0x55) }
        #expect(state == .write)
        bench.write(.data, 0x55)
        #expect(state == .error)
        #expect(try bench.driver.abort() == KCSInterface.ErrorCode.lengthError.rawValue)
        #expect(bench.requests.isEmpty)
    }

    @Test func `an abort in the middle of a request, before and in the middle of a response`() throws {
        let aborted = KCSInterface.ErrorCode.abortedByCommand.rawValue
        bench.write(.command, 0x61)
        bench.write(.data, 0x18)
        #expect(try bench.driver.abort() == aborted)
        #expect(bench.requests.isEmpty)
        try bench.driver.send([0x18, 0x01])
        #expect(try bench.driver.abort() == aborted)
        bench.kcs.respond([9, 9, 9])
        #expect(state == .idle && !bench.kcs.isDataOutFull, "an answer that comes too late goes nowhere")
        bench.answer = { $0 + $0 }
        try bench.driver.send([0x18, 0x01])
        #expect(bench.kcs.read(.data) == 0x18)
        #expect(try bench.driver.abort() == aborted)
        // In the abort itself only READ goes on.
        bench.write(.command, 0x60)
        bench.write(.data, 0)
        bench.write(.data, 0x11)
        #expect(state == .error)
        #expect(try bench.driver.abort() == KCSInterface.ErrorCode.illegalControlCode.rawValue)
    }

    @Test func `WRITE_START begins anew from every state`() throws {
        bench.answer = { $0 }
        for prefix in [[(true, 0x61), (false, 1)], [(true, 0x63)], [(true, 0x60)], [(true, 0x60), (false, 0)]]
            as [[(Bool, UInt8)]]
        {
            for (isCommand, byte) in prefix { bench.write(isCommand ? .command : .data, byte) }
            try bench.driver.send([0x18, 0x31])
            #expect(try bench.driver.receive() == [0x18, 0x31])
        }
    }

    @Test func `an empty response is an unspecified error, not a trap`() throws {
        try bench.driver.send([0x18, 0x01])
        bench.kcs.respond([])
        #expect(state == .error)
        #expect(try bench.driver.abort() == KCSInterface.ErrorCode.unspecified.rawValue)
    }

    @Test func `no sequence of accesses traps it, and a proper transfer works after each`() throws {
        var generator = SeededGenerator.fresh()
        bench.answer = { Array($0.prefix(40)) + [0] }
        for _ in 0..<500 {
            for _ in 0..<Int.random(in: 1...60, using: &generator) {
                let isCommand = Bool.random(using: &generator)
                let codes: [UInt8] = [0x60, 0x61, 0x62, 0x68, 0x00, .random(in: 0...255, using: &generator)]
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: _ = bench.kcs.read(isCommand ? .command : .data)
                default: bench.write(isCommand ? .command : .data, codes.randomElement(using: &generator)!)
                }
            }
            try bench.driver.send([0x18, 0x01, 7])
            #expect(try bench.driver.receive() == [0x18, 0x01, 7, 0])
        }
    }
}
