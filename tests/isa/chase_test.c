/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops along lists, for which the second tier guesses where the next page is: lists at random over pages that the guest scatters, against a
 * model that walks them itself, with pages that are exchanged between runs and between two elements of one run, elements
 * that lie in two pages, stores, code in a page of the list, and more pages than can be shown in order.
 *
 * A hart in S mode under Sv39. Elements are {next, value, sum}; the loop adds values up and stores the sum. Random: --seed.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/internal.h"
#include "engine/tcg/tier2.h"
#include "tests/lib/testing.h"

#include <inttypes.h>

#define PAGE 0x1000u
#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (16u << 20)
#define HANDLER 0u
#define CODE 0x1000u
#define ROOT 0x10000u /* and the tables of two more levels */
#define SPARE 0x20000u
#define DATA (4u << 20)
#define MAX_PAGES 1024u
#define LIST_VA UINT64_C(0x10000000)
#define CODE_VA UINT64_C(0x40000000)
#define ALSO_VA UINT64_C(0x40001000) /* the first page of the list, to be executed */
#define TABLE_VA UINT64_C(0x40002000) /* the lowest table of the list */
#define MAX_NODES 8192u

enum { V = 1, R = 2, W = 4, X = 8, A = 64, D = 128 };
/* Programs, by offset in the page of code. */
enum { LOOP = 0, EXCHANGE = 0x100, STORE = 0x200, FENCE = 0x300, EXECUTE = 0xf00 /* in the list's first page */ };

static struct loop *loop;
static struct vm *vm;
static struct mem_region *ram;
static struct tcg_config config;
static struct riscv_cpu *cpu;
static uint8_t *host;
static uint64_t rng;
static unsigned n_pages, n_nodes;
static uint64_t place[MAX_PAGES]; /* of the list's pages in RAM: what the tables say */
static uint64_t node[MAX_NODES];  /* addresses */

static uint64_t rnd(uint64_t n)
{
    return (test_random(&rng) >> 16) % n;
}

static void put(uint64_t off, uint64_t v)
{
    memcpy(host + off, &v, 8);
}

static uint64_t leaf(uint64_t off, unsigned flags)
{
    return (RAM_BASE + off) >> 12 << 10 | V | A | D | flags;
}

static void map(uint64_t va, uint64_t off, unsigned flags)
{
    uint64_t low = va < CODE_VA ? ROOT + (4 + ((va - LIST_VA) >> 21)) * PAGE : ROOT + 3 * PAGE;
    put(low + (va >> 12 & 511) * 8, leaf(off, flags));
}

/* The model's memory is the hart's: it reads by the list's pages. */
static uint8_t *at(uint64_t va)
{
    return host + place[(va - LIST_VA) / PAGE] + va % PAGE;
}

static uint64_t get(uint64_t va)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) {
        v |= (uint64_t)*at(va + i) << 8 * i;
    }
    return v;
}

static void set(uint64_t va, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        *at(va + i) = (uint8_t)(v >> 8 * i);
    }
}

static void write_code(void)
{
    static const uint32_t walk[] = {
        0x00053783, /* ld a5, 0(a0) */
        0x00853703, /* ld a4, 8(a0) */
        0x00e60633, /* add a2, a2, a4 */
        0x00c53823, /* sd a2, 16(a0) */
        0x00078513, /* mv a0, a5 */
        0xfff58593, /* addi a1, a1, -1 */
        0xfe0594e3, /* bnez a1, -24 */
        0x00000073,
    };
    /* Two elements at a time; between times one page is exchanged for another, or back. */
    static const uint32_t exchange[] = {
        0x00d8b023, /* sd a3, 0(a7) */
        0x01b6c6b3, /* xor a3, a3, s11 */
        0x12080073, /* sfence.vma a6 */
        0x00053783, /* ld a5, 0(a0) */
        0x0107b703, /* ld a4, 16(a5) */
        0x0087b503, /* ld a0, 8(a5) */
        0x00e60633, /* add a2, a2, a4 */
        0x00a64633, /* xor a2, a2, a0 */
        0x0007b503, /* ld a0, 0(a5) */
        0xfff58593, /* addi a1, a1, -1 */
        0xfc059ce3, /* bnez a1, -40 */
        0x00000073,
    };
    static const uint32_t store[] = { 0x00b52023 /* sw a1, 0(a0) */, 0x00000073 };
    static const uint32_t fence[] = { 0x12000073, 0x00000073 };
    static const uint32_t wfi = 0x10500073;
    memcpy(host + HANDLER, &wfi, 4);
    memcpy(host + CODE + LOOP, walk, sizeof(walk));
    memcpy(host + CODE + EXCHANGE, exchange, sizeof(exchange));
    memcpy(host + CODE + STORE, store, sizeof(store));
    memcpy(host + CODE + FENCE, fence, sizeof(fence));
}

static void begin(enum tcg_backend backend)
{
    struct err e = ERR_INIT;
    loop = loop_new(&e);
    config = (struct tcg_config){ .cache_size = 4u << 20, .backend = backend, .tier2 = TCG_TIER2_FORCE, .check = true };
    ck_assert_msg(vm_new("chase", &riscv64_arch, &tcg_engine_ops, loop, &config, &vm, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm->root, RAM_BASE, 0, ram, &e), 0);
    ck_assert_msg(vm_add_vcpus(vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(vm->mem);
    cpu = vm->vcpus[0]->cpu;
    vm->arch->cpu_reset(vm->vcpus[0]);
    cpu->pmpcfg[0] = 0x1f;
    cpu->pmpaddr[0] = ~0ull >> 10;
    cpu->pmp_used = 1;
    cpu->mtvec = RAM_BASE + HANDLER;
    cpu->satp = 8ull << 60 | (RAM_BASE + ROOT) >> 12;
    host = mem_ram_host(ram);
    write_code();
    put(ROOT, (RAM_BASE + ROOT + PAGE) >> 12 << 10 | V);
    put(ROOT + (CODE_VA >> 30) * 8, (RAM_BASE + ROOT + 2 * PAGE) >> 12 << 10 | V);
    put(ROOT + 2 * PAGE, (RAM_BASE + ROOT + 3 * PAGE) >> 12 << 10 | V);
    for (unsigned i = 0; i < MAX_PAGES / 512; i++) {
        put(ROOT + PAGE + ((LIST_VA >> 21) + i) * 8, (RAM_BASE + ROOT + (4 + i) * PAGE) >> 12 << 10 | V);
    }
    map(CODE_VA, CODE, R | X);
    map(TABLE_VA, ROOT + 4 * PAGE, R | W);
}

static void end(void)
{
    vm_free(vm);
    mem_free(ram);
    loop_free(loop);
}

static struct tcg_vcpu *vcpu(void)
{
    return vm->vcpus[0]->engine_data;
}

static void run(uint64_t pc)
{
    cpu->priv = RISCV_S;
    cpu->pc = pc;
    while (vm->engine->run(vm->vcpus[0]) != VCPU_EXIT_HALT) {
    }
    ck_assert_msg(cpu->mcause == 9, "cause %" PRIu64 " at %#" PRIx64 ", tval %#" PRIx64, cpu->mcause, cpu->mepc, cpu->mtval);
}

/* A permutation of the pages of RAM behind DATA. */
static void scatter(unsigned pages)
{
    static uint64_t all[(RAM_SIZE - DATA) / PAGE];
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        unsigned k = (unsigned)rnd(i + 1);
        all[i] = all[k];
        all[k] = DATA + i * PAGE;
    }
    n_pages = pages;
    for (unsigned i = 0; i < pages; i++) {
        place[i] = all[i];
        map(LIST_VA + i * PAGE, place[i], R | W);
    }
}

/* A ring through nodes at random places: some lie in two pages. */
static void make_list_of(unsigned per_page, bool straddling)
{
    n_nodes = 0;
    for (unsigned p = 0; p < n_pages; p++) {
        for (unsigned i = 0; i < per_page; i++) {
            uint64_t off = i * (PAGE / per_page) + rnd(PAGE / per_page - 48) / 8 * 8;
            bool both = straddling && i == per_page - 1 && p + 1 < n_pages && rnd(8) == 0;
            node[n_nodes++] = LIST_VA + p * PAGE + (both ? PAGE - 8 - rnd(2) * 8 : off + 24);
        }
    }
    for (unsigned i = 0; i < n_nodes; i++) {
        unsigned k = (unsigned)rnd(i + 1);
        uint64_t one = node[i];
        node[i] = node[k];
        node[k] = one;
    }
    for (unsigned i = 0; i < n_nodes; i++) {
        set(node[i], node[(i + 1) % n_nodes]);
        set(node[i] + 8, rnd(1u << 30));
    }
}

static void make_list(unsigned per_page)
{
    make_list_of(per_page, true);
}

/* Some hops by the hart, from where it stands, against the model: which goes first, for both store the same. */
static void hop(unsigned hops)
{
    uint64_t p = cpu->x[10], sum = cpu->x[12];
    for (unsigned i = 0; i < hops; i++) {
        sum += get(p + 8);
        p = get(p);
    }
    cpu->x[11] = hops;
    run(CODE_VA + LOOP);
    ck_assert_msg(cpu->x[10] == p && cpu->x[12] == sum, "at %#" PRIx64 " with %#" PRIx64 ", not %#" PRIx64 " with %#" PRIx64,
                  cpu->x[10], cpu->x[12], p, sum);
    /* The last sum is in the element before. */
    for (unsigned i = 0; i < n_nodes; i++) {
        if (get(node[i]) == p) {
            ck_assert_uint_eq(get(node[i] + 16), sum);
        }
    }
}

/* Another page for one of the list's, with the same elements but other values. */
static void exchange_page(void)
{
    unsigned i = (unsigned)rnd(n_pages), k = (unsigned)rnd(n_pages);
    uint64_t one = place[i];
    static uint8_t copy[PAGE];
    memcpy(copy, host + place[k], PAGE);
    memcpy(host + place[k], host + place[i], PAGE);
    memcpy(host + place[i], copy, PAGE);
    place[i] = place[k];
    place[k] = one;
    map(LIST_VA + i * PAGE, place[i], R | W);
    map(LIST_VA + k * PAGE, place[k], R | W);
    run(CODE_VA + FENCE);
}

static uint64_t plain(void)
{
    AUTO_BUF b = BUF_INIT;
    unsigned long long n = 0;
    const struct tcg_vm *t = vm->engine_data;
    tier2_stats((struct tcg_vm *)(uintptr_t)t, &b);
    const char *line = b.data ? strstr(b.data, "tier2_plain ") : NULL;
    return line && sscanf(line, "tier2_plain %llu", &n) == 1 ? n : 0;
}

static bool have_regions(void)
{
    return ((const struct tcg_vm *)vm->engine_data)->tier2 != NULL;
}

static bool can_show(void)
{
    uint8_t *room = mem_map_huge(PAGE);
    bool can = mem_range_show(mem_find(vm->mem, RAM_BASE), RAM_BASE, room);
    mem_unmap_huge(room, PAGE);
    return can;
}

static const enum tcg_backend backends[] = { TCG_JIT, TCG_INTERP };

START_TEST(lists_over_scattered_pages_are_walked_as_they_are)
{
    rng = test_seed();
    begin(backends[_i]);
    scatter(48);
    make_list(16);
    cpu->x[10] = node[0];
    cpu->x[12] = 0;
    for (unsigned round = 0; round < 400; round++) {
        hop(1 + (unsigned)rnd(backends[_i] == TCG_JIT ? 4000 : 400));
        if (rnd(4) == 0) {
            exchange_page();
        }
    }
    if (backends[_i] == TCG_JIT && have_regions()) {
        ck_assert_uint_gt(vcpu()->n_guess, 0);
        ck_assert(!can_show() || vcpu()->n_alias > 0);
    }
    end();
}
END_TEST

START_TEST(too_many_pages_end_the_guessing)
{
    rng = test_seed();
    begin(TCG_JIT);
    scatter(MAX_PAGES);
    make_list(4);
    cpu->x[10] = node[0];
    for (unsigned round = 0; round < 4000 && plain() == 0 && have_regions(); round++) {
        hop(20000);
    }
    ck_assert(!have_regions() || plain() > 0);
    uint64_t before = vcpu()->n_guess;
    for (unsigned round = 0; round < 40; round++) {
        hop(20000);
    }
    ck_assert(!have_regions() || vcpu()->n_guess - before < 40 * 20000 / 2);
    end();
}
END_TEST

/* Walks until few guesses are wrong: one in 32 is not looked at any more. */
static void walk_until_right(void)
{
    uint64_t wrong = UINT64_MAX;
    for (unsigned round = 0; round < 4000 && wrong > 2000; round++) {
        uint64_t before = vcpu()->n_guess;
        hop(20000);
        wrong = vcpu()->n_guess - before;
    }
    ck_assert_uint_le(wrong, 2000);
}

/* With random elements, half of the wrong guesses lead to pages that are shown already; what other lists had is in the way. */
START_TEST(lists_over_as_many_pages_as_can_be_shown_come_to_be_guessed_right)
{
    rng = test_seed();
    begin(TCG_JIT);
    for (unsigned round = 0; round < 2 && have_regions() && can_show(); round++) {
        scatter(200);
        make_list_of(4, false);
        run(CODE_VA + FENCE);
        cpu->x[10] = node[0];
        walk_until_right();
        ck_assert_uint_eq(plain(), 0);
        ck_assert_uint_ge(vcpu()->n_alias, (round + 1) * 150);
    }
    end();
}
END_TEST

/* A page with two sets of elements. */
START_TEST(a_page_exchanged_between_two_elements_is_not_remembered)
{
    rng = test_seed();
    begin(backends[_i]);
    scatter(40);
    for (unsigned round = 0; round < 60; round++) {
        unsigned hops = 2 * (1 + (unsigned)rnd(1000)), which = (unsigned)rnd(n_pages);
        uint64_t spare = SPARE, one = place[which], entry[2] = { leaf(spare, R | W), leaf(one, R | W) };
        make_list(16);
        memcpy(host + spare, host + one, PAGE);
        for (unsigned i = 0; i < n_nodes; i++) {
            if ((node[i] - LIST_VA) / PAGE == which && node[i] % PAGE <= PAGE - 24) {
                put(spare + node[i] % PAGE + 8, rnd(1u << 30)); /* the same ring, other values */
            }
        }
        uint64_t p = node[0], sum = 5, next;
        for (unsigned i = 0; i < hops; i++) {
            place[which] = i % 2 ? one : spare;
            next = get(p);
            sum = (sum + get(next + 16)) ^ get(next + 8);
            p = get(next);
        }
        place[which] = one;
        cpu->x[10] = node[0];
        cpu->x[11] = hops;
        cpu->x[12] = 5;
        cpu->x[13] = entry[0];
        cpu->x[27] = entry[0] ^ entry[1];
        cpu->x[16] = LIST_VA + which * PAGE;
        cpu->x[17] = TABLE_VA + which * 8;
        run(CODE_VA + EXCHANGE);
        ck_assert_msg(cpu->x[10] == p && cpu->x[12] == sum, "round %u: at %#" PRIx64 " with %#" PRIx64 ", not %#" PRIx64
                      " with %#" PRIx64, round, cpu->x[10], cpu->x[12], p, sum);
        map(LIST_VA + which * PAGE, one, R | W);
        run(CODE_VA + FENCE);
    }
    end();
}
END_TEST

/* Code in a page that is shown in a window: a store by way of the window ends its blocks. */
START_TEST(a_store_through_a_window_ends_code)
{
    static const uint32_t ecall = 0x73;
    rng = test_seed();
    begin(TCG_JIT);
    scatter(48);
    make_list(16);
    n_nodes = 0; /* the sums are not looked at: code overwrites some elements */
    map(ALSO_VA, place[0], R | X);
    run(CODE_VA + FENCE);
    for (unsigned round = 0; round < 50; round++) {
        n_pages = 48;
        make_list(15);
        cpu->x[10] = node[0];
        hop(20000);
        cpu->x[10] = LIST_VA + EXECUTE;
        cpu->x[11] = 0x00000693 | (uint32_t)round << 20; /* li a3, round */
        memcpy(at(LIST_VA + EXECUTE + 4), &ecall, 4);
        run(CODE_VA + STORE);
        run(ALSO_VA + EXECUTE);
        ck_assert_uint_eq(cpu->x[13], round);
    }
    end();
}
END_TEST

static Suite *suite_chase(void)
{
    Suite *s = suite_create("chase");
    TCase *c = tcase_create("lists");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, lists_over_scattered_pages_are_walked_as_they_are, 0, 2);
    tcase_add_test(c, too_many_pages_end_the_guessing);
    tcase_add_test(c, lists_over_as_many_pages_as_can_be_shown_come_to_be_guessed_right);
    tcase_add_loop_test(c, a_page_exchanged_between_two_elements_is_not_remembered, 0, 2);
    tcase_add_test(c, a_store_through_a_window_ends_code);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_chase, NULL);
}
