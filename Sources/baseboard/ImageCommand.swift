// Firmware images and chips' contents, made and looked into. Each subcommand of `baseboard image` but `chip` is about one
// slot's content; those that read also take a whole chip's, by --slot.

import ArgumentParser
import Component
import Crypto
import DeviceFirmware
import QMP
import Trust

/// `baseboard image`
struct Image: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Builds, signs, shows and verifies firmware images, and puts them into chips.",
        subcommands: [
            ImageBuild.self, ImageFirmware.self, ImageSign.self, ImageInspect.self, ImageVerify.self, ImageChip.self,
        ])
}

/// A part or a whole image is never longer than the largest chip's slot.
let imageLimit = Int(ChipLayout.maximumSize / 4)

/// What a board says about an image: a mistake that the person can mend.
struct ImageError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Who signs.
struct SignerOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The signer's private key; without --certificate the root's own.", valueName: "pem"),
        completion: .file())
    var key: String?

    @Option(
        help: ArgumentHelp(
            "The root's certificate for the signer, as 'baseboard provision' makes it.", valueName: "file"),
        completion: .file())
    var certificate: String?

    /// Nil without --key.
    func signer() throws -> (key: any SigningKey, certificate: SignerCertificate?)? {
        guard let key else {
            guard certificate == nil else { throw ValidationError("--certificate needs the --key that it certifies") }
            return nil
        }
        return (
            try Provisioning.readKey(key), try certificate.map { path in try Provisioning.readCertificate(path) }
        )
    }

    /// Signs `image`, and says with what when that fails.
    func sign(_ image: inout [UInt8], _ signer: (key: any SigningKey, certificate: SignerCertificate?)) throws {
        do throws(FirmwareImageError) {
            try FirmwareImage.sign(&image, key: signer.key, certificate: signer.certificate)
        } catch {
            switch error {
            case .certificateOfAnotherKey:
                throw ImageError("\(certificate ?? ""): \(error) (\(key ?? "")); give the --certificate made for it")
            case .certificateForAnotherBoard, .certificateForNewerImages:
                throw ImageError("\(certificate ?? ""): \(error); 'baseboard provision --add-signer' makes others")
            default: throw error
            }
        }
    }
}

struct ImageBuild: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build",
        abstract: "Builds and signs an image: the content of a slot of the board's flash chip.",
        discussion: """
            EXAMPLES
              baseboard image build --key board/keys/signer.pem --certificate board/keys/signer.cert --name server \
            --security-version 1 --first-stage first-stage.bin --opensbi fw_dynamic.bin --next-stage host.bin \
            --output server.slot.img
              baseboard image build --unsigned --name server --security-version 1 … --output server.unsigned.img
            """)

    @OptionGroup var signer: SignerOptions

    @Flag(help: "Leave the signature to 'baseboard image sign', perhaps on another machine.")
    var unsigned = false

    @Option(help: "The image's name, for people.")
    var name: String

    @Option(help: "The board that the image is for.")
    var board = FlashLayout.boardCompatibility

    @Option(help: ArgumentHelp("Boards refuse less than their fuses say.", valueName: "number"))
    var securityVersion: UInt32

    @Option(
        help: ArgumentHelp(
            "What a board's fuses are raised to once it has booted the image: older ones are refused from then on.",
            valueName: "number"))
    var rollbackFloor: UInt32 = 0

    @Option(help: ArgumentHelp("Runs in place from the reset vector.", valueName: "file"), completion: .file())
    var firstStage: String

    @Option(help: ArgumentHelp("OpenSBI's fw_dynamic.bin.", valueName: "file"), completion: .file())
    var opensbi: String

    @Option(help: ArgumentHelp("The board's firmware, a flat binary.", valueName: "file"), completion: .file())
    var nextStage: String

    @Option(
        help: ArgumentHelp("Firmware of the BMC, a package of 'baseboard image firmware'.", valueName: "file"),
        completion: .file())
    var bmc: String?

    @Option(help: ArgumentHelp("Firmware of the adapter card, a package.", valueName: "file"), completion: .file())
    var adapter: String?

    @Option(help: ArgumentHelp("Firmware of the offload card, a package.", valueName: "file"), completion: .file())
    var offload: String?

    @Option(help: ArgumentHelp("The image.", valueName: "file"), completion: .file())
    var output: String

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard unsigned == (signer.key == nil) else {
            throw ValidationError(unsigned ? "--unsigned and --key contradict" : "give --key, or --unsigned")
        }
    }

    func run() throws {
        let parts = try FirmwareParts(
            firstStage: WholeFile.read(firstStage, limit: imageLimit),
            opensbi: WholeFile.read(opensbi, limit: imageLimit),
            nextStage: WholeFile.read(nextStage, limit: imageLimit), bmc: package(bmc, .bmc),
            adapter: package(adapter, .adapter), offload: package(offload, .offload))
        var image = try FirmwareImage.unsigned(
            parts, name: name, securityVersion: securityVersion, rollbackFloor: rollbackFloor,
            boardCompatibility: board)
        if let found = try signer.signer() { try signer.sign(&image, found) }
        try WholeFile.write(output, image)
        guard !json else {
            let answer: JSONValue = [
                "image": .string(output), "name": .string(name), "security-version": .integer(Int64(securityVersion)),
                "size": .integer(Int64(image.count)), "signed": .bool(!unsigned),
            ]
            print(answer.text(pretty: true))
            return
        }
        let state = unsigned ? ", not signed yet" : ""
        print("\(output): \(name), security version \(securityVersion), \(image.count) bytes\(state)")
    }

    /// What the device would refuse at every release of its reset is not put into an image.
    private func package(_ path: String?, _ target: DeviceTarget) throws -> [UInt8]? {
        guard let path else { return nil }
        let bytes = try WholeFile.read(path, limit: imageLimit)
        do throws(FirmwarePackageError) { _ = try FirmwarePackage(decoding: bytes, for: target) } catch {
            throw ImageError("\(path): \(error); 'baseboard image firmware --target \(target)' makes one")
        }
        return bytes
    }
}

struct ImageSign: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sign",
        abstract: "Signs an image, or signs it again with another key.",
        discussion: """
            EXAMPLES
              baseboard image sign server.unsigned.img --key board/keys/signer.pem \
            --certificate board/keys/signer.cert --output server.slot.img
              baseboard image sign server.slot.img --key board/keys/signer-2.pem \
            --certificate board/keys/signer-2.cert        signs it again, in place
            """)

    @Argument(help: "The image, signed or not.", completion: .file())
    var image: String

    @OptionGroup var signer: SignerOptions

    @Option(
        help: ArgumentHelp("The signed image; the image itself by default.", valueName: "file"), completion: .file())
    var output: String?

    func run() throws {
        guard let found = try signer.signer() else { throw ValidationError("give the --key that signs") }
        var bytes = try WholeFile.read(image, limit: imageLimit)
        do { try signer.sign(&bytes, found) } catch let error as FirmwareImageError {
            throw ImageError("\(image): \(error)")
        }
        let path = output ?? image
        try WholeFile.write(path, bytes)
        let digest = try COSEKey(found.key.verifyingKey).digest()
        let number = found.certificate.map { " number \($0.number)" } ?? ", the root's own"
        print("\(path): signed by key\(number) (\(Hex.encode(digest.prefix(8)))…)")
    }
}

struct ImageChip: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chip",
        abstract: "Makes the content of a whole flash chip out of images.",
        discussion: """
            A chip is divided into four quarters: slot A, slot B, the golden image, and data. A slot without an image \
            is erased.

            EXAMPLE
              baseboard image chip --a server.slot.img --b server.slot.img --golden server.slot.img --output server.img
            """)

    @Option(help: ArgumentHelp("The image of slot A.", valueName: "image"), completion: .file())
    var a: String?

    @Option(help: ArgumentHelp("The image of slot B.", valueName: "image"), completion: .file())
    var b: String?

    @Option(help: ArgumentHelp("The image that the board falls back to.", valueName: "image"), completion: .file())
    var golden: String?

    @Option(help: ArgumentHelp("The chip's size: a power of two.", valueName: "bytes"))
    var size = SizeArgument(FlashLayout.chipSize)

    @Option(help: ArgumentHelp("The chip's content.", valueName: "file"), completion: .file())
    var output: String

    func run() throws {
        let layout = try ChipLayout(chipSize: size.bytes)
        guard a != nil || b != nil || golden != nil else {
            throw ValidationError("give an image for at least one of --a, --b and --golden")
        }
        try WholeFile.write(
            output, FirmwareImage.chip(a: read(a), b: read(b), golden: read(golden), layout: layout))
        let slots = [("A", a), ("B", b), ("golden", golden)].map { "\($0.0) \($0.1 ?? "erased")" }
        print("\(output): \(layout.chipSize) bytes, slots of \(layout.slotSize): \(slots.joined(separator: ", "))")
    }

    private func read(_ path: String?) throws -> [UInt8]? {
        guard let path else { return nil }
        let image = try WholeFile.read(path, limit: imageLimit)
        var reader = ByteArrayReader(image)
        // What has no manifest at all is no image: a whole chip's content, the wrong file.
        do throws(FirmwareRefusal) { _ = try FirmwareVerifier.inspect(&reader) } catch {
            throw ImageError("\(path): this is no firmware image: \(error)")
        }
        return image
    }
}

/// A number of bytes such as `32MiB`.
struct SizeArgument: ExpressibleByArgument {
    let bytes: UInt64

    init(_ bytes: UInt64) { self.bytes = bytes }

    init?(argument: String) {
        guard let size = ByteCount(parsing: argument) else { return nil }
        bytes = size.bytes
    }

    var defaultValueDescription: String { "\(ByteCount(bytes))" }
}
