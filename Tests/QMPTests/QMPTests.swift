import QMP
import TestKit
import Testing
import Wire

@Suite struct JSONTests {
    @Test(arguments: [
        ("{\"a\":[1,-2.5,true,null,\"x\\u00e9\\n\"]}", #"{"a":[1,-2.5,true,null,"xé\n"]}"#),
        ("{\"big\":9223372036854775807}", #"{"big":9223372036854775807}"#),
        ("{}", "{}"),
    ])
    func `values both ways`(text: String, again: String) throws {
        #expect(try #require(JSONValue(parsing: text)).text() == again)
    }

    @Test(arguments: ["", "{", "{\"a\":}", "nul", "{\"a\":1}x", String(repeating: "[", count: 100_000)])
    func `what is no JSON is nil and traps nothing`(text: String) { #expect(JSONValue(parsing: text) == nil) }

    @Test func `objects are found without line ends, across pieces, and with braces in strings`() {
        var scanner = JSONScanner()
        let stream = Array(#"{"a":"}{\""}{"b":1}"#.utf8)
        let items = stream.flatMap { scanner.feed([$0]) }
        #expect(items == [.object(Array(#"{"a":"}{\""}"#.utf8)), .object(Array(#"{"b":1}"#.utf8))])
    }

    @Test func `garbage costs its line, an endless object its length`() {
        var scanner = JSONScanner()
        #expect(scanner.feed(Array("hello\n{\"a\":1}".utf8)) == [.garbage, .object(Array("{\"a\":1}".utf8))])
        let endless = [UInt8(ascii: "{")] + [UInt8](repeating: UInt8(ascii: " "), count: JSONScanner.maximumLength)
        #expect(scanner.feed(endless) == [.garbage])
    }
}

@Suite struct QMPSessionTests {
    static let commands = [
        "echo": QMPCommand("echo", [.required("text", .string), .optional("times", .integer)]) {
            arguments throws(QMPError) in arguments["text"]!
        }
    ]

    static func converse(_ lines: [String]) -> [String] {
        var session = QMPSession()
        return lines.flatMap { session.receive(Array($0.utf8), commands: commands) }.map { $0.json.text() }
    }

    @Test func `commands wait for capabilities`() {
        let replies = Self.converse([
            #"{"execute":"echo","arguments":{"text":"a"},"id":1}"#, #"{"execute":"qmp_capabilities","id":2}"#,
            #"{"execute":"echo","arguments":{"text":"a"},"id":"three"}"#, #"{"execute":"qmp_capabilities"}"#,
        ])
        #expect(replies[0].contains("CommandNotFound") && replies[0].contains(#""id":1"#))
        #expect(replies[1] == #"{"id":2,"return":{}}"#)
        #expect(replies[2] == #"{"id":"three","return":"a"}"#)
        #expect(replies[3].contains("already complete"))
    }

    @Test(arguments: [
        (#"{"execute":"nothing"}"#, "The command nothing has not been found"),
        (#"{"execute":"echo"}"#, "Parameter 'text' is missing"),
        (#"{"execute":"echo","arguments":{"text":1}}"#, "Invalid parameter type for 'text', expected: string"),
        (#"{"execute":"echo","arguments":{"text":"a","tims":2}}"#, "Parameter 'tims' is unexpected"),
        (#"{"execute":"echo","arguments":[]}"#, "'arguments' must be an object"),
        (#"{"exec":"echo"}"#, "QMP input member 'exec' is unexpected"),
        (#"{"execute":1}"#, "QMP input lacks member 'execute'"),
        (#"{"execute":"#, ""),
        ("hello\n", "JSON parse error"),
        (#"{"a":tru}"#, "JSON parse error"),
    ])
    func `a bad command gets one error reply that names the fault`(line: String, text: String) {
        let replies = Self.converse([#"{"execute":"qmp_capabilities"}"#, line]).dropFirst()
        #expect(replies.count == (text.isEmpty ? 0 : 1))
        #expect(replies.allSatisfy { $0.contains(text) })
    }

    @Test func `no bytes trap a session`() {
        var generator = SeededGenerator.fresh()
        let alphabet = Array(#"{}[]":,\ "executeargumentsid0123456789qmp_capabilities"#.utf8)
        var session = QMPSession()
        for _ in 0..<2_000 {
            let bytes = (0..<Int.random(in: 1...60, using: &generator)).map { _ in
                alphabet[Int.random(in: 0..<alphabet.count, using: &generator)]
            }
            _ = session.receive(bytes, commands: Self.commands)
        }
    }
}

@Suite struct QMPServerTests {
    /// A server on its own thread; stopped by the returned closure.
    static func start() throws -> (server: QMPServer, path: String, folder: TemporaryFolder, stop: () -> Void) {
        let folder = TemporaryFolder()
        let loop = try EventLoop()
        let server = QMPServer(kind: "test", loop: loop)
        try server.serve(try Listener(path: folder.file("qmp")))
        let thread = WorkerThread("qmp") { loop.run() }
        return (
            server, folder.file("qmp"), folder,
            {
                loop.stop()
                thread.join()
            }
        )
    }

    @Test func `a client negotiates, asks, and hears events once each and in order`() throws {
        let (server, path, folder, stop) = try Self.start()
        defer { stop() }
        _ = folder
        server.emit("EARLY")
        let client = try QMPClient(path: path)
        let names = try client.execute("query-commands").arrayValue?.compactMap { $0["name"]?.stringValue }
        #expect(names == ["query-commands", "query-events", "query-version"])
        for index in 0..<100 { server.emit("TICK", ["index": .integer(Int64(index))]) }
        for index in 0..<100 {
            let event = try client.waitForEvent("TICK", until: .after(.seconds(10)))
            #expect(event.data["index"] == .integer(Int64(index)))
            #expect(event.monotonic != nil)
        }
        let history = try client.execute("query-events").arrayValue ?? []
        #expect(history.first?["event"] == "EARLY")
        #expect(history.count == 101)
    }

    @Test func `a client that sends garbage disturbs nobody else`() throws {
        let (_, path, folder, stop) = try Self.start()
        defer { stop() }
        _ = folder
        let other = try QMPClient(path: path)
        let rude = try Socket.connect(to: path)
        try rude.send(Array("garbage\u{0}\n{{{{".utf8))
        rude.shutdown()
        #expect(try other.execute("query-version")["package"] == "baseboard test")
    }
}
