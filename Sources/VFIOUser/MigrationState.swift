/// What a device does with its state: the migration state machine's states, and the ways between them.
///
/// Spec: vfio-user VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE; <linux/vfio.h> enum vfio_device_mig_state.
public enum MigrationState: UInt32, Hashable, Sendable, CaseIterable {
    /// The device has failed; only a reset leads out.
    case error = 0
    /// Neither the device nor anything it touches changes.
    case stop = 1
    case running = 2
    /// Stopped, and its state can be read.
    case stopCopy = 3
    /// Stopped, and its state is being written.
    case resuming = 4
    /// Not used in vfio-user.
    case runningPeerToPeer = 5
    /// Running, and its state can be read as it is so far.
    case preCopy = 6
    /// Not used in vfio-user.
    case preCopyPeerToPeer = 7

    /// Whether the state can be read.
    public var isSaving: Bool { self == .stopCopy || self == .preCopy }

    /// The states one step away.
    private func next(preCopy: Bool) -> [MigrationState] {
        switch self {
        case .stop: [.running, .stopCopy, .resuming]
        case .running: preCopy ? [.stop, .preCopy] : [.stop]
        case .stopCopy, .resuming: [.stop]
        case .preCopy: preCopy ? [.running, .stopCopy] : []
        case .error, .runningPeerToPeer, .preCopyPeerToPeer: []
        }
    }

    /// The steps to another state, the last of which is that state; nil where no way leads.
    ///
    /// The shortest way that passes no saving state on it. Nothing leads to `error` or out of it, and from `stopCopy` to
    /// `preCopy` nothing does by decree.
    public func path(to target: MigrationState, preCopy: Bool) -> [MigrationState]? {
        if target == self, self != .error { return [] }
        if self == .stopCopy, target == .preCopy { return nil }
        var seen: Set<MigrationState> = [self]
        var paths = next(preCopy: preCopy).map { [$0] }
        while !paths.isEmpty {
            if let found = paths.first(where: { $0.last == target }) { return found }
            var longer: [[MigrationState]] = []
            for path in paths {
                guard let end = path.last, seen.insert(end).inserted, !end.isSaving else { continue }
                longer += end.next(preCopy: preCopy).map { path + [$0] }
            }
            paths = longer
        }
        return nil
    }
}

/// VFIO_DEVICE_FEATURE_MIGRATION: which states a device has, u64.
public enum MigrationFlags {
    public static let size = 8
    /// STOP, STOP_COPY and RESUMING.
    public static let stopCopy: UInt64 = 1 << 0
    public static let peerToPeer: UInt64 = 1 << 1
    public static let preCopy: UInt64 = 1 << 2
}

/// MIG_DATA_READ and MIG_DATA_WRITE: a piece of a device's state.
///
///     0   argsz u32   read's request: the most the reply may have; reply: of the whole payload
///     4   size  u32   of the data: wanted, or here
///     8   data        in a write's request and a read's reply
///
/// A reply with less than was wanted says that there is no more. A write's reply has no payload.
/// Spec: vfio-user VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE.
public struct MigrationData: Hashable, Sendable {
    public static let size = 8

    public var argsz: UInt32
    public var count: UInt32

    public init(argsz: UInt32, count: UInt32) {
        self.argsz = argsz
        self.count = count
    }

    /// Reads a read's request. Refused: a payload of another length, no room for the wanted data in the reply.
    public init(read payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount == MigrationData.size else { throw .invalid }
        argsz = payload.uint32(at: 0)
        count = payload.uint32(at: 4)
        guard UInt64(argsz) >= UInt64(MigrationData.size) + UInt64(count) else { throw .invalid }
    }

    /// Reads a read's reply. Refused: a payload below 8 bytes or shorter than the data. It may be longer: libvfio-user
    /// pads what it read to what was wanted.
    public init(reply payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= MigrationData.size else { throw .invalid }
        argsz = payload.uint32(at: 0)
        count = payload.uint32(at: 4)
        guard UInt64(count) <= UInt64(payload.byteCount - MigrationData.size) else { throw .invalid }
    }

    /// Reads a write's request. Refused: a payload that is not exactly the data.
    public init(withData payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= MigrationData.size else { throw .invalid }
        argsz = payload.uint32(at: 0)
        count = payload.uint32(at: 4)
        guard UInt64(payload.byteCount - MigrationData.size) == UInt64(count) else { throw .invalid }
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: argsz, toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: count, toByteOffset: 4, as: UInt32.self)
    }
}
