/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random vector programs run by the host back end and by the IR interpreter must leave the same state. The interpreter
 * runs helpers only, so that what the back end does inline is compared with them.
 *
 *   vector_jit [--seed N] [--from N] [--count N] [--vlen BITS] [--host-off MASK] [--only SUBSTRING] [--show]
 *
 * Each case is a short program that mostly keeps to one vtype, run twice in the same machines: the second time with
 * the TLB warm, and the translations there. --host-off takes host features away (tcg_config.host_features_off).
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/arch/riscv/vector.h"
#include "engine/base/log.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/riscv_isa.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/tcg.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (1u << 16)
#define CODE (RAM_BASE + 0x4000)
#define DATA (RAM_BASE + 0x8000)
#define DATA_SIZE 0x4000u
#define HANDLER (RAM_BASE + 0x100)

static uint64_t state;
static bool ended;
static const char *only;

static uint64_t rnd(void *opaque)
{
    (void)opaque;
    state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
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
    ended = true;
    vm->engine->kick(vm->vcpus[0]);
}

static const struct mem_io_ops stop_ops = { stop_read, stop_write, 1, 8 };

struct machine {
    struct vm *vm;
    struct mem_region *ram, *stop;
    struct bus_lock lock;
    struct tcg_config config;
    struct riscv_cpu *cpu;
};

static void make(struct machine *m, enum tcg_backend backend, const char *model, unsigned off,
                 struct loop *loop)
{
    struct err e = ERR_INIT;
    m->config = (struct tcg_config){
        .cache_size = 1u << 20, .backend = backend, .check = true, .host_features_off = off
    };
    bus_lock_init(&m->lock);
    if (vm_new("case", &riscv64_arch, &tcg_engine_ops, loop, &m->config, &m->vm, &e) < 0 ||
        vm_add_vcpus(m->vm, 1, model, &e) < 0 ||
        mem_new_ram("ram", RAM_SIZE, &m->ram, &e) < 0 ||
        mem_map(m->vm->root, RAM_BASE, 0, m->ram, &e) < 0 ||
        !(m->stop = mem_new_io("stop", 0x1000, &stop_ops, m->vm, &m->lock)) ||
        mem_map(m->vm->root, 0, 0, m->stop, &e) < 0) {
        fprintf(stderr, "vector_jit: %s\n", e.msg);
        exit(1);
    }
    mem_commit(m->vm->mem);
    m->cpu = m->vm->vcpus[0]->cpu;
}

static void unmake(struct machine *m)
{
    vm_free(m->vm);
    mem_free(m->ram);
    mem_free(m->stop);
}

/* ---- programs ---- */

struct program {
    uint32_t insns[40];
    unsigned n, align;
    uint64_t x[32], f[32], vl, vstart, vtype, data_seed;
    uint8_t frm, fflags;
    bool user;
};

static bool is_vector(const struct isa_insn *insn)
{
    return insn->name[0] == 'v';
}

static bool accept(void *opaque, const struct isa_insn *insn)
{
    static const char *const scalar[] = { "add", "addi", "fadd.s", "fadd.d", "lw",
                                          "sd",  "ld",   "mul",    "fld" };
    (void)opaque;
    if (is_vector(insn)) {
        bool set = strncmp(insn->name, "vset", 4) == 0;
        return set ? rnd(NULL) % 8 == 0
                   : !only || strstr(insn->name, only) || rnd(NULL) % 16 == 0;
    }
    for (unsigned i = 0; i < sizeof(scalar) / sizeof(scalar[0]); i++) {
        if (strcmp(insn->name, scalar[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Registers that mostly fit the group size of the case, few masks; small immediates as vtype are odd often enough. */
static bool choose(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                   int64_t *value)
{
    const struct program *p = opaque;
    uint64_t r = rnd(NULL);
    if (!is_vector(insn)) {
        return false;
    }
    if (strcmp(arg->name, "vm") == 0) {
        *value = (r & 3) != 0;
        return true;
    }
    if (strcmp(arg->name, "imm") == 0) {
        *value = (int64_t)(r >> 8 & 7 ? p->vtype : r & 0xff);
        return strncmp(insn->name, "vset", 4) == 0;
    }
    if (r % 16 == 0) {
        return false;
    }
    *value = (int64_t)((r >> 8 & 31) & ~(p->align - 1));
    return true;
}

static uint64_t random_value(void)
{
    uint64_t r = rnd(NULL);
    switch (r & 15) {
    case 0:
        return r >> 8 & 1 ? UINT64_MAX : 0;
    case 1:
        return rnd(NULL);
    case 2:
    case 3:
        return r >> 8 & 0x3f;
    default:
        return DATA + (r >> 8) % DATA_SIZE;
    }
}

static uint64_t single(uint64_t r)
{
    switch (r >> 32 & 15) {
    case 0:
        return r & 0xffffffff;
    case 1:
        return r & 0x807fffff;
    case 2:
        return r & 0x80000000;
    case 3:
        return (r & 0x80000000) | 0x7f800000 | (r >> 40 & 3 ? 0 : (r & 0x7fffff));
    case 4:
        return (r & 0x81ffffff); /* around the smallest normal */
    case 5:
        return (r & 0x80000000) | 0x7f000000 | (r & 0x7fffff);
    default:
        return (r & 0x83ffffff) | 0x3c000000;
    }
}

static uint64_t random_element(void)
{
    uint64_t r = rnd(NULL), s = rnd(NULL);
    switch (r & 7) {
    case 0:
        return s;
    case 1:
        return s & 0x0101010101010101 * (r >> 8 & 0xff);
    case 2:
        return (s & 0x801fffffffffffff) | 0x3fe0000000000000;
    case 3:
        return r >> 8 & 1 ? s & 0x801fffffffffffff
                          : (s & 0x800fffffffffffff) | 0x7fe0000000000000;
    case 4:
        return (s & 0x801fffffffffffff) | 0x3fe0000000000000;
    default:
        return single(s) | single(r) << 32;
    }
}

static void make_program(struct program *p, const struct riscv_cpu *c, isa_features features)
{
    static const uint8_t lmul[] = { 0, 0, 0, 0, 1, 1, 2, 3, 7, 6, 5 };
    struct isa_pick pick = {
        .features = features, .rng = rnd, .accept = accept, .choose = choose, .opaque = p
    };
    unsigned insns = 3 + rnd(NULL) % 20;
    p->user = rnd(NULL) % 4;
    p->vtype = lmul[rnd(NULL) % sizeof(lmul)] | rnd(NULL) % 4 << 3 | rnd(NULL) % 4 << 6;
    if (!riscv_vtype_ok(c, p->vtype)) {
        p->vtype = rnd(NULL) % 4 << 3;
    }
    uint64_t max = riscv_vlmax(p->vtype, c->vlenb);
    p->vl = rnd(NULL) % 8 < 5 ? max : rnd(NULL) % 3 ? rnd(NULL) % (max + 1) : max / 2;
    p->vstart = rnd(NULL) % 32 ? 0 : rnd(NULL) % (max + 1);
    p->align = (p->vtype & 7) < 4 ? 1u << (p->vtype & 7) : 1;
    if (rnd(NULL) % 2) { /* room for a result of twice the size */
        p->align = p->align < 8 ? p->align * 2 : 8;
    }
    for (p->n = 0; p->n < insns; p->n++) {
        uint64_t bits;
        do {
            isa_random(&riscv_isa, &pick, &bits);
        } while (riscv_isa.length(bits) != 4);
        p->insns[p->n] = (uint32_t)bits;
    }
    p->insns[p->n++] = 0x00000073; /* ecall */
    for (unsigned i = 0; i < 32; i++) {
        p->x[i] = i ? random_value() : 0;
        p->f[i] = rnd(NULL) % 2 ? random_element() : 0xffffffff00000000 | single(rnd(NULL));
    }
    p->frm = (uint8_t)(rnd(NULL) % 8 ? 0 : rnd(NULL) % 5);
    p->fflags = (uint8_t)(rnd(NULL) % 2 ? rnd(NULL) % 32 | 1 : 0);
    p->data_seed = rnd(NULL);
}

static void registers(struct machine *m, const struct program *p, unsigned start)
{
    struct riscv_cpu *c = m->cpu;
    uint64_t saved = state;
    memcpy(c->x, p->x, sizeof(c->x));
    memcpy(c->f, p->f, sizeof(c->f));
    state = p->data_seed;
    for (unsigned i = 0; i < 32u * c->vlenb; i += 8) {
        uint64_t v = random_element();
        memcpy(c->v + i, &v, 8);
    }
    state = saved;
    c->frm = p->frm;
    c->fflags = p->fflags;
    c->mstatus |= MSTATUS_FS | MSTATUS_VS;
    c->mstatus &= ~(uint64_t)MSTATUS_MPP;
    c->vtype = p->vtype;
    c->vl = p->vl;
    c->vstart = p->vstart;
    riscv_vkey_update(c);
    c->priv = p->user ? RISCV_U : RISCV_M;
    c->mtvec = HANDLER;
    c->pc = CODE + start;
}

static void load(struct machine *m, const struct program *p, unsigned start)
{
    static const uint32_t handler[] = { 0x20000023, 0x0000006f }; /* sb x0, 0x200(x0); j . */
    struct riscv_cpu *c = m->cpu;
    uint8_t *ram = mem_ram_host(m->ram);
    uint64_t saved = state;
    m->vm->arch->cpu_reset(m->vm->vcpus[0]);
    memset(ram, 0, RAM_SIZE);
    state = p->data_seed ^ 1;
    for (unsigned i = 0; i < DATA_SIZE; i += 8) {
        uint64_t v = random_element();
        memcpy(ram + (DATA - RAM_BASE) + i, &v, 8);
    }
    state = saved;
    memcpy(ram + (HANDLER - RAM_BASE), handler, sizeof(handler));
    memcpy(ram + (CODE - RAM_BASE) + start, p->insns, p->n * 4);
    mem_written(m->vm->mem, RAM_BASE, RAM_SIZE);
    c->pmpaddr[0] = UINT64_MAX >> 10; /* everything, for user mode */
    c->pmpcfg[0] = 0x1f;
    c->pmp_used = 1;
    registers(m, p, start);
    m->vm->engine->regs_put(m->vm->vcpus[0]);
}

static bool run(struct machine *m)
{
    ended = false;
    for (unsigned i = 0; !ended && i < 1000; i++) {
        m->vm->engine->run(m->vm->vcpus[0]);
    }
    return ended;
}

/* ---- comparison ---- */

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
        for (unsigned k = 0; k < a->vlenb; k += 8) {
            uint64_t va, vb;
            char name[16];
            memcpy(&va, a->v + n * a->vlenb + k, 8);
            memcpy(&vb, b->v + n * b->vlenb + k, 8);
            snprintf(name, sizeof(name), "v%u+", n);
            ok &= same(name, k, va, vb);
        }
    }
    ok &= same("mepc", 0, a->mepc, b->mepc);
    ok &= same("mcause", 0, a->mcause, b->mcause);
    ok &= same("mtval", 0, a->mtval, b->mtval);
    ok &= same("fflags", 0, a->fflags, b->fflags);
    ok &= same("mstatus", 0, a->mstatus, b->mstatus);
    ok &= same("vl", 0, a->vl, b->vl);
    ok &= same("vtype", 0, a->vtype, b->vtype);
    ok &= same("vstart", 0, a->vstart, b->vstart);
    ok &= same("vxsat", 0, a->vxsat, b->vxsat);
    ok &= same("vkey", 0, a->vkey, b->vkey);
    if (memcmp(mem_ram_host(j->ram), mem_ram_host(i->ram), RAM_SIZE) != 0) {
        unsigned at = 0;
        while (mem_ram_host(j->ram)[at] == mem_ram_host(i->ram)[at]) {
            at++;
        }
        printf("  memory differs first at %" PRIx64 "\n", (uint64_t)(RAM_BASE + at));
        ok = false;
    }
    return ok;
}

static void show(const struct program *p, unsigned start, isa_features features)
{
    printf("  vtype %02" PRIx64 ", vl %" PRIu64 ", vstart %" PRIu64 ", frm %u, %s mode\n",
           p->vtype, p->vl, p->vstart, p->frm, p->user ? "user" : "machine");
    for (unsigned i = 0; i < p->n; i++) {
        char text[96];
        isa_disas(&riscv_isa, CODE + start + i * 4, p->insns[i], features, 64, text,
                  sizeof(text));
        printf("  %" PRIx64 ": %s\n", CODE + start + i * 4, text);
    }
}

static bool one_case(struct machine *jit, struct machine *interp, const struct program *p,
                     unsigned start)
{
    bool ok = true;
    load(jit, p, start);
    load(interp, p, start);
    for (unsigned pass = 0; ok && pass < 3; pass++) {
        if (pass) {
            registers(jit, p, start);
            registers(interp, p, start);
        }
        ok = run(jit) && run(interp) && compare(jit, interp);
    }
    return ok;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, from = 0, count = 1000, vlen = 256, off = 0, failed = 0;
    bool verbose = false;
    for (int i = 1; i < argc; i++) {
        uint64_t *to = strcmp(argv[i], "--seed") == 0       ? &seed
                       : strcmp(argv[i], "--from") == 0     ? &from
                       : strcmp(argv[i], "--count") == 0    ? &count
                       : strcmp(argv[i], "--vlen") == 0     ? &vlen
                       : strcmp(argv[i], "--host-off") == 0 ? &off
                                                            : NULL;
        if (to && i + 1 < argc) {
            *to = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else {
            verbose = true;
        }
    }
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct machine jit, interp;
    char model[128];
    log_init("vector_jit", LOG_DEBUG, 2);
    if (verbose) {
        log_set_trace("ioeh");
    }
    snprintf(model, sizeof(model),
             "max,v=on,zvbb=on,zvbc=on,zvkned=on,zvknhb=on,zvkg=on,vlen=%" PRIu64, vlen);
    make(&jit, TCG_JIT, model, (unsigned)off, loop);
    make(&interp, TCG_INTERP, model, 0, loop);
    isa_features features = riscv_isa_of(jit.cpu);
    printf("seed %" PRIu64 ", cases %" PRIu64 " to %" PRIu64 ", VLEN %" PRIu64 "\n", seed, from,
           from + count - 1, vlen);
    for (uint64_t n = from; n < from + count; n++) {
        struct program p;
        memset(&p, 0, sizeof(p));
        state = seed * 0x100000001b3ull ^ n * 0x9e3779b97f4a7c15ull;
        make_program(&p, jit.cpu, features);
        unsigned start = rnd(NULL) % 8 ? 0 : 4096 - (unsigned)(rnd(NULL) % p.n) * 4;
        if (verbose) {
            show(&p, start, features);
            fflush(stdout);
        }
        if (!one_case(&jit, &interp, &p, start)) {
            failed++;
            show(&p, start, features);
            printf("repeat: vector_jit --seed %" PRIu64 " --from %" PRIu64
                   " --count 1 --vlen %" PRIu64 " --host-off %" PRIu64 "%s%s\n",
                   seed, n, vlen, off, only ? " --only " : "", only ? only : "");
        }
    }
    unmake(&jit);
    unmake(&interp);
    loop_free(loop);
    printf("%" PRIu64 " cases, %" PRIu64 " different\n", count, failed);
    return failed != 0;
}
