import ArgumentParser
import Crypto
import Trust

/// `baseboard provision`
struct Provision: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes a board's root key and fuses.",
        discussion: """
            Makes keys/root.pem (mode 0600) and fuses.json in the folder, where they are not there yet. Images signed \
            with the key are accepted by boards with the fuses.

            EXAMPLES
              baseboard provision --output board
              baseboard provision --output board --force    new ones: images signed before are refused
            """)

    @Option(help: ArgumentHelp("The folder.", valueName: "dir"), completion: .directory)
    var output: String

    @Flag(help: "Replace what is there.")
    var force = false

    func run() throws {
        let outcome = try Provisioning.provision(folder: output, force: force)
        print("\(outcome.madeKey ? "made" : "kept") \(outcome.keyPath)")
        print("\(outcome.madeFuses ? "made" : "kept") \(outcome.fusesPath)")
        print("root key digest \(Hex.encode(outcome.fuses.rootKeyDigest))")
    }
}
