// The file of --rules: who may do what to the flash, instead of the built-in rules. YAML (and so JSON):
//
//   adapter:
//     - allow: [read]
//       while: [unprotected]
//   external:
//     - allow: [read, program, erase]
//       while: [held, failed]
//       range: 0x0180_0000-0x01FF_FFFF       # first and last byte; everything where it is not written
//   opcodes:                                 # for the masters that are named; the rest have the usual ones
//     external: {before-lock: [0x9F, 0x05, 0x0C], after-lock: []}

import SecurityLogic
import Topology

/// What is wrong with a rules file: every mistake with its line.
struct GateRulesError: Error, CustomStringConvertible {
    var description: String
}

enum GateRulesFile {
    static func read(_ path: String) throws(GateRulesError) -> FlashGateRules {
        let file: SourceFile
        switch SourceFile.read(path) {
        case .success(let read): file = read
        case .failure(let error):
            throw GateRulesError(description: "\(path): cannot read the flash rules: \(error.text)")
        }
        var reader = Reader()
        guard let root = YAMLDocument.parse(file, &reader.diagnostics) else { throw reader.failure() }
        let rules = reader.rules(root)
        guard reader.diagnostics.isEmpty, let rules else { throw reader.failure() }
        return rules
    }
}

private struct Reader {
    var diagnostics = Diagnostics()

    func failure() -> GateRulesError {
        GateRulesError(description: diagnostics.sorted().map(\.description).joined(separator: "\n"))
    }

    mutating func rules(_ root: YAMLValue) -> FlashGateRules? {
        guard case .mapping(let entries) = root.content else {
            diagnostics.error(
                "must be a map of \(Self.masters) and 'opcodes', found \(root.kindName)", at: root.position)
            return nil
        }
        var rules: [FlashGateRules.Rule] = []
        var filters: [FlashMaster: FlashGateRules.Filter] = [:]
        for entry in entries {
            if entry.key == "opcodes" {
                filters = self.filters(entry.value)
            } else if let master = FlashMaster(rawValue: entry.key) {
                for item in items(entry.value, "rules") {
                    if let rule = rule(item, master) { rules.append(rule) }
                }
            } else {
                diagnostics.error(
                    "'\(entry.key)' is no master of the flash; write \(Self.masters), or 'opcodes'", at: entry.position)
            }
        }
        return try? FlashGateRules(rules: rules, filters: filters)
    }

    private static let masters = FlashMaster.allCases.map { "'\($0.rawValue)'" }.joined(separator: ", ")

    private mutating func rule(_ value: YAMLValue, _ master: FlashMaster) -> FlashGateRules.Rule? {
        guard case .mapping(let entries) = value.content else {
            diagnostics.error(
                "a rule is a map with 'allow', 'while' and, where it is not for everything, 'range'; found "
                    + value.kindName, at: value.position)
            return nil
        }
        var rule = FlashGateRules.Rule(master, [], while: [])
        var known: Set<String> = []
        for entry in entries {
            known.insert(entry.key)
            switch entry.key {
            case "allow":
                for item in items(entry.value, "permissions") {
                    let names = FlashOperations.names
                    guard let operation = word(item, names.map(\.0)).flatMap({ word in names.first { $0.0 == word } })
                    else { continue }
                    rule.operations.insert(operation.1)
                    accept(rule, item)
                }
            case "while":
                for item in items(entry.value, "phases") {
                    guard let phase = word(item, FlashPhase.allCases.map(\.rawValue)).flatMap(FlashPhase.init) else {
                        continue
                    }
                    rule.phases.insert(phase)
                    accept(rule, item)
                }
            case "range":
                if let range = range(entry.value) { rule.range = range }
            default:
                diagnostics.error(
                    "'\(entry.key)' is no part of a rule; a rule has 'allow', 'while' and 'range'", at: entry.position)
            }
        }
        for key in ["allow", "while"] where !known.contains(key) {
            diagnostics.error(
                "the rule has no '\(key)'; write \(key): [\(key == "allow" ? "read" : "held")]", at: value.position)
        }
        return rule
    }

    /// Says at `item` what no rule may give.
    private mutating func accept(_ rule: FlashGateRules.Rule, _ item: YAMLValue) {
        do throws(FlashGateRules.Refusal) { _ = try FlashGateRules(rules: [rule], filters: [:]) } catch {
            diagnostics.error(error.description, at: item.position)
        }
    }

    private mutating func filters(_ value: YAMLValue) -> [FlashMaster: FlashGateRules.Filter] {
        var filters: [FlashMaster: FlashGateRules.Filter] = [:]
        guard case .mapping(let entries) = value.content else {
            diagnostics.error("must be a map of \(Self.masters), found \(value.kindName)", at: value.position)
            return [:]
        }
        for entry in entries {
            guard let master = FlashMaster(rawValue: entry.key), case .mapping(let lists) = entry.value.content else {
                diagnostics.error(
                    "'\(entry.key)' must be one of \(Self.masters) with 'before-lock' and 'after-lock'",
                    at: entry.position)
                continue
            }
            var filter = FlashGateRules.Filter(beforeLock: [], afterLock: [])
            for list in lists {
                let opcodes = Set(items(list.value, "opcodes").compactMap { opcode($0, master) })
                switch list.key {
                case "before-lock": filter.beforeLock = opcodes
                case "after-lock": filter.afterLock = opcodes
                default:
                    diagnostics.error(
                        "'\(list.key)' must be 'before-lock' or 'after-lock'", at: list.position)
                }
            }
            filters[master] = filter
        }
        return filters
    }

    private mutating func opcode(_ value: YAMLValue, _ master: FlashMaster) -> UInt8? {
        guard case .scalar(let text, _) = value.content, let number = Self.number(text),
            let opcode = UInt8(exactly: number)
        else {
            diagnostics.error("must be an opcode such as 0x9F, found \(value.kindName)", at: value.position)
            return nil
        }
        let filter = FlashGateRules.Filter(beforeLock: [opcode], afterLock: [])
        do throws(FlashGateRules.Refusal) { _ = try FlashGateRules(rules: [], filters: [master: filter]) } catch {
            diagnostics.error(error.description, at: value.position)
            return nil
        }
        return opcode
    }

    // MARK: Values

    private mutating func items(_ value: YAMLValue, _ what: String) -> [YAMLValue] {
        guard case .sequence(let items) = value.content else {
            diagnostics.error("must be a list of \(what), found \(value.kindName)", at: value.position)
            return []
        }
        return items
    }

    private mutating func word(_ value: YAMLValue, _ words: [String]) -> String? {
        if case .scalar(let text, _) = value.content, words.contains(text) { return text }
        diagnostics.error(
            "must be \(words.map { "'\($0)'" }.joined(separator: " or ")), found \(value.kindName)", at: value.position)
        return nil
    }

    /// First and last byte.
    private mutating func range(_ value: YAMLValue) -> Range<UInt64>? {
        if case .scalar(let text, _) = value.content {
            let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Self.number(String($0)) }
            if parts.count == 2, let first = parts[0], let last = parts[1], first <= last, last < 1 << 32 {
                return first..<last + 1
            }
        }
        diagnostics.error(
            "must be the first and the last byte, such as 0x0000_0000-0x007F_FFFF, found \(value.kindName)",
            at: value.position)
        return nil
    }

    /// Decimal, or hexadecimal behind 0x; underscores between digits.
    private static func number(_ text: String) -> UInt64? {
        let digits = text.filter { $0 != "_" && $0 != " " }
        if digits.hasPrefix("0x") || digits.hasPrefix("0X") { return UInt64(digits.dropFirst(2), radix: 16) }
        return UInt64(digits)
    }
}
