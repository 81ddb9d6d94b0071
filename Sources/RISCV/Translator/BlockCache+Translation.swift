// Which blocks are translated, and the code that belongs to them.

extension BlockCache {
    /// How often a block is interpreted before it is translated. Much of a boot runs once or twice.
    static let heat: UInt8 = 8

    /// Whether code can be made at all.
    var hasHostCode: Bool {
        #if arch(x86_64)
            hostCode.isAvailable
        #else
            false
        #endif
    }

    /// Where translated code goes to run a block.
    func codeAddress(of block: BlockPointer) -> UInt64 {
        #if arch(x86_64)
            if hasHostCode { return hostCode.address(block.hostCode == 0 ? hostCode.missOffset : block.hostCode) }
        #endif
        return 0
    }

    #if arch(x86_64)
        /// Counts a visit of the interpreter. True when there were enough.
        func isHot(_ block: BlockPointer, _ heat: UInt8) -> Bool {
            // Safety: see BlockPointer.
            if unsafe block.raw.pointee.heat >= heat { return true }
            unsafe block.raw.pointee.heat += 1
            return false
        }

        /// The block that code calls `number`.
        func block(number: UInt64) -> BlockPointer {
            // Safety: code was made with the number of a block of the arena, and is forgotten with it.
            unsafe BlockPointer(
                raw: arena.advanced(by: Int(truncatingIfNeeded: number)).assumingMemoryBound(to: Block.self))
        }

        /// Makes the block's code. False: there was no room, and everything was forgotten.
        mutating func translate(_ block: BlockPointer) -> Bool {
            guard hostCode.hasRoom(BlockTranslator.largest) else {
                removeAll()
                return false
            }
            let emitter = hostCode.emitter
            // Safety: the block lies in the arena.
            let number = unsafe UnsafeMutableRawPointer(block.raw) - arena
            var translator = BlockTranslator(
                block, number: number, emitter: emitter, exit: hostCode.exitOffset, helper: hostCode.helperOffset)
            hostCode.keep(translator.translate())
            // Safety: see BlockPointer.
            unsafe block.raw.pointee.takenSite = UInt32(translator.takenSite)
            unsafe block.raw.pointee.notTakenSite = UInt32(translator.notTakenSite)
            unsafe block.raw.pointee.hostCode = UInt32(emitter.offset)
            return true
        }
    #endif
}
