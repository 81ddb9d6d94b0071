/// What a client has exported to its server: where DMA_READ and DMA_WRITE may go.
///
/// Spec: vfio-user VFIO_USER_DMA_READ: "This address must have been previously exported to the server".
struct ExportedMemory {
    private var maps: [(first: UInt64, last: UInt64, flags: UInt32)] = []

    mutating func add(_ map: DMAMap) { maps.append((map.address, map.address &+ (map.length &- 1), map.flags)) }

    mutating func remove(address: UInt64, length: UInt64) {
        if let place = maps.lastIndex(where: { $0.first == address && $0.last == address &+ (length &- 1) }) {
            maps.remove(at: place)
        }
    }

    mutating func removeAll() { maps = [] }

    /// Refused: an access of which a part was not exported (`badAddress`), or not for this direction (`notPermitted`).
    func check(_ access: DMAAccess, write: Bool) throws(ErrorNumber) {
        guard access.count > 0 else { return }
        // `DMAAccess` does not wrap.
        let last = access.address + (access.count - 1)
        var place = access.address
        while true {
            guard let map = maps.first(where: { $0.first <= place && place <= $0.last }) else { throw .badAddress }
            guard map.flags & (write ? DMAMap.writeable : DMAMap.readable) != 0 else { throw .notPermitted }
            if map.last >= last { return }
            place = map.last + 1
        }
    }
}
