// The names of control and status registers, for people and debuggers.
//
// Spec: RISC-V Privileged 20240411 tables 3–8; Sstc; Advanced Interrupt Architecture 1.0 chapter 2.

/// A CSR's number and its name.
public struct CSRName: Sendable {
    public let number: UInt32
    public let name: String

    /// Every CSR that some configuration of a hart has, by number.
    public static let all: [CSRName] =
        named + (0..<16).map { CSRName(number: 0x3B0 + $0, name: "pmpaddr\($0)") }

    private static let named: [CSRName] = [
        (0x001, "fflags"), (0x002, "frm"), (0x003, "fcsr"),
        (0x100, "sstatus"), (0x104, "sie"), (0x105, "stvec"), (0x106, "scounteren"), (0x10A, "senvcfg"),
        (0x140, "sscratch"), (0x141, "sepc"), (0x142, "scause"), (0x143, "stval"), (0x144, "sip"),
        (0x14D, "stimecmp"), (0x150, "siselect"), (0x151, "sireg"), (0x15C, "stopei"), (0x180, "satp"),
        (0x300, "mstatus"), (0x301, "misa"), (0x302, "medeleg"), (0x303, "mideleg"), (0x304, "mie"), (0x305, "mtvec"),
        (0x306, "mcounteren"), (0x308, "mvien"), (0x309, "mvip"), (0x30A, "menvcfg"), (0x320, "mcountinhibit"),
        (0x340, "mscratch"), (0x341, "mepc"), (0x342, "mcause"), (0x343, "mtval"), (0x344, "mip"),
        (0x350, "miselect"), (0x351, "mireg"), (0x35C, "mtopei"), (0x3A0, "pmpcfg0"), (0x3A2, "pmpcfg2"),
        (0xB00, "mcycle"), (0xB02, "minstret"), (0xC00, "cycle"), (0xC01, "time"), (0xC02, "instret"),
        (0xDB0, "stopi"), (0xF11, "mvendorid"), (0xF12, "marchid"), (0xF13, "mimpid"), (0xF14, "mhartid"),
        (0xF15, "mconfigptr"), (0xFB0, "mtopi"),
    ].map { CSRName(number: $0.0, name: $0.1) }
}
