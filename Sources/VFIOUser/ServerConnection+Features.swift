/// What a server does with DEVICE_FEATURE and the migration's data.
extension ServerConnection {
    /// Where a client's migration of the device stands.
    struct Migration {
        var state = MigrationState.running
        /// Of the stream: what is still to be read, and what was written.
        var outgoing: [UInt8] = []
        var taken = 0
        var incoming: [UInt8] = []
        /// Whether the stream has begun.
        var hasBegun = false
    }

    /// Which operations a feature has here; 0 for one that is not here.
    private func operations(_ feature: DeviceFeature.Index) -> UInt32 {
        switch feature {
        case .migration: device.migration == nil ? 0 : DeviceFeature.get
        case .deviceState: device.migration == nil ? 0 : DeviceFeature.get | DeviceFeature.set
        case .loggingStart, .loggingStop: DeviceFeature.set
        case .loggingReport: DeviceFeature.get
        default: 0
        }
    }

    /// Does one request; returns the size of the reply's payload, which is in place.
    func feature(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        let request = try DeviceFeature(payload)
        let supported = operations(request.feature)
        guard supported != 0, request.operations & ~DeviceFeature.probe & ~supported == 0 else { throw .notSupported }
        let data = payload.extracting(DeviceFeature.size..<payload.byteCount)
        if request.operations == DeviceFeature.get { return try get(request, data) }
        // The reply repeats the request.
        guard UInt64(request.argsz) >= UInt64(payload.byteCount) else { throw .invalid }
        var reply = unsafe MutableRawSpan(_unsafeBytes: replyPayload(payload.byteCount))
        for place in 0..<payload.byteCount {
            reply.storeBytes(of: payload.uint8(at: place), toByteOffset: place, as: UInt8.self)
        }
        if request.operations == DeviceFeature.set {
            if let pageSize = try set(request, data) {
                reply.storeBytes(of: pageSize, toByteOffset: DeviceFeature.size, as: UInt64.self)
            }
        }
        return payload.byteCount
    }

    // MARK: Get

    private func get(_ request: DeviceFeature, _ data: RawSpan) throws(ErrorNumber) -> Int {
        switch request.feature {
        case .migration:
            let preCopy = device.migration?.savesWhileRunning == true
            return answer(request, MigrationFlags.size) { reply in
                reply.storeBytes(
                    of: MigrationFlags.stopCopy | (preCopy ? MigrationFlags.preCopy : 0), toByteOffset: 8,
                    as: UInt64.self)
            }
        case .deviceState:
            let state = migration.state.rawValue
            return answer(request, 8) { reply in
                reply.storeBytes(of: state, toByteOffset: 8, as: UInt32.self)
                // No descriptor: the data travels in messages.
                reply.storeBytes(of: -1, toByteOffset: 12, as: Int32.self)
            }
        case .loggingReport:
            let report = try DMALoggingReport(data)
            guard let log = device.dma.log else { throw .invalid }
            let most = UInt64(MessageLink.maximumMessage - MessageHeader.size - DeviceFeature.size)
            guard report.words <= (most - UInt64(DMALoggingReport.size)) / 8 else { throw .tooBig }
            let words = Int(report.words)
            return answer(request, DMALoggingReport.size + words * 8) { reply in
                report.encode(into: &reply, at: DeviceFeature.size)
                let start = DeviceFeature.size + DMALoggingReport.size
                var bitmap = [UInt64](repeating: 0, count: words)
                log.take(
                    address: report.address, length: report.length,
                    shift: UInt64(report.pageSize.trailingZeroBitCount)
                ) { page in bitmap[Int(page >> 6)] |= 1 << (page & 63) }
                for (number, word) in bitmap.enumerated() {
                    reply.storeBytes(of: word, toByteOffset: start + number * 8, as: UInt64.self)
                }
            }
        default: throw .notSupported
        }
    }

    /// A reply with so many bytes of data, or, where the client has no room for them, one that says how many there are.
    private func answer(_ request: DeviceFeature, _ count: Int, _ fill: (inout MutableRawSpan) -> Void) -> Int {
        var head = request
        head.argsz = UInt32(DeviceFeature.size + count)
        let fits = head.argsz <= request.argsz
        let size = fits ? DeviceFeature.size + count : DeviceFeature.size
        var reply = unsafe MutableRawSpan(_unsafeBytes: replyPayload(size))
        head.encode(into: &reply)
        if fits { fill(&reply) }
        return size
    }

    // MARK: Set

    /// Returns what the reply's page size shall be, if it has one.
    private func set(_ request: DeviceFeature, _ data: RawSpan) throws(ErrorNumber) -> UInt64? {
        switch request.feature {
        case .deviceState:
            guard data.byteCount == 8, let target = MigrationState(rawValue: data.uint32(at: 0)) else {
                throw .invalid
            }
            try move(to: target)
            return nil
        case .loggingStart:
            let control = try DMALoggingControl(data)
            guard device.dma.log == nil else { throw .invalid }
            device.dma.log = DirtyLog(ranges: control.ranges)
            return max(control.pageSize, DirtyLog.pageSize)
        case .loggingStop:
            // The control structure that START has may come along, as libvfio-user's client sends it.
            device.dma.log = nil
            return nil
        default: throw .notSupported
        }
    }

    private func move(to target: MigrationState) throws(ErrorNumber) {
        guard let device = device.migration,
            let path = migration.state.path(to: target, preCopy: device.savesWhileRunning)
        else { throw .invalid }
        for step in path { try take(step, device) }
    }

    /// One step. When it fails the device is where it was, or, after a state that it could not take, in `error`.
    private func take(_ step: MigrationState, _ hooks: any DeviceMigration) throws(ErrorNumber) {
        switch (migration.state, step) {
        case (.running, .stop):
            try hooks.stop()
            device.dma.drain()
        case (.stop, .running): try hooks.resume()
        case (.running, .preCopy):
            migration.outgoing = MigrationStream.encoded(try hooks.save(), .running, isFirst: true)
            migration.taken = 0
            migration.hasBegun = true
        case (.preCopy, .stopCopy):
            try hooks.stop()
            device.dma.drain()
            try beginSaving(hooks)
        case (.stop, .stopCopy): try beginSaving(hooks)
        case (.resuming, .stop):
            let incoming = migration.incoming
            migration = Migration(state: .error)
            let states = try MigrationStream.states(incoming, maximum: hooks.maximumStateSize)
            for (kind, state) in states { try hooks.restore(state, isFinal: kind == .stopped) }
        default: break
        }
        if !step.isSaving {
            // Whatever stream there was ends here.
            migration = Migration()
        }
        migration.state = step
    }

    private func beginSaving(_ hooks: any DeviceMigration) throws(ErrorNumber) {
        let state = MigrationStream.encoded(try hooks.save(), .stopped, isFirst: !migration.hasBegun)
        migration.outgoing = Array(migration.outgoing[migration.taken...]) + state
        migration.taken = 0
        migration.hasBegun = true
    }

    /// After a reset of the device: it runs.
    func endMigration() {
        let state = migration.state
        migration = Migration()
        guard state != .running, state != .preCopy else { return }
        try? device.migration?.resume()
    }

    // MARK: Data

    func readMigrationData(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        guard device.migration != nil else { throw .notSupported }
        let request = try MigrationData(read: payload)
        guard migration.state.isSaving, Int(request.count) <= Capabilities.defaultTransfer else { throw .invalid }
        let count = min(Int(request.count), migration.outgoing.count - migration.taken)
        let size = MigrationData.size + count
        var reply = unsafe MutableRawSpan(_unsafeBytes: replyPayload(size))
        MigrationData(argsz: UInt32(size), count: UInt32(count)).encode(into: &reply)
        for place in 0..<count {
            reply.storeBytes(
                of: migration.outgoing[migration.taken + place], toByteOffset: MigrationData.size + place,
                as: UInt8.self)
        }
        migration.taken += count
        return size
    }

    func writeMigrationData(_ payload: RawSpan) throws(ErrorNumber) -> Int {
        guard let hooks = device.migration else { throw .notSupported }
        let request = try MigrationData(withData: payload)
        guard migration.state == .resuming else { throw .invalid }
        // One state of the running device, one of the stopped one, and what stands before them.
        let (most, overflow) = hooks.maximumStateSize.multipliedReportingOverflow(by: 2)
        let limit = overflow || most > 1 << 40 ? 1 << 40 : max(0, most) + 64
        guard Int(request.count) <= limit - migration.incoming.count else { throw .noSpace }
        for place in MigrationData.size..<payload.byteCount {
            migration.incoming.append(payload.uint8(at: place))
        }
        return 0
    }
}
