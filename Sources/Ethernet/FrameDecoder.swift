// The receiving side of the stream framing: bytes in as they come, whole frames out, many a system call.

/// Why a stream of frames cannot go on: after either there is no way to find the next frame.
public enum FramingError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A length of zero: no sender makes one, so the stream is not what it claims to be.
    case emptyFrame
    /// A length above ``EthernetFrame/maximumLength``.
    case oversizedFrame(UInt32)

    public var description: String {
        switch self {
        case .emptyFrame:
            "the peer announced a frame of 0 bytes: it does not speak the framing of `-netdev stream`"
        case .oversizedFrame(let length):
            "the peer announced a frame of \(length) bytes; at most \(EthernetFrame.maximumLength) are taken"
        }
    }
}

/// Splits a byte stream into frames. Owns the receive buffer; frames are spans into it, valid during the call only.
///
/// Not thread safe. Spec: QEMU `-netdev stream`: u32 big-endian length, then that many bytes of frame.
public struct FrameDecoder: Sendable {
    @usableFromInline var buffer: [UInt8]
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    /// - Parameter capacity: bytes taken by one receive at most. 256 KiB takes all that a default socket buffer holds.
    public init(capacity: Int = 256 << 10) {
        precondition(
            capacity >= EthernetFrame.maximumLength + FrameBatch.prefixLength, "a buffer must hold at least one frame")
        buffer = [UInt8](repeating: 0, count: capacity)
    }

    /// Bytes of a frame that has not come whole.
    public var pendingByteCount: Int { end - start }

    /// Forgets a partial frame: the next bytes come from a new peer.
    public mutating func reset() {
        start = 0
        end = 0
    }

    /// Gives `body` the free part of the buffer, never empty; `body` returns how many bytes it put there.
    @inlinable
    public mutating func fill(_ body: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        if start == end {
            start = 0
            end = 0
        } else if buffer.count &- end < FrameBatch.prefixLength &+ EthernetFrame.maximumLength {
            // A partial frame near the end: it moves to the front. It is shorter than a maximum frame, so room remains.
            let pending = end &- start
            // Safety: both ranges lie in the buffer; memmove semantics of copyMemory allow their overlap.
            unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe bytes.baseAddress!.copyMemory(from: bytes.baseAddress! + start, byteCount: pending)
            }
            start = 0
            end = pending
        }
        let offset = end
        // Safety: the pointer is the array's own, for the time of the call.
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe body(UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]))
        }
        precondition(count >= 0 && count <= buffer.count &- offset, "filled more than was free")
        end = offset &+ count
        return count
    }

    /// Calls `body` with every whole frame that waits and forgets them.
    ///
    /// - Returns: the number of frames.
    /// - Throws: ``FramingError``; frames before the bad length were delivered.
    @inlinable
    public mutating func drain(_ body: (Span<UInt8>) -> Void) throws(FramingError) -> Int {
        var frames = 0
        var index = start
        defer { start = index }
        let bytes = buffer.span
        while end &- index >= FrameBatch.prefixLength {
            let length = bytes.networkUInt32(at: index)
            guard length > 0 else { throw .emptyFrame }
            guard length <= UInt32(EthernetFrame.maximumLength) else { throw .oversizedFrame(length) }
            let first = index &+ FrameBatch.prefixLength
            let last = first &+ Int(length)
            guard last <= end else { break }
            index = last
            frames &+= 1
            body(bytes.extracting(first..<last))
        }
        return frames
    }
}
