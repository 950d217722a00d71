/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system half of the RISC-V guest: CSRs, traps and returns, LR/SC, and of floating point what softfp's own tests
 * do not see.
 */
#include "tests/isa/riscv_hart.h"

/* ---- CSRs ---- */

struct warl {
    unsigned csr;
    uint64_t written, read;
};

static const struct warl warl64[] = {
    { 0x105, ~0ull, 0 }, /* stvec: reserved mode is not taken */
    { 0x105, 0xffffffff80000005, 0xffffffff80000005 },
    { 0x106, ~0ull, 0xffffffff }, /* scounteren */
    { 0x10a, ~0ull, 3ull << 32 | 0xf1 },   /* senvcfg: FIOM, CB* */
    { 0x140, ~0ull, ~0ull },  /* sscratch */
    { 0x141, ~0ull, ~1ull },  /* sepc */
    { 0x142, ~0ull, ~0ull },  /* scause */
    { 0x180, 3ull << 60, 0 }, /* satp: no such mode, no write */
    { 0x180, 8ull << 60 | 0xffffull << 44 | 5, 8ull << 60 | 0xffffull << 44 | 5 },
    { 0x301, 0, 0x800000000034112f },                 /* misa stays: ABCDFIMSU */
    { 0x302, ~0ull, 0xb3ff },                         /* medeleg */
    { 0x303, ~0ull, 0x2222 },                          /* mideleg */
    { 0x304, ~0ull, 0x2aaa },                       /* mie */
    { 0x306, ~0ull, 0xffffffff },                           /* mcounteren */
    { 0x30a, ~0ull, 7ull << 61 | 3ull << 32 | 0xf1 }, /* menvcfg: STCE, PBMTE, ADUE, PMM, CB*, FIOM */
    { 0x320, ~0ull, 0xfffffffd },                           /* mcountinhibit */
    { 0x323, ~0ull, 0xfull << 60 },                           /* mhpmevent3 */
    { 0x341, 0x80000003, 0x80000002 },             /* mepc */
    { 0xb03, ~0ull, ~0ull },                           /* mhpmcounter3 */
    { 0x3b0, ~0ull, (1ull << 54) - 1 },            /* pmpaddr0 */
    { 0x3a0, 0x62, 0 },                            /* pmpcfg0: W without R, reserved bits */
    { 0x300, ~0ull, 0x8000000a007e7faa },          /* mstatus */
    { 0x300, 2ull << 11, 0xa00001800 },            /* ... MPP 2 is not taken over */
    { 0x300, 0, 0xa00000000 },
};

START_TEST(csr_fields_keep_legal_values_only)
{
    for (unsigned i = 0; i < sizeof(warl64) / sizeof(warl64[0]); i++) {
        const struct warl *w = &warl64[i];
        csr_set_to(w->csr, w->written);
        uint64_t value = csr_get(w->csr);
        ck_assert_msg(value == w->read, "CSR %#x: wrote %#llx, read %#llx, not %#llx", w->csr,
                      (unsigned long long)w->written, (unsigned long long)value,
                      (unsigned long long)w->read);
    }
}
END_TEST

START_TEST(csr_that_are_absent_or_read_only_are_illegal)
{
    static const unsigned absent[] = { 0x000, 0x004, 0x200, 0x310, 0x31a, 0x3a1, 0x3a4, 0x3c0,
                                       0x7a4, 0x7a5, 0x7b0, 0xb01, 0xb80, 0xc80, 0xf10, 0xfff };
    uint64_t value;

    for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        ck_assert_msg(!csr_readable(absent[i], &value), "CSR %#x", absent[i]);
    }
    ck_assert(csr_readable(0xf14, &value));
    ck_assert(!csr_op(CSRRW, 0xf14, 0, NULL));
    ck_assert(!csr_op(CSRRS, 0xc00, 0, NULL));
}
END_TEST

START_TEST(csr_privilege_is_checked)
{
    uint64_t value;

    cpu.priv = RISCV_S;
    ck_assert(!csr_readable(0x300, &value));
    ck_assert(csr_readable(0x100, &value));
    ck_assert(csr_readable(0x180, &value));
    cpu.mstatus |= MSTATUS_TVM;
    ck_assert(!csr_readable(0x180, &value));
    cpu.priv = RISCV_U;
    ck_assert(!csr_readable(0x100, &value));
}
END_TEST

START_TEST(counters_are_opened_level_by_level)
{
    uint64_t value;

    cpu.priv = RISCV_S;
    ck_assert(!csr_readable(0xc01, &value));
    cpu.mcounteren = 2;
    ck_assert(csr_readable(0xc01, &value));
    ck_assert(!csr_readable(0xc00, &value));
    cpu.priv = RISCV_U;
    ck_assert(!csr_readable(0xc01, &value));
    cpu.scounteren = 2;
    ck_assert(csr_readable(0xc01, &value));
    ck_assert(!csr_readable(0xc03, &value));
}
END_TEST

START_TEST(counters_can_be_written_and_stopped)
{
    csr_set_to(0xb00, 1000);
    ck_assert_uint_eq(csr_get(0xc00), 1000); /* virtual time stands still here */
    csr_set_to(0x320, 1);
    ck_assert_uint_eq(csr_get(0xb00), 1000);
    csr_set_to(0xb00, 5);
    csr_set_to(0x320, 0);
    ck_assert_uint_eq(csr_get(0xb00), 5);
    csr_set_to(0xb02, 77);
    ck_assert_uint_eq(csr_get(0xc02), 77);
    ck_assert_uint_eq(csr_get(0xb00), 5);
}
END_TEST

START_TEST(fcsr_is_fflags_and_frm_and_needs_fs)
{
    uint64_t value;

    ck_assert(!csr_readable(0x003, &value));
    csr_set_to(0x300, 1ull << 13);
    csr_set_to(0x003, 0xff);
    ck_assert_uint_eq(csr_get(0x001), 31);
    ck_assert_uint_eq(csr_get(0x002), 7);
    ck_assert_uint_eq(csr_get(0x300) & MSTATUS_FS, MSTATUS_FS);
    ck_assert_uint_eq(csr_get(0x300) >> 63, 1);
    csr_set_to(0x001, 0);
    csr_set_to(0x002, 3);
    ck_assert_uint_eq(csr_get(0x003), 0x60);
    /* The rounding mode is part of user mode only. */
    struct tcg_mode m = riscv_tcg_mode(&cpu);
    ck_assert_uint_eq(m.code, (uint32_t)RISCV_M | RV_CODE_FP_ASK);
    cpu.priv = RISCV_U;
    m = riscv_tcg_mode(&cpu);
    ck_assert_uint_eq((m.code & RV_CODE_FRM) >> RV_CODE_FRM_SHIFT, 3);
    ck_assert_uint_eq(m.code & (RV_CODE_FP_ASK | RV_CODE_FS_OFF), 0);
    cpu.mstatus &= ~MSTATUS_FS;
    ck_assert(riscv_tcg_mode(&cpu).code & RV_CODE_FS_OFF);
    cpu.priv = RISCV_M;
}
END_TEST

START_TEST(set_and_clear_touch_only_their_bits)
{
    uint64_t old;

    csr_set_to(0x304, 0x0a0);
    ck_assert(csr_op(CSRRS, 0x304, 0x002, &old));
    ck_assert_uint_eq(old, 0x0a0);
    ck_assert(csr_op(CSRRC, 0x304, 0x020, &old));
    ck_assert_uint_eq(old, 0x0a2);
    ck_assert_uint_eq(csr_get(0x304), 0x082);
}
END_TEST

START_TEST(seip_latch_is_apart_from_the_line)
{
    uint64_t old;

    csr_set_to(0x303, 0x222);
    vcpu_irq_set(&vcpu, RISCV_IRQ_SEI, true);
    ck_assert(csr_op(CSRRS, 0x344, 2, &old)); /* sets SSIP; must not latch SEIP */
    ck_assert_uint_eq(old, 0x200);
    vcpu_irq_set(&vcpu, RISCV_IRQ_SEI, false);
    ck_assert_uint_eq(csr_get(0x344), 2);
    csr_set_to(0x344, 0x222);
    ck_assert_uint_eq(csr_get(0x344), 0x222);
    cpu.priv = RISCV_S;
    csr_set_to(0x144, 0);
    ck_assert_uint_eq(csr_get(0x144), 0x220); /* only SSIP is writable there */
}
END_TEST

START_TEST(sie_and_sip_show_what_is_delegated)
{
    csr_set_to(0x304, 0xaaa);
    ck_assert_uint_eq(csr_get(0x104), 0);
    csr_set_to(0x303, 0x20);
    ck_assert_uint_eq(csr_get(0x104), 0x20);
    csr_set_to(0x104, 0);
    ck_assert_uint_eq(csr_get(0x304), 0xa8a);
}
END_TEST

START_TEST(stimecmp_needs_both_gates_and_drives_stip)
{
    uint64_t value;

    cpu.priv = RISCV_S;
    ck_assert(!csr_readable(0x14d, &value));
    cpu.mcounteren = 2;
    ck_assert(!csr_readable(0x14d, &value));
    cpu.priv = RISCV_M;
    csr_set_to(0x30a, 1ull << 63);
    cpu.priv = RISCV_S;
    csr_set_to(0x14d, 0); /* the past */
    cpu.priv = RISCV_M;
    ck_assert_uint_eq(csr_get(0x344), 0x20);
    csr_set_to(0x344, 0); /* STIP is read-only with Sstc on */
    ck_assert_uint_eq(csr_get(0x344), 0x20);
    csr_set_to(0x14d, ~0ull);
    ck_assert_uint_eq(csr_get(0x344), 0);
}
END_TEST

START_TEST(mode_follows_privilege_and_mprv)
{
    struct tcg_mode m = riscv_tcg_mode(&cpu);
    ck_assert_uint_eq(m.asid, 0);
    csr_set_to(0x180, 8ull << 60 | 7ull << 44 | 0x80000);
    m = riscv_tcg_mode(&cpu);
    ck_assert_uint_eq(m.asid, 0);
    csr_set_to(0x300, MSTATUS_MPRV | MSTATUS_SUM | 1ull << 11);
    m = riscv_tcg_mode(&cpu);
    ck_assert_uint_eq(m.mmu, 3 | 1 << 2 | RV_MMU_SUM | 8 << RV_MMU_SCHEME_SHIFT);
    ck_assert_uint_eq(m.asid, 8 << 16 | 7);
}
END_TEST

START_TEST(rv32_sees_halves)
{
    uint64_t value;

    ck_assert_uint_eq(csr_get(0x301), 0x4034112f);
    csr_set_to(0x14d, 0xffffffff80000000);
    csr_set_to(0x15d, 0x12345678);
    ck_assert_uint_eq(cpu.stimecmp, 0x1234567880000000);
    ck_assert_uint_eq(csr_get(0x14d), 0xffffffff80000000);
    csr_set_to(0x31a, ~0ull);
    ck_assert_uint_eq(cpu.menvcfg, 1ull << 63 | 1ull << 61);
    ck_assert_uint_eq(csr_get(0x31a), 0xffffffffa0000000);
    csr_set_to(0x30a, 1);
    ck_assert_uint_eq(cpu.menvcfg, 1ull << 63 | 1ull << 61 | 1);
    csr_set_to(0x300, ~0ull);
    ck_assert_uint_eq(csr_get(0x300), 0xffffffff807e7faa);
    ck_assert_uint_eq(csr_get(0x310), 0);
    csr_set_to(0x3a1, 0x1f1f1f1f);
    ck_assert_uint_eq(cpu.pmpcfg[7], 0x1f);
    csr_set_to(0xb80, 1);
    ck_assert_uint_eq(csr_get(0xc80), 1);
    csr_set_to(0x180, 0x80400123);
    ck_assert_uint_eq(csr_get(0x180), 0xffffffff80400123);
    ck_assert_uint_eq(riscv_satp_tag(&cpu), 1 << 9 | 1);
    ck_assert(csr_readable(0xc81, &value));
}
END_TEST

/* ---- traps ---- */

START_TEST(exception_goes_to_machine_mode_and_back)
{
    cpu.pc = 0x80001000;
    cpu.priv = RISCV_U;
    cpu.mtvec = 0x80000101; /* vectored: exceptions go to the base all the same */
    cpu.mstatus |= MSTATUS_MIE;
    riscv_tcg_exception(&cpu, RISCV_CAUSE_ECALL_U, 0);
    ck_assert_uint_eq(cpu.pc, 0x80000100);
    ck_assert_uint_eq(cpu.priv, RISCV_M);
    ck_assert_uint_eq(cpu.mcause, 8);
    ck_assert_uint_eq(cpu.mepc, 0x80001000);
    ck_assert_uint_eq(cpu.mstatus & (MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP), MSTATUS_MPIE);
    ck_assert_int_gt(seen.mode_changed, 0);
    riscv_mret(&cpu, 0x30200073, 0, 0);
    ck_assert_uint_eq(cpu.pc, 0x80001000);
    ck_assert_uint_eq(cpu.priv, RISCV_U);
    ck_assert(cpu.mstatus & MSTATUS_MIE);
    ck_assert(cpu.mstatus & MSTATUS_MPIE);
}
END_TEST

START_TEST(delegated_exception_goes_to_supervisor_and_back)
{
    cpu.pc = 0x1000;
    cpu.priv = RISCV_S;
    cpu.stvec = 0x2000;
    cpu.medeleg = 1ull << RISCV_CAUSE_LOAD_PAGE;
    cpu.mstatus |= MSTATUS_SIE;
    riscv_tcg_exception(&cpu, RISCV_CAUSE_LOAD_PAGE, 0xdead);
    ck_assert_uint_eq(cpu.priv, RISCV_S);
    ck_assert_uint_eq(cpu.pc, 0x2000);
    ck_assert_uint_eq(cpu.scause, 13);
    ck_assert_uint_eq(cpu.stval, 0xdead);
    ck_assert_uint_eq(cpu.mstatus & (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP),
                      MSTATUS_SPIE | MSTATUS_SPP);
    riscv_sret(&cpu, 0x10200073, 0, 0);
    ck_assert_uint_eq(cpu.pc, 0x1000);
    ck_assert_uint_eq(cpu.priv, RISCV_S);
    ck_assert_uint_eq(cpu.mstatus & (MSTATUS_SIE | MSTATUS_SPP), MSTATUS_SIE);
    /* The same in machine mode is never delegated. */
    cpu.priv = RISCV_M;
    riscv_tcg_exception(&cpu, RISCV_CAUSE_LOAD_PAGE, 0xdead);
    ck_assert_uint_eq(cpu.priv, RISCV_M);
    ck_assert_uint_eq(cpu.mcause, 13);
}
END_TEST

START_TEST(interrupts_follow_priority_delegation_and_enables)
{
    cpu.mie = 0xaaa;
    cpu.mideleg = 0x222;
    cpu.mtvec = 0x80000001;
    cpu.stvec = 0x4001;
    cpu.pc = 0x1000;
    vcpu_irq_set(&vcpu, RISCV_IRQ_MTI, true);
    vcpu_irq_set(&vcpu, RISCV_IRQ_SEI, true);
    ck_assert(!riscv_tcg_interrupt(&cpu)); /* machine mode, MIE off */
    cpu.priv = RISCV_S;
    ck_assert(riscv_tcg_interrupt(&cpu)); /* lower privilege: machine interrupts always */
    ck_assert_uint_eq(cpu.mcause, 1ull << 63 | 7);
    ck_assert_uint_eq(cpu.pc, 0x8000001c);
    vcpu_irq_set(&vcpu, RISCV_IRQ_MTI, false);
    ck_assert(!riscv_tcg_interrupt(&cpu));
    cpu.mstatus |= MSTATUS_MIE;
    ck_assert(!riscv_tcg_interrupt(&cpu)); /* delegated ones do not reach machine mode */
    cpu.priv = RISCV_S;
    ck_assert(!riscv_tcg_interrupt(&cpu)); /* SIE off */
    cpu.mip = 2;
    cpu.mstatus |= MSTATUS_SIE;
    ck_assert(riscv_tcg_interrupt(&cpu));
    ck_assert_uint_eq(cpu.scause, 1ull << 63 | 9); /* external before software */
    ck_assert_uint_eq(cpu.pc, 0x4024);
}
END_TEST

/* True when the helper raised an illegal instruction. */
static bool illegal(ir_helper helper, uint64_t insn)
{
    if (setjmp(seen.out)) {
        return true;
    }
    helper(&cpu, insn, 0, 0);
    return false;
}

START_TEST(returns_and_waits_need_privilege)
{
    cpu.priv = RISCV_S;
    ck_assert(illegal(riscv_mret, 0x30200073));
    cpu.mstatus |= MSTATUS_TSR | MSTATUS_TW | MSTATUS_TVM;
    ck_assert(illegal(riscv_sret, 0x10200073));
    ck_assert(illegal(riscv_wfi, 0x10500073));
    ck_assert(illegal(riscv_sfence_vma, 0x12000073));
    cpu.priv = RISCV_U;
    cpu.mstatus = 0;
    ck_assert(illegal(riscv_wfi, 0x10500073));
    ck_assert(illegal(riscv_sret, 0x10200073));
    ck_assert(illegal(riscv_sfence_vma, 0x12000073));
}
END_TEST

START_TEST(wfi_halts_unless_something_is_pending)
{
    if (setjmp(seen.out) == 0) {
        riscv_wfi(&cpu, 0x10500073, 0, 0);
        ck_abort_msg("wfi came back");
    }
    ck_assert_int_eq(seen.halted, 1);
    cpu.mie = 0x80;
    vcpu_irq_set(&vcpu, RISCV_IRQ_MTI, true);
    riscv_wfi(&cpu, 0x10500073, 0, 0); /* enabled here, masked by MIE: goes on */
    ck_assert_int_eq(seen.halted, 1);
}
END_TEST

START_TEST(mret_to_a_lower_privilege_clears_mprv)
{
    cpu.mstatus |= MSTATUS_MPRV | 1ull << 11;
    riscv_mret(&cpu, 0x30200073, 0, 0);
    ck_assert(!(cpu.mstatus & MSTATUS_MPRV));
    ck_assert_uint_eq(cpu.priv, RISCV_S);
}
END_TEST
/* ---- LR/SC ---- */

START_TEST(sc_stores_only_on_a_valid_reservation)
{
    memory_word = 0x80000001;
    ck_assert_uint_eq(riscv_lr_w(&cpu, 0x1000, 0, 0), 0xffffffff80000001);
    ck_assert_uint_eq(riscv_sc_w(&cpu, 0x1000, 7, 0), 0);
    ck_assert_uint_eq(memory_word, 7);
    ck_assert_uint_eq(riscv_sc_w(&cpu, 0x1000, 8, 0), 1); /* used up */
    riscv_lr_w(&cpu, 0x1000, 0, 0);
    ck_assert_uint_eq(riscv_sc_w(&cpu, 0x1004, 8, 0), 1); /* another address */
    riscv_lr_w(&cpu, 0x1000, 0, 0);
    memory_word = 9; /* another hart */
    ck_assert_uint_eq(riscv_sc_w(&cpu, 0x1000, 8, 0), 1);
    ck_assert_uint_eq(memory_word, 9);
    riscv_lr_d(&cpu, 0x1000, 0, 0);
    riscv_tcg_exception(&cpu, RISCV_CAUSE_ECALL_M, 0);
    ck_assert_uint_eq(riscv_sc_d(&cpu, 0x1000, 8, 0), 1); /* a trap ended it */
    riscv_lr_d(&cpu, 0x1000, 0, 0);
    ck_assert_uint_eq(riscv_sc_d(&cpu, 0x1000, 8, 0), 0);
    if (setjmp(seen.out) == 0) {
        riscv_sc_w(&cpu, 0x1002, 8, 0);
        ck_abort_msg("misaligned sc.w came back");
    }
    ck_assert_uint_eq(seen.cause, RISCV_CAUSE_STORE_MISALIGNED);
}
END_TEST
/* ---- floating point: what softfp's own tests do not see ---- */

START_TEST(singles_are_boxed_and_checked)
{
    uint64_t one = 0xffffffff3f800000, unboxed = 0x3f800000;

    ck_assert_uint_eq(riscv_fadd_s(&cpu, one, one, 0), 0xffffffff40000000);
    ck_assert_uint_eq(riscv_fadd_s(&cpu, one, unboxed, 0), 0xffffffff7fc00000);
    ck_assert_uint_eq(riscv_fsgnjn_s(&cpu, one, one, 0), 0xffffffffbf800000);
    ck_assert_uint_eq(riscv_fsgnj_s(&cpu, unboxed, one, 0), 0xffffffff7fc00000);
    ck_assert_uint_eq(riscv_fclass_s(&cpu, unboxed, 0, 0), 1 << 9);
    ck_assert_uint_eq(cpu.fflags, 0);
    ck_assert_uint_eq(riscv_fcvt_wu_s(&cpu, 0xffffffff4f7fffff, 0, 0), 0xffffffffffffff00);
    ck_assert_uint_eq(riscv_fcvt_s_wu(&cpu, 0xffffffffffffffff, 1, 0), 0xffffffff4f7fffff);
    ck_assert_uint_eq(cpu.fflags, 1);
    riscv_fdiv_s(&cpu, one, 0xffffffff00000000, 0);
    ck_assert_uint_eq(cpu.fflags, 9);
}
END_TEST

START_TEST(fma_helpers_negate_as_named)
{
    uint64_t two = 0x4000000000000000, three = 0x4008000000000000, one = 0x3ff0000000000000;
    static const uint64_t want[] = { 0x401c000000000000, 0x4014000000000000, 0xc014000000000000,
                                     0xc01c000000000000 };
    for (unsigned kind = 0; kind < 4; kind++) {
        for (unsigned rm = 0; rm < 5; rm++) {
            ir_helper fma_helper = riscv_fma_helper(true, kind, rm);
            ck_assert_uint_eq(fma_helper(&cpu, two, three, one), want[kind]);
        }
    }
}
END_TEST
static Suite *suite_riscv_sys(void)
{
    Suite *s = suite_create("riscv_sys");
    TCase *rv64 = tcase_create("rv64");
    TCase *rv32 = tcase_create("rv32");

    tcase_add_checked_fixture(rv64, hart_start64, hart_stop);
    tcase_add_test(rv64, csr_fields_keep_legal_values_only);
    tcase_add_test(rv64, csr_that_are_absent_or_read_only_are_illegal);
    tcase_add_test(rv64, csr_privilege_is_checked);
    tcase_add_test(rv64, counters_are_opened_level_by_level);
    tcase_add_test(rv64, counters_can_be_written_and_stopped);
    tcase_add_test(rv64, fcsr_is_fflags_and_frm_and_needs_fs);
    tcase_add_test(rv64, set_and_clear_touch_only_their_bits);
    tcase_add_test(rv64, seip_latch_is_apart_from_the_line);
    tcase_add_test(rv64, sie_and_sip_show_what_is_delegated);
    tcase_add_test(rv64, stimecmp_needs_both_gates_and_drives_stip);
    tcase_add_test(rv64, mode_follows_privilege_and_mprv);
    tcase_add_test(rv64, exception_goes_to_machine_mode_and_back);
    tcase_add_test(rv64, delegated_exception_goes_to_supervisor_and_back);
    tcase_add_test(rv64, interrupts_follow_priority_delegation_and_enables);
    tcase_add_test(rv64, returns_and_waits_need_privilege);
    tcase_add_test(rv64, wfi_halts_unless_something_is_pending);
    tcase_add_test(rv64, mret_to_a_lower_privilege_clears_mprv);
    tcase_add_test(rv64, sc_stores_only_on_a_valid_reservation);
    tcase_add_test(rv64, singles_are_boxed_and_checked);
    tcase_add_test(rv64, fma_helpers_negate_as_named);
    suite_add_tcase(s, rv64);
    tcase_add_checked_fixture(rv32, hart_start32, hart_stop);
    tcase_add_test(rv32, rv32_sees_halves);
    suite_add_tcase(s, rv32);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_riscv_sys, NULL);
}
