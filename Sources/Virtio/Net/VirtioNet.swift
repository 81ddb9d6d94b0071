public import Ethernet
internal import PCIe
internal import Synchronization
public import VFIOUser

/// A network card: virtio's network device, joined to whatever carries its frames.
///
/// What the driver sends goes, a batch at a time, to `transmit`; what comes for it goes to `take`, both on the worker's
/// thread. Frames that the driver has no buffers for wait, up to a bound, and are lost beyond it: like a card's own
/// memory.
///
/// A frame is copied once out of the guest's memory before anybody looks at it, so that a guest cannot change it after
/// it was judged. A checksum that the driver left to the device is completed there.
///
/// Spec: virtio 1.2 §5.1.
public final class VirtioNet: VirtioDevice, FrameSink {
    /// Where the frames go.
    public struct Wire: Sendable {
        /// Takes what the driver sends; the stage is the device's again afterwards.
        public var transmit: @Sendable (FrameStage) -> Void
        /// The driver is there (true) or has gone.
        public var driver: @Sendable (Bool) -> Void

        public init(
            transmit: @escaping @Sendable (FrameStage) -> Void,
            driver: @escaping @Sendable (Bool) -> Void = { _ in }
        ) {
            self.transmit = transmit
            self.driver = driver
        }
    }

    public let type = VirtioDeviceType.network
    public let features: VirtioFeatures
    public let queueSizes: [UInt16]
    /// The address that the device has after a reset.
    public let address: MACAddress
    public let queuePairs: Int

    /// Frames that may wait for receive buffers.
    public static let backlogBytes = 256 << 10
    /// Places of the receive and transmit queues, at most: what a busy machine's two sides can do while the other one
    /// does not run.
    public static let queueSize: UInt16 = 1024
    /// Mbit/s that the configuration tells; nothing is held back to it.
    static let speed: UInt32 = 10_000

    struct Shared {
        var address: MACAddress
        var isLinkUp = true
    }
    let shared: Mutex<Shared>

    // Safety: unchecked because only the worker's thread uses it.
    final class Working: @unchecked Sendable {
        var queues: QueueSet?
        let stage = FrameStage()
        /// Frames that wait for buffers, and the stage that they come from there by.
        var backlog = FrameBatch(capacity: VirtioNet.backlogBytes)
        let returning = FrameStage()
        var filter: ReceiveFilter
        /// Queue pairs that the driver uses.
        var activePairs = 1
        var flows = [UInt8](repeating: 0, count: 256)
        /// Buffers of the frame that is being received, and what is written to each.
        var buffers: [(token: DescriptorChain.Token, written: Int)] = []
        /// Of a stage's frames: whether the device has taken them.
        var isTaken = [Bool](repeating: false, count: FrameStage.defaultFrames)

        init(_ filter: ReceiveFilter) {
            self.filter = filter
            buffers.reserveCapacity(64)
        }
    }
    let working: Working
    private let wire: Wire

    /// - Parameters:
    ///   - queuePairs: 1…16 pairs of a receive and a transmit queue.
    public init(address: MACAddress, queuePairs: Int = 1, wire: Wire) {
        precondition((1...16).contains(queuePairs), "1 to 16 queue pairs")
        self.address = address
        self.queuePairs = queuePairs
        self.wire = wire
        shared = Mutex(Shared(address: address))
        working = Working(ReceiveFilter(address: address))
        queueSizes = [UInt16](repeating: Self.queueSize, count: 2 * queuePairs) + [64]
        var features: VirtioFeatures = [
            VirtioNetFeature.checksum, VirtioNetFeature.guestChecksum, VirtioNetFeature.mac,
            VirtioNetFeature.mergeableBuffers, VirtioNetFeature.status, VirtioNetFeature.controlQueue,
            VirtioNetFeature.controlReceive, VirtioNetFeature.controlVLAN, VirtioNetFeature.controlReceiveExtra,
            VirtioNetFeature.controlMACAddress, VirtioNetFeature.speedDuplex,
        ]
        if queuePairs > 1 { features.insert(VirtioNetFeature.multiqueue) }
        self.features = features
    }

    // MARK: Configuration

    public func accepts(_ features: VirtioFeatures) -> Bool {
        features.contains(VirtioNetFeature.controlQueue) || features.isDisjoint(with: VirtioNetFeature.needControlQueue)
    }

    public func readConfiguration(_ offset: Int, into bytes: inout MutableRawSpan) {
        let shared = shared.withLock { $0 }
        for index in 0..<bytes.byteCount {
            bytes.storeBytes(of: configurationByte(offset &+ index, shared), toByteOffset: index, as: UInt8.self)
        }
    }

    private func configurationByte(_ offset: Int, _ shared: Shared) -> UInt8 {
        func part(_ value: UInt32, _ start: Int) -> UInt8 {
            UInt8(truncatingIfNeeded: value >> UInt32((offset - start) * 8))
        }
        typealias Field = NetConfigurationField
        switch offset {
        case 0..<6: return shared.address[offset]
        case 6..<8: return part(shared.isLinkUp ? UInt32(Field.linkUp) : 0, Field.status)
        case 8..<10: return part(UInt32(queuePairs), Field.maximumQueuePairs)
        case 12..<16: return part(Self.speed, Field.speed)
        case Field.duplex: return 1
        default: return 0
        }
    }

    /// Plugs the cable in or out: the driver is told, and nothing passes while it is out. Worker's thread.
    public func setLink(_ isUp: Bool) {
        let changes = shared.withLock { shared in
            defer { shared.isLinkUp = isUp }
            return shared.isLinkUp != isUp
        }
        guard changes else { return }
        if !isUp { working.backlog.removeAll() }
        if let queues = working.queues, queues.features.contains(VirtioNetFeature.status) {
            queues.changeConfiguration()
        }
    }

    public var isLinkUp: Bool { shared.withLock { $0.isLinkUp } }

    // MARK: Queues

    private var controlQueue: Int { 2 * queuePairs }

    public func start(_ queues: QueueSet) {
        working.queues = queues
        working.filter = ReceiveFilter(address: address)
        if queues.features.contains(VirtioNetFeature.controlVLAN) { working.filter.filterVLANs() }
        working.activePairs = 1
        for index in working.flows.indices { working.flows[index] = 0 }
        shared.withLock { $0.address = address }
        wire.driver(true)
    }

    public func stop() {
        guard working.queues != nil else { return }
        working.queues = nil
        working.backlog.removeAll()
        wire.driver(false)
    }

    // MARK: Migration

    /// Frames that wait for buffers and find none now are lost, as on any wire; flows are learned again.
    public func drain(_ queues: QueueSet) { _ = drainBacklog() }

    public func saveState() -> [UInt8] {
        var state = StateWriter()
        state.add(shared.withLock { $0.address.rawValue })
        state.add(UInt8(working.activePairs))
        working.filter.save(&state)
        return state.bytes
    }

    public func restoreState(_ state: [UInt8]) throws(ErrorNumber) {
        var state = StateReader(state)
        let address = try ReceiveFilter.address(&state)
        let pairs = Int(try state.take(UInt8.self))
        guard (1...queuePairs).contains(pairs) else { throw .invalid }
        let filter = try ReceiveFilter(&state)
        try state.finish()
        shared.withLock { $0.address = address }
        working.activePairs = pairs
        working.filter = filter
    }

    // MARK: Service

    /// Receive buffers matter only while frames wait for them.
    public func wantsNotifications(_ queue: Int) -> Bool {
        queue == controlQueue || queue % 2 == 1 || !working.backlog.isEmpty
    }

    public func serve(_ index: Int, _ queues: QueueSet) -> Bool {
        if index == controlQueue { return serveControl(index, queues) }
        return index % 2 == 1 ? transmit(index, queues) : drainBacklog()
    }

    // MARK: Transmission

    private func transmit(_ index: Int, _ queues: QueueSet) -> Bool {
        let stage = working.stage
        stage.removeAll()
        let completes = queues.features.contains(VirtioNetFeature.checksum)
        let count =
            queues.withQueue(index) { (queue, memory) throws(RingFault) in
                var count = 0
                while stage.hasRoom, count < stage.maximumFrames, try queue.next(&memory) {
                    count &+= 1
                    try stageFrame(of: queue.chain, completesChecksums: completes, &memory)
                    try queue.complete(queue.chain.token, written: 0, &memory)
                }
                return count
            } ?? 0
        guard !stage.isEmpty else { return count > 0 }
        if working.activePairs > 1 { learnFlows(UInt8(index / 2)) }
        if isLinkUp { wire.transmit(stage) }
        return true
    }

    /// Copies one frame out of the driver's memory; one that cannot go on a wire is dropped.
    @inline(__always)
    private func stageFrame(
        of chain: DescriptorChain, completesChecksums: Bool, _ memory: inout HeldMemory
    ) throws(RingFault) {
        let length = chain.readableBytes - VirtioNetHeader.size
        guard length >= 0 else { throw .request("a frame without its header") }
        guard length >= EthernetFrame.headerLength, length <= EthernetFrame.maximumLength else { return }
        let stage = working.stage
        try unsafe stage.append(length, prefix: VirtioNetHeader.size) { (room) throws(RingFault) in
            unsafe try chain.read(at: 0, into: room, &memory)
        }
        let isGood = unsafe stage.withBytes(stage.count - 1, prefix: VirtioNetHeader.size) { bytes in
            // Safety: the bytes begin with a whole header.
            let flags = unsafe bytes[0]
            let segmentation = unsafe bytes[1]
            // No segmentation was offered.
            guard segmentation == VirtioNetHeader.noSegmentation else { return false }
            guard flags & VirtioNetHeader.needsChecksum != 0 else { return true }
            guard completesChecksums else { return false }
            let start = Int(unsafe bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
            let offset = Int(unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self))
            let frame = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[VirtioNetHeader.size...])
            return unsafe FrameChecksum.complete(frame, start: start, offset: offset)
        }
        if !isGood { stage.removeLast() }
    }
}
