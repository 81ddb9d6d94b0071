// A device's firmware as it lies in the flash: who it is for, which version it is, and what the device is to do by it.
//
//     0  u32 magic "BFPK"   4  u32 length   8  CBOR map of that many bytes (deterministic encoding)
//        1: format (1)   2: target   3: [major, minor, patch]   4: settings, a map of text → text | unsigned | bool
//
// Integers little-endian. Everything is checked before anything is used; docs/wiring.md, "Device firmware".

internal import CBOR

/// A device firmware package.
public struct FirmwarePackage: Hashable, Sendable {
    /// "BFPK" as its bytes lie in the flash.
    public static let magic: UInt32 = 0x4B50_4642
    public static let formatVersion: UInt64 = 1
    /// Bytes before the map.
    public static let headerLength = 8

    public let target: DeviceTarget
    public let version: FirmwareVersion
    /// By name; each one that the target has and with a value that it may have.
    public let settings: [String: FirmwareSetting.Value]

    public init(
        target: DeviceTarget, version: FirmwareVersion, settings: [String: FirmwareSetting.Value] = [:]
    ) throws(FirmwarePackageError) {
        self.target = target
        self.version = version
        self.settings = settings
        for (name, value) in settings.sorted(by: { $0.key < $1.key }) { try Self.check(name, value, target) }
    }

    private static func check(
        _ name: String, _ value: FirmwareSetting.Value, _ target: DeviceTarget
    ) throws(FirmwarePackageError) {
        guard let setting = target.setting(named: name) else {
            throw .unknownSetting(printable(name), target)
        }
        guard setting.accepts(value) else {
            throw .badSetting(name, printable(value.description), mustBe: setting.range)
        }
    }

    /// Bytes of a stranger as they may be printed.
    private static func printable(_ text: String) -> String {
        let shown = text.unicodeScalars.prefix(64).map { scalar in
            scalar.properties.generalCategory == .control ? "?" : String(scalar)
        }
        return shown.joined()
    }
}

/// Why bytes are no package, or none for this device.
public enum FirmwarePackageError: Error, Equatable, Sendable, CustomStringConvertible {
    case noMagic(UInt32)
    /// The package says that it is longer than its place.
    case tooLong(length: UInt64, limit: Int)
    /// More or fewer bytes are there than the package says.
    case badLength(found: Int, expected: Int)
    case cbor(String)
    case unknownFormat(UInt64)
    case wrongTarget(found: DeviceTarget, expected: DeviceTarget)
    /// A field is missing, unknown, of another type or out of range.
    case badField(String)
    case unknownSetting(String, DeviceTarget)
    case badSetting(String, String, mustBe: String)

    public var description: String {
        switch self {
        case .noMagic(let magic): "no firmware package: it begins with 0x\(String(magic, radix: 16))"
        case .tooLong(let length, let limit): "the package says that it has \(length) bytes, its place holds \(limit)"
        case .badLength(let found, let expected): "the package has \(found) bytes and says that it has \(expected)"
        case .cbor(let why): "the package: \(why)"
        case .unknownFormat(let format):
            "package format \(format), only \(FirmwarePackage.formatVersion) is known"
        case .wrongTarget(let found, let expected): "the package is for \(found), not for \(expected)"
        case .badField(let what): what
        case .unknownSetting(let name, let target):
            "the firmware of \(target) has no setting '\(name)', only "
                + target.settings.map(\.name).joined(separator: ", ")
        case .badSetting(let name, let value, let range): "\(name) '\(value)' must be \(range)"
        }
    }
}

// MARK: Encoding

extension FirmwarePackage {
    private enum Label {
        static let format: Int64 = 1
        static let target: Int64 = 2
        static let version: Int64 = 3
        static let settings: Int64 = 4
    }

    /// The bytes that lie in the flash.
    public func encoded() -> [UInt8] {
        let settings = settings.map { CBOR.Entry(.text($0.key), Self.item($0.value)) }
        let map = CBOR.map([
            .init(.integer(Label.format), .unsigned(Self.formatVersion)),
            .init(.integer(Label.target), .unsigned(target.rawValue)),
            .init(
                .integer(Label.version),
                .array([version.major, version.minor, version.patch].map { .unsigned(UInt64($0)) })),
            .init(.integer(Label.settings), .map(settings)),
        ]).encoded()
        return Self.bytes(Self.magic) + Self.bytes(UInt32(map.count)) + map
    }

    private static func bytes(_ word: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }

    private static func item(_ value: FirmwareSetting.Value) -> CBOR {
        switch value {
        case .text(let text): .text(text)
        case .unsigned(let number): .unsigned(number)
        case .boolean(let value): value ? .true : .false
        }
    }

    // MARK: Decoding

    /// What the first bytes of a package's place say.
    public enum Header: Hashable, Sendable {
        /// The place is erased.
        case erased
        /// A package of so many bytes, these ones included.
        case package(byteCount: Int)

        /// - Parameter bytes: the first ``FirmwarePackage/headerLength`` bytes, or more.
        public init(_ bytes: some Collection<UInt8>, for target: DeviceTarget) throws(FirmwarePackageError) {
            guard bytes.count >= FirmwarePackage.headerLength else {
                throw .badLength(found: bytes.count, expected: FirmwarePackage.headerLength)
            }
            let words = [0, 4].map { start in
                bytes.dropFirst(start).prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            }
            guard words != [.max, .max] else {
                self = .erased
                return
            }
            guard words[0] == FirmwarePackage.magic else { throw .noMagic(words[0]) }
            let count = UInt64(words[1]) + UInt64(FirmwarePackage.headerLength)
            guard count <= UInt64(target.capacity) else { throw .tooLong(length: count, limit: target.capacity) }
            self = .package(byteCount: Int(count))
        }
    }

    /// Reads the package for `target` that a place in the flash holds from its first byte; nil where it is erased.
    ///
    /// - Parameter place: at least the package's bytes; what follows them is not looked at.
    public init?(at place: [UInt8], for target: DeviceTarget) throws(FirmwarePackageError) {
        guard case .package(let count) = try Header(place, for: target) else { return nil }
        try self.init(decoding: Array(place.prefix(count)), for: target)
    }

    /// Reads a package for `target` from its first byte to its last.
    public init(decoding bytes: [UInt8], for target: DeviceTarget) throws(FirmwarePackageError) {
        guard case .package(let count) = try Header(bytes, for: target) else { throw .noMagic(.max) }
        guard bytes.count == count else { throw .badLength(found: bytes.count, expected: count) }
        var limits = CBOR.Limits()
        limits.bytes = target.capacity
        limits.depth = 4
        limits.items = 256
        let map: CBOR
        do throws(CBORError) {
            map = try CBOR.decode(Array(bytes[Self.headerLength...]), limits: limits)
        } catch {
            throw .cbor(error.description)
        }
        guard case .map(let entries) = map else { throw .badField("the package is not a map") }
        guard let format = map[Label.format]?.unsignedValue else { throw .badField("the package has no format") }
        guard format == Self.formatVersion else { throw .unknownFormat(format) }
        guard let found = map[Label.target]?.unsignedValue.flatMap(DeviceTarget.init(rawValue:)) else {
            throw .badField("the package's target is not one of 1 to \(DeviceTarget.offload.rawValue)")
        }
        guard found == target else { throw .wrongTarget(found: found, expected: target) }
        let numbers = map[Label.version]?.arrayValue?.compactMap(\.unsignedValue) ?? []
        guard numbers.count == 3, map[Label.version]?.arrayValue?.count == 3,
            let version = FirmwareVersion(major: numbers[0], minor: numbers[1], patch: numbers[2])
        else { throw .badField("the package's version is not [0…127, 0…99, 0…255]") }
        guard case .map(let items)? = map[Label.settings] else { throw .badField("the package has no settings") }
        guard entries.count == 4 else { throw .badField("the package has \(entries.count) fields, must have 4") }
        var settings: [String: FirmwareSetting.Value] = [:]
        for item in items {
            guard let name = item.key.textValue else { throw .badField("a setting's name is not a text") }
            guard let value = Self.value(item.value) else {
                throw .badField("setting '\(Self.printable(name))' is not a text, an unsigned number or a boolean")
            }
            settings[name] = value
        }
        try self.init(target: target, version: version, settings: settings)
    }

    private static func value(_ item: CBOR) -> FirmwareSetting.Value? {
        switch item {
        case .text(let text): .text(text)
        case .unsigned(let number): .unsigned(number)
        case .true: .boolean(true)
        case .false: .boolean(false)
        default: nil
        }
    }
}
