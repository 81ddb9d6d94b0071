internal import PCIe
public import VFIOUser

/// Why a driver cannot work with a device.
public enum VirtioDriverError: Error, Sendable, CustomStringConvertible {
    case device(String)
    case link(VFIOUserError)

    public var description: String {
        switch self {
        case .device(let text): text
        case .link(let error): "\(error)"
        }
    }
}

/// A driver of a virtio function outside any guest: finds its structures by their capabilities, negotiates, and sets up
/// queues, over vfio-user.
///
/// Spec: virtio 1.2 §3.1, §4.1.5.
public final class VirtioDriver: Sendable {
    /// A structure's place: base address register, offset, length.
    public struct Place: Hashable, Sendable {
        public var bar: UInt32
        public var offset: UInt64
        public var length: UInt64
    }

    public let client: VFIOUserClient
    public let common: Place
    public let notify: Place
    public let interruptStatus: Place
    public let device: Place
    public let notifyMultiplier: UInt64
    /// Where the window's capability lies in configuration space.
    public let window: Int

    /// Turns memory space and bus mastering on and finds the structures.
    public init(_ client: VFIOUserClient) throws(VirtioDriverError) {
        self.client = client
        client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: 6)
        var places: [UInt8: Place] = [:]
        var multiplier: UInt64 = 0
        var window = 0
        func config(_ offset: Int, _ width: Int) -> UInt64 {
            client.read(region: Endpoint.configurationRegion, offset: UInt64(offset), width: width)
        }
        var next = Int(config(0x34, 1))
        for _ in 0..<48 where next >= 0x40 {
            if config(next, 1) == UInt64(CapabilityID.vendorSpecific) {
                let type = UInt8(truncatingIfNeeded: config(next + 3, 1))
                let place = Place(
                    bar: UInt32(config(next + 4, 1)), offset: config(next + 8, 4), length: config(next + 12, 4))
                if places[type] == nil { places[type] = place }
                if type == TransportLayout.notify.type { multiplier = config(next + 16, 4) }
                if type == TransportLayout.windowType { window = next }
            }
            next = Int(config(next + 1, 1))
        }
        func find(_ type: UInt8) throws(VirtioDriverError) -> Place {
            guard let place = places[type] else { throw .device("the function has no virtio structure \(type)") }
            return place
        }
        common = try find(TransportLayout.common.type)
        notify = try find(TransportLayout.notify.type)
        interruptStatus = try find(TransportLayout.interruptStatus.type)
        device = try find(TransportLayout.device.type)
        notifyMultiplier = multiplier
        self.window = window
    }

    // MARK: Registers

    public func read(_ place: Place, _ offset: Int, _ width: Int) -> UInt64 {
        client.read(region: place.bar, offset: place.offset + UInt64(offset), width: width)
    }

    public func write(_ place: Place, _ offset: Int, _ width: Int, _ value: UInt64) {
        client.write(region: place.bar, offset: place.offset + UInt64(offset), width: width, value: value)
    }

    public var status: VirtioStatus {
        VirtioStatus(rawValue: UInt8(truncatingIfNeeded: read(common, CommonField.deviceStatus, 1)))
    }

    public func addStatus(_ bits: VirtioStatus) {
        write(common, CommonField.deviceStatus, 1, UInt64(status.union(bits).rawValue))
    }

    /// What the device offers.
    public var offered: VirtioFeatures {
        var value: UInt64 = 0
        for word in 0..<2 {
            write(common, CommonField.deviceFeatureSelect, 4, UInt64(word))
            value |= read(common, CommonField.deviceFeature, 4) << UInt64(word * 32)
        }
        return VirtioFeatures(rawValue: value)
    }

    // MARK: Starting

    /// Resets the device and waits until that is done.
    public func reset() {
        write(common, CommonField.deviceStatus, 1, 0)
        while !client.isGone, read(common, CommonField.deviceStatus, 1) != 0 {}
    }

    /// Resets and negotiates; up to FEATURES_OK. Returns what was agreed: the wanted features that are offered.
    @discardableResult
    public func negotiate(_ wanted: VirtioFeatures) throws(VirtioDriverError) -> VirtioFeatures {
        reset()
        addStatus(.acknowledge)
        addStatus(.driver)
        let agreed = wanted.union(.version1).intersection(offered)
        setFeatures(agreed)
        addStatus(.featuresOK)
        guard status.contains(.featuresOK) else { throw .device("the device refuses \(agreed)") }
        return agreed
    }

    public func setFeatures(_ features: VirtioFeatures) {
        for word in 0..<2 {
            write(common, CommonField.driverFeatureSelect, 4, UInt64(word))
            write(common, CommonField.driverFeature, 4, features.rawValue >> UInt64(word * 32) & 0xFFFF_FFFF)
        }
    }

    /// Gives the device a queue and, if wanted, the vector that it interrupts by.
    public func enable(_ index: Int, _ queue: DriverQueue, vector: UInt16? = nil) {
        write(common, CommonField.queueSelect, 2, UInt64(index))
        write(common, CommonField.queueSize, 2, UInt64(queue.size))
        if let vector { write(common, CommonField.queueVector, 2, UInt64(vector)) }
        let addresses = queue.addresses
        for (field, address) in [
            (CommonField.queueDescriptors, addresses.descriptors), (CommonField.queueDriver, addresses.driver),
            (CommonField.queueDevice, addresses.device),
        ] {
            write(common, field, 4, address & 0xFFFF_FFFF)
            write(common, field + 4, 4, address >> 32)
        }
        write(common, CommonField.queueEnable, 2, 1)
    }

    /// The driver is ready.
    public func start() { addStatus(.driverOK) }

    /// Tells the device to look at a queue; waits for no answer.
    public func kick(_ index: Int) {
        client.post(
            region: notify.bar, offset: notify.offset + UInt64(index) * notifyMultiplier, width: 2,
            value: UInt64(index))
    }
}
