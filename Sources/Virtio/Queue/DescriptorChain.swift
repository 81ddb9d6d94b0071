public import VFIOUser

/// One piece of a request: a range of the driver's memory.
public struct ChainSegment: Hashable, Sendable {
    public var address: IOVirtualAddress
    /// More than zero, and address + length does not wrap.
    public var length: Int

    @inlinable
    init(address: UInt64, length: UInt32) {
        self.address = IOVirtualAddress(address)
        self.length = Int(length)
    }
}

/// A request of the driver: segments that the device reads, then segments that it writes.
///
/// The segments' storage belongs to the queue and is used again for the next chain.
public struct DescriptorChain: Sendable {
    /// What `complete` needs to give a chain back.
    public struct Token: Hashable, Sendable {
        /// The head's index (split) or the buffer's identifier (packed).
        @usableFromInline let identifier: UInt16
        /// Places that the chain takes in a packed ring.
        @usableFromInline let places: UInt16

        @inlinable
        init(identifier: UInt16, places: UInt16) {
            self.identifier = identifier
            self.places = places
        }
    }

    /// More than any driver builds (Linux: 1024 for a network device's), little enough for one request's work.
    public static let maximumSegments = 1024

    public internal(set) var token = Token(identifier: 0, places: 0)
    /// Readable ones first.
    public internal(set) var segments: [ChainSegment] = []
    public internal(set) var readableSegments = 0
    public internal(set) var readableBytes = 0
    public internal(set) var writableBytes = 0

    init() { segments.reserveCapacity(64) }

    mutating func begin() {
        segments.removeAll(keepingCapacity: true)
        readableSegments = 0
        readableBytes = 0
        writableBytes = 0
    }

    /// Adds one descriptor's range. Descriptors of no length are allowed and hold nothing.
    @inline(__always)
    mutating func add(address: UInt64, length: UInt32, isWritable: Bool) throws(RingFault) {
        if !isWritable, writableBytes > 0 { throw .writableBeforeReadable }
        guard length > 0 else { return }
        guard !address.addingReportingOverflow(UInt64(length) - 1).overflow else { throw .lengthWraps }
        guard segments.count < Self.maximumSegments else { throw .chainTooLong(Self.maximumSegments) }
        segments.append(ChainSegment(address: address, length: length))
        if isWritable {
            writableBytes &+= Int(length)
        } else {
            readableSegments &+= 1
            readableBytes &+= Int(length)
        }
        guard readableBytes &+ writableBytes <= Int(UInt32.max) else { throw .lengthWraps }
    }

    // MARK: Bytes

    /// Copies readable bytes from `offset` on into a buffer. Precondition: there are so many.
    public func read(
        at offset: Int, into buffer: UnsafeMutableRawBufferPointer, _ memory: inout HeldMemory
    ) throws(RingFault) {
        precondition(offset >= 0 && buffer.count <= readableBytes - offset, "beyond the chain's readable bytes")
        try forEachPiece(0..<readableSegments, offset, buffer.count) { (address, done, count) throws(RingFault) in
            // Safety: the pieces' counts add up to the buffer's.
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done &+ count])
            do throws(DMAError) { unsafe try memory.read(at: address, into: part) } catch { throw .memory(error) }
        }
    }

    /// Copies a buffer to the writable bytes from `offset` on. Precondition: there are so many.
    public func write(
        at offset: Int, from buffer: UnsafeRawBufferPointer, _ memory: inout HeldMemory
    ) throws(RingFault) {
        precondition(offset >= 0 && buffer.count <= writableBytes - offset, "beyond the chain's writable bytes")
        try forEachPiece(readableSegments..<segments.count, offset, buffer.count) {
            (address, done, count) throws(RingFault) in
            // Safety: the pieces' counts add up to the buffer's.
            let part = unsafe UnsafeRawBufferPointer(rebasing: buffer[done..<done &+ count])
            do throws(DMAError) { unsafe try memory.write(part, at: address) } catch { throw .memory(error) }
        }
    }

    /// Copies bytes to the writable ones from `offset` on. Precondition: there are so many.
    public func write(_ bytes: RawSpan, at offset: Int, _ memory: inout HeldMemory) throws(RingFault) {
        // Safety: the pointer is used only inside the call.
        try unsafe bytes.withUnsafeBytes { (raw) throws(RingFault) in
            unsafe try write(at: offset, from: raw, &memory)
        }
    }

    /// Calls `body` with each piece of the readable bytes in a range: its address, where it begins in the range, its
    /// length. Precondition: the chain has these bytes.
    public func forEachReadable<Failure: Error>(
        _ range: Range<Int>, _ body: (IOVirtualAddress, Int, Int) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(range.lowerBound >= 0 && range.upperBound <= readableBytes, "beyond the chain's readable bytes")
        try forEachPiece(0..<readableSegments, range.lowerBound, range.count, body)
    }

    /// As `forEachReadable`, of the writable bytes.
    public func forEachWritable<Failure: Error>(
        _ range: Range<Int>, _ body: (IOVirtualAddress, Int, Int) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(range.lowerBound >= 0 && range.upperBound <= writableBytes, "beyond the chain's writable bytes")
        try forEachPiece(readableSegments..<segments.count, range.lowerBound, range.count, body)
    }

    @inline(__always)
    private func forEachPiece<Failure: Error>(
        _ places: Range<Int>, _ offset: Int, _ count: Int,
        _ body: (IOVirtualAddress, Int, Int) throws(Failure) -> Void
    ) throws(Failure) {
        var skip = offset
        var done = 0
        for place in places {
            guard done < count else { return }
            let segment = segments[place]
            guard skip < segment.length else {
                skip &-= segment.length
                continue
            }
            let length = min(segment.length &- skip, count &- done)
            try body(IOVirtualAddress(segment.address.rawValue &+ UInt64(skip)), done, length)
            done &+= length
            skip = 0
        }
    }
}
