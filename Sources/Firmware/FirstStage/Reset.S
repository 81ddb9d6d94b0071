# First stage: the reset path of every hart, and the way into OpenSBI.
#
# Entered at 0x2000_0000 in M-mode with a0 = mhartid, a1 = devicetree (docs/wiring.md "Boot on the host").
# Hart 0 loads what follows; the others sleep until its software interrupt. That interrupt, unlike a flag in RAM, is
# gone after every reset, so a warm restart cannot run a half-loaded OpenSBI. Nothing here is written in flash.

#define HANDOFF           0x8018F000    /* in Map.ownMemory of FirstStage.swift; the stack grows down from here */
#define STACK_TOP         HANDOFF
#define HANDOFF_OPENSBI   0             /* struct Handoff of Handoff.swift */
#define HANDOFF_TREE      8
#define HANDOFF_INFO      16
#define HANDOFF_SOFTWARE  24
#define MSIE              8             /* mie and mip: machine software interrupt */
#define MIE               8             /* mstatus: interrupts taken */

    .section .text.reset, "ax", @progbits
    .globl _start
_start:
    csrci   mstatus, MIE
    csrw    mie, zero
    lla     t0, unexpected
    csrw    mtvec, t0
    bnez    a0, park

    li      sp, STACK_TOP
    mv      s0, a0
    li      a2, HANDOFF
    call    first_stage                 # (hart, devicetree, handoff) -> 1 when everything is loaded
    beqz    a0, stop
    mv      a0, s0
    j       enter

park:                                   # harts other than 0
    li      t0, MSIE
    csrw    mie, t0
1:  wfi
    csrr    t0, mip
    andi    t0, t0, MSIE
    beqz    t0, 1b
    fence   iorw, iorw                  # hart 0 wrote the handoff, then raised the interrupt
    csrw    mie, zero
    li      t0, HANDOFF
    ld      t1, HANDOFF_SOFTWARE(t0)
    slli    t2, a0, 2
    add     t1, t1, t2
    sw      zero, 0(t1)                 # software interrupt register of this hart
    fence   iorw, iorw

enter:                                  # a0 = hart
    fence   rw, rw
    fence.i                             # OpenSBI was stored by hart 0
    li      t0, HANDOFF
    ld      a1, HANDOFF_TREE(t0)
    ld      a2, HANDOFF_INFO(t0)
    ld      t0, HANDOFF_OPENSBI(t0)
    jr      t0

    .balign 4
unexpected:                             # a trap of the first stage is a defect: say where, stop
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    a2, mtval
    csrr    a3, mhartid
    bnez    a3, stop
    lla     t0, stop
    csrw    mtvec, t0
    li      sp, STACK_TOP
    call    first_stage_trap

    .balign 4
stop:
    csrw    mie, zero
1:  wfi
    j       1b
