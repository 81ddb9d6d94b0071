/// DEVICE_FEATURE: get, set or probe a feature (migration, dirty-page logging).
///
///     0   argsz u32   request: the most the reply may have; reply: what a full reply has
///     4   flags u32   bits 0–15 feature, 16 get, 17 set, 18 probe
///     8   data        of the feature; none in a probe
///
/// A reply to set and probe repeats the request; one to get adds the data. Spec: vfio-user VFIO_USER_DEVICE_FEATURE.
public struct DeviceFeature: Hashable, Sendable {
    public static let size = 8

    public var argsz: UInt32
    public var flags: UInt32

    public static let get: UInt32 = 1 << 16
    public static let set: UInt32 = 1 << 17
    public static let probe: UInt32 = 1 << 18

    /// The number of a feature; one that this version does not know is representable.
    public struct Index: RawRepresentable, Hashable, Sendable {
        public var rawValue: UInt16

        public init(rawValue: UInt16) { self.rawValue = rawValue }

        public static let migration = Index(rawValue: 1)
        public static let deviceState = Index(rawValue: 2)
        public static let loggingStart = Index(rawValue: 6)
        public static let loggingStop = Index(rawValue: 7)
        public static let loggingReport = Index(rawValue: 8)
    }

    public var feature: Index { Index(rawValue: UInt16(truncatingIfNeeded: flags)) }
    /// `get`, `set` and `probe` of the flags.
    public var operations: UInt32 { flags & (DeviceFeature.get | DeviceFeature.set | DeviceFeature.probe) }

    public init(_ feature: Index, operations: UInt32, argsz: UInt32) {
        flags = UInt32(feature.rawValue) | operations
        self.argsz = argsz
    }

    /// Refused: a payload or argsz below 8 bytes, unknown flags, no operation, get and set without probe.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DeviceFeature.size, payload.uint32(at: 0) >= UInt32(DeviceFeature.size) else {
            throw .invalid
        }
        argsz = payload.uint32(at: 0)
        flags = payload.uint32(at: 4)
        let operations = flags & (DeviceFeature.get | DeviceFeature.set | DeviceFeature.probe)
        guard flags >> 19 == 0, operations != 0, operations != DeviceFeature.get | DeviceFeature.set else {
            throw .invalid
        }
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: argsz, toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
    }
}
