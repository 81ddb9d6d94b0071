internal import Sideband
internal import Synchronization
internal import Trust
internal import Wire

/// The shell of `FirmwareUpdate`: a thread of its own, since a chip takes its time, and the chip.
final class UpdateService: Sendable {
    private struct State {
        var update: FirmwareUpdate?
        var queue: EventLoop?
    }

    private let chip: FlashChip
    private let state = Mutex(State())

    init(_ chip: FlashChip) { self.chip = chip }

    /// Answers a command from a thread of its own, in the order of the commands.
    ///
    /// - Parameters:
    ///   - inactive: the slot that may be written; nil while none may.
    ///   - reply: gets the answer, and the slot that was staged by the command.
    func handle(
        _ request: UpdateRequest, inactive: FirmwareSlot?, fuses: Fuses,
        reply: @escaping @Sendable (UpdateResponse, _ staged: FirmwareSlot?) -> Void
    ) {
        let queue: EventLoop
        do throws(WireError) { queue = try self.queue() } catch {
            return reply(.refused(command: request.command, .refused, reason: error.description), nil)
        }
        queue.perform { [self] in
            do throws(ImageReadError) {
                var medium = try FlashChipMedium(chip)
                let known = state.withLock { $0.update }
                var update = if let known { known } else { try Self.update(medium.byteCount) }
                let wasStaged = update.state == .staged
                let response = update.handle(request, inactive: inactive, fuses: fuses, medium: &medium)
                state.withLock { $0.update = update }
                reply(response, update.state == .staged && !wasStaged ? update.slot : nil)
            } catch {
                reply(.refused(command: request.command, .refused, reason: error.description), nil)
            }
        }
    }

    private static func update(_ size: UInt64) throws(ImageReadError) -> FirmwareUpdate {
        do throws(ChipLayoutError) { return FirmwareUpdate(layout: try ChipLayout(chipSize: size)) } catch {
            throw ImageReadError(error.description)
        }
    }

    /// The slot that was staged cannot be tried after all.
    func refuse(_ reason: String) {
        let queue = state.withLock { $0.queue }
        queue?.perform { [self] in state.withLock { $0.update?.refuse(reason) } }
    }

    /// Power was cycled: what was not finished is gone.
    func abandon() {
        let queue = state.withLock { $0.queue }
        queue?.perform { [self] in state.withLock { $0.update?.abandon() } }
    }

    /// The thread is there from the first command on.
    private func queue() throws(WireError) -> EventLoop {
        try state.withLock { state throws(WireError) in
            if let queue = state.queue { return queue }
            let queue = try EventLoop()
            state.queue = queue
            WorkerThread("updater") { queue.run() }
            return queue
        }
    }
}
