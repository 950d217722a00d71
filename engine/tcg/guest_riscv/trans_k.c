/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of scalar cryptography: Zknd, Zkne, Zknh, Zksed, Zksh. The contract of all of them is in trans.h.
 * Hash functions and the linear part of key schedules are inline, substitutions are in helpers (helper_k.c).
 */
#include "engine/tcg/guest_riscv/trans.h"

static ir_ref num(struct tcg_trans *t, uint64_t v)
{
    return ir_const(t->ir, v);
}

static ir_ref op2(struct tcg_trans *t, enum ir_opcode op, ir_ref a, ir_ref b)
{
    return ir_bin(t->ir, op, 64, a, b);
}

/* ---- AES --------------------------------------------------------------------------------- */

#define AES64(name)                                                                            \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r *a)                            \
    {                                                                                          \
        set_x(t, a->rd,                                                                        \
              ir_call(t->ir, riscv_##name, riscv_##name##_flags, true, get_x(t, a->rs1),       \
                      get_x(t, a->rs2), IR_NONE));                                             \
        return true;                                                                           \
    }

AES64(aes64es)
AES64(aes64esm)
AES64(aes64ds)
AES64(aes64dsm)

bool trans_aes64im(struct tcg_trans *t, const struct riscv_r1 *a)
{
    set_x(t, a->rd,
          ir_call(t->ir, riscv_aes64im, riscv_aes64im_flags, true, get_x(t, a->rs1), IR_NONE,
                  IR_NONE));
    return true;
}

bool trans_aes64ks1i(struct tcg_trans *t, const struct riscv_i *a)
{
    set_x(t, a->rd,
          ir_call(t->ir, riscv_aes64ks1i, riscv_aes64ks1i_flags, true, get_x(t, a->rs1),
                  num(t, (uint64_t)a->imm), IR_NONE));
    return true;
}

bool trans_aes64ks2(struct tcg_trans *t, const struct riscv_r *a)
{
    ir_ref two = get_x(t, a->rs2);
    ir_ref low = op2(t, IR_xor, op2(t, IR_shr, get_x(t, a->rs1), num(t, 32)),
                     ir_un(t->ir, IR_zext32, 64, two));
    ir_ref high = op2(t, IR_xor, op2(t, IR_shl, low, num(t, 32)),
                      op2(t, IR_and, two, num(t, UINT64_C(0xffffffff00000000))));

    set_x(t, a->rd, op2(t, IR_or, low, high));
    return true;
}

/* One byte of RV32's AES, or of SM4. */
static bool one_byte(struct tcg_trans *t, const struct riscv_bs *a)
{
    set_x(t, a->rd,
          ir_call(t->ir, riscv_aes32, riscv_aes32_flags, true, get_x(t, a->rs1),
                  get_x(t, a->rs2), num(t, insn_bits(t))));
    return true;
}

#define ONE_BYTE(name)                                                                         \
    bool trans_##name(struct tcg_trans *t, const struct riscv_bs *a)                           \
    {                                                                                          \
        return one_byte(t, a);                                                                 \
    }

ONE_BYTE(aes32esi)
ONE_BYTE(aes32esmi)
ONE_BYTE(aes32dsi)
ONE_BYTE(aes32dsmi)
ONE_BYTE(sm4ed)
ONE_BYTE(sm4ks)

/* ---- SHA-2, SM3 -------------------------------------------------------------------------- */

/* The functions of SHA-2 and SM3: two rotations to the right, and the value itself, a shift or a third
 * rotation. */
enum third { SHIFT, ROTATE };
struct sigma {
    uint8_t r1, r2, third, n;
};

static const struct sigma sha256_sig0 = { 7, 18, SHIFT, 3 },
                          sha256_sig1 = { 17, 19, SHIFT, 10 },
                          sha256_sum0 = { 2, 13, ROTATE, 22 },
                          sha256_sum1 = { 6, 11, ROTATE, 25 }, sha512_sig0 = { 1, 8, SHIFT, 7 },
                          sha512_sig1 = { 19, 61, SHIFT, 6 },
                          sha512_sum0 = { 28, 34, ROTATE, 39 },
                          sha512_sum1 = { 14, 18, ROTATE, 41 }, sm3_p0 = { 23, 15, SHIFT, 0 },
                          sm3_p1 = { 17, 9, SHIFT, 0 };

static ir_ref sigma(struct tcg_trans *t, const struct sigma *s, unsigned w, ir_ref v)
{
    ir_ref one = ir_bin(t->ir, IR_rotr, w, v, num(t, s->r1));
    ir_ref two = ir_bin(t->ir, IR_rotr, w, v, num(t, s->r2));
    ir_ref third = ir_bin(t->ir, s->third == SHIFT ? IR_shr : IR_rotr, w, v, num(t, s->n));

    return op2(t, IR_xor, op2(t, IR_xor, one, two), third);
}

static bool word(struct tcg_trans *t, const struct riscv_r1 *a, const struct sigma *s)
{
    set_x32(t, a->rd, sigma(t, s, 32, get_x(t, a->rs1)));
    return true;
}

static bool double_word(struct tcg_trans *t, const struct riscv_r1 *a, const struct sigma *s)
{
    set_x(t, a->rd, sigma(t, s, 64, get_x(t, a->rs1)));
    return true;
}

#define HASH(name, how, which)                                                                 \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r1 *a)                           \
    {                                                                                          \
        return how(t, a, &which);                                                              \
    }

HASH(sha256sig0, word, sha256_sig0)
HASH(sha256sig1, word, sha256_sig1)
HASH(sha256sum0, word, sha256_sum0)
HASH(sha256sum1, word, sha256_sum1)
HASH(sha512sig0, double_word, sha512_sig0)
HASH(sha512sig1, double_word, sha512_sig1)
HASH(sha512sum0, double_word, sha512_sum0)
HASH(sha512sum1, double_word, sha512_sum1)
HASH(sm3p0, word, sm3_p0)
HASH(sm3p1, word, sm3_p1)

/* RV32: one half of the function of a value in two registers, high first. The low half of a rotation needs the
 * operands the other way round. */
static bool half(struct tcg_trans *t, const struct riscv_r *a, const struct sigma *s, bool high)
{
    ir_ref top = get_x(t, high ? a->rs1 : a->rs2), low = get_x(t, high ? a->rs2 : a->rs1);
    ir_ref v = op2(t, IR_or, op2(t, IR_shl, top, num(t, 32)), ir_un(t->ir, IR_zext32, 64, low));

    v = sigma(t, s, 64, v);
    set_x32(t, a->rd, high ? op2(t, IR_shr, v, num(t, 32)) : v);
    return true;
}

#define HALF(name, which, high)                                                                \
    bool trans_##name(struct tcg_trans *t, const struct riscv_r *a)                            \
    {                                                                                          \
        return half(t, a, &which, high);                                                       \
    }

HALF(sha512sig0h, sha512_sig0, true)
HALF(sha512sig0l, sha512_sig0, false)
HALF(sha512sig1h, sha512_sig1, true)
HALF(sha512sig1l, sha512_sig1, false)
HALF(sha512sum0r, sha512_sum0, false)
HALF(sha512sum1r, sha512_sum1, false)
