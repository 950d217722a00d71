/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86-64 back end: compiles a block of IR in one pass. Needs x86-64-v3 (BMI1, BMI2, LZCNT, POPCNT, FMA); on an
 * older host the engine offers the interpreter only.
 */
#include "engine/tcg/host_x86_64/vec.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>

static bool supported(void)
{
    return __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
}

static void assign_pins(const struct tcg_guest *g, int8_t *pin)
{
    memset(pin, -1, IR_MAX_GLOBALS);
    for (unsigned i = 0; i < g->n_globals; i++) {
        if (g->globals[i].pin && g->globals[i].pin <= N_PINS) {
            pin[i] = (int8_t)pin_regs[g->globals[i].pin - 1];
        }
    }
}

/* MXCSR: invalid, denormal (no flag of IEEE 754), divide by zero, overflow, underflow, inexact from bit 0 up. */
static void assign_flags(const struct tcg_guest *g, struct host_data *h)
{
    const uint8_t bit[6] = { g->fp_invalid,  0, g->fp_divzero, g->fp_overflow,
                             g->fp_underflow, g->fp_inexact };
    for (unsigned i = 0; i < 64; i++) {
        h->flags_of[i] = 0;
        for (unsigned k = 0; k < 6; k++) {
            h->flags_of[i] |= i >> k & 1 ? bit[k] : 0;
        }
    }
    h->mxcsr = 0x1f80;
}

static size_t init(struct tcg_vm *t, struct err *e)
{
    struct host_data *h = xnew(struct host_data);
    struct asm_buf a = { .base = t->buf.rw, .at = 0, .end = 16384 };
    (void)e;
    assign_pins(t->guest, h->pin);
    memset(h->no_xpin, -1, sizeof(h->no_xpin));
    assign_flags(t->guest, h);
    t->host_data = h;
    h->features = x86_features() & ~t->config.host_features_off;
    return x86_thunks(t, &a, &h->th, h->pin);
}

static void gen_pcrel(struct ra *r, const struct ir_op *op)
{
    unsigned d = ra_dest(r, op->d);
    if (op->imm != (int32_t)op->imm) { /* auipc's reach and an offset on top */
        x_mov_imm(&r->a, d, (uint64_t)op->imm);
        x_rm(&r->a, 0x03 | X_W, d, ENV, ENV_OFF(pc_page));
    } else {
        x_rm(&r->a, 0x8b | X_W, d, ENV, ENV_OFF(pc_page));
        if (op->imm) {
            x_alu_imm(&r->a, 0, X_W, d, (int32_t)op->imm);
        }
    }
    ra_done(r, op->d, d);
}

static void gen_fence(struct ra *r, const struct ir_op *op)
{
    static const uint8_t lock_or[] = { 0xf0, 0x83, 0x0c, 0x24, 0x00 }; /* lock or dword [rsp], 0 */
    for (unsigned i = 0; op->imm & IR_FENCE_SL && i < sizeof(lock_or); i++) {
        x_8(&r->a, lock_or[i]);
    }
}

static void gen_op(struct ra *r, const struct ir_op *op)
{
    switch (op->op) {
    case IR_insn:
        r->insn = (int32_t)op->imm;
        break;
    case IR_pcrel:
        gen_pcrel(r, op);
        break;
    case IR_ld:
    case IR_ldenv:
        gen_load(r, op);
        break;
    case IR_st:
    case IR_stenv:
        gen_store(r, op);
        break;
    case IR_amo:
    case IR_cas:
        gen_atomic(r, op);
        break;
    case IR_fence:
        gen_fence(r, op);
        break;
    case IR_call:
        gen_call(r, op);
        break;
    case IR_count:
        gen_budget(r, op);
        break;
    case IR_poll:
        gen_poll(r, op);
        break;
    case IR_brcond:
        gen_brcond(r, op);
        break;
    case IR_exit:
        gen_exit(r, op);
        break;
    default:
        r->fail |= !gen_xmm_logic(r, op) && !gen_alu_op(r, op);
    }
}

const uint8_t x86_entry[5] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };

void gen_ops(struct ra *r)
{
    ra_start(r);
    r->insn = 0;
    for (r->i = 0; r->i < r->ir->n_ops && !r->fail && !r->a.full; r->i++) {
        gen_op(r, &r->ir->ops[r->i]);
        ra_op_end(r);
    }
}

void gen_stubs(struct ra *r)
{
    for (unsigned i = 0; i < r->n_fixups && !r->fail && !r->a.full; i++) {
        const struct fixup *f = &r->fixups[i];
        r->ir = f->ir;
        r->exit_base = f->exit_base;
        if (f->kind == FIX_EXIT) {
            gen_exit_stub(r, f);
        } else if (f->kind == FIX_FP) {
            gen_fp_stub(r, f);
        } else if (f->kind == FIX_VEC) {
            gen_vec_stub(r, f);
        } else if (f->kind == FIX_ATOMIC) {
            gen_atomic_stub(r, f);
        } else {
            gen_memory_stub(r, f);
        }
    }
}

static bool gen_block(struct ra *r)
{
    if (r->lean) {
        x_call(&r->a, r->th->warm);
    }
    for (unsigned i = 0; i < sizeof(x86_entry) && !r->lean; i++) {
        x_8(&r->a, x86_entry[i]);
    }
    r->n_fixups = r->n_sites = 0;
    gen_ops(r);
    gen_stubs(r);
    return !r->fail && !r->a.full;
}

size_t ra_size(unsigned max_fixups)
{
    size_t slow = IR_MAX_VECS * sizeof(struct vec_slow);
    return sizeof(struct ra) + slow + max_fixups * (sizeof(struct fixup) + sizeof(struct tcg_site));
}

static size_t scratch(void)
{
    return ra_size(IR_MAX_OPS + IR_MAX_EXITS);
}

struct ra *ra_new(unsigned max_fixups)
{
    size_t slow = IR_MAX_VECS * sizeof(struct vec_slow);
    struct ra *r = malloc(ra_size(max_fixups));
    if (r) {
        memset(r, 0, sizeof(*r));
        r->max_fixups = max_fixups;
        r->vs.slow = (struct vec_slow *)(r + 1);
        r->fixups = (struct fixup *)(void *)((char *)(r + 1) + slow);
        r->sites = (struct tcg_site *)(void *)(r->fixups + max_fixups);
    }
    return r;
}

static void log_code(struct ra *r, uint32_t at)
{
    if (log_traces('h')) {
        AUTO_BUF b = BUF_INIT;
        for (uint32_t i = at; i < r->a.at; i++) {
            buf_printf(&b, "%02x", r->a.base[i]);
        }
        log_trace('h', "%u bytes at %p: %s", r->a.at - at, (const void *)(r->v->tcg->buf.rx + at), b.data);
    }
}

static size_t compile(struct tcg_vcpu *v, struct tcg_block *b, uint32_t at, size_t room)
{
    struct host_data *h = v->tcg->host_data;
    if (!v->host_scratch) {
        v->host_scratch = ra_new(IR_MAX_OPS + IR_MAX_EXITS);
        if (!v->host_scratch) {
            return 0;
        }
    }
    struct ra *r = v->host_scratch;
    vec_start(r, h->features);
    r->a = (struct asm_buf){ .base = v->tcg->buf.rw, .at = at, .end = at + (uint32_t)room };
    r->v = v;
    r->ir = v->ir;
    r->b = b;
    r->th = &h->th;
    r->pin = h->pin;
    r->xpin = h->no_xpin;
    r->lean = b->lean && !v->ir->n_vecs;
    b->lean = r->lean;
    r->live_flags = false;
    r->groups = NULL;
    if (!gen_block(r)) {
        return 0;
    }
    log_code(r, at);
    size_t size = r->a.at - at;
    return cache_set_size(b, size) && cache_sites(v->tcg, b, r->sites, r->n_sites) ? size : 0;
}

static struct tcg_exit *enter(struct tcg_vcpu *v, const void *code)
{
    const struct host_data *h = v->tcg->host_data;
    uint32_t (*fn)(void *cpu, const void *to);
    const uint8_t *p = v->tcg->buf.rx + h->th.enter;
    if (!v->host_thunk[0]) {
        lean_near(h, v->tcg->buf.rx, v->host_thunk);
    }
    memcpy(&fn, &p, sizeof(fn));
    uint32_t left = fn(v->cpu, code); /* the exit's offset, 0 or X86_STALE */
    if (left == X86_ASKED) {
        exit_asked(v);
        return NULL;
    }
    return left == X86_STALE  ? TCG_EXIT_STALE
           : left == X86_HERE ? exit_left(v->tcg, v->host_ra)
                              : cache_at(v->tcg, left);
}

const struct tcg_host_ops tcg_host_x86_64 = {
    .name = "x86_64",
    .supported = supported,
    .init = init,
    .scratch = scratch,
    .compile = compile,
    .enter = enter,
    .patch = x86_patch,
    .leads_to = x86_leads_to,
    .kill = x86_kill,
    .region = x86_region,
    .place = x86_place,
    .redirect = x86_redirect,
};
