internal import Glibc
internal import Synchronization
public import VFIOUser

/// What an endpoint's model implements: its registers.
///
/// Called on the server's thread, one call at a time. An access lies inside the BAR, never in the MSI-X table or the
/// pending bits, and never while memory space is disabled. `bytes.storeLittleEndian(_:)` and
/// `bytes.littleEndianValue` serve registers of 1 to 8 bytes, `bytes.forEachDoubleword` those of 4.
public protocol EndpointModel: AnyObject, Sendable {
    func readBAR(_ bar: Int, offset: UInt64, into bytes: inout MutableRawSpan)
    func writeBAR(_ bar: Int, offset: UInt64, from bytes: RawSpan)
    /// Back to the state after power-on: a client came or left, the bus or the function was reset.
    func reset()
    /// The whole card was reset, as by a loss of power: beside what `reset` does, what came from outside and waits is
    /// forgotten. Called on the thread that asserts the reset, while the server's thread calls nothing.
    func fundamentalReset()
    /// Bus mastering was switched, or the client's memory maps changed.
    func busChanged()
    /// An access inside the live vendor-specific capability `index` of the description; offsets count from the
    /// capability's first byte and are 2 or more.
    func readCapability(_ index: Int, offset: Int, into bytes: inout MutableRawSpan)
    func writeCapability(_ index: Int, offset: Int, from bytes: RawSpan)
    /// The BAR's doorbells: writes that the host may turn into signals of eventfds the model waits for. They may come
    /// to `writeBAR` all the same. A model drains its eventfds when it is reset.
    func ioEvents(_ bar: Int) -> [RegionIOEvent]
}

extension RawSpan {
    /// The doublewords of an aligned write of 4 or 8 bytes at `offset`, low one first; of any other write none.
    public func forEachDoubleword(at offset: UInt64, _ body: (UInt64, UInt32) -> Void) {
        guard byteCount == 4 || byteCount == 8, offset % UInt64(byteCount) == 0 else { return }
        for place in stride(from: 0, to: byteCount, by: 4) { body(offset + UInt64(place), uint32(at: place)) }
    }
}

extension EndpointModel {
    public func fundamentalReset() { reset() }
    public func busChanged() {}
    public func readCapability(_ index: Int, offset: Int, into bytes: inout MutableRawSpan) { bytes.fill(with: 0) }
    public func writeCapability(_ index: Int, offset: Int, from bytes: RawSpan) {}
    public func ioEvents(_ bar: Int) -> [RegionIOEvent] { [] }
}

/// A PCI Express endpoint behind a vfio-user server: configuration space, base address registers and MSI-X around a
/// model's registers.
///
///     let endpoint = Endpoint(description) { bus in MyModel(bus) }
///     let server = VFIOUserServer(listener: listener, device: endpoint, log: log)
///
/// Regions are those of VFIO's PCI devices: 0–5 the BARs, 6 the ROM (none), 7 configuration space, 8 VGA (none).
/// Memory space disabled: reads are all ones, writes are dropped. Bus mastering off: DMA fails and messages wait. In
/// D3hot only configuration space answers. A 1 written to Initiate Function Level Reset resets the model and the
/// configuration space. Between `hold` and `release` it is dead, as a function in a slot whose PERST# is asserted.
public final class Endpoint: VFIODevice {
    /// Region indexes. Spec: <linux/vfio.h> VFIO_PCI_*_REGION_INDEX.
    public static let romRegion: UInt32 = 6
    public static let configurationRegion: UInt32 = 7
    public static let vgaRegion: UInt32 = 8
    public static let regionCount: UInt32 = 9

    private struct State {
        var space: ConfigurationSpace
        var table: [UInt8]
        var mailbox: DataObjectMailbox
        var isAsleep = false
        /// In reset. The space is as after power-on then, with memory space disabled, and is not written.
        var isHeld = false
    }

    public let description: EndpointDescription
    public let bus: EndpointBus
    public var dma: DMAAddressSpace { bus.dma }
    public var interrupts: InterruptTable { bus.interrupts }
    public let model: any EndpointModel

    private let pristine: ConfigurationSpace
    private let expressControl: Int
    private let powerControl: Int
    private let errors: ErrorLog
    private let freshMailbox: DataObjectMailbox
    /// The mailbox's capability, where there is one.
    private let mailboxPlace: Int?
    private let liveCapabilities: [(index: Int, range: Range<Int>)]
    private let state: Mutex<State>
    /// The server's thread is at the model: set under `state`, so that who has changed that knows of every call that
    /// began before; cleared without.
    private let isBusy = Atomic<Bool>(false)
    private let sizes: [UInt64]

    public init(_ description: EndpointDescription, model makeModel: (EndpointBus) -> any EndpointModel) {
        self.description = description
        pristine = description.makeConfigurationSpace()
        let express = pristine.capability(CapabilityID.express) ?? 0
        expressControl = express + ExpressRegister.deviceControl
        powerControl =
            (pristine.capability(CapabilityID.powerManagement) ?? 0) + PowerManagementRegister.control
        errors = ErrorLog(
            express: express, advanced: pristine.extendedCapability(ExtendedCapabilityID.advancedErrorReporting))
        mailboxPlace = pristine.extendedCapability(ExtendedCapabilityID.dataObjectExchange)
        freshMailbox = DataObjectMailbox(
            protocols: (description.dataObjects ?? []).map { ($0.vendor, $0.type) },
            vector: description.dataObjectVector)
        let places = pristine.capabilities(CapabilityID.vendorSpecific)
        liveCapabilities = zip(places, description.vendorCapabilities).enumerated().compactMap { index, item in
            item.1.isLive ? (index, item.0 + 2..<item.0 + item.1.size) : nil
        }
        var sizes = [UInt64](repeating: 0, count: 6)
        for bar in description.bars { sizes[bar.index] = bar.size }
        self.sizes = sizes
        let vectors = description.msix?.vectors ?? 0
        if let msix = description.msix {
            precondition(
                UInt64(msix.tableOffset) + UInt64(vectors * MSIXRegister.entrySize) <= sizes[msix.tableBAR]
                    && UInt64(msix.pbaOffset) + UInt64((vectors + 63) / 64 * 8) <= sizes[msix.pbaBAR],
                "the MSI-X table and pending bits lie inside their BARs")
        }
        state = Mutex(State(space: pristine, table: Self.freshTable(vectors), mailbox: freshMailbox))
        let bus = EndpointBus(
            dma: DMAAddressSpace(enabled: false),
            interrupts: InterruptTable(
                intx: description.interruptPin == 0 ? 0 : 1, msi: UInt32(description.msiVectors), msix: UInt32(vectors),
                error: 1, request: 1))
        self.bus = bus
        model = makeModel(bus)
        bus.connect(self)
    }

    /// Every vector masked, as after reset. Spec: PCI Express Base §7.7.2.9.
    private static func freshTable(_ vectors: Int) -> [UInt8] {
        var table = [UInt8](repeating: 0, count: vectors * MSIXRegister.entrySize)
        for vector in 0..<vectors { table[vector * MSIXRegister.entrySize + 12] = 1 }
        return table
    }

    // MARK: VFIODevice

    public var information: DeviceInfo {
        DeviceInfo(
            flags: DeviceInfo.reset | DeviceInfo.pci, regionCount: Self.regionCount,
            irqCount: UInt32(InterruptTable.Kind.allCases.count))
    }

    public func region(_ index: UInt32) -> VFIORegion {
        switch index {
        case 0..<6: VFIORegion(length: sizes[Int(index)], isReadable: true, isWritable: true)
        case Self.configurationRegion: VFIORegion(length: UInt64(ConfigurationSpace.size))
        default: VFIORegion(length: 0, isReadable: false, isWritable: false)
        }
    }

    public func readRegion(_ index: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(ErrorNumber) {
        if index == Self.configurationRegion {
            guard enter() else { return bytes.fill(with: 0xFF) }
            defer { leave() }
            let place = Int(truncatingIfNeeded: offset)
            if let live = liveCapability(place, bytes.byteCount) {
                return model.readCapability(live.index, offset: place - live.range.lowerBound + 2, into: &bytes)
            }
            return readConfiguration(place, &bytes)
        }
        guard index < 6 else { throw .invalid }
        guard enterMemory() else { return bytes.fill(with: 0xFF) }
        defer { leave() }
        if isMSIX(Int(index), offset, bytes.byteCount) { return readMSIX(Int(index), offset, &bytes) }
        model.readBAR(Int(index), offset: offset, into: &bytes)
    }

    public func writeRegion(_ index: UInt32, offset: UInt64, from bytes: RawSpan) throws(ErrorNumber) {
        if index == Self.configurationRegion {
            guard enter() else { return }
            defer { leave() }
            return writeConfiguration(Int(truncatingIfNeeded: offset), bytes)
        }
        guard index < 6 else { throw .invalid }
        guard enterMemory() else { return }
        defer { leave() }
        if isMSIX(Int(index), offset, bytes.byteCount) { return writeMSIX(Int(index), offset, bytes) }
        model.writeBAR(Int(index), offset: offset, from: bytes)
    }

    /// A function that is held is as after reset already.
    public func reset() {
        guard enter() else { return }
        defer { leave() }
        resetAll(isHeld: false)
    }

    private func resetAll(isHeld: Bool) {
        let vectors = description.msix?.vectors ?? 0
        dma.isEnabled = false
        state.withLock {
            $0 = State(
                space: pristine, table: Self.freshTable(vectors), mailbox: freshMailbox, isHeld: isHeld)
        }
        if isHeld { model.fundamentalReset() } else { model.reset() }
        // What the model raised until it was reset is forgotten too.
        bus.forget()
    }

    public func dmaMapsChanged() {
        guard enter() else { return }
        defer { leave() }
        model.busChanged()
    }

    public func ioEvents(_ region: UInt32) -> [RegionIOEvent] { region < 6 ? model.ioEvents(Int(region)) : [] }

    // MARK: Reset from outside

    /// Asserts PERST#: a fundamental reset of the function, which then answers nothing until `release`.
    ///
    /// Reads of any region are all ones, writes are dropped, there is no DMA and no interrupt; the vfio-user link stays,
    /// and a host that attends to its error interrupt hears that there is something to look at. When this returns, all of
    /// that holds: it waits for a register access and for DMA that are under way, microseconds usually and ten seconds
    /// at the most, for a host that answers no DMA message. Any thread but the server's; one call of `hold` and `release`
    /// at a time.
    ///
    /// Spec: PCI Express Base §6.6.1 (fundamental reset).
    public func hold() {
        guard !state.withLock({ $0.isHeld }) else { return }
        dma.isEnabled = false
        state.withLock { state in
            state.isHeld = true
            // No register access begins any more.
            state.space = pristine
        }
        var pause: UInt32 = 1
        while isBusy.load(ordering: .acquiring) {
            usleep(pause)
            pause = min(pause * 2, 1000)
        }
        resetAll(isHeld: true)
        dma.drain()
        interrupts.raise(.error)
    }

    /// Releases PERST#: the function is as after power-on.
    public func release() {
        let wasHeld = state.withLock { state in
            defer { state.isHeld = false }
            return state.isHeld
        }
        if wasHeld { interrupts.raise(.error) }
    }

    public var isHeld: Bool { state.withLock { $0.isHeld } }

    /// Lets the server's thread at the function; false while it is held.
    func enter() -> Bool {
        state.withLock { state in
            guard !state.isHeld else { return false }
            isBusy.store(true, ordering: .relaxed)
            return true
        }
    }

    /// Lets the server's thread at the function's memory; false while that is disabled, as it is in reset.
    private func enterMemory() -> Bool {
        state.withLock { state in
            guard !state.isAsleep, state.space.get16(ConfigurationRegister.command) & CommandBits.memory != 0 else {
                return false
            }
            isBusy.store(true, ordering: .relaxed)
            return true
        }
    }

    @inline(__always)
    func leave() { isBusy.store(false, ordering: .releasing) }

    // MARK: Migration

    /// Bytes of the MSI-X table.
    var tableSize: Int { (description.msix?.vectors ?? 0) * MSIXRegister.entrySize }

    /// What software has made of the configuration space and of the MSI-X table.
    var image: (space: [UInt8], table: [UInt8]) { state.withLock { ($0.space.image, $0.table) } }

    /// Takes over what another endpoint's software made of them. Refused: another function's space.
    func restore(image: ArraySlice<UInt8>, table: ArraySlice<UInt8>) throws(ErrorNumber) {
        var space = pristine
        guard space.restore(image), table.count == tableSize else { throw .invalid }
        let isAsleep = isAsleep(space)
        state.withLock {
            $0 = State(space: space, table: Array(table), mailbox: freshMailbox, isAsleep: isAsleep)
        }
        settle(space, isAsleep: isAsleep)
        model.busChanged()
    }

    // MARK: Configuration space

    private func isAsleep(_ space: ConfigurationSpace) -> Bool {
        space.get16(powerControl) & PowerManagementRegister.stateMask == PowerManagementRegister.d3
    }

    private func readConfiguration(_ offset: Int, _ bytes: inout MutableRawSpan) {
        let isPending = bus.isINTxPending
        let (space, words) = state.withLock { state in
            var space = state.space
            if isPending {
                let status = space.get16(ConfigurationRegister.status)
                space.set16(ConfigurationRegister.status, status | StatusBits.interrupt)
            }
            return (space, mailboxPlace.map { _ in (1..<6).map { state.mailbox.read($0 * 4) } } ?? [])
        }
        space.read(offset, into: &bytes)
        guard let mailboxPlace else { return }
        for index in 0..<bytes.byteCount {
            let place = offset + index - mailboxPlace
            guard (4..<DataObjectMailbox.Register.size).contains(place) else { continue }
            let byte = UInt8(truncatingIfNeeded: words[place / 4 - 1] >> UInt32(place % 4 * 8))
            bytes.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
    }

    /// The live capability that an access lies in. A dump of more than that reads what the space holds.
    private func liveCapability(_ offset: Int, _ count: Int) -> (index: Int, range: Range<Int>)? {
        liveCapabilities.first { $0.range.contains(offset) && count <= $0.range.upperBound - offset }
    }

    private func writeConfiguration(_ offset: Int, _ bytes: RawSpan) {
        if let live = liveCapability(offset, bytes.byteCount) {
            return model.writeCapability(live.index, offset: offset - live.range.lowerBound + 2, from: bytes)
        }
        var values: [UInt8] = []
        for index in 0..<bytes.byteCount { values.append(bytes.uint8(at: index)) }
        if let mailboxPlace, values.count == 4, offset >= mailboxPlace + 4,
            offset < mailboxPlace + DataObjectMailbox.Register.size, (offset - mailboxPlace) % 4 == 0
        {
            let word = values.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            return writeMailbox(offset - mailboxPlace, word)
        }
        let (before, after, resets) = state.withLock { state in
            let before = state
            for (index, value) in values.enumerated() {
                state.space.write(offset &+ index, width: 1, value: UInt64(value))
            }
            let control = state.space.get16(expressControl)
            state.space.set16(expressControl, control & ~ExpressRegister.functionLevelReset)
            state.isAsleep = isAsleep(state.space)
            // Leaving D3hot resets a function that does not say otherwise. Spec: PCI Express Base §7.5.2.2.
            let wakes = before.isAsleep && !state.isAsleep && !description.keepsStateInD3
            return (before, state, wakes || control & ExpressRegister.functionLevelReset != 0)
        }
        if resets { return resetAll(isHeld: false) }
        let wasEnabled = dma.isEnabled
        guard
            before.isAsleep != after.isAsleep
                || before.space.get16(ConfigurationRegister.command)
                    != after.space.get16(ConfigurationRegister.command)
        else { return }
        settle(after.space, isAsleep: after.isAsleep)
        if wasEnabled != dma.isEnabled { model.busChanged() }
    }

    /// Lets DMA, messages and INTx out as far as the registers do.
    private func settle(_ space: ConfigurationSpace, isAsleep: Bool) {
        let command = space.get16(ConfigurationRegister.command)
        dma.isEnabled = !isAsleep && command & CommandBits.master != 0
        bus.setINTxDisabled(isAsleep || command & CommandBits.disableINTx != 0)
        bus.release()
    }

    // MARK: Errors and data objects

    /// Logs an error of the model's in the function's registers.
    func log(_ error: PCIError, _ header: [UInt32]?) {
        state.withLock { _ = errors.record(error, header: header, in: &$0.space) }
    }

    private func writeMailbox(_ register: Int, _ value: UInt32) {
        switch state.withLock({ $0.mailbox.write(register, value) }) {
        case .none: break
        case .interrupt: raiseMailbox()
        case .process(let index, let payload, let generation):
            description.dataObjects?[index].respond(payload) { [weak self] answer in
                guard let self else { return }
                let interrupts = self.state.withLock {
                    $0.mailbox.complete(protocol: index, generation: generation, payload: answer)
                }
                if interrupts { self.raiseMailbox() }
            }
        }
    }

    private func raiseMailbox() {
        if let vector = description.dataObjectVector { bus.raise(vector: vector) }
    }

    // MARK: MSI-X

    /// True when an access touches the table or the pending bits.
    private func isMSIX(_ bar: Int, _ offset: UInt64, _ count: Int) -> Bool {
        guard let msix = description.msix else { return false }
        let end = offset + UInt64(count)
        let table = UInt64(msix.tableOffset)
        let pending = UInt64(msix.pbaOffset)
        return bar == msix.tableBAR && end > table && offset < table + UInt64(msix.vectors * MSIXRegister.entrySize)
            || bar == msix.pbaBAR && end > pending && offset < pending + UInt64((msix.vectors + 63) / 64 * 8)
    }

    private func readMSIX(_ bar: Int, _ offset: UInt64, _ bytes: inout MutableRawSpan) {
        guard let msix = description.msix else { return }
        let table = state.withLock { $0.table }
        for index in 0..<bytes.byteCount {
            let place = Int(offset) + index
            let inTable = place - Int(msix.tableOffset)
            let inPending = place - Int(msix.pbaOffset)
            var byte: UInt8 = 0
            if bar == msix.tableBAR, table.indices.contains(inTable) {
                byte = table[inTable]
            } else if bar == msix.pbaBAR, inPending >= 0 {
                for bit in 0..<8 {
                    let vector = inPending * 8 + bit
                    if interrupts.isPending(.msix, vector: vector) || bus.isWaiting(vector) { byte |= 1 << bit }
                }
            }
            bytes.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
    }

    /// Stores into the table; the pending bits are read-only.
    private func writeMSIX(_ bar: Int, _ offset: UInt64, _ bytes: RawSpan) {
        guard let msix = description.msix, bar == msix.tableBAR else { return }
        for index in 0..<bytes.byteCount {
            let place = Int(offset) + index - Int(msix.tableOffset)
            let byte = bytes.uint8(at: index)
            state.withLock { state in
                guard state.table.indices.contains(place) else { return }
                state.table[place] = byte
            }
        }
    }
}
