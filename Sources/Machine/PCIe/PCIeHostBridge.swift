// The generic ECAM host bridge: windows of the physical address space that lead to the root complex.
//
// Model: windows and no state. PCI addresses are host addresses in both memory windows; the I/O window is all of I/O
// space, from its address 0.
public import RISCV

/// The host bridge of the `pci-host-ecam-generic` binding.
public final class PCIeHostBridge: Sendable {
    let root: (any PCIeRootComplex)?

    /// A bridge to `root`; without one, every slot is empty.
    public init(root: (any PCIeRootComplex)?) {
        self.root = root
    }

    /// Adds the windows to the map.
    public func map(into space: PhysicalAddressSpace, memorySize: UInt64) {
        let ecam = ECAMWindow(root: root)
        space.addDevice(base: MemoryMap.pcieECAM.base, size: MemoryMap.pcieECAM.size, device: ecam)
        for range in [MemoryMap.pcieMemory32, MemoryMap.pcieMemory64(memorySize: memorySize)] {
            space.addDevice(base: range.base, size: range.size, device: MemoryWindow(root: root, base: range.base))
        }
        space.addDevice(
            base: MemoryMap.pciePortIO.base, size: MemoryMap.pciePortIO.size, device: IOWindow(root: root))
    }

    /// Configuration space. Bytes, halves and words.
    final class ECAMWindow: MemoryMappedDevice {
        private let root: (any PCIeRootComplex)?

        init(root: (any PCIeRootComplex)?) { self.root = root }

        func read(offset: UInt64, width: AccessWidth) -> UInt64? {
            guard width != .double else { return nil }
            guard let root else { return allOnes(width) }
            return root.configRead(offset, width: Int(width.bytes)) & allOnes(width)
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
            guard width != .double else { return false }
            root?.configWrite(offset, width: Int(width.bytes), value: value)
            return true
        }
    }

    /// I/O space. Bytes, halves and words.
    final class IOWindow: MemoryMappedDevice {
        private let root: (any PCIeRootComplex)?

        init(root: (any PCIeRootComplex)?) { self.root = root }

        func read(offset: UInt64, width: AccessWidth) -> UInt64? {
            guard let root, width != .double else { return allOnes(width) }
            return root.ioRead(offset, width: Int(width.bytes)) & allOnes(width)
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
            if width != .double { root?.ioWrite(offset, width: Int(width.bytes), value: value) }
            return true
        }
    }

    /// Memory space, addressed as the host sees it. Any width.
    final class MemoryWindow: MemoryMappedDevice {
        private let root: (any PCIeRootComplex)?
        private let base: UInt64

        init(root: (any PCIeRootComplex)?, base: UInt64) {
            self.root = root
            self.base = base
        }

        func read(offset: UInt64, width: AccessWidth) -> UInt64? {
            guard let root else { return allOnes(width) }
            return root.memoryRead(base &+ offset, width: Int(width.bytes)) & allOnes(width)
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
            root?.memoryWrite(base &+ offset, width: Int(width.bytes), value: value)
            return true
        }
    }
}

/// What an empty bus reads as.
func allOnes(_ width: AccessWidth) -> UInt64 {
    width == .double ? .max : (1 << (width.bytes * 8)) - 1
}
