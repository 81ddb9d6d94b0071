import Crypto
import Foundation
import QMP
import SecurityLogic
import Serprog
import Sideband
import TestKit
import Testing
import Trust
import Wire

/// The security logic as a process, with the test at the far ends of the cards' wires.
@Suite struct CardProcessTests {
    private static let built = Result { () throws -> (key: P384PrivateKey, image: [UInt8]) in
        let key = try P384PrivateKey.generate()
        let part = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 29 ^ $0 >> 6) }
        return (
            key,
            try FirmwareImage.build(
                firstStage: Array(part[..<5000]), opensbi: part, nextStage: part, key: key, name: "server",
                securityVersion: 2)
        )
    }
    let slot: [UInt8]
    let image: [UInt8]
    let fuses: Fuses

    init() throws {
        let key: P384PrivateKey
        (key, slot) = try Self.built.get()
        image = try FirmwareImage.chip(a: slot)
        fuses = try Fuses(root: key.publicKey, minimumSecurityVersion: 2)
    }

    private func deadline() -> MonotonicTime { .after(.seconds(20)) }

    @Test func `cards are released between BMC and host, read their slot, and are held by a power cycle`() throws {
        let board = try Board(image: image, fuses: fuses, cards: ["card0", "card2"])
        let links = try ["bmc", "card0", "card2", "host"].map { try board.sideband($0) }
        for link in links { #expect(try link.receive(until: deadline()) == .signal(.reset, level: false)) }
        let flash = try board.spi("card0")
        #expect(try flash.readFlash(offset: 0, count: 2) == [0xFF, 0xFF], "held: nothing is read")
        _ = try board.verify()
        for link in links {
            #expect(try link.receive(until: deadline()) == .signal(.reset, level: true))
            try link.send(.signal(.powerGood, level: true))
        }
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        #expect(try flash.readFlash(offset: 0, count: 5000) == Array(slot[..<5000]))
        let state = try board.control.execute("query-security-state")
        #expect(state["released"] == ["bmc", "card0", "card2", "host"])
        #expect(state["masters"]?["card0"]?["denied"] == 1)
        #expect(state["masters"]?["card1"] == nil, "a card that is not there is not told of")
        let told = try board.control.execute("query-events").arrayValue?.compactMap { event in
            event["data"]?["component"]?.stringValue.map { "\(event["event"]?.stringValue ?? "") \($0)" }
        }
        let order = ["bmc", "card0", "card2", "host"]
        #expect(told == order.map { "RESET_ASSERTED \($0)" } + order.map { "RESET_RELEASED \($0)" })

        _ = try board.control.execute("system_reset")
        for link in links { #expect(try link.receive(until: deadline()) == .signal(.reset, level: false)) }
        #expect(try flash.readFlash(offset: 0, count: 2) == [0xFF, 0xFF])
    }

    @Test func `a card that hangs or is not there holds up the board by no more than its time`() throws {
        let board = try Board(image: image, fuses: fuses, cards: ["card1"])
        let host = try board.sideband("host")
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: false))
        _ = try board.verify()
        #expect(try host.receive(until: deadline()) == .signal(.reset, level: true))
        // One that comes late is told that it is released.
        let late = try board.sideband("card1")
        #expect(try late.receive(until: deadline()) == .signal(.reset, level: true))
    }

    @Test func `what a card sends to others is dropped and counted, and it commands nothing`() throws {
        let board = try Board(image: image, fuses: fuses, ["--lock-at", "boot-complete"], cards: ["card0", "card1"])
        let links = try ["bmc", "card0", "card1", "host"].map { try board.sideband($0) }
        _ = try board.verify()
        for link in links {
            #expect(
                eventually { (try? link.receive(until: deadline())) == .signal(.reset, level: true) })
            try link.send(.signal(.powerGood, level: true))
        }
        #expect(eventually { (try? board.control.execute("query-security-state"))?["bridged"] == true })
        let card = links[1]
        for destination in [MCTPPacket.EndpointID.host, .bmc, .card1, .adapter, .card0] {
            try card.send(MCTPMessage(destination: destination, source: .card0, isTagOwner: true, tag: 1, body: [1]))
        }
        // Nor does anybody reach a card.
        try links[3].send(MCTPMessage(destination: .card0, source: .host, isTagOwner: true, tag: 1, body: [1]))
        #expect(eventually { board.sidebandCounter("dropped") == 6 })
        #expect(board.sidebandCounter("forwarded") == 0)
        for body in [SecurityRequest.setMode(.unprotected).encoded, UpdateRequest.query.encoded] {
            let answer = try board.exchange(body, on: card)
            #expect(Array(answer.dropFirst(4).prefix(1)) == [SecurityStatus.notPermitted.rawValue], "\(answer)")
        }
        for link in [links[0], links[2], links[3]] {
            #expect(throws: SidebandLink.Failure.wire(.timedOut)) { try link.receive(until: .after(.milliseconds(20))) }
        }
    }

    /// An update by the BMC's commands, up to the answer to the last one.
    private func update(_ board: Board, _ link: SidebandLink) throws -> UpdateResponse? {
        let manifest = Array(slot[0x1_0000...])
        let length = manifest[..<4].reversed().reduce(0) { $0 << 8 | Int($1) }
        let message = Array(manifest[4..<4 + length])
        var requests: [UpdateRequest] = [.begin(size: UInt32(slot.count), manifestSize: UInt32(length))]
        for start in stride(from: 0, to: length, by: UpdateRequest.maximumPiece) {
            let end = min(start + UpdateRequest.maximumPiece, length)
            requests.append(.manifest(offset: UInt32(start), data: Array(message[start..<end])))
        }
        for start in stride(from: 0, to: slot.count, by: UpdateRequest.maximumPiece) {
            let end = min(start + UpdateRequest.maximumPiece, slot.count)
            requests.append(.data(offset: UInt32(start), data: Array(slot[start..<end])))
        }
        var response: UpdateResponse?
        for request in requests + [.finish] {
            response = UpdateResponse(decoding: try board.exchange(request.encoded, on: link))
            guard response == .done(command: request.command) else { return response }
        }
        return response
    }

    @Test(arguments: [true, false])
    func `an update counts only when its record is kept`(canBeKept: Bool) throws {
        let folder = TemporaryFolder()
        let record = canBeKept ? folder.file("state.json") : folder.file("missing/state.json")
        let board = try Board(image: image, fuses: fuses, ["--state", record])
        let bmc = try board.sideband("bmc")
        _ = try board.verify()
        _ = try board.control.waitForEvent("BOARD_LOCKED", until: deadline())
        let response = try update(board, bmc)
        let query = UpdateResponse(decoding: try board.exchange(UpdateRequest.query.encoded, on: bmc))
        let state = try board.control.execute("query-security-state")
        if canBeKept {
            #expect(response == .done(command: UpdateRequest.finish.command))
            #expect(try board.events().contains("UPDATE_STAGED"))
            #expect(state["record"]?["pending"] == "B")
            return
        }
        guard case .refused(UpdateRequest.finish.command, .refused, let reason) = response else {
            Issue.record("\(String(describing: response))")
            return
        }
        #expect(reason.hasPrefix("the boot record cannot be stored: \(folder.path)/missing/"), "\(reason)")
        #expect(reason.hasSuffix("No such file or directory"), "\(reason)")
        guard case .status(.refused, _, _, _, reason: reason) = query else {
            Issue.record("\(String(describing: query))")
            return
        }
        #expect(try !board.events().contains("UPDATE_STAGED"))
        #expect(state["record"]?["pending"] == .null, "nor does the next power cycle try it")
        #expect(board.logic.text.contains("slot B is not staged: \(reason)"))
    }
}
