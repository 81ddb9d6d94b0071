import Foundation
import QMP
import Sideband
import Synchronization
import TestKit
import Testing
import VFIOUser
import Virtio
import Wire

/// The card as a process that the security logic, which the test plays, holds in reset and releases.
struct HoldProcessTests {
    /// The whole card: its process, the logic's end of its sideband, and the far end of its Ethernet port.
    private final class Rig {
        static let ports = ["pcie", "pcie-net", "pcie-disk", "pcie-console", "pcie-rng"]
        let folder = TemporaryFolder()
        let card: ComponentProcess
        let logic: SidebandLink
        let network: FramePeer

        init() throws {
            let listener = try Listener(path: folder.file("sideband"), kind: .seqpacket)
            card = try ComponentProcess(
                "offload-card", in: folder, listens: Self.ports + ["eth0", "console"],
                connects: ["sideband": "sideband"], ["--disk-size", "1MiB"])
            logic = SidebandLink(socket: try listener.accept(until: .after(.seconds(20))))
            network = FramePeer(socket: try card.connect("eth0"))
        }

        /// Drives RESET#, and waits for POWER_GOOD to follow.
        func reset(isReleased: Bool) throws {
            try logic.send(.signal(.reset, level: isReleased))
            #expect(try logic.receive(until: .after(.seconds(20))) == .signal(.powerGood, level: isReleased))
        }

        func status() throws -> String? { try card.control.execute("query-status")["status"]?.stringValue }

        func events() throws -> [String] {
            try card.control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue } ?? []
        }
    }

    /// What a card shows of all its functions: identity, and a BAR that was enabled.
    private func show(_ client: VFIOUserClient) -> [UInt64] {
        client.write(region: 7, offset: 4, width: 2, value: 6)
        let bar = UInt32((0..<6).first { client.regions[$0].length > 0 } ?? 0)
        return [client.read(region: 7, offset: 0, width: 4), client.read(region: bar, offset: 0, width: 4)]
    }

    @Test func `in reset every function reads as ones, and released each is what it was`() throws {
        let rig = try Rig()
        #expect(try rig.status() == "held")
        let clients = try Rig.ports.map { try VFIOUserClient(socket: try rig.card.connect($0)) }
        for client in clients { #expect(show(client) == [0xFFFF_FFFF, 0xFFFF_FFFF]) }
        // The line is held: being told so again is no event.
        try rig.logic.send(.signal(.reset, level: false))
        try rig.reset(isReleased: true)
        #expect(try rig.status() == "running")
        let shown = clients.map { show($0) }
        let identities: [UInt64] = [0x0B0A_1B36, 0x1041_1AF4, 0x0B0C_1B36, 0x1043_1AF4, 0x1044_1AF4]
        #expect(shown.map(\.[0]) == identities)
        #expect(shown[0][1] == 0x4442_464F)
        try rig.reset(isReleased: false)
        for client in clients { #expect(show(client) == [0xFFFF_FFFF, 0xFFFF_FFFF]) }
        try rig.reset(isReleased: true)
        #expect(clients.map { show($0) } == shown)
        #expect(
            try rig.events().filter { $0.hasPrefix("RESET") || $0.hasPrefix("POWER") } == [
                "RESET_RELEASED", "POWER_GOOD", "RESET_ASSERTED", "RESET_RELEASED", "POWER_GOOD",
            ])
        #expect(try rig.card.control.execute("query-functions").arrayValue?.count == 5, "its control is always there")
    }

    @Test func `the ring is silent in reset and as new after it`() throws {
        let rig = try Rig()
        try rig.reset(isReleased: true)
        let host = try OffloadProcessTests.Host(rig.card)
        for round in 0..<3 {
            host.client.write(region: 7, offset: 4, width: 2, value: 6)
            #expect(host.read(0x0C) == 0 && host.read(0x1C) == 0 && host.read(0x10) == 0, "round \(round)")
            host.start()
            host.store(entry(response: responseAddress), at: ringAddress)
            host.write(0x1C, 1)
            #expect(host.waitForInterrupt(1))
            #expect(host.load(ringAddress + 2, 2) == [0, 0])
            try rig.reset(isReleased: false)
            host.store(entry(response: responseAddress), at: ringAddress)
            let before = host.load(OffloadProcessTests.Host.memoryBase, host.memory.size)
            host.start()
            host.write(0x1C, 1)
            #expect(host.read(0x0C) == 0xFFFF_FFFF)
            #expect(host.load(OffloadProcessTests.Host.memoryBase, host.memory.size) == before)
            #expect(!host.vectors[0].drain() && !host.vectors[1].drain())
            #expect(try rig.card.control.execute("query-offload")["state"] == "disabled")
            try rig.reset(isReleased: true)
        }
    }

    /// A driver of the network function with 64 receive buffers of 2 KiB from 0x10_0000 on.
    private struct NetDriver {
        static let base: UInt64 = 0x8000_0000
        let memory: SharedMemory
        let client: VFIOUserClient
        let driver: VirtioDriver
        var receive: DriverQueue

        init(_ client: VFIOUserClient, _ memory: SharedMemory) throws {
            self.client = client
            self.memory = memory
            driver = try VirtioDriver(client)
            try driver.negotiate([.version1])
            receive = DriverQueue(
                memory.mapping, offset: 0, base: Self.base, size: 64, packed: false, eventIndex: false)
            driver.enable(0, receive)
            driver.start()
        }

        mutating func post() {
            var place = UInt64(0x10_0000)
            while receive.freeDescriptors > 0, receive.add(.init(Self.base + place, 2048, writable: true)) != nil {
                place += 2048
            }
            if receive.publish() { driver.kick(0) }
        }

        /// Takes so many frames and gives their buffers back; false when they do not come.
        mutating func take(_ count: Int) -> Bool {
            for _ in 0..<count {
                guard eventually({ receive.hasUsed }) else { return false }
                while receive.take() != nil {}
                post()
            }
            return true
        }

        var bytes: [UInt8] { Array(memory.mapping.bytes) }
    }

    private static func frame(_ number: UInt32) -> [UInt8] {
        [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x52, 0x54, 0, 0, 0, 9, 0x88, 0xB5]
            + (0..<4).flatMap { _ in (0..<4).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) } }
            + [UInt8](repeating: 0x5A, count: 400)
    }

    @Test func `a card that is reset under a stream of frames writes nothing any more, and drops what comes`() throws {
        let rig = try Rig()
        try rig.reset(isReleased: true)
        let client = try VFIOUserClient(socket: try rig.card.connect("pcie-net"))
        let memory = try SharedMemory(create: "test-ram", size: 4 << 20)
        try client.mapDMA(
            address: IOVirtualAddress(NetDriver.base), length: UInt64(memory.size), descriptor: memory.descriptor)
        #expect(eventually { (try? rig.card.control.execute("query-ports"))?[0]?["link"] == true })
        func count(_ name: String) throws -> Int64 {
            try rig.card.control.execute("query-ports")[0]?[name]?.integerValue ?? -1
        }
        let isOver = Atomic<Bool>(false)
        let sent = Atomic<UInt64>(0)
        let socket = rig.network.socket
        let sender = WorkerThread("frames") {
            while !isOver.load(ordering: .acquiring) {
                let number = UInt32(truncatingIfNeeded: sent.load(ordering: .relaxed))
                guard (try? socket.send(FramePeer.framed(Self.frame(number)))) != nil else { return }
                sent.add(1, ordering: .relaxed)
            }
        }
        defer {
            isOver.store(true, ordering: .releasing)
            socket.shutdown()
            sender.join()
        }
        for round in 0..<3 {
            var driver = try NetDriver(client, memory)
            driver.post()
            let isServed = driver.take(100)
            #expect(isServed, "round \(round)")
            try rig.reset(isReleased: false)
            // POWER_GOOD is gone: from here on nothing is written.
            let before = driver.bytes
            let (dropped, passed) = (try count("received-dropped"), sent.load(ordering: .relaxed))
            #expect(eventually { sent.load(ordering: .relaxed) > passed + 100 })
            #expect(eventually { ((try? count("received-dropped")) ?? 0) > dropped + 100 })
            let isUntouched = driver.bytes == before
            #expect(isUntouched, "round \(round)")
            #expect(show(client) == [0xFFFF_FFFF, 0xFFFF_FFFF])
            try rig.reset(isReleased: true)
            // As after power-on: no driver, and none of its queues.
            #expect(client.read(region: 7, offset: 4, width: 2) == 0)
            let isStillUntouched = driver.bytes == before
            #expect(isStillUntouched, "round \(round)")
        }
    }

    @Test func `what is typed at a card in reset is lost, and what comes later is heard`() throws {
        let rig = try Rig()
        let console = try rig.card.connect("console")
        try console.send(Array("lost".utf8))
        // The card has taken it.
        #expect(
            eventually {
                var unread: Int32 = -1
                return ioctl(console.descriptor.rawValue, UInt(TIOCOUTQ), &unread) == 0 && unread == 0
            })
        try rig.reset(isReleased: true)
        let client = try VFIOUserClient(socket: try rig.card.connect("pcie-console"))
        let memory = try SharedMemory(create: "test-ram", size: 1 << 20)
        try client.mapDMA(
            address: IOVirtualAddress(NetDriver.base), length: UInt64(memory.size), descriptor: memory.descriptor)
        let driver = try VirtioDriver(client)
        try driver.negotiate([.version1])
        var receive = DriverQueue(
            memory.mapping, offset: 0, base: NetDriver.base, size: 8, packed: false, eventIndex: false)
        driver.enable(0, receive)
        driver.start()
        _ = receive.add(.init(NetDriver.base + 0x1_0000, 64, writable: true))
        _ = receive.publish()
        driver.kick(0)
        try console.send(Array("heard".utf8))
        #expect(eventually { receive.hasUsed })
        let taken = receive.take()
        #expect(taken?.written == 5)
        #expect(Array(memory.mapping.bytes[0x1_0000..<0x1_0005]) == Array("heard".utf8))
    }

    @Test func `a logic that goes takes the card's power with it`() throws {
        let rig = try Rig()
        try rig.reset(isReleased: true)
        let client = try VFIOUserClient(socket: try rig.card.connect("pcie"))
        #expect(show(client)[0] == 0x0B0A_1B36)
        rig.logic.socket.shutdown()
        #expect(eventually { (try? rig.status()) == "held" })
        #expect(show(client) == [0xFFFF_FFFF, 0xFFFF_FFFF])
        #expect(rig.card.child.waitForOutput("the security logic is gone: in reset until it is back"))
    }

    @Test func `without a sideband the card leaves reset at once`() throws {
        let card = try ComponentProcess("offload-card", listens: ["pcie"])
        #expect(try card.control.execute("query-status")["status"] == "running")
        let events = try card.control.execute("query-events").arrayValue?.compactMap { $0["event"]?.stringValue }
        #expect(events == ["RESET_RELEASED", "FIRMWARE_LOADED", "POWER_GOOD", "COMPONENT_READY"])
    }
}
