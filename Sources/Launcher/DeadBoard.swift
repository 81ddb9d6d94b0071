// What a supervisor leaves running that was killed. Its processes end with it (--die-with-parent), but a moment after it,
// and hold meanwhile what the next board of that name needs: the lock of a flash image or of a disk, a TCP port.

internal import Glibc
internal import QMP
internal import Wire

/// The processes of a board whose supervisor died. For whoever holds the folder's lock.
struct DeadBoard {
    private let folder: RuntimeFolder
    private let components: [BoardRecord.Component]

    /// The board whose record is in `folder`; none where there is no record.
    init(_ folder: RuntimeFolder) {
        self.folder = folder
        let record = Files.read(folder.recordPath).flatMap { JSONValue(parsing: $0) }.flatMap { BoardRecord(json: $0) }
        components = record?.components.filter { $0.pid > 0 && $0.state != .ended } ?? []
    }

    /// Waits until all are gone; kills those that do not go by themselves.
    ///
    /// - Parameter patience: how long they have, all together.
    /// - Returns: the names of those that were killed.
    func waitForEnd(patience: Duration) -> [String] {
        let deadline = MonotonicTime.after(patience)
        var killed: [String] = []
        for component in components {
            // The descriptor first: what is read of the process afterwards is of the one it stands for, or that is over.
            guard let end = try? ProcessIdentifier.endDescriptor(of: component.pid), isOurs(component) ?? true,
                !hasEnded(end, until: deadline), isOurs(component) == true
            else { continue }
            ProcessIdentifier.signal(component.pid, SIGKILL)
            // What it held is given back meanwhile; gigabytes of memory take a part of a second.
            _ = hasEnded(end, until: .after(.seconds(1)))
            killed.append(component.name)
        }
        return killed
    }

    /// Whether the process with the component's number is the component: numbers come again. nil while it ends, when its
    /// environment is gone before what it has open.
    private func isOurs(_ component: BoardRecord.Component) -> Bool? {
        guard let environment = Files.read("/proc/\(component.pid)/environ") else { return false }
        guard !environment.isEmpty else { return nil }
        let ours = Array("NOTIFY_SOCKET=\(folder.notifyPath(component.name))".utf8)
        return environment.split(separator: 0).contains { $0.elementsEqual(ours) }
    }

    private func hasEnded(_ end: Descriptor, until deadline: MonotonicTime) -> Bool {
        var entry = pollfd(fd: end.rawValue, events: Int16(POLLIN), revents: 0)
        while true {
            let left = deadline.since(.now).clampedNanoseconds
            // Safety: one entry, count one.
            let count = unsafe poll(&entry, 1, Int32(clamping: (left + 999_999) / 1_000_000))
            if count >= 0 || errno != EINTR { return count > 0 }
        }
    }
}
