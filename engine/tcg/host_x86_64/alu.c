/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pure ops of the x86-64 back end: arithmetic, logic, shifts, multiplication, division, bits, conditions.
 */
#include "engine/tcg/host_x86_64/target.h"

const uint8_t cc_of[IR_N_CONDS] = {
    [IR_EQ] = CC_E,  [IR_NE] = CC_NE, [IR_LT] = CC_L,   [IR_GE] = CC_GE,  [IR_LE] = CC_LE,
    [IR_GT] = CC_G,  [IR_LTU] = CC_B, [IR_GEU] = CC_AE, [IR_LEU] = CC_BE, [IR_GTU] = CC_A,
};

static unsigned wide(const struct ir_op *op)
{
    return op->w == 64 ? X_W : 0;
}

static bool is_reg(struct opnd o, unsigned reg)
{
    return o.place == IN_REG && o.reg == reg;
}

/* add, sub, and, or, xor: x86's ALU operation n. */
static void gen_alu(struct ra *r, const struct ir_op *op, unsigned n)
{
    bool commutes = op->op != IR_sub;
    struct opnd a = ra_use(r, op->a, op->w), b = ra_use(r, op->b, op->w);
    unsigned d = ra_dest_reuse(r, op->d, op->a, a);
    if (is_reg(b, d) && !is_reg(a, d)) {
        if (commutes) {
            x_alu(&r->a, n, op->w, d, a);
        } else { /* d = a - d */
            x_rr(&r->a, 0xf7 | wide(op), 3, d);
            x_alu(&r->a, 0, op->w, d, a);
        }
    } else if (op->op == IR_add && a.place == IN_REG && a.reg != d && b.place != IN_MEM) {
        if (b.place == IN_REG) {
            x_rmx(&r->a, 0x8d | wide(op), d, a.reg, b.reg, 0, 0);
        } else {
            x_rm(&r->a, 0x8d | wide(op), d, a.reg, b.imm);
        }
    } else {
        if (!is_reg(a, d)) {
            x_load(&r->a, op->w, d, a);
        }
        x_alu(&r->a, n, op->w, d, b);
    }
    ra_done(r, op->d, d);
}

/* d = a & ~b, a | ~b, ~(a ^ b) */
static void gen_inverted(struct ra *r, const struct ir_op *op)
{
    struct opnd a = ra_use(r, op->a, op->w), b = ra_use(r, op->b, op->w);
    unsigned s = ra_scratch(r);
    x_load(&r->a, op->w, s, b);
    if (op->op == IR_eqv) {
        x_alu(&r->a, 6, op->w, s, a);
        x_rr(&r->a, 0xf7 | wide(op), 2, s);
    } else {
        x_rr(&r->a, 0xf7 | wide(op), 2, s);
        x_alu(&r->a, op->op == IR_andc ? 4 : 1, op->w, s, a);
    }
    ra_done(r, op->d, s);
}

/* Shifts by a register through BMI2, which needs no rcx. */
static void shift_by_reg(struct ra *r, const struct ir_op *op)
{
    static const uint8_t pp[] = { [IR_shl - IR_shl] = 1, [IR_shr - IR_shl] = 3, [IR_sar - IR_shl] = 2 };
    unsigned a = ra_use_reg(r, op->a), n = ra_use_reg(r, op->b);
    unsigned d = ra_dest(r, op->d);
    x_vex(&r->a, 2, pp[op->op - IR_shl], op->w == 64, 0xf7, d, n, a);
    ra_done(r, op->d, d);
}

static void gen_shift(struct ra *r, const struct ir_op *op)
{
    static const uint8_t ext[] = { [IR_shl - IR_shl] = 4, [IR_shr - IR_shl] = 5, [IR_sar - IR_shl] = 7 };
    if (ir_kind(op->b) != IR_CONST) {
        shift_by_reg(r, op);
        return;
    }
    unsigned n = r->ir->consts[ir_index(op->b)] & (op->w - 1u);
    struct opnd a = ra_use(r, op->a, op->w);
    unsigned d = ra_dest_reuse(r, op->d, op->a, a);
    if (!is_reg(a, d) || (n == 0 && op->w == 32)) {
        x_load(&r->a, op->w, d, a);
    }
    if (n) {
        x_rr(&r->a, 0xc1 | wide(op), ext[op->op - IR_shl], d);
        x_8(&r->a, n);
    }
    ra_done(r, op->d, d);
}

static void gen_rotate(struct ra *r, const struct ir_op *op)
{
    unsigned ext = op->op == IR_rotl ? 0 : 1;
    if (ir_kind(op->b) == IR_CONST) {
        unsigned n = r->ir->consts[ir_index(op->b)] & (op->w - 1u);
        struct opnd a = ra_use(r, op->a, op->w);
        unsigned d = ra_dest_reuse(r, op->d, op->a, a);
        x_load(&r->a, op->w, d, a);
        x_rr(&r->a, 0xc1 | wide(op), ext, d);
        x_8(&r->a, n);
        ra_done(r, op->d, d);
        return;
    }
    ra_take(r, RCX);
    struct opnd n = ra_use(r, op->b, 64), a = ra_use(r, op->a, op->w);
    unsigned s = ra_scratch(r);
    x_load(&r->a, op->w, s, a);
    x_load(&r->a, 64, RCX, n);
    x_rr(&r->a, 0xd3 | wide(op), ext, s);
    ra_done(r, op->d, s);
}

static void gen_mul(struct ra *r, const struct ir_op *op)
{
    struct opnd a = ra_use(r, op->a, op->w), b = ra_use(r, op->b, op->w);
    if (b.place == IS_IMM) {
        unsigned ra_ = ra_use_reg(r, op->a), d = ra_dest(r, op->d);
        x_rr(&r->a, 0x69 | wide(op), d, ra_);
        x_32(&r->a, (uint32_t)b.imm);
        ra_done(r, op->d, d);
        return;
    }
    unsigned d = ra_dest_reuse(r, op->d, op->a, a);
    if (is_reg(b, d)) {
        struct opnd t = a;
        a = b;
        b = t;
    }
    if (!is_reg(a, d)) {
        x_load(&r->a, op->w, d, a);
    }
    if (b.place == IN_REG) {
        x_rr(&r->a, X_0F | 0xaf | wide(op), d, b.reg);
    } else if (b.place == IN_MEM) {
        x_rm(&r->a, X_0F | 0xaf | wide(op), d, ENV, b.disp);
    } else { /* a was the immediate and d holds b */
        x_rr(&r->a, 0x69 | wide(op), d, d);
        x_32(&r->a, (uint32_t)b.imm);
    }
    ra_done(r, op->d, d);
}

/* rdx:rax = rax * b */
static void gen_mul_high(struct ra *r, const struct ir_op *op)
{
    ra_take(r, RAX);
    ra_take(r, RDX);
    unsigned b = ra_use_reg(r, op->b);
    struct opnd a = ra_use(r, op->a, op->w);
    x_load(&r->a, op->w, RAX, a);
    x_rr(&r->a, 0xf7 | wide(op), op->op == IR_mulhu ? 4 : 5, b);
    ra_done(r, op->d, RDX);
}

static void jump_short(struct ra *r, unsigned opcode, uint32_t *where)
{
    x_8(&r->a, opcode);
    *where = r->a.at;
    x_8(&r->a, 0);
}

static void land_short(struct ra *r, uint32_t where)
{
    if (!r->a.full) {
        r->a.base[where] = (uint8_t)(r->a.at - where - 1);
    }
}

/* Total division: b = 0 and the signed overflow are branches around the instruction that would trap. */
static void gen_div(struct ra *r, const struct ir_op *op)
{
    bool is_signed = op->op == IR_divs || op->op == IR_rems;
    unsigned w = wide(op);
    uint32_t zero, minus1 = 0, end1, end2 = 0;
    ra_take(r, RAX);
    ra_take(r, RDX);
    unsigned b = ra_use_reg(r, op->b);
    x_load(&r->a, op->w, RAX, ra_use(r, op->a, op->w));
    x_rr(&r->a, 0x85 | w, b, b);
    jump_short(r, 0x74, &zero);
    if (is_signed) {
        x_alu_imm(&r->a, 7, w, b, -1);
        jump_short(r, 0x74, &minus1);
        if (w) {
            x_8(&r->a, 0x48);
        }
        x_8(&r->a, 0x99); /* cdq, cqo */
    } else {
        x_rr(&r->a, 0x33, RDX, RDX);
    }
    x_rr(&r->a, 0xf7 | w, is_signed ? 7 : 6, b);
    jump_short(r, 0xeb, &end1);
    if (is_signed) {
        land_short(r, minus1);
        x_rr(&r->a, 0xf7 | w, 3, RAX);
        x_rr(&r->a, 0x33, RDX, RDX);
        jump_short(r, 0xeb, &end2);
    }
    land_short(r, zero);
    x_rr(&r->a, 0x8b | w, RDX, RAX);
    x_mov_imm(&r->a, RAX, w ? UINT64_MAX : UINT32_MAX);
    land_short(r, end1);
    if (is_signed) {
        land_short(r, end2);
    }
    ra_done(r, op->d, op->op == IR_divu || op->op == IR_divs ? RAX : RDX);
}

/* lzcnt, tzcnt, popcnt */
static void gen_count(struct ra *r, const struct ir_op *op)
{
    unsigned code = op->op == IR_clz ? 0xbd : op->op == IR_ctz ? 0xbc : 0xb8;
    unsigned a = ra_use_reg(r, op->a), d = ra_dest(r, op->d);
    x_rr(&r->a, X_F3 | X_0F | code | wide(op), d, a);
    ra_done(r, op->d, d);
}

static void gen_bswap(struct ra *r, const struct ir_op *op)
{
    struct opnd a = ra_use(r, op->a, op->w);
    unsigned d = ra_dest(r, op->d);
    x_load(&r->a, op->w, d, a);
    unsigned rex = (op->w == 64 ? 0x48u : 0x40u) | (d & 8) >> 3;
    x_8(&r->a, rex);
    x_8(&r->a, 0x0f);
    x_8(&r->a, 0xc8 | (d & 7));
    ra_done(r, op->d, d);
}

static void gen_extend(struct ra *r, const struct ir_op *op)
{
    static const unsigned code[] = {
        [IR_sext8 - IR_sext8] = X_0F | 0xbe | X_W | X_BYTE_RM, [IR_sext16 - IR_sext8] = X_0F | 0xbf | X_W,
        [IR_sext32 - IR_sext8] = 0x63 | X_W, [IR_zext8 - IR_sext8] = X_0F | 0xb6 | X_BYTE_RM,
        [IR_zext16 - IR_sext8] = X_0F | 0xb7, [IR_zext32 - IR_sext8] = 0x8b,
    };
    unsigned c = code[op->op - IR_sext8];
    struct opnd a = ra_use(r, op->a, 64);
    unsigned d = ra_dest_reuse(r, op->d, op->a, a);
    if (a.place == IN_REG) {
        x_rr(&r->a, c, d, a.reg);
    } else if (a.place == IN_MEM) {
        x_rm(&r->a, c & ~(unsigned)X_BYTE_RM, d, ENV, a.disp);
    } else {
        x_mov_imm(&r->a, d, ir_eval((enum ir_opcode)op->op, 64, (uint64_t)(int64_t)a.imm, 0));
    }
    ra_done(r, op->d, d);
}

/* A move to a global that lives in an xmm register, without a general register between; false: it needs one. */
static bool mov_to_xmm(struct ra *r, const struct ir_op *op)
{
    unsigned to = (unsigned)r->xpin[ir_index(op->d)];
    bool is_boxed = false;
    if (ir_kind(op->a) == IR_CONST && r->ir->consts[ir_index(op->a)] == 0) {
        x_rr(&r->a, X_0F | 0x57, to, to); /* xorps */
    } else if (ra_in_xmm(r, op->a)) {
        unsigned n = ir_index(op->a);
        is_boxed = r->boxed[n / 64] >> n % 64 & 1;
        x_rr(&r->a, X_0F | 0x28, to, (unsigned)r->xpin[n]); /* movaps */
    } else {
        return false;
    }
    ra_done_xmm(r, ir_index(op->d), is_boxed);
    return true;
}

static void gen_mov(struct ra *r, const struct ir_op *op)
{
    struct opnd a;
    if (ra_in_xmm(r, op->d) && mov_to_xmm(r, op)) {
        return;
    }
    if (ir_kind(op->a) == IR_CONST) {
        uint64_t v = r->ir->consts[ir_index(op->a)];
        bool pinned = ir_kind(op->d) == IR_GLOBAL && r->pin[ir_index(op->d)] >= 0;
        if (!pinned && ir_kind(op->d) == IR_GLOBAL && !ra_in_xmm(r, op->d) && (int64_t)v == (int32_t)v) {
            unsigned n = ir_index(op->d); /* straight to memory */
            x_rm(&r->a, 0xc7 | X_W, 0, ENV, ra_global_off(r, n));
            x_32(&r->a, (uint32_t)v);
            if (r->g_reg[n] >= 0) {
                r->held[r->g_reg[n]] = IR_NONE;
                r->g_reg[n] = -1;
            }
            return;
        }
        unsigned d = ra_dest(r, op->d);
        x_mov_imm(&r->a, d, v);
        ra_done(r, op->d, d);
        return;
    }
    a = ra_use(r, op->a, 64);
    if (ir_kind(op->d) == IR_GLOBAL && r->pin[ir_index(op->d)] < 0 && a.place == IN_REG &&
        ir_kind(op->a) == IR_GLOBAL && r->pin[ir_index(op->a)] >= 0) {
        ra_done(r, op->d, a.reg); /* store the pin */
        return;
    }
    unsigned d = ra_dest_reuse(r, op->d, op->a, a);
    x_load(&r->a, 64, d, a);
    ra_done(r, op->d, d);
}

void gen_compare(struct ra *r, const struct ir_op *op)
{
    struct opnd a = ra_use(r, op->a, op->w), b = ra_use(r, op->b, op->w);
    if (a.place == IS_IMM || (a.place == IN_MEM && b.place == IN_MEM)) {
        unsigned reg = ra_use_reg(r, op->a);
        a = (struct opnd){ .place = IN_REG, .reg = (uint8_t)reg };
    }
    if (a.place == IN_REG && b.place == IS_IMM && b.imm == 0) {
        x_rr(&r->a, 0x85 | wide(op), a.reg, a.reg);
    } else if (a.place == IN_REG) {
        x_alu(&r->a, 7, op->w, a.reg, b);
    } else if (b.place == IN_REG) {
        x_rm(&r->a, 0x39 | wide(op), b.reg, ENV, a.disp);
    } else {
        x_alu_mem_imm(&r->a, 7, wide(op), ENV, a.disp, b.imm);
    }
}

static void gen_setcond(struct ra *r, const struct ir_op *op)
{
    gen_compare(r, op);
    unsigned d = ra_dest(r, op->d);
    x_rr(&r->a, X_0F | (0x90u | cc_of[op->cond]) | X_BYTE_RM, 0, d);
    x_rr(&r->a, X_0F | 0xb6 | X_BYTE_RM, d, d);
    ra_done(r, op->d, d);
}

static void gen_select(struct ra *r, const struct ir_op *op)
{
    /* The values first: loading them must not come between the comparison and its use. */
    struct opnd no = ra_use(r, op->e, 64);
    unsigned s;
    if (no.place == IN_REG && ra_dies(r, op->e) && op->e != op->c && op->e != op->a &&
        op->e != op->b) {
        s = no.reg;
    } else {
        s = ra_scratch(r);
        x_load(&r->a, 64, s, no);
    }
    struct opnd yes = ra_use(r, op->c, 64);
    if (yes.place == IS_IMM) {
        yes = (struct opnd){ .place = IN_REG, .reg = (uint8_t)ra_use_reg(r, op->c) };
    }
    gen_compare(r, op);
    if (yes.place == IN_REG) {
        x_rr(&r->a, X_0F | 0x40u | cc_of[op->cond] | X_W, s, yes.reg);
    } else {
        x_rm(&r->a, X_0F | 0x40u | cc_of[op->cond] | X_W, s, ENV, yes.disp);
    }
    ra_done(r, op->d, s);
}

bool gen_alu_op(struct ra *r, const struct ir_op *op)
{
    switch (op->op) {
    case IR_add:
        gen_alu(r, op, 0);
        break;
    case IR_or:
        gen_alu(r, op, 1);
        break;
    case IR_and:
        gen_alu(r, op, 4);
        break;
    case IR_sub:
        gen_alu(r, op, 5);
        break;
    case IR_xor:
        gen_alu(r, op, 6);
        break;
    case IR_andc:
    case IR_orc:
    case IR_eqv:
        gen_inverted(r, op);
        break;
    case IR_shl:
    case IR_shr:
    case IR_sar:
        gen_shift(r, op);
        break;
    case IR_rotl:
    case IR_rotr:
        gen_rotate(r, op);
        break;
    case IR_mul:
        gen_mul(r, op);
        break;
    case IR_mulhu:
    case IR_mulhs:
        gen_mul_high(r, op);
        break;
    case IR_divu:
    case IR_divs:
    case IR_remu:
    case IR_rems:
        gen_div(r, op);
        break;
    case IR_clz:
    case IR_ctz:
    case IR_popcnt:
        gen_count(r, op);
        break;
    case IR_bswap:
        gen_bswap(r, op);
        break;
    case IR_sext8:
    case IR_sext16:
    case IR_sext32:
    case IR_zext8:
    case IR_zext16:
    case IR_zext32:
        gen_extend(r, op);
        break;
    case IR_mov:
        gen_mov(r, op);
        break;
    case IR_setcond:
        gen_setcond(r, op);
        break;
    case IR_select:
        gen_select(r, op);
        break;
    default:
        return false;
    }
    return true;
}
