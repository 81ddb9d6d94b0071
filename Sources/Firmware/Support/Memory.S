# The four memory functions that compilers call without being asked. No heap is offered: an allocation in the
# firmware is a link error (posix_memalign is missing on purpose).

    .section .text.memcpy, "ax", @progbits
    .globl memcpy
    .type memcpy, @function
memcpy:                                 # (a0 destination, a1 source, a2 count) -> destination
    mv      t0, a0
    or      t1, a0, a1
    andi    t1, t1, 7
    bnez    t1, 3f                      # not both aligned: by bytes
    andi    t2, a2, -32
    add     t2, a0, t2
    beq     t0, t2, 2f
1:  ld      t3, 0(a1)                   # 32 bytes a turn
    ld      t4, 8(a1)
    ld      t5, 16(a1)
    ld      t6, 24(a1)
    sd      t3, 0(t0)
    sd      t4, 8(t0)
    sd      t5, 16(t0)
    sd      t6, 24(t0)
    addi    a1, a1, 32
    addi    t0, t0, 32
    bne     t0, t2, 1b
2:  andi    a2, a2, 31
3:  add     t2, t0, a2
    beq     t0, t2, 5f
4:  lbu     t3, 0(a1)
    sb      t3, 0(t0)
    addi    a1, a1, 1
    addi    t0, t0, 1
    bne     t0, t2, 4b
5:  ret
    .size memcpy, . - memcpy

    .section .text.memmove, "ax", @progbits
    .globl memmove
    .type memmove, @function
memmove:                                # copies forwards unless that would overwrite what is still to be read
    sub     t0, a0, a1
    bgeu    t0, a2, memcpy
    add     t1, a0, a2
    add     a1, a1, a2
1:  beq     t1, a0, 2f
    addi    a1, a1, -1
    addi    t1, t1, -1
    lbu     t3, 0(a1)
    sb      t3, 0(t1)
    j       1b
2:  ret
    .size memmove, . - memmove

    .section .text.memset, "ax", @progbits
    .globl memset
    .type memset, @function
memset:                                 # (a0 destination, a1 byte, a2 count) -> destination
    mv      t0, a0
    add     t2, a0, a2
1:  beq     t0, t2, 2f
    sb      a1, 0(t0)
    addi    t0, t0, 1
    j       1b
2:  ret
    .size memset, . - memset

    .section .text.memcmp, "ax", @progbits
    .globl memcmp
    .type memcmp, @function
memcmp:                                 # (a0, a1, a2 count) -> difference of the first bytes that differ
    add     t2, a0, a2
1:  beq     a0, t2, 2f
    lbu     t0, 0(a0)
    lbu     t1, 0(a1)
    addi    a0, a0, 1
    addi    a1, a1, 1
    beq     t0, t1, 1b
    sub     a0, t0, t1
    ret
2:  li      a0, 0
    ret
    .size memcmp, . - memcmp

# Instructions that Swift cannot say, in either privilege mode.

    .section .text.barriers, "ax", @progbits
    .globl wait_for_interrupt
wait_for_interrupt:
    wfi
    ret

    .globl memory_barrier               # orders everything, memory and devices, before everything after it
memory_barrier:
    fence   iorw, iorw
    ret

    .globl instruction_barrier          # makes this hart fetch what was stored before
instruction_barrier:
    fence.i
    ret
