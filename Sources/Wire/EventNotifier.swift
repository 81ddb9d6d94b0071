internal import CSystem

/// An eventfd: a counter that one side raises and the other drains or polls; interrupts travel in it.
public final class EventNotifier: Sendable {
    public let descriptor: Descriptor

    public init() throws(WireError) {
        let number = cs_eventfd()
        guard number >= 0 else { throw .last("eventfd", "event notifier") }
        descriptor = Descriptor(adopting: number)
    }

    /// Takes over an eventfd that a peer passed.
    public init(adopting descriptor: Descriptor) { self.descriptor = descriptor }

    /// Raises the counter by one. Never blocks: a full counter is raised already, and any descriptor may have come.
    public func signal() {
        var one: UInt64 = 1
        // Safety: eight bytes of a local variable.
        _ = unsafe write(descriptor.rawValue, &one, 8)
    }

    /// Takes the counter; true when it had been raised.
    @discardableResult
    public func drain() -> Bool {
        var count: UInt64 = 0
        // Safety: eight bytes of a local variable.
        return unsafe read(descriptor.rawValue, &count, 8) == 8 && count > 0
    }
}
