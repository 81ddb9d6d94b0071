/// The registers of an attached function that the host keeps, after reset, and who holds each byte.
struct KeptRegisters {
    var space = ConfigurationSpace()
    var holders = [AttachedFunction.Holder](repeating: .device, count: ConfigurationSpace.size)
    var msi: MSIRegisters?

    init(_ profile: FunctionProfile) {
        keepHeader(profile)
        for place in profile.hidden { keep(place, 1) }
        if let found = profile.msi {
            let registers = MSIRegisters(offset: found.offset, control: found.control)
            registers.reset(&space, vectors: found.vectors)
            keep(found.offset + MSIRegister.control, registers.size - MSIRegister.control)
            msi = registers
        }
        if let found = profile.msix {
            space.set16(
                found.offset + MSIXRegister.control, UInt16(found.vectors - 1),
                writable: MSIXRegister.enable | MSIXRegister.functionMask)
            keep(found.offset + MSIXRegister.control, 2)
        }
        if let place = profile.express {
            space.set16(place + ExpressRegister.deviceControl, 0, writable: DeviceErrorBits.enables)
            space.set(place + ExpressRegister.deviceStatus, UInt16(0), writeOneToClear: DeviceErrorBits.detected)
            keep(place + ExpressRegister.deviceControl, 4, .both)
        }
        if let place = profile.powerManagement {
            let from = PowerManagementRegister.pmeFromD0 | PowerManagementRegister.pmeFromD3
            let capabilities = UInt16(profile.bytes[place + 2]) | UInt16(profile.bytes[place + 3]) << 8
            if capabilities & from != 0 {
                // The event's enable and status. The rest of the register is the device's.
                space.set8(place + PowerManagementRegister.control + 1, 0, writable: 1)
                space.set(place + PowerManagementRegister.control + 1, UInt8(0), writeOneToClear: 0x80)
                keep(place + PowerManagementRegister.control + 1, 1)
            }
        }
        if let place = profile.advanced {
            ErrorLog.reset(&space, at: place, isRoot: false)
            keep(place + ErrorRegister.uncorrectableStatus, ErrorRegister.endpointSize - 4)
        }
    }

    private mutating func keepHeader(_ profile: FunctionProfile) {
        space.set16(ConfigurationRegister.command, 0, writable: CommandBits.writable | CommandBits.io)
        space.set(ConfigurationRegister.status, UInt16(0), writeOneToClear: StatusBits.writeOneToClear)
        keep(ConfigurationRegister.command, 4, .both)
        // Type 0; the port says whether there are more functions.
        keep(ConfigurationRegister.headerType, 1)
        keep(ConfigurationRegister.baseAddress0, 24)
        keep(ConfigurationRegister.romAddress, 4)
        space.set8(ConfigurationRegister.interruptPin, profile.interruptPin)
        keep(ConfigurationRegister.interruptPin, 1)
        for bar in profile.bars {
            if bar.isROM {
                space.setROMBaseAddress(size: bar.size)
            } else if bar.isIO {
                space.setIOBaseAddress(bar.index, size: bar.size)
            } else {
                space.setBaseAddress(
                    bar.index, size: bar.size, is64Bit: bar.is64Bit, prefetchable: bar.isPrefetchable)
            }
        }
    }

    private mutating func keep(_ place: Int, _ count: Int, _ holder: AttachedFunction.Holder = .host) {
        for index in place..<min(place + count, holders.count) { holders[index] = holder }
    }
}
