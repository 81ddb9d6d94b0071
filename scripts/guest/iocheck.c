// iocheck: random reads and writes of a block device, and every byte checked. For guests without a C library.
//
//     iocheck DEVICE OPERATIONS [WORKERS [SEED]]
//
// Each worker (a process; 4 at most by default) has its own part of the device: it writes all of it, then reads and writes random
// runs of 1 to 64 blocks of 4096 bytes past the page cache (O_DIRECT), flushing now and then, and reads all of it again at
// the end. A block's content is a function of the seed, its place and how often it was written; so a lost, torn, old or
// misplaced write shows. Exit status: 0 all as it should be; 1 content was wrong; 2 the device reported an error; 3 usage.
#include "guest.h"

#if !defined __riscv
#error "iocheck knows the system calls of riscv64"
#endif
enum { OPENAT = 56, LSEEK = 62, PREAD = 67, PWRITE = 68, FSYNC = 82, CLONE = 220, MMAP = 222, WAIT = 260 };
enum { BLOCK = 4096, MOST = 64, PART = 4096 /* blocks of a worker at most: 16 MiB */, WORKERS = 32 };

static u64 seed, state;
static u64 next(u64 below) { return mix(state += 0x9E3779B97F4A7C15ul) % below; }

static u32 versions[PART];
static u64 *buffer;
static s64 device;
static u64 first;

static void fill(u64 *words, u64 block, u32 version) {
    u64 value = mix(seed ^ mix(block << 32 | version));
    for (u32 i = 0; i < BLOCK / 8; i++) words[i] = value += 0x9E3779B97F4A7C15ul;
}

static void failed(const char *what, u64 block, s64 result) {
    put("iocheck: "), put(what), put(" of block "), number(first + block), put(": ");
    if (result < 0) put("error "), number((u64)-result);
    else put("short: "), number((u64)result), put(" bytes");
    say();
    end(2);
}

static void write_run(u64 block, u64 count) {
    for (u64 i = 0; i < count; i++) fill(buffer + i * (BLOCK / 8), first + block + i, ++versions[block + i]);
    s64 done = call(PWRITE, device, (s64)buffer, (s64)(count * BLOCK), (s64)((first + block) * BLOCK), 0, 0);
    if (done != (s64)(count * BLOCK)) failed("write", block, done);
}

static void read_run(u64 block, u64 count) {
    s64 done = call(PREAD, device, (s64)buffer, (s64)(count * BLOCK), (s64)((first + block) * BLOCK), 0, 0);
    if (done != (s64)(count * BLOCK)) failed("read", block, done);
    for (u64 i = 0; i < count; i++) {
        u64 value = mix(seed ^ mix((first + block + i) << 32 | versions[block + i]));
        for (u32 word = 0; word < BLOCK / 8; word++)
            if (buffer[i * (BLOCK / 8) + word] != (value += 0x9E3779B97F4A7C15ul)) {
                put("iocheck: block "), number(first + block + i), put(", byte "), number(word * 8);
                put(": not what was written last (version "), number(versions[block + i]), put(")");
                say();
                end(1);
            }
    }
}

static void worker(u64 index, u64 blocks, u64 operations) {
    u64 reads = 0, writes = 0;
    first = index * blocks;
    state = seed + index * 0x1234567;
    for (u64 block = 0; block < blocks; block += MOST)
        write_run(block, blocks - block < MOST ? blocks - block : MOST);
    for (u64 i = 0; i < operations; i++) {
        u64 block = next(blocks), count = 1 + next(next(4) ? 4 : MOST);
        if (count > blocks - block) count = blocks - block;
        if (next(2)) read_run(block, count), reads++;
        else write_run(block, count), writes++;
        if (next(256) == 0) {
            s64 result = call(FSYNC, device, 0, 0, 0, 0, 0);
            if (result < 0) failed("flush", 0, result);
        }
    }
    for (u64 block = 0; block < blocks; block += MOST)
        read_run(block, blocks - block < MOST ? blocks - block : MOST);
    put("iocheck: worker "), number(index), put(": "), number(reads), put(" reads, "), number(writes);
    put(" writes, "), number(blocks), put(" blocks as written");
    say();
    end(0);
}

static u64 parse(const char *text) {
    u64 value = 0;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (u64)(*text - '0');
    return value;
}

void enter(s64 *stack) {
    s64 count = stack[0];
    char **arguments = (char **)(stack + 1);
    if (count < 3) {
        put("usage: iocheck DEVICE OPERATIONS [WORKERS [SEED]]"), say();
        end(3);
    }
    u64 operations = parse(arguments[2]), workers = count > 3 ? parse(arguments[3]) : 4;
    seed = mix(count > 4 ? parse(arguments[4]) : 1);
    if (workers < 1 || workers > WORKERS) workers = WORKERS;
    // -100: AT_FDCWD; O_RDWR with O_DIRECT (0x4000 on riscv).
    device = call(OPENAT, -100, (s64)arguments[1], 2 | 0x4000, 0, 0, 0);
    s64 size = device < 0 ? device : call(LSEEK, device, 0, 2, 0, 0, 0);
    if (size < (s64)workers * BLOCK) {
        put("iocheck: "), put(arguments[1]), put(": cannot be opened, or is too small"), say();
        end(3);
    }
    u64 blocks = (u64)size / BLOCK / workers;
    if (blocks > PART) blocks = PART;
    for (u64 index = 0; index < workers; index++) {
        // SIGCHLD: a plain fork.
        if (call(CLONE, 17, 0, 0, 0, 0, 0) != 0) continue;
        // Pages of its own: anonymous, private.
        buffer = (u64 *)call(MMAP, 0, MOST * BLOCK, 3, 0x22, -1, 0);
        worker(index, blocks, operations / workers);
    }
    int status = 0;
    for (u64 index = 0; index < workers; index++) {
        int one = 0;
        call(WAIT, -1, (s64)&one, 0, 0, 0, 0);
        if (one >> 8 & 0xFF && !status) status = one >> 8 & 0xFF;
        if (one & 0x7F) status = 128 + (one & 0x7F);
    }
    put(status ? "iocheck: FAILED" : "iocheck: all as written"), say();
    end(status);
}

__asm__(".globl _start\n_start:\n.option push\n.option norelax\nla gp, __global_pointer$\n.option pop\nmv a0, sp\nandi sp, sp, -16\ntail enter\n");
