public import VFIOUser

/// Who holds a served device and its client: a device's state goes from one of these to another.
public protocol DeviceHolder: AnyObject {
    var client: VFIOUserClient { get }
}

/// Calls of the holder, not of its client: the device must live as long as the call.
extension DeviceHolder {
    /// Stops the device and takes its state.
    public func saveState() throws(VFIOUserError) -> [UInt8] {
        try client.setMigrationState(.stopCopy)
        return try client.readMigrationData()
    }

    /// Gives the device a state, which it looks at when it is told to leave `resuming`.
    public func load(_ state: [UInt8]) throws(VFIOUserError) {
        try client.setMigrationState(.resuming)
        try client.writeMigrationData(state)
    }

    /// Gives the device a state and lets it run.
    public func restore(_ state: [UInt8]) throws(VFIOUserError) {
        try load(state)
        try client.setMigrationState(.running)
    }
}
