// How a chip breaks: what is injected, and what follows from it.

/// A fault to inject into a chip.
public enum FlashFault: Hashable, Sendable {
    /// Cells that lost their charge or gained one: the bits of `mask` at `address` change now.
    case bitFlip(address: Int, mask: UInt8)
    /// The bits of `mask` at `address` read as `value` whatever is written.
    case stuck(address: Int, mask: UInt8, value: UInt8)
    /// The supply falls in the middle of the `after`th program, erase or register write from now (the next is 1).
    case powerLoss(after: UInt64)
    /// Each transaction takes so much longer.
    case slow(Duration)
    /// The chip drives nothing and takes nothing.
    case dead
}

/// The faults of a chip.
struct FlashFaults: Sendable {
    /// One fault that lasts, by the identifier it was given.
    struct Entry: Sendable, Hashable {
        var identifier: Int
        var fault: FlashFault
    }

    /// Bits of one byte that do not change.
    struct StuckBits: Sendable {
        var address: Int
        var mask: UInt8
        var value: UInt8

        func apply(to byte: UInt8) -> UInt8 { byte & ~mask | value & mask }
    }

    /// More than any script needs: a bound on what one read looks through.
    static let maximumCount = 4096

    private(set) var entries: [Entry] = []
    private var next = 1
    /// Sorted by address.
    private var stuckBits: [StuckBits] = []
    private(set) var delay = Duration.zero
    private var isDead = false
    var isPowered = true

    /// Whether the chip drives nothing.
    var isSilent: Bool { isDead || !isPowered }

    /// The identifier of a fault that lasts; nil when there are ``maximumCount`` already.
    mutating func add(_ fault: FlashFault) -> Int? {
        guard entries.count < Self.maximumCount else { return nil }
        defer { next += 1 }
        entries.append(Entry(identifier: next, fault: fault))
        refresh()
        return next
    }

    /// False when there is none of this identifier.
    mutating func remove(_ identifier: Int) -> Bool {
        guard let place = entries.firstIndex(where: { $0.identifier == identifier }) else { return false }
        entries.remove(at: place)
        refresh()
        return true
    }

    mutating func removeAll() {
        entries = []
        refresh()
    }

    private mutating func refresh() {
        stuckBits = []
        delay = .zero
        isDead = false
        for entry in entries {
            switch entry.fault {
            case .stuck(let address, let mask, let value):
                stuckBits.append(StuckBits(address: address, mask: mask, value: value))
            case .slow(let more): delay += more
            case .dead: isDead = true
            case .bitFlip, .powerLoss: break
            }
        }
        stuckBits.sort { $0.address < $1.address }
    }

    /// Counts an operation; true when the supply falls in it.
    mutating func countWrite() -> Bool {
        var isCut = false
        for index in entries.indices {
            guard case .powerLoss(let after) = entries[index].fault else { continue }
            if after <= 1 { isCut = true }
            entries[index].fault = .powerLoss(after: after &- 1)
        }
        if isCut { entries.removeAll { $0.fault == .powerLoss(after: 0) } }
        return isCut
    }

    /// The stuck bits of the addresses in `range`.
    func stuck(in range: Range<Int>) -> ArraySlice<StuckBits> {
        guard !stuckBits.isEmpty else { return [] }
        let first = firstStuck(from: range.lowerBound)
        let last = firstStuck(from: range.upperBound)
        return stuckBits[first..<last]
    }

    private func firstStuck(from address: Int) -> Int {
        var low = 0
        var high = stuckBits.count
        while low < high {
            let middle = (low + high) / 2
            if stuckBits[middle].address < address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Shows the stuck bits in `count` bytes of `response` from `position`, which were read from address `start` on, going
    /// on at 0 behind the last of `size`.
    func apply(to response: inout [UInt8], at position: Int, count: Int, from start: Int, of size: Int) {
        guard !stuckBits.isEmpty else { return }
        var done = 0
        var address = start
        while done < count {
            let piece = min(count - done, size - address)
            for bits in stuck(in: address..<address + piece) {
                let place = position + done + bits.address - address
                response[place] = bits.apply(to: response[place])
            }
            done += piece
            address = 0
        }
    }
}

extension SPINORChip {
    /// A fault with the identifier that clears it.
    public struct InjectedFault: Sendable, Hashable {
        public let identifier: Int
        public let fault: FlashFault
    }

    /// The faults that last.
    public var injectedFaults: [InjectedFault] {
        faults.entries.map { InjectedFault(identifier: $0.identifier, fault: $0.fault) }
    }

    /// Breaks the chip; the fault's identifier, 0 for one that is over at once, nil when there are too many. Addresses
    /// must be the chip's.
    public mutating func inject(_ fault: FlashFault) -> Int? {
        if case .bitFlip(let address, let mask) = fault {
            content[address] ^= mask
            return 0
        }
        return faults.add(fault)
    }

    /// Mends a fault; false when there is none of this identifier.
    public mutating func clearFault(_ identifier: Int) -> Bool { faults.remove(identifier) }

    public mutating func clearFaults() { faults.removeAll() }

    /// How much longer a transaction takes.
    var transactionDelay: Duration { faults.delay }
}
