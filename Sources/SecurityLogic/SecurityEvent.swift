public import Sideband

/// The components that the logic holds in reset.
public enum HeldComponent: String, CaseIterable, Sendable, Hashable {
    case bmc
    case host
}

/// What the logic tells the launcher: the QMP events of docs/wiring.md, "Events".
public enum SecurityEvent: Sendable, Hashable {
    case resetAsserted(HeldComponent)
    case resetReleased(HeldComponent)
    case firmwareVerifying
    case firmwareVerified(image: String, securityVersion: UInt32, digest: [UInt8])
    case firmwareRefused(image: String, reason: String)
    case boardLocked
    case boardFailed(image: String, reason: String)

    /// The event's QMP name.
    public var name: String {
        switch self {
        case .resetAsserted: "RESET_ASSERTED"
        case .resetReleased: "RESET_RELEASED"
        case .firmwareVerifying: "FIRMWARE_VERIFYING"
        case .firmwareVerified: "FIRMWARE_VERIFIED"
        case .firmwareRefused: "FIRMWARE_REFUSED"
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
