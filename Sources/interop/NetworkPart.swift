// A card's network function: frames of known content through it and back, none lost and none changed.

import Wire

struct NetworkPart {
    let guest: Guest
    let function: CardFunction
    let report: Report
    /// The card's Ethernet port where the station is.
    let port: String
    /// The third byte of the addresses there.
    let network: UInt8
    let frames: Int
    let isLong: Bool

    private var slot: String { function.slot }

    func run() {
        report.step(slot, "the driver virtio_net binds") {
            let interface = try interface()
            return "\(interface), \(try guest.run("cat /sys/class/net/\(interface)/address"))"
        }
        report.step(slot, "\(frames) frames to a station and back, compared") { try exchange(frames, seed: 1) }
        let times = isLong ? 100 : 5
        report.step(slot, "driver unbound and bound \(times) times, and frames after each") {
            let address = try guest.address(slot)
            let device = try guest.run("basename $(ls -d /sys/bus/pci/devices/\(address)/virtio*)")
            for number in 0..<times {
                try guest.run("echo \(address) >/sys/bus/pci/drivers/virtio-pci/unbind")
                try guest.run("echo \(address) >/sys/bus/pci/drivers/virtio-pci/bind")
                _ = try exchange(200, seed: number + 2)
            }
            return "was \(device)"
        }
    }

    /// From this function through the card's switch to `other`, and the other way.
    func cross(to other: NetworkPart) {
        report.step(slot, "\(frames) frames through the switch to \(other.slot), and as many from it, compared") {
            let (here, there) = (try connect(), try other.connect())
            return try check(here, there, frames, seed: 3) + "; " + check(there, here, frames, seed: 4)
        }
    }

    /// The interface's name, once it is there.
    func interface() throws -> String {
        let address = try guest.address(slot)
        return try guest.eventually("basename $(ls -d /sys/bus/pci/devices/\(address)/virtio*/net/*) | grep .")
    }

    /// The interface's name, once the station answers its pings: Linux starts a link's queue some time after it has shown
    /// the carrier, and drops what is sent before.
    func connect() throws -> String {
        let interface = try interface()
        try function.card.attachStation(port, network: network)
        try guest.run("ip addr replace 192.168.\(network).2/24 dev \(interface) && ip link set \(interface) up")
        try guest.eventually("ping -c 1 -W 1 -I \(interface) 192.168.\(network).1")
        return interface
    }

    /// Sends so many frames to the station; every one must come back as it went.
    func exchange(_ count: Int, seed: Int) throws -> String {
        try check(connect(), Station.name, count, seed: seed)
    }

    /// Work that keeps the function busy, for the guest's shell.
    func load() throws -> String { Self.netcheck(try connect(), Station.name, 1_000_000_000, seed: 7) }

    /// On one processor, another with each seed: order holds for each pair of queues, and Linux takes the processor's.
    private static func netcheck(_ interface: String, _ peer: String, _ count: Int, seed: Int) -> String {
        "taskset \(1 + seed % 2) netcheck \(interface) \(peer) \(count) \(seed)"
    }

    private func check(_ interface: String, _ peer: String, _ count: Int, seed: Int) throws -> String {
        let start = MonotonicTime.now
        let (status, output) = try guest.attempt(
            Self.netcheck(interface, peer, count, seed: seed), within: .seconds(60 + count / 200))
        guard status == 0, output == "netcheck: \(count) frames, none lost or changed\n" else {
            let counters = try guest.run(
                "cd /sys/class/net/\(interface)/statistics && grep . rx_packets tx_packets rx_dropped tx_dropped")
            throw Failure(
                "\(output) (status \(status), seed \(seed)); \(interface) counts \(counters.replacing("\n", with: " "))"
            )
        }
        let rate = UInt64(count) * 1_000_000_000 / max(1, MonotonicTime.now.since(start).clampedNanoseconds)
        return "none lost or changed, \(rate) a second"
    }
}
