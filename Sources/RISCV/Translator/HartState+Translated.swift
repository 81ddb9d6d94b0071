// Running translated code: the driver that enters it and acts on how it comes back, and the helper that it calls.
//
// What surprised us: the driver must be a static function of a pointer. Code calls the helper, which works on the state,
// so nobody may hold an access to the state, not even to its code memory, while code runs.
import CSystem

extension HartState {
    /// Runs until `limit` instructions retired, attention is raised, a trap was taken or an interrupt can be, hot blocks
    /// as code of the host and the others interpreted. Returns the instructions retired, at most `limit`.
    static func execute(_ state: UnsafeMutablePointer<HartState>, _ limit: Int) -> Int {
        // Safety: the caller's pointer; no access outlives its expression.
        var done = unsafe state.pointee.interpret(limit)
        #if arch(x86_64)
            while let block = unsafe state.pointee.takeTranslated() {
                let (count, goesOn) = unsafe runTranslated(state, block, limit - done)
                done += count
                if !goesOn { break }
                done += unsafe state.pointee.interpret(limit - done)
            }
        #endif
        return done
    }

    private mutating func takeTranslated() -> BlockPointer? {
        let block = translated
        translated = nil
        return block
    }

    /// Whether the translation of `block` is to be run, made now if the block is hot. Not while the interpreter has to
    /// stop before its end.
    mutating func isTranslated(_ block: BlockPointer, _ remaining: Int) -> Bool {
        #if arch(x86_64)
            if block.hostCode == 0 {
                guard block != blocks.scratch && blocks.isHot(block, heat) else { return false }
                if !blocks.translate(block) {
                    // No room: everything was forgotten, but this block may still be interpreted.
                    forgetBlocks()
                    return false
                }
            }
            return remaining >= block.count && !attention.isRaised
        #else
            return false
        #endif
    }

    #if arch(x86_64)
        /// Lets code use `state`, which lies where it is as long as it lives.
        static func prepareTranslated(_ state: UnsafeMutablePointer<HartState>) {
            // Safety: the caller's pointer.
            let core = unsafe state.pointee.core
            core[.state] = UInt64(UInt(bitPattern: state))
            core[.slotHelper] = unsafe UInt64(UInt(bitPattern: unsafeBitCast(slotHelper, to: UnsafeRawPointer.self)))
        }

        /// Runs code from `block` on. Returns the instructions retired, and whether execution goes on at `pc` at once.
        private static func runTranslated(
            _ state: UnsafeMutablePointer<HartState>, _ first: BlockPointer, _ limit: Int
        ) -> (Int, Bool) {
            // Safety (all uses of `state`): as in `execute`.
            let core = unsafe state.pointee.core
            var block = first
            /// Of `limit`, what `retired` does not count yet.
            var counted = 0
            core[.pc] = unsafe state.pointee.pc
            core[.remaining] = UInt64(truncatingIfNeeded: limit)
            while true {
                core[.dataContext] = unsafe state.pointee.dataContext
                core[.floatContext] = unsafe state.pointee.floatContext
                core[.fetchContext] = unsafe UInt64(state.pointee.fetchContext)
                let entry = unsafe state.pointee.blocks.hostCode.entry(block.hostCode)
                entry.run(core)
                let exit = unsafe HostExit(rawValue: UInt32(truncatingIfNeeded: core[.exitKind])).unsafelyUnwrapped
                let pc = core[.pc]
                let remaining = Int(truncatingIfNeeded: core[.remaining])
                block = unsafe state.pointee.blocks.block(number: core[.exitBlock])
                switch exit {
                case .taken, .notTaken:
                    unsafe state.pointee.pc = pc
                    guard let next = unsafe state.pointee.translatedBlock(pc, remaining) else { break }
                    unsafe state.pointee.link(block, taken: exit == .taken, to: next)
                    block = next
                    continue
                case .indirect:
                    unsafe state.pointee.pc = pc
                    guard let next = unsafe state.pointee.translatedBlock(pc, remaining) else { break }
                    block = next
                    continue
                case .attention: unsafe state.pointee.pc = pc
                case .trapped, .illegal:
                    let index = Int(truncatingIfNeeded: core[.exitIndex])
                    if exit == .illegal { unsafe state.pointee.fault(.illegalInstruction, 0) }
                    let count = limit - remaining - (block.count - index)
                    unsafe state.pointee.trap(in: block, at: index, pc)
                    return (unsafe state.pointee.retire(count - counted) + counted, false)
                case .system:
                    let count = limit - remaining
                    switch unsafe state.pointee.completeSystem(block, pc, retiredBefore: count - counted - 1) {
                    case .continues:
                        counted += unsafe state.pointee.retire(count - counted)
                        core[.pc] = unsafe state.pointee.pc
                        guard let next = unsafe state.pointee.translatedBlock(state.pointee.pc, remaining) else {
                            return (counted, true)
                        }
                        block = next
                        continue
                    case .leaves: return (unsafe state.pointee.retire(count - counted) + counted, false)
                    case .leavesUnretired: return (unsafe state.pointee.retire(count - 1 - counted) + counted, false)
                    }
                }
                return (unsafe state.pointee.retire(limit - remaining - counted) + counted, true)
            }
        }

        private var floatContext: UInt64 {
            mutating get { mstatus & StatusBits.fs == StatusBits.fs ? dataContext : HartCore.noContext }
        }

        /// The translated block at `pc` in the jump cache, if `remaining` instructions suffice for it.
        private mutating func translatedBlock(_ pc: UInt64, _ remaining: Int) -> BlockPointer? {
            guard let block = fetches.jump(pc, fetchContext), block.hostCode != 0, block.count <= remaining else {
                return nil
            }
            fetches.insert(pc, fetchContext, block, code: blocks.codeAddress(of: block))
            return block
        }

        /// Executes a slot of a block for code. 1: it failed, and the core says where.
        private static let slotHelper:
            @convention(c) (_ state: UnsafeMutableRawPointer, _ block: UInt32, _ index: UInt32) -> UInt32 = {
                pointer, number, index in
                // Safety: code passes what `prepareTranslated` put into the core, and nobody holds an access.
                let state = unsafe pointer.assumingMemoryBound(to: HartState.self)
                let block = unsafe state.pointee.blocks.block(number: UInt64(number))
                if unsafe state.pointee.execute(block.slots.advanced(by: Int(index))) { return 0 }
                let core = unsafe state.pointee.core
                core[.exitKind] = UInt64(HostExit.trapped.rawValue)
                core[.exitBlock] = UInt64(number)
                core[.exitIndex] = UInt64(index)
                return 1
            }
    #endif
}
