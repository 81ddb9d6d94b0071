import Ethernet
import TestKit
import Testing

struct FramingTests {
    @Test func `frames come out whole however the stream is cut`() throws {
        let frames = [
            frame(to: .broadcast, from: station(1), payload: 0), frame(to: station(2), from: station(1), payload: 1486),
            [1], frame(to: station(1), from: station(2), payload: 65_539),
        ]
        let stream = frames.flatMap(framed)
        for piece in [1, 3, 17, 1500, 70_000, stream.count] {
            var decoder = FrameDecoder(capacity: 70_000)
            var got: [[UInt8]] = []
            var offset = 0
            while offset < stream.count {
                let end = min(offset + piece, stream.count)
                got += try decoder.feed(Array(stream[offset..<end]))
                offset = end
            }
            #expect(got == frames, "cut into pieces of \(piece) bytes")
            #expect(decoder.pendingByteCount == 0)
        }
    }

    @Test func `a length of zero is refused after the frames before it`() {
        var decoder = FrameDecoder()
        let good = frame(to: .broadcast, from: station(1))
        let bytes = framed(good) + [0, 0, 0, 0]
        var got: [[UInt8]] = []
        _ = decoder.fill { room in
            room.copyBytes(from: bytes)
            return bytes.count
        }
        #expect(throws: FramingError.emptyFrame) { try decoder.drain { got.append(copy($0)) } }
        #expect(got == [good])
    }

    @Test(arguments: [UInt32(65_554), 0x4745_5420, .max])
    func `a length above the maximum is refused before its bytes come`(length: UInt32) {
        var decoder = FrameDecoder()
        let prefix = (0..<4).map { UInt8(truncatingIfNeeded: length >> UInt32(24 - 8 * $0)) }
        #expect(throws: FramingError.oversizedFrame(length)) { try decoder.feed(prefix) }
    }

    @Test func `a new peer does not inherit half a frame`() throws {
        var decoder = FrameDecoder()
        let good = frame(to: .broadcast, from: station(1))
        #expect(try decoder.feed(Array(framed(good).dropLast(5))) == [])
        decoder.reset()
        #expect(try decoder.feed(framed(good)) == [good])
    }

    @Test func `a batch holds the stream framing`() {
        var batch = FrameBatch()
        let first = frame(to: .broadcast, from: station(1))
        let second = frame(to: station(1), from: station(2), payload: 3)
        #expect(batch.add(first) == true)
        #expect(batch.add(second) == true)
        let bytes = batch.withUnsentBytes { Array($0) }
        #expect(bytes == framed(first) + framed(second))
    }

    @Test func `a full batch refuses a frame and keeps what it has`() {
        var batch = FrameBatch(capacity: 65_557)
        let big = [UInt8](repeating: 7, count: 65_000)
        #expect(batch.add(big) == true)
        let other = [UInt8](repeating: 8, count: 554)
        #expect(batch.add(other) == false)
        #expect(batch.byteCount == 65_004)
        batch.consume(60_000)
        #expect(batch.add(other) == true)
        #expect(batch.byteCount == 5_004 + 558)
        #expect(batch.withUnsentBytes { Array($0) } == Array(repeating: 7, count: 5_004) + framed(Array(other)))
    }

    @Test func `an empty frame and one above the maximum do not enter a batch`() {
        var batch = FrameBatch()
        let nothing: [UInt8] = []
        let tooMuch = [UInt8](repeating: 0, count: 65_554)
        #expect(batch.add(nothing) == false)
        #expect(batch.add(tooMuch) == false)
        #expect(batch.isEmpty)
    }

    @Test func `a frame built in place equals one copied in`() {
        var built = FrameBatch()
        let began = built.beginFrame(EthernetHeader(destination: station(1), source: station(2), etherType: .arp))
        #expect(began)
        built.appendNetwork(UInt16(0))
        built.appendNetwork(UInt32(0x0203_0405))
        built.patchNetwork(0x0001, at: 14)
        built.endFrame()
        let same: [UInt8] = frame(to: station(1), from: station(2), .arp, payload: 6)
        var copied = FrameBatch()
        // The payload counts 0…5; the built one was given 0, 1, 2, 3, 4, 5 in three pieces.
        #expect(copied.add(same) == true)
        #expect(built.withUnsentBytes { Array($0) } == copied.withUnsentBytes { Array($0) })
    }

    @Test func `random streams never trap the decoder and end in frames or a refusal`() {
        var random = SeededGenerator.fresh()
        let seed = random.seed
        for _ in 0..<300 {
            var stream: [UInt8] = []
            var expected: [[UInt8]] = []
            for _ in 0..<Int.random(in: 0...12, using: &random) {
                let body = (0..<Int.random(in: 1...200, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
                expected.append(body)
                stream += framed(body)
            }
            let cut = Bool.random(using: &random)
            if cut { stream += (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) } }
            var decoder = FrameDecoder()
            var got: [[UInt8]] = []
            do {
                var rest = stream[...]
                while !rest.isEmpty {
                    let piece = rest.prefix(Int.random(in: 1...400, using: &random))
                    rest = rest.dropFirst(piece.count)
                    got += try decoder.feed(Array(piece))
                }
            } catch {
                #expect(cut, "seed \(seed): \(error)")
                continue
            }
            #expect(got == expected, "seed \(seed)")
        }
    }
}
