// HTIF, the host-target interface: how bare-metal test programs end and print.
//
// Spec: none was ever written; this is what riscv-tests, riscv-arch-test and Spike (fesvr) agree on.
//
// ```
// tohost   63      56 55      48 47                                     0
//         ┌──────────┬──────────┬────────────────────────────────────────┐
//         │ device   │ command  │ payload                                │
//         └──────────┴──────────┴────────────────────────────────────────┘
// 0, 0  payload odd: the program ends, its result is payload >> 1 (0: passed)
//       payload even: address of eight doublewords: system call number, seven arguments; [0] becomes the result
// 1, 1  the low byte of the payload is printed
// ```
//
// The host takes a command by writing 0 to tohost and answers a system call by writing 1 to fromhost once that is 0.
// Model: harts call `poll` between two slices of their run, so nothing watches memory and a single hart's run is the
// same each time. Only two system calls exist, write to 1 and 2, and exit: a guest gets nothing else of its host.
import Synchronization
import Wire

/// The host's end of `tohost` and `fromhost`.
final class HostTargetInterface: Sendable {
    /// Where a program prints.
    enum Stream: Int32, Sendable {
        case standardOutput = 1
        case standardError = 2
    }

    /// Of a write longer than this only so much is done, as write(2) may.
    static let maximumWrite: UInt64 = 1 << 20

    private enum SystemCall {
        static let write: UInt64 = 64
        static let exit: UInt64 = 93
    }
    private enum Failure {
        static let badDescriptor = UInt64(bitPattern: -9)
        static let badAddress = UInt64(bitPattern: -14)
        static let noSuchCall = UInt64(bitPattern: -38)
    }

    private struct State {
        /// Replies that wait for `fromhost` to become free.
        var owed = 0
        var hasEnded = false
        var hasComplained = false
    }

    private let memory: SharedMemory
    /// Offsets in memory, of aligned doublewords inside.
    private let tohost: Int
    private let fromhost: Int?
    private let state = Mutex(State())
    private let isOwing = Atomic(false)
    private let print: @Sendable (Stream, [UInt8]) -> Void
    private let report: @Sendable (String) -> Void

    /// `tohost` and `fromhost` are offsets of aligned doublewords in `memory`. `print` is called on hart threads, one at a
    /// time; `report` hears, once, of a command that means nothing.
    init(
        memory: SharedMemory, tohost: UInt64, fromhost: UInt64?,
        print: @escaping @Sendable (Stream, [UInt8]) -> Void, report: @escaping @Sendable (String) -> Void
    ) {
        for offset in [tohost, fromhost ?? tohost] {
            precondition(
                offset & 7 == 0 && memory.mapping.contains(offset: offset, count: 8), "not a doubleword of memory")
        }
        self.memory = memory
        self.tohost = Int(tohost)
        self.fromhost = fromhost.map { Int($0) }
        self.print = print
        self.report = report
    }

    /// No command was taken yet.
    func reset() {
        state.withLock { $0 = State() }
        isOwing.store(false, ordering: .relaxed)
    }

    /// What `poll` found.
    enum Outcome: Equatable {
        case nothing
        /// A command was done or answered: more may follow soon.
        case served
        /// The program ended with a result. Told once.
        case ended(UInt64)
    }

    /// Looks at the two doublewords and acts. Any hart's thread; costs two loads while nothing is there.
    func poll() -> Outcome {
        if word(tohost).load() == 0 && !isOwing.load(ordering: .relaxed) { return .nothing }
        return state.withLock { state in
            if state.hasEnded { return .nothing }
            let command = word(tohost).take()
            if command != 0, let result = perform(command, &state) {
                state.hasEnded = true
                return .ended(result)
            }
            if state.owed > 0, let fromhost, word(fromhost).raise() { state.owed -= 1 }
            isOwing.store(state.owed > 0, ordering: .relaxed)
            return .served
        }
    }

    /// Does a command. The program's result, if this was its end.
    private func perform(_ command: UInt64, _ state: inout State) -> UInt64? {
        let payload = command & 0xFFFF_FFFF_FFFF
        switch command >> 48 {
        case 0x0000 where payload & 1 != 0: return payload >> 1
        case 0x0000: return call(payload, &state)
        case 0x0101: print(.standardOutput, [UInt8(truncatingIfNeeded: payload)])
        // Nobody types: a read of the console is never answered.
        case 0x0100: break
        default: complain("asks for command \(command >> 48 & 0xFF) of device \(command >> 56)", &state)
        }
        return nil
    }

    /// A system call whose block is at `address`. The program's result, if this was its end.
    private func call(_ address: UInt64, _ state: inout State) -> UInt64? {
        let block = address &- MemoryMap.ramBase
        guard block & 7 == 0, memory.mapping.contains(offset: block, count: 64) else {
            complain("names a system call at 0x\(String(address, radix: 16)), which is no aligned RAM", &state)
            return nil
        }
        let start = Int(block)
        func argument(_ index: Int) -> UInt64 { word(start + index * 8).load() }
        let result: UInt64
        switch argument(0) {
        case SystemCall.exit: return argument(1) & 0xFFFF_FFFF
        case SystemCall.write: result = write(argument(1), argument(2), argument(3))
        case let number:
            complain("makes system call \(number); there are write (64) and exit (93)", &state)
            result = Failure.noSuchCall
        }
        word(start).store(result)
        if fromhost != nil { state.owed += 1 }
        return nil
    }

    private func write(_ descriptor: UInt64, _ address: UInt64, _ count: UInt64) -> UInt64 {
        guard let number = Int32(exactly: descriptor), let stream = Stream(rawValue: number) else {
            return Failure.badDescriptor
        }
        let count = min(count, Self.maximumWrite)
        let offset = address &- MemoryMap.ramBase
        guard memory.mapping.contains(offset: offset, count: count) else { return Failure.badAddress }
        // Safety: the range was just checked; harts may change it meanwhile, the copy may be torn.
        let bytes = unsafe Array(
            UnsafeRawBufferPointer(
                rebasing: UnsafeRawBufferPointer(memory.mapping.bytes)[Int(offset)..<Int(offset + count)]))
        print(stream, bytes)
        return count
    }

    private func complain(_ text: String, _ state: inout State) {
        if state.hasComplained { return }
        state.hasComplained = true
        report("tohost: the program \(text): ignored, as further such ones are")
    }

    /// A doubleword that harts change at the same time.
    private func word(_ offset: Int) -> SharedWord {
        // Safety: callers checked that 8 aligned bytes lie in the mapping, which lives as long as `self`.
        unsafe SharedWord(
            place: (memory.mapping.baseAddress + offset).assumingMemoryBound(to: Atomic<UInt64>.self))
    }
}

/// A doubleword of guest memory.
@safe private struct SharedWord {
    let place: UnsafeMutablePointer<Atomic<UInt64>>

    // Safety (all): see `HostTargetInterface.word`.
    func load() -> UInt64 { unsafe place.pointee.load(ordering: .acquiring) }
    func store(_ value: UInt64) { unsafe place.pointee.store(value, ordering: .releasing) }
    /// The value, which becomes zero.
    func take() -> UInt64 { unsafe place.pointee.exchange(0, ordering: .acquiringAndReleasing) }
    /// Zero becomes one. False where it was not zero.
    func raise() -> Bool {
        unsafe place.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiringAndReleasing).exchanged
    }
}
