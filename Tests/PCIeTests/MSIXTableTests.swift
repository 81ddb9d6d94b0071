import PCIe
import Testing

struct MSIXTableTests {
    private func open() -> MSIXTable {
        var table = MSIXTable(vectors: 3)
        table.isEnabled = true
        table.isMaster = true
        for vector in 0..<3 {
            table.writeTable(vector * 16, width: 8, value: 0x2800_0000 + UInt64(vector) * 0x1000)
            table.writeTable(vector * 16 + 8, width: 4, value: UInt64(vector) + 40)
            table.writeTable(vector * 16 + 12, width: 4, value: 0)
        }
        return table
    }

    @Test func `a vector sends its message`() {
        var table = open()
        #expect(table.raise(2) == .init(address: 0x2800_2000, data: 42))
        #expect(table.readPending(0, width: 8) == 0)
        #expect(table.raise(3) == nil && table.raise(-1) == nil)
    }

    @Test func `after reset every vector is masked and nothing is enabled`() {
        var table = MSIXTable(vectors: 2)
        #expect(table.readTable(12, width: 4) == 1 && table.readTable(28, width: 4) == 1)
        #expect(table.raise(0) == nil)
        table.isEnabled = true
        #expect(table.release().isEmpty && table.readPending(0, width: 8) == 0)
    }

    /// Each way to mask, and the way back.
    @Test(arguments: 0..<3) func `a masked vector is pending and goes out when the mask goes`(way: Int) {
        var table = open()
        switch way {
        case 0: table.writeTable(16 + 12, width: 4, value: 1)
        case 1: table.isMasked = true
        default: table.isMaster = false
        }
        #expect(table.raise(1) == nil)
        #expect(table.raise(1) == nil)
        #expect(table.readPending(0, width: 8) == 2 && table.release().isEmpty)
        switch way {
        case 0: table.writeTable(16 + 12, width: 4, value: 0)
        case 1: table.isMasked = false
        default: table.isMaster = true
        }
        #expect(table.release() == [.init(address: 0x2800_1000, data: 41)])
        #expect(table.readPending(0, width: 8) == 0 && table.release().isEmpty)
    }

    @Test func `reserved bits stay zero and bytes outside are ignored`() {
        var table = open()
        table.writeTable(0, width: 4, value: 0xFFFF_FFFF)
        table.writeTable(12, width: 4, value: 0xFFFF_FFFE)
        table.writeTable(44, width: 8, value: .max)
        table.writeTable(-4, width: 8, value: 0)
        #expect(table.readTable(0, width: 4) == 0 && table.readTable(12, width: 4) == 0)
        #expect(table.readTable(44, width: 8) == 1)
        #expect(table.readTable(4096, width: 8) == 0 && table.readPending(4096, width: 8) == 0)
    }
}
