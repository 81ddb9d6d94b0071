import Management
import Testing

struct AddressTests {
    @Test(arguments: ["0.0.0.0", "192.168.7.2", "255.255.255.255", "10.0.0.1"])
    func `an address is read and written the same`(text: String) throws {
        #expect(IPv4Address(text)?.description == text)
    }

    @Test(arguments: ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1..3.4", "1.2.3.x", " 1.2.3.4", "1.2.3.-4"])
    func `text that is no address is refused`(text: String) {
        #expect(IPv4Address(text) == nil)
    }

    @Test(arguments: [
        "192.168.7.2", "192.168.7.2/", "192.168.7.2/0", "192.168.7.2/31", "192.168.7.2/33", "192.168.7.0/24",
        "192.168.7.255/24", "127.0.0.1/8", "224.0.0.1/4", "240.0.0.1/8", "0.1.2.3/8", "192.168.7.2/24/8",
    ])
    func `an interface that no station can have is refused`(text: String) {
        #expect(IPv4Interface(text) == nil)
    }

    @Test func `an interface knows its network`() throws {
        let interface = try #require(IPv4Interface("192.168.7.130/25"))
        #expect(interface.description == "192.168.7.130/25")
        #expect(interface.broadcast == IPv4Address("192.168.7.255"))
        #expect(interface.contains(IPv4Address("192.168.7.129")!))
        #expect(!interface.contains(IPv4Address("192.168.7.127")!))
        #expect(!interface.isUsable(IPv4Address("192.168.7.128")!))
    }
}
