// Settings as written, read as what the catalogue says they are.

import Component
import Glibc

/// What is wrong with a value, and what would be right; goes after the name of the setting.
struct ValueMistake: Error {
    var text: String
}

extension SettingType {
    /// What may be written, for messages.
    var expectation: String {
        switch self {
        case .boolean: "true or false"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .byteCount(let range, _): "a size such as \(range.lowerBound)"
        case .powerOfTwo(let range): "a size such as \(range.lowerBound)"
        case .duration(let range): "a duration such as \(range.lowerBound.spelled)"
        case .choice(let words): words.map { "'\($0)'" }.joined(separator: " or ")
        case .text(let maximum): "at most \(maximum) printable characters"
        case .file, .ownFile: "the path of a file"
        case .macAddress: "a unicast MAC address such as 52:54:00:12:34:56"
        case .ipv4Address: "an IPv4 address such as 192.168.7.1"
        case .ipv4Interface: "an IPv4 address and prefix length such as 192.168.7.2/24"
        }
    }

    func value(of written: YAMLValue) -> Result<SettingValue, ValueMistake> {
        guard case .scalar(let text, let isPlain) = written.content, !written.isNull else {
            return .failure(ValueMistake(text: "must be \(expectation), found \(written.kindName)"))
        }
        let mismatch = ValueMistake(text: "must be \(expectation), not '\(text)'")
        switch self {
        case .boolean:
            guard isPlain, text == "true" || text == "false" else { return .failure(mismatch) }
            return .success(.boolean(text == "true"))
        case .integer(let range):
            guard let value = Int(text), range.contains(value) else { return .failure(mismatch) }
            return .success(.integer(value))
        case .byteCount(let range, let multiple):
            return byteCount(text, range, multiple)
        case .powerOfTwo(let range):
            return byteCount(text, range, ByteCount(1)).flatMap { value in
                guard case .byteCount(let count) = value, count.bytes.nonzeroBitCount == 1 else {
                    return .failure(
                        ValueMistake(text: "is \(text); it must be a power of two, such as \(range.lowerBound)"))
                }
                return .success(value)
            }
        case .duration(let range):
            guard let value = Duration(parsing: text) else {
                return .failure(
                    ValueMistake(text: "must be a duration in ns, us, ms, s or min, such as 50ms, not '\(text)'"))
            }
            guard range.contains(value) else {
                let bounds = "\(range.lowerBound.spelled) to \(range.upperBound.spelled)"
                return .failure(ValueMistake(text: "is \(value.spelled); it must be \(bounds)"))
            }
            return .success(.duration(value))
        case .choice(let words):
            guard words.contains(text) else {
                let near = Spelling.nearest(to: text, among: words).map { "; did you mean '\($0)'?" } ?? ""
                return .failure(ValueMistake(text: mismatch.text + near))
            }
            return .success(.text(text))
        case .text(let maximum):
            let isPrintable = text.utf8.allSatisfy { (0x20...0x7E).contains($0) }
            guard isPrintable, (1...maximum).contains(text.utf8.count) else { return .failure(mismatch) }
            return .success(.text(text))
        case .file:
            return file(text, from: written.position.file.folder)
        case .ownFile:
            guard !text.isEmpty, !text.hasSuffix("/"), !text.utf8.contains(0) else { return .failure(mismatch) }
            return .success(.file(Path.absolute(text, from: written.position.file.folder)))
        case .macAddress:
            guard Self.isUnicastMAC(text) else { return .failure(mismatch) }
            return .success(.text(text))
        case .ipv4Address:
            guard Self.isIPv4Address(text) else { return .failure(mismatch) }
            return .success(.text(text))
        case .ipv4Interface:
            guard Self.isIPv4Interface(text) else { return .failure(mismatch) }
            return .success(.text(text))
        }
    }

    private func byteCount(
        _ text: String, _ range: ClosedRange<ByteCount>, _ multiple: ByteCount
    ) -> Result<SettingValue, ValueMistake> {
        guard let value = ByteCount(parsing: text) else {
            return .failure(
                ValueMistake(
                    text: "must be a size in B, KiB, MiB, GiB or TiB, such as \(range.lowerBound), not '\(text)'"))
        }
        guard range.contains(value) else {
            let shown = text == value.description ? text : "\(text) (\(value))"
            return .failure(ValueMistake(text: "is \(shown); it must be \(range.lowerBound) to \(range.upperBound)"))
        }
        guard value.bytes.isMultiple(of: multiple.bytes) else {
            return .failure(ValueMistake(text: "is \(text); it must be a multiple of \(multiple)"))
        }
        return .success(.byteCount(value))
    }

    private func file(_ text: String, from folder: String) -> Result<SettingValue, ValueMistake> {
        guard !text.isEmpty, !text.utf8.contains(0) else {
            return .failure(ValueMistake(text: "must be \(expectation), not '\(text)'"))
        }
        let path = Path.absolute(text, from: folder)
        var status = stat()
        guard stat(path, &status) == 0 else {
            let reason =
                errno == ENOENT ? "there is no file '\(path)'" : "'\(path)': \(String(cString: strerror(errno)))"
            var text = "names a missing file: \(reason)"
            if case .file(let remedy) = self, !remedy.isEmpty { text += "; \(remedy)" }
            return .failure(ValueMistake(text: text))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            return .failure(ValueMistake(text: "must name a regular file; '\(path)' is none"))
        }
        guard access(path, R_OK) == 0 else {
            return .failure(ValueMistake(text: "names '\(path)', which this user may not read"))
        }
        return .success(.file(path))
    }

    private static func isUnicastMAC(_ text: String) -> Bool {
        let octets = text.split(separator: ":", omittingEmptySubsequences: false)
        guard octets.count == 6, octets.allSatisfy({ $0.utf8.count == 2 && UInt8($0, radix: 16) != nil }),
            let first = UInt8(octets[0], radix: 16)
        else { return false }
        return first & 1 == 0 && octets.contains { $0 != "00" }
    }

    private static func isIPv4Interface(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let prefix = Int(parts[1]), (1...30).contains(prefix)
        else { return false }
        return isIPv4Address(parts[0])
    }

    private static func isIPv4Address(_ text: some StringProtocol) -> Bool {
        let octets = text.split(separator: ".", omittingEmptySubsequences: false)
        return octets.count == 4
            && octets.allSatisfy { octet in
                octet.utf8.allSatisfy { (0x30...0x39).contains($0) } && UInt8(octet) != nil
            }
    }
}
