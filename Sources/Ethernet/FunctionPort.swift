// A switch's port whose other end is in this process: a network function of the card that the switch is in.

import Synchronization
public import Wire

/// What frames go to without a socket between: a function's receive queues.
public protocol FrameSink: AnyObject, Sendable {
    /// Takes those frames of a stage that leave by `port` (nil: all). Returns how many it took and their bytes; the
    /// others are lost. Called on the switch's thread.
    func take(_ stage: FrameStage, leavingBy port: SwitchPort?) -> (frames: Int, bytes: Int)
}

/// What a switch needs of a port.
public protocol SwitchedPort: AnyObject, Sendable {
    /// As in the component's port list.
    var name: String { get }
    /// Where a capture or an impairment is put in.
    var tap: LinkTap { get }
    var isUp: Bool { get }
    var statistics: PortStatistics { get }
    /// Counts frames that came in by this port and went nowhere.
    func countDropped(_ frames: Int)
    /// Queues one frame; `flush` sends. False, and a drop is counted, when there is no room.
    @discardableResult
    func enqueue(_ frame: Span<UInt8>) -> Bool
    func flush()
    /// Sends those frames of a stage that leave by `port`, which is this one.
    func deliver(_ stage: FrameStage, leavingBy port: SwitchPort)
}

extension SwitchedPort {
    public func deliver(_ stage: FrameStage, leavingBy port: SwitchPort) {
        for index in 0..<stage.count where stage.leaves(index, by: port) {
            stage.withFrame(index) { _ = enqueue($0) }
        }
        flush()
    }
}

extension EthernetPort: SwitchedPort {}

/// A port of a `SwitchFabric` joined to a function in this process. Made by the fabric.
///
/// All calls but the queries come on the thread of the fabric's loop, which is the functions' worker too.
public final class FunctionPort: SwitchedPort {
    public let name: String
    public let tap = LinkTap()
    private let loop: EventLoop
    private let counters = PortCounters()
    private let up = Atomic<Bool>(false)

    struct Handlers: Sendable {
        /// Frames came from the function.
        var frames: @Sendable (FrameStage) -> Void
        var link: @Sendable (Bool) -> Void
    }
    private let handlers = Mutex<Handlers?>(nil)

    // Safety: unchecked because only the loop's thread uses it once the port is in use.
    private final class Working: @unchecked Sendable {
        weak var sink: (any FrameSink)?
        /// Frames that came one by one, until `flush`.
        let waiting = FrameStage()
        /// Frames that a tap let pass or put in.
        let tapped = FrameStage()
    }
    private let working = Working()

    init(named name: String, loop: EventLoop) {
        self.name = name
        self.loop = loop
    }

    func start(_ handlers: Handlers) { self.handlers.withLock { $0 = handlers } }

    /// Joins the function; before its first frame. The port does not keep it.
    public func join(_ sink: any FrameSink) { working.sink = sink }

    public var isUp: Bool { up.load(ordering: .acquiring) }
    public var statistics: PortStatistics { counters.statistics }
    public func countDropped(_ frames: Int) { counters.add(frames, to: .receivedDropped) }

    /// The function's driver is there, or went. The switch learns of it in the loop's next turn: the call may come in
    /// the middle of a batch, with the switch busy.
    public func setLink(_ isUp: Bool) {
        guard up.exchange(isUp, ordering: .acquiringAndReleasing) != isUp else { return }
        loop.perform { [weak self] in self?.handlers.withLock { $0 }?.link(isUp) }
    }

    /// Frames that the function sends. The stage is the caller's again afterwards.
    public func transmit(_ stage: FrameStage) {
        guard !stage.isEmpty, let handlers = handlers.withLock({ $0 }) else { return }
        var bytes = 0
        for index in 0..<stage.count { bytes &+= stage.length(index) }
        counters.add(stage.count, to: .receivedFrames)
        counters.add(bytes, to: .receivedBytes)
        guard tap.isActive else { return handlers.frames(stage) }
        throughTap(stage, .received, leavingBy: nil) { handlers.frames($0) }
    }

    public func deliver(_ stage: FrameStage, leavingBy port: SwitchPort) { send(stage, leavingBy: port) }

    public func enqueue(_ frame: Span<UInt8>) -> Bool {
        if !working.waiting.hasRoom { flush() }
        return working.waiting.append(frame)
    }

    public func flush() {
        guard !working.waiting.isEmpty else { return }
        send(working.waiting, leavingBy: nil)
        working.waiting.removeAll()
    }

    private func send(_ stage: FrameStage, leavingBy port: SwitchPort?) {
        guard tap.isActive else { return give(stage, leavingBy: port) }
        throughTap(stage, .sent, leavingBy: port) { give($0, leavingBy: nil) }
    }

    private func give(_ stage: FrameStage, leavingBy port: SwitchPort?) {
        var wanted = 0
        for index in 0..<stage.count where stage.leaves(index, by: port) { wanted &+= 1 }
        guard isUp, let sink = working.sink else { return counters.add(wanted, to: .sentDropped) }
        let taken = sink.take(stage, leavingBy: port)
        counters.add(taken.frames, to: .sentFrames)
        counters.add(taken.bytes, to: .sentBytes)
        if taken.frames < wanted { counters.add(wanted &- taken.frames, to: .sentDropped) }
    }

    // MARK: Tap

    /// Shows the tap each frame that leaves by `port` and hands on what it lets pass.
    private func throughTap(
        _ stage: FrameStage, _ direction: LinkDirection, leavingBy port: SwitchPort?, _ hand: (FrameStage) -> Void
    ) {
        let passed = working.tapped
        func pass(_ frame: Span<UInt8>) {
            if !passed.hasRoom {
                hand(passed)
                passed.removeAll()
            }
            _ = passed.append(frame)
        }
        passed.removeAll()
        for index in 0..<stage.count where stage.leaves(index, by: port) {
            let isCut = stage.withFrame(index) { frame in
                // Safety: the span's bytes are valid for the time of this call.
                switch unsafe frame.withUnsafeBytes({ unsafe tap.inspect($0, direction) }) {
                case .pass: pass(frame)
                case .drop: break
                case .replace(let others): for other in others { pass(other.span) }
                case .disconnect: return true
                }
                return false
            }
            if isCut {
                flap()
                break
            }
        }
        if !passed.isEmpty { hand(passed) }
        passed.removeAll()
    }

    /// A cut link: down, and up again in the loop's next turn, as a link is that is made again at once.
    private func flap() {
        guard isUp else { return }
        setLink(false)
        loop.perform { [weak self] in self?.setLink(true) }
    }
}
