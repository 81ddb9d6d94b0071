// Errors and power management events that reach a root port.

extension RootPortRegisters {
    /// The port itself detects an error. `identifier` is its own.
    package mutating func detect(
        _ error: PCIError, header: [UInt32]? = nil, isAdvisory: Bool = false, identifier: RequesterID
    ) -> Effects {
        var effects = Effects()
        if let message = errors.record(error, header: header, isAdvisory: isAdvisory, in: &space) {
            log(message, from: identifier)
        }
        settle(&effects)
        return effects
    }

    /// The host's own access through the port met nobody: Received Master Abort on the secondary side.
    package mutating func recordMasterAbort() {
        let place = ConfigurationRegister.secondaryStatus
        space.set16(place, space.get16(place) | StatusBits.receivedMasterAbort)
    }

    /// A function behind the port sent an error message. Spec: PCI Express Base §6.2.4.1, §7.5.1.3.13 (SERR# Enable).
    package mutating func receive(_ message: ErrorMessage, from source: RequesterID) -> Effects {
        var effects = Effects()
        if message != .correctable {
            let place = ConfigurationRegister.secondaryStatus
            space.set16(place, space.get16(place) | StatusBits.signalledSystemError)
            guard space.get16(ConfigurationRegister.bridgeControl) & BridgeControlBits.serr != 0 else {
                return effects
            }
        }
        // The port passes on what its own Device Control, or its SERR# Enable, lets out.
        let enables = space.get16(express + ExpressRegister.deviceControl)
        let isSystemErrorOn = space.get16(ConfigurationRegister.command) & CommandBits.serr != 0
        let passes =
            switch message {
            case .correctable: enables & DeviceErrorBits.correctableEnable != 0
            case .nonFatal: isSystemErrorOn || enables & DeviceErrorBits.nonFatalEnable != 0
            case .fatal: isSystemErrorOn || enables & DeviceErrorBits.fatalEnable != 0
            }
        guard passes else { return effects }
        if message != .correctable, isSystemErrorOn {
            let place = ConfigurationRegister.status
            space.set16(place, space.get16(place) | StatusBits.signalledSystemError)
        }
        log(message, from: source)
        settle(&effects)
        return effects
    }

    /// Root Error Status and the identification of who was first. Spec: PCI Express Base §7.8.4.10, §7.8.4.11.
    private mutating func log(_ message: ErrorMessage, from source: RequesterID) {
        let place = advanced + ErrorRegister.rootStatus
        var status = space.get32(place)
        if message == .correctable {
            if status & ErrorRegister.correctableReceived == 0 {
                space.set16(advanced + ErrorRegister.correctableSource, source.rawValue)
            } else {
                status |= ErrorRegister.correctableMultiple
            }
            status |= ErrorRegister.correctableReceived
        } else {
            if status & ErrorRegister.uncorrectableReceived == 0 {
                space.set16(advanced + ErrorRegister.uncorrectableSource, source.rawValue)
                if message == .fatal { status |= ErrorRegister.firstFatal }
            } else {
                status |= ErrorRegister.uncorrectableMultiple
            }
            status |= ErrorRegister.uncorrectableReceived
            status |= message == .fatal ? ErrorRegister.fatalReceived : ErrorRegister.nonFatalReceived
        }
        space.set32(place, status)
    }

    /// A function asks for power (PM_PME). While another's request is in Root Status it waits.
    /// Spec: PCI Express Base §6.1.6, §7.5.3.14.
    package mutating func receivePowerManagementEvent(from source: RequesterID) -> Effects {
        var effects = Effects()
        let place = express + ExpressRegister.rootStatus
        let status = space.get32(place)
        if status & RootBits.pmeStatus == 0 {
            space.set32(place, UInt32(source.rawValue) | RootBits.pmeStatus)
        } else if waitingEvents.count < 8, !waitingEvents.contains(source) {
            waitingEvents.append(source)
            space.set32(place, status | RootBits.pmePending)
        }
        settle(&effects)
        return effects
    }

    /// Software may have cleared PME Status: the next request that waits takes its place.
    mutating func nextEvent() {
        let place = express + ExpressRegister.rootStatus
        guard !waitingEvents.isEmpty, space.get32(place) & RootBits.pmeStatus == 0 else { return }
        let next = waitingEvents.removeFirst()
        let pending = waitingEvents.isEmpty ? 0 : RootBits.pmePending
        space.set32(place, UInt32(next.rawValue) | RootBits.pmeStatus | pending)
        // A new request, which gets a message of its own.
        told.remove(.powerManagement)
    }
}
