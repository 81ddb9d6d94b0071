/// The table of PCIe functions as the console shows it, up to 100 columns wide.
struct FunctionTable {
    let console: Console

    func print(_ enumeration: Enumeration) {
        let functions = enumeration.functions
        if functions.count == 0 {
            console.line("  nothing answers on the bus")
            return
        }
        console.line("  address   vendor:device  class   what it is")
        var index = 0
        while index < functions.count {
            print(functions[index])
            index &+= 1
        }
        if functions.dropped != 0 {
            console.text("  ")
            console.decimal(UInt64(functions.dropped))
            console.line(" further functions are configured but found no room in this table")
        }
    }

    func address(_ address: FunctionAddress) {
        console.hex(UInt64(address.bus), digits: 2)
        console.text(":")
        console.hex(UInt64(address.device), digits: 2)
        console.text(".")
        console.hex(UInt64(address.function), digits: 1)
    }

    private func print(_ function: Function) {
        console.text("  ")
        address(function.address)
        console.text("   ")
        console.hex(UInt64(function.vendor), digits: 4)
        console.text(":")
        console.hex(UInt64(function.device), digits: 4)
        console.text("      ")
        console.hex(UInt64(function.classCode), digits: 6)
        console.text("  ")
        console.spaces(Int(min(function.depth, 8)) &* 2)
        console.text(Names.describe(function))
        if function.isBridge {
            if function.secondaryBus == 0 {
                console.text(": no bus number left for what is behind it")
            } else {
                console.text(" to bus ")
                console.hex(UInt64(function.secondaryBus), digits: 2)
                if function.subordinateBus > function.secondaryBus {
                    console.text("-")
                    console.hex(UInt64(function.subordinateBus), digits: 2)
                }
            }
        }
        if !function.isComplete, !function.isBridge { console.text(", off: no room for all of it") }
        console.line()
        var index = 0
        while index < 6 {
            print(function.bars[index], index: index)
            index &+= 1
        }
    }

    private func print(_ bar: BaseAddress, index: Int) {
        let kind: StaticString
        switch bar.kind {
        case .absent: return
        case .io: kind = "I/O ports"
        case .memory32: kind = bar.isPrefetchable ? "32-bit prefetchable memory" : "32-bit memory"
        case .memory64: kind = bar.isPrefetchable ? "64-bit prefetchable memory" : "64-bit memory"
        }
        console.text("            BAR ")
        console.decimal(UInt64(index))
        console.text("  ")
        if bar.isAssigned {
            console.address(bar.address)
            if bar.address <= 0xFFFF_FFFF { console.spaces(4) }
        } else {
            console.text("does not fit", width: 14)
        }
        console.size(bar.size, width: 6)
        console.text("  ")
        console.line(kind)
    }
}

/// What the firmware can say of a function without a database: a few devices, then classes.
///
/// Spec: PCI Code and ID Assignment Specification, §1 (class codes).
private enum Names {
    static func describe(_ function: Function) -> StaticString {
        AdapterCard.owns(function)
            ? "Baseboard adapter card"
            : device(function.vendor, function.device) ?? port(function) ?? kind(function.classCode)
    }

    private static func device(_ vendor: UInt16, _ device: UInt16) -> StaticString? {
        switch (vendor, device) {
        case (0x1B36, OffloadCard.device): "Baseboard offload card"
        case (0x1B36, 0x0008): "PCIe host bridge"
        case (0x1B36, 0x0001), (0x1B36, 0x000E): "PCI bridge"
        case (0x1B36, 0x0010): "NVMe controller"
        case (0x1AF4, 0x1000), (0x1AF4, 0x1041): "virtio network card"
        case (0x1AF4, 0x1001), (0x1AF4, 0x1042): "virtio block device"
        case (0x1AF4, 0x1003), (0x1AF4, 0x1043): "virtio console"
        case (0x1AF4, 0x1004), (0x1AF4, 0x1048): "virtio SCSI host bus adapter"
        case (0x1AF4, 0x1005), (0x1AF4, 0x1044): "virtio entropy source"
        case (0x1AF4, 0x1002), (0x1AF4, 0x1045): "virtio memory balloon"
        case (0x1AF4, 0x1053): "virtio socket"
        default: nil
        }
    }

    private static func port(_ function: Function) -> StaticString? {
        guard function.isBridge else { return nil }
        switch function.portType {
        case Function.rootPort: return "PCIe root port"
        case 5: return "PCIe switch upstream port"
        case Function.downstreamPort: return "PCIe switch downstream port"
        case 7: return "PCIe to PCI bridge"
        default: return nil
        }
    }

    private static func kind(_ classCode: UInt32) -> StaticString {
        switch classCode >> 8 {
        case 0x0100: return "SCSI controller"
        case 0x0106: return "SATA controller"
        case 0x0108: return "NVMe controller"
        case 0x0200: return "Ethernet controller"
        case 0x0300: return "VGA display controller"
        case 0x0403: return "audio device"
        case 0x0500: return "memory controller"
        case 0x0600: return "host bridge"
        case 0x0604: return "PCI bridge"
        case 0x0780: return "communication controller"
        case 0x0C03: return "USB controller"
        case 0x0C05: return "SMBus controller"
        default: break
        }
        switch classCode >> 16 {
        case 0x00: return "unclassified device"
        case 0x01: return "storage controller"
        case 0x02: return "network controller"
        case 0x03: return "display controller"
        case 0x04: return "multimedia device"
        case 0x05: return "memory controller"
        case 0x06: return "bridge"
        case 0x07: return "communication controller"
        case 0x08: return "system peripheral"
        case 0x0B: return "processor"
        case 0x0C: return "serial bus controller"
        case 0x0D: return "wireless controller"
        case 0x10: return "encryption controller"
        case 0x12: return "processing accelerator"
        default: return "device of an unknown class"
        }
    }
}
