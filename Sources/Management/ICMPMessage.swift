import Ethernet

/// ICMP, as far as a management controller needs it: it can be pinged. Spec: RFC 792 "Echo or Echo Reply Message".
///
/// ```
/// 0     1     2         4          6         8
/// |type |code |checksum |identifier|sequence | data …
/// ```
enum ICMPMessage {
    static let headerLength = 8
    static let echoReply: UInt8 = 0
    static let echoRequest: UInt8 = 8

    /// Checks an echo request.
    static func checkEchoRequest(_ bytes: Span<UInt8>) throws(PacketRefusal) {
        guard bytes.count >= headerLength else { throw .malformedICMP }
        var checksum = InternetChecksum()
        checksum.add(bytes)
        guard checksum.value == 0 else { throw .badICMPChecksum }
        guard bytes[0] == echoRequest, bytes[1] == 0 else { throw .unknownICMPType }
    }

    /// Adds the reply to a checked request: the same identifier, sequence and data.
    static func appendEchoReply(
        to request: Span<UInt8>, _ route: IPv4Route, identification: UInt16, into batch: inout FrameBatch
    ) -> Bool {
        guard
            batch.beginIPv4(
                route, transportProtocol: IPv4Header.TransportProtocol.icmp, identification: identification)
        else { return false }
        batch.append(echoReply)
        batch.append(0)
        batch.appendNetwork(UInt16(0))
        batch.append(bytes: request.extracting(4..<request.count))
        let start = FrameBatch.ipv4PayloadOffset
        batch.patchNetwork(batch.checksum(start..<batch.frameLength), at: start + 2)
        batch.endIPv4()
        return true
    }
}
