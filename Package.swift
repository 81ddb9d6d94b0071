// swift-tools-version: 6.2
// Baseboard's package: libraries in layers, one thin executable a component.
//
// Dependencies point downward only: executables → Component, Topology → devices → wires → Wire → C targets.
// A library never knows an executable; an executable knows no other executable, only wires.
import PackageDescription

let common: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
    // Swift's view of the C library must be that of CSystem.h: with another feature set Clang finds two definitions
    // of fd_set and refuses a module that sees both, though only when its module cache is new.
    .unsafeFlags(["-Xcc", "-D_GNU_SOURCE"]),
]

/// Targets that hold raw pointers: every use is marked `unsafe` and carries a `// Safety:` line.
let audited: [SwiftSetting] = common + [.strictMemorySafety()]

/// Targets whose loops are too slow to test unoptimised (see STYLE: structure is worth 25x, `-O` the rest).
let hot: [SwiftSetting] = audited + [.unsafeFlags(["-O"], .when(configuration: .debug))]

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

func library(_ name: String, _ dependencies: [Target.Dependency] = [], _ settings: [SwiftSetting] = common) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func component(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies + ["Component", argumentParser, logging], swiftSettings: common)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name + "Tests", dependencies: dependencies + ["TestKit"], swiftSettings: common)
}

let package = Package(
    name: "baseboard",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // C: installed libraries, and the few lines that Swift cannot say.
        .target(name: "CSystem"),
        .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CPCI", pkgConfig: "libpci", providers: [.apt(["libpci-dev", "pci.ids"])]),

        // Wires.
        library("Wire", ["CSystem"], audited),
        library("VFIOUser", ["Wire"], audited),
        library("Ethernet", ["Wire"], audited),
        library("Serprog", ["Wire"], audited),
        library("Sideband", ["Wire"]),
        library("LPC", ["Wire"], audited),
        library("QMP", ["Wire"]),

        // Devices.
        library("PCIe", ["CPCI", "VFIOUser", "Wire"], audited),
        library("BlockStore", ["VFIOUser", "Wire"], audited),
        library("NVMe", ["BlockStore", "PCIe", "VFIOUser", "Wire"], audited),
        library("Virtio", ["BlockStore", "Ethernet", "PCIe", "VFIOUser", "Wire"], audited),
        library("RISCV", ["CSystem"], hot),
        library("GDBRemote"),
        library("Machine", ["GDBRemote", "LPC", "RISCV", "PCIe", "Serprog", "Wire"], audited),
        library("Crypto", ["COpenSSL"], audited),
        library("CBOR"),
        // Without OpenSSL: what the devices read of their firmware was verified by others.
        library("DeviceFirmware", ["CBOR", "QMP", "Serprog", "Wire"]),
        library("Trust", ["CBOR", "Crypto", "DeviceFirmware", "QMP", "Wire"]),
        library("SPINOR", ["Serprog", "Wire"], audited),
        library("SecurityLogic", ["Crypto", "LPC", "QMP", "Serprog", "Sideband", "Trust", "Wire"], audited),
        library(
            "Adapter",
            ["DeviceFirmware", "Ethernet", "PCIe", "Serprog", "Sideband", "Trust", "VFIOUser", "Virtio", "Wire"]),
        library("Offload", ["PCIe", "VFIOUser", "Wire"]),
        library("Management", ["DeviceFirmware", "Ethernet", "LPC", "Sideband", "Wire"]),

        // Names and addresses of PCI functions for people.
        library("PCINames", ["CPCI"], audited),

        // What every executable shares, and the board's model.
        library("Component", ["CSystemd", "QMP", "Sideband", "Wire", argumentParser, logging], audited),
        library("Topology", ["Component", yams]),
        library("Launcher", ["Component", "QMP", "Topology", "Wire"], audited),

        // The board's parts.
        .executableTarget(
            name: "baseboard",
            dependencies: [
                "Component", "Crypto", "DeviceFirmware", "Launcher", "PCINames", "QMP", "Topology", "Trust", "Wire",
                argumentParser, logging,
            ],
            swiftSettings: common),
        component("host-cpu", ["LPC", "Machine", "PCIe", "RISCV", "Serprog", "Sideband", "VFIOUser", "Wire"]),
        component("flash", ["QMP", "SPINOR", "Serprog", "Wire"]),
        component(
            "security-logic",
            ["Crypto", "LPC", "QMP", "SecurityLogic", "Serprog", "Sideband", "Trust", "Wire"]),
        component("bmc", ["DeviceFirmware", "Ethernet", "Management", "QMP", "Sideband", "Wire"]),
        component(
            "adapter-card",
            [
                "Adapter", "DeviceFirmware", "Ethernet", "PCIe", "QMP", "Serprog", "Sideband", "Trust", "VFIOUser",
                "Virtio", "Wire",
            ]),
        component(
            "offload-card",
            [
                "BlockStore", "DeviceFirmware", "Ethernet", "NVMe", "Offload", "PCIe", "QMP", "Sideband", "VFIOUser",
                "Virtio", "Wire",
            ]),
        .executableTarget(
            name: "bench",
            dependencies: [
                "Crypto", "Ethernet", "PCIe", "RISCV", "Machine", "QMP", "Trust", "VFIOUser", "Virtio", "Wire",
                argumentParser,
            ],
            path: "Sources/bench", swiftSettings: common,
            // It runs itself under Debian 12's callgrind, which ends when it reads this much of DWARF 5.
            linkerSettings: [.unsafeFlags(["-Xlinker", "--strip-debug"])]),
        .executableTarget(
            name: "fuzz", dependencies: ["RingFuzz", "VFIOUserFuzz", argumentParser], path: "Sources/fuzz",
            swiftSettings: common),

        // The cards in QEMU (scripts/interop-qemu).
        .executableTarget(
            name: "interop", dependencies: ["QMP", "Wire", argumentParser], swiftSettings: common),

        // Tests, one folder a library or executable; Board boots whole ones.
        .target(
            name: "TestKit", dependencies: ["QMP", "Serprog", "VFIOUser", "Wire"], path: "Tests/TestKit",
            swiftSettings: common),
        .executableTarget(
            name: "test-component", dependencies: ["Component", "QMP", "Wire", argumentParser],
            path: "Tests/TestComponent", swiftSettings: common),
        tests("Wire", ["Wire"]),
        .target(
            name: "VFIOUserFuzz", dependencies: ["VFIOUser", "Wire"], path: "Tests/VFIOUserFuzz",
            swiftSettings: common),
        .target(
            name: "RingFuzz",
            dependencies: ["BlockStore", "Ethernet", "NVMe", "PCIe", "VFIOUser", "VFIOUserFuzz", "Virtio", "Wire"],
            path: "Tests/RingFuzz", swiftSettings: common),
        tests("VFIOUser", ["VFIOUser", "VFIOUserFuzz", "Wire"]),
        tests("PCIe", ["PCIe", "VFIOUser", "Wire"]),
        tests("BlockStore", ["BlockStore", "VFIOUser", "Wire"]),
        tests("NVMe", ["BlockStore", "NVMe", "PCIe", "VFIOUser", "Wire"]),
        tests("Virtio", ["BlockStore", "Ethernet", "PCIe", "VFIOUser", "Virtio", "Wire"]),
        tests("Ethernet", ["Ethernet", "Wire"]),
        tests("Serprog", ["Serprog", "Wire"]),
        tests("Sideband", ["Sideband", "Wire"]),
        tests("LPC", ["LPC", "SecurityLogic", "Wire"]),
        tests("QMP", ["QMP", "Wire"]),
        tests("RISCV", ["RISCV"]),
        tests("GDBRemote", ["GDBRemote"]),
        tests("Machine", ["GDBRemote", "LPC", "Machine", "QMP", "RISCV", "Serprog", "Sideband", "Wire"]),
        tests("Crypto", ["Crypto"]),
        tests("DeviceFirmware", ["CBOR", "DeviceFirmware", "QMP", "Wire"]),
        tests("Trust", ["CBOR", "DeviceFirmware", "Trust", "Crypto", "QMP"]),
        tests("SPINOR", ["QMP", "SPINOR", "Serprog", "Wire"]),
        tests(
            "SecurityLogic",
            ["CBOR", "Crypto", "QMP", "SPINOR", "SecurityLogic", "Serprog", "Sideband", "Trust", "Wire"]),
        tests(
            "Adapter",
            [
                "Adapter", "Crypto", "DeviceFirmware", "Ethernet", "PCIe", "QMP", "Serprog", "Sideband", "Trust",
                "VFIOUser", "Virtio", "Wire",
            ]),
        tests("Offload", ["DeviceFirmware", "Offload", "PCIe", "QMP", "Sideband", "VFIOUser", "Virtio", "Wire"]),
        tests(
            "Management",
            ["Crypto", "DeviceFirmware", "Ethernet", "LPC", "Management", "QMP", "Sideband", "Trust", "Wire"]),
        tests("Component", ["Component", "QMP", "Wire"]),
        tests("Topology", ["Topology"]),
        tests("Linux", ["QMP", "Wire"]),
        tests("Firmware", ["Crypto", "Trust"]),
        tests("Board", ["Component", "Crypto", "DeviceFirmware", "Launcher", "QMP", "Topology", "Trust", "Wire"]),
    ]
)
