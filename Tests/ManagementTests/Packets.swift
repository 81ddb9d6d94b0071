// Packets as a peer would make them, by code that shares nothing with the library: bytes and a checksum of its own.

import Ethernet
import Management

let bmcMAC = MACAddress("52:54:00:b0:00:01")!
let peerMAC = MACAddress("52:54:00:12:34:56")!
let bmcInterface = IPv4Interface("192.168.7.2/24")!
let bmcAddress: [UInt8] = [192, 168, 7, 2]
let peerAddress: [UInt8] = [192, 168, 7, 9]

func octets(_ mac: MACAddress) -> [UInt8] { (0..<6).map { mac[$0] } }

func big(_ value: Int) -> [UInt8] { [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)] }

func checksum(_ bytes: [UInt8]) -> [UInt8] {
    let padded = bytes.count % 2 == 0 ? bytes : bytes + [0]
    var sum = 0
    for index in stride(from: 0, to: padded.count, by: 2) { sum += Int(padded[index]) << 8 | Int(padded[index + 1]) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return big(~sum & 0xFFFF)
}

func ethernet(to destination: MACAddress = bmcMAC, from source: MACAddress = peerMAC, _ type: Int, _ payload: [UInt8])
    -> [UInt8]
{
    octets(destination) + octets(source) + big(type) + payload
}

func arp(operation: Int = 1, target: [UInt8] = bmcAddress, to destination: MACAddress = .broadcast) -> [UInt8] {
    ethernet(
        to: destination, 0x0806,
        big(1) + big(0x0800) + [6, 4] + big(operation) + octets(peerMAC) + peerAddress + [0, 0, 0, 0, 0, 0] + target)
}

func ipv4(
    _ transport: UInt8, _ payload: [UInt8], from source: [UInt8] = peerAddress, to destination: [UInt8] = bmcAddress,
    mac: MACAddress = bmcMAC, options: [UInt8] = [], flags: Int = 0, edit: (inout [UInt8]) -> Void = { _ in }
) -> [UInt8] {
    var header: [UInt8] =
        [UInt8(0x40 + 5 + options.count / 4), 0] + big(20 + options.count + payload.count) + big(0x1234) + big(flags)
        + [64, transport, 0, 0] + source + destination + options
    header.replaceSubrange(10..<12, with: checksum(header))
    edit(&header)
    return ethernet(to: mac, 0x0800, header + payload)
}

func echo(
    _ data: [UInt8] = Array(0..<56), type: UInt8 = 8, code: UInt8 = 0, to destination: [UInt8] = bmcAddress,
    mac: MACAddress = bmcMAC, from source: [UInt8] = peerAddress, edit: (inout [UInt8]) -> Void = { _ in }
) -> [UInt8] {
    var message: [UInt8] = [type, code, 0, 0] + big(0xABCD) + big(7) + data
    message.replaceSubrange(2..<4, with: checksum(message))
    edit(&message)
    return ipv4(1, message, from: source, to: destination, mac: mac)
}

func udp(
    _ data: [UInt8], port: Int = 623, from source: Int = 40_000, to destination: [UInt8] = bmcAddress,
    mac: MACAddress = bmcMAC, withoutChecksum: Bool = false, edit: (inout [UInt8]) -> Void = { _ in }
) -> [UInt8] {
    var datagram: [UInt8] = big(source) + big(port) + big(8 + data.count) + [0, 0] + data
    let pseudo = peerAddress + destination + [0, 17] + big(8 + data.count)
    if !withoutChecksum { datagram.replaceSubrange(6..<8, with: checksum(pseudo + datagram)) }
    edit(&datagram)
    return ipv4(17, datagram, to: destination, mac: mac)
}

/// The presence ping of DSP0136 §3.2.4.2, with the sequence that wants no acknowledge.
let presencePing: [UInt8] = [6, 0, 0xFF, 6, 0x00, 0x00, 0x11, 0xBE, 0x80, 0x2A, 0, 0]
/// The pong that belongs to it.
let presencePong: [UInt8] =
    [6, 0, 0xFF, 6, 0x00, 0x00, 0x11, 0xBE, 0x40, 0x2A, 0, 16] + [0x00, 0x00, 0x11, 0xBE, 0, 0, 0, 0]
    + [0x01, 0, 0, 0, 0, 0, 0, 0]

extension ManagementStack {
    /// Receives an array and returns the outcome and the answers.
    mutating func take(_ frame: [UInt8]) -> (outcome: Outcome, answers: [[UInt8]]) {
        var batch = FrameBatch()
        let outcome = receive(frame.span, into: &batch)
        var answers: [[UInt8]] = []
        batch.forEachFrame { span in answers.append(span.indices.map { span[$0] }) }
        return (outcome, answers)
    }
}

func newStack() -> ManagementStack { ManagementStack(mac: bmcMAC, interface: bmcInterface) }
