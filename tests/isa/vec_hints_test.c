/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation of ir_vec.def as the host back end emits it, against a plain definition in this file, element by element:
 * random operands, sizes, masks and lengths, several operations a block so that values stay in host registers. By a
 * toy guest whose instructions are hinted calls of the definition, which the IR interpreter runs.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/guest.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/internal.h"
#include "engine/tcg/softfp/softfp.h"
#include "tests/isa/vec_hints_crypto.h"
#include "tests/lib/testing.h"

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE 0x10000u
#define WFI 0x10500073u
#define FILE_SIZE 4096u /* of the vector file, as the toy sees it */
#define V_OFFSET ((uint32_t)offsetof(struct riscv_cpu, v))
#define OPS 6
#define GAP 64 /* the back end may read, not write, a little beyond a group */

typedef unsigned __int128 u128;

static struct ir_vec table[OPS];
static uint64_t state;
static unsigned vl_max; /* vl is within n of every operation that looks at it */

static uint64_t draw(void)
{
    return test_random(&state);
}

/* ---- the definition ---------------------------------------------------------------------- */

struct ref {
    struct riscv_cpu *c;
    const struct ir_vec *h;
    uint8_t old[FILE_SIZE]; /* before */
    uint64_t scalar;
    struct sf_status fp;
};

static uint64_t get(const struct ref *r, uint32_t off, unsigned i, unsigned sew)
{
    uint64_t v = 0;
    memcpy(&v, r->old + (off - V_OFFSET) + ((size_t)i << sew), (size_t)1 << sew);
    return v;
}

static void put(struct ref *r, unsigned i, unsigned sew, uint64_t v)
{
    memcpy((uint8_t *)r->c + r->h->d + ((size_t)i << sew), &v, (size_t)1 << sew);
}

static bool bit(const struct ref *r, uint32_t off, unsigned i)
{
    return get(r, off, i / 8, 0) >> i % 8 & 1;
}

static void put_bit(struct ref *r, unsigned i, bool on)
{
    uint8_t *p = (uint8_t *)r->c + r->h->d + i / 8;
    *p = (uint8_t)((*p & ~(1u << i % 8)) | (unsigned)on << i % 8);
}

static int64_t sext(uint64_t v, unsigned sew)
{
    return (int64_t)(v << (64 - (8 << sew))) >> (64 - (8 << sew));
}

static bool active(const struct ref *r, unsigned i)
{
    return (!(r->h->flags & IR_VEC_VL) || i < r->c->vl) &&
           (!(r->h->flags & IR_VEC_MASKED) || bit(r, r->h->m, i));
}

static uint64_t reverse(uint64_t v, unsigned bits)
{
    uint64_t out = 0;
    for (unsigned i = 0; i < bits; i++) {
        out |= (v >> i & 1) << (bits - 1 - i);
    }
    return out;
}

static uint64_t reverse_bytes(uint64_t v, unsigned bytes)
{
    uint64_t out = 0;
    for (unsigned i = 0; i < bytes; i++) {
        out |= (v >> 8 * i & 0xff) << 8 * (bytes - 1 - i);
    }
    return out;
}

static u128 carryless(uint64_t a, uint64_t b)
{
    u128 p = 0;
    for (unsigned i = 0; i < 64; i++) {
        p ^= b >> i & 1 ? (u128)a << i : 0;
    }
    return p;
}

static uint64_t integer(const struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    unsigned sew = h->sew, w = 8u << sew;
    uint64_t a = get(r, h->a, i, sew),
             b = h->flags & IR_VEC_SCALAR ? r->scalar : get(r, h->b, i, sew);
    uint64_t d = get(r, h->d, i, sew), top = UINT64_MAX >> (64 - w), n;
    int64_t sa = sext(a, sew), sb = sext(b, sew);
    b &= top;
    n = b & (w - 1);
    switch (h->op) {
    case IR_VEC_add:
        return a + b;
    case IR_VEC_sub:
        return a - b;
    case IR_VEC_rsub:
        return b - a;
    case IR_VEC_and:
        return a & b;
    case IR_VEC_or:
        return a | b;
    case IR_VEC_xor:
        return a ^ b;
    case IR_VEC_andn:
        return a & ~b;
    case IR_VEC_shl:
        return a << n;
    case IR_VEC_shr:
        return a >> n;
    case IR_VEC_sar:
        return (uint64_t)(sa >> n);
    case IR_VEC_rotl:
        return a << n | (n ? a >> (w - n) : 0);
    case IR_VEC_rotr:
        return a >> n | (n ? a << (w - n) : 0);
    case IR_VEC_mins:
        return sa < sb ? a : b;
    case IR_VEC_minu:
        return a < b ? a : b;
    case IR_VEC_maxs:
        return sa > sb ? a : b;
    case IR_VEC_maxu:
        return a > b ? a : b;
    case IR_VEC_mul:
        return a * b;
    case IR_VEC_mulhs:
        return (uint64_t)((__int128)sa * sb >> w);
    case IR_VEC_mulhu:
        return (uint64_t)((u128)a * b >> w);
    case IR_VEC_mulhsu:
        return (uint64_t)((__int128)sa * (__int128)b >> w);
    case IR_VEC_macc:
        return d + a * b;
    case IR_VEC_nmsac:
        return d - a * b;
    case IR_VEC_madd:
        return d * b + a;
    case IR_VEC_nmsub:
        return a - d * b;
    case IR_VEC_mv:
        return b;
    case IR_VEC_merge:
        return bit(r, h->m, i) ? b : a;
    case IR_VEC_id:
        return i;
    case IR_VEC_brev8:
        return reverse_bytes(reverse(a, w), w / 8);
    case IR_VEC_rev8:
        return reverse_bytes(a, w / 8);
    case IR_VEC_brev:
        return reverse(a, w);
    case IR_VEC_clz:
        return a ? (unsigned)__builtin_clzll(a) - (64 - w) : w;
    case IR_VEC_ctz:
        return a ? (unsigned)__builtin_ctzll(a) : w;
    case IR_VEC_cpop:
        return (unsigned)__builtin_popcountll(a);
    case IR_VEC_clmul:
        return (uint64_t)carryless(a, b);
    case IR_VEC_clmulh:
        return (uint64_t)(carryless(a, b) >> w);
    default: { /* extensions */
        bool sign = h->op >= IR_VEC_sext2;
        unsigned by = h->op - (sign ? IR_VEC_sext2 : IR_VEC_zext2) + 1;
        uint64_t v = get(r, h->a, i, sew - by);
        return sign ? (uint64_t)sext(v, sew - by) : v;
    }
    }
}

static bool compares(const struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    unsigned sew = h->sew;
    uint64_t a = get(r, h->a, i, sew),
             b = h->flags & IR_VEC_SCALAR ? r->scalar : get(r, h->b, i, sew);
    int64_t sa = sext(a, sew), sb = sext(b, sew);
    b &= UINT64_MAX >> (64 - (8 << sew));
    switch (h->op) {
    case IR_VEC_cmpeq:
        return a == b;
    case IR_VEC_cmpne:
        return a != b;
    case IR_VEC_cmplt:
        return sa < sb;
    case IR_VEC_cmpltu:
        return a < b;
    case IR_VEC_cmple:
        return sa <= sb;
    case IR_VEC_cmpleu:
        return a <= b;
    case IR_VEC_cmpgt:
        return sa > sb;
    default:
        return a > b;
    }
}

static bool logic(const struct ref *r, unsigned i)
{
    bool a = bit(r, r->h->a, i), b = bit(r, r->h->b, i);
    switch (r->h->op) {
    case IR_VEC_mand:
        return a && b;
    case IR_VEC_mnand:
        return !(a && b);
    case IR_VEC_mandn:
        return a && !b;
    case IR_VEC_mxor:
        return a != b;
    case IR_VEC_mor:
        return a || b;
    case IR_VEC_mnor:
        return !(a || b);
    case IR_VEC_morn:
        return a || !b;
    default:
        return a == b;
    }
}

static uint64_t bits_of(const struct ref *r)
{
    uint64_t count = 0, first = UINT64_MAX;
    for (unsigned i = 0; i < r->h->n; i++) {
        if (active(r, i) && bit(r, r->h->a, i)) {
            count++;
            first = first == UINT64_MAX ? i : first;
        }
    }
    return r->h->op == IR_VEC_cpopm ? count : first;
}

/* ---- floating point: singles as doubles' neighbours ---- */

#define F(name, a, b)                                                                          \
    (sew == 2 ? sf_f32_##name((uint32_t)(a), (uint32_t)(b), s) : sf_f64_##name(a, b, s))
#define FMA(a, b, c, neg)                                                                      \
    (sew == 2 ? sf_f32_fma((uint32_t)(a), (uint32_t)(b), (uint32_t)(c), neg, s)                \
              : sf_f64_fma(a, b, c, neg, s))

static uint64_t f_scalar(const struct ref *r, unsigned sew)
{
    return sew == 2 && r->scalar >> 32 != 0xffffffff ? 0x7fc00000 : r->scalar;
}

static uint64_t to_integer(unsigned op, unsigned sew, uint64_t a, struct sf_status *s)
{
    uint64_t v;
    s->rm = op >= IR_VEC_fcvt_s_f_rtz ? SF_RTZ : SF_RNE;
    if (op == IR_VEC_fcvt_s_f || op == IR_VEC_fcvt_s_f_rtz) {
        v = sew == 2 ? (uint32_t)sf_f32_to_i32((uint32_t)a, s) : (uint64_t)sf_f64_to_i64(a, s);
    } else {
        v = sew == 2 ? sf_f32_to_u32((uint32_t)a, s) : sf_f64_to_u64(a, s);
    }
    s->rm = SF_RNE;
    return v;
}

static uint64_t floating(struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    struct sf_status *s = &r->fp;
    unsigned sew = h->sew;
    uint64_t sign = 1ull << ((8 << sew) - 1);
    uint64_t a = get(r, h->a, i, sew), d = get(r, h->d, i, sew);
    uint64_t b = h->flags & IR_VEC_SCALAR ? f_scalar(r, sew) : get(r, h->b, i, sew);
    switch (h->op) {
    case IR_VEC_fadd:
        return F(add, a, b);
    case IR_VEC_fsub:
        return F(sub, a, b);
    case IR_VEC_frsub:
        return F(sub, b, a);
    case IR_VEC_fmul:
        return F(mul, a, b);
    case IR_VEC_fdiv:
        return F(div, a, b);
    case IR_VEC_frdiv:
        return F(div, b, a);
    case IR_VEC_fsqrt:
        return sew == 2 ? sf_f32_sqrt((uint32_t)a, s) : sf_f64_sqrt(a, s);
    case IR_VEC_fmin:
        return F(min, a, b);
    case IR_VEC_fmax:
        return F(max, a, b);
    case IR_VEC_fsgnj:
        return (a & ~sign) | (b & sign);
    case IR_VEC_fsgnjn:
        return (a & ~sign) | (~b & sign);
    case IR_VEC_fsgnjx:
        return a ^ (b & sign);
    case IR_VEC_fmacc:
        return FMA(a, b, d, 0);
    case IR_VEC_fnmacc:
        return FMA(a, b, d, SF_NEG_PRODUCT | SF_NEG_ADDEND);
    case IR_VEC_fmsac:
        return FMA(a, b, d, SF_NEG_ADDEND);
    case IR_VEC_fnmsac:
        return FMA(a, b, d, SF_NEG_PRODUCT);
    case IR_VEC_fmadd:
        return FMA(d, b, a, 0);
    case IR_VEC_fnmadd:
        return FMA(d, b, a, SF_NEG_PRODUCT | SF_NEG_ADDEND);
    case IR_VEC_fmsub:
        return FMA(d, b, a, SF_NEG_ADDEND);
    case IR_VEC_fnmsub:
        return FMA(d, b, a, SF_NEG_PRODUCT);
    case IR_VEC_fcvt_f_s:
        return sew == 2 ? sf_f32_from_i64((int32_t)a, s) : sf_f64_from_i64((int64_t)a, s);
    case IR_VEC_fcvt_f_u:
        return sew == 2 ? sf_f32_from_u64((uint32_t)a, s) : sf_f64_from_u64(a, s);
    default:
        return to_integer(h->op, sew, a, s);
    }
}

static bool float_compares(struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    struct sf_status *s = &r->fp;
    unsigned sew = h->sew;
    bool quiet = h->op == IR_VEC_fcmpeq || h->op == IR_VEC_fcmpne;
    uint64_t a = get(r, h->a, i, sew),
             b = h->flags & IR_VEC_SCALAR ? f_scalar(r, sew) : get(r, h->b, i, sew);
    enum sf_order o = sew == 2 ? sf_f32_cmp((uint32_t)a, (uint32_t)b, !quiet, s)
                               : sf_f64_cmp(a, b, !quiet, s);
    switch (h->op) {
    case IR_VEC_fcmpeq:
        return o == SF_EQUAL;
    case IR_VEC_fcmpne:
        return o != SF_EQUAL;
    case IR_VEC_fcmplt:
        return o == SF_LESS;
    case IR_VEC_fcmple:
        return o == SF_LESS || o == SF_EQUAL;
    case IR_VEC_fcmpgt:
        return o == SF_GREATER;
    default:
        return o == SF_GREATER || o == SF_EQUAL;
    }
}

/* ---- wider and narrower ---- */

static uint64_t extended(const struct ref *r, uint32_t off, unsigned i, bool sign)
{
    uint64_t v = get(r, off, i, r->h->sew);
    return sign ? (uint64_t)sext(v, r->h->sew) : v;
}

static uint64_t as_double(struct ref *r, uint32_t off, unsigned i, bool scalar)
{
    return sf_f32_to_f64((uint32_t)(scalar ? f_scalar(r, 2) : get(r, off, i, 2)), &r->fp);
}

static uint64_t widened(struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    static const struct {
        uint8_t op;
        bool sa, sb;
    } signs[] = {
        { IR_VEC_wadds, 1, 1 },   { IR_VEC_wsubs, 1, 1 },   { IR_VEC_wadds_w, 1, 1 },
        { IR_VEC_wsubs_w, 1, 1 }, { IR_VEC_wmuls, 1, 1 },   { IR_VEC_wmulsu, 1, 0 },
        { IR_VEC_wmaccs, 1, 1 },  { IR_VEC_wmaccsu, 0, 1 }, { IR_VEC_wmaccus, 1, 0 }
    };
    bool sa = false, sb = false, scalar = h->flags & IR_VEC_SCALAR;
    for (unsigned k = 0; k < ARRAY_LEN(signs); k++) {
        if (signs[k].op == h->op) {
            sa = signs[k].sa;
            sb = signs[k].sb;
        }
    }
    if (h->op >= IR_VEC_fwcvt_f_f) {
        switch (h->op) {
        case IR_VEC_fwcvt_f_f:
            return as_double(r, h->a, i, false);
        case IR_VEC_fwcvt_f_s:
            return sf_f64_from_i64((int32_t)get(r, h->a, i, 2), &r->fp);
        case IR_VEC_fwcvt_f_u:
            return sf_f64_from_u64(get(r, h->a, i, 2), &r->fp);
        default:
            break;
        }
        uint64_t a = as_double(r, h->a, i, false), b = as_double(r, h->b, i, scalar),
                 d = get(r, h->d, i, 3);
        switch (h->op) {
        case IR_VEC_fwadd:
            return sf_f64_add(a, b, &r->fp);
        case IR_VEC_fwsub:
            return sf_f64_sub(a, b, &r->fp);
        case IR_VEC_fwmul:
            return sf_f64_mul(a, b, &r->fp);
        case IR_VEC_fwmacc:
            return sf_f64_fma(a, b, d, 0, &r->fp);
        case IR_VEC_fwnmacc:
            return sf_f64_fma(a, b, d, SF_NEG_PRODUCT | SF_NEG_ADDEND, &r->fp);
        case IR_VEC_fwmsac:
            return sf_f64_fma(a, b, d, SF_NEG_ADDEND, &r->fp);
        default:
            return sf_f64_fma(a, b, d, SF_NEG_PRODUCT, &r->fp);
        }
    }
    bool wide_a = h->op >= IR_VEC_wadds_w && h->op <= IR_VEC_wsubu_w;
    uint64_t a = wide_a ? get(r, h->a, i, h->sew + 1u) : extended(r, h->a, i, sa);
    uint64_t b = !scalar ? extended(r, h->b, i, sb)
                 : sb    ? (uint64_t)sext(r->scalar, h->sew)
                         : r->scalar & (UINT64_MAX >> (64 - (8 << h->sew)));
    uint64_t d = get(r, h->d, i, h->sew + 1u);
    switch (h->op) {
    case IR_VEC_wadds:
    case IR_VEC_waddu:
    case IR_VEC_wadds_w:
    case IR_VEC_waddu_w:
        return a + b;
    case IR_VEC_wsubs:
    case IR_VEC_wsubu:
    case IR_VEC_wsubs_w:
    case IR_VEC_wsubu_w:
        return a - b;
    case IR_VEC_wshl:
        return a << (b & ((16u << h->sew) - 1));
    case IR_VEC_wmuls:
    case IR_VEC_wmulu:
    case IR_VEC_wmulsu:
        return a * b;
    default:
        return d + a * b;
    }
}

static uint64_t narrowed(struct ref *r, unsigned i)
{
    const struct ir_vec *h = r->h;
    uint64_t a = get(r, h->a, i, h->sew + 1u),
             b = h->flags & IR_VEC_SCALAR ? r->scalar : get(r, h->b, i, h->sew);
    b &= (16u << h->sew) - 1;
    switch (h->op) {
    case IR_VEC_nshr:
        return a >> b;
    case IR_VEC_nsar:
        return (uint64_t)(sext(a, h->sew + 1u) >> b);
    default:
        return sf_f64_to_f32(a, &r->fp);
    }
}

/* ---- reductions and permutations ---- */

static void reduce(struct ref *r)
{
    const struct ir_vec *h = r->h;
    bool wide = h->op >= IR_VEC_wredsums;
    unsigned sew = h->sew + wide;
    uint64_t acc = get(r, h->b, 0, sew);
    if (h->flags & IR_VEC_VL && r->c->vl == 0) {
        return;
    }
    for (unsigned i = 0; i < h->n; i++) {
        if (!active(r, i)) {
            continue;
        }
        uint64_t a = extended(r, h->a, i, h->op == IR_VEC_wredsums);
        int64_t sa = sext(a, sew), s = sext(acc, sew);
        switch (h->op) {
        case IR_VEC_redand:
            acc &= a;
            break;
        case IR_VEC_redor:
            acc |= a;
            break;
        case IR_VEC_redxor:
            acc ^= a;
            break;
        case IR_VEC_redmins:
            acc = sa < s ? a : acc;
            break;
        case IR_VEC_redminu:
            acc = a < acc ? a : acc;
            break;
        case IR_VEC_redmaxs:
            acc = sa > s ? a : acc;
            break;
        case IR_VEC_redmaxu:
            acc = a > acc ? a : acc;
            break;
        default:
            acc += a;
        }
    }
    put(r, 0, sew, acc);
}

static void reduce_float(struct ref *r)
{
    const struct ir_vec *h = r->h;
    struct sf_status *s = &r->fp;
    unsigned sew = h->sew;
    uint64_t acc = get(r, h->b, 0, sew);
    for (unsigned i = 0; i < h->n; i++) {
        uint64_t a = get(r, h->a, i, sew);
        acc = h->op == IR_VEC_fredmin   ? F(min, acc, a)
              : h->op == IR_VEC_fredmax ? F(max, acc, a)
                                        : F(add, acc, a);
    }
    put(r, 0, sew, acc);
}

static void permute(struct ref *r)
{
    const struct ir_vec *h = r->h;
    unsigned sew = h->sew, n = h->n, out = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t v = 0, at;
        bool write = active(r, i);
        switch (h->op) {
        case IR_VEC_slide1up:
            v = i ? get(r, h->a, i - 1, sew) : r->scalar;
            break;
        case IR_VEC_slide1down:
            v = i + 1 < n ? get(r, h->a, i + 1, sew) : r->scalar;
            break;
        case IR_VEC_slideup:
            write = write && i >= r->scalar;
            v = write ? get(r, h->a, i - (unsigned)r->scalar, sew) : 0;
            break;
        case IR_VEC_slidedown:
            v = r->scalar < n && i + r->scalar < n ? get(r, h->a, i + (unsigned)r->scalar, sew)
                                                   : 0;
            break;
        case IR_VEC_compress:
            if (bit(r, h->b, i)) {
                put(r, out++, sew, get(r, h->a, i, sew));
            }
            continue;
        default:
            at = h->flags & IR_VEC_SCALAR ? r->scalar
                                          : get(r, h->b, i, h->op == IR_VEC_gather16 ? 1 : sew);
            v = at < n ? get(r, h->a, (unsigned)at, sew) : 0;
        }
        if (write) {
            put(r, i, sew, v);
        }
    }
}

static void group(struct ref *r, unsigned g)
{
    const struct ir_vec *h = r->h;
    uint32_t d[4], a[4], b[4];
    memcpy(d, r->old + h->d - V_OFFSET + g * 16, 16);
    memcpy(a, r->old + h->a - V_OFFSET + (h->flags & IR_VEC_GROUP0 ? 0 : g * 16), 16);
    memcpy(b, r->old + h->b - V_OFFSET + g * 16, 16);
    vec_hints_group(h->op, d, a, b);
    memcpy((uint8_t *)r->c + h->d + g * 16, d, 16);
}

static uint64_t define(void *cpu, uint64_t index, uint64_t scalar, uint64_t unused)
{
    struct ref r = { .c = cpu, .h = &table[index], .scalar = scalar };
    const struct ir_vec *h = r.h;
    char kind = ir_vec_info[h->op].kind;
    (void)unused;
    memcpy(r.old, r.c->v, FILE_SIZE);
    for (unsigned i = 0; i < h->n && strchr("ECLWNFG", kind); i++) {
        if (!active(&r, i)) {
            continue;
        }
        switch (kind) {
        case 'E':
            put(&r, i, h->sew, integer(&r, i));
            break;
        case 'C':
            put_bit(&r, i, compares(&r, i));
            break;
        case 'L':
            put_bit(&r, i, logic(&r, i));
            break;
        case 'W':
            put(&r, i, h->sew + 1u, widened(&r, i));
            break;
        case 'N':
            put(&r, i, h->sew, narrowed(&r, i));
            break;
        case 'F':
            put(&r, i, h->sew, floating(&r, i));
            break;
        default:
            put_bit(&r, i, float_compares(&r, i));
        }
    }
    for (unsigned g = 0; kind == 'A' && g < h->n / 4u; g++) {
        group(&r, g);
    }
    if (kind == 'R') {
        reduce(&r);
    } else if (kind == 'P') {
        permute(&r);
    } else if (kind == 'H') {
        reduce_float(&r);
    }
    r.c->fflags |= r.fp.flags;
    return kind == 'X' ? bits_of(&r) : 0;
}

/* ---- the toy ----------------------------------------------------------------------------- */

/* custom-0, imm: the operation of that row; x5 or f5 is the scalar, x10 + row the result. custom-1: a constant scalar. */
static bool toy_translate(struct tcg_trans *t)
{
    uint32_t bits = tcg_fetch32(t, t->off), row = bits >> 20, opcode = bits & 0x7f;
    if (opcode != 0x0b && opcode != 0x2b) {
        return riscv64_guest.translate(t);
    }
    t->next_off = t->off + 4;
    const struct ir_vec *h = &table[row];
    char kind = ir_vec_info[h->op].kind;
    bool fp = ir_vec_info[h->op].name[0] == 'f' && kind != 'X';
    struct riscv_cpu *c = t->cpu;
    ir_ref scalar = opcode == 0x2b ? ir_const(t->ir, fp ? c->f[5] : c->x[5])
                    : fp ? get_f(t, 5)
                                   : get_x(t, 5);
    ir_ref result = ir_call(t->ir, define, IR_CALL_READS, kind == 'X', ir_const(t->ir, row),
                            scalar, IR_NONE);
    ir_vec_hint(t->ir, h);
    if (kind == 'X') {
        ir_set(t->ir, RISCV_GLOBAL_X1 + 9 + row, result);
    }
    return true;
}

static struct tcg_guest toy;

struct machine {
    struct vm *vm;
    struct mem_region *ram;
    struct tcg_config config;
    struct riscv_cpu *cpu;
};
static struct loop *loop;
static struct machine jit, oracle;

static void make(struct machine *m, enum tcg_backend backend, unsigned off)
{
    struct err e = ERR_INIT;
    m->config = (struct tcg_config){
        .cache_size = 1u << 20, .backend = backend, .check = true, .host_features_off = off
    };
    ck_assert_msg(
        vm_new("hints", &riscv64_arch, &tcg_engine_ops, loop, &m->config, &m->vm, &e) == 0,
        "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &m->ram, &e), 0);
    ck_assert_int_eq(mem_map(m->vm->root, RAM_BASE, 0, m->ram, &e), 0);
    ck_assert_msg(vm_add_vcpus(m->vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(m->vm->mem);
    m->cpu = m->vm->vcpus[0]->cpu;
    m->vm->arch->cpu_reset(m->vm->vcpus[0]);
    toy = riscv64_guest;
    toy.translate = toy_translate;
    toy.variant_offset = 0;
    ((struct tcg_vm *)m->vm->engine_data)->guest = &toy;
}

static uint32_t random_single(uint64_t r)
{
    switch (r >> 32 & 15) {
    case 0:
        return (uint32_t)r;
    case 1:
        return (uint32_t)r & 0x807fffff;
    case 2:
        return (uint32_t)r & 0x80000000;
    case 3:
        return ((uint32_t)r & 0x80000000) | 0x7f800000 |
               (r >> 40 & 7 ? 0 : ((uint32_t)r & 0x7fffff));
    case 4:
        return (uint32_t)r & 0x81ffffff; /* around the smallest normal number */
    case 5:
        return ((uint32_t)r & 0x807fffff) | 0x7f000000;
    case 6:
        return ((uint32_t)r & 0x807fffff) | 0x20000000; /* products are tiny */
    default:
        return ((uint32_t)r & 0x83ffffff) | 0x3c000000;
    }
}

static uint64_t random_element(unsigned style)
{
    uint64_t r = draw(), s = draw();
    switch (style) {
    case 0:
        return s;
    case 1:
        return ((s & 0x800fffffffffffff) | 0x3fe0000000000000) +
               ((r & 7) << 52); /* all near one */
    case 2:
        return (s & 0x83ffffff83ffffff) | 0x3c0000003c000000;
    case 3:
        return r & 1 ? s & 0x801fffffffffffff : (s & 0x800fffffffffffff) | 0x7fe0000000000000;
    case 4:
        return (r & 0x0f0f0f0f0f0f0f0f) &
               (s | 0x0f0f00000f0f0000); /* small: indices, equal ones */
    default:
        return random_single(s) | (uint64_t)random_single(r) << 32;
    }
}

/* Aligned as registers of 32 bytes are, groups as large as they need; d apart from the sources or the same. */
static void make_hint(struct ir_vec *h, unsigned op)
{
    char kind = ir_vec_info[op].kind;
    uint64_t r = draw();
    unsigned max_log;
    memset(h, 0, sizeof(*h));
    h->op = (uint8_t)op;
    h->arg = 1;
    h->sew = (uint8_t)(r & 3);
    bool fp = ir_vec_info[op].name[0] == 'f' && kind != 'X';
    if (fp) {
        h->sew = (uint8_t)(2 + (r & 1));
    }
    if (kind == 'W' || kind == 'N' || op >= IR_VEC_wredsums) {
        h->sew = fp ? 2 : h->sew % 3;
    }
    if (op == IR_VEC_wredsums || op == IR_VEC_wredsumu) {
        h->sew %= 3;
    }
    if (op >= IR_VEC_zext2 && op <= IR_VEC_sext8) {
        unsigned by = (op - IR_VEC_zext2) % 3 + 1;
        h->sew = (uint8_t)(h->sew < by ? by : h->sew);
    }
    if (kind == 'A' || op == IR_VEC_clmul || op == IR_VEC_clmulh) {
        h->sew = kind == 'A' ? 2 : 3;
    }
    if (kind == 'L' || kind == 'X') {
        h->sew = 0;
    }
    max_log = 8u - h->sew; /* 256 bytes */
    unsigned log = kind == 'A' ? 2 + (unsigned)(r >> 8) % (max_log - 1)
                               : (unsigned)(r >> 8) % (max_log + 1);
    h->n = (uint16_t)(1u << log);
    bool two = strchr("ECWNFG", kind) && op != IR_VEC_merge;
    h->flags |= (two || op == IR_VEC_merge || op == IR_VEC_gather) && r >> 16 & 1
                    ? IR_VEC_SCALAR
                    : 0;
    if (op >= IR_VEC_slide1up && op <= IR_VEC_slidedown) {
        h->flags |= IR_VEC_SCALAR;
    }
    if (strchr("ECWNFGRPX", kind) && op != IR_VEC_merge && op != IR_VEC_compress &&
        (r >> 17 & 3) == 0) {
        h->flags |= IR_VEC_MASKED;
    }
    if (strchr("ECLWNFGRX", kind) && (r >> 19 & 3) == 0) {
        h->flags |= IR_VEC_VL;
    }
    h->flags |= kind == 'A' && op <= IR_VEC_aesz && r >> 21 & 1 ? IR_VEC_GROUP0 : 0;
    /* Eight places of 512 bytes; the mask in the first. */
    h->m = V_OFFSET;
    h->d = V_OFFSET + 512 + 512 * (uint32_t)(r >> 24 & 1);
    h->a = V_OFFSET + 1536 + 512 * (uint32_t)(r >> 25 & 1);
    h->b = V_OFFSET + 2560 + 512 * (uint32_t)(r >> 26 & 1);
    bool same = strchr("ELFGA", kind) || op == IR_VEC_slide1down || op == IR_VEC_slidedown;
    if (same && r >> 27 & 1 && !(op >= IR_VEC_zext2 && op <= IR_VEC_sext8)) {
        h->a = h->d;
    }
    if (strchr("EF", kind) && (r >> 28 & 3) == 0) {
        h->b = r >> 30 & 1 ? h->a : h->d;
    }
}

static void fill(uint64_t seed, struct riscv_cpu *c)
{
    uint64_t saved = state;
    state = seed;
    unsigned style = (unsigned)draw() % 7;
    for (unsigned i = 0; i < FILE_SIZE; i += 8) {
        uint64_t v = random_element(i < 512 ? 0 : style);
        memcpy(c->v + i, &v, 8);
    }
    uint64_t n = draw();
    c->vl = (n >> 8) % (vl_max + 1);
    c->x[5] = draw() & 1 ? random_element(4) & 0x3f : random_element(5);
    c->f[5] = draw() & 1 ? random_element(5) : 0xffffffff00000000 | random_single(draw());
    c->fflags = draw() & 1 ? (uint8_t)(draw() & 31) | 1
                           : (uint8_t)(draw() & 1 ? 0 : draw() & 31);
    c->mstatus |= MSTATUS_FS;
    c->priv = RISCV_M;
    state = saved;
}

static void go(struct machine *m, const uint32_t *code, unsigned n, uint64_t seed)
{
    memcpy(mem_ram_host(m->ram), code, n * 4);
    mem_written(m->vm->mem, RAM_BASE, n * 4);
    memset(m->cpu->x, 0, sizeof(m->cpu->x));
    fill(seed, m->cpu);
    m->cpu->pc = RAM_BASE;
    m->vm->engine->regs_put(m->vm->vcpus[0]);
    while (m->vm->engine->run(m->vm->vcpus[0]) != VCPU_EXIT_HALT) {
    }
}

static void describe(char *out, size_t n, unsigned ops)
{
    size_t at = 0;
    for (unsigned i = 0; i < ops; i++) {
        const struct ir_vec *h = &table[i];
        at += (size_t)snprintf(out + at, n - at, " %s n=%u sew=%u flags=%u d=%u a=%u b=%u;",
                               ir_vec_info[h->op].name, h->n, 8u << h->sew, h->flags,
                               h->d - V_OFFSET, h->a - V_OFFSET, h->b - V_OFFSET);
    }
}

/* Is it given to the back end at all? Not those that have no definition here. */
static bool defined(unsigned op)
{
    char kind = ir_vec_info[op].kind;
    return kind != 'M' && op != IR_VEC_aeskf1 && op != IR_VEC_aeskf2 && op != IR_VEC_ghsh &&
           op != IR_VEC_gmul;
}

static void campaign(unsigned off, unsigned rounds)
{
    struct err e = ERR_INIT;
    state = test_seed();
    loop = loop_new(&e);
    make(&jit, TCG_JIT, off);
    make(&oracle, TCG_INTERP, 0);
    for (unsigned n = 0; n < rounds * IR_N_VEC_OPS; n++) {
        uint32_t code[OPS + 1];
        char text[1024];
        uint64_t seed = draw() | 1;
        unsigned ops = 1 + (unsigned)draw() % OPS;
        for (unsigned i = 0; i < ops; i++) {
            unsigned op = i == 0 ? n % IR_N_VEC_OPS : (unsigned)draw() % IR_N_VEC_OPS;
            make_hint(&table[i], defined(op) ? op : IR_VEC_add);
            code[i] = (draw() & 3 ? 0x0bu : 0x2bu) | i << 20;
        }
        vl_max = 256;
        for (unsigned i = 0; i < ops; i++) {
            vl_max = table[i].flags & IR_VEC_VL && table[i].n < vl_max ? table[i].n : vl_max;
        }
        code[ops] = WFI;
        fill(seed, jit.cpu); /* constants are taken at translation */
        fill(seed, oracle.cpu);
        go(&jit, code, ops + 1, seed);
        go(&oracle, code, ops + 1, seed);
        describe(text, sizeof(text), ops);
        unsigned at = 0; /* each ck_assert() writes to a pipe */
        while (at < FILE_SIZE - 1 && jit.cpu->v[at] == oracle.cpu->v[at]) {
            at++;
        }
        ck_assert_msg(jit.cpu->v[at] == oracle.cpu->v[at],
                      "byte %u: %02x, should be %02x (case %u):%s", at, jit.cpu->v[at],
                      oracle.cpu->v[at], n, text);
        ck_assert_msg(jit.cpu->fflags == oracle.cpu->fflags,
                      "flags %x, should be %x (case %u):%s", jit.cpu->fflags,
                      oracle.cpu->fflags, n, text);
        ck_assert_msg(!memcmp(jit.cpu->x, oracle.cpu->x, sizeof(jit.cpu->x)),
                      "x registers (case %u):%s", n, text);
    }
    vm_free(jit.vm);
    vm_free(oracle.vm);
    mem_free(jit.ram);
    mem_free(oracle.ram);
    loop_free(loop);
}

START_TEST(the_host_code_agrees_with_the_definition)
{
    campaign(0, 80);
}
END_TEST

START_TEST(without_avx512_it_agrees_too)
{
    campaign(2, 20);
}
END_TEST

START_TEST(without_vectors_the_helpers_run)
{
    campaign(1, 1);
}
END_TEST

/* More host code than a region of the cache holds: the block is cut. */
START_TEST(a_block_of_large_operations_fits_a_small_cache)
{
    struct err e = ERR_INIT;
    uint32_t code[61];
    uint64_t seed = 77;
    state = test_seed();
    loop = loop_new(&e);
    make(&jit, TCG_JIT, 0);
    make(&oracle, TCG_INTERP, 0);
    vl_max = 16;
    for (unsigned i = 0; i < OPS; i++) {
        make_hint(&table[i], i % 2 ? IR_VEC_fmacc : IR_VEC_macc);
        table[i].sew = 3;
        table[i].n = 64; /* 512 bytes */
        table[i].flags = IR_VEC_MASKED | IR_VEC_VL;
    }
    for (unsigned i = 0; i < 60; i++) {
        code[i] = 0x0bu | i % OPS << 20;
    }
    code[60] = WFI;
    for (unsigned round = 0; round < 20; round++) {
        go(&jit, code, 61, seed);
        go(&oracle, code, 61, seed);
        ck_assert(!memcmp(jit.cpu->v, oracle.cpu->v, FILE_SIZE));
        ck_assert_uint_eq(jit.cpu->fflags, oracle.cpu->fflags);
    }
    vm_free(jit.vm);
    vm_free(oracle.vm);
    mem_free(jit.ram);
    mem_free(oracle.ram);
    loop_free(loop);
}
END_TEST

static Suite *suite_hints(void)
{
    Suite *s = suite_create("vector hints");
    TCase *c = tcase_create("random");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, the_host_code_agrees_with_the_definition);
    tcase_add_test(c, without_avx512_it_agrees_too);
    tcase_add_test(c, without_vectors_the_helpers_run);
    tcase_add_test(c, a_block_of_large_operations_fits_a_small_cache);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_hints, NULL);
}
