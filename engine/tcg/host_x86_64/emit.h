/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86-64 encodings: one function a form, opcodes as numbers from the Intel SDM volume 2. Writes into a bounded buffer; past its end
 * nothing is written and `full` is set, so that the caller can retry with a smaller block.
 */
#ifndef VMD_TCG_HOST_X86_64_EMIT_H
#define VMD_TCG_HOST_X86_64_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Opcode maps, prefixes and operand size, or'ed to the opcode byte. */
enum { X_0F = 0x100, X_0F38 = 0x200, X_66 = 0x400, X_F3 = 0x800, X_F2 = 0x1000,
       X_W = 0x2000, X_BYTE_REG = 0x4000, X_BYTE_RM = 0x8000 };

/* Condition codes of jcc, setcc, cmovcc. */
enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

struct asm_buf {
    uint8_t *base;  /* writable view of the whole code buffer */
    uint32_t at;    /* next byte */
    uint32_t end;
    bool full;
    uint32_t *relocs;  /* where displacements to below X_RELOC_BELOW stand, when the code will move; or NULL */
    uint32_t n_relocs, max_relocs;
};
#define X_RELOC_BELOW 8192u

static inline void x_8(struct asm_buf *a, unsigned v)
{
    if (a->at < a->end) {
        a->base[a->at++] = (uint8_t)v;
    } else {
        a->full = true;
    }
}
static inline void x_32(struct asm_buf *a, uint32_t v)
{
    if (a->end - a->at >= 4) {
        memcpy(a->base + a->at, &v, 4);
        a->at += 4;
    } else {
        a->full = true;
    }
}
static inline void x_64(struct asm_buf *a, uint64_t v)
{
    x_32(a, (uint32_t)v);
    x_32(a, (uint32_t)(v >> 32));
}

static inline void x_prefixes(struct asm_buf *a, unsigned op, unsigned reg, unsigned index, unsigned rm)
{
    if (op & X_66) {
        x_8(a, 0x66);
    }
    if (op & X_F3) {
        x_8(a, 0xf3);
    }
    if (op & X_F2) {
        x_8(a, 0xf2);
    }
    unsigned rex = (op & X_W ? 8u : 0) | (reg & 8) >> 1 | (index & 8) >> 2 | (rm & 8) >> 3;
    bool byte = (op & X_BYTE_REG && reg >= 4) || (op & X_BYTE_RM && rm >= 4);
    if (rex || byte) {
        x_8(a, 0x40 | rex);
    }
    if (op & (X_0F | X_0F38)) {
        x_8(a, 0x0f);
    }
    if (op & X_0F38) {
        x_8(a, 0x38);
    }
    x_8(a, op & 0xff);
}

/* op reg, rm with rm a register. */
static inline void x_rr(struct asm_buf *a, unsigned op, unsigned reg, unsigned rm)
{
    x_prefixes(a, op, reg, 0, rm);
    x_8(a, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void x_modrm_mem(struct asm_buf *a, unsigned reg, unsigned base, int32_t disp)
{
    bool d8 = disp >= -128 && disp <= 127;
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : d8 ? 1 : 2;
    x_8(a, mod << 6 | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == RSP) {
        x_8(a, 0x24);
    }
    if (mod == 1) {
        x_8(a, (uint8_t)disp);
    } else if (mod == 2) {
        x_32(a, (uint32_t)disp);
    }
}

/* op reg, [base + disp] */
static inline void x_rm(struct asm_buf *a, unsigned op, unsigned reg, unsigned base, int32_t disp)
{
    x_prefixes(a, op, reg, 0, base);
    x_modrm_mem(a, reg, base, disp);
}

/* op reg, [base + index << scale + disp]; index is not RSP. */
static inline void x_rmx(struct asm_buf *a, unsigned op, unsigned reg, unsigned base, unsigned index,
                         unsigned scale, int32_t disp)
{
    bool d8 = disp >= -128 && disp <= 127;
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : d8 ? 1 : 2;
    x_prefixes(a, op, reg, index, base);
    x_8(a, mod << 6 | (reg & 7) << 3 | 4);
    x_8(a, scale << 6 | (index & 7) << 3 | (base & 7));
    if (mod == 1) {
        x_8(a, (uint8_t)disp);
    } else if (mod == 2) {
        x_32(a, (uint32_t)disp);
    }
}

/* VEX-encoded op reg, vvvv, rm. map 2: 0F38, 3: 0F3A; pp 0 none, 1 66, 2 F3, 3 F2. */
static inline void x_vex(struct asm_buf *a, unsigned map, unsigned pp, unsigned w, unsigned op, unsigned reg,
                         unsigned vvvv, unsigned rm)
{
    x_8(a, 0xc4);
    x_8(a, (~reg & 8) << 4 | 0x40 | (~rm & 8) << 2 | map);
    x_8(a, w << 7 | (~vvvv & 15) << 3 | pp);
    x_8(a, op);
    x_8(a, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
/* The same with rm = [base + disp]; base is not R12. */
static inline void x_vex_m(struct asm_buf *a, unsigned map, unsigned pp, unsigned w, unsigned op, unsigned reg,
                           unsigned vvvv, unsigned base, int32_t disp)
{
    x_8(a, 0xc4);
    x_8(a, (~reg & 8) << 4 | 0x40 | (~base & 8) << 2 | map);
    x_8(a, w << 7 | (~vvvv & 15) << 3 | pp);
    x_8(a, op);
    x_modrm_mem(a, reg, base, disp);
}

/* The same with rm = [base + index + disp]; op is followed by an immediate where it has one. */
static inline void x_vex_mx(struct asm_buf *a, unsigned map, unsigned pp, unsigned w, unsigned op, unsigned reg,
                            unsigned vvvv, unsigned base, unsigned index, int32_t disp)
{
    x_8(a, 0xc4);
    x_8(a, (~reg & 8) << 4 | (~index & 8) << 3 | (~base & 8) << 2 | map);
    x_8(a, w << 7 | (~vvvv & 15) << 3 | pp);
    x_8(a, op);
    x_8(a, 0x84 | (reg & 7) << 3);
    x_8(a, (index & 7) << 3 | (base & 7));
    x_32(a, (uint32_t)disp);
}

static inline void x_mov_imm(struct asm_buf *a, unsigned reg, uint64_t v)
{
    if (v <= UINT32_MAX) {
        if (reg & 8) {
            x_8(a, 0x41);
        }
        x_8(a, 0xb8 | (reg & 7));
        x_32(a, (uint32_t)v);
    } else if ((int64_t)v >= INT32_MIN && (int64_t)v < 0) {
        x_rr(a, 0xc7 | X_W, 0, reg);
        x_32(a, (uint32_t)v);
    } else {
        x_8(a, 0x48 | (reg & 8) >> 3);
        x_8(a, 0xb8 | (reg & 7));
        x_64(a, v);
    }
}

/* ALU op number n (0 add 1 or 4 and 5 sub 6 xor 7 cmp) with an immediate. */
static inline void x_alu_imm(struct asm_buf *a, unsigned n, unsigned w, unsigned rm, int32_t imm)
{
    bool d8 = imm >= -128 && imm <= 127;
    x_rr(a, (d8 ? 0x83 : 0x81) | w, n, rm);
    if (d8) {
        x_8(a, (uint8_t)imm);
    } else {
        x_32(a, (uint32_t)imm);
    }
}
static inline void x_alu_mem_imm(struct asm_buf *a, unsigned n, unsigned w, unsigned base, int32_t disp,
                                 int32_t imm)
{
    bool d8 = imm >= -128 && imm <= 127;
    x_rm(a, (d8 ? 0x83 : 0x81) | w, n, base, disp);
    if (d8) {
        x_8(a, (uint8_t)imm);
    } else {
        x_32(a, (uint32_t)imm);
    }
}

/* Jumps and calls to an offset of the buffer; 0 as target leaves the displacement to be set later. Return where it is. */
static inline uint32_t x_rel(struct asm_buf *a, uint32_t to)
{
    uint32_t where = a->at;
    if (a->relocs && to < X_RELOC_BELOW) {
        if (a->n_relocs < a->max_relocs) {
            a->relocs[a->n_relocs++] = where;
        } else {
            a->full = true;
        }
    }
    x_32(a, to - (where + 4));
    return where;
}
static inline uint32_t x_jcc(struct asm_buf *a, unsigned cc, uint32_t to)
{
    x_8(a, 0x0f);
    x_8(a, 0x80 | cc);
    return x_rel(a, to);
}
static inline uint32_t x_jmp(struct asm_buf *a, uint32_t to)
{
    x_8(a, 0xe9);
    return x_rel(a, to);
}
static inline uint32_t x_call(struct asm_buf *a, uint32_t to)
{
    x_8(a, 0xe8);
    return x_rel(a, to);
}
/* Points a displacement emitted before at the current position. */
static inline void x_here(struct asm_buf *a, uint32_t where)
{
    uint32_t rel = a->at - (where + 4);
    if (!a->full) {
        memcpy(a->base + where, &rel, 4);
    }
}
/* One instruction that does nothing, of up to three bytes. */
static inline void x_nop(struct asm_buf *a, unsigned bytes)
{
    static const uint8_t nops[4][3] = { { 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
    for (unsigned i = 0; i < bytes; i++) {
        x_8(a, nops[bytes][i]);
    }
}
/* Pads until the 4 bytes at (at + skip) lie within an aligned quadword: only then is a store to them atomic on every
 * x86-64 (AMD APM volume 2, 7.3.2), so that another vCPU never jumps by half of a new displacement. */
static inline void x_align_patch(struct asm_buf *a, unsigned skip)
{
    uint32_t over = (a->at + skip) & 7;
    x_nop(a, over > 4 ? 8 - over : 0);
}
/* The same, but puts the nop before what was emitted since `from`, which must run right before the patched jump: a comparison and its
 * jump are one operation for the host. Nothing may refer to a place in between. */
static inline void x_align_patch_behind(struct asm_buf *a, unsigned skip, uint32_t from)
{
    uint32_t at = a->at, over = (at + skip) & 7, n = over > 4 ? 8 - over : 0;
    if (n && a->end - at >= n) {
        memmove(a->base + from + n, a->base + from, at - from);
        a->at = from;
        x_nop(a, n);
        a->at = at + n;
    } else if (n) {
        a->full = true;
    }
}

#endif
