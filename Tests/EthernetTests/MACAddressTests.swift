import Ethernet
import Testing

struct MACAddressTests {
    @Test(arguments: ["52:54:00:12:34:56", "52-54-00-12-34-56"])
    func `an address is read in either of its spellings`(text: String) throws {
        let address = try #require(MACAddress(text))
        #expect(address.rawValue == 0x5254_0012_3456)
        #expect(address.description == "52:54:00:12:34:56")
        #expect(MACAddress(address.description) == address)
    }

    @Test(arguments: [
        "", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:567", "52:54:00:12:34:56:78", "52:54-00:12:34:56",
        "525400123456", "52:54:00:12:34:5g", ":2:54:00:12:34:56", "52:54:00:12:34:é",
    ])
    func `text that is no address is refused`(text: String) {
        #expect(MACAddress(text) == nil)
    }

    @Test func `group and local bits are those of the first octet`() {
        #expect(MACAddress.broadcast.isMulticast)
        #expect(MACAddress("01:00:5e:00:00:01")!.isMulticast)
        #expect(!MACAddress("52:54:00:00:00:01")!.isMulticast)
        #expect(MACAddress("52:54:00:00:00:01")!.isLocallyAdministered)
        #expect(!MACAddress("00:1b:21:00:00:01")!.isLocallyAdministered)
        #expect(MACAddress("01:80:c2:00:00:0e")!.isBridgeReserved)
        #expect(!MACAddress("01:80:c2:00:00:10")!.isBridgeReserved)
    }

    @Test func `a header is read from the first fourteen bytes`() throws {
        let bytes = frame(to: .broadcast, from: station(1), .arp)
        let read = try #require(header(of: bytes))
        #expect(read == EthernetHeader(destination: .broadcast, source: station(1), etherType: .arp))
    }

    @Test(arguments: [0, 1, 13, 65_554])
    func `a frame out of bounds has no header`(length: Int) {
        let bytes = [UInt8](repeating: 0, count: length)
        #expect(header(of: bytes) == nil)
    }

    @Test func `a frame at the bounds has a header`() {
        let shortest = [UInt8](repeating: 0, count: 14)
        let longest = [UInt8](repeating: 0, count: 65_553)
        #expect(header(of: shortest) != nil)
        #expect(header(of: longest) != nil)
    }
}
