/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction clock: counters and timers are exact to the instruction whatever the blocks, by JIT and by interpreter. Programs end by a
 * store to a device.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/core/clock.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/tcg.h"
#include "tests/lib/testing.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE 0x10000u
#define DEVICE UINT64_C(0x10000000)
#define HANDLER 0x800 /* from RAM_BASE */

enum { ZERO, RA, SP, T0 = 5, T1, T2, S0 = 8, S1, A0, A1, A2, A3, A4, A5 };
enum {
    MINSTRET = 0xb02,
    MCYCLE = 0xb00,
    TIME = 0xc01,
    MIE = 0x304,
    MTVEC = 0x305,
    MSTATUS = 0x300,
    MENVCFG = 0x30a,
    STIMECMP = 0x14d,
    MCAUSE = 0x342,
    MEPC = 0x341
};

static const struct {
    enum tcg_backend backend;
    unsigned max_insns;
} ways[] = { { TCG_INTERP, 64 },
             { TCG_INTERP, 1 },
#ifdef __x86_64__
             { TCG_JIT, 64 },
             { TCG_JIT, 5 },
             { TCG_JIT, 1 }
#endif
};

static struct loop *loop;
static struct vm *vm;
static struct mem_region *ram, *io;
static struct tcg_config config;
static struct riscv_cpu *cpu;
static uint8_t *host;
static unsigned warm; /* as in tcg_config */
static uint32_t at;   /* offset where emit() goes */

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return 0;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque, (void)offset, (void)value, (void)size;
    vm->engine->kick(vm->vcpus[0]);
}

static const struct mem_io_ops device_ops = { device_read, device_write, 1, 8 };

static void machine_new(unsigned way, unsigned shift)
{
    struct err e = ERR_INIT;
    config = (struct tcg_config){ .cache_size = 4u << 20,
                                  .backend = ways[way].backend,
                                  .max_insns = ways[way].max_insns,
                                  .icount = true,
                                  .icount_shift = shift,
                                  .warm = warm,
                                  .check = true };
    loop = loop_new(&e);
    ck_assert_msg(vm_new("icount", &riscv64_arch, &tcg_engine_ops, loop, &config, &vm, &e) == 0,
                  "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm->root, RAM_BASE, 0, ram, &e), 0);
    io = mem_new_io("io", 0x1000, &device_ops, NULL, NULL);
    ck_assert_int_eq(mem_map(vm->root, DEVICE, 0, io, &e), 0);
    ck_assert_msg(vm_add_vcpus(vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(vm->mem);
    host = mem_ram_host(ram);
    cpu = vm->vcpus[0]->cpu;
    vm->arch->cpu_reset(vm->vcpus[0]);
    at = 0;
}

static void run(void)
{
    cpu->pc = RAM_BASE;
    cpu->x[S0] = DEVICE;
    cpu->x[S1] = RAM_BASE + 0x8000;
    vm->engine->regs_put(vm->vcpus[0]);
    clock_start(vm->clock);
    ck_assert_int_eq(vm->engine->run(vm->vcpus[0]), VCPU_EXIT_KICK);
    clock_stop(vm->clock);
}

static void machine_free(void)
{
    vm_free(vm);
    mem_free(ram);
    mem_free(io);
    loop_free(loop);
}

static void emit(uint32_t insn)
{
    memcpy(host + at, &insn, 4);
    at += 4;
}
static void addi(unsigned rd, unsigned rs, int imm)
{
    emit((uint32_t)imm << 20 | rs << 15 | rd << 7 | 0x13);
}
static void nops(unsigned n)
{
    while (n--) {
        addi(ZERO, ZERO, 0);
    }
}
static void csrr(unsigned rd, unsigned csr)
{
    emit(csr << 20 | 2u << 12 | rd << 7 | 0x73);
}
static void csrw(unsigned csr, unsigned rs)
{
    emit(csr << 20 | rs << 15 | 1u << 12 | 0x73);
}
static void branch_ne(unsigned a, unsigned b, int off)
{
    uint32_t o = (uint32_t)off;
    emit((o >> 12 & 1) << 31 | (o >> 5 & 0x3f) << 25 | b << 20 | a << 15 | 1u << 12 |
         (o >> 1 & 0xf) << 8 | (o >> 11 & 1) << 7 | 0x63);
}
static void load(unsigned rd, unsigned rs)
{
    emit(rs << 15 | 3u << 12 | rd << 7 | 0x03);
}
static void store(unsigned rs2, unsigned rs1)
{
    emit(rs2 << 20 | rs1 << 15 | 3u << 12 | 0x23);
}
static void finish(void)
{
    store(ZERO, S0);
    nops(2);
    emit(0x6f); /* j . */
}

START_TEST(instret_counts_each_instruction_once)
{
    machine_new((unsigned)_i, 0);
    nops(3);
    csrr(A0, MINSTRET); /* 3 before it */
    addi(T0, ZERO, 10);
    addi(T0, T0, -1); /* 10 times two */
    branch_ne(T0, ZERO, -4);
    csrr(A1, MINSTRET);
    store(A1, S1);
    branch_ne(A1, ZERO, 8); /* taken: one not executed */
    nops(1);
    csrr(A2, MINSTRET);
    csrr(A3, MCYCLE);
    finish();
    run();
    ck_assert_uint_eq(cpu->x[A0], 3);
    ck_assert_uint_eq(cpu->x[A1], 3 + 1 + 1 + 20);
    ck_assert_uint_eq(cpu->x[A2], cpu->x[A1] + 3);
    ck_assert_uint_eq(cpu->x[A3], cpu->x[A2] + 1);
    machine_free();
}
END_TEST

/* What riscv-tests' instret_overflow asks: a write is done instead of the increment. */
START_TEST(instret_written_is_read_by_the_next_instruction)
{
    machine_new((unsigned)_i, 0);
    addi(T0, ZERO, -1);
    csrw(MINSTRET, T0);
    csrr(A0, MINSTRET);
    csrr(A1, MINSTRET);
    csrw(MINSTRET, ZERO);
    nops(2);
    csrr(A2, MINSTRET);
    finish();
    run();
    ck_assert_uint_eq(cpu->x[A0], UINT64_MAX);
    ck_assert_uint_eq(cpu->x[A1], 0);
    ck_assert_uint_eq(cpu->x[A2], 2);
    machine_free();
}
END_TEST

START_TEST(instruction_that_traps_does_not_count)
{
    machine_new((unsigned)_i, 0);
    emit(0x00000297); /* auipc t0, 0 */
    addi(T0, T0, 0x7fc);
    addi(T0, T0, 4);
    csrw(MTVEC, T0);
    nops(2);
    load(A5, ZERO); /* nothing at address 0 */
    nops(5);
    csrr(A1, MINSTRET);
    finish();
    at = HANDLER;
    csrr(A0, MINSTRET);
    csrr(A2, MEPC);
    addi(A2, A2, 4);
    csrw(MEPC, A2);
    emit(0x30200073); /* mret */
    run();
    ck_assert_uint_eq(cpu->x[A0], 6);
    ck_assert_uint_eq(cpu->x[A1], 6 + 5 + 5);
    machine_free();
}
END_TEST

/* An endless count until the timer's interrupt: it comes before instruction number 100 * ticks, not one later. */
static void timer_program(unsigned ticks, bool wait)
{
    emit(0x00000297); /* auipc t0, 0 */
    addi(T0, T0, 0x7fc);
    addi(T0, T0, 4);
    csrw(MTVEC, T0);
    addi(T0, ZERO, -1);
    emit(63u << 20 | T0 << 15 | 1u << 12 | T0 << 7 | 0x13); /* slli t0, t0, 63 */
    csrw(MENVCFG, T0);                                      /* STCE */
    addi(T0, ZERO, (int)ticks);
    csrw(STIMECMP, T0);
    addi(T0, ZERO, 1 << RISCV_IRQ_STI);
    csrw(MIE, T0);
    addi(T0, ZERO, 8);
    csrw(MSTATUS, T0); /* MIE: 13 instructions so far */
    if (wait) {
        emit(0x10500073); /* wfi */
    }
    addi(A0, A0, 1);
    addi(A0, A0, 1);
    addi(A0, A0, 1);
    emit(0xff5ff06f); /* j back by 12 */
    at = HANDLER;
    csrr(A1, MINSTRET);
    csrr(A2, TIME);
    csrr(A3, MCAUSE);
    csrr(A4, MEPC);
    finish();
}

START_TEST(timer_fires_at_its_instruction)
{
    for (unsigned ticks = 1; ticks < 40; ticks += 6) {
        machine_new((unsigned)_i, 0);
        timer_program(ticks, false);
        run();
        uint64_t n = ticks * 100;
        ck_assert_uint_eq(cpu->x[A1], n);
        ck_assert_uint_eq(cpu->x[A3], 1ull << 63 | RISCV_IRQ_STI);
        ck_assert_uint_eq(cpu->x[A2], ticks);
        uint64_t in_loop = (n - 13) % 4;
        ck_assert_uint_eq(cpu->x[A4], RAM_BASE + (13 + in_loop) * 4);
        ck_assert_uint_eq(cpu->x[A0], (n - 13) / 4 * 3 + in_loop);
        machine_free();
    }
}
END_TEST

START_TEST(shift_slows_the_count_down)
{
    machine_new((unsigned)_i, 3);
    timer_program(50, false);
    run();
    ck_assert_uint_eq(cpu->x[A1], 50 * 100 / 8);
    machine_free();
}
END_TEST

START_TEST(waiting_skips_to_the_next_timer)
{
    machine_new((unsigned)_i, 0);
    timer_program(2000, true);
    run();
    ck_assert_uint_eq(cpu->x[A1], 14);
    ck_assert_uint_eq(cpu->x[A2], 2000);
    ck_assert_uint_eq(cpu->x[A0], 0);
    machine_free();
}
END_TEST

/* A timer of the machine that is due again and again, so that some instructions run alone and others in blocks. */
struct ticker {
    struct vtimer *timer;
    uint64_t every, seed;
};

static void on_tick(void *arg)
{
    struct ticker *k = arg;
    vtimer_arm(k->timer, clock_now(vm->clock) + k->every + test_random(&k->seed) % k->every);
}

/* Blocks that are due to be compiled for speed leave at their entry: a jump to one of them that runs alone has happened. */
START_TEST(jump_to_code_that_is_compiled_anew_counts_once)
{
    enum { FUNCTIONS = 200, TIMES = 12, FIRST = 0x1000, SIZE = 16 };
    struct ticker k = { .every = 20, .seed = test_seed() };

    for (warm = 1; warm < 8; warm++) {
        machine_new((unsigned)_i, 0);
        k.timer = vtimer_new(vm->clock, on_tick, &k);
        on_tick(&k);
        addi(T1, A1, 0);
        emit(T1 << 15 | RA << 7 | 0x67); /* jalr ra, t1 */
        addi(T1, T1, SIZE);
        branch_ne(T1, A2, -8);
        addi(T0, T0, -1);
        branch_ne(T0, ZERO, -20);
        csrr(A5, MINSTRET);
        finish();
        for (unsigned i = 0; i < FUNCTIONS; i++) {
            at = FIRST + i * SIZE;
            addi(A0, A0, 1);
            emit(RA << 15 | 0x67); /* ret */
        }
        cpu->x[T0] = TIMES;
        cpu->x[A1] = RAM_BASE + FIRST;
        cpu->x[A2] = RAM_BASE + FIRST + FUNCTIONS * SIZE;
        run();
        ck_assert_uint_eq(cpu->x[A0], TIMES * FUNCTIONS);
        ck_assert_uint_eq(cpu->x[A5], TIMES * (5 * FUNCTIONS + 3));
        vtimer_free(k.timer);
        machine_free();
    }
}
END_TEST

static Suite *suite_icount(void)
{
    Suite *s = suite_create("icount");
    TCase *t = tcase_create("icount");
    int n = (int)ARRAY_LEN(ways);
    tcase_add_loop_test(t, instret_counts_each_instruction_once, 0, n);
    tcase_add_loop_test(t, instret_written_is_read_by_the_next_instruction, 0, n);
    tcase_add_loop_test(t, instruction_that_traps_does_not_count, 0, n);
    tcase_add_loop_test(t, timer_fires_at_its_instruction, 0, n);
    tcase_add_loop_test(t, shift_slows_the_count_down, 0, n);
    tcase_add_loop_test(t, waiting_skips_to_the_next_timer, 0, n);
    tcase_add_loop_test(t, jump_to_code_that_is_compiled_anew_counts_once, 0, n);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_icount, NULL);
}
