public import VFIOUser

/// A kind of device behind the virtio transport: what a network card, disk, console or random source implements.
///
/// `type`, `features` and `queueSizes` never change. Everything below `start` is called on one thread, the worker's;
/// the methods above it on the thread that serves the driver's register accesses.
public protocol VirtioDevice: AnyObject, Sendable {
    var type: VirtioDeviceType { get }
    /// The type's own feature bits; the transport adds its.
    var features: VirtioFeatures { get }
    /// The largest size of each queue, powers of two.
    var queueSizes: [UInt16] { get }
    /// Whether the device works with these features: dependencies between bits. They were all offered.
    func accepts(_ features: VirtioFeatures) -> Bool
    /// The device configuration, from `offset` on; what is not there reads as zero.
    func readConfiguration(_ offset: Int, into bytes: inout MutableRawSpan)
    func writeConfiguration(_ offset: Int, from bytes: RawSpan)

    /// The driver is ready.
    func start(_ queues: QueueSet)
    /// The driver has reset the device or went away, or a ring was garbage. The queues are not touched any more.
    func stop()
    /// The whole card was reset, after `stop`: what came from outside and waits for the driver is forgotten. Any thread.
    func fundamentalReset()
    /// The driver has reset one queue: its requests that are not completed are gone.
    func queueReset(_ queue: Int)
    /// Serves requests of a queue, a bounded number in one call. Returns false when there was nothing to do.
    ///
    /// Called after a notification, and then again and again while it returns true and a little longer.
    func serve(_ queue: Int, _ queues: QueueSet) -> Bool
    /// Whether new requests in a queue matter now: buffers for what does not wait do not.
    func wantsNotifications(_ queue: Int) -> Bool

    // Migration, on the worker's thread.

    /// Before the device stops: completes what it holds.
    func drain(_ queues: QueueSet)
    /// What the device knows beside its queues; of a drained device.
    func saveState() -> [UInt8]
    /// Takes over such a state, after `start` where the driver is ready. The client's bytes: `invalid` where they are
    /// none, or of a device that this one cannot stand in for.
    func restoreState(_ state: [UInt8]) throws(ErrorNumber)
}

extension VirtioDevice {
    public func accepts(_ features: VirtioFeatures) -> Bool { true }
    public func readConfiguration(_ offset: Int, into bytes: inout MutableRawSpan) { bytes.fill(with: 0) }
    public func writeConfiguration(_ offset: Int, from bytes: RawSpan) {}
    public func fundamentalReset() {}
    public func queueReset(_ queue: Int) {}
    public func wantsNotifications(_ queue: Int) -> Bool { true }
    public func drain(_ queues: QueueSet) {}
    public func saveState() -> [UInt8] { [] }
    public func restoreState(_ state: [UInt8]) throws(ErrorNumber) {
        guard state.isEmpty else { throw .invalid }
    }
}
