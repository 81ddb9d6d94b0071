// The file of --rules: who may do what to the flash, instead of the built-in rules. JSON:
//
//   {
//     "adapter": [{"allow": ["read"], "while": ["unprotected"]}],
//     "external": [
//       {"allow": ["read", "program", "erase"], "while": ["held", "failed"],
//        "range": [0x0180_0000, 0x01FF_FFFF]}            // first and last byte; everything where it is not written
//     ],
//     "opcodes": {                                       // for the masters that are named; the rest have the usual ones
//       "external": {"before-lock": [0x9F, 0x05, 0x0C], "after-lock": []}
//     }
//   }

import SecurityLogic
import Trust

/// What is wrong with a rules file: every mistake with its line.
struct GateRulesError: Error, CustomStringConvertible {
    var description: String
}

enum GateRulesFile {
    /// A table of eight masters has some kilobytes.
    private static let maximumSize = 256 * 1024

    static func read(_ path: String) throws(GateRulesError) -> FlashGateRules {
        let bytes: [UInt8]
        do throws(FileError) { bytes = try WholeFile.read(path, limit: maximumSize) } catch {
            throw GateRulesError(description: "cannot read the flash rules: \(error)")
        }
        let root: PlacedJSON
        do throws(PlacedJSONError) { root = try PlacedJSON.parse(bytes) } catch {
            throw GateRulesError(description: "\(path):\(error.line):\(error.column): \(error.message)")
        }
        var reader = Reader()
        let rules = reader.rules(root)
        guard reader.mistakes.isEmpty, let rules else {
            throw GateRulesError(
                description: reader.mistakes.sorted { ($0.line, $0.column) < ($1.line, $1.column) }
                    .map { "\(path):\($0.line):\($0.column): \($0.message)" }.joined(separator: "\n"))
        }
        return rules
    }
}

private struct Reader {
    var mistakes: [PlacedJSONError] = []

    mutating func rules(_ root: PlacedJSON) -> FlashGateRules? {
        guard case .map(let entries) = root.content else {
            blame(root, "must be a map of \(Self.masters) and \"opcodes\", found \(root.kindName)")
            return nil
        }
        var rules: [FlashGateRules.Rule] = []
        var filters: [FlashMaster: FlashGateRules.Filter] = [:]
        for (key, value) in entries {
            if key.text == "opcodes" {
                filters = self.filters(value)
            } else if let master = key.text.flatMap(FlashMaster.init) {
                for item in items(value, "rules") {
                    if let rule = rule(item, master) { rules.append(rule) }
                }
            } else {
                blame(key, "\(key.kindName) is no master of the flash; write \(Self.masters), or \"opcodes\"")
            }
        }
        return try? FlashGateRules(rules: rules, filters: filters)
    }

    private static let masters = FlashMaster.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")

    private mutating func rule(_ value: PlacedJSON, _ master: FlashMaster) -> FlashGateRules.Rule? {
        guard case .map(let entries) = value.content else {
            blame(
                value,
                "a rule is a map of \"allow\", \"while\" and, where it is not for everything, \"range\"; found "
                    + value.kindName)
            return nil
        }
        var rule = FlashGateRules.Rule(master, [], while: [])
        for (key, value) in entries {
            switch key.text {
            case "allow":
                for item in items(value, "permissions") {
                    let names = FlashOperations.names
                    guard let word = word(item, names.map(\.0)), let operation = names.first(where: { $0.0 == word })
                    else { continue }
                    rule.operations.insert(operation.1)
                    judge(.init(master, operation.1, while: []), item)
                }
            case "while":
                for item in items(value, "phases") {
                    guard let phase = word(item, FlashPhase.allCases.map(\.rawValue)).flatMap(FlashPhase.init) else {
                        continue
                    }
                    rule.phases.insert(phase)
                    judge(.init(master, [], while: [phase]), item)
                }
            case "range":
                if let range = range(value) { rule.range = range }
            default: blame(key, "\(key.kindName) is no part of a rule; a rule has \"allow\", \"while\" and \"range\"")
            }
        }
        for name in ["allow", "while"] where !entries.contains(where: { $0.key.text == name }) {
            blame(value, "the rule has no \"\(name)\"; write \"\(name)\": [\"\(name == "allow" ? "read" : "held")\"]")
        }
        return rule
    }

    /// Says at `item` what no rule may give.
    private mutating func judge(_ rule: FlashGateRules.Rule, _ item: PlacedJSON) {
        do throws(FlashGateRules.Refusal) { _ = try FlashGateRules(rules: [rule], filters: [:]) } catch {
            blame(item, error.description)
        }
    }

    private mutating func filters(_ value: PlacedJSON) -> [FlashMaster: FlashGateRules.Filter] {
        var filters: [FlashMaster: FlashGateRules.Filter] = [:]
        guard case .map(let entries) = value.content else {
            blame(value, "must be a map of \(Self.masters), found \(value.kindName)")
            return [:]
        }
        for (key, value) in entries {
            guard let master = key.text.flatMap(FlashMaster.init), case .map(let lists) = value.content else {
                blame(key, "must be one of \(Self.masters) with \"before-lock\" and \"after-lock\"")
                continue
            }
            var filter = FlashGateRules.Filter(beforeLock: [], afterLock: [])
            for (key, value) in lists {
                let opcodes = Set(items(value, "opcodes").compactMap { opcode($0, master) })
                switch key.text {
                case "before-lock": filter.beforeLock = opcodes
                case "after-lock": filter.afterLock = opcodes
                default: blame(key, "\(key.kindName) must be \"before-lock\" or \"after-lock\"")
                }
            }
            filters[master] = filter
        }
        return filters
    }

    private mutating func opcode(_ value: PlacedJSON, _ master: FlashMaster) -> UInt8? {
        guard case .number(let number) = value.content, let opcode = UInt8(exactly: number) else {
            blame(value, "must be an opcode such as 0x9F, found \(value.kindName)")
            return nil
        }
        let filter = FlashGateRules.Filter(beforeLock: [opcode], afterLock: [])
        do throws(FlashGateRules.Refusal) { _ = try FlashGateRules(rules: [], filters: [master: filter]) } catch {
            blame(value, error.description)
            return nil
        }
        return opcode
    }

    // MARK: Values

    private mutating func blame(_ value: PlacedJSON, _ message: String) {
        mistakes.append(PlacedJSONError(line: value.line, column: value.column, message: message))
    }

    private mutating func items(_ value: PlacedJSON, _ what: String) -> [PlacedJSON] {
        if case .list(let items) = value.content { return items }
        blame(value, "must be a list of \(what), found \(value.kindName)")
        return []
    }

    private mutating func word(_ value: PlacedJSON, _ words: [String]) -> String? {
        if let text = value.text, words.contains(text) { return text }
        blame(
            value, "must be \(words.map { "\"\($0)\"" }.joined(separator: " or ")), found \(value.kindName)")
        return nil
    }

    /// First and last byte.
    private mutating func range(_ value: PlacedJSON) -> Range<UInt64>? {
        if case .list(let items) = value.content, items.count == 2, case .number(let first) = items[0].content,
            case .number(let last) = items[1].content, first <= last, last < 1 << 32
        {
            return first..<last + 1
        }
        blame(
            value, "must be the first and the last byte, such as [0x0000_0000, 0x007F_FFFF], found \(value.kindName)")
        return nil
    }
}
