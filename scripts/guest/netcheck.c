// netcheck: Ethernet frames from one interface to another, each counted and every byte checked. For guests without a C
// library.
//
//     netcheck INTERFACE PEER FRAMES [SEED]
//
// PEER is another interface of this guest, or the address (52:54:00:00:00:99) of a station that sends back what it gets,
// addresses exchanged. Frames of 60 to 1514 bytes, numbered, with content that is a function of seed and number, go at
// most 64 at a time; each must come, once, unchanged and in order. Exit status: 0 all came; 1 a frame was changed or out
// of order; 2 frames were lost; 3 usage, or the system refused something.
#include "guest.h"

#if defined __riscv
enum { IOCTL = 29, POLL = 73, SOCKET = 198, BIND = 200, SENDTO = 206, RECVFROM = 207, SETSOCKOPT = 208 };
#elif defined __x86_64__
enum { IOCTL = 16, POLL = 271, SOCKET = 41, BIND = 49, SENDTO = 44, RECVFROM = 45, SETSOCKOPT = 54 };
#endif
enum { AF_PACKET = 17, SOCK_RAW = 3, SIOCGIFHWADDR = 0x8927, SIOCGIFINDEX = 0x8933, OUTGOING = 4 };
enum { TYPE = 0x88B5 /* IEEE 802: local experiments */, SHORTEST = 60, LONGEST = 1514, WINDOW = 64 };

// Says what was put, and ends.
static void report(int status) {
    say();
    end(status);
}
static void failed(const char *what, s64 result) {
    put("netcheck: "), put(what), put(": error "), number((u64)-result);
    report(3);
}

struct address { u16 family, protocol; int index; u16 hardware; u8 kind, length, octets[8]; };
struct request { char name[16]; union { int index; struct { u16 family; u8 octets[14]; } hardware; u8 room[24]; }; };
struct poll { int descriptor; short events, happened; };
struct time { s64 seconds, nanoseconds; };

struct port { s64 socket; struct address address; u8 octets[6]; };

static void *copy(void *to, const void *from, u64 count) {
    for (u64 i = 0; i < count; i++) ((u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}
// The compiler calls these by itself.
void *memcpy(void *to, const void *from, u64 count) { return copy(to, from, count); }
void *memset(void *to, int value, u64 count) {
    for (u64 i = 0; i < count; i++) ((volatile u8 *)to)[i] = (u8)value;
    return to;
}

static void open_port(struct port *port, const char *name) {
    struct request request;
    u16 protocol = (u16)(TYPE >> 8 | TYPE << 8);
    port->socket = call(SOCKET, AF_PACKET, SOCK_RAW, protocol, 0, 0, 0);
    if (port->socket < 0) failed("socket", port->socket);
    memset(&request, 0, sizeof request);
    for (u32 i = 0; i < 15 && name[i]; i++) request.name[i] = name[i];
    s64 result = call(IOCTL, port->socket, SIOCGIFINDEX, (s64)&request, 0, 0, 0);
    if (result < 0) failed(name, result);
    memset(&port->address, 0, sizeof port->address);
    port->address.family = AF_PACKET;
    port->address.protocol = protocol;
    port->address.index = request.index;
    result = call(IOCTL, port->socket, SIOCGIFHWADDR, (s64)&request, 0, 0, 0);
    if (result < 0) failed(name, result);
    copy(port->octets, request.hardware.octets, 6);
    result = call(BIND, port->socket, (s64)&port->address, 20, 0, 0, 0);
    if (result < 0) failed("bind", result);
    int room = 4 << 20;
    call(SETSOCKOPT, port->socket, 1 /* SOL_SOCKET */, 33 /* SO_RCVBUFFORCE */, (s64)&room, sizeof room, 0);
}

static int nibble(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    return -1;
}
static int parse_octets(const char *text, u8 *octets) {
    for (int i = 0; i < 6; i++, text += 3) {
        int high = nibble(text[0]), low = high < 0 ? -1 : nibble(text[1]);
        if (low < 0 || text[2] != (i == 5 ? 0 : ':')) return 0;
        octets[i] = (u8)(high << 4 | low);
    }
    return 1;
}
static u64 parse(const char *text) {
    u64 value = 0;
    while (*text >= '0' && *text <= '9') value = value * 10 + (u64)(*text++ - '0');
    return value;
}

static u64 seed;
static u64 length_of(u64 index) { return SHORTEST + mix(seed ^ index) % (LONGEST - SHORTEST + 1); }
// Behind the header: the number, then words that follow from it.
static void fill(u8 *frame, u64 index, u64 length) {
    u64 value = mix(seed ^ mix(index));
    copy(frame + 14, &index, 8);
    for (u64 place = 22; place < length; place += 8) {
        value += 0x9E3779B97F4A7C15ul;
        copy(frame + place, &value, length - place < 8 ? length - place : 8);
    }
}

static u8 frame[LONGEST + 8], wanted[LONGEST + 8];

// Takes the frame that comes next; what the guest itself sends is shown too and passed over.
static void receive(struct port *port, const u8 *source, const u8 *destination, u64 index) {
    for (;;) {
        struct poll poll = {(int)port->socket, 1 /* POLLIN */, 0};
        struct time patience = {10, 0};
        s64 ready = call(POLL, (s64)&poll, 1, (s64)&patience, 0, 0, 0);
        if (ready < 0) failed("poll", ready);
        if (ready == 0) {
            put("netcheck: frame "), number(index), put(" did not come");
            report(2);
        }
        struct address from;
        u32 size = sizeof from;
        s64 count = call(RECVFROM, port->socket, (s64)frame, sizeof frame, 0x20 /* MSG_TRUNC */, (s64)&from, (s64)&size);
        if (count < 0) failed("recvfrom", count);
        if (from.kind == OUTGOING) continue;
        u64 length = length_of(index);
        copy(wanted, destination, 6);
        copy(wanted + 6, source, 6);
        wanted[12] = TYPE >> 8;
        wanted[13] = TYPE & 0xFF;
        fill(wanted, index, length);
        int same = count == (s64)length;
        for (u64 i = 0; same && i < length; i++) same = frame[i] == wanted[i];
        if (!same) {
            u64 came;
            copy(&came, frame + 14, 8);
            put("netcheck: in place of frame "), number(index), put(" of "), number(length), put(" bytes came ");
            put("frame "), number(came), put(" of "), number((u64)count), put(" bytes, or changed content");
            report(came > index ? 2 : 1);
        }
        return;
    }
}

__attribute__((used)) static void start(u64 *stack) {
    s64 count = (s64)stack[0];
    char **words = (char **)(stack + 1);
    if (count < 4) {
        put("usage: netcheck INTERFACE PEER FRAMES [SEED]");
        report(3);
    }
    u64 frames = parse(words[3]);
    seed = mix(count > 4 ? parse(words[4]) : 1);
    struct port ports[2];
    u8 station[6];
    open_port(&ports[0], words[1]);
    int echoes = parse_octets(words[2], station);
    if (!echoes) {
        open_port(&ports[1], words[2]);
        copy(station, ports[1].octets, 6);
    }
    struct port *receiver = &ports[echoes ? 0 : 1];
    u64 sent = 0, received = 0;
    while (received < frames) {
        while (sent < frames && sent - received < WINDOW) {
            u64 length = length_of(sent);
            copy(frame, station, 6);
            copy(frame + 6, ports[0].octets, 6);
            frame[12] = TYPE >> 8;
            frame[13] = TYPE & 0xFF;
            fill(frame, sent, length);
            s64 done = call(SENDTO, ports[0].socket, (s64)frame, (s64)length, 0, 0, 0);
            // The device's queue is full for a moment.
            if (done == -105 /* ENOBUFS */) break;
            if (done != (s64)length) failed("sendto", done);
            sent++;
        }
        if (received == sent) continue;
        // An echo comes from the station to us.
        receive(receiver, echoes ? station : ports[0].octets, echoes ? ports[0].octets : station, received);
        received++;
    }
    put("netcheck: "), number(received), put(" frames, none lost or changed");
    report(0);
}

#if defined __riscv
__asm__(".globl _start\n_start:\n.option push\n.option norelax\nla gp, __global_pointer$\n.option pop\nmv a0, sp\nandi sp, sp, -16\ntail start\n");
#else
__asm__(".globl _start\n_start:\nxor %ebp, %ebp\nmov %rsp, %rdi\nand $-16, %rsp\ncall start\n");
#endif
