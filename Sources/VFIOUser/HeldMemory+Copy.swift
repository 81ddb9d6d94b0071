internal import Glibc

/// The ways to memory that the window does not cover.
extension HeldMemory {
    @usableFromInline
    mutating func copy(
        _ address: IOVirtualAddress, _ local: UnsafeMutableRawBufferPointer, write: Bool
    ) throws(DMAError) {
        guard space.isEnabled else { throw .disabled }
        guard let start = local.baseAddress, local.count > 0 else { return }
        // The usual case: all of it in the map that was used last.
        let beyond = address.rawValue &- first
        let window = write ? writeable : readable
        if beyond < window, window &- beyond >= UInt64(local.count) {
            // Safety: beyond + count ≤ window, the bytes at base.
            return unsafe Self.copy(local, base + Int(truncatingIfNeeded: beyond), write: write)
        }
        guard !address.rawValue.addingReportingOverflow(UInt64(local.count) - 1).overflow else {
            throw .notMapped(address)
        }
        var done = 0
        while done < local.count {
            let place = IOVirtualAddress(address.rawValue + UInt64(done))
            guard let entry = unsafe table.entry(holding: place.rawValue) else { throw .notMapped(place) }
            guard entry.flags & (write ? DMAMap.writeable : DMAMap.readable) != 0 else {
                throw .notPermitted(place)
            }
            let inside = place.rawValue - entry.first
            let length = Int(min(UInt64(local.count - done) - 1, entry.last - place.rawValue)) + 1
            // Safety: done + length ≤ local.count.
            let part = unsafe UnsafeMutableRawBufferPointer(start: start + done, count: length)
            if let base = unsafe entry.base {
                look(through: entry)
                // Safety: inside + length ≤ the map's length; its memory stays mapped while the table is held.
                unsafe Self.copy(part, base + Int(inside), write: write)
            } else if entry.isMessages {
                unsafe try exchange(place, part, write: write)
            } else {
                unsafe try transfer(entry.descriptor, entry.fileOffset &+ inside, part, write: write, place)
            }
            if write { unsafe table.log?.mark(place.rawValue, UInt64(length)) }
            done += length
        }
    }

    /// Makes a map the window.
    mutating func look(through entry: DMATable.Entry) {
        // A map of the whole address space has no length in 64 bits, and no process has room for one.
        guard let base = unsafe entry.base, entry.last - entry.first < .max else { return }
        let length = entry.last - entry.first + 1
        unsafe self.base = base
        let log = unsafe table.log
        first = entry.first
        readable = entry.flags & DMAMap.readable != 0 ? length : 0
        writeable = entry.flags & DMAMap.writeable != 0 && log == nil ? length : 0
    }

    private mutating func lookAway() {
        readable = 0
        writeable = 0
    }

    /// Copies between local and shared memory; naturally aligned integers by one load or store.
    private static func copy(_ local: UnsafeMutableRawBufferPointer, _ there: UnsafeMutableRawPointer, write: Bool) {
        let (count, near) = (local.count, local.baseAddress!)
        // Safety: both hold `count` bytes, by the caller.
        switch (count, write) {
        case (1, true): unsafe store(near.loadUnaligned(as: UInt8.self), there)
        case (2, true): unsafe store(near.loadUnaligned(as: UInt16.self), there)
        case (4, true): unsafe store(near.loadUnaligned(as: UInt32.self), there)
        case (8, true): unsafe store(near.loadUnaligned(as: UInt64.self), there)
        case (1, false): unsafe near.storeBytes(of: load(there), as: UInt8.self)
        case (2, false): unsafe near.storeBytes(of: load(there), as: UInt16.self)
        case (4, false): unsafe near.storeBytes(of: load(there), as: UInt32.self)
        case (8, false): unsafe near.storeBytes(of: load(there), as: UInt64.self)
        case (_, true): unsafe memcpy(there, near, count)
        case (_, false): unsafe memcpy(near, there, count)
        }
    }

    /// A copy by messages to the client. The hold is let go of meanwhile unless it gave out pointers.
    private mutating func exchange(
        _ place: IOVirtualAddress, _ part: UnsafeMutableRawBufferPointer, write: Bool
    ) throws(DMAError) {
        guard let messenger = space.messenger else { throw .disabled }
        if !isPinned {
            lookAway()
            unsafe space.leave(table)
        }
        let result: Result<Void, DMAError>
        do throws(DMAError) {
            if write {
                unsafe try messenger.dmaWrite(place.rawValue, from: UnsafeRawBufferPointer(part))
            } else {
                unsafe try messenger.dmaRead(place.rawValue, into: part)
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        if !isPinned { unsafe table = space.enter() }
        try result.get()
    }

    private func transfer(
        _ descriptor: Int32, _ offset: UInt64, _ part: UnsafeMutableRawBufferPointer, write: Bool,
        _ address: IOVirtualAddress
    ) throws(DMAError) {
        var done = 0
        while done < part.count {
            guard let place = Int(exactly: offset &+ UInt64(done)) else { throw .lost(address) }
            // Safety: done < part.count.
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: part[done...])
            let count =
                unsafe write
                ? pwrite(descriptor, rest.baseAddress, rest.count, place)
                : pread(descriptor, rest.baseAddress, rest.count, place)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw .lost(address) }
            done += count
        }
    }

    /// Ends the hold: what pointers may have written counts as written.
    @usableFromInline
    mutating func finish() {
        if !lent.isEmpty {
            for range in lent { unsafe table.log?.mark(range.address, range.count) }
        }
        unsafe space.leave(table)
    }
}
