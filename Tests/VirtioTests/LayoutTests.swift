import Foundation
import PCIe
import Testing
import Virtio

/// Numbers against those of Linux's headers for programs (linux-libc-dev).
struct LayoutTests {
    /// The value of a `#define`, decimal or hexadecimal.
    private func define(_ name: String, in header: String) throws -> Int {
        let text = try String(contentsOfFile: "/usr/include/linux/\(header).h", encoding: .utf8)
        for line in text.split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count >= 3, words[0] == "#define", words[1] == name else { continue }
            let value = words[2]
            return try #require(value.hasPrefix("0x") ? Int(value.dropFirst(2), radix: 16) : Int(value))
        }
        throw Missing(name: name)
    }

    struct Missing: Error { var name: String }

    @Test(arguments: [
        ("VIRTIO_PCI_COMMON_DFSELECT", CommonField.deviceFeatureSelect),
        ("VIRTIO_PCI_COMMON_DF", CommonField.deviceFeature),
        ("VIRTIO_PCI_COMMON_GFSELECT", CommonField.driverFeatureSelect),
        ("VIRTIO_PCI_COMMON_GF", CommonField.driverFeature),
        ("VIRTIO_PCI_COMMON_MSIX", CommonField.configVector), ("VIRTIO_PCI_COMMON_NUMQ", CommonField.queueCount),
        ("VIRTIO_PCI_COMMON_STATUS", CommonField.deviceStatus),
        ("VIRTIO_PCI_COMMON_CFGGENERATION", CommonField.configGeneration),
        ("VIRTIO_PCI_COMMON_Q_SELECT", CommonField.queueSelect), ("VIRTIO_PCI_COMMON_Q_SIZE", CommonField.queueSize),
        ("VIRTIO_PCI_COMMON_Q_MSIX", CommonField.queueVector), ("VIRTIO_PCI_COMMON_Q_ENABLE", CommonField.queueEnable),
        ("VIRTIO_PCI_COMMON_Q_NOFF", CommonField.queueNotifyOffset),
        ("VIRTIO_PCI_COMMON_Q_DESCLO", CommonField.queueDescriptors),
        ("VIRTIO_PCI_COMMON_Q_AVAILLO", CommonField.queueDriver),
        ("VIRTIO_PCI_COMMON_Q_USEDLO", CommonField.queueDevice),
        ("VIRTIO_PCI_COMMON_Q_NDATA", CommonField.queueNotifyData),
        ("VIRTIO_PCI_COMMON_Q_RESET", CommonField.queueReset),
        ("VIRTIO_MSI_NO_VECTOR", Int(TransportLayout.noVector)),
        ("VIRTIO_PCI_CAP_COMMON_CFG", Int(TransportLayout.common.type)),
        ("VIRTIO_PCI_CAP_NOTIFY_CFG", Int(TransportLayout.notify.type)),
        ("VIRTIO_PCI_CAP_ISR_CFG", Int(TransportLayout.interruptStatus.type)),
        ("VIRTIO_PCI_CAP_DEVICE_CFG", Int(TransportLayout.device.type)),
        ("VIRTIO_PCI_CAP_PCI_CFG", Int(TransportLayout.windowType)),
    ])
    func `the transport's numbers are those of linux/virtio_pci.h`(_ name: String, _ value: Int) throws {
        #expect(try define(name, in: "virtio_pci") == value)
    }

    @Test(arguments: [
        ("VIRTIO_CONFIG_S_ACKNOWLEDGE", VirtioStatus.acknowledge), ("VIRTIO_CONFIG_S_DRIVER", .driver),
        ("VIRTIO_CONFIG_S_DRIVER_OK", .driverOK), ("VIRTIO_CONFIG_S_FEATURES_OK", .featuresOK),
        ("VIRTIO_CONFIG_S_NEEDS_RESET", .deviceNeedsReset), ("VIRTIO_CONFIG_S_FAILED", .failed),
    ])
    func `status bits are those of linux/virtio_config.h`(_ name: String, _ bit: VirtioStatus) throws {
        #expect(try define(name, in: "virtio_config") == Int(bit.rawValue))
    }

    @Test(arguments: [
        ("VIRTIO_F_VERSION_1", "virtio_config", VirtioFeatures.version1),
        ("VIRTIO_F_ACCESS_PLATFORM", "virtio_config", .accessPlatform),
        ("VIRTIO_F_RING_PACKED", "virtio_config", .packedRing), ("VIRTIO_F_RING_RESET", "virtio_config", .ringReset),
        ("VIRTIO_RING_F_INDIRECT_DESC", "virtio_ring", .indirectDescriptors),
        ("VIRTIO_RING_F_EVENT_IDX", "virtio_ring", .eventIndex),
    ])
    func `feature bits are those of Linux's headers`(_ name: String, _ header: String, _ bit: VirtioFeatures) throws {
        #expect(VirtioFeatures(bit: try define(name, in: header)) == bit)
    }

    @Test(arguments: [
        ("VIRTIO_ID_NET", VirtioDeviceType.network), ("VIRTIO_ID_BLOCK", .block), ("VIRTIO_ID_CONSOLE", .console),
        ("VIRTIO_ID_RNG", .entropy),
    ])
    func `device types are those of linux/virtio_ids.h`(_ name: String, _ type: VirtioDeviceType) throws {
        #expect(try define(name, in: "virtio_ids") == Int(type.rawValue))
    }

    @Test func `the function's configuration space leads a driver to its structures`() throws {
        let description = VirtioFunction.description(of: VirtioEntropy(), subsystem: 0x40)
        let space = description.makeConfigurationSpace()
        #expect(space.get16(0) == 0x1AF4 && space.get16(2) == 0x1044 && space.get8(8) >= 1)
        var found: [UInt8: (bar: UInt8, offset: UInt32, length: UInt32)] = [:]
        for place in space.capabilities(CapabilityID.vendorSpecific) {
            found[space.get8(place + 3)] = (space.get8(place + 4), space.get32(place + 8), space.get32(place + 12))
        }
        #expect(Set(found.keys) == [1, 2, 3, 4, 5])
        for type: UInt8 in 1...4 {
            let place = try #require(found[type])
            let bar = try #require(description.bars.first { $0.index == Int(place.bar) })
            #expect(UInt64(place.offset) + UInt64(place.length) <= bar.size && place.offset % 4 == 0)
        }
        let notify = try #require(space.capabilities(CapabilityID.vendorSpecific).first { space.get8($0 + 3) == 2 })
        #expect(space.get8(notify + 2) == 20 && space.get32(notify + 16) == 4)
    }
}
