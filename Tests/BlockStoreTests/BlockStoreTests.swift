import BlockStore
import FoundationEssentials
import Glibc
import TestKit
import Testing

/// A store's accesses against a plain array, and its refusals.
struct BlockStoreTests {
    /// A file of so many bytes, each block of 512 filled with its number.
    static func makeFile(_ folder: TemporaryFolder, _ bytes: Int = 64 << 10) -> String {
        let path = folder.file("disk")
        _ = FileManager.default.createFile(atPath: path, contents: Data((0..<bytes).map { UInt8($0 / 512 & 0xFF) }))
        return path
    }

    static func read(_ store: BlockStore, _ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try bytes.withUnsafeMutableBytes { try store.read(at: offset, into: $0) }
        return bytes
    }

    static func write(_ store: BlockStore, _ offset: UInt64, _ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try store.write(at: offset, from: $0) }
    }

    enum Kind: CaseIterable { case file, memory }

    static func store(_ kind: Kind, _ folder: TemporaryFolder, _ bytes: Int = 64 << 10) throws -> BlockStore {
        switch kind {
        case .file: try BlockStore(path: makeFile(folder, bytes))
        case .memory: try BlockStore(memory: UInt64(bytes))
        }
    }

    @Test(arguments: Kind.allCases)
    func `random accesses give what an array gives`(_ kind: Kind) throws {
        var generator = SeededGenerator.fresh()
        let folder = TemporaryFolder()
        let size = 64 << 10
        let store = try Self.store(kind, folder, size)
        var model = try Self.read(store, 0, size)
        for step in 0..<2000 {
            let offset = Int.random(in: 0...size, using: &generator)
            let count = Int.random(in: 0...min(size - offset, 9000), using: &generator)
            let range = offset..<offset + count
            switch Int.random(in: 0..<5, using: &generator) {
            case 0:
                let bytes = generator.bytes(count)
                try Self.write(store, UInt64(offset), bytes)
                model.replaceSubrange(range, with: bytes)
            case 1:
                try store.writeZeroes(at: UInt64(offset), count: UInt64(count), mayDiscard: step % 2 == 0)
                model.replaceSubrange(range, with: repeatElement(0, count: count))
            case 2:
                try store.discard(at: UInt64(offset), count: UInt64(count))
                // Zero here: both file systems under the tests punch holes.
                model.replaceSubrange(range, with: repeatElement(0, count: count))
            case 3: try store.flush()
            default: #expect(try Self.read(store, UInt64(offset), count) == Array(model[range]), "\(generator.seed)")
            }
        }
        #expect(try Self.read(store, 0, size) == model, "seed \(generator.seed)")
        let values = store.statistics.values
        #expect(values.reads > 1 && values.writes > 0 && values.flushes > 0 && values.failures == 0)
    }

    static let outside: [(offset: UInt64, count: Int)] = [
        (65536, 1), (65535, 2), (0, 65537), (.max, 1), (.max - 5, 100), (1 << 63, 512),
    ]

    @Test(arguments: outside.indices)
    func `what lies outside is refused and changes nothing`(_ index: Int) throws {
        let (offset, count) = Self.outside[index]
        let folder = TemporaryFolder()
        for kind in Kind.allCases {
            let store = try Self.store(kind, folder)
            let before = try Self.read(store, 0, 65536)
            #expect(throws: BlockFailure.outOfRange) { _ = try Self.read(store, offset, count) }
            #expect(throws: BlockFailure.outOfRange) {
                try Self.write(store, offset, [UInt8](repeating: 1, count: count))
            }
            #expect(throws: BlockFailure.outOfRange) { try store.discard(at: offset, count: UInt64(count)) }
            #expect(throws: BlockFailure.outOfRange) {
                try store.writeZeroes(at: offset, count: UInt64(count), mayDiscard: false)
            }
            #expect(try Self.read(store, 0, 65536) == before)
            #expect(store.byteCount == 65536 && store.statistics.values.failures == 4)
        }
    }

    @Test func `a read-only store refuses whatever changes it`() throws {
        let folder = TemporaryFolder()
        let store = try BlockStore(path: Self.makeFile(folder), readOnly: true)
        #expect(throws: BlockFailure.readOnly) { try Self.write(store, 0, [1]) }
        #expect(throws: BlockFailure.readOnly) { try store.discard(at: 0, count: 512) }
        #expect(throws: BlockFailure.readOnly) { try store.writeZeroes(at: 0, count: 512, mayDiscard: true) }
        try store.flush()
        #expect(try Self.read(store, 512, 2) == [1, 1])
    }

    @Test func `a file that becomes shorter gives media errors, not a crash`() throws {
        let folder = TemporaryFolder()
        let path = Self.makeFile(folder)
        let store = try BlockStore(path: path)
        #expect(truncate(path, 4096) == 0)
        #expect(throws: BlockFailure.media) { _ = try Self.read(store, 4096, 512) }
        #expect(throws: BlockFailure.media) { _ = try Self.read(store, 3584, 1024) }
        #expect(try store.refreshSize() == 4096)
        #expect(throws: BlockFailure.outOfRange) { _ = try Self.read(store, 4096, 512) }
    }

    @Test func `opening says what is wrong and what to do`() throws {
        let folder = TemporaryFolder()
        let path = folder.file("absent")
        func text(_ body: () throws -> BlockStore) -> String {
            do { return "opened \(try body().name)" } catch { return "\(error)" }
        }
        #expect(text { try BlockStore(path: path) }.contains("truncate -s 64M \(path)"))
        #expect(!FileManager.default.fileExists(atPath: path))
        #expect(text { try BlockStore(path: folder.path) }.contains("neither a file nor a block device"))
        #expect(text { try BlockStore(path: "/dev/null") }.contains("neither a file nor a block device"))
        _ = FileManager.default.createFile(atPath: path, contents: Data())
        #expect(text { try BlockStore(path: path) }.contains("it is empty"))
        _ = FileManager.default.createFile(atPath: path, contents: Data(count: 1000))
        #expect(text { try BlockStore(path: path) }.contains("truncate -s %512"))
        _ = FileManager.default.createFile(atPath: path, contents: Data(count: 1024))
        #expect(text { try BlockStore(path: path, blockSize: 4096) }.contains("truncate -s %4096"))
        #expect(text { try BlockStore(path: path, blockSize: 1000) }.contains("use 512 or 4096"))
        #expect(text { try BlockStore(memory: 0) }.contains("empty"))
        #expect(text { try BlockStore(memory: .max) }.contains("more than a file can hold"))
        #expect(mkfifo(folder.file("pipe"), 0o600) == 0)
        #expect(text { try BlockStore(path: folder.file("pipe"), readOnly: true) }.contains("neither a file"))
    }

    @Test func `two writers of one file are refused, two readers are not`() throws {
        let folder = TemporaryFolder()
        let path = Self.makeFile(folder)
        do {
            let writer = try BlockStore(path: path)
            #expect(throws: BlockStoreError.inUse(path: path, readOnly: false)) { _ = try BlockStore(path: path) }
            #expect(throws: BlockStoreError.inUse(path: path, readOnly: true)) {
                _ = try BlockStore(path: path, readOnly: true)
            }
            #expect(writer.blockCount == 128)
        }
        let first = try BlockStore(path: path, readOnly: true)
        let second = try BlockStore(path: path, readOnly: true)
        #expect(try Self.read(first, 0, 16) == Self.read(second, 0, 16))
    }
}

/// Injected faults.
struct BlockFaultTests {
    @Test func `an error hits what touches its range, as often as it was told`() throws {
        let store = try BlockStore(memory: 65536)
        let fault = BlockFault(.error, operations: [.read], range: 4096..<4608, remaining: 2)
        let identifier = try #require(store.faults.add(fault))
        _ = try BlockStoreTests.read(store, 0, 4096)
        _ = try BlockStoreTests.read(store, 4608, 512)
        try BlockStoreTests.write(store, 4096, [1])
        #expect(throws: BlockFailure.media) { _ = try BlockStoreTests.read(store, 4095, 2) }
        #expect(throws: BlockFailure.media) { _ = try BlockStoreTests.read(store, 0, 65536) }
        _ = try BlockStoreTests.read(store, 0, 65536)
        let entry = try #require(store.faults.entries.first)
        #expect(entry.identifier == identifier && entry.hits == 2 && entry.fault.remaining == 0)
        #expect(store.faults.remove(identifier) && !store.faults.remove(identifier))
        #expect(store.faults.entries.isEmpty)
    }

    @Test(arguments: [true, false])
    func `a torn write leaves its second half as it was`(_ isReported: Bool) throws {
        let store = try BlockStore(memory: 65536)
        _ = store.faults.add(BlockFault(.torn(isReported: isReported), remaining: 1))
        let bytes = [UInt8](repeating: 7, count: 5 * 512)
        if isReported {
            #expect(throws: BlockFailure.media) { try BlockStoreTests.write(store, 512, bytes) }
        } else {
            try BlockStoreTests.write(store, 512, bytes)
        }
        let after = try BlockStoreTests.read(store, 0, 4096)
        #expect(after[..<512].allSatisfy { $0 == 0 } && after[512..<1536].allSatisfy { $0 == 7 })
        #expect(after[1536...].allSatisfy { $0 == 0 })
        try BlockStoreTests.write(store, 512, bytes)
        #expect(try BlockStoreTests.read(store, 512, bytes.count) == bytes)
    }

    @Test func `a delay is told to the device and hits nothing else`() throws {
        let store = try BlockStore(memory: 65536)
        _ = store.faults.add(BlockFault(.delay(.milliseconds(5)), operations: [.write, .flush], range: 0..<512))
        #expect(store.delay(.write, at: 0, count: 512) == .milliseconds(5))
        #expect(store.delay(.write, at: 512, count: 512) == nil)
        #expect(store.delay(.read, at: 0, count: 512) == nil)
        #expect(store.delay(.flush, at: 0, count: 0) == .milliseconds(5))
        try BlockStoreTests.write(store, 0, [1])
        #expect(store.faults.entries[0].hits == 2)
    }

    @Test func `flushes, discards and zeroes fail when told to`() throws {
        let store = try BlockStore(memory: 65536)
        _ = store.faults.add(BlockFault(.error, operations: Set(BlockFault.Operation.allCases)))
        #expect(throws: BlockFailure.media) { try store.flush() }
        #expect(throws: BlockFailure.media) { try store.discard(at: 0, count: 512) }
        #expect(throws: BlockFailure.media) { try store.writeZeroes(at: 0, count: 512, mayDiscard: false) }
        store.faults.removeAll()
        try store.flush()
    }

    @Test func `there is a most of faults`() throws {
        let store = try BlockStore(memory: 65536)
        for _ in 0..<BlockFaults.maximumCount { #expect(store.faults.add(BlockFault(.error)) != nil) }
        #expect(store.faults.add(BlockFault(.error)) == nil)
    }
}
