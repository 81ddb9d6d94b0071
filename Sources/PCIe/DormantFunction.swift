internal import Synchronization
internal import VFIOUser
internal import Wire

/// A function behind a root port whose device is there and answers nothing: it is in reset, as in a slot whose PERST# is
/// asserted. What it is will be asked when it answers.
final class DormantFunction: Sendable {
    let client: VFIOUserClient
    let host: AttachedFunction.Host
    /// The device says here that it may answer now.
    private let notifier: EventNotifier?
    /// Held by who asks the device; what is in it: that another function took this one's place, and the last complaint.
    private let turn = Mutex((isOver: false, complaint: ""))

    init(_ client: VFIOUserClient, host: AttachedFunction.Host) {
        self.client = client
        self.host = host
        let index = Int(InterruptTable.Kind.error.rawValue)
        let hasErrors = client.interrupts.indices.contains(index) && client.interrupts[index].count > 0
        notifier = hasErrors ? try? EventNotifier() : nil
    }

    /// Whether a device answers nothing: its identity reads as all ones.
    static func isDormant(_ client: VFIOUserClient) -> Bool {
        let index = Int(Endpoint.configurationRegion)
        guard client.regions.indices.contains(index), client.regions[index].length >= 4 else { return false }
        let identity = client.read(region: Endpoint.configurationRegion, offset: 0, width: 4)
        return identity == 0xFFFF_FFFF && !client.isGone
    }

    /// Begins to attend to the device: `body` is called on the loop's thread when it says that something changed.
    func watch(_ body: @escaping @Sendable () -> Void) {
        guard let notifier else { return }
        turn.withLock { turn in
            // The function that it became has its own.
            guard !turn.isOver, (try? client.setInterrupts(.error, notifiers: [notifier])) != nil else { return }
            try? host.loop.add(notifier.descriptor) { _ in if notifier.drain() { body() } }
        }
    }

    /// Stops attending to the device.
    func end() { if let notifier { host.loop.remove(notifier.descriptor) } }

    /// Asks the device what it is, and puts the function that it turns out to be in place by `insert`, which says
    /// whether it is. Once; while the device does not answer nothing happens.
    func wake(_ insert: (AttachedFunction) -> Bool) {
        turn.withLock { turn in
            guard !turn.isOver, !client.isGone, !Self.isDormant(client) else { return }
            do throws(VFIOUserError) {
                let function = try AttachedFunction(client, host: host)
                turn.isOver = true
                end()
                if !insert(function) { function.detach() }
            } catch {
                let text = "it left reset and cannot be used: \(error)"
                if !client.isGone, turn.complaint != text { host.log(text) }
                turn.complaint = text
            }
        }
    }
}
