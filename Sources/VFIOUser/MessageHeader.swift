/// The number of a command; values that this version does not know are representable, because a peer may be newer.
///
/// Spec: vfio-user "Commands".
public struct VFIOUserCommand: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt16

    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let version = VFIOUserCommand(rawValue: 1)
    public static let dmaMap = VFIOUserCommand(rawValue: 2)
    public static let dmaUnmap = VFIOUserCommand(rawValue: 3)
    public static let deviceGetInfo = VFIOUserCommand(rawValue: 4)
    public static let deviceGetRegionInfo = VFIOUserCommand(rawValue: 5)
    public static let deviceGetRegionIOFDs = VFIOUserCommand(rawValue: 6)
    public static let deviceGetIRQInfo = VFIOUserCommand(rawValue: 7)
    public static let deviceSetIRQs = VFIOUserCommand(rawValue: 8)
    public static let regionRead = VFIOUserCommand(rawValue: 9)
    public static let regionWrite = VFIOUserCommand(rawValue: 10)
    public static let dmaRead = VFIOUserCommand(rawValue: 11)
    public static let dmaWrite = VFIOUserCommand(rawValue: 12)
    public static let deviceReset = VFIOUserCommand(rawValue: 13)
    /// VFIO_USER_DIRTY_PAGES of drafts before 0.1's publication; answered as unsupported.
    public static let dirtyPages = VFIOUserCommand(rawValue: 14)
    public static let regionWriteMulti = VFIOUserCommand(rawValue: 15)
    public static let deviceFeature = VFIOUserCommand(rawValue: 16)
    public static let migrationDataRead = VFIOUserCommand(rawValue: 17)
    public static let migrationDataWrite = VFIOUserCommand(rawValue: 18)

    public var description: String {
        switch self {
        case .version: "VERSION"
        case .dmaMap: "DMA_MAP"
        case .dmaUnmap: "DMA_UNMAP"
        case .deviceGetInfo: "DEVICE_GET_INFO"
        case .deviceGetRegionInfo: "DEVICE_GET_REGION_INFO"
        case .deviceGetRegionIOFDs: "DEVICE_GET_REGION_IO_FDS"
        case .deviceGetIRQInfo: "DEVICE_GET_IRQ_INFO"
        case .deviceSetIRQs: "DEVICE_SET_IRQS"
        case .regionRead: "REGION_READ"
        case .regionWrite: "REGION_WRITE"
        case .dmaRead: "DMA_READ"
        case .dmaWrite: "DMA_WRITE"
        case .deviceReset: "DEVICE_RESET"
        case .dirtyPages: "DIRTY_PAGES"
        case .regionWriteMulti: "REGION_WRITE_MULTI"
        case .deviceFeature: "DEVICE_FEATURE"
        case .migrationDataRead: "MIG_DATA_READ"
        case .migrationDataWrite: "MIG_DATA_WRITE"
        default: "command \(rawValue)"
        }
    }
}

/// The 16 bytes before every message.
///
///     0   message id    u16   chosen by the sender of the command, echoed in the reply
///     2   command       u16
///     4   message size  u32   of the whole message with this header
///     8   flags         u32   bits 0–3 type (0 command, 1 reply), 4 no reply wanted, 5 error
///     12  error         u32   errno of an error reply
///
/// Spec: vfio-user "Header".
public struct MessageHeader: Hashable, Sendable {
    public static let size = 16

    public var id: UInt16
    public var command: VFIOUserCommand
    /// Of the whole message, header included, as the peer says it: unchecked.
    public var messageSize: UInt32
    public var flags: UInt32
    public var error: UInt32

    public static let typeMask: UInt32 = 0xF
    public static let typeCommand: UInt32 = 0
    public static let typeReply: UInt32 = 1
    public static let noReply: UInt32 = 1 << 4
    public static let errorFlag: UInt32 = 1 << 5

    @inlinable
    public init(id: UInt16, command: VFIOUserCommand, messageSize: UInt32, flags: UInt32, error: UInt32 = 0) {
        self.id = id
        self.command = command
        self.messageSize = messageSize
        self.flags = flags
        self.error = error
    }

    /// The header of a command with a payload of so many bytes.
    @inlinable
    public static func command(_ command: VFIOUserCommand, id: UInt16, payload: Int, noReply: Bool = false)
        -> MessageHeader
    {
        MessageHeader(
            id: id, command: command, messageSize: UInt32(truncatingIfNeeded: size + payload),
            flags: noReply ? typeCommand | self.noReply : typeCommand)
    }

    /// The header of the successful reply to this command.
    @inlinable
    public func reply(payload: Int) -> MessageHeader {
        MessageHeader(
            id: id, command: command, messageSize: UInt32(truncatingIfNeeded: MessageHeader.size + payload),
            flags: MessageHeader.typeReply)
    }

    /// The header, and whole message, that refuses this command.
    ///
    /// Spec: "If an error occurs, the reply message must only include the reply header."
    @inlinable
    public func refusal(_ error: ErrorNumber) -> MessageHeader {
        MessageHeader(
            id: id, command: command, messageSize: UInt32(MessageHeader.size),
            flags: MessageHeader.typeReply | MessageHeader.errorFlag, error: error.rawValue)
    }

    /// Reads the first 16 bytes of a span. Precondition: it has them.
    @inlinable @inline(__always)
    public init(_ bytes: RawSpan) {
        id = bytes.uint16(at: 0)
        command = VFIOUserCommand(rawValue: bytes.uint16(at: 2))
        messageSize = bytes.uint32(at: 4)
        flags = bytes.uint32(at: 8)
        error = bytes.uint32(at: 12)
    }

    /// Writes the first 16 bytes of a span. Precondition: it has room for them.
    @inlinable @inline(__always)
    public func encode(into bytes: inout MutableRawSpan) {
        bytes.storeBytes(of: id, toByteOffset: 0, as: UInt16.self)
        bytes.storeBytes(of: command.rawValue, toByteOffset: 2, as: UInt16.self)
        bytes.storeBytes(of: messageSize, toByteOffset: 4, as: UInt32.self)
        bytes.storeBytes(of: flags, toByteOffset: 8, as: UInt32.self)
        bytes.storeBytes(of: error, toByteOffset: 12, as: UInt32.self)
    }

    @inlinable public var isCommand: Bool { flags & MessageHeader.typeMask == MessageHeader.typeCommand }
    @inlinable public var isReply: Bool { flags & MessageHeader.typeMask == MessageHeader.typeReply }
    @inlinable public var wantsReply: Bool { flags & MessageHeader.noReply == 0 }

    /// The refusal that a reply carries, if it is one. Its error may be zero ("an optional UNIX errno value");
    /// then it counts as EINVAL.
    @inlinable
    public var refusal: ErrorNumber? {
        guard flags & MessageHeader.errorFlag != 0 else { return nil }
        return error == 0 ? .invalid : ErrorNumber(rawValue: error)
    }
}
