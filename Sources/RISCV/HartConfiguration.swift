// What a hart is made of, and how the devicetree names it.

/// Choices that are fixed when a hart is made.
public struct HartConfiguration: Sendable {
    /// Where external interrupts come from.
    public enum InterruptArchitecture: Sendable {
        /// Smaia and Ssaia with the IMSIC interrupt files in the hart.
        case aia
        /// A PLIC drives MEIP and SEIP; the AIA's CSRs do not exist.
        case plic
    }

    public var interrupts: InterruptArchitecture

    /// Which code is translated to code of the host, where there is a translator for it (x86-64). The results are the
    /// same, only the speed differs.
    public enum Translation: Sendable, CaseIterable {
        /// None: everything is interpreted.
        case none
        /// What runs often.
        case hot
        /// Everything before it runs first; for tests.
        case always
    }

    public var translation: Translation

    public init(interrupts: InterruptArchitecture = .aia, translation: Translation = .hot) {
        self.interrupts = interrupts
        self.translation = translation
    }

    /// The extensions after the base, in the order of the devicetree's `riscv,isa-extensions`.
    public var isaExtensions: [String] {
        var names = ["i", "m", "a", "f", "d", "c"]
        names += ["zicbom", "zicboz", "zicntr", "zicsr", "zifencei", "zihpm", "zba", "zbb", "zbs"]
        if interrupts == .aia { names += ["smaia", "ssaia"] }
        names += ["sstc", "svadu"]
        return names
    }

    /// The devicetree's `riscv,isa`.
    public var isaString: String {
        let single = isaExtensions.filter { $0.count == 1 }.joined()
        return "rv64" + ([single] + isaExtensions.filter { $0.count > 1 }).joined(separator: "_")
    }

    /// The devicetree's `mmu-type`: the largest virtual address space.
    public var mmuType: String { "riscv,sv57" }

    /// Bytes of a cache block, for the devicetree's `riscv,cbom-block-size` and `riscv,cboz-block-size`.
    public static let cacheBlockSize: UInt64 = 64
}
