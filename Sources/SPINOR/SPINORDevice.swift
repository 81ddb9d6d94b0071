public import Serprog
internal import Synchronization

/// A chip that several connections share: transactions of all of them happen one after another.
public final class SPINORDevice: Sendable {
    private let chip: Mutex<SPINORChip>

    public init(content: FlashContent) {
        chip = Mutex(SPINORChip(content: content))
    }

    public var counters: SPINORChip.Counters { chip.withLock { $0.counters } }

    /// The chip as one connection sees it.
    public func target() -> Target { Target(device: self) }

    /// A connection's target: copies what is read out of the chip under the lock, so that a peer that does not take
    /// its answer holds up nobody else.
    public struct Target: SPITarget {
        private let device: SPINORDevice
        private var response: [UInt8] = []

        init(device: SPINORDevice) { self.device = device }

        public mutating func transact(
            write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
        ) throws(SPITargetError) {
            if response.count < readCount { response = [UInt8](repeating: 0, count: readCount) }
            device.chip.withLock { chip in chip.transact(write, readCount: readCount, into: &response) }
            guard readCount > 0 else { return }
            // Safety: every byte of an array is initialised.
            unsafe try reply(response.span.bytes.extracting(0..<readCount))
        }
    }
}
