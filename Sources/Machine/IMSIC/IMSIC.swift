// The incoming MSI controllers' memory-mapped pages, and the way of messages from devices.
//
// Model: a message is a 32-bit write. Those of harts come through the memory map, those of the APLIC and of PCIe
// functions through `deliver`; both end in a hart's interrupt file, which is all there is to an IMSIC besides the page.
public import RISCV

/// The interrupt files of one privilege level, a 4 KiB page a hart. Words only.
///
/// Spec: RISC-V Advanced Interrupt Architecture 1.0 §3.5, §3.6
public final class IMSIC: MachineDevice {
    public let range: AddressRange
    private let files: [InterruptFile]

    /// Pages from `base` for `files`, which are those of hart 0, 1, ….
    public init(base: UInt64, files: [InterruptFile]) {
        self.files = files
        range = AddressRange(base: base, size: UInt64(files.count) * 4096)
    }

    /// The files are the harts' own and are reset with them.
    public func reset() {}

    /// Takes a message for `address`; false when none of the pages is there.
    public func deliver(address: UInt64, data: UInt32) -> Bool {
        guard range.contains(address, count: 4), address & 3 == 0 else { return false }
        return write(offset: address - range.base, width: .word, value: UInt64(data))
    }

    /// Every register reads as zero.
    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        width == .word ? 0 : nil
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .word else { return false }
        let hart = Int(offset / 4096)
        guard hart < files.count else { return true }
        let data = UInt32(truncatingIfNeeded: value)
        switch offset % 4096 {
        case Self.seteipnumLE: files[hart].deliver(identity: data)
        case Self.seteipnumBE: files[hart].deliver(identity: data.byteSwapped)
        default: break
        }
        return true
    }
}
