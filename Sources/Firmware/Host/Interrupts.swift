import _Volatile

/// Identities of this hart's interrupt file that the firmware gives out (IMSIC), or the UART's source (PLIC).
enum Identity {
    static let uart: UInt = 1
    static let offloadCard: UInt = 2
}

/// How external interrupts reach this hart.
enum ExternalInterrupts {
    case none
    case imsic(InterruptFile)
    case plic(PLIC)
}

/// This hart's supervisor-level interrupt file: message-signalled interrupts are stores of an identity to `page`.
///
/// Spec: RISC-V AIA 1.0 §3.5 (memory page), §3.8 (indirectly accessed registers).
struct InterruptFile {
    /// Where devices store: the page's seteipnum_le register.
    let page: UInt64
    /// Highest identity.
    let identities: UInt32
    /// This hart's place among the harts of the IMSIC, as APLIC targets count them.
    let hartIndex: UInt32

    private enum Register {
        static let delivery: UInt = 0x70
        static let threshold: UInt = 0x72
        static let enable0: UInt = 0xC0
    }

    func start() {
        imsicWrite(Register.delivery, 1)
        imsicWrite(Register.threshold, 0)
        enableInterrupts(1 << Interrupt.external)
    }

    /// Enables an identity. On a 64-bit hart each even-numbered register holds 64 of them.
    func enable(_ identity: UInt) {
        imsicSet(Register.enable0 &+ (identity / 64) &* 2, 1 << (identity % 64))
    }
}

/// The supervisor-level wired-interrupt controller in MSI mode. Spec: RISC-V AIA 1.0 §4.5.
struct APLIC {
    let registers: MMIO
    let sources: UInt32

    private enum Register {
        static let domain: UInt = 0x0000
        static let source: UInt = 0x0000
        static let setPendingNumber: UInt = 0x1CDC
        static let input: UInt = 0x1D00
        static let setEnableNumber: UInt = 0x1EDC
        static let target: UInt = 0x3000
    }

    private static let messages: UInt32 = 1 << 2
    private static let enable: UInt32 = 1 << 8
    private static let levelHigh: UInt32 = 6

    /// Sends `source` (level, active high) as `identity` to the hart at `hartIndex`.
    func route(source: UInt32, to identity: UInt, hartIndex: UInt32) {
        let offset = UInt(source) &* 4
        // MSI mode first: it decides what the fields of a target mean.
        registers.write32(Register.domain, Self.messages)
        registers.write32(Register.source &+ offset, Self.levelHigh)
        registers.write32(Register.target &+ offset, hartIndex << 18 | UInt32(truncatingIfNeeded: identity) & 0x7FF)
        registers.write32(Register.setEnableNumber, source)
        registers.write32(Register.domain, Self.messages | Self.enable)
    }

    /// After a level-sensitive source was served: sends again if its line is still high (§4.9.2). The look at the
    /// line is not redundant: QEMU before 9.0 sends on every such store, whatever the line says.
    func retrigger(source: UInt32) {
        guard registers.read32(Register.input &+ UInt(source / 32) &* 4) & 1 << (source % 32) != 0 else { return }
        registers.write32(Register.setPendingNumber, source)
    }
}

/// The platform-level interrupt controller, seen from this hart's supervisor context. Spec: RISC-V PLIC 1.0.0.
struct PLIC {
    let registers: MMIO
    let sources: UInt32
    let context: UInt

    func enable(_ source: UInt32) {
        registers.write32(UInt(source) &* 4, 1)
        let word: UInt = 0x2000 &+ context &* 0x80 &+ UInt(source / 32) &* 4
        registers.write32(word, registers.read32(word) | 1 << (source % 32))
        registers.write32(0x20_0000 &+ context &* 0x1000, 0)
        enableInterrupts(1 << Interrupt.external)
    }

    /// The source to serve, 0 for none.
    func claim() -> UInt32 {
        registers.read32(0x20_0004 &+ context &* 0x1000)
    }

    func complete(_ source: UInt32) {
        registers.write32(0x20_0004 &+ context &* 0x1000, source)
    }
}

/// What the trap handler and the rest of the firmware share. Interrupts are taken in `takeInterrupts()` only, so
/// plain variables are enough.
struct TrapState {
    var controller = ExternalInterrupts.none
    var aplic: APLIC?
    var port: SerialPort?
    var uartSource: UInt32 = 0
    /// Interrupts of the offload card so far.
    var cardInterrupts: UInt32 = 0
    /// Interrupts that nobody asked for.
    var strayInterrupts: UInt32 = 0
    /// Characters typed and not yet read: a ring, indices running freely.
    var typed = InlineArray<64, UInt8>(repeating: 0)
    var typedIn: UInt32 = 0
    var typedOut: UInt32 = 0

    /// Empties the UART; characters beyond the ring are lost.
    mutating func drainPort() {
        guard let port else { return }
        var left = 256
        while left > 0, let byte = port.receive() {
            left &-= 1
            if typedIn &- typedOut < 64 {
                typed[Int(typedIn & 63)] = byte
                typedIn &+= 1
            }
        }
    }

    mutating func read() -> UInt8? {
        guard typedIn != typedOut else { return nil }
        defer { typedOut &+= 1 }
        return typed[Int(typedOut & 63)]
    }

    mutating func external() {
        switch controller {
        case .none:
            disableInterrupts(1 << Interrupt.external)
        case .imsic:
            while true {
                let identity = imsicClaim()
                switch identity {
                case 0:
                    return
                case Identity.uart:
                    drainPort()
                    aplic?.retrigger(source: uartSource)
                case Identity.offloadCard:
                    cardInterrupts &+= 1
                default:
                    strayInterrupts &+= 1
                }
            }
        case .plic(let plic):
            let source = plic.claim()
            guard source != 0 else { return }
            if source == uartSource { drainPort() } else { strayInterrupts &+= 1 }
            plic.complete(source)
        }
    }
}

// Safety: one hart runs the firmware, and its handler runs inside of `takeInterrupts()` only.
nonisolated(unsafe) var traps = TrapState()
nonisolated(unsafe) var console = Console()

@c func host_trap(_ cause: UInt, _ address: UInt, _ value: UInt) {
    switch cause {
    case Interrupt.flag | Interrupt.external:
        unsafe traps.external()
    case Interrupt.flag | Interrupt.timer:
        // It did its work by waking the hart; `wait` enables it again.
        disableInterrupts(1 << Interrupt.timer)
    default:
        let console = unsafe console
        console.line()
        console.text("Baseboard firmware: unexpected trap, scause ")
        console.address(UInt64(cause))
        console.text(" sepc ")
        console.address(UInt64(address))
        console.text(" stval ")
        console.address(UInt64(value))
        console.line("; stopped")
        disableInterrupts(.max)
        while true { waitForInterrupt() }
    }
}

/// Time by the `time` CSR.
struct Clock {
    /// Ticks a second.
    let frequency: UInt64

    func deadline(milliseconds: UInt64) -> UInt64 {
        readTime() &+ frequency / 1000 &* milliseconds
    }

    func microseconds(since start: UInt64) -> UInt64 {
        (readTime() &- start) &* 1_000_000 / frequency
    }
}

/// Sleeps until `condition` holds, looking again after every interrupt; false when `deadline` passed before.
/// Interrupts stay pending until the hart sleeps, so none is missed between the look and the sleep.
func wait(until deadline: UInt64 = .max, _ condition: () -> Bool) -> Bool {
    SBI.setTimer(deadline)
    if deadline != .max { enableInterrupts(1 << Interrupt.timer) }
    defer { disableInterrupts(1 << Interrupt.timer) }
    while true {
        takeInterrupts()
        if condition() { return true }
        if readTime() >= deadline { return false }
        waitForInterrupt()
    }
}
