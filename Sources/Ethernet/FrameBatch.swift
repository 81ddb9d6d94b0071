// Frames on their way out, already in the stream framing, so that one system call sends them all.
//
// A batch is filled frame by frame (whole frames from a receive buffer, or built in place field by field by a protocol
// responder) and drained by its port. What a port could not send stays at the front: a stream that has seen half a
// frame must see the other half.

/// A bounded queue of frames in the wire format of QEMU's `-netdev stream`: each behind its 32-bit big-endian length.
///
/// Not thread safe; one owner fills and drains it.
public struct FrameBatch: Sendable {
    /// The framing's overhead for one frame.
    public static let prefixLength = 4

    @usableFromInline var storage: [UInt8]
    /// Index of the first byte that is not sent yet.
    @usableFromInline var head = 0
    /// Index of the length prefix of the frame being built, or -1.
    @usableFromInline var open = -1
    /// The most bytes that may wait, prefixes included.
    public let capacity: Int

    /// - Parameter capacity: at least one frame of maximum length. 256 KiB is the default: more than a Unix socket's
    ///   own default buffer (208 KiB), so that a batch fills the socket and is not what limits it.
    public init(capacity: Int = 256 << 10) {
        precondition(
            capacity >= EthernetFrame.maximumLength + Self.prefixLength, "a batch must hold at least one frame")
        self.capacity = capacity
        storage = []
        storage.reserveCapacity(min(capacity, 64 << 10))
    }

    @inlinable
    public var isEmpty: Bool { head == storage.count }

    /// Bytes that wait to be sent.
    @inlinable
    public var byteCount: Int { storage.count &- head }

    /// The waiting bytes, prefixes included.
    @inlinable
    public func withUnsentBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        // Safety: the pointer is the array's own and does not outlive the closure; head never exceeds the count.
        unsafe storage.withUnsafeBytes { unsafe body(UnsafeRawBufferPointer(rebasing: $0[head...])) }
    }

    /// Forgets `count` bytes at the front: they were sent.
    @inlinable
    public mutating func consume(_ count: Int) {
        precondition(count >= 0 && count <= byteCount, "consumed more than waits")
        head &+= count
        if head == storage.count {
            storage.removeAll(keepingCapacity: true)
            head = 0
        }
    }

    /// Forgets everything: the peer is gone.
    public mutating func removeAll() {
        storage.removeAll(keepingCapacity: true)
        head = 0
        open = -1
    }

    /// Adds one whole frame; false (and unchanged) when it does not fit.
    @inlinable
    public mutating func append(_ frame: Span<UInt8>) -> Bool {
        precondition(open < 0, "a frame is being built")
        let needed = Self.prefixLength &+ frame.count
        guard frame.count > 0, frame.count <= EthernetFrame.maximumLength, makeRoom(needed) else { return false }
        appendPrefix(UInt32(truncatingIfNeeded: frame.count))
        // Safety: the span's bytes are only read, within the closure, and the array copies them.
        unsafe frame.withUnsafeBytes { unsafe storage.append(contentsOf: $0) }
        return true
    }

    /// Adds frames that already have their prefixes (a run of whole frames out of a receive buffer); false (and
    /// unchanged) when they do not all fit.
    @inlinable
    public mutating func append(framed frames: Span<UInt8>) -> Bool {
        precondition(open < 0, "a frame is being built")
        guard makeRoom(frames.count) else { return false }
        // Safety: as in append(_:).
        unsafe frames.withUnsafeBytes { unsafe storage.append(contentsOf: $0) }
        return true
    }

    @usableFromInline
    mutating func makeRoom(_ needed: Int) -> Bool {
        guard byteCount &+ needed <= capacity else { return false }
        if head > 0, storage.count &+ needed > capacity {
            storage.removeSubrange(0..<head)
            head = 0
        }
        return true
    }

    @usableFromInline
    mutating func appendPrefix(_ length: UInt32) {
        appendNetwork(length)
    }
}

// Building a frame in place. Offsets count from the frame's first byte (its destination address).
extension FrameBatch {
    /// Starts a frame with its header. False when a frame of maximum length might not fit any more.
    public mutating func beginFrame(_ header: EthernetHeader) -> Bool {
        precondition(open < 0, "a frame is being built")
        guard makeRoom(Self.prefixLength + EthernetFrame.maximumLength) else { return false }
        open = storage.count
        appendPrefix(0)
        append(header.destination)
        append(header.source)
        appendNetwork(header.etherType.rawValue)
        return true
    }

    /// Bytes of the frame being built so far.
    public var frameLength: Int {
        precondition(open >= 0, "no frame is being built")
        return storage.count - open - Self.prefixLength
    }

    /// The bytes `range` of the frame being built.
    public func withFrameBytes<Result>(_ range: Range<Int>, _ body: (Span<UInt8>) -> Result) -> Result {
        precondition(open >= 0 && range.upperBound <= frameLength, "outside the frame being built")
        let start = open + Self.prefixLength
        return body(storage.span.extracting(start + range.lowerBound..<start + range.upperBound))
    }

    public mutating func append(_ byte: UInt8) { storage.append(byte) }

    @inlinable
    public mutating func appendNetwork(_ value: UInt16) {
        storage.append(UInt8(truncatingIfNeeded: value &>> 8))
        storage.append(UInt8(truncatingIfNeeded: value))
    }

    @inlinable
    public mutating func appendNetwork(_ value: UInt32) {
        appendNetwork(UInt16(truncatingIfNeeded: value &>> 16))
        appendNetwork(UInt16(truncatingIfNeeded: value))
    }

    public mutating func append(_ address: MACAddress) {
        for index in 0..<6 { storage.append(address[index]) }
    }

    /// Adds payload bytes to the frame being built.
    public mutating func append(bytes: Span<UInt8>) {
        precondition(open >= 0, "no frame is being built")
        // Safety: as in append(_:).
        unsafe bytes.withUnsafeBytes { unsafe storage.append(contentsOf: $0) }
    }

    /// Overwrites two bytes of the frame being built: a checksum or length known only now.
    public mutating func patchNetwork(_ value: UInt16, at offset: Int) {
        precondition(open >= 0 && offset >= 0 && offset + 2 <= frameLength, "outside the frame being built")
        let index = open + Self.prefixLength + offset
        storage[index] = UInt8(truncatingIfNeeded: value >> 8)
        storage[index + 1] = UInt8(truncatingIfNeeded: value)
    }

    /// Ends the frame: its length goes into the prefix.
    public mutating func endFrame() {
        let length = UInt32(truncatingIfNeeded: frameLength)
        precondition(frameLength <= EthernetFrame.maximumLength, "a responder built a frame beyond the maximum")
        for byte in 0..<4 {
            storage[open + byte] = UInt8(truncatingIfNeeded: length >> UInt32(24 - 8 * byte))
        }
        open = -1
    }

    /// Calls `body` with each waiting frame, in order. Only meaningful while the front is a whole frame.
    public func forEachFrame(_ body: (Span<UInt8>) -> Void) {
        var index = head
        while storage.count - index >= Self.prefixLength {
            let length = Int(storage.span.networkUInt32(at: index))
            let start = index + Self.prefixLength
            guard length <= storage.count - start else { return }
            body(storage.span.extracting(start..<start + length))
            index = start + length
        }
    }
}
