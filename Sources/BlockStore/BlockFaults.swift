internal import Synchronization

/// A fault to inject: what shall go wrong, where, and how often.
public struct BlockFault: Hashable, Sendable {
    public enum Operation: String, CaseIterable, Hashable, Sendable {
        case read, write, flush, discard
    }

    public enum Effect: Hashable, Sendable {
        /// The access fails as on a bad medium; nothing is transferred.
        case error
        /// The access is carried out so much later. The device decides how it waits; see ``BlockStore/delay(_:at:count:)``.
        case delay(Duration)
        /// Of a write only the first half of its blocks (rounded down) reaches the medium. Reported: it fails as on a
        /// bad medium. Otherwise the device believes that it was written.
        case torn(isReported: Bool)
    }

    public var effect: Effect
    public var operations: Set<Operation>
    /// The bytes it concerns; accesses that touch them. Flushes always do.
    public var range: Range<UInt64>
    /// How many more accesses it hits; nil for all.
    public var remaining: UInt64?

    public init(
        _ effect: Effect, operations: Set<Operation> = [.read, .write], range: Range<UInt64> = 0..<UInt64.max,
        remaining: UInt64? = nil
    ) {
        self.effect = effect
        self.operations = operations
        self.range = range
        self.remaining = remaining
    }
}

/// The faults injected into a store. Any thread; free of cost while there are none.
public final class BlockFaults: Sendable {
    /// One fault and what became of it.
    public struct Entry: Hashable, Sendable {
        public var identifier: Int
        public var fault: BlockFault
        public var hits: UInt64
    }

    /// More than any script needs: a bound on what one access looks through.
    public static let maximumCount = 1024

    private let isActive = Atomic(false)
    private let state = Mutex((next: 1, entries: [Entry]()))

    init() {}

    /// The faults there are, in the order they were added.
    public var entries: [Entry] { state.withLock { $0.entries } }

    /// Adds a fault; its identifier, or nil when there are ``maximumCount`` already.
    public func add(_ fault: BlockFault) -> Int? {
        state.withLock { state in
            guard state.entries.count < Self.maximumCount else { return nil }
            let identifier = state.next
            state.next += 1
            state.entries.append(Entry(identifier: identifier, fault: fault, hits: 0))
            isActive.store(true, ordering: .releasing)
            return identifier
        }
    }

    /// Takes a fault away; false when there is none of this identifier.
    public func remove(_ identifier: Int) -> Bool {
        state.withLock { state in
            guard let place = state.entries.firstIndex(where: { $0.identifier == identifier }) else { return false }
            state.entries.remove(at: place)
            isActive.store(!state.entries.isEmpty, ordering: .releasing)
            return true
        }
    }

    public func removeAll() {
        state.withLock { state in
            state.entries = []
            isActive.store(false, ordering: .releasing)
        }
    }

    /// Which fault, other than a delay, hits an access.
    func verdict(_ operation: BlockFault.Operation, _ offset: UInt64, _ count: UInt64) -> BlockFault.Effect? {
        guard isActive.load(ordering: .acquiring) else { return nil }
        return hit(operation, offset, count) { fault in
            if case .delay = fault.effect { return false }
            if case .torn = fault.effect { return operation == .write }
            return true
        }
    }

    /// How long an access shall be held back.
    func delay(_ operation: BlockFault.Operation, _ offset: UInt64, _ count: UInt64) -> Duration? {
        guard isActive.load(ordering: .acquiring) else { return nil }
        let effect = hit(operation, offset, count) { fault in
            if case .delay = fault.effect { return true }
            return false
        }
        guard case .delay(let duration) = effect else { return nil }
        return duration
    }

    private func hit(
        _ operation: BlockFault.Operation, _ offset: UInt64, _ count: UInt64, _ matches: (BlockFault) -> Bool
    ) -> BlockFault.Effect? {
        state.withLock { state in
            for place in state.entries.indices {
                let fault = state.entries[place].fault
                guard fault.remaining != 0, fault.operations.contains(operation), matches(fault),
                    operation == .flush
                        || offset < fault.range.upperBound && fault.range.lowerBound < offset.saturating(plus: count)
                else { continue }
                state.entries[place].hits &+= 1
                if let remaining = fault.remaining { state.entries[place].fault.remaining = remaining - 1 }
                return fault.effect
            }
            return nil
        }
    }
}

extension UInt64 {
    func saturating(plus other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
