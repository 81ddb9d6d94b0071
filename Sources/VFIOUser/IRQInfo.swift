/// DEVICE_GET_IRQ_INFO: how many interrupts of one type there are. Request and reply have the same layout.
///
///     0   argsz u32   16
///     4   flags u32   reply: bit 0 eventfd, 1 maskable, 2 masks itself, 3 set as a whole
///     8   index u32   the type: 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request
///     12  count u32   reply
///
/// Spec: vfio-user VFIO_USER_DEVICE_GET_IRQ_INFO.
public struct IRQInfo: Hashable, Sendable {
    public static let size = 16

    public var flags: UInt32
    public var index: UInt32
    public var count: UInt32

    public static let eventfd: UInt32 = 1 << 0
    public static let maskable: UInt32 = 1 << 1
    public static let automasked: UInt32 = 1 << 2
    public static let noResize: UInt32 = 1 << 3

    public init(index: UInt32, flags: UInt32 = 0, count: UInt32 = 0) {
        self.flags = flags
        self.index = index
        self.count = count
    }

    /// Reads a request's type. Refused: a payload or argsz below 16 bytes.
    public static func request(_ payload: RawSpan) throws(ErrorNumber) -> UInt32 {
        guard payload.byteCount >= size, payload.uint32(at: 0) >= UInt32(size) else { throw .invalid }
        return payload.uint32(at: 8)
    }

    /// Reads a reply. Refused: a payload below 16 bytes.
    public init(reply payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= IRQInfo.size else { throw .invalid }
        flags = payload.uint32(at: 4)
        index = payload.uint32(at: 8)
        count = payload.uint32(at: 12)
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: UInt32(IRQInfo.size), toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: index, toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: count, toByteOffset: 12, as: UInt32.self)
    }
}
