import Crypto
internal import Glibc
internal import Synchronization
internal import Wire

/// Why a fuse cannot be burnt.
public enum FuseStoreError: Error, Equatable, Sendable, CustomStringConvertible {
    case fuses(FusesError)
    case file(FileError)
    /// The minimum in the fuses is above the one asked for.
    case wouldClear(path: String, field: String, burnt: String, asked: String)
    case noSuchKeyNumber(UInt8)
    /// The file's fuses are not the ones that were loaded, with more bits set.
    case replaced(path: String)

    public var description: String {
        switch self {
        case .fuses(let error): error.description
        case .file(let error): error.description
        case .wouldClear(let path, let field, let burnt, let asked):
            "\(path): \(field) is burnt to \(burnt) and cannot become \(asked): fuses are one way"
        case .noSuchKeyNumber(let number): "there is no fuse for key number \(number); numbers are 0 to 127"
        case .replaced(let path):
            "\(path): these are other fuses than the ones that were loaded; power-cycle the board to load them"
        }
    }
}

/// Fuses in a file, one-time programmable: what is burnt stays burnt.
///
/// A burn reads the file again, adds its bits and replaces the file as a whole, durably, under a lock: it is there or
/// not, whenever the power goes. Any thread.
public final class FuseStore: Sendable {
    public let path: String
    private let loaded: Mutex<Fuses>

    public init(path: String) throws(FusesError) {
        self.path = path
        loaded = Mutex(try Fuses(path: path))
    }

    /// What was loaded and burnt since.
    public var fuses: Fuses { loaded.withLock { $0 } }

    /// Raises the least security version that may run. The burnt value itself is no change; a lower one is refused.
    public func burn(minimumSecurityVersion minimum: UInt32) throws(FuseStoreError) {
        try burn { fuses throws(FuseStoreError) in
            guard minimum >= fuses.minimumSecurityVersion else {
                throw .wouldClear(
                    path: self.path, field: "minimumSecurityVersion", burnt: "\(fuses.minimumSecurityVersion)",
                    asked: "\(minimum)")
            }
            fuses.minimumSecurityVersion = minimum
        }
    }

    /// Cancels a signer: images that it signed are refused from here on. One that is cancelled already is no change.
    public func burn(cancelledKey number: UInt8) throws(FuseStoreError) {
        guard SignerCertificate.keyNumbers.contains(number) else { throw .noSuchKeyNumber(number) }
        try burn { fuses throws(FuseStoreError) in fuses.cancelledKeys.insert(number) }
    }

    /// Gives the board its secret, once.
    public func burn(uniqueDeviceSecret secret: [UInt8]) throws(FuseStoreError) {
        precondition(secret.count == Fuses.secretLength, "a unique device secret has 32 bytes")
        try burn { fuses throws(FuseStoreError) in
            guard fuses.uniqueDeviceSecret == nil || fuses.uniqueDeviceSecret == secret else {
                throw .wouldClear(
                    path: self.path, field: "uniqueDeviceSecret", burnt: "a secret", asked: "another one")
            }
            fuses.uniqueDeviceSecret = secret
        }
    }

    private func burn(_ change: (inout Fuses) throws(FuseStoreError) -> Void) throws(FuseStoreError) {
        try loaded.withLock { loaded throws(FuseStoreError) in
            let lock = try Self.lock(path)
            // The lock goes with its descriptor.
            defer { withExtendedLifetime(lock) {} }
            let before: Fuses
            do throws(FusesError) { before = try Fuses(path: path) } catch { throw .fuses(error) }
            guard before.rootKeyDigest == loaded.rootKeyDigest,
                before.boardCompatibility == loaded.boardCompatibility,
                before.minimumSecurityVersion >= loaded.minimumSecurityVersion,
                before.cancelledKeys.bitmap & loaded.cancelledKeys.bitmap == loaded.cancelledKeys.bitmap,
                loaded.uniqueDeviceSecret == nil || before.uniqueDeviceSecret == loaded.uniqueDeviceSecret
            else { throw .replaced(path: path) }
            var after = before
            try change(&after)
            if after != before {
                do throws(FileError) {
                    try WholeFile.write(path, Array(after.json.utf8), mode: after.fileMode)
                } catch {
                    throw .file(error)
                }
            }
            loaded = after
        }
    }

    /// Holds others off until the descriptor goes: the folder's, since the file itself is replaced.
    private static func lock(_ path: String) throws(FuseStoreError) -> Descriptor {
        let folder = WholeFile.folder(of: path)
        do throws(WireError) {
            let descriptor = try Descriptor.open(folder, flags: O_RDONLY | O_DIRECTORY)
            while flock(descriptor.rawValue, LOCK_EX) != 0 {
                guard errno == EINTR else { throw WireError.system(call: "flock", subject: folder, errno: errno) }
            }
            return descriptor
        } catch {
            throw .file(FileError(description: error.description))
        }
    }
}

extension Fuses {
    /// Who may read the file: with a secret only its owner.
    var fileMode: UInt32 { uniqueDeviceSecret == nil ? 0o644 : 0o600 }
}
