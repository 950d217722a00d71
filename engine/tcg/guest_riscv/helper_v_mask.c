/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector mask instructions (V 1.0, section 15), permutations (section 16) and integer reductions (section 14). They
 * look at more than one element at a time, so each has a driver of its own. vCPU thread.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"

#include <string.h>

/* ---- logical operations on masks: op->param is the truth table of (vs2, vs1), bit 2 * vs2 + vs1 ---- */

static uint8_t mask_byte(unsigned table, uint8_t a, uint8_t b)
{
    unsigned r = 0;

    r |= table & 1 ? ~a & ~b & 0xffu : 0;
    r |= table & 2 ? ~a & b & 0xffu : 0;
    r |= table & 4 ? a & ~b & 0xffu : 0;
    r |= table & 8 ? a & b & 0xffu : 0;
    return (uint8_t)r;
}

uint64_t v_run_mask_logic(struct v_args *v)
{
    size_t i = v->vstart;

    for (; i < v->vl && i % 8; i++) {
        v_bit_put(v->d, i, mask_byte(v->op->param, v->s2[i / 8], v->s1[i / 8]) >> i % 8 & 1);
    }
    for (; i + 8 <= v->vl; i += 8) {
        v->d[i / 8] = mask_byte(v->op->param, v->s2[i / 8], v->s1[i / 8]);
    }
    for (; i < v->vl; i++) {
        v_bit_put(v->d, i, mask_byte(v->op->param, v->s2[i / 8], v->s1[i / 8]) >> i % 8 & 1);
    }
    return 0;
}

/* Bits [8 * n, 8 * n + 64) of the active part of mask vs2, up to vl. */
static uint64_t mask_word(const struct v_args *v, size_t n)
{
    uint64_t word = 0, only = UINT64_MAX;
    size_t bytes = (v->vl + 7) / 8 - n;

    bytes = bytes < 8 ? bytes : 8;
    memcpy(&word, v->s2 + n, bytes);
    if (v->masked) {
        memcpy(&only, v->c->v + n, bytes);
    }
    word &= only;
    if (v->vl - 8 * n < 64) {
        word &= ((uint64_t)1 << (v->vl - 8 * n)) - 1;
    }
    return word;
}

uint64_t v_run_cpop(struct v_args *v)
{
    uint64_t count = 0;

    for (size_t n = 0; 8 * n < v->vl; n += 8) {
        count += (unsigned)__builtin_popcountll(mask_word(v, n));
    }
    return count;
}

uint64_t v_run_first(struct v_args *v)
{
    for (size_t n = 0; 8 * n < v->vl; n += 8) {
        uint64_t word = mask_word(v, n);
        if (word) {
            return 8 * n + (unsigned)__builtin_ctzll(word);
        }
    }
    return UINT64_MAX;
}

/* vmsbf, vmsif, vmsof: param is 1 for elements before the first one, 2 for the first one, as a set. */
uint64_t v_run_set_first(struct v_args *v)
{
    uint64_t first = v_run_first(v);

    for (size_t i = 0; i < v->vl; i++) {
        if (v_active(v, i)) {
            v_bit_put(v->d, i, i < first ? v->op->param & 1 : i == first && (v->op->param & 2));
        }
    }
    return 0;
}

uint64_t v_run_iota(struct v_args *v)
{
    uint64_t count = 0;

    for (size_t i = 0; i < v->vl; i++) {
        if (v_active(v, i)) {
            v_put(v->d, i, v->sew, count);
            count += v_bit(v->s2, i);
        }
    }
    return 0;
}

uint64_t v_run_id(struct v_args *v)
{
    for (size_t i = v->vstart; i < v->vl; i++) {
        if (v_active(v, i)) {
            v_put(v->d, i, v->sew, i);
        }
    }
    return 0;
}

/* ---- element 0 and scalars ---- */

uint64_t v_run_to_x(struct v_args *v)
{
    return (uint64_t)v_sext(v_get(v->s2, 0, v->sew), v->sew);
}

uint64_t v_run_to_f(struct v_args *v)
{
    uint64_t value = v_get(v->s2, 0, v->sew);

    return v->sew == 3 ? value : value | UINT64_MAX << (8u << v->sew);
}

uint64_t v_run_from_scalar(struct v_args *v)
{
    if (v->vstart < v->vl) {
        v_put(v->d, 0, v->sew, v->scalar);
    }
    return 0;
}

uint64_t v_run_whole(struct v_args *v)
{
    size_t size = (size_t)(v_vs1(v->insn) + 1) * v->c->vlenb, first = v->vstart << v->sew;

    if (first < size) {
        memmove(v->d + first, v->s2 + first, size - first);
    }
    return 0;
}

/* ---- slides ---- */

/* d[i] = s2[i + by] for active i of [first, end). */
static void slide(struct v_args *v, size_t first, size_t end, int64_t by)
{
    const uint8_t *from = v->s2 + by * ((int64_t)1 << v->sew);

    if (first >= end) {
        return;
    }
    if (!v->masked) {
        memmove(v->d + (first << v->sew), from + (first << v->sew), (end - first) << v->sew);
        return;
    }
    for (size_t i = first; i < end; i++) {
        if (v_bit(v->c->v, i)) {
            v_put(v->d, i, v->sew, v_get(from, i, v->sew));
        }
    }
}

static size_t max_of(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t vlmax(const struct v_args *v)
{
    return riscv_vlmax(v->c->vtype, v->c->vlenb);
}

/* The scalar of a slide is an XLEN-bit unsigned number. */
static uint64_t offset_of(const struct v_args *v)
{
    return v->c->xlen == 32 ? (uint32_t)v->scalar : v->scalar;
}

uint64_t v_run_slideup(struct v_args *v)
{
    uint64_t by = offset_of(v);

    if (by < v->vl) {
        slide(v, max_of(v->vstart, by), v->vl, -(int64_t)by);
    }
    return 0;
}

uint64_t v_run_slidedown(struct v_args *v)
{
    uint64_t by = offset_of(v);
    size_t max = vlmax(v), inside = by < max ? max - by : 0;
    size_t end = inside < v->vl ? inside : v->vl;

    slide(v, v->vstart, end, (int64_t)(by < max ? by : 0));
    for (size_t i = max_of(end, v->vstart); i < v->vl; i++) {
        if (v_active(v, i)) {
            v_put(v->d, i, v->sew, 0);
        }
    }
    return 0;
}

uint64_t v_run_slide1up(struct v_args *v)
{
    slide(v, max_of(v->vstart, 1), v->vl, -1);
    if (v->vstart == 0 && v->vl > 0 && v_active(v, 0)) {
        v_put(v->d, 0, v->sew, v->scalar);
    }
    return 0;
}

uint64_t v_run_slide1down(struct v_args *v)
{
    if (v->vstart >= v->vl) {
        return 0;
    }
    slide(v, v->vstart, v->vl - 1, 1);
    if (v_active(v, v->vl - 1)) {
        v_put(v->d, v->vl - 1, v->sew, v->scalar);
    }
    return 0;
}

/* ---- gathers ---- */

/* param: the indexes have 16 bits. */
uint64_t v_run_gather(struct v_args *v)
{
    size_t max = vlmax(v);
    unsigned width = v->op->shape.s1 == V_INDEX16 && v->s1 ? 1 : v->sew;

    for (size_t i = v->vstart; i < v->vl; i++) {
        if (v_active(v, i)) {
            uint64_t from = v->s1 ? v_get(v->s1, i, width) : offset_of(v);
            v_put(v->d, i, v->sew, from < max ? v_get(v->s2, from, v->sew) : 0);
        }
    }
    return 0;
}

uint64_t v_run_compress(struct v_args *v)
{
    size_t to = 0;

    for (size_t i = 0; i < v->vl; i++) {
        if (v_bit(v->s1, i)) {
            v_put(v->d, to++, v->sew, v_get(v->s2, i, v->sew));
        }
    }
    return 0;
}

/* ---- integer reductions: d[0] = OP over s1[0] and the active elements of s2 ---- */

V_KERNELS_BEGIN

/* The kernel's d is the accumulator, a the elements; b is not used. */
#define REDUCE_ONE(NAME, TD, TA, EXPR)                                                         \
    static void NAME(void *d_, const void *a_, const void *b, size_t n, struct v_ctx *x)       \
    {                                                                                          \
        const TA *a = a_;                                                                      \
        TD r = *(TD *)d_;                                                                      \
        (void)b;                                                                               \
        (void)x;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            TD p = (TD)a[i];                                                                   \
            r = (TD)(EXPR);                                                                    \
        }                                                                                      \
        *(TD *)d_ = r;                                                                         \
    }
#define REDUCE(NAME, S, EXPR)                                                                  \
    REDUCE_ONE(NAME##_8, S##8, S##8, EXPR)                                                     \
    REDUCE_ONE(NAME##_16, S##16, S##16, EXPR)                                                  \
    REDUCE_ONE(NAME##_32, S##32, S##32, EXPR)                                                  \
    REDUCE_ONE(NAME##_64, S##64, S##64, EXPR)                                                  \
    const v_kernel NAME[4] = { NAME##_8, NAME##_16, NAME##_32, NAME##_64 };
REDUCE(vk_redsum, v_u, r + p)
REDUCE(vk_redand, v_u, r &p)
REDUCE(vk_redor, v_u, r | p)
REDUCE(vk_redxor, v_u, r ^ p)
REDUCE(vk_redminu, v_u, r < p ? r : p)
REDUCE(vk_redmin, v_s, r < p ? r : p)
REDUCE(vk_redmaxu, v_u, r > p ? r : p)
REDUCE(vk_redmax, v_s, r > p ? r : p)
REDUCE_ONE(wredsumu_8, v_u16, v_u8, r + p)
REDUCE_ONE(wredsumu_16, v_u32, v_u16, r + p)
REDUCE_ONE(wredsumu_32, v_u64, v_u32, r + p)
/* Signed elements, sums that wrap. */
REDUCE_ONE(wredsum_8, v_u16, v_s8, r + p)
REDUCE_ONE(wredsum_16, v_u32, v_s16, r + p)
REDUCE_ONE(wredsum_32, v_u64, v_s32, r + p)
const v_kernel vk_wredsumu[4] = { wredsumu_8, wredsumu_16, wredsumu_32, NULL };
const v_kernel vk_wredsum[4] = { wredsum_8, wredsum_16, wredsum_32, NULL };

V_KERNELS_END

/* param: 1 when the result is twice as wide. Any order may be taken; ours is that of the elements. */
uint64_t v_run_reduce(struct v_args *v)
{
    struct v_ctx x = { .c = v->c, .fp = { .rm = v->c->frm, .flags = v->c->fflags } };
    unsigned wide = v->sew + v->op->param;
    uint64_t sum;

    if (v->vl == 0) {
        return 0;
    }
    v_put(&sum, 0, wide, v_get(v->s1, 0, wide));
    if (!v->masked) {
        v->op->k[v->sew](&sum, v->s2, NULL, v->vl, &x);
    }
    for (size_t i = 0; v->masked && i < v->vl; i++) {
        if (v_bit(v->c->v, i)) {
            v->op->k[v->sew](&sum, v->s2 + (i << v->sew), NULL, 1, &x);
        }
    }
    v_put(v->d, 0, wide, v_get(&sum, 0, wide));
    v->c->fflags = x.fp.flags;
    return 0;
}
