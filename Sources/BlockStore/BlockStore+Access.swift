internal import Glibc
internal import Wire

// Accesses. A vector of pieces is read or written by one system call where the kernel takes it whole.
extension BlockStore {
    /// Fills a buffer from `offset` on.
    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(BlockFailure) {
        var piece = unsafe iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
        try unsafe withUnsafeMutablePointer(to: &piece) { (pointer) throws(BlockFailure) in
            // Safety: one piece, the caller's buffer.
            try unsafe read(at: offset, count: buffer.count, into: pointer, pieces: 1)
        }
    }

    /// Writes a buffer at `offset`. It lasts after a `flush`.
    public func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(BlockFailure) {
        var piece = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count)
        try unsafe withUnsafeMutablePointer(to: &piece) { (pointer) throws(BlockFailure) in
            // Safety: one piece, the caller's buffer, only read from.
            try unsafe write(at: offset, count: buffer.count, from: pointer, pieces: 1)
        }
    }

    /// Makes everything written so far last (fdatasync).
    public func flush() throws(BlockFailure) {
        try counted(.flush, 0) { () throws(BlockFailure) in
            if faults.verdict(.flush, 0, 0) != nil { throw .media }
            guard !isReadOnly else { return }
            while Glibc.fdatasync(descriptor.rawValue) != 0 {
                guard Glibc.errno == EINTR else { throw Self.failure(Glibc.errno) }
            }
        }
    }

    /// Says that a range's content does not matter any more; it reads as zeroes afterwards where the file can do that,
    /// else as before.
    public func discard(at offset: UInt64, count: UInt64) throws(BlockFailure) {
        try counted(.discard, count) { () throws(BlockFailure) in
            try check(offset, count, writing: true)
            if faults.verdict(.discard, offset, count) != nil { throw .media }
            if count > 0, !allocate(Self.punchHole, offset, count), Glibc.errno != EOPNOTSUPP {
                throw Self.failure(Glibc.errno)
            }
        }
    }

    /// Makes a range zero. `mayDiscard`: its space may be given back.
    public func writeZeroes(at offset: UInt64, count: UInt64, mayDiscard: Bool) throws(BlockFailure) {
        try counted(.write, count) { () throws(BlockFailure) in
            try check(offset, count, writing: true)
            var count = count
            var isTorn = false
            switch faults.verdict(.write, offset, count) {
            case .error: throw .media
            case .torn(let isReported):
                count = half(count)
                isTorn = isReported
            default: break
            }
            if count > 0, !(mayDiscard && allocate(Self.punchHole, offset, count)),
                !allocate(Self.zeroRange, offset, count)
            {
                try fillWithZeroes(offset, count)
            }
            if isTorn { throw .media }
        }
    }

    // MARK: Pieces

    /// Reads `count` bytes into pieces that hold as many in all; the pieces are used up.
    ///
    /// Safety: each piece is memory that may be written for as long as the call lasts.
    func read(
        at offset: UInt64, count: Int, into pieces: UnsafeMutablePointer<iovec>, pieces number: Int
    ) throws(BlockFailure) {
        try counted(.read, UInt64(count)) { () throws(BlockFailure) in
            try check(offset, UInt64(count), writing: false)
            if faults.verdict(.read, offset, UInt64(count)) != nil { throw .media }
            if let mapping, mapping.contains(offset: offset, count: UInt64(count)) {
                try unsafe copy(mapping, offset, count, pieces, number)
            } else {
                try unsafe move(offset, count, pieces, number) { unsafe preadv($0, $1, $2, $3) }
            }
        }
    }

    /// Writes `count` bytes from pieces that hold as many in all; the pieces are used up.
    ///
    /// Safety: each piece is memory that may be read for as long as the call lasts.
    func write(
        at offset: UInt64, count: Int, from pieces: UnsafeMutablePointer<iovec>, pieces number: Int
    ) throws(BlockFailure) {
        try counted(.write, UInt64(count)) { () throws(BlockFailure) in
            try check(offset, UInt64(count), writing: true)
            var count = count
            var isTorn = false
            switch faults.verdict(.write, offset, UInt64(count)) {
            case .error: throw .media
            case .torn(let isReported):
                count = Int(half(UInt64(count)))
                isTorn = isReported
            default: break
            }
            try unsafe move(offset, count, pieces, number) { unsafe pwritev($0, $1, $2, $3) }
            if isTorn { throw .media }
        }
    }

    /// Copies `count` bytes out of the mapping.
    private func copy(
        _ mapping: MappedMemory, _ offset: UInt64, _ count: Int, _ pieces: UnsafeMutablePointer<iovec>, _ number: Int
    ) throws(BlockFailure) {
        var done = 0
        for index in 0..<number {
            // Safety: index < number.
            let piece = unsafe pieces[index]
            let part = min(unsafe piece.iov_len, count - done)
            guard
                unsafe mapping.copyGuarded(
                    from: offset + UInt64(done),
                    to: UnsafeMutableRawBufferPointer(start: piece.iov_base, count: part))
            else { throw .media }
            done += part
        }
    }

    /// Moves `count` bytes by as many system calls as it takes.
    private func move(
        _ offset: UInt64, _ count: Int, _ pieces: UnsafeMutablePointer<iovec>, _ number: Int,
        _ call: (Int32, UnsafePointer<iovec>, Int32, off_t) -> Int
    ) throws(BlockFailure) {
        var done = 0
        var first = 0
        while done < count {
            var last = first
            var offered = 0
            // Pieces for this call: at most what is left of `count` (a torn write stops inside a piece).
            var cut: Int?
            while last < number, last - first < Self.maximumPieces, offered < count - done {
                let length = unsafe pieces[last].iov_len
                let wanted = min(length, count - done - offered)
                if wanted < length {
                    cut = length
                    unsafe pieces[last].iov_len = wanted
                }
                offered += wanted
                last += 1
            }
            // Safety: first < last ≤ number; the range was checked against the size, so the offset fits.
            let moved = unsafe call(
                descriptor.rawValue, pieces + first, Int32(last - first), off_t(truncatingIfNeeded: offset) + done)
            if let cut { unsafe pieces[last - 1].iov_len = cut }
            if moved < 0 {
                if Glibc.errno == EINTR { continue }
                throw Self.failure(Glibc.errno)
            }
            // The file became shorter.
            guard moved > 0 else { throw .media }
            done += moved
            guard done < count else { return }
            var rest = moved
            while rest > 0 {
                let length = unsafe pieces[first].iov_len
                if rest < length {
                    unsafe pieces[first].iov_base = unsafe pieces[first].iov_base! + rest
                    unsafe pieces[first].iov_len = length - rest
                    break
                }
                rest -= length
                first += 1
            }
        }
    }

    /// What the kernel takes in one call (IOV_MAX).
    private static let maximumPieces = 1024

    // MARK: Parts

    private func check(_ offset: UInt64, _ count: UInt64, writing: Bool) throws(BlockFailure) {
        guard contains(offset: offset, count: count) else { throw .outOfRange }
        guard !writing || !isReadOnly else { throw .readOnly }
    }

    private func counted(
        _ operation: BlockFault.Operation, _ bytes: UInt64, _ body: () throws(BlockFailure) -> Void
    ) throws(BlockFailure) {
        do throws(BlockFailure) {
            try body()
            statistics.count(operation, bytes: bytes)
        } catch {
            statistics.countFailure()
            throw error
        }
    }

    /// Half of a range, in whole blocks.
    private func half(_ count: UInt64) -> UInt64 { count / UInt64(blockSize) / 2 * UInt64(blockSize) }

    private static func failure(_ code: Int32) -> BlockFailure {
        switch code {
        case ENOSPC, EDQUOT: .noSpace
        case EROFS, EPERM: .readOnly
        default: .media
        }
    }

    // FALLOC_FL_KEEP_SIZE with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE. Spec: fallocate(2).
    private static let punchHole: Int32 = 0x03
    private static let zeroRange: Int32 = 0x11

    private func allocate(_ mode: Int32, _ offset: UInt64, _ count: UInt64) -> Bool {
        while fallocate(
            descriptor.rawValue, mode, off_t(truncatingIfNeeded: offset), off_t(truncatingIfNeeded: count)) != 0
        {
            guard Glibc.errno == EINTR else { return false }
        }
        return true
    }

    private func fillWithZeroes(_ offset: UInt64, _ count: UInt64) throws(BlockFailure) {
        var done: UInt64 = 0
        while done < count {
            let part = Int(min(count - done, UInt64(Self.zeroes.count)))
            let place = off_t(truncatingIfNeeded: offset + done)
            // Safety: part ≤ the array's count.
            let written = unsafe Self.zeroes.withUnsafeBytes {
                unsafe pwrite(descriptor.rawValue, $0.baseAddress!, part, place)
            }
            if written < 0 {
                if Glibc.errno == EINTR { continue }
                throw Self.failure(Glibc.errno)
            }
            guard written > 0 else { throw .media }
            done += UInt64(written)
        }
    }
}
