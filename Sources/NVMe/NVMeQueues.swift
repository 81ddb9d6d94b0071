/// A submission queue as the controller keeps it.
struct SubmissionQueue {
    var isOpen = false
    var base: UInt64 = 0
    var entries: UInt32 = 0
    /// The next entry to take.
    var head: UInt32 = 0
    /// Behind the last entry that the host has filled.
    var tail: UInt32 = 0
    var completionQueue = 0
}

/// A completion queue as the controller keeps it.
struct CompletionQueue {
    var isOpen = false
    var base: UInt64 = 0
    var entries: UInt32 = 0
    /// The next entry that the host looks at.
    var head: UInt32 = 0
    /// The next entry to fill.
    var tail: UInt32 = 0
    /// Inverted at each pass. Spec: NVM Express 1.4 §4.6.
    var phase = true
    var vector = 0
    var interrupts = false
    /// Entries promised to commands that wait.
    var reserved: UInt32 = 0
    var submissionQueues = 0
    /// Entries were posted that no interrupt told of yet.
    var isNews = false

    /// Entries that are filled and not yet looked at.
    var used: UInt32 { tail >= head ? tail - head : tail + entries - head }
    /// One more command may be taken: its completion has a place.
    var hasRoom: Bool { used + reserved + 1 < entries }
}

/// A command that waits for its time.
struct DelayedCommand {
    var command: NVMeCommand
    var queue: Int
    var deadline: UInt64
}

/// An asynchronous event. Spec: NVM Express 1.4 §5.2, figure 145.
struct AsynchronousEvent: Hashable {
    /// 0 error, 1 SMART / health, 2 notice.
    var type: UInt8
    var information: UInt8
    var logPage: UInt8

    static let invalidDoorbell = AsynchronousEvent(type: 0, information: 0, logPage: LogPage.errorInformation)
    static let invalidDoorbellValue = AsynchronousEvent(type: 0, information: 1, logPage: LogPage.errorInformation)
    static let temperature = AsynchronousEvent(type: 1, information: 1, logPage: LogPage.health)
    static let namespaceChanged = AsynchronousEvent(type: 2, information: 0, logPage: LogPage.changedNamespaces)

    var dword0: UInt32 { UInt32(type) | UInt32(information) << 8 | UInt32(logPage) << 16 }
}

/// Log page identifiers. Spec: NVM Express 1.4 §5.14.1.
enum LogPage {
    static let errorInformation: UInt8 = 0x01
    static let health: UInt8 = 0x02
    static let firmwareSlot: UInt8 = 0x03
    static let changedNamespaces: UInt8 = 0x04
    static let commandsSupported: UInt8 = 0x05
}

/// An error log entry. Spec: NVM Express 1.4 §5.14.1.1.
struct ErrorLogEntry {
    var count: UInt64
    var queue: UInt16
    var command: UInt16
    var status: NVMeStatus
    var block: UInt64
    var namespace: UInt32
}

/// A fixed run of bytes that command data is put together in. Not for two threads at once.
@safe final class DataPage {
    // Safety: allocated in init, freed in deinit.
    let bytes: UnsafeMutableRawBufferPointer
    let count: Int

    init(count: Int) {
        self.count = count
        unsafe bytes = .allocate(byteCount: count, alignment: 4096)
    }
    deinit { unsafe bytes.deallocate() }

    func clear() { unsafe _ = bytes.initializeMemory(as: UInt8.self, repeating: 0) }

    /// Stores a little-endian integer. Precondition: it lies inside.
    func put<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count)
        // Safety: checked above.
        unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Value.self)
    }

    /// Stores ASCII, padded with spaces (`padding` zero: with zeroes). Precondition: it lies inside.
    func put(_ text: String, at offset: Int, count: Int, padding: UInt8 = 0x20) {
        var place = offset
        for byte in text.utf8.prefix(count) {
            put(byte, at: place)
            place += 1
        }
        while place < offset + count {
            put(padding, at: place)
            place += 1
        }
    }

    /// The little-endian integer at an offset. Precondition: it lies inside.
    func get<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, at offset: Int) -> Value {
        precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count)
        // Safety: checked above.
        return unsafe Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}
