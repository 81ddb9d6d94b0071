public import CBOR

/// What a signed firmware image says about itself (docs/wiring.md, "Flash layout").
public struct FirmwareManifest: Hashable, Sendable {
    /// The version of the manifest's own form.
    public static let formatVersion: UInt64 = 2
    /// Components that an image may have: far above the handful that a board uses, it bounds the overlap check.
    public static let maximumComponents = 64
    /// Bytes of a name: names go into logs and events.
    public static let maximumNameLength = 128

    /// Whose firmware a component is.
    public enum Target: UInt64, Hashable, Sendable, CaseIterable, CustomStringConvertible {
        case host = 0
        case bmc = 1
        case adapter = 2
        case offload = 3

        public var description: String {
            switch self {
            case .host: "host"
            case .bmc: "bmc"
            case .adapter: "adapter"
            case .offload: "offload"
            }
        }
    }

    /// A piece of the image with its digest.
    public struct Component: Hashable, Sendable {
        public let name: String
        /// Where it lies in the slot, in bytes.
        public let offset: UInt64
        /// Its length in bytes, above zero.
        public let size: UInt64
        /// SHA-384 of its bytes.
        public let digest: [UInt8]
        /// Where it runs: a guest-physical address of the host, or 0 where the target decides.
        public let loadAddress: UInt64
        public let target: Target

        public init(
            name: String, offset: UInt64, size: UInt64, digest: [UInt8], loadAddress: UInt64, target: Target = .host
        ) {
            self.name = name
            self.offset = offset
            self.size = size
            self.digest = digest
            self.loadAddress = loadAddress
            self.target = target
        }
    }

    /// The image's name, for people.
    public let name: String
    /// The board that the image is for, as "board,variant".
    public let boardCompatibility: String
    /// Grows with every security fix; a board refuses less than its fuses say.
    public let securityVersion: UInt32
    /// What the fuses' minimum is raised to once the image has booted; at most `securityVersion`.
    public let rollbackFloor: UInt32
    public let components: [Component]

    public init(
        name: String, boardCompatibility: String, securityVersion: UInt32, rollbackFloor: UInt32 = 0,
        components: [Component]
    ) {
        self.name = name
        self.boardCompatibility = boardCompatibility
        self.securityVersion = securityVersion
        self.rollbackFloor = rollbackFloor
        self.components = components
    }
}

/// Why a manifest's payload is refused.
public enum FirmwareManifestError: Error, Equatable, Sendable, CustomStringConvertible {
    case cbor(CBORError)
    case unknownFormatVersion(UInt64)
    /// A field is missing, has another type or is out of range.
    case badField(String)

    public var description: String {
        switch self {
        case .cbor(let error): error.description
        case .unknownFormatVersion(let version):
            "manifest format version \(version), only \(FirmwareManifest.formatVersion) is known"
        case .badField(let what): what
        }
    }
}

extension FirmwareManifest {
    private enum Label {
        static let formatVersion: Int64 = 1
        static let boardCompatibility: Int64 = 2
        static let securityVersion: Int64 = 3
        static let components: Int64 = 4
        static let imageName: Int64 = 5
        static let rollbackFloor: Int64 = 6
    }

    private enum ComponentLabel {
        static let name: Int64 = 1
        static let offset: Int64 = 2
        static let size: Int64 = 3
        static let digest: Int64 = 4
        static let loadAddress: Int64 = 5
        static let target: Int64 = 6
    }

    /// Bytes of a SHA-384 digest.
    static let digestLength = 48

    /// The payload that is signed.
    public func encoded() -> [UInt8] {
        let components = components.map { component in
            CBOR.map([
                .init(.integer(ComponentLabel.name), .text(component.name)),
                .init(.integer(ComponentLabel.offset), .unsigned(component.offset)),
                .init(.integer(ComponentLabel.size), .unsigned(component.size)),
                .init(.integer(ComponentLabel.digest), .bytes(component.digest)),
                .init(.integer(ComponentLabel.loadAddress), .unsigned(component.loadAddress)),
                .init(.integer(ComponentLabel.target), .unsigned(component.target.rawValue)),
            ])
        }
        return CBOR.map([
            .init(.integer(Label.formatVersion), .unsigned(Self.formatVersion)),
            .init(.integer(Label.boardCompatibility), .text(boardCompatibility)),
            .init(.integer(Label.securityVersion), .unsigned(UInt64(securityVersion))),
            .init(.integer(Label.components), .array(components)),
            .init(.integer(Label.imageName), .text(name)),
            .init(.integer(Label.rollbackFloor), .unsigned(UInt64(rollbackFloor))),
        ]).encoded()
    }

    /// Reads a payload. Refuses what is not deterministic CBOR and fields that are missing or wrong.
    public init(decoding payload: [UInt8]) throws(FirmwareManifestError) {
        let map: CBOR
        do throws(CBORError) {
            map = try CBOR.decode(payload)
        } catch {
            throw .cbor(error)
        }
        guard case .map(let entries) = map else { throw .badField("the manifest is not a map") }
        guard let version = map[Label.formatVersion]?.unsignedValue else {
            throw .badField("the manifest has no format version")
        }
        guard version == Self.formatVersion else { throw .unknownFormatVersion(version) }
        guard entries.count == 6 else { throw .badField("the manifest has \(entries.count) fields, must have 6") }
        boardCompatibility = try Self.text(map[Label.boardCompatibility], "board compatibility")
        name = try Self.text(map[Label.imageName], "image name")
        guard let wide = map[Label.securityVersion]?.unsignedValue, let narrow = UInt32(exactly: wide) else {
            throw .badField("the security version is not a number of 32 bits")
        }
        securityVersion = narrow
        guard let floor = map[Label.rollbackFloor]?.unsignedValue.flatMap({ UInt32(exactly: $0) }), floor <= narrow
        else { throw .badField("the rollback floor is not a number up to the security version \(narrow)") }
        rollbackFloor = floor
        guard let items = map[Label.components]?.arrayValue, !items.isEmpty else {
            throw .badField("the manifest has no components")
        }
        guard items.count <= Self.maximumComponents else {
            throw .badField("\(items.count) components, at most \(Self.maximumComponents) are accepted")
        }
        var components: [Component] = []
        for item in items {
            let component = try Self.component(item)
            guard !components.contains(where: { $0.name == component.name }) else {
                throw .badField("two components are named \(component.name)")
            }
            components.append(component)
        }
        self.components = components
    }

    private static func component(_ item: CBOR) throws(FirmwareManifestError) -> Component {
        guard case .map(let entries) = item, entries.count == 6 else {
            throw .badField("a component is not a map of 6 fields")
        }
        let name = try text(item[ComponentLabel.name], "a component's name")
        guard let offset = item[ComponentLabel.offset]?.unsignedValue,
            let size = item[ComponentLabel.size]?.unsignedValue, size > 0,
            let loadAddress = item[ComponentLabel.loadAddress]?.unsignedValue
        else { throw .badField("\(name): offset, size and load address must be numbers, size above 0") }
        guard let digest = item[ComponentLabel.digest]?.bytesValue, digest.count == digestLength else {
            throw .badField("\(name): the digest is not \(digestLength) bytes")
        }
        guard let target = item[ComponentLabel.target]?.unsignedValue.flatMap(Target.init(rawValue:)) else {
            throw .badField("\(name): the target is not one of 0 to \(Target.offload.rawValue)")
        }
        return Component(
            name: name, offset: offset, size: size, digest: digest, loadAddress: loadAddress, target: target)
    }

    /// Text without control characters, since it is printed.
    static func text(_ item: CBOR?, _ what: String) throws(FirmwareManifestError) -> String {
        guard let text = item?.textValue, !text.isEmpty, text.utf8.count <= maximumNameLength,
            text.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control })
        else { throw .badField("\(what) is not a text of 1 to \(maximumNameLength) bytes without control characters") }
        return text
    }
}
