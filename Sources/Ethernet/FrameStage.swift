// Frames of one batch on their way between ports in one process: each copied once, out of where its sender may still
// write, so that the frame that was judged is the frame that is delivered.

/// Frames side by side in private memory, each with some bytes in front of it that its carrier may fill.
///
/// ```
/// | headroom | frame 0 | headroom | frame 1 | …
/// ```
///
/// One thread uses it. Nothing is allocated after `init`.
@safe public final class FrameStage: @unchecked Sendable {
    // Safety: unchecked because one thread uses it; it may be made on another.

    /// Bytes in front of each frame: more than a virtio network header.
    public static let headroom = 16
    /// Frames and bytes of a batch. 64 frames of 1514 bytes leave room for one of any length; all of it fits a core's
    /// second-level cache.
    public static let defaultFrames = 64
    public static let defaultBytes = 192 << 10

    private struct Entry {
        /// Of the frame's first byte.
        var place: Int
        var length: Int
        var egress: SwitchPortSet
        var mark: UInt8
    }

    // Safety: `capacity` bytes and `maximumFrames` entries, freed in deinit; all below `end` and `count` are initialised.
    private let bytes: UnsafeMutableRawPointer
    private let entries: UnsafeMutablePointer<Entry>
    private let capacity: Int
    public let maximumFrames: Int
    private var end = 0
    public private(set) var count = 0

    public init(frames: Int = FrameStage.defaultFrames, bytes: Int = FrameStage.defaultBytes) {
        precondition(frames > 0 && bytes >= Self.headroom + EthernetFrame.maximumLength, "room for a frame")
        capacity = bytes
        maximumFrames = frames
        unsafe self.bytes = .allocate(byteCount: bytes, alignment: 64)
        unsafe entries = .allocate(capacity: frames)
    }

    deinit {
        unsafe bytes.deallocate()
        unsafe entries.deallocate()
    }

    public var isEmpty: Bool { count == 0 }

    /// Whether a frame of any length can be added.
    public var hasRoom: Bool {
        count < maximumFrames && capacity &- end >= Self.headroom &+ EthernetFrame.maximumLength
    }

    public func removeAll() {
        count = 0
        end = 0
    }

    /// Adds a frame: `fill` is given `prefix` bytes of the headroom and the frame's. Nothing is added when it throws.
    /// Precondition: `hasRoom`, and a length of at most the maximum.
    @inline(__always)
    public func append<Failure: Error>(
        _ length: Int, prefix: Int = 0, mark: UInt8 = 0,
        fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(hasRoom && length >= 0 && length <= EthernetFrame.maximumLength, "room for the frame")
        precondition(prefix >= 0 && prefix <= Self.headroom, "the prefix fits the headroom")
        let place = end &+ Self.headroom
        // Safety: place + length ≤ capacity, by the preconditions.
        let room = unsafe UnsafeMutableRawBufferPointer(start: bytes + (place &- prefix), count: prefix &+ length)
        unsafe try fill(room)
        unsafe (entries + count).initialize(to: Entry(place: place, length: length, egress: [], mark: mark))
        count &+= 1
        // The next begins at a multiple of sixteen: copies are fastest there.
        end = (place &+ length &+ 15) & ~15
    }

    /// Adds a copy of a frame; false when there is no room or it is too long.
    public func append(_ frame: Span<UInt8>) -> Bool {
        guard hasRoom, frame.count <= EthernetFrame.maximumLength else { return false }
        // Safety: both hold the frame's count.
        unsafe append(frame.count) { room in unsafe frame.withUnsafeBytes { unsafe room.copyMemory(from: $0) } }
        return true
    }

    /// Takes the last frame away again.
    public func removeLast() {
        precondition(count > 0, "there is a frame")
        count &-= 1
        // Safety: count is below what was initialised.
        end = unsafe entries[count].place &- Self.headroom
    }

    // MARK: Frames

    /// Precondition of all: 0 ≤ index < count.
    @inline(__always)
    private func entry(_ index: Int) -> Entry {
        precondition(index >= 0 && index < count, "a frame of the stage")
        // Safety: checked.
        return unsafe entries[index]
    }

    @inline(__always)
    public func length(_ index: Int) -> Int { entry(index).length }

    /// A byte that whoever added the frame left for whoever takes it.
    @inline(__always)
    public func mark(_ index: Int) -> UInt8 { entry(index).mark }

    /// Calls `body` with a frame.
    @inline(__always)
    public func withFrame<Result>(_ index: Int, _ body: (Span<UInt8>) -> Result) -> Result {
        let entry = entry(index)
        // Safety: the bytes are initialised and change only by this thread's calls.
        let buffer = unsafe UnsafeRawBufferPointer(start: bytes + entry.place, count: entry.length)
        return body(unsafe Span<UInt8>(_unsafeBytes: buffer))
    }

    /// Calls `body` with a frame and `prefix` bytes of the headroom before it, to write.
    @inline(__always)
    public func withBytes<Result, Failure: Error>(
        _ index: Int, prefix: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(prefix >= 0 && prefix <= Self.headroom, "the prefix fits the headroom")
        let entry = entry(index)
        // Safety: place ≥ headroom ≥ prefix.
        return unsafe try body(
            UnsafeMutableRawBufferPointer(start: bytes + (entry.place &- prefix), count: prefix &+ entry.length))
    }

    /// The ports of a switch that a frame leaves by.
    @inline(__always)
    func egress(_ index: Int) -> SwitchPortSet { entry(index).egress }

    @inline(__always)
    func setEgress(_ index: Int, _ ports: SwitchPortSet) {
        precondition(index >= 0 && index < count, "a frame of the stage")
        // Safety: checked.
        unsafe entries[index].egress = ports
    }

    /// Whether a frame leaves by a port; by nil all do.
    @inline(__always)
    public func leaves(_ index: Int, by port: SwitchPort?) -> Bool {
        guard let port else { return true }
        return entry(index).egress.contains(port)
    }
}
