// What a debugger sees of a hart and changes in it, without the guest noticing that it looked.
//
// Translation here walks the page tables and nothing more: no permission stops it, A and D stay as they are, no trap is
// recorded, no cache learns anything. Memory is reached past PMP, since the debugger is not a program of the guest.
import CSystem

extension HartState {
    /// The physical address behind a virtual one as the current privilege translates it; `nil` where no valid leaf is.
    mutating func debugTranslate(_ address: UInt64) -> UInt64? {
        guard translates(privilege) else { return address }
        var levels = satp >> 60 - 5
        let unused = 64 - (12 + 9 * levels)
        if UInt64(bitPattern: Int64(bitPattern: address << unused) >> Int64(unused)) != address { return nil }
        var table = (satp & ((1 << 44) - 1)) << 12
        while levels > 0 {
            levels -= 1
            let shift = 12 + 9 * levels
            guard let entry = debugEntry(table + (address >> shift & 511) * 8), entry & 1 != 0 else { return nil }
            let base = (entry >> 10 & ((1 << 44) - 1)) << 12
            // R and X both clear: a pointer to the next table.
            if entry & 0xA == 0 {
                table = base
                continue
            }
            let offsetMask = (UInt64(1) << shift) - 1
            return base & offsetMask == 0 ? base | address & offsetMask : nil
        }
        return nil
    }

    private mutating func debugEntry(_ address: UInt64) -> UInt64? {
        guard let region = region(at: address, count: 8), region.device == nil, region.filler == nil,
            let host = unsafe memory(region, address)
        else { return nil }
        // Safety: the region contains eight aligned bytes at the address.
        return unsafe cs_load64(host)
    }

    /// The longest piece of memory from `address` on that lies in one region, at most `count` bytes.
    private mutating func debugPiece(_ address: UInt64, _ count: Int) -> (region: PhysicalRegion, count: Int)? {
        guard count > 0, let region = region(at: address, count: 1) else { return nil }
        return (region, Int(min(UInt64(count), region.size &- (address &- region.base))))
    }

    /// See `Hart.readPhysical`.
    mutating func debugRead(_ address: UInt64, count: Int, _ reach: Hart.DebugReach) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let place = address &+ UInt64(bytes.count)
            guard let (region, available) = debugPiece(place, count - bytes.count) else { break }
            if let device = region.device {
                guard reach.contains(.devices),
                    let more = debugRead(device, place &- region.base, count: available)
                else { break }
                bytes += more
                continue
            }
            if region.filler != nil && !reach.contains(.demandFilled) { break }
            // Pages are filled one by one.
            let toPageEnd = Int(PhysicalAddressSpace.pageSize - place % PhysicalAddressSpace.pageSize)
            let piece = min(available, toPageEnd)
            guard let host = unsafe memory(region, place) else { break }
            for index in 0..<piece {
                // Safety: the region contains `piece` bytes from here.
                bytes.append(unsafe cs_load8(host + index))
            }
        }
        return bytes
    }

    /// One aligned access of 1, 2, 4 or 8 bytes if that is what was asked for, else bytes.
    private func debugRead(_ device: any MemoryMappedDevice, _ offset: UInt64, count: Int) -> [UInt8]? {
        let width = Self.deviceWidth(offset, count)
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard let value = device.read(offset: offset &+ UInt64(bytes.count), width: width) else {
                return bytes.isEmpty ? nil : bytes
            }
            for index in 0..<width.bytes { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
        }
        return bytes
    }

    private static func deviceWidth(_ offset: UInt64, _ count: Int) -> AccessWidth {
        guard let width = UInt8(exactly: count).flatMap(AccessWidth.init), offset % width.bytes == 0 else {
            return .byte
        }
        return width
    }

    /// See `Hart.writePhysical`.
    mutating func debugWrite(_ address: UInt64, _ bytes: [UInt8], _ reach: Hart.DebugReach) -> Bool {
        var written = 0
        while written < bytes.count {
            let place = address &+ UInt64(written)
            guard let (region, available) = debugPiece(place, bytes.count - written),
                region.permissions.contains(.write), region.filler == nil
            else { return false }
            if let device = region.device {
                guard reach.contains(.devices) else { return false }
                let offset = place &- region.base
                let width = Self.deviceWidth(offset, available)
                for start in stride(from: 0, to: available, by: Int(width.bytes)) {
                    let value = (0..<Int(width.bytes)).reduce(UInt64(0)) {
                        $0 | UInt64(bytes[written + start + $1]) << (8 * UInt64($1))
                    }
                    guard device.write(offset: offset &+ UInt64(start), width: width, value: value) else {
                        return false
                    }
                }
            } else {
                guard let host = unsafe memory(region, place) else { return false }
                for index in 0..<available {
                    // Safety: the region contains `available` bytes from here.
                    unsafe cs_store8(host + index, bytes[written + index])
                }
            }
            written += available
        }
        return true
    }

    /// Whether a debugger's write could go to all of these bytes, which are then memory.
    mutating func isWritableMemory(_ address: UInt64, count: Int) -> Bool {
        guard let region = region(at: address, count: UInt64(count)) else { return false }
        return region.device == nil && region.filler == nil && region.permissions.contains(.write)
    }

    /// Sets a CSR past every check of privilege; what it holds afterwards is what its fields allow.
    mutating func debugSetCSR(_ number: UInt32, _ value: UInt64) -> Bool {
        switch number {
        // Floating point is there for the debugger while FS says Off, too.
        case 0x001: fflags = UInt8(value & 0x1F)
        case 0x002: frm = UInt8(value & 7)
        case 0x003: (fflags, frm) = (UInt8(value & 0x1F), UInt8(value >> 5 & 7))
        // A write of these claims an interrupt.
        case 0x15C, 0x35C: return false
        default:
            let current = privilege
            privilege = .machine
            // A counter's write is meant for the instruction that makes it; here there is none.
            let own: UInt64 = number == 0xB00 || number == 0xB02 ? 1 : 0
            let isDone = modifyCSR(number, clear: .max, set: value &+ own)
            privilege = current
            updateContexts()
            refreshInterrupts()
            return isDone
        }
        if hasFloatState { noteFloatState() }
        return true
    }
}
