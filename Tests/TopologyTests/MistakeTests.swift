import Testing

/// One mistake, or several: the text of a topology and what is said about it.
struct MistakeCase: Sendable, CustomTestStringConvertible {
    var name: String
    var text: String
    var expected: [String]
    var overrides: [String] = []

    init(_ name: String, _ text: String, overrides: [String] = [], _ expected: String...) {
        self.name = name
        self.text = text
        self.overrides = overrides
        self.expected = expected
    }

    var testDescription: String { name }
}

private let good = """
    name: test
    components:
      flash0: {type: flash, image: chip.img}
      host0: {type: host-cpu}
    links:
      - spi: [host0, flash0]

    """

/// A whole board where one line of `good` is another.
private func changed(_ line: Int, _ text: String) -> String {
    var lines = good.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    lines[line - 1] = text
    return lines.joined(separator: "\n")
}

/// A board with a security logic `l0`, one more component in line 6, and more links from line 10 on.
private func withLogic(_ component: String, _ links: String) -> String {
    """
    name: test
    components:
      flash0: {type: flash, image: chip.img}
      host0: {type: host-cpu}
      l0: {type: security-logic, fuses: chip.img}
    \(component)
    links:
      - spi: [l0.flash, flash0]
      - spi: [host0, l0.spi-host]
    \(links)

    """
}

private let shapeCases: [MistakeCase] = [
    MistakeCase("an empty file", "", "board.yaml:1:1: the file is empty; a topology has 'name' and 'components'"),
    MistakeCase(
        "a list instead of a map", "- a\n",
        "board.yaml:1:1: a topology is a map with 'name' and 'components', found a list"),
    MistakeCase(
        "text that is not YAML", "name: [a\ncomponents: {}\n",
        "board.yaml:2:11: not YAML: did not find expected ',' or ']' (while parsing a flow sequence at line 1)"),
    MistakeCase(
        "two documents", good + "---\nname: other\n",
        "board.yaml:7:1: not YAML: but found another document (expected a single document in the stream at line 1)"),
    MistakeCase(
        "an unknown key at the top", good + "nmae: x\n", "board.yaml:7:1: unknown key 'nmae'; did you mean 'name'?"),
    MistakeCase(
        "an unknown key like no other", good + "colour: x\n",
        "board.yaml:7:1: unknown key 'colour'; known keys: components, extends, links, name, remove-links"),
    MistakeCase(
        "no name and no components", "links: []\n",
        "board.yaml:1:1: the board has no name; write one, such as 'name: server'",
        "board.yaml:1:1: the board has no components; write some below 'components:'"),
    MistakeCase(
        "a name with other letters", changed(1, "name: My Board"),
        "board.yaml:1:7: 'My Board' cannot be a board's name; a name is at most 24 lower-case letters, digits and '-', "
            + "and begins with a letter"),
    MistakeCase(
        "a name that is a list", changed(1, "name: [a]"), "board.yaml:1:7: 'name' must be a word, found a list",
        "board.yaml:1:1: the board has no name; write one, such as 'name: server'"),
    MistakeCase(
        "a key written twice", changed(4, "  host0: {type: host-cpu, harts: 2, harts: 1}"),
        "board.yaml:4:37: key 'harts' is written twice (first at line 4); keep one"),
    MistakeCase(
        "a component written twice", good.replacing("links:", with: "  host0: {type: host-cpu}\nlinks:"),
        "board.yaml:5:3: key 'host0' is written twice (first at line 4); keep one"),
    MistakeCase(
        "components as a list", "name: x\ncomponents: [flash0]\n",
        "board.yaml:2:13: 'components' must be a map of names to settings, found a list",
        "board.yaml:1:1: the board has no components; write some below 'components:'"),
    MistakeCase(
        "an alias", "name: &n test\ncomponents: {}\nlinks: [*n]\n",
        "board.yaml:1:7: anchors and aliases are not part of a topology; write the value out, or share it by 'extends'"),
    MistakeCase(
        "nesting without end", "name: " + String(repeating: "[", count: 40) + String(repeating: "]", count: 40) + "\n",
        "board.yaml:1:22: nested more than 16 deep; a topology needs four",
        "board.yaml:1:7: 'name' must be a word, found a list",
        "board.yaml:1:1: the board has no components; write some below 'components:'",
        "board.yaml:1:1: the board has no name; write one, such as 'name: server'"),
]

private let componentCases: [MistakeCase] = [
    MistakeCase(
        "a misspelt setting", changed(4, "  host0: {type: host-cpu, memroy: 1GiB}"),
        "board.yaml:4:27: unknown key 'memroy' in component 'host0'; did you mean 'memory'?"),
    MistakeCase(
        "an unknown type", changed(3, "  flash0: {type: flesh, image: chip.img}"),
        "board.yaml:3:18: unknown component type 'flesh'; did you mean 'flash'?"),
    MistakeCase(
        "no type", changed(3, "  flash0: {image: chip.img}"),
        "board.yaml:3:3: component 'flash0' has no type; known types: adapter-card, bmc, flash, host-cpu, offload-card, "
            + "security-logic"),
    MistakeCase(
        "a type that is a map", changed(3, "  flash0: {type: {a: b}, image: chip.img}"),
        "board.yaml:3:18: 'type' must be a word such as 'flash', found a map"),
    MistakeCase(
        "a component that is a word", changed(3, "  flash0: chip.img"),
        "board.yaml:3:11: component 'flash0' must be a map such as {type: flash, image: flash.img}, found 'chip.img'"),
    MistakeCase(
        "a component's name in capitals", changed(3, "  Flash: {type: flash, image: chip.img}"),
        "board.yaml:3:3: 'Flash' cannot be a component's name; a name is at most 24 lower-case letters, digits and '-', "
            + "and begins with a letter",
        "board.yaml:6:18: unknown component 'flash0'; did you mean 'Flash'?"),
    MistakeCase(
        "a required setting left out", changed(3, "  flash0: {type: flash}"),
        "board.yaml:3:3: component 'flash0' (flash) needs 'image': what the chip holds at power-on"),
    MistakeCase(
        "a size in decimal units", changed(4, "  host0: {type: host-cpu, memory: 512MB}"),
        "board.yaml:4:35: 'memory' must be a size in B, KiB, MiB, GiB or TiB, such as 64MiB, not '512MB'"),
    MistakeCase(
        "a size too small", changed(4, "  host0: {type: host-cpu, memory: 512}"),
        "board.yaml:4:35: 'memory' is 512; it must be 64MiB to 64GiB"),
    MistakeCase(
        "a size too large", changed(4, "  host0: {type: host-cpu, memory: 1TiB}"),
        "board.yaml:4:35: 'memory' is 1TiB; it must be 64MiB to 64GiB"),
    MistakeCase(
        "a size of more than 64 bits", changed(4, "  host0: {type: host-cpu, memory: 99999999TiB}"),
        "board.yaml:4:35: 'memory' must be a size in B, KiB, MiB, GiB or TiB, such as 64MiB, not '99999999TiB'"),
    MistakeCase(
        "a size that is no multiple", changed(4, "  host0: {type: host-cpu, memory: 65MiB}"),
        "board.yaml:4:35: 'memory' is 65MiB; it must be a multiple of 2MiB"),
    MistakeCase(
        "a number out of range", changed(4, "  host0: {type: host-cpu, harts: 9}"),
        "board.yaml:4:34: 'harts' must be a whole number from 1 to 8, not '9'"),
    MistakeCase(
        "a setting that needs another one", changed(4, "  host0: {type: host-cpu, epoch: 0}"),
        "board.yaml:4:27: 'epoch' in component 'host0' needs 'clock: instructions', not wall"),
    MistakeCase(
        "a value that needs another one", changed(4, "  host0: {type: host-cpu, harts: 2, clock: instructions}"),
        "board.yaml:4:37: 'clock: instructions' in component 'host0' needs 'harts: 1', not 2"),
    MistakeCase(
        "a number that is a list", changed(4, "  host0: {type: host-cpu, harts: [1]}"),
        "board.yaml:4:34: 'harts' must be a whole number from 1 to 8, found a list"),
    MistakeCase(
        "a word that is not a choice", changed(4, "  host0: {type: host-cpu, interrupts: plics}"),
        "board.yaml:4:39: 'interrupts' must be 'aia' or 'plic', not 'plics'; did you mean 'plic'?"),
    MistakeCase(
        "a setting without a value", changed(4, "  host0: {type: host-cpu, harts: }"),
        "board.yaml:4:27: 'harts' has no value; null takes away what an extended board sets, and none sets 'harts' of "
            + "'host0'"),
    MistakeCase(
        "yes for true",
        changed(4, "  host0: {type: host-cpu}\n  a0: {type: adapter-card, master: yes}"),
        "board.yaml:5:36: 'master' must be true or false, not 'yes'"),
    MistakeCase(
        "a group address",
        changed(4, "  host0: {type: host-cpu}\n  b0: {type: bmc, mac: '01:00:5e:00:00:01'}"),
        "board.yaml:5:24: 'mac' must be a unicast MAC address such as 52:54:00:12:34:56, not '01:00:5e:00:00:01'"),
    MistakeCase(
        "an address without a prefix",
        changed(4, "  host0: {type: host-cpu}\n  b0: {type: bmc, address: 10.0.0.300/8}"),
        "board.yaml:5:28: 'address' must be an IPv4 address and prefix length such as 192.168.7.2/24, not '10.0.0.300/8'"
    ),
    MistakeCase(
        "a size that is no power of two",
        changed(4, "  host0: {type: host-cpu}\n  b0: {type: bmc, console-size: 96KiB}"),
        "board.yaml:5:33: 'console-size' is 96KiB; it must be a power of two, such as 4KiB"),
    MistakeCase(
        "an address that is none",
        changed(4, "  host0: {type: host-cpu}\n  b0: {type: bmc, syslog: log.example}"),
        "board.yaml:5:27: 'syslog' must be an IPv4 address such as 192.168.7.1, not 'log.example'"),
    MistakeCase(
        "a file that is a folder", changed(3, "  flash0: {type: flash, image: .}"),
        "board.yaml:3:32: 'image' must name a regular file; '.' is none"),
    MistakeCase(
        "a missing file", changed(3, "  flash0: {type: flash, image: chop.img}"),
        "board.yaml:3:32: 'image' names a missing file: there is no file 'chop.img'; scripts/build-firmware makes it"),
]

private let linkCases: [MistakeCase] = [
    MistakeCase(
        "an unknown wire", changed(6, "  - spy: [host0, flash0]"),
        "board.yaml:6:5: unknown wire 'spy'; did you mean 'spi'?"),
    MistakeCase(
        "a wire that is not linked", good + "  - console: [host0, flash0]\n",
        "board.yaml:7:5: 'console' is not linked: every component that serves one has its own socket"),
    MistakeCase(
        "an unknown component in a link", changed(6, "  - spi: [host, flash0]"),
        "board.yaml:6:11: unknown component 'host'; did you mean 'host0'?"),
    MistakeCase(
        "an unknown port", changed(6, "  - spi: [host0.spy, flash0]"),
        "board.yaml:6:11: 'host0' (host-cpu) has no port 'spy'; did you mean 'spi'?"),
    MistakeCase(
        "a port of another wire", changed(6, "  - spi: [host0.rp0, flash0]"),
        "board.yaml:6:11: 'host0.rp0' is a pcie port, not spi"),
    MistakeCase(
        "a component without such a port", good + "  - pcie: [host0.rp0, flash0]\n",
        "board.yaml:7:23: 'flash0' (flash) has no pcie port"),
    MistakeCase(
        "a self link", changed(6, "  - spi: [host0, host0]"),
        "board.yaml:6:5: 'host0' is linked to itself; a link joins two components"),
    MistakeCase(
        "two links at a port", good + "  - spi: [host0.spi, flash0]\n  - spi: [flash0.spi, host0.spi]\n",
        "board.yaml:6:11: 'host0' has no free spi port left",
        "board.yaml:8:23: port 'host0.spi' is already linked at board.yaml:7:11; a port has one link",
        "board.yaml:7:22: 'flash0' has no free spi port left"),
    MistakeCase(
        "a required link left out", good.replacing("  - spi: [host0, flash0]", with: "  []"),
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
    MistakeCase(
        "a port that could be several",
        changed(4, "  host0: {type: host-cpu}\n  o0: {type: offload-card}")
            + "  - pcie: [host0, o0]\n",
        "board.yaml:8:12: 'host0' has several free pcie ports; write which one: host0.rp0, host0.rp1, host0.rp2, "
            + "host0.rp3, host0.rp4, host0.rp5, host0.rp6, host0.rp7"),
    MistakeCase(
        "a function of a card without its function 0",
        good + "  - pcie: [host0.rp3.1, external:/tmp/card.sock]\n",
        "board.yaml:7:12: 'host0.rp3.1' is linked and 'host0.rp3' is not: a card is found by its function 0; link that "
            + "too"),
    MistakeCase(
        "a card at another's port of the logic",
        withLogic("  o0: {type: offload-card}", "  - sideband: [o0, l0.sideband-host]"),
        "board.yaml:10:5: 'l0.sideband-host' is for a component of type host-cpu, and 'o0' is of type offload-card"),
    MistakeCase(
        "a host at a card's port of the logic", withLogic("", "  - sideband: [host0, l0.sideband-card1]"),
        "board.yaml:10:5: 'l0.sideband-card1' is for a component of type offload-card or adapter-card, and 'host0' is "
            + "of type host-cpu"),
    MistakeCase(
        "a master adapter as a card",
        withLogic("  a0: {type: adapter-card, master: true}", "  - sideband: [a0, l0.sideband-card0]"),
        "board.yaml:10:5: 'a0' is the master, which nobody holds in reset: link it to 'l0.sideband-adapter'"),
    MistakeCase(
        "an adapter that is no master as one",
        withLogic("  a0: {type: adapter-card}", "  - sideband: [a0, l0.sideband-adapter]"),
        "board.yaml:10:5: 'a0' is not the master, and 'l0.sideband-adapter' is the master's: write 'master: true', or "
            + "link it to a port of a card, such as 'l0.sideband-card0'"),
    MistakeCase(
        "a component that is two to the logic, and a card's flash port without its reset",
        withLogic(
            "  a0: {type: adapter-card}", "  - sideband: [a0, l0.sideband-card0]\n  - spi: [a0, l0.spi-card1]"),
        "board.yaml:11:5: 'a0' is linked to 'l0.spi-card1' and to 'l0.sideband-card0': the logic would take it for two; "
            + "link it to the ports of one",
        "board.yaml:11:15: 'l0.spi-card1' is linked and 'l0.sideband-card1' is not: the flash port of a card is dead "
            + "until the logic has released its reset; link that too"),
    MistakeCase(
        "a port of the logic left out", withLogic("  o0: {type: offload-card}", "  - sideband: [o0, l0]"),
        "board.yaml:10:20: 'l0' has several free sideband ports; write which one: l0.sideband-adapter, "
            + "l0.sideband-host, l0.sideband-bmc, l0.sideband-card0, l0.sideband-card1, l0.sideband-card2, "
            + "l0.sideband-card3"),
    MistakeCase(
        "two ends that serve",
        changed(4, "  host0: {type: host-cpu}\n  f1: {type: flash, image: chip.img}")
            + "  - spi: [flash0, f1]\n",
        "board.yaml:8:11: 'flash0' has no free spi port left"),
    MistakeCase(
        "two ends that serve, both free",
        changed(4, "  host0: {type: host-cpu}\n  o0: {type: offload-card}\n  o1: {type: offload-card}")
            + "  - pcie: [o0, o1]\n",
        "board.yaml:9:5: 'o0' and 'o1' both serve pcie; one end of a link must connect"),
    MistakeCase(
        "two ends that connect",
        changed(4, "  host0: {type: host-cpu}\n  bmc0: {type: bmc}")
            + "  - sideband: [host0, bmc0]\n",
        "board.yaml:8:5: 'host0' and 'bmc0' both connect to sideband; one end of a link must serve it"),
    MistakeCase(
        "a serving port that should connect outside",
        good.replacing("[host0, flash0]", with: "[flash0, external:/tmp/x]"),
        "board.yaml:6:5: 'flash0' serves this spi link itself and cannot connect to a socket outside; write "
            + "'listen:name' to let a program outside connect to it",
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
    MistakeCase(
        "a connecting port that should listen", changed(6, "  - spi: [host0, listen:flashrom]"),
        "board.yaml:6:5: 'host0' connects and cannot listen; write 'external:/path.sock' for a socket outside"),
    MistakeCase(
        "a relative path outside", changed(6, "  - spi: [host0, external:x.sock]"),
        "board.yaml:6:18: 'external:' takes the absolute path of a socket, at most 107 bytes, such as "
            + "external:/tmp/x.sock"),
    MistakeCase(
        "no end on the board", good + "  - spi: [external:/tmp/x, listen:y]\n",
        "board.yaml:7:5: at least one end of a link must be a component of the board"),
    MistakeCase(
        "one socket name twice",
        changed(4, "  host0: {type: host-cpu}\n  a0: {type: adapter-card}")
            + "  - ethernet: [a0.eth-bmc, listen:net]\n  - ethernet: [a0.eth-ext, listen:net]\n",
        "board.yaml:9:5: 'listen:net' is already used at board.yaml:8:5; choose another name"),
    MistakeCase(
        "one end", changed(6, "  - spi: [host0]"), "board.yaml:6:10: 'spi' has 1 ends; a link has two",
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
    MistakeCase(
        "a link that is a word", changed(6, "  - spi"),
        "board.yaml:6:5: a link is one wire with its two ends, such as 'spi: [host0, flash0]', found 'spi'",
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
    MistakeCase(
        "an end that is a map", changed(6, "  - spi: [{host0: spi}, flash0]"),
        "board.yaml:6:11: an end of a link is 'component', 'component.port', 'external:/path.sock' or 'listen:name', "
            + "found a map",
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
    MistakeCase(
        "links as a map", changed(6, "  spi: [host0, flash0]"),
        "board.yaml:6:3: 'links' must be a list such as '- spi: [host0, flash0]', found a map",
        "board.yaml:4:3: component 'host0' (host-cpu) needs a link at its port 'spi', such as 'spi: [host0.spi, "
            + "flash0.spi]'"),
]

private let overrideCases: [MistakeCase] = [
    MistakeCase(
        "an override without a value", good, overrides: ["memory"],
        "--set: '--set' takes key=value, such as components.host0.memory=1GiB"),
    MistakeCase(
        "a misspelt override", good, overrides: ["components.host0.memroy=1GiB"],
        "--set: unknown key 'memroy' in component 'host0'; did you mean 'memory'?"),
    MistakeCase(
        "an override of an unknown component", good, overrides: ["components.host1.memory=1GiB"],
        "--set: unknown component 'host1'; did you mean 'host0'?"),
    MistakeCase(
        "an override of the wrong type", good, overrides: ["components.host0.memory=lots"],
        "--set: 'memory' must be a size in B, KiB, MiB, GiB or TiB, such as 64MiB, not 'lots'"),
    MistakeCase(
        "an override of something else", good, overrides: ["component.host0.memory=1GiB"],
        "--set: '--set' knows 'name' and 'components.NAME.KEY', not 'component'; did you mean 'components'?"),
    MistakeCase(
        "an override too short", good, overrides: ["components.host0=big"],
        "--set: '--set' takes components.NAME.KEY=VALUE, such as components.host0.memory=1GiB, or components.NAME=null"),
]

@Suite struct MistakeTests {
    @Test(arguments: shapeCases + componentCases + linkCases + overrideCases)
    func `a mistake is reported with its place and its remedy`(_ example: MistakeCase) {
        let folder = TopologyFolder()
        folder.write("chip.img", "chip")
        folder.write("board.yaml", example.text)
        let reported = folder.mistakes(overrides: example.overrides)
        // The folder itself, where a path names it.
        let expected = example.expected.map { $0.replacing("'.' is", with: "'\(folder.path)' is") }
        #expect(reported.sorted() == expected.sorted(), "\(reported.joined(separator: "\n"))")
    }

    @Test func `every mistake of a file is reported in one pass and in order`() {
        let folder = TopologyFolder()
        folder.write(
            "board.yaml",
            """
            name: Test
            componets: {}
            components:
              flash0: {type: flash, image: none.img, imgae: x}
              host0: {type: host-cpu, memory: 1, harts: 0, harts: 2}
            links:
              - spy: [host0, flash0]
            """)
        let lines = folder.mistakes().map { $0.split(separator: ": ")[0] }
        #expect(
            lines
                == [
                    "board.yaml:1:7", "board.yaml:2:1", "board.yaml:4:32", "board.yaml:4:42", "board.yaml:5:35",
                    "board.yaml:5:45", "board.yaml:5:48", "board.yaml:7:5",
                ].map { $0[...] })
    }

    @Test func `a mistake shows its line with a caret below the column`() {
        let folder = TopologyFolder()
        folder.write("chip.img", "chip")
        folder.write("board.yaml", changed(4, "  host0: {type: host-cpu, memroy: 1GiB}"))
        do {
            _ = try folder.board()
            Issue.record("the board was accepted")
        } catch {
            #expect(
                folder.relative("\(error)") == """
                    board.yaml:4:27: error: unknown key 'memroy' in component 'host0'; did you mean 'memory'?
                          host0: {type: host-cpu, memroy: 1GiB}
                                                  ^
                    """)
        }
    }
}
