// The card's disk: what it is on the command line.

import ArgumentParser
import BlockStore
import Component

enum DiskInterface: String, CaseIterable, ExpressibleByArgument {
    case nvme
    case virtioBlk = "virtio-blk"
}

struct DiskOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The disk of port pcie-disk: a file or a block device that exists, in whole blocks.", valueName: "file"))
    var disk: String?

    @Option(
        help: ArgumentHelp(
            "Without --disk: a disk of zeroes in memory, of this size, gone with the process; e.g. 64MiB. With it: the "
                + "size that it must have.", valueName: "size"),
        transform: { text in
            guard let size = ByteCount(parsing: text), size.bytes > 0 else {
                throw ValidationError("write a number and B, KiB, MiB, GiB or TiB")
            }
            return size
        })
    var diskSize: ByteCount?

    @Option(help: "What the host sees: nvme or virtio-blk.")
    var diskInterface = DiskInterface.nvme

    @Option(help: "Bytes of a logical block, 512 or 4096; --disk must be whole blocks.")
    var diskBlockSize = 512

    @Flag(help: "Refuse writes to the disk; --disk may then be shared with other readers.")
    var diskReadOnly = false

    func validate() throws {
        guard diskBlockSize == 512 || diskBlockSize == 4096 else {
            throw ValidationError("--disk-block-size \(diskBlockSize): use 512 or 4096")
        }
        if disk == nil, diskReadOnly {
            throw ValidationError("--disk-read-only without --disk: an empty disk that cannot be written is of no use")
        }
    }

    /// Opens the disk; nil when none was asked for.
    func open() throws(ComponentError) -> BlockStore? {
        guard disk != nil || diskSize != nil else { return nil }
        let store: BlockStore
        do throws(BlockStoreError) {
            if let disk {
                store = try BlockStore(path: disk, readOnly: diskReadOnly, blockSize: diskBlockSize)
            } else {
                store = try BlockStore(memory: diskSize?.bytes ?? 0, blockSize: diskBlockSize)
            }
        } catch {
            throw .message("--disk: \(error)")
        }
        if let diskSize, store.byteCount != diskSize.bytes {
            throw .message(
                "--disk \(store.name) has \(ByteCount(store.byteCount)), --disk-size says \(diskSize): correct one")
        }
        return store
    }
}
