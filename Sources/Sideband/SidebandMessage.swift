/// One datagram of the sideband wire; its first byte is the kind.
///
/// ```
/// 01 signal level          a signal edge
/// 02 packet…               an MCTP packet (DSP0236)
/// ```
public enum SidebandMessage: Hashable, Sendable {
    case signal(Signal, level: Bool)
    case mctp(MCTPPacket)

    /// A wire that one side drives and the other watches. An unknown number is kept: a peer may be newer.
    public struct Signal: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Active low, logic → component: level false holds the component in reset.
        public static let reset = Signal(rawValue: 0)
        /// Component → logic: true while the component runs.
        public static let powerGood = Signal(rawValue: 1)
        /// Either way: the other side should look.
        public static let attention = Signal(rawValue: 2)
    }

    /// Why a datagram was refused.
    public enum Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        case empty
        case unknownKind(UInt8)
        case badSignalLength(Int)
        case badLevel(UInt8)
        case badPacket(MCTPPacket.Refusal)

        public var description: String {
            switch self {
            case .empty: "an empty sideband datagram"
            case .unknownKind(let kind): "sideband datagram of unknown kind \(kind)"
            case .badSignalLength(let count): "sideband signal of \(count) bytes instead of 3"
            case .badLevel(let level): "sideband signal level \(level) is neither 0 nor 1"
            case .badPacket(let refusal): "sideband MCTP packet: \(refusal)"
            }
        }
    }

    /// The longest datagram: kind, MCTP header and the largest payload we take.
    public static let maximumLength = 1 + MCTPPacket.headerLength + MCTPPacket.maximumPayload

    public init(decoding bytes: [UInt8]) throws(Refusal) {
        guard let kind = bytes.first else { throw .empty }
        switch kind {
        case 0x01:
            guard bytes.count == 3 else { throw .badSignalLength(bytes.count) }
            guard bytes[2] <= 1 else { throw .badLevel(bytes[2]) }
            self = .signal(Signal(rawValue: bytes[1]), level: bytes[2] == 1)
        case 0x02:
            do throws(MCTPPacket.Refusal) { self = .mctp(try MCTPPacket(decoding: Array(bytes.dropFirst()))) } catch {
                throw .badPacket(error)
            }
        default: throw .unknownKind(kind)
        }
    }

    public var encoded: [UInt8] {
        switch self {
        case .signal(let signal, let level): [0x01, signal.rawValue, level ? 1 : 0]
        case .mctp(let packet): [0x02] + packet.encoded
        }
    }
}
