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
#include "tests/isa/twins.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE (1u << 16)
#define DATA_SIZE 0x4000u

static const char *only;

static void make(struct twin *m, enum tcg_backend backend, const char *model, unsigned off,
                 struct loop *loop)
{
    const struct tcg_config config = {
        .cache_size = 1u << 20, .backend = backend, .check = true, .host_features_off = off
    };

    twin_make(m, &riscv64_arch, model, &config, RAM_SIZE, RAM_SIZE, loop);
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
        return set ? twin_random(NULL) % 8 == 0
                   : !only || strstr(insn->name, only) || twin_random(NULL) % 16 == 0;
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
    uint64_t r = twin_random(NULL);
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
    uint64_t r = twin_random(NULL);
    switch (r & 15) {
    case 0:
        return r >> 8 & 1 ? UINT64_MAX : 0;
    case 1:
        return twin_random(NULL);
    case 2:
    case 3:
        return r >> 8 & 0x3f;
    default:
        return TWIN_DATA + (r >> 8) % DATA_SIZE;
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
    uint64_t r = twin_random(NULL), s = twin_random(NULL);
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
        .features = features, .rng = twin_random, .accept = accept, .choose = choose, .opaque = p
    };
    unsigned insns = 3 + twin_random(NULL) % 20;
    p->user = twin_random(NULL) % 4;
    p->vtype = lmul[twin_random(NULL) % sizeof(lmul)] | twin_random(NULL) % 4 << 3 | twin_random(NULL) % 4 << 6;
    if (!riscv_vtype_ok(c, p->vtype)) {
        p->vtype = twin_random(NULL) % 4 << 3;
    }
    uint64_t max = riscv_vlmax(p->vtype, c->vlenb);
    p->vl = twin_random(NULL) % 8 < 5 ? max : twin_random(NULL) % 3 ? twin_random(NULL) % (max + 1) : max / 2;
    p->vstart = twin_random(NULL) % 32 ? 0 : twin_random(NULL) % (max + 1);
    p->align = (p->vtype & 7) < 4 ? 1u << (p->vtype & 7) : 1;
    if (twin_random(NULL) % 2) { /* room for a result of twice the size */
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
        p->f[i] = twin_random(NULL) % 2 ? random_element() : 0xffffffff00000000 | single(twin_random(NULL));
    }
    p->frm = (uint8_t)(twin_random(NULL) % 8 ? 0 : twin_random(NULL) % 5);
    p->fflags = (uint8_t)(twin_random(NULL) % 2 ? twin_random(NULL) % 32 | 1 : 0);
    p->data_seed = twin_random(NULL);
}

static void registers(struct twin *m, const struct program *p, unsigned start)
{
    struct riscv_cpu *c = m->cpu;
    uint64_t saved = twin_state;
    memcpy(c->x, p->x, sizeof(c->x));
    memcpy(c->f, p->f, sizeof(c->f));
    twin_state = p->data_seed;
    for (unsigned i = 0; i < 32u * c->vlenb; i += 8) {
        uint64_t v = random_element();
        memcpy(c->v + i, &v, 8);
    }
    twin_state = saved;
    c->frm = p->frm;
    c->fflags = p->fflags;
    c->mstatus |= MSTATUS_FS | MSTATUS_VS;
    c->mstatus &= ~(uint64_t)MSTATUS_MPP;
    c->vtype = p->vtype;
    c->vl = p->vl;
    c->vstart = p->vstart;
    riscv_vkey_update(c);
    c->priv = p->user ? RISCV_U : RISCV_M;
    c->mcause = 0; /* no trap yet: what the handler says counts from the first one */
    c->mtvec = TWIN_HANDLER;
    c->pc = TWIN_CODE + start;
}

static void load(struct twin *m, const struct program *p, unsigned start)
{
    struct riscv_cpu *c = m->cpu;
    uint8_t *ram = twin_ram(m, 0);
    uint64_t saved = twin_state;
    m->vm->arch->cpu_reset(m->vm->vcpus[0]);
    memset(ram, 0, RAM_SIZE);
    twin_state = p->data_seed ^ 1;
    for (unsigned i = 0; i < DATA_SIZE; i += 8) {
        uint64_t v = random_element();
        memcpy(ram + (TWIN_DATA - TWIN_RAM) + i, &v, 8);
    }
    twin_state = saved;
    twin_put_handler(m);
    memcpy(ram + (TWIN_CODE - TWIN_RAM) + start, p->insns, p->n * 4);
    mem_written(m->vm->mem, TWIN_RAM, RAM_SIZE);
    c->pmpaddr[0] = UINT64_MAX >> 10; /* everything, for user mode */
    c->pmpcfg[0] = 0x1f;
    c->pmp_used = 1;
    registers(m, p, start);
    m->vm->engine->regs_put(m->vm->vcpus[0]);
}

static bool run(struct twin *m)
{
    m->ended = false;
    for (unsigned i = 0; !m->ended && i < 1000; i++) {
        m->vm->engine->run(m->vm->vcpus[0]);
    }
    return m->ended;
}

/* ---- comparison ---- */

static bool compare(struct twin *j, struct twin *i)
{
    const struct riscv_cpu *a = j->cpu, *b = i->cpu;
    bool ok = twins_alike(j, i);

    for (unsigned n = 0; n < 32; n++) {
        for (unsigned k = 0; k < a->vlenb; k += 8) {
            uint64_t va, vb;
            char name[16];
            memcpy(&va, a->v + n * a->vlenb + k, 8);
            memcpy(&vb, b->v + n * b->vlenb + k, 8);
            snprintf(name, sizeof(name), "v%u+", n);
            ok &= twin_same(name, k, va, vb);
        }
    }
    ok &= twin_same("vl", 0, a->vl, b->vl);
    ok &= twin_same("vtype", 0, a->vtype, b->vtype);
    ok &= twin_same("vstart", 0, a->vstart, b->vstart);
    ok &= twin_same("vxsat", 0, a->vxsat, b->vxsat);
    ok &= twin_same("vkey", 0, a->vkey, b->vkey);
    return ok;
}

static void show(const struct program *p, unsigned start, isa_features features)
{
    printf("  vtype %02" PRIx64 ", vl %" PRIu64 ", vstart %" PRIu64 ", frm %u, %s mode\n",
           p->vtype, p->vl, p->vstart, p->frm, p->user ? "user" : "machine");
    for (unsigned i = 0; i < p->n; i++) {
        char text[96];
        isa_disas(&riscv_isa, TWIN_CODE + start + i * 4, p->insns[i], features, 64, text,
                  sizeof(text));
        printf("  %" PRIx64 ": %s\n", TWIN_CODE + start + i * 4, text);
    }
}

static bool one_case(struct twin *jit, struct twin *interp, const struct program *p,
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
    struct twin jit, interp;
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
        twin_begin_case(seed, n);
        make_program(&p, jit.cpu, features);
        unsigned start = twin_random(NULL) % 8 ? 0 : 4096 - (unsigned)(twin_random(NULL) % p.n) * 4;
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
    twin_free(&jit);
    twin_free(&interp);
    loop_free(loop);
    printf("%" PRIu64 " cases, %" PRIu64 " different\n", count, failed);
    return failed != 0;
}
