/// The functions that the host has itself: the host bridge and the root ports' headers.
enum HostFunctions {
    /// 00:00.0, a host bridge. Red Hat's "PCIe Host bridge".
    static func hostBridge() -> ConfigurationSpace {
        var space = ConfigurationSpace()
        space.set16(ConfigurationRegister.vendorID, VendorID.redHat)
        space.set16(ConfigurationRegister.deviceID, 0x0008)
        space.set16(ConfigurationRegister.command, 0, writable: CommandBits.writable)
        space.set(ConfigurationRegister.status, UInt16(0), writeOneToClear: StatusBits.writeOneToClear)
        space.set16(ConfigurationRegister.classDevice, ClassID.hostBridge)
        space.set16(ConfigurationRegister.subsystemVendorID, VendorID.redHat)
        space.set16(ConfigurationRegister.subsystemID, 0x1100)
        return space
    }

    /// A root port's registers after reset, and where its capabilities lie.
    struct RootPort {
        var space: ConfigurationSpace
        var powerManagement: Int
        var express: Int
        var msi: MSIRegisters
        var advanced: Int
    }

    /// A root port: a type 1 header with windows of all kinds, and a hot-plug slot. Red Hat's "PCIe Root port".
    static func rootPort(_ number: Int) -> RootPort {
        var space = ConfigurationSpace()
        space.set16(ConfigurationRegister.vendorID, VendorID.redHat)
        space.set16(ConfigurationRegister.deviceID, 0x000C)
        space.set16(ConfigurationRegister.command, 0, writable: CommandBits.writable | CommandBits.io)
        space.set(ConfigurationRegister.status, UInt16(0), writeOneToClear: StatusBits.writeOneToClear)
        space.set16(ConfigurationRegister.classDevice, ClassID.pciBridge)
        space.set8(ConfigurationRegister.cacheLineSize, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.headerType, HeaderType.bridge)
        space.set8(ConfigurationRegister.primaryBus, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.secondaryBus, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.subordinateBus, 0, writable: 0xFF)
        // 16-bit I/O addresses: the host's I/O space has 64 KiB.
        space.set8(ConfigurationRegister.ioBase, 0, writable: 0xF0)
        space.set8(ConfigurationRegister.ioLimit, 0, writable: 0xF0)
        space.set(ConfigurationRegister.secondaryStatus, UInt16(0), writeOneToClear: StatusBits.writeOneToClear)
        space.set16(ConfigurationRegister.memoryBase, 0, writable: 0xFFF0)
        space.set16(ConfigurationRegister.memoryLimit, 0, writable: 0xFFF0)
        // The low bit says that the prefetchable window has 64-bit addresses.
        space.set16(ConfigurationRegister.prefetchableBase, 1, writable: 0xFFF0)
        space.set16(ConfigurationRegister.prefetchableLimit, 1, writable: 0xFFF0)
        space.set32(ConfigurationRegister.prefetchableBaseUpper, 0, writable: .max)
        space.set32(ConfigurationRegister.prefetchableLimitUpper, 0, writable: .max)
        space.set8(ConfigurationRegister.interruptLine, 0, writable: 0xFF)
        space.set8(ConfigurationRegister.interruptPin, 1)
        space.set16(
            ConfigurationRegister.bridgeControl, 0,
            writable: BridgeControlBits.parity | BridgeControlBits.serr | BridgeControlBits.busReset)
        let powerManagement = space.addPowerManagement()
        // Slot 0 means no slot number.
        let express = space.addExpress(
            type: ExpressRegister.typeRootPort, port: UInt8(number), slot: UInt16(number + 1))
        let msi = space.addMSI(vectors: 2)
        let advanced = ErrorLog.add(to: &space, isRoot: true)
        return RootPort(
            space: space, powerManagement: powerManagement, express: express, msi: msi, advanced: advanced)
    }
}

extension ConfigurationSpace {
    /// A bridge's non-prefetchable memory window, or nil when it is closed.
    var memoryWindow: ClosedRange<UInt64>? {
        let base = UInt64(get16(ConfigurationRegister.memoryBase) & 0xFFF0) << 16
        let limit = UInt64(get16(ConfigurationRegister.memoryLimit) & 0xFFF0) << 16 | 0xF_FFFF
        return base <= limit ? base...limit : nil
    }

    /// A bridge's I/O window, or nil when it is closed.
    var ioWindow: ClosedRange<UInt64>? {
        let base = UInt64(get8(ConfigurationRegister.ioBase) & 0xF0) << 8
        let limit = UInt64(get8(ConfigurationRegister.ioLimit) & 0xF0) << 8 | 0xFFF
        return base <= limit ? base...limit : nil
    }

    /// A bridge's prefetchable memory window, or nil when it is closed.
    var prefetchableWindow: ClosedRange<UInt64>? {
        let base =
            UInt64(get16(ConfigurationRegister.prefetchableBase) & 0xFFF0) << 16
            | UInt64(get32(ConfigurationRegister.prefetchableBaseUpper)) << 32
        let limit =
            UInt64(get16(ConfigurationRegister.prefetchableLimit) & 0xFFF0) << 16 | 0xF_FFFF
            | UInt64(get32(ConfigurationRegister.prefetchableLimitUpper)) << 32
        return base <= limit ? base...limit : nil
    }
}
