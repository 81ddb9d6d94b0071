public import Crypto

/// The making of a board's root key and fuses in a folder:
///
///     keys/root.pem   the root's private key, mode 0600
///     fuses.json      what the security logic reads
public enum Provisioning {
    /// What was there and what was made.
    public struct Outcome: Equatable, Sendable {
        public let keyPath: String
        public let fusesPath: String
        public let madeKey: Bool
        public let madeFuses: Bool
        public let fuses: Fuses
    }

    public enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
        case file(FileError)
        case fuses(FusesError)
        case badKey(path: String, CryptoError)
        case badCertificate(path: String, COSEError)
        /// Fuses are there, and the key that they name is not.
        case keyMissing(keyPath: String, fusesPath: String)
        /// The fuses name another key than the one that is there.
        case keyMismatch(keyPath: String, fusesPath: String)

        public var description: String {
            switch self {
            case .file(let error): error.description
            case .fuses(let error): error.description
            case .badKey(let path, let error): "\(path): \(error)"
            case .badCertificate(let path, let error): "\(path): this is no signer's certificate: \(error)"
            case .keyMissing(let keyPath, let fusesPath):
                "\(fusesPath) is there, but its key \(keyPath) is not: put it back, or make both anew with --force"
            case .keyMismatch(let keyPath, let fusesPath):
                "\(fusesPath) names another key than \(keyPath): put the right one back, or make both anew with --force"
            }
        }
    }

    /// A PEM key has a few hundred bytes.
    private static let maximumKeySize = 64 * 1024

    /// Makes what is missing in `folder`; with `force` everything, so that images signed before are refused.
    public static func provision(folder: String, force: Bool) throws(Failure) -> Outcome {
        let keyPath = "\(folder)/keys/root.pem"
        let fusesPath = "\(folder)/fuses.json"
        let hasKey = !force && WholeFile.exists(keyPath)
        let hasFuses = !force && WholeFile.exists(fusesPath)
        guard hasKey || !hasFuses else { throw .keyMissing(keyPath: keyPath, fusesPath: fusesPath) }
        do throws(FileError) {
            try WholeFile.makeFolder(folder, mode: 0o755)
            try WholeFile.makeFolder("\(folder)/keys", mode: 0o700)
        } catch {
            throw .file(error)
        }
        let key = hasKey ? try readKey(keyPath) : try makeKey(keyPath)
        let made: Fuses
        do throws(CryptoError) { made = try Fuses(root: key.verifyingKey, minimumSecurityVersion: 1) } catch {
            throw .badKey(path: keyPath, error)
        }
        guard hasFuses else {
            do throws(FileError) { try WholeFile.write(fusesPath, Array(made.json.utf8)) } catch { throw .file(error) }
            return Outcome(
                keyPath: keyPath, fusesPath: fusesPath, madeKey: !hasKey, madeFuses: true, fuses: made)
        }
        let fuses: Fuses
        do throws(FusesError) { fuses = try Fuses(path: fusesPath) } catch { throw .fuses(error) }
        guard fuses.rootKeyDigest == made.rootKeyDigest else {
            throw .keyMismatch(keyPath: keyPath, fusesPath: fusesPath)
        }
        return Outcome(keyPath: keyPath, fusesPath: fusesPath, madeKey: !hasKey, madeFuses: false, fuses: fuses)
    }

    /// The private key in the PEM file at `path`.
    public static func readKey(_ path: String) throws(Failure) -> any SigningKey {
        let bytes: [UInt8]
        do throws(FileError) { bytes = try WholeFile.read(path, limit: maximumKeySize) } catch { throw .file(error) }
        do throws(CryptoError) { return try signingKey(pem: String(decoding: bytes, as: UTF8.self)) } catch {
            throw .badKey(path: path, error)
        }
    }

    /// The signer's certificate in the file at `path`.
    public static func readCertificate(_ path: String) throws(Failure) -> SignerCertificate {
        let bytes: [UInt8]
        do throws(FileError) { bytes = try WholeFile.read(path, limit: maximumKeySize) } catch { throw .file(error) }
        do throws(COSEError) { return try SignerCertificate(decoding: bytes) } catch {
            throw .badCertificate(path: path, error)
        }
    }

    private static func makeKey(_ path: String) throws(Failure) -> any SigningKey {
        do {
            let key = try P384PrivateKey.generate()
            try WholeFile.write(path, Array(key.pem().utf8), mode: 0o600)
            return key
        } catch let error as FileError {
            throw .file(error)
        } catch let error as CryptoError {
            throw .badKey(path: path, error)
        } catch {
            preconditionFailure("only these two kinds of errors are thrown above")
        }
    }
}
