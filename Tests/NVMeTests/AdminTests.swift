import BlockStore
import NVMe
import PCIe
import TestKit
import Testing
import VFIOUser
import Wire

/// The controller's registers and admin commands, by a driver of its own.
struct AdminTests {
    private func host(usesMSIX: Bool = true, isEnabled: Bool = true) throws -> TestHost {
        try TestHost([try BlockStore(memory: 1 << 20)], usesMSIX: usesMSIX, isEnabled: isEnabled)
    }

    @Test func `registers after power-on are those of the specification`() throws {
        let host = try host(isEnabled: false)
        #expect(host.client.read(region: 7, offset: 0, width: 4) == 0x0B0C_1B36)
        #expect(host.client.read(region: 7, offset: 8, width: 4) >> 8 == 0x01_08_02)
        let capabilities = host.register(0, width: 8)
        #expect(capabilities & 0xFFFF == 1023 && capabilities >> 16 & 1 == 1 && capabilities >> 37 & 1 == 1)
        #expect(capabilities >> 32 & 0xF == 0 && capabilities >> 48 & 0xFF == 0)
        #expect(host.register(8) == 0x0001_0400 && host.status == 0)
        // Parts of a register, and what is none.
        #expect(host.register(9, width: 1) == 4 && host.register(8, width: 2) == 0x0400)
        #expect(host.register(0xF00) == 0)
        // Queue bases begin at pages; reserved bits of the attributes stay zero.
        host.setRegister(NVMeRegister.adminSubmissionQueue, 0x1234_5678_9ABC_DEF0, width: 8)
        #expect(host.register(NVMeRegister.adminSubmissionQueue, width: 8) == 0x1234_5678_9ABC_D000)
        host.setRegister(NVMeRegister.adminQueueAttributes, 0xFFFF_FFFF)
        #expect(host.register(NVMeRegister.adminQueueAttributes) == 0x0FFF_0FFF)
    }

    static let wrongConfigurations: [(UInt64, UInt64, String)] = [
        (0x0046_0081, 0x000F_000F, "memory pages"), (0x0046_0011, 0x000F_000F, "command set"),
        (0x0046_0801, 0x000F_000F, "arbitration"), (0x0046_0001, 0x000F_0000, "one entry"),
        (0x0046_0001, 0x0000_000F, "one entry"),
    ]

    @Test(arguments: wrongConfigurations.indices)
    func `a configuration that is not offered makes the controller fatal, and a reset brings it back`(
        _ index: Int
    ) throws {
        let (configuration, attributes, reason) = Self.wrongConfigurations[index]
        let host = try host(isEnabled: false)
        host.setRegister(NVMeRegister.adminQueueAttributes, attributes)
        host.setRegister(NVMeRegister.configuration, configuration)
        #expect(host.status & 3 == 2)
        #expect(host.log.all.contains { $0.contains(reason) })
        #expect(host.controller.snapshot.state == .fatal)
        try host.disable()
        try host.enable()
        #expect(host.status & 3 == 1)
    }

    @Test func `admin queues at the end of the address space are refused`() throws {
        let host = try host(isEnabled: false)
        host.setRegister(NVMeRegister.adminQueueAttributes, 0x0FFF_0FFF)
        host.setRegister(NVMeRegister.adminSubmissionQueue, .max, width: 8)
        host.setRegister(NVMeRegister.configuration, TestHost.enabled)
        #expect(host.status & 3 == 2 && host.log.all.contains { $0.contains("address space") })
    }

    @Test func `identify says what the controller and its namespaces are`() throws {
        let folder = TemporaryFolder()
        _ = try run("/usr/bin/truncate", ["-s", "2M", folder.file("disk")])
        let host = try TestHost([
            try BlockStore(memory: 1 << 20), try BlockStore(path: folder.file("disk"), readOnly: true, blockSize: 4096),
        ])
        let page = host.pages(1)
        func identify(_ structure: UInt32, _ namespace: UInt32 = 0) throws -> UInt16 {
            host.store([UInt8](repeating: 0xEE, count: 4096), at: page)
            return try host.run(Entry(opcode: 6, namespace: namespace, prp1: page, dwords: [structure])).status
        }
        #expect(try identify(1) == 0)
        #expect(host.number(page, 4) == 0x1B36_1B36)
        #expect(host.load(page + 4, 20) == Array("TEST-1              ".utf8))
        #expect(String(decoding: host.load(page + 24, 40), as: UTF8.self).hasPrefix("Baseboard NVMe "))
        #expect(host.number(page + 77, 1) == 8 && host.number(page + 80, 4) == 0x0001_0400)
        #expect(host.number(page + 111, 1) == 1 && host.number(page + 512, 2) == 0x4466)
        #expect(host.number(page + 516, 4) == 2)
        #expect(try identify(0, 1) == 0)
        #expect(host.number(page, 8) == 2048 && host.number(page + 130, 1) == 9 && host.number(page + 99, 1) == 0)
        #expect(try identify(0, 2) == 0)
        #expect(host.number(page, 8) == 512 && host.number(page + 130, 1) == 12 && host.number(page + 99, 1) == 1)
        #expect(try identify(0, 3) == 0x0B)
        #expect(try identify(0, 0) == 0x0B)
        #expect(try identify(0, .max) == 0)
        #expect(host.number(page, 8) == 0 && host.number(page + 130, 1) == 9)
        #expect(try identify(2, 0) == 0)
        #expect(host.number(page, 4) == 1 && host.number(page + 4, 4) == 2 && host.number(page + 8, 8) == 0)
        #expect(try identify(2, 1) == 0)
        #expect(host.number(page, 4) == 2 && host.number(page + 4, 4) == 0)
        #expect(try identify(2, .max) == 0x0B)
        #expect(try identify(3, 1) == 0)
        let first = host.load(page + 4, 16)
        #expect(host.number(page, 2) == 0x1003 && first[6] >> 4 == 8 && first[8] >> 6 == 2)
        #expect(try identify(3, 2) == 0)
        #expect(host.load(page + 4, 16) != first && host.number(page + 20, 8) == 0)
        #expect(try identify(3, 3) == 0x0B)
        #expect(try identify(0x44) == 2)
    }

    /// Refusals of each admin command. Pages at `page` are free; I/O queues 1 exist, of 16 entries.
    static let refusals: [(String, Entry, UInt16)] = {
        let page = TestHost.base + 0x20_0000
        return [
            ("unknown opcode", Entry(opcode: 0x99), 1),
            ("fused", Entry(opcode: 6, flags: 1, prp1: page, dwords: [1]), 2),
            ("SGL", Entry(opcode: 6, flags: 0x40, prp1: page, dwords: [1]), 2),
            ("identify to memory that is not there", Entry(opcode: 6, prp1: 0x1000, dwords: [1]), 4),
            ("identify to an odd address", Entry(opcode: 6, prp1: page + 1, dwords: [1]), 0x13),
            ("second page not a page", Entry(opcode: 6, prp1: page + 8, prp2: page + 4104, dwords: [1]), 0x13),
            ("wrapping pointer", Entry(opcode: 6, prp1: .max & ~3, prp2: page, dwords: [1]), 4),
            ("CQ 0", Entry(opcode: 5, prp1: page, dwords: [0x000F_0000, 1]), 0x101),
            ("CQ beyond", Entry(opcode: 5, prp1: page, dwords: [0x000F_0005, 1]), 0x101),
            ("CQ again", Entry(opcode: 5, prp1: page, dwords: [0x000F_0001, 1]), 0x101),
            ("CQ of one entry", Entry(opcode: 5, prp1: page, dwords: [2, 1]), 0x102),
            ("CQ too long", Entry(opcode: 5, prp1: page, dwords: [0x0400_0002, 1]), 0x102),
            ("CQ not at a page", Entry(opcode: 5, prp1: page + 16, dwords: [0x000F_0002, 1]), 0x13),
            ("CQ in pieces", Entry(opcode: 5, prp1: page, dwords: [0x000F_0002, 0]), 2),
            ("CQ that wraps", Entry(opcode: 5, prp1: .max & ~4095, dwords: [0x01FF_0002, 1]), 2),
            ("CQ of no vector", Entry(opcode: 5, prp1: page, dwords: [0x000F_0002, 0x0005_0003]), 0x108),
            ("SQ of no CQ", Entry(opcode: 1, prp1: page, dwords: [0x000F_0002, 0x0002_0001]), 0x100),
            ("SQ of the admin CQ", Entry(opcode: 1, prp1: page, dwords: [0x000F_0002, 1]), 0x100),
            ("SQ of a CQ beyond", Entry(opcode: 1, prp1: page, dwords: [0x000F_0002, 0xFFFF_0001]), 0x100),
            ("SQ again", Entry(opcode: 1, prp1: page, dwords: [0x000F_0001, 0x0001_0001]), 0x101),
            ("SQ 0", Entry(opcode: 1, prp1: page, dwords: [0x000F_0000, 0x0001_0001]), 0x101),
            ("SQ beyond", Entry(opcode: 1, prp1: page, dwords: [0x000F_0009, 0x0001_0001]), 0x101),
            ("SQ of one entry", Entry(opcode: 1, prp1: page, dwords: [2, 0x0001_0001]), 0x102),
            ("SQ not at a page", Entry(opcode: 1, prp1: page + 64, dwords: [0x000F_0002, 0x0001_0001]), 0x13),
            ("SQ in pieces", Entry(opcode: 1, prp1: page, dwords: [0x000F_0002, 0x0001_0000]), 2),
            ("delete SQ 0", Entry(opcode: 0, dwords: [0]), 0x101),
            ("delete no SQ", Entry(opcode: 0, dwords: [2]), 0x101),
            ("delete SQ beyond", Entry(opcode: 0, dwords: [0xFFFF]), 0x101),
            ("delete CQ 0", Entry(opcode: 4, dwords: [0]), 0x101),
            ("delete CQ in use", Entry(opcode: 4, dwords: [1]), 0x10C),
            ("delete no CQ", Entry(opcode: 4, dwords: [3]), 0x101),
            ("unknown log", Entry(opcode: 2, namespace: .max, prp1: page, dwords: [0x003F_0077]), 0x109),
            ("health of one namespace", Entry(opcode: 2, namespace: 1, prp1: page, dwords: [0x007F_0002]), 2),
            ("log beyond its end", Entry(opcode: 2, prp1: page, dwords: [0x007F_0003, 0, 516]), 2),
            ("log at an odd offset", Entry(opcode: 2, prp1: page, dwords: [0x007F_0003, 0, 2]), 2),
            ("log longer than a page", Entry(opcode: 2, prp1: page, dwords: [0x0400_0001]), 2),
            ("get unknown feature", Entry(opcode: 10, dwords: [0x55]), 2),
            ("set unknown feature", Entry(opcode: 9, dwords: [0x55]), 2),
            ("save a feature", Entry(opcode: 9, dwords: [0x8000_0006, 1]), 0x10D),
            ("queues while there are some", Entry(opcode: 9, dwords: [7, 0x0001_0001]), 0x0C),
            ("power state 1", Entry(opcode: 9, dwords: [2, 1]), 2),
            ("threshold of another sensor", Entry(opcode: 9, dwords: [4, 0x0003_0100]), 2),
            ("vector configuration beyond", Entry(opcode: 9, dwords: [9, 5]), 2),
            ("get vector configuration beyond", Entry(opcode: 10, dwords: [9, 5]), 2),
            ("deallocated blocks as errors", Entry(opcode: 9, dwords: [5, 0x1_0000]), 2),
            ("shadow doorbells not at a page", Entry(opcode: 0x7C, prp1: page + 8, prp2: page + 4096), 2),
            ("shadow doorbells nowhere", Entry(opcode: 0x7C, prp1: page, prp2: 0x4000), 4),
        ]
    }()

    @Test func `each admin command is refused as the specification says, and all else goes on`() throws {
        let host = try host()
        _ = try host.makeQueues(1)
        var count: UInt64 = 0
        for (name, entry, status) in Self.refusals {
            #expect(try host.run(entry).status == status, "\(name)")
            count += 1
            // The error log's newest entry is this one.
            let log = try host.logPage(1, 64)
            #expect(log[0] == UInt8(count) && log[8..<10] == [0, 0], "\(name)")
            #expect((UInt16(log[12]) | UInt16(log[13]) << 8) >> 1 & 0x7FF == status, "\(name)")
        }
        #expect(host.status == 1 && host.log.all.isEmpty)
        let snapshot = host.controller.snapshot
        #expect(snapshot.failedCommands == count && snapshot.submissionQueues == 2)
        #expect(snapshot.lastFailure?.opcode == 0x7C && snapshot.lastFailure?.queue == 0)
    }

    @Test func `features hold what is set, and a reset forgets it`() throws {
        let host = try host()
        #expect(try host.run(Entry(opcode: 9, dwords: [7, 0x0001_0063])).result == 0x0001_0003)
        #expect(try host.run(Entry(opcode: 10, dwords: [7])).result == 0x0001_0003)
        let values: [(UInt32, UInt32, UInt32)] = [
            (1, 0x0102_0304, 0x0102_0304), (4, 330, 330), (5, 0x77, 0x77), (6, 0, 0), (8, 0x0501, 0x0501),
            (9, 0x1_0002, 0x1_0002), (0xA, 1, 1), (0xB, 0x1FF, 0x1FF), (2, 0, 0),
        ]
        for (feature, value, expected) in values {
            #expect(try host.run(Entry(opcode: 9, dwords: [feature, value])).status == 0)
            let selector = feature == 9 ? 2 : UInt32(0)
            #expect(try host.run(Entry(opcode: 10, dwords: [feature, selector])).result == expected, "\(feature)")
        }
        #expect(try host.run(Entry(opcode: 10, dwords: [4, 1 << 20])).result == 0)
        try host.disable()
        try host.enable()
        #expect(try host.run(Entry(opcode: 10, dwords: [7])).result == 0x0003_0003)
        #expect(try host.run(Entry(opcode: 10, dwords: [6])).result == 1)
        #expect(try host.run(Entry(opcode: 10, dwords: [4])).result == 343)
    }

    @Test func `log pages hold what happened`() throws {
        let host = try host()
        let firmware = try host.logPage(3, 512)
        #expect(firmware[0] == 1 && Array(firmware[8..<16]) == Array("1.0     ".utf8))
        let effects = try host.logPage(5, 4096)
        #expect(effects[6 * 4] == 1 && effects[0x77 * 4] == 0 && effects[1024 + 4] == 3 && effects[1024 + 8] == 1)
        let queue = try host.makeQueues(1)
        let page = host.pages(1)
        for lba in 0..<5 { #expect(try host.run(.io(2, UInt64(lba), 8, page), queue).status == 0) }
        let health = try host.logPage(2, 512)
        #expect(health[0] == 0 && UInt16(health[1]) | UInt16(health[2]) << 8 == 310)
        #expect(health[32] == 1 && health[64] == 5 && health[112] == 1)
        #expect(try host.logPage(4, 4096).allSatisfy { $0 == 0 })
        // From the middle of a page.
        let part = try host.run(Entry(opcode: 2, prp1: page, dwords: [0x0001_0003, 0, 8]))
        #expect(part.status == 0 && host.load(page, 8) == Array("1.0     ".utf8))
    }

    @Test func `events come once until their log page is read`() throws {
        let host = try host()
        for _ in 0..<4 { host.push(Entry(opcode: 0x0C)) }
        host.ringTail(host.admin)
        #expect(try host.run(Entry(opcode: 0x0C)).status == 0x105)
        // Doorbells of no queue and of a value beyond the queue.
        host.ring(6, 1)
        #expect(try host.wait(host.admin).result == 0x01_00_00)
        host.ring(0, 99)
        host.ring(6, 1)
        #expect(try host.run(Entry(opcode: 10, dwords: [7])).status == 0)
        #expect(host.poll(host.admin) == nil)
        _ = try host.logPage(1, 64, keepsEvents: true)
        #expect(host.poll(host.admin) == nil)
        let page = host.pages(1)
        host.push(Entry(opcode: 2, namespace: .max, prp1: page, dwords: [0x000F_0001]))
        host.ringTail(host.admin)
        var ends = [try host.wait(host.admin), try host.wait(host.admin)]
        ends.sort { $0.result < $1.result }
        #expect(ends[0].result == 0 && ends[1].result == 0x01_01_00)
        #expect(host.status == 1)
        // Temperature and namespaces: only when asked for.
        host.controller.setTemperature(400)
        #expect(try host.run(Entry(opcode: 10, dwords: [7])).status == 0)
        #expect(host.poll(host.admin) == nil)
        #expect(try host.run(Entry(opcode: 9, dwords: [0xB, 0x1FF])).status == 0)
        host.controller.setTemperature(400)
        #expect(try host.wait(host.admin).result == 0x02_01_01)
        #expect(try host.logPage(2, 512)[0] == 2)
        #expect(host.controller.namespaceChanged(1) && !host.controller.namespaceChanged(2))
        #expect(try host.wait(host.admin).result == 0x04_00_02)
        #expect(try host.logPage(4, 4096)[0] == 1)
        #expect(try host.logPage(4, 4096)[0] == 0)
    }

    @Test func `shutdown flushes and is told, subsystem reset resets all`() throws {
        let store = try BlockStore(memory: 1 << 20)
        let host = try TestHost([store])
        host.setRegister(NVMeRegister.configuration, TestHost.enabled | 1 << 14)
        #expect(eventually { host.status >> 2 & 3 == 2 })
        #expect(store.statistics.values.flushes == 1 && host.controller.snapshot.state == .shutdown)
        try host.disable()
        #expect(host.status == 0)
        try host.enable()
        host.setRegister(NVMeRegister.subsystemReset, 0x1234)
        #expect(host.status == 1)
        host.setRegister(NVMeRegister.subsystemReset, 0x4E56_4D65)
        #expect(host.status == 0x10 && host.register(NVMeRegister.adminQueueAttributes) == 0)
        host.setRegister(NVMeRegister.status, 0x10)
        #expect(host.status == 0)
        try host.enable()
        #expect(try host.run(Entry(opcode: 10, dwords: [7])).status == 0)
    }

    @Test func `without MSI-X the pin rises, is masked by its register, and falls with the doorbell`() throws {
        let host = try host(usesMSIX: false)
        host.push(Entry(opcode: 10, dwords: [7]))
        host.ringTail(host.admin)
        #expect(eventually { host.pin.drain() })
        #expect(host.poll(host.admin, ringsHead: false) != nil)
        // Still raised: unmasking signals again.
        try host.client.act(.unmask, on: .intx)
        #expect(eventually { host.pin.drain() })
        host.ring(1, host.admin.head)
        try host.client.act(.unmask, on: .intx)
        #expect(!host.pin.drain())
        host.setRegister(NVMeRegister.interruptMaskSet, 1)
        #expect(host.register(NVMeRegister.interruptMaskSet) == 1)
        host.push(Entry(opcode: 10, dwords: [7]))
        host.ringTail(host.admin)
        #expect(eventually { host.poll(host.admin, ringsHead: false) != nil })
        #expect(!host.pin.drain())
        host.setRegister(NVMeRegister.interruptMaskClear, 1)
        #expect(eventually { host.pin.drain() })
        host.ring(1, host.admin.head)
    }

    @Test func `a thousand controller resets leave a controller that works`() throws {
        let host = try host()
        for _ in 0..<1000 {
            try host.disable()
            try host.enable()
            #expect(try host.run(Entry(opcode: 10, dwords: [7])).status == 0)
        }
        #expect(host.controller.snapshot.resets >= 1000 && host.log.all.isEmpty)
    }
}
