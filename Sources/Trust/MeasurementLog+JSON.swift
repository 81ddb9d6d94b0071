import Crypto
import FoundationEssentials
public import QMP

extension MeasurementLog {
    /// The answer of the security logic's QMP command `query-measurements`: the registers' values in hexadecimal, the
    /// events, and the whole log in both of its binary forms as base64.
    public var json: JSONValue {
        [
            "registers": .array(registers.map { .string(Hex.encode($0)) }),
            "events": .array(events.map(\.json)),
            "tcg-log": .string(Data(tcgEventLog()).base64EncodedString()),
            "cbor-log": .string(Data(cbor()).base64EncodedString()),
        ]
    }

    /// Reads the log out of an answer and replays it; what else the answer says must agree with it.
    public init(json: JSONValue) throws(MeasurementError) {
        guard let text = json["cbor-log"]?.stringValue, let bytes = Data(base64Encoded: text) else {
            throw .malformed("the answer has no cbor-log in base64")
        }
        try self.init(cbor: Array(bytes))
        let told = json["registers"]?.arrayValue ?? []
        for (index, register) in registers.enumerated() {
            guard told.indices.contains(index), told[index].stringValue == Hex.encode(register) else {
                throw .registerMismatch(UInt8(index))
            }
        }
    }
}

extension Measurement {
    /// The event as it is shown.
    var json: JSONValue {
        [
            "register": .integer(Int64(register)), "type": .string(type.description),
            "type-number": .integer(Int64(type.rawValue)), "digest": .string(Hex.encode(digest)),
            "text": .string(text),
        ]
    }
}
