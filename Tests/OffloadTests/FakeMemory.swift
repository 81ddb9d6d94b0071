import Offload
import Synchronization

/// Host memory from `base` on; what lies outside cannot be reached. Counts and can refuse writes.
final class FakeMemory: HostMemory {
    let base: UInt64
    private let storage: Mutex<[UInt8]>
    private let refused = Mutex<Range<UInt64>?>(nil)
    private let log = Mutex<[(address: UInt64, count: Int)]>([])

    init(base: UInt64 = 0x8000_0000, size: Int = 64 << 10) {
        self.base = base
        storage = Mutex(Array(repeating: 0, count: size))
    }

    /// Makes writes that touch `range` fail.
    func refuseWrites(to range: Range<UInt64>) { refused.withLock { $0 = range } }

    /// The writes so far.
    var writes: [(address: UInt64, count: Int)] { log.withLock { $0 } }

    var bytes: [UInt8] { storage.withLock { $0 } }

    func read(_ address: UInt64, count: Int) -> [UInt8]? {
        storage.withLock { storage in
            guard let start = index(address, count, storage.count) else { return nil }
            return Array(storage[start..<start + count])
        }
    }

    func write(_ bytes: [UInt8], at address: UInt64) -> Bool {
        if let refused = refused.withLock({ $0 }), refused.overlaps(address..<address + UInt64(bytes.count)) {
            return false
        }
        return storage.withLock { storage in
            guard let start = index(address, bytes.count, storage.count) else { return false }
            storage.replaceSubrange(start..<start + bytes.count, with: bytes)
            log.withLock { $0.append((address, bytes.count)) }
            return true
        }
    }

    private func index(_ address: UInt64, _ count: Int, _ size: Int) -> Int? {
        guard address >= base, address - base <= UInt64(size), UInt64(size) - (address - base) >= UInt64(count) else {
            return nil
        }
        return Int(address - base)
    }

    func number(_ address: UInt64, _ count: Int) -> UInt64 {
        (read(address, count: count) ?? []).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}

func little(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// A ring entry as a host writes it.
func entry(
    opcode: UInt16 = 1, status: UInt16 = 0xFFFF, tag: UInt32 = 7, requestLength: UInt32 = 0, capacity: UInt32 = 64,
    response: UInt64
) -> [UInt8] {
    little(UInt64(opcode), 2) + little(UInt64(status), 2) + little(UInt64(tag), 4) + little(0, 8)
        + little(UInt64(requestLength), 4) + little(UInt64(capacity), 4) + little(response, 8)
        + Array(repeating: 0, count: 32)
}

let ringAddress: UInt64 = 0x8000_1000
let responseAddress: UInt64 = 0x8000_4000
let testIdentity = OffloadIdentity(model: "Offload Card", serial: "S-0001", firmwareVersion: "1.0")!
