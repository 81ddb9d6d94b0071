// QMP query-identity: who the board is and what it runs, signed for a verifier's question (DICE).
import Component
import Crypto
import FoundationEssentials
import QMP
import SecurityLogic
import Trust

enum IdentityQuery {
    /// Answers `query-identity`. Argument `nonce`: hexadecimal, at most 64 bytes; with it the answer has evidence.
    static func answer(_ snapshot: SecurityController.Snapshot, nonce: String?) throws(QMPError) -> JSONValue {
        guard let secret = snapshot.fuses.uniqueDeviceSecret else {
            throw QMPError("the fuses hold no unique device secret; 'baseboard provision' gives a board one")
        }
        guard !snapshot.manifestDigest.isEmpty else {
            throw QMPError("no verified firmware runs: there is nothing to identify the board with")
        }
        let challenge = nonce.map { Hex.decode($0) }
        if let challenge, challenge.map({ $0.count > 64 }) ?? true {
            throw QMPError("nonce must be at most 64 bytes in hexadecimal digits")
        }
        do throws(CryptoError) {
            let identity = try DeviceIdentity(uniqueDeviceSecret: secret, measurement: snapshot.manifestDigest)
            var answer: [String: JSONValue] = [
                "name": .string(identity.name),
                "measurement": .string(Hex.encode(identity.measurement)),
                "alias-certificate": .string(try identity.aliasCertificate.pem()),
            ]
            if let challenge, let bytes = challenge {
                let evidence = try identity.sign(nonce: bytes, registers: snapshot.log.registers)
                answer["evidence"] = .string(Data(evidence).base64EncodedString())
            }
            return .object(answer)
        } catch {
            throw QMPError(error.description)
        }
    }
}
