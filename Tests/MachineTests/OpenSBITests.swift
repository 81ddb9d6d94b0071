import FoundationEssentials
import Machine
import RISCV
import TestKit
import Testing
import Wire

/// Debian's unmodified OpenSBI, as `scripts/fetch-opensbi` puts it.
private let openSBI = packageFolder + "/.build/firmware/fw_dynamic.bin"

@Suite(.enabled(if: FileManager.default.fileExists(atPath: openSBI), "run scripts/fetch-opensbi"))
struct `OpenSBI` {
    private static let payloadOffset = 0x10_0000
    private static let informationOffset = 0x800
    private static let release: UInt64 = 0x8100_0000

    /// A first stage at the flash's start: hart 0 copies OpenSBI to 0x8000_0000, the payload to 0x8020_0000 and the
    /// devicetree to 0x8019_0000, the others wait for it; then all enter OpenSBI.
    private static func firstStage(firmware: Int) -> [UInt8] {
        var program = Assembler()
        let wait = program.label()
        let enter = program.label()
        func copy(_ from: Assembler.Register, to: UInt64, count: Int) {
            program.li(.t1, to)
            program.li(.t2, to + UInt64((count + 7) & ~7))
            let loop = program.here()
            program.ld(.t3, 0, from)
            program.sd(.t3, 0, .t1)
            program.addi(from, from, 8)
            program.addi(.t1, .t1, 8)
            program.bltu(.t1, .t2, loop)
        }
        program.li(.s1, 0x8019_0000)
        program.li(.s0, release)
        program.bne(.a0, .zero, wait)
        program.li(.t0, MemoryMap.flash.base + 0x2_0000)
        copy(.t0, to: 0x8000_0000, count: firmware)
        program.li(.t0, MemoryMap.flash.base + UInt64(payloadOffset))
        copy(.t0, to: 0x8020_0000, count: 4096)
        copy(.a1, to: 0x8019_0000, count: 0xC000)
        program.fence()
        program.li(.t0, 1)
        program.sw(.t0, 0, .s0)
        program.place(wait)
        program.lw(.t0, 0, .s0)
        program.beq(.t0, .zero, wait)
        program.fence()
        program.place(enter)
        program.addi(.a1, .s1, 0)
        program.li(.a2, MemoryMap.flash.base + UInt64(informationOffset))
        program.li(.t0, 0x8000_0000)
        program.fencei()
        program.jr(.t0)
        return program.bytes
    }

    /// In S-mode: prints a line by the SBI's console and powers off by SRST.
    private static var payload: [UInt8] {
        var program = Assembler()
        for byte in "S-mode says hello\n".utf8 {
            program.li(.a7, 1)
            program.li(.a0, UInt64(byte))
            program.ecall()
        }
        program.li(.a7, 0x5352_5354)
        program.li(.a6, 0)
        program.li(.a0, 0)
        program.li(.a1, 0)
        program.ecall()
        let forever = program.here()
        program.wfi()
        program.j(forever)
        return program.bytes
    }

    private static func image() throws -> [UInt8] {
        let firmware = Array(try Data(contentsOf: URL(filePath: openSBI)))
        var image = [UInt8](repeating: 0xFF, count: payloadOffset + 4096)
        func put(_ bytes: [UInt8], at offset: Int) { image.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
        put(firstStage(firmware: firmware.count), at: 0)
        // struct fw_dynamic_info: magic "OSBI", version 2, next address, next mode S, options, boot hart.
        let information: [UInt64] = [0x4942_534F, 2, 0x8020_0000, 1, 0, 0]
        put(
            information.flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } },
            at: informationOffset)
        put(firmware, at: 0x2_0000)
        put(payload, at: payloadOffset)
        return image
    }

    @Test(arguments: [
        (HartConfiguration.InterruptArchitecture.aia, 1), (.plic, 1), (.aia, 4), (.plic, 2),
    ])
    func `boots from flash to its banner, enters S-mode, and powers off`(
        _ interrupts: HartConfiguration.InterruptArchitecture, _ harts: Int
    ) throws {
        let bench = try MachineBench(
            try Self.image(),
            MachineConfiguration(memorySize: 128 << 20, hartCount: harts, interrupts: interrupts))
        bench.run(within: .seconds(60)) { bench.events.all == [.powerOff] }
        let text = bench.text
        bench.stop()
        for line in [
            "OpenSBI v1.", "Platform Name               : baseboard,server", "Platform HART Count         : \(harts)",
            "Platform Console Device     : uart8250", "Platform Reboot Device      : syscon-reboot",
            "Platform Shutdown Device    : syscon-poweroff",
            "Platform IPI Device         : \(interrupts == .aia ? "aia-imsic" : "aclint-mswi")",
            "Domain0 Next Address        : 0x0000000080200000", "Boot HART Base ISA          : rv64imafdc",
            "S-mode says hello",
        ] { #expect(text.contains(line), "missing '\(line)' in:\n\(text)") }
    }
}
