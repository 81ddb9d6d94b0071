// The signature of an architectural test: a piece of memory as text, to be compared with a reference.
//
// Spec: RISC-V Architectural Test SIG, riscv-arch-test; the form is that of Spike's +signature-granularity.

/// Memory as lines of hexadecimal digits.
public enum Signature {
    /// A line has `granularity` bytes, the one at the highest address first; a last line that is not full begins with
    /// zeroes.
    public static func text(_ content: [UInt8], granularity: Int) -> [UInt8] {
        precondition(granularity > 0, "a line has at least a byte")
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(content.count * 2 + content.count / granularity + 1)
        for start in stride(from: 0, to: content.count, by: granularity) {
            for index in stride(from: start + granularity - 1, through: start, by: -1) {
                let byte = index < content.count ? content[index] : 0
                text.append(digits[Int(byte >> 4)])
                text.append(digits[Int(byte & 15)])
            }
            text.append(UInt8(ascii: "\n"))
        }
        return text
    }
}

extension ELFImage {
    /// From `begin_signature` up to `end_signature`, inside of `memory`.
    public func signature(in memory: AddressRange) throws(ELFError) -> Range<UInt64> {
        let (begin, end) = (try requireSymbol("begin_signature"), try requireSymbol("end_signature"))
        guard begin <= end else {
            throw ELFError(path: path, problem: .signatureReversed(begin: begin, end: end))
        }
        guard begin == end || memory.contains(begin, count: end - begin) else {
            throw ELFError(path: path, problem: .signatureOutsideMemory(begin: begin, end: end, memory: memory))
        }
        return begin..<end
    }
}
