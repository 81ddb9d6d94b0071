// Captures in the pcapng format, as bytes: what Wireshark, tshark and tcpdump read.

/// Which way a captured frame went, seen from the interface.
public enum CaptureDirection: UInt32, Hashable, Sendable {
    case inbound = 1
    case outbound = 2
}

/// Builds a pcapng section: one section header, interfaces, then packets with nanosecond times.
///
/// Blocks are appended to a buffer that the caller takes and writes wherever it wants; a write of whole blocks keeps
/// the file readable at any moment. Numbers are little-endian, as the section header says.
/// Spec: draft-ietf-opsawg-pcapng §4.1 (section header), §4.2 (interface description), §4.3 (enhanced packet).
public struct PcapngWriter: Sendable {
    /// Spec: LINKTYPE_ETHERNET.
    static let linkTypeEthernet: UInt16 = 1

    private var bytes: [UInt8] = []
    /// Interfaces described so far; their indices are 0 ..< this.
    public private(set) var interfaceCount: UInt32 = 0
    /// Frames longer than this are cut to it; the original length stays on record.
    public let snapLength: Int

    /// - Parameter application: named in the section header.
    public init(application: String = "Baseboard", snapLength: Int = EthernetFrame.maximumLength) {
        precondition(snapLength > 0, "a snap length of 0 records nothing")
        self.snapLength = snapLength
        block(type: 0x0A0D_0D0A) { body in
            body.append(little: UInt32(0x1A2B_3C4D))
            body.append(little: UInt16(1))
            body.append(little: UInt16(0))
            body.append(little: UInt64.max)  // section length: not said
            body.option(4, Array(application.utf8))  // shb_userappl
            body.endOptions()
        }
    }

    /// Describes one more Ethernet interface and returns its index.
    public mutating func addInterface(named name: String) -> UInt32 {
        let snapLength = UInt32(clamping: snapLength)
        block(type: 1) { body in
            body.append(little: Self.linkTypeEthernet)
            body.append(little: UInt16(0))
            body.append(little: snapLength)
            body.option(2, Array(name.utf8.prefix(255)))  // if_name
            body.option(9, [9])  // if_tsresol: 10^-9 s
            body.endOptions()
        }
        interfaceCount += 1
        return interfaceCount - 1
    }

    /// Records `frame`.
    ///
    /// - Parameters:
    ///   - time: since 1970-01-01 UTC, in nanoseconds.
    ///   - interface: an index that ``addInterface(named:)`` returned.
    public mutating func append(
        _ frame: Span<UInt8>, time: UInt64, interface: UInt32, direction: CaptureDirection? = nil
    ) {
        precondition(interface < interfaceCount, "an interface is described before its first packet")
        let captured = min(frame.count, snapLength)
        block(type: 6) { body in
            body.append(little: interface)
            body.append(little: UInt32(truncatingIfNeeded: time >> 32))
            body.append(little: UInt32(truncatingIfNeeded: time))
            body.append(little: UInt32(clamping: captured))
            body.append(little: UInt32(clamping: frame.count))
            // Safety: the span's bytes are only read, within the closure, and the array copies them.
            unsafe frame.extracting(0..<captured).withUnsafeBytes { unsafe body.append(contentsOf: $0) }
            body.padToWord()
            if let direction {
                body.option(2, [UInt8(direction.rawValue), 0, 0, 0])  // epb_flags
                body.endOptions()
            }
        }
    }

    /// Bytes that wait to be taken.
    public var pendingByteCount: Int { bytes.count }

    /// Hands the bytes since the last call to `body` and forgets them.
    public mutating func take(_ body: (Span<UInt8>) -> Void) {
        body(bytes.span)
        bytes.removeAll(keepingCapacity: true)
    }

    private mutating func block(type: UInt32, _ body: (inout [UInt8]) -> Void) {
        let start = bytes.count
        bytes.append(little: type)
        bytes.append(little: UInt32(0))
        body(&bytes)
        let total = UInt32(clamping: bytes.count - start + 4)
        for index in 0..<4 { bytes[start + 4 + index] = UInt8(truncatingIfNeeded: total >> UInt32(8 * index)) }
        bytes.append(little: total)
    }
}

extension [UInt8] {
    fileprivate mutating func append<Value: FixedWidthInteger>(little value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    fileprivate mutating func padToWord() {
        while count % 4 != 0 { append(0) }
    }

    fileprivate mutating func option(_ code: UInt16, _ value: [UInt8]) {
        append(little: code)
        append(little: UInt16(clamping: value.count))
        append(contentsOf: value)
        padToWord()
    }

    fileprivate mutating func endOptions() {
        append(little: UInt32(0))
    }
}
