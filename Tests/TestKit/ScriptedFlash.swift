internal import Foundation
internal import Serprog
internal import Synchronization
internal import Wire

/// A flash chip behind serprog that is as a test says, and can be told otherwise at any time.
public final class ScriptedFlash: Sendable {
    /// How it behaves.
    public enum Manner: Sendable {
        case good
        /// Each read takes so much longer.
        case slow(Duration)
        /// A read ends the connection after its first byte.
        case cuts
        /// A read is refused.
        case refuses
        /// It drives nothing.
        case dead
    }

    private struct State {
        var content: [Int: [UInt8]] = [:]
        var manner = Manner.good
        var reads: [(offset: Int, count: Int)] = []
    }

    public let path: String
    private let state = Mutex(State())
    private let server = Mutex<SerprogServer?>(nil)

    /// Serves at `path`, erased.
    public init(path: String) throws {
        self.path = path
        let made = SerprogServer(
            try Listener(path: path), programmerName: "scripted", report: { _ in },
            makeTarget: { [weak self] () throws(SPITargetError) in
                guard let self else { throw SPITargetError("the chip is gone") }
                return Target(flash: self)
            })
        server.withLock { $0 = made }
    }

    deinit { server.withLock { $0 }?.stop() }

    /// What the chip holds: bytes by where they begin, erased between.
    public func set(_ content: [Int: [UInt8]], _ manner: Manner = .good) {
        state.withLock { state in
            state.content = content
            state.manner = manner
        }
    }

    /// The reads since the start.
    public var reads: [(offset: Int, count: Int)] { state.withLock { $0.reads } }

    private struct Target: SPITarget {
        let flash: ScriptedFlash

        mutating func transact(
            write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            if write == [SPIFlash.readIdentification] {
                var identification: [UInt8] = [0xC2, 0x20, 0x19]
                if case .dead = flash.manner { identification = [0xFF, 0xFF, 0xFF] }
                return try reply(Array(identification.prefix(readCount)).span.bytes)
            }
            guard write.count == 6, write[0] == SPIFlash.fastRead4Byte else { throw SPITargetError("not a read") }
            let offset = write[1...4].reduce(0) { $0 << 8 | Int($1) }
            let (bytes, manner) = flash.read(offset, readCount)
            switch manner {
            case .good: break
            case .slow(let delay): Thread.sleep(forTimeInterval: delay / .seconds(1))
            case .refuses: throw SPITargetError("it refuses")
            case .dead: return try reply([UInt8](repeating: 0xFF, count: readCount).span.bytes)
            case .cuts:
                try reply([bytes.first ?? 0].span.bytes)
                throw SPITargetError("cut off")
            }
            try reply(bytes.span.bytes)
        }
    }

    private var manner: Manner { state.withLock { $0.manner } }

    private func read(_ offset: Int, _ count: Int) -> ([UInt8], Manner) {
        state.withLock { state in
            state.reads.append((offset, count))
            var bytes = [UInt8](repeating: 0xFF, count: count)
            for (start, piece) in state.content {
                for (index, byte) in piece.enumerated() where (offset..<offset + count).contains(start + index) {
                    bytes[start + index - offset] = byte
                }
            }
            return (bytes, state.manner)
        }
    }
}
