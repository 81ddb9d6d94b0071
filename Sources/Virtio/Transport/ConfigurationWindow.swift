/// The window in configuration space through which firmware reaches the structures without memory space.
///
/// ```
/// 2 length, 3 type, 4 bar u8, 5 id, 8 offset u32, 12 length u32, 16 data[4]
/// ```
///
/// Spec: virtio 1.2 §4.1.4.9.
struct ConfigurationWindow: Sendable {
    private static let data = 16

    private var bar: UInt8 = 0
    private var offset: UInt32 = 0
    private var length: UInt32 = 0

    init() {}

    /// What a migrated function's window is set to: bar u8, offset u32, length u32. Nil for another number of bytes.
    init?(bytes: [UInt8]) {
        guard bytes.count == 9 else { return nil }
        func word(_ place: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[place + $1]) << UInt32($1 * 8) } }
        (bar, offset, length) = (bytes[0], word(1), word(5))
    }

    var bytes: [UInt8] { [bar] + TransportLayout.Structure.bytes(offset) + TransportLayout.Structure.bytes(length) }

    /// A register of the window itself.
    func read(_ place: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<min(width, 8) { value |= UInt64(byte(place &+ index)) << UInt64(index * 8) }
        return value
    }

    private func byte(_ place: Int) -> UInt8 {
        switch place {
        case 2: 20
        case 3: TransportLayout.windowType
        case 4: bar
        case 8..<12: UInt8(truncatingIfNeeded: offset >> UInt32((place - 8) * 8))
        case 12..<16: UInt8(truncatingIfNeeded: length >> UInt32((place - 12) * 8))
        default: 0
        }
    }

    mutating func write(_ place: Int, width: Int, value: UInt64) {
        switch (place, width) {
        case (4, _): bar = UInt8(truncatingIfNeeded: value)
        case (8, 4): offset = UInt32(truncatingIfNeeded: value)
        case (12, 4): length = UInt32(truncatingIfNeeded: value)
        default: break
        }
    }

    /// The access to the structures that an access to the data at `place` stands for; nil for other places, and when
    /// the window is not set to one that is allowed.
    func access(at place: Int) -> (offset: UInt64, count: Int)? {
        guard place == Self.data, Int(bar) == TransportLayout.bar, length == 1 || length == 2 || length == 4,
            offset % length == 0
        else { return nil }
        return (UInt64(offset), Int(length))
    }
}
