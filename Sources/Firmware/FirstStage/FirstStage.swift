// The first instructions of a board: hart 0 checks the flash image's directory, copies OpenSBI, the next stage and
// the devicetree into RAM and wakes the other harts; Reset.S then enters OpenSBI on each. A kernel that the machine has
// put into RAM (a "multiboot,kernel" module in the devicetree) is entered instead of the flash's next stage.
//
// Whoever runs this has verified the image already (docs/wiring.md): the checks here keep a damaged or foreign image
// from ending in silence, they are not its security.

/// The map of the board that is fixed by agreement (docs/wiring.md "Boot on the host", "Flash layout").
enum Map {
    static let flash: UInt64 = 0x2000_0000
    static let flashSize: UInt64 = 32 << 20
    static let directoryOffset: UInt64 = 0x1_F000
    static let directorySize: UInt64 = 0x1000
    /// First byte behind the manifest: what is loaded lies from here on.
    static let payloadOffset: UInt64 = 0x2_0000
    /// Up to the next stage: OpenSBI adds to the tree in place.
    static let deviceTree: UInt64 = 0x8019_0000
    static let deviceTreeRoom: UInt64 = 0x7_0000
    /// Stack and handoff, up to the devicetree.
    static let ownMemory: UInt64 = 0x8018_0000
}

private struct Loader {
    let console: Console
    let tree: DeviceTree
    let post: PostCodePort

    /// Says why the board stops here.
    private func refuse(_ reason: StaticString) -> Bool {
        console.text("Baseboard first stage: ")
        console.line(reason)
        console.line("Baseboard first stage: stopped; write a good image to the flash and power-cycle the board")
        return false
    }

    private func refuse(_ reason: StaticString, entry index: UInt) -> Bool {
        console.text("Baseboard first stage: directory entry ")
        console.decimal(UInt64(index))
        console.text(": ")
        console.line(reason)
        console.line("Baseboard first stage: stopped; write a good image to the flash and power-cycle the board")
        return false
    }

    private static func contains(_ base: UInt64, _ size: UInt64, _ innerBase: UInt64, _ innerSize: UInt64) -> Bool {
        innerBase >= base && innerSize <= size && innerBase &- base <= size &- innerSize
    }

    private static func overlap(_ base: UInt64, _ size: UInt64, _ otherBase: UInt64, _ otherSize: UInt64) -> Bool {
        base < otherBase &+ otherSize && otherBase < base &+ size
    }

    /// True when one bank of RAM holds the whole range.
    private func isMemory(_ base: UInt64, _ size: UInt64) -> Bool {
        var found = false
        tree.visit { node in
            guard let type = node.property("device_type"), type.terminated(at: 0)?.equals("memory") == true,
                node.isEnabled
            else { return true }
            var index: UInt = 0
            while let bank = node.register(index) {
                if Self.contains(bank.base, bank.size, base, size) { found = true }
                index &+= 1
            }
            return !found
        }
        return found
    }

    private func copy(from source: UInt64, to destination: UInt64, _ size: UInt64) {
        // Safety: both ranges were checked: the source lies in the flash window or the devicetree, the destination in
        // RAM that holds neither stack nor handoff.
        guard let source = unsafe UnsafeRawPointer(bitPattern: UInt(source)),
            let destination = unsafe UnsafeMutableRawPointer(bitPattern: UInt(destination))
        else { return }
        unsafe destination.copyMemory(from: source, byteCount: Int(truncatingIfNeeded: size))
    }

    /// The software interrupt registers, 4 bytes a hart in the order of hart numbers, as `virt` machines have them.
    private func softwareInterrupts() -> MMIO? {
        let node = tree.first {
            $0.isEnabled
                && ($0.isCompatible("sifive,clint0") || $0.isCompatible("riscv,clint0")
                    || $0.isCompatible("riscv,aclint-mswi"))
        }
        guard let range = node?.register(0) else { return nil }
        return MMIO(base: range.base, size: min(range.size, 0x4000))
    }

    /// What lies in RAM from the first stage's memory to the end of the devicetree's room.
    private static func overlapsOwn(_ base: UInt64, _ size: UInt64) -> Bool {
        overlap(base, size, Map.ownMemory, Map.deviceTree &- Map.ownMemory &+ Map.deviceTreeRoom)
    }

    /// The kernel that is in RAM already, if there is one: nothing of it is copied.
    private func kernel() -> Result<(base: UInt64, size: UInt64)?, Refusal> {
        guard let node = tree.first(where: { $0.isCompatible("multiboot,kernel") && $0.isEnabled }) else {
            return .success(nil)
        }
        guard let range = node.register(0), range.size != 0, isMemory(range.base, range.size) else {
            return .failure(Refusal(text: "the devicetree's kernel lies where there is no memory"))
        }
        guard !Self.overlapsOwn(range.base, range.size) else {
            return .failure(
                Refusal(text: "the devicetree's kernel lies over the first stage's memory or the devicetree"))
        }
        return .success((range.base, range.size))
    }

    private struct Refusal: Error {
        let text: StaticString
    }

    func load(hart: UInt, handoff: UInt) -> Bool {
        let bytes = Bytes(base: UInt(Map.flash &+ Map.directoryOffset), count: UInt(Map.directorySize))
        let directory: Directory
        switch Directory.read(bytes) {
        case .success(let value): directory = value
        case .failure(let refusal): return refuse(refusal.text)
        }

        post.write(.directoryRead)

        // Everything is checked before anything is copied.
        var opensbi: Directory.Entry?
        var next: Directory.Entry?
        var index: UInt = 0
        while let entry = directory.entry(index) {
            guard entry.size != 0 else { return refuse("is empty", entry: index) }
            guard Self.contains(Map.payloadOffset, Map.flashSize &- Map.payloadOffset, entry.offset, entry.size) else {
                return refuse("lies outside of the flash behind the manifest", entry: index)
            }
            guard isMemory(entry.load, entry.size) else {
                return refuse("is to be loaded where there is no memory", entry: index)
            }
            guard !Self.overlapsOwn(entry.load, entry.size) else {
                return refuse("would be loaded over the first stage's memory or the devicetree", entry: index)
            }
            switch entry.kind {
            case Directory.Kind.opensbi:
                guard opensbi == nil else { return refuse("is a second OpenSBI", entry: index) }
                opensbi = entry
            case Directory.Kind.nextStage:
                guard next == nil else { return refuse("is a second next stage", entry: index) }
                next = entry
            default:
                return refuse("is of a kind unknown to this first stage", entry: index)
            }
            index &+= 1
        }
        guard let opensbi else { return refuse("the directory has no OpenSBI") }
        let kernel: (base: UInt64, size: UInt64)?
        switch self.kernel() {
        case .success(let value): kernel = value
        case .failure(let refusal): return refuse(refusal.text)
        }
        let entered: (base: UInt64, size: UInt64)
        if let kernel {
            entered = kernel
        } else if let next {
            entered = (next.load, next.size)
        } else {
            return refuse("the directory has no next stage")
        }
        guard !Self.overlap(opensbi.load, opensbi.size, entered.base, entered.size) else {
            return refuse("OpenSBI and the next stage would be loaded over each other")
        }
        guard isMemory(Map.deviceTree, Map.deviceTreeRoom) else {
            return refuse("there is no memory for the devicetree at 0x80190000")
        }
        guard UInt64(tree.blob.count) <= Map.deviceTreeRoom else {
            return refuse("the devicetree is larger than its room at 0x80190000")
        }

        copy(from: Map.flash &+ opensbi.offset, to: opensbi.load, opensbi.size)
        if kernel == nil, let next { copy(from: Map.flash &+ next.offset, to: next.load, next.size) }
        copy(from: UInt64(tree.blob.base), to: Map.deviceTree, UInt64(tree.blob.count))
        report(opensbi, kernel == nil ? ", next stage (" : ", the machine's kernel (", entered)

        post.write(.stagesLoaded)
        let interrupts = softwareInterrupts()
        Handoff(at: handoff)?.write(
            opensbi: opensbi.load, deviceTree: Map.deviceTree, softwareInterrupts: UInt64(interrupts?.base ?? 0),
            nextStage: entered.base, bootHart: UInt64(hart))
        memoryBarrier()
        wakeOthers(than: hart, interrupts)
        return true
    }

    private func report(
        _ opensbi: Directory.Entry, _ next: StaticString, _ entered: (base: UInt64, size: UInt64)
    ) {
        console.text("Baseboard first stage: OpenSBI (")
        console.decimal(opensbi.size)
        console.text(" bytes) at ")
        console.address(opensbi.load)
        console.text(next)
        console.decimal(entered.size)
        console.text(" bytes) at ")
        console.address(entered.base)
        console.line()
    }

    private func wakeOthers(than hart: UInt, _ interrupts: MMIO?) {
        tree.visit { node in
            guard let type = node.property("device_type"), type.terminated(at: 0)?.equals("cpu") == true,
                let number = node.register(0)?.base, number != UInt64(hart)
            else { return true }
            guard let interrupts, number < UInt64(interrupts.size / 4) else {
                console.text("Baseboard first stage: hart ")
                console.decimal(number)
                console.line(" has no software interrupt register and stays asleep")
                return true
            }
            interrupts.write32(UInt(number) &* 4, 1)
            return true
        }
    }
}

/// Loads everything; returns 1 when OpenSBI may be entered, 0 when the board has to stop.
@c func first_stage(_ hart: UInt, _ treeAddress: UInt, _ handoff: UInt) -> UInt {
    // Without a devicetree there is not even a UART to complain on.
    guard let tree = DeviceTree(at: treeAddress) else { return 0 }
    var console = Console()
    if let serial = tree.serialPort() {
        serial.port.configure(clock: serial.clock)
        console.port = serial.port
    }
    let post = PostCodePort(tree)
    post.write(.firstStage)
    if Loader(console: console, tree: tree, post: post).load(hart: hart, handoff: handoff) { return 1 }
    post.write(.firstStageStopped)
    return 0
}

/// Reports a trap of the first stage itself, on the UART where `virt` machines have it.
@c func first_stage_trap(_ cause: UInt, _ address: UInt, _ value: UInt) {
    guard let registers = MMIO(base: 0x1000_0000, size: 0x100) else { return }
    let console = Console(port: SerialPort(registers: registers, shift: 0, wide: false))
    console.text("Baseboard first stage: unexpected trap, mcause ")
    console.address(UInt64(cause))
    console.text(" mepc ")
    console.address(UInt64(address))
    console.text(" mtval ")
    console.address(UInt64(value))
    console.line()
}
