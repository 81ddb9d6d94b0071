// QMP commands of the chip: what it does, and how to break it.

import Component
import Logging
import QMP
import SPINOR
import Wire

/// The chip as people see it.
struct FlashControl: Sendable {
    let device: SPINORDevice
    let content: FlashContent
    let model: SPINORModel
    let image: String

    func register(_ runtime: ComponentRuntime) {
        let log = runtime.log
        runtime.control.register(QMPCommand("query-flash") { _ throws(QMPError) in query() })
        runtime.control.register(
            QMPCommand("query-flash-faults") { _ throws(QMPError) in
                .array(device.withChip { $0.injectedFaults }.map(\.json))
            })
        runtime.control.register(
            QMPCommand(
                "flash-inject-fault",
                [
                    .required("kind", .string), .optional("address", .integer), .optional("mask", .integer),
                    .optional("value", .integer), .optional("after", .integer), .optional("delay", .string),
                ]
            ) { arguments throws(QMPError) in
                let fault = try fault(arguments)
                guard let identifier = device.withChip({ $0.inject(fault) }) else {
                    throw QMPError("there are too many faults already: clear some (flash-clear-faults)")
                }
                log.notice("fault: \(fault)")
                return identifier == 0 ? [:] : ["id": .integer(Int64(identifier))]
            })
        runtime.control.register(
            QMPCommand("flash-clear-faults", [.optional("id", .integer)]) { arguments throws(QMPError) in
                guard let identifier = arguments["id"]?.integerValue else {
                    device.withChip { $0.clearFaults() }
                    return [:]
                }
                guard device.withChip({ $0.clearFault(Int(clamping: identifier)) }) else {
                    throw QMPError("no fault \(identifier): see query-flash-faults")
                }
                return [:]
            })
        runtime.control.register(
            QMPCommand("flash-power-off") { _ throws(QMPError) in
                device.withChip { $0.losePower() }
                return [:]
            })
        runtime.control.register(
            QMPCommand("flash-power-on") { _ throws(QMPError) in
                device.withChip { $0.powerOn() }
                return [:]
            })
    }

    private func query() -> JSONValue {
        let (counters, isBusy, isPowered) = device.withChip { ($0.counters, $0.busyUntil != nil, $0.isPowered) }
        return .object([
            "model": .string(model.name), "size": .integer(Int64(content.count)), "image": .string(image),
            "writable": .bool(content.isPersistent), "powered": .bool(isPowered), "busy": .bool(isBusy),
            "reads": .unsigned(counters.reads), "bytes-read": .unsigned(counters.bytesRead),
            "programs": .unsigned(counters.programs), "erases": .unsigned(counters.erases),
            "refused-writes": .unsigned(counters.refusedWrites),
            "unknown-opcodes": .unsigned(counters.unknownOpcodes),
        ])
    }

    /// What `flash-inject-fault` asks for.
    private func fault(_ arguments: [String: JSONValue]) throws(QMPError) -> FlashFault {
        let kind = arguments["kind"]?.stringValue ?? ""
        let wanted: [String: Set<String>] = [
            "bit-flip": ["address", "mask"], "stuck": ["address", "mask", "value"], "power-loss": ["after"],
            "slow": ["delay"], "dead": [],
        ]
        guard let known = wanted[kind] else {
            throw QMPError("kind '\(kind)': use \(wanted.keys.sorted().joined(separator: ", "))")
        }
        if let other = arguments.keys.filter({ $0 != "kind" && !known.contains($0) }).min() {
            throw QMPError(
                "'\(other)' does not go with the kind \(kind), which takes "
                    + (known.isEmpty ? "nothing" : known.sorted().joined(separator: ", ")))
        }
        switch kind {
        case "bit-flip": return .bitFlip(address: try address(arguments), mask: try byte("mask", arguments, 1))
        case "stuck":
            return .stuck(
                address: try address(arguments), mask: try byte("mask", arguments, 0xFF),
                value: try byte("value", arguments, 0))
        case "power-loss":
            let after = arguments["after"]?.integerValue ?? 1
            guard after > 0 else { throw QMPError("'after' counts programs and erases from the next one, 1") }
            return .powerLoss(after: UInt64(after))
        case "slow":
            guard let text = arguments["delay"]?.stringValue, let delay = Duration(parsing: text),
                delay <= .seconds(60)
            else {
                throw QMPError("'delay' is how long, as \"5ms\": a number and ns, us, ms or s, at most 60 s")
            }
            return .slow(delay)
        default: return .dead
        }
    }

    private func address(_ arguments: [String: JSONValue]) throws(QMPError) -> Int {
        guard let address = arguments["address"]?.integerValue, address >= 0, address < content.count else {
            throw QMPError("'address' is 0 to \(content.count - 1), the chip's last byte")
        }
        return Int(address)
    }

    private func byte(
        _ name: String, _ arguments: [String: JSONValue], _ usual: UInt8
    ) throws(QMPError) -> UInt8 {
        guard let number = arguments[name] else { return usual }
        guard let value = number.integerValue.flatMap({ UInt8(exactly: $0) }) else {
            throw QMPError("'\(name)' is the bits of a byte, 0 to 255")
        }
        return value
    }
}

extension SPINORChip.InjectedFault {
    var json: JSONValue {
        var members: [String: JSONValue] = ["id": .integer(Int64(identifier))]
        switch fault {
        case .bitFlip: members["kind"] = "bit-flip"
        case .stuck(let address, let mask, let value):
            members["kind"] = "stuck"
            members["address"] = .integer(Int64(address))
            members["mask"] = .integer(Int64(mask))
            members["value"] = .integer(Int64(value))
        case .powerLoss(let after):
            members["kind"] = "power-loss"
            members["after"] = .unsigned(after)
        case .slow(let delay):
            members["kind"] = "slow"
            members["delay"] = .string("\(delay.clampedNanoseconds)ns")
        case .dead: members["kind"] = "dead"
        }
        return .object(members)
    }
}
