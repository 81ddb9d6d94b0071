internal import Wire

/// What a server does with each command.
extension ServerConnection {
    /// Answers the command of so many bytes in `command`. Serving thread only.
    func handle(_ size: Int, _ descriptors: [Descriptor]) {
        // Safety: `command` holds `size` bytes, 16 or more, until the next command is read.
        let message = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: command[..<size]))
        let header = MessageHeader(message)
        let payload = message.extracting(MessageHeader.size..<size)
        var passed: [Descriptor] = []
        do throws(ErrorNumber) {
            guard header.isCommand else { throw .invalid }
            guard isNegotiated || header.command == .version else {
                refuse(header, .invalid)
                return close("\(header.command) before VERSION")
            }
            let count = try perform(header.command, payload, descriptors, &passed)
            guard header.wantsReply else { return }
            var room = unsafe MutableRawSpan(_unsafeBytes: replyRoom(0..<MessageHeader.size))
            header.reply(payload: count).encode(into: &room)
            do throws(WireError) {
                // Safety: no reply is longer than `reply`.
                unsafe try link.send(
                    UnsafeRawBufferPointer(rebasing: reply[..<(MessageHeader.size + count)]), descriptors: passed)
            } catch {
                close(Self.reason(error))
            }
        } catch {
            refuse(header, error)
            if header.command == .version, !isNegotiated { close("the client's VERSION is refused with \(error)") }
        }
    }

    /// Does one access of a register and answers it. Serving thread only.
    func answer(_ access: ShortAccess) {
        // Safety: `reply` has room for 48 bytes and more; only this thread uses it.
        let bytes = unsafe reply.baseAddress!
        let fixed = MessageHeader.size + RegionAccess.size
        do throws(ErrorNumber) {
            try check(access)
            if access.isWrite {
                unsafe bytes.storeBytes(of: access.value, toByteOffset: fixed, as: UInt64.self)
                try device.writeRegion(
                    access.region, offset: access.offset,
                    from: unsafe RawSpan(_unsafeStart: bytes + fixed, byteCount: Int(access.count)))
            } else {
                var data = unsafe MutableRawSpan(_unsafeStart: bytes + fixed, byteCount: Int(access.count))
                try device.readRegion(access.region, offset: access.offset, into: &data)
            }
        } catch {
            return refuse(access.header, error)
        }
        guard access.wantsReply else { return }
        unsafe ShortAccess.encode(
            id: access.id, command: access.isWrite ? .regionWrite : .regionRead, flags: MessageHeader.typeReply,
            data: access.isWrite ? 0 : access.count, offset: access.offset, region: access.region, count: access.count,
            into: bytes)
        do throws(WireError) {
            unsafe try link.sendShort(
                UnsafeRawBufferPointer(start: bytes, count: fixed + (access.isWrite ? 0 : Int(access.count))))
        } catch {
            close(Self.reason(error))
        }
    }

    @inline(__always)
    private func check(_ access: ShortAccess) throws(ErrorNumber) {
        guard access.region < UInt32(regionCount) else { throw .invalid }
        // Safety: the region is below `regionCount`; see `limits`.
        let limit = unsafe access.isWrite ? limits[Int(access.region)].writable : limits[Int(access.region)].readable
        guard access.offset <= limit, UInt64(access.count) <= limit - access.offset else { throw .invalid }
    }

    private func refuse(_ header: MessageHeader, _ error: ErrorNumber) {
        guard header.wantsReply else { return }
        var room = unsafe MutableRawSpan(_unsafeBytes: replyRoom(0..<MessageHeader.size))
        header.refusal(error).encode(into: &room)
        do throws(WireError) {
            unsafe try link.send(UnsafeRawBufferPointer(rebasing: reply[..<MessageHeader.size]))
        } catch {
            close(Self.reason(error))
        }
    }

    /// A client that left before its answer came has left: that is no error.
    private static func reason(_ error: WireError) -> String? {
        if case .closed = error { nil } else { "\(error)" }
    }

    /// A part of the reply buffer. Precondition: the range lies inside.
    ///
    /// Safety of every span made of it: the buffer lives as long as this object, only the serving thread uses it,
    /// and two spans in use never overlap.
    private func replyRoom(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: reply[range])
    }

    /// Where a reply's payload of so many bytes goes.
    func replyPayload(_ count: Int) -> UnsafeMutableRawBufferPointer {
        unsafe replyRoom(MessageHeader.size..<(MessageHeader.size + count))
    }

    /// Does one command; returns the size of the reply's payload, which is in place.
    private func perform(
        _ command: VFIOUserCommand, _ payload: RawSpan, _ descriptors: [Descriptor], _ passed: inout [Descriptor]
    ) throws(ErrorNumber) -> Int {
        if command == .regionRead { return try regionRead(payload) }
        if command == .regionWrite { return try regionWrite(payload) }
        // Only these three take descriptors; others that come with some are malformed.
        guard descriptors.isEmpty || command == .dmaMap || command == .deviceSetIRQs else { throw .invalid }
        switch command {
        case .version: return try version(payload, &passed)
        case .dmaMap:
            guard descriptors.count <= 1 else { throw .invalid }
            try device.dma.insert(try DMAMap(payload), descriptor: descriptors.first)
            device.dmaMapsChanged()
            return 0
        case .dmaUnmap:
            return try dmaUnmap(payload)
        case .deviceGetInfo:
            try DeviceInfo.checkRequest(payload)
            var room = unsafe MutableRawSpan(_unsafeBytes: replyPayload(DeviceInfo.size))
            device.information.encode(into: &room)
            return DeviceInfo.size
        case .deviceGetRegionInfo: return try regionInfo(payload, &passed)
        case .deviceGetRegionIOFDs: return try regionIOFDs(payload, &passed)
        case .deviceGetIRQInfo:
            let index = try IRQInfo.request(payload)
            guard index < device.information.irqCount else { throw .invalid }
            var room = unsafe MutableRawSpan(_unsafeBytes: replyPayload(IRQInfo.size))
            try device.interrupts.info(index).encode(into: &room)
            return IRQInfo.size
        case .deviceSetIRQs:
            let set = try IRQSet(payload, descriptors: descriptors.count)
            let bools = payload.extracting(IRQSet.size..<payload.byteCount)
            try device.interrupts.apply(set, bools: bools, descriptors: descriptors)
            return 0
        case .regionWriteMulti: return try regionWriteMulti(payload)
        case .deviceReset:
            guard payload.byteCount == 0 else { throw .invalid }
            device.reset()
            endMigration()
            return 0
        case .deviceFeature: return try feature(payload)
        case .migrationDataRead: return try readMigrationData(payload)
        case .migrationDataWrite: return try writeMigrationData(payload)
        default: throw .notSupported
        }
    }

    // MARK: Memory

    private func dmaUnmap(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        let unmap = try DMAUnmap(payload)
        let log = device.dma.log
        guard unmap.bitmap == nil || log != nil else { throw .invalid }
        if unmap.flags == DMAUnmap.all {
            device.dma.removeAll()
        } else {
            try device.dma.remove(address: unmap.address, length: unmap.length)
        }
        device.dmaMapsChanged()
        // No write is under way any more: what the log says now is all there was.
        let size = unmap.fixedSize + Int(unmap.bitmap?.byteCount ?? 0)
        var room = unsafe MutableRawSpan(_unsafeBytes: replyPayload(size))
        unmap.encode(into: &room)
        guard let bitmap = unmap.bitmap, let log else { return size }
        var words = [UInt64](repeating: 0, count: Int(bitmap.byteCount / 8))
        log.take(
            address: unmap.address, length: unmap.length, shift: UInt64(bitmap.pageSize.trailingZeroBitCount)
        ) { page in words[Int(page >> 6)] |= 1 << (page & 63) }
        for (number, word) in words.enumerated() {
            room.storeBytes(of: word, toByteOffset: unmap.fixedSize + number * 8, as: UInt64.self)
        }
        return size
    }

    // MARK: Regions

    private func check(_ access: RegionAccess, write: Bool) throws(ErrorNumber) {
        guard access.region < UInt32(regions.count), Int(access.count) <= Capabilities.defaultTransfer else {
            throw .invalid
        }
        // Field by field: a copy of the region would retain its descriptor.
        let place = Int(access.region)
        guard access.offset + UInt64(access.count) <= regions[place].length,
            write ? regions[place].isWritable : regions[place].isReadable
        else { throw .invalid }
    }

    private func regionRead(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        guard payload.byteCount == RegionAccess.size else { throw .invalid }
        let access = try RegionAccess(payload)
        try check(access, write: false)
        var head = unsafe MutableRawSpan(_unsafeBytes: replyPayload(RegionAccess.size))
        access.encode(into: &head)
        guard access.count > 0 else { return RegionAccess.size }
        let start = MessageHeader.size + RegionAccess.size
        var data = unsafe MutableRawSpan(_unsafeBytes: replyRoom(start..<(start + Int(access.count))))
        try device.readRegion(access.region, offset: access.offset, into: &data)
        return RegionAccess.size + Int(access.count)
    }

    private func regionWrite(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        let access = try RegionAccess(write: payload)
        try check(access, write: true)
        if access.count > 0 {
            try device.writeRegion(
                access.region, offset: access.offset, from: payload.extracting(RegionAccess.size..<payload.byteCount))
        }
        var head = unsafe MutableRawSpan(_unsafeBytes: replyPayload(RegionAccess.size))
        access.encode(into: &head)
        return RegionAccess.size
    }

    private func regionWriteMulti(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        let writes = try RegionWriteMulti(payload)
        for number in 0..<writes.count {
            let (access, place) = try writes.write(number, in: payload)
            try check(access, write: true)
            if access.count > 0 {
                try device.writeRegion(
                    access.region, offset: access.offset,
                    from: payload.extracting(place..<(place + Int(access.count))))
            }
        }
        var room = unsafe MutableRawSpan(_unsafeBytes: replyPayload(RegionWriteMulti.header))
        room.storeLittleEndian(UInt64(writes.count))
        return RegionWriteMulti.header
    }

    private func regionInfo(_ payload: RawSpan, _ passed: inout [Descriptor]) throws(ErrorNumber) -> Int {
        let (index, room) = try RegionInfo.request(payload)
        guard index < UInt32(regions.count) else { throw .invalid }
        let region = regions[Int(index)]
        var info = RegionInfo(index: index, flags: 0, length: region.length)
        if region.isReadable { info.flags |= RegionInfo.read }
        if region.isWritable { info.flags |= RegionInfo.write }
        if let shared = region.shared {
            info.flags |= RegionInfo.mmap
            info.fileOffset = shared.fileOffset
            info.areas = shared.areas.isEmpty ? [.init(offset: 0, length: region.length)] : shared.areas
            // A client that has no room for the areas asks again; it expects the descriptor only then.
            if UInt64(info.replySize) <= UInt64(room) { passed = [shared.descriptor] }
        }
        var span = unsafe MutableRawSpan(_unsafeBytes: replyPayload(info.replySize))
        return info.encode(into: &span, room: room)
    }

    private func regionIOFDs(_ payload: RawSpan, _ passed: inout [Descriptor]) throws(ErrorNumber) -> Int {
        let (index, room) = try RegionIOFDs.request(payload)
        guard index < UInt32(regions.count) else { throw .invalid }
        var offer = RegionIOFDs(index: index, parts: [])
        var files: [Descriptor] = []
        for event in device.ioEvents(index).prefix(RegionIOFDs.maximumCount) {
            let file = event.notifier.descriptor
            let place = files.firstIndex { $0 === file } ?? files.count
            if place == files.count {
                // The client takes no more in one message: the rest of the doorbells stay messages.
                guard files.count < clientDescriptors else { continue }
                files.append(file)
            }
            offer.parts.append(
                .init(
                    offset: event.offset, length: event.width, place: UInt32(place),
                    flags: event.match == nil ? 0 : RegionIOFDs.Part.matchFlag, match: event.match ?? 0))
        }
        guard !offer.parts.isEmpty else { throw .notSupported }
        if UInt64(offer.replySize) <= UInt64(room) { passed = files }
        var span = unsafe MutableRawSpan(_unsafeBytes: replyPayload(offer.replySize))
        return offer.encode(into: &span, room: room)
    }

    // MARK: Version

    private func version(_ payload: RawSpan, _ passed: inout [Descriptor]) throws(ErrorNumber) -> Int {
        guard !isNegotiated else { throw .invalid }
        let proposed = try Version(payload)
        guard proposed.major == Version.major else { throw .notSupported }
        let transfer = proposed.capabilities.maximumTransfer ?? UInt64(Capabilities.defaultTransfer)
        guard transfer > 0 else { throw .invalid }
        var agreed = Version(minor: min(proposed.minor, Version.minor), capabilities: Capabilities())
        let asked = proposed.capabilities
        clientDescriptors = Int(min(asked.maximumMessageDescriptors ?? 1, 32))
        // A reply may name only what was proposed.
        if let most = asked.maximumMessageDescriptors {
            // Never more than the client takes: QEMU calls more than its own 16 malformed.
            agreed.capabilities.maximumMessageDescriptors = min(most, 32)
        }
        if asked.maximumTransfer != nil { agreed.capabilities.maximumTransfer = UInt64(Capabilities.defaultTransfer) }
        if asked.maximumDMAMaps != nil { agreed.capabilities.maximumDMAMaps = UInt64(Capabilities.defaultDMAMaps) }
        if asked.pageSizes != nil { agreed.capabilities.pageSizes = 4096 }
        if asked.writeMultiple == true { agreed.capabilities.writeMultiple = true }
        var twin: MessageLink?
        if asked.twinSocket == true, asked.maximumMessageDescriptors != 0, let pair = try? Socket.pair() {
            agreed.capabilities.twinSocket = true
            agreed.capabilities.twinSocketDescriptor = 0
            passed = [pair.1.descriptor]
            twin = MessageLink(socket: pair.0, tap: LinkTap())
        }
        var bytes = agreed.encoded()
        // A client without JSON gets none.
        if payload.byteCount == Version.size { bytes.removeLast(bytes.count - Version.size) }
        configure(transfer: Int(min(transfer, UInt64(Capabilities.defaultTransfer))), twin: twin)
        isNegotiated = true
        var room = unsafe MutableRawSpan(_unsafeBytes: replyPayload(bytes.count))
        for (index, byte) in bytes.enumerated() { room.storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
        return bytes.count
    }
}
