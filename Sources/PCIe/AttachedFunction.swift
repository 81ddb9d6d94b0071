internal import Synchronization
internal import VFIOUser
internal import Wire

/// An endpoint behind a root port, as the host sees it: a device in another process whose base address registers,
/// MSI-X table and interrupts the host keeps itself, as clients of VFIO do.
///
/// Configuration registers that are not kept here are read from and written to the device. No lock is held while the
/// device is asked.
final class AttachedFunction: Sendable {
    /// What the host does for a function.
    struct Host: Sendable {
        var deliverMessage: @Sendable (UInt64, UInt32) -> Void
        var setINTx: @Sendable (_ pin: Int, _ level: Bool) -> Void
        var loop: EventLoop
    }

    struct BAR: Sendable {
        var index: Int
        var size: UInt64
        /// What the device answers; the rest of the window reads as zero.
        var length: UInt64
        var is64Bit: Bool
        /// Parts that are mapped here.
        var mapped: [(offset: UInt64, memory: MappedMemory)]
    }

    private struct State {
        var space: ConfigurationSpace
        var table: MSIXTable
        var notifiers: [EventNotifier] = []
        var isINTxAsserted = false
        var isDetached = false
    }

    let client: VFIOUserClient
    let bars: [BAR]
    private let host: Host
    private let msix: (offset: Int, tableBAR: Int, tableOffset: UInt64, pendingBAR: Int, pendingOffset: UInt64)?
    private let expressControl: Int?
    private let interruptPin: UInt8
    private let pristine: ConfigurationSpace
    /// Registers that are kept here: base addresses, ROM address, MSI-X control.
    private let isKept: [Bool]
    private let state: Mutex<State>
    private let intx: EventNotifier?

    init(_ client: VFIOUserClient, host: Host) throws(VFIOUserError) {
        self.client = client
        self.host = host
        let device = try Self.readConfiguration(client)
        var space = ConfigurationSpace()
        var kept = [Bool](repeating: false, count: ConfigurationSpace.size)
        for place in ConfigurationRegister.baseAddress0..<(ConfigurationRegister.baseAddress0 + 24) {
            kept[place] = true
        }
        for place in ConfigurationRegister.romAddress..<(ConfigurationRegister.romAddress + 4) { kept[place] = true }
        space.set16(ConfigurationRegister.command, 0, writable: CommandBits.writable)
        bars = Self.bars(client, device)
        for bar in bars {
            let flags = Self.word(device, ConfigurationRegister.baseAddress0 + bar.index * 4)
            space.setBaseAddress(
                bar.index, size: bar.size, is64Bit: bar.is64Bit,
                prefetchable: flags & BaseAddressBits.prefetchable != 0)
        }
        let capabilities = Self.capabilities(device)
        expressControl = capabilities[CapabilityID.express].map { $0 + ExpressRegister.deviceControl }
        var vectors = 0
        if let place = capabilities[CapabilityID.msix], client.interrupts.count > 2 {
            let control = UInt16(truncatingIfNeeded: Self.word(device, place) >> 16)
            let table = Self.word(device, place + MSIXRegister.table)
            let pending = Self.word(device, place + MSIXRegister.pendingBits)
            vectors = min(Int(control & MSIXRegister.tableSize) + 1, Int(client.interrupts[2].count))
            msix = (
                place, Int(table & MSIXRegister.barMask), UInt64(table & ~MSIXRegister.barMask),
                Int(pending & MSIXRegister.barMask), UInt64(pending & ~MSIXRegister.barMask)
            )
            space.set16(
                place + MSIXRegister.control, control & MSIXRegister.tableSize,
                writable: MSIXRegister.enable | MSIXRegister.functionMask)
            kept[place + MSIXRegister.control] = true
            kept[place + MSIXRegister.control + 1] = true
        } else {
            msix = nil
        }
        pristine = space
        isKept = kept
        interruptPin = device[ConfigurationRegister.interruptPin]
        state = Mutex(State(space: space, table: MSIXTable(vectors: vectors)))
        let hasINTx = (1...4).contains(interruptPin) && (client.interrupts.first?.count ?? 0) > 0
        intx = hasINTx ? try? EventNotifier() : nil
        if let intx {
            try client.setInterrupts(.intx, notifiers: [intx])
            try? host.loop.add(intx.descriptor) { [weak self] _ in
                if intx.drain() { self?.assertINTx() }
            }
        }
    }

    /// Lets go of the device: no interrupt comes after this on the loop's thread.
    func detach() {
        let notifiers = state.withLock { state in
            state.isDetached = true
            let notifiers = state.notifiers
            state.notifiers = []
            return notifiers
        }
        for notifier in notifiers { host.loop.remove(notifier.descriptor) }
        if let intx { host.loop.remove(intx.descriptor) }
        deassertINTx(unmask: false)
    }

    // MARK: What the device says of itself

    private static func readConfiguration(_ client: VFIOUserClient) throws(VFIOUserError) -> [UInt8] {
        guard client.regions.count > Int(Endpoint.configurationRegion) else {
            throw .gone("it has no configuration space: it is not a PCI device")
        }
        let length = client.regions[Int(Endpoint.configurationRegion)].length
        var bytes = [UInt8](repeating: 0, count: ConfigurationSpace.size)
        let count = min(Int(clamping: length), ConfigurationSpace.size)
        guard count >= ConfigurationRegister.headerSize else { throw .gone("its configuration space is too short") }
        var header = [UInt8](repeating: 0, count: count)
        do {
            var span = header.mutableSpan
            // Safety: every bit pattern is a valid byte.
            var raw = unsafe span.mutableBytes
            try client.read(region: Endpoint.configurationRegion, offset: 0, into: &raw)
        }
        bytes.replaceSubrange(0..<count, with: header)
        return bytes
    }

    private static func word(_ bytes: [UInt8], _ place: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in 0..<4 where bytes.indices.contains(place + index) {
            value |= UInt32(bytes[place + index]) << UInt32(index * 8)
        }
        return value
    }

    private static func capabilities(_ bytes: [UInt8]) -> [UInt8: Int] {
        var found: [UInt8: Int] = [:]
        guard UInt16(truncatingIfNeeded: word(bytes, ConfigurationRegister.status)) & StatusBits.capabilityList != 0
        else { return found }
        var place = Int(bytes[ConfigurationRegister.capabilityList] & 0xFC)
        // 48 capabilities of 4 bytes fill the list; a chain that is longer loops.
        for _ in 0..<48 where (ConfigurationRegister.headerSize..<0xF4).contains(place) {
            if found[bytes[place]] == nil { found[bytes[place]] = place }
            place = Int(bytes[place + 1] & 0xFC)
        }
        return found
    }

    private static func bars(_ client: VFIOUserClient, _ bytes: [UInt8]) -> [BAR] {
        var bars: [BAR] = []
        var index = 0
        while index < 6 {
            defer { index += 1 }
            let length = client.regions[index].length
            let flags = word(bytes, ConfigurationRegister.baseAddress0 + index * 4)
            // There is no port I/O on this host, and no window of more than 2^40 bytes.
            guard length > 0, length <= 1 << 40, flags & BaseAddressBits.space == 0 else { continue }
            let is64Bit = flags & BaseAddressBits.memory64 != 0 && index < 5
            var size: UInt64 = 16
            while size < length { size <<= 1 }
            guard is64Bit || size <= 1 << 31 else { continue }
            let areas = client.regions[index].areas
            let mapped = areas.compactMap { area in
                client.map(region: UInt32(index), offset: area.offset, count: Int(clamping: area.length)).map {
                    (offset: area.offset, memory: $0)
                }
            }
            bars.append(BAR(index: index, size: size, length: length, is64Bit: is64Bit, mapped: mapped))
            if is64Bit { index += 1 }
        }
        return bars
    }

    // MARK: Configuration space

    /// Reads 1, 2 or 4 bytes; all ones when the device is gone.
    func readConfiguration(_ register: Int, width: Int) -> UInt64 {
        let ones: UInt64 = (1 << UInt64(width * 8)) - 1
        if client.isGone { return ones }
        let kept = isKept[register..<min(register + width, isKept.count)]
        let own = kept.contains(true) ? state.withLock { $0.space.read(register, width: width) } : 0
        if kept.allSatisfy({ $0 }) { return own }
        let theirs = client.read(region: Endpoint.configurationRegion, offset: UInt64(register), width: width)
        if client.isGone { return ones }
        var value = theirs
        for (index, isKept) in kept.enumerated() where isKept {
            let mask: UInt64 = 0xFF << UInt64(index * 8)
            value = value & ~mask | own & mask
        }
        return value
    }

    /// Writes 1, 2 or 4 bytes. True when a base address or memory enable may have changed.
    func writeConfiguration(_ register: Int, width: Int, value: UInt64) -> Bool {
        let range = register..<min(register + width, isKept.count)
        let isOwn = isKept[range].allSatisfy { $0 }
        if !isOwn {
            client.write(region: Endpoint.configurationRegion, offset: UInt64(register), width: width, value: value)
        }
        if let expressControl, range.contains(expressControl + 1) {
            let byte = UInt8(truncatingIfNeeded: value >> UInt64((expressControl + 1 - register) * 8))
            if UInt16(byte) << 8 & ExpressRegister.functionLevelReset != 0 {
                forget()
                return true
            }
        }
        let touchesCommand = range.overlaps(ConfigurationRegister.command..<(ConfigurationRegister.command + 2))
        guard touchesCommand || isKept[range].contains(true) else { return false }
        let (wasEnabled, isEnabled, messages) = state.withLock { state in
            state.space.write(register, width: width, value: value)
            let was = state.table.isEnabled
            state.table.isMaster = state.space.get16(ConfigurationRegister.command) & CommandBits.master != 0
            if let msix {
                let control = state.space.get16(msix.offset + MSIXRegister.control)
                state.table.isEnabled = control & MSIXRegister.enable != 0
                state.table.isMasked = control & MSIXRegister.functionMask != 0
            }
            return (was, state.table.isEnabled, state.table.release())
        }
        if wasEnabled != isEnabled { isEnabled ? enableMSIX() : disableMSIX() }
        for message in messages { host.deliverMessage(message.address, message.data) }
        return true
    }

    /// Back to the state after reset: what the host keeps, and the device.
    func reset() {
        forget()
        try? client.reset()
    }

    /// What the host keeps, back to the state after reset.
    private func forget() {
        let wasEnabled = state.withLock { state in
            let was = state.table.isEnabled
            state.space = pristine
            state.table = MSIXTable(vectors: state.table.vectors)
            return was
        }
        if wasEnabled { disableMSIX() }
        deassertINTx(unmask: true)
    }

    /// Where each base address register decodes now: empty while memory space is disabled.
    func decodedRanges() -> [(bar: BAR, range: ClosedRange<UInt64>)] {
        state.withLock { state in
            guard state.space.get16(ConfigurationRegister.command) & CommandBits.memory != 0 else { return [] }
            return bars.compactMap { bar in
                let base = state.space.baseAddress(bar.index, is64Bit: bar.is64Bit)
                // An unassigned register holds zero and decodes nothing.
                guard base != 0, !base.addingReportingOverflow(bar.size - 1).overflow else { return nil }
                return (bar, base...(base + (bar.size - 1)))
            }
        }
    }

    // MARK: Memory

    /// Reads 1, 2, 4 or 8 bytes of a base address register's window.
    func readMemory(_ bar: BAR, _ offset: UInt64, width: Int) -> UInt64 {
        if let msix {
            if bar.index == msix.tableBAR,
                let place = inside(offset, msix.tableOffset, state.withLock { $0.table.tableSize })
            {
                return state.withLock { $0.table.readTable(place, width: width) }
            }
            if bar.index == msix.pendingBAR,
                let place = inside(offset, msix.pendingOffset, state.withLock { $0.table.pendingSize })
            {
                return state.withLock { $0.table.readPending(place, width: width) }
            }
        }
        for window in bar.mapped where offset >= window.offset {
            let place = offset - window.offset
            guard window.memory.contains(offset: place, count: UInt64(width)), !client.isGone else { continue }
            // Safety: the range lies inside the mapping.
            let bytes = unsafe UnsafeRawBufferPointer(start: window.memory.baseAddress + Int(place), count: width)
            return unsafe RawSpan(_unsafeBytes: bytes).littleEndianValue
        }
        let ones: UInt64 = width == 8 ? .max : (1 << UInt64(width * 8)) - 1
        guard offset <= bar.length, UInt64(width) <= bar.length - offset else { return client.isGone ? ones : 0 }
        let value = client.read(region: UInt32(bar.index), offset: offset, width: width)
        deassertINTx(unmask: true)
        return value
    }

    /// Writes 1, 2, 4 or 8 bytes of a base address register's window.
    func writeMemory(_ bar: BAR, _ offset: UInt64, width: Int, value: UInt64) {
        if let msix {
            if bar.index == msix.tableBAR,
                let place = inside(offset, msix.tableOffset, state.withLock { $0.table.tableSize })
            {
                let messages = state.withLock { state in
                    state.table.writeTable(place, width: width, value: value)
                    return state.table.release()
                }
                for message in messages { host.deliverMessage(message.address, message.data) }
                return
            }
            if bar.index == msix.pendingBAR,
                inside(offset, msix.pendingOffset, state.withLock { $0.table.pendingSize }) != nil
            {
                return
            }
        }
        for window in bar.mapped where offset >= window.offset {
            let place = offset - window.offset
            guard window.memory.isWritable, window.memory.contains(offset: place, count: UInt64(width)), !client.isGone
            else { continue }
            // Safety: the range lies inside the mapping, which is writable.
            let bytes = unsafe UnsafeMutableRawBufferPointer(
                start: window.memory.baseAddress + Int(place), count: width)
            var span = unsafe MutableRawSpan(_unsafeBytes: bytes)
            return span.storeLittleEndian(value)
        }
        guard offset <= bar.length, UInt64(width) <= bar.length - offset else { return }
        client.write(region: UInt32(bar.index), offset: offset, width: width, value: value)
        deassertINTx(unmask: true)
    }

    private func inside(_ offset: UInt64, _ start: UInt64, _ size: Int) -> Int? {
        offset >= start && offset - start < UInt64(size) ? Int(offset - start) : nil
    }

    // MARK: Interrupts

    /// Gives the device an eventfd for each vector, and the loop the other ends.
    private func enableMSIX() {
        let vectors = state.withLock { $0.table.vectors }
        let notifiers = (0..<vectors).compactMap { _ in try? EventNotifier() }
        guard notifiers.count == vectors else { return }
        for (vector, notifier) in notifiers.enumerated() {
            try? host.loop.add(notifier.descriptor) { [weak self] _ in
                if notifier.drain() { self?.fire(vector) }
            }
        }
        let isDetached = state.withLock { state in
            if !state.isDetached { state.notifiers = notifiers }
            return state.isDetached
        }
        if isDetached {
            for notifier in notifiers { host.loop.remove(notifier.descriptor) }
            return
        }
        try? client.setInterrupts(.msix, notifiers: notifiers)
        deassertINTx(unmask: false)
    }

    private func disableMSIX() {
        try? client.disableInterrupts(.msix)
        let notifiers = state.withLock { state in
            let notifiers = state.notifiers
            state.notifiers = []
            return notifiers
        }
        for notifier in notifiers { host.loop.remove(notifier.descriptor) }
    }

    /// A vector's eventfd was raised. Loop thread.
    private func fire(_ vector: Int) {
        guard let message = state.withLock({ $0.table.raise(vector) }) else { return }
        host.deliverMessage(message.address, message.data)
    }

    /// INTx's eventfd was raised. The device has masked it until it is unmasked.
    ///
    /// The pin changes under the lock: an access on a hart's thread may lower it at the same moment, and the last word
    /// must be that of the state.
    private func assertINTx() {
        state.withLock { state in
            let command = state.space.get16(ConfigurationRegister.command)
            guard !state.table.isEnabled, command & CommandBits.disableINTx == 0, !state.isDetached else { return }
            state.isINTxAsserted = true
            host.setINTx(Int(interruptPin) - 1, true)
        }
    }

    /// Lowers INTx after an access to the device, as clients of VFIO do that are not told of the end of an interrupt:
    /// a device that still asserts it raises its eventfd again at once.
    private func deassertINTx(unmask: Bool) {
        guard intx != nil else { return }
        let was = state.withLock { state in
            let was = state.isINTxAsserted
            state.isINTxAsserted = false
            if was { host.setINTx(Int(interruptPin) - 1, false) }
            return was
        }
        if was, unmask { try? client.act(.unmask, on: .intx) }
    }
}
