public import Crypto

/// The making of a board's keys, fuses and identity in a folder:
///
///     keys/root.pem              the root's private key; certifies signers
///     keys/signer.pem, .cert     the first signer's private key, and the root's certificate for it
///     keys/signer-N.pem, .cert   signer number N, where it was added
///     keys/manufacturer.pem      the private key that certifies devices
///     identity/manufacturer.crt  its certificate, which verifiers trust (PEM)
///     identity/device-id.crt     the device's certificate (PEM; .der beside it)
///     fuses.json                 what the security logic reads, with the unique device secret
///
/// Private keys and fuses have mode 0600.
public enum Provisioning {
    /// What there shall be.
    public struct Options: Sendable {
        /// Makes everything anew: images signed before are refused, and the device is another one.
        public var force = false
        /// The kind of the root's and the signer's keys; the manufacturer's is always on P-384.
        public var algorithm = SignatureAlgorithm.es384
        public var boardCompatibility = FlashLayout.boardCompatibility
        public var minimumSecurityVersion: UInt32 = 1

        public init() {}
    }

    /// A file, and whether it was made or kept.
    public struct MadeFile: Equatable, Sendable {
        public let path: String
        public let wasMade: Bool
    }

    /// What was there and what was made.
    public struct Outcome: Equatable, Sendable {
        public let keyPath: String
        public let fusesPath: String
        public var madeKey: Bool { files.contains(MadeFile(path: keyPath, wasMade: true)) }
        public var madeFuses: Bool { files.contains(MadeFile(path: fusesPath, wasMade: true)) }
        public let fuses: Fuses
        /// Every file, in the order in which they depend on each other.
        public let files: [MadeFile]
    }

    public enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
        case file(FileError)
        case fuses(FusesError)
        case store(FuseStoreError)
        case crypto(CryptoError)
        case badKey(path: String, CryptoError)
        case badCertificate(path: String, COSEError)
        /// Fuses are there, and the key that they name is not.
        case keyMissing(keyPath: String, fusesPath: String)
        /// The fuses name another key than the one that is there.
        case keyMismatch(keyPath: String, fusesPath: String)
        case noRoot(keyPath: String)
        case signerExists(path: String)
        case badKeyNumber(Int)

        public var description: String {
            switch self {
            case .file(let error): error.description
            case .fuses(let error): error.description
            case .store(let error): error.description
            case .crypto(let error): error.description
            case .badKey(let path, let error): "\(path): \(error)"
            case .badCertificate(let path, let error): "\(path): this is no signer's certificate: \(error)"
            case .keyMissing(let keyPath, let fusesPath):
                "\(fusesPath) is there, but its key \(keyPath) is not: put it back, or make both anew with --force"
            case .keyMismatch(let keyPath, let fusesPath):
                "\(fusesPath) names another key than \(keyPath): put the right one back, or make both anew with --force"
            case .noRoot(let keyPath):
                "\(keyPath) is not there: a signer needs a root; run 'baseboard provision' without --add-signer first"
            case .signerExists(let path):
                "\(path) is there already: choose another number, or remove it"
            case .badKeyNumber(let number):
                "there is no key number \(number): numbers are \(firstSigner) for the first signer, up to 127"
            }
        }
    }

    /// The number of `keys/signer.pem`.
    public static let firstSigner: UInt8 = 1
    /// The manufacturer in certificates.
    public static let manufacturerName = "Baseboard manufacturer"
    /// A PEM key has a few hundred bytes, a certificate some more.
    private static let maximumKeySize = 64 * 1024

    /// Makes what is missing in `folder`; with `force` everything, so that images signed before are refused.
    public static func provision(folder: String, options: Options = Options()) throws(Failure) -> Outcome {
        let keyPath = "\(folder)/keys/root.pem"
        let fusesPath = "\(folder)/fuses.json"
        let hasFuses = !options.force && WholeFile.exists(fusesPath)
        guard !hasFuses || WholeFile.exists(keyPath) else {
            throw .keyMissing(keyPath: keyPath, fusesPath: fusesPath)
        }
        try makeFolder(folder, mode: 0o755)
        try makeFolder("\(folder)/keys", mode: 0o700)
        try makeFolder("\(folder)/identity", mode: 0o755)
        var maker = Maker(force: options.force)
        let root = try maker.key(keyPath, options.algorithm)
        let rootDigest = try crypto { () throws(CryptoError) in try COSEKey(root.verifyingKey).digest() }
        if hasFuses {
            let fuses: Fuses
            do throws(FusesError) { fuses = try Fuses(path: fusesPath) } catch { throw .fuses(error) }
            guard fuses.rootKeyDigest == rootDigest else {
                throw .keyMismatch(keyPath: keyPath, fusesPath: fusesPath)
            }
        }
        try makeSigner(
            &maker, folder: folder, number: firstSigner, algorithm: options.algorithm,
            board: options.boardCompatibility, minimum: 0, root: root)
        let manufacturer = try maker.key("\(folder)/keys/manufacturer.pem", .es384)
        let fuses = try makeFuses(
            &maker, fusesPath, exists: hasFuses, rootKeyDigest: rootDigest, options: options)
        try makeIdentity(&maker, folder: folder, fuses: fuses, manufacturer: manufacturer)
        return Outcome(keyPath: keyPath, fusesPath: fusesPath, fuses: fuses, files: maker.files)
    }

    /// Makes another signer's key, and the root's certificate for it.
    ///
    /// - Parameter minimumSecurityVersion: the least security version that it may sign.
    public static func addSigner(
        folder: String, number: Int, algorithm: SignatureAlgorithm = .es384,
        boardCompatibility: String = FlashLayout.boardCompatibility, minimumSecurityVersion: UInt32 = 0
    ) throws(Failure) -> [MadeFile] {
        guard let number = UInt8(exactly: number), SignerCertificate.keyNumbers.contains(number) else {
            throw .badKeyNumber(number)
        }
        let keyPath = "\(folder)/keys/root.pem"
        guard WholeFile.exists(keyPath) else { throw .noRoot(keyPath: keyPath) }
        let path = signerPath(folder, number)
        guard !WholeFile.exists(path + ".pem") else { throw .signerExists(path: path + ".pem") }
        var maker = Maker(force: false)
        try makeSigner(
            &maker, folder: folder, number: number, algorithm: algorithm, board: boardCompatibility,
            minimum: minimumSecurityVersion, root: try readKey(keyPath))
        return maker.files
    }

    /// Where a signer's key and certificate are, without `.pem` and `.cert`.
    public static func signerPath(_ folder: String, _ number: UInt8) -> String {
        "\(folder)/keys/signer" + (number == firstSigner ? "" : "-\(number)")
    }

    /// The private key in the PEM file at `path`.
    public static func readKey(_ path: String) throws(Failure) -> any SigningKey {
        let text = String(decoding: try read(path), as: UTF8.self)
        do throws(CryptoError) { return try signingKey(pem: text) } catch { throw .badKey(path: path, error) }
    }

    /// The signer's certificate in the file at `path`.
    public static func readCertificate(_ path: String) throws(Failure) -> SignerCertificate {
        let bytes = try read(path)
        do throws(COSEError) { return try SignerCertificate(decoding: bytes) } catch {
            throw .badCertificate(path: path, error)
        }
    }

    // MARK: Parts

    /// Keeps or makes files, and remembers which.
    private struct Maker {
        let force: Bool
        var files: [MadeFile] = []

        mutating func key(_ path: String, _ algorithm: SignatureAlgorithm) throws(Failure) -> any SigningKey {
            if !force, WholeFile.exists(path) {
                files.append(MadeFile(path: path, wasMade: false))
                return try Provisioning.readKey(path)
            }
            let key: any SigningKey
            let text: String
            do throws(CryptoError) {
                key = try algorithm.generateKey()
                text = try key.pem()
            } catch {
                throw .badKey(path: path, error)
            }
            try write(path, Array(text.utf8), mode: 0o600)
            return key
        }

        mutating func write(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(Failure) {
            do throws(FileError) { try WholeFile.write(path, bytes, mode: mode) } catch { throw .file(error) }
            files.append(MadeFile(path: path, wasMade: true))
        }

        /// Writes what is not there with these very bytes.
        mutating func keep(_ path: String, if isGood: Bool, or bytes: () throws(CryptoError) -> [UInt8]) throws(Failure)
        {
            guard !isGood else {
                files.append(MadeFile(path: path, wasMade: false))
                return
            }
            let made: [UInt8]
            do throws(CryptoError) { made = try bytes() } catch { throw .badKey(path: path, error) }
            try write(path, made)
        }
    }

    private static func makeSigner(
        _ maker: inout Maker, folder: String, number: UInt8, algorithm: SignatureAlgorithm, board: String,
        minimum: UInt32, root: any SigningKey
    ) throws(Failure) {
        let path = signerPath(folder, number)
        let key = try maker.key(path + ".pem", algorithm)
        let known = WholeFile.exists(path + ".cert") ? try? readCertificate(path + ".cert") : nil
        let isGood =
            known.map { $0.signerKey.publicKey == key.verifyingKey && $0.rootKey.publicKey == root.verifyingKey }
            ?? false
        try maker.keep(path + ".cert", if: isGood) { () throws(CryptoError) in
            try SignerCertificate(
                for: key.verifyingKey, number: number, boardCompatibility: board, minimumSecurityVersion: minimum,
                root: root
            ).encoded
        }
    }

    private static func makeFuses(
        _ maker: inout Maker, _ path: String, exists: Bool, rootKeyDigest: [UInt8], options: Options
    ) throws(Failure) -> Fuses {
        let secret = try crypto { () throws(CryptoError) in try randomBytes(Fuses.secretLength) }
        guard exists else {
            let fuses = Fuses(
                rootKeyDigest: rootKeyDigest, minimumSecurityVersion: options.minimumSecurityVersion,
                boardCompatibility: options.boardCompatibility, uniqueDeviceSecret: secret)
            try maker.write(path, Array(fuses.json.utf8), mode: fuses.fileMode)
            return fuses
        }
        let store: FuseStore
        do throws(FusesError) { store = try FuseStore(path: path) } catch { throw .fuses(error) }
        let isMissing = store.fuses.uniqueDeviceSecret == nil
        if isMissing {
            do throws(FuseStoreError) { try store.burn(uniqueDeviceSecret: secret) } catch { throw .store(error) }
        }
        maker.files.append(MadeFile(path: path, wasMade: isMissing))
        return store.fuses
    }

    /// The manufacturer's own certificate and the device's by it.
    private static func makeIdentity(
        _ maker: inout Maker, folder: String, fuses: Fuses, manufacturer: any SigningKey
    ) throws(Failure) {
        guard let secret = fuses.uniqueDeviceSecret else { return }
        let manufacturerPath = "\(folder)/identity/manufacturer.crt"
        let key = manufacturer.verifyingKey
        let isManufacturerKnown = readX509(manufacturerPath).map { (try? $0.publicKey()) == key } ?? false
        try maker.keep(manufacturerPath, if: isManufacturerKnown) { () throws(CryptoError) in
            var subject = X509Certificate.Subject(
                name: manufacturerName, issuer: manufacturerName, key: key, serial: try randomBytes(20))
            subject.authority = .init(1)
            return Array(try X509Certificate(subject, issuerKey: manufacturer).pem().utf8)
        }
        let path = "\(folder)/identity/device-id"
        let certificate = try crypto { () throws(CryptoError) in
            try DeviceIdentity.deviceIDCertificate(
                uniqueDeviceSecret: secret, manufacturer: manufacturer, manufacturerName: manufacturerName)
        }
        // The signature of P-384 differs each time: what is there is kept while its key is the device's.
        let known = isManufacturerKnown ? readX509(path + ".crt") : nil
        let deviceKey = try crypto { () throws(CryptoError) in try certificate.publicKey() }
        let isDeviceKnown = known.map { (try? $0.publicKey()) == deviceKey } ?? false
        try maker.keep(path + ".crt", if: isDeviceKnown) { () throws(CryptoError) in Array(try certificate.pem().utf8) }
        let der = isDeviceKnown ? known?.der ?? certificate.der : certificate.der
        let isBinaryKnown = (try? WholeFile.read(path + ".der", limit: maximumKeySize)) == der
        try maker.keep(path + ".der", if: isBinaryKnown) { () throws(CryptoError) in der }
    }

    // MARK: Files

    private static func read(_ path: String) throws(Failure) -> [UInt8] {
        do throws(FileError) { return try WholeFile.read(path, limit: maximumKeySize) } catch { throw .file(error) }
    }

    private static func readX509(_ path: String) -> X509Certificate? {
        guard let bytes = try? read(path) else { return nil }
        return try? X509Certificate(pem: String(decoding: bytes, as: UTF8.self))
    }

    private static func makeFolder(_ path: String, mode: UInt32) throws(Failure) {
        do throws(FileError) { try WholeFile.makeFolder(path, mode: mode) } catch { throw .file(error) }
    }

    private static func crypto<Value>(_ body: () throws(CryptoError) -> Value) throws(Failure) -> Value {
        do throws(CryptoError) { return try body() } catch { throw .crypto(error) }
    }
}
