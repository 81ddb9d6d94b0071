import ArgumentParser
import Crypto
import QMP
import Trust

/// `baseboard image`
struct Image: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Builds, shows and verifies flash images.",
        subcommands: [ImageBuild.self, ImageInspect.self, ImageVerify.self])
}

/// A part or a whole image is never longer than the chip.
private let partLimit = Int(FlashLayout.chipSize)

struct ImageBuild: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build",
        abstract: "Builds and signs the content of the host's flash chip.",
        discussion: """
            EXAMPLE
              baseboard image build --key board/keys/root.pem --name server --security-version 1 \
            --first-stage first-stage.bin --opensbi fw_dynamic.bin --next-stage host.bin --output server.img
            """)

    @Option(help: ArgumentHelp("The root's private key.", valueName: "pem"), completion: .file())
    var key: String

    @Option(help: "The image's name, for people.")
    var name: String

    @Option(help: ArgumentHelp("Boards refuse less than their fuses say.", valueName: "number"))
    var securityVersion: UInt32

    @Option(help: ArgumentHelp("Runs in place from the reset vector.", valueName: "file"), completion: .file())
    var firstStage: String

    @Option(help: ArgumentHelp("OpenSBI's fw_dynamic.bin.", valueName: "file"), completion: .file())
    var opensbi: String

    @Option(help: ArgumentHelp("The board's firmware, a flat binary.", valueName: "file"), completion: .file())
    var nextStage: String

    @Option(help: ArgumentHelp("The image.", valueName: "file"), completion: .file())
    var output: String

    func run() throws {
        let image = try FirmwareImage.build(
            firstStage: WholeFile.read(firstStage, limit: partLimit),
            opensbi: WholeFile.read(opensbi, limit: partLimit),
            nextStage: WholeFile.read(nextStage, limit: partLimit), key: Provisioning.readKey(key), name: name,
            securityVersion: securityVersion)
        try WholeFile.write(output, image)
        print("\(output): \(name), security version \(securityVersion), \(image.count) bytes")
    }
}

struct ImageInspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Shows what an image says about itself, without trusting it.")

    @Argument(help: "The image.", completion: .file())
    var image: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        var reader = try FileImageReader(path: image)
        let found: FirmwareVerifier.Inspection
        do throws(FirmwareRefusal) { found = try FirmwareVerifier.inspect(&reader) } catch {
            throw ImageReadError("\(image): \(error)")
        }
        print(json ? JSONValue.object(fields(found)).text(pretty: true) : text(found))
    }

    private func fields(_ found: FirmwareVerifier.Inspection) -> [String: JSONValue] {
        let manifest = found.manifest
        return [
            "name": .string(manifest.name), "board": .string(manifest.boardCompatibility),
            "security-version": .integer(Int64(manifest.securityVersion)),
            "signer": .string(Hex.encode(found.signerDigest)), "signature-valid": .bool(found.signatureIsValid),
            "components": .array(
                manifest.components.map { component in
                    [
                        "name": .string(component.name), "offset": .unsigned(component.offset),
                        "size": .unsigned(component.size), "load-address": .unsigned(component.loadAddress),
                        "sha384": .string(Hex.encode(component.digest)),
                    ]
                }),
        ]
    }

    private func text(_ found: FirmwareVerifier.Inspection) -> String {
        let manifest = found.manifest
        var lines = [
            "name              \(manifest.name)",
            "board             \(manifest.boardCompatibility)",
            "security version  \(manifest.securityVersion)",
            "signer            \(Hex.encode(found.signerDigest))",
            "signature         \(found.signatureIsValid ? "made by that key" : "INVALID")",
        ]
        for component in manifest.components {
            let place = "0x" + padded(String(component.offset, radix: 16), 8)
            let load = "0x" + padded(String(component.loadAddress, radix: 16), 8)
            lines.append(
                "component         \(place)  \(component.size) bytes, load \(load), \(component.name)")
            lines.append("                  sha384 \(Hex.encode(component.digest))")
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
            EXIT STATUS
              0 a board with these fuses accepts the image; 1 it refuses it, and the reason is printed.
            """)

    @Argument(help: "The image.", completion: .file())
    var image: String

    @Option(help: ArgumentHelp("The board's fuses.", valueName: "file"), completion: .file(extensions: ["json"]))
    var fuses: String

    func run() throws {
        let fuses = try Fuses(path: fuses)
        var reader = try FileImageReader(path: image)
        switch FirmwareVerifier.verify(&reader, fuses: fuses) {
        case .verified(let manifest, let digest):
            print("\(image): verified: \(manifest.name), security version \(manifest.securityVersion)")
            print("manifest sha384 \(Hex.encode(digest))")
        case .refused(let refusal, let imageName):
            print("\(image): refused: \(imageName.map { "\($0): " } ?? "")\(refusal)")
            throw ExitCode(1)
        }
    }
}
