/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random blocks run by the host back end and by the IR interpreter must give the same registers and memory.
 *
 *   jit_vs_interp [--seed N] [--from N] [--count N] [--xlen 32|64] [--tier2] [--loops] [--show]
 *
 * --tier2 has all code go through the second tier at once; --loops makes nested loops with side exits, faults in
 * the middle, floating point and stores that modify the code, interrupted all the time.
 *
 * Each case is a short random program in a fresh state; two VMs that share nothing run it until it traps, and everything
 * architectural is compared. A case that loops for ever is cut by a timer and not
 * compared; more than a tenth of those is a failure. The last line counts; a failing
 * case is printed with the command that repeats it alone.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/log.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/tcg.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (1u << 17)
#define CODE (RAM_BASE + 0x4000)
#define DATA (RAM_BASE + 0x8000) /* 64 KiB that registers point into */
#define SPLIT 0xb000u /* within DATA: from here on RAM is another piece of the host's memory */
#define HANDLER (RAM_BASE + 0x100)
#define STOP_IO 0x200ull /* a store here ends the case */

static struct vcpu *running;
static volatile sig_atomic_t cut;
static bool ended; /* the case stored to STOP_IO */

static uint64_t state;
static uint64_t rnd(void *opaque)
{
    (void)opaque;
    state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static volatile sig_atomic_t ticks; /* until the case is cut */

static void on_alarm(int signo)
{
    (void)signo;
    if (running && --ticks > 0) {
        running->vm->engine->irq(running); /* polls leave, and come back */
        return;
    }
    cut = 1;
    if (running) {
        running->vm->engine->kick(running);
    }
}

static uint64_t stop_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)size;
    return 0;
}

static void stop_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vm *vm = opaque;
    (void)offset;
    (void)value;
    (void)size;
    /* A program's own store there is not the end: where it would be stopped is left open. */
    if (((const struct riscv_cpu *)vm->vcpus[0]->cpu)->mcause != 0) {
        ended = true;
        vm->engine->kick(vm->vcpus[0]);
    }
}

static const struct mem_io_ops stop_ops = { stop_read, stop_write, 1, 8 };

static void die(const struct err *e)
{
    fprintf(stderr, "jit_vs_interp: %s\n", e->msg);
    exit(1);
}

struct machine {
    struct vm *vm;
    struct mem_region *ram, *high, *stop;
    struct bus_lock lock;
    struct tcg_config config;
    struct riscv_cpu *cpu;
};

static void make(struct machine *m, enum tcg_backend backend, enum tcg_tier2 tier2, unsigned xlen,
                 struct loop *loop)
{
    struct err e = ERR_INIT;
    m->config = (struct tcg_config){ .cache_size = 1u << 20, .backend = backend, .check = true,
                                     .tier2 = tier2 };
    bus_lock_init(&m->lock);
    m->stop = NULL;
    if (vm_new("case", xlen == 64 ? &riscv64_arch : &riscv32_arch, &tcg_engine_ops, loop,
               &m->config, &m->vm, &e) < 0 ||
        vm_add_vcpus(m->vm, 1, "max", &e) < 0 || mem_new_ram("ram", SPLIT, &m->ram, &e) < 0 ||
        mem_map(m->vm->root, RAM_BASE, 0, m->ram, &e) < 0 ||
        mem_new_ram("high", RAM_SIZE - SPLIT, &m->high, &e) < 0 ||
        mem_map(m->vm->root, RAM_BASE + SPLIT, 0, m->high, &e) < 0 ||
        !(m->stop = mem_new_io("stop", 0x1000, &stop_ops, m->vm, &m->lock)) ||
        mem_map(m->vm->root, 0, 0, m->stop, &e) < 0) {
        die(&e);
    }
    mem_commit(m->vm->mem);
    m->cpu = m->vm->vcpus[0]->cpu;
}

static void unmake(struct machine *m)
{
    vm_free(m->vm);
    mem_free(m->ram);
    mem_free(m->high);
    mem_free(m->stop);
}

static bool accept(void *opaque, const struct isa_insn *insn)
{
    (void)opaque;
    static const char *const no[] = { "wfi", "mret", "sret", "csrrw", "csrrwi", "csrrs", "csrrsi", "csrrc",
                                      "csrrci", "sfence.vma" };
    for (unsigned i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        if (strcmp(insn->name, no[i]) == 0) {
            return false;
        }
    }
    return true;
}

static uint64_t random_value(void)
{
    uint64_t r = rnd(NULL);
    switch (r & 15) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return 1ull << (r >> 8 & 63);
    case 3:
        return (uint64_t)(int64_t)(int32_t)(r >> 16);
    case 4:
        return rnd(NULL);
    case 5:
        return r >> 8 & 0xff;
    case 6:
        return 0xffffffff00000000ull | rnd(NULL); /* a boxed single */
    default:
        return DATA + (r >> 8 & 0xffff & ~(r >> 40 & 1 ? 0ull : 7ull)); /* mostly aligned pointers */
    }
}

/* Mostly numbers near one another, so that sums and products stay finite; every kind of odd one too. */
static uint64_t random_float(void)
{
    uint64_t r = rnd(NULL), s = rnd(NULL);
    switch (r & 15) {
    case 0:
        return random_value();
    case 1:
        return s & 0x800fffffffffffff; /* tiny double */
    case 2:
        return 0xffffffff00000000 | (s & 0x807fffff);
    case 3:
        return (s & 0x8000000000000000) | 0x7fe0000000000000 | (r >> 8 & 0x1fffffffffffff);
    case 4:
        return 0xffffffff7f000000 | (s & 0x80ffffff);
    case 5:
        return (s & 0x803fffffffffffff) | 0x0010000000000000; /* around the smallest normal */
    case 6:
        return 0xffffffff00000000 | (s & 0x81ffffff);
    case 7:
    case 8:
    case 9:
        return 0xffffffff00000000 | (s & 0x83ffffff) | 0x3c000000;
    default:
        return (s & 0x801fffffffffffff) | 0x3fe0000000000000;
    }
}

struct program {
    uint8_t bytes[1024];
    unsigned n;
    bool user;     /* runs in user mode */
    unsigned slot; /* offset of the instruction that the program itself changes */
    uint64_t x[32], f[32];
    uint8_t frm, fflags;
    uint64_t data_seed;
};

static void put32(struct program *p, uint32_t bits)
{
    memcpy(p->bytes + p->n, &bits, 4);
    p->n += 4;
}

/* What chance alone does not make: a store-conditional that may succeed, an atomic whose result nobody wants. */
static void put_atomic(struct program *p, unsigned xlen)
{
    uint64_t r = rnd(NULL);
    uint32_t rs1 = 1 + r % 31, rd = (uint32_t)(r >> 8) % 32, rs2 = (uint32_t)(r >> 16) % 32;
    uint32_t size = xlen == 64 ? 2 + (r >> 24 & 1) : 2, order = (r >> 25 & 3) << 25;
    uint32_t common = 0x2f | size << 12 | rs1 << 15 | order;
    if (r >> 32 & 1) {
        static const uint8_t kinds[] = { 0, 1, 4, 8, 12, 16, 20, 24, 28 };
        put32(p, common | rs2 << 20 | (uint32_t)kinds[(r >> 40) % sizeof(kinds)] << 27);
        return;
    }
    put32(p, common | (rd == rs1 ? 0 : rd) << 7 | 2u << 27); /* lr */
    if (r >> 33 & 1) {
        put32(p, 0x00128293 ^ (uint32_t)(r >> 44 & 0xf) << 20); /* addi t0, t0, n */
    }
    if ((r >> 34 & 7) == 0) {
        size ^= xlen == 64; /* of the other width */
        common = 0x2f | size << 12 | rs1 << 15 | order;
    }
    put32(p, common | (uint32_t)(r >> 50 & 31) << 7 | rs2 << 20 | 3u << 27); /* sc */
    if ((r >> 56 & 3) == 0) { /* fails: the reservation is used up */
        put32(p, common | (uint32_t)(r >> 58 & 31) << 7 | rs1 << 20 | 3u << 27);
    }
}

static void make_program(struct program *p, isa_features features, unsigned xlen)
{
    struct isa_pick pick = { .features = features, .rng = rnd, .accept = accept };
    unsigned insns = 4 + rnd(NULL) % 28;
    p->n = 0;
    for (unsigned i = 0; i < insns; i++) {
        uint64_t bits;
        if (rnd(NULL) % 16 == 0) {
            put_atomic(p, xlen);
        }
        isa_random(&riscv_isa, &pick, &bits);
        unsigned len = riscv_isa.length(bits);
        memcpy(p->bytes + p->n, &bits, len);
        p->n += len;
    }
    memcpy(p->bytes + p->n, "\x73\x00\x00\x00", 4); /* ecall */
    p->n += 4;
    for (unsigned i = 0; i < 32; i++) {
        p->x[i] = i ? random_value() : 0;
        p->f[i] = random_float();
    }
    p->frm = (uint8_t)(rnd(NULL) % 10 < 5 ? rnd(NULL) % 5 : 0);
    p->fflags = (uint8_t)(rnd(NULL) % 2 ? rnd(NULL) % 32 | 1 : 0); /* "inexact" set is the fast way */
    p->data_seed = rnd(NULL);
}

/* ---- nested loops ---- */

/* Registers with a job: pointers to data, the patch, its address, the counters. */
enum { BASE0 = 8, BASE1 = 9, FLIP = 22, PATCH = 23, SLOT = 24, OUTER = 26, INNER = 27 };
#define RESERVED (1u << BASE0 | 1u << BASE1 | 1u << FLIP | 1u << PATCH | 1u << SLOT | 1u << OUTER | 1u << INNER)

static bool accept_in_loop(void *opaque, const struct isa_insn *insn)
{
    static const char *const no[] = { "jal", "jalr", "c.j", "c.jal", "c.jr", "c.jalr", "beq", "bne", "blt", "bge", "bltu",
                                      "bgeu", "c.beqz", "c.bnez", "ecall", "ebreak", "c.ebreak", "c.addi16sp" };
    for (unsigned i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        if (strcmp(insn->name, no[i]) == 0) {
            return false;
        }
    }
    bool is_float = strchr(insn->name, 'f') != NULL && strncmp(insn->name, "fence", 5) != 0;
    return accept(opaque, insn) && (is_float || rnd(NULL) % 3 == 0);
}

/* Results stay away from the reserved registers, addresses are mostly good ones. */
static bool choose_in_loop(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                           int64_t *value)
{
    (void)opaque;
    const struct isa_field *f = arg->field;
    if (f->kind != ISA_NAMES || strcmp(f->names->name, "gpr") != 0 || f->seg_count == 0) {
        return false;
    }
    if (strcmp(arg->name, "rs1") == 0 && strstr(insn->format->syntax, "(rs1)") && rnd(NULL) % 64) {
        *value = rnd(NULL) % 2 ? BASE0 : BASE1;
        return true;
    }
    if (strcmp(arg->name, "rd") == 0) {
        do {
            *value = isa_field_get(f, rnd(NULL));
        } while (1u << *value & RESERVED);
        return true;
    }
    return false;
}

static uint32_t branch_bits(unsigned kind, unsigned rs1, unsigned rs2, int off)
{
    static const uint8_t funct3[] = { 0, 1, 4, 5, 6, 7 };
    uint32_t o = (uint32_t)off;
    return 0x63 | (uint32_t)funct3[kind % 6] << 12 | rs1 << 15 | rs2 << 20 | (o >> 12 & 1) << 31 |
           (o >> 5 & 0x3f) << 25 | (o >> 1 & 0xf) << 8 | (o >> 11 & 1) << 7;
}

static void put_any(struct program *p, const struct isa_pick *pick)
{
    uint64_t bits;
    if (isa_random(&riscv_isa, pick, &bits)) {
        unsigned len = riscv_isa.length(bits);
        memcpy(p->bytes + p->n, &bits, len);
        p->n += len;
    }
}

/* A branch over some instructions, a walk along an array, rarely a change of the code, mostly one instruction. */
static void put_item(struct program *p, const struct isa_pick *pick)
{
    uint64_t r = rnd(NULL);
    if (r % 12 == 0) {
        unsigned at = p->n, over = 1 + (r >> 8) % 3;
        p->n += 4;
        while (over--) {
            put_any(p, pick);
        }
        uint32_t bits = branch_bits(r >> 16 & 7, r >> 24 & 31, r >> 32 & 31, (int)(p->n - at));
        memcpy(p->bytes + at, &bits, 4);
    } else if (r % 10 == 3) { /* addi base, base, a small step: loads and a store off it around the step */
        unsigned base = r >> 8 & 1 ? BASE0 : BASE1, step = 4 + (unsigned)(r >> 16 & 7) * 4, f = r >> 24 & 31;
        put32(p, 0x07 | 3 << 12 | f << 7 | base << 15 | (unsigned)(r >> 32 & 31) << 20);         /* fld f, 0..31(base) */
        put32(p, 0x13 | base << 7 | base << 15 | step << 20);
        put32(p, 0x07 | 2 << 12 | (f ^ 1) << 7 | base << 15 | (unsigned)(r >> 40 & 31) << 20);   /* flw */
        put32(p, 0x27 | 3 << 12 | (unsigned)(r >> 48 & 31) << 7 | base << 15 | f << 20);         /* fsd */
    } else if (r % 40 == 1) {
        put32(p, 0x33 | PATCH << 7 | 4 << 12 | PATCH << 15 | FLIP << 20); /* xor patch, patch, flip */
        put32(p, 0x23 | 2 << 12 | SLOT << 15 | PATCH << 20);              /* sw patch, 0(slot) */
        put32(p, 0x0000100f);                                             /* fence.i */
    } else {
        put_any(p, pick);
    }
}

static void put_items(struct program *p, const struct isa_pick *pick, unsigned n)
{
    while (n--) {
        put_item(p, pick);
    }
}

static void put_count_down(struct program *p, unsigned reg, unsigned to)
{
    put32(p, 0x13 | reg << 7 | reg << 15 | 0xfffu << 20); /* addi reg, reg, -1 */
    put32(p, branch_bits(1, reg, 0, (int)to - (int)p->n));
}

static void make_loops(struct program *p, isa_features features)
{
    struct isa_pick pick = { .features = features & (RISCV_ISA_I | RISCV_ISA_M | RISCV_ISA_F | RISCV_ISA_D |
                                                     RISCV_ISA_C | RISCV_ISA_ZBA | RISCV_ISA_ZBB | RISCV_ISA_ZBS |
                                                     RISCV_ISA_RV64 | RISCV_ISA_RV32 | RISCV_ISA_ZICSR),
                             .rng = rnd, .accept = accept_in_loop, .choose = choose_in_loop };
    p->n = 0;
    p->user = rnd(NULL) % 8 != 0;
    put_items(p, &pick, rnd(NULL) % 4);
    unsigned outer = p->n;
    put_items(p, &pick, rnd(NULL) % 6);
    put32(p, 0x13 | INNER << 7 | (1 + (uint32_t)(rnd(NULL) % 9)) << 20); /* li inner, n */
    unsigned inner = p->n;
    put_items(p, &pick, 1 + rnd(NULL) % 8);
    p->slot = p->n;
    put32(p, 0x00150513); /* addi a0, a0, 1, or what it is changed to */
    put_items(p, &pick, rnd(NULL) % 8);
    put_count_down(p, INNER, inner);
    put_items(p, &pick, rnd(NULL) % 4);
    put_count_down(p, OUTER, outer);
    put32(p, 0x00000073); /* ecall */
    for (unsigned i = 0; i < 32; i++) {
        p->x[i] = i ? random_value() : 0;
        p->f[i] = random_float();
    }
    p->x[BASE0] = DATA + 0x2000 + rnd(NULL) % 0x2000;
    p->x[BASE1] = DATA + 0x3000 - (rnd(NULL) % 64) * 8;
    p->x[PATCH] = 0x00150513;
    p->x[FLIP] = 0x00100000u << rnd(NULL) % 11; /* a bit of the immediate */
    p->x[OUTER] = 1 + rnd(NULL) % 5;
    p->frm = 0;
    p->fflags = (uint8_t)(rnd(NULL) % 4 ? 0 : rnd(NULL) % 32);
    p->data_seed = rnd(NULL);
}

/* Everything is allowed by one PMP entry. */
static void enter_user_mode(struct riscv_cpu *c)
{
    c->priv = RISCV_U;
    c->pmpaddr[0] = UINT64_MAX >> 10;
    c->pmpcfg[0] = 0x1f;
    c->pmp_used = 1;
}

static uint8_t *ram_at(const struct machine *m, unsigned offset)
{
    return offset < SPLIT ? mem_ram_host(m->ram) + offset : mem_ram_host(m->high) + (offset - SPLIT);
}

static void load(struct machine *m, const struct program *p, unsigned xlen, unsigned start)
{
    static const uint32_t handler[] = { 0x20000023, 0x0000006f }; /* sb x0, 0x200(x0); j . */
    struct riscv_cpu *c = m->cpu;
    uint8_t *ram = mem_ram_host(m->ram);
    m->vm->arch->cpu_reset(m->vm->vcpus[0]);
    memset(ram, 0, SPLIT);
    memset(ram_at(m, SPLIT), 0, RAM_SIZE - SPLIT);
    uint64_t s = p->data_seed;
    for (unsigned i = 0; i < 0x10000; i += 8) {
        s = s * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(ram_at(m, (unsigned)(DATA - RAM_BASE) + i), &s, 8);
    }
    memcpy(ram + (HANDLER - RAM_BASE), handler, sizeof(handler));
    memcpy(ram + (CODE - RAM_BASE) + start, p->bytes, p->n);
    mem_written(m->vm->mem, RAM_BASE, RAM_SIZE);
    memcpy(c->x, p->x, sizeof(c->x));
    memcpy(c->f, p->f, sizeof(c->f));
    for (unsigned i = 0; xlen == 32 && i < 32; i++) {
        c->x[i] = (uint64_t)(int64_t)(int32_t)c->x[i];
    }
    c->frm = p->frm;
    c->fflags = p->fflags;
    c->mstatus |= MSTATUS_FS;
    c->mtvec = HANDLER;
    c->pc = CODE + start;
    if (p->slot) {
        c->x[SLOT] = (uint64_t)(xlen == 64 ? (int64_t)(CODE + start + p->slot)
                                           : (int32_t)(CODE + start + p->slot));
    }
    if (p->user) {
        enter_user_mode(c);
    }
    m->vm->engine->regs_put(m->vm->vcpus[0]);
}

static bool run(struct machine *m, bool often)
{
    struct itimerval t = { .it_value = { 0, 100 }, .it_interval = { 0, 100 } }, off = { 0 };
    struct itimerval once = { .it_value = { 0, 50000 } };
    cut = 0;
    ticks = often ? 500 : 1;
    running = m->vm->vcpus[0];
    setitimer(ITIMER_REAL, often ? &t : &once, NULL);
    ended = false;
    while (!ended && !cut) { /* a late alarm of the case before may end the first try */
        m->vm->engine->run(m->vm->vcpus[0]);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    running = NULL;
    return ended;
}

static bool same(const char *what, unsigned n, uint64_t a, uint64_t b)
{
    if (a != b) {
        printf("  %s%u: jit %016" PRIx64 ", interpreter %016" PRIx64 "\n", what, n, a, b);
    }
    return a == b;
}

static bool compare(struct machine *j, struct machine *i)
{
    const struct riscv_cpu *a = j->cpu, *b = i->cpu;
    bool ok = true;
    for (unsigned n = 0; n < 32; n++) {
        ok &= same("x", n, a->x[n], b->x[n]);
        ok &= same("f", n, a->f[n], b->f[n]);
    }
    ok &= same("mepc", 0, a->mepc, b->mepc);
    ok &= same("mcause", 0, a->mcause, b->mcause);
    ok &= same("mtval", 0, a->mtval, b->mtval);
    ok &= same("fflags", 0, a->fflags, b->fflags);
    ok &= same("mstatus", 0, a->mstatus, b->mstatus);
    for (unsigned at = 0; at < RAM_SIZE; at++) {
        if (*ram_at(j, at) != *ram_at(i, at)) {
            printf("  memory differs first at %" PRIx64 "\n", (uint64_t)(RAM_BASE + at));
            return false;
        }
    }
    return ok;
}

static void show(const struct program *p, unsigned start, isa_features features, unsigned xlen)
{
    for (unsigned i = 0; i < p->n;) {
        char text[96];
        uint64_t bits = 0;
        memcpy(&bits, p->bytes + i, p->n - i < 4 ? p->n - i : 4);
        unsigned len = isa_disas(&riscv_isa, CODE + start + i, bits, features, xlen, text, sizeof(text));
        printf("  %" PRIx64 ": %s\n", CODE + start + i, text);
        i += len;
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, from = 0, count = 1000, xlen = 64;
    bool verbose = false, tier2 = false, loops_only = false;
    for (int i = 1; i < argc; i++) {
        uint64_t *to = strcmp(argv[i], "--seed") == 0    ? &seed
                       : strcmp(argv[i], "--from") == 0  ? &from
                       : strcmp(argv[i], "--count") == 0 ? &count
                       : strcmp(argv[i], "--xlen") == 0  ? &xlen
                                                         : NULL;
        if (to && i + 1 < argc) {
            *to = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--tier2") == 0) {
            tier2 = true;
        } else if (strcmp(argv[i], "--loops") == 0) {
            loops_only = true;
        } else {
            verbose = true;
        }
    }
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct machine jit, interp;
    uint64_t passed = 0, failed = 0, loops = 0;
    log_init("jit_vs_interp", LOG_DEBUG, 2);
    if (verbose) {
        log_set_trace("ioeh2");
    }
    signal(SIGALRM, on_alarm);
    make(&jit, TCG_JIT, tier2 ? TCG_TIER2_FORCE : TCG_TIER2_OFF, (unsigned)xlen, loop);
    make(&interp, TCG_INTERP, TCG_TIER2_OFF, (unsigned)xlen, loop);
    isa_features features = riscv_isa_of(jit.cpu);
    printf("seed %" PRIu64 ", cases %" PRIu64 " to %" PRIu64 ", RV%" PRIu64 "\n", seed, from,
           from + count - 1, xlen);
    for (uint64_t n = from; n < from + count; n++) {
        struct program p;
        state = seed * 0x100000001b3ull ^ n * 0x9e3779b97f4a7c15ull;
        p.user = false;
        p.slot = 0;
        if (loops_only) {
            make_loops(&p, features);
        } else {
            make_program(&p, features, (unsigned)xlen);
        }
        /* One case in four lies across a page's end. */
        unsigned start = rnd(NULL) % 4 ? 0 : 4096 - (unsigned)(rnd(NULL) % p.n & ~1ull);
        load(&jit, &p, (unsigned)xlen, start);
        load(&interp, &p, (unsigned)xlen, start);
        if (verbose) {
            show(&p, start, features, (unsigned)xlen);
            fflush(stdout);
        }
        if (!run(&jit, loops_only) || !run(&interp, false)) {
            loops++;
            continue;
        }
        if (compare(&jit, &interp)) {
            passed++;
        } else {
            failed++;
            show(&p, start, features, (unsigned)xlen);
            printf("repeat: jit_vs_interp --seed %" PRIu64 " --from %" PRIu64 " --count 1 --xlen %" PRIu64 "%s%s\n", seed, n,
                   xlen, tier2 ? " --tier2" : "", loops_only ? " --loops" : "");
        }
    }
    unmake(&jit);
    unmake(&interp);
    loop_free(loop);
    printf("%" PRIu64 " alike, %" PRIu64 " different, %" PRIu64 " endless and cut\n", passed, failed, loops);
    return failed != 0 || loops > count / 10;
}
