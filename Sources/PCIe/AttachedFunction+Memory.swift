internal import Synchronization
internal import VFIOUser
internal import Wire

// Accesses to a function's windows of memory and I/O space.

extension AttachedFunction {
    /// Where each base address register decodes now.
    func decodedRanges() -> [(bar: BAR, range: ClosedRange<UInt64>)] {
        state.withLock { state in
            guard !state.isAsleep else { return [] }
            let command = state.space.get16(ConfigurationRegister.command)
            return bars.compactMap { bar in
                let profile = bar.profile
                guard command & (profile.isIO ? CommandBits.io : CommandBits.memory) != 0 else { return nil }
                let base: UInt64
                if profile.isROM {
                    let register = state.space.get32(ConfigurationRegister.romAddress)
                    guard register & BaseAddressBits.romEnable != 0 else { return nil }
                    base = UInt64(register & ~0x7FF)
                } else if profile.isIO {
                    let register = state.space.get32(ConfigurationRegister.baseAddress0 + profile.index * 4)
                    base = UInt64(register & ~BaseAddressBits.ioFlags)
                } else {
                    base = state.space.baseAddress(profile.index, is64Bit: profile.is64Bit)
                }
                // An unassigned register holds zero and decodes nothing.
                guard base != 0, !base.addingReportingOverflow(profile.size - 1).overflow else { return nil }
                return (bar, base...(base + (profile.size - 1)))
            }
        }
    }

    /// Reads 1, 2, 4 or 8 bytes of a base address register's window; all ones when the device is gone.
    func readMemory(_ bar: BAR, _ offset: UInt64, width: Int) -> UInt64 {
        if let value = readVectors(bar.profile.index, offset, width: width) { return value }
        let ones: UInt64 = width == 8 ? .max : (1 << UInt64(width * 8)) - 1
        if let window = mapped(bar, offset, width) {
            // Safety: the range lies inside the mapping.
            let bytes = unsafe UnsafeRawBufferPointer(
                start: window.memory.baseAddress + Int(offset - window.offset), count: width)
            let value = unsafe RawSpan(_unsafeBytes: bytes).littleEndianValue
            lowerINTx(unmask: true)
            return value
        }
        guard offset <= bar.profile.length, UInt64(width) <= bar.profile.length - offset else {
            return client.isGone ? ones : 0
        }
        let value = client.read(region: UInt32(bar.profile.index), offset: offset, width: width)
        lowerINTx(unmask: true)
        return client.isGone ? ones : value
    }

    /// Writes 1, 2, 4 or 8 bytes of a base address register's window.
    func writeMemory(_ bar: BAR, _ offset: UInt64, width: Int, value: UInt64) {
        if writeVectors(bar.profile.index, offset, width: width, value: value) || bar.profile.isROM { return }
        if let window = mapped(bar, offset, width) {
            guard window.memory.isWritable else { return }
            // Safety: the range lies inside the mapping, which is writable.
            let bytes = unsafe UnsafeMutableRawBufferPointer(
                start: window.memory.baseAddress + Int(offset - window.offset), count: width)
            var span = unsafe MutableRawSpan(_unsafeBytes: bytes)
            span.storeLittleEndian(value)
            return lowerINTx(unmask: true)
        }
        guard offset <= bar.profile.length, UInt64(width) <= bar.profile.length - offset else { return }
        client.write(region: UInt32(bar.profile.index), offset: offset, width: width, value: value)
        lowerINTx(unmask: true)
    }

    private func mapped(_ bar: BAR, _ offset: UInt64, _ width: Int) -> (offset: UInt64, memory: MappedMemory)? {
        guard !bar.mapped.isEmpty, !client.isGone else { return nil }
        return bar.mapped.first {
            offset >= $0.offset && $0.memory.contains(offset: offset - $0.offset, count: UInt64(width))
        }
    }

    // MARK: The MSI-X table and pending bits

    private func readVectors(_ bar: Int, _ offset: UInt64, width: Int) -> UInt64? {
        guard let msix = profile.msix, bar == msix.tableBAR || bar == msix.pendingBAR else { return nil }
        return state.withLock { state in
            if bar == msix.tableBAR, let place = inside(offset, msix.tableOffset, state.table.tableSize) {
                return state.table.readTable(place, width: width)
            }
            if bar == msix.pendingBAR, let place = inside(offset, msix.pendingOffset, state.table.pendingSize) {
                return state.table.readPending(place, width: width)
            }
            return nil
        }
    }

    /// False when the access is none of theirs.
    private func writeVectors(_ bar: Int, _ offset: UInt64, width: Int, value: UInt64) -> Bool {
        guard let msix = profile.msix, bar == msix.tableBAR || bar == msix.pendingBAR else { return false }
        let messages: [MSIXTable.Message]? = state.withLock { state in
            if bar == msix.tableBAR, let place = inside(offset, msix.tableOffset, state.table.tableSize) {
                state.table.writeTable(place, width: width, value: value)
                return state.table.release()
            }
            if bar == msix.pendingBAR, inside(offset, msix.pendingOffset, state.table.pendingSize) != nil { return [] }
            return nil
        }
        guard let messages else { return false }
        for message in messages { host.deliverMessage(message.address, message.data) }
        return true
    }

    private func inside(_ offset: UInt64, _ start: UInt64, _ size: Int) -> Int? {
        offset >= start && offset - start < UInt64(size) ? Int(offset - start) : nil
    }
}
