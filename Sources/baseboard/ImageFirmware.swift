// Firmware packages of the board's devices: made, and looked into where an image holds them.

import ArgumentParser
import DeviceFirmware
import QMP
import Trust

/// `baseboard image firmware`
struct ImageFirmware: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "firmware",
        abstract: "Makes the firmware of a device: a package for 'baseboard image build'.",
        discussion: """
            A package says by which version and settings the device runs. Its settings:

            \(DeviceTarget.allCases.map(Self.settings).joined(separator: "\n"))

            EXAMPLES
              baseboard image firmware --target bmc --version 1.2.3 --set "boot-line=Baseboard firmware: ready" \
            --output bmc.pkg
              baseboard image build --bmc bmc.pkg … --output server.slot.img
            """)

    private static func settings(_ target: DeviceTarget) -> String {
        let lines = target.settings.map { "    \($0.name): \($0.help) (\($0.range))" }
        return (["  \(target)"] + lines).joined(separator: "\n")
    }

    @Option(help: "The device: \(DeviceTarget.allCases.map(\.description).joined(separator: ", ")).")
    var target: TargetArgument

    @Option(help: ArgumentHelp("Three numbers: 0 to 127, 0 to 99, 0 to 255.", valueName: "1.2.3"))
    var version: VersionArgument

    @Option(name: .customLong("set"), help: ArgumentHelp("A setting; may be repeated.", valueName: "name=value"))
    var set: [String] = []

    @Option(help: ArgumentHelp("The package.", valueName: "file"), completion: .file())
    var output: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let package = try FirmwarePackage(target: target.target, version: version.version, settings: settings())
        let bytes = package.encoded()
        try WholeFile.write(output, bytes)
        guard !json else {
            var fields = package.fields
            fields["package"] = .string(output)
            fields["size"] = .integer(Int64(bytes.count))
            print(JSONValue.object(fields).text(pretty: true))
            return
        }
        print("\(output): \(package.text), \(bytes.count) bytes")
    }

    private func settings() throws -> [String: FirmwareSetting.Value] {
        let target = target.target
        var settings: [String: FirmwareSetting.Value] = [:]
        for argument in set {
            guard let separator = argument.firstIndex(of: "=") else {
                throw ValidationError("--set '\(argument)': write it as name=value")
            }
            let (name, text) = (String(argument[..<separator]), String(argument[argument.index(after: separator)...]))
            guard let setting = target.setting(named: name) else {
                throw ValidationError("--set \(argument): \(FirmwarePackageError.unknownSetting(name, target))")
            }
            guard let value = setting.value(parsing: text) else {
                throw ValidationError("--set \(argument): \(name) must be \(setting.range)")
            }
            guard settings.updateValue(value, forKey: name) == nil else {
                throw ValidationError("--set \(argument): \(name) is set twice")
            }
        }
        return settings
    }
}

struct TargetArgument: ExpressibleByArgument {
    let target: DeviceTarget

    init?(argument: String) {
        guard let target = DeviceTarget(named: argument) else { return nil }
        self.target = target
    }

    static var allValueStrings: [String] { DeviceTarget.allCases.map(\.description) }
}

struct VersionArgument: ExpressibleByArgument {
    let version: FirmwareVersion

    init?(argument: String) {
        guard let version = FirmwareVersion(argument) else { return nil }
        self.version = version
    }
}

extension FirmwarePackage {
    /// For people, on one line.
    var text: String {
        let settings = settings.sorted { $0.key < $1.key }.map { ", \($0.key) '\($0.value)'" }
        return "firmware \(version) for \(target)" + settings.joined()
    }

    var fields: [String: JSONValue] {
        [
            "target": .string(target.description), "version": .string(version.description),
            "settings": .object(settings.mapValues(\.json)),
        ]
    }
}

/// What the device would make of a component of an image.
enum PackageInspection {
    case package(FirmwarePackage)
    /// The device would refuse it, or never look at it.
    case unusable(String)

    /// Nil for what is not a device's, and for an erased place.
    init?<Reader: ImageReader>(_ component: FirmwareManifest.Component, _ reader: inout Reader) throws {
        guard let target = DeviceTarget(rawValue: component.target.rawValue) else { return nil }
        guard component.offset == UInt64(target.place.lowerBound) else {
            self = .unusable("not where \(target) looks for its firmware: it runs what it has built in")
            return
        }
        guard component.size <= UInt64(target.capacity) else {
            self = .unusable("longer than its place: the device will not run")
            return
        }
        let bytes: [UInt8] = try reader.read(offset: component.offset, count: Int(component.size))
        do throws(FirmwarePackageError) {
            guard let package = try FirmwarePackage(at: bytes, for: target) else { return nil }
            self = .package(package)
        } catch {
            self = .unusable("\(error): the device will not run")
        }
    }

    var text: String {
        switch self {
        case .package(let package): package.text
        case .unusable(let why): why
        }
    }

    var json: JSONValue {
        switch self {
        case .package(let package): .object(package.fields)
        case .unusable(let why): ["refused": .string(why)]
        }
    }
}
