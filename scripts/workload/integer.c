// The integer workload of the hart's benchmark: what CoreMark is made of (linked lists, matrices, a state machine, a
// CRC over everything), in a program of our own. Entered at 0x8000_0000 with the number of rounds in a0; ends in WFI
// with the CRC in a0. Built by scripts/workload/build into Sources/RISCV/IntegerWorkloadImage.swift.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef short s16;

enum { LIST = 128, SIDE = 12, STATES = 8 };

struct node {
    struct node *next;
    s16 value, index;
};

static struct node nodes[LIST];
static s16 left[SIDE * SIDE], right[SIDE * SIDE];
static int product[SIDE * SIDE];
static u32 visits[STATES];
static const char numbers[] =
    "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,+0.6e-12,T0.3e-1F,-T.T++Tq,"
    "1T3.4e4z,34.0e-T^,777,-8.25e+1,16777216,.5,2e,3e+,0,0.0,-1";

static u32 crc_byte(u32 crc, u8 byte) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xA001 : crc >> 1;
    return crc;
}

static u32 crc_word(u32 crc, u32 word) {
    for (int i = 0; i < 4; i++) crc = crc_byte(crc, (u8)(word >> 8 * i));
    return crc;
}

static struct node *reverse(struct node *list) {
    struct node *reversed = 0;
    while (list) {
        struct node *next = list->next;
        list->next = reversed;
        reversed = list;
        list = next;
    }
    return reversed;
}

static struct node *find(struct node *list, s16 value) {
    while (list && list->value != value) list = list->next;
    return list;
}

// Merge sort by value, of a list that ends with null.
static struct node *sort(struct node *list) {
    for (int width = 1;; width *= 2) {
        struct node *rest = list, *head = 0, **tail = &head;
        int merges = 0;
        while (rest) {
            merges++;
            struct node *a = rest, *b = rest;
            int na = 0, nb = width;
            while (na < width && b) {
                na++;
                b = b->next;
            }
            while (na > 0 || (nb > 0 && b)) {
                struct node *least;
                if (na > 0 && (nb == 0 || !b || a->value <= b->value)) {
                    least = a;
                    a = a->next;
                    na--;
                } else {
                    least = b;
                    b = b->next;
                    nb--;
                }
                *tail = least;
                tail = &least->next;
            }
            rest = b;
        }
        *tail = 0;
        list = head;
        if (merges <= 1) return list;
    }
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

// Classifies comma-separated numbers: integer, fraction, exponent, garbage.
static void scan(const char *text) {
    enum { start, sign, whole, fraction, mark, exponent_sign, exponent, garbage } state = start;
    for (; *text; text++) {
        char c = *text;
        if (c == ',') {
            state = start;
            visits[start]++;
            continue;
        }
        switch (state) {
        case start: state = is_digit(c) ? whole : c == '+' || c == '-' ? sign : c == '.' ? fraction : garbage; break;
        case sign: state = is_digit(c) ? whole : c == '.' ? fraction : garbage; break;
        case whole: state = is_digit(c) ? whole : c == '.' ? fraction : c == 'e' ? mark : garbage; break;
        case fraction: state = is_digit(c) ? fraction : c == 'e' ? mark : garbage; break;
        case mark: state = c == '+' || c == '-' ? exponent_sign : is_digit(c) ? exponent : garbage; break;
        case exponent_sign:
        case exponent: state = is_digit(c) ? exponent : garbage; break;
        case garbage: break;
        }
        visits[state]++;
    }
}

static void multiply(int round) {
    for (int i = 0; i < SIDE * SIDE; i++) {
        left[i] = (s16)((i * round) & 63);
        right[i] = (s16)((i + round) & 31);
    }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int sum = 0;
            for (int k = 0; k < SIDE; k++) sum += left[i * SIDE + k] * right[k * SIDE + j];
            product[i * SIDE + j] = sum;
        }
}

u32 work(long rounds) {
    u32 crc = 0xFFFF;
    struct node *list = nodes;
    for (int i = 0; i < LIST; i++) {
        nodes[i].next = i + 1 < LIST ? &nodes[i + 1] : 0;
        nodes[i].value = (s16)((i * 37) & 127);
        nodes[i].index = (s16)i;
    }
    for (int i = 0; i < STATES; i++) visits[i] = 0;
    for (long round = 0; round < rounds; round++) {
        for (int k = 0; k < 4; k++) {
            list = reverse(list);
            struct node *found = find(list, (s16)((round + k * 31) & 127));
            if (found) {
                crc = crc_word(crc, (u32)found->index);
                found->value = (s16)((found->value + crc) & 127);
            }
        }
        if ((round & 3) == 0) list = sort(list);
        multiply((int)round);
        for (int i = 0; i < SIDE * SIDE; i += 11) crc = crc_word(crc, (u32)product[i]);
        scan(numbers);
        for (int i = 0; i < STATES; i++) crc = crc_word(crc, visits[i]);
    }
    return crc;
}

__attribute__((naked, section(".text.start"))) void start(void) {
    __asm__("la sp, stack_top\n"
            "call work\n"
            "1: wfi\n"
            "j 1b\n"
            ".bss\n"
            ".balign 16\n"
            ".zero 4096\n"
            "stack_top:\n"
            ".text\n");
}
