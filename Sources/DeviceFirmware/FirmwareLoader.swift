// How a device gets its firmware when its reset is released: by serprog through the security logic, which shows it the
// verified slot from address 0 and compares every page with what was verified. Nothing of it happens on the loop's thread.

internal import Serprog
internal import Synchronization
public import Wire

/// Why a device did not get its firmware.
public enum FirmwareLoadError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The way to the flash failed.
    case unreadable(String)
    case refused(FirmwarePackageError)

    public var description: String {
        switch self {
        case .unreadable(let why): "the flash port: \(why)"
        case .refused(let error): error.description
        }
    }
}

/// Reads a device's firmware package out of the flash, once for each release of its reset.
public final class FirmwareLoader: Sendable {
    public typealias Outcome = Result<LoadedFirmware, FirmwareLoadError>

    /// The longest that loading may take: a chip or a logic that stopped is what it is for. A package comes within a
    /// millisecond, and within some tens from a chip that a fault makes slow.
    public static let timeout = Duration.seconds(5)
    /// Bytes read first: the page that the logic compares as a whole, which holds all of a usual package.
    private static let firstRead = 4096

    private struct State {
        /// Grows with every load; what an older one brings is dropped.
        var number: UInt64 = 0
        var socket: Socket?
        var hasTimedOut = false
    }

    private let target: DeviceTarget
    private let loop: EventLoop
    private let timeout: Duration
    private let path: String?
    private let state = Mutex(State())

    /// - Parameter path: the logic's flash port, connected to anew for each load; nil for a device that has no such port
    ///   and runs what it has built in.
    public init(_ target: DeviceTarget, loop: EventLoop, timeout: Duration = timeout, path: String?) {
        self.target = target
        self.loop = loop
        self.timeout = timeout
        self.path = path
    }

    /// Begins to load; an earlier load that is under way is given up. On the loop's thread.
    ///
    /// - Parameter done: called once on the loop's thread, unless `cancel` or another `load` comes first; before this
    ///   returns when there is no port to load by.
    public func load(_ done: @escaping @Sendable (Outcome) -> Void) {
        let number = abandon()
        guard let path else { return done(.success(.builtIn)) }
        WorkerThread("firmware") { [self] in
            let outcome = read(number, path)
            loop.perform { [self] in
                guard state.withLock({ $0.number == number }) else { return }
                done(outcome)
            }
        }
    }

    /// Gives a load up that is under way.
    public func cancel() { _ = abandon() }

    private func abandon() -> UInt64 {
        let (socket, number) = state.withLock { state in
            state.number += 1
            defer { state.socket = nil }
            return (state.socket, state.number)
        }
        socket?.shutdown()
        return number
    }

    // MARK: On the loading thread

    private func read(_ number: UInt64, _ path: String) -> Outcome {
        let socket: Socket
        do throws(WireError) { socket = try Socket.connect(to: path) } catch {
            return .failure(.unreadable(error.description))
        }
        defer { socket.shutdown() }
        let isWanted = state.withLock { state in
            guard state.number == number else { return false }
            state.socket = socket
            state.hasTimedOut = false
            return true
        }
        guard isWanted else { return .failure(.unreadable("it was given up")) }
        let watchdog = loop.schedule(at: .after(timeout)) { [weak self] in
            self?.state.withLock { state in if state.number == number { state.hasTimedOut = true } }
            socket.shutdown()
        }
        defer { loop.cancel(watchdog) }
        do throws(FirmwareLoadError) {
            return .success(try package(socket).map { LoadedFirmware($0) } ?? .builtIn)
        } catch {
            let isLate = state.withLock { $0.number == number && $0.hasTimedOut }
            return .failure(isLate ? .unreadable("no answer within \(timeout)") : error)
        }
    }

    /// Nil where the flash is erased.
    private func package(_ socket: Socket) throws(FirmwareLoadError) -> FirmwarePackage? {
        let client = try wire { () throws(SerprogError) in try SerprogClient(socket: socket) }
        let start = target.place.lowerBound
        var bytes = try wire { () throws(SerprogError) in
            try client.readFlash(offset: start, count: Self.firstRead)
        }
        guard
            case .package(let count) = try packaged({ () throws(FirmwarePackageError) in
                try FirmwarePackage.Header(bytes, for: target)
            })
        else {
            // A line that nobody drives reads like an erased chip: that of a chip that is gone, or that the logic has cut off
            // because what it holds is no longer what was verified.
            let identification = try wire { () throws(SerprogError) in
                try client.spiTransaction(write: [SPIFlash.readIdentification], readCount: 3)
            }
            guard identification != [0xFF, 0xFF, 0xFF] else { throw .unreadable("no flash chip answers") }
            return nil
        }
        if count > bytes.count {
            let (place, left) = (start + UInt32(bytes.count), count - bytes.count)
            bytes += try wire { () throws(SerprogError) in try client.readFlash(offset: place, count: left) }
        }
        return try packaged { () throws(FirmwarePackageError) in
            try FirmwarePackage(at: bytes, for: target)
        }
    }

    private func packaged<Value>(
        _ body: () throws(FirmwarePackageError) -> Value
    ) throws(FirmwareLoadError) -> Value {
        do throws(FirmwarePackageError) { return try body() } catch { throw .refused(error) }
    }

    private func wire<Value>(_ body: () throws(SerprogError) -> Value) throws(FirmwareLoadError) -> Value {
        do throws(SerprogError) { return try body() } catch { throw .unreadable(error.description) }
    }
}
