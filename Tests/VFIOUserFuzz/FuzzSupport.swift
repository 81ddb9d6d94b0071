internal import FoundationEssentials
internal import Glibc
internal import Synchronization
internal import VFIOUser
internal import Wire

// What both fuzzers share: random numbers that sit on edges, bytes of messages, and what a process has open.

/// Why a fuzzer gave up: with the seed and the message it happened at, so that it is repeated.
public struct FuzzFailure: Error, CustomStringConvertible {
    public var description: String

    public init(description: String) { self.description = description }
}

/// What a fuzzer did.
public struct FuzzReport: CustomStringConvertible, Sendable {
    public var side: String
    public var seed: UInt64
    /// Messages that the side under test received.
    public var messages = 0
    /// Links they came on.
    public var links = 0
    public var seconds = 0.0
    /// Open descriptors before and after.
    public var descriptors = (before: 0, after: 0)
    /// Resident memory in KiB after the first tenth, and at the end.
    public var resident = (early: 0, late: 0)

    public var description: String {
        let rate = seconds > 0 ? Int(Double(messages) / seconds) : 0
        return
            "\(side): \(messages) messages on \(links) links in \(Int(seconds)) s (\(rate) a second), seed \(seed); "
            + "descriptors \(descriptors.before) before, \(descriptors.after) after; resident \(resident.early) KiB "
            + "after a tenth, \(resident.late) KiB at the end"
    }

    /// Runs a side's fuzzer and measures what it leaves behind. Throws what it throws, or when something leaks.
    package static func measure(_ side: String, seed: UInt64, _ work: (inout FuzzReport) throws -> Void) throws
        -> FuzzReport
    {
        var report = FuzzReport(side: side, seed: seed)
        let start = MonotonicTime.now
        report.descriptors.before = ProcessState.openDescriptors
        try work(&report)
        _ = settle { ProcessState.openDescriptors <= report.descriptors.before }
        report.descriptors.after = ProcessState.openDescriptors
        report.resident.late = ProcessState.resident
        report.seconds = Double(MonotonicTime.now.nanoseconds - start.nanoseconds) / 1e9
        try report.check()
        return report
    }

    /// Leaks show as one descriptor a link, or as memory that grows with the messages.
    func check() throws {
        guard descriptors.after <= descriptors.before + Self.ownDescriptors else {
            throw FuzzFailure(description: "descriptors leak: \(self)")
        }
        guard resident.late <= resident.early + Self.ownMemory else {
            throw FuzzFailure(description: "memory grows: \(self)")
        }
    }

    /// What the runtime and the library's own threads may open once.
    private static let ownDescriptors = 8
    /// In KiB: the allocator's caches and the sanitizer's quarantine. 10^7 messages that leak 16 bytes each are more.
    private static let ownMemory = 96 * 1024
}

extension SeededRandom {
    /// Numbers that sit on edges.
    private static let edges: [UInt64] = [
        0, 1, 2, 4, 8, 15, 16, 17, 32, 4095, 4096, 4097, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, .max - 4095,
        .max - 1, .max,
    ]

    /// One of the edges or a small number.
    package mutating func word() -> UInt64 {
        let draw = next()
        return draw & 1 == 0 ? Self.edges[Int(draw >> 1) % Self.edges.count] : (draw >> 1) & 63
    }

    package mutating func word32() -> UInt32 { UInt32(truncatingIfNeeded: word()) }

    /// A number below a limit that is small.
    package mutating func below(_ limit: Int) -> Int { Int(truncatingIfNeeded: next() >> 33) % limit }

    /// True one time in so many.
    package mutating func once(in times: Int) -> Bool { below(times) == 0 }

    package mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        for place in bytes.indices { bytes[place] = UInt8(truncatingIfNeeded: next()) }
        return bytes
    }

    /// Now and then cuts, lengthens or changes a payload.
    package mutating func spoil(_ payload: inout [UInt8], once times: Int) {
        guard once(in: times) else { return }
        switch below(3) {
        case 0: payload.removeLast(min(payload.count, 1 + below(8)))
        case 1: payload += bytes(1 + below(8))
        default: if !payload.isEmpty { payload[below(payload.count)] = UInt8(truncatingIfNeeded: next()) }
        }
    }
}

/// SplitMix64: its whole state is its seed.
package struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64
    package init(_ seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

extension [UInt8] {
    mutating func putField(_ value: some FixedWidthInteger) {
        for shift in stride(from: 0, to: value.bitWidth, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }

    mutating func put(_ values: UInt32...) { for value in values { putField(value) } }
    mutating func put64(_ values: UInt64...) { for value in values { putField(value) } }

    /// A whole message: header and payload.
    mutating func put(_ header: MessageHeader, _ payload: [UInt8]) {
        putField(header.id)
        putField(header.command.rawValue)
        put(header.messageSize, header.flags, header.error)
        self += payload
    }
}

/// The process's descriptors and memory.
package enum ProcessState {
    package static var openDescriptors: Int {
        ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 1) - 1
    }

    /// VmRSS in KiB.
    package static var resident: Int {
        guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") })
        else { return 0 }
        return Int(line.dropFirst(6).filter(\.isNumber)) ?? 0
    }
}

/// Waits for a condition that another thread makes true, at most half a minute; yields the core between two looks.
package func settle(_ condition: () -> Bool) -> Bool {
    let deadline = MonotonicTime.after(.seconds(30))
    while !condition() {
        if MonotonicTime.now > deadline { return false }
        usleep(1000)
    }
    return true
}

/// Ends the process when nothing gets on for two minutes: what hangs does not report.
package final class Watchdog: Sendable {
    private let count = Atomic<Int>(0)
    private let isOver = Atomic<Bool>(false)
    private let what: String

    package init(_ what: String) {
        self.what = what
        WorkerThread("fuzz-watchdog") { [self] in
            guard let idle = try? Socket.pair() else { return }
            var last = -1
            var stuck = 0
            while !isOver.load(ordering: .acquiring) {
                try? idle.0.wait(for: .readable, until: .after(.seconds(1)))
                let now = count.load(ordering: .relaxed)
                stuck = now == last ? stuck + 1 : 0
                last = now
                precondition(stuck < 120, "hang: \(what), after \(now) messages")
            }
        }
    }

    package func progress(_ messages: Int) { count.store(messages, ordering: .relaxed) }
    package func end() { isOver.store(true, ordering: .releasing) }
}
