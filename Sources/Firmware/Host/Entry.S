# Host firmware: entry in S-mode, the trap entry, and the instructions that Swift cannot say.
#
# Entered by OpenSBI at 0x8020_0000 with a0 = hart, a1 = devicetree, translation off; other harts stay in OpenSBI.
# OpenSBI boots on whichever hart comes first; the firmware runs on hart 0 all the same, so that boots do not differ.

#define SSTATUS_SIE 2

#define SBI_HSM        0x48534D         /* Spec: RISC-V SBI 2.0 §9 */
#define SBI_HART_START 0
#define SBI_HART_STOP  1

#define CSR_SISELECT 0x150              /* Spec: RISC-V AIA 1.0, chapter 2 */
#define CSR_SIREG    0x151
#define CSR_STOPEI   0x15C

    .section .text.entry, "ax", @progbits
    .globl _start
_start:
    beqz    a0, run
    mv      s0, a0
    mv      s1, a1
    li      a7, SBI_HSM
    li      a6, SBI_HART_START
    li      a0, 0
    lla     a1, _start
    mv      a2, s1                      # arrives in hart 0's a1
    ecall
    mv      t0, a0
    mv      a0, s0
    mv      a1, s1
    bnez    t0, run                     # there is no hart 0 to be had
    li      a7, SBI_HSM
    li      a6, SBI_HART_STOP
    ecall
    j       3f

run:
    csrci   sstatus, SSTATUS_SIE
    csrw    sie, zero
    lla     t0, trap_entry
    csrw    stvec, t0
    lla     sp, stack_top
    lla     t0, bss_start
    lla     t1, bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  call    host_main                   # (hart, devicetree), does not return
3:  wfi
    j       3b

    .balign 4
trap_entry:                             # interrupts of our own code, on its stack; an exception does not return
    addi    sp, sp, -128
    sd      ra, 0(sp)
    sd      t0, 8(sp)
    sd      t1, 16(sp)
    sd      t2, 24(sp)
    sd      t3, 32(sp)
    sd      t4, 40(sp)
    sd      t5, 48(sp)
    sd      t6, 56(sp)
    sd      a0, 64(sp)
    sd      a1, 72(sp)
    sd      a2, 80(sp)
    sd      a3, 88(sp)
    sd      a4, 96(sp)
    sd      a5, 104(sp)
    sd      a6, 112(sp)
    sd      a7, 120(sp)
    csrr    a0, scause
    csrr    a1, sepc
    csrr    a2, stval
    call    host_trap
    ld      ra, 0(sp)
    ld      t0, 8(sp)
    ld      t1, 16(sp)
    ld      t2, 24(sp)
    ld      t3, 32(sp)
    ld      t4, 40(sp)
    ld      t5, 48(sp)
    ld      t6, 56(sp)
    ld      a0, 64(sp)
    ld      a1, 72(sp)
    ld      a2, 80(sp)
    ld      a3, 88(sp)
    ld      a4, 96(sp)
    ld      a5, 104(sp)
    ld      a6, 112(sp)
    ld      a7, 120(sp)
    addi    sp, sp, 128
    sret

    .section .text.instructions, "ax", @progbits
    .globl sbi_call
sbi_call:                               # (extension, function, 3 arguments, value out) -> error
    mv      t0, a5
    mv      a7, a0
    mv      a6, a1
    mv      a0, a2
    mv      a1, a3
    mv      a2, a4
    li      a3, 0
    li      a4, 0
    li      a5, 0
    ecall
    beqz    t0, 1f
    sd      a1, 0(t0)
1:  ret

    .globl take_interrupts              # lets pending interrupts be handled, here and nowhere else
take_interrupts:
    csrsi   sstatus, SSTATUS_SIE
    csrci   sstatus, SSTATUS_SIE
    ret

    .globl enable_interrupts            # (sie bits)
enable_interrupts:
    csrs    sie, a0
    ret

    .globl disable_interrupts           # (sie bits)
disable_interrupts:
    csrc    sie, a0
    ret

    .globl read_time
read_time:
    rdtime  a0
    ret

    .globl imsic_write                  # (register, value)
imsic_write:
    csrw    CSR_SISELECT, a0
    csrw    CSR_SIREG, a1
    ret

    .globl imsic_set                    # (register, bits)
imsic_set:
    csrw    CSR_SISELECT, a0
    csrs    CSR_SIREG, a1
    ret

    .globl imsic_claim                  # -> identity, 0 for none; it is no longer pending
imsic_claim:
    csrrw   a0, CSR_STOPEI, zero
    srli    a0, a0, 16
    ret

    .globl arena_start
arena_start:
    lla     a0, arena
    ret

    .globl arena_end
arena_end:
    lla     a0, arena_limit
    ret
