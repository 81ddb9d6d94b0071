// target.xml: which registers there are. Spec: Debugging with GDB, appendix "Target Descriptions".

enum TargetDescription {
    /// The document for a 64-bit RISC-V target with these registers.
    static func xml(_ registers: [RegisterDescription]) -> String {
        var lines = [
            "<?xml version=\"1.0\"?>", "<!DOCTYPE target SYSTEM \"gdb-target.dtd\">", "<target>",
            "<architecture>riscv:rv64</architecture>",
        ]
        for feature in RegisterDescription.Feature.allCases {
            let members = registers.filter { $0.feature == feature }
            if members.isEmpty { continue }
            lines.append("<feature name=\"\(feature.rawValue)\">")
            if feature == .fpu {
                // A register holds a double, or a single in its lower half.
                lines.append(
                    "<union id=\"riscv_double\"><field name=\"float\" type=\"ieee_single\"/>"
                        + "<field name=\"double\" type=\"ieee_double\"/></union>")
            }
            let group = feature == .csr || feature == .virtual ? " group=\"csr\"" : ""
            for register in members {
                lines.append(
                    "<reg name=\"\(register.name)\" bitsize=\"64\" regnum=\"\(register.number)\" "
                        + "type=\"\(register.type)\"\(group)/>")
            }
            lines.append("</feature>")
        }
        lines.append("</target>")
        return lines.joined(separator: "\n") + "\n"
    }
}
