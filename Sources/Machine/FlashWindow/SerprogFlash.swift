// The flash behind the window, over the spi wire.
internal import Serprog
import Synchronization
public import Wire

/// Reads the flash chip through a serprog programmer: the chip itself or the security logic in front of it.
///
/// The conversation begins with the first read, on the thread that asks for it: a component does not wait for another
/// one to start.
public final class SerprogFlash: FlashReader {
    private let socket: Socket
    private let client = Mutex<SerprogClient?>(nil)

    public init(socket: Socket) { self.socket = socket }

    public func read(offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
        let client = try client.withLock { known in
            if let known { return known }
            let made = try SerprogClient(socket: socket)
            known = made
            return made
        }
        var position = 0
        try client.readFlash(offset: UInt32(truncatingIfNeeded: offset), count: buffer.count) { piece in
            // Safety: the pieces together have `buffer.count` bytes; the minimum holds even if they had more.
            unsafe piece.withUnsafeBytes { bytes in
                let count = min(bytes.count, buffer.count - position)
                unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[position..<position + count])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
                position += count
            }
        }
    }
}
