/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector arithmetic as translated code calls it: what is legal under the current vtype (V 1.0, sections 3.4, 5.2, 5.3 and
 * 10), and the drivers that run kernels over register groups under masks. vCPU thread.
 */
#include "engine/arch/riscv/features.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"

#include <string.h>

/* ---- what is legal ---- */

struct group {
    unsigned reg;
    int kind; /* V_MASK, V_ONE, V_NONE, or 0: a group */
    int eew, emul;
};

static struct group make_group(unsigned reg, int shape, uint64_t vtype)
{
    struct group g = { .reg = reg };

    if (shape >= V_MASK) {
        g.kind = shape;
        return g;
    }
    g.eew = (int)riscv_vsew(vtype) + shape;
    g.emul = riscv_vlmul(vtype) + shape;
    return g;
}

static unsigned group_size(const struct group *g)
{
    return g->emul > 0 ? 1u << g->emul : 1;
}

static bool group_ok(const struct riscv_cpu *c, const struct group *g)
{
    if (g->kind) {
        return true;
    }
    return g->eew >= 0 && g->eew <= c->velen && g->emul >= -3 && g->emul <= 3 &&
           g->reg % group_size(g) == 0;
}

static bool overlaps(const struct group *d, const struct group *s)
{
    return s->kind != V_NONE && d->kind != V_NONE && d->reg < s->reg + group_size(s) &&
           s->reg < d->reg + group_size(d);
}

/* Section 5.2: equal EEW; a narrower result over the lowest part of a source; a wider one when the source is
 * the highest part of it. */
static bool overlap_ok(const struct group *d, const struct group *s)
{
    if (!overlaps(d, s) || d->kind == V_ONE || s->kind == V_ONE) {
        return true;
    }
    if (d->kind == V_MASK || s->kind == V_MASK) {
        return d->kind == s->kind || (d->kind == V_MASK && d->reg == s->reg);
    }
    if (d->eew == s->eew) {
        return true;
    }
    if (d->eew < s->eew) {
        return d->reg == s->reg;
    }
    return s->emul >= 0 && s->reg + group_size(s) == d->reg + group_size(d);
}

/* A register provides sources of one EEW only (section 5.2); v0 as a mask has one of 1 bit. */
static bool sources_ok(const struct group *s1, const struct group *s2, bool masked, int sew)
{
    struct group v0 = { .reg = 0, .kind = V_MASK };
    int eew1 = s1->kind == V_ONE ? sew : s1->eew, eew2 = s2->kind == V_ONE ? sew : s2->eew;
    bool mask1 = s1->kind == V_MASK, mask2 = s2->kind == V_MASK;

    if (masked && ((!mask1 && overlaps(&v0, s1)) || (!mask2 && overlaps(&v0, s2)))) {
        return false;
    }
    return (mask1 == mask2 && (mask1 || eew1 == eew2)) || !overlaps(s1, s2);
}

static bool operands_ok(const struct riscv_cpu *c, const struct v_op *op, uint32_t insn,
                        uint64_t vtype)
{
    unsigned f3 = v_funct3(insn);
    bool vector = f3 == V_IVV || f3 == V_FVV || f3 == V_MVV;
    int shape1 = !vector                     ? V_NONE
                 : op->shape.s1 == V_INDEX16 ? 1 - (int)riscv_vsew(vtype)
                                             : op->shape.s1;
    struct group d = make_group(v_vd(insn), op->shape.d, vtype);
    struct group s2 = make_group(v_vs2(insn), op->shape.s2, vtype);
    struct group s1 = make_group(v_vs1(insn), shape1, vtype);
    bool apart = op->shape.flags & V_APART;

    if (!group_ok(c, &d) || !group_ok(c, &s2) || !group_ok(c, &s1) ||
        !sources_ok(&s1, &s2, !v_vm(insn),
                    (int)riscv_vsew(vtype) + (op->run == v_run_reduce && op->param))) {
        return false;
    }
    /* v0 is read as a mask: a result of wider elements may not lie over it. */
    if (!v_vm(insn) && d.reg == 0 && (d.kind == 0 || (d.kind == V_MASK && apart))) {
        return false;
    }
    if ((op->shape.flags & V_APART2) && overlaps(&d, &s2)) {
        return false;
    }
    if (apart || (op->shape.flags & V_READS_D)) {
        return !overlaps(&d, &s2) && !overlaps(&d, &s1);
    }
    return overlap_ok(&d, &s2) && overlap_ok(&d, &s1);
}

static bool features_ok(const struct riscv_cpu *c, const struct v_op *op, unsigned sew)
{
    bool half = op->half >> sew & 1;

    if (half && !RISCV_HAS(c->features, RISCV_EXT_ZVFH) &&
        !((op->flags & V_HALF_MIN) && RISCV_HAS(c->features, RISCV_EXT_ZVFHMIN))) {
        return false;
    }
    if (op->d_sews >> sew & 1) {
        return RISCV_HAS(c->features, op->flags & V_F ? RISCV_EXT_ZVE64D : RISCV_EXT_V);
    }
    return true;
}

bool v_legal(const struct riscv_cpu *c, const struct v_op *op, uint32_t insn, uint64_t vtype)
{
    unsigned sew = riscv_vsew(vtype);

    if (vtype & RISCV_VTYPE_VILL) {
        return false;
    }
    if (op->k ? !op->k[sew] : !(op->sews >> sew & 1)) {
        return false;
    }
    return features_ok(c, op, sew) && operands_ok(c, op, insn, vtype);
}

/* ---- masks and scalars as arrays ---- */

const void *v_splat(uint64_t scalar, unsigned sew, size_t n, void *buf)
{
    if (sew == 0) {
        memset(buf, (int)(scalar & 0xff), n);
        return buf;
    }
    uint64_t word = sew == 1   ? (scalar & 0xffff) * 0x0001000100010001
                    : sew == 2 ? (scalar & 0xffffffff) * 0x0000000100000001
                               : scalar;
    v_u64 *p = buf;
    for (size_t i = 0; i < ((n << sew) + 7) / 8; i++) {
        p[i] = word;
    }
    return buf;
}

void v_mask_bytes(uint8_t *out, const uint8_t *mask, size_t first, size_t n)
{
    size_t i = 0;

    if (first % 8 == 0) {
        for (; i + 8 <= n; i += 8) {
            /* Eight copies of the byte, bit k kept in byte k, made 0 or 1. */
            uint64_t spread = mask[(first + i) / 8] * 0x0101010101010101u & 0x8040201008040201u;
            spread = ((spread + 0x7f7f7f7f7f7f7f7fu) | spread) >> 7 & 0x0101010101010101u;
            memcpy(out + i, &spread, 8);
        }
    }
    for (; i < n; i++) {
        out[i] = v_bit(mask, first + i);
    }
}

void v_mask_bits(uint8_t *d, const uint8_t *bytes, size_t first, size_t n, const uint8_t *only)
{
    size_t i = 0;

    for (; i < n && (first + i) % 8; i++) {
        if (!only || v_bit(only, first + i)) {
            v_bit_put(d, first + i, bytes[i]);
        }
    }
    for (; i + 8 <= n; i += 8) {
        size_t at = (first + i) / 8;
        uint64_t eight;
        memcpy(&eight, bytes + i, 8);
        eight &= 0x0101010101010101; /* bytes of inactive elements hold anything */
        uint8_t bits = (uint8_t)(eight * 0x0102040810204080u >> 56);
        d[at] = only ? (uint8_t)((d[at] & ~only[at]) | (bits & only[at])) : bits;
    }
    for (; i < n; i++) {
        if (!only || v_bit(only, first + i)) {
            v_bit_put(d, first + i, bytes[i]);
        }
    }
}

V_KERNELS_BEGIN

#define BLEND(T)                                                                               \
    do {                                                                                       \
        v_##T *to = d;                                                                         \
        const v_##T *from = s;                                                                 \
        V_LOOP for (size_t i = 0; i < n; i++)                                                  \
        {                                                                                      \
            to[i] = on[i] ? from[i] : to[i];                                                   \
        }                                                                                      \
    } while (0)

void v_blend(void *d, const void *s, const uint8_t *on, size_t n, unsigned sew)
{
    switch (sew) {
    case 0:
        BLEND(u8);
        break;
    case 1:
        BLEND(u16);
        break;
    case 2:
        BLEND(u32);
        break;
    default:
        BLEND(u64);
    }
}

V_KERNELS_END

/* ---- drivers ---- */

/* Calls the kernel for every run of active elements: it must not see the others, whose flags do not count. */
static void each_run(struct v_args *v, struct v_ctx *x, uint8_t *d, const uint8_t *a,
                     const uint8_t *b, const unsigned size[3])
{
    for (size_t i = v->vstart; i < v->vl;) {
        size_t end = i;
        while (end < v->vl && v_bit(v->c->v, end)) {
            end++;
        }
        if (end > i) {
            size_t at = i - v->vstart;
            v->op->k[v->sew](d + (at << size[0]), a + (at << size[1]), b + (at << size[2]),
                             end - i, x);
        }
        i = end + 1;
    }
}

static void begin(const struct v_args *v, struct v_ctx *x)
{
    x->c = v->c;
    x->fp = (struct sf_status){ .rm = v->c->frm, .flags = v->c->fflags };
    x->vxrm = v->c->vxrm;
    x->sat = v->c->vxsat;
    x->carry = NULL;
}

static void end(const struct v_args *v, const struct v_ctx *x)
{
    v->c->fflags = x->fp.flags;
    v->c->vxsat = x->sat;
}

/* log2 of the bytes of an operand's elements; of what is no vector: SEW. */
static unsigned width(const struct v_args *v, int shape)
{
    return shape >= V_MASK ? v->sew : v->sew + (unsigned)shape;
}

uint64_t v_run_each(struct v_args *v)
{
    _Alignas(64) uint8_t scalars[V_GROUP_MAX], temp[V_GROUP_MAX];
    uint8_t bytes[V_ELEMENTS_MAX];
    const struct v_shape *shape = &v->op->shape;
    unsigned size[3] = { width(v, shape->d), width(v, shape->s2), width(v, shape->s1) };
    struct v_ctx x;

    if (v->vstart >= v->vl) {
        return 0;
    }
    begin(v, &x);
    size_t n = v->vl - v->vstart;
    uint8_t *d = v->d + (v->vstart << size[0]);
    const uint8_t *a = v->s2 + (v->vstart << size[1]);
    const uint8_t *b = shape->s1 == V_NONE ? d /* not read for its value */
                       : v->s1             ? v->s1 + (v->vstart << size[2])
                                           : v_splat(v->scalar, size[2], n, scalars);
    if (v->op->flags & V_CARRY) {
        if (v->masked) {
            v_mask_bytes(bytes, v->c->v, v->vstart, n);
            x.carry = bytes;
        }
        v->op->k[v->sew](d, a, b, n, &x);
    } else if (!v->masked) {
        v->op->k[v->sew](d, a, b, n, &x);
    } else if (v->op->flags & (V_F | V_FLAGS)) {
        each_run(v, &x, d, a, b, size);
    } else {
        v_mask_bytes(bytes, v->c->v, v->vstart, n);
        memcpy(temp, d, n << size[0]);
        v->op->k[v->sew](temp, a, b, n, &x);
        v_blend(d, temp, bytes, n, size[0]);
    }
    end(v, &x);
    return 0;
}

uint64_t v_run_compare(struct v_args *v)
{
    _Alignas(64) uint8_t scalars[V_GROUP_MAX];
    uint8_t bytes[V_ELEMENTS_MAX], carry[V_ELEMENTS_MAX];
    struct v_ctx x;

    if (v->vstart >= v->vl) {
        return 0;
    }
    begin(v, &x);
    size_t n = v->vl - v->vstart;
    const uint8_t *a = v->s2 + (v->vstart << v->sew);
    const uint8_t *b = v->s1 ? v->s1 + (v->vstart << v->sew)
                             : v_splat(v->scalar, v->sew, n, scalars);
    const uint8_t *only = v->masked ? v->c->v : NULL;
    if (v->op->flags & V_CARRY) {
        if (v->masked) {
            v_mask_bytes(carry, v->c->v, v->vstart, n);
            x.carry = carry;
        }
        only = NULL;
    }
    if (only && (v->op->flags & V_F)) {
        unsigned size[3] = { 0, v->sew, v->sew };
        memset(
            bytes, 0,
            n); /* v_mask_bits() takes every byte for 0 or 1, those of inactive elements too */
        each_run(v, &x, bytes, a, b, size);
    } else {
        v->op->k[v->sew](bytes, a, b, n, &x);
    }
    v_mask_bits(v->d, bytes, v->vstart, n, only);
    end(v, &x);
    return 0;
}

/* ---- the helper ---- */

static _Noreturn void illegal(struct riscv_cpu *c, uint32_t insn)
{
    tcg_raise(c, RISCV_CAUSE_ILLEGAL, insn);
}

static void check(struct riscv_cpu *c, const struct v_op *op, uint32_t insn, bool checked)
{
    if (!checked && (!(c->mstatus & MSTATUS_VS) || !v_legal(c, op, insn, c->vtype))) {
        illegal(c, insn);
    }
    if ((op->flags & V_F) &&
        (!(c->mstatus & MSTATUS_FS) || (c->frm > 4 && !(op->flags & V_NO_FRM)))) {
        illegal(c, insn);
    }
    if ((op->shape.flags & V_VSTART0) && c->vstart) {
        illegal(c, insn);
    }
}

uint64_t riscv_v_ask(void *cpu, uint64_t insn, uint64_t b, uint64_t c)
{
    struct riscv_cpu *hart = cpu;

    (void)b;
    (void)c;
    if (!(hart->mstatus & MSTATUS_VS)) {
        illegal(hart, (uint32_t)insn);
    }
    return 0;
}

uint64_t riscv_v_set(void *cpu, uint64_t vtype, uint64_t avl, uint64_t c)
{
    struct riscv_cpu *hart = cpu;

    (void)c;
    riscv_vset(hart, vtype, avl);
    return hart->vl;
}

/* An f register as an element: what is not boxed counts as the canonical NaN. */
static uint64_t unboxed(uint64_t f, unsigned sew)
{
    static const uint64_t nan[4] = { 0, 0x7e00, 0x7fc00000, 0x7ff8000000000000 };
    uint64_t box = sew == 3 ? 0 : UINT64_MAX << (8u << sew);

    return (f & box) == box ? f & ~box : nan[sew];
}

uint64_t riscv_v_arith(void *cpu, uint64_t a, uint64_t scalar, uint64_t row)
{
    struct riscv_cpu *c = cpu;
    const struct v_op *op = (const struct v_op *)(uintptr_t)row;
    uint32_t insn = (uint32_t)a;
    unsigned f3 = v_funct3(insn);

    check(c, op, insn, a & RISCV_V_CHECKED);
    struct v_args v = { .c = c,
                        .op = op,
                        .insn = insn,
                        .scalar = scalar,
                        .sew = riscv_vsew(c->vtype),
                        .lmul = riscv_vlmul(c->vtype),
                        .vl = c->vl,
                        .vstart = c->vstart,
                        .masked = !v_vm(insn),
                        .d = v_reg(c, v_vd(insn)),
                        .s2 = v_reg(c, v_vs2(insn)) };
    if (f3 == V_FVF) {
        v.scalar = unboxed(scalar, v.sew);
    } else if (f3 == V_IVV || f3 == V_FVV || f3 == V_MVV) {
        v.s1 = v_reg(c, v_vs1(insn));
    }
    if (!(op->flags & (V_TO_X | V_TO_F))) {
        riscv_vs_dirty(c);
    }
    uint64_t result = op->run(&v);
    if (c->vstart) {
        c->vstart = 0;
        riscv_vkey_update(c);
    }
    return result;
}
