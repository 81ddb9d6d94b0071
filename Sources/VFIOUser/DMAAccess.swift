/// DMA_READ and DMA_WRITE: the device reaches the client's memory through the client.
///
///     0   address u64
///     8   count   u64   at most the negotiated max_data_xfer_size
///     16  data          in a write's request and a read's reply
///
/// Sent from the server to the client, on the twin socket if one was negotiated. A write's reply is these 16 bytes
/// from libvfio-user, the header alone from QEMU; both are taken. Spec: vfio-user VFIO_USER_DMA_READ,
/// VFIO_USER_DMA_WRITE.
public struct DMAAccess: Hashable, Sendable {
    public static let size = 16

    public var address: UInt64
    public var count: UInt64

    public init(address: UInt64, count: UInt64) {
        self.address = address
        self.count = count
    }

    /// Reads the fixed part. Refused: a payload below 16 bytes, a range that wraps.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DMAAccess.size else { throw .invalid }
        address = payload.uint64(at: 0)
        count = payload.uint64(at: 8)
        guard count == 0 || !address.addingReportingOverflow(count - 1).overflow else { throw .invalid }
    }

    /// Reads a message with data: a write's request or a read's reply. Refused besides: data of another length.
    public init(withData payload: RawSpan) throws(ErrorNumber) {
        try self.init(payload)
        guard UInt64(payload.byteCount - DMAAccess.size) == count else { throw .invalid }
    }

    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: address, toByteOffset: 0, as: UInt64.self)
        payload.storeBytes(of: count, toByteOffset: 8, as: UInt64.self)
    }
}
