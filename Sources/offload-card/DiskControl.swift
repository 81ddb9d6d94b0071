// QMP commands of the card's disk: what it does, and how to break it.

import BlockStore
import Component
import Logging
import NVMe
import QMP
import VFIOUser

/// The disk as people see it.
struct DiskControl: Sendable {
    let store: BlockStore
    let interface: DiskInterface
    let server: VFIOUserServer
    /// The function behind it, of one of the two kinds.
    let function: any DiskFunction

    func register(_ runtime: ComponentRuntime) {
        runtime.control.register(QMPCommand("query-disk") { _ throws(QMPError) in query() })
        runtime.control.register(
            QMPCommand("query-disk-faults") { _ throws(QMPError) in .array(store.faults.entries.map(\.json)) })
        runtime.control.register(
            QMPCommand(
                "disk-inject-fault",
                [
                    .required("effect", .string), .optional("operations", .any), .optional("offset", .integer),
                    .optional("length", .integer), .optional("count", .integer), .optional("delay", .string),
                ]
            ) { arguments throws(QMPError) in
                let fault = try Self.fault(arguments)
                guard let identifier = store.faults.add(fault) else {
                    throw QMPError(
                        "there are \(BlockFaults.maximumCount) faults already: clear some (disk-clear-faults)")
                }
                return ["id": .integer(Int64(identifier))]
            })
        runtime.control.register(
            QMPCommand("disk-clear-faults", [.optional("id", .integer)]) { arguments throws(QMPError) in
                guard let identifier = arguments["id"]?.integerValue else {
                    store.faults.removeAll()
                    return [:]
                }
                guard store.faults.remove(Int(clamping: identifier)) else {
                    throw QMPError("no fault \(identifier): see query-disk-faults")
                }
                return [:]
            })
        runtime.control.register(
            QMPCommand("disk-refresh") { _ throws(QMPError) in
                do throws(BlockStoreError) {
                    _ = try store.refreshSize()
                } catch {
                    throw QMPError("\(error)")
                }
                function.sizeChanged()
                return query()
            })
        function.registerFurther(runtime)
    }

    private func query() -> JSONValue {
        let values = store.statistics.values
        var members: [String: JSONValue] = [
            "file": .string(store.name), "interface": .string(interface.rawValue),
            "size": .unsigned(store.byteCount), "block-size": .integer(Int64(store.blockSize)),
            "read-only": .bool(store.isReadOnly), "host-connected": .bool(server.hasClient),
            "reads": .unsigned(values.reads), "writes": .unsigned(values.writes),
            "flushes": .unsigned(values.flushes), "discards": .unsigned(values.discards),
            "bytes-read": .unsigned(values.bytesRead), "bytes-written": .unsigned(values.bytesWritten),
            "failures": .unsigned(values.failures),
        ]
        members.merge(function.state) { own, _ in own }
        return .object(members)
    }

    /// What `disk-inject-fault` asks for.
    private static func fault(_ arguments: [String: JSONValue]) throws(QMPError) -> BlockFault {
        let name = arguments["effect"]?.stringValue ?? ""
        let effect: BlockFault.Effect
        switch name {
        case "error": effect = .error
        case "torn": effect = .torn(isReported: true)
        case "torn-silently": effect = .torn(isReported: false)
        case "delay":
            guard let text = arguments["delay"]?.stringValue, let delay = Duration(parsing: text) else {
                throw QMPError("'delay' is how long, as \"50ms\": a number and ns, us, ms, s or min")
            }
            effect = .delay(delay)
        default: throw QMPError("effect '\(name)': use error, delay, torn or torn-silently")
        }
        if name != "delay", arguments["delay"] != nil { throw QMPError("'delay' goes with the effect delay only") }
        var operations: Set<BlockFault.Operation> = name.hasPrefix("torn") ? [.write] : [.read, .write]
        if let list = arguments["operations"] {
            let known = BlockFault.Operation.allCases.map(\.rawValue).joined(separator: ", ")
            guard let names = list.arrayValue, !names.isEmpty else {
                throw QMPError("'operations' is a list of \(known)")
            }
            operations = []
            for name in names {
                guard let operation = name.stringValue.flatMap(BlockFault.Operation.init(rawValue:)) else {
                    throw QMPError("operation \(name.text(pretty: false)): use \(known)")
                }
                operations.insert(operation)
            }
        }
        let (offset, length) = (arguments["offset"]?.integerValue ?? 0, arguments["length"]?.integerValue)
        guard offset >= 0, length ?? 1 > 0, arguments["count"]?.integerValue ?? 1 > 0 else {
            throw QMPError("'offset' is 0 or more, 'length' and 'count' are 1 or more")
        }
        let (end, overflow) = UInt64(offset).addingReportingOverflow(length.map { UInt64($0) } ?? .max)
        return BlockFault(
            effect, operations: operations, range: UInt64(offset)..<(overflow ? .max : end),
            remaining: arguments["count"]?.integerValue.map { UInt64($0) })
    }
}

/// What the two kinds of disk function have in common.
protocol DiskFunction: Sendable {
    /// Members of `query-disk`.
    var state: [String: JSONValue] { get }
    /// Tells the host that the size changed.
    func sizeChanged()
    func registerFurther(_ runtime: ComponentRuntime)
}

/// The controller as a disk function.
struct NVMeDisk: DiskFunction {
    let controller: NVMeController

    var state: [String: JSONValue] {
        let snapshot = controller.snapshot
        return [
            "state": .string(snapshot.state.rawValue), "reason": snapshot.reason.map { .string($0) } ?? .null,
            "submission-queues": .integer(Int64(snapshot.submissionQueues)),
            "completion-queues": .integer(Int64(snapshot.completionQueues)),
            "commands": .unsigned(snapshot.commands), "failed-commands": .unsigned(snapshot.failedCommands),
            "last-failure": snapshot.lastFailure.map { failure in
                [
                    "queue": .integer(Int64(failure.queue)), "opcode": .integer(Int64(failure.opcode)),
                    "status": .integer(Int64(failure.status.rawValue & 0x7FF)),
                ]
            } ?? .null,
            "resets": .unsigned(snapshot.resets), "delayed-commands": .integer(Int64(snapshot.delayed)),
            "shadow-doorbells": .bool(snapshot.usesShadowDoorbells),
            "temperature": .integer(Int64(snapshot.temperature)),
        ]
    }

    func sizeChanged() { _ = controller.namespaceChanged(1) }

    func registerFurther(_ runtime: ComponentRuntime) {
        runtime.control.register(
            QMPCommand("disk-set-temperature", [.required("kelvin", .integer)]) { arguments throws(QMPError) in
                guard let kelvin = arguments["kelvin"]?.integerValue.flatMap({ UInt16(exactly: $0) }) else {
                    throw QMPError("'kelvin' is 0…65535")
                }
                controller.setTemperature(kelvin)
                return [:]
            })
        runtime.control.register(
            QMPCommand("disk-fail", [.optional("reason", .string)]) { arguments throws(QMPError) in
                controller.fail(arguments["reason"]?.stringValue ?? "told to fail by QMP")
                return [:]
            })
    }
}

extension BlockFaults.Entry {
    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = [
            "id": .integer(Int64(identifier)), "hits": .unsigned(hits),
            "operations": .array(fault.operations.map(\.rawValue).sorted().map { .string($0) }),
            "offset": .unsigned(fault.range.lowerBound),
            "length": fault.range.upperBound == .max ? .null : .unsigned(UInt64(fault.range.count)),
            "remaining": fault.remaining.map { .unsigned($0) } ?? .null,
        ]
        switch fault.effect {
        case .error: members["effect"] = "error"
        case .torn(isReported: true): members["effect"] = "torn"
        case .torn(isReported: false): members["effect"] = "torn-silently"
        case .delay(let delay):
            members["effect"] = "delay"
            members["delay"] = .string(delay.spelled)
        }
        return .object(members)
    }
}
