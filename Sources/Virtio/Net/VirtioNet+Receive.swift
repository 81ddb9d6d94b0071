public import Ethernet
internal import VFIOUser

extension VirtioNet {
    private enum Placement { case placed, noBuffers, tooLong }

    // MARK: FrameSink

    /// Takes frames for the driver: into its buffers, or to wait for some.
    public func take(_ stage: FrameStage, leavingBy port: SwitchPort?) -> (frames: Int, bytes: Int) {
        guard let queues = working.queues, !queues.isStopped, isLinkUp else { return (0, 0) }
        var taken = (frames: 0, bytes: 0)
        if working.backlog.isEmpty, working.activePairs == 1 {
            taken = receive(stage, port, queues)
        } else {
            for index in 0..<stage.count where stage.leaves(index, by: port) {
                keep(stage, index, &taken)
            }
            _ = drainBacklog()
        }
        return taken
    }

    /// Puts a frame into the backlog.
    private func keep(_ stage: FrameStage, _ index: Int, _ taken: inout (frames: Int, bytes: Int)) {
        stage.withFrame(index) { frame in
            // What the filter stops was taken, and thrown away, by the card.
            guard !working.filter.passes(frame) || working.backlog.append(frame) else { return }
            taken.frames &+= 1
            taken.bytes &+= frame.count
        }
        if !working.backlog.isEmpty { working.queues?.watch(0) }
    }

    /// One queue pair, nothing waiting: straight into the buffers.
    private func receive(
        _ stage: FrameStage, _ port: SwitchPort?, _ queues: QueueSet
    ) -> (frames: Int, bytes: Int) {
        var taken = (frames: 0, bytes: 0)
        var next = 0
        let isMergeable = queues.features.contains(VirtioNetFeature.mergeableBuffers)
        _ = queues.withQueue(0) { (queue, memory) throws(RingFault) in
            while next < stage.count {
                guard stage.leaves(next, by: port) else {
                    next &+= 1
                    continue
                }
                let passes = stage.withFrame(next) { working.filter.passes($0) }
                if passes {
                    switch try place(stage, next, &queue, &memory, isMergeable: isMergeable) {
                    case .placed: break
                    case .noBuffers: return
                    case .tooLong:
                        next &+= 1
                        continue
                    }
                }
                taken.frames &+= 1
                taken.bytes &+= stage.length(next)
                next &+= 1
            }
        }
        guard !queues.isStopped else { return taken }
        for index in next..<max(next, stage.count) where stage.leaves(index, by: port) { keep(stage, index, &taken) }
        return taken
    }

    /// Gives the driver what waits; true when something could be given.
    func drainBacklog() -> Bool {
        guard let queues = working.queues, !working.backlog.isEmpty else { return false }
        let isMergeable = queues.features.contains(VirtioNetFeature.mergeableBuffers)
        let stage = working.returning
        var isBusy = false
        while !working.backlog.isEmpty, !queues.isStopped {
            stage.removeAll()
            working.backlog.forEachFrame { frame in if stage.hasRoom { _ = stage.append(frame) } }
            var done = 0
            var isBlocked = false
            while done < stage.count, !isBlocked {
                // Frames for the same queue go in one go.
                let pair = stage.withFrame(done) { self.pair(for: $0) }
                let before = done
                _ = queues.withQueue(2 * pair) { (queue, memory) throws(RingFault) in
                    while done < stage.count, stage.withFrame(done, { self.pair(for: $0) }) == pair {
                        guard
                            try place(stage, done, &queue, &memory, isMergeable: isMergeable) != .noBuffers
                        else { return }
                        done &+= 1
                    }
                }
                if done == before {
                    isBlocked = true
                    queues.watch(2 * pair)
                }
            }
            for index in 0..<done {
                working.backlog.consume(FrameBatch.prefixLength &+ stage.length(index))
            }
            if done > 0 { isBusy = true }
            if isBlocked { break }
        }
        return isBusy
    }

    /// Copies a frame into the driver's buffers; with mergeable ones into as many as it takes.
    @inline(__always)
    private func place(
        _ stage: FrameStage, _ index: Int, _ queue: inout Virtqueue, _ memory: inout HeldMemory, isMergeable: Bool
    ) throws(RingFault) -> Placement {
        let total = VirtioNetHeader.size &+ stage.length(index)
        let position = queue.position
        guard try queue.next(&memory) else { return .noBuffers }
        // Spec: virtio 1.2 §5.1.6.3.1.
        guard queue.chain.readableBytes == 0 else { throw .request("a receive buffer with readable bytes") }
        if queue.chain.writableBytes >= total {
            try unsafe stage.withBytes(index, prefix: VirtioNetHeader.size) { (bytes) throws(RingFault) in
                unsafe Self.writeHeader(bytes, buffers: 1)
                unsafe try queue.chain.write(at: 0, from: UnsafeRawBufferPointer(bytes), &memory)
            }
            try queue.complete(queue.chain.token, written: total, &memory)
            return .placed
        }
        guard isMergeable else {
            // The buffer is too small for this frame, not for the next.
            queue.rewind(to: position)
            return .tooLong
        }
        return try placeInMany(stage, index, &queue, &memory, position)
    }

    /// The first buffer was taken already.
    private func placeInMany(
        _ stage: FrameStage, _ index: Int, _ queue: inout Virtqueue, _ memory: inout HeldMemory,
        _ position: Virtqueue.Position
    ) throws(RingFault) -> Placement {
        let total = VirtioNetHeader.size &+ stage.length(index)
        working.buffers.removeAll(keepingCapacity: true)
        var room = 0
        // How many it takes is in the first one's header, so all are found before anything is written.
        while true {
            guard queue.chain.readableBytes == 0 else { throw .request("a receive buffer with readable bytes") }
            let count = min(queue.chain.writableBytes, total &- room)
            working.buffers.append((queue.chain.token, count))
            room &+= count
            if room == total { break }
            guard working.buffers.count < Int(queue.size), try queue.next(&memory) else {
                queue.rewind(to: position)
                return working.buffers.count < Int(queue.size) ? .noBuffers : .tooLong
            }
        }
        queue.rewind(to: position)
        try unsafe stage.withBytes(index, prefix: VirtioNetHeader.size) { (bytes) throws(RingFault) in
            unsafe Self.writeHeader(bytes, buffers: UInt16(truncatingIfNeeded: working.buffers.count))
            var done = 0
            for number in working.buffers.indices {
                guard try queue.next(&memory) else { throw .request("receive buffers that went away") }
                // The driver may have changed what it promised meanwhile: never more than there is.
                let count = working.buffers[number].written
                guard queue.chain.writableBytes >= count, queue.chain.token == working.buffers[number].token else {
                    throw .request("a receive buffer that changed")
                }
                // Safety: the counts add up to the bytes.
                let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<done &+ count])
                unsafe try queue.chain.write(at: 0, from: part, &memory)
                done &+= count
            }
        }
        for buffer in working.buffers { try queue.complete(buffer.token, written: buffer.written, &memory) }
        return .placed
    }

    @inline(__always)
    private static func writeHeader(_ bytes: UnsafeMutableRawBufferPointer, buffers: UInt16) {
        // Safety: the bytes begin with a header's twelve.
        unsafe bytes.storeBytes(of: 0, toByteOffset: 0, as: UInt64.self)
        unsafe bytes.storeBytes(of: UInt32(buffers) << 16, toByteOffset: 8, as: UInt32.self)
    }

    // MARK: Several queue pairs

    /// The pair that a frame's flow is received by: the one that its answers were last sent by.
    /// Spec: virtio 1.2 §5.1.6.5.6.1 (automatic receive steering).
    private func pair(for frame: Span<UInt8>) -> Int {
        guard working.activePairs > 1 else { return 0 }
        return min(Int(working.flows[Self.flow(of: frame)]), working.activePairs - 1)
    }

    func learnFlows(_ pair: UInt8) {
        let stage = working.stage
        for index in 0..<stage.count { stage.withFrame(index) { working.flows[Self.flow(of: $0)] = pair } }
    }

    /// Both directions of a conversation fall together: addresses and ports count without their order.
    static func flow(of frame: Span<UInt8>) -> Int {
        guard frame.count >= EthernetFrame.headerLength else { return 0 }
        var hash = frame.macAddress(at: 0).rawValue ^ frame.macAddress(at: 6).rawValue
        let isIPv4 = frame.networkUInt16(at: 12) == EtherType.ipv4.rawValue && frame.count >= 38
        if isIPv4, frame[14] == 0x45 {
            hash ^= UInt64(frame.networkUInt32(at: 26) ^ frame.networkUInt32(at: 30)) << 16
            if frame[23] == 6 || frame[23] == 17 {
                hash ^= UInt64(frame.networkUInt16(at: 34) ^ frame.networkUInt16(at: 36)) << 32
            }
        }
        return Int(truncatingIfNeeded: (hash &* 0x9E37_79B9_7F4A_7C15) >> 56)
    }
}
