public import QMP

/// The firmware that a device runs.
public struct LoadedFirmware: Hashable, Sendable {
    public enum Source: String, Hashable, Sendable {
        /// A verified package in the board's flash.
        case flash
        /// What the device has by itself.
        case builtIn = "built-in"
    }

    public let source: Source
    public let version: FirmwareVersion
    private let settings: [String: FirmwareSetting.Value]

    public init(_ package: FirmwarePackage) {
        source = .flash
        version = package.version
        settings = package.settings
    }

    private init() {
        source = .builtIn
        version = .builtIn
        settings = [:]
    }

    public static let builtIn = LoadedFirmware()

    /// Nil where the package does not say.
    public func text(_ name: String) -> String? {
        if case .text(let text)? = settings[name] { text } else { nil }
    }

    /// Nil where the package does not say.
    public func unsigned(_ name: String) -> UInt64? {
        if case .unsigned(let number)? = settings[name] { number } else { nil }
    }

    /// Nil where the package does not say.
    public func boolean(_ name: String) -> Bool? {
        if case .boolean(let value)? = settings[name] { value } else { nil }
    }

    /// The data of the event FIRMWARE_LOADED.
    public var eventData: [String: JSONValue] {
        ["version": .string(version.description), "source": .string(source.rawValue)]
    }
}

/// Where a device stands with its firmware.
public enum FirmwareState: Hashable, Sendable {
    /// In reset, or not asked for yet.
    case none
    case loading
    case loaded(LoadedFirmware)
    /// Refused or unreadable; the device does not run.
    case failed(reason: String)

    public var loaded: LoadedFirmware? { if case .loaded(let firmware) = self { firmware } else { nil } }

    /// The answer to `query-firmware`: `state`, and loaded `source`, `version` and `settings`, failed `reason`.
    public var json: JSONValue {
        switch self {
        case .none: ["state": "none"]
        case .loading: ["state": "loading"]
        case .loaded(let firmware): .object(firmware.members.merging(["state": "loaded"]) { own, _ in own })
        case .failed(let reason): ["state": "failed", "reason": .string(reason)]
        }
    }
}

extension LoadedFirmware {
    fileprivate var members: [String: JSONValue] {
        eventData.merging(["settings": .object(settings.mapValues(\.json))]) { own, _ in own }
    }
}
