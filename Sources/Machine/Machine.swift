// A whole machine: harts, memory, devices and the wires between them, on the map of the `virt` machine.
//
// Model: one plain thread a hart, made when the machine runs and joined when it stops, so between two runs everything
// belongs to whoever holds the control lock. A guest that asks for power off or reset stops every hart from its own
// thread and leaves the rest to the event loop, because a hart's thread cannot join itself. The surprise: RAM keeps its
// content over a reset, as DRAM that stays powered does.
public import LPC
public import RISCV
import Synchronization
public import Wire

/// What a machine tells its owner. Delivered on the event loop's thread.
public enum MachineEvent: Sendable, Equatable {
    /// The guest asked for a reset and got it.
    case guestReset
    /// The guest powered off; the harts have stopped.
    case powerOff
    /// The guest ended with a failure code; the harts have stopped.
    case failed(code: UInt16)
    /// The program ended by `tohost` with a result, 0 where it passed; the harts have stopped. Only after a `DirectBoot`.
    case exited(result: UInt64)
    /// A hart retired as many instructions as a `DirectBoot` allows; the harts have stopped.
    case instructionLimit(hart: UInt64, pc: UInt64)
    /// The flash cannot be read, and why. The hart that wanted to took an access fault.
    case flashUnreadable(String)
    /// A boot file could not be read again at a reset; the machine is powered off.
    case imageUnreadable(String)
}

/// A machine. Its control functions may be called on any thread but a hart's, and return when they have taken effect.
public final class Machine: Sendable {
    /// What the harts do.
    public enum RunState: String, Sendable {
        /// RESET# is asserted.
        case held
        case running
        case paused
        /// The guest powered off or failed; a reset starts it again.
        case poweredOff = "shutdown"
    }

    public let configuration: MachineConfiguration
    /// RAM, from `MemoryMap.ramBase`; cards map it by its descriptor.
    public let memory: SharedMemory
    public let uart: UART
    private let powerKey: PS2Port
    public let harts: [Hart]
    /// Where devices' interrupt wires go: an APLIC or a PLIC.
    public let interruptController: any PlatformInterruptController

    /// Guest time.
    public let time: TimeSource
    private let messages: MessageRouter
    private let space: PhysicalAddressSpace
    private let rom: BootROM
    private let devicetree: [UInt8]
    private let flash: FlashWindow?
    private let devices: [any MachineDevice]
    private let bridge: PCIeHostBridge
    private let boot: DirectBoot?
    let direct: DirectRun?
    private let loop: EventLoop
    private let onEvent: @Sendable (MachineEvent) -> Void

    struct Control {
        var state = RunState.held
        var threads: [WorkerThread] = []
        var debugging: Debugging?
    }
    let control = Mutex(Control())
    /// Counts resets, so that what a guest asked for before one is not done after it.
    let generation = Atomic<Int>(0)
    /// The generation whose guest has asked for its end; the loop has not come to it yet.
    let endAsked = Atomic<Int>(-1)

    /// A machine held in reset. `flash` may be missing: then the window is empty and the first fetch faults. `root`
    /// makes the root complex, given what it needs of the machine; `lpc` makes the LPC bus' host, given what hears of its
    /// interrupts, where the configuration has that bus. `loop` fires alarms and delivers events. With `boot`
    /// the harts start in its program, which was checked for the configuration's `ram`.
    public init(
        _ configuration: MachineConfiguration, flash reader: (any FlashReader)?, boot: DirectBoot? = nil,
        loop: EventLoop,
        root: (PCIePorts) throws -> (any PCIeRootComplex)? = { _ in nil },
        lpc: (_ onInterrupt: @escaping @Sendable (UInt8, Bool) -> Void) throws -> LPCHost? = { _ in nil },
        onEvent: @escaping @Sendable (MachineEvent) -> Void
    ) throws {
        try configuration.check()
        self.configuration = configuration
        self.loop = loop
        self.onEvent = onEvent
        do throws(WireError) {
            memory = try SharedMemory(create: "ram", size: Int(configuration.memorySize))
        } catch {
            throw MachineError.memoryUnavailable(configuration.memorySize, reason: error.description)
        }
        let space = PhysicalAddressSpace()
        self.space = space
        // Safety: the mapping has the region's size and lives as long as `self`, which holds the harts.
        unsafe space.addMemory(
            base: MemoryMap.ramBase, size: configuration.memorySize, host: memory.mapping.baseAddress)
        self.boot = boot
        let memory = memory
        direct = try boot.map { try DirectRun($0, memory: memory, space: configuration.ram) }
        devicetree = configuration.devicetree
        let entry = boot.map { BootROM.Entry(address: $0.image.entry) } ?? Self.entry(configuration)
        rom = try BootROM(devicetree: devicetree, entry: entry)
        rom.map(into: space)
        flash = try reader.map { reader in
            try FlashWindow(reader: reader) { text in loop.perform { onEvent(.flashUnreadable(text)) } }
        }
        flash?.map(into: space)

        let wires = (0..<configuration.hartCount).map { _ in HartWires() }
        let time = TimeSource(configuration.clock)
        self.time = time
        var devices: [any MachineDevice] = []
        func add(_ device: any MachineDevice, at range: AddressRange) {
            space.addDevice(base: range.base, size: range.size, device: device)
            devices.append(device)
        }
        add(CLINT(harts: wires.map(\.signals), time: time), at: MemoryMap.clint)
        switch configuration.interrupts {
        case .aia:
            let machineLevel = IMSIC(base: MemoryMap.machineIMSICBase, files: wires.map(\.machineInterruptFile))
            let supervisorLevel = IMSIC(
                base: MemoryMap.supervisorIMSICBase, files: wires.map(\.supervisorInterruptFile))
            let router = MessageRouter(memory: memory, imsics: [machineLevel, supervisorLevel])
            let aplic = APLIC(harts: wires.map(\.signals)) { address, data in
                router.deliver(address: address, data: data)
            }
            add(machineLevel, at: machineLevel.range)
            add(supervisorLevel, at: supervisorLevel.range)
            add(aplic.domain(.machine), at: MemoryMap.machineAPLIC)
            add(aplic.domain(.supervisor), at: MemoryMap.supervisorAPLIC)
            messages = router
            interruptController = aplic
        case .plic:
            let plic = PLIC(harts: wires.map(\.signals))
            add(plic, at: MemoryMap.plic)
            messages = MessageRouter(memory: memory, imsics: [])
            interruptController = plic
        }
        let isCounting = configuration.clock == .instructions
        // A console that is behind must not show in the guest: it holds the hart instead of the transmitter.
        var stall: (@Sendable (Bool) -> Void)?
        if isCounting { stall = { [signals = wires[0].signals] in signals.setStalled($0) } }
        uart = UART(line: InterruptLine(interruptController, source: InterruptSource.uart), stall: stall)
        add(uart, at: MemoryMap.uart)
        powerKey = PS2Port(line: InterruptLine(interruptController, source: InterruptSource.ps2))
        add(powerKey, at: MemoryMap.ps2)
        if configuration.hasLPC {
            let line = InterruptLine(interruptController, source: InterruptSource.lpc)
            let host = try lpc { interrupt, level in if interrupt == LPCPort.kcsInterrupt { line.set(level) } }
            add(LPCWindow(host: host, line: line), at: MemoryMap.lpc)
        }
        let clock: any RTCClock =
            isCounting
            ? InstructionRTCClock(time: time, epoch: configuration.epoch) : WallRTCClock(loop: loop)
        add(RTC(line: InterruptLine(interruptController, source: InterruptSource.rtc), clock: clock), at: MemoryMap.rtc)
        let request = GuestRequest()
        add(TestFinisher { command in request.forward(command) }, at: MemoryMap.testFinisher)
        self.devices = devices

        let ports = PCIePorts(memory: memory, messages: messages, controller: interruptController)
        bridge = PCIeHostBridge(root: try root(ports))
        bridge.map(into: space, memorySize: configuration.memorySize)

        // The map is complete: now the harts.
        let hartConfiguration = HartConfiguration(
            interrupts: configuration.interrupts, translation: configuration.translation)
        harts = wires.enumerated().map { index, wires in
            Hart(
                id: UInt64(index), configuration: hartConfiguration, addressSpace: space, timeSource: time,
                resetVector: MemoryMap.bootROM.base, wires: wires)
        }
        request.connect { [weak self] command in self?.guestAsked(command) }
        try control.withLock { _ in try resetParts(isFresh: true) }
    }

    /// Where harts go from the boot ROM: to the flash, or to a firmware that lies in RAM.
    private static func entry(_ configuration: MachineConfiguration) -> BootROM.Entry {
        guard configuration.images.firmware != nil else { return BootROM.Entry(address: MemoryMap.flash.base) }
        let layout = configuration.bootLayout
        return BootROM.Entry(
            address: MemoryMap.ramBase, devicetree: layout.devicetree,
            information: BootROM.DynamicInformation(nextAddress: layout.kernel?.base ?? 0))
    }

    deinit { control.withLock { stopHarts(&$0) } }

    /// Presses the power button for a moment: the guest decides what to do. Any thread.
    public func pressPowerButton() { powerKey.pressPower() }

    /// Hands a message (MSI) to its interrupt file, or writes it to RAM. Any thread.
    public func deliver(address: UInt64, data: UInt32) {
        messages.deliver(address: address, data: data)
    }

    /// Every part but the harts' wires back to its state after reset, and the boot files into RAM. No hart runs.
    func resetParts(isFresh: Bool = false) throws(BootImageError) {
        generation.add(1, ordering: .acquiringAndReleasing)
        for device in devices { device.reset() }
        bridge.root?.reset()
        flash?.forget()
        space.invalidateFilledPages()
        boot?.image.load(into: memory, base: MemoryMap.ramBase, isFresh: isFresh)
        direct?.reset()
        for hart in harts { hart.reset(pc: MemoryMap.bootROM.base) }
        let layout = configuration.bootLayout
        for (image, address) in layout.placements { try image.load(into: memory, at: address &- MemoryMap.ramBase) }
        if configuration.images.firmware != nil {
            let offset = layout.devicetree &- MemoryMap.ramBase
            precondition(memory.mapping.contains(offset: offset, count: BootLayout.devicetreeRoom), "as checked")
            // Safety: the room lies in the mapping, and the boot ROM, which holds the tree too, is smaller than it.
            unsafe UnsafeMutableRawBufferPointer(rebasing: memory.mapping.bytes[Int(offset)...]).copyBytes(
                from: devicetree)
        }
    }

    /// Posts an event to the owner.
    func report(_ event: MachineEvent) {
        let onEvent = onEvent
        loop.perform { onEvent(event) }
    }

    /// Calls `body` on the event loop's thread.
    func later(_ body: @escaping @Sendable () -> Void) { loop.perform(body) }
}
