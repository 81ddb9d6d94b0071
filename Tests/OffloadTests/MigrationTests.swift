import Offload
import PCIe
import TestKit
import Testing
import VFIOUser
import Wire

/// The control ring's state goes to another card that shares the host's memory, and the host's ring goes on.
struct MigrationTests {
    /// A card behind a vfio-user server of its own.
    private final class Served: DeviceHolder {
        let client: VFIOUserClient
        let card: OffloadCard
        private let far: Socket

        init(_ ram: SharedMemory) throws {
            var made: OffloadCard?
            let endpoint = Endpoint(OffloadCard.description) { bus in
                let card = OffloadCard(bus, identity: testIdentity) { _ in }
                made = card
                return card
            }
            card = try #require(made)
            let near: Socket
            (near, far) = try Socket.pair()
            let server = VFIOUserServer(
                listener: try Listener(adopting: Socket.pair().0.descriptor, kind: .stream), device: endpoint
            ) { _ in }
            let socket = far
            WorkerThread("card") { server.serve(socket) }
            client = try VFIOUserClient(socket: near)
            try client.mapDMA(
                address: IOVirtualAddress(ringAddress & ~0xFFFF), length: UInt64(ram.size), descriptor: ram.descriptor)
            client.write(region: 7, offset: 4, width: 2, value: 6)
        }

        deinit { far.shutdown() }

        func register(_ offset: UInt64) -> UInt32 {
            UInt32(truncatingIfNeeded: client.read(region: 0, offset: offset, width: 4))
        }
        func set(_ offset: UInt64, _ value: UInt32) {
            client.write(region: 0, offset: offset, width: 4, value: UInt64(value))
        }
    }

    private let ram: SharedMemory

    init() throws { ram = try SharedMemory(create: "ram", size: 1 << 16) }

    private func store(_ bytes: [UInt8], _ address: UInt64) {
        for (index, byte) in bytes.enumerated() {
            ram.mapping.bytes.storeBytes(
                of: byte, toByteOffset: Int(address & 0xFFFF) + index, as: UInt8.self)
        }
    }

    /// The status of the entry at a place of the ring.
    private func status(_ place: UInt64) -> UInt16 {
        ram.mapping.bytes.loadUnaligned(
            fromByteOffset: Int(ringAddress & 0xFFFF) + Int(place) * 64 + 2, as: UInt16.self)
    }

    private func fill(_ place: UInt64) { store(entry(response: responseAddress), ringAddress + place * 64) }

    /// A card with a ring of four entries of which one was served.
    private func ready() throws -> Served {
        let card = try Served(ram)
        card.set(0x10, UInt32(truncatingIfNeeded: ringAddress))
        card.set(0x14, UInt32(truncatingIfNeeded: ringAddress >> 32))
        card.set(0x18, 4)
        card.set(0x08, 1)
        fill(0)
        card.set(0x1C, 1)
        #expect(status(0) == 0 && card.register(0x20) == 1)
        return card
    }

    @Test func `the ring goes on with another card, and a doorbell rung while it was stopped is served`() throws {
        let source = try ready()
        try source.client.setMigrationState(.stop)
        fill(1)
        source.set(0x1C, 2)
        #expect(status(1) == 0xFFFF)
        let state = try source.saveState()
        let target = try Served(ram)
        try target.load(state)
        #expect(status(1) == 0xFFFF)
        try target.client.setMigrationState(.running)
        #expect(status(1) == 0 && target.register(0x20) == 2)
        fill(2)
        target.set(0x1C, 3)
        #expect(status(2) == 0)
        #expect(target.card.snapshot.state == .ready)
    }

    @Test func `no state that was cut or changed makes a card trap, and it works after a reset`() throws {
        var generator = SeededGenerator.fresh()
        let good = try ready().saveState()
        let target = try Served(ram)
        // The card's part is the last 27 bytes.
        for round in 0..<500 {
            var bad = good
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bad[Int.random(in: bad.count - 27..<bad.count, using: &generator)] =
                    .random(in: 0...255, using: &generator)
            }
            if round % 5 == 0 { bad.removeLast(Int.random(in: 1..<40, using: &generator)) }
            try target.load(bad)
            if (try? target.client.setMigrationState(.running)) != nil { target.set(0x1C, 2) }
            try target.client.reset()
            #expect(!target.client.isGone, "seed \(generator.seed), round \(round)")
        }
        #expect(target.card.snapshot.state == .disabled, "seed \(generator.seed)")
        // Each of these is none: version, a state that there is not, a vector that there is not.
        for (place, value) in [(27, UInt8(9)), (25, 3), (4, 7)] {
            var bad = good
            bad[bad.count - place] = value
            try target.load(bad)
            #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) {
                try target.client.setMigrationState(.stop)
            }
            try target.client.reset()
        }
    }
}
