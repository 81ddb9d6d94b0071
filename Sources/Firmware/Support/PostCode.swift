/// How far a boot has come; docs/wiring.md ("LPC") has the table.
enum PostCode: UInt8 {
    case firstStage = 0x01
    case directoryRead = 0x10
    case stagesLoaded = 0x20
    case hostFirmware = 0x30
    case interruptsUp = 0x40
    case busesEnumerated = 0x50
    case cardsServed = 0x60
    /// The host has booted.
    case bootComplete = 0xAA
    /// The first stage refused what is in the flash, and stopped.
    case firstStageStopped = 0xE1
}

/// I/O port 0x80 of the machine's LPC bus. On a machine without one the codes go nowhere.
struct PostCodePort {
    private let window: MMIO?

    init(_ tree: DeviceTree) {
        let node = tree.first { $0.isEnabled && $0.isCompatible("baseboard,lpc") }
        window = node?.register(0).flatMap { MMIO(base: $0.base, size: $0.size) }
    }

    func write(_ code: PostCode) { window?.write8(0x80, code.rawValue) }
}
