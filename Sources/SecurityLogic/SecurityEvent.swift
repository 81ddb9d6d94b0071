public import Sideband
public import Trust

/// The components that the logic holds in reset, in the order in which they are released: the host comes last, because
/// it enumerates what the others show it.
public enum HeldComponent: String, CaseIterable, Sendable, Hashable {
    case bmc
    case card0
    case card1
    case card2
    case card3
    case host
}

/// What the logic tells the launcher: the QMP events of docs/wiring.md, "Events".
public enum SecurityEvent: Sendable, Hashable {
    case resetAsserted(HeldComponent)
    case resetReleased(HeldComponent)
    case firmwareVerifying
    case firmwareVerified(slot: FirmwareSlot, image: String, securityVersion: UInt32, digest: [UInt8])
    /// One slot may not run; the next one is tried.
    case slotRefused(slot: FirmwareSlot, image: String, reason: String)
    /// None may run.
    case firmwareRefused(image: String, reason: String)
    /// The slot is written from golden.
    case recoveryStarted(slot: FirmwareSlot)
    /// The slot holds what golden holds; or, with a reason, could not be written, and golden itself is tried again.
    case recoveryComplete(slot: FirmwareSlot, failure: String?)
    case bootFailed(slot: FirmwareSlot, reason: String)
    /// The BMC wrote an authenticated image into the slot: the next power cycle tries it.
    case updateStaged(slot: FirmwareSlot)
    case boardLocked
    case boardFailed(image: String, reason: String)

    /// The event's QMP name.
    public var name: String {
        switch self {
        case .resetAsserted: "RESET_ASSERTED"
        case .resetReleased: "RESET_RELEASED"
        case .firmwareVerifying: "FIRMWARE_VERIFYING"
        case .firmwareVerified: "FIRMWARE_VERIFIED"
        case .slotRefused: "SLOT_REFUSED"
        case .firmwareRefused: "FIRMWARE_REFUSED"
        case .recoveryStarted: "RECOVERY_STARTED"
        case .recoveryComplete: "RECOVERY_COMPLETE"
        case .bootFailed: "BOOT_FAILED"
        case .updateStaged: "UPDATE_STAGED"
        case .boardLocked: "BOARD_LOCKED"
        case .boardFailed: "BOARD_FAILED"
        }
    }
}

extension SecurityState: CustomStringConvertible {
    public var description: String {
        switch self {
        case .held: "held"
        case .verifying: "verifying"
        case .released: "released"
        case .locked: "locked"
        case .failed: "failed"
        }
    }
}
