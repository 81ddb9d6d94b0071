public import VFIOUser

/// A model whose state can be taken and given: it makes its endpoint one that can migrate.
///
/// What the endpoint holds itself (configuration space, MSI-X table) it takes along; the model adds its own state, by
/// default none. Called on the server's thread, one call at a time.
public protocol MigratableModel: EndpointModel {
    /// The longest state that `restoreState` is given, in bytes.
    var maximumStateSize: Int { get }
    /// Whether `saveState` may be called while the model runs.
    var savesWhileRunning: Bool { get }
    /// Stops: when this returns no DMA and no interrupt is under way, and none begins until `resume` or a reset.
    func stop()
    func resume()
    /// The registers, and what is under way and was not completed by `stop`.
    func saveState() -> [UInt8]
    /// Takes over a state, after the configuration space; throws `invalid` where the bytes, which come from the
    /// client, are none. With `isFinal` false another one follows.
    func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber)
}

extension MigratableModel {
    public var maximumStateSize: Int { 1 << 16 }
    public var savesWhileRunning: Bool { false }
    public func stop() {}
    public func resume() {}
    public func saveState() -> [UInt8] { [] }
    public func restoreState(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        guard state.isEmpty else { throw .invalid }
    }
}

/// The state of an endpoint: `version`, the image of the configuration space, the MSI-X table, the model's state.
final class EndpointMigration: DeviceMigration {
    private let endpoint: Endpoint
    private let model: any MigratableModel
    private static let version: UInt8 = 1

    /// Safety of the reference: the endpoint makes one for each call, and it does not outlive that.
    init(_ endpoint: Endpoint, _ model: any MigratableModel) {
        self.endpoint = endpoint
        self.model = model
    }

    private var fixedSize: Int { 1 + ConfigurationSpace.size + endpoint.tableSize }

    var maximumStateSize: Int {
        let (size, overflow) = fixedSize.addingReportingOverflow(max(0, model.maximumStateSize))
        return overflow ? .max : size
    }

    var savesWhileRunning: Bool { model.savesWhileRunning }
    // A function that is held may be stopped and go on; its state is nobody's to take or give.
    func stop() { model.stop() }
    func resume() { model.resume() }

    func save() throws(ErrorNumber) -> [UInt8] {
        guard endpoint.enter() else { throw .inputOutput }
        defer { endpoint.leave() }
        let (image, table) = endpoint.image
        return [Self.version] + image + table + model.saveState()
    }

    func restore(_ state: [UInt8], isFinal: Bool) throws(ErrorNumber) {
        guard state.count >= fixedSize, state[0] == Self.version else { throw .invalid }
        guard endpoint.enter() else { throw .inputOutput }
        defer { endpoint.leave() }
        let table = 1 + ConfigurationSpace.size
        try endpoint.restore(image: state[1..<table], table: state[table..<fixedSize])
        try model.restoreState(Array(state[fixedSize...]), isFinal: isFinal)
    }
}

extension Endpoint {
    public var migration: (any DeviceMigration)? {
        (model as? any MigratableModel).map { EndpointMigration(self, $0) }
    }
}
