// A card's network function: packets of random content through it and back, none lost and none changed.

import Wire

struct NetworkPart {
    let guest: Guest
    let function: CardFunction
    let report: Report
    /// The card's Ethernet port where the peer is.
    let port: String
    /// The third byte of its addresses.
    let network: UInt8
    let packets: Int
    let isLong: Bool

    private var slot: String { function.slot }

    func run() {
        report.step(slot, "the driver virtio_net binds") {
            let interface = try interface()
            return "\(interface), \(try guest.run("cat /sys/class/net/\(interface)/address"))"
        }
        report.step(slot, "\(packets) packets through it and back, compared") { try exchange(packets, seed: 1) }
        let times = isLong ? 100 : 5
        report.step(slot, "driver unbound and bound \(times) times, and packets after each") {
            let address = try guest.address(slot)
            let device = try guest.run("basename $(ls -d /sys/bus/pci/devices/\(address)/virtio*)")
            for number in 0..<times {
                try guest.run("echo \(address) >/sys/bus/pci/drivers/virtio-pci/unbind")
                try guest.run("echo \(address) >/sys/bus/pci/drivers/virtio-pci/bind")
                _ = try exchange(200, seed: UInt64(number + 2))
            }
            return "was \(device)"
        }
    }

    /// The interface's name, once it is there.
    func interface() throws -> String {
        let address = try guest.address(slot)
        return try guest.eventually("basename $(ls -d /sys/bus/pci/devices/\(address)/virtio*/net/*) | grep .")
    }

    /// Sends so many packets; every one must come back as it went.
    func exchange(_ count: Int, seed: UInt64) throws -> String {
        let interface = try interface()
        var peer = try EchoPeer(path: function.card.socket(port), network: network)
        try guest.run(peer.guestSetup(interface))
        try guest.eventually("[ $(cat /sys/class/net/\(interface)/carrier) = 1 ]")
        let text = try guest.run("cat /sys/class/net/\(interface)/address")
        let address = text.split(separator: ":").compactMap { UInt8($0, radix: 16) }
        guard address.count == 6 else { throw Failure("the interface's address is '\(text)'") }
        // Linux starts a link's queue some time after it has shown the carrier; what is sent before is dropped.
        let deadline = MonotonicTime.after(.seconds(60))
        while try !peer.exchange(count: 1, to: address, seed: 0, window: 1, patience: .milliseconds(200)).isPerfect {
            guard MonotonicTime.now < deadline else { throw Failure("nothing comes back within a minute") }
        }
        let outcome = try peer.exchange(count: count, to: address, seed: seed)
        guard outcome.isPerfect, outcome.sent == count else {
            let counters = try guest.run(
                "cd /sys/class/net/\(interface)/statistics && grep . rx_packets tx_packets rx_dropped tx_dropped "
                    + "&& grep -A1 Icmp: /proc/net/snmp | cut -c 1-300")
            throw Failure("\(outcome.text) (seed \(seed)); the guest counts \(counters.replacing("\n", with: " "))")
        }
        return outcome.text
    }
}
