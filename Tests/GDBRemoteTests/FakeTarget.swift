import GDBRemote

/// Two threads, eight registers, 64 KiB of memory from 0x1000 on; remembers what it was told.
final class FakeTarget: DebugTarget {
    static let base: UInt64 = 0x1000
    var memory = [UInt8](repeating: 0, count: 0x10000)
    var values = [[UInt64]](repeating: Array(repeating: 0, count: 8), count: 2)
    var plans: [[ThreadPlan]] = []
    var breakpoints: Set<UInt64> = []
    var interrupts = 0

    let threadCount = 2
    let generalRegisterCount = 6
    let registers =
        (0..<5).map { RegisterDescription(.cpu, "x\($0)", $0) } + [RegisterDescription(.cpu, "pc", 5)]
        + [RegisterDescription(.csr, "odd", 70), RegisterDescription(.csr, "none", 71)]

    func description(ofThread thread: Int) -> String { "hart \(thread)" }

    private func index(_ number: Int) -> Int? { [70: 6, 71: nil][number] ?? (number < 6 ? number : nil) }

    func register(_ number: Int, thread: Int) -> UInt64? { index(number).map { values[thread][$0] } }

    func setRegister(_ number: Int, _ value: UInt64, thread: Int) -> Bool {
        guard let index = index(number) else { return false }
        values[thread][index] = value
        return true
    }

    private func place(_ address: UInt64, _ count: Int) -> Int? {
        let offset = address &- Self.base
        return offset < UInt64(memory.count) && Int(offset) + count <= memory.count ? Int(offset) : nil
    }

    func readMemory(_ address: UInt64, count: Int, thread: Int, isPhysical: Bool) -> [UInt8] {
        guard let start = place(address, 0) else { return [] }
        return Array(memory[start..<min(memory.count, start + count)])
    }

    func writeMemory(_ address: UInt64, _ bytes: [UInt8], thread: Int, isPhysical: Bool) -> Bool {
        guard let start = place(address, bytes.count) else { return false }
        memory.replaceSubrange(start..<start + bytes.count, with: bytes)
        return true
    }

    func insertBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64, thread: Int) -> BreakpointOutcome {
        guard kind == .software else { return .unsupported }
        guard place(address, 2) != nil else { return .failed }
        breakpoints.insert(address)
        return .done
    }

    func removeBreakpoint(_ kind: BreakpointKind, _ address: UInt64, size: UInt64) -> BreakpointOutcome {
        breakpoints.remove(address)
        return .done
    }

    func resume(_ plan: [ThreadPlan]) { plans.append(plan) }
    func interrupt() { interrupts += 1 }
    func monitor(_ command: String) -> String? { command == "help" ? "none\n" : nil }
}

extension RemoteSession {
    /// Sends one packet and returns the payload of the one that comes back; `nil` when none does.
    func ask(_ payload: String) -> String? { ask(Array(payload.utf8)) }

    func ask(_ payload: [UInt8]) -> String? { payloads(receive(Packet.frame(payload)).bytes).first }
}

/// The payloads of the packets in a stream.
func payloads(_ bytes: [UInt8]) -> [String] {
    var decoder = PacketDecoder()
    return bytes.compactMap { byte in
        guard case .packet(let payload)? = decoder.receive(byte) else { return nil }
        return String(decoding: payload, as: UTF8.self)
    }
}
