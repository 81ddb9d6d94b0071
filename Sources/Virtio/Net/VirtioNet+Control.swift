internal import Ethernet
internal import Synchronization
internal import VFIOUser

/// The control queue: class u8, command u8, data; then one byte that the device writes.
extension VirtioNet {
    /// The longest command: two full address tables, and some more that overflow.
    private static let maximumCommand = 2048
    private static let batch = 16

    func serveControl(_ index: Int, _ queues: QueueSet) -> Bool {
        queues.withQueue(index) { (queue, memory) throws(RingFault) in
            var count = 0
            while count < Self.batch, try queue.next(&memory) {
                let chain = queue.chain
                guard chain.readableBytes >= 2, chain.writableBytes >= 1 else {
                    throw .request("a control command without its head or room for its answer")
                }
                var command = [UInt8](repeating: 0, count: min(chain.readableBytes, Self.maximumCommand))
                do {
                    var span = command.mutableSpan
                    // Safety: every bit pattern is a valid byte; the pointer is used only inside the call.
                    var bytes = unsafe span.mutableBytes
                    try unsafe bytes.withUnsafeMutableBytes { (raw) throws(RingFault) in
                        unsafe try chain.read(at: 0, into: raw, &memory)
                    }
                }
                let isDone = chain.readableBytes <= Self.maximumCommand && perform(command, queues)
                let answer = [isDone ? NetControl.success : NetControl.error]
                // Safety: bytes have no padding.
                try chain.write(unsafe answer.span.bytes, at: chain.writableBytes - 1, &memory)
                try queue.complete(chain.token, written: chain.writableBytes, &memory)
                count += 1
            }
            return count > 0
        } ?? false
    }

    /// Carries out one command; false when it makes no sense or was not negotiated.
    private func perform(_ command: [UInt8], _ queues: QueueSet) -> Bool {
        let data = Array(command.dropFirst(2))
        let features = queues.features
        switch (command[0], command[1]) {
        case (NetControl.receive, let mode) where features.contains(VirtioNetFeature.controlReceive):
            guard data.count == 1, data[0] <= 1 else { return false }
            return setMode(mode, data[0] == 1, hasExtra: features.contains(VirtioNetFeature.controlReceiveExtra))
        case (NetControl.macAddress, NetControl.setTable) where features.contains(VirtioNetFeature.controlReceive):
            return setTables(data)
        case (NetControl.macAddress, NetControl.setAddress)
        where features.contains(VirtioNetFeature.controlMACAddress):
            return setAddress(data)
        case (NetControl.vlan, NetControl.addVLAN), (NetControl.vlan, NetControl.removeVLAN):
            guard features.contains(VirtioNetFeature.controlVLAN), data.count == 2 else { return false }
            return working.filter.setVLAN(
                UInt16(data[0]) | UInt16(data[1]) << 8, passes: command[1] == NetControl.addVLAN)
        case (NetControl.multiqueue, NetControl.setQueuePairs) where features.contains(VirtioNetFeature.multiqueue):
            guard data.count == 2 else { return false }
            let pairs = Int(data[0]) | Int(data[1]) << 8
            guard (1...queuePairs).contains(pairs) else { return false }
            working.activePairs = pairs
            return true
        default: return false
        }
    }

    private func setMode(_ mode: UInt8, _ on: Bool, hasExtra: Bool) -> Bool {
        switch mode {
        case NetControl.promiscuous: working.filter.isPromiscuous = on
        case NetControl.allMulticast: working.filter.takesAllMulticast = on
        case NetControl.allUnicast where hasExtra: working.filter.takesAllUnicast = on
        case NetControl.noMulticast where hasExtra: working.filter.dropsMulticast = on
        case NetControl.noUnicast where hasExtra: working.filter.dropsUnicast = on
        case NetControl.noBroadcast where hasExtra: working.filter.dropsBroadcast = on
        default: return false
        }
        return true
    }

    private static func address(_ bytes: ArraySlice<UInt8>) -> MACAddress {
        MACAddress(rawValue: bytes.reduce(0) { $0 << 8 | UInt64($1) })
    }

    /// Two tables, unicast and multicast: entries u32, then six octets each.
    private func setTables(_ data: [UInt8]) -> Bool {
        var tables: [[MACAddress]] = []
        var place = 0
        for _ in 0..<2 {
            guard place + 4 <= data.count else { return false }
            let count = (0..<4).reduce(0) { $0 | Int(data[place + $1]) << ($1 * 8) }
            place += 4
            guard count <= (data.count - place) / 6 else { return false }
            tables.append((0..<count).map { Self.address(data[(place + $0 * 6)..<(place + $0 * 6 + 6)]) })
            place += count * 6
        }
        guard place == data.count else { return false }
        working.filter.setTables(unicast: tables[0], multicast: tables[1])
        return true
    }

    private func setAddress(_ data: [UInt8]) -> Bool {
        guard data.count == 6 else { return false }
        let address = Self.address(data[...])
        guard !address.isMulticast, address != .unspecified else { return false }
        working.filter.address = address
        shared.withLock { $0.address = address }
        return true
    }
}
