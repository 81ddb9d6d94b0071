internal import PCIe
internal import VFIOUser

/// The features' current values. Spec: NVM Express 1.4 §5.21.1.
struct NVMeFeatures {
    static let arbitration: UInt8 = 0x01
    static let powerManagement: UInt8 = 0x02
    static let temperatureThreshold: UInt8 = 0x04
    static let errorRecovery: UInt8 = 0x05
    static let volatileWriteCache: UInt8 = 0x06
    static let numberOfQueues: UInt8 = 0x07
    static let interruptCoalescing: UInt8 = 0x08
    static let interruptVectorConfiguration: UInt8 = 0x09
    static let writeAtomicity: UInt8 = 0x0A
    static let asynchronousEventConfiguration: UInt8 = 0x0B

    /// I/O queues of each kind that there may be.
    private(set) var submissionQueues: Int
    private(set) var completionQueues: Int
    private let maximumQueues: Int
    /// Hints that are kept and change nothing: each burst is interrupted for once as it is.
    private var arbitrationWord: UInt32 = 0
    private var errorRecoveryWord: UInt32 = 0
    private var coalescing: UInt32 = 0
    private var vectors: [UInt32]
    private var writeAtomicityWord: UInt32 = 0
    private(set) var hasWriteCache = true
    /// Kelvin, of the composite temperature.
    private(set) var overTemperature: UInt16 = NVMeFeatures.warningTemperature
    private(set) var underTemperature: UInt16 = 0
    private var events: UInt32 = 0

    static let warningTemperature: UInt16 = 343
    static let criticalTemperature: UInt16 = 353

    init(vectors count: Int) {
        maximumQueues = count - 1
        submissionQueues = maximumQueues
        completionQueues = maximumQueues
        vectors = Array(repeating: 0, count: count)
    }

    // MARK: Migration

    private static let words: [any WritableKeyPath<NVMeFeatures, UInt32> & Sendable] = [
        \.arbitrationWord, \.errorRecoveryWord, \.coalescing, \.writeAtomicityWord, \.events,
    ]

    func save(_ state: inout StateWriter) {
        state.add(UInt8(submissionQueues))
        state.add(UInt8(completionQueues))
        for word in Self.words { state.add(self[keyPath: word]) }
        for vector in vectors { state.add(vector) }
        state.add(hasWriteCache)
        state.add(overTemperature)
        state.add(underTemperature)
    }

    /// Refused: more queues than there may be.
    mutating func restore(_ state: inout StateReader) throws(ErrorNumber) {
        submissionQueues = Int(try state.take(UInt8.self))
        completionQueues = Int(try state.take(UInt8.self))
        let queues = 1...max(1, maximumQueues)
        guard queues.contains(submissionQueues), queues.contains(completionQueues) else { throw .invalid }
        for word in Self.words { self[keyPath: word] = try state.take(UInt32.self) }
        for vector in vectors.indices { vectors[vector] = try state.take(UInt32.self) & 1 << 16 }
        hasWriteCache = try state.takeBool()
        overTemperature = try state.take(UInt16.self)
        underTemperature = try state.take(UInt16.self)
    }

    func wants(_ event: AsynchronousEvent) -> Bool {
        switch event.type {
        case 0: true
        case 1: events & 1 << event.information != 0
        default: events & 1 << 8 != 0
        }
    }

    /// The value that Get Features answers; nil for a feature that there is not or a field that is wrong.
    func get(_ identifier: UInt8, _ dword11: UInt32) -> UInt32? {
        switch identifier {
        case Self.arbitration: return arbitrationWord
        case Self.powerManagement: return 0
        case Self.temperatureThreshold:
            // Composite temperature only; bits 21…20 choose over or under.
            guard dword11 >> 16 & 0xF == 0, dword11 >> 20 & 3 < 2 else { return dword11 >> 20 & 3 < 2 ? 0 : nil }
            return UInt32(dword11 >> 20 & 3 == 0 ? overTemperature : underTemperature)
        case Self.errorRecovery: return errorRecoveryWord
        case Self.volatileWriteCache: return hasWriteCache ? 1 : 0
        case Self.numberOfQueues: return UInt32(submissionQueues - 1) | UInt32(completionQueues - 1) << 16
        case Self.interruptCoalescing: return coalescing
        case Self.interruptVectorConfiguration:
            let vector = Int(dword11 & 0xFFFF)
            return vector < vectors.count ? UInt32(vector) | vectors[vector] : nil
        case Self.writeAtomicity: return writeAtomicityWord
        case Self.asynchronousEventConfiguration: return events
        default: return nil
        }
    }

    /// Sets a feature; doubleword 0 of the completion, or why not. `hasQueues`: there are I/O queues already.
    mutating func set(_ identifier: UInt8, _ value: UInt32, hasQueues: Bool) -> NVMeOutcome {
        switch identifier {
        case Self.arbitration: arbitrationWord = value
        case Self.powerManagement:
            // One power state, no workload hints.
            guard value & 0x1F == 0 else { return .status(.invalidField) }
        case Self.temperatureThreshold:
            let (sensor, type) = (value >> 16 & 0xF, value >> 20 & 3)
            guard sensor == 0 || sensor == 0xF, type < 2 else { return .status(.invalidField) }
            if type == 0 {
                overTemperature = UInt16(truncatingIfNeeded: value)
            } else {
                underTemperature = UInt16(truncatingIfNeeded: value)
            }
        case Self.errorRecovery:
            // Deallocated blocks always read as zeroes; there is no error to enable.
            guard value & 1 << 16 == 0 else { return .status(.invalidField) }
            errorRecoveryWord = value & 0xFFFF
        case Self.volatileWriteCache: hasWriteCache = value & 1 != 0
        case Self.numberOfQueues:
            let (submissions, completions) = (value & 0xFFFF, value >> 16)
            guard submissions != 0xFFFF, completions != 0xFFFF else { return .status(.invalidField) }
            guard !hasQueues else { return .status(NVMeStatus(rawValue: 0x0C | 1 << 14)) }
            submissionQueues = min(Int(submissions) + 1, maximumQueues)
            completionQueues = min(Int(completions) + 1, maximumQueues)
            return .done(.success, UInt32(submissionQueues - 1) | UInt32(completionQueues - 1) << 16)
        case Self.interruptCoalescing: coalescing = value & 0xFFFF
        case Self.interruptVectorConfiguration:
            let vector = Int(value & 0xFFFF)
            guard vector < vectors.count else { return .status(.invalidField) }
            vectors[vector] = value & 1 << 16
        case Self.writeAtomicity: writeAtomicityWord = value & 1
        case Self.asynchronousEventConfiguration: events = value & 0x1FF
        default: return .status(.invalidField)
        }
        return .success
    }
}

extension NVMeEngine {
    func getFeatures(_ command: NVMeCommand) -> NVMeOutcome {
        let identifier = UInt8(truncatingIfNeeded: command.dword10)
        guard let value = features.get(identifier, command.dword11) else { return .status(.invalidField) }
        return .done(.success, value)
    }

    func setFeatures(_ command: NVMeCommand) -> NVMeOutcome {
        // Nothing can be saved. Spec: Identify Controller ONCS bit 4.
        guard command.dword10 & 1 << 31 == 0 else { return .status(.featureNotSaveable) }
        let identifier = UInt8(truncatingIfNeeded: command.dword10)
        let hasQueues = order.contains { $0 > 0 } || completion.indices.contains { $0 > 0 && completion[$0].isOpen }
        let outcome = features.set(identifier, command.dword11, hasQueues: hasQueues)
        if identifier == NVMeFeatures.temperatureThreshold { checkTemperature() }
        return outcome
    }

    /// Whether the temperature is beyond a threshold: a critical warning.
    var isTemperatureCritical: Bool {
        temperature >= features.overTemperature || temperature <= features.underTemperature
    }

    func checkTemperature() { if isTemperatureCritical { raiseEvent(.temperature) } }
}
