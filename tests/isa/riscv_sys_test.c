/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system half of the RISC-V guest without a translator: CSRs, traps and returns, page walks over page tables made
 * here, memory protection, LR/SC. The translator's services are replaced by ones that record what was asked.
 */
#include "engine/base/loop.h"
#include "engine/core/clock.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"
#include "tests/lib/testing.h"

#include <setjmp.h>

#define RAM_BASE 0x80000000ull
#define RAM_SIZE (16u << 20)

/* ---- recording stand-ins for the translator ---- */

static struct {
    int mode_changed, flush_all, flush_asid, flush_page, flush_page_asid, interrupt_check,
        halted;
    uint64_t asid, va;
    uint32_t cause;
    uint64_t tval;
    jmp_buf out;
} seen;

_Noreturn void tcg_raise(void *cpu, uint32_t cause, uint64_t tval)
{
    (void)cpu;
    seen.cause = cause;
    seen.tval = tval;
    longjmp(seen.out, 1);
}

_Noreturn void tcg_halt(void *cpu)
{
    (void)cpu;
    seen.halted++;
    longjmp(seen.out, 2);
}

void tcg_mode_changed(void *cpu)
{
    (void)cpu;
    seen.mode_changed++;
}

void tcg_flush_all(void *cpu)
{
    (void)cpu;
    seen.flush_all++;
}

void tcg_flush_asid(void *cpu, uint64_t asid)
{
    (void)cpu;
    seen.flush_asid++;
    seen.asid = asid;
}

void tcg_flush_page(void *cpu, uint64_t va)
{
    (void)cpu;
    seen.flush_page++;
    seen.va = va;
}

void tcg_flush_page_asid(void *cpu, uint64_t va, uint64_t asid)
{
    (void)cpu;
    seen.flush_page_asid++;
    seen.va = va;
    seen.asid = asid;
}

void tcg_interrupt_check(void *cpu)
{
    (void)cpu;
    seen.interrupt_check++;
}

static uint64_t memory_word;

uint64_t tcg_ld(void *cpu, uint64_t va, unsigned mo)
{
    (void)cpu;
    (void)va;
    return mo & MO_SIGN ? (uint64_t)(int64_t)(int32_t)memory_word : memory_word;
}

uint64_t tcg_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t v, unsigned mo)
{
    uint64_t old = tcg_ld(cpu, va, mo);
    if (old == expect) {
        memory_word = (mo & MO_SIZE) == MO_32 ? (uint32_t)v : v;
    }
    return old;
}

/* ---- a hart ---- */

static void no_irq(struct vcpu *c)
{
    (void)c;
}

static const struct engine_ops no_engine = { .name = "none", .irq = no_irq, .kick = no_irq };
static struct loop *loop;
static struct vm vm;
static struct vcpu vcpu;
static struct riscv_cpu cpu;
static struct mem_region *ram;
static uint8_t *host;

static void start(const struct arch_ops *arch)
{
    struct err e = ERR_INIT;

    memset(&vm, 0, sizeof(vm));
    memset(&vcpu, 0, sizeof(vcpu));
    memset(&cpu, 0, sizeof(cpu));
    loop = loop_new(&e);
    ck_assert_ptr_nonnull(loop);
    vm.arch = arch;
    vm.engine = &no_engine;
    vm.clock = clock_new(loop);
    vm.root = mem_new_container("root", 1ull << 56);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm.root, RAM_BASE, 0, ram, &e), 0);
    vm.mem = mem_space_new(vm.root);
    mem_commit(vm.mem);
    host = mem_ram_host(ram);
    vcpu.vm = &vm;
    vcpu.cpu = &cpu;
    pthread_mutex_init(&vcpu.lock, NULL);
    pthread_cond_init(&vcpu.wake, NULL);
    ck_assert_int_eq(arch->cpu_init(&vcpu, "max", &e), 0);
    arch->cpu_reset(&vcpu);
    memset(&seen, 0, sizeof(seen));
}

static void start64(void)
{
    start(&riscv64_arch);
}

static void start32(void)
{
    start(&riscv32_arch);
}

static void stop(void)
{
    vm.arch->cpu_done(&vcpu);
    mem_space_free(vm.mem);
    mem_unmap(ram);
    mem_free(ram);
    mem_free(vm.root);
    clock_free(vm.clock);
    loop_free(loop);
}

enum { CSRRW = 1, CSRRS = 2, CSRRC = 3 };

/* Runs one CSR instruction; false: illegal instruction. */
static bool csr_op(unsigned op, unsigned csr, uint64_t operand, uint64_t *old)
{
    uint64_t insn = (uint64_t)csr << 20 | 5 << 15 | op << 12 | 6 << 7 | 0x73;
    volatile uint64_t result = 0;

    if (setjmp(seen.out)) {
        ck_assert_uint_eq(seen.cause, RISCV_CAUSE_ILLEGAL);
        ck_assert_uint_eq(seen.tval, insn);
        return false;
    }
    result = op == CSRRW   ? riscv_csr_swap(&cpu, insn, operand, 0)
             : op == CSRRS ? riscv_csr_set(&cpu, insn, operand, 0)
                           : riscv_csr_clear(&cpu, insn, operand, 0);
    if (old) {
        *old = result;
    }
    return true;
}

static bool csr_readable(unsigned csr, uint64_t *value)
{
    if (setjmp(seen.out)) {
        return false;
    }
    *value = riscv_csr_read(&cpu, (uint64_t)csr << 20 | 2 << 12 | 0x73, 0, 0);
    return true;
}

static uint64_t csr_get(unsigned csr)
{
    uint64_t value = 0;
    ck_assert_msg(csr_readable(csr, &value), "CSR %#x cannot be read", csr);
    return value;
}

static void csr_set_to(unsigned csr, uint64_t value)
{
    ck_assert_msg(csr_op(CSRRW, csr, value, NULL), "CSR %#x cannot be written", csr);
}

/* ---- CSRs ---- */

struct warl {
    unsigned csr;
    uint64_t written, read;
};

static const struct warl warl64[] = {
    { 0x105, ~0ull, 0 }, /* stvec: reserved mode is not taken */
    { 0x105, 0xffffffff80000005, 0xffffffff80000005 },
    { 0x106, ~0ull, 7 },      /* scounteren */
    { 0x10a, ~0ull, 1 },      /* senvcfg: FIOM */
    { 0x140, ~0ull, ~0ull },  /* sscratch */
    { 0x141, ~0ull, ~1ull },  /* sepc */
    { 0x142, ~0ull, ~0ull },  /* scause */
    { 0x180, 3ull << 60, 0 }, /* satp: no such mode, no write */
    { 0x180, 8ull << 60 | 0xffffull << 44 | 5, 8ull << 60 | 0xffffull << 44 | 5 },
    { 0x301, 0, 0x800000000014112d },              /* misa stays: ACDFIMSU */
    { 0x302, ~0ull, 0xb3ff },                      /* medeleg */
    { 0x303, ~0ull, 0x222 },                       /* mideleg */
    { 0x304, ~0ull, 0xaaa },                       /* mie */
    { 0x306, ~0ull, 7 },                           /* mcounteren */
    { 0x30a, ~0ull, 1ull << 63 | 1ull << 61 | 1 }, /* menvcfg: STCE, ADUE, FIOM */
    { 0x320, ~0ull, 5 },                           /* mcountinhibit */
    { 0x323, ~0ull, 0 },                           /* mhpmevent3 */
    { 0x341, 0x80000003, 0x80000002 },             /* mepc */
    { 0xb03, ~0ull, 0 },                           /* mhpmcounter3 */
    { 0x3b0, ~0ull, (1ull << 54) - 1 },            /* pmpaddr0 */
    { 0x3a0, 0x62, 0 },                            /* pmpcfg0: W without R, reserved bits */
    { 0x300, ~0ull, 0x8000000a007e79aa },          /* mstatus */
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
                                       0x7a0, 0x7a1, 0x7b0, 0xb01, 0xb80, 0xc80, 0xf10, 0xfff };
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

    ck_assert_uint_eq(csr_get(0x301), 0x4014112d);
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
    ck_assert_uint_eq(csr_get(0x300), 0xffffffff807e79aa);
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

/* ---- address translation ---- */

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };

static void put64(uint64_t gpa, uint64_t v)
{
    memcpy(host + (gpa - RAM_BASE), &v, 8);
}

static uint64_t get64(uint64_t gpa)
{
    uint64_t v;
    memcpy(&v, host + (gpa - RAM_BASE), 8);
    return v;
}

static uint64_t pte(uint64_t gpa, unsigned flags)
{
    return gpa >> 12 << 10 | flags;
}

#define ROOT (RAM_BASE + 0x100000)

/* Maps va to gpa at the given level with tables at ROOT, ROOT + 4K ...; returns where the leaf entry is. */
static uint64_t map(unsigned levels, uint64_t va, unsigned leaf_level, uint64_t leaf)
{
    uint64_t table = ROOT;
    for (unsigned level = levels - 1; level > leaf_level; level--) {
        uint64_t at = table + (va >> (12 + 9 * level) & 511) * 8;
        table += 0x1000;
        put64(at, pte(table, V));
    }
    uint64_t at = table + (va >> (12 + 9 * leaf_level) & 511) * 8;
    put64(at, leaf);
    return at;
}

static void enable(unsigned satp_mode, unsigned priv)
{
    cpu.satp = (uint64_t)satp_mode << 60 | ROOT >> 12;
    cpu.priv = (uint8_t)priv;
    cpu.menvcfg |= MENVCFG_ADUE;
    cpu.pmpcfg[0] = 0x1f; /* everything, to everyone */
    cpu.pmpaddr[0] = ~0ull >> 10;
    cpu.pmp_used = 1;
}

static struct tcg_walk walked;

static int walk(uint64_t va, enum tcg_access access)
{
    walked = (struct tcg_walk){ .va = va, .access = access, .mmu = riscv_tcg_mode(&cpu).mmu };
    return riscv_tcg_walk(&cpu, &walked);
}

static void walks_to(uint64_t va, enum tcg_access access, uint64_t gpa)
{
    ck_assert_msg(walk(va, access) == 0, "va %#llx refused: cause %u", (unsigned long long)va,
                  walked.cause);
    ck_assert_msg(walked.gpa == gpa, "va %#llx went to %#llx, not %#llx",
                  (unsigned long long)va, (unsigned long long)walked.gpa,
                  (unsigned long long)gpa);
}

static void refused(uint64_t va, enum tcg_access access, uint32_t cause)
{
    ck_assert_msg(walk(va, access) != 0, "va %#llx allowed", (unsigned long long)va);
    ck_assert_uint_eq(walked.cause, cause);
    ck_assert_uint_eq(walked.tval, va);
}

START_TEST(walks_of_every_scheme_reach_their_page)
{
    static const struct {
        unsigned mode, levels;
        uint64_t va;
    } cases[] = {
        { 8, 3, 0x0000003f12345678 },  { 8, 3, 0xffffffc012345678 },
        { 9, 4, 0x00007abc12345678 },  { 9, 4, 0xffff800012345678 },
        { 10, 5, 0x00fedcba12345678 }, { 10, 5, 0xff00000012345678 },
    };
    for (unsigned i = 0; i < 6; i++) {
        memset(host, 0, RAM_SIZE);
        enable(cases[i].mode, RISCV_S);
        map(cases[i].levels, cases[i].va, 0, pte(0x80abc000, V | R | W | A | D));
        walks_to(cases[i].va, TCG_READ, 0x80abc678);
        ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
        refused(cases[i].va ^ 1ull << 63, TCG_READ, RISCV_CAUSE_LOAD_PAGE); /* not canonical */
        refused(cases[i].va + 0x1000, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
        refused(cases[i].va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    }
}
END_TEST

START_TEST(superpages_translate_and_are_remembered)
{
    uint64_t va = 0x12345678;

    enable(8, RISCV_S);
    uint64_t at = map(3, va, 1, pte(0x80400000, V | R | X | A));
    walks_to(va, TCG_FETCH, 0x80545678);
    ck_assert(riscv_superpage_near(&cpu, va + 0x1000));
    ck_assert(!riscv_superpage_near(&cpu, va + (2ull << 30)));
    put64(at, pte(0x80401000, V | R | X | A)); /* misaligned */
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    riscv_superpage_forget(&cpu);
    map(3, va, 2, pte(0x80000000, V | R | W | A | D));
    walks_to(va, TCG_WRITE, 0x92345678);
    cpu.satp = 0;
    walks_to(va, TCG_WRITE, va);
}
END_TEST

START_TEST(user_and_supervisor_pages_are_apart)
{
    uint64_t va = 0x4000;

    enable(8, RISCV_S);
    uint64_t at = map(3, va, 0, pte(0x80abc000, V | R | W | X | U | A | D));
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    refused(va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    cpu.mstatus |= MSTATUS_SUM;
    walks_to(va, TCG_READ, 0x80abc000);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
    refused(va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    cpu.priv = RISCV_U;
    walks_to(va, TCG_FETCH, 0x80abc000);
    put64(at, pte(0x80abc000, V | R | W | X | A | D));
    refused(va, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
}
END_TEST

START_TEST(global_pages_are_told_from_others)
{
    enable(8, RISCV_S);
    uint64_t at = map(3, 0x4000, 0, pte(0x80abc000, V | R | A));
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(!walked.global);
    put64(at, pte(0x80abc000, V | R | G | A));
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(walked.global);
    put64(at, pte(0x80abc000, V | R | A));
    put64(ROOT, get64(ROOT) | G); /* a pointer speaks for all below it */
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(walked.global);
}
END_TEST

START_TEST(mxr_makes_executable_pages_readable)
{
    enable(8, RISCV_S);
    map(3, 0x4000, 0, pte(0x80abc000, V | X | A));
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    cpu.mstatus |= MSTATUS_MXR;
    walks_to(0x4000, TCG_READ, 0x80abc000);
}
END_TEST

START_TEST(accessed_and_dirty_are_set_by_hardware_or_fault)
{
    enable(8, RISCV_S);
    uint64_t clean = pte(0x80abc000, V | R | W);
    uint64_t at = map(3, 0x4000, 0, clean);

    walked = (struct tcg_walk){ .va = 0x4000, .mmu = riscv_tcg_mode(&cpu).mmu, .probe = true };
    ck_assert_int_eq(riscv_tcg_walk(&cpu, &walked), 0);
    ck_assert_uint_eq(get64(at), clean);
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert_uint_eq(get64(at), clean | A);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R); /* the first write walks again */
    walks_to(0x4000, TCG_WRITE, 0x80abc000);
    ck_assert_uint_eq(get64(at), clean | A | D);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
    put64(at, clean);
    cpu.menvcfg = 0;
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    put64(at, clean | A);
    walks_to(0x4000, TCG_READ, 0x80abc000);
    refused(0x4000, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
}
END_TEST

START_TEST(reserved_entries_fault)
{
    static const uint64_t bad[] = { 0, R | A, V | W | A, V | W | X | A };
    enable(8, RISCV_S);

    for (unsigned i = 0; i < 4; i++) {
        map(3, 0x4000, 0, pte(0x80abc000, (unsigned)bad[i]));
        refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    }
    for (unsigned bit = 54; bit < 64; bit++) {
        map(3, 0x4000, 0, pte(0x80abc000, V | R | A) | 1ull << bit);
        refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    }
    map(3, 0x4000, 0, pte(0x80abc000, V)); /* a pointer at the last level */
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    map(3, 0x4000, 0, pte(0x80abc000, V | R | A));
    put64(ROOT, get64(ROOT) | A); /* A in a pointer */
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
}
END_TEST

START_TEST(tables_outside_memory_are_access_faults)
{
    enable(8, RISCV_S);
    cpu.satp = 8ull << 60 | 0x10000;
    refused(0x4000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    refused(0x4000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    cpu.satp = 0;
    refused(1ull << 56, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
}
END_TEST

START_TEST(sv32_walks_both_levels)
{
    uint32_t *root = (uint32_t *)(void *)(host + (ROOT - RAM_BASE));
    uint32_t *leaf = root + 1024;

    enable(0, RISCV_S);
    cpu.satp = 1u << 31 | ROOT >> 12;
    root[0x80000000u >> 22] = (uint32_t)pte(ROOT + 0x1000, V);
    leaf[5] = (uint32_t)pte(0x80abc000, V | R | W);
    walks_to(0x80005123, TCG_WRITE, 0x80abc123);
    ck_assert_uint_eq(leaf[5] & (A | D), A | D);
    root[3] = (uint32_t)pte(0x80400000, V | R | X | A);
    walks_to(0x00f45678, TCG_FETCH, 0x80745678);
    root[3] = (uint32_t)pte(0x80401000, V | R | X | A);
    refused(0x00f45678, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    walks_to(0xffffffff80005123, TCG_READ, 0x80abc123); /* x registers are sign-extended */
}
END_TEST

/* ---- memory protection ---- */

START_TEST(pmp_allows_nothing_below_machine_mode_by_itself)
{
    walks_to(0x80001000, TCG_READ, 0x80001000);
    cpu.priv = RISCV_S;
    refused(0x80001000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
}
END_TEST

START_TEST(pmp_regions_of_all_kinds)
{
    csr_set_to(0x3b0, (0x80000000 >> 2) | 0x1fff); /* NAPOT 64 KiB: none */
    csr_set_to(0x3b1, 0x80200000 >> 2);            /* bottom of TOR */
    csr_set_to(0x3b2, 0x80300000 >> 2);            /* TOR: read */
    csr_set_to(0x3b3, 0x80400010 >> 2);            /* NA4: read, write */
    csr_set_to(0x3b4, ~0ull);                      /* everything: execute */
    csr_set_to(0x3a0, 0x1c13090018);
    cpu.priv = RISCV_S;
    refused(0x80000000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    refused(0x8000ffff, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    walks_to(0x80010000, TCG_FETCH, 0x80010000);
    ck_assert_uint_eq(walked.prot, TCG_PROT_X);
    ck_assert(!walked.uncached);
    walks_to(0x80200000, TCG_READ, 0x80200000);
    walks_to(0x802fffff, TCG_READ, 0x802fffff);
    refused(0x80200000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    refused(0x80300000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
    walks_to(0x80400010, TCG_WRITE, 0x80400010);
    ck_assert(walked.uncached);
    refused(0x80400014, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    walks_to(0x80400014, TCG_FETCH, 0x80400014);
    ck_assert(walked.uncached);
    cpu.priv = RISCV_M;
    walks_to(0x80000000, TCG_WRITE, 0x80000000);
}
END_TEST

START_TEST(pmp_lock_binds_machine_mode_until_reset)
{
    csr_set_to(0x3b0, 0x80200000 >> 2);
    csr_set_to(0x3b1, 0x80300000 >> 2);
    csr_set_to(0x3a0, 0x8900); /* entry 1: locked, TOR, read */
    refused(0x80200000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    walks_to(0x80200000, TCG_READ, 0x80200000);
    csr_set_to(0x3a0, 0);
    ck_assert_uint_eq(csr_get(0x3a0), 0x8900);
    csr_set_to(0x3b0, 0);
    csr_set_to(0x3b1, 0);
    ck_assert_uint_eq(csr_get(0x3b0), 0x80200000 >> 2);
    ck_assert_uint_eq(csr_get(0x3b1), 0x80300000 >> 2);
    ck_assert_int_eq(seen.flush_all, 3);
    vm.arch->cpu_reset(&vcpu);
    ck_assert_uint_eq(csr_get(0x3a0), 0);
}
END_TEST

START_TEST(pmp_guards_page_tables)
{
    enable(8, RISCV_S);
    map(3, 0x4000, 0, pte(0x80abc000, V | R | W));
    cpu.pmpcfg[1] = 0x1f;
    cpu.pmpaddr[1] = ~0ull >> 10;
    cpu.pmp_used = 2;
    cpu.pmpaddr[0] = (ROOT + 0x2000) >> 2 | 0x1ff; /* the last level's table */
    cpu.pmpcfg[0] = 0x19;
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS); /* A cannot be set */
    cpu.pmpcfg[0] = 0x18;
    refused(0x4000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
}
END_TEST

/* ---- fences, LR/SC ---- */

START_TEST(sfence_flushes_what_its_form_says)
{
    enum { FENCE = 0x12000073, RS1 = 10 << 15, RS2 = 11 << 20 };

    cpu.priv = RISCV_S;
    cpu.satp = 8ull << 60 | 3ull << 44;
    riscv_sfence_vma(&cpu, FENCE, 0, 0);
    ck_assert_int_eq(seen.flush_all, 1);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x5000, 0);
    ck_assert_int_eq(seen.flush_page, 1);
    ck_assert_uint_eq(seen.va, 0x5000);
    riscv_sfence_vma(&cpu, FENCE | RS2, 0, 9);
    ck_assert_int_eq(seen.flush_asid, 1);
    ck_assert_uint_eq(seen.asid, 8 << 16 | 9);
    riscv_sfence_vma(&cpu, FENCE | RS1 | RS2, 0x6000, 3);
    ck_assert_int_eq(seen.flush_page_asid, 1);
    ck_assert_uint_eq(seen.asid, 8 << 16 | 3);
    /* An address in a superpage: everything of it goes. */
    enable(8, RISCV_S);
    map(3, 0x200000, 1, pte(0x80400000, V | R | A));
    walks_to(0x200000, TCG_READ, 0x80400000);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_all, 2);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_page, 2);
    cpu.satp = 0;
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_all, 3);
}
END_TEST

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

    tcase_add_checked_fixture(rv64, start64, stop);
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
    tcase_add_test(rv64, walks_of_every_scheme_reach_their_page);
    tcase_add_test(rv64, superpages_translate_and_are_remembered);
    tcase_add_test(rv64, user_and_supervisor_pages_are_apart);
    tcase_add_test(rv64, global_pages_are_told_from_others);
    tcase_add_test(rv64, mxr_makes_executable_pages_readable);
    tcase_add_test(rv64, accessed_and_dirty_are_set_by_hardware_or_fault);
    tcase_add_test(rv64, reserved_entries_fault);
    tcase_add_test(rv64, tables_outside_memory_are_access_faults);
    tcase_add_test(rv64, pmp_allows_nothing_below_machine_mode_by_itself);
    tcase_add_test(rv64, pmp_regions_of_all_kinds);
    tcase_add_test(rv64, pmp_lock_binds_machine_mode_until_reset);
    tcase_add_test(rv64, pmp_guards_page_tables);
    tcase_add_test(rv64, sfence_flushes_what_its_form_says);
    tcase_add_test(rv64, sc_stores_only_on_a_valid_reservation);
    tcase_add_test(rv64, singles_are_boxed_and_checked);
    tcase_add_test(rv64, fma_helpers_negate_as_named);
    suite_add_tcase(s, rv64);
    tcase_add_checked_fixture(rv32, start32, stop);
    tcase_add_test(rv32, rv32_sees_halves);
    tcase_add_test(rv32, sv32_walks_both_levels);
    suite_add_tcase(s, rv32);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_riscv_sys, NULL);
}
