internal import Synchronization
public import VFIOUser
public import Wire

/// A serial console: virtio's console device with one port, joined to a byte stream.
///
/// What the driver writes goes to `output`; `input` brings what a person types. Input that the driver has no buffers
/// for waits, up to a bound; what is beyond that is refused, so that the stream's own flow control holds it back.
///
/// Spec: virtio 1.2 §5.3.
public final class VirtioConsole: VirtioDevice {
    /// Spec: virtio 1.2 §5.3.3.
    public static let sizeFeature = VirtioFeatures(bit: 0)
    public static let emergencyWriteFeature = VirtioFeatures(bit: 2)

    public let type = VirtioDeviceType.console
    public let features: VirtioFeatures = [sizeFeature, emergencyWriteFeature]
    /// Receive, transmit.
    public let queueSizes: [UInt16] = [64, 64]

    /// Input that may wait for the driver.
    public static let inputCapacity = 16 << 10
    private static let receiveQueue = 0
    private static let transmitQueue = 1
    /// Bytes handed over at a time, and requests served in one call.
    private static let piece = 4096
    private static let batch = 16

    private struct State {
        var input: [UInt8] = []
        var columns: UInt16 = 80
        var rows: UInt16 = 24
    }

    private let state = Mutex(State())
    private let loop: EventLoop
    private let output: @Sendable (RawSpan) -> Void

    // Safety: unchecked because only the worker's thread uses it.
    private final class Working: @unchecked Sendable { var queues: QueueSet? }
    private let working = Working()

    /// - Parameters:
    ///   - loop: the worker's.
    ///   - output: takes what the driver writes; called on the worker's thread, or for a byte of an emergency write on
    ///     the server's. It must not wait.
    public init(loop: EventLoop, output: @escaping @Sendable (RawSpan) -> Void) {
        self.loop = loop
        self.output = output
    }

    /// How many bytes of input there is room for.
    public var inputRoom: Int { state.withLock { Self.inputCapacity - $0.input.count } }

    /// Gives the driver input; returns how many bytes were taken. Any thread.
    @discardableResult
    public func input(_ bytes: RawSpan) -> Int {
        let count = min(inputRoom, bytes.byteCount)
        guard count > 0 else { return 0 }
        var taken: [UInt8] = []
        taken.reserveCapacity(count)
        for index in 0..<count { taken.append(bytes.uint8(at: index)) }
        state.withLock { $0.input.append(contentsOf: taken) }
        loop.perform { [weak self] in self?.working.queues?.watch(Self.receiveQueue) }
        return count
    }

    /// The terminal at the other end has so many columns and rows.
    public func resize(columns: UInt16, rows: UInt16) {
        state.withLock { state in
            state.columns = columns
            state.rows = rows
        }
        loop.perform { [weak self] in
            guard let queues = self?.working.queues, queues.features.contains(Self.sizeFeature) else { return }
            queues.changeConfiguration()
        }
    }

    // MARK: Configuration: cols u16, rows u16, max_nr_ports u32, emerg_wr u32

    public func readConfiguration(_ offset: Int, into bytes: inout MutableRawSpan) {
        let size = state.withLock { UInt64($0.columns) | UInt64($0.rows) << 16 }
        for index in 0..<bytes.byteCount {
            let place = offset &+ index
            let byte = place < 4 ? UInt8(truncatingIfNeeded: size >> UInt64(place * 8)) : 0
            bytes.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
    }

    /// An emergency write puts out one byte without any queue. Spec: virtio 1.2 §5.3.4.
    public func writeConfiguration(_ offset: Int, from bytes: RawSpan) {
        guard offset == 8, bytes.byteCount > 0 else { return }
        output(bytes.extracting(0..<1))
    }

    // MARK: Queues

    public func start(_ queues: QueueSet) { working.queues = queues }
    public func stop() { working.queues = nil }
    public func fundamentalReset() { state.withLock { $0.input = [] } }

    /// Input that waits.
    public func saveState() -> [UInt8] { state.withLock { $0.input } }

    public func restoreState(_ state: [UInt8]) throws(ErrorNumber) {
        guard state.count <= Self.inputCapacity else { throw .invalid }
        self.state.withLock { own in
            own.input = Array((state + own.input).prefix(Self.inputCapacity))
        }
    }

    /// Buffers for input matter only while input waits.
    public func wantsNotifications(_ queue: Int) -> Bool {
        queue == Self.transmitQueue || state.withLock { !$0.input.isEmpty }
    }

    public func serve(_ index: Int, _ queues: QueueSet) -> Bool {
        index == Self.transmitQueue ? transmit(queues) : receive(queues)
    }

    private func transmit(_ queues: QueueSet) -> Bool {
        queues.withQueue(Self.transmitQueue) { (queue, memory) throws(RingFault) in
            var count = 0
            while count < Self.batch, try queue.next(&memory) {
                let total = queue.chain.readableBytes
                var place = 0
                while place < total {
                    let part = min(total - place, Self.piece)
                    // Safety: the buffer is used inside the closure only.
                    try unsafe withUnsafeTemporaryAllocation(byteCount: Self.piece, alignment: 1) {
                        (buffer) throws(RingFault) in
                        // Safety: part is at most the buffer's length.
                        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<part])
                        unsafe try queue.chain.read(at: place, into: bytes, &memory)
                        output(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes)))
                    }
                    place += part
                }
                try queue.complete(queue.chain.token, written: 0, &memory)
                count += 1
            }
            return count > 0
        } ?? false
    }

    private func receive(_ queues: QueueSet) -> Bool {
        let waiting = state.withLock { $0.input }
        guard !waiting.isEmpty else { return false }
        let given =
            queues.withQueue(Self.receiveQueue) { (queue, memory) throws(RingFault) in
                var given = 0
                while given < waiting.count, try queue.next(&memory) {
                    let count = min(queue.chain.writableBytes, waiting.count - given)
                    // Safety: bytes have no padding.
                    let part = unsafe waiting.span.bytes.extracting(given..<given + count)
                    try queue.chain.write(part, at: 0, &memory)
                    try queue.complete(queue.chain.token, written: count, &memory)
                    given += count
                }
                return given
            } ?? 0
        state.withLock { $0.input.removeFirst(given) }
        return given > 0
    }
}
