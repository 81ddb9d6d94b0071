// A card's serial line and its source of random numbers.

import Wire

struct StreamPart {
    let guest: Guest
    let function: CardFunction
    let report: Report

    func run() {
        switch function.kind {
        case .console:
            report.step(function.slot, "lines both ways between the guest's terminal and the card's console") {
                try check()
                return ""
            }
        default:
            report.step(function.slot, "Linux takes random numbers from it") {
                try check()
                return try guest.run("cat /sys/class/misc/hw_random/rng_current")
            }
        }
    }

    func check() throws {
        if case .console(let port) = function.kind { try checkConsole(port) } else { try checkRandom() }
    }

    private func checkConsole(_ port: String) throws {
        let socket = try Socket.connect(to: function.card.socket(port))
        let folder = "/sys/bus/pci/devices/\(try guest.address(function.slot))"
        let name = try guest.eventually("basename $(ls -d \(folder)/virtio*/virtio-ports/*) | grep .")
        // Linux numbers terminals anew at each discovery; those without a port cannot be opened.
        let terminal = try guest.eventually(
            "for t in /dev/hvc*; do stty -F $t >/dev/null 2>&1 && echo $t; done | tail -n 1 | grep .")
        let deadline = MonotonicTime.after(.seconds(90))
        // Held open: a terminal that nobody has open any more forgets that it is raw.
        try guest.run("rm -f /tmp/raw; echo \(name)")
        try guest.run(
            "(exec 4<>\(terminal); stty raw -echo <&4; touch /tmp/raw; head -c 4096 <&4 >/tmp/line; cat /tmp/line >&4) &"
        )
        try guest.eventually("[ -e /tmp/raw ]")
        let text = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
        try socket.send(text)
        var back: [UInt8] = []
        while back.count < text.count, let more = try socket.receiveBytes(limit: 4096, until: deadline) { back += more }
        guard back == text else { throw Failure("\(back.count) bytes came back, and not those that went") }
    }

    private func checkRandom() throws {
        let folder = "/sys/bus/pci/devices/\(try guest.address(function.slot))"
        let driver = try guest.eventually("basename $(readlink \(folder)/virtio*/driver) | grep .")
        guard driver == "virtio_rng" else { throw Failure("its driver is \(driver)") }
        let name = try guest.eventually(
            "grep -o 'virtio_rng[.0-9]*' /sys/class/misc/hw_random/rng_available | head -n 1")
        try guest.run("echo \(name) >/sys/class/misc/hw_random/rng_current")
        let different = try guest.run(
            "dd if=/dev/hwrng bs=1k count=64 2>/dev/null >/tmp/random; gzip -c /tmp/random | wc -c")
        guard let size = Int(different), size > 60_000 else { throw Failure("64 KiB shrink to \(different) bytes") }
    }
}
