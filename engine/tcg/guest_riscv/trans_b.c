/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of Zba, Zbb, Zbs, Zbc, Zbkb and Zbkx. The contract of all of them is in trans.h.
 */
#include "engine/tcg/guest_riscv/trans.h"

/* The result of an operation in w bits into rd, sign-extended from 32. */
static bool result(struct tcg_trans *t, unsigned w, unsigned rd, ir_ref v)
{
    if (w == 32) {
        set_x32(t, rd, v);
    } else {
        set_x(t, rd, v);
    }
    return true;
}

static ir_ref num(struct tcg_trans *t, uint64_t v)
{
    return ir_const(t->ir, v);
}

/* ---- Zba --------------------------------------------------------------------------------- */

static bool shift_add(struct tcg_trans *t, const struct riscv_r *a, unsigned n, bool word)
{
    ir_ref one = get_x(t, a->rs1);

    if (word) {
        one = ir_un(t->ir, IR_zext32, 64, one);
    }
    if (n > 0) {
        one = ir_bin(t->ir, IR_shl, 64, one, num(t, n));
    }
    return result(t, xlen(t), a->rd, ir_add(t->ir, one, get_x(t, a->rs2)));
}

bool trans_sh1add(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 1, false);
}

bool trans_sh2add(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 2, false);
}

bool trans_sh3add(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 3, false);
}

bool trans_add_uw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 0, true);
}

bool trans_sh1add_uw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 1, true);
}

bool trans_sh2add_uw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 2, true);
}

bool trans_sh3add_uw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift_add(t, a, 3, true);
}

bool trans_slli_uw(struct tcg_trans *t, const struct riscv_i *a)
{
    ir_ref word = ir_un(t->ir, IR_zext32, 64, get_x(t, a->rs1));

    set_x(t, a->rd, ir_bin(t->ir, IR_shl, 64, word, num(t, (uint64_t)a->imm)));
    return true;
}

/* ---- Zbb: logic, counting, extension ----------------------------------------------------- */

static bool logic(struct tcg_trans *t, enum ir_opcode op, const struct riscv_r *a)
{
    set_x(t, a->rd, ir_bin(t->ir, op, 64, get_x(t, a->rs1), get_x(t, a->rs2)));
    return true;
}

bool trans_andn(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_andc, a);
}

bool trans_orn(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_orc, a);
}

bool trans_xnor(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_eqv, a);
}

/* Counts are small: zero extension of a 32-bit count is right for every width. */
static bool count(struct tcg_trans *t, enum ir_opcode op, unsigned w, const struct riscv_r1 *a)
{
    set_x(t, a->rd, ir_un(t->ir, op, w, get_x(t, a->rs1)));
    return true;
}

bool trans_clz(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_clz, xlen(t), a);
}

bool trans_ctz(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_ctz, xlen(t), a);
}

bool trans_cpop(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_popcnt, xlen(t), a);
}

bool trans_clzw(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_clz, 32, a);
}

bool trans_ctzw(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_ctz, 32, a);
}

bool trans_cpopw(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return count(t, IR_popcnt, 32, a);
}

static bool choose(struct tcg_trans *t, enum ir_cond cond, const struct riscv_r *a)
{
    ir_ref one = get_x(t, a->rs1), two = get_x(t, a->rs2);

    set_x(t, a->rd, ir_select(t->ir, cond, 64, one, two, one, two));
    return true;
}

bool trans_max(struct tcg_trans *t, const struct riscv_r *a)
{
    return choose(t, IR_GT, a);
}

bool trans_maxu(struct tcg_trans *t, const struct riscv_r *a)
{
    return choose(t, IR_GTU, a);
}

bool trans_min(struct tcg_trans *t, const struct riscv_r *a)
{
    return choose(t, IR_LT, a);
}

bool trans_minu(struct tcg_trans *t, const struct riscv_r *a)
{
    return choose(t, IR_LTU, a);
}

static bool extend(struct tcg_trans *t, enum ir_opcode op, const struct riscv_r1 *a)
{
    set_x(t, a->rd, ir_un(t->ir, op, 64, get_x(t, a->rs1)));
    return true;
}

bool trans_sext_b(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return extend(t, IR_sext8, a);
}

bool trans_sext_h(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return extend(t, IR_sext16, a);
}

bool trans_zext_h(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return extend(t, IR_zext16, a);
}

/* ---- Zbb: rotation and bytes ------------------------------------------------------------- */

static bool rotate(struct tcg_trans *t, enum ir_opcode op, unsigned w, const struct riscv_r *a)
{
    return result(t, w, a->rd, ir_bin(t->ir, op, w, get_x(t, a->rs1), get_x(t, a->rs2)));
}

static bool rotate_imm(struct tcg_trans *t, unsigned w, const struct riscv_i *a)
{
    return result(t, w, a->rd,
                  ir_bin(t->ir, IR_rotr, w, get_x(t, a->rs1), num(t, (uint64_t)a->imm)));
}

bool trans_rol(struct tcg_trans *t, const struct riscv_r *a)
{
    return rotate(t, IR_rotl, xlen(t), a);
}

bool trans_ror(struct tcg_trans *t, const struct riscv_r *a)
{
    return rotate(t, IR_rotr, xlen(t), a);
}

bool trans_rori(struct tcg_trans *t, const struct riscv_i *a)
{
    return rotate_imm(t, xlen(t), a);
}

bool trans_rolw(struct tcg_trans *t, const struct riscv_r *a)
{
    return rotate(t, IR_rotl, 32, a);
}

bool trans_rorw(struct tcg_trans *t, const struct riscv_r *a)
{
    return rotate(t, IR_rotr, 32, a);
}

bool trans_roriw(struct tcg_trans *t, const struct riscv_i *a)
{
    return rotate_imm(t, 32, a);
}

bool trans_orc_b(struct tcg_trans *t, const struct riscv_r1 *a)
{
    uint64_t low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);
    ir_ref v = get_x(t, a->rs1);
    ir_ref top = ir_bin(t->ir, IR_and, 64, v, num(t, low7));

    /* Bit 7 of each byte says whether the byte is not 0; then it is spread over the byte. */
    top = ir_bin(t->ir, IR_or, 64, ir_add(t->ir, top, num(t, low7)), v);
    top = ir_bin(t->ir, IR_and, 64, top, num(t, ~low7));
    v = ir_bin(t->ir, IR_sub, 64, top, ir_bin(t->ir, IR_shr, 64, top, num(t, 7)));
    return result(t, xlen(t), a->rd, ir_bin(t->ir, IR_or, 64, v, top));
}

bool trans_rev8(struct tcg_trans *t, const struct riscv_r1 *a)
{
    return result(t, xlen(t), a->rd, ir_un(t->ir, IR_bswap, xlen(t), get_x(t, a->rs1)));
}

/* ---- Zbs --------------------------------------------------------------------------------- */

/* rd = rs1 OP (1 << n), n taken modulo XLEN. */
static bool with_bit(struct tcg_trans *t, enum ir_opcode op, unsigned rd, unsigned rs1,
                     ir_ref n)
{
    unsigned w = xlen(t);
    ir_ref bit = ir_bin(t->ir, IR_shl, w, num(t, 1), n);

    return result(t, w, rd, ir_bin(t->ir, op, 64, get_x(t, rs1), bit));
}

static bool extract_bit(struct tcg_trans *t, unsigned rd, unsigned rs1, ir_ref n)
{
    ir_ref v = ir_bin(t->ir, IR_shr, xlen(t), get_x(t, rs1), n);

    set_x(t, rd, ir_bin(t->ir, IR_and, 64, v, num(t, 1)));
    return true;
}

bool trans_bclr(struct tcg_trans *t, const struct riscv_r *a)
{
    return with_bit(t, IR_andc, a->rd, a->rs1, get_x(t, a->rs2));
}

bool trans_bclri(struct tcg_trans *t, const struct riscv_i *a)
{
    return with_bit(t, IR_andc, a->rd, a->rs1, num(t, (uint64_t)a->imm));
}

bool trans_bext(struct tcg_trans *t, const struct riscv_r *a)
{
    return extract_bit(t, a->rd, a->rs1, get_x(t, a->rs2));
}

bool trans_bexti(struct tcg_trans *t, const struct riscv_i *a)
{
    return extract_bit(t, a->rd, a->rs1, num(t, (uint64_t)a->imm));
}

bool trans_binv(struct tcg_trans *t, const struct riscv_r *a)
{
    return with_bit(t, IR_xor, a->rd, a->rs1, get_x(t, a->rs2));
}

bool trans_binvi(struct tcg_trans *t, const struct riscv_i *a)
{
    return with_bit(t, IR_xor, a->rd, a->rs1, num(t, (uint64_t)a->imm));
}

bool trans_bset(struct tcg_trans *t, const struct riscv_r *a)
{
    return with_bit(t, IR_or, a->rd, a->rs1, get_x(t, a->rs2));
}

bool trans_bseti(struct tcg_trans *t, const struct riscv_i *a)
{
    return with_bit(t, IR_or, a->rd, a->rs1, num(t, (uint64_t)a->imm));
}

/* ---- Zbc, Zbkc, Zbkx --------------------------------------------------------------------- */

/* rd = FN(rs1, rs2); RV32 has functions of its own where the width matters. */
static bool pure(struct tcg_trans *t, const struct riscv_r *a, ir_helper fn64, ir_helper fn32)
{
    ir_ref v = ir_call(t->ir, is_rv32(t) ? fn32 : fn64, IR_CALL_PURE, true, get_x(t, a->rs1),
                       get_x(t, a->rs2), IR_NONE);

    return result(t, xlen(t), a->rd, v);
}

bool trans_clmul(struct tcg_trans *t, const struct riscv_r *a)
{
    return pure(t, a, riscv_clmul, riscv_clmul);
}

bool trans_clmulh(struct tcg_trans *t, const struct riscv_r *a)
{
    return pure(t, a, riscv_clmulh, riscv_clmulh_32);
}

bool trans_clmulr(struct tcg_trans *t, const struct riscv_r *a)
{
    return pure(t, a, riscv_clmulr, riscv_clmulr_32);
}

bool trans_xperm4(struct tcg_trans *t, const struct riscv_r *a)
{
    return pure(t, a, riscv_xperm4, riscv_xperm4_32);
}

bool trans_xperm8(struct tcg_trans *t, const struct riscv_r *a)
{
    return pure(t, a, riscv_xperm8, riscv_xperm8_32);
}

/* ---- Zbkb -------------------------------------------------------------------------------- */

/* Low n bits of rs1, above them low n bits of rs2, in w bits. */
static bool pack(struct tcg_trans *t, const struct riscv_r *a, unsigned n, unsigned w)
{
    ir_ref mask = num(t, (UINT64_C(1) << n) - 1);
    ir_ref low = ir_bin(t->ir, IR_and, 64, get_x(t, a->rs1), mask);
    ir_ref high = get_x(t, a->rs2);

    if (n < 16) {
        high = ir_bin(t->ir, IR_and, 64, high, mask);
    }
    high = ir_bin(t->ir, IR_shl, 64, high, num(t, n));
    return result(t, w, a->rd, ir_bin(t->ir, IR_or, 64, low, high));
}

bool trans_pack(struct tcg_trans *t, const struct riscv_r *a)
{
    return pack(t, a, xlen(t) / 2, xlen(t));
}

bool trans_packh(struct tcg_trans *t, const struct riscv_r *a)
{
    return pack(t, a, 8, xlen(t));
}

bool trans_packw(struct tcg_trans *t, const struct riscv_r *a)
{
    return pack(t, a, 16, 32);
}

/* Exchanges the groups of n bits that mask selects with those above them. */
static ir_ref swap_bits(struct tcg_trans *t, ir_ref v, unsigned n, uint64_t mask)
{
    ir_ref up = ir_bin(t->ir, IR_and, 64, v, num(t, mask));
    ir_ref down = ir_bin(t->ir, IR_shr, 64, v, num(t, n));

    return ir_bin(t->ir, IR_or, 64, ir_bin(t->ir, IR_shl, 64, up, num(t, n)),
                  ir_bin(t->ir, IR_and, 64, down, num(t, mask)));
}

bool trans_brev8(struct tcg_trans *t, const struct riscv_r1 *a)
{
    ir_ref v = swap_bits(t, get_x(t, a->rs1), 1, UINT64_C(0x5555555555555555));

    v = swap_bits(t, v, 2, UINT64_C(0x3333333333333333));
    return result(t, xlen(t), a->rd, swap_bits(t, v, 4, UINT64_C(0x0f0f0f0f0f0f0f0f)));
}

/* Moves the bits of `mask` up by n, those that come there down, and leaves the rest. */
static ir_ref cross(struct tcg_trans *t, ir_ref v, unsigned n, uint64_t mask)
{
    ir_ref moved = ir_bin(t->ir, IR_xor, 64, v, ir_bin(t->ir, IR_shr, 64, v, num(t, n)));

    moved = ir_bin(t->ir, IR_and, 64, moved, num(t, mask));
    v = ir_bin(t->ir, IR_xor, 64, v, moved);
    return ir_bin(t->ir, IR_xor, 64, v, ir_bin(t->ir, IR_shl, 64, moved, num(t, n)));
}

/* The four exchanges of a perfect shuffle of 32 bits; backwards they undo it. */
static const struct {
    uint8_t n;
    uint32_t mask;
} shuffle[] = { { 8, 0x0000ff00 }, { 4, 0x00f000f0 }, { 2, 0x0c0c0c0c }, { 1, 0x22222222 } };

bool trans_zip(struct tcg_trans *t, const struct riscv_r1 *a)
{
    ir_ref v = get_x(t, a->rs1);
    unsigned i;

    for (i = 0; i < 4; i++) {
        v = cross(t, v, shuffle[i].n, shuffle[i].mask);
    }
    return result(t, 32, a->rd, v);
}

bool trans_unzip(struct tcg_trans *t, const struct riscv_r1 *a)
{
    ir_ref v = get_x(t, a->rs1);
    unsigned i;

    for (i = 4; i-- > 0;) {
        v = cross(t, v, shuffle[i].n, shuffle[i].mask);
    }
    return result(t, 32, a->rd, v);
}
