public import Wire

/// The programmer's end of one serprog connection: answers commands, hands SPI operations to a target.
///
/// Answers to commands that came together leave together; a large piece of data leaves from where it lies.
public struct SerprogSession<Target: SPITarget>: ~Copyable {
    private let socket: Socket
    private let programmerName: String
    private var target: Target

    /// Received and not yet understood: `input[start..<end]`.
    private var input: [UInt8]
    private var start = 0
    private var end = 0
    /// Bytes of an oversized operation that are still to come and to be ignored.
    private var ignored = 0
    /// Answers not yet sent.
    private var output: [UInt8] = []
    private var pinsAreDriven = true
    private var wait = AdaptiveWait()

    /// Room for the longest request and then some, so that several small ones come in one receive.
    private static var inputCapacity: Int { Serprog.maximumWrite + 4096 }
    /// Answers are sent at the latest when this many bytes wait; larger pieces are sent uncopied.
    private static var outputLimit: Int { 4096 }

    /// - Parameter programmerName: what Q_PGMNAME answers, cut to 16 bytes.
    public init(socket: Socket, programmerName: String, target: Target) {
        self.socket = socket
        self.programmerName = programmerName
        self.target = target
        input = [UInt8](repeating: 0, count: Self.inputCapacity)
    }

    /// Serves until the peer closes. Throws when the socket fails, the peer goes in the middle of a command, or the
    /// target fails after it began to answer.
    public mutating func run() throws(SerprogError) {
        while try receive() {
            while try serveNext() {}
            try flush()
        }
        guard start == end, ignored == 0 else { throw .wire(.closed(inMessage: true)) }
    }

    private mutating func receive() throws(SerprogError) -> Bool {
        if start == end {
            start = 0
            end = 0
        } else if start > 0 {
            input.replaceSubrange(0..<end - start, with: Array(input[start..<end]))
            end -= start
            start = 0
        }
        var descriptors: [Descriptor] = []
        let room = end
        // Safety: the range room..<count lies in the array, which outlives the call.
        let result: Result<Socket.Received, WireError> = unsafe input.withUnsafeMutableBytes { buffer in
            do throws(WireError) {
                return .success(
                    unsafe try socket.receive(
                        into: UnsafeMutableRawBufferPointer(rebasing: buffer[room...]), descriptors: &descriptors,
                        polling: &wait))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(.bytes(let count)): end += count
        case .success(.end): return false
        case .success(.nothing): break
        case .failure(let error): throw .wire(error)
        }
        return true
    }

    /// Answers the request at the front of the input; false when it is not all there.
    private mutating func serveNext() throws(SerprogError) -> Bool {
        if ignored > 0 {
            let count = min(ignored, end - start)
            start += count
            ignored -= count
            guard ignored == 0 else { return false }
            output.append(Serprog.refuse)
            return true
        }
        switch SerprogRequest.decode(input[start..<end]) {
        case .incomplete: return false
        case .oversized(let length):
            ignored = length
            return true
        case .request(let request, let length):
            start += length
            try answer(request)
            if output.count >= Self.outputLimit { try flush() }
            return true
        }
    }

    private mutating func answer(_ request: SerprogRequest) throws(SerprogError) {
        switch request {
        case .plain(let command): answer(command)
        case .setBusType(let types): acknowledge(if: types & Serprog.busSPI != 0)
        case .setSPIFrequency(let hertz):
            acknowledge(if: hertz != 0)
            if hertz != 0 { append(UInt64(min(hertz, Serprog.maximumFrequency)), count: 4) }
        case .setPinState(let isDriven):
            pinsAreDriven = isDriven
            acknowledge(if: true)
        case .setChipSelect(let number): acknowledge(if: number == 0)
        case .spiOperation(let write, let readCount):
            guard pinsAreDriven, readCount <= Serprog.maximumRead else {
                acknowledge(if: false)
                return
            }
            try transact(write, readCount)
        }
    }

    private mutating func answer(_ command: SerprogCommand) {
        switch command {
        case .nop: acknowledge(if: true)
        case .syncNOP: output += [Serprog.refuse, Serprog.acknowledge]
        case .queryInterface:
            acknowledge(if: true)
            append(UInt64(Serprog.interfaceVersion), count: 2)
        case .queryCommandMap:
            acknowledge(if: true)
            var map = [UInt8](repeating: 0, count: 32)
            for command in SerprogCommand.supported { map[Int(command.rawValue / 8)] |= 1 << (command.rawValue % 8) }
            output += map
        case .queryProgrammerName:
            acknowledge(if: true)
            let name = Array(programmerName.utf8.prefix(16))
            output += name + [UInt8](repeating: 0, count: 16 - name.count)
        case .querySerialBuffer:
            acknowledge(if: true)
            append(UInt64(Serprog.serialBuffer), count: 2)
        case .queryBusTypes:
            acknowledge(if: true)
            output.append(Serprog.busSPI)
        case .queryMaximumWrite:
            acknowledge(if: true)
            append(UInt64(Serprog.maximumWrite), count: 3)
        case .queryMaximumRead:
            acknowledge(if: true)
            append(UInt64(Serprog.maximumRead), count: 3)
        default: acknowledge(if: false)
        }
    }

    private mutating func transact(_ write: [UInt8], _ readCount: Int) throws(SerprogError) {
        var replied = 0
        var failure: SerprogError?
        // The closure needs what it changes as locals: `target` is being changed at the same time.
        var pending = output
        output = []
        let socket = socket
        do throws(SPITargetError) {
            try target.transact(write: write, readCount: readCount) { (piece) throws(SPITargetError) in
                guard piece.byteCount <= readCount - replied else {
                    failure = .wire(.badLength(length: replied + piece.byteCount, minimum: 0, maximum: readCount))
                    throw SPITargetError("the target answered more than \(readCount) bytes")
                }
                if replied == 0 { pending.append(Serprog.acknowledge) }
                replied += piece.byteCount
                guard pending.count + piece.byteCount > Self.outputLimit else {
                    // Safety: the buffer is valid in the closure, and copied there.
                    unsafe piece.withUnsafeBytes { unsafe pending.append(contentsOf: $0) }
                    return
                }
                do throws(WireError) {
                    // Safety: both buffers are valid in the closures.
                    let result: Result<Void, WireError> = unsafe pending.withUnsafeBytes { head in
                        unsafe piece.withUnsafeBytes { body in
                            do throws(WireError) { return .success(unsafe try socket.send(head, body)) } catch {
                                return .failure(error)
                            }
                        }
                    }
                    try result.get()
                } catch {
                    failure = .wire(error)
                    throw SPITargetError(error.description)
                }
                pending.removeAll(keepingCapacity: true)
            }
            if readCount == 0 { pending.append(Serprog.acknowledge) }
        } catch {
            if replied > 0 { failure = failure ?? .targetFailed(error.description) }
            if replied == 0 { pending.append(Serprog.refuse) }
            output = pending
            if let failure { throw failure }
            return
        }
        output = pending
        if let failure { throw failure }
        guard replied == readCount else { throw .targetFailed("\(replied) bytes instead of \(readCount)") }
    }

    private mutating func acknowledge(if good: Bool) {
        output.append(good ? Serprog.acknowledge : Serprog.refuse)
    }

    private mutating func append(_ value: UInt64, count: Int) {
        for index in 0..<count { output.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))) }
    }

    private mutating func flush() throws(SerprogError) {
        guard !output.isEmpty else { return }
        do throws(WireError) { try socket.send(output) } catch { throw .wire(error) }
        output.removeAll(keepingCapacity: true)
    }
}
