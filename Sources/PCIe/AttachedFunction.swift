internal import Synchronization
internal import VFIOUser
internal import Wire

/// Whether a function's DMA gets through: software's bus master enables, its own and its port's.
final class DMAGate: Sendable {
    private let open = Atomic<Bool>(false)
    var isOpen: Bool {
        get { open.load(ordering: .acquiring) }
        set { open.store(newValue, ordering: .releasing) }
    }
}

/// A function behind a root port, as the host sees it: a device in another process whose base address registers,
/// interrupts and error reporting the host keeps itself, as clients of VFIO do.
///
/// Configuration registers that are not kept here are read from and written to the device. Of the locks, `state` is
/// never held while the device is asked; `wiring` and `windows` are, and nothing else is taken inside them but `state`.
final class AttachedFunction: Sendable {
    /// What the host does for a function.
    struct Host: Sendable {
        var deliverMessage: @Sendable (UInt64, UInt32) -> Void
        var setINTx: @Sendable (_ pin: Int, _ level: Bool) -> Void
        /// A message to the root port.
        var reportError: @Sendable (ErrorMessage) -> Void
        var reportPowerManagementEvent: @Sendable () -> Void
        /// The device asks to be removed in order.
        var requestRemoval: @Sendable () -> Void
        /// The device answers nothing any more, though its link is there, or it was reset behind the host's back. Called
        /// on the loop's thread.
        var fell: @Sendable () -> Void
        var windows: @Sendable () -> [DMAWindow]
        var log: @Sendable (String) -> Void
        var loop: EventLoop
        var gate: DMAGate
    }

    struct BAR: Sendable {
        var profile: FunctionProfile.BAR
        /// Parts that are mapped here.
        var mapped: [(offset: UInt64, memory: MappedMemory)]
    }

    /// Who holds a byte of configuration space.
    enum Holder: UInt8 {
        case device
        case host
        /// Written to both; reads are the bits of both together.
        case both
    }

    struct State {
        var space: ConfigurationSpace
        var table: MSIXTable
        var isDetached = false
        /// In D3hot: only configuration space answers.
        var isAsleep = false
        /// The port passes requests upstream.
        var isUpstreamMaster = false
        /// The device's eventfd for INTx was raised and it was not unmasked since.
        var isINTxPending = false
        var isINTxAsserted = false

        var isMaster: Bool {
            isUpstreamMaster && !isAsleep && space.get16(ConfigurationRegister.command) & CommandBits.master != 0
        }
    }

    let client: VFIOUserClient
    let profile: FunctionProfile
    let bars: [BAR]
    let host: Host
    let msi: MSIRegisters?
    let pristine: ConfigurationSpace
    let holders: [Holder]
    let state: Mutex<State>
    /// The eventfds that the device has now, and for which kind.
    let wiring = Mutex<(kind: InterruptTable.Kind?, notifiers: [EventNotifier])>((nil, []))
    /// What is mapped for the device now.
    let windows = Mutex<[DMAWindow]>([])
    let intx: EventNotifier?
    let errorNotifier: EventNotifier?
    let requestNotifier: EventNotifier?
    /// A hint for accesses that need no lock: INTx is asserted.
    let isINTxRaised = Atomic<Bool>(false)

    init(_ client: VFIOUserClient, host: Host) throws(VFIOUserError) {
        self.client = client
        self.host = host
        let configuration = try Self.readConfiguration(client)
        let profile: FunctionProfile
        do throws(FunctionProfile.ProfileError) {
            profile = try FunctionProfile(
                configuration: configuration, regions: client.regions.prefix(7).map(\.length),
                interrupts: client.interrupts.map(\.count))
        } catch {
            throw .gone("\(error)")
        }
        self.profile = profile
        for remark in profile.remarks { host.log(remark) }
        bars = profile.bars.map { BAR(profile: $0, mapped: $0.isROM ? [] : Self.map(client, $0.index)) }
        let registers = KeptRegisters(profile)
        pristine = registers.space
        holders = registers.holders
        msi = registers.msi
        state = Mutex(State(space: registers.space, table: MSIXTable(vectors: profile.msix?.vectors ?? 0)))
        func notifier(_ kind: InterruptTable.Kind, _ wanted: Bool = true) -> EventNotifier? {
            let index = Int(kind.rawValue)
            guard wanted, client.interrupts.indices.contains(index), client.interrupts[index].count > 0 else {
                return nil
            }
            return try? EventNotifier()
        }
        intx = notifier(.intx, profile.interruptPin != 0)
        errorNotifier = notifier(.error)
        requestNotifier = notifier(.request)
        try connectNotifiers()
    }

    /// Lets go of the device: nothing of it comes after this on the loop's thread.
    func detach() {
        state.withLock { $0.isDetached = true }
        host.gate.isOpen = false
        rewire()
        for notifier in [intx, errorNotifier, requestNotifier] {
            if let notifier { host.loop.remove(notifier.descriptor) }
        }
        updateINTx()
    }

    private static func readConfiguration(_ client: VFIOUserClient) throws(VFIOUserError) -> [UInt8] {
        let index = Int(Endpoint.configurationRegion)
        guard client.regions.count > index, client.information.flags & DeviceInfo.pci != 0 else {
            throw .gone("it has no configuration space: it is not a PCI device")
        }
        let length = min(Int(clamping: client.regions[index].length), ConfigurationSpace.size)
        var bytes = [UInt8](repeating: 0, count: length)
        guard length > 0 else { return bytes }
        var span = bytes.mutableSpan
        // Safety: every bit pattern is a valid byte.
        var raw = unsafe span.mutableBytes
        try client.read(region: Endpoint.configurationRegion, offset: 0, into: &raw)
        return bytes
    }

    /// Maps what the device offers of a region. A file that the device could still cut is left alone: touching memory
    /// behind its end would kill this process.
    private static func map(_ client: VFIOUserClient, _ index: Int) -> [(offset: UInt64, memory: MappedMemory)] {
        guard let file = client.regionFiles[UInt32(index)], file.isSealedAgainstShrinking else { return [] }
        return client.regions[index].areas.compactMap { area in
            client.map(region: UInt32(index), offset: area.offset, count: Int(clamping: area.length)).map {
                (offset: area.offset, memory: $0)
            }
        }
    }

    // MARK: Configuration space

    /// Reads 1, 2 or 4 bytes; all ones when the device is gone. Precondition: the range lies inside.
    func readConfiguration(_ register: Int, width: Int) -> UInt64 {
        let ones: UInt64 = (1 << UInt64(width * 8)) - 1
        if client.isGone { return ones }
        let range = register..<(register + width)
        let own = holders[range].allSatisfy { $0 == .device } ? 0 : readOwn(register, width: width)
        if holders[range].allSatisfy({ $0 == .host }) { return own }
        let theirs = client.read(region: Endpoint.configurationRegion, offset: UInt64(register), width: width)
        if client.isGone { return ones }
        var value = theirs
        for (index, holder) in holders[range].enumerated() where holder != .device {
            let mask: UInt64 = 0xFF << UInt64(index * 8)
            value = holder == .host ? value & ~mask | own & mask : value | own & mask
        }
        return value
    }

    private func readOwn(_ register: Int, width: Int) -> UInt64 {
        state.withLock { state in
            let status = state.space.get16(ConfigurationRegister.status) & ~StatusBits.interrupt
            state.space.set16(
                ConfigurationRegister.status, status | (state.isINTxPending ? StatusBits.interrupt : 0))
            return state.space.read(register, width: width)
        }
    }

    /// Writes 1, 2 or 4 bytes. True when what the function decodes may have changed. Precondition: the range lies
    /// inside.
    func writeConfiguration(_ register: Int, width: Int, value: UInt64) -> Bool {
        let range = register..<(register + width)
        if !holders[range].allSatisfy({ $0 == .host }) {
            client.write(region: Endpoint.configurationRegion, offset: UInt64(register), width: width, value: value)
        }
        if let express = profile.express {
            let place = express + ExpressRegister.deviceControl + 1
            if range.contains(place) {
                let byte = UInt8(truncatingIfNeeded: value >> UInt64((place - register) * 8))
                if UInt16(byte) << 8 & ExpressRegister.functionLevelReset != 0 {
                    forget()
                    return true
                }
            }
        }
        if let place = profile.powerManagement,
            range.contains(place + PowerManagementRegister.control)
        {
            changePower(place)
        }
        guard !holders[range].allSatisfy({ $0 == .device }) else { return false }
        state.withLock { state in
            state.space.write(register, width: width, value: value)
            guard let msix = profile.msix else { return }
            let control = state.space.get16(msix.offset + MSIXRegister.control)
            state.table.isEnabled = control & MSIXRegister.enable != 0
            state.table.isMasked = control & MSIXRegister.functionMask != 0
        }
        settle()
        return range.lowerBound < ConfigurationRegister.headerSize
            || profile.powerManagement.map { range.contains($0 + 4) } ?? false
    }

    /// Software wrote the power state: what the device made of it counts.
    private func changePower(_ place: Int) {
        let control = client.read(
            region: Endpoint.configurationRegion, offset: UInt64(place + PowerManagementRegister.control), width: 2)
        guard !client.isGone else { return }
        let isAsleep =
            UInt16(truncatingIfNeeded: control) & PowerManagementRegister.stateMask
            == PowerManagementRegister.d3
        let wakes = state.withLock { state in
            let was = state.isAsleep
            state.isAsleep = isAsleep
            return was && !isAsleep
        }
        // Leaving D3hot resets a function that does not say otherwise. Spec: PCI Express Base §7.5.2.2.
        if wakes, UInt16(truncatingIfNeeded: control) & PowerManagementRegister.noSoftReset == 0 { return forget() }
        settle()
    }

    /// The port's bus master enable changed.
    func setUpstreamMaster(_ on: Bool) {
        let changed = state.withLock { state in
            let was = state.isUpstreamMaster
            state.isUpstreamMaster = on
            return was != on
        }
        if changed { settle() }
    }

    /// Back to the state after reset: what the host keeps, and the device.
    func reset() {
        forget()
        try? client.reset()
    }

    /// What the host keeps, back to the state after reset.
    private func forget() {
        state.withLock { state in
            state.space = pristine
            state.table = MSIXTable(vectors: state.table.vectors)
            state.isAsleep = false
        }
        lowerINTx(unmask: true)
        settle()
    }

    /// Makes interrupts and DMA what the registers say.
    func settle() {
        let (messages, isMaster) = state.withLock { state in
            state.table.isMaster = state.isMaster
            var messages = state.table.release()
            if let msi { messages += msi.release(&state.space, isMaster: state.isMaster) }
            return (messages, state.isMaster)
        }
        if !isMaster { host.gate.isOpen = false }
        rewire()
        mapWindows()
        updateINTx()
        for message in messages { host.deliverMessage(message.address, message.data) }
    }

    /// Maps for the device what it may reach: nothing while it is no bus master.
    func mapWindows() {
        windows.withLock { present in
            let isMaster = state.withLock { $0.isMaster && !$0.isDetached }
            let wanted = isMaster ? host.windows() : []
            do throws(VFIOUserError) {
                for window in present where !wanted.contains(where: window.isSame(as:)) {
                    try client.unmapDMA(address: window.address, length: window.length)
                    present.removeAll { $0.isSame(as: window) }
                }
                for window in wanted where !present.contains(where: window.isSame(as:)) {
                    try client.mapDMA(
                        address: window.address, length: window.length, descriptor: window.memory.descriptor,
                        offset: window.offset, writable: window.isWritable)
                    present.append(window)
                }
            } catch {
                if !client.isGone { host.log("its memory cannot be mapped: \(error)") }
            }
            host.gate.isOpen = isMaster
        }
    }

    // MARK: Errors and events

    /// Logs an error in the function's registers and sends its message.
    func inject(_ error: PCIError, header: [UInt32]?, isAdvisory: Bool) {
        guard let express = profile.express else { return }
        let log = ErrorLog(express: express, advanced: profile.advanced)
        let message = state.withLock {
            log.record(error, header: header, isAdvisory: isAdvisory, in: &$0.space)
        }
        if let message { host.reportError(message) }
    }

    /// The function asks for service. False where it cannot, or software does not want it.
    func requestService() -> Bool {
        guard let place = profile.powerManagement else { return false }
        let wanted = state.withLock { state in
            let register = place + PowerManagementRegister.control
            guard holders[register + 1] == .host else { return false }
            let control = state.space.get16(register)
            state.space.set16(register, control | PowerManagementRegister.pmeStatus)
            return control & PowerManagementRegister.pmeEnable != 0
        }
        if wanted { host.reportPowerManagementEvent() }
        return wanted
    }
}
