import Synchronization
import Testing
import VFIOUser
import Wire

/// DEVICE_FEATURE: migration of a device's state, and the log of pages it writes.
struct FeatureTests {
    private let base: UInt64 = 0x8000_0000

    // MARK: Bytes

    @Test func `DEVICE_FEATURE is 8 bytes and its data`() throws {
        let feature = DeviceFeature(.deviceState, operations: DeviceFeature.set, argsz: 16)
        let wire = bytes([u32(16), u32(0x2_0002)])
        #expect(encoded(8) { feature.encode(into: &$0) } == wire)
        #expect(try DeviceFeature(wire.span.bytes) == feature)
    }

    @Test func `DMA_LOGGING_START is 16 bytes and its ranges`() throws {
        let control = DMALoggingControl(pageSize: 4096, ranges: [0x1000...0x2FFF, 0...0xFFF])
        let wire = bytes([u64(4096), u32(2), u32(0), u64(0x1000), u64(0x2000), u64(0), u64(0x1000)])
        #expect(encoded(control.size) { control.encode(into: &$0) } == wire)
        #expect(try DMALoggingControl(wire.span.bytes) == control)
    }

    @Test(arguments: [
        bytes([u64(4096), u32(1), u32(0), u64(0)]), bytes([u64(4096), u32(0)]),
        bytes([u64(4096), u32(1), u32(0), u64(0), u64(0)]), bytes([u64(4096), u32(1), u32(0), u64(.max), u64(2)]),
        bytes([u64(0), u32(0), u32(0)]), bytes([u64(4097), u32(0), u32(0)]),
        bytes([u64(4096), u32(2), u32(0), u64(0), u64(0x1001), u64(0x1000), u64(1)]),
        bytes([u64(4096), u32(0), u32(0), u64(0)]),
    ]) func `a malformed DMA_LOGGING_START is EINVAL`(wire: [UInt8]) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DMALoggingControl(raw) } == .invalid)
    }

    @Test func `more ranges than the bound are E2BIG`() {
        let wire = bytes([u64(4096), u32(.max), u32(0)])
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DMALoggingControl(raw) } == .tooBig)
    }

    @Test func `DMA_LOGGING_REPORT is 24 bytes and its bitmap`() throws {
        let report = DMALoggingReport(address: 0x1000, length: 0x41000, pageSize: 4096)
        let wire = bytes([u64(0x1000), u64(0x41000), u64(4096)])
        #expect(encoded(24) { report.encode(into: &$0) } == wire)
        #expect(try DMALoggingReport(wire.span.bytes) == report)
        #expect(report.words == 2)
        #expect(DMALoggingReport(address: 0, length: 0x40000, pageSize: 4096).words == 1)
        #expect(DMALoggingReport(address: 0, length: .max, pageSize: 1).words == 1 << 58)
        #expect(DMALoggingReport(address: 0, length: .max, pageSize: 1 << 63).words == 1)
    }

    @Test(arguments: [
        bytes([u64(0), u64(1), u32(4096)]), bytes([u64(0), u64(0), u64(4096)]), bytes([u64(2), u64(.max), u64(4096)]),
        bytes([u64(0), u64(1), u64(0)]), bytes([u64(0), u64(1), u64(3)]),
    ]) func `a malformed DMA_LOGGING_REPORT is EINVAL`(wire: [UInt8]) {
        #expect(refusal(wire) { (raw) throws(ErrorNumber) in _ = try DMALoggingReport(raw) } == .invalid)
    }

    @Test func `migration data is 8 bytes and the data`() throws {
        let data = MigrationData(argsz: 10, count: 2)
        let wire = bytes([u32(10), u32(2)])
        #expect(encoded(8) { data.encode(into: &$0) } == wire)
        #expect(try MigrationData(read: wire.span.bytes) == data)
        #expect(try MigrationData(withData: (wire + [1, 2]).span.bytes) == data)
        for bad in [wire + [1], Array(wire[..<7]), bytes([u32(9), u32(2)]), bytes([u32(7), u32(.max)])] {
            #expect(refusal(bad) { (raw) throws(ErrorNumber) in _ = try MigrationData(read: raw) } == .invalid)
        }
        for bad in [wire + [1], Array(wire[..<7]), bytes([u32(9), u32(.max)])] {
            #expect(refusal(bad) { (raw) throws(ErrorNumber) in _ = try MigrationData(withData: raw) } == .invalid)
        }
    }

    @Test func `a reply of migration data may be padded, not short`() throws {
        let wire = bytes([u32(10), u32(2)])
        for padding in [0, 1, 100] {
            let padded = wire + [1, 2] + [UInt8](repeating: 0, count: padding)
            #expect(try MigrationData(reply: padded.span.bytes).count == 2)
        }
        #expect(refusal(wire + [1]) { (raw) throws(ErrorNumber) in _ = try MigrationData(reply: raw) } == .invalid)
        #expect(refusal(wire[..<7]) { (raw) throws(ErrorNumber) in _ = try MigrationData(reply: raw) } == .invalid)
        let client = try VFIOUserClient(
            socket: scripted { peer, header in
                guard header.command == .migrationDataRead else { return false }
                try peer.send(header.reply(payload: 16), wire + [5, 6, 0, 0, 0, 0, 0, 0])
                return true
            })
        #expect(try client.readMigrationData() == [5, 6])
    }

    // MARK: States

    @Test(
        arguments: [
            (.running, .running, []), (.running, .stop, [.stop]), (.running, .stopCopy, [.stop, .stopCopy]),
            (.running, .preCopy, [.preCopy]), (.running, .resuming, [.stop, .resuming]),
            (.preCopy, .stopCopy, [.stopCopy]), (.preCopy, .stop, [.running, .stop]), (.preCopy, .running, [.running]),
            (.preCopy, .resuming, [.running, .stop, .resuming]), (.stopCopy, .running, [.stop, .running]),
            (.stopCopy, .resuming, [.stop, .resuming]), (.stopCopy, .preCopy, nil),
            (.stop, .preCopy, [.running, .preCopy]),
            (.resuming, .preCopy, [.stop, .running, .preCopy]), (.resuming, .stopCopy, [.stop, .stopCopy]),
            (.running, .error, nil), (.error, .running, nil), (.error, .error, nil),
            (.running, .runningPeerToPeer, nil),
            (.preCopyPeerToPeer, .running, nil),
        ] as [(MigrationState, MigrationState, [MigrationState]?)])
    func `the way from state to state is the shortest one without saving states on it`(
        from: MigrationState, to: MigrationState, path: [MigrationState]?
    ) {
        #expect(from.path(to: to, preCopy: true) == path)
    }

    @Test func `without PRE_COPY no way leads there or through it`() {
        for from in MigrationState.allCases where from != .preCopy {
            #expect(from.path(to: .preCopy, preCopy: false) == nil)
            for to in MigrationState.allCases {
                #expect(from.path(to: to, preCopy: false)?.contains(.preCopy) != true)
            }
        }
    }

    // MARK: Migration over the wire

    @Test func `a device without state hooks has no migration but logs`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        #expect(!client.hasFeature(.migration) && !client.hasFeature(.deviceState, operations: DeviceFeature.get))
        #expect(throws: VFIOUserError.refused(.deviceFeature, .notSupported)) { try client.migrationFlags() }
        #expect(throws: VFIOUserError.refused(.migrationDataRead, .notSupported)) { try client.readMigrationData() }
        #expect(throws: VFIOUserError.refused(.migrationDataWrite, .notSupported)) {
            try client.writeMigrationData([1])
        }
        #expect(client.hasFeature(.loggingStart, operations: DeviceFeature.set))
        #expect(client.hasFeature(.loggingReport, operations: DeviceFeature.get))
        #expect(!client.hasFeature(.loggingReport, operations: DeviceFeature.set))
        #expect(!client.hasFeature(.loggingStop, operations: DeviceFeature.get | DeviceFeature.set))
        #expect(!client.hasFeature(DeviceFeature.Index(rawValue: 3)))
    }

    private func migratable(preCopy: Bool = false) throws -> (ServedDevice, ScratchMigration) {
        let served = try ServedDevice()
        let migration = ScratchMigration(served.device, savesWhileRunning: preCopy)
        served.device.hooks.withLock { $0 = migration }
        return (served, migration)
    }

    @Test(arguments: [false, true]) func `a device's state goes to another device`(preCopy: Bool) throws {
        let (source, hooks) = try migratable(preCopy: preCopy)
        let client = try source.client()
        #expect(try client.migrationFlags() == (preCopy ? 5 : 1))
        #expect(try client.migrationState() == .running)
        client.write(region: 0, offset: 0, width: 8, value: 0x1122_3344_5566_7788)
        var stream: [UInt8] = []
        if preCopy {
            try client.setMigrationState(.preCopy)
            #expect(!hooks.isStopped)
            stream += try client.readMigrationData()
            #expect(stream.count > 4096)
            #expect(try client.readMigrationData().isEmpty)
        }
        client.write(region: 0, offset: 8, width: 4, value: 77)
        try client.setMigrationState(.stopCopy)
        #expect(hooks.isStopped)
        #expect(try client.migrationState() == .stopCopy)
        stream += try client.readMigrationData()

        let (target, targetHooks) = try migratable(preCopy: preCopy)
        let other = try target.client()
        try other.setMigrationState(.resuming)
        #expect(targetHooks.isStopped)
        for part in stride(from: 0, to: stream.count, by: 1000) {
            try other.writeMigrationData(Array(stream[part..<min(part + 1000, stream.count)]))
        }
        try other.setMigrationState(.running)
        #expect(!targetHooks.isStopped)
        #expect(targetHooks.restores == (preCopy ? [false, true] : [true]))
        #expect(other.read(region: 0, offset: 0, width: 8) == 0x1122_3344_5566_7788)
        #expect(other.read(region: 0, offset: 8, width: 4) == 77)
    }

    @Test(arguments: [
        [], [1, 2, 3], bytes([u32(0x534D_4242)]), bytes([u32(0x534D_4242), u32(2), u32(5), u32(0)]),
        bytes([u32(0x534D_4242), u32(3), u32(0)]), bytes([u32(0x534D_4242), u32(1), u32(0)]),
        bytes([u32(0x534D_4243), u32(2), u32(0)]), bytes([u32(0x534D_4242), u32(2), u32(.max)]),
        bytes([u32(0x534D_4242), u32(2), u32(0), u32(2), u32(0)]),
    ]) func `a stream that is none is refused, and a reset leads out of the error`(stream: [UInt8]) throws {
        let (served, hooks) = try migratable()
        let client = try served.client()
        try client.setMigrationState(.resuming)
        try client.writeMigrationData(stream)
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.setMigrationState(.running) }
        #expect(try client.migrationState() == .error)
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.setMigrationState(.running) }
        try client.reset()
        #expect(try client.migrationState() == .running)
        #expect(!hooks.isStopped)
    }

    @Test func `migration data is refused in other states, beyond the bound and beyond a message`() throws {
        let (served, _) = try migratable()
        let client = try served.client()
        #expect(throws: VFIOUserError.refused(.migrationDataRead, .invalid)) { try client.readMigrationData() }
        #expect(throws: VFIOUserError.refused(.migrationDataWrite, .invalid)) { try client.writeMigrationData([1]) }
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) {
            try client.setMigrationState(.runningPeerToPeer)
        }
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.setMigrationState(.preCopy) }
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.setMigrationState(.error) }
        try client.setMigrationState(.resuming)
        #expect(throws: VFIOUserError.refused(.migrationDataWrite, .noSpace)) {
            try client.writeMigrationData([UInt8](repeating: 0, count: 1 << 20))
        }
        #expect(!client.isGone)
    }

    @Test func `a client that leaves in the middle of a migration leaves a running device`() throws {
        let (served, hooks) = try migratable()
        let client = try served.client()
        try client.setMigrationState(.stopCopy)
        #expect(hooks.isStopped)
        client.close()
        #expect(eventually { served.ended.load(ordering: .acquiring) })
        #expect(!hooks.isStopped)
    }

    // MARK: Feature messages as bytes

    @Test func `a GET without room for the data says how much it needs`() throws {
        let (served, _) = try migratable()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.deviceFeature, bytes([u32(8), u32(0x1_0001)]))
        #expect(try peer.reply().payload == bytes([u32(16), u32(0x1_0001)]))
        try peer.command(.deviceFeature, bytes([u32(16), u32(0x1_0001)]))
        #expect(try peer.reply().payload == bytes([u32(16), u32(0x1_0001), u64(1)]))
        try peer.command(.deviceFeature, bytes([u32(100), u32(0x1_0002)]))
        #expect(try peer.reply().payload == bytes([u32(16), u32(0x1_0002), u32(2), u32(.max)]))
    }

    @Test(
        arguments: [
            (bytes([u32(15), u32(0x2_0002), u32(1), u32(0)]), ErrorNumber.invalid),
            (bytes([u32(16), u32(0x2_0002), u32(8), u32(0)]), .invalid), (bytes([u32(12), u32(0x2_0002)]), .invalid),
            (bytes([u32(16), u32(0x3_0002), u32(1), u32(0)]), .invalid),
            (bytes([u32(8), u32(0x6_0001)]), .notSupported),
            (bytes([u32(8), u32(0x1_0009)]), .notSupported), (bytes([u32(64), u32(0x1_0008)]), .invalid),
            (bytes([u32(64), u32(0x1_0008), u64(0), u64(4096), u64(4096)]), .invalid),
            (bytes([u32(8), u32(0x2_0006)]), .invalid),
        ] as [([UInt8], ErrorNumber)])
    func `a feature request that cannot be done is refused and the link stays`(
        payload: [UInt8], error: ErrorNumber
    ) throws {
        let (served, _) = try migratable()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.deviceFeature, payload)
        #expect(try peer.reply().header.refusal == error)
        try peer.command(.deviceFeature, bytes([u32(8), u32(0x7_0002)]))
        #expect(try peer.reply().payload == bytes([u32(8), u32(0x7_0002)]))
    }

    @Test(
        arguments: [
            (17, bytes([u32(16), u32(9)])), (17, bytes([u32(8)])), (17, bytes([u32(.max), u32((1 << 20) + 1)])),
            (18, bytes([u32(8), u32(1)])), (18, [1]),
        ] as [(UInt16, [UInt8])])
    func `malformed migration data is refused in any state`(number: UInt16, payload: [UInt8]) throws {
        let (served, _) = try migratable()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        for state in [3, 4] as [UInt32] {
            try peer.command(.deviceFeature, bytes([u32(16), u32(0x2_0002), u32(state), u32(0)]))
            #expect(try peer.reply().header.refusal == nil)
            try peer.command(VFIOUserCommand(rawValue: number), payload)
            #expect(try peer.reply().header.refusal == .invalid)
        }
    }

    // MARK: Logging

    @Test func `every write marks its pages, and a report clears them`() throws {
        let served = try ServedDevice()
        let memory = ScratchMemory(base: 0x10_0000, count: 0x10000)
        let client = try served.client(memory: memory)
        let ram = try SharedMemory(create: "ram", size: 1 << 20)
        try client.mapDMA(address: IOVirtualAddress(base), length: 1 << 20, descriptor: ram.descriptor)
        try client.mapDMA(address: IOVirtualAddress(0x10_0000), length: 0x10000, descriptor: nil)
        let dma = served.device.dma
        try dma.store(UInt32(1), at: IOVirtualAddress(base))
        #expect(try client.startDMALogging() == 4096)
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 1 << 20).allSatisfy { $0 == 0 })
        try dma.store(UInt32(1), at: IOVirtualAddress(base + 0x1FFC))
        try dma.write([1, 2, 3], at: IOVirtualAddress(base + 0x4FFE))
        _ = try dma.load(UInt32.self, at: IOVirtualAddress(base + 0x8000))
        try dma.store(UInt8(1), at: IOVirtualAddress(0x10_3000))
        try dma.hold { (held) throws(DMAError) in
            try held.store(UInt64(5), at: IOVirtualAddress(base + 0x40_000))
            try held.store(UInt64(5), at: IOVirtualAddress(base + 0x41_000))
            #expect(held.pointer(at: IOVirtualAddress(base + 0x42_800), count: 0x1000, writing: true) != nil)
            #expect(held.pointer(at: IOVirtualAddress(base + 0x50_000), count: 0x1000, writing: false) != nil)
        }
        let all = try client.dirtyPages(address: IOVirtualAddress(base), length: 1 << 20)
        #expect(all == [0b110010, 0b1111, 0, 0])
        #expect(try client.dirtyPages(address: IOVirtualAddress(0x10_0000), length: 0x10000) == [0b1000])
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 1 << 20) == [0, 0, 0, 0])
        try client.stopDMALogging()
        try client.startDMALogging()
        try client.stopDMALogging()
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) {
            try client.dirtyPages(address: IOVirtualAddress(base), length: 4096)
        }
    }

    @Test func `an unmap says which pages of its range were written, and takes the range back`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 20)
        let address = IOVirtualAddress(base)
        try client.mapDMA(address: address, length: 1 << 20, descriptor: ram.descriptor)
        // Nobody logs: nothing can be told, and nothing is taken back.
        #expect(throws: VFIOUserError.refused(.dmaUnmap, .invalid)) {
            try client.unmapDMA(address: address, length: 1 << 20, dirtyPageSize: 4096)
        }
        let dma = served.device.dma
        try dma.store(UInt8(1), at: address)
        try client.startDMALogging()
        try dma.store(UInt8(1), at: IOVirtualAddress(base + 0x3000))
        try dma.store(UInt8(1), at: IOVirtualAddress(base + 0xF_F000))
        // No map of exactly this range.
        #expect(throws: VFIOUserError.refused(.dmaUnmap, .noEntry)) {
            try client.unmapDMA(address: address, length: 1 << 19, dirtyPageSize: 4096)
        }
        let pages = try client.unmapDMA(address: address, length: 1 << 20, dirtyPageSize: 4096)
        #expect(pages == [0b1000, 0, 0, 1 << 63])
        #expect(throws: DMAError.self) { try dma.store(UInt8(1), at: address) }
        #expect(try client.dirtyPages(address: address, length: 1 << 20) == [0, 0, 0, 0])
        // Pages of another size, and the range again.
        try client.mapDMA(address: address, length: 1 << 20, descriptor: ram.descriptor)
        try dma.store(UInt8(1), at: IOVirtualAddress(base + 0x3000))
        #expect(try client.unmapDMA(address: address, length: 1 << 20, dirtyPageSize: 1 << 19) == [1])
    }

    @Test func `a report has bits of the page size asked for, larger or smaller than the log's`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 20)
        try client.mapDMA(address: IOVirtualAddress(base), length: 1 << 20, descriptor: ram.descriptor)
        #expect(try client.startDMALogging(pageSize: 1 << 21) == 1 << 21)
        #expect(throws: VFIOUserError.refused(.deviceFeature, .invalid)) { try client.startDMALogging() }
        let dma = served.device.dma
        func write() throws { try dma.store(UInt8(1), at: IOVirtualAddress(base + 0x5123)) }
        try write()
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 1 << 20, pageSize: 1 << 16) == [1])
        try write()
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 0x8000, pageSize: 2048) == [0b1100 << 8])
        try write()
        // A range that begins and ends inside the page.
        #expect(try client.dirtyPages(address: IOVirtualAddress(base + 0x5100), length: 0x200, pageSize: 256) == [3])
    }

    @Test func `only the ranges asked for are logged, and no range is all`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 1 << 20)
        try client.mapDMA(address: IOVirtualAddress(base), length: 1 << 20, descriptor: ram.descriptor)
        try client.startDMALogging(ranges: [base + 0x8000...base + 0x9FFF, base...base + 0xFFF])
        let dma = served.device.dma
        for page in 0..<16 as Range<UInt64> { try dma.store(UInt8(1), at: IOVirtualAddress(base + page << 12)) }
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 0x10000) == [0b11_0000_0001])
        // The log outlives an unmap.
        try dma.store(UInt8(1), at: IOVirtualAddress(base))
        try client.unmapAllDMA()
        #expect(try client.dirtyPages(address: IOVirtualAddress(base), length: 0x10000) == [1])
    }

    @Test func `a report that no message holds is E2BIG, and the client asks in parts`() throws {
        let served = try ServedDevice()
        let peer = RawPeer(served.socket)
        try peer.negotiate()
        try peer.command(.deviceFeature, bytes([u32(24), u32(0x2_0006), u64(4096), u32(0), u32(0)]))
        #expect(try peer.reply().payload == bytes([u32(24), u32(0x2_0006), u64(4096), u32(0), u32(0)]))
        try peer.command(.deviceFeature, bytes([u32(.max), u32(0x1_0008), u64(0), u64(1 << 60), u64(4096)]))
        #expect(try peer.reply().header.refusal == .tooBig)
        // STOP may repeat START's data.
        let stop = bytes([u32(24), u32(0x2_0007), u64(4096), u32(0), u32(0)])
        try peer.command(.deviceFeature, stop)
        #expect(try peer.reply().payload == stop)
        try peer.command(.deviceFeature, bytes([u32(64), u32(0x1_0008), u64(0), u64(4096), u64(4096)]))
        #expect(try peer.reply().header.refusal == .invalid)

        let other = try ServedDevice()
        let client = try other.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        let last = base + (3 << 20) * 8 - 1
        try client.mapDMA(address: IOVirtualAddress(last), length: 1, descriptor: ram.descriptor)
        try client.startDMALogging()
        try other.device.dma.store(UInt8(1), at: IOVirtualAddress(last))
        let words = try client.dirtyPages(address: IOVirtualAddress(base), length: (3 << 20) * 8, pageSize: 1)
        #expect(words.count == 3 << 17)
        #expect(words.last == .max && words.dropLast(64).allSatisfy { $0 == 0 })
    }

    @Test func `a log that grows beyond its bound says that everything was written`() throws {
        let served = try ServedDevice()
        let client = try served.client()
        let ram = try SharedMemory(create: "ram", size: 4096)
        try client.startDMALogging()
        let step: UInt64 = 1 << 28
        for number in 0..<2100 as Range<UInt64> {
            let address = number * step
            try client.mapDMA(address: IOVirtualAddress(address), length: 4096, descriptor: ram.descriptor)
            try served.device.dma.store(UInt8(1), at: IOVirtualAddress(address))
        }
        #expect(try client.dirtyPages(address: IOVirtualAddress(0x1000), length: 0x3000) == [0b111])
    }
}

/// The hooks of a `ScratchDevice`: its registers are its state.
final class ScratchMigration: DeviceMigration {
    private let device: ScratchDevice
    let savesWhileRunning: Bool
    private let state = Mutex((isStopped: false, restores: [Bool]()))

    init(_ device: ScratchDevice, savesWhileRunning: Bool) {
        self.device = device
        self.savesWhileRunning = savesWhileRunning
    }

    var maximumStateSize: Int { 4096 }
    var isStopped: Bool { state.withLock { $0.isStopped } }
    var restores: [Bool] { state.withLock { $0.restores } }
    func stop() { state.withLock { $0.isStopped = true } }
    func resume() { state.withLock { $0.isStopped = false } }
    func save() -> [UInt8] { device.registers.withLock { $0 } }
    func restore(_ bytes: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        guard bytes.count == 4096 else { throw .invalid }
        state.withLock { $0.restores.append(isFinal) }
        device.registers.withLock { $0 = bytes }
    }
}
