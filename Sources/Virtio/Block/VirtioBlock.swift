public import BlockStore
internal import PCIe
internal import Synchronization
public import VFIOUser
public import Wire

/// A disk: virtio's block device over a `BlockStore`.
///
/// Data goes straight between the file and the guest's memory, on the worker's thread; nothing is allocated for a
/// request. An injected delay holds its request back without holding up others.
///
/// Spec: virtio 1.2 §5.2.
public final class VirtioBlock: VirtioDevice {
    public let type = VirtioDeviceType.block
    public let features: VirtioFeatures
    public let queueSizes: [UInt16]

    /// Requests served in one call.
    private static let batch = 32
    /// Bounds of one request, so that it does not keep others waiting: 2 GiB of a punched hole, 32 MiB of zeroes.
    private static let maximumDiscardSectors: UInt32 = 1 << 22
    private static let maximumZeroSectors: UInt32 = 1 << 16
    /// Ranges of one discard or write-zeroes request.
    private static let maximumRanges = 16
    private static let identifierSize = 20

    private let store: BlockStore
    private let serial: [UInt8]
    private let loop: EventLoop

    // Safety: unchecked because only the worker's thread uses it.
    private final class Working: @unchecked Sendable {
        let transfer = BlockTransfer(maximumPieces: DescriptorChain.maximumSegments)
        /// Requests that an injected fault holds back.
        var held: [(queue: Int, due: MonotonicTime, chain: DescriptorChain)] = []
        var queues: QueueSet?
    }
    private let working = Working()

    /// - Parameters:
    ///   - serial: what GET_ID answers, at most 20 bytes of it.
    ///   - loop: the worker's.
    ///   - queueSize: a power of two, 4…1024.
    public init(_ store: BlockStore, serial: String, loop: EventLoop, queueSize: UInt16 = 256) {
        precondition((4...1024).contains(queueSize), "a block queue has 4 to 1024 places")
        self.store = store
        self.serial = Array(serial.utf8.prefix(Self.identifierSize))
        self.loop = loop
        queueSizes = [queueSize]
        var features: VirtioFeatures = [
            VirtioBlockFeature.segmentMaximum, VirtioBlockFeature.blockSize, VirtioBlockFeature.flush,
        ]
        if store.isReadOnly {
            features.insert(VirtioBlockFeature.readOnly)
        } else {
            features.formUnion([VirtioBlockFeature.discard, VirtioBlockFeature.writeZeroes])
        }
        self.features = features
    }

    // MARK: Configuration

    public func readConfiguration(_ offset: Int, into bytes: inout MutableRawSpan) {
        for index in 0..<bytes.byteCount {
            bytes.storeBytes(of: configurationByte(offset &+ index), toByteOffset: index, as: UInt8.self)
        }
    }

    private func configurationByte(_ offset: Int) -> UInt8 {
        func part(_ value: UInt64, _ start: Int) -> UInt8 {
            UInt8(truncatingIfNeeded: value >> UInt64((offset - start) * 8))
        }
        typealias Field = BlockConfigurationField
        let blocks = UInt64(store.blockSize)
        switch offset {
        case 0..<8: return part(store.byteCount / BlockRequestHeader.sectorSize, Field.capacity)
        // A request's head and status take two descriptors.
        case 12..<16: return part(UInt64(queueSizes[0]) - 2, Field.segmentMaximum)
        case 20..<24: return part(blocks, Field.blockSize)
        case 34..<36: return part(1, Field.queueCount)
        case 36..<40: return part(UInt64(Self.maximumDiscardSectors), Field.maximumDiscardSectors)
        case 40..<44: return part(UInt64(Self.maximumRanges), Field.maximumDiscardSegments)
        case 44..<48: return part(blocks / BlockRequestHeader.sectorSize, Field.discardAlignment)
        case 48..<52: return part(UInt64(Self.maximumZeroSectors), Field.maximumWriteZeroesSectors)
        case 52..<56: return part(UInt64(Self.maximumRanges), Field.maximumWriteZeroesSegments)
        case Field.writeZeroesMayUnmap: return 1
        default: return 0
        }
    }

    /// The store's size has changed: tells the driver. Any thread.
    public func resized() {
        loop.perform { [weak self] in self?.working.queues?.changeConfiguration() }
    }

    // MARK: Requests

    public func start(_ queues: QueueSet) { working.queues = queues }

    public func stop() {
        working.held = []
        working.queues = nil
    }

    public func queueReset(_ queue: Int) { working.held.removeAll { $0.queue == queue } }

    // MARK: Migration

    /// Requests that an injected fault holds back are not held back any longer.
    public func drain(_ queues: QueueSet) {
        let held = working.held
        working.held = []
        for index in queueSizes.indices {
            _ = queues.withQueue(index) { (queue, memory) throws(RingFault) in
                for request in held where request.queue == index {
                    let written = try perform(request.chain, queues, &memory)
                    try queue.complete(request.chain.token, written: written, &memory)
                }
            }
        }
    }

    /// What the driver knows of the disk: its bytes u64, block size u32, whether it is read-only.
    public func saveState() -> [UInt8] {
        var state = StateWriter()
        state.add(store.byteCount)
        state.add(UInt32(store.blockSize))
        state.add(store.isReadOnly)
        return state.bytes
    }

    /// A disk stands in for one that is no larger, of the same blocks, and not writable where it is not itself.
    public func restoreState(_ state: [UInt8]) throws(ErrorNumber) {
        var state = StateReader(state)
        guard try state.take(UInt64.self) <= store.byteCount else { throw .invalid }
        try state.expect(UInt32(store.blockSize))
        guard try state.takeBool() || !store.isReadOnly else { throw .invalid }
        try state.finish()
    }

    // MARK: Service

    public func serve(_ index: Int, _ queues: QueueSet) -> Bool {
        let isLate = working.held.isEmpty ? false : serveHeld(index, queues)
        let isBusy = queues.withQueue(index) { (queue, memory) throws(RingFault) in
            var count = 0
            while count < Self.batch, try queue.next(&memory) {
                count += 1
                if try hold(back: queue.chain, index, &memory) { continue }
                let written = try perform(queue.chain, queues, &memory)
                try queue.complete(queue.chain.token, written: written, &memory)
            }
            return count > 0
        }
        return isLate || isBusy ?? false
    }

    /// Keeps a request that an injected fault delays, and comes back for it.
    private func hold(
        back chain: DescriptorChain, _ queue: Int, _ memory: inout HeldMemory
    ) throws(RingFault) -> Bool {
        let header = try Self.header(of: chain, &memory)
        let operation: BlockFault.Operation
        switch header.type {
        case BlockRequestType.read: operation = .read
        case BlockRequestType.write, BlockRequestType.writeZeroes: operation = .write
        case BlockRequestType.flush: operation = .flush
        case BlockRequestType.discard: operation = .discard
        default: return false
        }
        let count = header.type == BlockRequestType.read ? chain.writableBytes - 1 : chain.readableBytes
        guard let delay = store.delay(operation, at: header.offset ?? .max, count: UInt64(count)) else { return false }
        let due = MonotonicTime.after(delay)
        working.held.append((queue, due, chain))
        loop.schedule(at: due) { [weak self] in self?.working.queues?.watch(queue) }
        return true
    }

    private func serveHeld(_ index: Int, _ queues: QueueSet) -> Bool {
        let now = MonotonicTime.now
        let due = working.held.filter { $0.queue == index && $0.due <= now }
        guard !due.isEmpty else { return false }
        working.held.removeAll { $0.queue == index && $0.due <= now }
        _ = queues.withQueue(index) { (queue, memory) throws(RingFault) in
            for request in due {
                let written = try perform(request.chain, queues, &memory)
                try queue.complete(request.chain.token, written: written, &memory)
            }
        }
        return true
    }

    private static func header(
        of chain: DescriptorChain, _ memory: inout HeldMemory
    ) throws(RingFault) -> BlockRequestHeader {
        guard chain.readableBytes >= BlockRequestHeader.size else { throw .request("a block request without its head") }
        guard chain.writableBytes >= 1 else { throw .request("a block request without room for its status") }
        var words: (UInt64, UInt64) = (0, 0)
        // Safety: sixteen bytes of a local variable.
        try unsafe withUnsafeMutableBytes(of: &words) { (raw) throws(RingFault) in
            unsafe try chain.read(at: 0, into: raw, &memory)
        }
        return BlockRequestHeader(type: UInt32(truncatingIfNeeded: words.0), sector: words.1)
    }

    /// Carries out one request; the bytes written to its writable segments, the status included.
    private func perform(
        _ chain: DescriptorChain, _ queues: QueueSet, _ memory: inout HeldMemory
    ) throws(RingFault) -> Int {
        let header = try Self.header(of: chain, &memory)
        var status = BlockRequestStatus.success
        var written = 0
        do throws(BlockFailure) {
            switch header.type {
            case BlockRequestType.read:
                written = chain.writableBytes - 1
                try move(header, chain, queues, isWrite: false)
            case BlockRequestType.write: try move(header, chain, queues, isWrite: true)
            case BlockRequestType.flush: try store.flush()
            case BlockRequestType.identifier: written = try writeIdentifier(chain, &memory)
            case BlockRequestType.discard, BlockRequestType.writeZeroes:
                status = try clear(chain, zeroes: header.type == BlockRequestType.writeZeroes, &memory)
            default: status = .unsupported
            }
        } catch {
            guard error != .memory else {
                throw .memory(queues.isBusOff ? .disabled : .notMapped(chain.segments.first?.address ?? .init(0)))
            }
            status = .ioError
            written = 0
        }
        var byte = status.rawValue
        // Safety: one byte of a local variable.
        try unsafe withUnsafeBytes(of: &byte) { (raw) throws(RingFault) in
            unsafe try chain.write(at: chain.writableBytes - 1, from: raw, &memory)
        }
        return written + 1
    }

    private func move(
        _ header: BlockRequestHeader, _ chain: DescriptorChain, _ queues: QueueSet, isWrite: Bool
    ) throws(BlockFailure) {
        let transfer = working.transfer
        transfer.begin()
        let range = isWrite ? BlockRequestHeader.size..<chain.readableBytes : 0..<chain.writableBytes - 1
        var fits = true
        let add: (IOVirtualAddress, Int, Int) -> Void = { address, _, count in
            if !transfer.add(address.rawValue, count: count) { fits = false }
        }
        if isWrite { chain.forEachReadable(range, add) } else { chain.forEachWritable(range, add) }
        // Spec: virtio 1.2 §5.2.6.1: data in whole sectors.
        guard fits, let offset = header.offset, range.count % Int(BlockRequestHeader.sectorSize) == 0 else {
            throw .outOfRange
        }
        if isWrite {
            try transfer.write(store, at: offset, queues.dma)
        } else {
            try transfer.read(store, at: offset, queues.dma)
        }
    }

    private func writeIdentifier(_ chain: DescriptorChain, _ memory: inout HeldMemory) throws(BlockFailure) -> Int {
        let count = min(chain.writableBytes - 1, Self.identifierSize)
        let text = serial + [UInt8](repeating: 0, count: Self.identifierSize - serial.count)
        do throws(RingFault) {
            // Safety: bytes have no padding.
            try chain.write(unsafe text.span.bytes.extracting(first: count), at: 0, &memory)
        } catch {
            throw .memory
        }
        return count
    }

    /// Discards ranges or makes them zero. Spec: virtio 1.2 §5.2.6.2.
    private func clear(
        _ chain: DescriptorChain, zeroes: Bool, _ memory: inout HeldMemory
    ) throws(BlockFailure) -> BlockRequestStatus {
        guard !store.isReadOnly else { return .ioError }
        let bytes = chain.readableBytes - BlockRequestHeader.size
        guard bytes > 0, bytes % BlockRange.size == 0, bytes / BlockRange.size <= Self.maximumRanges else {
            return .ioError
        }
        for index in 0..<bytes / BlockRange.size {
            var words: (UInt64, UInt64) = (0, 0)
            do throws(RingFault) {
                // Safety: sixteen bytes of a local variable.
                try unsafe withUnsafeMutableBytes(of: &words) { (raw) throws(RingFault) in
                    unsafe try chain.read(
                        at: BlockRequestHeader.size + index * BlockRange.size, into: raw, &memory)
                }
            } catch {
                throw .memory
            }
            let range = BlockRange(
                sector: words.0, count: UInt32(truncatingIfNeeded: words.1),
                flags: UInt32(truncatingIfNeeded: words.1 >> 32))
            guard range.flags & ~(zeroes ? BlockRange.unmap : 0) == 0 else { return .unsupported }
            guard range.count <= (zeroes ? Self.maximumZeroSectors : Self.maximumDiscardSectors),
                let offset = BlockRequestHeader(type: 0, sector: range.sector).offset
            else { return .ioError }
            let count = UInt64(range.count) * BlockRequestHeader.sectorSize
            if zeroes {
                try store.writeZeroes(at: offset, count: count, mayDiscard: range.flags & BlockRange.unmap != 0)
            } else {
                try store.discard(at: offset, count: count)
            }
        }
        return .success
    }
}
