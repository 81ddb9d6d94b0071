import Crypto
import SPINOR
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

@Suite struct FirmwareUpdateTests {
    @Test func `an image goes into the slot that does not run, and is staged when it verifies`() throws {
        let chip = try UpdatedChip()
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        let refusal = chip.update(try UpdatedChip.image(chip.key, "new", 3), with: &update)
        #expect(refusal == nil, "\(String(describing: refusal))")
        #expect(update.state == .staged && update.slot == .b)
        #expect(chip.bootable(.a) == "old" && chip.bootable(.b) == "new" && chip.bootable(.golden) == nil)
        update.abandon()
        #expect(update.state == .idle && update.slot == nil)
    }

    @Test func `power that falls at any write leaves the old image bootable, and the new one whole or not at all`()
        throws
    {
        var generator = SeededGenerator.fresh()
        let counting = try UpdatedChip()
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        let image = try UpdatedChip.image(counting.key, "new", 3)
        let before = counting.writes
        #expect(counting.update(image, with: &update) == nil)
        let writes = counting.writes - before
        #expect(writes > 40)
        // Every write, several ways to tear it: 1000 cuts in all.
        let rounds = (1000 + Int(writes) - 1) / Int(writes)
        for round in 0..<rounds {
            let chip = try UpdatedChip(seed: generator.next())
            let image = try UpdatedChip.image(chip.key, "new", 3)
            for cut in 1...writes {
                var update = FirmwareUpdate(layout: UpdatedChip.layout)
                _ = chip.chip.inject(.powerLoss(after: cut))
                let refusal = chip.update(image, with: &update)
                #expect(refusal?.1 == .refused && update.state == .refused, "cut \(cut), seed \(generator.seed)")
                #expect(!chip.chip.isPowered)
                chip.chip.powerOn()
                #expect(chip.bootable(.a) == "old", "cut \(cut) of round \(round), seed \(generator.seed)")
                let other = chip.bootable(.b)
                #expect(other == nil || other == "new", "cut \(cut), seed \(generator.seed)")
            }
            var update = FirmwareUpdate(layout: UpdatedChip.layout)
            #expect(chip.update(image, with: &update) == nil, "seed \(generator.seed)")
            #expect(chip.bootable(.b) == "new")
        }
    }

    @Test func `an image that is not authentic is refused before anything is written`() throws {
        let chip = try UpdatedChip()
        let stranger = try P384PrivateKey.generate()
        let before = chip.writes
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        for (image, text) in [
            (try UpdatedChip.image(stranger, "foreign", 9), "key"),
            (try UpdatedChip.image(chip.key, "replayed", 1), "security version 1"),
            (
                try FirmwareImage.build(
                    firstStage: [1], opensbi: [2], nextStage: [3], key: chip.key, name: "other board",
                    securityVersion: 5, boardCompatibility: "baseboard,desktop"), "baseboard,desktop"
            ),
        ] {
            let refusal = chip.update(image, with: &update)
            guard case (.manifest, .refused, let reason)? = refusal else {
                Issue.record("\(String(describing: refusal))")
                continue
            }
            #expect(reason.contains(text), "\(reason)")
            #expect(update.state == .refused && update.reason == reason)
        }
        #expect(chip.writes == before)
    }

    @Test func `an image that is not what its manifest says is refused at the end and cannot be booted`() throws {
        let chip = try UpdatedChip()
        var image = try UpdatedChip.image(chip.key, "new", 3)
        image[0x2_0005] ^= 1
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        let refusal = chip.update(image, with: &update)
        #expect(refusal?.0 == .finish && refusal?.2.contains("OpenSBI") == true, "\(String(describing: refusal))")
        #expect(chip.bootable(.b) == nil && chip.bootable(.a) == "old")
    }

    @Test func `a manifest in the image's data is not what counts`() throws {
        let chip = try UpdatedChip()
        let genuine = try UpdatedChip.image(chip.key, "new", 3)
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        var swapped = genuine
        for offset in 0x1_0000..<0x1_F000 { swapped[offset] = 0 }
        // The command sequence takes its manifest from `genuine`, the data from `swapped`.
        var medium = UpdatedChip.Medium(chip: chip)
        let length = (0..<4).reduce(0) { $0 | Int(genuine[0x1_0000 + $1]) << (8 * $1) }
        var requests: [UpdateRequest] = [.begin(size: UInt32(genuine.count), manifestSize: UInt32(length))]
        let message = Array(genuine[0x1_0004..<0x1_0004 + length])
        for offset in stride(from: 0, to: length, by: 2048) {
            requests.append(
                .manifest(offset: UInt32(offset), data: Array(message[offset..<min(offset + 2048, length)])))
        }
        for offset in stride(from: 0, to: swapped.count, by: 2048) {
            requests.append(
                .data(offset: UInt32(offset), data: Array(swapped[offset..<min(offset + 2048, swapped.count)])))
        }
        for request in requests + [.finish] {
            let response = update.handle(request, inactive: .b, fuses: chip.fuses, medium: &medium)
            #expect(response == .done(command: request.command))
        }
        #expect(chip.bootable(.b) == "new")
    }

    @Test func `a command out of place changes nothing`() throws {
        let chip = try UpdatedChip()
        var medium = UpdatedChip.Medium(chip: chip)
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        func status(_ request: UpdateRequest, inactive: FirmwareSlot? = .b) -> SecurityStatus {
            let response = update.handle(request, inactive: inactive, fuses: chip.fuses, medium: &medium)
            if case .refused(_, let status, let reason) = response {
                #expect(!reason.isEmpty)
                return status
            }
            return .success
        }
        let before = chip.writes
        for request in [.finish, .manifest(offset: 0, data: [1]), .data(offset: 0, data: [1])] as [UpdateRequest] {
            #expect(status(request) == .notPermitted)
        }
        #expect(status(.begin(size: 0x10_0000, manifestSize: 100), inactive: nil) == .notPermitted)
        for (size, manifest) in [
            (0, 100), (0x1_0000, 100), (0x80_0001, 100), (.max, 100), (0x10_0000, 0), (0x10_0000, 0xF000),
        ]
            as [(UInt32, UInt32)]
        {
            #expect(status(.begin(size: size, manifestSize: manifest)) == .invalidData)
        }
        #expect(status(.begin(size: 0x10_0000, manifestSize: 100)) == .success)
        #expect(status(.data(offset: 0, data: [1])) == .notPermitted)
        #expect(status(.manifest(offset: 1, data: [1])) == .notPermitted)
        #expect(status(.manifest(offset: 0, data: [UInt8](repeating: 0, count: 101))) == .notPermitted)
        #expect(status(.manifest(offset: 0, data: [1])) == .success)
        #expect(status(.manifest(offset: 0, data: [1])) == .notPermitted)
        #expect(update.state == .authenticating)
        #expect(status(.cancel) == .success)
        #expect(update.state == .idle && chip.writes == before)
        guard
            case .status(.idle, slot: 0xFF, received: 0, size: 0, reason: "") = update.handle(
                .query, inactive: .b, fuses: chip.fuses, medium: &medium)
        else {
            Issue.record("not idle")
            return
        }
    }

    @Test func `random commands never trap, and the slot that runs stays as it is`() throws {
        var generator = SeededGenerator.fresh()
        let chip = try UpdatedChip()
        var medium = UpdatedChip.Medium(chip: chip)
        var update = FirmwareUpdate(layout: UpdatedChip.layout)
        let image = try UpdatedChip.image(chip.key, "new", 3)
        let length = (0..<4).reduce(0) { $0 | Int(image[0x1_0000 + $1]) << (8 * $1) }
        for _ in 0..<4000 {
            let offset = UInt32.random(in: 0...40, using: &generator) * 100
            let request: UpdateRequest
            switch Int.random(in: 0..<12, using: &generator) {
            case 0: request = .begin(size: UInt32(image.count), manifestSize: UInt32(length))
            case 1: request = .begin(size: generator.next32, manifestSize: generator.next32)
            case 2: request = .finish
            case 3: request = .cancel
            case 4: request = .query
            case 5, 6, 7: request = .manifest(offset: 0, data: Array(image[0x1_0004..<0x1_0004 + length]))
            case 8: request = .manifest(offset: offset, data: generator.bytes(100))
            default: request = .data(offset: offset, data: generator.bytes(100))
            }
            _ = update.handle(request, inactive: .b, fuses: chip.fuses, medium: &medium)
        }
        #expect(chip.bootable(.a) == "old", "seed \(generator.seed)")
        #expect(chip.bootable(.b) == nil, "seed \(generator.seed)")
    }
}

extension SeededGenerator {
    fileprivate var next32: UInt32 { mutating get { UInt32(truncatingIfNeeded: next()) } }
}
