import CBOR
import Crypto

// MARK: TCG

extension MeasurementLog {
    /// TPM_ALG_SHA384 (Spec: TCG Algorithm Registry §6.1).
    private static let tcgAlgorithm: UInt16 = 0x000C

    /// The log in the crypto-agile form of the TCG, little-endian, as `tpm2_eventlog` reads it:
    ///
    ///     TCG_PCR_EVENT    u32 register 0, u32 EV_NO_ACTION, 20 zero bytes, u32 size, TCG_EfiSpecIDEvent
    ///     TCG_PCR_EVENT2   u32 register, u32 type, u32 1, u16 0x000C, digest[48], u32 size, data — for each event
    ///
    /// Spec: TCG PC Client Platform Firmware Profile 1.05 §10.2.1, §10.2.2, §10.4.5.1 (Specification ID Version).
    public func tcgEventLog() -> [UInt8] {
        var header = Array("Spec ID Event03".utf8) + [0]
        // Platform class 1: server. Version 2.00 of the form, errata 105, and an UINTN of 64 bits (2 u32).
        header += LittleEndian.bytes(UInt32(1)) + [0, 2, 105, 2]
        header += LittleEndian.bytes(UInt32(1)) + LittleEndian.bytes(Self.tcgAlgorithm)
        header += LittleEndian.bytes(UInt16(Self.digestLength))
        // No vendor information.
        header.append(0)
        var bytes = LittleEndian.bytes(UInt32(0)) + LittleEndian.bytes(MeasurementType.noAction.rawValue)
        bytes += [UInt8](repeating: 0, count: 20) + LittleEndian.bytes(UInt32(header.count)) + header
        for event in events {
            bytes += LittleEndian.bytes(UInt32(event.register)) + LittleEndian.bytes(event.type.rawValue)
            bytes += LittleEndian.bytes(UInt32(1)) + LittleEndian.bytes(Self.tcgAlgorithm) + event.digest
            bytes += LittleEndian.bytes(UInt32(event.data.count)) + event.data
        }
        return bytes
    }
}

// MARK: CBOR

extension MeasurementLog {
    private enum Label {
        static let version: Int64 = 1
        static let algorithm: Int64 = 2
        static let registers: Int64 = 3
        static let events: Int64 = 4
    }

    private static let version: UInt64 = 1
    /// SHA-384 (Spec: RFC 9054 §2.1).
    private static let coseAlgorithm: Int64 = -43

    /// The log as a CBOR map in deterministic encoding: 1 version (1), 2 hash algorithm (-43, SHA-384), 3 array of the
    /// registers' values, 4 array of events, each an array of register, type, digest, data.
    public func cbor() -> [UInt8] {
        CBOR.map([
            .init(.integer(Label.version), .unsigned(Self.version)),
            .init(.integer(Label.algorithm), .integer(Self.coseAlgorithm)),
            .init(.integer(Label.registers), .array(registers.map { .bytes($0) })),
            .init(
                .integer(Label.events),
                .array(
                    events.map { event in
                        .array([
                            .unsigned(UInt64(event.register)), .unsigned(UInt64(event.type.rawValue)),
                            .bytes(event.digest), .bytes(event.data),
                        ])
                    })),
        ]).encoded()
    }

    /// Reads a log and replays it: refuses one whose events do not give its registers.
    public init(cbor bytes: [UInt8]) throws(MeasurementError) {
        var limits = CBOR.Limits()
        limits.bytes = Self.maximumEvents * (Self.maximumDataLength + 128)
        let map: CBOR
        do throws(CBORError) { map = try CBOR.decode(bytes, limits: limits) } catch {
            throw .malformed(error.description)
        }
        guard case .map(let entries) = map, entries.count == 4, map[Label.version]?.unsignedValue == Self.version,
            map[Label.algorithm]?.integerValue == Self.coseAlgorithm
        else { throw .malformed("it is not a map of version \(Self.version) with SHA-384") }
        guard let registers = map[Label.registers]?.arrayValue, registers.count == Self.registerCount,
            let events = map[Label.events]?.arrayValue
        else { throw .malformed("it has not \(Self.registerCount) registers and a list of events") }
        self.init()
        for event in events {
            guard let fields = event.arrayValue, fields.count == 4,
                let register = fields[0].unsignedValue.flatMap({ UInt8(exactly: $0) }),
                let type = fields[1].unsignedValue.flatMap({ UInt32(exactly: $0) }),
                let digest = fields[2].bytesValue, let data = fields[3].bytesValue
            else { throw .malformed("event \(self.events.count) is not register, type, digest and data") }
            try extend(register: register, type: MeasurementType(rawValue: type), digest: digest, data: data)
        }
        for (index, register) in registers.enumerated() where register.bytesValue != self.registers[index] {
            throw .registerMismatch(UInt8(index))
        }
    }
}
