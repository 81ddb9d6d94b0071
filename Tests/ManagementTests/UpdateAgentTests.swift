import Management
import Sideband
import TestKit
import Testing

/// The BMC's side of an update against answers of the test.
@Suite struct UpdateAgentTests {
    /// A slot image as far as the agent looks: a manifest of `manifestSize` bytes in its place.
    private func image(_ size: Int = 0x2_0001, manifestSize: Int = 5000) -> [UInt8] {
        var generator = SeededGenerator(seed: 11)
        var image = generator.bytes(size)
        for index in 0..<4 { image[0x1_0000 + index] = UInt8(truncatingIfNeeded: manifestSize >> (8 * index)) }
        return image
    }

    @Test func `an image goes over in order: manifest, image, finish`() throws {
        let image = image()
        var agent = UpdateAgent()
        var request: UpdateRequest? = try agent.start(image)
        var manifest: [UInt8] = []
        var received: [UInt8] = []
        var isFinished = false
        #expect(request == .begin(size: UInt32(image.count), manifestSize: 5000))
        while let current = request {
            switch current {
            case .begin: #expect(agent.phase == .authenticating)
            case .manifest(let offset, let data):
                #expect(Int(offset) == manifest.count && !data.isEmpty)
                manifest += data
            case .data(let offset, let data):
                #expect(agent.phase == .sending && Int(offset) == received.count && agent.sent == received.count)
                received += data
            case .finish:
                #expect(agent.phase == .verifying)
                isFinished = true
            case .cancel, .query: Issue.record("\(current)")
            }
            // Answers to other commands are not taken for this one's.
            #expect(agent.handle(.done(command: 0x14)) == nil)
            request = agent.handle(.done(command: current.command))
        }
        #expect(manifest == Array(image[0x1_0004..<0x1_0004 + 5000]))
        #expect(received == image && isFinished)
        #expect(agent.phase == .staged && agent.sent == image.count && agent.size == image.count)
    }

    @Test(arguments: [0, 1, 2, 3, 20])
    func `a refusal ends it with the logic's reason`(answers: Int) throws {
        var agent = UpdateAgent()
        var request = try agent.start(image())
        for _ in 0..<answers {
            let next = agent.handle(.done(command: request.command))
            request = try #require(next)
        }
        #expect(agent.handle(.refused(command: request.command, .invalidData, reason: "not that one")) == nil)
        #expect(agent.phase == .failed)
        #expect(agent.reason == "the security logic refused \(request.name): not that one")
        #expect(agent.handle(.done(command: request.command)) == nil)
        #expect(throws: Never.self) { try agent.start(image()) }
    }

    @Test func `what is no slot image is refused with the way out`() {
        var agent = UpdateAgent()
        #expect(throws: UpdateAgent.Refusal.tooShort(10)) { try agent.start([UInt8](repeating: 0, count: 10)) }
        for size in [0, 0xF000 - 3, 1 << 24] {
            #expect(throws: UpdateAgent.Refusal.noManifest) { try agent.start(image(manifestSize: size)) }
        }
        #expect(agent.phase == .idle)
        #expect(UpdateAgent.Refusal.tooShort(10).description.contains("baseboard image build"))
    }

    @Test func `one update at a time, and one that fails gives way`() throws {
        var agent = UpdateAgent()
        _ = try agent.start(image())
        #expect(throws: UpdateAgent.Refusal.busy) { try agent.start(image()) }
        agent.fail("the BMC was reset")
        #expect(agent.phase == .failed && agent.reason == "the BMC was reset")
        _ = try agent.start(image())
    }
}
