// Cards that come and go while the guest runs.

import Wire

struct HotplugPart {
    let guest: Guest
    let function: CardFunction
    let report: Report
    /// Work for the function that goes on until it ends by itself or fails; a line of shell for the guest.
    var load: String?
    /// What must hold once the function is there (again).
    var works: () throws -> Void

    private var slot: String { function.slot }
    private var under: String { load == nil ? "" : " under load" }

    /// Linux lets the function go in the middle of everything, and finds it again.
    func removeAndRescan() {
        report.step(slot, "removed from Linux\(under) and found again, and it works") {
            try startLoad()
            try guest.run("echo 1 >/sys/bus/pci/devices/\(try guest.address(slot))/remove")
            try expectAbsence()
            try guest.run("echo 1 >/sys/bus/pci/rescan")
            guard guest.has(slot) else { throw Failure("Linux does not find it again") }
            try works()
            return ""
        }
    }

    /// The card's process dies, as a card does that is torn out, and with it all its `functions`. False when that was not
    /// seen to go well.
    @discardableResult
    func kill(_ functions: [CardFunction]) -> Bool {
        let all = functions.count == 1 ? "" : " with \(functions.count) functions"
        return report.step(slot, "its process\(all) killed\(under), and the guest goes on") {
            try startLoad()
            function.card.kill()
            do { return try expectDeath(functions) } catch {
                // QEMU reports two failures in one place when a command is under way as its server goes.
                guard guest.complaints.contains("error_setv: Assertion"),
                    poll(within: .seconds(20), { !guest.isRunning })
                else { throw error }
                throw Inapplicable(
                    "QEMU ends itself when a server leaves at the wrong moment (an assertion in error_setv)")
            }
        }
    }

    private func expectDeath(_ functions: [CardFunction]) throws -> String {
        // A card that answers nothing any more reads as all ones, and Linux must not hang on it.
        try guest.run("lspci >/dev/null; cat /proc/uptime", within: .seconds(120))
        for function in functions {
            let address = try guest.address(function.slot)
            let vendor = try guest.run("setpci -s \(address) VENDOR_ID")
            guard vendor == "ffff" else { throw Failure("the vendor of \(function.slot) reads as \(vendor)") }
            // Linux's virtio_pci resets what it lets go and waits until the status reads as 0; all ones never do.
            if function.isVirtio { continue }
            try guest.run("echo 1 >/sys/bus/pci/devices/\(address)/remove", within: .seconds(120))
            guard !guest.has(function.slot) else { throw Failure("Linux still has \(function.slot)") }
        }
        try guest.run("true")
        let virtio = functions.filter(\.isVirtio).map(\.slot).joined(separator: ", ")
        return virtio.isEmpty ? "" : "\(virtio) not removed: Linux would wait for its reset for ever"
    }

    /// QEMU takes the device away and the guest agrees, then it is plugged in again. False when QEMU did not survive.
    func unplugAndPlug() -> Bool {
        var survives = true
        report.step(slot, "unplugged by device_del\(under), plugged in by device_add, and it works") {
            try startLoad()
            do { try guest.unplug(slot) } catch {
                // Until QEMU mends it, no vfio-user device with MSI-X survives its own removal: its finalizer takes the
                // region of the pending bits out of a container that it has left already.
                guard guest.complaints.contains("memory_region_del_subregion: Assertion") else {
                    throw error
                }
                survives = false
                throw Inapplicable(
                    "QEMU ends itself when a vfio-user device with MSI-X leaves (its hw/vfio-user/pci.c)")
            }
            try expectAbsence()
            try guest.plug(slot)
            let deadline = MonotonicTime.after(.seconds(60))
            while !guest.has(slot) {
                guard MonotonicTime.now < deadline else { throw Failure("Linux does not find it within a minute") }
            }
            try works()
            return ""
        }
        return survives && guest.isRunning
    }

    private func startLoad() throws {
        guard let load else { return }
        // That it is at work after half a second shows that it could begin.
        try guest.run("\(load) >/tmp/load 2>&1 & sleep 0.5; kill -0 $! || { cat /tmp/load; false; }")
    }

    private func expectAbsence() throws {
        guard !guest.has(slot) else { throw Failure("Linux still has the function") }
        try guest.run("true")
    }
}
