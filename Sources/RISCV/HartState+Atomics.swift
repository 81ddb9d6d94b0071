// A: load-reserved, store-conditional and atomic memory operations, by the host's own atomics on guest memory.
//
// Spec: RISC-V Unprivileged 20240411 chapter 13. AMOs and SCs that write are done with the strongest ordering.
// A store-conditional fails when another hart wrote the reserved line by an atomic instruction (see ReservationTable) or
// when memory holds another value than was reserved.
// Deviates: plain stores of another hart that leave the reserved value in place go unnoticed. Lock-free code that relies
// on more than values changes the reserved word by LR/SC and AMOs only.
import CSystem

extension HartState {
    /// Executes a raw AMO-opcode instruction. False: the trap is recorded.
    @inline(never)
    mutating func executeAtomic(_ word: UInt32, rd: UInt8, rs1: UInt8, rs2: UInt8) -> Bool {
        let width: UInt64 = word >> 12 & 7 == 2 ? 4 : 8
        let address = x[rs1]
        let isLoad = word >> 27 == 0x02
        if address & (width - 1) != 0 {
            return fault(isLoad ? .loadAddressMisaligned : .storeAddressMisaligned, address)
        }
        guard let host = unsafe atomicPlace(address, width, isLoad ? .load : .store) else { return false }
        let operand = x[rs2]
        // Safety (below): `host` points at `width` aligned bytes of a memory region.
        if isLoad {
            // With rl, stores before it are seen before it reads: a failing compare-and-swap orders as a load does.
            if word >> 25 & 1 != 0 { cs_fence() }
            if reservations.isShared { reservedState = unsafe reservations.line(host).state }
            let value = unsafe width == 4 ? signExtend(cs_load_acquire32(host)) : cs_load_acquire64(host)
            reservation = UInt(bitPattern: host)
            reservedValue = value
            reservedWidth = width
            x[rd] = value
        } else if word >> 27 == 0x03 {
            let isStored = unsafe storeConditional(host, width, operand)
            x[rd] = isStored ? 0 : 1
        } else {
            let line = unsafe reservations.isShared ? reservations.line(host) : nil
            line?.beginWrite()
            if width == 4 {
                x[rd] = unsafe signExtend(Self.operate32(word >> 27, host, UInt32(truncatingIfNeeded: operand)))
            } else {
                x[rd] = unsafe Self.operate64(word >> 27, host, operand)
            }
            line?.endWrite()
        }
        return true
    }

    /// Host pointer to an aligned place in memory; by the translation cache if it can. Devices have no atomics.
    private mutating func atomicPlace(_ address: UInt64, _ width: UInt64, _ access: Access) -> UnsafeMutableRawPointer?
    {
        let entry = access == .load ? translations.reading(address) : translations.writing(address)
        if entry.matches(address, width, dataContext) { return unsafe entry.host(address) }
        guard let physical = translate(address, access, dataPrivilege),
            let place = self.access(physical, address, width, access)
        else { return nil }
        guard let host = unsafe place.host else {
            fault(access.accessFault, address)
            return nil
        }
        return unsafe host
    }

    private mutating func storeConditional(_ host: UnsafeMutableRawPointer, _ width: UInt64, _ value: UInt64) -> Bool {
        let isReserved = UInt(bitPattern: host) == reservation && width == reservedWidth
        reservation = 0
        guard isReserved else { return false }
        let line = unsafe reservations.isShared ? reservations.line(host) : nil
        if let line, !line.beginExclusive(reservedState) { return false }
        defer { line?.endExclusive() }
        // Safety: as in executeAtomic.
        if width == 4 {
            var expected = UInt32(truncatingIfNeeded: reservedValue)
            return unsafe cs_compare_exchange32(host, &expected, UInt32(truncatingIfNeeded: value))
        }
        var expected = reservedValue
        return unsafe cs_compare_exchange64(host, &expected, value)
    }

    // Safety (both): as in executeAtomic.
    private static func operate32(_ function: UInt32, _ host: UnsafeMutableRawPointer, _ operand: UInt32) -> UInt32 {
        switch function {
        case 0x00: return unsafe cs_add32(host, operand)
        case 0x01: return unsafe cs_exchange32(host, operand)
        case 0x04: return unsafe cs_xor32(host, operand)
        case 0x08: return unsafe cs_or32(host, operand)
        case 0x0C: return unsafe cs_and32(host, operand)
        default:
            var old = unsafe cs_load32(host)
            while true {
                let new =
                    switch function {
                    case 0x10: UInt32(bitPattern: min(Int32(bitPattern: old), Int32(bitPattern: operand)))
                    case 0x14: UInt32(bitPattern: max(Int32(bitPattern: old), Int32(bitPattern: operand)))
                    case 0x18: min(old, operand)
                    default: max(old, operand)
                    }
                if unsafe cs_compare_exchange32(host, &old, new) { return old }
            }
        }
    }

    private static func operate64(_ function: UInt32, _ host: UnsafeMutableRawPointer, _ operand: UInt64) -> UInt64 {
        switch function {
        case 0x00: return unsafe cs_add64(host, operand)
        case 0x01: return unsafe cs_exchange64(host, operand)
        case 0x04: return unsafe cs_xor64(host, operand)
        case 0x08: return unsafe cs_or64(host, operand)
        case 0x0C: return unsafe cs_and64(host, operand)
        default:
            var old = unsafe cs_load64(host)
            while true {
                let new =
                    switch function {
                    case 0x10: UInt64(bitPattern: min(Int64(bitPattern: old), Int64(bitPattern: operand)))
                    case 0x14: UInt64(bitPattern: max(Int64(bitPattern: old), Int64(bitPattern: operand)))
                    case 0x18: min(old, operand)
                    default: max(old, operand)
                    }
                if unsafe cs_compare_exchange64(host, &old, new) { return old }
            }
        }
    }
}
