// What a board can be built of: component kinds with their ports and settings. The same table checks topologies,
// wires ports, and makes command lines; docs/wiring.md ("Ports") is its prose.
//
// A setting `key: value` of a component becomes `--key value` on its command line; a boolean that is true becomes
// `--key` alone, one that is false becomes nothing.

/// A kind of link, and the protocol spoken on its socket.
public enum WireKind: String, CaseIterable, Sendable {
    /// vfio-user: PCIe configuration, BARs, DMA, interrupts.
    case pcie
    /// Frames behind 32-bit big-endian lengths.
    case ethernet
    /// serprog.
    case spi
    /// Signal edges and MCTP packets, one datagram each.
    case sideband
    /// LPC cycles and interrupts, one datagram each.
    case lpc
    /// The raw bytes of a serial line between two components.
    case serial
    /// The raw bytes of a serial line for a person.
    case console
    /// QMP.
    case control
    /// The GDB remote protocol, for a person's debugger.
    case gdb

    /// Whether message boundaries are the socket's (SOCK_SEQPACKET) instead of a byte stream's (SOCK_STREAM).
    public var isSequencedPacket: Bool { self == .sideband || self == .lpc }

    /// Whether links of this wire are written in a topology; consoles, control and debugger sockets are made for every
    /// component that serves one.
    public var isLinked: Bool { self != .console && self != .control && self != .gdb }
}

/// Who makes the connection.
public enum PortRole: String, Sendable {
    /// Gets a listening socket.
    case serves
    /// Connects to a socket's path.
    case uses
    /// The first end named in a link listens.
    case either

    /// Whether a link can join ports of these two roles.
    public func joins(_ other: PortRole) -> Bool {
        switch (self, other) {
        case (.either, _), (_, .either), (.serves, .uses), (.uses, .serves): true
        case (.serves, .serves), (.uses, .uses): false
        }
    }
}

public struct PortDescription: Sendable {
    /// As in `--connect NAME=PATH`, `LISTEN_FDNAMES` and the end `component.NAME` of a link.
    public var name: String
    public var wire: WireKind
    public var role: PortRole
    /// Whether the component can do nothing useful while this port is not linked.
    public var isRequired: Bool
    /// A setting that makes up for a required port that is not linked.
    public var substitute: String?
    /// Whether a link that names only the component can mean this port.
    public var isInferred: Bool
    /// Another port without which a link at this one is of no use.
    public var companion: Companion?
    /// The kinds of component whose ports it is for; none: any.
    public var peers: [String]

    /// A port that is needed beside another one, and why: a sentence's end.
    public struct Companion: Sendable {
        public var port: String
        public var reason: String

        public init(_ port: String, _ reason: String) {
            self.port = port
            self.reason = reason
        }
    }

    public init(
        _ name: String, _ wire: WireKind, _ role: PortRole, required: Bool = false, unless substitute: String? = nil,
        inferred: Bool = true, with companion: Companion? = nil, for peers: [String] = []
    ) {
        self.name = name
        self.wire = wire
        self.role = role
        self.isRequired = required
        self.substitute = substitute
        self.isInferred = inferred
        self.companion = companion
        self.peers = peers
    }
}

/// What may be written as the value of a setting.
public enum SettingType: Sendable {
    case boolean
    case integer(ClosedRange<Int>)
    /// A size such as `512MiB`, within bounds and a multiple of `multiple`.
    case byteCount(ClosedRange<ByteCount>, multiple: ByteCount)
    /// A size that is a power of two.
    case powerOfTwo(ClosedRange<ByteCount>)
    /// A duration such as `50ms`.
    case duration(ClosedRange<Duration>)
    case choice([String])
    /// Printable ASCII of at most this many characters.
    case text(maximum: Int)
    /// A file that must exist, relative to the topology's folder; `remedy` says how to make it.
    case file(remedy: String)
    /// A file that the component makes where there is none, relative to the topology's folder.
    case ownFile
    /// Six octets in hexadecimal, `52:54:00:12:34:56`, a unicast address.
    case macAddress
    /// An IPv4 address and the length of its prefix, `192.168.7.2/24`.
    case ipv4Interface
    /// An IPv4 address, `192.168.7.1`.
    case ipv4Address
}

public struct SettingDescription: Sendable {
    public var name: String
    public var type: SettingType
    public var isRequired: Bool
    /// One line for people: what it is, and what holds when it is not written.
    public var help: String

    public init(_ name: String, _ type: SettingType, required: Bool = false, help: String) {
        self.name = name
        self.type = type
        self.isRequired = required
        self.help = help
    }
}

/// What one setting asks of another one of the same component.
public struct SettingRule: Sendable {
    /// The setting that asks, and the value with which it does; nil: with any.
    public var setting: String
    public var value: String?
    /// The setting that is asked, and the value it must have, as written; nil: any, but written.
    public var other: String
    public var otherValue: String?
    /// What holds while the other one is not written.
    public var otherDefault: String?

    public init(
        _ setting: String, at value: String? = nil, needs other: String, of otherValue: String? = nil,
        default otherDefault: String? = nil
    ) {
        self.setting = setting
        self.value = value
        self.other = other
        self.otherValue = otherValue
        self.otherDefault = otherDefault
    }
}

/// A kind of component: the name of its executable, as the `type` of a component in a topology.
public struct ComponentKind: Sendable {
    public var name: String
    public var ports: [PortDescription]
    public var settings: [SettingDescription]
    public var rules: [SettingRule] = []

    public func port(named name: String) -> PortDescription? { ports.first { $0.name == name } }
    public func setting(named name: String) -> SettingDescription? { settings.first { $0.name == name } }
}

public enum ComponentCatalog {
    /// Served by every component, whatever its kind.
    public static let control = PortDescription("control", .control, .serves)

    public static let kinds: [ComponentKind] = [
        hostCPU, flash, securityLogic, bmc, adapterCard, offloadCard,
    ]

    public static func kind(named name: String) -> ComponentKind? { kinds.first { $0.name == name } }

    /// Eight slots for cards of up to eight functions: `rp0` is function 0 of the first, `rp0.1` function 1.
    private static let rootPorts: [PortDescription] = (0..<8).flatMap { (port: Int) -> [PortDescription] in
        let first = "rp\(port)"
        let companion = PortDescription.Companion(first, "a card is found by its function 0")
        return [PortDescription(first, .pcie, .uses)]
            + (1..<8).map { PortDescription("\(first).\($0)", .pcie, .uses, inferred: false, with: companion) }
    }

    private static let hostCPU = ComponentKind(
        name: "host-cpu",
        ports: [
            PortDescription("spi", .spi, .uses, required: true, unless: "firmware"),
            PortDescription("sideband", .sideband, .uses),
            PortDescription("lpc", .lpc, .uses),
        ] + rootPorts + [
            PortDescription("serial", .serial, .uses),
            PortDescription("console", .console, .serves),
            PortDescription("gdb", .gdb, .serves),
            control,
        ],
        settings: [
            SettingDescription(
                "memory",
                .byteCount(.mebibytes(64)...(.gibibytes(64)), multiple: .mebibytes(2)),
                help: "RAM at 0x8000_0000; 512MiB"),
            SettingDescription("harts", .integer(1...8), help: "RV64GC harts; 1"),
            SettingDescription(
                "interrupts", .choice(["aia", "plic"]), help: "APLIC and IMSIC, or a PLIC; aia"),
            SettingDescription(
                "clock", .choice(["wall", "instructions"]),
                help: "guest time: the host's, or 10 ns an instruction, which repeats (one hart); wall"),
            SettingDescription(
                "epoch", .integer(0...9_223_372_035),
                help: "by the instruction clock: the time at power-on, seconds since 1970; 2026-01-01"),
            SettingDescription(
                "boot-arguments", .text(maximum: 1024), help: "the kernel's command line, /chosen/bootargs; none"),
            SettingDescription(
                "kernel", .file(remedy: "scripts/fetch-guest makes it"),
                help: "flat image, entered at 0x8020_0000 instead of the flash's next stage; none"),
            SettingDescription(
                "initrd", .file(remedy: "scripts/fetch-guest makes it"), help: "the kernel's initramfs; none"),
            SettingDescription(
                "firmware", .file(remedy: "scripts/fetch-opensbi makes it"),
                help: "flat image, entered at 0x8000_0000 instead of the flash; none"),
            SettingDescription(
                "root-ports", .integer(1...8),
                help: "root ports at least, for cards that come later; as many as are linked"),
        ],
        rules: [
            SettingRule("clock", at: "instructions", needs: "harts", of: "1", default: "1"),
            SettingRule("epoch", needs: "clock", of: "instructions", default: "wall"),
        ])

    private static let flash = ComponentKind(
        name: "flash",
        ports: [PortDescription("spi", .spi, .serves), control],
        settings: [
            SettingDescription(
                "image", .file(remedy: "scripts/build-firmware makes it"), required: true,
                help: "what the chip holds at power-on"),
            SettingDescription(
                "model", .choice(["MX25L25635F", "MX66L1G45G"]),
                help: "the chip, of 32 MiB or 128 MiB, which is the image's size; MX25L25635F"),
            SettingDescription("writable", .boolean, help: "writes go to the image file too; false"),
            SettingDescription(
                "busy-time", .integer(0...10_000),
                help: "how long programs and erases take, percent of the data sheet's times; 1"),
            SettingDescription(
                "seed", .integer(0...Int.max), help: "of the bits that an interrupted program or erase leaves; 0"),
            SettingDescription(
                "tcp", .integer(0...65535), help: "a TCP port on 127.0.0.1 for flashrom, 0: a free one; none"),
        ])

    /// Those who have ports of their own at the security logic, and what each may be.
    private static let held: [(name: String, kinds: [String])] =
        [("host", ["host-cpu"]), ("bmc", ["bmc"])] + cards.map { ($0, ["offload-card", "adapter-card"]) }
    private static let cards = ["card0", "card1", "card2", "card3"]

    /// The flash port of one of those whom the logic holds in reset.
    private static func flashPort(_ name: String, _ kinds: [String]) -> PortDescription {
        let companion = PortDescription.Companion(
            "sideband-\(name)", "the flash port of a card is dead until the logic has released its reset")
        return PortDescription(
            "spi-\(name)", .spi, .serves, with: cards.contains(name) ? companion : nil, for: kinds)
    }

    private static let securityLogic = ComponentKind(
        name: "security-logic",
        ports: [PortDescription("flash", .spi, .uses, required: true)]
            + [
                PortDescription("spi-adapter", .spi, .serves, for: ["adapter-card"]),
                PortDescription("sideband-adapter", .sideband, .serves, for: ["adapter-card"]),
                PortDescription("spi-external", .spi, .serves),
            ]
            + held.flatMap { name, kinds in
                [flashPort(name, kinds), PortDescription("sideband-\(name)", .sideband, .serves, for: kinds)]
            }
            + held.prefix(2).map { PortDescription("lpc-\($0.name)", .lpc, .serves, for: $0.kinds) } + [control],
        settings: [
            SettingDescription(
                "fuses", .file(remedy: "scripts/build-firmware makes it"), required: true,
                help: "root key digest and minimum security version"),
            SettingDescription(
                "verifier", .choice(["adapter", "logic", "both"]),
                help: "who verifies the firmware; adapter (with 'logic' no adapter is the master)"),
            SettingDescription(
                "lock-at", .choice(["release", "boot-complete"]), help: "when the board locks; release"),
            SettingDescription(
                "boot-timeout", .duration(.milliseconds(1)...(.seconds(86_400))),
                help: "how long the host may take to boot, then its slot is given up; not watched"),
            SettingDescription(
                "state", .ownFile, help: "where it remembers which slot runs and which did not boot; it forgets"),
            SettingDescription(
                "rules", .file(remedy: "docs/wiring.md has its form"),
                help: "who may do what to the flash; the built-in rules"),
            SettingDescription(
                "tcp", .integer(0...65535),
                help: "spi-external on a TCP port of 127.0.0.1 for flashrom, 0: a free one; none"),
        ])

    private static let bmc = ComponentKind(
        name: "bmc",
        ports: [
            PortDescription("serial", .serial, .serves),
            PortDescription("sideband", .sideband, .uses),
            PortDescription("lpc", .lpc, .uses),
            PortDescription("spi", .spi, .uses),
            PortDescription("eth0", .ethernet, .either),
            PortDescription("console", .console, .serves),
            control,
        ],
        settings: [
            SettingDescription("mac", .macAddress, help: "address of eth0; 52:54:00:b0:00:01"),
            SettingDescription("address", .ipv4Interface, help: "IPv4 address of eth0; 192.168.7.2/24"),
            SettingDescription("syslog", .ipv4Address, help: "station that takes the console as syslog; none"),
            SettingDescription(
                "console-size", .powerOfTwo(.kibibytes(4)...(.mebibytes(16))), help: "console kept; 64KiB"),
            SettingDescription(
                "boot-line", .text(maximum: 80),
                help: "line on the host's console that means that it has booted; that of the BMC's firmware"),
        ])

    private static let adapterCard = ComponentKind(
        name: "adapter-card",
        ports: [PortDescription("pcie", .pcie, .serves)]
            + (1..<8).map { PortDescription("pcie\($0)", .pcie, .serves, inferred: false) } + [
                PortDescription("spi", .spi, .uses),
                PortDescription("sideband", .sideband, .uses),
                PortDescription("eth-bmc", .ethernet, .either),
                PortDescription("eth-host", .ethernet, .either),
                PortDescription("eth-ext", .ethernet, .either),
                control,
            ],
        settings: [
            SettingDescription(
                "master", .boolean, help: "verifies the firmware through the security logic; false"),
            SettingDescription(
                "mac", .macAddress,
                help: "address of the first network function, the others count up; 52:54:00:ad:00:01"),
            SettingDescription("split-rings", .boolean, help: "functions offer no packed rings; false"),
        ])

    private static let offloadCard = ComponentKind(
        name: "offload-card",
        ports: [
            PortDescription("pcie", .pcie, .serves),
            PortDescription("pcie-net", .pcie, .serves, inferred: false),
            PortDescription("eth0", .ethernet, .either),
            PortDescription("pcie-disk", .pcie, .serves, inferred: false),
            PortDescription("pcie-console", .pcie, .serves, inferred: false),
            PortDescription("pcie-rng", .pcie, .serves, inferred: false),
            PortDescription(
                "spi", .spi, .uses, with: .init("sideband", "the card loads its firmware when its reset is released")),
            PortDescription("sideband", .sideband, .uses),
            PortDescription("console", .console, .serves),
            control,
        ],
        settings: [
            SettingDescription("model", .text(maximum: 16), help: "model that IDENTIFY answers"),
            SettingDescription(
                "serial", .text(maximum: 16), help: "serial number that IDENTIFY answers; the disk's too"),
            SettingDescription("mac", .macAddress, help: "address of pcie-net; 52:54:00:0f:00:01"),
            SettingDescription(
                "disk", .file(remedy: "`truncate -s 64M FILE` makes an empty one"), help: "what pcie-disk holds; none"),
            SettingDescription(
                "disk-size", .byteCount(ByteCount(512)...(.gibibytes(1 << 20)), multiple: ByteCount(512)),
                help: "without disk: one in memory of this size; with it: the size it must have"),
            SettingDescription("disk-interface", .choice(["nvme", "virtio-blk"]), help: "what pcie-disk is; nvme"),
            SettingDescription("disk-block-size", .choice(["512", "4096"]), help: "bytes of a logical block; 512"),
            SettingDescription("disk-read-only", .boolean, help: "refuses writes to the disk; false"),
        ],
        rules: [SettingRule("disk-read-only", at: "true", needs: "disk")])
}
