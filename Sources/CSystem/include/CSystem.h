// The few lines of C that Swift cannot say: control-message macros, variadic and flag-typed system calls,
// atomic access to memory that another process may write. Every name begins with `cs_`.
// Wire imports this for sockets and memory; RISCV imports it for atomics on guest RAM; nobody else does.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline int cs_errno(void) { return errno; }

// ---- Sockets ----

/// The most descriptors one message may carry.
#define CS_MAX_DESCRIPTORS 64

/// sendmsg of two parts with descriptors. Returns bytes sent or -1 (errno). SIGPIPE is never raised.
static inline ssize_t cs_send(int fd, const void *head, size_t head_count, const void *body, size_t body_count,
                              const int *descriptors, int descriptor_count, int flags) {
    struct iovec parts[2] = {{(void *)head, head_count}, {(void *)body, body_count}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * CS_MAX_DESCRIPTORS)];
    } control;
    struct msghdr message = {0};
    message.msg_iov = parts;
    message.msg_iovlen = body_count ? 2 : 1;
    if (descriptor_count > 0) {
        if (descriptor_count > CS_MAX_DESCRIPTORS) { errno = EINVAL; return -1; }
        size_t size = sizeof(int) * (size_t)descriptor_count;
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(header), descriptors, size);
    }
    return sendmsg(fd, &message, flags | MSG_NOSIGNAL);
}

/// Room for what comes beside a message's bytes. Uninitialised is fine: the kernel says how much of it counts.
typedef struct {
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int) * CS_MAX_DESCRIPTORS)];
    /// Bytes of `room` that count.
    size_t length;
    /// Bytes or descriptors were lost.
    bool truncated;
} cs_control;

/// recvmsg into one buffer. Descriptors arrive close-on-exec and stay in `control`, for `cs_descriptors` to take out.
static inline ssize_t cs_receive(int fd, void *buffer, size_t count, cs_control *control, int flags) {
    struct iovec part = {buffer, count};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control->room;
    message.msg_controllen = sizeof control->room;
    ssize_t received = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    control->length = received < 0 ? 0 : message.msg_controllen;
    control->truncated = received >= 0 && (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC));
    return received;
}

/// Takes the descriptors out of what `cs_receive` brought; at most CS_MAX_DESCRIPTORS. Returns their number.
static inline int cs_descriptors(const cs_control *control, int *descriptors) {
    struct msghdr message = {0};
    message.msg_control = (void *)control->room;
    message.msg_controllen = control->length;
    int count = 0;
    if (!control->length) return 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        int passed = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < passed && count < CS_MAX_DESCRIPTORS; i++)
            memcpy(&descriptors[count++], CMSG_DATA(header) + sizeof(int) * (size_t)i, sizeof(int));
    }
    return count;
}

/// send of one part without descriptors: as cs_send, for less.
static inline ssize_t cs_send_part(int fd, const void *part, size_t count, int flags) {
    return send(fd, part, count, flags | MSG_NOSIGNAL);
}

enum { cs_dont_wait = MSG_DONTWAIT };
static inline int cs_unix_socket(int type) { return socket(AF_UNIX, type | SOCK_CLOEXEC, 0); }
static inline int cs_unix_pair(int type, int *pair) { return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair); }

static inline bool cs_unix_address(struct sockaddr_un *address, const char *path) {
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path) return false;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return true;
}
static inline int cs_unix_bind(int fd, const char *path) {
    struct sockaddr_un address;
    if (!cs_unix_address(&address, path)) { errno = ENAMETOOLONG; return -1; }
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}
static inline int cs_unix_connect(int fd, const char *path) {
    struct sockaddr_un address;
    if (!cs_unix_address(&address, path)) { errno = ENAMETOOLONG; return -1; }
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}
/// A blocking connect or send gives up after so many microseconds with EAGAIN; 0: never.
static inline int cs_set_send_timeout(int fd, uint64_t microseconds) {
    struct timeval time = {(time_t)(microseconds / 1000000u), (suseconds_t)(microseconds % 1000000u)};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}
static inline int cs_accept(int fd) { return accept4(fd, 0, 0, SOCK_CLOEXEC); }
static inline int cs_socket_type(int fd) {
    int type = 0;
    socklen_t length = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 ? -1 : type;
}
static inline bool cs_socket_listens(int fd) {
    int listens = 0;
    socklen_t length = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens;
}
static inline int cs_set_buffers(int fd, int bytes) {
    return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes)
        | setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

/// A blocking receive gives up after so many microseconds with EAGAIN; 0: never.
static inline int cs_set_receive_timeout(int fd, uint64_t microseconds) {
    struct timeval time = {(time_t)(microseconds / 1000000u), (suseconds_t)(microseconds % 1000000u)};
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}

// ---- Descriptors ----

static inline int cs_set_nonblocking(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -1;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}
static inline int cs_set_close_on_exec(int fd, bool on) { return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0); }
static inline int cs_duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 3); }
static inline int cs_open(const char *path, int flags, unsigned mode) { return open(path, flags | O_CLOEXEC, mode); }
static inline int cs_memfd(const char *name) { return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); }
static inline int cs_seal_size(int fd) { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW); }
static inline int cs_seals(int fd) { return fcntl(fd, F_GET_SEALS); }
static inline int64_t cs_file_size(int fd) {
    struct stat status;
    return fstat(fd, &status) < 0 ? -1 : (int64_t)status.st_size;
}
/// Makes the pages of a mapping present and writable in one go; where the kernel cannot (before 5.14), they come one by one.
static inline void cs_populate(void *address, size_t count) {
    (void)madvise(address, count, 23 /* MADV_POPULATE_WRITE */);
}
static inline bool cs_is_regular_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}
static inline int cs_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static inline int cs_die_with_parent(int signal) { return prctl(PR_SET_PDEATHSIG, signal); }
static inline int cs_name_thread(const char *name) { return prctl(PR_SET_NAME, name); }

/// Blocks SIGTERM, SIGINT and, unless it is ignored as by nohup, SIGHUP in this thread and those it starts, ignores
/// SIGPIPE; returns a signalfd or -1.
static inline int cs_take_termination(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    struct sigaction hangup;
    if (sigaction(SIGHUP, 0, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, 0);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/// A child with no signal blocked or ignored, and with a session of its own on request.
static inline void cs_spawn_attributes(posix_spawnattr_t *attributes, bool new_session) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &all);
    posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
                                             | (new_session ? POSIX_SPAWN_SETSID : 0));
}

/// The monotonic clock in nanoseconds.
static inline uint64_t cs_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
/// The calling thread's processor time in nanoseconds.
static inline uint64_t cs_thread_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
/// The wall clock in nanoseconds since 1970.
static inline uint64_t cs_realtime(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static inline int cs_timer_create(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }
/// Arms a timerfd once at a monotonic time in nanoseconds; 0 disarms.
static inline int cs_timer_at(int fd, uint64_t nanoseconds) {
    struct itimerspec when = {{0, 0}, {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)}};
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, 0);
}
/// The exit code of a wait status, or -1.
static inline int cs_wait_exit_code(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
/// The signal that ended a process, or -1.
static inline int cs_wait_signal(int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : -1; }

/// The core's own counter of time: a few nanoseconds to read, and no memory, where the system's clock touches several
/// cache lines. 0 on machines without one.
static inline uint64_t cs_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

static inline void cs_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// ---- epoll ----

static inline int cs_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }
static inline int cs_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    return epoll_ctl(epoll, operation, fd, &event);
}
/// One ready descriptor's events and token, or less than 1. `timeout` in milliseconds, -1: forever.
static inline int cs_epoll_wait(int epoll, uint32_t *events, uint64_t *tokens, int room, int timeout) {
    struct epoll_event ready[32];
    int count = epoll_wait(epoll, ready, room < 32 ? room : 32, timeout);
    for (int i = 0; i < count; i++) {
        events[i] = ready[i].events;
        tokens[i] = ready[i].data.u64;
    }
    return count;
}
static inline int cs_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

// ---- Futex ----

/// Sleeps while `*word == expected`, until woken or the monotonic deadline in nanoseconds (0: none).
static inline int cs_futex_wait(const void *word, uint32_t expected, uint64_t deadline) {
    struct timespec when = {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)};
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline ? &when : 0, 0,
                        FUTEX_BITSET_MATCH_ANY);
}
static inline int cs_futex_wake(const void *word) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
}

// ---- Atomic memory ----

#define CS_ATOMICS(bits)                                                                                               \
    static inline uint##bits##_t cs_load##bits(const void *p) {                                                        \
        return __atomic_load_n((const uint##bits##_t *)p, __ATOMIC_RELAXED);                                           \
    }                                                                                                                  \
    static inline void cs_store##bits(void *p, uint##bits##_t v) {                                                     \
        __atomic_store_n((uint##bits##_t *)p, v, __ATOMIC_RELAXED);                                                    \
    }                                                                                                                  \
    static inline uint##bits##_t cs_load_acquire##bits(const void *p) {                                                \
        return __atomic_load_n((const uint##bits##_t *)p, __ATOMIC_ACQUIRE);                                           \
    }                                                                                                                  \
    static inline void cs_store_release##bits(void *p, uint##bits##_t v) {                                             \
        __atomic_store_n((uint##bits##_t *)p, v, __ATOMIC_RELEASE);                                                    \
    }                                                                                                                  \
    static inline uint##bits##_t cs_exchange##bits(void *p, uint##bits##_t v) {                                        \
        return __atomic_exchange_n((uint##bits##_t *)p, v, __ATOMIC_SEQ_CST);                                          \
    }                                                                                                                  \
    static inline uint##bits##_t cs_add##bits(void *p, uint##bits##_t v) {                                             \
        return __atomic_fetch_add((uint##bits##_t *)p, v, __ATOMIC_SEQ_CST);                                           \
    }                                                                                                                  \
    static inline uint##bits##_t cs_and##bits(void *p, uint##bits##_t v) {                                             \
        return __atomic_fetch_and((uint##bits##_t *)p, v, __ATOMIC_SEQ_CST);                                           \
    }                                                                                                                  \
    static inline uint##bits##_t cs_or##bits(void *p, uint##bits##_t v) {                                              \
        return __atomic_fetch_or((uint##bits##_t *)p, v, __ATOMIC_SEQ_CST);                                            \
    }                                                                                                                  \
    static inline uint##bits##_t cs_xor##bits(void *p, uint##bits##_t v) {                                             \
        return __atomic_fetch_xor((uint##bits##_t *)p, v, __ATOMIC_SEQ_CST);                                           \
    }                                                                                                                  \
    static inline bool cs_compare_exchange##bits(void *p, uint##bits##_t *expected, uint##bits##_t v) {                \
        return __atomic_compare_exchange_n((uint##bits##_t *)p, expected, v, false, __ATOMIC_SEQ_CST,                  \
                                           __ATOMIC_SEQ_CST);                                                          \
    }
CS_ATOMICS(8)
CS_ATOMICS(16)
CS_ATOMICS(32)
CS_ATOMICS(64)
#undef CS_ATOMICS
static inline void cs_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---- Mapped files that may shrink ----

/// Makes `cs_copy_guarded` possible in this process; once, before it. Other bus errors end the process as before.
int cs_guard_bus_errors(void);
/// Copies out of a mapped file. False where a page cannot be had (the file became shorter, the disk cannot be read): part
/// of `to` is then written. Needs `cs_guard_bus_errors`.
bool cs_copy_guarded(void *to, const void *from, size_t count);

// ---- Code made at run time ----

/// Memory for code: `*executable` may be read and executed, the result written; both show the same pages, and no page
/// is ever writable and executable at one address. NULL (errno) where the system does not allow it.
static inline void *cs_code_memory(size_t size, void **executable) {
    int fd = memfd_create("code", MFD_CLOEXEC);
    if (fd < 0) return 0;
    void *writable = MAP_FAILED, *code = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0) {
        writable = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        code = mmap(0, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    int error = errno;
    close(fd);
    if (writable != MAP_FAILED && code != MAP_FAILED) {
        *executable = code;
        return writable;
    }
    if (writable != MAP_FAILED) munmap(writable, size);
    if (code != MAP_FAILED) munmap(code, size);
    errno = error;
    return 0;
}
/// Calls `entry`, which obeys the C calling convention, with two arguments.
static inline void cs_call_code(const void *entry, void *first, const void *second) {
    ((void (*)(void *, const void *))entry)(first, second);
}
