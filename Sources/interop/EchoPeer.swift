// A host on the far side of an Ethernet link: sends ICMP echo requests of random content and wants every one back.
//
// The guest's kernel answers them, so each packet goes through its driver and our device in both directions, and what
// comes back is compared byte for byte. Spec: RFC 792 (echo), RFC 791, RFC 826 (ARP).

import Wire

struct EchoPeer {
    struct Outcome {
        var sent = 0
        var returned = 0
        var changed = 0
        var duplicated = 0
        var duration = Duration.zero

        var isPerfect: Bool { sent == returned && changed == 0 && duplicated == 0 }
        var text: String {
            let rate = UInt64(returned) * 1_000_000_000 / max(1, duration.clampedNanoseconds)
            return
                "\(sent) sent, \(sent - returned) lost, \(changed) changed, \(duplicated) duplicated; \(rate) a second"
        }
    }

    static let address: [UInt8] = [0x52, 0x54, 0x00, 0xEE, 0x00, 0x01]
    private let socket: Socket
    private let network: UInt8
    private var pending: [UInt8] = []

    /// A peer 192.168.`network`.1 of a guest 192.168.`network`.2.
    init(path: String, network: UInt8) throws {
        socket = try Socket.connect(to: path)
        self.network = network
    }

    /// What the guest does to be reached and to answer. It knows our address: while Linux asks for one, it drops what
    /// its queue for the question does not hold. And it answers all: Linux limits its ICMP messages, replies too.
    func guestSetup(_ interface: String) -> String {
        let address = Self.address.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined(separator: ":")
        return "ip addr replace 192.168.\(network).2/24 dev \(interface) && ip link set \(interface) up "
            + "&& cd /proc/sys/net/ipv4 && echo 0 >icmp_ratelimit && echo 0 >icmp_ratemask "
            + "&& echo 1000000 >icmp_msgs_per_sec && echo 100000 >icmp_msgs_burst "
            + "&& arp -i \(interface) -s 192.168.\(network).1 \(address)"
    }

    /// Sends so many requests, `window` of them at a time under way; waits for each answer `patience` long at most.
    mutating func exchange(
        count: Int, to guest: [UInt8], seed: UInt64, window: Int = 64, patience: Duration = .seconds(10)
    ) throws -> Outcome {
        var outcome = Outcome()
        let start = MonotonicTime.now
        // By sequence number: what is under way. The window is far smaller than 65536, so numbers are not confused.
        var waiting: [UInt16: Int] = [:]
        var progress = MonotonicTime.now
        while outcome.returned + outcome.changed < count {
            var batch: [UInt8] = []
            while waiting.count < window, outcome.sent < count {
                let sequence = UInt16(truncatingIfNeeded: outcome.sent)
                waiting[sequence] = outcome.sent
                batch += Self.framed(request(outcome.sent, seed, to: guest))
                outcome.sent += 1
            }
            if !batch.isEmpty { try socket.send(batch) }
            guard let frames = try receive(until: progress + patience) else { break }
            for frame in frames {
                if try answerARP(frame) { continue }
                guard let (sequence, payload) = echoReply(frame, from: guest) else { continue }
                guard let number = waiting.removeValue(forKey: sequence) else {
                    outcome.duplicated += 1
                    continue
                }
                if payload == Self.content(number, seed) { outcome.returned += 1 } else { outcome.changed += 1 }
                progress = .now
            }
            if MonotonicTime.now > progress + patience { break }
        }
        outcome.duration = MonotonicTime.now.since(start)
        return outcome
    }

    // MARK: Frames

    /// Of 0 to 1472 bytes, as fit into 1500 with the headers.
    private static func content(_ number: Int, _ seed: UInt64) -> [UInt8] {
        // SplitMix64: any number gives its own bytes without those before it.
        var state = seed &+ UInt64(number) &* 0x9E37_79B9_7F4A_7C15
        func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
            return value ^ value >> 31
        }
        let count = Int(next() % 1473)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            let word = next()
            for shift in stride(from: 0, to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
            }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    private func request(_ number: Int, _ seed: UInt64, to guest: [UInt8]) -> [UInt8] {
        let content = Self.content(number, seed)
        let sequence = UInt16(truncatingIfNeeded: number)
        // Type 8, code 0, checksum, identifier, sequence number.
        var message: [UInt8] = [8, 0, 0, 0, 0xBB, network, UInt8(sequence >> 8), UInt8(sequence & 0xFF)] + content
        Self.sum(&message, at: 2)
        let total = UInt16(20 + message.count)
        var header: [UInt8] = [
            0x45, 0, UInt8(total >> 8), UInt8(total & 0xFF), UInt8(sequence >> 8), UInt8(sequence & 0xFF), 0x40, 0, 64,
            1,
            0, 0, 192, 168, network, 1, 192, 168, network, 2,
        ]
        Self.sum(&header, at: 10)
        return guest + Self.address + [0x08, 0x00] + header + message
    }

    /// Puts the Internet checksum into place.
    private static func sum(_ bytes: inout [UInt8], at place: Int) {
        var sum: UInt32 = 0
        var index = 0
        while index + 1 < bytes.count {
            sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
            index += 2
        }
        if index < bytes.count { sum += UInt32(bytes[index]) << 8 }
        while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
        bytes[place] = UInt8(~sum >> 8 & 0xFF)
        bytes[place + 1] = UInt8(~sum & 0xFF)
    }

    /// The sequence number and content of an echo reply to us.
    private func echoReply(_ frame: [UInt8], from guest: [UInt8]) -> (UInt16, [UInt8])? {
        guard frame.count >= 42, Array(frame[0..<6]) == Self.address, Array(frame[6..<12]) == guest,
            frame[12] == 0x08, frame[13] == 0x00, frame[14] == 0x45, frame[23] == 1, frame[34] == 0,
            frame[38] == 0xBB, frame[39] == network
        else { return nil }
        let total = Int(frame[16]) << 8 | Int(frame[17])
        guard total >= 28, 14 + total <= frame.count else { return nil }
        return (UInt16(frame[40]) << 8 | UInt16(frame[41]), Array(frame[42..<(14 + total)]))
    }

    /// Answers a question for our address.
    private func answerARP(_ frame: [UInt8]) throws -> Bool {
        guard frame.count >= 42, frame[12] == 0x08, frame[13] == 0x06 else { return false }
        guard frame[21] == 1, Array(frame[38..<42]) == [192, 168, network, 1] else { return true }
        let asker = Array(frame[22..<32])
        let answer =
            Array(asker[..<6]) + Self.address + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2] + Self.address
            + [192, 168, network, 1] + asker
        try socket.send(Self.framed(answer))
        return true
    }

    private static func framed(_ frame: [UInt8]) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: frame.count >> (24 - 8 * $0)) } + frame
    }

    /// The frames of one receive call; nil when none came in time, or the card closed the link.
    private mutating func receive(until deadline: MonotonicTime) throws -> [[UInt8]]? {
        do throws(WireError) {
            guard let more = try socket.receiveBytes(limit: 1 << 18, until: deadline) else { return nil }
            pending += more
        } catch {
            if error == .timedOut { return nil }
            throw error
        }
        var frames: [[UInt8]] = []
        var place = 0
        while pending.count - place >= 4 {
            let length = pending[place..<place + 4].reduce(0) { $0 << 8 | Int($1) }
            guard pending.count - place - 4 >= length else { break }
            frames.append(Array(pending[(place + 4)..<(place + 4 + length)]))
            place += 4 + length
        }
        pending.removeFirst(place)
        return frames
    }
}
