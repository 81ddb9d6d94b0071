internal import Synchronization

/// The functions of one card, which share a slot's PERST#: they are reset and released together.
public final class CardFunctions: Sendable {
    private struct State {
        var isHeld: Bool
        /// In the order in which they were added: function 0 first.
        var endpoints: [Endpoint] = []
    }
    private let state: Mutex<State>

    /// - Parameter isHeld: whether PERST# is asserted from the start.
    public init(isHeld: Bool) { state = Mutex(State(isHeld: isHeld)) }

    /// Whether PERST# is asserted.
    public var isHeld: Bool { state.withLock { $0.isHeld } }

    /// Adds a function, the card's function 0 first, before it is served.
    public func add(_ endpoint: Endpoint) {
        let isHeld = state.withLock { state in
            state.endpoints.append(endpoint)
            return state.isHeld
        }
        if isHeld { endpoint.hold() }
    }

    /// Asserts PERST#. When this returns every function is dead: see `Endpoint.hold`.
    public func hold() {
        let endpoints = state.withLock { state in
            state.isHeld = true
            return state.endpoints
        }
        for endpoint in endpoints { endpoint.hold() }
    }

    /// Releases PERST#. Function 0 comes last: software finds the others by it.
    public func release() {
        let endpoints = state.withLock { state in
            state.isHeld = false
            return state.endpoints
        }
        for endpoint in endpoints.reversed() { endpoint.release() }
    }
}
