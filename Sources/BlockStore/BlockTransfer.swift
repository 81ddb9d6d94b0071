internal import Glibc
public import VFIOUser

/// One access of a store by a device: where its data lies in the guest's memory, and the way there.
///
/// A device's I/O thread keeps one and uses it again for each command: `begin`, `add` for each piece, then `read`,
/// `write` or `compare`. Pieces that touch are joined. Data goes straight between the file and the guest's memory where
/// that is mapped; else, and to compare, through a buffer of its own. Nothing is allocated after the first use of that
/// buffer. Not for two threads at once.
@safe public final class BlockTransfer {
    private struct Piece {
        var address: UInt64
        var count: Int
    }

    private let maximumPieces: Int
    // Safety: allocated in init, freed in deinit; `maximumPieces` of each, the first `number` of `pieces` initialised.
    private let pieces: UnsafeMutablePointer<Piece>
    private let vectors: UnsafeMutablePointer<iovec>
    private var number = 0
    private var total = 0
    private var buffer: UnsafeMutableRawBufferPointer?

    /// The buffer for memory that is not mapped: a longer access goes in parts.
    private static let bufferSize = 128 << 10

    /// `maximumPieces`: the most that a device's command can have.
    public init(maximumPieces: Int) {
        precondition(maximumPieces > 0, "a transfer has room for a piece")
        self.maximumPieces = maximumPieces
        unsafe pieces = .allocate(capacity: maximumPieces)
        unsafe vectors = .allocate(capacity: maximumPieces)
    }

    deinit {
        unsafe pieces.deallocate()
        unsafe vectors.deallocate()
        unsafe buffer?.deallocate()
    }

    /// Forgets the pieces of the last access.
    public func begin() {
        number = 0
        total = 0
    }

    /// The bytes of the pieces so far.
    public var byteCount: Int { total }

    /// Adds a piece of guest memory. False when there are too many, or it wraps around the address space.
    public func add(_ address: UInt64, count: Int) -> Bool {
        guard count > 0 else { return count == 0 }
        let (sum, tooLong) = total.addingReportingOverflow(count)
        guard !tooLong, !address.addingReportingOverflow(UInt64(count - 1)).overflow else { return false }
        // Safety: number ≤ maximumPieces, and the first `number` are initialised.
        if number > 0, unsafe pieces[number - 1].address &+ UInt64(pieces[number - 1].count) == address {
            unsafe pieces[number - 1].count += count
        } else {
            guard number < maximumPieces else { return false }
            unsafe (pieces + number).initialize(to: Piece(address: address, count: count))
            number += 1
        }
        total = sum
        return true
    }

    /// Reads the store from `offset` on into the pieces.
    public func read(_ store: BlockStore, at offset: UInt64, _ dma: DMAAddressSpace) throws(BlockFailure) {
        let isDone = try unsafe direct(dma, writing: true) { (vectors) throws(BlockFailure) in
            try unsafe store.read(at: offset, count: total, into: vectors, pieces: number)
        }
        if isDone { return }
        try unsafe byParts { (place, part, buffer) throws(BlockFailure) in
            try unsafe store.read(at: offset.saturating(plus: UInt64(place)), into: buffer)
            try unsafe copy(place, part, buffer, dma, toGuest: true)
        }
    }

    /// Writes the pieces to the store at `offset`.
    public func write(_ store: BlockStore, at offset: UInt64, _ dma: DMAAddressSpace) throws(BlockFailure) {
        let isDone = try unsafe direct(dma, writing: false) { (vectors) throws(BlockFailure) in
            try unsafe store.write(at: offset, count: total, from: vectors, pieces: number)
        }
        if isDone { return }
        try unsafe byParts { (place, part, buffer) throws(BlockFailure) in
            try unsafe copy(place, part, buffer, dma, toGuest: false)
            try unsafe store.write(at: offset.saturating(plus: UInt64(place)), from: UnsafeRawBufferPointer(buffer))
        }
    }

    /// Compares the pieces with the store at `offset`; `mismatch` where they differ.
    public func compare(_ store: BlockStore, at offset: UInt64, _ dma: DMAAddressSpace) throws(BlockFailure) {
        try unsafe byParts(inHalves: true) { (place, part, buffer) throws(BlockFailure) in
            // Safety: the buffer holds 2 × part bytes.
            let theirs = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<part])
            let ours = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[part..<2 * part])
            try unsafe store.read(at: offset.saturating(plus: UInt64(place)), into: ours)
            try unsafe copy(place, part, theirs, dma, toGuest: false)
            guard unsafe memcmp(theirs.baseAddress!, ours.baseAddress!, part) == 0 else { throw .mismatch }
        }
    }

    /// Copies a buffer of `byteCount` bytes to the pieces.
    public func scatter(_ bytes: UnsafeRawBufferPointer, _ dma: DMAAddressSpace) throws(BlockFailure) {
        precondition(bytes.count == total, "the buffer is as long as the pieces together")
        // Safety: only read from.
        try unsafe copy(0, total, UnsafeMutableRawBufferPointer(mutating: bytes), dma, toGuest: true)
    }

    /// Copies the pieces to a buffer of `byteCount` bytes.
    public func gather(_ bytes: UnsafeMutableRawBufferPointer, _ dma: DMAAddressSpace) throws(BlockFailure) {
        precondition(bytes.count == total, "the buffer is as long as the pieces together")
        try unsafe copy(0, total, bytes, dma, toGuest: false)
    }

    // MARK: Straight

    /// Calls `body` with the pieces as memory of this process, `writing` it or only reading. False, and not called, where
    /// one of them is not mapped so.
    private func direct(
        _ dma: DMAAddressSpace, writing: Bool, _ body: (UnsafeMutablePointer<iovec>) throws(BlockFailure) -> Void
    ) throws(BlockFailure) -> Bool {
        try dma.hold { (memory) throws(BlockFailure) in
            for index in 0..<number {
                // Safety: index < number ≤ maximumPieces; the memory stays mapped while it is held.
                let piece = unsafe pieces[index]
                guard
                    let bytes = unsafe memory.pointer(
                        at: IOVirtualAddress(piece.address), count: piece.count, writing: writing)
                else { return false }
                unsafe (vectors + index).initialize(to: iovec(iov_base: bytes.baseAddress, iov_len: bytes.count))
            }
            try unsafe body(vectors)
            return true
        }
    }

    // MARK: By way of the buffer

    /// Calls `body` with parts of the access and a buffer of as many bytes (twice as many, `inHalves`).
    private func byParts(
        inHalves: Bool = false,
        _ body: (_ place: Int, _ count: Int, _ buffer: UnsafeMutableRawBufferPointer) throws(BlockFailure) -> Void
    ) throws(BlockFailure) {
        if unsafe buffer == nil { unsafe buffer = .allocate(byteCount: Self.bufferSize, alignment: 4096) }
        guard let buffer = unsafe buffer else { return }
        var place = 0
        while place < total {
            let part = min(total - place, inHalves ? Self.bufferSize / 2 : Self.bufferSize)
            let used = inHalves ? 2 * part : part
            try unsafe body(place, part, UnsafeMutableRawBufferPointer(rebasing: buffer[..<used]))
            place += part
        }
    }

    /// Copies between a buffer and `count` bytes of the pieces from the `start`th on.
    private func copy(
        _ start: Int, _ count: Int, _ buffer: UnsafeMutableRawBufferPointer, _ dma: DMAAddressSpace, toGuest: Bool
    ) throws(BlockFailure) {
        var skip = start
        var done = 0
        var index = 0
        while done < count, index < number {
            // Safety: index < number.
            let piece = unsafe pieces[index]
            index += 1
            guard skip < piece.count else {
                skip -= piece.count
                continue
            }
            let part = min(piece.count - skip, count - done)
            let address = IOVirtualAddress(piece.address &+ UInt64(skip))
            skip = 0
            // Safety: done + part ≤ count ≤ buffer.count.
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + part])
            do throws(DMAError) {
                if toGuest {
                    try dma.write(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(room)), at: address)
                } else {
                    var span = unsafe MutableRawSpan(_unsafeBytes: room)
                    try dma.read(at: address, into: &span)
                }
            } catch {
                throw .memory
            }
            done += part
        }
    }
}
