internal import VFIOUser
internal import Wire

/// A server's replies, right in most places, and commands of its own.
struct ReplyGenerator {
    var random: SeededRandom
    private let memory: SharedMemory
    private let event: EventNotifier
    private let other: Descriptor
    /// The twin socket that the version reply passed.
    var twin: Socket?

    init(_ random: SeededRandom) throws {
        self.random = random
        memory = try SharedMemory(create: "fuzz", size: 16384)
        event = try EventNotifier()
        other = try Descriptor.open("/dev/null", flags: 2)
    }

    /// The payload of a reply, and the descriptors that go with it.
    mutating func reply(_ header: MessageHeader, _ request: [UInt8]) -> (payload: [UInt8], descriptors: [Descriptor]) {
        var payload: [UInt8] = []
        var descriptors: [Descriptor] = []
        switch header.command {
        case .version: version(&payload, &descriptors)
        case .deviceGetInfo: payload.put(16, 3, UInt32(random.once(in: 40) ? random.below(90) : 5), 5)
        case .deviceGetRegionInfo: regionInfo(request, &payload, &descriptors)
        case .deviceGetIRQInfo:
            payload.put(16, 7, request.count >= 12 ? UInt32(request[8]) : 0, random.once(in: 50) ? random.word32() : 4)
        case .deviceGetRegionIOFDs: doorbells(request, &payload, &descriptors)
        case .regionRead:
            payload = Array(request.prefix(16))
            let count = request.count >= 16 ? Int(request[12]) | Int(request[13]) << 8 : 0
            payload += [UInt8](repeating: 0x44, count: count)
        case .regionWrite: payload = Array(request.prefix(16))
        case .regionWriteMulti: payload = Array(request.prefix(8))
        case .dmaUnmap: payload = request
        case .deviceFeature: feature(request, &payload)
        case .migrationDataRead:
            let data = random.bytes(random.below(64))
            payload.put(UInt32(8 + data.count), UInt32(data.count))
            payload += data
        default: break
        }
        random.spoil(&payload, once: 250)
        if random.once(in: 100) { descriptors += [Descriptor](repeating: other, count: random.below(4)) }
        return (payload, descriptors)
    }

    private mutating func version(_ payload: inout [UInt8], _ descriptors: inout [Descriptor]) {
        payload = [0, 0, UInt8(random.below(2)), 0]
        switch random.below(8) {
        case 0: return
        case 1:
            payload += Array(#"{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}"#.utf8) + [0]
            guard !random.once(in: 4), let (near, far) = try? Socket.pair() else { return }
            twin = near
            descriptors = [far.descriptor]
        case 2: payload += Array(#"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":64}}"#.utf8) + [0]
        case 3: payload += Array(#"{"capabilities":{"max_data_xfer_size":1,"write_multiple":true}}"#.utf8) + [0]
        default: payload += Array(#"{"capabilities":{"max_msg_fds":8,"write_multiple":true}}"#.utf8) + [0]
        }
    }

    private mutating func regionInfo(_ request: [UInt8], _ payload: inout [UInt8], _ descriptors: inout [Descriptor]) {
        let index = request.count >= 12 ? UInt32(request[8]) : 0
        let room = request.count >= 4 ? UInt32(request[0]) | UInt32(request[1]) << 8 : 32
        let areas = random.below(4)
        let flags = UInt32(3 | random.below(4) << 2)
        let hasChain = flags & 8 != 0
        let size: UInt32 = hasChain ? UInt32(48 + 16 * areas) : 32
        let fits = size <= room
        payload.put(size, fits ? flags : flags & ~8, index, hasChain && fits ? 32 : 0)
        payload.put64(16384, random.once(in: 30) ? random.word() : 0)
        if hasChain, fits {
            payload.put(UInt32(1 | 1 << 16), random.once(in: 20) ? random.word32() : 0, UInt32(areas), 0)
            for area in 0..<areas { payload.put64(UInt64(area) << 12, random.once(in: 30) ? random.word() : 4096) }
        }
        if flags & 4 != 0 { descriptors = [random.once(in: 20) ? other : memory.descriptor] }
    }

    private mutating func doorbells(_ request: [UInt8], _ payload: inout [UInt8], _ descriptors: inout [Descriptor]) {
        let index = request.count >= 12 ? UInt32(request[8]) : 0
        let count = random.below(4)
        payload.put(UInt32(16 + 40 * count), 0, index, UInt32(random.once(in: 60) ? 77 : count))
        for number in 0..<count {
            payload.put64(random.once(in: 60) ? random.word() : UInt64(number) * 8, UInt64(random.below(9)))
            payload.put(random.once(in: 60) ? 5 : 0, UInt32(random.below(3)), UInt32(random.below(3)), 0)
            payload.put64(UInt64(random.below(3)))
        }
        descriptors = [random.once(in: 40) ? other : event.descriptor]
    }

    private mutating func feature(_ request: [UInt8], _ payload: inout [UInt8]) {
        payload = request
        guard request.count >= 8, request[6] & 7 == 1 else { return }
        let size: UInt32
        switch request[4] {
        case 1:
            size = 16
            payload += [5, 0, 0, 0, 0, 0, 0, 0]
        case 2:
            size = 16
            payload += [UInt8(random.below(9)), 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]
        default:
            // A report has as many words as the client made room for.
            size = UInt32(request[0]) | UInt32(request[1]) << 8
            payload += [UInt8](repeating: 0x11, count: max(0, Int(size) - request.count))
        }
        payload.replaceSubrange(
            0..<4, with: [UInt8(truncatingIfNeeded: size), UInt8(truncatingIfNeeded: size >> 8), 0, 0])
    }

    /// A command of the server's: a DMA message where memory may be, or anything.
    mutating func command() -> [UInt8] {
        var payload: [UInt8] = []
        let write = random.once(in: 2)
        let count = random.once(in: 10) ? random.word() : UInt64(random.below(64))
        payload.put64(random.once(in: 6) ? random.word() : UInt64(random.below(4096)), count)
        if write { payload += [UInt8](repeating: 6, count: Int(min(count, 64))) }
        random.spoil(&payload, once: 12)
        let number = random.once(in: 12) ? UInt16(random.below(22)) : write ? 12 : 11
        var message: [UInt8] = []
        message.put(
            .command(
                VFIOUserCommand(rawValue: number), id: UInt16(truncatingIfNeeded: random.next()),
                payload: payload.count,
                noReply: random.once(in: 10)), payload)
        return message
    }
}
