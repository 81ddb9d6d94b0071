import Foundation
import Offload
import QMP
import TestKit
import Testing
import VFIOUser
import Wire

/// The executable itself, driven as a host drives it: a vfio-user client with a ring in a memfd.
struct OffloadProcessTests {
    /// A host with 64 KiB of memory at 0x8000_0000.
    struct Host {
        static let memoryBase: UInt64 = 0x8000_0000
        let client: VFIOUserClient
        let memory: SharedMemory
        let vectors: [EventNotifier]

        init(_ card: ComponentProcess) throws {
            client = try VFIOUserClient(socket: try card.connect("pcie"))
            memory = try SharedMemory(create: "test-ram", size: 64 << 10)
            vectors = [try EventNotifier(), try EventNotifier()]
            try client.mapDMA(
                address: IOVirtualAddress(Self.memoryBase), length: UInt64(memory.size), descriptor: memory.descriptor)
            try client.setInterrupts(.msix, notifiers: vectors)
            // Memory space and bus master enable. Spec: PCI Local Bus 3.0 §6.2.2.
            client.write(region: 7, offset: 4, width: 2, value: 0x0006)
        }

        func read(_ register: UInt64) -> UInt64 { client.read(region: 0, offset: register, width: 4) }

        func write(_ register: UInt64, _ value: UInt64) {
            client.write(region: 0, offset: register, width: 4, value: value)
        }

        func store(_ bytes: [UInt8], at address: UInt64) {
            memory.mapping.bytes.baseAddress!.advanced(by: Int(address - Self.memoryBase))
                .copyMemory(from: bytes, byteCount: bytes.count)
        }

        func load(_ address: UInt64, _ count: Int) -> [UInt8] {
            let start = Int(address - Self.memoryBase)
            return Array(memory.mapping.bytes[start..<start + count])
        }

        func start(vector: UInt64 = 1) {
            write(0x08, 2)
            write(0x10, ringAddress & 0xFFFF_FFFF)
            write(0x14, ringAddress >> 32)
            write(0x18, 8)
            write(0x24, vector)
            write(0x08, 1)
        }

        /// Waits for a vector; false when it does not come within twenty seconds.
        func waitForInterrupt(_ vector: Int) -> Bool {
            eventually {
                var entry = pollfd(fd: vectors[vector].descriptor.rawValue, events: Int16(POLLIN), revents: 0)
                return poll(&entry, 1, 0) == 1 && vectors[vector].drain()
            }
        }
    }

    @Test func `it enumerates as the card of the wiring document`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        let host = try Host(card)
        #expect(host.client.read(region: 7, offset: 0, width: 4) == 0x0B0A_1B36)
        #expect(host.client.read(region: 7, offset: 8, width: 4) >> 8 == 0x12_00_00)
        #expect(host.client.regions[0].length == 4096)
        #expect(host.client.regions[2].length == 4096)
        #expect(host.client.interrupts[Int(InterruptTable.Kind.msix.rawValue)].count == 2)
        #expect(host.read(0x00) == 0x4442_464F)
        #expect(host.read(0x04) == 0x0001_0000)
        // Other widths than words and pairs of words are nobody's.
        #expect(host.client.read(region: 0, offset: 0, width: 1) == 0xFF)
        #expect(host.client.read(region: 0, offset: 2, width: 2) == 0xFFFF)
        #expect(host.client.read(region: 0, offset: 0, width: 8) == 0x0001_0000_4442_464F)
    }

    @Test func `a host asks for the identity by DMA and hears of it by MSI-X`() throws {
        let card = try ComponentProcess(
            "offload-card", listens: ["pcie"], ["--model", "Test Model", "--serial", "T-42"])
        let host = try Host(card)
        host.start()
        #expect(host.read(0x0C) == 1)
        host.store(entry(response: responseAddress), at: ringAddress)
        host.write(0x1C, 1)
        #expect(host.waitForInterrupt(1))
        #expect(host.load(ringAddress + 2, 2) == [0, 0])
        #expect(host.load(responseAddress, 16) == Array("Test Model".utf8) + [0, 0, 0, 0, 0, 0])
        #expect(host.load(responseAddress + 16, 4) == Array("T-42".utf8))
        #expect(host.vectors[0].drain() == false)

        let state = try card.control.execute("query-offload")
        #expect(state["state"] == "ready")
        #expect(state["host-connected"] == true)
        #expect(state["commands-served"] == 1)
        #expect(state["ring"]?["consumer"] == 1)
        #expect(state["model"] == "Test Model")
    }

    @Test func `a full ring is served with one doorbell, many times over`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        let host = try Host(card)
        host.start(vector: 0)
        var producer: UInt64 = 0
        for _ in 0..<50 {
            for slot in 0..<8 {
                host.store(entry(response: responseAddress), at: ringAddress + UInt64(slot) * 64)
            }
            producer += 8
            host.write(0x1C, producer)
            #expect(host.waitForInterrupt(0))
            #expect(host.read(0x20) == producer)
            for slot in 0..<8 { #expect(host.load(ringAddress + UInt64(slot) * 64 + 2, 2) == [0, 0]) }
        }
    }

    @Test func `a garbage ring stops the card with a reason in its log, and a reset brings it back`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        let host = try Host(card)
        host.start()
        let before = host.load(Host.memoryBase, host.memory.size)
        host.write(0x1C, 0xFFFF_0000)
        #expect(host.read(0x0C) == 2)
        #expect(card.child.waitForOutput("producer 4294901760 is more than 8 entries ahead of consumer 0"))
        #expect(host.load(Host.memoryBase, host.memory.size) == before)
        #expect(try card.control.execute("query-offload")["state"] == "needs-reset")
        host.start()
        host.store(entry(response: responseAddress), at: ringAddress)
        host.write(0x1C, 1)
        #expect(host.waitForInterrupt(1))
    }

    @Test func `without bus mastering the ring cannot be reached and memory stays as it is`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        let host = try Host(card)
        host.client.write(region: 7, offset: 4, width: 2, value: 0x0002)
        host.start()
        host.store(entry(response: responseAddress), at: ringAddress)
        host.write(0x1C, 1)
        #expect(host.read(0x0C) == 2)
        #expect(host.load(ringAddress + 2, 2) == [0xFF, 0xFF])
    }

    @Test func `the next host finds the card as after power-on`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        do {
            let host = try Host(card)
            host.start()
            host.write(0x1C, 77)
            #expect(host.read(0x0C) == 2)
            host.client.close()
        }
        let next = try Host(card)
        #expect(next.read(0x0C) == 0)
        #expect(next.read(0x1C) == 0)
    }

    static let mistakes: [([String], String)] = [
        ([], "no function has a socket to serve"),
        (["--serial", "12345678901234567"], "12345678901234567"),
        (["--model", "Übergröße"], "printable ASCII"),
        (["--listen", "pcie=/nowhere/x"], "/nowhere/x"),
    ]

    @Test(arguments: mistakes.indices)
    func `a mistake on the command line is named`(index: Int) throws {
        let (arguments, named) = Self.mistakes[index]
        let (status, output) = try run(binary("offload-card"), arguments)
        #expect(status != 0 && status != nil && status! < 128)
        #expect(output.contains(named), "\(output)")
    }
}
