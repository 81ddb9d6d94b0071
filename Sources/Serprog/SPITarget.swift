/// What hangs behind a serprog server: a chip, or a gate in front of one.
///
/// Each connection has a target of its own and calls it on one thread; what connections share, the targets lock.
public protocol SPITarget: SendableMetatype {
    /// One transaction: chip select low, `write` out, `readCount` bytes in, chip select high.
    ///
    /// Gives the bytes read to `reply` in order, in pieces of the target's choice; fewer than `readCount` in all end
    /// the connection. The transaction is atomic at the chip. An error thrown before the first piece is answered with
    /// NAK, a later one ends the connection.
    mutating func transact(
        write: [UInt8], readCount: Int, reply: (RawSpan) throws(SPITargetError) -> Void
    ) throws(SPITargetError)
}

/// Why a transaction did not come to its end.
public struct SPITargetError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}
