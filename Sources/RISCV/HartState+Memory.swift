// Loads and stores that missed the translation cache: translation, protection, devices, misalignment.
import CSystem

extension HartState {
    /// A load of `width` bytes, zero-extended. On `nil` the trap is recorded.
    @inline(never)
    mutating func loadSlow(_ address: UInt64, _ width: UInt64) -> UInt64? {
        if address & (width - 1) != 0 { return loadMisaligned(address, width) }
        guard let physical = translate(address, .load, dataPrivilege) else { return nil }
        guard let place = access(physical, address, width, .load) else { return nil }
        if let host = unsafe place.host {
            // Safety: `access` gave `width` aligned bytes of a region.
            switch width {
            case 1: return unsafe UInt64(cs_load8(host))
            case 2: return unsafe UInt64(cs_load16(host))
            case 4: return unsafe UInt64(cs_load32(host))
            default: return unsafe cs_load64(host)
            }
        }
        guard isTimeExact() else { return nil }
        guard let device = place.device, let accessWidth = AccessWidth(rawValue: UInt8(width)),
            let value = device.read(offset: place.offset, width: accessWidth)
        else {
            fault(.loadAccessFault, address)
            return nil
        }
        return width == 8 ? value : value & ((1 << (width * 8)) - 1)
    }

    /// A store of the low `width` bytes of `value`. On false the trap is recorded and nothing was stored.
    @inline(never)
    mutating func storeSlow(_ address: UInt64, _ width: UInt64, _ value: UInt64) -> Bool {
        if address & (width - 1) != 0 { return storeMisaligned(address, width, value) }
        guard let physical = translate(address, .store, dataPrivilege) else { return false }
        guard let place = access(physical, address, width, .store) else { return false }
        if let host = unsafe place.host {
            // Safety: `access` gave `width` aligned bytes of a region.
            switch width {
            case 1: unsafe cs_store8(host, UInt8(truncatingIfNeeded: value))
            case 2: unsafe cs_store16(host, UInt16(truncatingIfNeeded: value))
            case 4: unsafe cs_store32(host, UInt32(truncatingIfNeeded: value))
            default: unsafe cs_store64(host, value)
            }
            return true
        }
        guard isTimeExact() else { return false }
        let low = width == 8 ? value : value & ((1 << (width * 8)) - 1)
        guard let device = place.device, let accessWidth = AccessWidth(rawValue: UInt8(width)),
            device.write(offset: place.offset, width: accessWidth, value: low)
        else { return fault(.storeAccessFault, address) }
        return true
    }

    /// Where an access ends up: memory, or a device and the offset in it.
    @safe struct Place {
        var host: UnsafeMutableRawPointer?
        var device: (any MemoryMappedDevice)?
        var offset: UInt64
    }

    /// Checks protection of a translated, aligned access and finds its place. Memory in pages of one permission enters
    /// the translation cache. On `nil` the trap is recorded.
    mutating func access(_ physical: UInt64, _ address: UInt64, _ width: UInt64, _ access: Access) -> Place? {
        guard pmp.allows(access, physical, count: width, dataPrivilege) else {
            fault(access.accessFault, address)
            return nil
        }
        let host: UnsafeMutableRawPointer
        if let direct = unsafe mainMemory(physical, width) {
            unsafe host = direct
        } else {
            guard let region = region(at: physical, count: width),
                region.permissions.contains(access == .store ? .write : .read)
            else {
                fault(access.accessFault, address)
                return nil
            }
            if let device = region.device {
                return unsafe Place(host: nil, device: device, offset: physical &- region.base)
            }
            guard let found = unsafe memory(region, physical) else {
                fault(access.accessFault, address)
                return nil
            }
            unsafe host = found
        }
        if pmp.isUniform(page: physical & ~0xFFF) {
            let entry = access == .store ? translations.writing(address) : translations.reading(address)
            // Safety: the entry is in the table. The difference leads from any address of this virtual page to the
            // same offset of the page that `host` lies in, and regions are made of whole pages.
            unsafe entry.raw.pointee = TranslationCache.Entry(
                tag: address & ~0xFFF | dataContext, difference: UInt64(UInt(bitPattern: host)) &- address)
        }
        return unsafe Place(host: host, device: nil, offset: 0)
    }

    // MARK: misaligned

    /// Misaligned loads are done bytewise; only memory takes them, devices answer with an access fault.
    private mutating func loadMisaligned(_ address: UInt64, _ width: UInt64) -> UInt64? {
        var value: UInt64 = 0
        for index in 0..<width {
            let byteAddress = address &+ index
            guard let physical = translate(byteAddress, .load, dataPrivilege),
                let place = access(physical, byteAddress, 1, .load)
            else { return nil }
            guard let host = unsafe place.host else {
                fault(.loadAccessFault, byteAddress)
                return nil
            }
            // Safety: one byte of a region.
            value |= unsafe UInt64(cs_load8(host)) << (index * 8)
        }
        return value
    }

    /// Misaligned stores: both pages are checked before the first byte is written.
    private mutating func storeMisaligned(_ address: UInt64, _ width: UInt64, _ value: UInt64) -> Bool {
        return unsafe withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer.self, capacity: 8) { places in
            for index in 0..<width {
                let byteAddress = address &+ index
                guard let physical = translate(byteAddress, .store, dataPrivilege),
                    let place = access(physical, byteAddress, 1, .store)
                else { return false }
                guard let host = unsafe place.host else { return fault(.storeAccessFault, byteAddress) }
                // Safety: index < width ≤ 8.
                unsafe places.initializeElement(at: Int(index), to: host)
            }
            for index in 0..<width {
                // Safety: initialised above; one byte of a region each.
                unsafe cs_store8(places[Int(index)], UInt8(truncatingIfNeeded: value >> (index * 8)))
            }
            return true
        }
    }
}
