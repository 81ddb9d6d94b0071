internal import Wire

/// A REGION_READ or REGION_WRITE of one to eight bytes, read in place by plain loads.
///
/// What a sleeping server is woken for, nearly always: after a sleep the caches are cold, and each line of code or data
/// between the receive and the send costs more than a hundred instructions. So the layout of `MessageHeader` and
/// `RegionAccess` is written here a second time. Any other message gives nil and takes the long way, which has the same
/// effect.
struct ShortAccess {
    var id: UInt16
    var isWrite: Bool
    var wantsReply: Bool
    /// 1…8.
    var count: UInt32
    var region: UInt32
    var offset: UInt64
    /// What is written, zero-extended.
    var value: UInt64

    /// The most bytes of such a command or its reply.
    static let maximumSize = MessageHeader.size + RegionAccess.size + 8

    @inline(__always)
    init?(_ message: UnsafeRawBufferPointer) {
        let fixed = MessageHeader.size + RegionAccess.size
        guard message.count >= fixed, message.count <= Self.maximumSize else { return nil }
        // Safety: every load lies in the first 32 bytes, or in the `count` bytes after them.
        let bytes = message.baseAddress!
        let command = unsafe bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
        let flags = unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        count = unsafe bytes.loadUnaligned(fromByteOffset: 28, as: UInt32.self)
        guard count >= 1, count <= 8 else { return nil }
        if command == VFIOUserCommand.regionRead.rawValue {
            guard flags == MessageHeader.typeCommand, message.count == fixed else { return nil }
            isWrite = false
            wantsReply = true
            value = 0
        } else {
            guard command == VFIOUserCommand.regionWrite.rawValue, flags & ~MessageHeader.noReply == 0,
                message.count == fixed + Int(count)
            else { return nil }
            isWrite = true
            wantsReply = flags == 0
            value = unsafe Self.load(bytes + fixed, count)
        }
        id = unsafe bytes.loadUnaligned(as: UInt16.self)
        offset = unsafe bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        region = unsafe bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
    }

    var header: MessageHeader {
        MessageHeader(
            id: id, command: isWrite ? .regionWrite : .regionRead,
            messageSize: UInt32(MessageHeader.size + RegionAccess.size) + (isWrite ? count : 0),
            flags: wantsReply ? MessageHeader.typeCommand : MessageHeader.noReply)
    }

    /// So many bytes, 1…8, as a little-endian integer.
    @inline(__always)
    static func load(_ bytes: UnsafeRawPointer, _ count: UInt32) -> UInt64 {
        // Safety: the caller's promise: so many bytes are there.
        switch count {
        case 4: return UInt64(unsafe bytes.loadUnaligned(as: UInt32.self))
        case 8: return unsafe bytes.loadUnaligned(as: UInt64.self)
        default:
            var value: UInt64 = 0
            for index in 0..<Int(count) {
                value |= UInt64(unsafe bytes.load(fromByteOffset: index, as: UInt8.self)) << UInt64(index * 8)
            }
            return value
        }
    }

    /// Writes the fixed 32 bytes of a command, or of a reply, for an access of `count` bytes with `data` of them behind.
    @inline(__always)
    static func encode(
        id: UInt16, command: VFIOUserCommand, flags: UInt32, data: UInt32, offset: UInt64, region: UInt32,
        count: UInt32, into bytes: UnsafeMutableRawPointer
    ) {
        let size = UInt32(MessageHeader.size + RegionAccess.size) &+ data
        // Safety: the caller's promise: 32 bytes are there.
        unsafe bytes.storeBytes(
            of: UInt64(id) | UInt64(command.rawValue) << 16 | UInt64(size) << 32, as: UInt64.self)
        unsafe bytes.storeBytes(of: UInt64(flags), toByteOffset: 8, as: UInt64.self)
        unsafe bytes.storeBytes(of: offset, toByteOffset: 16, as: UInt64.self)
        unsafe bytes.storeBytes(of: UInt64(region) | UInt64(count) << 32, toByteOffset: 24, as: UInt64.self)
    }
}
