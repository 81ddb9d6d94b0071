import Adapter
import Crypto
import Ethernet
import Serprog
import Sideband
import Synchronization
import TestKit
import Testing
import Trust
import Wire

/// A chip behind serprog that reads a byte array, as the security logic shows it to the adapter.
struct ArrayChip: SPITarget {
    let bytes: [UInt8]
    var identification: [UInt8] = [0xC2, 0x20, 0x19]
    /// Reads from here on fail.
    var failsFrom = Int.max

    /// The chip holds `bytes` and is erased behind them to the end of the page.
    init(bytes: [UInt8], identification: [UInt8] = [0xC2, 0x20, 0x19], failsFrom: Int = .max) {
        self.bytes = bytes + [UInt8](repeating: 0xFF, count: (4096 - bytes.count % 4096) % 4096)
        self.identification = identification
        self.failsFrom = failsFrom
    }

    mutating func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError) {
        switch write.first {
        case SPIFlash.readIdentification:
            let answer = Array(identification.prefix(readCount))
            try reply(answer.span.bytes)
        case SPIFlash.fastRead4Byte where write.count == 6:
            let address = write[1...4].reduce(0) { $0 << 8 | Int($1) }
            guard address < failsFrom, address + readCount <= bytes.count else {
                throw SPITargetError("no such bytes")
            }
            try reply(bytes.span.bytes.extracting(address..<address + readCount))
        default: throw SPITargetError("unknown instruction")
        }
    }
}

/// The security logic as the adapter sees it, on the test's thread.
final class FakeLogic: Sendable {
    let folder = TemporaryFolder()
    let thread: LoopThread
    let verification: FirmwareVerification
    private let listener: Listener
    private let server: SerprogServer?
    private let recorder = Recorder()

    private final class Recorder: Sendable {
        let events = Mutex<[VerificationSequence.Event]>([])
    }

    init(chip: ArrayChip?) throws {
        thread = try LoopThread()
        listener = try Listener(path: folder.file("sideband"), kind: .seqpacket)
        let path = folder.file("spi")
        server = try chip.map { chip in
            SerprogServer(try Listener(path: path), programmerName: "test", report: { _ in }) { chip }
        }
        verification = FirmwareVerification(
            loop: thread.loop, connectFlash: { () throws(WireError) in try Socket.connect(to: path) },
            report: { _ in }, emit: { [recorder] event in recorder.events.withLock { $0.append(event) } })
    }

    deinit {
        server?.stop()
        verification.stop()
        thread.end()
    }

    var events: [VerificationSequence.Event] { recorder.events.withLock { $0 } }

    /// Has the adapter connect, and returns the logic's end of the sideband.
    func connect() throws -> SidebandLink {
        try verification.start(.uses(path: folder.file("sideband")))
        return try accept()
    }

    func accept() throws -> SidebandLink {
        SidebandLink(socket: try listener.accept(until: .after(.seconds(20))))
    }
}

extension SidebandLink {
    /// The next request and its message; nil when the adapter is gone.
    func nextRequest(_ assembler: inout MCTPAssembler) throws -> (SecurityRequest, MCTPMessage)? {
        while let message = try receive(until: .after(.seconds(20))) {
            guard case .mctp(let packet) = message, let whole = assembler.receive(packet) else { continue }
            return (try SecurityRequest(decoding: whole.body), whole)
        }
        return nil
    }

    func answer(_ request: MCTPMessage, _ response: SecurityResponse) throws {
        try send(
            MCTPMessage(
                destination: request.source, source: .securityLogic, isTagOwner: false, tag: request.tag,
                body: response.encoded))
    }

    /// Plays a logic with `fuses` and so many slots until the mode is protected again; the requests that came.
    func serve(_ fuses: Fuses, slots: UInt8 = 1) throws -> [SecurityRequest] {
        var assembler = MCTPAssembler(address: .securityLogic)
        var requests: [SecurityRequest] = []
        while let (request, message) = try nextRequest(&assembler) {
            requests.append(request)
            switch request {
            case .readFuses:
                try answer(
                    message,
                    .fuses(
                        FuseValues(
                            rootKeyDigest: fuses.rootKeyDigest, minimumSecurityVersion: fuses.minimumSecurityVersion,
                            cancelledKeys: fuses.cancelledKeys.bytes, board: fuses.boardCompatibility)))
            case .nextSlot:
                let number = UInt8(requests.count { $0 == .nextSlot } - 1)
                try answer(message, number < slots ? .slot(number) : .status(request, .notPermitted))
            default: try answer(message, .status(request, .success))
            }
            if request == .setMode(.protected) { return requests }
        }
        return requests
    }
}

struct FirmwareVerificationTests {
    static let key = try! P384PrivateKey.generate()
    static let fuses = try! Fuses(root: key.publicKey, minimumSecurityVersion: 2)
    static let image = try! FirmwareImage.build(
        firstStage: Array(repeating: 1, count: 1000), opensbi: Array(repeating: 2, count: 100_000),
        nextStage: Array(repeating: 3, count: 50_000), key: key, name: "test image", securityVersion: 2)

    @Test func `a good image behind a logic is verified and reported`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let link = try logic.connect()
        try link.send(.signal(.reset, level: true))
        let requests = try link.serve(Self.fuses)
        #expect(Array(requests[..<4]) == [.setMode(.unprotected), .holdReset, .readFuses, .nextSlot])
        // The manifest and its components are measured before the report.
        #expect(requests[4..<requests.count - 2].allSatisfy { if case .extend = $0 { true } else { false } })
        #expect(requests.count == 6 + 5)
        guard case .reportVerification(let report) = requests[requests.count - 2] else { return #expect(Bool(false)) }
        #expect(report.slot == 0)
        #expect(report.isVerified)
        #expect(report.reason == "test image")
        #expect(report.securityVersion == 2)
        #expect(eventually { logic.verification.snapshot.phase == .finished })
        #expect(logic.events == [.verifying, .verified(slot: .a, image: "test image", securityVersion: 2)])
        #expect(logic.verification.snapshot.register == .verified)
        #expect(logic.verification.snapshot.duration != nil)
    }

    static let bad: [(chip: ArrayChip?, image: String, reason: String)] = {
        var tampered = image
        tampered[0x2_0000 + 5000] ^= 1
        let erased = [UInt8](repeating: 0xFF, count: image.count)
        return [
            (ArrayChip(bytes: tampered), "test image", "component OpenSBI: digest mismatch"),
            (ArrayChip(bytes: erased), "unnamed image", "no manifest"),
            (
                ArrayChip(bytes: image, identification: [0xFF, 0xFF, 0xFF]), "unnamed image",
                "no flash chip answers, or the security logic keeps it from us"
            ),
            (
                ArrayChip(bytes: image, identification: [0xC2, 0x20, 0x40]), "unnamed image",
                "claims a capacity of 2^64 bytes"
            ),
            (ArrayChip(bytes: image, failsFrom: 0x2_0000), "test image", "the flash chip at 131072"),
            (ArrayChip(bytes: Array(image[..<0x2_0000])), "test image", "the flash chip at 131072"),
            (ArrayChip(bytes: image, identification: [0xC2, 0x20, 0x10]), "unnamed image", ""),
            (nil, "unnamed image", "the flash port: "),
        ]
    }()

    @Test(arguments: bad.indices)
    func `what is wrong with the chip or the image is a refusal with a reason`(index: Int) throws {
        let (chip, image, reason) = Self.bad[index]
        let logic = try FakeLogic(chip: chip)
        let link = try logic.connect()
        try link.send(.signal(.reset, level: true))
        let requests = try link.serve(Self.fuses)
        #expect(requests.last == .setMode(.protected))
        guard case .reportVerification(let report) = requests[4] else { return #expect(Bool(false)) }
        #expect(!report.isVerified)
        #expect(requests[5] == .nextSlot)
        #expect(eventually { logic.events.count == 3 })
        guard case .slotRefused(.a, let name, let why) = logic.events[1] else { return #expect(Bool(false)) }
        #expect(logic.events[2] == .refused(image: name, reason: "slot A: \(why)"))
        #expect(name == image, "\(why)")
        #expect(why.contains(reason), "\(why)")
        #expect(report.reason.hasPrefix(name + "\n"))
        #expect(logic.verification.snapshot.register == .refused)
    }

    @Test func `the second slot is verified when the first is bad, at its own place in the chip`() throws {
        // The smallest chip that has room: 8 MiB, slots of 2 MiB.
        var bytes = [UInt8](repeating: 0xFF, count: 8 << 20)
        bytes.replaceSubrange(2 << 20..<2 << 20 + Self.image.count, with: Self.image)
        let logic = try FakeLogic(chip: ArrayChip(bytes: bytes, identification: [0xC2, 0x20, 23]))
        let link = try logic.connect()
        try link.send(.signal(.reset, level: true))
        let requests = try link.serve(Self.fuses, slots: 3)
        #expect(eventually { logic.events.count == 3 })
        #expect(logic.events[1] == .slotRefused(slot: .a, image: "unnamed image", reason: "no manifest"))
        #expect(logic.events[2] == .verified(slot: .b, image: "test image", securityVersion: 2))
        guard case .reportVerification(let report) = requests[requests.count - 2] else { return #expect(Bool(false)) }
        #expect(report.slot == 1 && report.isVerified)
    }

    @Test func `an image of another root is refused`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let link = try logic.connect()
        try link.send(.signal(.reset, level: true))
        let other = try Fuses(root: P384PrivateKey.generate().publicKey, minimumSecurityVersion: 2)
        _ = try link.serve(other)
        #expect(eventually { logic.events.count == 3 })
        guard case .slotRefused(_, _, let why) = logic.events[1] else { return #expect(Bool(false)) }
        #expect(why.contains("key digest does not match the fuses"))
    }

    @Test func `nothing begins before RESET# is released`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let link = try logic.connect()
        try link.send(.signal(.reset, level: false))
        try link.send(.signal(.powerGood, level: true))
        try link.socket.send([0x55])
        try link.send(.signal(.reset, level: true))
        var assembler = MCTPAssembler(address: .securityLogic)
        #expect(try link.nextRequest(&assembler)?.0 == .setMode(.unprotected))
        #expect(logic.events == [.verifying])
    }

    @Test func `a power cycle has the firmware verified again`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let link = try logic.connect()
        for run in 1...2 {
            try link.send(.signal(.reset, level: false))
            try link.send(.signal(.reset, level: true))
            #expect(try link.serve(Self.fuses).count == 11)
            #expect(eventually { logic.events.count == 2 * run })
        }
        #expect(logic.verification.snapshot.runs == 2)
    }

    @Test func `a logic that goes away is a refusal, and one that comes again is served`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let first = try logic.connect()
        try first.send(.signal(.reset, level: true))
        var assembler = MCTPAssembler(address: .securityLogic)
        _ = try first.nextRequest(&assembler)
        first.socket.shutdown()
        #expect(eventually { logic.events.count == 2 })
        #expect(
            logic.events.last
                == .refused(
                    image: "unnamed image", reason: "the image cannot be read: the security logic is gone"))
        let second = try logic.accept()
        try second.send(.signal(.reset, level: true))
        #expect(try second.serve(Self.fuses).count == 11)
        #expect(eventually { logic.verification.snapshot.register == .verified })
    }

    @Test func `answers that are malformed, of other tags or requests themselves are told apart`() throws {
        let logic = try FakeLogic(chip: ArrayChip(bytes: Self.image))
        let link = try logic.connect()
        try link.send(.signal(.reset, level: true))
        var assembler = MCTPAssembler(address: .securityLogic)
        let (request, message) = try #require(try link.nextRequest(&assembler))
        var other = message
        other.tag = (message.tag + 1) & 7
        try link.answer(other, .status(request, .notPermitted))
        try link.send(
            MCTPMessage(
                destination: .adapter, source: .securityLogic, isTagOwner: true, tag: message.tag, body: [0x7E]))
        try link.answer(message, .status(request, .success))
        let (next, hold) = try #require(try link.nextRequest(&assembler))
        #expect(next == .holdReset)
        try link.send(
            MCTPMessage(
                destination: .adapter, source: .securityLogic, isTagOwner: false, tag: hold.tag, body: [0x7E, 1, 2]))
        #expect(eventually { logic.events.count == 2 })
        #expect(
            logic.events.last
                == .refused(
                    image: "unnamed image",
                    reason: "the image cannot be read: the security logic's answer is malformed"))
    }
}
