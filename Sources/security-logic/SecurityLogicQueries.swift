// What QMP tells of the security logic.
import Component
import Crypto
import QMP
import SecurityLogic
import Sideband
import Trust

extension SecurityLogicCommand {
    func registerCommands(
        _ runtime: ComponentRuntime, _ controller: SecurityController, _ gate: FlashGate, _ bridge: LPCBridge
    ) {
        runtime.control.register(
            QMPCommand("query-security-state") { _ throws(QMPError) in
                let snapshot = controller.snapshot
                var answer = snapshot.details
                answer["state"] = .string(snapshot.state.description)
                answer["mode"] = .string(snapshot.mode == .protected ? "protected" : "unprotected")
                answer["released"] = .array(snapshot.released.map(\.rawValue).sorted().map { .string($0) })
                answer["verifier"] = .string(snapshot.settings.verifier.rawValue)
                answer["lock-at"] = .string(snapshot.settings.lockAt.rawValue)
                answer["boot-confirmed"] = .bool(snapshot.isBootConfirmed)
                answer["recovering"] = .bool(snapshot.isRecovering)
                answer["bridged"] = .bool(snapshot.isBridged)
                answer["sideband"] = [
                    "forwarded": .unsigned(snapshot.forwardedPackets), "dropped": .unsigned(snapshot.droppedPackets),
                ]
                answer["record"] = snapshot.record.summary
                answer["refused-slots"] = .array(
                    snapshot.refusals.map { refusal in
                        [
                            "slot": .string(refusal.slot.description), "image": .string(refusal.image),
                            "reason": .string(refusal.reason),
                        ]
                    })
                answer["minimum-security-version"] = .integer(Int64(snapshot.fuses.minimumSecurityVersion))
                answer["cancelled-keys"] = .array(
                    snapshot.fuses.cancelledKeys.numbers.map { .integer(Int64($0)) })
                answer["lpc"] = bridge.statistics.json
                answer["verified-pages"] = .unsigned(UInt64(gate.digests.count))
                // A card that is not there has no counters to look at.
                let masters = FlashMaster.allCases.filter { master in
                    master.component.map(snapshot.settings.components.contains) ?? true
                }
                answer["masters"] = .object(
                    Dictionary(uniqueKeysWithValues: masters.map { ($0.rawValue, gate.counters($0).json) }))
                return .object(answer)
            })
        runtime.control.register(
            QMPCommand("system_reset") { _ throws(QMPError) in
                controller.powerCycle()
                return [:]
            })
        runtime.control.register(
            QMPCommand("query-identity", [.optional("nonce", .string)]) { arguments throws(QMPError) in
                try IdentityQuery.answer(controller.snapshot, nonce: arguments["nonce"]?.stringValue)
            })
        runtime.control.register(
            QMPCommand("query-measurements") { _ throws(QMPError) in
                controller.snapshot.log.json
            })
    }
}

extension FlashGate.Counters {
    fileprivate var json: JSONValue {
        [
            "passed": .unsigned(passed), "denied": .unsigned(denied), "cut": .unsigned(cut),
            "last-denied-opcode": lastDeniedOpcode.map { .unsigned(UInt64($0)) } ?? .null,
        ]
    }
}

extension LPCBridge.Statistics {
    fileprivate var json: JSONValue {
        [
            "connected": .bool(isConnected), "post-code": postCode.map { .integer(Int64($0)) } ?? .null,
            "post-codes": .unsigned(postCodes), "passed": .unsigned(forwarded), "denied": .unsigned(denied),
        ]
    }
}

extension BootRecord {
    fileprivate var summary: JSONValue {
        [
            "active": .string(active.description), "pending": pending.map { .string($0.description) } ?? .null,
            "failed": .array(failed.map(\.description).sorted().map { .string($0) }),
        ]
    }
}

extension SecurityController.Snapshot {
    /// Slot, image and reason where there are any.
    var details: [String: JSONValue] {
        var details: [String: JSONValue] = [:]
        if let slot { details["slot"] = .string(slot.description) }
        if let imageName { details["image"] = .string(imageName) }
        if let failureReason { details["reason"] = .string(failureReason) }
        return details
    }
}

extension SecurityEvent {
    /// The event's QMP data.
    var data: [String: JSONValue] {
        switch self {
        case .resetAsserted(let component), .resetReleased(let component):
            ["component": .string(component.rawValue)]
        case .firmwareVerifying, .boardLocked: [:]
        case .firmwareVerified(let slot, let image, let securityVersion, let digest):
            [
                "slot": .string(slot.description), "image": .string(image),
                "security-version": .integer(Int64(securityVersion)), "digest": .string(Hex.encode(digest)),
            ]
        case .slotRefused(let slot, let image, let reason):
            ["slot": .string(slot.description), "image": .string(image), "reason": .string(reason)]
        case .recoveryStarted(let slot): ["slot": .string(slot.description)]
        case .recoveryComplete(let slot, let failure):
            ["slot": .string(slot.description)].merging(failure.map { ["reason": .string($0)] } ?? [:]) { own, _ in own
            }
        case .bootFailed(let slot, let reason): ["slot": .string(slot.description), "reason": .string(reason)]
        case .updateStaged(let slot): ["slot": .string(slot.description)]
        case .firmwareRefused(let image, let reason), .boardFailed(let image, let reason):
            ["image": .string(image), "reason": .string(reason)]
        }
    }

    /// What the log adds to the event's name.
    var text: String {
        switch self {
        case .resetAsserted(let component), .resetReleased(let component): " \(component.rawValue)"
        case .firmwareVerifying, .boardLocked: ""
        case .firmwareVerified(let slot, let image, let securityVersion, _):
            " slot \(slot), \(image), security version \(securityVersion)"
        case .slotRefused(let slot, let image, let reason): " slot \(slot), \(image): \(reason)"
        case .recoveryStarted(let slot): " slot \(slot)"
        case .recoveryComplete(let slot, let failure): " slot \(slot)" + (failure.map { ": \($0)" } ?? "")
        case .bootFailed(let slot, let reason): " slot \(slot): \(reason)"
        case .updateStaged(let slot): " slot \(slot)"
        case .firmwareRefused(let image, let reason), .boardFailed(let image, let reason): " \(image): \(reason)"
        }
    }
}
