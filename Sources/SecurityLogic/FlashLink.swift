internal import Serprog
internal import Synchronization
internal import Wire

/// A master's connection to the chip: made when first used, made anew after a failure.
final class FlashLink: Sendable {
    private let connect: @Sendable () throws(WireError) -> Socket
    private let client = Mutex<SerprogClient?>(nil)

    init(_ connect: @escaping @Sendable () throws(WireError) -> Socket) { self.connect = connect }

    func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        var replyFailure: SPITargetError?
        do throws(SerprogError) {
            let client = try currentClient()
            try client.spiTransaction(write: write, readCount: readCount) { (piece) throws(SerprogError) in
                do throws(SPITargetError) { try reply(piece) } catch {
                    replyFailure = error
                    throw SerprogError.targetFailed(error.description)
                }
            }
        } catch {
            if let replyFailure { throw replyFailure }
            throw failed(error)
        }
    }

    /// A short answer as a whole.
    func transact(_ write: [UInt8], _ readCount: Int = 0) throws(SPITargetError) -> [UInt8] {
        var bytes: [UInt8] = []
        try transact(write: write, readCount: readCount) { piece in
            // Safety: the buffer is valid in the closure, and copied there.
            unsafe piece.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        return bytes
    }

    /// Reads content, several requests under way at once.
    func readFlash(_ address: UInt32, _ count: Int, _ body: (RawSpan) -> Void) throws(SPITargetError) {
        do throws(SerprogError) {
            try currentClient().readFlash(offset: address, count: count, body)
        } catch {
            throw failed(error)
        }
    }

    private func failed(_ error: SerprogError) -> SPITargetError {
        switch error {
        case .wire, .outOfStep, .badAnswer: client.withLock { $0 = nil }
        default: break
        }
        return SPITargetError("the flash chip: \(error)")
    }

    private func currentClient() throws(SerprogError) -> SerprogClient {
        try client.withLock { (current) throws(SerprogError) in
            if let current { return current }
            let socket: Socket
            do throws(WireError) { socket = try connect() } catch { throw .wire(error) }
            let made = try SerprogClient(socket: socket)
            current = made
            return made
        }
    }
}
