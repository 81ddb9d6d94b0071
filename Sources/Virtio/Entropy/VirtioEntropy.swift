internal import Glibc
internal import VFIOUser

/// A source of random bytes: the kernel's of the machine that the board runs on.
///
/// Spec: virtio 1.2 §5.4.
public final class VirtioEntropy: VirtioDevice {
    public let type = VirtioDeviceType.entropy
    public let features: VirtioFeatures = []
    public let queueSizes: [UInt16] = [64]

    /// Requests served in one call: other devices of the worker get their turn.
    private static let batch = 16
    /// Bytes given for one request at most; a driver that wants more asks again.
    private static let limit = 4096

    public init() {}

    public func start(_ queues: QueueSet) {}
    public func stop() {}

    public func serve(_ index: Int, _ queues: QueueSet) -> Bool {
        queues.withQueue(index) { (queue, memory) throws(RingFault) in
            var count = 0
            while count < Self.batch, try queue.next(&memory) {
                // Spec: virtio 1.2 §5.4.6.1: the driver gives buffers to write only.
                guard queue.chain.readableBytes == 0 else { throw .request("a random buffer with readable bytes") }
                let wanted = min(queue.chain.writableBytes, Self.limit)
                // Safety: the buffer is used inside the closure only.
                try unsafe withUnsafeTemporaryAllocation(byteCount: Self.limit, alignment: 8) {
                    (buffer) throws(RingFault) in
                    // Safety: wanted is at most the buffer's length.
                    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[0..<wanted])
                    unsafe Self.fill(part)
                    unsafe try queue.chain.write(at: 0, from: UnsafeRawBufferPointer(part), &memory)
                }
                try queue.complete(queue.chain.token, written: wanted, &memory)
                count += 1
            }
            return count > 0
        } ?? false
    }

    private static func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        var done = 0
        while done < buffer.count {
            // getentropy gives 256 bytes at most.
            let count = min(256, buffer.count - done)
            // Safety: done + count ≤ buffer.count.
            let result = unsafe getentropy(buffer.baseAddress! + done, count)
            precondition(result == 0, "getentropy works for 256 bytes in a buffer of our own")
            done += count
        }
    }
}
