/// The registers of a root port, as a pure value: accesses and events go in, what the port must do comes out.
///
/// A bridge header, power management, PCI Express with a hot-plug slot, MSI of two vectors (0 hot-plug and power
/// management events, 1 errors) and Advanced Error Reporting.
///
/// Spec: PCI Express Base §6.7 (hot-plug), §6.2.4 (error reporting), §7.5.1.3, §7.5.3, §7.8.4.
package struct RootPortRegisters: Sendable {
    /// What an access or an event makes the port do.
    package struct Effects: Sendable, Equatable {
        /// Messages to send, in order.
        package var messages: [MSIXTable.Message] = []
        /// The bus behind the port is reset: by software, or because its power came or went.
        package var resetsBus = false
        /// The slot's power was switched off.
        package var powersOff = false
        /// What is reachable through the port may have changed.
        package var changesRoutes = false
    }

    /// Conditions that interrupt; each sends one message when it comes true.
    struct Condition: OptionSet, Sendable {
        let rawValue: UInt8
        static let hotPlug = Condition(rawValue: 1)
        static let powerManagement = Condition(rawValue: 2)
        static let correctable = Condition(rawValue: 4)
        static let nonFatal = Condition(rawValue: 8)
        static let fatal = Condition(rawValue: 16)
        static let errors: Condition = [.correctable, .nonFatal, .fatal]
        static let all: [Condition] = [.hotPlug, .powerManagement, .correctable, .nonFatal, .fatal]
    }

    var space: ConfigurationSpace
    let express: Int
    let msi: MSIRegisters
    let powerManagement: Int
    let errors: ErrorLog
    let advanced: Int
    private let pristine: ConfigurationSpace
    /// Whether a card is in the slot; reset does not change that.
    package private(set) var isPresent = false
    /// Whether the card answers: it is not in reset; as what is not there it is taken to. Reset does not change that.
    package private(set) var isAnswering = true
    /// Conditions whose message went out and that are still true.
    var told: Condition = []
    /// Functions that ask for service while another's request is in Root Status.
    var waitingEvents: [RequesterID] = []

    package init(number: Int) {
        let made = HostFunctions.rootPort(number)
        space = made.space
        pristine = made.space
        express = made.express
        msi = made.msi
        powerManagement = made.powerManagement
        advanced = made.advanced
        errors = ErrorLog(express: made.express, advanced: made.advanced)
    }

    // MARK: Accesses

    /// Reads 1 to 8 bytes.
    package func read(_ register: Int, width: Int) -> UInt64 {
        var value = space.read(register, width: width)
        let status = ConfigurationRegister.status
        // Interrupt Status: the state of INTx, whatever the command register says of it.
        if register <= status, register + width > status, !msi.isEnabled(space), !conditions.isEmpty {
            value |= UInt64(StatusBits.interrupt) << UInt64((status - register) * 8)
        }
        return value
    }

    /// Writes 1 to 8 bytes.
    package mutating func write(_ register: Int, width: Int, value: UInt64) -> Effects {
        let range = register..<(register + max(1, min(width, 8)))
        let before = space
        space.write(register, width: width, value: value)
        var effects = Effects()
        if Self.overlaps(range, express + ExpressRegister.slotControl, 2) { commandSlot(before, &effects) }
        if !busReset(before), busReset(space) { effects.resetsBus = true }
        if Self.overlaps(range, express + ExpressRegister.rootStatus, 4) { nextEvent() }
        updateMessageNumber()
        settleLink(&effects)
        settle(&effects)
        effects.changesRoutes = effects.changesRoutes || Self.overlaps(range, 0, ConfigurationRegister.headerSize)
        return effects
    }

    private static func overlaps(_ range: Range<Int>, _ start: Int, _ count: Int) -> Bool {
        range.overlaps(start..<(start + count))
    }

    private func busReset(_ space: ConfigurationSpace) -> Bool {
        space.get16(ConfigurationRegister.bridgeControl) & BridgeControlBits.busReset != 0
    }

    /// Back to the state after the machine's reset; the card stays in its slot.
    package mutating func reset() {
        space = pristine
        told = []
        waitingEvents = []
        setSlotStatus(isPresent ? SlotBits.presence : 0, of: SlotBits.presence)
        setLinkActive(isLinkActive)
    }

    /// The word of Advanced Error Reporting that says which vector its interrupts have: 1 where MSI has two.
    private mutating func updateMessageNumber() {
        let place = advanced + ErrorRegister.rootStatus
        let number: UInt32 = msi.allocated(space) > 1 ? 1 : 0
        space.set32(place, space.get32(place) & 0x07FF_FFFF | number << 27)
    }

    // MARK: What the registers say

    package var isMaster: Bool { space.get16(ConfigurationRegister.command) & CommandBits.master != 0 }

    package var isPowered: Bool {
        space.get16(express + ExpressRegister.slotControl) & SlotBits.powerOff == 0
    }

    /// Whether a packet gets to the card: it is there, out of reset, has power and the link is neither disabled nor in
    /// reset.
    package var isLinkActive: Bool { isLinkAllowed && isAnswering }

    /// What of that is the port's.
    package var isLinkAllowed: Bool {
        isPresent && isPowered && !busReset(space)
            && space.get16(express + ExpressRegister.linkControl) & ExpressRegister.linkDisable == 0
    }

    /// The number of the bus behind the port, or nil while it has none.
    package var secondaryBus: UInt8? {
        let bus = space.get8(ConfigurationRegister.secondaryBus)
        return bus == 0 ? nil : bus
    }

    // MARK: Interrupts

    /// Interrupts that are due by events, enables and nothing else.
    var conditions: Condition {
        var due: Condition = []
        let control = space.get16(express + ExpressRegister.slotControl)
        let status = space.get16(express + ExpressRegister.slotStatus)
        // The enable of the link's events is at another place than the event.
        let events = status & 0x1F | (status & SlotBits.linkStateChanged != 0 ? SlotBits.linkStateEnable : 0)
        let enables = control & (0x1F | SlotBits.linkStateEnable)
        if control & SlotBits.hotPlugInterruptEnable != 0, events & enables != 0 { due.insert(.hotPlug) }
        let root = space.get16(express + ExpressRegister.rootControl)
        if root & RootBits.pmeInterruptEnable != 0,
            space.get32(express + ExpressRegister.rootStatus) & RootBits.pmeStatus != 0
        {
            due.insert(.powerManagement)
        }
        let command = space.get32(advanced + ErrorRegister.rootCommand)
        let received = space.get32(advanced + ErrorRegister.rootStatus)
        for (enable, event, condition) in [
            (ErrorRegister.correctableEnable, ErrorRegister.correctableReceived, Condition.correctable),
            (ErrorRegister.nonFatalEnable, ErrorRegister.nonFatalReceived, .nonFatal),
            (ErrorRegister.fatalEnable, ErrorRegister.fatalReceived, .fatal),
        ] where command & enable != 0 && received & event != 0 {
            due.insert(condition)
        }
        return due
    }

    /// The level of the port's own INTA.
    package var intx: Bool {
        !msi.isEnabled(space) && !conditions.isEmpty
            && space.get16(ConfigurationRegister.command) & CommandBits.disableINTx == 0
    }

    /// Sends a message for each condition that came true.
    mutating func settle(_ effects: inout Effects) {
        effects.messages += msi.release(&space, isMaster: isMaster)
        let due: Condition = msi.isEnabled(space) && isMaster ? conditions : []
        for condition in Condition.all where due.contains(condition) && !told.contains(condition) {
            let vector = Condition.errors.contains(condition) && msi.allocated(space) > 1 ? 1 : 0
            if let message = msi.raise(&space, vector, isMaster: true) { effects.messages.append(message) }
        }
        told = due
    }

    // MARK: The slot

    /// Software wrote Slot Control: that is a command, done at once. Spec: PCI Express Base §6.7.3.2.
    private mutating func commandSlot(_ before: ConfigurationSpace, _ effects: inout Effects) {
        let was = before.get16(express + ExpressRegister.slotControl)
        let control = space.get16(express + ExpressRegister.slotControl)
        if (was ^ control) & SlotBits.powerOff != 0 {
            effects.resetsBus = true
            effects.powersOff = control & SlotBits.powerOff != 0
            effects.changesRoutes = true
        }
        setSlotStatus(SlotBits.commandCompleted, of: SlotBits.commandCompleted)
    }

    /// A card was put in or taken out; `answers`: one that is put in is not in reset.
    package mutating func setPresent(_ present: Bool, answers: Bool = true) -> Effects {
        var effects = Effects()
        guard present != isPresent else { return effects }
        isPresent = present
        isAnswering = answers
        setSlotStatus(
            (present ? SlotBits.presence : 0) | SlotBits.presenceChanged,
            of: SlotBits.presence | SlotBits.presenceChanged)
        settleLink(&effects)
        settle(&effects)
        effects.changesRoutes = true
        return effects
    }

    /// As before power-on: a card is there from the start, which is no event.
    package mutating func setPresentAtStart(answers: Bool = true) {
        isPresent = true
        isAnswering = answers
        setSlotStatus(SlotBits.presence, of: SlotBits.presence)
        setLinkActive(isLinkActive)
    }

    /// The card left reset, or was put into it: the link comes up or goes down.
    package mutating func setAnswering(_ answers: Bool) -> Effects {
        var effects = Effects()
        isAnswering = answers
        settleLink(&effects)
        settle(&effects)
        effects.changesRoutes = true
        return effects
    }

    /// Somebody presses the slot's attention button: a request to remove the card in order, or to put it to use.
    package mutating func pressAttentionButton() -> Effects {
        var effects = Effects()
        setSlotStatus(SlotBits.attentionButtonPressed, of: SlotBits.attentionButtonPressed)
        settle(&effects)
        return effects
    }

    private mutating func setSlotStatus(_ value: UInt16, of mask: UInt16) {
        let place = express + ExpressRegister.slotStatus
        space.set16(place, space.get16(place) & ~mask | value)
    }

    private mutating func setLinkActive(_ active: Bool) {
        let place = express + ExpressRegister.linkStatus
        let rest = space.get16(place) & ~ExpressRegister.linkActive
        space.set16(place, rest | (active ? ExpressRegister.linkActive : 0))
    }

    /// Tells in Link Status and Slot Status when the link came up or went down.
    private mutating func settleLink(_ effects: inout Effects) {
        let was = space.get16(express + ExpressRegister.linkStatus) & ExpressRegister.linkActive != 0
        guard was != isLinkActive else { return }
        setLinkActive(isLinkActive)
        setSlotStatus(SlotBits.linkStateChanged, of: SlotBits.linkStateChanged)
        effects.changesRoutes = true
    }
}
