// The host firmware: what OpenSBI starts in S-mode on the boot hart. It finds the machine's devices, brings the
// offload card into service, reports both on the console, then sleeps until somebody types.

struct Host {
    let console: Console
    let platform: Platform
    var arena = Arena()
    var enumeration: Enumeration?
    var card: OffloadCard?
    /// Typed characters arrive by interrupt.
    var hasInput = false

    // MARK: Banner

    func label(_ text: StaticString) {
        console.text("  ")
        console.text(text, width: 13)
    }

    func banner() {
        console.line()
        console.line("Baseboard host firmware")
        label("firmware")
        if SBI.implementation == 1, let version = SBI.implementationVersion {
            console.text("OpenSBI ")
            console.decimal(UInt64(version >> 16))
            console.text(".")
            console.decimal(UInt64(version & 0xFFFF))
        } else {
            console.text("SBI of an unknown make")
        }
        if let specification = SBI.specification {
            console.text(", SBI ")
            console.decimal(UInt64(specification >> 24 & 0x7F))
            console.text(".")
            console.decimal(UInt64(specification & 0xFF_FFFF))
        }
        console.line()
        label("memory")
        console.size(platform.memory.size)
        console.text(" at ")
        console.address(platform.memory.base)
        if platform.memoryBanks > 1 { console.text(" and further banks") }
        console.line()
        label("harts")
        console.decimal(UInt64(platform.harts))
        console.text(", this is hart ")
        console.decimal(UInt64(platform.hart))
        console.line()
    }

    // MARK: Interrupts

    /// Brings up the path of external interrupts, and the UART's receive interrupt on it.
    mutating func startInterrupts() {
        label("interrupts")
        if let (file, phandle) = platform.interruptFile() {
            file.start()
            unsafe traps.controller = .imsic(file)
            unsafe traps.aplic = platform.aplic(for: phandle)
            console.text("IMSIC file at ")
            console.address(file.page)
            console.text(", ")
            console.decimal(UInt64(file.identities))
            console.line(" identities")
        } else if let plic = platform.plic() {
            unsafe traps.controller = .plic(plic)
            console.text("PLIC at ")
            console.address(UInt64(plic.registers.base))
            console.text(", context ")
            console.decimal(UInt64(plic.context))
            console.line()
        } else {
            console.line("no controller in the devicetree")
        }
        label("console")
        guard let (node, port, _) = platform.tree.serialPort() else {
            console.line("SBI, output only")
            return
        }
        console.text("16550 at ")
        console.address(UInt64(port.registers.base))
        let source = node.value32("interrupts") ?? 0
        hasInput = startInput(port, source)
        if hasInput {
            console.text(", interrupt ")
            console.decimal(UInt64(source))
            console.line()
        } else {
            console.line(", output only: its interrupt cannot reach this hart")
        }
    }

    private func startInput(_ port: SerialPort, _ source: UInt32) -> Bool {
        guard source != 0 else { return false }
        switch unsafe traps.controller {
        case .none:
            return false
        case .imsic(let file):
            guard let aplic = unsafe traps.aplic, source <= aplic.sources else { return false }
            unsafe traps.port = port
            unsafe traps.uartSource = source
            file.enable(Identity.uart)
            aplic.route(source: source, to: Identity.uart, hartIndex: file.hartIndex)
        case .plic(let plic):
            guard source <= plic.sources else { return false }
            unsafe traps.port = port
            unsafe traps.uartSource = source
            plic.enable(source)
        }
        port.enableReceiveInterrupt()
        return true
    }

    // MARK: PCIe

    mutating func enumerate() {
        label("PCIe")
        guard let (space, windows) = platform.pcie() else {
            console.line("no host bridge in the devicetree")
            return
        }
        console.text("ECAM at ")
        console.address(UInt64(space.ecam.base))
        console.text(", buses ")
        console.hex(UInt64(space.firstBus), digits: 2)
        console.text("-")
        console.hex(UInt64(space.lastBus), digits: 2)
        console.line()
        guard var enumeration = Enumeration(space: space, windows: windows, arena: &arena) else {
            console.line("  no memory for the table of PCIe functions")
            return
        }
        enumeration.run()
        self.enumeration = enumeration
        printFunctions()
    }

    func printFunctions() {
        console.line()
        console.line("PCIe functions")
        if let enumeration {
            FunctionTable(console: console).print(enumeration)
        } else {
            console.line("  none: the machine has no PCIe host bridge")
        }
    }

    // MARK: Offload card

    private func complain(_ failure: OffloadCard.Failure) {
        label("failed")
        console.text(failure.text)
        if case .refused(let status) = failure { console.decimal(UInt64(status)) }
        console.line()
    }

    mutating func serveCard() {
        console.line()
        console.text("Offload card")
        guard let enumeration, let function = offloadFunction(enumeration) else {
            console.line()
            label("none")
            console.line("no offload card answers on the PCIe bus")
            return
        }
        console.text(" ")
        FunctionTable(console: console).address(function.address)
        console.line()
        do throws(OffloadCard.Failure) {
            var card = try OffloadCard(function, clock: platform.clock, arena: &arena)
            try card.start()
            chooseSignal(&card, function, enumeration.space)
            try identify(&card)
            self.card = card
        } catch {
            complain(error)
        }
    }

    private func offloadFunction(_ enumeration: Enumeration) -> Function? {
        var index = 0
        while index < enumeration.functions.count {
            let function = enumeration.functions[index]
            if function.vendor == OffloadCard.vendor, function.device == OffloadCard.device { return function }
            index &+= 1
        }
        return nil
    }

    private func chooseSignal(_ card: inout OffloadCard, _ function: Function, _ space: ConfigurationSpace) {
        guard case .imsic(let file) = unsafe traps.controller else {
            label("note")
            console.line("the machine has no IMSIC, so the card's MSI-X has nowhere to go: polling its ring")
            return
        }
        file.enable(Identity.offloadCard)
        if !card.enableMessages(function, space, to: file.page, identity: Identity.offloadCard) {
            label("note")
            console.line("the card has no usable MSI-X: polling its ring")
        }
    }

    /// Asks for the identity and prints it.
    private func identify(_ card: inout OffloadCard) throws(OffloadCard.Failure) {
        let ticks = try card.askIdentity()
        label("model")
        console.untrusted(card.model)
        console.line()
        label("serial")
        console.untrusted(card.serial)
        console.line()
        label("firmware")
        console.untrusted(card.firmware)
        console.line()
        label("instances")
        console.text("up to ")
        console.decimal(UInt64(card.maximumInstances))
        console.text(", capabilities ")
        console.address(UInt64(card.capabilities))
        console.line()
        label("answered")
        switch card.signal {
        case .messageSignalled: console.text("by DMA and MSI-X interrupt in ")
        case .polled: console.text("by DMA, seen by polling, in ")
        }
        console.decimal(ticks &* 1_000_000 / platform.clock.frequency)
        console.line(" us")
    }

    private mutating func askAgain() {
        guard var card else {
            console.line("there is no offload card in service")
            return
        }
        do throws(OffloadCard.Failure) {
            try identify(&card)
            self.card = card
        } catch {
            complain(error)
        }
    }

    // MARK: Service

    /// Sleeps until somebody types, for as long as the machine runs.
    mutating func serve() -> Never {
        var monitor = Monitor(console: console)
        while true {
            // Without input the condition never holds and no interrupt ends the sleep.
            _ = wait { unsafe traps.typedIn != traps.typedOut }
            while let character = unsafe traps.read() {
                guard let command = monitor.type(character) else { continue }
                perform(command, monitor)
                monitor.prompt()
            }
        }
    }

    private mutating func perform(_ command: Monitor.Command, _ monitor: Monitor) {
        switch command {
        case .help:
            monitor.help()
        case .pci:
            printFunctions()
        case .card:
            askAgain()
        case .powerOff:
            SBI.shutDown()
            console.line("this machine cannot switch itself off")
        case .reboot:
            SBI.restart()
            console.line("this machine cannot restart itself")
        }
    }
}

@c func host_write_byte(_ byte: UInt8) {
    SBI.write(byte)
}

@c func host_main(_ hart: UInt, _ treeAddress: UInt) {
    var output = Console(port: nil, fallback: host_write_byte)
    guard let tree = DeviceTree(at: treeAddress) else {
        output.line("Baseboard firmware: there is no devicetree at the address that OpenSBI passed; stopped")
        return
    }
    if let serial = tree.serialPort() {
        serial.port.configure(clock: serial.clock)
        output.port = serial.port
    }
    unsafe console = output
    let post = PostCodePort(tree)
    post.write(.hostFirmware)
    var host = Host(console: output, platform: Platform(tree: tree, hart: hart))
    host.banner()
    host.startInterrupts()
    post.write(.interruptsUp)
    host.enumerate()
    post.write(.busesEnumerated)
    host.showAdapters()
    host.serveCard()
    post.write(.cardsServed)
    output.line()
    output.line("Baseboard firmware: ready")
    post.write(.bootComplete)
    host.serve()
}
