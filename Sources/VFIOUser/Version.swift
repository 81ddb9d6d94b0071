/// VERSION: the first message each way, in which both sides agree on version and limits.
///
///     0   major u16
///     2   minor u16
///     4   JSON  UTF-8 with a final NUL, optional: {"capabilities":{…}}
///
/// A reply names only capabilities that were proposed. QEMU receives it into the room of its own request, so a reply
/// is never longer than the request was. Spec: vfio-user VFIO_USER_VERSION.
public struct Version: Hashable, Sendable {
    public static let size = 4
    /// What this side speaks: 0.1 wherever a peer asks for 0.1 or more, else the peer's minor version.
    public static let major: UInt16 = 0
    public static let minor: UInt16 = 1
    /// The longest payload that is read: a bound on work, far above what QEMU (about 250 bytes) sends.
    public static let maximumPayload = 4096

    public var major: UInt16
    public var minor: UInt16
    public var capabilities: Capabilities

    public init(major: UInt16 = Version.major, minor: UInt16 = Version.minor, capabilities: Capabilities) {
        self.major = major
        self.minor = minor
        self.capabilities = capabilities
    }

    /// Refused: a payload below 4 bytes or above the bound, JSON without its final NUL, JSON that is malformed or
    /// gives a known capability a value of another kind or out of range.
    public init(_ payload: RawSpan) throws(ErrorNumber) {
        guard payload.byteCount >= Version.size, payload.byteCount <= Version.maximumPayload else { throw .invalid }
        major = payload.uint16(at: 0)
        minor = payload.uint16(at: 2)
        capabilities = Capabilities()
        guard payload.byteCount > Version.size else { return }
        guard payload.uint8(at: payload.byteCount - 1) == 0 else { throw .invalid }
        var text: [UInt8] = []
        for index in Version.size..<(payload.byteCount - 1) { text.append(payload.uint8(at: index)) }
        capabilities = try Capabilities(json: text)
    }

    /// The payload's bytes.
    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = [
            UInt8(truncatingIfNeeded: major), UInt8(truncatingIfNeeded: major >> 8),
            UInt8(truncatingIfNeeded: minor), UInt8(truncatingIfNeeded: minor >> 8),
        ]
        bytes += Array(capabilities.json.utf8)
        bytes.append(0)
        return bytes
    }
}

/// The limits that both sides tell each other; nil is a capability that was not named and has its default.
///
/// Spec: vfio-user VFIO_USER_VERSION, table of capabilities.
public struct Capabilities: Hashable, Sendable {
    /// Descriptors the sender can receive in one message. Default 1.
    public var maximumMessageDescriptors: UInt64?
    /// Bytes of data in one read or write message. Default 1 MiB.
    public var maximumTransfer: UInt64?
    /// DMA maps at one time. Default 65535.
    public var maximumDMAMaps: UInt64?
    /// Page sizes of DMA maps, or'ed. Default 4 KiB.
    public var pageSizes: UInt64?
    /// Whether REGION_WRITE_MULTI is understood.
    public var writeMultiple: Bool?
    /// Whether a second socket carries the server's commands.
    public var twinSocket: Bool?
    /// In a reply: which passed descriptor is that socket.
    public var twinSocketDescriptor: UInt64?

    public static let defaultTransfer = 1 << 20
    public static let defaultDMAMaps = 65535

    public init(
        maximumMessageDescriptors: UInt64? = nil, maximumTransfer: UInt64? = nil, maximumDMAMaps: UInt64? = nil,
        pageSizes: UInt64? = nil, writeMultiple: Bool? = nil, twinSocket: Bool? = nil,
        twinSocketDescriptor: UInt64? = nil
    ) {
        self.maximumMessageDescriptors = maximumMessageDescriptors
        self.maximumTransfer = maximumTransfer
        self.maximumDMAMaps = maximumDMAMaps
        self.pageSizes = pageSizes
        self.writeMultiple = writeMultiple
        self.twinSocket = twinSocket
        self.twinSocketDescriptor = twinSocketDescriptor
    }

    init(json text: [UInt8]) throws(ErrorNumber) {
        self.init()
        guard case .object(let top)? = JSONReader.parse(text) else { throw .invalid }
        guard let value = top["capabilities"] else { return }
        guard case .object(let named) = value else { throw .invalid }
        maximumMessageDescriptors = try Capabilities.number(named["max_msg_fds"])
        maximumTransfer = try Capabilities.number(named["max_data_xfer_size"])
        maximumDMAMaps = try Capabilities.number(named["max_dma_maps"])
        pageSizes = try Capabilities.number(named["pgsizes"])
        writeMultiple = try Capabilities.boolean(named["write_multiple"])
        if let twin = named["twin_socket"] {
            guard case .object(let parameters) = twin else { throw .invalid }
            twinSocket = try Capabilities.boolean(parameters["supported"]) ?? false
            twinSocketDescriptor = try Capabilities.number(parameters["fd_index"])
        }
    }

    private static func number(_ value: JSONReader.Value?) throws(ErrorNumber) -> UInt64? {
        switch value {
        case nil: return nil
        case .unsigned(let number)?: return number
        default: throw .invalid
        }
    }

    private static func boolean(_ value: JSONReader.Value?) throws(ErrorNumber) -> Bool? {
        switch value {
        case nil: return nil
        case .boolean(let truth)?: return truth
        default: throw .invalid
        }
    }

    /// The JSON text, without a final NUL.
    public var json: String {
        var parts: [String] = []
        if let maximumMessageDescriptors { parts.append("\"max_msg_fds\":\(maximumMessageDescriptors)") }
        if let maximumTransfer { parts.append("\"max_data_xfer_size\":\(maximumTransfer)") }
        if let maximumDMAMaps { parts.append("\"max_dma_maps\":\(maximumDMAMaps)") }
        if let pageSizes { parts.append("\"pgsizes\":\(pageSizes)") }
        if let writeMultiple { parts.append("\"write_multiple\":\(writeMultiple)") }
        if let twinSocket {
            let place = twinSocketDescriptor.map { ",\"fd_index\":\($0)" } ?? ""
            parts.append("\"twin_socket\":{\"supported\":\(twinSocket)\(place)}")
        }
        return "{\"capabilities\":{" + parts.joined(separator: ",") + "}}"
    }
}
