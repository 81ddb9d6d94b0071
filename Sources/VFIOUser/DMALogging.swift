/// VFIO_DEVICE_FEATURE_DMA_LOGGING_START: record which pages the device writes.
///
///     0   page_size  u64   a power of two; the reply has the one chosen
///     8   num_ranges u32   0: everything
///     12  reserved   u32
///     16  ranges           (iova u64, length u64) …
///
/// Spec: vfio-user VFIO_DEVICE_FEATURE_DMA_LOGGING_START.
public struct DMALoggingControl: Hashable, Sendable {
    public static let header = 16
    static let rangeSize = 16
    /// What a message has room for is far more than any client needs: QEMU has two or three.
    public static let maximumRanges = 4096

    public var pageSize: UInt64
    public var ranges: [ClosedRange<UInt64>]

    public init(pageSize: UInt64, ranges: [ClosedRange<UInt64>] = []) {
        self.pageSize = pageSize
        self.ranges = ranges
    }

    public var size: Int { DMALoggingControl.header + ranges.count * DMALoggingControl.rangeSize }

    /// Refused: a payload that is not exactly its ranges, a page size that is no power of two, ranges that are empty,
    /// wrap or overlap (`invalid`); more ranges than the bound (`tooBig`).
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DMALoggingControl.header else { throw .invalid }
        pageSize = payload.uint64(at: 0)
        guard pageSize.nonzeroBitCount == 1 else { throw .invalid }
        let count = payload.uint32(at: 8)
        guard count <= UInt32(DMALoggingControl.maximumRanges) else { throw .tooBig }
        guard payload.byteCount == DMALoggingControl.header + Int(count) * DMALoggingControl.rangeSize else {
            throw .invalid
        }
        ranges = []
        for number in 0..<Int(count) {
            let place = DMALoggingControl.header + number * DMALoggingControl.rangeSize
            let (first, length) = (payload.uint64(at: place), payload.uint64(at: place + 8))
            guard length > 0 else { throw .invalid }
            let (last, overflow) = first.addingReportingOverflow(length - 1)
            guard !overflow else { throw .invalid }
            ranges.append(first...last)
        }
        let sorted = ranges.sorted { $0.lowerBound < $1.lowerBound }
        for (left, right) in zip(sorted, sorted.dropFirst()) where left.upperBound >= right.lowerBound {
            throw .invalid
        }
    }

    /// Precondition: no range is the whole address space, whose length has no 64 bits.
    public func encode(into payload: inout MutableRawSpan) {
        payload.storeBytes(of: pageSize, toByteOffset: 0, as: UInt64.self)
        payload.storeBytes(of: UInt32(ranges.count), toByteOffset: 8, as: UInt32.self)
        payload.storeBytes(of: 0, toByteOffset: 12, as: UInt32.self)
        for (number, range) in ranges.enumerated() {
            let place = DMALoggingControl.header + number * DMALoggingControl.rangeSize
            payload.storeBytes(of: range.lowerBound, toByteOffset: place, as: UInt64.self)
            payload.storeBytes(
                of: range.upperBound &- range.lowerBound &+ 1, toByteOffset: place + 8, as: UInt64.self)
        }
    }
}

/// VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: which pages of a range the device wrote since the last report.
///
///     0   iova      u64
///     8   length    u64
///     16  page_size u64   a power of two: what one bit stands for
///     24  bitmap    u64 … reply: bit n is the nth page of the range
///
/// Spec: vfio-user VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT.
public struct DMALoggingReport: Hashable, Sendable {
    public static let size = 24

    public var address: UInt64
    public var length: UInt64
    public var pageSize: UInt64

    public init(address: UInt64, length: UInt64, pageSize: UInt64) {
        self.address = address
        self.length = length
        self.pageSize = pageSize
    }

    /// Refused: a payload below 24 bytes, a page size that is no power of two, a range that is empty or wraps.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= DMALoggingReport.size else { throw .invalid }
        address = payload.uint64(at: 0)
        length = payload.uint64(at: 8)
        pageSize = payload.uint64(at: 16)
        guard pageSize.nonzeroBitCount == 1, length > 0, !address.addingReportingOverflow(length - 1).overflow else {
            throw .invalid
        }
    }

    /// The bitmap's 64-bit words.
    public var words: UInt64 { ((length - 1) >> UInt64(pageSize.trailingZeroBitCount)) / 64 + 1 }

    /// Writes the fixed part at a byte offset. Precondition: it has room there.
    public func encode(into payload: inout MutableRawSpan, at place: Int = 0) {
        payload.storeBytes(of: address, toByteOffset: place, as: UInt64.self)
        payload.storeBytes(of: length, toByteOffset: place + 8, as: UInt64.self)
        payload.storeBytes(of: pageSize, toByteOffset: place + 16, as: UInt64.self)
    }
}
