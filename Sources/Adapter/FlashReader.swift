import Serprog
import Trust

/// The board's flash chip as the verifier reads it: through the security logic, over serprog, in whole pages, of which
/// the logic keeps digests: the host executes the pages that passed here or none.
struct FlashReader: ImageReader {
    private let client: SerprogClient
    let byteCount: UInt64

    /// Asks the chip how large it is.
    ///
    /// Spec: JEDEC JEP106 (manufacturer) and the capacity byte that all large SPI NOR makers use: its power of two.
    init(_ client: SerprogClient) throws(ImageReadError) {
        self.client = client
        let identification: [UInt8]
        do throws(SerprogError) {
            identification = try client.spiTransaction(write: [SPIFlash.readIdentification], readCount: 3)
        } catch {
            throw ImageReadError("the flash chip does not say what it is: \(error)")
        }
        guard identification != [0xFF, 0xFF, 0xFF], identification != [0, 0, 0] else {
            throw ImageReadError("no flash chip answers, or the security logic keeps it from us")
        }
        // 64 KiB to 2 GiB: what 32-bit addresses and our integers hold with room.
        guard (16...31).contains(identification[2]) else {
            throw ImageReadError("the flash chip claims a capacity of 2^\(identification[2]) bytes")
        }
        byteCount = 1 << UInt64(identification[2])
    }

    mutating func read(offset: UInt64, count: UInt64, _ body: (RawSpan) -> Void) throws(ImageReadError) {
        guard offset <= byteCount, count <= byteCount - offset else {
            throw ImageReadError("bytes \(offset) to \(offset &+ count) of a flash chip of \(byteCount)")
        }
        guard count > 0 else { return }
        var pages = WholePages(around: offset, count: count)
        do throws(SerprogError) {
            try client.readFlash(offset: UInt32(pages.start), count: Int(pages.end - pages.start)) { piece in
                pages.take(piece, body)
            }
        } catch {
            throw ImageReadError("the flash chip at \(offset): \(error)")
        }
    }
}
