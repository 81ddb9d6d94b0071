internal import QMP

extension ComponentRuntime {
    /// Adds the commands that capture this component's links: `capture-start` with a `path`, and `capture-stop`.
    ///
    /// What `start` and `stop` throw is the error reply.
    public func registerCapture(
        start: @escaping @Sendable (_ path: String) throws -> Void, stop: @escaping @Sendable () throws -> Void
    ) {
        control.register(
            QMPCommand("capture-start", [.required("path", .string)]) { arguments throws(QMPError) in
                do { try start(arguments["path"]?.stringValue ?? "") } catch { throw QMPError("\(error)") }
                return [:]
            })
        control.register(
            QMPCommand("capture-stop") { _ throws(QMPError) in
                do { try stop() } catch { throw QMPError("\(error)") }
                return [:]
            })
    }
}
