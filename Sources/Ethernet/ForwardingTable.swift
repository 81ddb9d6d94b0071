// The switch's memory of which station lives behind which port: bounded by construction, like the hardware's.
//
// Set-associative: an address may sit in one of the four places of its set; a fifth station of a set displaces the one
// heard longest ago. A flood of invented addresses can so cost flooding, never memory and never more than four compares.

import Wire

/// A bounded MAC address table with ageing.
struct ForwardingTable: Sendable {
    static let ways = 4

    struct Entry: Sendable {
        var address = MACAddress.unspecified
        var port = SwitchPort(rawValue: 0)
        /// When a frame from the station was last seen. An entry that was never used is older than any age.
        var heard: MonotonicTime?
    }

    private var entries: [Entry]
    private let mask: Int
    let ageing: Duration

    /// - Parameters:
    ///   - sets: a power of two; the table holds four stations a set.
    ///   - ageing: how long a silent station is remembered.
    init(sets: Int, ageing: Duration) {
        precondition(sets > 0 && sets.nonzeroBitCount == 1, "the number of sets is a power of two")
        entries = Array(repeating: Entry(), count: sets * Self.ways)
        mask = sets - 1
        self.ageing = ageing
    }

    private func firstWay(of address: MACAddress) -> Int {
        // Fibonacci hashing: neighbours in an assigned block fall into different sets.
        let hash = address.rawValue &* 0x9E37_79B9_7F4A_7C15
        return (Int(truncatingIfNeeded: hash &>> 40) & mask) &* Self.ways
    }

    /// The port behind which `address` was heard within the ageing time.
    func port(of address: MACAddress, at now: MonotonicTime) -> SwitchPort? {
        let first = firstWay(of: address)
        for index in first..<first &+ Self.ways where entries[index].address == address {
            guard let heard = entries[index].heard, now.since(heard) <= ageing else { return nil }
            return entries[index].port
        }
        return nil
    }

    /// Remembers that `address` was heard on `port`. Returns true when the station is new or has moved.
    @discardableResult
    mutating func learn(_ address: MACAddress, on port: SwitchPort, at now: MonotonicTime) -> Bool {
        let first = firstWay(of: address)
        var oldest = first
        for index in first..<first &+ Self.ways {
            guard let heard = entries[index].heard else {
                oldest = index
                continue
            }
            if entries[index].address == address {
                let moved = entries[index].port != port || now.since(heard) > ageing
                entries[index].port = port
                entries[index].heard = now
                return moved
            }
            if let best = entries[oldest].heard, heard < best { oldest = index }
        }
        entries[oldest] = Entry(address: address, port: port, heard: now)
        return true
    }

    /// Forgets every station behind `port`: its link went down.
    mutating func forget(_ port: SwitchPort) {
        for index in entries.indices where entries[index].port == port { entries[index].heard = nil }
    }

    /// The stations heard within the ageing time, in address order.
    func stations(at now: MonotonicTime) -> [(address: MACAddress, port: SwitchPort)] {
        entries.filter { entry in entry.heard.map { now.since($0) <= ageing } ?? false }
            .map { ($0.address, $0.port) }
            .sorted { $0.address.rawValue < $1.address.rawValue }
    }
}
