// What an image says about itself, and what a board would say about it.

import ArgumentParser
import Crypto
import DeviceFirmware
import QMP
import Trust

/// An image in a file of its own or in a slot of a chip's content.
struct ImageFileOptions: ParsableArguments {
    @Argument(help: "The image, or a whole chip's content.", completion: .file())
    var image: String

    @Option(help: "The slot of a chip's content: a, b or golden. Without it the file's first byte is the image's.")
    var slot: SlotArgument?

    func reader() throws -> SlotReader<FileImageReader> {
        let file = try FileImageReader(path: image)
        guard let slot else { return SlotReader(file, base: 0, size: file.byteCount) }
        do throws(ChipLayoutError) {
            return SlotReader(file, layout: try ChipLayout(chipSize: file.byteCount), slot: slot.slot)
        } catch {
            throw ImageError("\(image): \(error); leave --slot out for an image of its own")
        }
    }
}

struct SlotArgument: ExpressibleByArgument {
    let slot: FirmwareSlot

    init?(argument: String) {
        guard let slot = FirmwareSlot.allCases.first(where: { $0.description.lowercased() == argument.lowercased() })
        else { return nil }
        self.slot = slot
    }

    static var allValueStrings: [String] { FirmwareSlot.allCases.map { $0.description.lowercased() } }
}

struct ImageInspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Shows what an image says about itself, without trusting it.",
        discussion: """
            EXAMPLES
              baseboard image inspect server.slot.img
              baseboard image inspect server.img --slot golden --json
            """)

    @OptionGroup var file: ImageFileOptions

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        var reader = try file.reader()
        let found: FirmwareVerifier.Inspection
        do throws(FirmwareRefusal) { found = try FirmwareVerifier.inspect(&reader) } catch {
            throw ImageError("\(file.image): \(error)")
        }
        var packages: [String: PackageInspection] = [:]
        for component in found.manifest.components {
            packages[component.name] = try PackageInspection(component, &reader)
        }
        print(
            json
                ? JSONValue.object(try fields(found, packages)).text(pretty: true) : try text(found, packages))
    }

    private func fields(
        _ found: FirmwareVerifier.Inspection, _ packages: [String: PackageInspection]
    ) throws -> [String: JSONValue] {
        let manifest = found.manifest
        var fields: [String: JSONValue] = [
            "name": .string(manifest.name), "board": .string(manifest.boardCompatibility),
            "security-version": .integer(Int64(manifest.securityVersion)),
            "rollback-floor": .integer(Int64(manifest.rollbackFloor)), "signed": .bool(found.signature != nil),
            "components": .array(
                manifest.components.map { component in
                    var fields: [String: JSONValue] = [
                        "name": .string(component.name), "target": .string(component.target.description),
                        "offset": .unsigned(component.offset), "size": .unsigned(component.size),
                        "load-address": .unsigned(component.loadAddress),
                        "sha384": .string(Hex.encode(component.digest)),
                    ]
                    fields["firmware"] = packages[component.name]?.json
                    return .object(fields)
                }),
        ]
        guard let signature = found.signature else { return fields }
        fields["signer"] = .string(Hex.encode(signature.signerDigest))
        fields["algorithm"] = .string(signature.algorithm.rawValue)
        fields["signature-valid"] = .bool(signature.isValid)
        if let certificate = signature.certificate {
            fields["certificate"] = [
                "key-number": .integer(Int64(certificate.number)), "board": .string(certificate.boardCompatibility),
                "minimum-security-version": .integer(Int64(certificate.minimumSecurityVersion)),
                "root": .string(Hex.encode(try certificate.rootKey.digest())),
                "algorithm": .string(certificate.algorithm.rawValue),
                "signature-valid": .bool(signature.certificateIsValid == true),
            ]
        }
        return fields
    }

    private func text(
        _ found: FirmwareVerifier.Inspection, _ packages: [String: PackageInspection]
    ) throws -> String {
        let manifest = found.manifest
        var lines = [
            "name              \(manifest.name)",
            "board             \(manifest.boardCompatibility)",
            "security version  \(manifest.securityVersion), rollback floor \(manifest.rollbackFloor)",
        ]
        if let signature = found.signature {
            lines += [
                "signer            \(Hex.encode(signature.signerDigest))",
                "signature         \(signature.isValid ? "made by that key" : "INVALID") (\(signature.algorithm.rawValue))",
            ]
            if let certificate = signature.certificate {
                let state = signature.certificateIsValid == true ? "signed by that root" : "INVALID"
                lines += [
                    "certificate       key number \(certificate.number), for \(certificate.boardCompatibility),"
                        + " security version \(certificate.minimumSecurityVersion) and above",
                    "root              \(Hex.encode(try certificate.rootKey.digest()))",
                    "root's signature  \(state) (\(certificate.algorithm.rawValue))",
                ]
            } else {
                lines.append("certificate       none: boards accept this key only if it is their root")
            }
        } else {
            lines.append("signature         none: no board accepts this image before 'baseboard image sign'")
        }
        for component in manifest.components {
            let place = "0x" + padded(String(component.offset, radix: 16), 8)
            let load =
                component.loadAddress == 0 ? "" : ", load 0x" + padded(String(component.loadAddress, radix: 16), 8)
            lines.append(
                "component         \(place)  \(component.size) bytes for \(component.target)\(load), \(component.name)")
            lines.append("                  sha384 \(Hex.encode(component.digest))")
            if let package = packages[component.name] { lines.append("                  \(package.text)") }
        }
        return lines.joined(separator: "\n")
    }

    private func padded(_ digits: String, _ width: Int) -> String {
        String(repeating: "0", count: max(width - digits.count, 0)) + digits
    }
}

struct ImageVerify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Checks an image as a board does before it may run.",
        discussion: """
            EXAMPLES
              baseboard image verify server.slot.img --fuses board/fuses.json
              baseboard image verify server.img --slot b --fuses board/fuses.json

            EXIT STATUS
              0 a board with these fuses accepts the image; 1 it refuses it, and the reason is printed.
            """)

    @OptionGroup var file: ImageFileOptions

    @Option(help: ArgumentHelp("The board's fuses.", valueName: "file"), completion: .file(extensions: ["json"]))
    var fuses: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let fuses = try Fuses(path: fuses)
        var reader = try file.reader()
        let verdict = FirmwareVerifier.verify(&reader, fuses: fuses)
        if json { print(fields(verdict).text(pretty: true)) }
        switch verdict {
        case .verified(let manifest, let digest):
            guard !json else { return }
            print("\(file.image): verified: \(manifest.name), security version \(manifest.securityVersion)")
            print("manifest sha384 \(Hex.encode(digest))")
        case .refused(let refusal, let imageName):
            if !json { print("\(file.image): refused: \(imageName.map { "\($0): " } ?? "")\(refusal)") }
            throw ExitCode(1)
        }
    }

    private func fields(_ verdict: FirmwareVerdict) -> JSONValue {
        switch verdict {
        case .verified(let manifest, let digest):
            [
                "verified": true, "name": .string(manifest.name),
                "security-version": .integer(Int64(manifest.securityVersion)),
                "rollback-floor": .integer(Int64(manifest.rollbackFloor)), "sha384": .string(Hex.encode(digest)),
            ]
        case .refused(let refusal, let imageName):
            [
                "verified": false, "name": imageName.map { .string($0) } ?? .null,
                "reason": .string(refusal.description),
            ]
        }
    }
}
