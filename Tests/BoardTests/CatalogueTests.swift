import Component
import TestKit
import Testing

@Suite struct CatalogueTests {
    @Test(arguments: ComponentCatalog.kinds.map(\.name))
    func `every setting of the catalogue is an option of the component`(_ name: String) throws {
        let kind = try #require(ComponentCatalog.kind(named: name))
        let help = try run(binary(name), ["--help"])
        #expect(help.status == 0)
        for setting in kind.settings {
            #expect(help.output.contains("--\(setting.name)"), "\(name) --\(setting.name)\n\(help.output)")
        }
        for option in ["--name", "--listen", "--connect", "--die-with-parent"] {
            #expect(help.output.contains(option), "\(name) \(option)")
        }
    }
}
