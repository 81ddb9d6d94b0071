import Foundation
import TestKit
import Testing

// The files in Shared are links to firmware sources that need no hardware: compiled for this machine too, where a guard
// page catches what QEMU would not.

/// Puts bytes where they end at a page that nobody may touch (a read behind them kills the test) and passes their
/// address to `body`.
private func guarded<Result>(_ bytes: [UInt8], _ body: (UInt) throws -> Result) throws -> Result {
    let page = 4096
    let room = (bytes.count + page - 1) / page * page
    let mapping = try #require(
        mmap(nil, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    try #require(mapping != MAP_FAILED)
    defer { munmap(mapping, room + page) }
    try #require(mprotect(mapping + room, page, PROT_NONE) == 0)
    // The reader wants a multiple of 4, which a blob of another length cannot have together with the guard.
    let start = mapping + (room - bytes.count) & ~3
    bytes.withUnsafeBytes { if let base = $0.baseAddress { start.copyMemory(from: base, byteCount: bytes.count) } }
    return try body(UInt(bitPattern: start))
}

/// A devicetree as QEMU makes it, without the room that QEMU leaves behind the strings block.
private let genuine = Result {
    let folder = TemporaryFolder()
    _ = try run(
        "/usr/bin/qemu-system-riscv64",
        ["-M", "virt,aia=aplic-imsic,dumpdtb=\(folder.file("tree"))", "-smp", "2", "-m", "256M", "-nographic"])
    let blob = [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder.file("tree"))))
    func word(_ offset: Int) -> Int { blob[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) } }
    return cut(blob, to: word(12) + word(32))
}

/// Looks at all that a tree has, in every way that the firmware does; the number of nodes.
private func exhaust(_ tree: DeviceTree) -> Int {
    var nodes = 0
    tree.visit { node in
        nodes += 1
        _ = node.isEnabled
        _ = node.isCompatible("ns16550a")
        for index: UInt in [0, 1, 0xFFFF, .max] { _ = node.register(index) }
        _ = node.property("interrupts-extended")?.big32(at: 4)
        if node.isCompatible("pci-host-ecam-generic") {
            _ = Windows(ranges: node.property("ranges"), parentAddressCells: node.cells.address)
        }
        return true
    }
    _ = tree.node(phandle: 3)
    return nodes
}

/// The blob cut to `count` bytes, its header saying so.
private func cut(_ blob: [UInt8], to count: Int) -> [UInt8] {
    var blob = Array(blob.prefix(count))
    for (index, byte) in withUnsafeBytes(of: UInt32(count).bigEndian, Array.init).enumerated() where 4 + index < count {
        blob[4 + index] = byte
    }
    return blob
}

private func big(_ words: UInt32...) -> [UInt8] {
    words.flatMap { withUnsafeBytes(of: $0.bigEndian, Array.init) }
}

@Suite("What the firmware reads and cannot trust")
struct UntrustedInputTests {
    @Test func `a devicetree of QEMU is read`() throws {
        try guarded(genuine.get(), Self.readsGenuine)
    }

    private static func readsGenuine(_ base: UInt) throws {
        let tree = try #require(DeviceTree(at: base))
        #expect(exhaust(tree) > 20)
        let memory = tree.first { $0.property("device_type")?.terminated(at: 0)?.equals("memory") == true }
        #expect(memory?.register(0)?.base == 0x8000_0000)
        #expect(memory?.register(0)?.size == 256 << 20)
        #expect(memory?.register(1) == nil)
        let port = tree.first { $0.isCompatible("ns16550a") }
        #expect(port?.register(0)?.base == 0x1000_0000)
        let phandle = try #require(tree.first { $0.isCompatible("riscv,aplic") }?.value32("phandle"))
        #expect(tree.node(phandle: phandle)?.isCompatible("riscv,aplic") == true)
    }

    @Test func `a devicetree cut anywhere is refused or ends early`() throws {
        let blob = try genuine.get()
        try guarded(blob) { #expect(DeviceTree(at: $0) != nil) }
        for count in 40..<blob.count {
            // The strings block is last: no cut tree has all of it.
            try guarded(cut(blob, to: count)) { #expect(DeviceTree(at: $0) == nil, "cut to \(count) bytes") }
        }
    }

    @Test func `a devicetree with random damage never reads beyond its end, and the walk ends`() throws {
        let blob = try genuine.get()
        var random = SeededGenerator.fresh()
        var accepted = 0
        for _ in 0..<3000 {
            var damaged = blob
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                // Half of the damage hits the header and the first properties, where sizes are.
                let limit = Bool.random(using: &random) ? blob.count : 256
                let place = Int.random(in: 0..<limit, using: &random)
                damaged[place] = UInt8.random(in: 0...255, using: &random)
            }
            // The blob ends where it ends, whatever damage says.
            try guarded(cut(damaged, to: blob.count)) { base in
                guard let tree = DeviceTree(at: base) else { return }
                accepted += 1
                #expect(exhaust(tree) <= blob.count / 8, "seed \(random.seed)")
            }
        }
        #expect(accepted > 100, "seed \(random.seed)")
    }

    @Test func `a devicetree nested without end is not followed`() throws {
        let depth = 5000
        let structure = [UInt8](repeating: 0, count: 0) + (0..<depth).flatMap { _ in big(1, 0) } + big(9)
        let blob =
            big(0xD00D_FEED, UInt32(40 + structure.count), 40, UInt32(40 + structure.count), 40, 17, 16, 0, 0)
            + big(UInt32(structure.count)) + structure
        let nodes = try guarded(blob) { exhaust(try #require(DeviceTree(at: $0))) }
        #expect(nodes == 16)
    }

    @Test(arguments: [
        (0, 0xFEED_D00D as UInt32), (4, 8), (4, 0x1000_0000), (8, 0xFFFF_FFFC), (8, 41), (12, 0xFFFF_FFFF), (20, 16),
        (24, 18), (32, 0xFFFF_FFFF), (36, 0xFFFF_FFFF),
    ]) func `a devicetree header that cannot be is refused`(offset: Int, value: UInt32) throws {
        var blob = try genuine.get()
        blob.replaceSubrange(offset..<offset + 4, with: big(value))
        try guarded(blob) { #expect(DeviceTree(at: $0) == nil) }
    }

    @Test func `no devicetree is at address zero, at an odd address or at the end of the address space`() {
        for address: UInt in [0, 2, .max - 3, .max & ~3] { #expect(DeviceTree(at: address) == nil) }
    }

    @Test func `a flash directory of random bytes is read to its end and no further`() throws {
        var random = SeededGenerator.fresh()
        for _ in 0..<500 {
            var content = random.bytes(Int.random(in: 0...512, using: &random) & ~3)
            // Mostly with the right magic and a small count, or nothing would be read.
            if content.count >= 8 {
                content.replaceSubrange(0..<4, with: Array("BIRD".utf8))
                content.replaceSubrange(5..<8, with: [0, 0, 0])
            }
            try guarded(content) { base in
                guard case .success(let directory) = Directory.read(Bytes(base: base, count: UInt(content.count)))
                else {
                    return
                }
                for index in 0..<directory.count { #expect(directory.entry(index) != nil, "seed \(random.seed)") }
                #expect(directory.entry(directory.count) == nil, "seed \(random.seed)")
            }
        }
    }

    @Test func `windows of random ranges hand out aligned space within them, none of it twice`() throws {
        var random = SeededGenerator.fresh()
        for _ in 0..<500 {
            var ranges: [UInt8] = []
            for space: UInt32 in [0x0100_0000, 0x0200_0000, 0x0300_0000] {
                ranges += big(space)
                for _ in 0..<3 {
                    let number =
                        UInt64.random(in: 0...UInt64.max, using: &random) >> Int.random(in: 0..<64, using: &random)
                    ranges += big(UInt32(number >> 32), UInt32(truncatingIfNeeded: number))
                }
            }
            let windows = try guarded(ranges) {
                Windows(ranges: Bytes(base: $0, count: UInt(ranges.count)), parentAddressCells: 2)
            }
            for var window in [windows.io, windows.memory32, windows.memory64] {
                let start = window.next
                #expect(start <= window.end, "seed \(random.seed)")
                var previous = start
                for _ in 0..<20 {
                    let size: UInt64 = 1 << UInt64.random(in: 0..<64, using: &random)
                    if Bool.random(using: &random) { _ = window.align(size) }
                    guard let address = window.take(size) else { continue }
                    #expect(address & (size - 1) == 0, "seed \(random.seed)")
                    #expect(address >= previous && address + size <= window.end, "seed \(random.seed)")
                    previous = address + size
                }
            }
        }
    }

    @Test func `ranges with a wrong number of cells make no window`() throws {
        let range = big(0x0200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x1000_0000)
        func windows(_ count: Int, _ cells: UInt32) throws -> Windows {
            try guarded(Array(range[..<count])) {
                Windows(ranges: Bytes(base: $0, count: UInt(count)), parentAddressCells: cells)
            }
        }
        for cells: UInt32 in [0, 3, .max] { #expect(try windows(28, cells).memory32.end == 0) }
        // An entry that is cut off is none.
        #expect(try windows(24, 2).memory32.end == 0)
        let whole = try windows(28, 2)
        #expect(whole.memory32.next == 0x4000_0000 && whole.memory32.end == 0x5000_0000)
    }
}
