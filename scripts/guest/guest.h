// What the guest's programs share: they have no C library. System calls, one line of output, and a mixer of bits.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

#if defined __riscv
enum { WRITE = 64, EXIT = 94 };
#elif defined __x86_64__
enum { WRITE = 1, EXIT = 231 };
#else
#error "these programs know the system calls of riscv64 and x86-64"
#endif

static s64 call(s64 number, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f) {
#if defined __riscv
    register s64 a0 __asm__("a0") = a;
    register s64 a1 __asm__("a1") = b;
    register s64 a2 __asm__("a2") = c;
    register s64 a3 __asm__("a3") = d;
    register s64 a4 __asm__("a4") = e;
    register s64 a5 __asm__("a5") = f;
    register s64 a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7) : "memory");
    return a0;
#else
    register s64 r10 __asm__("r10") = d;
    register s64 r8 __asm__("r8") = e;
    register s64 r9 __asm__("r9") = f;
    s64 result = number;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#endif
}

static char line[256];
static u32 used;
static void put(const char *text) { while (*text && used < sizeof line - 1) line[used++] = *text++; }
static void number(u64 value) {
    char digits[24];
    int count = 0;
    do digits[count++] = (char)('0' + value % 10); while (value /= 10);
    while (count && used < sizeof line - 1) line[used++] = digits[--count];
}
// Ends the line. One write, so that lines of several processes do not mix.
static void say(void) {
    line[used++] = '\n';
    call(WRITE, 1, (s64)line, used, 0, 0, 0);
    used = 0;
}
static void end(int status) {
    call(EXIT, status, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}

static u64 mix(u64 value) {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ul;
    value = (value ^ value >> 27) * 0x94D049BB133111EBul;
    return value ^ value >> 31;
}
