// A capture of links into a pcapng file, through the taps on them.

import Synchronization
public import Wire

/// A pcapng file that links are recorded into while they run. One file takes many links, each an interface of its own.
///
/// Every packet is written as it passes, so that the file is complete at any moment, after a crash too. A full disk ends
/// the capture, not the link.
public final class PcapngCapture: Sendable {
    private struct State {
        var writer = PcapngWriter()
        var failure: WireError?
    }

    private let file: Descriptor
    private let path: String
    private let state: Mutex<State>

    /// Begins a new file at `path`, replacing one that is there.
    public init(path: String) throws(WireError) {
        // O_WRONLY | O_CREAT | O_TRUNC
        file = try Descriptor.open(path, flags: 0o1101, mode: 0o644)
        self.path = path
        state = Mutex(State())
        try state.withLock { state throws(WireError) in try write(&state) }
    }

    /// The error that ended the capture, if one did.
    public var failure: WireError? { state.withLock { $0.failure } }

    /// An observer that records one link under `name`; insert it into the link's tap.
    public func observer(named name: String) -> any LinkObserver {
        let interface = state.withLock { state in
            let interface = state.writer.addInterface(named: name)
            save(&state)
            return interface
        }
        return Observer(capture: self, interface: interface)
    }

    private final class Observer: LinkObserver {
        let capture: PcapngCapture
        let interface: UInt32

        init(capture: PcapngCapture, interface: UInt32) {
            self.capture = capture
            self.interface = interface
        }

        func message(_ bytes: UnsafeRawBufferPointer, _ direction: LinkDirection) -> LinkVerdict {
            // Safety: the bytes are valid for the time of this call, and the span does not outlive it.
            let frame = unsafe Span<UInt8>(_unsafeBytes: bytes)
            capture.record(frame, interface, direction == .received ? .inbound : .outbound)
            return .pass
        }
    }

    private func record(_ frame: Span<UInt8>, _ interface: UInt32, _ direction: CaptureDirection) {
        let time = wallClockNanoseconds()
        state.withLock { state in
            guard state.failure == nil else { return }
            state.writer.append(frame, time: time, interface: interface, direction: direction)
            save(&state)
        }
    }

    private func save(_ state: inout State) {
        guard state.failure == nil else { return }
        do throws(WireError) { try write(&state) } catch { state.failure = error }
    }

    private func write(_ state: inout State) throws(WireError) {
        var bytes: [UInt8] = []
        state.writer.take { span in
            bytes.reserveCapacity(span.count)
            // Safety: the span's bytes are only read, within the closure, and the array copies them.
            unsafe span.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        }
        try file.writeAll(bytes, subject: path)
    }
}
