// The answer to `query-pci`: what is on the host's PCI buses, whoever has or has not enumerated them.
//
// Spec: QEMU qapi/pci.json "PciInfo". Beyond QEMU's members each device has `config`, its configuration space in
// hexadecimal. A `qdev_id` names the port of a root port, such as "rp0", and is empty otherwise.

import PCIe
import QMP

enum PCIInformation {
    /// The root bus, with what is behind each bridge inside the bridge.
    static func json(_ functions: [FunctionListing]) -> JSONValue {
        let devices = functions.filter { $0.port == nil }.map { root in
            // Root port n is device n + 1, after the host bridge.
            let port = Int(root.device) - 1
            return device(root, port: port, behind: functions.filter { $0.port != nil && $0.port == port })
        }
        return [["bus": 0, "devices": .array(devices)]]
    }

    private static func device(_ it: FunctionListing, port: Int, behind: [FunctionListing]) -> JSONValue {
        let header = it.register(ConfigurationRegister.headerType, width: 1) & 0x7F
        var id: [String: JSONValue] = [
            "vendor": number(it, ConfigurationRegister.vendorID, 2),
            "device": number(it, ConfigurationRegister.deviceID, 2),
        ]
        if header == 0 {
            id["subsystem"] = number(it, ConfigurationRegister.subsystemID, 2)
            id["subsystem-vendor"] = number(it, ConfigurationRegister.subsystemVendorID, 2)
        }
        let pin = it.register(ConfigurationRegister.interruptPin, width: 1)
        var members: [String: JSONValue] = [
            "bus": .integer(Int64(it.bus)), "slot": .integer(Int64(it.device)),
            "function": .integer(Int64(it.function)),
            "class_info": ["class": number(it, ConfigurationRegister.classDevice, 2)],
            "id": .object(id), "irq_pin": .integer(Int64(pin)),
            "qdev_id": .string(header == 1 && it.port == nil ? "rp\(port)" : ""),
            "regions": .array(it.baseAddresses.map { region(it, $0) }),
            "config": .string(hexadecimal(it.configuration)),
        ]
        if pin != 0 { members["irq"] = number(it, ConfigurationRegister.interruptLine, 1) }
        if header == 1 { members["pci_bridge"] = bridge(it, behind) }
        return .object(members)
    }

    private static func number(_ it: FunctionListing, _ register: Int, _ width: Int) -> JSONValue {
        .integer(Int64(it.register(register, width: width)))
    }

    private static func region(_ it: FunctionListing, _ base: FunctionListing.BaseAddress) -> JSONValue {
        let isROM = base.index == 6
        let place = isROM ? ConfigurationRegister.romAddress : ConfigurationRegister.baseAddress0 + base.index * 4
        let low = it.register(place, width: 4)
        var members: [String: JSONValue] = ["bar": .integer(Int64(base.index)), "size": .unsigned(base.size)]
        if base.isIO {
            members["type"] = "io"
            members["address"] = .unsigned(UInt64(low & ~3))
            return .object(members)
        }
        let is64Bit = !isROM && low & BaseAddressBits.memory64 != 0 && base.index < 5
        let high = is64Bit ? it.register(place + 4, width: 4) : 0
        members["type"] = "memory"
        members["address"] = .unsigned(UInt64(high) << 32 | UInt64(low & (isROM ? ~0x7FF : ~0xF)))
        members["prefetch"] = .bool(!isROM && low & BaseAddressBits.prefetchable != 0)
        members["mem_type_64"] = .bool(is64Bit)
        return .object(members)
    }

    private static func bridge(_ it: FunctionListing, _ behind: [FunctionListing]) -> JSONValue {
        func word(_ register: Int) -> UInt64 { UInt64(it.register(register, width: 2)) }
        func long(_ register: Int) -> UInt64 { UInt64(it.register(register, width: 4)) }
        let io = it.register(ConfigurationRegister.ioBase, width: 2)
        let prefetchableBase =
            word(ConfigurationRegister.prefetchableBase) << 16 & 0xFFF0_0000
            | long(ConfigurationRegister.prefetchableBaseUpper) << 32
        let prefetchableLimit =
            word(ConfigurationRegister.prefetchableLimit) << 16 | 0xF_FFFF
            | long(ConfigurationRegister.prefetchableLimitUpper) << 32
        var members: [String: JSONValue] = [
            "bus": [
                "number": number(it, ConfigurationRegister.primaryBus, 1),
                "secondary": number(it, ConfigurationRegister.secondaryBus, 1),
                "subordinate": number(it, ConfigurationRegister.subordinateBus, 1),
                "io_range": [
                    "base": .integer(Int64(io & 0xF0) << 8), "limit": .integer(Int64(io & 0xF000 | 0xFFF)),
                ],
                "memory_range": [
                    "base": .unsigned(word(ConfigurationRegister.memoryBase) << 16 & 0xFFF0_0000),
                    "limit": .unsigned(word(ConfigurationRegister.memoryLimit) << 16 | 0xF_FFFF),
                ],
                "prefetchable_range": ["base": .unsigned(prefetchableBase), "limit": .unsigned(prefetchableLimit)],
            ]
        ]
        if !behind.isEmpty { members["devices"] = .array(behind.map { device($0, port: -1, behind: []) }) }
        return .object(members)
    }

    private static func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count * 2)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
