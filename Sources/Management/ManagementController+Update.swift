// The shell of `UpdateAgent`: MCTP over the sideband, on the loop's thread.

import Sideband
import Synchronization
import Wire

extension ManagementController {
    /// The longest that the logic may take over one command: verifying a slot takes less than a second, an erase as long as
    /// the chip's data sheet says.
    private static let updateTimeout = Duration.seconds(60)
    /// Bytes of a packet's payload: the sideband is a local wire, more than the baseline is allowed.
    private static let updateUnit = MCTPPacket.maximumPayload

    /// Where an update stands, for queries.
    public var update: UpdateAgent { state.withLock { $0.update } }

    /// Begins to hand `image`, a slot image, to the security logic. Any thread.
    public func updateFirmware(_ image: [UInt8]) throws(UpdateAgent.Refusal) {
        let isConnected = powerLine?.isConnected ?? false
        let request = try state.withLock { state throws(UpdateAgent.Refusal) in
            guard state.isRunning else { throw .held }
            guard isConnected else { throw .notConnected }
            return try state.update.start(image)
        }
        loop.perform { [self] in send(request) }
    }

    /// Takes a packet that came on the sideband.
    func takePacket(_ packet: MCTPPacket) {
        let (request, isActive) = state.withLock { state -> (UpdateRequest?, Bool) in
            guard let message = state.assembler.receive(packet), !message.isTagOwner, message.tag == state.updateTag,
                let response = UpdateResponse(decoding: message.body)
            else { return (nil, state.update.isActive) }
            return (state.update.handle(response), state.update.isActive)
        }
        if let request { return send(request) }
        if !isActive { setUpdateTimer(nil) }
        tellUpdate()
    }

    /// The update ends here, if there is one.
    func failUpdate(_ reason: String) {
        state.withLock { $0.update.fail(reason) }
        setUpdateTimer(nil)
        tellUpdate()
    }

    private func send(_ request: UpdateRequest) {
        let tag = state.withLock { state in
            state.updateTag = (state.updateTag + 1) & 7
            return state.updateTag
        }
        guard let line = powerLine, line.isConnected else { return failUpdate("the security logic is gone") }
        let message = MCTPMessage(
            destination: .securityLogic, source: .bmc, isTagOwner: true, tag: tag, body: request.encoded)
        do throws(WireError) {
            try line.send(message, unit: Self.updateUnit)
        } catch {
            return failUpdate("the security logic: \(error)")
        }
        setUpdateTimer(
            loop.schedule(at: .after(Self.updateTimeout)) { [weak self] in
                self?.failUpdate("the security logic did not answer \(request.name) within \(Self.updateTimeout)")
            })
    }

    /// There is one timer at most: that of the command that waits for its answer.
    private func setUpdateTimer(_ timer: EventLoop.Timer?) {
        let old = state.withLock { state in
            defer { state.updateTimer = timer }
            return state.updateTimer
        }
        if let old { loop.cancel(old) }
    }

    /// Tells the end of an update once.
    private func tellUpdate() {
        let event = state.withLock { state -> Event? in
            guard state.updateTold != state.update.phase else { return nil }
            state.updateTold = state.update.phase
            switch state.update.phase {
            case .staged: return .updateStaged
            case .failed: return .updateFailed(reason: state.update.reason)
            default: return nil
            }
        }
        if let event { emit(event) }
    }
}
