// Which board a command is about.

import ArgumentParser
import Component
import Launcher

/// `--board NAME`, for commands whose arguments name components.
struct BoardOption: ParsableArguments {
    @Option(help: ArgumentHelp("The board, where more than one runs.", valueName: "name"))
    var board: String?
}

enum BoardSelection {
    /// The folder and record of the board that is meant.
    ///
    /// - Parameters:
    ///   - name: the board's name, or nil for the only one that runs.
    ///   - orEnded: whether, where none runs, the only one that ended is meant.
    static func find(_ name: String?, orEnded: Bool = false) throws(LaunchError) -> (RuntimeFolder, BoardRecord) {
        let folders = RuntimeFolder.all()
        if let name {
            let folder = RuntimeFolder.of(name)
            guard let record = BoardRecord.read(folder) else {
                throw .noBoard("there is no board '\(name)'" + known(folders))
            }
            guard orEnded || folder.runningPID != nil else { throw .noBoard("board '\(name)' does not run") }
            return (folder, record)
        }
        let running = folders.filter { $0.runningPID != nil }
        let candidates = running.isEmpty && orEnded ? folders : running
        guard let folder = candidates.first else { throw .noBoard("no board runs; 'baseboard up FILE' starts one") }
        guard candidates.count == 1 else {
            throw .noBoard("which board? " + names(candidates).joined(separator: ", ") + ": name it by --board")
        }
        guard let record = BoardRecord.read(folder) else {
            throw .noBoard("the board in \(folder.path) has no record yet: it is just starting")
        }
        return (folder, record)
    }

    private static func known(_ folders: [RuntimeFolder]) -> String {
        folders.isEmpty ? "" : "; there are " + names(folders).joined(separator: ", ")
    }

    private static func names(_ folders: [RuntimeFolder]) -> [String] {
        folders.compactMap { $0.path.split(separator: "/").last.map(String.init) }
    }
}

extension BoardRecord {
    /// The component of that name.
    func component(_ name: String) throws(LaunchError) -> Component {
        if let component = components.first(where: { $0.name == name }) { return component }
        throw .noBoard(
            "board '\(self.name)' has no component '\(name)'; it has " + components.map(\.name).joined(separator: ", "))
    }
}

/// A duration such as `500ms`.
struct DurationArgument: ExpressibleByArgument {
    var duration: Duration

    init?(argument: String) {
        guard let duration = Duration(parsing: argument) else { return nil }
        self.duration = duration
    }

    init(_ duration: Duration) { self.duration = duration }

    var defaultValueDescription: String { duration.spelled }
}
