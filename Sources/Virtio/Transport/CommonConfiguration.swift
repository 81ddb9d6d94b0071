internal import PCIe
internal import VFIOUser

/// The common configuration of a virtio function: its status machine, its features and its queues' settings, as a value.
///
/// Accesses return what has to be done; the shell (`VirtioFunction`) does it. A reset of a running device is under way
/// until `finishReset`: device_status reads as before until then, and nothing else can be written.
///
/// Spec: virtio 1.2 §2.1 (status), §2.2 (features), §2.6 (queue reset), §4.1.4.3 (layout and access).
public struct CommonConfiguration: Sendable {
    /// What a write asks the function to do.
    public enum Effect: Hashable, Sendable {
        case none
        /// Stop everything, then `finishReset`.
        case reset
        /// The driver offers FEATURES_OK: take it with `acceptFeatures` if the device can work with these.
        case checkFeatures(VirtioFeatures)
        /// The driver is ready: begin.
        case start
        /// A queue was enabled while the device runs.
        case enableQueue(Int)
        /// Stop one queue, then `finishQueueReset`.
        case resetQueue(Int)
    }

    /// One queue's settings.
    public struct Queue: Hashable, Sendable {
        public var size: UInt16
        public var vector = TransportLayout.noVector
        public var isEnabled = false
        public var isResetting = false
        /// The descriptor area: the table, or the packed ring.
        public var descriptors: UInt64 = 0
        /// The driver area: the available ring, or the driver's event suppression.
        public var driver: UInt64 = 0
        /// The device area: the used ring, or the device's event suppression.
        public var device: UInt64 = 0

        public init(size: UInt16) { self.size = size }
    }

    public let offered: VirtioFeatures
    /// The largest and first size of each queue.
    public let queueSizes: [UInt16]
    public let vectors: Int

    public private(set) var status: VirtioStatus = []
    public private(set) var isResetting = false
    public private(set) var driverFeatures: VirtioFeatures = []
    public private(set) var configVector = TransportLayout.noVector
    public private(set) var queues: [Queue]
    /// Changes with every change of the device configuration by the device.
    public var generation: UInt8 = 0
    /// The device was started since the last reset: a reset has to wait until it has stopped.
    private var hasStarted = false
    private var deviceFeatureSelect: UInt32 = 0
    private var driverFeatureSelect: UInt32 = 0
    private var queueSelect: UInt16 = 0

    /// - Parameter queueSizes: powers of two up to 32768.
    public init(offered: VirtioFeatures, queueSizes: [UInt16], vectors: Int) {
        precondition(queueSizes.count <= TransportLayout.maximumQueues, "a function has at most 64 queues")
        precondition(
            queueSizes.allSatisfy { $0 <= 32768 && $0.nonzeroBitCount == 1 }, "queue sizes are powers of two")
        self.offered = offered
        self.queueSizes = queueSizes
        self.vectors = vectors
        queues = queueSizes.map { Queue(size: $0) }
    }

    /// True once the driver may use the queues.
    public var isRunning: Bool {
        status.contains([.driverOK, .featuresOK]) && !status.contains(.deviceNeedsReset) && !isResetting
    }

    // MARK: What the function says

    /// The device takes the driver's features.
    public mutating func acceptFeatures() { status.insert(.featuresOK) }

    /// The device cannot go on.
    public mutating func needReset() { status.insert(.deviceNeedsReset) }

    /// Everything has stopped: all as after power-on.
    public mutating func finishReset() {
        let generation = generation
        self = CommonConfiguration(offered: offered, queueSizes: queueSizes, vectors: vectors)
        // A driver that reads the configuration around a reset must not take the old for the new.
        self.generation = generation
    }

    /// One queue has stopped.
    public mutating func finishQueueReset(_ index: Int) {
        guard queues.indices.contains(index), queues[index].isResetting else { return }
        queues[index] = Queue(size: queueSizes[index])
    }

    // MARK: Migration

    /// Writes everything that the driver has set. No reset is under way.
    func save(_ state: inout StateWriter) {
        state.add(UInt16(queues.count))
        state.add(status.rawValue)
        state.add(driverFeatures.rawValue)
        state.add(configVector)
        state.add(generation)
        state.add(hasStarted)
        state.add(deviceFeatureSelect)
        state.add(driverFeatureSelect)
        state.add(queueSelect)
        for queue in queues {
            state.add(queue.size)
            state.add(queue.vector)
            state.add(queue.isEnabled)
            for address in [queue.descriptors, queue.driver, queue.device] { state.add(address) }
        }
    }

    /// Reads what `save` of a function of this kind wrote. Refused: what no driver can have brought this one to.
    mutating func restore(_ state: inout StateReader) throws(ErrorNumber) {
        try state.expect(UInt16(queues.count))
        var new = CommonConfiguration(offered: offered, queueSizes: queueSizes, vectors: vectors)
        new.status = VirtioStatus(rawValue: try state.take(UInt8.self))
        new.driverFeatures = VirtioFeatures(rawValue: try state.take(UInt64.self))
        new.configVector = new.vector(UInt64(try state.take(UInt16.self)))
        new.generation = try state.take(UInt8.self)
        new.hasStarted = try state.takeBool()
        new.deviceFeatureSelect = try state.take(UInt32.self)
        new.driverFeatureSelect = try state.take(UInt32.self)
        new.queueSelect = try state.take(UInt16.self)
        let known: VirtioStatus = [.acknowledge, .driver, .driverOK, .featuresOK, .deviceNeedsReset, .failed]
        let isAgreed = new.status.contains(.featuresOK)
        guard new.status.isSubset(of: known), isAgreed || !new.status.contains(.driverOK),
            new.hasStarted || !new.isRunning,
            !isAgreed || new.driverFeatures.isSubset(of: offered) && new.driverFeatures.contains(.version1)
        else { throw .invalid }
        for index in new.queues.indices {
            let size = try state.take(UInt16.self)
            guard size > 0, size <= queueSizes[index], new.isPacked || size.nonzeroBitCount == 1 else {
                throw .invalid
            }
            new.queues[index].size = size
            new.queues[index].vector = new.vector(UInt64(try state.take(UInt16.self)))
            new.queues[index].isEnabled = try state.takeBool()
            guard isAgreed || !new.queues[index].isEnabled else { throw .invalid }
            new.queues[index].descriptors = try state.take(UInt64.self)
            new.queues[index].driver = try state.take(UInt64.self)
            new.queues[index].device = try state.take(UInt64.self)
        }
        self = new
    }

    // MARK: Reads

    /// Reads 1 to 8 bytes; what is not there reads as zero.
    public func read(_ offset: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<min(width, 8) {
            value |= UInt64(byte(offset &+ index)) << UInt64(index * 8)
        }
        return value
    }

    private func byte(_ offset: Int) -> UInt8 {
        let queue = selected.map { queues[$0] }
        func part(_ value: UInt64, _ start: Int) -> UInt8 {
            UInt8(truncatingIfNeeded: value >> UInt64((offset - start) * 8))
        }
        switch offset {
        case 0..<4: return part(UInt64(deviceFeatureSelect), 0)
        case 4..<8: return part(Self.word(offered, deviceFeatureSelect), 4)
        case 8..<12: return part(UInt64(driverFeatureSelect), 8)
        case 12..<16: return part(Self.word(driverFeatures, driverFeatureSelect), 12)
        case 16..<18: return part(UInt64(configVector), 16)
        case 18..<20: return part(UInt64(queues.count), 18)
        case CommonField.deviceStatus: return status.rawValue
        case CommonField.configGeneration: return generation
        case 22..<24: return part(UInt64(queueSelect), 22)
        case 24..<26: return part(UInt64(queue?.size ?? 0), 24)
        case 26..<28: return part(UInt64(queue?.vector ?? TransportLayout.noVector), 26)
        case 28..<30: return part(queue?.isEnabled == true ? 1 : 0, 28)
        case 30..<32: return part(queue == nil ? 0 : UInt64(queueSelect), 30)
        case 32..<40: return part(queue?.descriptors ?? 0, 32)
        case 40..<48: return part(queue?.driver ?? 0, 40)
        case 48..<56: return part(queue?.device ?? 0, 48)
        case 56..<58: return part(queue == nil ? 0 : UInt64(queueSelect), 56)
        case 58..<60: return part(queue?.isResetting == true ? 1 : 0, 58)
        default: return 0
        }
    }

    private static func word(_ features: VirtioFeatures, _ select: UInt32) -> UInt64 {
        switch select {
        case 0: features.rawValue & 0xFFFF_FFFF
        case 1: features.rawValue >> 32
        default: 0
        }
    }

    private var selected: Int? { Int(queueSelect) < queues.count ? Int(queueSelect) : nil }

    // MARK: Writes

    /// Writes one field, in its own width; a 64-bit field also by its halves. Everything else is dropped.
    public mutating func write(_ offset: Int, width: Int, value: UInt64) -> Effect {
        guard !isResetting else { return .none }
        switch (offset, width) {
        case (CommonField.deviceFeatureSelect, 4): deviceFeatureSelect = UInt32(truncatingIfNeeded: value)
        case (CommonField.driverFeatureSelect, 4): driverFeatureSelect = UInt32(truncatingIfNeeded: value)
        case (CommonField.driverFeature, 4): setDriverFeatures(value & 0xFFFF_FFFF)
        case (CommonField.configVector, 2): configVector = vector(value)
        case (CommonField.deviceStatus, 1): return setStatus(VirtioStatus(rawValue: UInt8(truncatingIfNeeded: value)))
        case (CommonField.queueSelect, 2): queueSelect = UInt16(truncatingIfNeeded: value)
        default:
            if let selected { return writeQueue(selected, offset, width, value) }
        }
        return .none
    }

    private mutating func setDriverFeatures(_ value: UInt64) {
        // Spec: virtio 1.2 §2.2.1: no changes after FEATURES_OK.
        guard driverFeatureSelect < 2, !status.contains(.featuresOK) else { return }
        let shift = UInt64(driverFeatureSelect * 32)
        let kept = driverFeatures.rawValue & ~(0xFFFF_FFFF << shift)
        driverFeatures = VirtioFeatures(rawValue: kept | value << shift)
    }

    private func vector(_ value: UInt64) -> UInt16 {
        let vector = UInt16(truncatingIfNeeded: value)
        return Int(vector) < vectors ? vector : TransportLayout.noVector
    }

    /// Bits only come; all go by writing zero. DEVICE_NEEDS_RESET is the device's.
    private mutating func setStatus(_ new: VirtioStatus) -> Effect {
        guard !new.isEmpty else {
            guard hasStarted else {
                finishReset()
                return .none
            }
            isResetting = true
            return .reset
        }
        let added = new.subtracting(status)
        status.formUnion(added.intersection([.acknowledge, .driver, .failed]))
        if added.contains(.featuresOK) {
            // Spec: virtio 1.2 §6.1: without VERSION_1 there is no modern device; §2.2.2 for what was not offered.
            guard driverFeatures.isSubset(of: offered), driverFeatures.contains(.version1) else { return .none }
            return .checkFeatures(driverFeatures)
        }
        guard added.contains(.driverOK), status.contains(.featuresOK) else { return .none }
        status.insert(.driverOK)
        guard isRunning else { return .none }
        hasStarted = true
        return .start
    }

    private mutating func writeQueue(_ index: Int, _ offset: Int, _ width: Int, _ value: UInt64) -> Effect {
        switch (offset, width) {
        case (CommonField.queueVector, 2):
            queues[index].vector = vector(value)
            return .none
        case (CommonField.queueReset, 2):
            guard value == 1, driverFeatures.contains(.ringReset), status.contains(.featuresOK),
                queues[index].isEnabled, !queues[index].isResetting
            else { return .none }
            // Spec: virtio 1.2 §4.1.4.3.1: enable reads as zero at once, reset as one until it is done.
            queues[index].isResetting = true
            queues[index].isEnabled = false
            return .resetQueue(index)
        default: break
        }
        // Spec: virtio 1.2 §4.1.4.3.2: nothing of an enabled queue may be changed.
        guard !queues[index].isEnabled, !queues[index].isResetting else { return .none }
        switch (offset, width) {
        case (CommonField.queueSize, 2):
            let size = UInt16(truncatingIfNeeded: value)
            guard size > 0, size <= queueSizes[index], isPacked || size.nonzeroBitCount == 1 else { return .none }
            queues[index].size = size
        case (CommonField.queueEnable, 2):
            guard value == 1, status.contains(.featuresOK) else { return .none }
            queues[index].isEnabled = true
            return isRunning ? .enableQueue(index) : .none
        case (CommonField.queueDescriptors..<CommonField.queueNotifyData, 4), (32, 8), (40, 8), (48, 8):
            setArea(index, offset, width, value)
        default: break
        }
        return .none
    }

    private var isPacked: Bool { driverFeatures.contains(.packedRing) }

    private mutating func setArea(_ index: Int, _ offset: Int, _ width: Int, _ value: UInt64) {
        func merged(_ old: UInt64) -> UInt64 {
            guard width == 4 else { return value }
            let shift = UInt64(offset & 4) * 8
            return old & ~(0xFFFF_FFFF << shift) | (value & 0xFFFF_FFFF) << shift
        }
        switch offset {
        case 32, 36: queues[index].descriptors = merged(queues[index].descriptors)
        case 40, 44: queues[index].driver = merged(queues[index].driver)
        case 48, 52: queues[index].device = merged(queues[index].device)
        default: break
        }
    }
}
