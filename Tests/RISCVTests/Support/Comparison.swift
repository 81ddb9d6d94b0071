// Runs one program in both machines and says where they part.
import RISCV
import Testing

/// Expects that our hart and QEMU log the same. `names` says, per logged doubleword, what it is.
func expectSameAsQEMU(
    _ program: GuestProgram, names: [String] = [], cpu: String = "rv64,zba=true,zbb=true,zbs=true",
    note: String = "", sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let theirs = try program.runInQEMU(cpu: cpu)
    for translation in HartConfiguration.Translation.allCases {
        let machine = TestMachine(image: program.image, translation: translation)
        let note = "\(note) with translation of \(translation)"
        let ours = try #require(machine.run(), "our hart did not finish \(note)", sourceLocation: sourceLocation)
        compare(ours, theirs, names, note, sourceLocation)
    }
}

private func compare(
    _ ours: [String], _ theirs: [String], _ names: [String], _ note: String, _ sourceLocation: SourceLocation
) {
    #expect(!ours.isEmpty, "the program logged nothing \(note)", sourceLocation: sourceLocation)
    #expect(
        ours.count == theirs.count, "\(theirs.prefix(80)) a different number of results \(note)",
        sourceLocation: sourceLocation)
    var reported = 0
    for index in 0..<min(ours.count, theirs.count) where ours[index] != theirs[index] && reported < 8 {
        let name = index < names.count ? names[index] : "result \(index)"
        Issue.record("\(name): ours \(ours[index]), QEMU's \(theirs[index]) \(note)", sourceLocation: sourceLocation)
        if names.isEmpty {
            let window = max(0, index - 6)..<min(index + 12, ours.count, theirs.count)
            Issue.record("around it: ours \(ours[window]), QEMU's \(theirs[window])", sourceLocation: sourceLocation)
        }
        // Without names the results depend on each other: one difference leads to all.
        reported += names.isEmpty ? 8 : 1
    }
}
