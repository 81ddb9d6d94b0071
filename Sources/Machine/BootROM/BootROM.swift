// The ROM that every hart starts in: the reset vector and the devicetree behind it.
import RISCV
import Wire

/// 60 KiB of read-only memory at 0x1000.
///
/// Register state at the jump: a0 is `mhartid`, a1 the devicetree's address, as every RISC-V boot stage expects them; a2
/// the address of `struct fw_dynamic_info` where a firmware was loaded into RAM, as QEMU has it.
final class BootROM: Sendable {
    /// Where the devicetree lies, from the ROM's base; 8-byte aligned as the devicetree specification asks.
    static let devicetreeOffset = 0x100
    /// Where `struct fw_dynamic_info` lies, from the ROM's base.
    static let informationOffset = 0x40

    /// What a firmware in RAM is told about the next stage.
    ///
    /// Spec: OpenSBI include/sbi/fw_dynamic.h (version 2)
    struct DynamicInformation {
        /// Entered in S-mode; 0 where there is none.
        var nextAddress: UInt64

        var words: [UInt64] {
            let (magic, version, supervisor): (UInt64, UInt64, UInt64) = (0x4942_534F, 2, 1)
            let (options, bootHart): (UInt64, UInt64) = (0, 0)
            return [magic, version, nextAddress, supervisor, options, bootHart]
        }
    }

    /// Where the vector leads, and with what.
    struct Entry {
        var address: UInt64
        /// In a1; nil: the one in the ROM.
        var devicetree: UInt64?
        /// Its address is in a2; nil: a2 is 0.
        var information: DynamicInformation?
    }

    private let memory: SharedMemory

    init(devicetree: [UInt8], entry: Entry) throws(MachineError) {
        let size = Int(MemoryMap.bootROM.size)
        guard devicetree.count <= size - Self.devicetreeOffset else {
            throw .devicetreeTooLarge(count: devicetree.count, room: size - Self.devicetreeOffset)
        }
        do throws(WireError) { memory = try SharedMemory(create: "boot-rom", size: size) } catch {
            throw .memoryUnavailable(UInt64(size), reason: error.description)
        }
        let image = Self.resetVector(entry) + devicetree
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
    static func resetVector(_ entry: Entry) -> [UInt8] {
        let code: [UInt32] = [
            0x0000_0297,  // auipc t0, 0
            0xF140_2573,  // csrr  a0, mhartid
            0x0182_B583,  // ld    a1, 24(t0)
            0x0202_B603,  // ld    a2, 32(t0)
            0x0282_B283,  // ld    t0, 40(t0)
            0x0002_8067,  // jr    t0
        ]
        let base = MemoryMap.bootROM.base
        var operands: [UInt64] = [
            entry.devicetree ?? base + UInt64(devicetreeOffset),
            entry.information == nil ? 0 : base + UInt64(informationOffset), entry.address,
        ]
        // The code has 24 bytes, the operands 24, up to 48; the information begins at 64.
        operands += [0, 0] + (entry.information?.words ?? [])
        var bytes: [UInt8] = []
        for word in code { bytes += (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
        for operand in operands { bytes += (0..<8).map { UInt8(truncatingIfNeeded: operand >> ($0 * 8)) } }
        return bytes + [UInt8](repeating: 0, count: devicetreeOffset - bytes.count)
    }
}
