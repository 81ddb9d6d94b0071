internal import PCIe
internal import Synchronization
internal import VFIOUser

// Doorbells in memory: the host writes a register only where the controller asked to be woken.
// Spec: NVM Express 1.4 §5.7, §7.13.
extension NVMeEngine {
    /// A doorbell in the host's memory. Nil when it cannot be reached now.
    func load(_ page: UInt64, _ index: Int) -> UInt32? {
        do throws(DMAError) {
            return try bus.dma.load(UInt32.self, at: IOVirtualAddress(page + UInt64(4 * index)))
        } catch .disabled {
            return nil
        } catch {
            fail("doorbell buffer: \(error)")
            return nil
        }
    }

    private func store(_ page: UInt64, _ index: Int, _ value: UInt32) {
        do throws(DMAError) {
            try bus.dma.store(value, at: IOVirtualAddress(page + UInt64(4 * index)))
        } catch .disabled {
        } catch {
            fail("doorbell buffer: \(error)")
        }
    }

    /// A queue that is new begins at 0.
    func resetShadow(_ index: Int) {
        guard let shadow, index > 1 else { return }
        store(shadow.doorbells, index, 0)
        store(shadow.events, index, 0)
    }

    /// Takes over the host's two pages.
    func doorbellBufferConfig(_ command: NVMeCommand) -> NVMeOutcome {
        let mask = UInt64(NVMeLimits.pageSize - 1)
        guard command.prp1 & mask == 0, command.prp2 & mask == 0 else { return .status(.invalidField) }
        for page in [command.prp1, command.prp2] {
            guard (try? bus.dma.load(UInt32.self, at: IOVirtualAddress(page))) != nil,
                (try? bus.dma.load(UInt32.self, at: IOVirtualAddress(page + mask - 3))) != nil
            else { return .status(.dataTransferError) }
        }
        shadow = (command.prp1, command.prp2)
        for index in order where index > 0 {
            store(command.prp1, 2 * index, submission[index].tail)
            store(command.prp2, 2 * index, submission[index].tail)
        }
        for index in completion.indices where index > 0 && completion[index].isOpen {
            store(command.prp1, 2 * index + 1, completion[index].head)
            store(command.prp2, 2 * index + 1, completion[index].head)
        }
        return .success
    }

    /// True when the host's memory says that there is something to do.
    func hasShadowWork() -> Bool {
        guard isEnabled, fatalReason == nil, !isPaused, let shadow else { return false }
        for index in order where index > 0 {
            guard let value = load(shadow.doorbells, 2 * index) else { return false }
            guard value != submission[index].tail || submission[index].head != submission[index].tail else { continue }
            if completion[submission[index].completionQueue].hasRoom { return true }
            // The queue waits for room: it is the head that matters.
            let number = submission[index].completionQueue
            if number > 0, let head = load(shadow.doorbells, 2 * number + 1), head != completion[number].head {
                return true
            }
        }
        return fatalReason != nil
    }

    /// Asks the host to write the register for whatever it does next; true when it did something meanwhile.
    func prepareToSleep() -> Bool {
        guard isEnabled, fatalReason == nil, !isPaused, let shadow else { return false }
        for index in order where index > 0 { store(shadow.events, 2 * index, submission[index].tail) }
        for index in completion.indices where index > 0 && completion[index].isOpen {
            store(shadow.events, 2 * index + 1, completion[index].head)
        }
        // Both sides write, then read what the other wrote: neither may miss the other.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return hasShadowWork()
    }
}
