// From a packet's payload to its meaning. Every number is bounded to 64 bits, every length to the packet's own.

/// Walks a payload from left to right.
struct PayloadReader {
    private var rest: ArraySlice<UInt8>

    init(_ payload: some Collection<UInt8>) { rest = ArraySlice(Array(payload)) }

    var isAtEnd: Bool { rest.isEmpty }

    /// What is left.
    var remainder: [UInt8] { Array(rest) }

    /// Takes `text` if it comes next.
    mutating func take(_ text: StaticString) -> Bool {
        let wanted = Array("\(text)".utf8)
        guard rest.starts(with: wanted) else { return false }
        rest = rest.dropFirst(wanted.count)
        return true
    }

    /// The next byte.
    mutating func byte() -> UInt8? {
        guard let byte = rest.first else { return nil }
        rest = rest.dropFirst()
        return byte
    }

    /// 1 to 16 hexadecimal digits.
    mutating func number() -> UInt64? {
        var value: UInt64 = 0
        var count = 0
        while let byte = rest.first, let digit = Hex.digit(byte) {
            guard count < 16 else { return nil }
            value = value << 4 | UInt64(digit)
            count += 1
            rest = rest.dropFirst()
        }
        return count > 0 ? value : nil
    }

    /// `-1`, `0`, or a number.
    mutating func thread() -> ThreadID? {
        if take("-1") { return .all }
        guard let number = number() else { return nil }
        if number == 0 { return .any }
        return Int(exactly: number).map { .thread($0) }
    }

    /// Everything up to `end`, which is taken too; `nil` if there is none.
    mutating func text(until end: UInt8) -> String? {
        guard let place = rest.firstIndex(of: end) else { return nil }
        let text = String(decoding: rest[..<place], as: UTF8.self)
        rest = rest[(place + 1)...]
        return text
    }
}

extension RemoteCommand {
    /// The meaning of a packet's payload.
    public init(_ payload: [UInt8]) {
        var reader = PayloadReader(payload)
        guard let first = reader.byte() else {
            self = .unknown
            return
        }
        let parsed: RemoteCommand?
        switch first {
        case UInt8(ascii: "?"): parsed = reader.isAtEnd ? .haltReason : nil
        case UInt8(ascii: "g"): parsed = reader.isAtEnd ? .readRegisters : nil
        case UInt8(ascii: "G"): parsed = Hex.decode(reader.remainder).map { .writeRegisters($0) }
        case UInt8(ascii: "p"): parsed = Self.only(&reader) { $0.number().map { .readRegister($0) } }
        case UInt8(ascii: "P"): parsed = Self.writeRegister(&reader)
        case UInt8(ascii: "m"):
            parsed = Self.only(&reader) { Self.range(&$0).map { .readMemory(address: $0, count: $1) } }
        case UInt8(ascii: "M"): parsed = Self.writeMemory(&reader, binary: false)
        case UInt8(ascii: "X"): parsed = Self.writeMemory(&reader, binary: true)
        case UInt8(ascii: "Z"): parsed = Self.breakpoint(&reader).map { .insertBreakpoint($0, address: $1, size: $2) }
        case UInt8(ascii: "z"): parsed = Self.breakpoint(&reader).map { .removeBreakpoint($0, address: $1, size: $2) }
        case UInt8(ascii: "c"): parsed = Self.resume(&reader, isStep: false)
        case UInt8(ascii: "s"): parsed = Self.resume(&reader, isStep: true)
        case UInt8(ascii: "C"): parsed = Self.resume(&reader, isStep: false, hasSignal: true)
        case UInt8(ascii: "S"): parsed = Self.resume(&reader, isStep: true, hasSignal: true)
        case UInt8(ascii: "T"): parsed = Self.only(&reader) { $0.thread().map { .isThreadAlive($0) } }
        case UInt8(ascii: "H"): parsed = Self.selection(&reader)
        case UInt8(ascii: "D"): parsed = reader.isAtEnd ? .detach : nil
        case UInt8(ascii: "k"): parsed = reader.isAtEnd ? .kill : nil
        case UInt8(ascii: "v"): parsed = Self.verbose(&reader)
        case UInt8(ascii: "q"): parsed = Self.query(&reader)
        case UInt8(ascii: "Q"): parsed = Self.setting(&reader)
        default: parsed = .unknown
        }
        self = parsed ?? .malformed
    }

    /// What `body` reads, if nothing follows it.
    private static func only(
        _ reader: inout PayloadReader, _ body: (inout PayloadReader) -> RemoteCommand?
    ) -> RemoteCommand? {
        let command = body(&reader)
        return reader.isAtEnd ? command : nil
    }

    /// `address,count`
    private static func range(_ reader: inout PayloadReader) -> (UInt64, UInt64)? {
        guard let address = reader.number(), reader.take(","), let count = reader.number() else { return nil }
        return (address, count)
    }

    private static func writeRegister(_ reader: inout PayloadReader) -> RemoteCommand? {
        guard let number = reader.number(), reader.take("="), let bytes = Hex.decode(reader.remainder),
            !bytes.isEmpty
        else { return nil }
        return .writeRegister(number, bytes)
    }

    private static func writeMemory(_ reader: inout PayloadReader, binary: Bool) -> RemoteCommand? {
        guard let (address, count) = range(&reader), reader.take(":") else { return nil }
        let data = reader.remainder
        guard let bytes = binary ? data : Hex.decode(data), UInt64(bytes.count) == count else { return nil }
        return .writeMemory(address: address, bytes)
    }

    /// `type,address,kind`; conditions and commands after it are not offered, so nothing may follow.
    private static func breakpoint(_ reader: inout PayloadReader) -> (BreakpointKind, UInt64, UInt64)? {
        guard let type = reader.number(), let kind = Int(exactly: type).flatMap(BreakpointKind.init),
            reader.take(","), let (address, size) = range(&reader), reader.isAtEnd
        else { return nil }
        return (kind, address, size)
    }

    /// `[address]`, or `signal[;address]`
    private static func resume(
        _ reader: inout PayloadReader, isStep: Bool, hasSignal: Bool = false
    ) -> RemoteCommand? {
        if hasSignal {
            guard reader.number() != nil else { return nil }
            if reader.isAtEnd { return .resumeCurrent(isStep: isStep, address: nil) }
            guard reader.take(";") else { return nil }
        } else if reader.isAtEnd {
            return .resumeCurrent(isStep: isStep, address: nil)
        }
        return only(&reader) { $0.number().map { .resumeCurrent(isStep: isStep, address: $0) } }
    }

    private static func selection(_ reader: inout PayloadReader) -> RemoteCommand? {
        let operation = reader.byte()
        guard let thread = reader.thread(), reader.isAtEnd else { return nil }
        switch operation {
        case UInt8(ascii: "g"): return .selectForAccess(thread)
        case UInt8(ascii: "c"): return .selectForResume(thread)
        default: return .unknown
        }
    }

    private static func verbose(_ reader: inout PayloadReader) -> RemoteCommand? {
        guard reader.take("Cont") else { return .unknown }
        if reader.take("?") { return reader.isAtEnd ? .resumeActions : nil }
        var actions: [ResumeAction] = []
        while !reader.isAtEnd {
            guard reader.take(";"), let action = reader.byte() else { return nil }
            let isStep: Bool
            switch action {
            case UInt8(ascii: "c"): isStep = false
            case UInt8(ascii: "s"): isStep = true
            case UInt8(ascii: "C"), UInt8(ascii: "S"):
                guard reader.number() != nil else { return nil }
                isStep = action == UInt8(ascii: "S")
            default: return nil
            }
            var thread = ThreadID.all
            if reader.take(":") {
                guard let named = reader.thread() else { return nil }
                thread = named
            }
            actions.append(ResumeAction(isStep: isStep, thread: thread))
        }
        return actions.isEmpty ? nil : .resume(actions)
    }

    private static func query(_ reader: inout PayloadReader) -> RemoteCommand? {
        if reader.take("Supported") {
            guard reader.isAtEnd || reader.take(":") else { return nil }
            let features = reader.remainder.split(separator: UInt8(ascii: ";"))
            return .supported(features: features.map { String(decoding: $0, as: UTF8.self) })
        }
        if reader.take("fThreadInfo") { return reader.isAtEnd ? .firstThreads : nil }
        if reader.take("sThreadInfo") { return reader.isAtEnd ? .moreThreads : nil }
        if reader.take("ThreadExtraInfo,") { return only(&reader) { $0.thread().map { .threadDescription($0) } } }
        if reader.take("Attached") { return reader.isAtEnd || reader.take(":") ? .isAttached : nil }
        if reader.take("Symbol:") { return .symbolsOffered }
        if reader.take("Rcmd,") {
            guard let bytes = Hex.decode(reader.remainder) else { return nil }
            return .monitor(String(decoding: bytes, as: UTF8.self))
        }
        if reader.take("Xfer:") { return transfer(&reader) }
        if reader.take("qemu.PhyMemMode") { return reader.isAtEnd ? .isMemoryPhysical : nil }
        if reader.take("C") { return reader.isAtEnd ? .currentThread : .unknown }
        return .unknown
    }

    private static func transfer(_ reader: inout PayloadReader) -> RemoteCommand? {
        let colon = UInt8(ascii: ":")
        guard let object = reader.text(until: colon), let operation = reader.text(until: colon) else { return nil }
        guard operation == "read" else { return .unknown }
        guard let annex = reader.text(until: colon), let (offset, count) = range(&reader), reader.isAtEnd else {
            return nil
        }
        return .transfer(object: object, annex: annex, offset: offset, count: count)
    }

    private static func setting(_ reader: inout PayloadReader) -> RemoteCommand? {
        if reader.take("StartNoAckMode") { return reader.isAtEnd ? .startNoAckMode : nil }
        if reader.take("qemu.PhyMemMode:") {
            guard let value = reader.number(), value <= 1, reader.isAtEnd else { return nil }
            return .setMemoryPhysical(value == 1)
        }
        return .unknown
    }
}
