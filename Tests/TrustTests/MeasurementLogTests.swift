import CBOR
import Crypto
import Foundation
import QMP
import TestKit
import Testing
import Trust

@Suite struct MeasurementLogTests {
    static let digest = [UInt8](repeating: 0x11, count: 48)

    private func filled() throws -> MeasurementLog {
        let fixture = try ImageFixture()
        var image = try FirmwareImage.unsigned(
            FirmwareParts(
                firstStage: [1], opensbi: [2], nextStage: [3], bmc: [4], adapter: [5], offload: [6]), name: "measured",
            securityVersion: 3)
        try FirmwareImage.sign(&image, key: fixture.key)
        let verdict = fixture.verdict(image)
        var log = MeasurementLog()
        try log.extend(register: 6, action: "slot A is active")
        for measurement in verdict.measurements { try log.extend(measurement) }
        try log.extend(register: 6, action: "released")
        return log
    }

    @Test func `a register is the chain of its digests`() throws {
        var log = MeasurementLog()
        #expect(log.registers == [[UInt8]](repeating: [UInt8](repeating: 0, count: 48), count: 8))
        try log.extend(register: 2, type: .postCode, digest: Self.digest, data: [])
        let first = try HashAlgorithm.sha384.digest(of: [UInt8](repeating: 0, count: 48) + Self.digest)
        #expect(log.registers[2] == first)
        try log.extend(register: 2, type: .postCode, digest: Self.digest, data: [])
        #expect(log.registers[2] == (try HashAlgorithm.sha384.digest(of: first + Self.digest)))
        #expect(log.registers[1] == [UInt8](repeating: 0, count: 48))
    }

    @Test func `a verified image is measured: the manifest, then each component into its register`() throws {
        let log = try filled()
        #expect(log.events.map(\.register) == [6, 1, 0, 0, 2, 3, 4, 5, 5, 6])
        #expect(
            log.events.map(\.text) == [
                "slot A is active", "measured, security version 3", "first stage", "directory", "OpenSBI",
                "next stage", "BMC", "adapter", "offload card", "released",
            ])
        #expect(log.events[6].digest == (try HashAlgorithm.sha384.digest(of: [4])))
        #expect(FirmwareVerdict.refused(.noManifest, imageName: nil).measurements.isEmpty)
    }

    @Test func `the tpm2_eventlog program reads the log and replays our registers`() throws {
        let folder = TemporaryFolder()
        let log = try filled()
        try WholeFile.write(folder.file("log"), log.tcgEventLog())
        let result = try run("/usr/bin/tpm2_eventlog", [folder.file("log")])
        #expect(result.status == 0, "\(result.output)")
        let lines = result.output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        // The registers follow under "pcrs:", "sha384:", as "0  : 0x…"; those never extended are not listed.
        let start = try #require(lines.firstIndex(of: "pcrs:"), "\(result.output)")
        #expect(lines[start + 1] == "sha384:")
        var replayed: [Int: String] = [:]
        for line in lines[(start + 2)...] {
            let parts = line.split(separator: ":").map { $0.trimmingCharacters(in: .whitespaces) }
            guard parts.count == 2, let register = Int(parts[0]) else { continue }
            replayed[register] = parts[1].lowercased()
        }
        #expect(replayed.keys.sorted() == [0, 1, 2, 3, 4, 5, 6])
        for (register, value) in replayed { #expect(value == "0x" + Hex.encode(log.registers[register])) }
        let types = lines.filter { $0.hasPrefix("EventType:") }.map {
            $0.dropFirst(10).trimmingCharacters(in: .whitespaces)
        }
        #expect(types == ["EV_NO_ACTION"] + log.events.map(\.type.description))
        let digests = lines.filter { $0.hasPrefix("Digest:") }.map { $0.filter { !"\" ".contains($0) }.dropFirst(7) }
        #expect(digests.suffix(log.events.count).map(String.init) == log.events.map { Hex.encode($0.digest) })
    }

    @Test func `a log in CBOR is replayed when it is read`() throws {
        let log = try filled()
        #expect(try MeasurementLog(cbor: log.cbor()) == log)
        #expect(try MeasurementLog(cbor: MeasurementLog().cbor()) == MeasurementLog())
    }

    @Test func `the security logic's answer is read back, and must agree with itself`() throws {
        let log = try filled()
        #expect(try MeasurementLog(json: log.json) == log)
        #expect(log.json["events"]?[4]?["type"] == "EV_POST_CODE")
        guard case .object(var members) = log.json else { return }
        members["registers"] = MeasurementLog().json["registers"]
        #expect(throws: MeasurementError.registerMismatch(0)) { try MeasurementLog(json: .object(members)) }
        for text in ["", "!", "AA=="] {
            members["cbor-log"] = .string(text)
            #expect(throws: MeasurementError.self) { try MeasurementLog(json: .object(members)) }
        }
        #expect(throws: MeasurementError.self) { try MeasurementLog(json: .null) }
    }

    @Test func `a log that was changed anywhere is refused`() throws {
        let log = try filled()
        let bytes = log.cbor()
        for index in bytes.indices {
            var changed = bytes
            changed[index] ^= 0x01
            // Types and data are told, not measured: everything else is held by the registers.
            if let read = try? MeasurementLog(cbor: changed) {
                #expect(read.registers == log.registers && read.events.map(\.digest) == log.events.map(\.digest))
            }
        }
        for event in log.events {
            let place = try #require(bytes.firstRange(of: event.digest)).lowerBound
            var changed = bytes
            changed[place] ^= 1
            #expect(throws: MeasurementError.registerMismatch(event.register)) { try MeasurementLog(cbor: changed) }
        }
    }

    @Test(arguments: [
        (UInt8(8), 48, 0, MeasurementType.action, MeasurementError.noSuchRegister(8)),
        (255, 48, 0, .action, .noSuchRegister(255)), (0, 47, 0, .action, .badDigestLength(47)),
        (0, 0, 0, .action, .badDigestLength(0)), (0, 48, 1025, .action, .dataTooLong(1025)),
        (0, 48, 0, .noAction, .notExtendable),
    ])
    func `what cannot be measured changes nothing`(
        register: UInt8, digest: Int, data: Int, type: MeasurementType, error: MeasurementError
    ) throws {
        var log = MeasurementLog()
        #expect(throws: error) {
            try log.extend(
                register: register, type: type, digest: [UInt8](repeating: 1, count: digest),
                data: [UInt8](repeating: 1, count: data))
        }
        #expect(log == MeasurementLog())
    }

    @Test func `a flood of events ends at the limit and takes nothing away`() throws {
        var log = MeasurementLog()
        for _ in 0..<MeasurementLog.maximumEvents {
            try log.extend(register: 7, type: .action, digest: Self.digest, data: [])
        }
        let full = log
        #expect(throws: MeasurementError.logFull) {
            try log.extend(register: 7, type: .action, digest: Self.digest, data: [])
        }
        #expect(log == full)
        #expect(try MeasurementLog(cbor: log.cbor()) == log)
    }

    @Test func `control characters in an event's data are not shown`() {
        let event = Measurement(register: 0, type: .action, digest: Self.digest, data: [0x1B, 0x41, 0xFF, 0x0A])
        #expect(event.text == "\u{FFFD}A\u{FFFD}\u{FFFD}")
    }
}
