/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the small extensions of RISC-V do with privileges, registers and time: cache-block instructions, Zawrs, event counters and
 * their overflow, Smstateen, the entropy source.
 */
#include "tests/isa/riscv_hart.h"

#include "engine/arch/riscv/pmu.h"
#include "engine/core/clock.h"

enum { CBO_INVAL = 0x0005200f, CBO_CLEAN = 0x0015200f, CBO_ZERO = 0x0045200f };
enum { WRS_NTO = 0x00d00073, WRS_STO = 0x01d00073 };
enum { MHPMEVENT3 = 0x323, MHPMCOUNTER3 = 0xb03, HPMCOUNTER3 = 0xc03, SCOUNTOVF = 0xda0 };
enum { MCOUNTINHIBIT = 0x320, MCOUNTEREN = 0x306, MIP = 0x344, SIP = 0x144, MIDELEG = 0x303 };

/* True when the helper raised an illegal instruction with these bits. */
static bool illegal(ir_helper helper, uint64_t insn, uint64_t address)
{
    if (setjmp(seen.out)) {
        ck_assert_uint_eq(seen.cause, RISCV_CAUSE_ILLEGAL);
        ck_assert_uint_eq(seen.tval, insn);
        return true;
    }
    helper(&cpu, insn, address, 0);
    return false;
}

static void open_memory(void)
{
    cpu.pmpcfg[0] = 0x1f;
    cpu.pmpaddr[0] = ~0ull >> 10;
    cpu.pmp_used = 1;
}

START_TEST(cache_block_instructions_need_both_envcfg)
{
    static const struct {
        uint32_t insn;
        uint64_t bit;
    } cases[] = { { CBO_INVAL, 1 << 4 }, { CBO_CLEAN, 1 << 6 }, { CBO_ZERO, 1 << 7 } };

    open_memory();
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        cpu.menvcfg = cpu.senvcfg = 0;
        cpu.priv = RISCV_M;
        ck_assert(!illegal(riscv_cbo_allowed, cases[i].insn, 0));
        cpu.priv = RISCV_S;
        ck_assert(illegal(riscv_cbo_allowed, cases[i].insn, 0));
        cpu.menvcfg = cases[i].bit;
        ck_assert(!illegal(riscv_cbo_allowed, cases[i].insn, 0));
        cpu.priv = RISCV_U;
        ck_assert(illegal(riscv_cbo_allowed, cases[i].insn, 0));
        cpu.senvcfg = cases[i].bit;
        ck_assert(!illegal(riscv_cbo_allowed, cases[i].insn, 0));
    }
}
END_TEST

START_TEST(cache_block_management_faults_as_a_store)
{
    open_memory();
    ck_assert(!illegal(riscv_cbo, CBO_CLEAN, RAM_BASE));
    cpu.priv = RISCV_S;
    cpu.menvcfg = 1 << 6;
    cpu.satp = 8ull << 60 | RAM_BASE >> 12; /* a page table of zeros */
    if (setjmp(seen.out) == 0) {
        riscv_cbo(&cpu, CBO_CLEAN, 0x4010, 0);
        ck_abort_msg("cbo.clean of an unmapped page came back");
    }
    ck_assert_uint_eq(seen.cause, RISCV_CAUSE_STORE_PAGE);
    ck_assert_uint_eq(seen.tval, 0x4010);
    cpu.satp = 0;
    cpu.pmpcfg[0] = 0x18; /* nothing to anyone */
    if (setjmp(seen.out) == 0) {
        riscv_cbo(&cpu, CBO_CLEAN, RAM_BASE, 0);
        ck_abort_msg("cbo.clean of protected memory came back");
    }
    ck_assert_uint_eq(seen.cause, RISCV_CAUSE_STORE_ACCESS);
}
END_TEST

START_TEST(reserved_cbie_is_not_taken_over)
{
    csr_set_to(0x30a, 3 << 4);
    csr_set_to(0x30a, 2 << 4);
    ck_assert_uint_eq(csr_get(0x30a), 3 << 4);
    csr_set_to(0x10a, 1 << 4);
    csr_set_to(0x10a, 2 << 4 | 1 << 7);
    ck_assert_uint_eq(csr_get(0x10a), 1 << 4 | 1 << 7);
}
END_TEST

START_TEST(endless_wait_is_illegal_under_tw)
{
    cpu.priv = RISCV_S;
    cpu.mstatus |= MSTATUS_TW;
    ck_assert(!illegal(riscv_wrs, WRS_NTO, 0)); /* no reservation: over at once */
    memory_word = 1;
    riscv_lr_w(&cpu, 0x1000, 0, 0);
    ck_assert(illegal(riscv_wrs, WRS_NTO, 0));
    ck_assert(!illegal(riscv_wrs, WRS_STO, 0));
    cpu.priv = RISCV_M;
    ck_assert(!illegal(riscv_wrs, WRS_NTO, 0));
    ck_assert_uint_eq(riscv_sc_w(&cpu, 0x1000, 7, 0), 0); /* waiting keeps the reservation */
}
END_TEST

START_TEST(event_counters_count_their_event)
{
    csr_set_to(MHPMCOUNTER3, 100);
    clock_set(vm.clock, 1000);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 100); /* no event */
    csr_set_to(MHPMEVENT3, 77);
    ck_assert_uint_eq(csr_get(MHPMEVENT3), 0);
    csr_set_to(MHPMEVENT3, RISCV_EVENT_CYCLES);
    clock_set(vm.clock, 1500);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 600);
    csr_set_to(MCOUNTINHIBIT, 8);
    clock_set(vm.clock, 2000);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 600);
    csr_set_to(MCOUNTINHIBIT, 0);
    clock_set(vm.clock, 2010);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 610);
    csr_set_to(MHPMCOUNTER3 + 28, 5); /* the last */
    csr_set_to(MHPMEVENT3 + 28, RISCV_EVENT_INSTRET);
    clock_set(vm.clock, 2030);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3 + 28), 25);
}
END_TEST

START_TEST(event_counters_are_opened_like_others)
{
    uint64_t value;

    cpu.priv = RISCV_S;
    ck_assert(!csr_readable(HPMCOUNTER3, &value));
    cpu.mcounteren = 8;
    ck_assert(csr_readable(HPMCOUNTER3, &value));
    cpu.priv = RISCV_U;
    ck_assert(!csr_readable(HPMCOUNTER3, &value));
    cpu.scounteren = 8;
    ck_assert(csr_readable(HPMCOUNTER3, &value));
    ck_assert(!csr_readable(SCOUNTOVF, &value));
}
END_TEST

START_TEST(filtered_modes_do_not_count)
{
    csr_set_to(MHPMEVENT3, RISCV_EVENT_CYCLES | HPMEVENT_MINH | HPMEVENT_SINH);
    clock_set(vm.clock, 1000);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 0);
    riscv_mret(&cpu, 0x30200073, 0, 0); /* MPP is 0: to user mode */
    ck_assert_uint_eq(cpu.priv, RISCV_U);
    clock_set(vm.clock, 1300);
    riscv_tcg_exception(&cpu, RISCV_CAUSE_ECALL_U, 0);
    ck_assert_uint_eq(cpu.priv, RISCV_M);
    clock_set(vm.clock, 9000);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 300);
}
END_TEST

START_TEST(overflow_is_told_once_by_bit_and_interrupt)
{
    csr_set_to(MIDELEG, 0x2222);
    csr_set_to(MCOUNTEREN, 0);
    csr_set_to(MHPMCOUNTER3, 0 - 100ull);
    csr_set_to(MHPMEVENT3, RISCV_EVENT_CYCLES);
    ck_assert_uint_eq(vtimer_deadline(cpu.hpm_timer), 100);
    clock_set(vm.clock, 99);
    ck_assert_uint_eq(csr_get(SCOUNTOVF), 0);
    clock_set(vm.clock, 105);
    ck_assert_uint_eq(csr_get(SCOUNTOVF), 8);
    ck_assert_uint_eq(csr_get(MHPMCOUNTER3), 5);
    ck_assert_uint_eq(csr_get(MHPMEVENT3), HPMEVENT_OF | RISCV_EVENT_CYCLES);
    ck_assert_uint_eq(csr_get(MIP), 1 << 13);
    cpu.priv = RISCV_S;
    ck_assert_uint_eq(csr_get(SCOUNTOVF), 0); /* mcounteren is closed */
    cpu.mcounteren = 8;
    ck_assert_uint_eq(csr_get(SCOUNTOVF), 8);
    ck_assert_uint_eq(csr_get(SIP), 1 << 13);
    csr_set_to(SIP, 0);
    ck_assert_uint_eq(csr_get(SIP), 0);
    cpu.priv = RISCV_M;
    csr_set_to(MHPMCOUNTER3, ~0ull); /* with OF set: no interrupt */
    clock_set(vm.clock, 200);
    csr_get(MHPMCOUNTER3);
    ck_assert_uint_eq(csr_get(MIP), 0);
}
END_TEST

START_TEST(overflow_interrupt_goes_to_the_supervisor)
{
    cpu.mideleg = cpu.mie = 0x2000;
    cpu.stvec = 0x80001000;
    cpu.priv = RISCV_U;
    ck_assert(!riscv_tcg_interrupt(&cpu));
    vcpu_irq_set(&vcpu, RISCV_IRQ_LCOFI, true);
    ck_assert(riscv_tcg_interrupt(&cpu));
    ck_assert_uint_eq(cpu.scause, 1ull << 63 | 13);
    ck_assert_uint_eq(cpu.priv, RISCV_S);
}
END_TEST

START_TEST(pointer_masking_is_set_by_the_privilege_above)
{
    uint32_t pm = RV_CODE_PM_7 | RV_CODE_PM_16 | RV_CODE_PM_SIGNED;

    csr_set_to(0x10a, 2ull << 32);
    csr_set_to(0x30a, 3ull << 32);
    csr_set_to(0x30a, 1ull << 32); /* reserved */
    ck_assert_uint_eq(csr_get(0x30a), 3ull << 32);
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, 0);
    cpu.priv = RISCV_S;
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, RV_CODE_PM_16);
    cpu.priv = RISCV_U;
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, RV_CODE_PM_7);
    cpu.satp = 8ull << 60;
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, RV_CODE_PM_7 | RV_CODE_PM_SIGNED);
    cpu.mstatus |= MSTATUS_MXR;
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, 0);
    cpu.mstatus = MSTATUS_MPRV; /* MPP is U */
    cpu.priv = RISCV_M;
    ck_assert_uint_eq(riscv_tcg_mode(&cpu).code & pm, RV_CODE_PM_7 | RV_CODE_PM_SIGNED);
}
END_TEST

static void have(unsigned ext)
{
    riscv_features_set(&cpu.features, ext, true);
}

START_TEST(stateen_gates_senvcfg)
{
    uint64_t value;

    ck_assert(!csr_readable(0x30c, &value)); /* only by name */
    have(RISCV_EXT_SMSTATEEN);
    csr_set_to(0x30c, ~0ull);
    ck_assert_uint_eq(csr_get(0x30c), 3ull << 62);
    csr_set_to(0x30d, ~0ull);
    ck_assert_uint_eq(csr_get(0x30d), 1ull << 63);
    cpu.priv = RISCV_S;
    ck_assert(csr_readable(0x10a, &value));
    ck_assert(csr_readable(0x10c, &value));
    cpu.mstateen[0] = 0;
    ck_assert(!csr_readable(0x10a, &value));
    ck_assert(!csr_readable(0x10c, &value));
    ck_assert(csr_readable(0x10d, &value));
}
END_TEST

START_TEST(seed_must_be_written_and_be_let)
{
    uint64_t value, a, b;

    have(RISCV_EXT_ZKR);
    ck_assert(!csr_readable(0x015, &value));
    ck_assert(csr_op(CSRRW, 0x015, 0, &a));
    ck_assert_uint_eq(a >> 16, 0x8000); /* ES16 */
    for (unsigned i = 0; i < 10 && csr_op(CSRRW, 0x015, 0, &b) && a == b; i++) {
    }
    ck_assert_uint_ne(a, b);
    cpu.priv = RISCV_S;
    ck_assert(!csr_op(CSRRW, 0x015, 0, NULL));
    cpu.mseccfg = 1 << 9;
    ck_assert(csr_op(CSRRW, 0x015, 0, NULL));
    cpu.priv = RISCV_U;
    ck_assert(!csr_op(CSRRW, 0x015, 0, NULL));
}
END_TEST

START_TEST(rv32_sees_the_halves_of_events)
{
    csr_set_to(0x723, 1u << 30); /* MINH */
    csr_set_to(MHPMEVENT3, RISCV_EVENT_CYCLES);
    ck_assert_uint_eq(csr_get(0x723), 1u << 30);
    ck_assert_uint_eq(cpu.hpmevent[3], HPMEVENT_MINH | RISCV_EVENT_CYCLES);
    csr_set_to(0xb83, 7);
    ck_assert_uint_eq(csr_get(0xb83), 7);
}
END_TEST

static Suite *suite_riscv_ext(void)
{
    Suite *s = suite_create("riscv_ext");
    TCase *rv64 = tcase_create("rv64");
    TCase *rv32 = tcase_create("rv32");

    tcase_add_checked_fixture(rv64, hart_start64, hart_stop);
    tcase_add_test(rv64, cache_block_instructions_need_both_envcfg);
    tcase_add_test(rv64, cache_block_management_faults_as_a_store);
    tcase_add_test(rv64, reserved_cbie_is_not_taken_over);
    tcase_add_test(rv64, endless_wait_is_illegal_under_tw);
    tcase_add_test(rv64, event_counters_count_their_event);
    tcase_add_test(rv64, event_counters_are_opened_like_others);
    tcase_add_test(rv64, filtered_modes_do_not_count);
    tcase_add_test(rv64, overflow_is_told_once_by_bit_and_interrupt);
    tcase_add_test(rv64, overflow_interrupt_goes_to_the_supervisor);
    tcase_add_test(rv64, stateen_gates_senvcfg);
    tcase_add_test(rv64, pointer_masking_is_set_by_the_privilege_above);
    tcase_add_test(rv64, seed_must_be_written_and_be_let);
    suite_add_tcase(s, rv64);
    tcase_add_checked_fixture(rv32, hart_start32, hart_stop);
    tcase_add_test(rv32, rv32_sees_the_halves_of_events);
    suite_add_tcase(s, rv32);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_riscv_ext, NULL);
}
