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
#include "tests/isa/twins.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define RAM_SIZE (1u << 17)
#define SPLIT 0xb000u /* within TWIN_DATA: from here on RAM is another piece of the host's memory */

static struct vcpu *running;
static volatile sig_atomic_t cut;

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

static void make(struct twin *m, enum tcg_backend backend, enum tcg_tier2 tier2, unsigned xlen,
                 struct loop *loop)
{
    const struct tcg_config config = { .cache_size = 1u << 20, .backend = backend, .check = true,
                                       .tier2 = tier2, .warm = 2,
                                       .no_compact = tier2 == TCG_TIER2_FORCE };
    twin_make(m, xlen == 64 ? &riscv64_arch : &riscv32_arch, "max", &config, SPLIT, RAM_SIZE, loop);
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
    uint64_t r = twin_random(NULL);
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
        return twin_random(NULL);
    case 5:
        return r >> 8 & 0xff;
    case 6:
        return 0xffffffff00000000ull | twin_random(NULL); /* a boxed single */
    default:
        return TWIN_DATA + (r >> 8 & 0xffff & ~(r >> 40 & 1 ? 0ull : 7ull)); /* mostly aligned pointers */
    }
}

/* Mostly numbers near one another, so that sums and products stay finite; every kind of odd one too. */
static uint64_t random_float(void)
{
    uint64_t r = twin_random(NULL), s = twin_random(NULL);
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
    uint64_t r = twin_random(NULL);
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
    struct isa_pick pick = { .features = features, .rng = twin_random, .accept = accept };
    unsigned insns = 4 + twin_random(NULL) % 28;
    p->n = 0;
    for (unsigned i = 0; i < insns; i++) {
        uint64_t bits;
        if (twin_random(NULL) % 16 == 0) {
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
    p->frm = (uint8_t)(twin_random(NULL) % 10 < 5 ? twin_random(NULL) % 5 : 0);
    p->fflags = (uint8_t)(twin_random(NULL) % 2 ? twin_random(NULL) % 32 | 1 : 0); /* "inexact" set is the fast way */
    p->data_seed = twin_random(NULL);
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
    return accept(opaque, insn) && (is_float || twin_random(NULL) % 3 == 0);
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
    if (strcmp(arg->name, "rs1") == 0 && strstr(insn->format->syntax, "(rs1)") && twin_random(NULL) % 64) {
        *value = twin_random(NULL) % 2 ? BASE0 : BASE1;
        return true;
    }
    if (strcmp(arg->name, "rd") == 0) {
        do {
            *value = isa_field_get(f, twin_random(NULL));
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
    uint64_t r = twin_random(NULL);
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
                             .rng = twin_random, .accept = accept_in_loop, .choose = choose_in_loop };
    p->n = 0;
    p->user = twin_random(NULL) % 8 != 0;
    put_items(p, &pick, twin_random(NULL) % 4);
    unsigned outer = p->n;
    put_items(p, &pick, twin_random(NULL) % 6);
    put32(p, 0x13 | INNER << 7 | (1 + (uint32_t)(twin_random(NULL) % 9)) << 20); /* li inner, n */
    unsigned inner = p->n;
    put_items(p, &pick, 1 + twin_random(NULL) % 8);
    p->slot = p->n;
    put32(p, 0x00150513); /* addi a0, a0, 1, or what it is changed to */
    put_items(p, &pick, twin_random(NULL) % 8);
    put_count_down(p, INNER, inner);
    put_items(p, &pick, twin_random(NULL) % 4);
    put_count_down(p, OUTER, outer);
    put32(p, 0x00000073); /* ecall */
    for (unsigned i = 0; i < 32; i++) {
        p->x[i] = i ? random_value() : 0;
        p->f[i] = random_float();
    }
    p->x[BASE0] = TWIN_DATA + 0x2000 + twin_random(NULL) % 0x2000;
    p->x[BASE1] = TWIN_DATA + 0x3000 - (twin_random(NULL) % 64) * 8;
    p->x[PATCH] = 0x00150513;
    p->x[FLIP] = 0x00100000u << twin_random(NULL) % 11; /* a bit of the immediate */
    p->x[OUTER] = 1 + twin_random(NULL) % 5;
    p->frm = 0;
    p->fflags = (uint8_t)(twin_random(NULL) % 4 ? 0 : twin_random(NULL) % 32);
    p->data_seed = twin_random(NULL);
}

/* Everything is allowed by one PMP entry. */
static void enter_user_mode(struct riscv_cpu *c)
{
    c->priv = RISCV_U;
    c->pmpaddr[0] = UINT64_MAX >> 10;
    c->pmpcfg[0] = 0x1f;
    c->pmp_used = 1;
}

static void load(struct twin *m, const struct program *p, unsigned xlen, unsigned start)
{
    struct riscv_cpu *c = m->cpu;
    m->vm->arch->cpu_reset(m->vm->vcpus[0]);
    memset(twin_ram(m, 0), 0, SPLIT);
    memset(twin_ram(m, SPLIT), 0, RAM_SIZE - SPLIT);
    uint64_t s = p->data_seed;
    for (unsigned i = 0; i < 0x10000; i += 8) {
        s = s * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(twin_ram(m, (unsigned)(TWIN_DATA - TWIN_RAM) + i), &s, 8);
    }
    twin_put_handler(m);
    memcpy(twin_ram(m, (unsigned)(TWIN_CODE - TWIN_RAM) + start), p->bytes, p->n);
    mem_written(m->vm->mem, TWIN_RAM, RAM_SIZE);
    memcpy(c->x, p->x, sizeof(c->x));
    memcpy(c->f, p->f, sizeof(c->f));
    for (unsigned i = 0; xlen == 32 && i < 32; i++) {
        c->x[i] = (uint64_t)(int64_t)(int32_t)c->x[i];
    }
    c->frm = p->frm;
    c->fflags = p->fflags;
    c->mstatus |= MSTATUS_FS;
    c->mtvec = TWIN_HANDLER;
    c->pc = TWIN_CODE + start;
    if (p->slot) {
        c->x[SLOT] = (uint64_t)(xlen == 64 ? (int64_t)(TWIN_CODE + start + p->slot)
                                           : (int32_t)(TWIN_CODE + start + p->slot));
    }
    if (p->user) {
        enter_user_mode(c);
    }
    m->vm->engine->regs_put(m->vm->vcpus[0]);
}

static bool run(struct twin *m, bool often)
{
    struct itimerval t = { .it_value = { 0, 100 }, .it_interval = { 0, 100 } }, off = { 0 };
    struct itimerval once = { .it_value = { 0, 50000 } };
    cut = 0;
    ticks = often ? 500 : 1;
    running = m->vm->vcpus[0];
    setitimer(ITIMER_REAL, often ? &t : &once, NULL);
    m->ended = false;
    while (!m->ended && !cut) { /* a late alarm of the case before may end the first try */
        m->vm->engine->run(m->vm->vcpus[0]);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    running = NULL;
    return m->ended;
}

static void show(const struct program *p, unsigned start, isa_features features, unsigned xlen)
{
    for (unsigned i = 0; i < p->n;) {
        char text[96];
        uint64_t bits = 0;
        memcpy(&bits, p->bytes + i, p->n - i < 4 ? p->n - i : 4);
        unsigned len = isa_disas(&riscv_isa, TWIN_CODE + start + i, bits, features, xlen, text, sizeof(text));
        printf("  %" PRIx64 ": %s\n", TWIN_CODE + start + i, text);
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
    struct twin jit, interp;
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
        twin_begin_case(seed, n);
        p.user = false;
        p.slot = 0;
        if (loops_only) {
            make_loops(&p, features);
        } else {
            make_program(&p, features, (unsigned)xlen);
        }
        /* One case in four lies across a page's end. */
        unsigned start = twin_random(NULL) % 4 ? 0 : 4096 - (unsigned)(twin_random(NULL) % p.n & ~1ull);
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
        if (twins_alike(&jit, &interp)) {
            passed++;
        } else {
            failed++;
            show(&p, start, features, (unsigned)xlen);
            printf("repeat: jit_vs_interp --seed %" PRIu64 " --from %" PRIu64 " --count 1 --xlen %" PRIu64 "%s%s\n", seed, n,
                   xlen, tier2 ? " --tier2" : "", loops_only ? " --loops" : "");
        }
    }
    twin_free(&jit);
    twin_free(&interp);
    loop_free(loop);
    printf("%" PRIu64 " alike, %" PRIu64 " different, %" PRIu64 " endless and cut\n", passed, failed, loops);
    return failed != 0 || loops > count / 10;
}
