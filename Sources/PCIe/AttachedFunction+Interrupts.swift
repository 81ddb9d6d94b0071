internal import Synchronization
internal import VFIOUser
internal import Wire

// A function's interrupts: eventfds of the device on one side, messages and the INTx pin on the other.

extension AttachedFunction {
    /// Gives the device the eventfds that it keeps for as long as it is plugged in.
    func connectNotifiers() throws(VFIOUserError) {
        if let intx {
            try client.setInterrupts(.intx, notifiers: [intx])
            try? host.loop.add(intx.descriptor) { [weak self] _ in
                if intx.drain() { self?.raiseINTx() }
            }
        }
        // A device that counts these interrupts and then refuses eventfds for them goes without.
        if let errorNotifier, (try? client.setInterrupts(.error, notifiers: [errorNotifier])) != nil {
            try? host.loop.add(errorNotifier.descriptor) { [weak self] _ in
                if errorNotifier.drain() { self?.deviceFailed() }
            }
        }
        if let requestNotifier, (try? client.setInterrupts(.request, notifiers: [requestNotifier])) != nil {
            try? host.loop.add(requestNotifier.descriptor) { [weak self] _ in
                if requestNotifier.drain() { self?.host.requestRemoval() }
            }
        }
        if client.isGone { throw .gone(client.goneReason ?? "closed") }
    }

    // MARK: Messages

    /// What software has enabled: MSI-X, MSI with so many vectors, or neither.
    private func wanted() -> (kind: InterruptTable.Kind?, count: Int) {
        state.withLock { state in
            if state.isDetached { return (nil, 0) }
            if state.table.isEnabled { return (.msix, state.table.vectors) }
            if let msi, msi.isEnabled(state.space) { return (.msi, msi.allocated(state.space)) }
            return (nil, 0)
        }
    }

    /// Gives the device an eventfd for each vector that software has enabled, and takes those of before away. The
    /// order of two calls at once does not matter: each does what the registers say when its turn comes.
    func rewire() {
        wiring.withLock { wiring in
            let (kind, count) = wanted()
            guard kind != wiring.kind || count != wiring.notifiers.count else { return }
            if let old = wiring.kind {
                try? client.disableInterrupts(old)
                for notifier in wiring.notifiers { host.loop.remove(notifier.descriptor) }
                wiring = (nil, [])
            }
            guard let kind else { return }
            let notifiers = (0..<count).compactMap { _ in try? EventNotifier() }
            guard notifiers.count == count else { return host.log("no descriptors are left for its interrupts") }
            for (vector, notifier) in notifiers.enumerated() {
                try? host.loop.add(notifier.descriptor) { [weak self] _ in
                    if notifier.drain() { self?.fire(kind, vector) }
                }
            }
            wiring = (kind, notifiers)
            try? client.setInterrupts(kind, notifiers: notifiers)
        }
    }

    /// A vector's eventfd was raised. Loop thread.
    private func fire(_ kind: InterruptTable.Kind, _ vector: Int) {
        let message = state.withLock { state -> MSIXTable.Message? in
            guard !state.isDetached else { return nil }
            if kind == .msix { return state.table.raise(vector) }
            return msi?.raise(&state.space, vector, isMaster: state.isMaster)
        }
        if let message { host.deliverMessage(message.address, message.data) }
    }

    // MARK: INTx

    /// INTx's eventfd was raised. The device has masked it until it is unmasked.
    private func raiseINTx() {
        state.withLock { $0.isINTxPending = true }
        updateINTx()
    }

    /// Drives the pin as the registers say. The pin changes under the lock: an access on a hart's thread may lower it
    /// at the same moment, and the last word must be that of the state.
    func updateINTx() {
        guard intx != nil else { return }
        state.withLock { state in
            let command = state.space.get16(ConfigurationRegister.command)
            let isMessaging = state.table.isEnabled || (msi?.isEnabled(state.space) ?? false)
            let level =
                state.isINTxPending && command & CommandBits.disableINTx == 0 && !isMessaging
                && !state.isDetached
            isINTxRaised.store(state.isINTxPending, ordering: .releasing)
            guard level != state.isINTxAsserted else { return }
            state.isINTxAsserted = level
            host.setINTx(Int(profile.interruptPin) - 1, level)
        }
    }

    /// Lowers INTx after an access to the device, as clients of VFIO do that are not told of the end of an interrupt:
    /// a device that still asserts it raises its eventfd again at once.
    func lowerINTx(unmask: Bool) {
        guard isINTxRaised.load(ordering: .acquiring) else { return }
        let was = state.withLock { state in
            let was = state.isINTxPending
            state.isINTxPending = false
            return was
        }
        guard was else { return }
        updateINTx()
        if unmask { try? client.act(.unmask, on: .intx) }
    }

    // MARK: Errors

    /// Whether the device is in reset, or was: it does not know what it was told to do any more.
    private var hasFallen: Bool {
        if DormantFunction.isDormant(client) { return true }
        let told =
            state.withLock { $0.space.get16(ConfigurationRegister.command) } & (CommandBits.memory | CommandBits.master)
        guard told != 0 else { return false }
        let register = UInt64(ConfigurationRegister.command)
        let command = client.read(region: Endpoint.configurationRegion, offset: register, width: 2)
        return !client.isGone && UInt16(truncatingIfNeeded: command) & told == 0
    }

    /// The device says that it met an uncorrectable error, or that it was reset. Which, its own registers tell, if it has
    /// them.
    private func deviceFailed() {
        if hasFallen { return host.fell() }
        guard !client.isGone else { return }
        guard let place = profile.advanced else {
            return inject(.uncorrectableInternal, header: nil, isAdvisory: false)
        }
        let register = UInt64(place + ErrorRegister.uncorrectableStatus)
        let status = client.read(region: Endpoint.configurationRegion, offset: register, width: 4)
        guard !client.isGone else { return }
        client.write(region: Endpoint.configurationRegion, offset: register, width: 4, value: status)
        var header: [UInt32] = []
        for word in 0..<4 {
            let at = UInt64(place + ErrorRegister.headerLog + word * 4)
            header.append(
                UInt32(
                    truncatingIfNeeded: client.read(region: Endpoint.configurationRegion, offset: at, width: 4)))
        }
        let bits = (0..<32).filter { status & PCIError.knownUncorrectable & 1 << UInt64($0) != 0 }
        if bits.isEmpty { inject(.uncorrectableInternal, header: nil, isAdvisory: false) }
        for bit in bits { inject(.uncorrectable(bit), header: header, isAdvisory: false) }
    }
}

extension PCIError {
    fileprivate static let knownUncorrectable = UInt64(uncorrectableBits)
}
