import VFIOUser
import Wire

/// A server that negotiates, has one writable region of 4 KiB and no interrupts, and otherwise does what a test wants:
/// `behave` returns false for a command that shall be answered as usual.
func scripted(
    version: [UInt8] = [0, 0, 1, 0], _ behave: @escaping @Sendable (RawPeer, MessageHeader) throws -> Bool
) throws -> Socket {
    let (near, far) = try Socket.pair()
    WorkerThread("scripted") {
        let peer = RawPeer(far)
        while let (header, _) = try? peer.reply() {
            do {
                if try behave(peer, header) { continue }
                switch header.command {
                case .version: try peer.send(header.reply(payload: version.count), version)
                case .deviceGetInfo:
                    try peer.send(header.reply(payload: 16), bytes([u32(16), u32(0), u32(1), u32(0)]))
                case .deviceGetRegionInfo:
                    try peer.send(
                        header.reply(payload: 32), bytes([u32(32), u32(3), u32(0), u32(0), u64(4096), u64(0)]))
                case .dmaMap, .dmaUnmap, .deviceReset: try peer.send(header.reply(payload: 0), [])
                default: try peer.send(header.refusal(.notSupported), [])
                }
            } catch {
                return
            }
        }
    }
    return near
}
