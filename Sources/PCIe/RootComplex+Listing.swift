internal import Synchronization
internal import VFIOUser

extension RootComplex {
    /// Every function that a guest finds on its buses or would find once it numbers them, in the order of addresses,
    /// with its configuration space. Nothing changes by it, in the guest or in a device. Not on a hart's thread: a device
    /// that hangs is waited for.
    public func functions() -> [FunctionListing] {
        var found = (0...ports.count).map { device in
            let bytes = stride(from: 0, to: ConfigurationSpace.size, by: 4).flatMap { place -> [UInt8] in
                let word = configRead(UInt64(device) << 15 | UInt64(place), width: 4)
                return (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt64($0 * 8)) }
            }
            return FunctionListing(bus: 0, device: UInt8(device), function: 0, port: nil, configuration: bytes)
        }
        for port in ports {
            let bus = port.state.withLock { $0.registers.secondaryBus }
            for number in 0..<8 {
                guard let target = port.target(number), var bytes = target.function.configuration() else { continue }
                if number == 0, target.isMultiple {
                    bytes[ConfigurationRegister.headerType] |= HeaderType.multipleFunctions
                }
                found.append(
                    FunctionListing(
                        bus: bus ?? 0, device: 0, function: UInt8(number), port: port.number, configuration: bytes,
                        baseAddresses: target.function.profile.bars.map { bar in
                            .init(index: bar.index, size: bar.size, isIO: bar.isIO)
                        }))
            }
        }
        return found
    }
}

extension AttachedFunction {
    /// The whole configuration space as a guest reads it, as long as the device has it; nil when the device is gone.
    /// What has an effect when it is read is zero.
    func configuration() -> [UInt8]? {
        let length = min(
            Int(clamping: client.regions[Int(Endpoint.configurationRegion)].length), ConfigurationSpace.size)
        var bytes = [UInt8](repeating: 0, count: length)
        let pieces = window.map { [0..<$0.lowerBound, $0.upperBound..<length] } ?? [0..<length]
        for piece in pieces {
            var part = [UInt8](repeating: 0, count: piece.count)
            do throws(VFIOUserError) {
                var span = part.mutableSpan
                // Safety: every bit pattern is a valid byte.
                var raw = unsafe span.mutableBytes
                try client.read(region: Endpoint.configurationRegion, offset: UInt64(piece.lowerBound), into: &raw)
            } catch { return nil }
            bytes.replaceSubrange(piece, with: part)
        }
        // What the host keeps, alone or with the device.
        for place in stride(from: 0, to: length - 3, by: 4)
        where holders[place..<(place + 4)].contains(where: { $0 != .device }) {
            let word = readConfiguration(place, width: 4)
            for index in 0..<4 { bytes[place + index] = UInt8(truncatingIfNeeded: word >> UInt64(index * 8)) }
        }
        return client.isGone ? nil : bytes
    }

    /// A register whose reading does something: the data of virtio's configuration access capability, which is a read
    /// of a base address register. Spec: virtio 1.2 §4.1.4.9.
    private var window: Range<Int>? {
        let bytes = profile.bytes
        guard bytes[0] == 0xF4, bytes[1] == 0x1A else { return nil }
        var place = Int(bytes[ConfigurationRegister.capabilityList] & 0xFC)
        // 48 capabilities of 4 bytes fill the list; a chain that is longer loops.
        for _ in 0..<48 where (ConfigurationRegister.headerSize..<0xEC).contains(place) {
            // Vendor-specific, of the kind VIRTIO_PCI_CAP_PCI_CFG: 16 bytes that say where, then the data.
            if bytes[place] == CapabilityID.vendorSpecific, bytes[place + 3] == 5 { return place + 16..<place + 20 }
            place = Int(bytes[place + 1] & 0xFC)
        }
        return nil
    }
}
