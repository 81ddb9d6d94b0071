// QMP commands of the host beyond those of every component, named and shaped as QEMU's where QEMU has them.

import Component
import Glibc
import Machine
import PCIe
import QMP
import Wire

struct HostCommands: Sendable {
    let machine: Machine
    let serial: SerialBridge
    let root: RootComplex?
    let runtime: ComponentRuntime
    let status: HostStatus

    func register() {
        runtime.control.register(QMPCommand("query-cpus") { _ throws(QMPError) in cpus() })
        runtime.control.register(
            QMPCommand("query-serial") { _ throws(QMPError) in
                ["output-bytes": .unsigned(serial.outputCount), "ends": .integer(Int64(serial.endCount))]
            })
        runtime.control.register(
            QMPCommand("query-pci") { _ throws(QMPError) in PCIInformation.json(root?.functions() ?? []) })
        // Spec: QEMU qapi/machine.json "system_reset", qapi/misc.json "stop", "cont", "pmemsave".
        runtime.control.register(
            QMPCommand("system_reset") { _ throws(QMPError) in
                try requirePowered()
                machine.reset()
                runtime.emit("RESET", ["guest": false, "reason": "host-qmp-system-reset"])
                return [:]
            })
        // Spec: QEMU qapi/machine.json "system_powerdown", qapi/run-state.json event "POWERDOWN".
        runtime.control.register(
            QMPCommand("system_powerdown") { _ throws(QMPError) in
                try requirePowered()
                runtime.emit("POWERDOWN")
                machine.pressPowerButton()
                return [:]
            })
        runtime.control.register(
            QMPCommand("stop") { _ throws(QMPError) in
                try requirePowered()
                if machine.state == .running {
                    machine.pause()
                    status.refresh()
                }
                return [:]
            })
        runtime.control.register(
            QMPCommand("cont") { _ throws(QMPError) in
                try requirePowered()
                if machine.isHeldByDebugger {
                    throw QMPError("a debugger holds the harts: continue there, or detach it")
                }
                if machine.state == .paused {
                    machine.resume()
                    status.refresh()
                }
                return [:]
            })
        runtime.control.register(
            QMPCommand(
                "pmemsave", [.required("val", .integer), .required("size", .integer), .required("filename", .string)]
            ) { arguments throws(QMPError) in
                try save(
                    address: arguments["val"]?.integerValue ?? 0, size: arguments["size"]?.integerValue ?? 0,
                    file: arguments["filename"]?.stringValue ?? "")
                return [:]
            })
    }

    private func requirePowered() throws(QMPError) {
        if machine.state == .held { throw QMPError("the host is held in reset by the sideband") }
    }

    private func cpus() -> JSONValue {
        .array(
            machine.hartStatus().map { hart in
                let mode = ["user", "supervisor", "", "machine"][Int(hart.mode & 3)]
                return [
                    "cpu-index": .unsigned(hart.id), "target": "riscv64", "mode": .string(mode),
                    // 64 bits: as text, because JSON readers keep 53.
                    "pc": .string("0x" + String(hart.programCounter, radix: 16)),
                    "instructions-retired": .unsigned(hart.instructionsRetired),
                ]
            })
    }

    /// Writes a piece of RAM to a file.
    private func save(address: Int64, size: Int64, file: String) throws(QMPError) {
        let offset = UInt64(bitPattern: address) &- MemoryMap.ramBase
        guard size > 0, machine.memory.mapping.contains(offset: offset, count: UInt64(size)) else {
            let end = MemoryMap.ramBase + machine.configuration.memorySize
            throw QMPError(
                "\(size) bytes at 0x\(String(UInt64(bitPattern: address), radix: 16)) are not RAM: that is "
                    + "0x\(String(MemoryMap.ramBase, radix: 16)) to 0x\(String(end, radix: 16))")
        }
        do throws(WireError) {
            let output = try Descriptor.open(file, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
            var position = Int(offset)
            let end = position + Int(size)
            while position < end {
                let next = min(end, position + (1 << 20))
                try output.writeAll(machine.memoryContent(position..<next), subject: file)
                position = next
            }
        } catch {
            throw QMPError("\(error)")
        }
    }
}
