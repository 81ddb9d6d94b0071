internal import CSystemd
internal import Wire

/// What systemd or the launcher passed at the start, and what is told back. Spec: sd_listen_fds(3), sd_notify(3).
enum Activation {
    /// Takes the listening sockets passed to this process, by port name.
    ///
    /// Beside LISTEN_PID the variable BASEBOARD_LISTEN=1 marks sockets as ours: a launcher that uses posix_spawn does
    /// not know the pid in time. The variables are taken out of the environment.
    static func takeListeners() throws(ComponentError) -> [String: Descriptor] {
        // Safety: constant strings; nobody else reads the environment yet, the process has one thread.
        if let marker = unsafe getenv("BASEBOARD_LISTEN"), unsafe String(cString: marker) == "1" {
            unsafe setenv("LISTEN_PID", String(getpid()), 1)
            unsafe unsetenv("BASEBOARD_LISTEN")
        }
        var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        // Safety: the call fills `names` with a malloc'ed array of `count` malloc'ed strings, freed below.
        let count = unsafe sd_listen_fds_with_names(1, &names)
        guard count >= 0 else { throw .activation(systemErrorText(-count)) }
        var listeners: [String: Descriptor] = [:]
        var twice: String?
        for index in 0..<Int(count) {
            var name = "unknown"
            if let entry = unsafe names?[index] {
                name = unsafe String(cString: entry)
                unsafe free(entry)
            }
            let descriptor = Descriptor(adopting: 3 + Int32(index))
            if listeners.updateValue(descriptor, forKey: name) != nil { twice = name }
        }
        unsafe free(names)
        if let twice { throw .portGivenTwice(twice) }
        return listeners
    }

    /// The launcher's process id, from BASEBOARD_LAUNCHER; nil where something else started this process.
    static var launcher: Int32? {
        // Safety: a constant string; the value is copied before anybody can change the environment.
        guard let text = unsafe getenv("BASEBOARD_LAUNCHER") else { return nil }
        return unsafe Int32(String(cString: text))
    }

    /// Tells the service manager, if there is one. Errors are of no use to anybody and are dropped.
    static func notify(_ state: String) {
        // Safety: the string lives through the call.
        unsafe _ = sd_notify(0, state)
    }

    /// How often WATCHDOG=1 is due, or nil when nobody watches: half of what was asked for.
    static func watchdogInterval() -> Duration? {
        var microseconds: UInt64 = 0
        // Safety: the call fills one integer.
        guard unsafe sd_watchdog_enabled(0, &microseconds) > 0, microseconds > 1 else { return nil }
        return .microseconds(Int64(clamping: microseconds / 2))
    }
}
