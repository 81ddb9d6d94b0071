/// One function as a root complex found it: where it is, and all that can be read of it.
public struct FunctionListing: Sendable {
    /// A base address register.
    public struct BaseAddress: Sendable {
        /// 0 to 5, or 6 for the expansion ROM's.
        public var index: Int
        /// Bytes that it decodes, a power of two.
        public var size: UInt64
        /// It decodes ports, not memory.
        public var isIO: Bool
    }

    /// The bus; zero on the root bus, and also behind a root port whose secondary bus the guest has not numbered yet.
    public var bus: UInt8
    public var device: UInt8
    public var function: UInt8
    /// The root port that it is behind; nil on the root bus.
    public var port: Int?
    /// Configuration space as a guest reads it: 256 to 4096 bytes.
    public var configuration: [UInt8]
    public var baseAddresses: [BaseAddress] = []

    /// A little-endian register of 1, 2 or 4 bytes. Precondition: it lies in the first 256 bytes.
    public func register(_ offset: Int, width: Int) -> UInt32 {
        precondition(offset >= 0 && offset + width <= ConfigurationRegister.conventionalSize)
        return (0..<width).reduce(0) { $0 | UInt32(configuration[offset + $1]) << UInt32($1 * 8) }
    }
}
