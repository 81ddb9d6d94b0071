public import ArgumentParser
public import Crypto
import QMP
import Trust

/// `baseboard provision`
struct Provision: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes a board's keys, fuses and identity.",
        discussion: """
            Makes in the folder what is not there yet:

              keys/root.pem              certifies signers; the fuses hold its digest
              keys/signer.pem, .cert     signs images: key number 1, and the root's certificate for it
              keys/manufacturer.pem      certifies devices; its certificate is identity/manufacturer.crt
              identity/device-id.crt     the device's certificate, as PEM (.der beside it)
              fuses.json                 what the security logic reads, with the unique device secret

            Private keys and fuses have mode 0600. Images signed with the signer or the root are accepted by boards with \
            the fuses, until the signer's number is cancelled in them. A running board has read its fuses already.

            EXAMPLES
              baseboard provision --output board
              baseboard provision --output board --algorithm ed25519
              baseboard provision --output board --add-signer 2     keys/signer-2.pem and .cert
              baseboard provision --output board --cancel-key 1     images by number 1 are refused from now on
              baseboard provision --output board --force            all new: images signed before are refused
              openssl verify -CAfile board/identity/manufacturer.crt board/identity/device-id.crt
            """)

    @Option(help: ArgumentHelp("The folder.", valueName: "dir"), completion: .directory)
    var output: String

    @Flag(help: "Replace what is there.")
    var force = false

    @Option(help: "The kind of new keys: es384 or ed25519.")
    var algorithm = SignatureAlgorithm.es384

    @Option(help: "The board that images are for.")
    var board = FlashLayout.boardCompatibility

    @Option(help: ArgumentHelp("The least security version in new fuses.", valueName: "number"))
    var minimumSecurityVersion: UInt32 = 1

    @Option(help: ArgumentHelp("Make another signer with this key number, 0 to 127.", valueName: "number"))
    var addSigner: Int?

    @Option(help: ArgumentHelp("The least security version that the added signer may sign.", valueName: "number"))
    var signerMinimum: UInt32 = 0

    @Option(help: ArgumentHelp("Burn the fuse that cancels this key number; it cannot be undone.", valueName: "number"))
    var cancelKey: UInt8?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard addSigner == nil || cancelKey == nil else {
            throw ValidationError("choose one of --add-signer and --cancel-key")
        }
        guard !force || (addSigner == nil && cancelKey == nil) else {
            throw ValidationError("--force makes a whole board anew: leave out --add-signer and --cancel-key")
        }
        guard signerMinimum == 0 || addSigner != nil else {
            throw ValidationError("--signer-minimum needs --add-signer")
        }
    }

    func run() throws {
        if let cancelKey {
            let store = try FuseStore(path: "\(output)/fuses.json")
            try store.burn(cancelledKey: cancelKey)
            let numbers = store.fuses.cancelledKeys.numbers
            report(
                ["cancelled-keys": .array(numbers.map { .integer(Int64($0)) })],
                "\(store.path): cancelled key numbers \(numbers.map(String.init).joined(separator: ", "))")
        } else if let addSigner {
            let files = try Provisioning.addSigner(
                folder: output, number: addSigner, algorithm: algorithm, boardCompatibility: board,
                minimumSecurityVersion: signerMinimum)
            report(["files": fields(files)], lines(files).joined(separator: "\n"))
        } else {
            var options = Provisioning.Options()
            options.force = force
            options.algorithm = algorithm
            options.boardCompatibility = board
            options.minimumSecurityVersion = minimumSecurityVersion
            let outcome = try Provisioning.provision(folder: output, options: options)
            let digest = Hex.encode(outcome.fuses.rootKeyDigest)
            report(
                ["files": fields(outcome.files), "root-key-digest": .string(digest)],
                (lines(outcome.files) + ["root key digest \(digest)"]).joined(separator: "\n"))
        }
    }

    private func report(_ answer: JSONValue, _ text: String) {
        print(json ? answer.text(pretty: true) : text)
    }

    private func lines(_ files: [Provisioning.MadeFile]) -> [String] {
        files.map { "\($0.wasMade ? "made" : "kept") \($0.path)" }
    }

    private func fields(_ files: [Provisioning.MadeFile]) -> JSONValue {
        .array(files.map { ["path": .string($0.path), "made": .bool($0.wasMade)] })
    }
}

extension SignatureAlgorithm: ExpressibleByArgument {}
