/// The console's few commands, for a person who wants to look or to stop the machine.
struct Monitor {
    private let console: Console
    private var line = InlineArray<32, UInt8>(repeating: 0)
    private var length = 0
    private var isOverlong = false

    enum Command {
        case help
        case pci
        case card
        case powerOff
        case reboot
    }

    init(console: Console) {
        self.console = console
    }

    /// Takes one typed character; a command when it ended one.
    mutating func type(_ character: UInt8) -> Command? {
        switch character {
        case 0x0D, 0x0A:
            console.line()
            defer {
                length = 0
                isOverlong = false
            }
            return parse()
        case 0x08, 0x7F:
            if length > 0 {
                length &-= 1
                console.text("\u{8} \u{8}")
            }
        case 0x20...0x7E:
            guard length < 32 else {
                isOverlong = true
                break
            }
            line[length] = character
            length &+= 1
            console.byte(character)
        default:
            break
        }
        return nil
    }

    func prompt() {
        console.text("baseboard> ")
    }

    private func parse() -> Command? {
        guard length > 0 else {
            prompt()
            return nil
        }
        if !isOverlong {
            if matches("help") { return .help }
            if matches("pci") { return .pci }
            if matches("card") { return .card }
            if matches("poweroff") { return .powerOff }
            if matches("reboot") { return .reboot }
        }
        console.line("unknown command; try: help")
        prompt()
        return nil
    }

    private func matches(_ word: StaticString) -> Bool {
        guard length == word.utf8CodeUnitCount else { return false }
        var index = 0
        while index < length, word.bytes.byte(at: UInt(index)) == line[index] { index &+= 1 }
        return index == length
    }

    func help() {
        console.line("help      this list")
        console.line("pci       the table of PCIe functions")
        console.line("card      ask the offload card for its identity again")
        console.line("poweroff  switch the machine off")
        console.line("reboot    restart it")
    }
}
