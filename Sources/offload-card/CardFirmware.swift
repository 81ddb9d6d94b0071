// The card's own firmware: it comes out of the board's flash before the host finds the card.

import Component
import DeviceFirmware
import Logging
import NVMe
import Offload
import QMP
import Sideband
import Synchronization

/// What the card runs, and what the host sees of that.
final class CardFirmware: Sendable {
    private struct State {
        var firmware = FirmwareState.none
        /// What was loaded last, on its way to run.
        var arrived = LoadedFirmware.builtIn
        var ring: OffloadCard?
        var disk: NVMeController?
    }

    private let runtime: ComponentRuntime
    private let loader: FirmwareLoader
    private let state = Mutex(State())

    /// - Parameter path: the logic's flash port; nil for a card that runs what it has built in.
    init(_ runtime: ComponentRuntime, path: String?) {
        self.runtime = runtime
        loader = FirmwareLoader(.offload, loop: runtime.loop, path: path)
        runtime.onStop { [loader] in loader.cancel() }
        runtime.control.register(
            QMPCommand("query-firmware") { [self] _ throws(QMPError) in state.withLock { $0.firmware.json } })
    }

    /// IDENTIFY tells of the firmware.
    func show(in ring: OffloadCard) { state.withLock { $0.ring = ring } }

    /// Identify Controller tells of the firmware.
    func show(in disk: NVMeController) { state.withLock { $0.disk = disk } }

    /// Begins to load, on a thread of its own; see `PowerLine.Handlers.beforePowerGood`.
    func load(_ power: PowerLine.PowerUp) {
        state.withLock { $0.firmware = .loading }
        loader.load { [self] outcome in
            switch outcome {
            case .success(let firmware):
                state.withLock { $0.arrived = firmware }
                power.succeed()
            case .failure(let error): power.fail(error.description)
            }
        }
    }

    /// Runs what was loaded.
    func run() {
        let (firmware, ring, disk) = state.withLock { state in
            state.firmware = .loaded(state.arrived)
            return (state.arrived, state.ring, state.disk)
        }
        let instances = firmware.unsigned("maximum-instances") ?? 0
        ring?.setFirmware(
            version: firmware.version.description, maximumInstances: UInt32(truncatingIfNeeded: instances))
        disk?.setFirmwareRevision(firmware.version.revision)
        runtime.setStatus("running", ["firmware": .string(firmware.version.description)])
        runtime.log.info("firmware \(firmware.version), \(firmware.source.rawValue)")
        runtime.emit("FIRMWARE_LOADED", firmware.eventData)
    }

    /// Follows the card's power.
    func power(_ event: PowerLine.Event) {
        switch event {
        case .resetAsserted:
            loader.cancel()
            state.withLock { $0.firmware = .none }
        case .powerFailed(let reason):
            state.withLock { $0.firmware = .failed(reason: reason) }
            runtime.emit("FIRMWARE_LOAD_FAILED", ["reason": .string(reason)])
        case .resetReleased, .powerGood: break
        }
    }
}
