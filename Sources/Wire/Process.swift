internal import CSystem

/// Has the kernel send SIGTERM to this process when the thread that started it ends.
public func endWithParent() { _ = cs_die_with_parent(SIGTERM) }

/// Blocks SIGTERM, SIGINT and SIGHUP (a terminal that was closed; not where it is ignored, as by nohup) in this thread
/// and those it starts later, ignores SIGPIPE, and returns a descriptor that becomes readable at each: they end a process
/// between two events and not inside one.
public func takeTerminationSignals() throws(WireError) -> Descriptor {
    let number = cs_take_termination()
    guard number >= 0 else { throw .last("signalfd", "signals") }
    return Descriptor(adopting: number)
}

/// Ends the process at once, other threads with it.
public func endProcess(_ code: Int32) -> Never { exit(code) }
