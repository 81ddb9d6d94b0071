// Standard output and error: whole lines, colours only for people, no buffers that a death could lose.

import Glibc
import Launcher
import Topology
import Wire

/// Never closed by us.
let standardInput = Descriptor(adopting: 0)
let standardOutput = Descriptor(adopting: 1)
let standardError = Descriptor(adopting: 2)

/// Writes to standard output. Nobody reading any more ends the program, as `head` expects.
func write(_ text: String) { write(Array(text.utf8)) }

func write(_ bytes: [UInt8]) {
    do { try standardOutput.writeAll(bytes, subject: "standard output") } catch { endProcess(1) }
}

func writeError(_ text: String) {
    // Nothing is left to tell it to.
    try? standardError.writeAll(Array(text.utf8), subject: "standard error")
}

/// `baseboard: …` on standard error.
func complain(_ text: String) {
    writeError(Colour.red.around("baseboard: ", on: 2) + text + "\n")
}

/// Mistakes as a compiler says them.
func complain(topology error: TopologyError) {
    for diagnostic in error.diagnostics {
        let text = diagnostic.description
        let parts = text.split(separator: ": error: ", maxSplits: 1)
        guard parts.count == 2 else {
            writeError(text + "\n")
            continue
        }
        writeError(parts[0] + ": " + Colour.red.around("error: ", on: 2) + parts[1] + "\n")
    }
    let count = error.diagnostics.count
    writeError("\(count) mistake\(count == 1 ? "" : "s")\n")
}

enum Colour: String {
    case red = "31"
    case green = "32"
    case yellow = "33"
    case dim = "2"
    case bold = "1"

    /// `text` in this colour where `descriptor` is a terminal that shows colours and nobody asked for none.
    func around(_ text: String, on descriptor: Int32 = 1) -> String {
        Self.isWanted(descriptor) ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
    }

    private static func isWanted(_ descriptor: Int32) -> Bool {
        isatty(descriptor) == 1 && Environment.current["NO_COLOR"] == nil && Environment.current["TERM"] != "dumb"
    }
}

/// Waits until one of `descriptors` is readable or at its end, at most until `deadline`; the ready ones, in order.
func waitReadable(_ descriptors: [Descriptor], until deadline: MonotonicTime? = nil) -> [Bool] {
    var entries = descriptors.map { pollfd(fd: $0.rawValue, events: Int16(POLLIN), revents: 0) }
    while true {
        var limit: Int32 = -1
        if let deadline {
            limit = Int32(clamping: (deadline.since(.now).clampedNanoseconds + 999_999) / 1_000_000)
        }
        let count = poll(&entries, nfds_t(entries.count), limit)
        if count < 0, errno == EINTR { continue }
        return entries.map { $0.revents != 0 }
    }
}
