// Spec: Goldfish virtual hardware, "Goldfish RTC" (the register file of the `virt` machine's clock)

extension RTC {
    /// Nanoseconds since 1970, low word; reading it latches the high word.
    static let timeLow: UInt64 = 0x00
    static let timeHigh: UInt64 = 0x04
    /// Writing it arms the alarm at `alarmHigh:alarmLow`.
    static let alarmLow: UInt64 = 0x08
    static let alarmHigh: UInt64 = 0x0C
    /// Bit 0
    static let interruptEnabled: UInt64 = 0x10
    /// Write-only
    static let clearAlarm: UInt64 = 0x14
    /// Read-only: 1 while an alarm is armed.
    static let alarmStatus: UInt64 = 0x18
    /// Write-only
    static let clearInterrupt: UInt64 = 0x1C
}
