// Spec: RISC-V Advanced Interrupt Architecture 1.0 §4.5 (memory-mapped control region), §4.8 (direct mode)

extension APLIC {
    /// A decoded offset into a domain's control region.
    enum Register: Equatable {
        case domaincfg
        case sourcecfg(Int)
        case mmsiaddrcfg
        case mmsiaddrcfgh
        case smsiaddrcfg
        case smsiaddrcfgh
        case setip(word: Int)
        case setipnum
        case inClrip(word: Int)
        case clripnum
        case setie(word: Int)
        case setienum
        case clrie(word: Int)
        case clrienum
        case setipnumLE
        case setipnumBE
        case genmsi
        case target(Int)
        case idc(hart: Int, IDCRegister)
        case reserved

        init(offset: UInt64) {
            switch offset {
            case 0x0000: self = .domaincfg
            case 0x0004...0x0FFC: self = .sourcecfg(Int(offset / 4))
            case 0x1BC0: self = .mmsiaddrcfg
            case 0x1BC4: self = .mmsiaddrcfgh
            case 0x1BC8: self = .smsiaddrcfg
            case 0x1BCC: self = .smsiaddrcfgh
            case 0x1C00...0x1C7C: self = .setip(word: Int((offset - 0x1C00) / 4))
            case 0x1CDC: self = .setipnum
            case 0x1D00...0x1D7C: self = .inClrip(word: Int((offset - 0x1D00) / 4))
            case 0x1DDC: self = .clripnum
            case 0x1E00...0x1E7C: self = .setie(word: Int((offset - 0x1E00) / 4))
            case 0x1EDC: self = .setienum
            case 0x1F00...0x1F7C: self = .clrie(word: Int((offset - 0x1F00) / 4))
            case 0x1FDC: self = .clrienum
            case 0x2000: self = .setipnumLE
            case 0x2004: self = .setipnumBE
            case 0x3000: self = .genmsi
            case 0x3004...0x3FFC: self = .target(Int((offset - 0x3000) / 4))
            case 0x4000..<0x8000:
                let hart = Int((offset - 0x4000) / 32)
                guard let register = IDCRegister(rawValue: offset % 32) else {
                    self = .reserved
                    return
                }
                self = .idc(hart: hart, register)
            default: self = .reserved
            }
        }
    }

    /// A hart's interrupt delivery control structure, used in direct mode.
    enum IDCRegister: UInt64 {
        case idelivery = 0x00
        case iforce = 0x04
        case ithreshold = 0x08
        case topi = 0x18
        case claimi = 0x1C
    }

    /// `sourcecfg.SM`
    enum SourceMode: UInt32 {
        case inactive = 0
        case detached = 1
        case risingEdge = 4
        case fallingEdge = 5
        case highLevel = 6
        case lowLevel = 7

        var isLevel: Bool { self == .highLevel || self == .lowLevel }
        var isEdge: Bool { self == .risingEdge || self == .fallingEdge }
    }

    /// `domaincfg`: bits 31:24 read 0x80, IE bit 8, DM bit 2; BE is wired to little-endian.
    static let domaincfgConstant: UInt32 = 0x8000_0000
    static let domaincfgIE: UInt32 = 1 << 8
    static let domaincfgDM: UInt32 = 1 << 2
    /// `sourcecfg.D`: delegated to child 0.
    static let sourcecfgD: UInt32 = 1 << 10
    /// `mmsiaddrcfgh`: L 31, HHXS 28:24, LHXS 22:20, HHXW 18:16, LHXW 15:12, PPN 11:0.
    static let mmsiaddrcfghMask: UInt32 = 0x9F77_FFFF
    static let mmsiaddrcfghL: UInt32 = 1 << 31
    /// `smsiaddrcfgh`: LHXS 22:20, PPN 11:0.
    static let smsiaddrcfghMask: UInt32 = 0x0070_0FFF

    /// Bits 1…96 of a set of sources.
    static let allSources: UInt128 = ((1 << UInt128(InterruptSource.count + 1)) - 1) & ~1
}
