// A host on the far side of an Ethernet link: sends netcheck's frames back, answers ARP for its address, and pings.
//
// Spec: RFC 826 (ARP), RFC 792 (echo).

import Wire

/// Works from its making until it is let go, or the card closes the link.
final class Station: Sendable {
    static let name = "52:54:00:00:00:99"
    private static let octets: [UInt8] = [0x52, 0x54, 0, 0, 0, 0x99]
    /// A frame longer than this is none of ours: the link is out of step.
    private static let longest = 1 << 16

    /// The third byte of its address.
    let network: UInt8
    private let socket: Socket
    private let thread: WorkerThread

    /// 192.168.`network`.1 behind the card's socket at `path`.
    init(path: String, network: UInt8) throws {
        let socket = try Socket.connect(to: path)
        self.socket = socket
        self.network = network
        thread = WorkerThread("station") { Self.serve(socket, [192, 168, network, 1]) }
    }

    deinit {
        socket.shutdown()
        thread.join()
    }

    /// Answers what comes in one receive call by one send call.
    private static func serve(_ socket: Socket, _ address: [UInt8]) {
        var pending: [UInt8] = []
        while let more = try? socket.receiveBytes(limit: 1 << 16) {
            pending += more
            var answers: [UInt8] = []
            var place = 0
            while pending.count - place >= 4 {
                let length = pending[place..<place + 4].reduce(0) { $0 << 8 | Int($1) }
                guard length <= longest else { return }
                guard pending.count - place - 4 >= length else { break }
                if let answer = answer(pending[(place + 4)..<(place + 4 + length)], address) {
                    answers += (0..<4).map { UInt8(truncatingIfNeeded: answer.count >> (24 - 8 * $0)) } + answer
                }
                place += 4 + length
            }
            pending.removeFirst(place)
            guard answers.isEmpty || (try? socket.send(answers)) != nil else { return }
        }
    }

    private static func answer(_ slice: ArraySlice<UInt8>, _ address: [UInt8]) -> [UInt8]? {
        guard slice.count >= 42 else { return nil }
        let frame = Array(slice)
        let source = Array(frame[6..<12])
        let isForUs = frame[..<6].elementsEqual(octets)
        switch UInt16(frame[12]) << 8 | UInt16(frame[13]) {
        // IEEE 802: for local experiments; netcheck's.
        case 0x88B5 where isForUs: return source + octets + frame[12...]
        case 0x0806 where frame[20...21].elementsEqual([0, 1]) && frame[38..<42].elementsEqual(address):
            return source + octets + frame[12..<20] + [0, 2] + octets + address + frame[22..<32]
        case 0x0800 where isForUs && frame[14] == 0x45 && frame[23] == 1 && frame[34] == 8:
            // An echo reply differs from its request in the type, and in the checksum by as much.
            var answer = source + octets + frame[12..<26] + address + frame[26..<30] + frame[34...]
            var sum = UInt32(frame[36]) << 8 | UInt32(frame[37])
            sum += 0x0800
            sum = (sum & 0xFFFF) + (sum >> 16)
            answer[34] = 0
            answer[36] = UInt8(sum >> 8)
            answer[37] = UInt8(sum & 0xFF)
            return answer
        default: return nil
        }
    }
}
