/// The adapter card's management registers, as far as the firmware shows them.
///
/// Spec: docs/wiring.md "Adapter card".
struct AdapterCard {
    /// A virtio network function made by us: vendor, device, and subsystem as one register reads them.
    private static let vendor: UInt16 = 0x1AF4
    private static let device: UInt16 = 0x1041
    private static let subsystem: UInt32 = 0x0B0B_1B36

    /// Any function of the card; function 0 has the registers.
    static func owns(_ function: Function) -> Bool {
        function.vendor == vendor && function.device == device && function.subsystem == subsystem
    }

    private let registers: MMIO

    private enum Register {
        static let id: UInt = 0x00
        static let version: UInt = 0x04
        static let macLow: UInt = 0x08
        static let macHigh: UInt = 0x0C
        static let ports: UInt = 0x10
        static let flags: UInt = 0x14
        static let verification: UInt = 0x18
        static let portBase: UInt = 0x100
        static let portSize: UInt = 0x40
    }

    private static let identifier: UInt32 = 0x4442_4441
    private static let version: UInt32 = 0x0001_0000
    private static let registersSize: UInt64 = 0x1000

    /// Nil when the function's BAR 0 does not hold an adapter's registers of a known version.
    init?(_ function: Function) {
        let bar = function.bars[0]
        guard bar.isAssigned, bar.kind != .io, bar.size >= Self.registersSize,
            let registers = MMIO(base: bar.cpuAddress, size: Self.registersSize),
            registers.read32(Register.id) == Self.identifier,
            // The low half counts compatible additions.
            registers.read32(Register.version) >> 16 == Self.version >> 16
        else { return nil }
        self.registers = registers
    }

    /// The MAC address, first octet in the highest of 48 bits.
    var mac: UInt64 {
        let low = registers.read32(Register.macLow).byteSwapped
        let high = UInt16(truncatingIfNeeded: registers.read32(Register.macHigh)).byteSwapped
        return UInt64(low) << 16 | UInt64(high)
    }

    /// At most as many as the register file has room for.
    var ports: UInt32 {
        min(
            registers.read32(Register.ports),
            UInt32((UInt(Self.registersSize) &- Register.portBase) / Register.portSize))
    }

    func isUp(port: UInt32) -> Bool {
        registers.read32(Register.portBase &+ UInt(port) &* Register.portSize) & 1 != 0
    }

    var isMaster: Bool { registers.read32(Register.flags) & 1 != 0 }

    /// What the card says of the board's firmware.
    var verification: StaticString {
        switch registers.read32(Register.verification) {
        case 0: "not verified here"
        case 1: "being verified"
        case 2: "verified"
        case 3: "refused"
        default: "in a state unknown to this firmware"
        }
    }
}

extension Host {
    /// A section for every adapter card.
    func showAdapters() {
        guard let enumeration else { return }
        var index = 0
        while index < enumeration.functions.count {
            let function = enumeration.functions[index]
            if AdapterCard.owns(function), function.address.function == 0 { show(function) }
            index &+= 1
        }
    }

    private func show(_ function: Function) {
        console.line()
        console.text("Adapter card ")
        FunctionTable(console: console).address(function.address)
        console.line()
        guard let card = AdapterCard(function) else {
            label("failed")
            console.line("BAR 0 does not hold the registers of an adapter that this firmware knows")
            return
        }
        label("MAC")
        let mac = card.mac
        var octet: UInt64 = 0
        while octet < 6 {
            if octet != 0 { console.text(":") }
            console.hex(mac &>> (40 &- octet &* 8), digits: 2)
            octet &+= 1
        }
        console.line()
        label("ports")
        let ports = card.ports
        var up: UInt64 = 0
        var port: UInt32 = 0
        while port < ports {
            if card.isUp(port: port) { up &+= 1 }
            port &+= 1
        }
        console.decimal(UInt64(ports))
        console.text(", ")
        console.decimal(up)
        console.line(" up")
        if card.isMaster {
            label("master")
            console.text("the board's firmware is ")
            console.line(card.verification)
        }
    }
}
