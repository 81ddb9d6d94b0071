internal import QMP
public import Trust

/// What the logic remembers without power: which slot runs, which one waits to be tried, which did not boot.
public struct BootRecord: Sendable, Hashable {
    /// The slot that booted last: A or B.
    public private(set) var active: FirmwareSlot
    /// An updated slot that the next power cycle tries first; A or B.
    public private(set) var pending: FirmwareSlot?
    /// Slots that were verified and did not boot: passed over until they are written anew.
    public private(set) var failed: Set<FirmwareSlot>

    /// As a new board: slot A, no failures.
    public init() {
        active = .a
        pending = nil
        failed = []
    }

    /// The slots that may run, in the order in which they are verified; golden is always the last.
    public var candidates: [FirmwareSlot] {
        var slots: [FirmwareSlot] = []
        for slot in [pending, active, active == .a ? .b : .a].compactMap({ $0 })
        where !slots.contains(slot) && !failed.contains(slot) {
            slots.append(slot)
        }
        return slots + [.golden]
    }

    /// The slot that an update may write; the golden one never is.
    public var inactive: FirmwareSlot { active == .a ? .b : .a }

    /// `slot` was written anew and verified: the next power cycle tries it.
    public mutating func stage(_ slot: FirmwareSlot) {
        precondition(slot != .golden, "the golden slot is never updated")
        failed.remove(slot)
        pending = slot
    }

    /// `slot` was refused before it ran.
    mutating func noteRefused(_ slot: FirmwareSlot) { if pending == slot { pending = nil } }

    /// `slot` ran and said that it has booted. Golden leaves the others as they are.
    mutating func noteBooted(_ slot: FirmwareSlot) {
        guard slot != .golden else { return }
        active = slot
        failed.remove(slot)
        if pending == slot { pending = nil }
    }

    mutating func noteBootFailure(_ slot: FirmwareSlot) {
        guard slot != .golden else { return }
        failed.insert(slot)
        if pending == slot { pending = nil }
    }

    /// `slot` was written from golden.
    mutating func noteRestored(_ slot: FirmwareSlot) {
        failed.remove(slot)
        active = slot
        pending = nil
    }
}

extension BootRecord {
    /// As text of a file.
    var json: String {
        let names = [FirmwareSlot.a, .b].filter(failed.contains).map { "\"\($0)\"" }.joined(separator: ", ")
        return """
            {
              "active": "\(active)",
              "pending": \(pending.map { "\"\($0)\"" } ?? "null"),
              "failed": [\(names)]
            }

            """
    }

    /// nil when the text is no such record.
    init?(json bytes: [UInt8]) {
        guard let object = JSONValue(parsing: bytes)?.objectValue, object.count == 3,
            let active = object["active"].flatMap(Self.slot), let pending = object["pending"],
            let failed = object["failed"]?.arrayValue
        else { return nil }
        let slots = failed.compactMap(Self.slot)
        guard slots.count == failed.count, pending == .null || Self.slot(pending) != nil else { return nil }
        self.active = active
        self.pending = Self.slot(pending)
        self.failed = Set(slots)
    }

    private static func slot(_ value: JSONValue) -> FirmwareSlot? {
        switch value.stringValue {
        case "A": .a
        case "B": .b
        default: nil
        }
    }
}

/// A record's file: replaced as a whole and durably, so that a power cut leaves the old record or the new one.
public struct BootRecordFile: Sendable {
    private let path: String
    /// A record has some hundred bytes.
    private static let maximumSize = 4096

    public init(path: String) { self.path = path }

    /// The record, or that of a new board and what is wrong with the file. A file that is not there is no mistake.
    public func load() -> (record: BootRecord, warning: String?) {
        guard WholeFile.exists(path) else { return (BootRecord(), nil) }
        do throws(FileError) {
            let bytes = try WholeFile.read(path, limit: Self.maximumSize)
            if let record = BootRecord(json: bytes) { return (record, nil) }
            return (
                BootRecord(),
                "\(path): no boot record of this board: slot A is taken as active, with no failures; it is replaced when "
                    + "the board has booted"
            )
        } catch {
            return (BootRecord(), "\(error): slot A is taken as active, with no failures")
        }
    }

    public func store(_ record: BootRecord) throws(FileError) {
        try WholeFile.write(path, Array(record.json.utf8))
    }
}
