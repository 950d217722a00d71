/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VEX and EVEX encodings (Intel SDM volume 2, 2.3 and 2.7): an instruction is a number made by VX(), its operands follow. Where the
 * host has AVX-512 all are EVEX, which reaches 32 registers, masks and 64 bytes.
 */
#ifndef VMD_TCG_HOST_X86_64_VEX_H
#define VMD_TCG_HOST_X86_64_VEX_H

#include "engine/tcg/host_x86_64/emit.h"

/* Map 1: 0F, 2: 0F38, 3: 0F3A; prefix 0 none, 1 66, 2 F3, 3 F2; w; opcode. */
#define VX(map, pp, w, op)                                                                     \
    ((uint32_t)(op) | (uint32_t)(map) << 8 | (uint32_t)(pp) << 12 | (uint32_t)(w) << 14)
#define VX_W (1u << 14)
#define VX_NEW (1u << 15) /* exists as EVEX only */

struct vx {
    uint32_t code;
    bool evex;
    unsigned bytes; /* vector length: 64, 32, or 16 and below */
    unsigned k;     /* EVEX: mask register, 0 none */
    bool zero;      /* ... other elements become 0 instead of staying */
    bool spread;    /* EVEX: the memory operand is one element */
};

static inline void vx_prefix(struct asm_buf *a, struct vx e, unsigned reg, unsigned vvvv,
                             unsigned x, unsigned b)
{
    unsigned map = e.code >> 8 & 15, pp = e.code >> 12 & 3, w = e.code >> 14 & 1;
    unsigned len = e.bytes == 64 ? 2 : e.bytes == 32;
    if (e.evex) {
        x_8(a, 0x62);
        x_8(a, (~reg & 8) << 4 | !(x & 1) << 6 | !(b & 1) << 5 | (~reg & 16) | map);
        x_8(a, w << 7 | (~vvvv & 15) << 3 | 4 | pp);
        x_8(a, (e.zero && e.k) << 7 | len << 5 | e.spread << 4 | (~vvvv & 16) >> 1 | e.k);
    } else {
        x_8(a, 0xc4);
        x_8(a, (~reg & 8) << 4 | !(x & 1) << 6 | !(b & 1) << 5 | map);
        x_8(a, w << 7 | (~vvvv & 15) << 3 | len << 2 | pp);
    }
    x_8(a, e.code & 0xff);
}

/* op reg, vvvv, rm; a form without vvvv takes 0. */
static inline void vx_rr(struct asm_buf *a, struct vx e, unsigned reg, unsigned vvvv,
                         unsigned rm)
{
    vx_prefix(a, e, reg, vvvv, e.evex ? rm >> 4 : 0, rm >> 3);
    x_8(a, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* op reg, vvvv, [base + disp] */
static inline void vx_rm(struct asm_buf *a, struct vx e, unsigned reg, unsigned vvvv,
                         unsigned base, int32_t disp)
{
    vx_prefix(a, e, reg, vvvv, 0, base >> 3);
    x_8(a, 0x80 | (reg & 7) << 3 |
               (base & 7)); /* EVEX scales a short displacement: always the long one */
    if ((base & 7) == RSP) {
        x_8(a, 0x24);
    }
    x_32(a, (uint32_t)disp);
}

/* op reg, vvvv, [base + index + disp] */
static inline void vx_rmx(struct asm_buf *a, struct vx e, unsigned reg, unsigned vvvv,
                          unsigned base, unsigned index, int32_t disp)
{
    vx_prefix(a, e, reg, vvvv, index >> 3, base >> 3);
    x_8(a, 0x80 | (reg & 7) << 3 | 4);
    x_8(a, (index & 7) << 3 | (base & 7));
    x_32(a, (uint32_t)disp);
}

/* op reg, vvvv, what is at `to` in the code buffer, with e.spread one element of it for all; `more` bytes of the instruction follow. */
static inline void vx_rip(struct asm_buf *a, struct vx e, unsigned reg, unsigned vvvv,
                          uint32_t to, unsigned more)
{
    vx_prefix(a, e, reg, vvvv, 0, 0);
    x_8(a, (reg & 7) << 3 | 5);
    x_32(a, to - (a->at + 4 + more));
}

/* Mask registers and general registers: kmov k, r (to_k) or r, k of 8, 16, 32 or 64 bits. */
static inline void vx_kmov(struct asm_buf *a, unsigned bits, bool to_k, unsigned reg,
                           unsigned rm)
{
    struct vx e = { .code = VX(1,
                               bits == 8    ? 1
                               : bits == 16 ? 0
                                            : 3,
                               bits == 64, to_k ? 0x92 : 0x93) };
    vx_rr(a, e, reg, 0, rm);
}
/* kmov k, [base + disp] or the other way. */
static inline void vx_kmov_mem(struct asm_buf *a, unsigned bits, bool to_k, unsigned k,
                               unsigned base, int32_t disp)
{
    struct vx e = { .code = VX(1, bits == 8 || bits == 32 ? 1 : 0, bits >= 32,
                               to_k ? 0x90 : 0x91) };
    vx_rm(a, e, k, 0, base, disp);
}
/* Logic of mask registers, 64 bits: op 0x41 and, 0x45 or, 0x42 andn. */
static inline void vx_klogic(struct asm_buf *a, unsigned op, unsigned d, unsigned k1,
                             unsigned k2)
{
    struct vx e = { .code = VX(1, 0, 1, op), .bytes = 32 };
    vx_rr(a, e, d, k1, k2);
}
/* ZF = (k1 | k2) == 0, 64 bits. */
static inline void vx_kortest(struct asm_buf *a, unsigned k1, unsigned k2)
{
    struct vx e = { .code = VX(1, 0, 1, 0x98) };
    vx_rr(a, e, k1, 0, k2);
}

#endif
