import _Volatile

/// The firmware's working memory: handed out from the start, never given back.
struct Arena {
    private var next: UInt
    private let end: UInt

    init() {
        next = arenaStart()
        end = arenaEnd()
    }

    /// Zeroed memory, or nil when there is too little left. `alignment` is a power of two.
    mutating func take(_ size: UInt, alignment: UInt) -> UInt? {
        let start = (next &+ alignment &- 1) & ~(alignment &- 1)
        guard start >= next, start <= end, size <= end &- start else { return nil }
        next = start &+ size
        // Safety: the range is the arena's and was never handed out before.
        guard let pointer = unsafe UnsafeMutableRawPointer(bitPattern: start) else { return nil }
        unsafe pointer.initializeMemory(as: UInt8.self, repeating: 0, count: Int(size))
        return start
    }
}

/// A list of fixed capacity in the arena; what does not fit is counted.
@safe struct Store<Element: BitwiseCopyable> {
    private let elements: UnsafeMutablePointer<Element>
    private let capacity: Int
    private(set) var count = 0
    /// Elements that found no room.
    private(set) var dropped = 0

    init?(capacity: Int, in arena: inout Arena) {
        let size = UInt(capacity) &* UInt(MemoryLayout<Element>.stride)
        guard let address = arena.take(size, alignment: UInt(MemoryLayout<Element>.alignment)),
            let elements = unsafe UnsafeMutablePointer<Element>(bitPattern: address)
        else { return nil }
        unsafe self.elements = elements
        self.capacity = capacity
    }

    /// The index of the new element, or nil when the list is full.
    mutating func append(_ element: Element) -> Int? {
        guard count < capacity else {
            dropped &+= 1
            return nil
        }
        // Safety: below the capacity that the memory was taken for.
        unsafe elements.advanced(by: count).initialize(to: element)
        count &+= 1
        return count &- 1
    }

    subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "index beyond the list")
            // Safety: below `count`, so initialised.
            return unsafe elements[index]
        }
        nonmutating set {
            precondition(index >= 0 && index < count, "index beyond the list")
            unsafe elements[index] = newValue
        }
    }
}
