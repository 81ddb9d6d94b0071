import FoundationEssentials
import QMP

/// One figure beside what limits it, measured in the same run.
struct BenchRow {
    enum Better: String { case lower, higher }

    var name: String
    var value: Double
    var unit: String
    /// What `referenceValue` is: a peer or the limit under the figure.
    var reference: String
    var referenceValue: Double
    /// The bound on `value` or on the ratio, as text for people.
    var goal: String
    var met: Bool

    /// value / reference_value.
    var ratio: Double { referenceValue == 0 ? .infinity : value / referenceValue }

    /// A figure with a bound on itself.
    static func bounded(
        _ name: String, _ value: Double, _ unit: String, reference: String, _ referenceValue: Double, _ better: Better,
        than bound: Double
    ) -> BenchRow {
        BenchRow(
            name: name, value: value, unit: unit, reference: reference, referenceValue: referenceValue,
            goal: "\(better == .lower ? "<=" : ">=") \(shortest(bound)) \(unit)",
            met: better == .lower ? value <= bound : value >= bound)
    }

    /// A figure with a bound on its ratio to the reference.
    static func ratio(
        _ name: String, _ value: Double, _ unit: String, reference: String, _ referenceValue: Double, _ better: Better,
        than bound: Double
    ) -> BenchRow {
        var row = BenchRow(
            name: name, value: value, unit: unit, reference: reference, referenceValue: referenceValue,
            goal: "ratio \(better == .lower ? "<=" : ">=") \(shortest(bound))", met: false)
        row.met = better == .lower ? row.ratio <= bound : row.ratio >= bound
        return row
    }

    var json: JSONValue {
        [
            "name": .string(name), "value": .number(value), "unit": .string(unit), "reference": .string(reference),
            "reference_value": .number(referenceValue), "ratio": .number(ratio), "goal": .string(goal),
            "met": .bool(met),
        ]
    }

    /// One line of the table for people.
    var line: String {
        func padded(_ text: String, _ width: Int, left: Bool = true) -> String {
            let space = String(repeating: " ", count: max(0, width - text.count))
            return left ? text + space : space + text
        }
        return padded(name, 34) + padded(shortest(value), 10, left: false) + " " + padded(unit, 6)
            + padded(shortest(referenceValue), 10, left: false) + "  " + padded(reference, 44)
            + padded(shortest(ratio), 8, left: false) + "  " + padded(goal, 16) + (met ? "met" : "NOT MET")
    }

    static let heading =
        "figure                                 value unit    reference                                                  ratio  goal"
}

/// Three significant digits, without an exponent.
func shortest(_ value: Double) -> String {
    guard value.isFinite else { return "-" }
    let magnitude = abs(value)
    let places = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 3
    let scale = [1.0, 10, 100, 1000][places]
    let scaled = (value * scale).rounded()
    let text = String(Int64(clamping: Int64(exactly: scaled) ?? Int64.max))
    guard places > 0 else { return text }
    let digits = text.drop { $0 == "-" }
    let filled = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    return (value < 0 ? "-" : "") + filled.dropLast(places) + "." + filled.suffix(places)
}

/// The middle value.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? .nan : sorted[sorted.count / 2]
}
