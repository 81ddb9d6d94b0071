internal import Crypto
internal import Trust
internal import Synchronization

/// What the verifier saw: a digest of every 4 KiB page that passed while the firmware was verified.
///
/// The gate compares every page with it before host, BMC or a card get a byte: what they execute is what was verified,
/// however the chip's content changes in between. SHA-256, because processors have instructions for it: at 1.7 GB/s it
/// costs a verification by SHA-384 at 0.86 GB/s little.
public final class PageDigests: Sendable {
    public static let pageSize = Int(WholePages.pageSize)

    /// How a page's bytes compare with what was verified.
    enum Comparison: Sendable { case same, different, neverSeen }

    private struct State {
        /// Grows with every `clear`; what an older reading still brings is dropped.
        var epoch: UInt64 = 0
        var digests: [SHA256Digest?] = []
        /// Pages that read differently in one verification.
        var changed: Set<Int> = []
    }
    private let state = Mutex(State())

    public init() {}

    /// Forgets everything: a new verification begins.
    func clear() {
        state.withLock { state in
            state.epoch &+= 1
            state.digests = []
            state.changed = []
        }
    }

    var epoch: UInt64 { state.withLock { $0.epoch } }
    /// Pages with a digest.
    public var count: Int { state.withLock { $0.digests.count { $0 != nil } } }

    /// Notes a page's digest. A page that reads differently than before in the same verification is never the same
    /// again: which of its contents was verified, nobody knows.
    fileprivate func record(page: Int, _ digest: SHA256Digest, epoch: UInt64) {
        state.withLock { state in
            guard epoch == state.epoch else { return }
            if page >= state.digests.count {
                state.digests.append(contentsOf: repeatElement(nil, count: page + 1 - state.digests.count))
            }
            if let known = state.digests[page], known != digest {
                state.changed.insert(page)
            } else {
                state.digests[page] = digest
            }
        }
    }

    func compare(page: Int, _ digest: SHA256Digest?) -> Comparison {
        state.withLock { state in
            guard page < state.digests.count, let known = state.digests[page] else { return .neverSeen }
            return known == digest && !state.changed.contains(page) ? .same : .different
        }
    }
}

/// Digests the whole pages of one reading as its bytes pass. One thread at a time.
final class PageRecorder {
    private let digests: PageDigests
    private var hash: RepeatedSHA256
    private var epoch: UInt64 = 0
    private var page = 0
    /// Bytes of the current page that have passed, or that still have to pass before a page begins (negative).
    private var filled = 0

    init(_ digests: PageDigests) throws(CryptoError) {
        self.digests = digests
        hash = try RepeatedSHA256()
    }

    /// The next bytes are those of the chip from `address` on.
    func begin(_ address: UInt64) {
        let within = Int(address % UInt64(PageDigests.pageSize))
        page = Int(address / UInt64(PageDigests.pageSize)) + (within == 0 ? 0 : 1)
        filled = within == 0 ? 0 : within - PageDigests.pageSize
        epoch = digests.epoch
        hash.reset()
    }

    func take(_ piece: RawSpan) {
        var start = 0
        if filled < 0 {
            start = min(-filled, piece.byteCount)
            filled += start
        }
        while start < piece.byteCount {
            let count = min(PageDigests.pageSize - filled, piece.byteCount - start)
            hash.update(piece.extracting(start..<start + count))
            start += count
            filled += count
            guard filled == PageDigests.pageSize else { continue }
            if let digest = hash.next() { digests.record(page: page, digest, epoch: epoch) }
            page += 1
            filled = 0
        }
    }

    /// The digest of one page's bytes, recorded nowhere.
    func digest(_ page: RawSpan) -> SHA256Digest? {
        hash.update(page)
        return hash.next()
    }
}
