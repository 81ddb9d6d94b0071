/// The device's features: migration of its state, and the log of pages that it writes.
extension VFIOUserClient {
    /// Whether the server has a feature with all of these operations (`DeviceFeature.get`, `.set`).
    public func hasFeature(_ feature: DeviceFeature.Index, operations: UInt32 = 0) -> Bool {
        (try? change(feature, DeviceFeature.probe | operations, [])) != nil
    }

    /// Sends a set or probe; returns the reply's data.
    @discardableResult
    private func change(
        _ feature: DeviceFeature.Index, _ operations: UInt32, _ data: [UInt8]
    ) throws(VFIOUserError) -> [UInt8] {
        let size = DeviceFeature.size + data.count
        let head = DeviceFeature(feature, operations: operations, argsz: UInt32(size))
        let (reply, _) = try transport.ask(
            .deviceFeature, Self.payload(DeviceFeature.size) { head.encode(into: &$0) } + data)
        // Safety: bytes have no padding.
        guard reply.count == size, let echo = try? DeviceFeature(unsafe reply.span.bytes), echo.flags == head.flags
        else { throw transport.fail("its DEVICE_FEATURE reply does not repeat the request") }
        return Array(reply[DeviceFeature.size...])
    }

    /// Sends a get; returns exactly `count` bytes of the reply's data.
    private func get(
        _ feature: DeviceFeature.Index, _ data: [UInt8] = [], count: Int
    ) throws(VFIOUserError) -> [UInt8] {
        let size = DeviceFeature.size + count
        let head = DeviceFeature(feature, operations: DeviceFeature.get, argsz: UInt32(size))
        let (reply, _) = try transport.ask(
            .deviceFeature, Self.payload(DeviceFeature.size) { head.encode(into: &$0) } + data)
        // Safety: bytes have no padding.
        guard reply.count == size, let echo = try? DeviceFeature(unsafe reply.span.bytes), echo.flags == head.flags
        else { throw transport.fail("its DEVICE_FEATURE reply has \(reply.count) bytes instead of \(size)") }
        return Array(reply[DeviceFeature.size...])
    }

    // MARK: Migration

    /// Which states the device has: `MigrationFlags`. Refused by a server whose device cannot migrate.
    public func migrationFlags() throws(VFIOUserError) -> UInt64 {
        let reply = try get(.migration, count: MigrationFlags.size)
        // Safety: eight bytes, by `get`.
        return unsafe reply.span.bytes.uint64(at: 0)
    }

    /// Where the device's migration stands.
    public func migrationState() throws(VFIOUserError) -> MigrationState {
        let reply = try get(.deviceState, count: 8)
        // Safety: eight bytes, by `get`.
        let number = unsafe reply.span.bytes.uint32(at: 0)
        guard let state = MigrationState(rawValue: number) else {
            throw transport.fail("its migration state \(number) is none")
        }
        return state
    }

    /// Moves the device's migration to a state; returns when it is there. Refused, it may have stopped on the way.
    public func setMigrationState(_ state: MigrationState) throws(VFIOUserError) {
        try change(
            .deviceState, DeviceFeature.set,
            Self.payload(8) { data in
                data.storeBytes(of: state.rawValue, toByteOffset: 0, as: UInt32.self)
                data.storeBytes(of: -1, toByteOffset: 4, as: Int32.self)
            })
    }

    /// Reads the device's state in a saving state until there is no more, at most `limit` bytes: more make the server
    /// `gone`. In `preCopy` there may be more later.
    public func readMigrationData(limit: Int = 1 << 30) throws(VFIOUserError) -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let count = transport.transferLimit
            let request = MigrationData(argsz: UInt32(MigrationData.size + count), count: UInt32(count))
            let (reply, _) = try transport.ask(
                .migrationDataRead, Self.payload(MigrationData.size) { request.encode(into: &$0) })
            // Safety: bytes have no padding.
            guard let data = try? MigrationData(reply: unsafe reply.span.bytes), Int(data.count) <= count,
                Int(data.count) <= limit - all.count
            else { throw transport.fail("its MIG_DATA_READ reply is malformed or too long") }
            all += reply[MigrationData.size..<MigrationData.size + Int(data.count)]
            if Int(data.count) < count { return all }
        }
    }

    /// Gives a device that is `resuming` its state, in as many messages as it takes.
    public func writeMigrationData(_ bytes: [UInt8]) throws(VFIOUserError) {
        var done = 0
        while done < bytes.count {
            let count = min(bytes.count - done, transport.transferLimit)
            let head = MigrationData(argsz: UInt32(MigrationData.size + count), count: UInt32(count))
            _ = try transport.ask(
                .migrationDataWrite,
                Self.payload(MigrationData.size) { head.encode(into: &$0) } + bytes[done..<done + count])
            done += count
        }
    }

    // MARK: Logging

    /// Records from now on which pages the device writes, in some ranges or in all memory. Returns the page size that
    /// the server chose.
    @discardableResult
    public func startDMALogging(
        pageSize: UInt64 = 4096, ranges: [ClosedRange<UInt64>] = []
    ) throws(VFIOUserError) -> UInt64 {
        let control = DMALoggingControl(pageSize: pageSize, ranges: ranges)
        let reply = try change(
            .loggingStart, DeviceFeature.set, Self.payload(control.size) { control.encode(into: &$0) })
        // Safety: as long as the request, by `change`.
        return unsafe reply.span.bytes.uint64(at: 0)
    }

    public func stopDMALogging() throws(VFIOUserError) { try change(.loggingStop, DeviceFeature.set, []) }

    /// The pages that the device wrote in a range since the last report: bit n of the words is the nth page.
    ///
    /// Precondition: the page size is a power of two, the range is not empty and does not wrap.
    public func dirtyPages(
        address: IOVirtualAddress, length: UInt64, pageSize: UInt64 = 4096
    ) throws(VFIOUserError) -> [UInt64] {
        precondition(pageSize.nonzeroBitCount == 1 && length > 0, "pages of a power of two")
        var all: [UInt64] = []
        // As many whole words as one message carries: every server takes so much.
        let most = UInt64(max(0, transport.transferLimit - DMALoggingReport.size - DeviceFeature.size)) / 8
        let (span, overflow) = max(1, most).multipliedReportingOverflow(by: 64 &* pageSize)
        let step = overflow || pageSize > 1 << 58 ? UInt64.max : span
        var done: UInt64 = 0
        while done < length {
            let count = min(length - done, step)
            let report = DMALoggingReport(address: address.rawValue &+ done, length: count, pageSize: pageSize)
            let size = DMALoggingReport.size + Int(report.words) * 8
            let reply = try get(
                .loggingReport, Self.payload(DMALoggingReport.size) { report.encode(into: &$0) }, count: size)
            // Safety: `size` bytes, by `get`.
            let span = unsafe reply.span.bytes
            for word in 0..<Int(report.words) { all.append(span.uint64(at: DMALoggingReport.size + word * 8)) }
            done += count
        }
        return all
    }
}
