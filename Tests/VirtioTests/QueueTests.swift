import Testing
import VFIOUser
import Virtio
import Wire

/// Rings from both sides, without a transport.
struct QueueTests {
    private let data = 0x10_0000

    @Test(arguments: RingKind.all)
    func `requests of several segments come back with what was written`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        // More rounds than places: every wrap of the ring is passed.
        for round in 0..<40 {
            let text = [UInt8]((0..<30).map { UInt8(truncatingIfNeeded: $0 &+ round) })
            rig.memory.set(text, data)
            let place = Memory.base + UInt64(data)
            let number = rig.driver.added(
                .init(place, 10), .init(place + 10, 20), .init(place + 100, 7, writable: true),
                .init(place + 200, 100, writable: true))
            _ = rig.driver.publish()
            #expect(rig.echo() == 1)
            let answer = rig.driver.take()
            #expect(answer?.identifier == number && answer?.written == 30)
            #expect(rig.memory.bytes(data + 100, 7) + rig.memory.bytes(data + 200, 23) == text)
            #expect(!rig.driver.hasUsed && rig.driver.freeDescriptors == 8)
        }
        #expect(rig.failure == nil)
    }

    @Test(arguments: RingKind.all)
    func `a full ring of requests is served in one go and costs one interrupt`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        for _ in 0..<5 {
            let before = rig.interrupts
            let waits = rig.driver.enableInterrupts()
            #expect(!waits)
            var numbers: [UInt16] = []
            while let number = rig.driver.add(.init(Memory.base + UInt64(data), 64, writable: true)) {
                numbers.append(number)
            }
            #expect(numbers.count == 8)
            _ = rig.driver.publish()
            #expect(rig.echo() == 8)
            #expect(rig.interrupts == before + 1)
            var answers: [UInt16] = []
            while let answer = rig.driver.take() { answers.append(answer.identifier) }
            #expect(answers == numbers)
        }
    }

    @Test(arguments: RingKind.all)
    func `a driver that looks by itself is not interrupted`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        for _ in 0..<50 {
            rig.driver.disableInterrupts()
            _ = rig.driver.add(.init(Memory.base + UInt64(data), 4, writable: true))
            _ = rig.driver.publish()
            rig.echo()
            #expect(rig.driver.hasUsed)
            _ = rig.driver.take()
        }
        #expect(rig.interrupts == 0)
    }

    @Test(arguments: RingKind.all)
    func `what was taken and rewound is offered again`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        for length in [3, 5] { _ = rig.driver.add(.init(Memory.base + UInt64(data), length)) }
        _ = rig.driver.publish()
        let lengths = rig.queues.withQueue(0) { (queue, memory) throws(RingFault) -> [Int] in
            var lengths: [Int] = []
            let position = queue.position
            for _ in 0..<2 {
                while try queue.next(&memory) { lengths.append(queue.chain.readableBytes) }
                queue.rewind(to: position)
            }
            return lengths
        }
        #expect(lengths == [3, 5, 3, 5])
        #expect(rig.echo() == 2)
    }

    @Test(arguments: RingKind.all)
    func `an indirect table is one request`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        let table = 0x8_0000
        rig.memory.set(Array("hello".utf8), data)
        for (index, (offset, length, isWritable)) in [(0, 2, false), (2, 3, false), (64, 16, true)].enumerated() {
            let isLast = index == 2
            rig.memory.store(Memory.base + UInt64(data + offset), table + index * 16)
            rig.memory.store(UInt32(length), table + index * 16 + 8)
            let flags: UInt16 = (isWritable ? 2 : 0) | (isLast || kind.isPacked ? 0 : 1)
            if kind.isPacked {
                rig.memory.store(UInt16(0), table + index * 16 + 12)
                rig.memory.store(flags, table + index * 16 + 14)
            } else {
                rig.memory.store(flags, table + index * 16 + 12)
                rig.memory.store(UInt16(index + 1), table + index * 16 + 14)
            }
        }
        _ = rig.driver.add(.init(Memory.base + UInt64(table), 48))
        // The driver's side knows no indirect tables: the flag is put in here.
        let flags = rig.driver.descriptorArea + (kind.isPacked ? 14 : 12)
        if kind.isPacked {
            _ = rig.driver.publish()
            rig.memory.store(rig.memory.load(UInt16.self, flags) | 4, flags)
        } else {
            rig.memory.store(UInt16(4), flags)
            _ = rig.driver.publish()
        }
        #expect(rig.echo() == 1)
        let answer = rig.driver.take()
        #expect(answer?.written == 5)
        #expect(rig.memory.bytes(data + 64, 5) == Array("hello".utf8))
    }

    @Test(arguments: RingKind.all)
    func `notifications are asked for only when there is nothing to do`(_ kind: RingKind) throws {
        let rig = try QueueRig(kind)
        let device = EchoDevice()
        // A busy device: quiet.
        rig.queues.watch(0)
        #expect(!rig.queues.arm(device))
        _ = rig.driver.add(.init(Memory.base + UInt64(data), 4))
        let notifies = rig.driver.publish()
        #expect(notifies, "the device asked for it")
        rig.queues.quiet(0)
        rig.echo()
        _ = rig.driver.take()
        for _ in 0..<20 {
            _ = rig.driver.add(.init(Memory.base + UInt64(data), 4))
            let notifies = rig.driver.publish()
            #expect(!notifies, "the device looks by itself")
            rig.queues.watch(0)
            #expect(rig.queues.arm(device), "it finds the request before it sleeps")
            rig.queues.quiet(0)
            rig.echo()
            _ = rig.driver.take()
        }
    }
}

/// Answers every request with what it read.
final class EchoDevice: VirtioDevice {
    let type = VirtioDeviceType.entropy
    let features: VirtioFeatures = [VirtioFeatures(bit: 0), VirtioFeatures(bit: 1)]
    let queueSizes: [UInt16] = [64, 64]
    let lines = Lines()

    func accepts(_ features: VirtioFeatures) -> Bool {
        // Bit 1 needs bit 0.
        features.contains(VirtioFeatures(bit: 0)) || !features.contains(VirtioFeatures(bit: 1))
    }
    func start(_ queues: QueueSet) { lines.add("start") }
    func stop() { lines.add("stop") }

    func serve(_ index: Int, _ queues: QueueSet) -> Bool {
        queues.withQueue(index) { (queue, memory) throws(RingFault) in
            guard try queue.next(&memory) else { return false }
            let count = min(queue.chain.readableBytes, queue.chain.writableBytes)
            try withUnsafeTemporaryAllocation(byteCount: max(count, 1), alignment: 8) { (buffer) throws(RingFault) in
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
                try queue.chain.read(at: 0, into: part, &memory)
                try queue.chain.write(at: 0, from: UnsafeRawBufferPointer(part), &memory)
            }
            try queue.complete(queue.chain.token, written: count, &memory)
            return true
        } ?? false
    }
}
