/// The calls of the supervisor binary interface that the firmware uses.
///
/// Spec: RISC-V SBI 2.0 §4 (base), §6 (TIME), §10 (SRST), §12 (DBCN).
enum SBI {
    private static let base: UInt = 0x10
    private static let time: UInt = 0x5449_4D45
    private static let systemReset: UInt = 0x5352_5354
    private static let debugConsole: UInt = 0x4442_434E

    private static func value(_ function: UInt) -> UInt? {
        var result: UInt = 0
        // Safety: the callee writes one word into `result` before it returns.
        let error = unsafe sbiCall(base, function, 0, 0, 0, &result)
        return error == 0 ? result : nil
    }

    static var specification: UInt? { value(0) }
    static var implementation: UInt? { value(1) }
    static var implementationVersion: UInt? { value(2) }

    /// The next timer interrupt, in ticks of `time`; all ones means never.
    static func setTimer(_ deadline: UInt64) {
        _ = sbiCall(time, 0, UInt(deadline), 0, 0, nil)
    }

    /// Returns only when the machine cannot do it.
    static func shutDown() {
        _ = sbiCall(systemReset, 0, 0, 0, 0, nil)
    }

    static func restart() {
        _ = sbiCall(systemReset, 0, 1, 0, 0, nil)
    }

    static func write(_ byte: UInt8) {
        _ = sbiCall(debugConsole, 2, UInt(byte), 0, 0, nil)
    }
}
