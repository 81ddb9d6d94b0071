internal import Logging
internal import QMP
public import Sideband
internal import Wire

extension ComponentRuntime {
    /// Begins to obey RESET# at port `sideband`, and tells of it as every component does: the events `RESET_ASSERTED`,
    /// `RESET_RELEASED` and `POWER_GOOD`, and the status `held` or `running`. Without a sideband the component leaves
    /// reset at once. The link ends with the component.
    ///
    /// - Parameters:
    ///   - path: what `connectionPath("sideband")` said.
    ///   - hold, run, beforePowerGood: see `PowerLine.Handlers`; on the loop's thread.
    ///   - event: told after the status has changed and the event went out.
    public func startPower(
        _ path: String?, hold: @escaping @Sendable () -> Void, run: @escaping @Sendable () -> Void,
        beforePowerGood: (@Sendable (PowerLine.PowerUp) -> Void)? = nil,
        event: @escaping @Sendable (PowerLine.Event) -> Void = { _ in }
    ) throws(ComponentError) {
        setStatus("held")
        let line = PowerLine(
            loop: loop,
            PowerLine.Handlers(
                hold: hold,
                run: { [unowned self] in
                    // What begins now may change the status at once.
                    setStatus("running")
                    run()
                },
                beforePowerGood: beforePowerGood,
                event: { [unowned self] in
                    tell($0)
                    event($0)
                },
                report: { [log] in log.warning("\($0)") }))
        onStop { line.stop() }
        do throws(WireError) { try line.start(path.map { .uses(path: $0) }) } catch {
            throw .wire(port: "sideband", error)
        }
    }

    private func tell(_ event: PowerLine.Event) {
        switch event {
        case .resetAsserted:
            setStatus("held")
            emit("RESET_ASSERTED")
        case .resetReleased: emit("RESET_RELEASED")
        case .powerGood: emit("POWER_GOOD")
        case .powerFailed(let reason):
            log.error("\(reason): the functions stay in reset")
            setStatus("failed", ["reason": .string(reason)])
        }
    }
}
