/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random page tables and accesses: what a hart with its TLBs does against a model of Sv39 that walks for each access.
 *
 * Memory exists twice, as the hart's and as the model's. Each step sets privilege, MPRV, SUM, MXR and address space at random and
 * has the hart run one access (any size, misaligned and across pages too); or changes an entry of a table in both memories and has
 * the hart run a fence that suffices for it. Value, exception and at intervals all of memory (so accessed and dirty bits too) must
 * be the same. Another test has an instruction across two code pages, each mapped anew at times. Addresses are few and conflict in a direct-mapped TLB. The model follows Privileged 1.12 §4.3 and §4.4, not mmu.c.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/internal.h"
#include "tests/lib/testing.h"

#include <inttypes.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (4u << 20)
#define DATA (2u << 20) /* where leaves lead */
#define HANDLER 0u
#define CODE 0x1000u
#define ROOTS 0x10000u /* a root, a table of level 1 and three of level 0, and the superpage's of level 1, for each space */
#define SPACE_TABLES 6u
#define SHARED (ROOTS + SPACES * SPACE_TABLES * PAGE) /* level 1 and 0 of the global half */
#define CODE_TABLES (SHARED + 4 * PAGE)
#define PAGE 0x1000u
#define SPACES 4u
#define SLOTS 16u /* entries of a table of level 0 that are used */
#define STEPS 100000

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
#define NAPOT (1ull << 63)

static const uint64_t low_slots[3] = { 0x10000000, 0x11000000, 0x12000000 }; /* 16 MiB apart */
#define SUPER 0x54000000ull    /* a superpage of 2 MiB, or none: far from the others, whose fences need not reach further */
#define GLOBAL 0xffffffc010000000ull
#define CODE_VA 0x80000000ull  /* one page for S, one for U */

static struct loop *loop;
static struct vm *vm;
static struct mem_region *ram;
static struct tcg_config config;
static struct riscv_cpu *cpu;
static uint8_t *host, *model;
static uint64_t rng;

static uint64_t rnd(uint64_t n)
{
    return (test_random(&rng) >> 16) % n;
}

/* ---- both memories ---- */

static uint64_t get64(const uint8_t *m, uint64_t off)
{
    uint64_t v;
    memcpy(&v, m + off, 8);
    return v;
}

static void put64(uint64_t off, uint64_t v)
{
    memcpy(host + off, &v, 8);
    memcpy(model + off, &v, 8);
}

static uint64_t pointer(uint64_t off)
{
    return (RAM_BASE + off) >> 12 << 10 | V;
}

/* ---- the model ---- */

struct view {
    unsigned space;
    unsigned priv; /* of data accesses; 3: no translation */
    bool sum, mxr;
};

enum kind { LOAD, STORE };

static bool allowed(uint64_t pte, const struct view *w, enum kind kind)
{
    if (pte & U ? w->priv == RISCV_S && !w->sum : w->priv == RISCV_U) {
        return false;
    }
    if (kind == STORE) {
        return pte & W;
    }
    return pte & R || (w->mxr && pte & X);
}

/* Offset in RAM of the byte at va, or -1: a page fault. Sets accessed and dirty bits. */
static int64_t model_walk(const struct view *w, uint64_t va, enum kind kind)
{
    uint64_t table = ROOTS + w->space * SPACE_TABLES * PAGE;
    if (w->priv == RISCV_M) {
        return (int64_t)(va - RAM_BASE);
    }
    if ((uint64_t)((int64_t)(va << 25) >> 25) != va) {
        return -1;
    }
    for (int level = 2; level >= 0; level--) {
        uint64_t at = table + (va >> (12 + 9 * level) & 511) * 8, pte = get64(model, at);
        uint64_t ppn = pte << 10 >> 20 & 0xfffffffffff, size = (uint64_t)PAGE << 9 * level;
        if (!(pte & V) || (pte & (R | W)) == W) {
            return -1;
        }
        if (!(pte & (R | X))) {
            table = (ppn << 12) - RAM_BASE;
            continue;
        }
        if (pte & NAPOT) {
            if (level || (ppn & 15) != 8) {
                return -1;
            }
            ppn -= 8;
            size = 16 * PAGE;
        }
        if ((ppn << 12) % size || !allowed(pte, w, kind)) {
            return -1;
        }
        pte |= A | (kind == STORE ? D : 0);
        memcpy(model + at, &pte, 8);
        return (int64_t)((ppn << 12) - RAM_BASE + va % size);
    }
    return -1;
}

struct outcome {
    bool fault;
    uint64_t tval, value;
};

static struct outcome model_access(const struct view *w, uint64_t va, unsigned size, enum kind kind, uint64_t value)
{
    struct outcome o = { .value = 0 };
    int64_t at[8];
    uint64_t upper = (va | (PAGE - 1)) + 1;
    int64_t low = model_walk(w, va, kind), high = 0;
    if (low < 0) {
        return (struct outcome){ .fault = true, .tval = va };
    }
    if (va + size > upper) {
        high = model_walk(w, upper, kind);
        if (high < 0) {
            return (struct outcome){ .fault = true, .tval = upper };
        }
    }
    for (unsigned i = 0; i < size; i++) {
        at[i] = va + i < upper ? low + i : high + (int64_t)(va + i - upper);
        o.value |= (uint64_t)model[at[i]] << 8 * i;
    }
    for (unsigned i = 0; kind == STORE && i < size; i++) {
        model[at[i]] = (uint8_t)(value >> 8 * i);
    }
    return o;
}

/* ---- the hart ---- */

/* Instructions, each followed by ecall: loads and stores of a1 at a0 by size, amoswap.d, fences with a0 and a1. */
static const uint32_t stubs[] = {
    0x00054583, 0x00055583, 0x00056583, 0x00053583, /* lbu lhu lwu ld a1, 0(a0) */
    0x00b50023, 0x00b51023, 0x00b52023, 0x00b53023, /* sb sh sw sd */
    0x08b535af,                                     /* amoswap.d a1, a1, (a0) */
    0x12000073, 0x12050073, 0x12b00073, 0x12b50073, /* sfence.vma: all; va; asid; va, asid */
};
enum { STUB_AMO = 8, FENCE_ALL, FENCE_VA, FENCE_ASID, FENCE_BOTH };

static void begin(enum tcg_backend backend)
{
    static const uint32_t wfi = 0x10500073, ecall = 0x00000073;
    struct err e = ERR_INIT;
    loop = loop_new(&e);
    config = (struct tcg_config){ .cache_size = 1u << 20, .backend = backend, .check = true };
    ck_assert_msg(vm_new("paging", &riscv64_arch, &tcg_engine_ops, loop, &config, &vm, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm->root, RAM_BASE, 0, ram, &e), 0);
    ck_assert_msg(vm_add_vcpus(vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(vm->mem);
    cpu = vm->vcpus[0]->cpu;
    vm->arch->cpu_reset(vm->vcpus[0]);
    cpu->pmpcfg[0] = 0x1f; /* everything, to everyone */
    cpu->pmpaddr[0] = ~0ull >> 10;
    cpu->pmp_used = 1;
    cpu->menvcfg |= MENVCFG_ADUE;
    cpu->mtvec = RAM_BASE + HANDLER;
    host = mem_ram_host(ram);
    model = calloc(1, RAM_SIZE);
    memcpy(host + HANDLER, &wfi, 4);
    for (unsigned i = 0; i < sizeof(stubs) / 4; i++) {
        memcpy(host + CODE + 8 * i, &stubs[i], 4);
        memcpy(host + CODE + 8 * i + 4, &ecall, 4);
    }
    for (unsigned i = DATA; i < RAM_SIZE; i += 8) {
        uint64_t v = test_random(&rng);
        memcpy(host + i, &v, 8);
    }
    memcpy(model, host, RAM_SIZE);
}

static void end(void)
{
    vm_free(vm);
    mem_free(ram);
    loop_free(loop);
    free(model);
}

/* Runs a stub in the current state until its ecall or fault is in the handler. */
static void run(unsigned stub, unsigned priv, uint64_t a0, uint64_t a1)
{
    static const uint64_t place[] = { [RISCV_U] = CODE_VA + PAGE, [RISCV_S] = CODE_VA, [RISCV_M] = RAM_BASE + CODE };
    cpu->priv = (uint8_t)priv;
    cpu->pc = place[priv] + 8 * stub;
    cpu->x[10] = a0;
    cpu->x[11] = a1;
    while (vm->engine->run(vm->vcpus[0]) != VCPU_EXIT_HALT) {
    }
}

static void fence(unsigned stub, uint64_t va, uint64_t asid)
{
    cpu->mstatus &= ~(MSTATUS_MPRV | MSTATUS_SUM | MSTATUS_MXR);
    run(stub, RISCV_M, va, asid);
    ck_assert_uint_eq(cpu->mcause, 11);
}

/* ---- tables ---- */

static uint64_t level0(unsigned space, unsigned k)
{
    return ROOTS + (space * SPACE_TABLES + 2 + k) * PAGE;
}

static void make_tables(void)
{
    uint64_t level1 = SHARED, leaves = SHARED + PAGE;
    for (unsigned s = 0; s < SPACES; s++) {
        uint64_t root = ROOTS + s * SPACE_TABLES * PAGE, l1 = root + PAGE;
        put64(root, pointer(l1));
        put64(root + (SUPER >> 30 & 511) * 8, pointer(root + 5 * PAGE));
        put64(root + (GLOBAL >> 30 & 511) * 8, pointer(level1));
        put64(root + (CODE_VA >> 30 & 511) * 8, pointer(CODE_TABLES));
        for (unsigned k = 0; k < 3; k++) {
            put64(l1 + (low_slots[k] >> 21 & 511) * 8, pointer(level0(s, k)));
        }
    }
    put64(level1 + (GLOBAL >> 21 & 511) * 8, pointer(leaves));
    put64(CODE_TABLES, pointer(CODE_TABLES + PAGE));
    put64(CODE_TABLES + PAGE, pointer(CODE) | X | A);
    put64(CODE_TABLES + PAGE + 8, pointer(CODE) | X | A | U);
}

static uint64_t random_leaf(uint64_t align, unsigned also)
{
    uint64_t place = DATA + rnd((RAM_SIZE - DATA) / align) * align;
    unsigned flags = (rnd(8) ? V : 0) | (rnd(6) ? R : 0) | (rnd(3) ? W : 0) | (rnd(3) ? 0 : X) | (rnd(2) ? U : 0) |
                     (rnd(2) ? A : 0) | (rnd(2) ? D : 0) | also;
    if (!(flags & (R | X))) {
        flags |= R; /* a pointer to somewhere is no leaf */
    }
    return (pointer(place) & ~(uint64_t)V) | flags;
}

/* Sixteen entries: each its own page, or one of 64 KiB. */
static void fill_slots(uint64_t table, unsigned also)
{
    bool napot = rnd(4) == 0;
    uint64_t one = (random_leaf(16 * PAGE, also) | 8ull << 10) | NAPOT;
    for (unsigned i = 0; i < SLOTS; i++) {
        put64(table + i * 8, napot ? one : random_leaf(PAGE, also));
    }
}

/* Changes something of a space and fences. asid: of the space. */
static void change(unsigned s)
{
    unsigned k = (unsigned)rnd(3), slot = (unsigned)rnd(SLOTS);
    uint64_t l1 = ROOTS + (s * SPACE_TABLES + 5) * PAGE, at = level0(s, k) + slot * 8;
    unsigned both = (unsigned)rnd(4);
    switch (rnd(8)) {
    case 0: /* all of a table */
        fill_slots(level0(s, k), 0);
        fence(rnd(2) ? FENCE_ALL : FENCE_ASID, 0, s);
        break;
    case 1: /* the superpage */
        put64(l1 + (SUPER >> 21 & 511) * 8, random_leaf(2u << 20, 0));
        fence(both ? FENCE_BOTH : FENCE_VA, SUPER + rnd(512) * PAGE, s);
        break;
    case 2: /* a global page */
        at = SHARED + PAGE + slot * 8;
        if (get64(model, at) & NAPOT) {
            fill_slots(SHARED + PAGE, G);
            fence(FENCE_ALL, 0, 0);
        } else {
            put64(at, random_leaf(PAGE, G));
            fence(both ? FENCE_VA : FENCE_ALL, GLOBAL + slot * PAGE, 0);
        }
        break;
    case 3: /* all of the global pages */
        fill_slots(SHARED + PAGE, G);
        fence(FENCE_ALL, 0, 0);
        break;
    default: /* one page, or one of 64 KiB */
        if (get64(model, at) & NAPOT) {
            for (unsigned i = 0; i < SLOTS; i++) {
                put64(level0(s, k) + i * 8, random_leaf(PAGE, 0));
            }
        } else {
            put64(at, random_leaf(PAGE, 0));
        }
        fence(FENCE_ALL + both, low_slots[k] + slot * PAGE, s);
    }
}

/* ---- a run ---- */

static uint64_t random_va(void)
{
    uint64_t in = rnd(4) ? rnd(PAGE / 8) * 8 : rnd(2) ? rnd(PAGE) : PAGE - 1 - rnd(8);
    unsigned which = (unsigned)rnd(6);
    if (which == 5) {
        return 0x40000000 + rnd(2) * PAGE; /* nothing there */
    }
    if (which == 4) {
        return SUPER + rnd(512) * PAGE + in;
    }
    return (which == 3 ? GLOBAL : low_slots[which]) + rnd(SLOTS) * PAGE + in;
}

static void set_view(const struct view *w, bool mprv)
{
    cpu->satp = 8ull << 60 | (uint64_t)w->space << 44 | (RAM_BASE + ROOTS + w->space * SPACE_TABLES * PAGE) >> 12;
    cpu->mstatus &= ~(MSTATUS_MPRV | MSTATUS_MPP | MSTATUS_SUM | MSTATUS_MXR | MSTATUS_MIE);
    cpu->mstatus |= (mprv ? MSTATUS_MPRV | (uint64_t)w->priv << 11 : 0) | (w->sum ? MSTATUS_SUM : 0) |
                    (w->mxr ? MSTATUS_MXR : 0);
}

/* A view of memory that goes on for some accesses, so that there is something to remember. */
static struct view random_view(unsigned *priv)
{
    static struct view w;
    static unsigned last;
    static bool mprv;
    if (rnd(16)) {
        *priv = last;
        set_view(&w, mprv);
        return w;
    }
    w = (struct view){ .space = (unsigned)rnd(SPACES), .sum = rnd(2), .mxr = rnd(2) };
    mprv = rnd(2);
    w.priv = (unsigned)rnd(2);
    *priv = last = mprv ? RISCV_M : w.priv;
    set_view(&w, mprv);
    return w;
}

static void access_once(unsigned step)
{
    unsigned priv, stub = (unsigned)rnd(9), size = stub == STUB_AMO ? 8 : 1u << (stub & 3);
    const struct view w = random_view(&priv);
    uint64_t va = random_va(), value = test_random(&rng);
    enum kind kind = stub >= 4 ? STORE : LOAD;
    if (stub == STUB_AMO) {
        va &= ~7ull;
    }
    struct outcome o = model_access(&w, va, size, kind, value);
    run(stub, priv, va, value);
    uint64_t want = o.fault ? (kind == STORE ? 15u : 13u) : 8 + priv;
    ck_assert_msg(cpu->mcause == want, "step %u: stub %u at %#" PRIx64 ": cause %" PRIu64 ", not %" PRIu64, step, stub, va,
                  cpu->mcause, want);
    ck_assert_msg(!o.fault || cpu->mtval == o.tval, "step %u: tval %#" PRIx64 ", not %#" PRIx64, step, cpu->mtval, o.tval);
    if (!o.fault && (kind == LOAD || stub == STUB_AMO)) {
        ck_assert_msg(cpu->x[11] == o.value, "step %u: stub %u at %#" PRIx64 " read %#" PRIx64 ", not %#" PRIx64, step, stub,
                      va, cpu->x[11], o.value);
    }
}

static const enum tcg_backend backends[] = { TCG_JIT, TCG_INTERP };

START_TEST(a_hart_with_tlbs_is_one_that_walks)
{
    rng = test_seed();
    begin(backends[_i]);
    make_tables();
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned k = 0; k < 3; k++) {
            fill_slots(level0(s, k), 0);
        }
    }
    fill_slots(SHARED + PAGE, G);
    fence(FENCE_ALL, 0, 0);
    for (unsigned step = 0; step < STEPS; step++) {
        if (rnd(40) == 0) {
            change((unsigned)rnd(SPACES));
        } else {
            access_once(step);
        }
        if (step % 1024 == 0) {
            ck_assert_msg(memcmp(host, model, RAM_SIZE) == 0, "step %u: memory or tables differ", step);
        }
    }
    const struct tcg_vcpu *v = vm->vcpus[0]->engine_data;
    ck_assert_uint_gt(v->n_tlb2_hit, 0);
    ck_assert_uint_gt(v->n_tlb_fill, 0);
    end();
}
END_TEST

/* ---- an instruction that lies in two pages ---- */

#define FIRST (low_slots[0] + 4 * PAGE)
#define FIRSTS 2u
#define SECONDS 3u

/* Ends a first page: c.addi a0, 1 + n; then half of addi a0, a0, 16 << m, whose other half begins a second page. */
static void make_halves(void)
{
    for (unsigned n = 0; n < FIRSTS; n++) {
        const uint16_t code[] = { (uint16_t)(0x0505 + (n << 2)), 0x0513 };
        memcpy(host + DATA + n * PAGE + PAGE - sizeof(code), code, sizeof(code));
    }
    for (unsigned m = 0; m < SECONDS; m++) {
        const uint16_t code[] = { (uint16_t)((16u << m) << 4 | 5), 0x0073, 0x0000 }; /* then ecall */
        memcpy(host + DATA + (FIRSTS + m) * PAGE, code, sizeof(code));
    }
    memcpy(model, host, RAM_SIZE);
}

START_TEST(an_instruction_in_two_pages_follows_both)
{
    unsigned first[SPACES] = { 0 }, second[SPACES] = { 0 };
    rng = test_seed();
    begin(backends[_i]);
    make_tables();
    make_halves();
    for (unsigned step = 0; step < 20000; step++) {
        unsigned s = (unsigned)rnd(2), which = (unsigned)rnd(2);
        if (step < 2 || rnd(16) == 0) { /* one of the two pages, and a fence for this one alone */
            s = step < 2 ? step : s;
            first[s] = which ? first[s] : (unsigned)rnd(FIRSTS);
            second[s] = which ? (unsigned)rnd(SECONDS) : second[s];
            put64(level0(s, 0) + 4 * 8, pointer(DATA + first[s] * PAGE) | X | A);
            put64(level0(s, 0) + 5 * 8, pointer(DATA + (FIRSTS + second[s]) * PAGE) | X | A);
            fence(step < 2 ? FENCE_ALL : rnd(2) ? FENCE_VA : FENCE_BOTH, FIRST + which * PAGE, s);
        }
        set_view(&(struct view){ .space = s }, false);
        cpu->priv = RISCV_S;
        cpu->pc = FIRST + PAGE - 4;
        cpu->x[10] = 0;
        while (vm->engine->run(vm->vcpus[0]) != VCPU_EXIT_HALT) {
        }
        ck_assert_uint_eq(cpu->mcause, 9);
        ck_assert_msg(cpu->x[10] == 1 + first[s] + (16u << second[s]), "step %u: space %u, pages %u and %u: %#" PRIx64, step, s,
                      first[s], second[s], cpu->x[10]);
    }
    const struct tcg_vcpu *v = vm->vcpus[0]->engine_data;
    ck_assert_uint_gt(v->n_jump_hit, 0);
    end();
}
END_TEST

static Suite *suite_paging(void)
{
    Suite *s = suite_create("paging");
    TCase *c = tcase_create("random");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, a_hart_with_tlbs_is_one_that_walks, 0, 2);
    tcase_add_loop_test(c, an_instruction_in_two_pages_follows_both, 0, 2);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_paging, NULL);
}
