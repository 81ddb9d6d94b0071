// The part of a hart's state that translated code reaches by offsets from one register: integer and floating-point
// registers, the translation cache and the jump cache in one allocation, with the few words that code and its driver
// exchange.
//
//     +0        x0…x31, the sink for x0, unused: 64 doublewords
//     +512      words of `Field`
//     +640      f0…f31: 32 doublewords
//     +1024     translation cache: loads, then stores
//     +17408    jump cache
//
// Everything else of the state stays in `HartState`; only what is here has a fixed place.

/// The allocation and typed access to it.
@safe struct HartCore {
    /// Doublewords at fixed offsets.
    enum Field: Int {
        /// Instructions that may still retire before code has to be left.
        case remaining = 512
        case dataContext = 520
        case fetchContext = 528
        /// Address of `HartSignals`' attention word.
        case attention = 536
        /// Virtual address of the block that runs (on entry), or of the next one (on exit).
        case pc = 544
        /// The HartState that `slotHelper` works on.
        case state = 552
        case slotHelper = 560
        /// A `HostExit`, the block that was left (its offset in the arena), and the slot in it.
        case exitKind = 568
        case exitBlock = 576
        case exitIndex = 584
        /// `dataContext` while floating-point state is dirty, so that changing it needs no note; else `noContext`.
        case floatContext = 592
    }

    /// A context that no entry of a translation cache has: bits that are zero there.
    static let noContext: UInt64 = 7
    static let floatsOffset = 640
    static let translationsOffset = 1024
    static let storeTranslationsOffset =
        translationsOffset + TranslationCache.count * MemoryLayout<TranslationCache.Entry>.stride
    static let jumpsOffset =
        translationsOffset + 2 * TranslationCache.count * MemoryLayout<TranslationCache.Entry>.stride
    private static let size = jumpsOffset + FetchCache.jumpCount * MemoryLayout<FetchCache.Jump>.stride

    let base: UnsafeMutableRawPointer

    init() {
        // Safety: freed by the HartState that made it.
        unsafe base = .allocate(byteCount: Self.size, alignment: 64)
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
    }

    func deallocate() { unsafe base.deallocate() }  // Safety: called once, by the owner's deinit.

    // Safety (both): fields are aligned doublewords inside the allocation.
    @inline(__always) subscript(field: Field) -> UInt64 {
        get { unsafe base.load(fromByteOffset: field.rawValue, as: UInt64.self) }
        nonmutating set { unsafe base.storeBytes(of: newValue, toByteOffset: field.rawValue, as: UInt64.self) }
    }
}
