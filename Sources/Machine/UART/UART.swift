// A 16550A serial port between the guest's registers and whoever carries its bytes on the host.
//
// Model: the line is as fast as the host takes bytes. Output collects in a buffer that the host empties in one piece
// (`takeOutput`), so a burst of register writes becomes one system call; when the buffer is full the transmitter stays
// busy, which paces the guest instead of losing its bytes. Input waits in a bounded queue behind the 16-byte FIFO;
// `offerInput` says how much fitted, and `inputRoomAvailable` says when to offer more. The baud rate is stored and
// shown but paces nothing. The surprise: the "character timeout" comes at once, since an idle line never waits.
public import RISCV
import Synchronization

/// Who carries a serial port's bytes. Called on hart threads, briefly, without any lock of the port held.
public protocol UARTHost: AnyObject, Sendable {
    /// The first byte came into an empty output buffer: call `takeOutput` soon.
    func outputAvailable()
    /// The input queue had refused bytes and has room again.
    func inputRoomAvailable()
}

/// A 16550A with registers one byte apart. Bytes only; beyond the eighth register there is nothing.
public final class UART: MachineDevice {
    /// Input clock in Hz, for the devicetree.
    public static let clockFrequency: UInt32 = 3_686_400
    /// Output bytes kept for a host that is behind: as much as a Unix socket's buffer takes in one go.
    static let outputLimit = 65_536
    /// Input bytes kept for a guest that is behind: a pasted page of text.
    static let inputLimit = 4096

    private struct State {
        var ier: InterruptEnable = []
        var fifoEnabled = false
        var trigger = 1
        var lcr: UInt8 = 0
        var mcr: ModemControl = []
        var overrun = false
        var scr: UInt8 = 0
        var divisor: UInt16 = 0
        var modemDeltas: ModemStatus = []
        /// The transmitter-empty interrupt is pending until IIR is read or THR is written.
        var transmitterInterrupt = false
        /// The receiver FIFO followed by what waits for it; ordered.
        var received: [UInt8] = []
        var receivedStart = 0
        var output: [UInt8] = []
        var inputRefused = false
        /// The transmitter never shows that the host is behind; the hart is held instead.
        var isNeverBusy = false
        /// The level of the interrupt wire as last driven: the controller is asked only when it changes.
        var isAsserted = false

        var receivedCount: Int { received.count - receivedStart }
        var depth: Int { fifoEnabled ? UART.fifoDepth : 1 }
        var isTransmitterReady: Bool { isNeverBusy || output.count < UART.outputLimit || mcr.contains(.loopback) }

        /// The wires from the other end are held active; in loopback they are our own outputs.
        var modemLines: ModemStatus {
            guard mcr.contains(.loopback) else { return [.cts, .dsr, .dcd] }
            var lines: ModemStatus = []
            if mcr.contains(.rts) { lines.insert(.cts) }
            if mcr.contains(.dtr) { lines.insert(.dsr) }
            if mcr.contains(.out1) { lines.insert(.ri) }
            if mcr.contains(.out2) { lines.insert(.dcd) }
            return lines
        }

        var interrupt: InterruptIdentification {
            if ier.contains(.lineStatus) && overrun { return .lineStatus }
            if ier.contains(.receivedData) && receivedCount > 0 {
                return min(receivedCount, depth) >= (fifoEnabled ? trigger : 1) ? .receivedData : .characterTimeout
            }
            if ier.contains(.transmitterEmpty) && transmitterInterrupt { return .transmitterEmpty }
            if ier.contains(.modemStatus) && !modemDeltas.isEmpty { return .modemStatus }
            return .none
        }

        mutating func takeReceived() -> UInt8 {
            guard receivedCount > 0 else { return 0 }
            let byte = received[receivedStart]
            receivedStart += 1
            if receivedStart == received.count {
                received.removeAll(keepingCapacity: true)
                receivedStart = 0
            } else if receivedStart >= UART.inputLimit {
                received.removeFirst(receivedStart)
                receivedStart = 0
            }
            return byte
        }

        mutating func clearReceiver() {
            // What the host queued behind the FIFO has not arrived yet, as far as the guest can tell.
            receivedStart += min(receivedCount, depth)
            if receivedCount == 0 {
                received.removeAll(keepingCapacity: true)
                receivedStart = 0
            }
        }
    }

    /// What to tell the host after the lock is released.
    private struct Notice {
        var output = false
        var inputRoom = false
    }

    private let line: InterruptLine
    private let stall: (@Sendable (Bool) -> Void)?
    private let state = Mutex(State())
    private let host = Mutex<(any UARTHost)?>(nil)

    /// With `stall` the transmitter is always ready, as far as the guest can tell: `stall` is called with true when the
    /// host is behind, to hold the hart, and with false when it has caught up. On any thread, the port's lock held.
    public init(line: InterruptLine, stall: (@Sendable (Bool) -> Void)? = nil) {
        self.line = line
        self.stall = stall
        state.withLock { $0.isNeverBusy = stall != nil }
    }

    /// Connects the host side; before that, output collects and paces the guest.
    public func attach(_ host: any UARTHost) {
        self.host.withLock { $0 = host }
        if state.withLock({ !$0.output.isEmpty }) { host.outputAvailable() }
    }

    public func reset() {
        state.withLock { state in
            // Bytes on their way out are on the wire already; bytes on their way in are lost.
            let output = state.output
            let refused = state.inputRefused
            let asserted = state.isAsserted
            state = State()
            state.output = output
            state.inputRefused = refused
            state.isAsserted = asserted
            state.isNeverBusy = stall != nil
            drive(&state)
        }
        notify { state in Notice(inputRoom: Self.takeRefusal(&state)) }
    }

    // MARK: host side

    /// Everything that the guest has sent since the last call, in order.
    public func takeOutput() -> [UInt8] {
        state.withLock { state in
            var taken: [UInt8] = []
            swap(&taken, &state.output)
            if taken.count >= Self.outputLimit {
                if let stall {
                    stall(false)
                } else {
                    state.transmitterInterrupt = true
                    drive(&state)
                }
            }
            return taken
        }
    }

    /// Queues bytes for the guest; returns how many fitted.
    public func offerInput(_ bytes: some Collection<UInt8>) -> Int {
        state.withLock { state in
            let room = Self.inputLimit - state.receivedCount
            let accepted = bytes.prefix(max(0, room))
            state.received.append(contentsOf: accepted)
            let count = accepted.count
            if count < bytes.count { state.inputRefused = true }
            drive(&state)
            return count
        }
    }

    // MARK: registers

    public func read(offset: UInt64, width: AccessWidth) -> UInt64? {
        guard width == .byte, offset <= Self.scr else { return nil }
        var value: UInt8 = 0
        notify { state in
            var notice = Notice()
            switch offset {
            case Self.rbrThrDll:
                if state.lcr & Self.dlab != 0 {
                    value = UInt8(truncatingIfNeeded: state.divisor)
                } else {
                    value = state.takeReceived()
                    notice.inputRoom = Self.takeRefusal(&state)
                }
            case Self.ierDlm:
                value =
                    state.lcr & Self.dlab != 0 ? UInt8(truncatingIfNeeded: state.divisor >> 8) : state.ier.rawValue
            case Self.iirFcr:
                let interrupt = state.interrupt
                value = interrupt.rawValue | (state.fifoEnabled ? 0xC0 : 0)
                if interrupt == .transmitterEmpty { state.transmitterInterrupt = false }
            case Self.lcr: value = state.lcr
            case Self.mcr: value = state.mcr.rawValue
            case Self.lsr:
                var status: LineStatus = []
                if state.receivedCount > 0 { status.insert(.dataReady) }
                if state.overrun { status.insert(.overrun) }
                if state.isTransmitterReady { status.formUnion([.transmitterHoldingEmpty, .transmitterEmpty]) }
                value = status.rawValue
                state.overrun = false
            case Self.msr:
                value = state.modemLines.union(state.modemDeltas).rawValue
                state.modemDeltas = []
            default: value = state.scr
            }
            return notice
        }
        return UInt64(value)
    }

    public func write(offset: UInt64, width: AccessWidth, value: UInt64) -> Bool {
        guard width == .byte, offset <= Self.scr else { return false }
        let byte = UInt8(truncatingIfNeeded: value)
        notify { state in
            var notice = Notice()
            switch offset {
            case Self.rbrThrDll:
                if state.lcr & Self.dlab != 0 {
                    state.divisor = state.divisor & 0xFF00 | UInt16(byte)
                } else {
                    notice.output = Self.transmit(&state, byte)
                    if state.output.count == Self.outputLimit { stall?(true) }
                }
            case Self.ierDlm:
                if state.lcr & Self.dlab != 0 {
                    state.divisor = state.divisor & 0x00FF | UInt16(byte) << 8
                } else {
                    let enabled = InterruptEnable(rawValue: byte).intersection(.implemented)
                    // Enabling the transmitter's interrupt while it is empty raises it.
                    if enabled.contains(.transmitterEmpty) && !state.ier.contains(.transmitterEmpty) {
                        state.transmitterInterrupt = state.isTransmitterReady
                    }
                    state.ier = enabled
                }
            case Self.iirFcr:
                Self.controlFIFO(&state, byte)
                notice.inputRoom = Self.takeRefusal(&state)
            case Self.lcr: state.lcr = byte
            case Self.mcr:
                let old = state.modemLines
                state.mcr = ModemControl(rawValue: byte).intersection(.implemented)
                Self.noteModemChange(&state, from: old)
            case Self.scr: state.scr = byte
            default: break  // LSR and MSR are read-only.
            }
            return notice
        }
        return true
    }

    /// Sends a byte out, or round in loopback. True when the host has to be told.
    private static func transmit(_ state: inout State, _ byte: UInt8) -> Bool {
        if state.mcr.contains(.loopback) {
            state.transmitterInterrupt = true
            if state.receivedCount >= state.depth {
                state.overrun = true
                return false
            }
            state.received.append(byte)
            return false
        }
        guard state.isNeverBusy || state.output.count < outputLimit else {
            // Written while busy: the byte in the holding register is overwritten.
            state.output[state.output.count - 1] = byte
            return false
        }
        state.output.append(byte)
        state.transmitterInterrupt = state.isNeverBusy || state.output.count < outputLimit
        return state.output.count == 1
    }

    private static func controlFIFO(_ state: inout State, _ byte: UInt8) {
        let control = FIFOControl(rawValue: byte)
        let enable = control.contains(.enable)
        if enable != state.fifoEnabled {
            state.clearReceiver()
            state.fifoEnabled = enable
        }
        // The other bits are taken only together with the enable bit. The transmitter's FIFO is always empty.
        guard enable else { return }
        state.trigger = triggerLevels[Int(byte >> 6)]
        if control.contains(.clearReceiver) { state.clearReceiver() }
    }

    private static func noteModemChange(_ state: inout State, from old: ModemStatus) {
        let changed = old.symmetricDifference(state.modemLines)
        if changed.contains(.cts) { state.modemDeltas.insert(ModemStatus(rawValue: 0x01)) }
        if changed.contains(.dsr) { state.modemDeltas.insert(ModemStatus(rawValue: 0x02)) }
        // Only the trailing edge of the ring indicator counts.
        if changed.contains(.ri) && old.contains(.ri) { state.modemDeltas.insert(ModemStatus(rawValue: 0x04)) }
        if changed.contains(.dcd) { state.modemDeltas.insert(ModemStatus(rawValue: 0x08)) }
    }

    /// True once when input was refused and half of the queue is free again.
    private static func takeRefusal(_ state: inout State) -> Bool {
        guard state.inputRefused, state.receivedCount <= inputLimit / 2 else { return false }
        state.inputRefused = false
        return true
    }

    private func drive(_ state: inout State) {
        let asserted = state.interrupt != .none
        guard asserted != state.isAsserted else { return }
        state.isAsserted = asserted
        line.set(asserted)
    }

    /// Runs `body` under the lock, drives the interrupt wire, then tells the host.
    private func notify(_ body: (inout State) -> Notice) {
        let notice = state.withLock { state in
            let notice = body(&state)
            drive(&state)
            return notice
        }
        guard notice.output || notice.inputRoom else { return }
        let host = host.withLock { $0 }
        if notice.output { host?.outputAvailable() }
        if notice.inputRoom { host?.inputRoomAvailable() }
    }
}
