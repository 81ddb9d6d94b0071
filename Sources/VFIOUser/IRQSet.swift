/// DEVICE_SET_IRQS: what shall happen to, or on, a range of interrupts. The reply has no payload.
///
///     0   argsz u32   20 and the data
///     4   flags u32   one of bits 0–2 (data: none, bool, eventfd) and one of bits 3–5 (mask, unmask, trigger)
///     8   index u32   the type of interrupt
///     12  start u32
///     16  count u32   0 with start 0, no data and trigger: all interrupts of the type are taken away
///     20  data        bool: a byte an interrupt; eventfd: nothing, the descriptors are passed along, all or none
///
/// Descriptors of the eventfd form without any passed descriptor take those interrupts away.
/// Spec: vfio-user VFIO_USER_DEVICE_SET_IRQS.
public struct IRQSet: Hashable, Sendable {
    public static let size = 20

    public enum Data: UInt32, Sendable {
        case none = 1
        case bool = 2
        case eventfd = 4
    }

    public enum Action: UInt32, Sendable {
        case mask = 8
        case unmask = 16
        case trigger = 32
    }

    public var data: Data
    public var action: Action
    public var index: UInt32
    public var start: UInt32
    public var count: UInt32

    public init(data: Data, action: Action, index: UInt32, start: UInt32, count: UInt32) {
        self.data = data
        self.action = action
        self.index = index
        self.start = start
        self.count = count
    }

    /// Reads a request that came with so many descriptors. Refused: a payload or argsz below 20 bytes, not exactly
    /// one data and one action bit, unknown flags, a range that wraps, a bool array of another length than the range,
    /// descriptors with another data form or of another number than the range, an empty range that is not the
    /// "take all away" form.
    public init(_ payload: RawSpan, descriptors: Int) throws(ErrorNumber) {
        guard payload.byteCount >= IRQSet.size, payload.uint32(at: 0) >= UInt32(IRQSet.size) else { throw .invalid }
        let flags = payload.uint32(at: 4)
        guard let data = Data(rawValue: flags & 7), let action = Action(rawValue: flags & 0x38), flags & ~0x3F == 0
        else { throw .invalid }
        self.data = data
        self.action = action
        index = payload.uint32(at: 8)
        start = payload.uint32(at: 12)
        count = payload.uint32(at: 16)
        guard !start.addingReportingOverflow(count).overflow else { throw .invalid }
        if count == 0 {
            guard start == 0, data == .none, action == .trigger, descriptors == 0 else { throw .invalid }
        }
        if data == .bool {
            guard UInt64(payload.byteCount - IRQSet.size) == UInt64(count) else { throw .invalid }
        }
        if data == .eventfd {
            guard descriptors == 0 || UInt64(descriptors) == UInt64(count) else { throw .invalid }
        } else {
            guard descriptors == 0 else { throw .invalid }
        }
    }

    /// Writes a request without its bool data.
    public func encode(into payload: inout MutableRawSpan) {
        let extra = data == .bool ? count : 0
        payload.storeBytes(of: UInt32(IRQSet.size) &+ extra, toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: data.rawValue | action.rawValue, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: index, toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: start, toByteOffset: 12, as: UInt32.self)
        payload.storeBytes(of: count, toByteOffset: 16, as: UInt32.self)
    }
}
