// The ROM that every hart starts in: the reset vector and the devicetree behind it.
import RISCV
import Wire

/// 60 KiB of read-only memory at 0x1000.
///
/// Register state at the jump: a0 is `mhartid`, a1 the devicetree's address, as every RISC-V boot stage expects them.
final class BootROM: Sendable {
    /// Where the devicetree lies, from the ROM's base; 8-byte aligned as the devicetree specification asks.
    static let devicetreeOffset = 0x100

    private let memory: SharedMemory

    init(devicetree: [UInt8], entry: UInt64) throws(MachineError) {
        let size = Int(MemoryMap.bootROM.size)
        guard devicetree.count <= size - Self.devicetreeOffset else {
            throw .devicetreeTooLarge(count: devicetree.count, room: size - Self.devicetreeOffset)
        }
        do throws(WireError) { memory = try SharedMemory(create: "boot-rom", size: size) } catch {
            throw .memoryUnavailable(UInt64(size), reason: error.description)
        }
        let image = Self.resetVector(entry: entry) + devicetree
        // Safety: the vector has exactly `devicetreeOffset` bytes and the sum was checked against the mapping's size.
        unsafe memory.mapping.bytes.copyBytes(from: image)
    }

    /// Adds the ROM to the map; `self` must live as long as the harts.
    func map(into space: PhysicalAddressSpace) {
        // Safety: the mapping has the region's size and lives as long as `self`.
        unsafe space.addMemory(
            base: MemoryMap.bootROM.base, size: MemoryMap.bootROM.size, host: memory.mapping.baseAddress,
            permissions: .readOnly)
    }

    /// 256 bytes of code and operands.
    static func resetVector(entry: UInt64) -> [UInt8] {
        let code: [UInt32] = [
            0x0000_0297,  // auipc t0, 0
            0xF140_2573,  // csrr  a0, mhartid
            0x0182_B583,  // ld    a1, 24(t0)
            0x0202_B283,  // ld    t0, 32(t0)
            0x0002_8067,  // jr    t0
            0x0000_0013,  // nop
        ]
        let operands: [UInt64] = [MemoryMap.bootROM.base + UInt64(devicetreeOffset), entry]
        var bytes: [UInt8] = []
        for word in code { bytes += (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
        for operand in operands { bytes += (0..<8).map { UInt8(truncatingIfNeeded: operand >> ($0 * 8)) } }
        return bytes + [UInt8](repeating: 0, count: devicetreeOffset - bytes.count)
    }
}
