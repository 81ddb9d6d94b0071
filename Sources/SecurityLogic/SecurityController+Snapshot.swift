public import Sideband
public import Trust

extension SecurityController {
    /// The sequence as others may look at it.
    public struct Snapshot: Sendable {
        public let state: SecurityState
        public let mode: SecurityRequest.Mode
        public let released: Set<HeldComponent>
        public let settings: SecuritySettings
        public let imageName: String?
        public let failureReason: String?
        /// The slot that runs; nil while none does.
        public let slot: FirmwareSlot?
        /// SHA-384 of the manifest of the slot that runs; empty while none does.
        public let manifestDigest: [UInt8]
        /// The slots that were refused since power came.
        public let refusals: [SlotRefusal]
        public let record: BootRecord
        public let isBootConfirmed: Bool
        public let isRecovering: Bool
        public let fuses: Fuses
        public let log: MeasurementLog
        /// Whether host and BMC may talk to each other.
        public let isBridged: Bool
        /// MCTP packets between host and BMC that passed, and that did not.
        public let forwardedPackets: UInt64
        public let droppedPackets: UInt64
        /// The chip's bytes that host, BMC and cards see; nil while nothing runs.
        let slotRange: Range<UInt64>?

        init(_ sequencer: SecuritySequencer, chipSize: UInt64?, _ bridge: Bridge) {
            state = sequencer.state
            mode = sequencer.mode
            released = sequencer.released
            settings = sequencer.settings
            imageName = sequencer.imageName
            failureReason = sequencer.failureReason
            slot = sequencer.runningSlot
            manifestDigest = sequencer.runningDigest
            refusals = sequencer.refusals
            record = sequencer.record
            isBootConfirmed = sequencer.isBootConfirmed
            isRecovering = sequencer.isRecovering
            fuses = sequencer.fuses
            log = sequencer.log
            isBridged = sequencer.isBridged
            forwardedPackets = bridge.forwarded
            droppedPackets = bridge.dropped
            // A verifier has read the chip through the gate: its size is known whenever something runs.
            slotRange = sequencer.runningSlot.flatMap { slot in
                chipSize.flatMap { try? ChipLayout(chipSize: $0) }.map { $0.range(of: slot) }
            }
        }

        /// The moment as the flash gate's rules know it.
        var flashPhase: FlashPhase {
            switch state {
            case .held: .held
            case .verifying: mode == .unprotected ? .unprotected : .verifying
            case .released: .released
            case .locked: .locked
            case .failed: .failed
            }
        }
    }
}
