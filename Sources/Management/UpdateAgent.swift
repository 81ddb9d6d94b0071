// What the BMC does with a firmware image that it is given: it hands it to the security logic, piece by piece, one command
// at a time. It decides nothing: the logic judges the image, and the verifier boots it at the next power cycle.

public import Sideband

/// The BMC's side of a firmware update, as a value: answers in, commands out.
public struct UpdateAgent: Sendable {
    public enum Phase: String, Hashable, Sendable {
        case idle
        /// The logic looks at the manifest.
        case authenticating
        case sending
        /// The logic compares what it wrote with the manifest.
        case verifying
        /// The next power cycle boots the image.
        case staged
        case failed
    }

    /// Why an image is not even sent.
    public enum Refusal: Error, Equatable, Sendable, CustomStringConvertible {
        case busy
        case held
        case notConnected
        case tooShort(Int)
        case noManifest

        public var description: String {
            switch self {
            case .busy: "an update is under way already"
            case .held: "the BMC is held in reset"
            case .notConnected: "the BMC has no sideband to the security logic"
            case .tooShort(let count):
                "\(count) bytes are no slot image, which has its manifest at byte \(manifestOffset): "
                    + "'baseboard image build' makes one"
            case .noManifest:
                "no signed manifest at byte \(manifestOffset): is it a slot image ('baseboard image inspect')?"
            }
        }
    }

    /// Where a slot image holds its manifest, behind a 32-bit little-endian length, and the place's size. docs/wiring.md,
    /// "Flash layout".
    public static let manifestOffset = 0x1_0000
    static let manifestSize = 0xF000

    public private(set) var phase = Phase.idle
    /// Bytes of the image that the logic took, and all of them.
    public private(set) var sent = 0
    public private(set) var size = 0
    /// Why it failed.
    public private(set) var reason = ""
    private var image: [UInt8] = []
    private var manifest: ArraySlice<UInt8> = []
    private var manifestSent = 0
    private var awaited: UpdateRequest?

    public init() {}

    public var isActive: Bool {
        switch phase {
        case .authenticating, .sending, .verifying: true
        case .idle, .staged, .failed: false
        }
    }

    /// The first command for `image`, a slot image.
    public mutating func start(_ image: [UInt8]) throws(Refusal) -> UpdateRequest {
        guard !isActive else { throw .busy }
        let begin = Self.manifestOffset + 4
        guard image.count >= Self.manifestOffset + Self.manifestSize else { throw .tooShort(image.count) }
        let length = (0..<4).reduce(0) { $0 | Int(image[Self.manifestOffset + $1]) << (8 * $1) }
        guard length > 0, length <= Self.manifestSize - 4 else { throw .noManifest }
        self = UpdateAgent()
        self.image = image
        size = image.count
        manifest = image[begin..<begin + length]
        phase = .authenticating
        return ask(.begin(size: UInt32(clamping: image.count), manifestSize: UInt32(length)))
    }

    /// What follows an answer of the logic; nil when nothing does.
    public mutating func handle(_ response: UpdateResponse) -> UpdateRequest? {
        guard isActive, let request = awaited else { return nil }
        switch response {
        case .refused(request.command, let status, let text):
            end("the security logic refused \(request.name): \(text.isEmpty ? "\(status)" : text)")
            return nil
        case .done(request.command): return next()
        default: return nil
        }
    }

    /// The logic is gone, or does not answer.
    public mutating func fail(_ reason: String) { if isActive { end(reason) } }

    private mutating func next() -> UpdateRequest? {
        switch phase {
        case .authenticating:
            let start = manifest.startIndex + manifestSent
            let piece = manifest[start..<min(start + UpdateRequest.maximumPiece, manifest.endIndex)]
            guard piece.isEmpty else {
                defer { manifestSent += piece.count }
                return ask(.manifest(offset: UInt32(manifestSent), data: Array(piece)))
            }
            phase = .sending
            return nextPiece()
        case .sending:
            sent = min(sent + UpdateRequest.maximumPiece, image.count)
            return nextPiece()
        case .verifying:
            image = []
            manifest = []
            awaited = nil
            phase = .staged
            return nil
        case .idle, .staged, .failed: return nil
        }
    }

    private mutating func nextPiece() -> UpdateRequest {
        guard sent < image.count else {
            phase = .verifying
            return ask(.finish)
        }
        let piece = image[sent..<min(sent + UpdateRequest.maximumPiece, image.count)]
        return ask(.data(offset: UInt32(sent), data: Array(piece)))
    }

    private mutating func ask(_ request: UpdateRequest) -> UpdateRequest {
        awaited = request
        return request
    }

    private mutating func end(_ reason: String) {
        self.reason = reason
        phase = .failed
        awaited = nil
        image = []
        manifest = []
    }
}
