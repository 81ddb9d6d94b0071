/// What a card says of itself: the response to IDENTIFY. Spec: docs/wiring.md "Offload card".
///
/// ```
/// 0           16           32                  48            52                 56     63
/// |model[16]  |serial[16]  |firmware version   |capabilities |maximum instances | 0 …  |
/// ```
public struct OffloadIdentity: Hashable, Sendable {
    public static let length = 64
    /// The longest text of a field, in bytes.
    public static let textLength = 16

    public var model: String
    public var serial: String
    public var firmwareVersion: String
    /// Nothing beyond IDENTIFY yet.
    public var capabilities: UInt32 = 0
    public var maximumInstances: UInt32 = 0

    /// nil when a text is longer than ``textLength`` bytes or not printable ASCII.
    public init?(model: String, serial: String, firmwareVersion: String) {
        for text in [model, serial, firmwareVersion] {
            guard text.utf8.count <= Self.textLength, text.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) else {
                return nil
            }
        }
        self.model = model
        self.serial = serial
        self.firmwareVersion = firmwareVersion
    }

    /// The response; texts are filled up with zeroes.
    public var bytes: [UInt8] {
        func field(_ text: String) -> [UInt8] {
            let bytes = Array(text.utf8)
            return bytes + Array(repeating: 0, count: Self.textLength - bytes.count)
        }
        func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
        return field(model) + field(serial) + field(firmwareVersion) + word(capabilities) + word(maximumInstances)
            + Array(repeating: 0, count: 8)
    }
}
