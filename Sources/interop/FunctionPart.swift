// What holds for any function: Linux finds it as what it is, reads its registers, resets it, lets it go and finds it again.

import Wire

/// One function of a card in a slot of the guest.
struct CardFunction {
    enum Kind {
        /// Nothing that Linux has a driver for. The word at the beginning of base address register 0, where it has one.
        case plain(identity: String)
        /// How Linux names the block device under the function's folder, for the shell.
        case disk(driver: String, pattern: String)
        /// The card's Ethernet port that leads to it, and the third byte of the addresses there.
        case network(port: String, number: UInt8)
        /// The card's port with its other end.
        case console(port: String)
        case random
    }

    /// The slot's name, and the part of the report.
    var slot: String
    var card: CardProcess
    var port: String
    var vendor: UInt16
    var device: UInt16
    /// Base class and subclass, as lspci -n writes them.
    var classCode: String
    /// Words that `lspci -vvv` says of it.
    var decoded: [String]
    var kind: Kind

    var isVirtio: Bool { vendor == 0x1AF4 }
}

struct FunctionPart {
    let guest: Guest
    let function: CardFunction
    let report: Report

    private var slot: String { function.slot }

    /// `resets`: how many of each kind.
    func run(resets: Int) {
        report.step(slot, "lspci shows what it is") { try identify() }
        report.step(slot, "its configuration space is the same twice, and read by lspci -F") { try readTwice() }
        if case .plain(let identity) = function.kind {
            report.step(slot, "its registers answer in memory space") { try readRegisters(identity) }
        }
        for method in ["flr", "bus"] {
            report.step(slot, "\(resets) resets (\(method)), and it answers after each") { try reset(method, resets) }
        }
    }

    private func identify() throws -> String {
        let address = try guest.address(slot)
        let line = try guest.run("lspci -n -s \(address)")
        let wanted = "\(function.classCode): \(hexadecimal(function.vendor)):\(hexadecimal(function.device))"
        guard line.contains(wanted) else { throw Failure("lspci says '\(line)' and not \(wanted)") }
        let text = try guest.run("lspci -vvv -s \(address)")
        for word in function.decoded where !text.contains(word) {
            throw Failure("lspci -vvv does not say '\(word)': \(text)")
        }
        return String(line.split(separator: " ", maxSplits: 1).last ?? "")
    }

    private func readTwice() throws -> String {
        let address = try guest.address(slot)
        try guest.run(
            "lspci -xxxx -s \(address) >/tmp/a && lspci -xxxx -s \(address) >/tmp/b && cmp /tmp/a /tmp/b "
                + "&& lspci -F /tmp/a -vvv >/tmp/c")
        let count = try guest.run("grep -c '^[0-9a-f]*0: ' /tmp/a")
        guard count == "256" else { throw Failure("\(count) lines of 16 bytes instead of 256") }
        return "4096 bytes"
    }

    @discardableResult
    func readRegisters(_ identity: String) throws -> String {
        let folder = "/sys/bus/pci/devices/\(try guest.address(slot))"
        try guest.run("[ $(cat \(folder)/enable) -gt 0 ] || echo 1 >\(folder)/enable")
        let place = try guest.run("sed -n '1s/ .*//p' \(folder)/resource")
        let value = try guest.run("devmem \(place) 32")
        guard value == identity else { throw Failure("\(value) instead of \(identity)") }
        return value
    }

    private func reset(_ method: String, _ count: Int) throws -> String {
        let address = try guest.address(slot)
        let folder = "/sys/bus/pci/devices/\(address)"
        let methods = try guest.run("echo default >\(folder)/reset_method; cat \(folder)/reset_method")
        guard methods.split(separator: " ").contains(Substring(method)) else {
            throw Failure("Linux knows these ways to reset it: '\(methods)'")
        }
        try guest.run("echo \(method) >\(folder)/reset_method")
        // Not every driver of virtio's takes a reset that it did not ask for.
        let driver =
            function.isVirtio
            ? try guest.run("if [ -e \(folder)/driver ]; then basename $(readlink \(folder)/driver); fi") : ""
        if !driver.isEmpty { try guest.run("echo \(address) >/sys/bus/pci/drivers/\(driver)/unbind") }
        let wanted = "0x\(hexadecimal(function.vendor))"
        let loop =
            "i=0; while [ $i -lt \(count) ]; do echo 1 >\(folder)/reset || exit 1; "
            + "[ 0x$(setpci -s \(address) VENDOR_ID) = \(wanted) ] || exit 2; i=$((i + 1)); done"
        // Linux itself waits a tenth of a second for each, a second for a bus.
        try guest.run(loop, within: .seconds(60 + count * 3))
        if !driver.isEmpty { try guest.run("echo \(address) >/sys/bus/pci/drivers/\(driver)/bind") }
        if case .plain(let identity) = function.kind { try readRegisters(identity) }
        return ""
    }
}

/// Four digits.
func hexadecimal(_ value: UInt16) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 4 - digits.count) + digits
}
