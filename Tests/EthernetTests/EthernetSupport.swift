import Ethernet
import TestKit

/// A frame with a payload of `payload` counting bytes.
func frame(
    to destination: MACAddress, from source: MACAddress, _ etherType: EtherType = EtherType(rawValue: 0x88B5),
    payload: Int = 46
) -> [UInt8] {
    (0..<6).map { destination[$0] } + (0..<6).map { source[$0] }
        + [UInt8(etherType.rawValue >> 8), UInt8(etherType.rawValue & 0xFF)]
        + (0..<payload).map { UInt8(truncatingIfNeeded: $0) }
}

/// `frame` behind its length, as the stream carries it.
func framed(_ frame: [UInt8]) -> [UInt8] { FramePeer.framed(frame) }

func station(_ number: UInt64) -> MACAddress { MACAddress(rawValue: 0x5254_0000_0000 | number) }

func copy(_ span: Span<UInt8>) -> [UInt8] { span.indices.map { span[$0] } }

extension FrameDecoder {
    /// Takes all of `bytes`, in pieces as large as fit, and returns the frames that came out.
    mutating func feed(_ bytes: [UInt8]) throws(FramingError) -> [[UInt8]] {
        var frames: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = fill { room in
                let count = min(room.count, rest.count)
                room.copyBytes(from: rest.prefix(count))
                return count
            }
            rest = rest.dropFirst(count)
            _ = try drain { frames.append(copy($0)) }
        }
        return frames
    }
}

// Arrays in place of spans: `#expect` cannot hold a span.
extension FrameBatch {
    mutating func add(_ frame: [UInt8]) -> Bool { append(frame.span) }
}

func header(of frame: [UInt8]) -> EthernetHeader? { EthernetHeader(of: frame.span) }
