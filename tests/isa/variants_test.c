/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variants of blocks, by a toy: three custom instructions work on a word of the CPU state that the translator is told to
 * tell variants apart by. What they compute must not depend on which variant runs, and a loop that goes through all
 * values must not visit the dispatcher for each.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/guest.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/internal.h"
#include "tests/lib/testing.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE 0x10000u
#define WFI 0x10500073u
#define WORD offsetof(struct riscv_cpu, cycle_offset) /* nothing here reads the counter */

/* custom-0: rd = the word. custom-1: the word = rs1, to the translator's surprise. custom-2: the word = bits 31:20. */
#define GET(rd) (0x0bu | (rd) << 7)
#define PUT(rs1) (0x2bu | (rs1) << 15)
#define SET(value) (0x5bu | (value) << 20)

static unsigned assumed; /* translations of GET that used a known value */

static bool toy_translate(struct tcg_trans *t)
{
    uint32_t bits = tcg_fetch32(t, t->off), opcode = bits & 0x7f;

    if (opcode != 0x0b && opcode != 0x2b && opcode != 0x5b) {
        return riscv64_guest.translate(t);
    }
    t->next_off = t->off + 4;
    if (opcode == 0x0b) {
        uint32_t word = tcg_variant(t);

        assumed += word != TCG_VARIANT_UNKNOWN;
        set_x(t, bits >> 7 & 31,
              word != TCG_VARIANT_UNKNOWN ? ir_const(t->ir, word)
                                          : ir_ldenv(t->ir, WORD, MO_32));
    } else if (opcode == 0x2b) {
        ir_stenv(t->ir, WORD, MO_32, get_x(t, bits >> 15 & 31));
        tcg_variant_set(t, TCG_VARIANT_UNKNOWN);
    } else {
        ir_stenv(t->ir, WORD, MO_32, ir_const(t->ir, bits >> 20));
        tcg_variant_set(t, bits >> 20);
    }
    return true;
}

static struct tcg_guest toy;
static struct loop *loop;
static struct vm *vm;
static struct mem_region *ram;
static struct tcg_config config;
static struct riscv_cpu *cpu;

static void begin(enum tcg_backend backend)
{
    struct err e = ERR_INIT;

    loop = loop_new(&e);
    config = (struct tcg_config){ .cache_size = 1u << 20, .backend = backend, .check = true };
    ck_assert_msg(vm_new("variants", &riscv64_arch, &tcg_engine_ops, loop, &config, &vm, &e) ==
                      0,
                  "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm->root, RAM_BASE, 0, ram, &e), 0);
    ck_assert_msg(vm_add_vcpus(vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(vm->mem);
    cpu = vm->vcpus[0]->cpu;
    vm->arch->cpu_reset(vm->vcpus[0]);
    toy = riscv64_guest;
    toy.translate = toy_translate;
    toy.variant_offset = WORD;
    toy.vl_offset = 0;
    ((struct tcg_vm *)vm->engine_data)->guest = &toy;
    assumed = 0;
}

static void end(void)
{
    vm_free(vm);
    mem_free(ram);
    loop_free(loop);
}

static enum tcg_backend backends[] = { TCG_INTERP, TCG_JIT };

static void poke(unsigned off, const uint32_t *insns, unsigned n)
{
    memcpy(mem_ram_host(ram) + off, insns, n * 4);
    mem_written(vm->mem, RAM_BASE + off, n * 4);
}

static void run(void)
{
    cpu->pc = RAM_BASE;
    while (vm->engine->run(vm->vcpus[0]) != VCPU_EXIT_HALT) {
    }
}

static const struct tcg_vcpu *toy_vcpu(void)
{
    return vm->vcpus[0]->engine_data;
}

/*
 * a0 rounds left, a1 value, a2 sum, a3 number of values, a4 31
 *   0: custom-1 a1            word = a1
 *   4: custom-0 a5            the next block starts with this one too
 *   8: mul a2,a2,a4; add a2,a2,a5
 *  16: addi a1,a1,1
 *  20: bltu a1,a3,+8; li a1,base (addi)
 *  28: custom-0 a5 ; add a2,a2,a5
 *  36: addi a0,a0,-1
 *  40: bnez a0,-40
 *  44: wfi
 */
static const uint32_t counting[] = {
    PUT(11),    GET(15), 0x02e60633, 0x00f60633, 0x00158593, 0x00d5e463,
    0x00100593, GET(15), 0x00f60633, 0xfff50513, 0xfc051ce3, WFI,
};

static uint64_t expected(unsigned rounds, unsigned first, unsigned values)
{
    uint64_t sum = 0, a1 = first;

    for (; rounds; rounds--) {
        uint64_t word = a1;

        sum = sum * 31 + word;
        if (++a1 >= values) {
            a1 = 1;
        }
        sum += word;
    }
    return sum;
}

static void count(unsigned rounds, unsigned first, unsigned values)
{
    memset(cpu->x, 0, sizeof(cpu->x));
    cpu->x[10] = rounds;
    cpu->x[11] = first;
    cpu->x[13] = values;
    cpu->x[14] = 31;
    run();
    ck_assert_uint_eq(cpu->x[12], expected(rounds, first, values));
}

START_TEST(every_variant_computes_the_same)
{
    unsigned values[] = { 1, 2, 3, TCG_VARIANTS, TCG_VARIANTS + 1, TCG_VARIANTS + 2, 40 }, i;

    begin(backends[_i]);
    poke(0, counting, ARRAY_LEN(counting));
    for (i = 0; i < ARRAY_LEN(values); i++) {
        count(500, 1, values[i]);
        count(500, 0, values[i]); /* 0: nothing is known */
    }
    end();
}
END_TEST

/* As `counting`, but the word changes at the end of a round: the loop's head asks first. */
static const uint32_t head_asks[] = {
    GET(15),    0x02e60633, 0x00f60633, 0x00158593, 0x00d5e463, 0x00100593,
    0x00f60633, PUT(11),    0xfff50513, 0xfc051ee3, WFI,
};

START_TEST(alternating_values_do_not_visit_the_dispatcher)
{
    uint64_t entered;

    begin(TCG_JIT);
    poke(0, head_asks, ARRAY_LEN(head_asks));
    cpu->cycle_offset = 1;
    count(100, 1, TCG_VARIANTS);
    entered = toy_vcpu()->n_enter;
    cpu->cycle_offset = 1;
    count(20000, 1, TCG_VARIANTS);
    ck_assert_uint_lt(toy_vcpu()->n_enter - entered, 100);
    ck_assert_uint_gt(assumed, TCG_VARIANTS - 2);
    end();
}
END_TEST

START_TEST(variants_of_an_address_are_bounded)
{
    const struct tcg_vm *t;
    uint64_t entered, blocks;

    begin(backends[_i]);
    t = vm->engine_data;
    poke(0, head_asks, ARRAY_LEN(head_asks));
    cpu->cycle_offset = 1;
    count(1000, 1, 200);
    blocks = t->stats.blocks;
    ck_assert_uint_lt(blocks, 6 * (TCG_VARIANTS + 1));
    entered = toy_vcpu()->n_enter;
    cpu->cycle_offset = 1;
    count(20000, 1, 900);
    ck_assert_uint_le(t->stats.blocks, blocks + 2);
    if (backends[_i] == TCG_JIT) {
        ck_assert_uint_lt(toy_vcpu()->n_enter - entered,
                          100); /* the generic one is linked as well */
    }
    end();
}
END_TEST

START_TEST(a_value_set_in_the_block_needs_no_guard)
{
    static const uint32_t code[] = { SET(77), GET(10), SET(78), GET(11), WFI };

    begin(backends[_i]);
    poke(0, code, ARRAY_LEN(code));
    run();
    ck_assert_uint_eq(cpu->x[10], 77);
    ck_assert_uint_eq(cpu->x[11], 78);
    ck_assert_uint_eq(assumed, 2);
    end();
}
END_TEST

START_TEST(changed_code_changes_all_variants)
{
    unsigned i, k;

    begin(backends[_i]);
    poke(0, counting, ARRAY_LEN(counting));
    for (i = 0; i < 20; i++) {
        uint32_t twice[] = { i & 1 ? 0x00f60633u
                                   : 0x00c787b3u }; /* add a2,a2,a5 or add a5,a5,a2 */

        for (k = 1; k < 12; k += 3) {
            uint64_t want = 0, word = k;
            unsigned n;

            poke(32, twice, 1);
            memset(cpu->x, 0, sizeof(cpu->x));
            cpu->x[10] = 100;
            cpu->x[11] = cpu->x[13] = k;
            cpu->x[14] = 31;
            run();
            for (n = 0; n < 100; n++) {
                want = want * 31 + word + (i & 1 ? word : 0);
                word = word + 1 >= k ? 1 : word + 1;
            }
            ck_assert_uint_eq(cpu->x[12], want);
        }
    }
    end();
}
END_TEST

static Suite *suite_variants(void)
{
    Suite *s = suite_create("variants");
    TCase *c = tcase_create("toy");

    tcase_add_loop_test(c, every_variant_computes_the_same, 0, 2);
    tcase_add_test(c, alternating_values_do_not_visit_the_dispatcher);
    tcase_add_loop_test(c, variants_of_an_address_are_bounded, 0, 2);
    tcase_add_loop_test(c, a_value_set_in_the_block_needs_no_guard, 0, 2);
    tcase_add_loop_test(c, changed_code_changes_all_variants, 0, 2);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_variants, NULL);
}
