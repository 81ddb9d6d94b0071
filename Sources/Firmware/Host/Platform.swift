/// The machine as its devicetree describes it, as far as the firmware uses it.
struct Platform {
    let tree: DeviceTree
    let hart: UInt
    var memory: (base: UInt64, size: UInt64) = (0, 0)
    var memoryBanks = 0
    var harts = 0
    var clock = Clock(frequency: 10_000_000)
    /// phandle of this hart's local interrupt controller.
    private var localController: UInt32?

    /// Bits that RISC-V names for external interrupts in `interrupts-extended`.
    private static let supervisorExternal: UInt32 = 9

    init(tree: DeviceTree, hart: UInt) {
        self.tree = tree
        self.hart = hart
        scan()
    }

    private mutating func scan() {
        var memory: (base: UInt64, size: UInt64) = (0, 0)
        var banks = 0
        var harts = 0
        var frequency: UInt64 = 0
        var local: UInt32?
        var ownHartDepth: Int?
        tree.visit { node in
            if let depth = ownHartDepth {
                // Inside of this hart's cpu node: its interrupt controller is a child.
                if node.depth <= depth {
                    ownHartDepth = nil
                } else if node.isCompatible("riscv,cpu-intc") {
                    local = node.value32("phandle")
                }
            }
            if frequency == 0, let value = node.value32("timebase-frequency") { frequency = UInt64(value) }
            guard let type = node.property("device_type")?.terminated(at: 0) else { return true }
            if type.equals("memory"), let range = node.register(0) {
                if banks == 0 { memory = range }
                banks &+= 1
            } else if type.equals("cpu"), node.isEnabled {
                harts &+= 1
                if node.register(0)?.base == UInt64(hart) { ownHartDepth = node.depth }
            }
            return true
        }
        self.memory = memory
        memoryBanks = banks
        self.harts = harts
        localController = local
        // Slower than 1 kHz would make every deadline zero ticks long.
        if frequency >= 1000 { clock = Clock(frequency: frequency) }
    }

    /// Where this hart's supervisor external interrupt stands in the list of an interrupt controller.
    private func place(in node: Node) -> UInt32? {
        guard let localController, let list = node.property("interrupts-extended") else { return nil }
        var index: UInt32 = 0
        while let controller = list.big32(at: UInt(index) &* 8), let line = list.big32(at: UInt(index) &* 8 &+ 4) {
            if controller == localController, line == Self.supervisorExternal { return index }
            index &+= 1
        }
        return nil
    }

    /// The interrupt file of this hart and the phandle of its IMSIC.
    func interruptFile() -> (file: InterruptFile, phandle: UInt32?)? {
        var found: (file: InterruptFile, phandle: UInt32?)?
        tree.visit { node in
            guard node.isEnabled, node.isCompatible("riscv,imsics"), let place = place(in: node) else { return true }
            let guestBits = node.value32("riscv,guest-index-bits") ?? 0
            guard guestBits <= 7 else { return true }
            // Groups of harts have a range each; pages are as far apart as a hart has guests.
            let stride: UInt64 = 4096 << guestBits
            var offset = UInt64(place) &* stride
            var index: UInt = 0
            while let range = node.register(index) {
                if offset < range.size {
                    let file = InterruptFile(
                        page: range.base &+ offset, identities: node.value32("riscv,num-ids") ?? 63, hartIndex: place)
                    found = (file, node.value32("phandle"))
                    return false
                }
                offset = offset &- range.size
                index &+= 1
            }
            return true
        }
        return found
    }

    /// The wired-interrupt controller that sends its interrupts to the IMSIC with this phandle.
    func aplic(for imsic: UInt32?) -> APLIC? {
        let node = tree.first {
            $0.isEnabled && $0.isCompatible("riscv,aplic") && imsic != nil && $0.value32("msi-parent") == imsic
        }
        guard let node, let range = node.register(0), let registers = MMIO(base: range.base, size: range.size) else {
            return nil
        }
        return APLIC(registers: registers, sources: min(node.value32("riscv,num-sources") ?? 0, 1023))
    }

    func plic() -> PLIC? {
        var found: PLIC?
        tree.visit { node in
            guard node.isEnabled, node.isCompatible("riscv,plic0") || node.isCompatible("sifive,plic-1.0.0"),
                let place = place(in: node), let range = node.register(0),
                let registers = MMIO(base: range.base, size: range.size)
            else { return true }
            found = PLIC(
                registers: registers, sources: min(node.value32("riscv,ndev") ?? 0, 1023), context: UInt(place))
            return false
        }
        return found
    }

    /// The PCIe host bridge that answers through ECAM.
    func pcie() -> (space: ConfigurationSpace, windows: Windows)? {
        let node = tree.first { $0.isEnabled && $0.isCompatible("pci-host-ecam-generic") }
        guard let node, let range = node.register(0), let ecam = MMIO(base: range.base, size: range.size) else {
            return nil
        }
        let buses = node.property("bus-range")
        let first = buses?.big32(at: 0) ?? 0
        // A megabyte of ECAM is one bus.
        let held = range.size >> 20
        guard first <= 255, held >= 1 else { return nil }
        let last = min(UInt64(buses?.big32(at: 4) ?? 255), 255, UInt64(first) &+ held &- 1)
        guard last >= UInt64(first) else { return nil }
        let space = ConfigurationSpace(ecam: ecam, firstBus: UInt8(first), lastBus: UInt8(last))
        return (space, Windows(ranges: node.property("ranges"), parentAddressCells: node.cells.address))
    }
}
