// How the BMC gives the security logic a firmware image: MCTP vendor-defined messages like the adapter's commands, numbers
// from 0x10. docs/wiring.md, "Firmware update", has the table.

/// What the BMC asks for.
public enum UpdateRequest: Hashable, Sendable {
    /// A new update of an image of `size` bytes whose signed manifest has `manifestSize`; an earlier one is abandoned.
    case begin(size: UInt32, manifestSize: UInt32)
    /// A piece of the signed manifest, in order. With its last one the logic decides whether it takes the image.
    case manifest(offset: UInt32, data: [UInt8])
    /// A piece of the image, in order.
    case data(offset: UInt32, data: [UInt8])
    /// All is there: verify it, and boot it at the next power cycle.
    case finish
    case cancel
    case query

    /// The first command number; below it are the adapter's.
    public static let firstCommand: UInt8 = 0x10
    /// The longest piece: with its head it fits an MCTP message.
    public static let maximumPiece = 2048

    public var command: UInt8 {
        switch self {
        case .begin: 0x10
        case .manifest: 0x11
        case .data: 0x12
        case .finish: 0x13
        case .cancel: 0x14
        case .query: 0x15
        }
    }

    /// The command as docs/wiring.md names it.
    public var name: String {
        switch self {
        case .begin: "UpdateBegin"
        case .manifest: "UpdateManifest"
        case .data: "UpdateData"
        case .finish: "UpdateFinish"
        case .cancel: "UpdateCancel"
        case .query: "UpdateQuery"
        }
    }

    /// The message body, type byte first.
    public var encoded: [UInt8] {
        let head = VendorHeader.bytes + [command]
        switch self {
        case .begin(let size, let manifestSize): return head + size.littleEndianBytes + manifestSize.littleEndianBytes
        case .manifest(let offset, let data), .data(let offset, let data):
            precondition((1...Self.maximumPiece).contains(data.count), "a piece has 1 to 2048 bytes")
            return head + offset.littleEndianBytes + data
        case .finish, .cancel, .query: return head
        }
    }

    /// Whether a body is one of these commands, well formed or not.
    public static func isUpdate(_ body: [UInt8]) -> Bool {
        body.count >= 4 && Array(body[..<3]) == VendorHeader.bytes && body[3] >= firstCommand
    }

    /// The status that answers a body that is no request, as an error.
    public init(decoding body: [UInt8]) throws(SecurityStatus) {
        guard body.count >= 4, Array(body[..<3]) == VendorHeader.bytes else { throw .invalidCommand }
        let fields = body[4...]
        switch body[3] {
        case 0x10:
            guard fields.count == 8 else { throw .invalidLength }
            self = .begin(
                size: UInt32(littleEndianBytes: fields.prefix(4)),
                manifestSize: UInt32(littleEndianBytes: fields.suffix(4)))
        case 0x11, 0x12:
            guard (5...4 + Self.maximumPiece).contains(fields.count) else { throw .invalidLength }
            let offset = UInt32(littleEndianBytes: fields.prefix(4))
            let data = Array(fields.dropFirst(4))
            self = body[3] == 0x11 ? .manifest(offset: offset, data: data) : .data(offset: offset, data: data)
        case 0x13...0x15:
            guard fields.isEmpty else { throw .invalidLength }
            self = body[3] == 0x13 ? .finish : body[3] == 0x14 ? .cancel : .query
        default: throw .invalidCommand
        }
    }
}

/// Where an update stands.
public enum UpdateState: UInt8, Hashable, Sendable {
    case idle = 0
    /// The manifest comes.
    case authenticating = 1
    /// The manifest was accepted, the image comes.
    case receiving = 2
    /// Everything is in the inactive slot and verified: the next power cycle boots it.
    case staged = 3
    /// The last update was refused.
    case refused = 4
}

/// The security logic's answer to an update command.
public enum UpdateResponse: Hashable, Sendable {
    case done(command: UInt8)
    /// `reason` says why, at most 255 bytes of UTF-8.
    case refused(command: UInt8, SecurityStatus, reason: String)
    /// `slot` is 0 (A) or 1 (B), 0xFF without an update; `received` counts bytes of the image.
    case status(UpdateState, slot: UInt8, received: UInt32, size: UInt32, reason: String)

    public var encoded: [UInt8] {
        switch self {
        case .done(let command): return VendorHeader.bytes + [command, SecurityStatus.success.rawValue]
        case .refused(let command, let status, let reason):
            return VendorHeader.bytes + [command, status.rawValue] + Self.text(reason)
        case .status(let state, let slot, let received, let size, let reason):
            return VendorHeader.bytes + [0x15, SecurityStatus.success.rawValue, state.rawValue, slot]
                + received.littleEndianBytes + size.littleEndianBytes + Self.text(reason)
        }
    }

    private static func text(_ reason: String) -> [UInt8] {
        // Cut between characters.
        var cut = reason
        while cut.utf8.count > 255 { cut.removeLast() }
        return [UInt8(cut.utf8.count)] + Array(cut.utf8)
    }

    /// nil when the body is none of these.
    public init?(decoding body: [UInt8]) {
        guard UpdateRequest.isUpdate(body), body.count >= 5, let status = SecurityStatus(rawValue: body[4]) else {
            return nil
        }
        let fields = body[5...]
        switch (body[3], status) {
        case (0x15, .success):
            guard fields.count >= 11, let state = UpdateState(rawValue: fields[5]),
                let reason = Self.reason(fields.dropFirst(10))
            else { return nil }
            self = .status(
                state, slot: fields[6], received: UInt32(littleEndianBytes: fields[7..<11]),
                size: UInt32(littleEndianBytes: fields[11..<15]), reason: reason)
        case (_, .success):
            guard fields.isEmpty else { return nil }
            self = .done(command: body[3])
        default:
            // A status alone is how the logic answers what it could not decode.
            guard let reason = fields.isEmpty ? "" : Self.reason(fields) else { return nil }
            self = .refused(command: body[3], status, reason: reason)
        }
    }

    private static func reason(_ fields: ArraySlice<UInt8>) -> String? {
        guard let count = fields.first, fields.count == 1 + Int(count) else { return nil }
        return String(validating: fields.dropFirst(), as: UTF8.self)
    }
}
