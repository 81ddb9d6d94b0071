internal import Synchronization
public import Wire

/// The host's side of a vfio-user link: one device in another process.
///
/// Any thread may call anything. Commands take turns: each is sent and its reply awaited under one lock, first by
/// polling, then asleep. A server that closes the link, does not answer in time or answers something else makes the
/// client `gone`, once and for all: register reads are then all ones, as from an empty slot.
@safe public final class VFIOUserClient: @unchecked Sendable {
    /// How long a server may take to answer. Longer than any scheduling delay seen on a loaded machine, short enough
    /// that a hart is not stuck for good behind a device that hangs; QEMU's is 5 s.
    public static let defaultTimeout = Duration.seconds(10)

    public let information: DeviceInfo
    /// One a region index.
    public let regions: [RegionInfo]
    /// One an interrupt type.
    public let interrupts: [IRQInfo]
    /// Files of the regions that may be mapped, by region index.
    public let regionFiles: [UInt32: Descriptor]
    /// What was agreed with the server.
    public let capabilities: Capabilities

    let transport: ClientTransport
    /// What stands for writes to doorbells.
    private let ioEvents: ClientIOEvents

    /// Connects to the server that listens at a path and asks it what it is.
    public static func connect(
        to path: String, memory: (any ClientMemory)? = nil, tap: LinkTap = LinkTap(), ioEvents: Bool = false,
        timeout: Duration = defaultTimeout, onGone: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(VFIOUserError) -> VFIOUserClient {
        let socket: Socket
        do throws(WireError) {
            socket = try Socket.connect(to: path)
        } catch {
            throw .gone("\(error)")
        }
        return try VFIOUserClient(
            socket: socket, memory: memory, tap: tap, ioEvents: ioEvents, timeout: timeout, onGone: onGone)
    }

    /// Takes over a connected socket: agrees on the version, asks for the device, its regions and interrupts.
    ///
    /// `memory` answers DMA messages (none: they are refused). With `ioEvents` writes to the doorbells that the server
    /// offers eventfds for signal those. `onGone` is called once, on any thread, with the reason, as soon as the link
    /// ends; it must not call this client's commands.
    public init(
        socket: Socket, memory: (any ClientMemory)? = nil, tap: LinkTap = LinkTap(), ioEvents: Bool = false,
        timeout: Duration = defaultTimeout, onGone: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(VFIOUserError) {
        let transport = ClientTransport(socket: socket, memory: memory, tap: tap, timeout: timeout, onGone: onGone)
        self.transport = transport
        do throws(VFIOUserError) {
            capabilities = try Self.negotiate(transport)
            let information = try Self.deviceInformation(transport)
            self.information = information
            var regions: [RegionInfo] = []
            var files: [UInt32: Descriptor] = [:]
            for index in 0..<information.regionCount {
                let (info, descriptor) = try Self.regionInformation(transport, index)
                regions.append(info)
                files[index] = descriptor
            }
            self.regions = regions
            regionFiles = files
            var interrupts: [IRQInfo] = []
            for index in 0..<information.irqCount { interrupts.append(try Self.irqInformation(transport, index)) }
            self.interrupts = interrupts
            var doorbells = ClientIOEvents()
            if ioEvents {
                for region in regions where region.flags & RegionInfo.write != 0 && region.length > 0 {
                    try Self.ioEvents(transport, region, &doorbells)
                }
            }
            self.ioEvents = doorbells
            transport.watch()
        } catch {
            // A server that refuses to say what it is cannot be used.
            transport.close("\(error)")
            throw error
        }
    }

    deinit { transport.close(nil) }

    /// Leaves the server.
    public func close() { transport.close("closed here") }

    /// Why the server is gone, or nil while it is there.
    public var goneReason: String? { transport.goneReason }
    public var isGone: Bool { transport.goneReason != nil }

    /// The socket, for an owner that watches it itself. Nobody but this client reads it.
    public var descriptor: Descriptor { transport.link.socket.descriptor }

    // MARK: Questions

    private static func negotiate(_ transport: ClientTransport) throws(VFIOUserError) -> Capabilities {
        let proposal = Version(
            capabilities: Capabilities(
                maximumMessageDescriptors: 32, maximumTransfer: UInt64(Capabilities.defaultTransfer),
                writeMultiple: true, twinSocket: transport.memory == nil ? nil : true))
        let (bytes, descriptors) = try transport.ask(.version, proposal.encoded())
        // Safety: bytes have no padding.
        guard let agreed = try? Version(unsafe bytes.span.bytes), agreed.major == Version.major,
            agreed.minor <= Version.minor, agreed.capabilities.maximumTransfer != 0
        else { throw .gone("its VERSION reply is malformed or of another version") }
        if agreed.capabilities.twinSocket == true {
            guard transport.memory != nil, let place = agreed.capabilities.twinSocketDescriptor,
                place < UInt64(descriptors.count)
            else { throw .gone("it speaks of a twin socket that it did not pass") }
            transport.listen(on: Socket(adopting: descriptors[Int(place)], kind: .stream))
        }
        let transfer = agreed.capabilities.maximumTransfer ?? UInt64(Capabilities.defaultTransfer)
        transport.configure(transfer: Int(clamping: transfer))
        return agreed.capabilities
    }

    private static func deviceInformation(_ transport: ClientTransport) throws(VFIOUserError) -> DeviceInfo {
        let (bytes, _) = try transport.ask(
            .deviceGetInfo,
            payload(DeviceInfo.size) { DeviceInfo(flags: 0, regionCount: 0, irqCount: 0).encode(into: &$0) })
        // Safety: bytes have no padding.
        guard let info = try? DeviceInfo(reply: unsafe bytes.span.bytes), info.regionCount <= 64, info.irqCount <= 16
        else { throw .gone("its DEVICE_GET_INFO reply is malformed or names too many regions") }
        return info
    }

    private static func regionInformation(
        _ transport: ClientTransport, _ index: UInt32
    ) throws(VFIOUserError) -> (RegionInfo, Descriptor?) {
        var room = UInt32(RegionInfo.size)
        for _ in 0..<2 {
            let request = payload(RegionInfo.size) { RegionInfo.encodeRequest(index: index, room: room, into: &$0) }
            let (bytes, descriptors) = try transport.ask(.deviceGetRegionInfo, request)
            // Safety: bytes have no padding.
            guard let (info, needs) = try? RegionInfo.reply(unsafe bytes.span.bytes), info.index == index else {
                throw .gone("its DEVICE_GET_REGION_INFO reply for region \(index) is malformed")
            }
            if needs > room, needs <= 1 << 16, room == UInt32(RegionInfo.size) {
                room = needs
                continue
            }
            return (info, info.flags & RegionInfo.mmap != 0 ? descriptors.first : nil)
        }
        throw .gone("its DEVICE_GET_REGION_INFO reply for region \(index) grows each time")
    }

    private static func irqInformation(
        _ transport: ClientTransport, _ index: UInt32
    ) throws(VFIOUserError) -> IRQInfo {
        let (bytes, _) = try transport.ask(
            .deviceGetIRQInfo, payload(IRQInfo.size) { IRQInfo(index: index).encode(into: &$0) })
        // Safety: bytes have no padding.
        guard let info = try? IRQInfo(reply: unsafe bytes.span.bytes), info.index == index, info.count <= 4096 else {
            throw .gone("its DEVICE_GET_IRQ_INFO reply for type \(index) is malformed")
        }
        return info
    }

    /// Asks for a region's doorbells. A server that has none, or does not know the question, refuses it.
    private static func ioEvents(
        _ transport: ClientTransport, _ region: RegionInfo, _ doorbells: inout ClientIOEvents
    ) throws(VFIOUserError) {
        var room: UInt32 = 4096
        for _ in 0..<2 {
            let request = payload(RegionIOFDs.size) {
                RegionIOFDs.encodeRequest(index: region.index, room: room, into: &$0)
            }
            let bytes: [UInt8]
            let descriptors: [Descriptor]
            do throws(VFIOUserError) {
                (bytes, descriptors) = try transport.ask(.deviceGetRegionIOFDs, request)
            } catch .refused {
                return
            }
            // Safety: bytes have no padding.
            guard let (offer, needs) = try? RegionIOFDs.reply(unsafe bytes.span.bytes), offer.index == region.index
            else { throw .gone("its DEVICE_GET_REGION_IO_FDS reply for region \(region.index) is malformed") }
            if needs > room, needs <= 1 << 16 {
                room = needs
                continue
            }
            guard doorbells.add(offer, length: region.length, descriptors: descriptors) else {
                throw .gone("its DEVICE_GET_REGION_IO_FDS reply for region \(region.index) offers what cannot be")
            }
            return
        }
    }

    /// An encoded payload of so many bytes.
    static func payload(_ count: Int, _ encode: (inout MutableRawSpan) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        // Safety: every bit pattern is a valid byte.
        var raw = unsafe span.mutableBytes
        encode(&raw)
        return bytes
    }

    // MARK: Regions

    /// Reads a register of 1, 2, 4 or 8 bytes; all ones when the server refuses it or is gone.
    public func read(region: UInt32, offset: UInt64, width: Int) -> UInt64 {
        let count = min(max(width, 1), 8)
        return transport.readRegister(region, offset, UInt32(count))
            ?? (count == 8 ? .max : (1 << UInt64(count * 8)) - 1)
    }

    /// Writes a register of 1, 2, 4 or 8 bytes and waits until the device has it. False when the server refuses it or
    /// is gone. A doorbell's eventfd is signalled instead, without waiting.
    @discardableResult
    public func write(region: UInt32, offset: UInt64, width: Int, value: UInt64) -> Bool {
        if !ioEvents.isEmpty, ring(region, offset, width, value) { return true }
        return transport.writeRegister(region, offset, UInt32(min(max(width, 1), 8)), value, posted: false)
    }

    /// Writes a register without waiting: the server processes it before any later command.
    @discardableResult
    public func post(region: UInt32, offset: UInt64, width: Int, value: UInt64) -> Bool {
        if !ioEvents.isEmpty, ring(region, offset, width, value) { return true }
        return transport.writeRegister(region, offset, UInt32(min(max(width, 1), 8)), value, posted: true)
    }

    /// How many doorbells the server offered.
    public var doorbellCount: Int { ioEvents.count }

    private func ring(_ region: UInt32, _ offset: UInt64, _ width: Int, _ value: UInt64) -> Bool {
        !isGone && ioEvents.ring(region: region, offset: offset, width: width, value: value)
    }

    /// Writes several registers in order, with as few messages as the server understands, and waits until the device
    /// has them. Doorbells among them are sent too. On an error those before it were written.
    public func write(_ writes: [RegionWrite]) throws(VFIOUserError) {
        let together = capabilities.writeMultiple == true
        if let error = transport.regionWrite(writes, together: together, posted: false) { throw error }
    }

    /// Writes several registers in order without waiting: the server processes them before any later command. False
    /// when the server is gone.
    @discardableResult
    public func post(_ writes: [RegionWrite]) -> Bool {
        transport.regionWrite(writes, together: capabilities.writeMultiple == true, posted: true) == nil
    }

    /// Reads bytes of a region, in as many messages as it takes.
    public func read(region: UInt32, offset: UInt64, into bytes: inout MutableRawSpan) throws(VFIOUserError) {
        // Safety: the pointer is used only inside the call.
        if let error = unsafe bytes.withUnsafeMutableBytes({ unsafe transport.regionRead(region, offset, $0) }) {
            throw error
        }
    }

    /// Writes bytes of a region, in as many messages as it takes.
    public func write(region: UInt32, offset: UInt64, from bytes: RawSpan) throws(VFIOUserError) {
        // Safety: the pointer is used only inside the call.
        if let error = unsafe bytes.withUnsafeBytes({ unsafe transport.regionWrite(region, offset, $0, posted: false) })
        {
            throw error
        }
    }

    /// Maps a part of a region that the server offers for it, or nil. `offset` is a multiple of the page size.
    public func map(region: UInt32, offset: UInt64, count: Int) -> MappedMemory? {
        guard let file = regionFiles[region], let info = regions.first(where: { $0.index == region }), count > 0,
            offset <= info.length, UInt64(count) <= info.length - offset,
            info.areas.isEmpty
                || info.areas.contains(where: {
                    $0.offset <= offset && UInt64(count) <= $0.length - min($0.length, offset - $0.offset)
                })
        else { return nil }
        let (place, overflow) = info.fileOffset.addingReportingOverflow(offset)
        guard !overflow else { return nil }
        return try? MappedMemory(file, offset: place, count: count, writable: info.flags & RegionInfo.write != 0)
    }

    // MARK: Memory, interrupts, reset

    /// Lets the device reach a range of memory: through the file if one is given, else by messages to `memory`.
    public func mapDMA(
        address: IOVirtualAddress, length: UInt64, descriptor: Descriptor?, offset: UInt64 = 0, writable: Bool = true
    ) throws(VFIOUserError) {
        let map = DMAMap(
            address: address.rawValue, length: length, offset: offset,
            flags: DMAMap.readable | (writable ? DMAMap.writeable : 0))
        try transport.map(map, descriptor: descriptor)
    }

    /// Takes a range back, exactly as it was mapped. When this returns the device does not touch it any more.
    public func unmapDMA(address: IOVirtualAddress, length: UInt64) throws(VFIOUserError) {
        try transport.unmap(DMAUnmap(address: address.rawValue, length: length))
    }

    /// Takes a range back as `unmapDMA(address:length:)` does, while DMA logging is on, and says which of its pages the
    /// device wrote since the last report: bit n of the words is the nth page. A bitmap longer than a message (256 GiB of
    /// 4 KiB pages) is refused with `tooBig`.
    ///
    /// Precondition: the page size is a power of two, the range is not empty.
    public func unmapDMA(
        address: IOVirtualAddress, length: UInt64, dirtyPageSize: UInt64
    ) throws(VFIOUserError) -> [UInt64] {
        precondition(dirtyPageSize.nonzeroBitCount == 1 && length > 0, "pages of a power of two")
        let words = ((length - 1) >> UInt64(dirtyPageSize.trailingZeroBitCount)) / 64 + 1
        let unmap = DMAUnmap(
            address: address.rawValue, length: length, bitmap: .init(pageSize: dirtyPageSize, byteCount: words * 8))
        let reply = try transport.unmap(unmap)
        guard UInt64(reply.count) == UInt64(unmap.fixedSize) + words * 8 else {
            throw transport.fail("its DMA_UNMAP reply has another bitmap than was asked for")
        }
        // Safety: bytes have no padding.
        let span = unsafe reply.span.bytes
        return (0..<Int(words)).map { span.uint64(at: unmap.fixedSize + $0 * 8) }
    }

    /// Takes every range back.
    public func unmapAllDMA() throws(VFIOUserError) {
        try transport.unmap(DMAUnmap(address: 0, length: 0, flags: DMAUnmap.all))
    }

    /// Gives a run of interrupts their eventfds, in as many messages as the server's descriptor limit needs: those that
    /// the device signals when it raises them, or becomes masked or unmasked.
    public func setInterrupts(
        _ kind: InterruptTable.Kind, start: UInt32 = 0, notifiers: [EventNotifier], for action: IRQSet.Action = .trigger
    ) throws(VFIOUserError) {
        let limit = Int(clamping: max(1, min(capabilities.maximumMessageDescriptors ?? 1, 32)))
        var sent = 0
        while sent < notifiers.count {
            let part = notifiers[sent..<min(sent + limit, notifiers.count)]
            let set = IRQSet(
                data: .eventfd, action: action, index: kind.rawValue, start: start &+ UInt32(sent),
                count: UInt32(part.count))
            _ = try transport.ask(
                .deviceSetIRQs, Self.payload(IRQSet.size) { set.encode(into: &$0) },
                descriptors: part.map(\.descriptor))
            sent += part.count
        }
    }

    /// Takes the eventfds of a run of interrupts away.
    public func clearInterrupts(
        _ kind: InterruptTable.Kind, start: UInt32 = 0, count: UInt32, for action: IRQSet.Action = .trigger
    ) throws(VFIOUserError) {
        let set = IRQSet(data: .eventfd, action: action, index: kind.rawValue, start: start, count: count)
        _ = try transport.ask(.deviceSetIRQs, Self.payload(IRQSet.size) { set.encode(into: &$0) })
    }

    /// Takes all eventfds of a kind away.
    public func disableInterrupts(_ kind: InterruptTable.Kind) throws(VFIOUserError) {
        let set = IRQSet(data: .none, action: .trigger, index: kind.rawValue, start: 0, count: 0)
        _ = try transport.ask(.deviceSetIRQs, Self.payload(IRQSet.size) { set.encode(into: &$0) })
    }

    /// Masks, unmasks or triggers a run of interrupts.
    public func act(
        _ action: IRQSet.Action, on kind: InterruptTable.Kind, start: UInt32 = 0, count: UInt32 = 1
    ) throws(VFIOUserError) {
        let set = IRQSet(data: .none, action: action, index: kind.rawValue, start: start, count: count)
        _ = try transport.ask(.deviceSetIRQs, Self.payload(IRQSet.size) { set.encode(into: &$0) })
    }

    /// Masks, unmasks or triggers those of a run of interrupts that are true.
    public func act(
        _ action: IRQSet.Action, on kind: InterruptTable.Kind, start: UInt32 = 0, which: [Bool]
    ) throws(VFIOUserError) {
        let set = IRQSet(data: .bool, action: action, index: kind.rawValue, start: start, count: UInt32(which.count))
        _ = try transport.ask(
            .deviceSetIRQs, Self.payload(IRQSet.size) { set.encode(into: &$0) } + which.map { $0 ? 1 : 0 })
    }

    /// Resets the device.
    public func reset() throws(VFIOUserError) { _ = try transport.ask(.deviceReset, []) }
}
