/// How a device's state is taken away and given to another one of its kind.
///
/// The server calls every method on its thread, one at a time. A stopped device makes no DMA, raises no interrupt and
/// changes nothing until `resume`; it still answers register accesses. `VFIODevice.reset` of a stopped device is
/// followed by `resume`.
public protocol DeviceMigration: AnyObject, Sendable {
    /// The longest state that `restore` is given, in bytes: what a client may make this side keep.
    var maximumStateSize: Int { get }
    /// Whether `save` may be called while the device runs, for a client that wants most of the state early.
    var savesWhileRunning: Bool { get }

    /// Stops: returns when nothing is under way any more.
    func stop() throws(ErrorNumber)
    /// Runs on from where `stop`, `restore` or a reset left it.
    func resume() throws(ErrorNumber)
    /// The device's whole state; of a running one the state as it is now, which a later one replaces.
    func save() throws(ErrorNumber) -> [UInt8]
    /// Takes over a state, or throws `invalid` where it is none: the client's bytes, not to be trusted. The device is
    /// stopped. With `isFinal` false it is the state of a device that still ran, and another one follows.
    func restore(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber)
}

extension DeviceMigration {
    public var maximumStateSize: Int { 1 << 20 }
    public var savesWhileRunning: Bool { false }
}

/// The stream that migration data is: a mark, then states, each behind its kind and length.
///
///     0  magic  u32 = "BBMS"
///     4  then for each state: kind u32 (1 of a running device, 2 of a stopped one, the last), length u32, bytes
struct MigrationStream {
    static let magic: UInt32 = 0x534D_4242
    static let head = 8
    /// The states of a running device that one stream may carry: this side writes one.
    static let maximumStates = 16

    enum Kind: UInt32 {
        case running = 1
        case stopped = 2
    }

    /// One state with what stands before it; `isFirst` puts the mark before that.
    static func encoded(_ state: [UInt8], _ kind: Kind, isFirst: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        func append(_ value: UInt32) {
            for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(shift * 8))) }
        }
        if isFirst { append(magic) }
        append(kind.rawValue)
        append(UInt32(state.count))
        return bytes + state
    }

    /// The states of a whole stream. Refused: no mark, pieces that do not fit, not exactly one state of a stopped
    /// device and that last, a state longer than `maximum`.
    static func states(_ bytes: [UInt8], maximum: Int) throws(ErrorNumber) -> [(kind: Kind, state: [UInt8])] {
        // Safety: bytes have no padding.
        let span = unsafe bytes.span.bytes
        guard bytes.count >= 4, span.uint32(at: 0) == magic else { throw .invalid }
        var place = 4
        var found: [(kind: Kind, state: [UInt8])] = []
        while place < bytes.count {
            guard bytes.count - place >= head, let kind = Kind(rawValue: span.uint32(at: place)),
                found.last?.kind != .stopped, found.count <= maximumStates
            else { throw .invalid }
            let length = Int(span.uint32(at: place + 4))
            place += head
            guard length <= bytes.count - place, length <= maximum else { throw .invalid }
            found.append((kind, Array(bytes[place..<place + length])))
            place += length
        }
        guard found.last?.kind == .stopped else { throw .invalid }
        return found
    }
}
