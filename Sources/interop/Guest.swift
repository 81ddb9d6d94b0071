// QEMU with Debian's kernel: a root port for each card, a command line by the second serial port (scripts/interop/init).

import FoundationEssentials
import Glibc
import QMP
import Wire

final class Guest {
    /// A root port of the guest, and the card's socket behind it.
    struct Slot {
        var name: String
        var socket: String
    }

    let slots: [Slot]
    private let folder: WorkFolder
    private let process: LoggedProcess
    private let control: QMPClient
    private let line: Socket
    private var pending: [UInt8] = []

    /// Starts QEMU with a device in each slot, and waits until the guest takes commands.
    ///
    /// Memory is one shared file, as vfio-user needs it; there is no KVM, so that it runs anywhere. Slots are the root
    /// ports' own (native PCI Express hot-plug): with ACPI's, QEMU's ports never show an active link, and Linux gives up
    /// bus resets.
    init(files: String, slots: [Slot], more: [String] = []) throws {
        self.slots = slots
        let folder = try WorkFolder()
        self.folder = folder
        var arguments = [
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-run-with", "exit-with-parent=on",
            "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            "-machine", "q35,accel=tcg,memory-backend=ram", "-cpu", "max", "-smp", "2", "-m", "768",
            "-object", "memory-backend-memfd,id=ram,size=768M,share=on",
            "-kernel", files + "/kernel", "-initrd", files + "/initramfs",
            "-append", "console=ttyS0 panic=-1 net.ifnames=0",
            "-serial", "file:" + folder.file("console"),
            "-serial", "unix:\(folder.file("line")),server=on,wait=off",
            "-qmp", "unix:\(folder.file("qmp")),server=on,wait=off",
        ]
        for (number, slot) in slots.enumerated() {
            arguments += [
                "-device",
                "pcie-root-port,id=port-\(slot.name),bus=pcie.0,addr=0x\(String(number + 4, radix: 16)),"
                    + "chassis=\(number + 1),slot=\(number + 1)",
                "-device", JSONValue.object(Self.device(slot)).text(),
            ]
        }
        let process = try LoggedProcess(files + "/qemu", arguments + more, log: folder.file("qemu.log"))
        self.process = process
        var connections: (QMPClient, Socket)?
        _ = poll(within: .seconds(20)) {
            guard process.isRunning else { return true }
            guard let client = try? QMPClient(path: folder.file("qmp"), until: .after(.seconds(5))),
                let socket = try? Socket.connect(to: folder.file("line"))
            else { return false }
            connections = (client, socket)
            return true
        }
        guard let (control, line) = connections else { throw Failure("QEMU did not start: \(process.text)") }
        (self.control, self.line) = (control, line)
        // The guest's first answer is to nothing: it is there.
        _ = try answer(within: .seconds(300))
    }

    private static func device(_ slot: Slot) -> [String: JSONValue] {
        [
            "driver": "vfio-user-pci", "id": .string(slot.name), "bus": .string("port-" + slot.name),
            "socket": ["type": "unix", "path": .string(slot.socket)],
        ]
    }

    deinit { process.end() }

    var isRunning: Bool { process.isRunning }
    /// What QEMU itself complained of.
    var complaints: String { process.text }
    /// The guest's kernel log.
    var console: String { (try? String(contentsOfFile: folder.file("console"), encoding: .utf8)) ?? "" }

    // MARK: Commands for the guest

    /// Runs a line of shell in the guest; what it printed, and its status.
    func attempt(_ command: String, within limit: Duration = .seconds(120)) throws -> (status: Int, output: String) {
        precondition(!command.contains("\n"), "the guest reads one line")
        try line.send(Array((command + "\n").utf8))
        return try answer(within: limit)
    }

    /// Runs a line of shell in the guest, which must end with 0; what it printed, without the last line's end.
    @discardableResult
    func run(_ command: String, within limit: Duration = .seconds(120)) throws -> String {
        let (status, output) = try attempt(command, within: limit)
        guard status == 0 else { throw Failure("'\(command)' ended with \(status): \(output)") }
        return output.hasSuffix("\n") ? String(output.dropLast()) : output
    }

    /// Runs a line of shell in the guest until it ends with 0.
    @discardableResult
    func eventually(_ command: String, within limit: Duration = .seconds(90)) throws -> String {
        let deadline = MonotonicTime.after(limit)
        while true {
            let (status, output) = try attempt(command)
            if status == 0 { return output.hasSuffix("\n") ? String(output.dropLast()) : output }
            guard MonotonicTime.now < deadline else {
                throw Failure("'\(command)' still ends with \(status) after \(limit): \(output)")
            }
            usleep(20_000)
        }
    }

    private func answer(within limit: Duration) throws -> (status: Int, output: String) {
        let deadline = MonotonicTime.after(limit)
        let head = try take(upTo: { $0.firstIndex(of: 0x0A).map { $0 + 1 } }, deadline)
        let words = String(decoding: head, as: UTF8.self).split(whereSeparator: \.isWhitespace)
        guard words.count == 3, words[0] == "RESULT", let status = Int(words[1]), let count = Int(words[2]) else {
            throw Failure("the guest answered '\(String(decoding: head, as: UTF8.self))'")
        }
        let output = try take(upTo: { $0.count >= count ? count : nil }, deadline)
        return (status, String(decoding: output, as: UTF8.self))
    }

    private func take(upTo end: ([UInt8]) -> Int?, _ deadline: MonotonicTime) throws -> [UInt8] {
        while true {
            if let count = end(pending) {
                let bytes = Array(pending[..<count])
                pending.removeFirst(count)
                return bytes
            }
            do throws(WireError) {
                if let more = try line.receiveBytes(limit: 65_536, until: deadline) {
                    pending += more
                    continue
                }
            } catch {
                guard error == .timedOut else { throw error }
                throw Failure("the guest does not answer; its last words: \(String(console.suffix(2000)))")
            }
            throw Failure("QEMU ended: \(process.text) The guest's last words: \(String(console.suffix(2000)))")
        }
    }

    // MARK: PCI

    /// The address of the function behind a slot's root port, such as "0000:03:00.0".
    func address(_ slot: String) throws -> String {
        guard let number = slots.firstIndex(where: { $0.name == slot }) else { throw Failure("no slot \(slot)") }
        let place = String(number + 4, radix: 16)
        return try run("cd /sys/bus/pci/devices/0000:00:\(place.count < 2 ? "0" : "")\(place).0 && ls -d 0000:*:00.0")
    }

    /// True while Linux has a function behind the slot's root port.
    func has(_ slot: String) -> Bool { (try? address(slot)) != nil }

    /// Asks the guest to let the device go, as the button at a slot does, and waits until QEMU has taken it away.
    func unplug(_ slot: String) throws {
        _ = try control.execute("device_del", ["id": .string(slot)])
        let deadline = MonotonicTime.after(.seconds(120))
        while true {
            let event = try control.waitForEvent("DEVICE_DELETED", until: deadline)
            if event.data["device"] == .string(slot) { return }
        }
    }

    /// Puts a device into the slot again.
    func plug(_ slot: String) throws {
        guard let it = slots.first(where: { $0.name == slot }) else { throw Failure("no slot \(slot)") }
        _ = try control.execute("device_add", Self.device(it), until: .after(.seconds(20)))
    }

    /// QEMU's own view, by QMP.
    func monitor(_ command: String, _ arguments: [String: JSONValue] = [:]) throws -> JSONValue {
        try control.execute(command, arguments)
    }
}
