internal import Synchronization

/// Which pages of the client's memory the device has written: DMA logging.
///
/// Pages of 4 KiB in leaves of 32768, made when a page of theirs is first written: what it costs grows with what the
/// device writes, not with the ranges that a client names. A device that writes to more than `maximumLeaves` of them
/// (256 GiB of addresses) has everything reported as written: correct, and dear only to that client.
///
/// Spec: <linux/vfio.h> VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _REPORT.
@usableFromInline final class DirtyLog: Sendable {
    static let pageShift: UInt64 = 12
    static let pageSize: UInt64 = 1 << pageShift
    private static let leafShift: UInt64 = 15
    static let maximumLeaves = 2048

    private struct State {
        var leaves: [UInt64: [UInt64]] = [:]
        var isEverything = false
    }

    /// What is logged, sorted; none is everything.
    private let ranges: [ClosedRange<UInt64>]
    private let state = Mutex(State())

    /// Precondition: the ranges do not overlap.
    init(ranges: [ClosedRange<UInt64>]) { self.ranges = ranges.sorted { $0.lowerBound < $1.lowerBound } }

    private func isLogged(_ first: UInt64, _ last: UInt64) -> Bool {
        if ranges.isEmpty { return true }
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < first { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].lowerBound <= last
    }

    /// Records that bytes were written. Precondition: count > 0.
    func mark(_ address: UInt64, _ count: UInt64) {
        let last = address.addingReportingOverflow(count - 1)
        let end = last.overflow ? .max : last.partialValue
        guard isLogged(address, end) else { return }
        state.withLock { state in
            guard !state.isEverything else { return }
            var page = address >> Self.pageShift
            while page <= end >> Self.pageShift {
                let leaf = page >> Self.leafShift
                if state.leaves[leaf] == nil {
                    guard state.leaves.count < Self.maximumLeaves else {
                        state.isEverything = true
                        state.leaves = [:]
                        return
                    }
                    state.leaves[leaf] = [UInt64](repeating: 0, count: 1 << (Int(Self.leafShift) - 6))
                }
                let inside = page & ((1 << Self.leafShift) - 1)
                state.leaves[leaf]![Int(inside >> 6)] |= 1 << (inside & 63)
                page += 1
            }
        }
    }

    /// Reports, and forgets where whole pages lie in the range, what was written in `length` bytes at `address`: calls `body` with the number of each
    /// page of `1 << shift` bytes, counted from the range's first. Ranges that nobody logs report nothing.
    ///
    /// Precondition: the range is not empty and does not wrap; shift is 63 or less.
    func take(address: UInt64, length: UInt64, shift: UInt64, _ body: (UInt64) -> Void) {
        let last = address + (length - 1)
        state.withLock { state in
            if state.isEverything {
                // From here on every page counts as written: they cannot be forgotten one by one.
                for page in 0...((length - 1) >> shift) { body(page) }
                return
            }
            let (firstPage, lastPage) = (address >> Self.pageShift, last >> Self.pageShift)
            for leaf in state.leaves.keys.sorted() {
                guard leaf >= firstPage >> Self.leafShift, leaf <= lastPage >> Self.leafShift else { continue }
                var words = state.leaves[leaf]!
                for word in words.indices where words[word] != 0 {
                    for bit in 0..<UInt64(64) where words[word] & (1 << bit) != 0 {
                        let page = leaf << Self.leafShift | UInt64(word) << 6 | bit
                        guard page >= firstPage, page <= lastPage else { continue }
                        // A page that is only partly in the range stays written: another report may ask for the rest.
                        if page << Self.pageShift >= address, page << Self.pageShift | (Self.pageSize - 1) <= last {
                            words[word] &= ~(1 << bit)
                        }
                        // A page of the client's size may be smaller than one of the log's: then all of them count.
                        let start = max(page << Self.pageShift, address)
                        let end = min(page << Self.pageShift | (Self.pageSize - 1), last)
                        for number in ((start - address) >> shift)...((end - address) >> shift) { body(number) }
                    }
                }
                state.leaves[leaf] = words.allSatisfy({ $0 == 0 }) ? nil : words
            }
        }
    }
}
