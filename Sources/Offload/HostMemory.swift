/// The host's memory as a card's DMA engine sees it. Addresses are guest-physical.
///
/// A copy either happens whole or the call says that it did not; nothing that a host writes into a register can make it
/// trap.
public protocol HostMemory {
    /// `count` bytes from `address`; nil when not all of them can be read.
    func read(_ address: UInt64, count: Int) -> [UInt8]?
    /// Writes `bytes` at `address`; false when not all of them can be. Two writes become visible in their order.
    func write(_ bytes: [UInt8], at address: UInt64) -> Bool
}
