/// DEVICE_FEATURE: get, set or probe a feature (migration, dirty-page logging).
///
///     0   argsz u32
///     4   flags u32   bits 0–15 feature, 16 get, 17 set, 18 probe
///     8   data
///
/// This side has no features yet: a well-formed request is answered ENOTSUP. Spec: vfio-user
/// VFIO_USER_DEVICE_FEATURE.
public struct DeviceFeature: Hashable, Sendable {
    public static let size = 8

    public var argsz: UInt32
    public var flags: UInt32

    public static let get: UInt32 = 1 << 16
    public static let set: UInt32 = 1 << 17
    public static let probe: UInt32 = 1 << 18

    public var feature: UInt16 { UInt16(truncatingIfNeeded: flags) }

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
}
