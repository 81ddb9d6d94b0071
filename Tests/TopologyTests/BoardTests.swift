import Component
import Glibc
import Testing
import Topology

private let base = """
    name: base
    components:
      flash0: {type: flash, image: chip.img}
      host0: {type: host-cpu, memory: 256MiB, harts: 2}
      bmc0: {type: bmc}
      card0: {type: offload-card, serial: A1}
    links:
      - spi: [host0, flash0]
      - serial: [host0, bmc0]
      - pcie: [host0.rp0, card0]

    """

private func folder(_ files: (String, String)...) -> TopologyFolder {
    let folder = TopologyFolder()
    folder.write("chip.img", "chip")
    folder.write("base.yaml", base)
    for (name, text) in files { folder.write(name, text) }
    return folder
}

private func links(_ board: Board) -> [String] {
    board.links.map { "\($0.wire): \($0.first) \($0.second), \($0.listener.map(\.description) ?? "outside") listens" }
}

@Suite struct BoardModelTests {
    @Test func `settings are read as their types`() throws {
        let board = try folder().board("base.yaml")
        let host = try #require(board.component(named: "host0"))
        #expect(board.name == "base")
        #expect(board.components.map(\.name) == ["flash0", "host0", "bmc0", "card0"])
        #expect(host.setting("memory") == .byteCount(.mebibytes(256)))
        #expect(host.setting("harts") == .integer(2))
        #expect(host.setting("interrupts") == nil)
        #expect(board.component(named: "card0")?.setting("serial") == .text("A1"))
    }

    @Test func `ports left out are inferred and the serving end listens`() throws {
        let board = try folder().board("base.yaml")
        #expect(
            links(board) == [
                "spi: host0.spi flash0.spi, flash0.spi listens",
                "serial: host0.serial bmc0.serial, bmc0.serial listens",
                "pcie: host0.rp0 card0.pcie, card0.pcie listens",
            ])
    }

    @Test func `a host with a firmware of its own needs no flash`() throws {
        let files = folder(
            ("alone.yaml", "name: alone\ncomponents:\n  host0: {type: host-cpu, firmware: chip.img}\n"),
            ("none.yaml", "name: none\ncomponents:\n  host0: {type: host-cpu}\n"))
        #expect(try files.board("alone.yaml").links.isEmpty)
        #expect(files.mistakes("none.yaml").contains { $0.contains("needs a link at its port 'spi'") })
    }

    @Test func `a port that is named later is not inferred earlier`() throws {
        let files = folder(
            (
                "board.yaml",
                """
                name: two
                components:
                  flash0: {type: flash, image: chip.img}
                  logic0: {type: security-logic, fuses: chip.img}
                  host0: {type: host-cpu}
                  adapter0: {type: adapter-card}
                  bmc0: {type: bmc}
                links:
                  - spi: [flash0, logic0]
                  - ethernet: [adapter0, bmc0]
                  - ethernet: [adapter0.eth-ext, listen:management]
                  - ethernet: [external:/run/peer.sock, adapter0.eth-host]
                  - spi: [host0, logic0.spi-host]
                """
            ))
        #expect(
            links(try files.board()) == [
                "spi: flash0.spi logic0.flash, flash0.spi listens",
                "ethernet: adapter0.eth-bmc bmc0.eth0, adapter0.eth-bmc listens",
                "ethernet: adapter0.eth-ext listen:management, adapter0.eth-ext listens",
                "ethernet: external:/run/peer.sock adapter0.eth-host, outside listens",
                "spi: host0.spi logic0.spi-host, logic0.spi-host listens",
            ])
    }

    @Test func `cards of programs outside are linked to root ports, function by function`() throws {
        let files = folder(
            (
                "board.yaml",
                """
                extends: base.yaml
                links:
                  - pcie: [host0.rp3, external:/run/card.sock]
                  - pcie: [external:/run/card-1.sock, host0.rp3.1]
                """
            ))
        #expect(
            links(try files.board()).suffix(2) == [
                "pcie: host0.rp3 external:/run/card.sock, outside listens",
                "pcie: external:/run/card-1.sock host0.rp3.1, outside listens",
            ])
    }

    @Test func `of two ethernet ports the first end named listens`() throws {
        for (ends, listener) in [("bmc0, a0.eth-bmc", "bmc0.eth0"), ("a0.eth-bmc, bmc0", "a0.eth-bmc")] {
            let files = folder(
                (
                    "board.yaml",
                    "extends: base.yaml\ncomponents:\n  a0: {type: adapter-card}\nlinks:\n  - ethernet: [\(ends)]\n"
                ))
            #expect(try files.board().links.last?.listener?.description == listener)
        }
    }

    @Test func `a file that a component makes itself need not be there, and is relative all the same`() throws {
        let files = folder(
            (
                "board.yaml",
                """
                name: own
                components:
                  flash0: {type: flash, image: chip.img}
                  logic0: {type: security-logic, fuses: chip.img, state: new.json, boot-timeout: 30s, verifier: logic}
                links:
                  - spi: [flash0, logic0]
                """
            ))
        let logic = try files.board().component(named: "logic0")
        #expect(logic?.setting("state") == .file("\(files.path)/new.json"))
        #expect(logic?.setting("boot-timeout") == .duration(.seconds(30)))
        files.write("bad.yaml", "extends: board.yaml\ncomponents:\n  logic0: {state: new/}\n")
        #expect(files.mistakes("bad.yaml") == ["bad.yaml:3:19: 'state' must be the path of a file, not 'new/'"])
    }

    @Test func `a file is relative to the topology that names it, or to the working directory on the command line`()
        throws
    {
        let files = folder()
        mkdir("\(files.path)/sub", 0o700)
        files.write("sub/board.yaml", "extends: ../base.yaml\nname: sub\n")
        let board = try files.board("sub/board.yaml")
        #expect(board.component(named: "flash0")?.setting("image") == .file("\(files.path)/chip.img"))
        let set = try files.board("sub/board.yaml", overrides: ["components.flash0.image=/etc/passwd"])
        #expect(set.component(named: "flash0")?.setting("image") == .file("/etc/passwd"))
    }
}

@Suite struct ExtendsTests {
    @Test func `only what differs is written`() throws {
        let files = folder(
            (
                "board.yaml",
                """
                extends: base.yaml
                name: derived
                components:
                  host0: {memory: 1GiB, harts: null}
                  card1: {type: offload-card}
                  bmc0: null
                remove-links:
                  - pcie: [card0, host0]
                links:
                  - pcie: [host0.rp5, card0]
                  - pcie: [host0.rp0, card1]
                """
            ))
        let board = try files.board()
        #expect(board.name == "derived")
        #expect(board.components.map(\.name) == ["flash0", "host0", "card0", "card1"])
        #expect(board.component(named: "host0")?.setting("memory") == .byteCount(.gibibytes(1)))
        #expect(board.component(named: "host0")?.setting("harts") == nil)
        #expect(
            links(board) == [
                "spi: host0.spi flash0.spi, flash0.spi listens", "pcie: host0.rp5 card0.pcie, card0.pcie listens",
                "pcie: host0.rp0 card1.pcie, card1.pcie listens",
            ])
    }

    @Test func `later overrides win and null takes a component away`() throws {
        let board = try folder().board(
            "base.yaml",
            overrides: [
                "components.host0.harts=3", "components.host0.harts=4", "name=other", "components.card0=null",
                "components.host0.memory=null",
            ])
        #expect(board.name == "other")
        #expect(board.component(named: "host0")?.setting("harts") == .integer(4))
        #expect(board.component(named: "host0")?.setting("memory") == nil)
        #expect(board.component(named: "card0") == nil)
        #expect(board.links.count == 2)
    }

    @Test func `a mistake is blamed on the file that wrote it`() {
        let files = folder(
            ("middle.yaml", "extends: base.yaml\ncomponents:\n  host0: {memory: 3B}\n"),
            ("board.yaml", "extends: middle.yaml\ncomponents:\n  host0: {harts: many}\n"))
        #expect(
            files.mistakes() == [
                "middle.yaml:3:19: 'memory' is 3B (3); it must be 64MiB to 64GiB",
                "board.yaml:3:18: 'harts' must be a whole number from 1 to 8, not 'many'",
            ])
    }

    @Test(arguments: [
        ("board.yaml", "extends: board.yaml\n", "'extends' goes round in a loop: this file extends itself"),
        (
            "base.yaml", "extends: board.yaml\n",
            "'extends' goes round in a loop: this file extends 'board.yaml', which extends this file"
        ),
    ])
    func `a loop of extends is refused`(_ example: (file: String, text: String, expected: String)) {
        let files = folder(("board.yaml", "extends: base.yaml\n"))
        files.write(example.file, example.text)
        #expect(files.mistakes() == ["\(example.file):1:10: \(example.expected)"])
    }

    @Test func `a loop through a symbolic link is refused`() {
        let files = folder(("board.yaml", "extends: alias.yaml\n"))
        symlink("board.yaml", "\(files.path)/alias.yaml")
        #expect(files.mistakes() == ["board.yaml:1:10: 'extends' goes round in a loop: this file extends itself"])
    }

    @Test func `a long chain of extends is refused`() {
        let files = folder()
        for index in 0..<40 { files.write("b\(index).yaml", "extends: b\(index + 1).yaml\n") }
        #expect(files.mistakes("b0.yaml") == ["b15.yaml:1:10: more than 16 topologies extend one another"])
    }

    @Test(arguments: [
        ("extends: none.yaml\n", "board.yaml:1:10: cannot extend 'none.yaml': no such file"),
        ("extends: .\n", "board.yaml:1:10: cannot extend '.': is not a regular file"),
        (
            "extends: base.yaml\ncomponents:\n  card9: null\n",
            "board.yaml:3:3: component 'card9' is not there to be removed; did you mean 'card0'?"
        ),
        (
            "extends: base.yaml\nremove-links:\n  - pcie: [host0.rp1, card0]\n",
            "board.yaml:3:5: no inherited link 'pcie: [host0.rp1, card0]' to remove; 'pcie' links are [host0.rp0, card0]"
        ),
        (
            "extends: base.yaml\nremove-links:\n  - spy: [host0, card0]\n",
            "board.yaml:3:5: no inherited link 'spy: [host0, card0]' to remove; there are no 'spy' links"
        ),
    ])
    func `what cannot be extended or removed is a mistake`(_ example: (text: String, expected: String)) {
        let files = folder(("board.yaml", example.text))
        #expect(files.mistakes().map { $0.replacing("'\(files.path)/.'", with: "'.'") } == [example.expected])
    }
}

@Suite struct HostileFileTests {
    @Test func `a FIFO is refused instead of waited for`() {
        let files = TopologyFolder()
        mkfifo("\(files.path)/board.yaml", 0o600)
        #expect(files.mistakes() == ["board.yaml:1:1: cannot read the topology: is not a regular file"])
    }

    @Test func `of a very long line the part around the mistake is shown`() {
        let files = TopologyFolder()
        files.write(
            "board.yaml", "\(String(repeating: " ", count: 50_000))[\(String(repeating: "x", count: 50_000))]\n")
        let error = #expect(throws: TopologyError.self) { try TopologyReader.read("\(files.path)/board.yaml") }
        let lines = (error?.description ?? "").split(separator: "\n")
        #expect(lines.count >= 3)
        #expect(lines.dropFirst().allSatisfy { $0.unicodeScalars.count < 200 })
    }

    @Test func `a file that is missing, too large or not text is refused`() {
        let files = TopologyFolder()
        #expect(files.mistakes("none.yaml") == ["none.yaml:1:1: cannot read the topology: no such file"])
        files.write("large.yaml", [UInt8](repeating: 0x20, count: 1 << 20 + 1))
        #expect(
            files.mistakes("large.yaml") == [
                "large.yaml:1:1: cannot read the topology: is larger than 1MiB, too large for a topology"
            ])
        files.write("latin.yaml", Array("name: a\n# caf".utf8) + [0xE9, 0x0A])
        #expect(
            files.mistakes("latin.yaml") == ["latin.yaml:1:1: cannot read the topology: is not UTF-8 text (line 2)"])
    }

    /// A billion values in a few lines, as values and as keys, also where quotes hide the aliases from a simple scan.
    @Test(arguments: ["%", "'%'", "{%: x}"])
    func `an alias bomb is refused in no time`(_ form: String) {
        var text = "name: bomb\nz: foo\n  'bar\na0: &a0 [x, x]\n"
        for level in 1...40 {
            let reference = form.replacing("%", with: "*a\(level - 1)")
            text += "a\(level): &a\(level) [\(reference), \(reference)]\n"
        }
        let files = TopologyFolder()
        files.write("board.yaml", text)
        let start = ContinuousClock.now
        #expect(!files.mistakes().isEmpty)
        #expect(ContinuousClock.now - start < .seconds(1))
    }

    @Test func `random bytes and cut files end in mistakes, never in a trap`() {
        var generator = SystemRandomNumberGenerator()
        let seed = generator.next()
        var random = SplitMix(state: seed)
        let files = folder()
        let text = Array(base.utf8)
        for _ in 0..<300 {
            var bytes = Array(text.prefix(Int(random.next() % UInt64(text.count + 1))))
            for _ in 0..<(random.next() % 8) where !bytes.isEmpty {
                bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            files.write("board.yaml", bytes)
            _ = files.mistakes()
        }
        #expect(Bool(true), "seed \(seed)")
    }
}

private struct SplitMix {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite struct QuantityTests {
    @Test(
        arguments: [
            ("0", 0), ("4096", 4096), ("64KiB", 65536), ("512MiB", 1 << 29), ("2GiB", 1 << 31), ("1TiB", 1 << 40),
            ("16B", 16),
        ] as [(String, UInt64)])
    func `sizes are read`(_ example: (text: String, bytes: UInt64)) {
        #expect(ByteCount(parsing: example.text)?.bytes == example.bytes)
    }

    @Test(arguments: [
        "", "MiB", "512MB", "512 MiB", "-1", "1.5GiB", "0x10", "18446744073709551616", "16777216TiB", "٣",
    ])
    func `what is no size is refused`(_ text: String) {
        #expect(ByteCount(parsing: text) == nil)
    }

    @Test(
        arguments: [(1 << 29, "512MiB"), (3 << 30, "3GiB"), (4097, "4097"), (0, "0"), (1024, "1KiB")]
            as [(UInt64, String)])
    func `a size is spelled in its largest whole unit`(_ example: (bytes: UInt64, text: String)) {
        #expect(ByteCount(example.bytes).description == example.text)
    }

    @Test(arguments: ["5ns", "50us", "50ms", "3s", "2min"])
    func `a duration is read and spelled alike`(_ text: String) {
        #expect(Duration(parsing: text)?.spelled == text)
    }

    @Test(arguments: ["", "5", "5h", "-5s", "1.5s", "99999999999999999999s", "9223372036854775807min"])
    func `what is no duration is refused`(_ text: String) {
        #expect(Duration(parsing: text) == nil)
    }
}

@Suite struct ShippedTopologyTests {
    private static let topologies = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/topology"

    @Test func `minimal is a ten-line tour`() throws {
        let board = try TopologyReader.read(
            Self.topologies + "/minimal.yaml", overrides: ["components.flash0.image=\(#filePath)"])
        #expect(board.components.map(\.kind.name) == ["flash", "host-cpu"])
        #expect(links(board) == ["spi: host0.spi flash0.spi, flash0.spi listens"])
    }

    @Test func `server is the whole board`() throws {
        let board = try TopologyReader.read(
            Self.topologies + "/server.yaml",
            overrides: ["components.flash0.image=\(#filePath)", "components.logic0.fuses=\(#filePath)"])
        #expect(
            board.components.map(\.kind.name).sorted() == [
                "adapter-card", "bmc", "flash", "host-cpu", "offload-card", "security-logic",
            ])
        #expect(board.links.count == 16)
        #expect(board.component(named: "adapter0")?.setting("master") == .boolean(true))
    }
}
