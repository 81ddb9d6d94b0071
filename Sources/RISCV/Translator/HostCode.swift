// Memory for the translator's code, and what every piece of code shares: the way in, the way out, and the way to
// `slotHelper`.
//
// The memory has two addresses: one for writing, one for executing. Code is only written while the hart's thread is
// not in it, and only that thread executes it.
import CSystem

#if arch(x86_64)
    /// How code comes back to its driver; the block is in `exitBlock`, where it goes in `pc`.
    enum HostExit: UInt32 {
        /// By the taken or other direction of the block's last branch, which is not linked yet.
        case taken
        case notTaken
        /// To a place that the jump cache does not know.
        case indirect
        /// Nothing of the block ran: the budget is too small for it, or attention is raised.
        case attention
        /// The slot `exitIndex` failed; the trap is recorded.
        case trapped
        /// As `trapped`, an illegal instruction that nothing recorded.
        case illegal
        /// The block's last slot is a SYSTEM instruction, which did not run.
        case system
    }

    /// The code of one hart.
    @safe struct HostCode: ~Copyable {
        /// Bytes. A translated instruction takes some 30, so this holds what the arena's blocks need; pages of it that
        /// were never needed are never resident.
        static let size = 16 << 20
        /// Blocks begin at multiples of this, as the host fetches.
        private static let alignment = 16

        private let writable: UnsafeMutableRawPointer?
        private let executable: UnsafeRawPointer?
        private var used = 0
        /// Bytes at the start that are shared by all blocks.
        private var shared = 0
        private var enterOffset = 0
        /// Offsets of the shared pieces that blocks jump to.
        private(set) var exitOffset = 0
        private(set) var helperOffset = 0
        /// Where the jump cache leads for a block without code.
        private(set) var missOffset: UInt32 = 0

        init() {
            var code: UnsafeMutableRawPointer?
            // Safety: two mappings of the same size, unmapped in deinit.
            unsafe writable = cs_code_memory(Self.size, &code)
            unsafe executable = UnsafeRawPointer(code)
            guard isAvailable else { return }
            var emitter = self.emitter
            enterOffset = emitter.offset
            emitter.enter()
            missOffset = UInt32(emitter.offset)
            emitter.constant(.rcx, Int32(HostExit.indirect.rawValue))
            emitter.constant(.rdx, 0)
            exitOffset = emitter.offset
            emitter.exit()
            helperOffset = emitter.offset
            emitter.callHelper()
            used = emitter.offset
            shared = used
        }

        deinit {
            // Safety: made in init.
            if let writable = unsafe writable { unsafe munmap(writable, Self.size) }
            if let executable = unsafe executable {
                unsafe munmap(UnsafeMutableRawPointer(mutating: executable), Self.size)
            }
        }

        /// Whether the system gave memory for code.
        var isAvailable: Bool { unsafe writable != nil }

        /// Writes from the next free place on.
        var emitter: HostEmitter {
            // Safety: available; whoever emits has asked for room.
            unsafe HostEmitter(base: writable.unsafelyUnwrapped, offset: (used + Self.alignment - 1) & -Self.alignment)
        }

        func hasRoom(_ count: Int) -> Bool { Self.size - used >= count + Self.alignment }

        /// Keeps what an emitter has written.
        mutating func keep(_ emitter: HostEmitter) { used = emitter.offset }

        /// Forgets the code of all blocks.
        mutating func removeAll() { used = shared }

        /// The address of code at an offset.
        func address(_ offset: UInt32) -> UInt64 {
            unsafe UInt64(UInt(bitPattern: executable.unsafelyUnwrapped)) &+ UInt64(offset)
        }

        /// Lets the jump whose 32-bit distance is at `site` go to `target`.
        func patch(_ site: UInt32, to target: UInt32) {
            // Safety: `site` was emitted by the translator as the last four bytes of a jump.
            unsafe writable.unsafelyUnwrapped.storeBytes(
                of: target &- (site &+ 4), toByteOffset: Int(site), as: UInt32.self)
        }

        /// What runs the code at an offset until it exits; as a value of its own, because the hart's state is the code's
        /// meanwhile.
        @safe struct Entry {
            fileprivate let enter: UnsafeRawPointer
            fileprivate let code: UnsafeRawPointer

            @inline(__always) func run(_ core: HartCore) {
                // Safety: the code obeys the calling convention, touches the core, and calls only `slotHelper`.
                unsafe cs_call_code(enter, core.base, code)
            }
        }

        @inline(__always) func entry(_ offset: UInt32) -> Entry {
            // Safety: offsets lie in the code memory, which is available where there is code.
            unsafe Entry(
                enter: executable.unsafelyUnwrapped + enterOffset, code: executable.unsafelyUnwrapped + Int(offset))
        }
    }
#endif
