/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the RISC-V translate functions share. Each trans_<name>() of trans_*.c has one contract: t->next_off
 * points behind the instruction on entry; it emits IR and returns true to go on at t->next_off, or ends the
 * block and returns false. They run on the thread that translates; t belongs to it.
 *
 * x registers are globals sign-extended to 64 bits also in RV32, addresses are zero-extended there.
 */
#ifndef VMD_TCG_GUEST_RISCV_TRANS_H
#define VMD_TCG_GUEST_RISCV_TRANS_H

#include "engine/tcg/guest.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/riscv_isa.h"
#include "engine/tcg/ir.h"

/* Globals: x1..x31, then f0..f31. */
enum { RISCV_GLOBAL_X1 = 0, RISCV_GLOBAL_F0 = 31, RISCV_GLOBALS = 63 };

/* Bits of tcg_trans.guest. */
enum {
    RISCV_T_FS_DIRTY = 1, /* this block has set mstatus.FS already */
    RISCV_T_FP_ASKED = 2, /* ... has checked that floating point is on (RV_CODE_FP_ASK) */
    RISCV_T_FRM_ASKED = 4, /* ... and that frm is valid */
    RISCV_T_VS_DIRTY = 8, /* ... has set mstatus.VS */
    RISCV_T_VS_ASKED = 16 /* ... has checked that vectors are on */
};

static inline bool is_rv32(const struct tcg_trans *t)
{
    return (t->code & RV_CODE_RV32) != 0;
}

static inline unsigned xlen(const struct tcg_trans *t)
{
    return is_rv32(t) ? 32 : 64;
}

static inline enum riscv_priv priv(const struct tcg_trans *t)
{
    return (enum riscv_priv)(t->code & RV_CODE_PRIV);
}

static inline const struct riscv_cpu *cpu_of(const struct tcg_trans *t)
{
    return t->cpu;
}

/* Value of x register n; x0 is the constant 0. */
static inline ir_ref get_x(struct tcg_trans *t, unsigned n)
{
    return n == 0 ? ir_const(t->ir, 0) : ir_get(t->ir, RISCV_GLOBAL_X1 + n - 1);
}

/* Sets x register n to a value that is sign-extended already; x0 ignores it. */
static inline void set_x(struct tcg_trans *t, unsigned n, ir_ref v)
{
    if (n != 0) {
        ir_set(t->ir, RISCV_GLOBAL_X1 + n - 1, v);
    }
}

/* Sets x register n to the low 32 bits of v, sign-extended. */
static inline void set_x32(struct tcg_trans *t, unsigned n, ir_ref v)
{
    if (n != 0) {
        set_x(t, n, ir_un(t->ir, IR_sext32, 64, v));
    }
}

/* Sets x register n to the low XLEN bits of v. */
static inline void set_xl(struct tcg_trans *t, unsigned n, ir_ref v)
{
    if (is_rv32(t)) {
        set_x32(t, n, v);
    } else {
        set_x(t, n, v);
    }
}

static inline ir_ref get_f(struct tcg_trans *t, unsigned n)
{
    return ir_get(t->ir, RISCV_GLOBAL_F0 + n);
}

/* Sets f register n (all 64 bits) and marks the floating-point state dirty. */
void set_f(struct tcg_trans *t, unsigned n, ir_ref v);
/* mstatus.FS = dirty: before fflags or an f register changes; once a block is enough. */
void mark_fs_dirty(struct tcg_trans *t);
/* Floating point must be on: false (and an illegal instruction emitted: return false) when it is
 * known to be off; emits a check where only the running code can tell. */
bool fp_on(struct tcg_trans *t);

/* Resolves a rounding mode field into *mode (0..4). False when floating point is off or the mode is
 * reserved: the illegal instruction is emitted, the caller returns false. trans_fd.c */
bool fp_rounding(struct tcg_trans *t, unsigned rm, ir_ref *mode);

/* The address of a data access: va without the bits that pointer masking ignores. */
ir_ref mask_pointer(struct tcg_trans *t, ir_ref va);
/* Virtual address and displacement of a memory access at x[n] + imm. */
ir_ref mem_addr(struct tcg_trans *t, unsigned n, int32_t imm, int32_t *disp);

/* pc of the page-relative offset off as the value of an x register. */
ir_ref pc_value(struct tcg_trans *t, int64_t off);

/* The instruction is illegal: raises with its bits, ends the block. Returns false. */
bool trans_illegal(struct tcg_trans *t);
/* The features of riscv.isa that this hart has. */
isa_features riscv_isa_of(const struct riscv_cpu *c);
/* Bits of the instruction being translated (16 or 32, zero-extended). */
uint32_t insn_bits(struct tcg_trans *t);

/* ---- hooks of struct tcg_guest implemented by this half of the guest ---- */
bool riscv_tcg_translate(struct tcg_trans *t);
unsigned riscv_tcg_disas(const uint8_t *p, unsigned n, uint64_t pc, uint32_t code, char *out,
                         size_t size);

#endif
