public import Wire

/// Why a serprog connection failed.
public enum SerprogError: Error, Equatable, Sendable, CustomStringConvertible {
    case wire(WireError)
    /// NAK.
    case refused(SerprogCommand)
    /// Neither ACK nor NAK came.
    case badAnswer(UInt8, to: SerprogCommand)
    /// The peer speaks another version than 1.
    case unknownVersion(UInt16)
    /// The peer cannot do what an SPI programmer must.
    case unsupported(SerprogCommand)
    /// More bytes than the peer takes or gives at once.
    case tooLong(count: Int, limit: Int)
    /// The thing behind a server failed in the middle of an answer.
    case targetFailed(String)
    /// An earlier failure left the connection in the middle of an answer.
    case outOfStep

    public var description: String {
        switch self {
        case .wire(let error): error.description
        case .refused(let command): "the programmer refused \(command)"
        case .badAnswer(let byte, let command):
            "the programmer answered \(command) with 0x\(String(byte, radix: 16)): no serprog on this socket?"
        case .unknownVersion(let version): "the programmer speaks serprog version \(version), only 1 is known"
        case .unsupported(let command): "the programmer does not support \(command)"
        case .tooLong(let count, let limit): "an SPI transaction of \(count) bytes, the programmer takes \(limit)"
        case .targetFailed(let why): "the SPI transaction failed: \(why)"
        case .outOfStep: "an earlier failure left the serprog connection out of step: connect again"
        }
    }
}
