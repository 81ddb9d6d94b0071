import FoundationEssentials
import Glibc
import QMP
import Synchronization
import VFIOUser
import Wire

/// The offload card's disk as a driver in this process sees it: the card is another process, memory is shared, the file is
/// in the page cache.
///
/// Random: 4 KiB at queue depth 32; the goal is a figure, the reference is pread(2) of the same places here, one after the
/// other. Sequential: 128 KiB at queue depth 8; the reference is memcpy of as much, from as large a memory, in the same run.
/// Rounds alternate, so that a busy machine hurts both alike; the least disturbed of each counts.
enum BlockBench {
    static let diskSize = 256 << 20
    private static let rounds = 7
    private static let randomCount = 60_000
    private static let randomDepth = 32
    private static let sequentialSize = 128 << 10
    private static let sequentialDepth = 8

    static func measure() throws -> [BenchRow] {
        let folder = "/tmp/bb-bench-\(MonotonicTime.now.nanoseconds)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try makeFile(folder + "/disk")
        return try measure(folder, "nvme") { try NVMeBenchDriver($0) }
            + measure(folder, "virtio-blk") { try VirtioBlockBenchDriver($0) }
    }

    private static func measure(
        _ folder: String, _ interface: String, _ attach: (VFIOUserClient) throws -> any BlockBenchDriver
    ) throws -> [BenchRow] {
        let null = try Descriptor.open("/dev/null", flags: 2)
        let card = try ChildProcess(
            BoardBench.folder + "/offload-card",
            [
                "--listen", "pcie-disk=\(folder)/\(interface)", "--disk", folder + "/disk", "--disk-interface",
                interface, "--die-with-parent",
            ], environment: [], descriptors: [null, null, null])
        defer {
            card.signal(15)
            _ = card.wait()
        }
        let driver = try attach(try connect(folder + "/" + interface))
        let reference = try Reference(folder + "/disk")
        var random: (value: Double, reference: Double) = (0, 0)
        var sequential: (value: Double, reference: Double) = (0, 0)
        for _ in 0..<rounds {
            random.reference = max(random.reference, rate(randomCount) { reference.readRandomly(randomCount) })
            random.value = max(
                random.value, try rate(randomCount) { try driver.readRandomly(randomCount, randomDepth) })
            let count = diskSize / sequentialSize
            let bytes = count * sequentialSize
            sequential.reference = max(sequential.reference, rate(bytes) { reference.copy(sequentialSize) })
            sequential.value = max(
                sequential.value, try rate(bytes) { try driver.readAll(sequentialSize, sequentialDepth) })
        }
        return [
            .bounded(
                "block: \(interface) 4 KiB random read", random.value / 1000, "k/s",
                reference: "pread here, one by one",
                random.reference / 1000, .higher, than: 150),
            .ratio(
                "block: \(interface) 128 KiB sequential", sequential.value / 1e9, "GB/s", reference: "memcpy here",
                sequential.reference / 1e9, .higher, than: 0.5),
        ]
    }

    /// So many a second.
    private static func rate(_ count: Int, _ body: () throws -> Void) rethrows -> Double {
        let start = MonotonicTime.now
        try body()
        return Double(count) / Double(MonotonicTime.now.nanoseconds - start.nanoseconds) * 1e9
    }

    /// Each block of 4 KiB begins with its number.
    private static func makeFile(_ path: String) throws {
        let file = try Descriptor.open(path, flags: O_RDWR | O_CREAT | O_EXCL)
        var chunk = [UInt8](repeating: 0x5A, count: 1 << 20)
        for start in stride(from: 0, to: diskSize, by: chunk.count) {
            for block in 0..<chunk.count / 4096 {
                let number = UInt32(start / 4096 + block)
                chunk.withUnsafeMutableBytes { $0.storeBytes(of: number, toByteOffset: block * 4096, as: UInt32.self) }
            }
            try file.writeAll(chunk)
        }
    }

    private static func connect(_ path: String) throws -> VFIOUserClient {
        let deadline = MonotonicTime.after(.seconds(10))
        while true {
            if let client = try? VFIOUserClient.connect(to: path) { return client }
            guard MonotonicTime.now < deadline else { throw BoardBench.Failure(description: "no disk at \(path)") }
            usleep(1000)
        }
    }

    /// The same work without a card.
    private final class Reference {
        private let file: Descriptor
        private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: diskSize, alignment: 4096)
        private let room: SharedMemory

        init(_ path: String) throws {
            file = try Descriptor.open(path, flags: 0)
            room = try SharedMemory(create: "bench", size: sequentialDepth * sequentialSize)
            memset(memory.baseAddress!, 1, diskSize)
            memset(room.mapping.baseAddress, 1, room.size)
        }

        deinit { memory.deallocate() }

        func readRandomly(_ count: Int) {
            var places = Places()
            for index in 0..<count {
                let offset = Int(places.next(BlockBench.diskSize / 4096)) * 4096
                pread(file.rawValue, room.mapping.baseAddress + index % BlockBench.randomDepth * 4096, 4096, offset)
            }
        }

        func copy(_ size: Int) {
            for (index, offset) in stride(from: 0, to: BlockBench.diskSize, by: size).enumerated() {
                memcpy(
                    room.mapping.baseAddress + index % BlockBench.sequentialDepth * size,
                    memory.baseAddress! + offset, size)
            }
        }
    }

    /// Places on the disk, always the same ones.
    struct Places {
        private var state: UInt64 = 1
        mutating func next(_ limit: Int) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % UInt64(limit)
        }
    }
}

/// A disk's driver in the bench's process.
protocol BlockBenchDriver {
    /// Does `count` reads of `size` bytes, `depth` under way at a time, each from the block of 4 KiB that `next` names.
    func read(_ count: Int, _ size: Int, _ depth: Int, _ next: () -> UInt64) throws
}

extension BlockBenchDriver {
    /// Reads so many random blocks of 4 KiB, `depth` under way at a time.
    func readRandomly(_ count: Int, _ depth: Int) throws {
        var places = BlockBench.Places()
        try read(count, 4096, depth) { places.next(BlockBench.diskSize / 4096) }
    }

    /// Reads the whole disk in order, `size` bytes a command.
    func readAll(_ size: Int, _ depth: Int) throws {
        var block: UInt64 = 0
        try read(BlockBench.diskSize / size, size, depth) {
            defer { block += UInt64(size / 4096) }
            return block
        }
    }
}

enum BlockBenchError: Error, CustomStringConvertible {
    case status(UInt32)
    case content(block: UInt64)
    case silence

    var description: String {
        switch self {
        case .status(let status): "the disk ended a command with status 0x\(String(status, radix: 16))"
        case .content(let block): "block \(block) does not hold what was written"
        case .silence: "the disk did not answer for 10 seconds"
        }
    }
}
