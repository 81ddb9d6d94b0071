import BlockStore
import TestKit
import Testing
import VFIOUser
import Wire

/// Data between a store and guest memory, mapped and not.
struct BlockTransferTests {
    /// Guest memory: 0x1000…0x40FFF mapped, 0x80000…0x8FFFF mapped for reading only.
    final class Guest {
        let dma = DMAAddressSpace()
        let ram: SharedMemory
        let rom: SharedMemory

        init() throws {
            ram = try SharedMemory(create: "ram", size: 256 << 10)
            rom = try SharedMemory(create: "rom", size: 64 << 10)
            let writable = DMAMap.readable | DMAMap.writeable
            try dma.insert(
                DMAMap(address: 0x1000, length: 128 << 10, offset: 0, flags: writable), descriptor: ram.descriptor)
            // The same memory goes on in a second map: a piece that crosses is not one mapping.
            try dma.insert(
                DMAMap(address: 0x21000, length: 128 << 10, offset: 128 << 10, flags: writable),
                descriptor: ram.descriptor)
            try dma.insert(
                DMAMap(address: 0x80000, length: 64 << 10, offset: 0, flags: DMAMap.readable),
                descriptor: rom.descriptor)
        }
    }

    @Test func `random pieces carry what they should, both ways`() throws {
        var generator = SeededGenerator.fresh()
        let guest = try Guest()
        let store = try BlockStore(memory: 1 << 20)
        let transfer = BlockTransfer(maximumPieces: 64)
        for _ in 0..<300 {
            transfer.begin()
            var pieces: [(address: UInt64, count: Int)] = []
            // Disjoint: one in each eighth of the memory, in any order.
            for slot in (0..<8).shuffled(using: &generator).prefix(Int.random(in: 1...8, using: &generator)) {
                let count = Int.random(in: 1...32768, using: &generator)
                let room = 32768 - count
                let address = 0x1000 + UInt64(slot * 32768 + Int.random(in: 0...room, using: &generator))
                pieces.append((address, count))
                #expect(transfer.add(address, count: count))
            }
            let total = pieces.reduce(0) { $0 + $1.count }
            #expect(transfer.byteCount == total)
            let offset = UInt64.random(in: 0...UInt64((1 << 20) - total), using: &generator)
            let bytes = generator.bytes(total)
            try BlockStoreTests.write(store, offset, bytes)
            try transfer.read(store, at: offset, guest.dma)
            var seen: [UInt8] = []
            for piece in pieces { seen += try guest.dma.read(at: IOVirtualAddress(piece.address), count: piece.count) }
            #expect(seen == bytes, "seed \(generator.seed)")
            try transfer.compare(store, at: offset, guest.dma)

            let place = UInt64.random(in: 0...UInt64((1 << 20) - total), using: &generator)
            try transfer.write(store, at: place, guest.dma)
            #expect(try BlockStoreTests.read(store, place, total) == bytes, "seed \(generator.seed)")
            var changed = bytes
            changed[total - 1] ^= 1
            try BlockStoreTests.write(store, place, changed)
            #expect(throws: BlockFailure.mismatch) { try transfer.compare(store, at: place, guest.dma) }
        }
    }

    @Test func `pieces that wrap, are too many or add up to too much are refused`() throws {
        let transfer = BlockTransfer(maximumPieces: 2)
        #expect(!transfer.add(.max, count: 2))
        #expect(!transfer.add(0, count: -1))
        #expect(transfer.add(0x1000, count: 512) && transfer.add(0x1200, count: 512))
        #expect(transfer.add(0x3000, count: 512) && !transfer.add(0x5000, count: 512))
        #expect(transfer.byteCount == 1536)
        #expect(!transfer.add(0x3200, count: .max))
    }

    @Test func `memory that is not there, or only to be read, fails the access and nothing else`() throws {
        let guest = try Guest()
        let store = try BlockStore(memory: 1 << 20)
        let transfer = BlockTransfer(maximumPieces: 4)
        for address: UInt64 in [0, 0x60000, 0x40FF0, .max - 511] {
            transfer.begin()
            #expect(transfer.add(address, count: 512))
            #expect(throws: BlockFailure.memory) { try transfer.read(store, at: 0, guest.dma) }
            #expect(throws: BlockFailure.memory) { try transfer.write(store, at: 0, guest.dma) }
            #expect(throws: BlockFailure.memory) { try transfer.compare(store, at: 0, guest.dma) }
        }
        transfer.begin()
        #expect(transfer.add(0x80000, count: 512))
        #expect(throws: BlockFailure.memory) { try transfer.read(store, at: 0, guest.dma) }
        try transfer.write(store, at: 0, guest.dma)
        guest.dma.isEnabled = false
        #expect(throws: BlockFailure.memory) { try transfer.write(store, at: 0, guest.dma) }
        guest.dma.isEnabled = true
        #expect(throws: BlockFailure.outOfRange) { try transfer.write(store, at: .max, guest.dma) }
        #expect(throws: BlockFailure.outOfRange) { try transfer.read(store, at: (1 << 20) - 511, guest.dma) }
    }

    @Test func `memory behind a file that may shrink goes by the buffer`() throws {
        let folder = TemporaryFolder()
        let path = BlockStoreTests.makeFile(folder, 64 << 10)
        let dma = DMAAddressSpace()
        try dma.insert(
            DMAMap(address: 0, length: 64 << 10, offset: 0, flags: DMAMap.readable | DMAMap.writeable),
            descriptor: try Descriptor.open(path, flags: 2))
        let store = try BlockStore(memory: 1 << 20)
        let transfer = BlockTransfer(maximumPieces: 4)
        #expect(transfer.add(0x1000, count: 32 << 10) && transfer.add(0, count: 512))
        try transfer.write(store, at: 0, dma)
        #expect(try BlockStoreTests.read(store, 512, 512) == [UInt8](repeating: 9, count: 512))
        try transfer.read(store, at: 512, dma)
        #expect(try dma.read(at: IOVirtualAddress(0x1000), count: 512) == [UInt8](repeating: 9, count: 512))
        try transfer.compare(store, at: 512, dma)
    }
}
