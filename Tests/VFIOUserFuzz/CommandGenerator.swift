internal import VFIOUser
internal import Wire

/// A client's commands, right in most places.
struct CommandGenerator {
    var random: SeededRandom
    private let ram: SharedMemory
    private let event: EventNotifier
    private let others: [Descriptor]

    init(_ random: SeededRandom) throws {
        self.random = random
        ram = try SharedMemory(create: "fuzz", size: 16384)
        event = try EventNotifier()
        // A pipe's end and a folder: nothing that a server may take.
        others = [try Descriptor.open("/dev/null", flags: 2), try Descriptor.open("/", flags: 0)]
    }

    /// The first message of a link, and whether the server is to take it.
    mutating func version() -> (payload: [UInt8], isRight: Bool) {
        if random.once(in: 20) {
            var payload = random.bytes(random.below(60))
            if random.once(in: 2) { payload = [0, 0, 1, 0] + Array("{\"capabilities\":".utf8) + payload }
            return (payload, false)
        }
        let limits = [
            "", "{}", #"{"capabilities":{}}"#, #"{"capabilities":{"max_msg_fds":0}}"#,
            #"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":4096,"write_multiple":true}}"#,
            #"{"capabilities":{"max_data_xfer_size":1,"pgsizes":4096}}"#,
            #"{"capabilities":{"max_msg_fds":64,"twin_socket":{"supported":true}}}"#,
        ]
        let text = limits[random.below(limits.count)]
        return ([0, 0, UInt8(random.below(3)), 0] + (text.isEmpty ? [] : Array(text.utf8) + [0]), true)
    }

    /// A command, its payload and the descriptors to pass.
    mutating func next() -> (command: VFIOUserCommand, payload: [UInt8], descriptors: [Descriptor]) {
        var payload: [UInt8] = []
        let number: UInt16
        switch random.below(40) {
        case 0..<8: number = 10
        case 8..<13: number = 9
        case 13..<17: number = 2
        case 17..<20: number = 3
        case 20..<24: number = 16
        case 24..<26: number = 15
        case 26..<28: number = 8
        default: number = UInt16(random.below(22))
        }
        switch number {
        case 2:
            payload.put(32, UInt32(random.below(4)))
            payload.put64(UInt64(random.below(4)) << 12, page(), UInt64(1 + random.below(3)) << 12)
            if random.once(in: 8) { replace(&payload, at: 8 * (1 + random.below(3))) }
        case 3:
            payload.put(24, random.once(in: 16) ? 2 : 0)
            if payload[4] == 2 {
                payload.put64(0, 0)
            } else {
                payload.put64(page(), UInt64(1 + random.below(3)) << 12)
            }
            if random.once(in: 8) { replace(&payload, at: 8 * (1 + random.below(2))) }
        case 4, 7: payload.put(16, 0, UInt32(random.below(7)), 0)
        case 5:
            payload.put(random.word32() | 32, 0, UInt32(random.below(6)), 0)
            payload.put64(0, 0)
        case 6: payload.put(random.once(in: 2) ? 96 : 16, 0, UInt32(random.below(5)), 0)
        case 8:
            payload.put(20, 1 << UInt32(random.below(3)) | 8 << UInt32(random.below(3)), UInt32(random.below(6)))
            payload.put(UInt32(random.below(5)), UInt32(random.below(5)))
            if random.once(in: 8) { payload[12 + random.below(8)] = UInt8(truncatingIfNeeded: random.next()) }
            if payload[4] & 2 != 0 { payload += random.bytes(Int(payload[16])).map { $0 & 1 } }
        case 9, 10: access(write: number == 10, &payload)
        case 11, 12, 13: if random.once(in: 4) { payload = random.bytes(random.below(20)) }
        case 15:
            let count = random.below(5)
            payload.put64(UInt64(count))
            for _ in 0..<count {
                payload.put64(random.once(in: 4) ? random.word() : UInt64(random.below(4096)))
                payload.put(UInt32(random.below(4)), UInt32(random.below(10)))
                payload.put64(random.next() & 0xFFFFF)
            }
        case 16: feature(&payload)
        case 17:
            let count = random.once(in: 8) ? random.word32() : UInt32(random.below(5000))
            payload.put(count &+ 8, count)
        case 18:
            let data = migrationData()
            payload.put(UInt32(8 + data.count), UInt32(data.count))
            payload += data
        default: payload = random.bytes(random.below(40))
        }
        random.spoil(&payload, once: 8)
        return (VFIOUserCommand(rawValue: number), payload, descriptors(number))
    }

    /// Where maps lie: eight places, so that they meet.
    private mutating func page() -> UInt64 { UInt64(random.below(16)) << 12 }

    private mutating func replace(_ payload: inout [UInt8], at place: Int) {
        var word: [UInt8] = []
        word.putField(random.word())
        payload.replaceSubrange(place..<place + 8, with: word)
    }

    private mutating func access(write: Bool, _ payload: inout [UInt8]) {
        if write, random.once(in: 2) {
            // The device's command register: DMA at one of the places.
            payload.put64(0)
            payload.put(1, 8)
            payload.put64(UInt64(random.below(160)) << 3 | UInt64(random.below(8)))
            return
        }
        let count = random.once(in: 50) ? random.word32() : UInt32(random.below(17))
        payload.put64(random.once(in: 6) ? random.word() : UInt64(random.below(4080)))
        payload.put(UInt32(random.below(5)), count)
        if write { payload += [UInt8](repeating: 0x5A, count: Int(min(count, 64))) }
    }

    private mutating func feature(_ payload: inout [UInt8]) {
        let index = [1, 2, 2, 2, 6, 7, 8, 8, 3, 9][random.below(10)]
        let operation = UInt32(1 + random.below(7))
        let right: UInt32 = [1: 1, 2: 2, 6: 2, 7: 2, 8: 1][index] ?? 1
        payload.put(random.once(in: 6) ? random.word32() : 0x10000)
        payload.put(UInt32(index) | (random.once(in: 4) ? operation : right) << 16)
        switch index {
        case 2: payload.put(UInt32(random.below(9)), .max)
        case 6:
            let count = random.below(3)
            payload.put64(random.once(in: 6) ? random.word() : 4096)
            payload.put(UInt32(count), 0)
            for number in 0..<count { payload.put64(UInt64(number) << 14, random.once(in: 6) ? random.word() : 8192) }
        case 8:
            payload.put64(page(), random.once(in: 6) ? random.word() : UInt64(1 + random.below(0x20000)))
            payload.put64(random.once(in: 6) ? random.word() : 1 << UInt64(random.below(20)))
        default: break
        }
    }

    private mutating func migrationData() -> [UInt8] {
        var data: [UInt8] = []
        switch random.below(4) {
        case 0: data = random.bytes(random.below(64))
        case 1: data.put(0x534D_4242, UInt32(random.below(4)), random.word32())
        default:
            data.put(0x534D_4242, 2, 4096)
            data += [UInt8](repeating: 9, count: 4096)
        }
        return data
    }

    private mutating func descriptors(_ number: UInt16) -> [Descriptor] {
        guard number == 2 && random.once(in: 2) || number == 8 || random.once(in: 50) else { return [] }
        let choice: Descriptor =
            switch random.below(8) {
            case 0: others[0]
            case 1: others[1]
            case 2...4: number == 8 ? event.descriptor : ram.descriptor
            default: number == 2 ? ram.descriptor : event.descriptor
            }
        return [Descriptor](repeating: choice, count: number == 2 && !random.once(in: 10) ? 1 : random.below(5))
    }

    /// A reply to the server's DMA command, and whether the server will close the link for it.
    mutating func answer(_ request: MessageHeader, _ payload: [UInt8]) -> (message: [UInt8], ends: Bool) {
        var reply = request.reply(payload: 0)
        var answer: [UInt8] = Array(payload.prefix(16))
        if request.command == .dmaRead, answer.count == 16 {
            let count = answer[8..<16].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            answer += [UInt8](repeating: 3, count: Int(min(count, 1 << 20)))
        }
        var ends = false
        var message: [UInt8] = []
        switch random.below(400) {
        case 0..<40:
            reply = request.refusal(.badAddress)
            answer = []
        case 40:
            ends = request.command == .dmaRead
            answer.removeLast(min(answer.count, 1 + random.below(30)))
        case 41:
            ends = true
            reply.id &+= 1
        case 42:
            ends = true
            reply.command = .regionRead
        case 43:
            ends = request.command == .dmaRead
            answer += [1]
        default: break
        }
        reply.messageSize = UInt32(16 + answer.count)
        message.put(reply, answer)
        return (message, ends)
    }
}
