import DeviceFirmware
import Synchronization
import TestKit
import Testing
import Wire

/// The loader against a chip that does as the test says, and against none.
@Suite struct FirmwareLoaderTests {
    /// A loader on a loop of its own, and what it brought.
    private final class Bench: Sendable {
        let thread: LoopThread
        let folder = TemporaryFolder()
        let flash: ScriptedFlash
        let loader: FirmwareLoader
        /// Nobody accepts here: a connection is made and nothing ever answers.
        private let silence: Listener
        private let outcomes = Mutex<[FirmwareLoader.Outcome]>([])

        init(_ target: DeviceTarget = .bmc, timeout: Duration = FirmwareLoader.timeout, silent: Bool = false) throws {
            thread = try LoopThread()
            let flash = try ScriptedFlash(path: folder.file("spi"))
            self.flash = flash
            silence = try Listener(path: folder.file("silence"))
            loader = FirmwareLoader(
                target, loop: thread.loop, timeout: timeout, path: silent ? folder.file("silence") : flash.path)
        }

        deinit { thread.end() }

        func begin() {
            thread.loop.perform { [self] in
                loader.load { [weak self] outcome in self?.outcomes.withLock { $0.append(outcome) } }
            }
        }

        var all: [FirmwareLoader.Outcome] { outcomes.withLock { $0 } }

        /// Loads once more; what came of it.
        func load() -> FirmwareLoader.Outcome? {
            let before = all.count
            begin()
            _ = eventually { all.count > before }
            return all.count > before ? all[before] : nil
        }
    }

    private static func package(_ version: String, _ target: DeviceTarget = .bmc) throws -> [UInt8] {
        try FirmwarePackage(target: target, version: FirmwareVersion(version)!).encoded()
    }

    @Test(arguments: DeviceTarget.allCases)
    func `each load reads the target's place, and takes what it holds then`(target: DeviceTarget) throws {
        let bench = try Bench(target)
        let place = Int(target.place.lowerBound)
        for version in ["1.2.3", "4.5.6"] {
            bench.flash.set([place: try Self.package(version, target)])
            #expect(try bench.load()?.get().version.description == version)
        }
        bench.flash.set([:])
        #expect(try bench.load()?.get() == .builtIn)
        #expect(bench.flash.reads.map(\.offset) == [place, place, place], "one read a load, of one page")
        #expect(bench.flash.reads.allSatisfy { $0.count == 4096 })
    }

    @Test func `garbage, another target, a short package and a broken wire are failures with their reasons`() throws {
        let bench = try Bench()
        let place = Int(DeviceTarget.bmc.place.lowerBound)
        func failure(_ bytes: [UInt8], _ manner: ScriptedFlash.Manner = .good) -> String {
            bench.flash.set([place: bytes], manner)
            guard case .failure(let error)? = bench.load() else { return "no failure" }
            return error.description
        }
        #expect(failure([UInt8](repeating: 0, count: 4096)).contains("no firmware package: it begins with 0x0"))
        #expect(failure(try Self.package("1.0.0", .adapter)).contains("for adapter, not for bmc"))
        #expect(failure(Array("BFPK".utf8) + [0, 0, 0x20, 0]).contains("2097160 bytes, its place holds 1048576"))
        #expect(failure(try Self.package("1.0.0").dropLast()).contains("the package: "), "erased bytes follow")
        #expect(failure(try Self.package("1.0.0"), .cuts).contains("the flash port: "))
        #expect(failure(try Self.package("1.0.0"), .refuses).contains("refused"))
        // An undriven line is no erased chip.
        #expect(failure(try Self.package("1.0.0"), .dead) == "the flash port: no flash chip answers")
        // One that goes beyond the first page is read whole before it is refused.
        let long = Array("BFPK".utf8) + [0x10, 0x27, 0, 0] + [UInt8](repeating: 0xA0, count: 10_000)
        let before = bench.flash.reads.count
        #expect(failure(long).contains("bytes follow the CBOR item"))
        #expect(bench.flash.reads.dropFirst(before).map(\.count) == [4096, 10_008 - 4096])
        // And the next release finds a good one.
        bench.flash.set([place: try Self.package("2.0.0")])
        #expect(try bench.load()?.get().version.description == "2.0.0")
    }

    @Test func `nobody at the port, and a wire that never answers, are failures in bounded time`() throws {
        let silent = try Bench(timeout: .milliseconds(50), silent: true)
        #expect(silent.load() == .failure(.unreadable("no answer within \(Duration.milliseconds(50))")))
        let thread = try LoopThread()
        defer { thread.end() }
        let outcome = Mutex<FirmwareLoader.Outcome?>(nil)
        let loader = FirmwareLoader(.bmc, loop: thread.loop, path: "/nowhere/spi")
        thread.loop.perform { loader.load { result in outcome.withLock { $0 = result } } }
        #expect(eventually { outcome.withLock { $0 } != nil })
        guard case .failure(.unreadable(let why))? = outcome.withLock({ $0 }) else {
            Issue.record("no failure")
            return
        }
        #expect(why.contains("/nowhere/spi"))
    }

    @Test func `a load that is given up is never heard of, and a newer one is`() throws {
        let bench = try Bench()
        let place = Int(DeviceTarget.bmc.place.lowerBound)
        bench.flash.set([place: try Self.package("1.0.0")], .slow(.milliseconds(100)))
        bench.begin()
        #expect(eventually { !bench.flash.reads.isEmpty })
        // Reset comes, and goes again, while the first one waits for the chip.
        bench.loader.cancel()
        bench.flash.set([place: try Self.package("2.0.0")])
        #expect(try bench.load()?.get().version.description == "2.0.0")
        #expect(bench.all.count == 1)
    }

    @Test func `without a port the built-in firmware runs at once`() throws {
        let loop = try EventLoop()
        let outcome = Mutex<FirmwareLoader.Outcome?>(nil)
        FirmwareLoader(.offload, loop: loop, path: nil).load { result in outcome.withLock { $0 = result } }
        #expect(outcome.withLock { $0 } == .success(.builtIn))
    }
}
