// Registers, threads and a person's commands.
//
// Spec: Debugging with GDB, "RISC-V Features". Numbers are those that GDB gives the registers without a description:
// x0…x31, pc, f0…f31, then CSRs from 65 on, then priv.
import GDBRemote
import RISCV

extension MachineDebugger {
    private static let pc = 32
    private static let firstFloat = 33
    private static let firstCSR = 65
    private static let privilege = firstCSR + 4096

    private static let integerNames = [
        "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
        "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
    ]
    private static let floatNames =
        (0..<8).map { "ft\($0)" } + ["fs0", "fs1"] + (0..<8).map { "fa\($0)" } + (2..<12).map { "fs\($0)" }
        + (8..<12).map { "ft\($0)" }

    /// The description of a hart's registers: CSRs are those that this hart has.
    static func registers(of hart: Hart) -> [RegisterDescription] {
        let types = ["ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"]
        var list = integerNames.enumerated().map { number, name in
            RegisterDescription(.cpu, name, number, type: types[name] ?? "int")
        }
        list.append(RegisterDescription(.cpu, "pc", pc, type: "code_ptr"))
        list += floatNames.enumerated().map { number, name in
            RegisterDescription(.fpu, name, firstFloat + number, type: "riscv_double")
        }
        for csr in CSRName.all where hart.debugCSR(csr.number) != nil {
            list.append(RegisterDescription(csr.number < 4 ? .fpu : .csr, csr.name, firstCSR + Int(csr.number)))
        }
        list.append(RegisterDescription(.virtual, "priv", privilege))
        return list
    }

    var threadCount: Int { machine.harts.count }
    var generalRegisterCount: Int { Self.firstCSR }

    func description(ofThread thread: Int) -> String { "hart \(thread) [\(Self.modeName(machine.harts[thread].mode))]" }

    private static func modeName(_ mode: UInt8) -> String {
        ["user", "supervisor", "reserved", "machine"][Int(mode & 3)]
    }

    func register(_ number: Int, thread: Int) -> UInt64? {
        let hart = machine.harts[thread]
        switch number {
        case 0..<Self.pc: return hart.x(number)
        case Self.pc: return hart.pc
        case Self.firstFloat..<Self.firstCSR: return hart.f(number - Self.firstFloat)
        case Self.firstCSR..<Self.privilege: return hart.debugCSR(UInt32(number - Self.firstCSR))
        case Self.privilege: return UInt64(hart.mode)
        default: return nil
        }
    }

    func setRegister(_ number: Int, _ value: UInt64, thread: Int) -> Bool {
        let hart = machine.harts[thread]
        switch number {
        case 0: return value == 0
        case 1..<Self.pc: hart.setX(number, value)
        case Self.pc: hart.pc = value
        case Self.firstFloat..<Self.firstCSR: hart.setF(number - Self.firstFloat, value)
        case Self.firstCSR..<Self.privilege: return hart.setCSR(UInt32(number - Self.firstCSR), value)
        case Self.privilege: return hart.setMode(value)
        default: return false
        }
        return true
    }

    // MARK: monitor commands

    private static let help = """
        reset                     reset the machine; a held one stops at the reset vector
        harts                     every hart's pc and mode
        devices on|off            whether memory commands reach device registers (off)
        step-interrupts on|off    whether a single step may enter an interrupt handler (off)
        Physical addresses: maintenance packet Qqemu.PhyMemMode:1 (and :0)

        """

    func monitor(_ command: String) -> String? {
        let words = command.split(whereSeparator: { $0 == " " || $0 == "\n" || $0 == "\t" })
        switch words {
        case ["help"], []: return Self.help
        case ["reset"]:
            guard machine.state != .held else { return "the machine is held in reset by the sideband\n" }
            machine.reset()
            return "the machine is reset; 'maintenance flush register-cache' shows its registers\n"
        case ["harts"]:
            return machine.harts.map { hart in
                "hart \(hart.id): pc 0x\(String(hart.pc, radix: 16)) \(Self.modeName(hart.mode))\n"
            }.joined()
        case ["devices", "on"], ["devices", "off"]:
            touchesDevices = words[1] == "on"
            return "memory commands \(touchesDevices ? "reach" : "do not reach") devices\n"
        case ["step-interrupts", "on"], ["step-interrupts", "off"]:
            stepsIntoInterrupts = words[1] == "on"
            return "a step \(stepsIntoInterrupts ? "may enter" : "does not enter") an interrupt handler\n"
        default: return "unknown command; 'monitor help' lists them\n"
        }
    }
}
