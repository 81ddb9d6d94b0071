#include "CSystem.h"

#include <setjmp.h>

// One guarded copy of a thread: where it goes on if a page of `first` … `last` cannot be had.
static __thread sigjmp_buf *guard;
static __thread uintptr_t guard_first, guard_last;
static struct sigaction unguarded;

static void guard_bus_error(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    uintptr_t place = (uintptr_t)info->si_addr;
    if (guard && place >= guard_first && place <= guard_last) siglongjmp(*guard, 1);
    // Somebody else's: the access is made again, and meets what was there before.
    sigaction(SIGBUS, &unguarded, 0);
}

int cs_guard_bus_errors(void) {
    struct sigaction action = {0};
    action.sa_sigaction = guard_bus_error;
    // The handler is left by a jump that restores no mask: it must not be masked inside.
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &unguarded);
}

bool cs_copy_guarded(void *to, const void *from, size_t count) {
    sigjmp_buf here;
    if (count == 0) return true;
    if (sigsetjmp(here, 0)) {
        guard = 0;
        return false;
    }
    guard_first = (uintptr_t)from;
    guard_last = guard_first + (count - 1);
    guard = &here;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    memcpy(to, from, count);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    guard = 0;
    return true;
}
