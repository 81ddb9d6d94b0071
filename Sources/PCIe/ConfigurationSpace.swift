internal import VFIOUser

/// The 4096 bytes of one function's configuration space, with what software may do to each bit.
///
/// A bit is read-only, writable (`writeMask`), or cleared by writing a one (`clearMask`). Accesses of any width at any
/// offset are byte-wise: that is how masks compose. What software cannot change, the function itself changes by the
/// `set` methods.
///
/// Spec: PCI Express Base §7.5.1 (header), §7.2 (access).
public struct ConfigurationSpace: Sendable {
    public static let size = ConfigurationRegister.size

    private var bytes: [UInt8]
    private var writeMask: [UInt8]
    private var clearMask: [UInt8]
    /// Where the next capability goes, and where its address is written.
    private var capabilityEnd = ConfigurationRegister.headerSize
    private var capabilityLink = ConfigurationRegister.capabilityList
    private var extendedEnd = ConfigurationRegister.conventionalSize
    private var extendedLink: Int?

    /// All zeros and read-only.
    public init() {
        bytes = [UInt8](repeating: 0, count: Self.size)
        writeMask = bytes
        clearMask = bytes
    }

    // MARK: What software does

    /// An access of 1…8 bytes; what lies beyond the end reads as ones.
    public func read(_ offset: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<min(width, 8) {
            let place = offset &+ index
            let byte: UInt8 = place >= 0 && place < Self.size ? bytes[place] : 0xFF
            value |= UInt64(byte) << UInt64(index * 8)
        }
        return value
    }

    /// An access of 1…8 bytes; what lies beyond the end is dropped.
    public mutating func write(_ offset: Int, width: Int, value: UInt64) {
        for index in 0..<min(width, 8) {
            let place = offset &+ index
            guard place >= 0, place < Self.size else { continue }
            writeByte(place, UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
        }
    }

    private mutating func writeByte(_ place: Int, _ value: UInt8) {
        let kept = bytes[place] & ~writeMask[place]
        bytes[place] = (kept | (value & writeMask[place])) & ~(value & clearMask[place])
    }

    /// Reads a range into a span of any length.
    public func read(_ offset: Int, into span: inout MutableRawSpan) {
        for index in 0..<span.byteCount {
            let place = offset &+ index
            let byte: UInt8 = place >= 0 && place < Self.size ? bytes[place] : 0xFF
            span.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
    }

    /// Writes a span of any length.
    public mutating func write(_ offset: Int, from span: RawSpan) {
        for index in 0..<span.byteCount {
            let place = offset &+ index
            if place >= 0, place < Self.size { writeByte(place, span.uint8(at: index)) }
        }
    }

    // MARK: Migration

    /// All bytes as they are.
    var image: [UInt8] { bytes }

    /// Takes the bits that software may change from another space's image. False, and nothing is changed, where that
    /// is of another length or of another function: its identity, class or kind of header differs.
    mutating func restore(_ image: ArraySlice<UInt8>) -> Bool {
        guard image.count == Self.size else { return false }
        let first = image.startIndex
        let identity = [
            ConfigurationRegister.vendorID..<ConfigurationRegister.command,
            ConfigurationRegister.revisionID..<ConfigurationRegister.cacheLineSize,
            ConfigurationRegister.headerType..<ConfigurationRegister.headerType + 1,
        ]
        for range in identity
        where !image[first + range.lowerBound..<first + range.upperBound].elementsEqual(bytes[range]) {
            return false
        }
        for place in 0..<Self.size {
            let changeable = writeMask[place] | clearMask[place]
            bytes[place] = bytes[place] & ~changeable | image[first + place] & changeable
        }
        return true
    }

    // MARK: What the function itself does

    public func get8(_ offset: Int) -> UInt8 { bytes[offset] }
    public func get16(_ offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: read(offset, width: 2)) }
    public func get32(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: read(offset, width: 4)) }

    /// Sets a register's value, and if given which of its bits software may write or clear.
    /// Precondition: the register lies inside.
    public mutating func set<Value: FixedWidthInteger & UnsignedInteger>(
        _ offset: Int, _ value: Value, writable: Value? = nil, writeOneToClear: Value? = nil
    ) {
        for index in 0..<(Value.bitWidth / 8) {
            let shift = Value(index * 8)
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> shift)
            if let writable { writeMask[offset + index] = UInt8(truncatingIfNeeded: writable >> shift) }
            if let writeOneToClear { clearMask[offset + index] = UInt8(truncatingIfNeeded: writeOneToClear >> shift) }
        }
    }

    public mutating func set8(_ offset: Int, _ value: UInt8, writable: UInt8? = nil) {
        set(offset, value, writable: writable)
    }

    public mutating func set16(_ offset: Int, _ value: UInt16, writable: UInt16? = nil) {
        set(offset, value, writable: writable)
    }

    public mutating func set32(_ offset: Int, _ value: UInt32, writable: UInt32? = nil) {
        set(offset, value, writable: writable)
    }

    // MARK: Base address registers

    /// Makes base address register `index` decode a window of `size` bytes, a power of two of 16 or more; with
    /// `is64Bit` it takes the next register too. Software reads the size by writing ones.
    public mutating func setBaseAddress(_ index: Int, size: UInt64, is64Bit: Bool, prefetchable: Bool) {
        precondition(size >= 16 && size & (size - 1) == 0, "a base address register decodes a power of two")
        precondition(is64Bit ? index < 5 : index < 6 && size <= 1 << 31, "base address register \(index)")
        let place = ConfigurationRegister.baseAddress0 + index * 4
        let flags = (is64Bit ? BaseAddressBits.memory64 : 0) | (prefetchable ? BaseAddressBits.prefetchable : 0)
        let mask = ~(size - 1)
        set32(place, flags, writable: UInt32(truncatingIfNeeded: mask) & ~BaseAddressBits.memoryFlags)
        if is64Bit { set32(place + 4, 0, writable: UInt32(truncatingIfNeeded: mask >> 32)) }
    }

    /// Makes base address register `index` decode `size` bytes of I/O space, a power of two of 4 to 256.
    mutating func setIOBaseAddress(_ index: Int, size: UInt64) {
        let place = ConfigurationRegister.baseAddress0 + index * 4
        let mask = UInt32(truncatingIfNeeded: ~(size - 1)) & ~BaseAddressBits.ioFlags
        set32(place, BaseAddressBits.space, writable: mask)
    }

    /// Makes the expansion ROM's base address register decode `size` bytes, a power of two of 2 KiB or more.
    mutating func setROMBaseAddress(size: UInt64) {
        let mask = UInt32(truncatingIfNeeded: ~(size - 1)) & ~0x7FF
        set32(ConfigurationRegister.romAddress, 0, writable: mask | BaseAddressBits.romEnable)
    }

    /// The address in a base address register.
    public func baseAddress(_ index: Int, is64Bit: Bool) -> UInt64 {
        let place = ConfigurationRegister.baseAddress0 + index * 4
        let low = UInt64(get32(place) & ~BaseAddressBits.memoryFlags)
        return is64Bit ? low | UInt64(get32(place + 4)) << 32 : low
    }

    // MARK: Capabilities

    /// Adds a capability of `size` bytes to the list, 4-byte aligned, and returns its offset.
    /// Precondition: it fits below 0x100.
    @discardableResult
    public mutating func addCapability(_ identifier: UInt8, size: Int) -> Int {
        let place = (capabilityEnd + 3) & ~3
        precondition(place + size <= ConfigurationRegister.conventionalSize, "capabilities end at 0x100")
        bytes[capabilityLink] = UInt8(place)
        bytes[place] = identifier
        bytes[place + 1] = 0
        capabilityLink = place + 1
        capabilityEnd = place + size
        let status = get16(ConfigurationRegister.status) | StatusBits.capabilityList
        set16(ConfigurationRegister.status, status)
        return place
    }

    /// Adds an extended capability of `size` bytes and returns its offset. Precondition: it fits.
    @discardableResult
    public mutating func addExtendedCapability(_ identifier: UInt16, version: UInt8, size: Int) -> Int {
        let place = (extendedEnd + 3) & ~3
        precondition(size >= 4 && place + size <= Self.size, "extended capabilities end at 0x1000")
        set32(place, UInt32(identifier) | UInt32(version & 0xF) << 16)
        if let extendedLink { set32(extendedLink, get32(extendedLink) | UInt32(place) << 20) }
        extendedLink = place
        extendedEnd = place + size
        return place
    }

    /// The offset of an extended capability, found as software finds it, or nil.
    public func extendedCapability(_ identifier: UInt16) -> Int? {
        var place = ConfigurationRegister.conventionalSize
        // As many as fit; a chain that is longer loops.
        for _ in 0..<480 where place >= ConfigurationRegister.conventionalSize && place <= Self.size - 4 {
            let head = get32(place)
            if head == 0 || head == .max { return nil }
            if UInt16(truncatingIfNeeded: head) == identifier { return place }
            place = Int(head >> 20) & ~3
        }
        return nil
    }

    /// The offset of the first capability of a kind, found as software finds it, or nil.
    public func capability(_ identifier: UInt8) -> Int? { capabilities(identifier).first }

    /// The offsets of all capabilities of a kind, in the order of the list.
    public func capabilities(_ identifier: UInt8) -> [Int] {
        var found: [Int] = []
        var place = Int(bytes[ConfigurationRegister.capabilityList] & 0xFC)
        // 48 capabilities of 4 bytes fill the list; a chain that is longer loops.
        for _ in 0..<48 where place >= ConfigurationRegister.headerSize && place < 0xFF {
            if bytes[place] == identifier { found.append(place) }
            place = Int(bytes[place + 1] & 0xFC)
        }
        return found
    }
}
