/// DEVICE_GET_INFO: what kind of device this is. Request and reply have the same layout.
///
///     0   argsz       u32   16
///     4   flags       u32   reply: bit 0 has reset, 1 is a PCI device
///     8   num_regions u32   reply
///     12  num_irqs    u32   reply: interrupt types
///
/// Spec: vfio-user VFIO_USER_DEVICE_GET_INFO.
public struct DeviceInfo: Hashable, Sendable {
    public static let size = 16

    public var flags: UInt32
    public var regionCount: UInt32
    public var irqCount: UInt32

    public static let reset: UInt32 = 1 << 0
    public static let pci: UInt32 = 1 << 1

    public init(flags: UInt32, regionCount: UInt32, irqCount: UInt32) {
        self.flags = flags
        self.regionCount = regionCount
        self.irqCount = irqCount
    }

    /// Checks a request. Refused: a payload or argsz below 16 bytes.
    public static func checkRequest(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= size, payload.uint32(at: 0) >= UInt32(size) else { throw .invalid }
    }

    /// Reads a reply. Refused: a payload below 16 bytes.
    public init(reply payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DeviceInfo.size else { throw .invalid }
        flags = payload.uint32(at: 4)
        regionCount = payload.uint32(at: 8)
        irqCount = payload.uint32(at: 12)
    }

    /// Writes a reply; a request is the one with every field zero.
    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: UInt32(DeviceInfo.size), toByteOffset: 0, as: UInt32.self)
        payload.storeBytes(of: flags, toByteOffset: 4, as: UInt32.self)
        payload.storeBytes(of: regionCount, toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: irqCount, toByteOffset: 12, as: UInt32.self)
    }
}
