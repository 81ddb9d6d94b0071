internal import BlockStore
internal import PCIe
internal import VFIOUser

// Physical region pages: where a command's data lies. Spec: NVM Express 1.4 §4.3.
extension NVMeEngine {
    /// Puts the pieces of a command's data into `transfer`. `.success`, or what is wrong with the pointers.
    ///
    /// The first piece may begin inside a page, all others begin at one. What one page does not hold is in PRP entry 2:
    /// a page, or a list of pages whose last entry, where more follow, points to the next list.
    func takePointers(_ command: NVMeCommand, count: Int) -> NVMeStatus {
        transfer.begin()
        let pageSize = NVMeLimits.pageSize
        let mask = UInt64(pageSize - 1)
        guard command.prp1 & 3 == 0 else { return .invalidPRPOffset }
        var left = count
        let first = min(left, pageSize - Int(command.prp1 & mask))
        guard transfer.add(command.prp1, count: first) else { return .dataTransferError }
        left -= first
        if left == 0 { return .success }
        if left <= pageSize {
            guard command.prp2 & mask == 0 else { return .invalidPRPOffset }
            return transfer.add(command.prp2, count: left) ? .success : .dataTransferError
        }
        guard command.prp2 & 7 == 0 else { return .invalidPRPOffset }
        var place = command.prp2
        while left > 0 {
            // What is left of this page of the list, or fewer if fewer are needed.
            let room = (pageSize - Int(place & mask)) / 8
            let needed = (left + pageSize - 1) / pageSize
            let entries = min(room, needed)
            guard readList(place, entries) else { return .dataTransferError }
            let isLast = needed <= room
            for index in 0..<(isLast ? entries : entries - 1) {
                let page = list.get(UInt64.self, at: index * 8)
                guard page & mask == 0 else { return .invalidPRPOffset }
                let part = min(left, pageSize)
                guard transfer.add(page, count: part) else { return .dataTransferError }
                left -= part
            }
            if isLast { break }
            let next = list.get(UInt64.self, at: (entries - 1) * 8)
            // A list goes on at a page's beginning, so each holds at least 511 pages: no circle is endless.
            guard next & mask == 0 else { return .invalidPRPOffset }
            place = next
        }
        return .success
    }

    private func readList(_ address: UInt64, _ entries: Int) -> Bool {
        do throws(DMAError) {
            // Safety: entries ≤ 512: a page.
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: list.bytes[..<(entries * 8)])
            var span = unsafe MutableRawSpan(_unsafeBytes: room)
            try bus.dma.read(at: IOVirtualAddress(address), into: &span)
            return true
        } catch {
            return false
        }
    }

    /// Gives `count` bytes of `data` to the host: `available` of them from `offset` on, then zeroes.
    func giveData(_ command: NVMeCommand, from offset: Int = 0, available: Int? = nil, count: Int) -> NVMeStatus {
        let available = min(available ?? count, count)
        let status = takePointers(command, count: count)
        guard status == .success else { return status }
        if offset > 0 || available < count {
            // Safety: offset + available ≤ the page's size ≥ count; the ranges may overlap.
            unsafe data.bytes.baseAddress!.copyMemory(from: data.bytes.baseAddress! + offset, byteCount: available)
            for place in available..<count { data.put(UInt8(0), at: place) }
        }
        do throws(BlockFailure) {
            // Safety: count ≤ the page's size.
            try unsafe transfer.scatter(
                UnsafeRawBufferPointer(UnsafeMutableRawBufferPointer(rebasing: data.bytes[..<count])), bus.dma)
            return .success
        } catch {
            return .dataTransferError
        }
    }

    /// Takes `count` bytes, at most a page, from the host to `data`.
    func takeData(_ command: NVMeCommand, count: Int) -> NVMeStatus {
        let status = takePointers(command, count: count)
        guard status == .success else { return status }
        do throws(BlockFailure) {
            // Safety: count ≤ the page's size.
            try unsafe transfer.gather(UnsafeMutableRawBufferPointer(rebasing: data.bytes[..<count]), bus.dma)
            return .success
        } catch {
            return .dataTransferError
        }
    }
}
