internal import Synchronization
public import VFIOUser

/// What a model drives: the endpoint's side of the bus. Any thread may call anything at any time.
public final class EndpointBus: Sendable {
    /// The host's memory. Fails with `.disabled` until software sets bus master enable, and in D3hot.
    public let dma: DMAAddressSpace
    let interrupts: InterruptTable

    private struct Pin {
        /// What the model wants.
        var level = false
        /// Software has disabled INTx, or the function sleeps.
        var isDisabled = false
    }

    private let pin = Mutex(Pin())
    /// Vectors raised while messages, which are memory writes, cannot leave.
    private let waiting = Mutex<Set<Int>>([])
    private let owner = Mutex<Owner>(Owner())
    private struct Owner { weak var endpoint: Endpoint? }

    init(dma: DMAAddressSpace, interrupts: InterruptTable) {
        self.dma = dma
        self.interrupts = interrupts
    }

    func connect(_ endpoint: Endpoint) { owner.withLock { $0.endpoint = endpoint } }

    // MARK: Interrupts

    /// Raises an MSI-X vector, or the MSI vector of that number where software has enabled MSI instead; of MSI vectors
    /// there may be fewer, and then several share one. While the function is no bus master the vector waits. False
    /// when the host has enabled neither (nothing happens then): a device that must not lose it raises again later.
    @discardableResult
    public func raise(vector: Int) -> Bool {
        guard vector >= 0 else { return false }
        guard dma.isEnabled else {
            guard isMessaging, vector < 2048 else { return false }
            waiting.withLock { _ = $0.insert(vector) }
            // It may have been enabled between the two looks.
            if dma.isEnabled { release() }
            return true
        }
        return send(vector)
    }

    private func send(_ vector: Int) -> Bool {
        guard let number = UInt32(exactly: vector) else { return false }
        if interrupts.raise(.msix, vector: number) { return true }
        var count = interrupts.count(.msi)
        while count > 0 {
            if interrupts.raise(.msi, vector: number & (count - 1)) { return true }
            count /= 2
        }
        return false
    }

    /// Whether a vector waits for bus mastering.
    func isWaiting(_ vector: Int) -> Bool { waiting.withLock { $0.contains(vector) } }

    /// Sends what waited for bus mastering.
    func release() {
        guard dma.isEnabled else { return }
        let vectors = waiting.withLock { waiting in
            let vectors = waiting.sorted()
            waiting = []
            return vectors
        }
        for vector in vectors { _ = send(vector) }
    }

    /// Whether the host has set up MSI-X: a function that may interrupt by INTx too must not do so then.
    public var isMSIXEnabled: Bool { interrupts.isSet(.msix) }

    /// Whether the host has set up messages of either kind.
    public var isMessaging: Bool { interrupts.isSet(.msix) || interrupts.isSet(.msi) }

    /// Sets the level of the INTx pin, which software may have disabled.
    public func setINTx(_ level: Bool) {
        pin.withLock { pin in
            pin.level = level
            interrupts.setINTx(level && !pin.isDisabled)
        }
    }

    func setINTxDisabled(_ isDisabled: Bool) {
        pin.withLock { pin in
            guard pin.isDisabled != isDisabled else { return }
            pin.isDisabled = isDisabled
            interrupts.setINTx(pin.level && !isDisabled)
        }
    }

    /// The model wants an interrupt by INTx, whether that is disabled or not.
    var isINTxPending: Bool { pin.withLock { $0.level } }

    /// As after reset.
    func forget() {
        waiting.withLock { $0 = [] }
        pin.withLock { $0 = Pin() }
        interrupts.setINTx(false)
    }

    // MARK: Errors and requests

    /// Logs an error in the function's registers. The host hears of an uncorrectable one by vfio-user's error
    /// interrupt and makes an error message of it.
    public func report(_ error: PCIError, header: [UInt32]? = nil) {
        owner.withLock { $0.endpoint }?.log(error, header)
        if !error.isCorrectable { interrupts.raise(.error) }
    }

    /// Asks the host to remove the function in order, as the attention button of its slot would. False when the host
    /// does not listen.
    @discardableResult
    public func requestRemoval() -> Bool { interrupts.raise(.request) }
}
