// Where boot files, and what the machine itself puts into RAM, lie.
//
// ```
// 0x8000_0000  firmware (up to 2 MiB; from the flash it comes by the first stage)
// 0x8020_0000  kernel: file, then what its header asks for beyond that
//     …
//        top - initramfs, page-aligned
//        top   devicetree, when a firmware is loaded (2 MiB: firmware makes it grow)
// ```
// The top is the end of RAM, or 4 GiB where that is higher: boot loaders keep 32-bit addresses here and there.

/// The files that a machine boots from, all optional.
public struct BootImages: Sendable {
    /// Runs first, in M-mode at the start of RAM, instead of what the flash holds.
    public var firmware: BootImage?
    /// What the firmware enters in S-mode at 0x8020_0000.
    public var kernel: BootImage?
    public var initialRAMDisk: BootImage?

    public init(firmware: BootImage? = nil, kernel: BootImage? = nil, initialRAMDisk: BootImage? = nil) {
        self.firmware = firmware
        self.kernel = kernel
        self.initialRAMDisk = initialRAMDisk
    }
}

/// Their places. Only that of a checked configuration is true: see `check`.
struct BootLayout: Sendable {
    let images: BootImages
    private let memoryEnd: UInt64

    static let firmwareRoom: UInt64 = 2 << 20
    static let devicetreeRoom: UInt64 = 2 << 20
    static let kernelBase = MemoryMap.ramBase + firmwareRoom
    private static let addressLimit: UInt64 = 1 << 32
    private static let page: UInt64 = 4096

    init(_ images: BootImages, memorySize: UInt64) {
        self.images = images
        memoryEnd = MemoryMap.ramBase &+ memorySize
    }

    private var top: UInt64 {
        let end = min(memoryEnd, Self.addressLimit)
        return images.firmware == nil ? end : end &- Self.devicetreeRoom
    }

    /// Where the devicetree is put for a firmware that is loaded; the boot ROM's is not writable.
    var devicetree: UInt64 { top }

    /// Everything that the kernel takes, its variables too.
    var kernel: AddressRange? {
        images.kernel.map { AddressRange(base: Self.kernelBase, size: $0.memorySize) }
    }

    var initialRAMDisk: AddressRange? {
        images.initialRAMDisk.map { image in
            AddressRange(base: (top &- image.size) & ~(Self.page - 1), size: image.size)
        }
    }

    /// What is read from where to where.
    var placements: [(image: BootImage, address: UInt64)] {
        var placements: [(BootImage, UInt64)] = []
        if let image = images.firmware { placements.append((image, MemoryMap.ramBase)) }
        if let image = images.kernel { placements.append((image, Self.kernelBase)) }
        if let image = images.initialRAMDisk, let range = initialRAMDisk { placements.append((image, range.base)) }
        return placements
    }

    /// Throws what does not fit.
    func check() throws(BootImageError) {
        // A file has less than 2^63 bytes and a header says at most 2^36: no sum wraps.
        if let image = images.firmware {
            guard image.size <= Self.firmwareRoom else {
                throw .tooLarge(.firmware, image.path, size: image.size, room: Self.firmwareRoom, needed: nil)
            }
        }
        if let image = images.initialRAMDisk, images.kernel == nil { throw .withoutKernel(image.path) }
        let others = [images.kernel, images.initialRAMDisk].compactMap { $0 }
        let sizes = others.map { Self.up($0.memorySize, to: Self.page) }
        let tail = images.firmware == nil ? 0 : Self.devicetreeRoom
        let end = Self.up(sizes.reduce(Self.kernelBase &+ tail, &+), to: 2 << 20)
        var used = Self.kernelBase
        for (image, size) in zip(others, sizes) {
            let room = top &- used
            guard size <= room else {
                let needed = end <= Self.addressLimit ? end &- MemoryMap.ramBase : nil
                throw .tooLarge(image.role, image.path, size: image.memorySize, room: room, needed: needed)
            }
            used = used &+ size
        }
    }

    private static func up(_ size: UInt64, to multiple: UInt64) -> UInt64 {
        (size &+ multiple &- 1) & ~(multiple - 1)
    }
}
