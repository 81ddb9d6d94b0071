// The BMC's end of the lpc wire: cycles in, SYNC and interrupts out, a KCS interface and a message handler behind them.

public import LPC

/// The host's way to the BMC, as a pure value.
public struct SystemInterface: Sendable {
    public private(set) var kcs = KCSInterface()
    public private(set) var handler: IPMIHandler
    /// Cycles at the interface's ports.
    public private(set) var cycles: UInt64 = 0
    /// What the BMC drives on the interrupt's line.
    public private(set) var isInterruptAsserted = false

    public init(_ identity: IPMIHandler.Identity) { handler = IPMIHandler(identity) }

    /// What the BMC says to a message of the host: an interrupt that changed, then the SYNC of a cycle. Nothing to what
    /// is no cycle.
    public mutating func answer(_ message: LPCMessage) -> [LPCMessage] {
        let sync: LPCMessage
        switch message {
        case .read(let tag, let port):
            guard let register = Self.register(port) else { return [.sync(tag: tag, .none, data: 0xFF)] }
            cycles &+= 1
            sync = .sync(tag: tag, .ready, data: kcs.read(register))
        case .write(let tag, let port, let data):
            guard let register = Self.register(port) else { return [.sync(tag: tag, .none, data: 0xFF)] }
            cycles &+= 1
            kcs.write(register, data)
            if let request = kcs.service() { kcs.respond(handler.respond(to: request)) }
            sync = .sync(tag: tag, .ready, data: 0xFF)
        case .sync, .interrupt: return []
        }
        let level = kcs.isDataOutFull && handler.hasInterrupts
        guard level != isInterruptAsserted else { return [sync] }
        isInterruptAsserted = level
        // First: who sees the cycle's end sees the interrupt line as the cycle left it.
        return [.interrupt(LPCPort.kcsInterrupt, level: level), sync]
    }

    private static func register(_ port: UInt16) -> KCSInterface.Register? {
        port >= LPCPort.kcsData ? KCSInterface.Register(rawValue: port - LPCPort.kcsData) : nil
    }
}
