import Foundation
import QMP
import TestKit
import Testing
import VFIOUser
import Virtio
import Wire

/// The card's disk, console and random numbers as an executable: what it says, what it refuses, what a host sees.
struct DiskProcessTests {
    /// A file of zeroes.
    static func makeDisk(_ folder: TemporaryFolder, size: Int = 1 << 20) -> String {
        let path = folder.file("disk")
        _ = FileManager.default.createFile(atPath: path, contents: Data(count: size))
        return path
    }

    static let mistakes: [([String], String)] = [
        (["--listen", "pcie-disk=FOLDER/x"], "--disk-size 64MiB for one in memory"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk", "FOLDER/absent"], "truncate -s 64M FOLDER/absent"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk", "FOLDER"], "neither a file nor a block device"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk", "FOLDER/disk", "--disk-size", "2MiB"], "--disk-size says 2MiB"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk", "FOLDER/odd"], "truncate -s %512"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk-size", "1000"], "not whole blocks of 512"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk-size", "64MB"], "MiB"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk-size", "1MiB", "--disk-block-size", "1024"], "use 512 or 4096"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk-size", "1MiB", "--disk-interface", "scsi"], "virtio-blk"),
        (["--listen", "pcie-disk=FOLDER/x", "--disk-size", "1MiB", "--disk-read-only"], "without --disk"),
        (["--listen", "pcie=FOLDER/x", "--disk", "FOLDER/disk"], "give --listen pcie-disk=PATH too"),
        (["--listen", "pcie=FOLDER/x", "--listen", "eth0=FOLDER/y"], "give --listen pcie-net=PATH too"),
        (["--listen", "pcie-net=FOLDER/x", "--mac", "01:00:5e:00:00:01"], "unicast"),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake on the command line is named, with the way out`(index: Int) throws {
        let folder = TemporaryFolder()
        _ = Self.makeDisk(folder)
        _ = FileManager.default.createFile(atPath: folder.file("odd"), contents: Data(count: 1000))
        func filled(_ text: String) -> String { text.replacingOccurrences(of: "FOLDER", with: folder.path) }
        let (arguments, named) = Self.mistakes[index]
        let (status, output) = try run(binary("offload-card"), arguments.map(filled))
        #expect(status != 0 && status != nil && status! < 128)
        #expect(output.contains(filled(named)), "\(output)")
        #expect(!FileManager.default.fileExists(atPath: folder.file("absent")))
    }

    @Test(arguments: ["nvme", "virtio-blk"])
    func `a disk is what it was asked to be, and says what it does`(_ interface: String) throws {
        let folder = TemporaryFolder()
        let path = Self.makeDisk(folder)
        let card = try ComponentProcess(
            "offload-card", listens: ["pcie-disk"], ["--disk", path, "--disk-interface", interface])
        let client = try VFIOUserClient(socket: try card.connect("pcie-disk"))
        let (identity, classCode): (UInt64, UInt64) =
            interface == "nvme" ? (0x0B0C_1B36, 0x01_08_02) : (0x1042_1AF4, 0x01_80_00)
        #expect(client.read(region: 7, offset: 0, width: 4) == identity)
        #expect(client.read(region: 7, offset: 8, width: 4) >> 8 == classCode)
        #expect(client.read(region: 7, offset: 0x2C, width: 4) & 0xFFFF == 0x1B36)
        let disk = try card.control.execute("query-disk")
        #expect(disk["file"] == .string(path) && disk["interface"] == .string(interface))
        #expect(disk["size"] == 1_048_576 && disk["read-only"] == false && disk["state"] == "disabled")
        #expect(disk["host-connected"] == true)
        // A second card must not write to the same file.
        let (status, output) = try run(
            binary("offload-card"), ["--listen", "pcie-disk=\(folder.file("x"))", "--disk", path])
        #expect(status != 0 && output.contains("another program has it open"), "\(output)")
        #expect(truncate(path, 2 << 20) == 0)
        #expect(try card.control.execute("disk-refresh")["size"] == 2_097_152)
        #expect(truncate(path, 1000) == 0)
        #expect(throws: QMPClient.Failure.self) { try card.control.execute("disk-refresh") }
        let functions = try card.control.execute("query-functions").arrayValue ?? []
        #expect(functions.count == 1 && functions[0]["kind"] == .string(interface))
    }

    @Test func `faults are injected, listed and cleared by QMP, and nonsense is refused`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie-disk"], ["--disk-size", "1MiB"])
        func execute(_ command: String, _ arguments: [String: JSONValue]) -> Result<JSONValue, any Error> {
            Result { try card.control.execute(command, arguments) }
        }
        let nonsense: [[String: JSONValue]] = [
            ["effect": "explode"], ["effect": "delay"], ["effect": "delay", "delay": "soon"],
            ["effect": "error", "delay": "5ms"], ["effect": "error", "operations": ["fly"]],
            ["effect": "error", "operations": "read"], ["effect": "error", "operations": []],
            ["effect": "error", "offset": -1], ["effect": "error", "length": 0], ["effect": "error", "count": 0],
        ]
        for arguments in nonsense {
            #expect(throws: QMPClient.Failure.self, "\(arguments)") {
                try execute("disk-inject-fault", arguments).get()
            }
        }
        let first = try execute(
            "disk-inject-fault", ["effect": "error", "operations": ["read"], "offset": 512, "length": 512, "count": 2]
        ).get()
        #expect(first["id"] == 1)
        _ = try execute("disk-inject-fault", ["effect": "delay", "delay": "50ms"]).get()
        _ = try execute("disk-inject-fault", ["effect": "torn-silently"]).get()
        let faults = try card.control.execute("query-disk-faults").arrayValue ?? []
        #expect(faults.count == 3 && faults[0]["remaining"] == 2 && faults[0]["length"] == 512)
        #expect(faults[1]["delay"] == "50ms" && faults[1]["operations"] == ["read", "write"])
        #expect(faults[2]["effect"] == "torn-silently" && faults[2]["operations"] == ["write"])
        _ = try execute("disk-clear-faults", ["id": 2]).get()
        #expect(throws: QMPClient.Failure.self) { try execute("disk-clear-faults", ["id": 2]).get() }
        _ = try execute("disk-clear-faults", [:]).get()
        #expect(try card.control.execute("query-disk-faults").arrayValue?.isEmpty == true)
        // The controller's own.
        _ = try execute("disk-set-temperature", ["kelvin": 350]).get()
        #expect(throws: QMPClient.Failure.self) { try execute("disk-set-temperature", ["kelvin": -1]).get() }
        _ = try execute("disk-fail", ["reason": "a test"]).get()
        let disk = try card.control.execute("query-disk")
        #expect(disk["state"] == "fatal" && disk["reason"] == "a test" && disk["temperature"] == 350)
        #expect(card.child.waitForOutput("a test: the controller stops until a reset"))
    }

    @Test func `what the host prints reaches every client of the console port, and what is typed reaches the host`()
        throws
    {
        let card = try ComponentProcess("offload-card", listens: ["pcie-console", "console", "pcie-rng"])
        let client = try VFIOUserClient(socket: try card.connect("pcie-console"))
        let memory = try SharedMemory(create: "ram", size: 64 << 10)
        let base: UInt64 = 0x8000_0000
        try client.mapDMA(address: IOVirtualAddress(base), length: 64 << 10, descriptor: memory.descriptor)
        client.write(region: 7, offset: 4, width: 2, value: 6)
        let driver = try VirtioDriver(client)
        _ = try driver.negotiate([])
        var queues = (0..<2).map {
            DriverQueue(memory.mapping, offset: $0 * 4096, base: base, size: 16, packed: false, eventIndex: false)
        }
        driver.enable(0, queues[0])
        driver.enable(1, queues[1])
        driver.start()
        let first = try card.connect("console")
        memory.mapping.bytes.baseAddress!.advanced(by: 0x8000).copyMemory(from: Array("hello\n".utf8), byteCount: 6)
        #expect(queues[1].add(.init(base + 0x8000, 6)) != nil)
        _ = queues[1].publish()
        driver.kick(1)
        let deadline = MonotonicTime.after(.seconds(20))
        #expect(try first.receiveBytes(limit: 64, until: deadline) == Array("hello\n".utf8))
        // One that comes later gets it too.
        let second = try card.connect("console")
        #expect(try second.receiveBytes(limit: 64, until: deadline) == Array("hello\n".utf8))
        #expect(eventually { queues[1].take() != nil })
        try second.send(Array("typed".utf8))
        #expect(queues[0].add(.init(base + 0x9000, 64, writable: true)) != nil)
        _ = queues[0].publish()
        driver.kick(0)
        var written: UInt32 = 0
        #expect(
            eventually {
                guard let answer = queues[0].take() else { return false }
                written = answer.written
                return true
            })
        #expect(written == 5 && Array(memory.mapping.bytes[0x9000..<0x9005]) == Array("typed".utf8))
        let functions = try card.control.execute("query-functions").arrayValue ?? []
        #expect(functions.map { $0["kind"] } == ["virtio-console", "virtio-rng"])
        #expect(functions[0]["state"] == "ready" && functions[1]["state"] == "disabled")
        let random = try VFIOUserClient(socket: try card.connect("pcie-rng"))
        #expect(random.read(region: 7, offset: 0, width: 4) == 0x1044_1AF4)
    }
}
