internal import Glibc
internal import Wire

/// What a writable chip keeps beside its content: two bytes in `IMAGE.registers`, the status register's non-volatile
/// bits and the configuration register's.
public struct FlashRegisterFile: Sendable {
    private let file: Descriptor
    private let path: String

    /// Opens or makes the file of the image at `image`; reads what it holds, the factory's setting when it is new.
    public init(image: String, registers: inout SPINORChip.NonvolatileRegisters) throws(FlashContentError) {
        path = "\(image).registers"
        do throws(WireError) {
            file = try Descriptor.open(path, flags: O_RDWR | O_CREAT, mode: 0o644)
            let bytes = try file.readSome(limit: 3, subject: path) ?? []
            switch bytes.count {
            case 0: break
            case 2: registers = SPINORChip.NonvolatileRegisters(status: bytes[0], configuration: bytes[1])
            default: throw WireError.badLength(length: bytes.count, minimum: 2, maximum: 2)
            }
        } catch {
            throw .unreadable(
                path: path, reason: "\(error); it holds the chip's status registers: remove it for a chip as shipped")
        }
    }

    func save(_ registers: SPINORChip.NonvolatileRegisters) throws(FlashContentError) {
        let bytes = [registers.status, registers.configuration]
        // Safety: the array holds the two bytes for the duration of the call.
        guard unsafe pwrite(file.rawValue, bytes, bytes.count, 0) == bytes.count else {
            throw .notKept(path: path, reason: systemErrorText(errno))
        }
    }
}
