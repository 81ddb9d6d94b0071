// What `query-pci` of a host answers, for `baseboard lspci`: addresses, configuration spaces, and the text that lspci
// prints of them and reads again by -F.

import PCINames
import QMP

/// One function and its configuration space.
struct PCIFunction {
    var bus: UInt8
    var device: UInt8
    var function: UInt8
    /// The root port, such as "rp0": its own, or the one that it is behind.
    var port: String
    /// False behind a root port whose bus the guest has not numbered: the function has no address yet.
    var isNumbered = true
    /// 64 to 4096 bytes.
    var configuration: [UInt8]

    var address: String {
        "\(hexadecimal(bus)):\(hexadecimal(device)).\(function)"
    }

    var vendor: UInt16 { word(0x00) }
    var deviceID: UInt16 { word(0x02) }
    /// Base class and subclass.
    var classCode: UInt16 { word(0x0A) }
    var revision: UInt8 { configuration[0x08] }
    var programmingInterface: UInt8 { configuration[0x09] }
    /// Vendor and number of the subsystem; nil for what is no endpoint.
    var subsystem: (vendor: UInt16, number: UInt16)? {
        configuration[0x0E] & 0x7F == 0 ? (word(0x2C), word(0x2E)) : nil
    }

    private func word(_ offset: Int) -> UInt16 {
        UInt16(configuration[offset]) | UInt16(configuration[offset + 1]) << 8
    }

    /// lspci's one line, without its end.
    func line(_ names: PCINames) -> String {
        "\(address) \(names.className(classCode)): \(names.fullName(vendor: vendor, device: deviceID))"
            + (revision == 0 ? "" : " (rev \(hexadecimal(revision)))")
    }

    /// So many bytes of configuration space, as many as there are, as lspci's -x, -xxx and -xxxx.
    func dump(_ count: Int) -> String {
        var text = ""
        for start in stride(from: 0, to: min(count, configuration.count), by: 16) {
            let offset = String(start, radix: 16)
            text += (offset.count < 2 ? "0" : "") + offset + ":"
            for byte in configuration[start..<min(start + 16, configuration.count)] { text += " " + hexadecimal(byte) }
            text += "\n"
        }
        return text
    }

    func json(_ names: PCINames) -> JSONValue {
        func named(_ number: UInt16, _ name: String) -> JSONValue {
            ["id": .integer(Int64(number)), "name": .string(name)]
        }
        var members: [String: JSONValue] = [
            "address": isNumbered ? .string(address) : .null, "port": .string(port),
            "class": named(classCode, names.className(classCode)),
            "vendor": named(vendor, names.vendorName(vendor)),
            "device": named(deviceID, names.deviceName(vendor: vendor, device: deviceID)),
            "revision": .integer(Int64(revision)), "programmingInterface": .integer(Int64(programmingInterface)),
            "configuration": .string(configuration.map(hexadecimal).joined()),
        ]
        if let subsystem, subsystem.vendor != 0 {
            members["subsystem"] = [
                "vendor": .integer(Int64(subsystem.vendor)), "id": .integer(Int64(subsystem.number)),
                "name": .string(
                    names.subsystemName(
                        vendor: vendor, device: deviceID, subsystemVendor: subsystem.vendor,
                        subsystem: subsystem.number)),
            ]
        }
        return .object(members)
    }
}

/// Two digits.
private func hexadecimal(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16)
    return digits.count == 1 ? "0" + digits : digits
}

/// Every function of a host's buses.
struct PCIBuses {
    /// By address; those without one are last.
    var functions: [PCIFunction] = []

    /// Nil when this is no answer to `query-pci` with configuration spaces.
    init?(json: JSONValue) {
        guard let buses = json.arrayValue else { return nil }
        for bus in buses {
            guard let devices = bus["devices"]?.arrayValue, add(devices, behind: nil) else { return nil }
        }
        functions.sort { one, other in
            (one.isNumbered ? 0 : 1, one.bus, one.device, one.function)
                < (other.isNumbered ? 0 : 1, other.bus, other.device, other.function)
        }
    }

    private mutating func add(_ devices: [JSONValue], behind bridge: PCIFunction?) -> Bool {
        for device in devices {
            guard let bus = device["bus"]?.integerValue.flatMap(UInt8.init(exactly:)),
                let slot = device["slot"]?.integerValue.flatMap(UInt8.init(exactly:)), slot < 32,
                let function = device["function"]?.integerValue.flatMap(UInt8.init(exactly:)), function < 8,
                let bytes = device["config"]?.stringValue.flatMap(Self.bytes), (64...4096).contains(bytes.count)
            else { return false }
            var it = PCIFunction(
                bus: bus, device: slot, function: function, port: device["qdev_id"]?.stringValue ?? "",
                configuration: bytes)
            if let bridge {
                // A card's further functions are on ports of their own, as in a topology: rp0.1.
                it.port = bridge.port + (function == 0 ? "" : ".\(function)")
                it.isNumbered = bridge.isNumbered && bus != 0
            }
            functions.append(it)
            if let behind = device["pci_bridge"]?["devices"]?.arrayValue {
                guard add(behind, behind: it) else { return false }
            }
        }
        return true
    }

    private static func bytes(_ text: String) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 2)
        for place in stride(from: 0, to: digits.count, by: 2) {
            guard let high = Character(UnicodeScalar(digits[place])).hexDigitValue,
                let low = Character(UnicodeScalar(digits[place + 1])).hexDigitValue
            else { return nil }
            bytes.append(UInt8(high << 4 | low))
        }
        return bytes
    }

    /// What `lspci -F` reads.
    var dump: String {
        let names = PCINames()
        return functions.filter(\.isNumbered).map { $0.line(names) + "\n" + $0.dump(4096) + "\n" }.joined()
    }
}
