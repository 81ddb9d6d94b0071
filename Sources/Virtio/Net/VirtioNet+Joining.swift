public import Ethernet
public import Wire

extension VirtioNet {
    /// A function joined to a port of a switch in this process. The worker's loop is the switch's.
    public static func joined(
        to port: FunctionPort, address: MACAddress, queuePairs: Int = 1
    ) -> VirtioNet {
        let net = VirtioNet(
            address: address, queuePairs: queuePairs,
            wire: Wire(transmit: { port.transmit($0) }, driver: { port.setLink($0) }))
        port.join(net)
        return net
    }

    /// A function joined to a link of its own. The worker's loop is the port's; the driver sees whether the link is up.
    public static func joined(
        to port: EthernetPort, _ source: LinkSource, address: MACAddress, queuePairs: Int = 1
    ) throws(WireError) -> VirtioNet {
        let net = VirtioNet(
            address: address, queuePairs: queuePairs,
            wire: Wire(
                transmit: { stage in
                    for index in 0..<stage.count { stage.withFrame(index) { _ = port.enqueue($0) } }
                    port.flush()
                }))
        net.setLink(false)
        let arriving = FrameStage()
        try port.start(
            source,
            handlers: EthernetPort.Handlers(
                frames: { [weak net] frames in
                    guard let net else { return }
                    var came = 0
                    var taken = 0
                    frames { frame in
                        if !arriving.hasRoom {
                            taken += net.take(arriving, leavingBy: nil).frames
                            arriving.removeAll()
                        }
                        if arriving.append(frame) { came += 1 }
                    }
                    taken += net.take(arriving, leavingBy: nil).frames
                    arriving.removeAll()
                    if taken < came { port.countDropped(came - taken) }
                },
                link: { [weak net] isUp in net?.setLink(isUp) }))
        return net
    }
}
