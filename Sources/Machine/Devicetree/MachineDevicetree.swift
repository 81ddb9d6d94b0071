// The devicetree of a machine: what firmware and kernels know about it, in the bindings they know.
import LPC
import RISCV

/// Makes the tree for a configuration.
struct MachineDevicetree {
    let configuration: MachineConfiguration
    let hart: HartConfiguration

    /// Phandles, in the order their nodes come.
    private enum Phandle {
        static let testFinisher: UInt32 = 1
        static let machineIMSIC: UInt32 = 2
        static let supervisorIMSIC: UInt32 = 3
        static let machineAPLIC: UInt32 = 4
        /// The controller that devices are wired to: supervisor-level APLIC or PLIC.
        static let platform: UInt32 = 5
        static func cpu(_ hart: Int) -> UInt32 { 0x10 + UInt32(hart) * 2 }
        static func cpuInterrupts(_ hart: Int) -> UInt32 { 0x11 + UInt32(hart) * 2 }
    }

    /// Interrupt numbers at a hart.
    private enum Cause {
        static let machineSoftware: UInt32 = 3
        static let machineTimer: UInt32 = 7
        static let supervisorExternal: UInt32 = 9
        static let machineExternal: UInt32 = 11
    }

    private static let levelHigh: UInt32 = 4

    private var isAIA: Bool { configuration.interrupts == .aia }

    /// The interrupt specifier of a platform source.
    private func interrupt(_ source: Int) -> [UInt32] {
        isAIA ? [UInt32(source), Self.levelHigh] : [UInt32(source)]
    }

    var root: DevicetreeNode {
        var root = DevicetreeNode("")
        root.set("#address-cells", 2)
        root.set("#size-cells", 2)
        root.set("compatible", "riscv-virtio")
        root.set("model", "baseboard,server")
        root.add("chosen", chosen)
        root.add("memory@80000000") { node in
            node.set("device_type", "memory")
            node.set("reg", AddressRange(base: MemoryMap.ramBase, size: configuration.memorySize))
        }
        root.add("cpus", cpus)
        root.add("poweroff") { syscon(&$0, "syscon-poweroff", value: 0x5555) }
        root.add("reboot") { syscon(&$0, "syscon-reboot", value: 0x7777) }
        root.add("flash@20000000") { node in
            node.set("compatible", "mtd-rom")
            node.set("reg", MemoryMap.flash)
            node.set("bank-width", 4)
        }
        root.add("soc", soc)
        return root
    }

    private func chosen(_ node: inout DevicetreeNode) {
        node.set("stdout-path", "/soc/serial@10000000:115200n8")
        if let arguments = configuration.bootArguments { node.set("bootargs", arguments) }
        let layout = configuration.bootLayout
        if let disk = layout.initialRAMDisk {
            node.set("linux,initrd-start", cells: DevicetreeNode.cells(disk.base))
            node.set("linux,initrd-end", cells: DevicetreeNode.cells(disk.end))
        }
        // Spec: "multiboot" devicetree binding (Xen docs/misc/arm/device-tree/booting.txt): how boot loaders tell what
        // they have loaded. The board's first stage enters this instead of the flash's next stage.
        if let kernel = layout.kernel, configuration.images.firmware == nil {
            node.set("#address-cells", 2)
            node.set("#size-cells", 2)
            node.add("module@\(String(kernel.base, radix: 16))") { module in
                module.set("compatible", "multiboot,kernel", "multiboot,module")
                module.set("reg", kernel)
            }
        }
    }

    private func syscon(_ node: inout DevicetreeNode, _ compatible: String, value: UInt32) {
        node.set("compatible", compatible)
        node.set("regmap", Phandle.testFinisher)
        node.set("offset", 0)
        node.set("value", value)
    }

    private func cpus(_ cpus: inout DevicetreeNode) {
        cpus.set("#address-cells", 1)
        cpus.set("#size-cells", 0)
        cpus.set("timebase-frequency", UInt32(TimeSource.frequency))
        for index in 0..<configuration.hartCount {
            cpus.add("cpu@\(String(index, radix: 16))") { cpu in
                cpu.set("phandle", Phandle.cpu(index))
                cpu.set("device_type", "cpu")
                cpu.set("reg", UInt32(index))
                cpu.set("status", "okay")
                cpu.set("compatible", "riscv")
                cpu.set("riscv,isa", hart.isaString)
                cpu.set("riscv,isa-base", "rv64i")
                cpu.set("riscv,isa-extensions", strings: hart.isaExtensions)
                if hart.isaExtensions.contains("zicbom") {
                    cpu.set("riscv,cbom-block-size", UInt32(HartConfiguration.cacheBlockSize))
                }
                if hart.isaExtensions.contains("zicboz") {
                    cpu.set("riscv,cboz-block-size", UInt32(HartConfiguration.cacheBlockSize))
                }
                cpu.set("mmu-type", hart.mmuType)
                cpu.add("interrupt-controller") { node in
                    node.set("#address-cells", 0)
                    node.set("#interrupt-cells", 1)
                    node.set("interrupt-controller")
                    node.set("compatible", "riscv,cpu-intc")
                    node.set("phandle", Phandle.cpuInterrupts(index))
                }
            }
        }
        cpus.add("cpu-map") { map in
            map.add("cluster0") { cluster in
                for index in 0..<configuration.hartCount {
                    cluster.add("core\(index)") { $0.set("cpu", Phandle.cpu(index)) }
                }
            }
        }
    }

    private func soc(_ soc: inout DevicetreeNode) {
        soc.set("#address-cells", 2)
        soc.set("#size-cells", 2)
        soc.set("compatible", "simple-bus")
        soc.set("ranges")
        soc.add("test@100000") { node in
            node.set("phandle", Phandle.testFinisher)
            node.set("compatible", "sifive,test1", "sifive,test0", "syscon")
            node.set("reg", MemoryMap.testFinisher)
        }
        soc.add("rtc@101000") { node in
            node.set("compatible", "google,goldfish-rtc")
            node.set("reg", MemoryMap.rtc)
            node.set("interrupt-parent", Phandle.platform)
            node.set("interrupts", cells: interrupt(InterruptSource.rtc))
        }
        soc.add("clint@2000000") { node in
            node.set("compatible", "sifive,clint0", "riscv,clint0")
            node.set("reg", MemoryMap.clint)
            node.set("interrupts-extended", cells: perHart([Cause.machineSoftware, Cause.machineTimer]))
        }
        if isAIA { advancedInterrupts(&soc) } else { plic(&soc) }
        soc.add("serial@10000000") { node in
            node.set("compatible", "ns16550a")
            node.set("reg", MemoryMap.uart)
            node.set("clock-frequency", UART.clockFrequency)
            node.set("interrupt-parent", Phandle.platform)
            node.set("interrupts", cells: interrupt(InterruptSource.uart))
        }
        soc.add("ps2@10010000") { node in
            node.set("compatible", "altr,ps2-1.0")
            node.set("reg", MemoryMap.ps2)
            node.set("interrupt-parent", Phandle.platform)
            node.set("interrupts", cells: interrupt(InterruptSource.ps2))
        }
        if configuration.hasLPC { soc.add("lpc@10020000", lpc) }
        soc.add("pci@30000000", pcie)
    }

    /// Children's addresses are I/O ports.
    private func lpc(_ node: inout DevicetreeNode) {
        node.set("compatible", "baseboard,lpc", "simple-bus")
        node.set("reg", MemoryMap.lpc)
        node.set("#address-cells", 1)
        node.set("#size-cells", 1)
        node.set("ranges", cells: [0] + DevicetreeNode.cells(MemoryMap.lpc.base) + [UInt32(MemoryMap.lpc.size)])
        // Spec: Linux Documentation/devicetree/bindings/ipmi/ipmi-smic.yaml
        node.add("ipmi@\(String(LPCPort.kcsData, radix: 16))") { ipmi in
            ipmi.set("compatible", "ipmi-kcs")
            ipmi.set("device_type", "ipmi")
            ipmi.set("reg", cells: [UInt32(LPCPort.kcsData), UInt32(LPCPort.kcs.count)])
            ipmi.set("reg-size", 1)
            ipmi.set("reg-spacing", 1)
            ipmi.set("interrupt-parent", Phandle.platform)
            ipmi.set("interrupts", cells: interrupt(InterruptSource.lpc))
        }
    }

    /// `interrupts-extended` of a controller with these causes at every hart.
    private func perHart(_ causes: [UInt32]) -> [UInt32] {
        (0..<configuration.hartCount).flatMap { hart in
            causes.flatMap { [Phandle.cpuInterrupts(hart), $0] }
        }
    }

    private func plic(_ soc: inout DevicetreeNode) {
        soc.add("plic@c000000") { node in
            node.set("phandle", Phandle.platform)
            node.set("compatible", "sifive,plic-1.0.0", "riscv,plic0")
            node.set("reg", MemoryMap.plic)
            node.set("interrupts-extended", cells: perHart([Cause.machineExternal, Cause.supervisorExternal]))
            node.set("interrupt-controller")
            node.set("#interrupt-cells", 1)
            node.set("#address-cells", 0)
            node.set("riscv,ndev", UInt32(InterruptSource.count))
        }
    }

    private func advancedInterrupts(_ soc: inout DevicetreeNode) {
        let levels = [
            (MemoryMap.machineIMSICBase, Phandle.machineIMSIC, Cause.machineExternal),
            (MemoryMap.supervisorIMSICBase, Phandle.supervisorIMSIC, Cause.supervisorExternal),
        ]
        for (base, phandle, cause) in levels {
            soc.add("imsics@\(String(base, radix: 16))") { node in
                node.set("phandle", phandle)
                node.set("compatible", "riscv,imsics")
                node.set("reg", AddressRange(base: base, size: UInt64(configuration.hartCount) * 4096))
                node.set("interrupts-extended", cells: perHart([cause]))
                node.set("interrupt-controller")
                node.set("#interrupt-cells", 0)
                node.set("#address-cells", 0)
                node.set("msi-controller")
                node.set("#msi-cells", 0)
                node.set("riscv,num-ids", InterruptFile.identityCount)
            }
        }
        soc.add("aplic@c000000") { node in
            aplic(&node, Phandle.machineAPLIC, MemoryMap.machineAPLIC, msiParent: Phandle.machineIMSIC)
            node.set("riscv,children", Phandle.platform)
            // Before the binding was settled the property was called `riscv,delegate`.
            let delegation = [Phandle.platform, 1, UInt32(InterruptSource.count)]
            node.set("riscv,delegate", cells: delegation)
            node.set("riscv,delegation", cells: delegation)
        }
        soc.add("aplic@d000000") { node in
            aplic(&node, Phandle.platform, MemoryMap.supervisorAPLIC, msiParent: Phandle.supervisorIMSIC)
        }
    }

    private func aplic(_ node: inout DevicetreeNode, _ phandle: UInt32, _ range: AddressRange, msiParent: UInt32) {
        node.set("phandle", phandle)
        node.set("compatible", "riscv,aplic")
        node.set("reg", range)
        node.set("interrupt-controller")
        node.set("#interrupt-cells", 2)
        node.set("#address-cells", 0)
        node.set("msi-parent", msiParent)
        node.set("riscv,num-sources", UInt32(InterruptSource.count))
    }

    private func pcie(_ node: inout DevicetreeNode) {
        let memory64 = MemoryMap.pcieMemory64(memorySize: configuration.memorySize)
        node.set("compatible", "pci-host-ecam-generic")
        node.set("device_type", "pci")
        node.set("#address-cells", 3)
        node.set("#size-cells", 2)
        node.set("#interrupt-cells", 1)
        node.set("reg", MemoryMap.pcieECAM)
        node.set("linux,pci-domain", 0)
        node.set("bus-range", cells: [0, 255])
        node.set("dma-coherent")
        if isAIA { node.set("msi-parent", Phandle.supervisorIMSIC) }
        // Port I/O (1), 32-bit memory (2) and 64-bit memory (3): PCI address, host address, size.
        var ranges: [UInt32] = []
        ranges += [0x0100_0000, 0, 0]
        ranges += DevicetreeNode.cells(MemoryMap.pciePortIO.base) + DevicetreeNode.cells(MemoryMap.pciePortIO.size)
        for (space, range) in [(0x0200_0000 as UInt32, MemoryMap.pcieMemory32), (0x0300_0000, memory64)] {
            ranges += [space] + DevicetreeNode.cells(range.base)
            ranges += DevicetreeNode.cells(range.base) + DevicetreeNode.cells(range.size)
        }
        node.set("ranges", cells: ranges)
        // Pins rotate over the four sources from one device number to the next.
        var map: [UInt32] = []
        for device in 0..<4 {
            for pin in 0..<4 {
                map += [UInt32(device) << 11, 0, 0, UInt32(pin + 1), Phandle.platform]
                // No unit address cells: the controllers have #address-cells 0.
                map += interrupt(InterruptSource.pcieBase + (device + pin) % 4)
            }
        }
        node.set("interrupt-map-mask", cells: [0x1800, 0, 0, 7])
        node.set("interrupt-map", cells: map)
    }
}
