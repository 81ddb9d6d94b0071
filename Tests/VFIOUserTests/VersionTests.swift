import Testing
import VFIOUser

struct VersionTests {
    private func wire(_ json: String) -> [UInt8] { [0, 0, 1, 0] + Array(json.utf8) + [0] }

    @Test func `a version carries capabilities as JSON with a final NUL`() throws {
        let version = Version(
            capabilities: Capabilities(
                maximumMessageDescriptors: 8, maximumTransfer: 1 << 20, maximumDMAMaps: 65535, pageSizes: 4096,
                writeMultiple: true, twinSocket: true, twinSocketDescriptor: 0))
        let expected = wire(
            #"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,"#
                + #""write_multiple":true,"twin_socket":{"supported":true,"fd_index":0}}}"#)
        #expect(version.encoded() == expected)
        #expect(try Version(expected.span.bytes) == version)
    }

    @Test func `what QEMU 10 proposes is understood`() throws {
        let text =
            #"{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 8, "#
            + #""max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#
        let version = try Version(wire(text).span.bytes)
        #expect(version.capabilities.maximumMessageDescriptors == 8)
        #expect(version.capabilities.maximumTransfer == 1 << 20)
        #expect(version.capabilities.writeMultiple == true && version.capabilities.twinSocket == nil)
    }

    @Test(arguments: [
        "{}", #"{"capabilities":{}}"#, #"{"other":[1,-2.5e3,null,"\u00e9\n",{}]}"#, " { \"capabilities\" : { } } ",
    ]) func `unknown and missing things are defaults`(json: String) throws {
        #expect(try Version(wire(json).span.bytes).capabilities == Capabilities())
        #expect(try Version(([0, 0, 1, 0] as [UInt8]).span.bytes).capabilities == Capabilities())
    }

    @Test(arguments: [
        "", "{", "[]", "{} {}", #"{"capabilities":1}"#, #"{"capabilities":{"max_msg_fds":"8"}}"#,
        #"{"capabilities":{"max_msg_fds":-1}}"#, #"{"capabilities":{"max_msg_fds":1.5}}"#,
        #"{"capabilities":{"max_msg_fds":99999999999999999999}}"#, #"{"capabilities":{"write_multiple":1}}"#,
        #"{"capabilities":{"twin_socket":true}}"#, #"{"a":1,"a":2}"#, #"{"a":01}"#, #"{"a":tru}"#, #"{"a":"\x"}"#,
        #"{"a":"\u12g4"}"#, #"{"a"}"#, #"{"a":1,}"#, "{\"a\":\"\u{1}\"}", #"{"a":"#,
        String(repeating: "[", count: 5000), #"{"a":"# + String(repeating: "[", count: 40),
    ]) func `malformed JSON is EINVAL`(json: String) {
        #expect(refusal(wire(json)) { (raw) throws(ErrorNumber) in _ = try Version(raw) } == .invalid)
    }

    @Test func `a version without NUL, or of three bytes, is EINVAL`() {
        let open = wire("{}").dropLast()
        #expect(refusal(open) { (raw) throws(ErrorNumber) in _ = try Version(raw) } == .invalid)
        #expect(refusal([0, 0, 1]) { (raw) throws(ErrorNumber) in _ = try Version(raw) } == .invalid)
        let broken: [UInt8] = [0, 0, 1, 0, 0x22, 0xFF, 0x22, 0]
        #expect(refusal(broken) { (raw) throws(ErrorNumber) in _ = try Version(raw) } == .invalid)
    }
}
