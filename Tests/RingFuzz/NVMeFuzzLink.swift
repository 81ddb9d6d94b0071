internal import BlockStore
internal import NVMe
internal import PCIe
internal import VFIOUser
internal import VFIOUserFuzz
internal import Wire

/// One NVMe controller's life. Pages of its host: 0 and 1 the admin queues, 2… those of I/O queue pairs.
final class NVMeFuzzLink {
    private(set) var random: SeededRandom
    private let target: FuzzTarget
    private let controller: NVMeController
    private var tails = [UInt32](repeating: 0, count: pairs + 1)
    private var count = 0

    private static let pairs = 3
    private static let entries: UInt32 = 16

    init(_ random: SeededRandom) throws {
        self.random = random
        let stores = [try BlockStore(memory: 1 << 20), try BlockStore(memory: 1 << 20, blockSize: 4096)]
        guard let configuration = NVMeConfiguration(serial: "FUZZ", namespaces: stores, queuePairs: Self.pairs) else {
            throw FuzzFailure(description: "a configuration that cannot be")
        }
        var made: NVMeController?
        let endpoint = Endpoint(NVMeController.description(configuration)) { bus in
            let controller = NVMeController(bus, configuration) { _ in }
            made = controller
            return controller
        }
        guard let made else { throw FuzzFailure(description: "the endpoint made no controller") }
        controller = made
        target = try FuzzTarget(endpoint)
    }

    func run(_ limit: Int, _ progress: (Int) -> Void) throws {
        defer {
            target.end()
            controller.end()
        }
        while count < limit {
            try enable()
            if !random.once(in: 4) { for index in 1...Self.pairs { makeQueues(index) } }
            for _ in 0..<20 + random.below(100) { step() }
            progress(count)
            guard !target.client.isGone else { throw FuzzFailure(description: target.client.goneReason ?? "gone") }
        }
        try enable()
    }

    private func set(_ offset: UInt64, _ value: UInt64, _ width: Int = 4) {
        target.client.write(region: 0, offset: offset, width: width, value: value)
        count += 1
    }

    private func page(_ number: Int) -> UInt64 { FuzzTarget.base + UInt64(number) << 12 }

    /// From whatever state to one that is ready: a controller reset must do.
    private func enable() throws {
        target.command(6)
        // A state given to it may have put it to sleep (D3hot): it reads as all ones until it is woken or reset.
        if target.client.read(region: 0, offset: NVMeRegister.status, width: 4) == 0xFFFF_FFFF {
            try? target.client.reset()
            target.command(6)
        }
        set(NVMeRegister.configuration, 0)
        set(NVMeRegister.adminQueueAttributes, UInt64(Self.entries - 1) << 16 | UInt64(Self.entries - 1))
        set(NVMeRegister.adminSubmissionQueue, page(0), 8)
        set(NVMeRegister.adminCompletionQueue, page(1), 8)
        set(NVMeRegister.configuration, 0x0046_0001)
        for index in tails.indices { tails[index] = 0 }
        guard target.client.read(region: 0, offset: NVMeRegister.status, width: 4) & 3 == 1 else {
            throw FuzzFailure(description: "no reset makes the controller ready")
        }
    }

    private func makeQueues(_ index: Int) {
        let size = UInt32(index) | (Self.entries - 1) << 16
        push(0, [5, 0, page(2 * index + 1), UInt64(size) | UInt64(3 | UInt32(index) << 16) << 32])
        push(0, [1, 0, page(2 * index), UInt64(size) | UInt64(1 | UInt32(index) << 16) << 32])
    }

    /// Puts a command into a queue: opcode and identifier, namespace, first PRP, doublewords 10 and 11, …
    private func push(_ queue: Int, _ words: [UInt64], prp2: UInt64 = 0, more: UInt64 = 0) {
        let place = 2 * queue << 12 + Int(tails[queue]) * 64
        let fields = [words[0] | UInt64(tails[queue]) << 16 | words[1] << 32, 0, 0, words[2], prp2, words[3], more, 0]
        // Doubleword 1 is the namespace; 2 to 5 are none of ours.
        for (number, field) in fields.enumerated() { target.store(field, place + number * 8) }
        tails[queue] = (tails[queue] + 1) % Self.entries
        set(NVMeRegister.doorbells + UInt64(8 * queue), UInt64(tails[queue]))
    }

    private func step() {
        switch random.below(32) {
        case 0...17: command()
        case 18...21:
            // The host has read everything, or says so.
            let queue = random.below(Self.pairs + 1)
            set(NVMeRegister.doorbells + UInt64(8 * queue + 4), UInt64(random.once(in: 4) ? random.below(17) : 0))
            if random.once(in: 3) { set(NVMeRegister.doorbells + UInt64(8 * queue + 4), UInt64(tails[queue])) }
        case 22: set(NVMeRegister.doorbells + UInt64(random.below(1100)) * 4, random.word())
        case 23: set(UInt64(random.below(0x50)), random.word(), 1 << random.below(4))
        case 24: _ = target.client.read(region: 0, offset: UInt64(random.below(0x4000)), width: 1 << random.below(4))
        case 25...27:
            target.store(random.once(in: 2) ? random.word() : FuzzTarget.address(&random), random.below(1 << 15) & ~7)
        case 28: target.command(random.once(in: 4) ? UInt64(random.below(8)) : 6)
        case 29: if random.once(in: 8) { migrate() }
        case 30: if random.once(in: 32) { try? target.client.reset() }
        default: controller.setTemperature(UInt16(random.below(400)))
        }
        count += 1
    }

    private func command() {
        let queue = random.below(Self.pairs + 1)
        let admin: [UInt64] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7C]
        let io: [UInt64] = [0, 1, 2, 4, 5, 8, 9, 12, 13, 14]
        let opcodes = queue == 0 ? admin : io
        let opcode = random.once(in: 16) ? UInt64(random.below(256)) : opcodes[random.below(opcodes.count)]
        let namespace = [0, 1, 1, 1, 2, 0xFFFF_FFFF][random.below(6)] as UInt64
        let word = random.once(in: 3) ? random.next() : UInt64(random.below(64)) | UInt64(random.below(3)) << 32
        push(
            queue, [opcode | (random.once(in: 16) ? 1 << 8 : 0), namespace, FuzzTarget.address(&random), word],
            prp2: FuzzTarget.address(&random), more: random.once(in: 3) ? random.next() : UInt64(random.below(64)))
    }

    /// Stops, takes the state, and gives it back, changed or not.
    private func migrate() {
        guard (try? target.client.setMigrationState(.stopCopy)) != nil,
            var state = try? target.client.readMigrationData()
        else { return }
        if random.once(in: 2) { state[random.below(state.count)] = UInt8(random.below(256)) }
        if (try? target.client.setMigrationState(.resuming)) != nil,
            (try? target.client.writeMigrationData(state)) != nil,
            (try? target.client.setMigrationState(.running)) != nil
        {
            return
        }
        try? target.client.reset()
    }
}
