internal import BlockStore
internal import VFIOUser

// Identify. Spec: NVM Express 1.4 §5.15.
extension NVMeEngine {
    func identify(_ command: NVMeCommand) -> NVMeOutcome {
        data.clear()
        switch command.dword10 & 0xFF {
        case 0x00:
            // An inactive namespace is all zeroes; of all together there is nothing more to say.
            guard command.namespace != 0, command.namespace == NVMeCommand.allNamespaces || isValid(command.namespace)
            else { return .status(.invalidNamespace) }
            if let store = namespace(command.namespace) { identifyNamespace(store) }
            if command.namespace == NVMeCommand.allNamespaces, let store = configuration.namespaces.first {
                identifyCapabilities(store)
            }
        case 0x01: identifyController()
        case 0x02:
            guard command.namespace < 0xFFFF_FFFE else { return .status(.invalidNamespace) }
            var offset = 0
            for number in 1...UInt32(NVMeEngine.namespaceLimit)
            where number > command.namespace && namespace(number) != nil && offset < NVMeLimits.pageSize {
                data.put(number, at: offset)
                offset += 4
            }
        case 0x03:
            guard namespace(command.namespace) != nil else { return .status(.invalidNamespace) }
            // Type 3, a UUID of 16 bytes, in the byte order of RFC 9562.
            data.put(UInt8(3), at: 0)
            data.put(UInt8(16), at: 1)
            let (high, low) = configuration.uuid(command.namespace)
            data.put(high.byteSwapped, at: 4)
            data.put(low.byteSwapped, at: 12)
        default: return .status(.invalidField)
        }
        return .status(giveData(command, count: NVMeLimits.pageSize))
    }

    static let namespaceLimit = 128

    /// Numbers that could be a namespace's: 1…NN.
    func isValid(_ number: UInt32) -> Bool { number > 0 && number <= UInt32(max(configuration.namespaces.count, 1)) }

    func namespace(_ number: UInt32) -> BlockStore? {
        guard number > 0, number <= UInt32(configuration.namespaces.count) else { return nil }
        return configuration.namespaces[Int(number - 1)]
    }

    /// Spec: NVM Express 1.4 figure 247.
    private func identifyController() {
        data.put(UInt16(0x1B36), at: 0)
        data.put(UInt16(0x1B36), at: 2)
        data.put(configuration.serial, at: 4, count: 20)
        data.put(configuration.model, at: 24, count: 40)
        data.put(configuration.firmware, at: 64, count: 8)
        data.put(UInt8(4), at: 72)  // RAB: bursts of 2^4 commands
        data.put(NVMeLimits.transferShift, at: 77)  // MDTS
        data.put(UInt16(1), at: 78)  // CNTLID
        data.put(NVMeRegister.version1_4, at: 80)
        data.put(UInt32(1 << 8), at: 92)  // OAES: namespace attribute notices
        data.put(UInt8(1), at: 111)  // CNTRLTYPE: I/O controller
        data.put(UInt16(1 << 8), at: 256)  // OACS: doorbell buffer config
        data.put(UInt8(NVMeLimits.aborts - 1), at: 258)  // ACL
        data.put(UInt8(NVMeLimits.eventRequests - 1), at: 259)  // AERL
        data.put(UInt8(0x03), at: 260)  // FRMW: one slot, read only
        data.put(UInt8(0x06), at: 261)  // LPA: commands-supported log, extended data
        data.put(UInt8(NVMeLimits.errorLogEntries - 1), at: 262)  // ELPE
        data.put(NVMeFeatures.warningTemperature, at: 266)
        data.put(NVMeFeatures.criticalTemperature, at: 268)
        data.put(UInt8(0x66), at: 512)  // SQES
        data.put(UInt8(0x44), at: 513)  // CQES
        data.put(UInt32(max(configuration.namespaces.count, 1)), at: 516)  // NN
        // ONCS: compare, dataset management, write zeroes, verify.
        data.put(UInt16(1 | 1 << 2 | 1 << 3 | 1 << 7), at: 520)
        data.put(UInt8(0x07), at: 525)  // VWC: present; flush takes all namespaces
        data.put("nqn.2026-01.org.baseboard:nvme:" + configuration.serial, at: 768, count: 256, padding: 0)
        data.put(UInt16(2500), at: 2048)  // power state 0: 25 W
    }

    /// Spec: NVM Express 1.4 figure 245.
    private func identifyNamespace(_ store: BlockStore) {
        let blocks = store.blockCount
        data.put(blocks, at: 0)
        data.put(blocks, at: 8)
        data.put(blocks, at: 16)
        identifyCapabilities(store)
        if store.isReadOnly { data.put(UInt8(1), at: 99) }  // NSATTR: write protected
    }

    /// What is the same for every namespace of this controller.
    private func identifyCapabilities(_ store: BlockStore) {
        data.put(UInt8(0x09), at: 33)  // DLFEAT: deallocated blocks read as zeroes, Write Zeroes may deallocate
        data.put(UInt32(store.blockSize.trailingZeroBitCount) << 16, at: 128)  // LBAF0: LBADS
    }
}
