/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector state of a hart (V 1.0): vtype, VLMAX, and vkey, the summary of it that the
 * translator specialises code by. Belongs to the vCPU's thread; see cpu.h.
 */
#ifndef VMD_ARCH_RISCV_VECTOR_H
#define VMD_ARCH_RISCV_VECTOR_H

#include "engine/arch/riscv/cpu.h"

#define RISCV_VTYPE_VILL (1ull << 63) /* in riscv_cpu.vtype, of RV32 too */

/* Bits of riscv_cpu.vkey. */
enum {
    RISCV_VKEY_VTYPE = 0xff, /* vlmul, vsew, vta, vma; 0 when vill */
    RISCV_VKEY_VILL = 1 << 8,
    RISCV_VKEY_FULL = 1 << 9,    /* vl == VLMAX */
    RISCV_VKEY_VSTART = 1 << 10, /* vstart != 0 */
    RISCV_VKEY_VS_SHIFT = 11,    /* mstatus.VS: 0 off, 1 on, 3 dirty */
    RISCV_VKEY_VS = 3 << 11,
    RISCV_VKEY_VS_DIRTY = 3 << 11,
    RISCV_VKEY_VL_SHIFT =
        16, /* log2(vl) + 1 where vl is a power of two below VLMAX and worth telling apart, else 0 */
    RISCV_VKEY_VL = 15 << 16,
    RISCV_VKEY_VALID = 1 << 15, /* always: the translator takes 0 for "unknown" */
};

/* log2 of the element size in bytes, of a vtype without vill. */
static inline unsigned riscv_vsew(uint64_t vtype)
{
    return vtype >> 3 & 7;
}

/* log2 of LMUL: -3 to 3. */
static inline int riscv_vlmul(uint64_t vtype)
{
    int lmul = (int)(vtype & 7);
    return lmul >= 4 ? lmul - 8 : lmul;
}

/* Is this a value of vtype that the hart supports? SEW <= LMUL * ELEN. */
static inline bool riscv_vtype_ok(const struct riscv_cpu *c, uint64_t vtype)
{
    uint64_t value = c->xlen == 32 ? (uint32_t)vtype : vtype;
    int lmul = riscv_vlmul(value), elen = c->velen;

    return value >> 8 == 0 && (value & 7) != 4 &&
           (int)riscv_vsew(value) <= elen + (lmul < 0 ? lmul : 0);
}

/* Elements of a register group; 0 when vill. */
static inline uint64_t riscv_vlmax(uint64_t vtype, unsigned vlenb)
{
    int shift = riscv_vlmul(vtype) - (int)riscv_vsew(vtype);

    if (vtype & RISCV_VTYPE_VILL) {
        return 0;
    }
    return shift >= 0 ? (uint64_t)vlenb << shift : vlenb >> -shift;
}

/* vkey of these values. */
static inline uint32_t riscv_vkey(uint64_t vtype, bool full, bool vstart, uint64_t mstatus)
{
    unsigned vs = (unsigned)((mstatus & MSTATUS_VS) >> 9);

    return (uint32_t)RISCV_VKEY_VALID | (uint32_t)(vtype & RISCV_VKEY_VTYPE) |
           (vtype & RISCV_VTYPE_VILL ? (uint32_t)RISCV_VKEY_VILL : 0u) |
           (full ? (uint32_t)RISCV_VKEY_FULL : 0u) |
           (vstart ? (uint32_t)RISCV_VKEY_VSTART : 0u) |
           (uint32_t)(vs == 2 ? 1 : vs) << RISCV_VKEY_VS_SHIFT;
}

/* RISCV_VKEY_VL of a vl below VLMAX. */
static inline uint32_t riscv_vkey_vl(uint64_t vl)
{
    return vl != 0 && (vl & (vl - 1)) == 0 && vl <= 64
               ? (uint32_t)(__builtin_ctzll(vl) + 1) << RISCV_VKEY_VL_SHIFT
               : 0;
}

/* After any change of vtype, vl, vstart or mstatus.VS. */
static inline void riscv_vkey_update(struct riscv_cpu *c)
{
    bool full = !(c->vtype & RISCV_VTYPE_VILL) && c->vl == riscv_vlmax(c->vtype, c->vlenb);

    c->vkey = riscv_vkey(c->vtype, full, c->vstart != 0, c->mstatus) |
              (full ? 0 : riscv_vkey_vl(c->vl));
}

/* Before a vector register or vector CSR changes: mstatus.VS = dirty. */
static inline void riscv_vs_dirty(struct riscv_cpu *c)
{
    c->mstatus |= MSTATUS_VS;
    c->vkey |= RISCV_VKEY_VS_DIRTY;
}

/* vset{i}vl{i}: a new vtype (all XLEN bits) and application vector length. */
static inline void riscv_vset(struct riscv_cpu *c, uint64_t vtype, uint64_t avl)
{
    bool ok = riscv_vtype_ok(c, vtype);
    uint64_t max;

    c->vtype = ok ? vtype & RISCV_VKEY_VTYPE : RISCV_VTYPE_VILL;
    max = riscv_vlmax(c->vtype, c->vlenb);
    c->vl = avl < max ? avl : max;
    c->vstart = 0;
    c->mstatus |= MSTATUS_VS;
    riscv_vkey_update(c);
}

#endif
