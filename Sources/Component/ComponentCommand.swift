public import ArgumentParser
internal import Wire

/// The main type of a component's executable: arguments in, parts assembled in `start`.
///
/// ```swift
/// @main struct Flash: ComponentCommand {
///     static let kind = "flash"
///     @OptionGroup var options: ComponentOptions
///     func start(_ runtime: ComponentRuntime) throws { … }
/// }
/// ```
public protocol ComponentCommand: ParsableCommand {
    /// The executable's name and kind.
    static var kind: String { get }
    var options: ComponentOptions { get }
    /// Claims the ports, starts the threads, and returns; a thrown error ends the process with its text and code 1.
    func start(_ runtime: ComponentRuntime) throws
}

extension ComponentCommand {
    public mutating func run() throws {
        let runtime = try ComponentRuntime(kind: Self.kind, options: options)
        try runtime.interruptible { try start(runtime) }
        let code = try runtime.run()
        // Data-path threads may still sit in a blocking receive: the process ends without waiting for them.
        endProcess(code)
    }
}
