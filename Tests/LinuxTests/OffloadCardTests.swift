import QMP
import TestKit
import Testing
import Wire

/// The offload card with all its functions, at one root port of a Linux host.
@Suite(.serialized, .enabled(if: Guest.isFetched, "run scripts/fetch-guest"))
struct OffloadCardTests {
    /// Function numbers of the card's ports.
    static let functions = ["pcie", "pcie-net", "pcie-disk", "pcie-console", "pcie-rng"]

    @Test func `Linux finds every function of one card, and each does what it is for`() throws {
        let folder = TemporaryFolder()
        let card = try ComponentProcess(
            "offload-card", in: folder, listens: Self.functions + ["eth0", "console"], ["--disk-size", "16MiB"])
        let links = Self.functions.enumerated().flatMap { number, port in
            ["--connect", "rp0\(number == 0 ? "" : ".\(number)")=\(folder.file("offload-card.\(port)"))"]
        }
        let host = try LoneHost(["--kernel", Guest.kernel, "--initrd", Guest.deviceInitramfs] + links)
        let console = host.console
        try Guest.waitForShell(console)
        let devices = try console.run("cat /sys/bus/pci/devices/0000:01:00.*/device").output
        #expect(devices == "0x0b0a\n0x1041\n0x0b0c\n0x1043\n0x1044\n")

        try exerciseNetwork(card, console)
        let entropy = try console.run("cat /sys/class/misc/hw_random/rng_available").output
        #expect(entropy.contains("virtio_rng"), "\(entropy)")
        let random = try console.run("dd if=/dev/hwrng bs=32 count=1 2>/dev/null | md5sum").output
        let other = try console.run("dd if=/dev/hwrng bs=32 count=1 2>/dev/null | md5sum").output
        #expect(random.count > 32 && random != other)

        #expect(try console.run("iocheck /dev/nvme0n1 200").output.contains("all as written"))

        let person = try Socket.connect(to: folder.file("offload-card.console"))
        _ = try console.run("echo from the host >/dev/hvc0")
        var seen = ""
        let deadline = MonotonicTime.after(.seconds(20))
        while !seen.contains("from the host"), let some = try person.receiveBytes(limit: 4096, until: deadline) {
            seen += String(decoding: some, as: UTF8.self)
        }
        #expect(seen.contains("from the host"), "\(seen)")
        try person.send(Array("from a person\n".utf8))
        #expect(try console.run("head -n 1 /dev/hvc0").output.contains("from a person"))
        let state = try card.control.execute("query-functions").arrayValue ?? []
        #expect(state.count == Self.functions.count && state.allSatisfy { $0["host-connected"] == true })
        try console.type("poweroff")
        #expect(host.process.waitForExit(within: .seconds(60)) == 0, "\(host.process.text)")
    }

    /// A station at the card's Ethernet port hears the host, and the host hears the station.
    private func exerciseNetwork(_ card: ComponentProcess, _ console: GuestConsole) throws {
        #expect(try console.run("cat /sys/class/net/eth0/address").output == "52:54:00:0f:00:01\n")
        let station = try FramePeer(socket: card.connect("eth0"))
        _ = try console.run("ip link set eth0 up; ip address add 192.168.9.1/24 dev eth0")
        #expect(
            try console.run(
                "i=0; until grep -q 1 /sys/class/net/eth0/carrier || [ $i -ge 500 ]; do usleep 20000; "
                    + "i=$((i+1)); done; cat /sys/class/net/eth0/carrier"
            ).output == "1\n")
        // The host asks who has an address; the station answers, and the host knows.
        _ = try console.run("ping -c 1 -W 10 192.168.9.2 >/dev/null 2>&1 & true")
        let address: [UInt8] = [0x02, 0, 0, 0, 0, 0x42]
        let question = try frame(station) {
            $0.count >= 42 && $0[12..<14] == [0x08, 0x06] && $0[38..<42] == [192, 168, 9, 2]
        }
        #expect(Array(question[6..<12]) == [0x52, 0x54, 0x00, 0x0F, 0x00, 0x01])
        try station.send(
            Array(question[6..<12]) + address + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2] + address + [192, 168, 9, 2]
                + Array(question[22..<32]) + [UInt8](repeating: 0, count: 18))
        let echo = try frame(station) { $0.count >= 34 && $0[12..<14] == [0x08, 0x00] && $0[23] == 1 }
        #expect(Array(echo[0..<6]) == address && Array(echo[30..<34]) == [192, 168, 9, 2])
        let ports = try card.control.execute("query-ports").arrayValue ?? []
        #expect(ports.first?["link"] == true && ports.first?["sent-frames"]?.integerValue ?? 0 >= 2)
    }

    /// The next frame that is wanted; the host says other things too.
    private func frame(_ station: FramePeer, _ isWanted: ([UInt8]) -> Bool) throws -> [UInt8] {
        while let frame = try station.next() { if isWanted(frame) { return frame } }
        throw QMPClient.Failure.closed
    }
}
