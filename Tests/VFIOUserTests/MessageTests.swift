import Testing
import VFIOUser

/// Little-endian bytes of integers, one after another.
func bytes(_ fields: [any FixedWidthInteger & Sendable]) -> [UInt8] {
    fields.flatMap { field -> [UInt8] in
        func of<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
            (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> Value($0 * 8)) }
        }
        return of(field)
    }
}

func u16(_ value: UInt16) -> any FixedWidthInteger & Sendable { value }
func u32(_ value: UInt32) -> any FixedWidthInteger & Sendable { value }
func u64(_ value: UInt64) -> any FixedWidthInteger & Sendable { value }

/// The bytes an encoder writes.
func encoded(_ count: Int, _ encode: (inout MutableRawSpan) -> Void) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    encode(&raw)
    return bytes
}

/// The refusal a decoder answers with, or nil.
func refusal(_ wire: some Collection<UInt8>, _ decode: (RawSpan) throws(ErrorNumber) -> Void) -> ErrorNumber? {
    let bytes = Array(wire)
    do throws(ErrorNumber) {
        try decode(bytes.span.bytes)
        return nil
    } catch {
        return error
    }
}

struct MessageTests {
    @Test func `a header is sixteen bytes in the specification's order`() {
        let header = MessageHeader(
            id: 0x1234, command: .regionRead, messageSize: 32, flags: MessageHeader.noReply, error: 0x16)
        let wire = bytes([u16(0x1234), u16(9), u32(32), u32(0x10), u32(0x16)])
        #expect(encoded(16) { header.encode(into: &$0) } == wire)
        #expect(MessageHeader(wire.span.bytes) == header)
    }

    @Test func `replies and refusals echo id and command`() {
        let command = MessageHeader.command(.dmaMap, id: 7, payload: 32)
        #expect(command.messageSize == 48 && command.isCommand && command.wantsReply)
        let reply = command.reply(payload: 0)
        #expect(reply.id == 7 && reply.command == .dmaMap && reply.isReply && reply.refusal == nil)
        let refusal = command.refusal(.exists)
        #expect(refusal.flags == 0x21 && refusal.error == 17 && refusal.messageSize == 16)
        #expect(refusal.refusal == .exists)
        var silent = refusal
        silent.error = 0
        #expect(silent.refusal == .invalid)
    }

    @Test(arguments: [
        ("VERSION", 1), ("DMA_MAP", 2), ("DMA_UNMAP", 3), ("DEVICE_GET_INFO", 4), ("DEVICE_GET_REGION_INFO", 5),
        ("DEVICE_GET_REGION_IO_FDS", 6), ("DEVICE_GET_IRQ_INFO", 7), ("DEVICE_SET_IRQS", 8), ("REGION_READ", 9),
        ("REGION_WRITE", 10), ("DMA_READ", 11), ("DMA_WRITE", 12), ("DEVICE_RESET", 13), ("REGION_WRITE_MULTI", 15),
        ("DEVICE_FEATURE", 16), ("MIG_DATA_READ", 17), ("MIG_DATA_WRITE", 18), ("command 77", 77),
    ]) func `a command has its number`(name: String, number: UInt16) {
        #expect("\(VFIOUserCommand(rawValue: number))" == name)
    }

    // MARK: DMA

    @Test func `DMA_MAP is 32 bytes both ways`() throws {
        let map = DMAMap(address: 0x8000_0000, length: 0x1000, offset: 0x2000, flags: 3)
        let wire = bytes([u32(32), u32(3), u64(0x2000), u64(0x8000_0000), u64(0x1000)])
        #expect(encoded(32) { map.encode(into: &$0) } == wire)
        #expect(try DMAMap(wire.span.bytes) == map)
        let top = bytes([u32(32), u32(1), u64(0), u64(.max - 0xFFF), u64(0x1000)])
        #expect(try DMAMap(top.span.bytes).length == 0x1000)
    }

    @Test(arguments: [
        bytes([u32(32), u32(3), u64(0), u64(0), u32(0x1000)]),
        bytes([u32(31), u32(3), u64(0), u64(0), u64(0x1000)]),
        bytes([u32(32), u32(0x10), u64(0), u64(0), u64(0x1000)]),
        bytes([u32(32), u32(3), u64(0), u64(0), u64(0)]),
        bytes([u32(32), u32(3), u64(0), u64(.max), u64(2)]),
        bytes([u32(32), u32(3), u64(.max), u64(0), u64(2)]),
        [],
    ]) func `a malformed DMA_MAP is EINVAL`(wire: [UInt8]) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DMAMap(raw) } == .invalid)
    }

    @Test func `DMA_UNMAP is 24 bytes both ways`() throws {
        let unmap = DMAUnmap(address: 0x1000, length: 0x2000)
        let wire = bytes([u32(24), u32(0), u64(0x1000), u64(0x2000)])
        #expect(encoded(24) { unmap.encode(into: &$0) } == wire)
        #expect(try DMAUnmap(wire.span.bytes) == unmap)
        let all = bytes([u32(24), u32(2), u64(0), u64(0)])
        #expect(try DMAUnmap(all.span.bytes).flags == DMAUnmap.all)
        let dirty = DMAUnmap(address: 0x1000, length: 65 << 12, bitmap: .init(pageSize: 4096, byteCount: 16))
        let longer = bytes([u32(56), u32(1), u64(0x1000), u64(65 << 12), u64(4096), u64(16)])
        #expect(encoded(40) { dirty.encode(into: &$0) } == longer)
        #expect(try DMAUnmap(longer.span.bytes) == dirty)
    }

    @Test(arguments: [
        (bytes([u32(24), u32(0), u64(0), u32(0)]), ErrorNumber.invalid),
        (bytes([u32(23), u32(0), u64(0), u64(1)]), .invalid),
        (bytes([u32(24), u32(2), u64(1), u64(0)]), .invalid),
        (bytes([u32(24), u32(4), u64(0), u64(1)]), .invalid),
        // A bitmap: not there, not of whole words, pages of no power of two, too short for the range or the reply, of
        // an empty range, beyond a message.
        (bytes([u32(24), u32(1), u64(0), u64(1)]), .invalid),
        (bytes([u32(48), u32(1), u64(0), u64(4096), u64(4096), u64(7)]), .invalid),
        (bytes([u32(48), u32(1), u64(0), u64(4096), u64(4095), u64(8)]), .invalid),
        (bytes([u32(48), u32(1), u64(0), u64(4096), u64(0), u64(8)]), .invalid),
        (bytes([u32(48), u32(1), u64(0), u64(65 << 12), u64(4096), u64(8)]), .invalid),
        (bytes([u32(47), u32(1), u64(0), u64(4096), u64(4096), u64(8)]), .invalid),
        (bytes([u32(48), u32(1), u64(0), u64(0), u64(4096), u64(8)]), .invalid),
        (bytes([u32(.max), u32(1), u64(0), u64(.max), u64(1), u64(1 << 61)]), .tooBig),
    ]) func `a malformed DMA_UNMAP is refused`(wire: [UInt8], error: ErrorNumber) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DMAUnmap(raw) } == error)
    }

    @Test func `DMA_READ and DMA_WRITE carry a 64-bit count`() throws {
        let access = DMAAccess(address: 0x1000, count: 2)
        let wire = bytes([u64(0x1000), u64(2)])
        #expect(encoded(16) { access.encode(into: &$0) } == wire)
        #expect(try DMAAccess(wire.span.bytes) == access)
        #expect(try DMAAccess(withData: (wire + [1, 2]).span.bytes) == access)
        #expect(refusal(wire[..<15]) { (raw) throws(ErrorNumber) in _ = try DMAAccess(raw) } == .invalid)
        #expect(refusal((wire + [1])) { (raw) throws(ErrorNumber) in _ = try DMAAccess(withData: raw) } == .invalid)
        let wrap = bytes([u64(.max), u64(2)])
        #expect(refusal(wrap) { (raw) throws(ErrorNumber) in _ = try DMAAccess(raw) } == .invalid)
    }

    // MARK: Information

    @Test func `DEVICE_GET_INFO is 16 bytes both ways`() throws {
        let info = DeviceInfo(flags: 3, regionCount: 9, irqCount: 5)
        let wire = bytes([u32(16), u32(3), u32(9), u32(5)])
        #expect(encoded(16) { info.encode(into: &$0) } == wire)
        #expect(try DeviceInfo(reply: wire.span.bytes) == info)
        #expect(refusal(wire[..<15]) { (raw) throws(ErrorNumber) in try DeviceInfo.checkRequest(raw) } == .invalid)
        let small = bytes([u32(15), u32(0), u32(0), u32(0)])
        #expect(refusal(small) { (raw) throws(ErrorNumber) in try DeviceInfo.checkRequest(raw) } == .invalid)
    }

    @Test func `DEVICE_GET_REGION_INFO carries mappable areas when they fit`() throws {
        let info = RegionInfo(
            index: 2, flags: 7, length: 0x3000, fileOffset: 0x1000,
            areas: [.init(offset: 0, length: 0x1000), .init(offset: 0x2000, length: 0x1000)])
        #expect(info.replySize == 80)
        let wire = bytes([
            u32(80), u32(15), u32(2), u32(32), u64(0x3000), u64(0x1000), u16(1), u16(1), u32(0), u32(2), u32(0),
            u64(0), u64(0x1000), u64(0x2000), u64(0x1000),
        ])
        #expect(encoded(80) { _ = info.encode(into: &$0, room: 80) } == wire)
        let (back, needs) = try RegionInfo.reply(wire.span.bytes)
        #expect(needs == 80 && back.areas == info.areas && back.length == 0x3000)
        let short = bytes([u32(80), u32(7), u32(2), u32(0), u64(0x3000), u64(0x1000)])
        #expect(encoded(32) { _ = info.encode(into: &$0, room: 79) } == short)
        #expect(try RegionInfo.request(bytes([u32(80), u32(0), u32(2), u32(0), u64(0), u64(0)]).span.bytes).room == 80)
    }

    @Test(arguments: [
        // Capability beyond the end, inside the fixed part, a chain that loops, areas beyond the end or the region.
        bytes([u32(40), u32(8), u32(0), u32(64), u64(16), u64(0), u64(0)]),
        bytes([u32(40), u32(8), u32(0), u32(4), u64(16), u64(0), u64(0)]),
        bytes([u32(40), u32(8), u32(0), u32(32), u64(16), u64(0), u16(9), u16(1), u32(32)]),
        bytes([u32(48), u32(8), u32(0), u32(32), u64(16), u64(0), u16(1), u16(1), u32(0), u32(1), u32(0)]),
        bytes([
            u32(64), u32(8), u32(0), u32(32), u64(16), u64(0), u16(1), u16(1), u32(0), u32(1), u32(0), u64(8),
            u64(.max),
        ]),
        bytes([u32(32), u32(0), u32(0), u32(0), u64(16)]),
    ]) func `a malformed DEVICE_GET_REGION_INFO reply is refused`(wire: [UInt8]) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try RegionInfo.reply(raw) } == .invalid)
    }

    @Test func `a malformed DEVICE_GET_REGION_INFO request is EINVAL`() {
        let small = bytes([u32(31), u32(0), u32(2), u32(0), u64(0), u64(0)])
        #expect(refusal(small) { (raw) throws(ErrorNumber) in _ = try RegionInfo.request(raw) } == .invalid)
        #expect(refusal(small[..<31]) { (raw) throws(ErrorNumber) in _ = try RegionInfo.request(raw) } == .invalid)
    }

    @Test func `DEVICE_GET_IRQ_INFO is 16 bytes both ways`() throws {
        let info = IRQInfo(index: 2, flags: 9, count: 4)
        let wire = bytes([u32(16), u32(9), u32(2), u32(4)])
        #expect(encoded(16) { info.encode(into: &$0) } == wire)
        #expect(try IRQInfo(reply: wire.span.bytes) == info)
        #expect(try IRQInfo.request(wire.span.bytes) == 2)
        #expect(refusal(wire[..<12]) { (raw) throws(ErrorNumber) in _ = try IRQInfo.request(raw) } == .invalid)
        #expect(refusal(wire[..<8]) { (raw) throws(ErrorNumber) in _ = try IRQInfo(reply: raw) } == .invalid)
    }

    @Test func `DEVICE_GET_REGION_IO_FDS is checked`() throws {
        #expect(try RegionIOFDs.request(bytes([u32(16), u32(0), u32(1), u32(0)]).span.bytes).index == 1)
        for wire in [
            bytes([u32(16), u32(1), u32(1), u32(0)]), bytes([u32(16), u32(0), u32(1), u32(1)]),
            bytes([u32(15), u32(0), u32(1), u32(0)]), bytes([u32(16), u32(0), u32(1)]),
        ] {
            #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try RegionIOFDs.request(raw) } == .invalid)
        }
    }

    // MARK: Interrupts

    @Test func `DEVICE_SET_IRQS is 20 bytes and its data`() throws {
        let set = IRQSet(data: .eventfd, action: .trigger, index: 2, start: 1, count: 3)
        let wire = bytes([u32(20), u32(0x24), u32(2), u32(1), u32(3)])
        #expect(encoded(20) { set.encode(into: &$0) } == wire)
        #expect(try IRQSet(wire.span.bytes, descriptors: 3) == set)
        #expect(try IRQSet(wire.span.bytes, descriptors: 0) == set)
        let bools = bytes([u32(22), u32(0x22), u32(0), u32(0), u32(2)]) + [1, 0]
        #expect(try IRQSet(bools.span.bytes, descriptors: 0).data == .bool)
        let none = bytes([u32(20), u32(0x21), u32(0), u32(0), u32(0)])
        #expect(try IRQSet(none.span.bytes, descriptors: 0).count == 0)
    }

    @Test(arguments: [
        (bytes([u32(20), u32(0x24), u32(2), u32(1), u16(3)]), 0),
        (bytes([u32(19), u32(0x24), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x26), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x34), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x20), u32(2), u32(1), u32(3)]), 0),
        (bytes([u32(20), u32(0x04), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x64), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x24), u32(2), u32(1), u32(3)]), 2),
        (bytes([u32(20), u32(0x21), u32(2), u32(1), u32(3)]), 3),
        (bytes([u32(20), u32(0x24), u32(2), u32(1), u32(.max)]), 0),
        (bytes([u32(20), u32(0x22), u32(2), u32(1), u32(3)]), 0),
        (bytes([u32(20), u32(0x21), u32(2), u32(1), u32(0)]), 0),
        (bytes([u32(20), u32(0x24), u32(2), u32(0), u32(0)]), 0),
    ]) func `a malformed DEVICE_SET_IRQS is EINVAL`(wire: [UInt8], descriptors: Int) {
        #expect(
            refusal(wire) { (raw) throws(ErrorNumber) in _ = try IRQSet(raw, descriptors: descriptors) } == .invalid)
    }

    // MARK: Accesses

    @Test func `REGION_READ and REGION_WRITE carry a 32-bit count`() throws {
        let access = RegionAccess(offset: 0x10, region: 7, count: 4)
        let wire = bytes([u64(0x10), u32(7), u32(4)])
        #expect(encoded(16) { access.encode(into: &$0) } == wire)
        #expect(try RegionAccess(wire.span.bytes) == access)
        #expect(try RegionAccess(write: (wire + [1, 2, 3, 4]).span.bytes) == access)
        #expect(refusal(wire[..<15]) { (raw) throws(ErrorNumber) in _ = try RegionAccess(raw) } == .invalid)
        for extra in [[], [1, 2, 3], [1, 2, 3, 4, 5]] as [[UInt8]] {
            let message = wire + extra
            #expect(refusal(message) { (raw) throws(ErrorNumber) in _ = try RegionAccess(write: raw) } == .invalid)
        }
        let wrap = bytes([u64(.max - 2), u32(7), u32(4)])
        #expect(refusal(wrap) { (raw) throws(ErrorNumber) in _ = try RegionAccess(raw) } == .invalid)
    }

    @Test func `REGION_WRITE_MULTI is a count and writes of 24 bytes`() throws {
        let wire = bytes([u64(2), u64(8), u32(0), u32(4), u64(0x1122_3344), u64(16), u32(1), u32(9), u64(0)])
        let writes = try RegionWriteMulti(wire.span.bytes)
        #expect(writes.count == 2)
        let (access, place) = try writes.write(0, in: wire.span.bytes)
        #expect(access == RegionAccess(offset: 8, region: 0, count: 4) && place == 24)
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try writes.write(1, in: raw) } == .invalid)
        for malformed in [Array(wire.dropLast()), wire + [0], [1, 0], bytes([u64(.max)])] {
            #expect(refusal(malformed) { (raw) throws(ErrorNumber) in _ = try RegionWriteMulti(raw) } == .invalid)
        }
    }

    @Test func `DEVICE_FEATURE is checked`() throws {
        #expect(try DeviceFeature(bytes([u32(8), u32(0x1_0001)]).span.bytes).feature.rawValue == 1)
        for wire in [
            bytes([u32(8), u32(1)]), bytes([u32(8), u32(0x3_0001)]), bytes([u32(8), u32(0x9_0001)]),
            bytes([u32(7), u32(0x1_0001)]), bytes([u32(8)]),
        ] {
            #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DeviceFeature(raw) } == .invalid)
        }
    }

    @Test(arguments: [1, 2, 3, 4, 7, 8]) func `a span is an integer of its size`(width: Int) {
        let value: UInt64 = 0x8877_6655_4433_2211
        let stored = encoded(width) { $0.storeLittleEndian(value) }
        #expect(stored == (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) })
        let mask = width == 8 ? UInt64.max : (1 << UInt64(width * 8)) - 1
        #expect(stored.span.bytes.littleEndianValue == value & mask)
    }
}
