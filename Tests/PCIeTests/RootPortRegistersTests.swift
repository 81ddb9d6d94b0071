import PCIe
import Testing

/// A root port's registers by tables: what is done to them, what they say, what they make the port do.
struct RootPortRegistersTests {
    // Offsets in the port's configuration space, as software finds them.
    static let express = 0x48
    static let msi = 0x84
    static let advanced = 0x100

    static let linkStatus = express + 0x12
    static let slotControl = express + 0x18
    static let slotStatus = express + 0x1A
    static let rootControl = express + 0x1C
    static let rootStatus = express + 0x20
    static let source = RequesterID(bus: 1, device: 0, function: 3)

    /// A port whose software has enabled MSI with two vectors and bus mastering.
    private func port(msi isOn: Bool = true, vectors: UInt64 = 1) -> RootPortRegisters {
        var port = RootPortRegisters(number: 0)
        _ = port.write(4, width: 2, value: 0x0007)
        if isOn {
            _ = port.write(Self.msi + 4, width: 4, value: 0x2800_0000)
            _ = port.write(Self.msi + 12, width: 2, value: 0x40)
            _ = port.write(Self.msi + 2, width: 2, value: 1 | vectors << 4)
        }
        return port
    }

    private func message(_ data: UInt32) -> MSIXTable.Message { .init(address: 0x2800_0000, data: data) }

    @Test func `capabilities lie where software looks for them`() {
        let port = RootPortRegisters(number: 2)
        #expect(port.read(0x34, width: 1) == 0x40)
        #expect(port.read(0x40, width: 2) == UInt64(0x01 | Self.express << 8))
        #expect(port.read(Self.express, width: 2) == UInt64(0x10 | Self.msi << 8))
        #expect(port.read(Self.msi, width: 4) == 0x0182_0005)
        #expect(port.read(Self.advanced, width: 4) == 0x0002_0001)
        // Slot 3 with button, power controller, both indicators, surprise, hot-plug.
        #expect(port.read(Self.express + 0x14, width: 4) == 3 << 19 | 0x7B)
        #expect(port.read(Self.slotControl, width: 2) == 0x03C0)
        #expect(port.read(0x3D, width: 1) == 1)
    }

    // MARK: Hot-plug

    @Test func `a card that comes changes presence and link, and interrupts once`() {
        var port = port()
        // All events and the hot-plug interrupt; the command is completed at once, which is an event too.
        let enabled = port.write(Self.slotControl, width: 2, value: 0x1039)
        #expect(enabled.messages == [message(0x40)] && port.read(Self.slotStatus, width: 2) == 0x10)
        _ = port.write(Self.slotStatus, width: 2, value: 0x10)
        let effects = port.setPresent(true)
        #expect(effects.messages == [message(0x40)] && effects.changesRoutes)
        #expect(port.read(Self.slotStatus, width: 2) == 0x0148)
        #expect(port.read(Self.linkStatus, width: 2) == 0x2011)
        #expect(port.isLinkActive)
        // One of the two events cleared: the condition never went away.
        #expect(port.write(Self.slotStatus, width: 2, value: 0x0008).messages.isEmpty)
        #expect(port.write(Self.slotStatus, width: 2, value: 0x0100).messages.isEmpty)
        #expect(port.read(Self.slotStatus, width: 2) == 0x40)
        #expect(port.pressAttentionButton().messages == [message(0x40)])
        #expect(port.read(Self.slotStatus, width: 2) == 0x41)
        #expect(port.setPresent(true).messages.isEmpty)
    }

    /// Which enable lets which event through.
    @Test(
        arguments: [
            (0x0001, 0x0001, true), (0x0001, 0x0028, false), (0x0008, 0x0008, true), (0x0008, 0x0031, false),
            (0x0100, 0x1000, true), (0x0100, 0x0031, false), (0x0001, 0x0000, false),
        ] as [(UInt64, UInt64, Bool)])
    func `an event interrupts where it and the interrupt are enabled`(event: UInt64, enable: UInt64, comes: Bool) {
        for hasInterrupt in [true, false] {
            var port = port()
            _ = port.write(Self.slotControl, width: 2, value: enable & ~0x20 | 0x03C0 | (hasInterrupt ? 0x20 : 0))
            _ = port.write(Self.slotStatus, width: 2, value: 0xFFFF)
            // Presence and link change together.
            let effects = event == 1 ? port.pressAttentionButton() : port.setPresent(true)
            #expect(port.read(Self.slotStatus, width: 2) & event != 0)
            #expect(effects.messages.isEmpty == !(comes && hasInterrupt), "\(effects)")
        }
    }

    @Test func `power off takes the link down and resets the card, power on brings it back`() {
        var port = port()
        _ = port.setPresent(true)
        _ = port.write(Self.slotStatus, width: 2, value: 0xFFFF)
        let off = port.write(Self.slotControl, width: 2, value: 0x07C0)
        #expect(off.powersOff && off.resetsBus && off.changesRoutes)
        #expect(!port.isLinkActive && port.read(Self.linkStatus, width: 2) & 0x2000 == 0)
        // Command completed and link changed; the card is still there.
        #expect(port.read(Self.slotStatus, width: 2) == 0x0150)
        let same = port.write(Self.slotControl, width: 2, value: 0x07C0)
        #expect(!same.powersOff && !same.resetsBus)
        let on = port.write(Self.slotControl, width: 2, value: 0x03C0)
        #expect(!on.powersOff && on.resetsBus && port.isLinkActive)
    }

    /// Ways to take the link down, and back up: register, width, what to write, what to write back.
    @Test(
        arguments: [
            (0x3E, 2, 0x40, 0), (express + 0x10, 2, 0x10, 0), (express + 0x18, 2, 0x07C0, 0x03C0),
        ] as [(Int, Int, UInt64, UInt64)])
    func `the link follows what software does to it`(register: Int, width: Int, down: UInt64, up: UInt64) {
        var port = port()
        _ = port.setPresent(true)
        _ = port.write(Self.slotStatus, width: 2, value: 0xFFFF)
        _ = port.write(register, width: width, value: down)
        #expect(!port.isLinkActive && port.read(Self.slotStatus, width: 2) & 0x100 != 0)
        _ = port.write(Self.slotStatus, width: 2, value: 0xFFFF)
        _ = port.write(register, width: width, value: up)
        #expect(port.isLinkActive && port.read(Self.slotStatus, width: 2) & 0x100 != 0)
    }

    @Test func `the machine's reset keeps the card in its slot and forgets every event`() {
        var port = port()
        _ = port.setPresent(true)
        _ = port.write(Self.slotControl, width: 2, value: 0x17F9)
        port.reset()
        #expect(port.read(Self.slotStatus, width: 2) == 0x40 && port.read(Self.slotControl, width: 2) == 0x03C0)
        #expect(port.isLinkActive && port.read(Self.linkStatus, width: 2) == 0x2011)
        var empty = RootPortRegisters(number: 1)
        empty.setPresentAtStart()
        #expect(empty.read(Self.slotStatus, width: 2) == 0x40 && empty.isLinkActive)
    }

    // MARK: Interrupts

    @Test func `without MSI the pin is high while a condition holds, unless it is disabled`() {
        var port = port(msi: false)
        _ = port.write(Self.slotControl, width: 2, value: 0x03E1)
        #expect(!port.intx && port.read(6, width: 2) & 8 == 0)
        #expect(port.pressAttentionButton().messages.isEmpty)
        #expect(port.intx && port.read(6, width: 2) & 8 != 0)
        _ = port.write(4, width: 2, value: 0x0407)
        #expect(!port.intx && port.read(6, width: 2) & 8 != 0 && port.read(4, width: 4) & 0x8_0000 != 0)
        _ = port.write(4, width: 2, value: 7)
        #expect(port.intx)
        _ = port.write(Self.slotStatus, width: 2, value: 1)
        #expect(!port.intx && port.read(6, width: 2) & 8 == 0)
    }

    @Test func `a message waits for bus mastering, for MSI, and for its mask`() {
        var port = port()
        _ = port.write(Self.slotControl, width: 2, value: 0x03E1)
        _ = port.write(4, width: 2, value: 3)
        #expect(port.pressAttentionButton().messages.isEmpty)
        #expect(port.write(4, width: 2, value: 7).messages == [message(0x40)])
        _ = port.write(Self.slotStatus, width: 2, value: 0xFFFF)
        // Masked: pending, and out when the mask goes.
        _ = port.write(Self.msi + 16, width: 4, value: 1)
        #expect(port.pressAttentionButton().messages.isEmpty && port.read(Self.msi + 20, width: 4) == 1)
        #expect(port.write(Self.msi + 16, width: 4, value: 0).messages == [message(0x40)])
        #expect(port.read(Self.msi + 20, width: 4) == 0)
    }

    @Test func `a power management event of a second function waits for the first's to be cleared`() {
        var port = port()
        _ = port.write(Self.rootControl, width: 2, value: 8)
        let first = RequesterID(bus: 1, device: 0)
        #expect(port.receivePowerManagementEvent(from: first).messages == [message(0x40)])
        #expect(port.receivePowerManagementEvent(from: Self.source).messages.isEmpty)
        #expect(port.read(Self.rootStatus, width: 4) == 0x3_0100)
        // Clearing it brings the next one, which interrupts again.
        let next = port.write(Self.rootStatus, width: 4, value: 0x1_0000)
        #expect(port.read(Self.rootStatus, width: 4) == 0x1_0103)
        #expect(next.messages == [message(0x40)])
        _ = port.write(Self.rootStatus, width: 4, value: 0x1_0000)
        #expect(port.read(Self.rootStatus, width: 4) & 0x3_0000 == 0)
    }

    // MARK: Errors

    /// A port whose software reports errors of every kind.
    private func reportingPort(vectors: UInt64 = 1) -> RootPortRegisters {
        var port = port(vectors: vectors)
        _ = port.write(Self.express + 8, width: 2, value: 0x281F)
        _ = port.write(0x3E, width: 2, value: 2)
        _ = port.write(Self.advanced + 0x2C, width: 4, value: 7)
        return port
    }

    /// What a message sets in Root Error Status, the first and the second time.
    @Test(
        arguments: [
            (.correctable, 0x01, 0x03), (.nonFatal, 0x24, 0x2C), (.fatal, 0x54, 0x5C),
        ] as [(ErrorMessage, UInt64, UInt64)])
    func `an error message is logged with its source and interrupts`(
        kind: ErrorMessage, first: UInt64, second: UInt64
    ) {
        for (vectors, data, number) in [(1, 0x41, 1), (0, 0x40, 0)] as [(UInt64, UInt32, UInt64)] {
            var port = reportingPort(vectors: vectors)
            #expect(port.receive(kind, from: Self.source).messages == [message(data)])
            #expect(port.read(Self.advanced + 0x30, width: 4) == first | number << 27)
            let place = kind == .correctable ? 0x34 : 0x36
            #expect(port.read(Self.advanced + place, width: 2) == 0x0103)
            let other = RequesterID(bus: 1, device: 0, function: 5)
            #expect(port.receive(kind, from: other).messages.isEmpty)
            #expect(port.read(Self.advanced + 0x30, width: 4) == second | number << 27)
            #expect(port.read(Self.advanced + place, width: 2) == 0x0103)
            // Cleared, and the next one interrupts again.
            _ = port.write(Self.advanced + 0x30, width: 4, value: 0x7F)
            #expect(port.receive(kind, from: other).messages == [message(data)])
            #expect(port.read(Self.advanced + place, width: 2) == 0x0105)
        }
    }

    /// What stops a message: register, value, and the kinds that it stops.
    @Test(
        arguments: [
            (express + 8, 0x2810, [.correctable, .nonFatal, .fatal]), (express + 8, 0x2811, [.nonFatal, .fatal]),
            (0x3E, 0, [.nonFatal, .fatal]), (advanced + 0x2C, 0, []),
        ] as [(Int, UInt64, [ErrorMessage])])
    func `what is not enabled does not get through`(register: Int, value: UInt64, stopped: [ErrorMessage]) {
        for kind in [ErrorMessage.correctable, .nonFatal, .fatal] {
            var port = reportingPort()
            _ = port.write(register, width: register == Self.advanced + 0x2C ? 4 : 2, value: value)
            let effects = port.receive(kind, from: Self.source)
            #expect((port.read(Self.advanced + 0x30, width: 4) & 0x7F == 0) == stopped.contains(kind), "\(kind)")
            // Root Error Command alone stops the interrupt, not the log.
            #expect(effects.messages.isEmpty == (stopped.contains(kind) || register == Self.advanced + 0x2C))
            // The secondary status tells of uncorrectable ones whatever is enabled.
            #expect((port.read(0x1E, width: 2) & 0x4000 != 0) == (kind != .correctable))
        }
    }

    /// An error of the port's own: status bit, device status, Root Error Status, first error pointer.
    @Test(
        arguments: [
            ("RCVR", 0x10, 0x1, 0x1, 0x01), ("BAD_TLP", 0x10, 0x40, 0x1, 0x01), ("COMP_TIME", 0x04, 0x4000, 0x2, 0x24),
            ("MALF_TLP", 0x04, 0x4_0000, 0x4, 0x54), ("UNSUP", 0x04, 0x10_0000, 0xA, 0x24),
            ("DLP", 0x04, 0x10, 0x4, 0x54),
        ] as [(String, Int, UInt64, UInt64, UInt64)])
    func `an error is logged where the specification has it`(
        name: String, register: Int, bit: UInt64, device: UInt64, root: UInt64
    ) throws {
        let error = try #require(PCIError(named: name))
        var port = reportingPort()
        let identifier = RequesterID(bus: 0, device: 1)
        let effects = port.detect(error, header: [1, 2, 3, 4], identifier: identifier)
        #expect(port.read(Self.advanced + register, width: 4) == bit)
        #expect(port.read(Self.express + 0x0A, width: 2) == device)
        #expect(port.read(Self.advanced + 0x30, width: 4) & 0x7F == root)
        #expect(effects.messages == [message(0x41)])
        #expect(port.read(Self.advanced + (error.isCorrectable ? 0x34 : 0x36), width: 2) == 0x08)
        if !error.isCorrectable {
            #expect(port.read(Self.advanced + 0x18, width: 4) == UInt64(error.bit))
            #expect(port.read(Self.advanced + 0x1C, width: 8) == 0x2_0000_0001)
            // The first error's header stays until its bit is cleared.
            _ = port.detect(.completionTimeout, header: [9, 9, 9, 9], identifier: identifier)
            #expect(port.read(Self.advanced + 0x1C, width: 4) == 1)
            _ = port.write(Self.advanced + 4, width: 4, value: 0xFFFF_FFFF)
            _ = port.detect(.completionTimeout, header: [9, 9, 9, 9], identifier: identifier)
            #expect(port.read(Self.advanced + 0x1C, width: 4) == 9)
        }
    }

    @Test func `a masked error is in the status and nowhere else`() {
        var port = reportingPort()
        _ = port.write(Self.advanced + 8, width: 4, value: 0x4000)
        let effects = port.detect(.completionTimeout, header: [7, 7, 7, 7], identifier: .init(bus: 0, device: 1))
        #expect(effects.messages.isEmpty && port.read(Self.advanced + 4, width: 4) == 0x4000)
        #expect(port.read(Self.advanced + 0x1C, width: 4) == 0 && port.read(Self.advanced + 0x30, width: 4) & 0x7F == 0)
        // The severity is software's: fatal now.
        _ = port.write(Self.advanced + 8, width: 4, value: 0)
        _ = port.write(Self.advanced + 0xC, width: 4, value: 0x4000)
        _ = port.detect(.completionTimeout, identifier: .init(bus: 0, device: 1))
        #expect(port.read(Self.advanced + 0x30, width: 4) & 0x7F == 0x54)
    }

    @Test func `an advisory error is a correctable one, once that is unmasked`() {
        var port = reportingPort()
        let identifier = RequesterID(bus: 0, device: 1)
        #expect(port.detect(.completionTimeout, isAdvisory: true, identifier: identifier).messages.isEmpty)
        #expect(port.read(Self.advanced + 0x10, width: 4) == 0x2000 && port.read(Self.advanced + 4, width: 4) == 0)
        _ = port.write(Self.advanced + 0x14, width: 4, value: 0)
        #expect(port.detect(.completionTimeout, isAdvisory: true, identifier: identifier).messages == [message(0x41)])
        #expect(port.read(Self.advanced + 4, width: 4) == 0x4000)
        #expect(port.read(Self.advanced + 0x30, width: 4) & 0x7F == 1)
    }

    @Test func `names of errors are QEMU's, and others are none`() {
        #expect(PCIError(named: "correctable")?.isCorrectable == true && PCIError(named: "nope") == nil)
        for (name, error) in PCIError.names {
            #expect(PCIError(named: name) == error && error.description == name)
        }
        #expect(Set(PCIError.names.map(\.error)).count == PCIError.names.count)
    }
}
