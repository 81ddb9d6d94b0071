import Management
import Testing

struct ConsoleTests {
    @Test func `the log keeps the newest bytes and says where they begin`() {
        var log = ConsoleLog(capacity: 8)
        let text = Array("0123456789AB".utf8)
        log.append(text.span)
        #expect(log.start == 4)
        #expect(log.end == 12)
        #expect(log.read(from: 0, limit: 100).bytes == Array("456789AB".utf8))
        #expect(log.read(from: 10, limit: 100).bytes == Array("AB".utf8))
        let (bytes, next) = log.read(from: 2, limit: 3)
        #expect(bytes == Array("456".utf8))
        #expect(next == 7)
        #expect(log.read(from: 12, limit: 5).bytes == [])
        #expect(log.read(from: .max, limit: 5).next == 12)
        #expect(log.read(from: 0, limit: -1).bytes == [])
    }

    static let ready = "Baseboard firmware: ready"

    static let streams: [(text: String, isThere: Bool)] = [
        ("\(ready)\n", true), ("\(ready)\r\n", true), ("noise\r\n\(ready)\r\nmore", true), (ready, false),
        ("x\(ready)\n", false), ("\(ready) \n", false), ("Baseboard firmware: read\ny\n", false),
        ("\(ready)\(ready)\n", false), ("\n\n\n", false), ("\(ready)\rx\n", false),
    ]

    @Test(arguments: streams)
    func `the line is found wherever the stream is cut, and only the whole line`(text: String, isThere: Bool) {
        let bytes = Array(text.utf8)
        for piece in 1...bytes.count {
            var matcher = LineMatcher(Self.ready)
            var found = false
            for start in stride(from: 0, to: bytes.count, by: piece) {
                let chunk = Array(bytes[start..<min(start + piece, bytes.count)])
                if matcher.feed(chunk.span) { found = true }
            }
            #expect(found == isThere, "in pieces of \(piece)")
        }
    }

    @Test func `a reset forgets the line that has begun`() {
        var matcher = LineMatcher("ab")
        let head = Array("a".utf8)
        let tail = Array("b\n".utf8)
        #expect(matcher.feed(head.span) == false)
        matcher.reset()
        #expect(matcher.feed(tail.span) == false)
    }

    @Test func `lines are split, long ones in pieces, empty ones not at all`() {
        var splitter = LineSplitter()
        var lines: [Int] = []
        let text = Array(("one\r\n\r\n\n" + String(repeating: "x", count: 2500) + "\nlast").utf8)
        splitter.feed(text.span) { lines.append($0.count) }
        #expect(lines == [3, 1024, 1024, 452])
    }

    static let times: [(time: UInt64, text: String)] = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399_999_999_999, "2000-02-28T23:59:59.999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
        (1_709_210_096_123_456_789, "2024-02-29T12:34:56.123456Z"),
        (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),
        (.max, "2554-07-21T23:34:33.709551Z"),
    ]

    @Test(arguments: times)
    func `a syslog message says when and who`(time: UInt64, text: String) {
        let line = Array("a\u{1B}[1mb".utf8)
        let message = String(decoding: SyslogMessage.encode(line: line, time: time, hostname: "bmc 0"), as: UTF8.self)
        #expect(message == "<134>1 \(text) bmc_0 bmc - console - a?[1mb")
    }
}
