import PCIe
import Testing
import VFIOUser
import Virtio
import Wire

/// A function over vfio-user, as a driver sees it.
struct TransportTests {
    private let data = 0x10_0000

    /// Negotiated and running, with both queues.
    private func running(_ rig: FunctionRig, _ kind: RingKind) throws -> [DriverQueue] {
        try rig.driver.negotiate(kind.features)
        let queues = [rig.queue(0, kind), rig.queue(0x1_0000, kind)]
        for (index, queue) in queues.enumerated() { rig.driver.enable(index, queue, vector: UInt16(index + 1)) }
        rig.driver.start()
        return queues
    }

    @Test(arguments: RingKind.all)
    func `a request is answered and interrupts by its queue's vector`(_ kind: RingKind) throws {
        let rig = try FunctionRig(EchoDevice())
        let vectors = try (0..<3).map { _ in try EventNotifier() }
        try rig.client.setInterrupts(.msix, notifiers: vectors)
        var queues = try running(rig, kind)
        for round in 0..<100 {
            _ = queues[1].enableInterrupts()
            rig.memory.set([UInt8](repeating: UInt8(round), count: 8), data)
            _ = queues[1].added(
                .init(Memory.base + UInt64(data), 8), .init(Memory.base + UInt64(data) + 64, 8, writable: true))
            if queues[1].publish() { rig.driver.kick(1) }
            #expect(eventually { vectors[2].drain() })
            let answer = queues[1].take()
            #expect(answer?.written == 8)
            #expect(rig.memory.bytes(data + 64, 8) == [UInt8](repeating: UInt8(round), count: 8))
        }
        #expect(!vectors[0].drain() && !vectors[1].drain())
        #expect(rig.log.all.isEmpty)
    }

    @Test func `without MSI-X it interrupts by INTx until the status is read`() throws {
        let rig = try FunctionRig(EchoDevice())
        let pin = try EventNotifier()
        try rig.client.setInterrupts(.intx, notifiers: [pin])
        var queues = try running(rig, RingKind.all[0])
        for _ in 0..<3 {
            _ = queues[0].add(.init(Memory.base + UInt64(data), 4))
            if queues[0].publish() { rig.driver.kick(0) }
            #expect(eventually { pin.drain() })
            #expect(rig.driver.read(rig.driver.interruptStatus, 0, 1) == 1)
            #expect(rig.driver.read(rig.driver.interruptStatus, 0, 1) == 0)
            try rig.client.act(.unmask, on: .intx)
            #expect(queues[0].hasUsed && !pin.drain())
            _ = queues[0].take()
        }
    }

    @Test func `features that were not offered, or do not fit together, are refused`() throws {
        let rig = try FunctionRig(EchoDevice())
        let driver = rig.driver
        #expect(driver.offered == VirtioFeatures.transport.union([.init(bit: 0), .init(bit: 1)]))
        for (features, isTaken) in [
            (VirtioFeatures.version1, true), ([.version1, .init(bit: 0), .init(bit: 1)], true),
            ([.version1, .init(bit: 1)], false), ([.version1, .init(bit: 2)], false), ([], false),
            ([.init(bit: 0)], false), ([.version1, .init(bit: 63)], false),
        ] as [(VirtioFeatures, Bool)] {
            driver.reset()
            driver.addStatus([.acknowledge, .driver])
            driver.setFeatures(features)
            driver.addStatus(.featuresOK)
            #expect(driver.status.contains(.featuresOK) == isTaken, "\(features)")
        }
    }

    @Test func `the status machine keeps its order`() throws {
        let rig = try FunctionRig(EchoDevice())
        let driver = rig.driver
        // DRIVER_OK without FEATURES_OK, and NEEDS_RESET, which is the device's, are not taken.
        driver.addStatus([.acknowledge, .driver, .driverOK, .deviceNeedsReset])
        #expect(driver.status == [.acknowledge, .driver])
        // Bits do not go away one by one.
        driver.write(driver.common, CommonField.deviceStatus, 1, 1)
        #expect(driver.status == [.acknowledge, .driver])
        driver.setFeatures(.version1)
        driver.addStatus(.featuresOK)
        // Features are fixed now.
        driver.setFeatures([.version1, .init(bit: 0)])
        driver.write(driver.common, CommonField.driverFeatureSelect, 4, 0)
        #expect(driver.read(driver.common, CommonField.driverFeature, 4) == 0)
        driver.reset()
        #expect(driver.status == [] && driver.read(driver.common, CommonField.driverFeature, 4) == 0)
    }

    @Test func `an enabled queue cannot be changed, and one that is not there does not exist`() throws {
        let rig = try FunctionRig(EchoDevice())
        let driver = rig.driver
        func register(_ field: Int, _ width: Int = 2) -> UInt64 { driver.read(driver.common, field, width) }
        #expect(register(CommonField.queueCount) == 2)
        driver.write(driver.common, CommonField.queueSelect, 2, 0)
        #expect(register(CommonField.queueSize) == 64)
        // Enabled only once features are agreed.
        driver.write(driver.common, CommonField.queueEnable, 2, 1)
        #expect(register(CommonField.queueEnable) == 0)
        try driver.negotiate(RingKind.all[0].features)
        driver.write(driver.common, CommonField.queueSelect, 2, 0)
        for bad: UInt64 in [0, 3, 128, 0xFFFF] {
            driver.write(driver.common, CommonField.queueSize, 2, bad)
            #expect(register(CommonField.queueSize) == 64)
        }
        driver.write(driver.common, CommonField.queueVector, 2, 9)
        #expect(register(CommonField.queueVector) == 0xFFFF)
        driver.enable(0, rig.queue(0, size: 32, RingKind.all[0]), vector: 2)
        #expect(register(CommonField.queueEnable) == 1 && register(CommonField.queueVector) == 2)
        driver.write(driver.common, CommonField.queueSize, 2, 16)
        driver.write(driver.common, CommonField.queueDescriptors, 4, 0x1000)
        #expect(register(CommonField.queueSize) == 32)
        #expect(register(CommonField.queueDescriptors, 8) == Memory.base)
        driver.write(driver.common, CommonField.queueSelect, 2, 2)
        #expect(register(CommonField.queueSize) == 0)
        driver.write(driver.common, CommonField.queueEnable, 2, 1)
        #expect(register(CommonField.queueEnable) == 0)
        // Not one of the fields' widths.
        #expect(driver.read(driver.common, 60, 4) == 0)
    }

    @Test(arguments: RingKind.all)
    func `one queue is reset and used again while the other goes on`(_ kind: RingKind) throws {
        let rig = try FunctionRig(EchoDevice())
        var queues = try running(rig, kind)
        func request(_ index: Int) -> Bool {
            _ = queues[index].add(.init(Memory.base + UInt64(data), 4, writable: true))
            if queues[index].publish() { rig.driver.kick(index) }
            return queues[index].awaitAnswer() != nil
        }
        #expect(request(0))
        #expect(request(1))
        let driver = rig.driver
        driver.write(driver.common, CommonField.queueSelect, 2, 0)
        driver.write(driver.common, CommonField.queueReset, 2, 1)
        #expect(eventually { driver.read(driver.common, CommonField.queueReset, 2) == 0 })
        #expect(driver.read(driver.common, CommonField.queueEnable, 2) == 0)
        #expect(request(1))
        queues[0] = rig.queue(0x2_0000, size: 8, kind)
        driver.enable(0, queues[0])
        #expect(request(0))
        #expect(request(1))
        #expect(rig.log.all.isEmpty)
    }

    @Test func `a queue is reset before the device runs too`() throws {
        let rig = try FunctionRig(EchoDevice())
        let driver = rig.driver
        try driver.negotiate(RingKind.all[1].features)
        driver.enable(0, rig.queue(0, RingKind.all[1]))
        driver.write(driver.common, CommonField.queueReset, 2, 1)
        #expect(eventually { driver.read(driver.common, CommonField.queueReset, 2) == 0 })
        #expect(driver.read(driver.common, CommonField.queueSize, 2) == 64)
    }

    @Test func `garbage without end is reported once a second`() throws {
        let rig = try FunctionRig(EchoDevice())
        for _ in 0..<20 {
            try rig.driver.negotiate(RingKind.all[1].features)
            var queue = rig.queue(0, RingKind.all[1])
            rig.driver.enable(0, queue)
            rig.driver.start()
            _ = queue.added(.init(0x1000, 4), .init(Memory.base, 4, writable: true))
            if queue.publish() { rig.driver.kick(0) }
            let isStopped = eventually { rig.driver.status.contains(.deviceNeedsReset) }
            try #require(isStopped)
        }
        #expect((1...5).contains(rig.log.all.count), "\(rig.log.all)")
    }

    @Test func `a reset stops the device and it starts anew, a thousand times`() throws {
        let device = EchoDevice()
        let rig = try FunctionRig(device)
        for round in 0..<1000 {
            var queues = try running(rig, RingKind.all[round % 4])
            _ = queues[0].add(.init(Memory.base + UInt64(data), 4, writable: true))
            if queues[0].publish() { rig.driver.kick(0) }
            // Half of the resets come while the request is under way.
            if round % 2 == 0 {
                let isAnswered = queues[0].awaitAnswer() != nil
                try #require(isAnswered)
            }
        }
        rig.driver.reset()
        #expect(device.lines.all.filter { $0 == "start" }.count == device.lines.all.filter { $0 == "stop" }.count)
        #expect(rig.log.all.isEmpty)
    }

    @Test func `a reset of the function stops the device before it returns`() throws {
        let device = EchoDevice()
        let rig = try FunctionRig(device)
        for _ in 0..<50 {
            _ = try running(rig, RingKind.all[1])
            let isRunning = eventually { device.lines.all.last == "start" }
            try #require(isRunning)
            try rig.client.reset()
            #expect(device.lines.all.last == "stop")
            rig.client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: 6)
            #expect(rig.driver.status == [])
        }
    }

    @Test func `with bus mastering off the device waits, and goes on when it is on again`() throws {
        let rig = try FunctionRig(EchoDevice())
        var queues = try running(rig, RingKind.all[1])
        rig.client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: 2)
        _ = queues[0].add(.init(Memory.base + UInt64(data), 4, writable: true))
        _ = queues[0].publish()
        rig.driver.kick(0)
        #expect(rig.driver.status.contains(.driverOK) && !queues[0].hasUsed)
        rig.client.write(region: Endpoint.configurationRegion, offset: 4, width: 2, value: 6)
        let isAnswered = queues[0].awaitAnswer() != nil
        #expect(isAnswered)
        #expect(!rig.driver.status.contains(.deviceNeedsReset) && rig.log.all.isEmpty)
    }

    @Test func `the window in configuration space reaches the structures`() throws {
        let rig = try FunctionRig(EchoDevice())
        let (client, window) = (rig.client, UInt64(rig.driver.window))
        func access(_ offset: UInt64, _ length: UInt64, write value: UInt64? = nil) -> UInt64 {
            client.write(region: 7, offset: window + 4, width: 1, value: UInt64(TransportLayout.bar))
            client.write(region: 7, offset: window + 8, width: 4, value: offset)
            client.write(region: 7, offset: window + 12, width: 4, value: length)
            if let value {
                client.write(region: 7, offset: window + 16, width: Int(length), value: value)
                return 0
            }
            return client.read(region: 7, offset: window + 16, width: Int(length))
        }
        _ = access(UInt64(CommonField.deviceStatus), 1, write: 1)
        #expect(access(UInt64(CommonField.deviceStatus), 1) == 1)
        #expect(rig.driver.status == .acknowledge)
        #expect(access(UInt64(CommonField.queueCount), 2) == 2)
        // Not aligned, too long, beyond the register, another register: nothing there.
        #expect(access(1, 2) == 0 && access(0x10_0000, 4) == 0)
        client.write(region: 7, offset: window + 12, width: 4, value: 8)
        #expect(client.read(region: 7, offset: window + 16, width: 4) == 0)
    }

    @Test(arguments: RingKind.all)
    func `a garbage ring stops this device, says why, and tells the driver`(_ kind: RingKind) throws {
        let rig = try FunctionRig(EchoDevice())
        let vectors = try (0..<3).map { _ in try EventNotifier() }
        try rig.client.setInterrupts(.msix, notifiers: vectors)
        try rig.driver.negotiate(kind.features)
        var queue = rig.queue(0, kind)
        rig.driver.enable(0, queue, vector: 1)
        rig.driver.write(rig.driver.common, CommonField.configVector, 2, 0)
        let generation = rig.driver.read(rig.driver.common, CommonField.configGeneration, 1)
        rig.driver.start()
        // Nothing is mapped there.
        _ = queue.added(.init(0x1000, 4), .init(Memory.base, 4, writable: true))
        if queue.publish() { rig.driver.kick(0) }
        #expect(eventually { vectors[0].drain() })
        #expect(rig.driver.status.contains(.deviceNeedsReset))
        #expect(rig.driver.read(rig.driver.common, CommonField.configGeneration, 1) != generation)
        #expect(rig.log.all.count == 1 && rig.log.all[0].contains("needs a reset"), "\(rig.log.all)")
        // After a reset it works again.
        var queues = try running(rig, kind)
        _ = queues[1].add(.init(Memory.base + UInt64(data), 4, writable: true))
        if queues[1].publish() { rig.driver.kick(1) }
        let isAnswered = queues[1].awaitAnswer() != nil
        #expect(isAnswered)
    }
}
