/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of the vector arithmetic instructions, by encoding: opcode group, funct6, and for unary ones the vs1
 * field (V 1.0, section 19; Cryptography Extensions Volume II 1.0). Constant data, any thread.
 */
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_kernels.h"
#include "engine/tcg/ir.h"

#define H(name) (IR_VEC_##name + 1)
#define ALL_SEWS 15
#define FLOAT_SEWS 14
#define SEW8 1
#define SEW16 2
#define SEW32 4
#define SEW64 8

/* Shapes: vd, vs2, vs1, flags; packed, so that macros can hand them on. */
#define SHAPE(d, s2, s1, flags)                                                                \
    (((uint32_t)(d)&255) | ((uint32_t)(s2)&255) << 8 | ((uint32_t)(s1)&255) << 16 |            \
     (uint32_t)(flags) << 24)
#define UNPACK(shape, at) (int8_t)((shape) >> (at)&255)
#define VVV SHAPE(0, 0, 0, 0)
#define VV_ SHAPE(0, 0, V_NONE, 0)
#define MVV SHAPE(V_MASK, 0, 0, 0)
#define WVV SHAPE(1, 0, 0, 0)
#define WWV SHAPE(1, 1, 0, 0)
#define WV_ SHAPE(1, 0, V_NONE, 0)
#define WVV_D SHAPE(1, 0, 0, V_READS_D)
#define NWV SHAPE(0, 1, 0, 0)
#define NW_ SHAPE(0, 1, V_NONE, 0)
#define RED SHAPE(V_ONE, 0, V_ONE, V_VSTART0)
#define MMM SHAPE(V_MASK, V_MASK, V_MASK, 0)

#define OP(run_, kernel, shape_, hint_, ...)                                                   \
    {                                                                                          \
        .run = run_, .k = kernel,                                                              \
        .shape = { UNPACK(shape_, 0), UNPACK(shape_, 8), UNPACK(shape_, 16),                   \
                   (uint32_t)(shape_) >> 24 },                                                 \
        .hint = hint_, __VA_ARGS__                                                             \
    }
#define EACH(kernel, hint_, ...) OP(v_run_each, kernel, VVV, hint_, __VA_ARGS__)
#define COMPARE(kernel, hint_, ...) OP(v_run_compare, kernel, MVV, hint_, __VA_ARGS__)
#define WIDEN(kernel, hint_) OP(v_run_each, kernel, WVV, hint_, .flags = 0)
#define WIDEN_MACC(kernel, hint_) OP(v_run_each, kernel, WVV_D, hint_, .flags = 0)
#define WIDEN_W(kernel, hint_) OP(v_run_each, kernel, WWV, hint_, .flags = 0)
#define NARROW(kernel, hint_, flags_) OP(v_run_each, kernel, NWV, hint_, .flags = flags_)
#define EXTEND(kernel, by, hint_) OP(v_run_each, kernel, EXT(by), hint_, .flags = 0)
#define EXT(by) SHAPE(0, -(by), V_NONE, 0)
#define UNARY(kernel, hint_) OP(v_run_each, kernel, VV_, hint_, .flags = 0)
#define RUN(run_, shape_, hint_, ...)                                                          \
    OP(run_, NULL, shape_, hint_, .sews = ALL_SEWS, __VA_ARGS__)

/* Floating point: where binary16 and binary64 come in. */
#define F_ .flags = V_F, .half = SEW16, .d_sews = SEW64
#define F_WIDE .flags = V_F, .half = SEW16, .d_sews = SEW32
#define FLOAT(kernel, hint_) OP(v_run_each, kernel, VVV, hint_, F_)
#define FLOAT_1(kernel, hint_) OP(v_run_each, kernel, VV_, hint_, F_)
#define FLOAT_WIDE(kernel, hint_) OP(v_run_each, kernel, WVV, hint_, F_WIDE)
#define FLOAT_WIDE_MACC(kernel, hint_) OP(v_run_each, kernel, WVV_D, hint_, F_WIDE)
#define FLOAT_WIDE_1(kernel, hint_) OP(v_run_each, kernel, WV_, hint_, F_WIDE)
#define FLOAT_NARROW_1(kernel, hint_) OP(v_run_each, kernel, NW_, hint_, F_WIDE)

/* OPIVV, OPIVX, OPIVI */
static const struct v_op iop[64] = {
    [0x00] = EACH(vk_add, H(add), .flags = 0),
    [0x01] = EACH(vk_andn, H(andn), .flags = 0),
    [0x02] = EACH(vk_sub, H(sub), .flags = 0),
    [0x03] = EACH(vk_rsub, H(rsub), .flags = 0),
    [0x04] = EACH(vk_minu, H(minu), .flags = 0),
    [0x05] = EACH(vk_min, H(mins), .flags = 0),
    [0x06] = EACH(vk_maxu, H(maxu), .flags = 0),
    [0x07] = EACH(vk_max, H(maxs), .flags = 0),
    [0x09] = EACH(vk_and, H(and), .flags = 0),
    [0x0a] = EACH(vk_or, H(or), .flags = 0),
    [0x0b] = EACH(vk_xor, H(xor), .flags = 0),
    [0x0c] = RUN(v_run_gather, SHAPE(0, 0, 0, V_APART), H(gather), .flags = V_UIMM),
    [0x0e] = RUN(v_run_slideup, SHAPE(0, 0, V_NONE, V_APART), H(slideup), .flags = V_UIMM),
    [0x0f] = RUN(v_run_slidedown, VV_, H(slidedown), .flags = V_UIMM),
    [0x10] = EACH(vk_adc, 0, .flags = V_CARRY),
    [0x11] = COMPARE(vk_madc, 0, .flags = V_CARRY),
    [0x12] = EACH(vk_sbc, 0, .flags = V_CARRY),
    [0x13] = COMPARE(vk_msbc, 0, .flags = V_CARRY),
    [0x14] = EACH(vk_ror, H(rotr), .flags = 0),
    [0x15] = EACH(vk_rol, H(rotl), .flags = 0),
    [0x17] = EACH(vk_merge, H(merge), .flags = V_CARRY),
    [0x18] = COMPARE(vk_seq, H(cmpeq), .flags = 0),
    [0x19] = COMPARE(vk_sne, H(cmpne), .flags = 0),
    [0x1a] = COMPARE(vk_sltu, H(cmpltu), .flags = 0),
    [0x1b] = COMPARE(vk_slt, H(cmplt), .flags = 0),
    [0x1c] = COMPARE(vk_sleu, H(cmpleu), .flags = 0),
    [0x1d] = COMPARE(vk_sle, H(cmple), .flags = 0),
    [0x1e] = COMPARE(vk_sgtu, H(cmpgtu), .flags = 0),
    [0x1f] = COMPARE(vk_sgt, H(cmpgt), .flags = 0),
    [0x20] = EACH(vk_saddu, 0, .flags = V_FLAGS),
    [0x21] = EACH(vk_sadd, 0, .flags = V_FLAGS),
    [0x22] = EACH(vk_ssubu, 0, .flags = V_FLAGS),
    [0x23] = EACH(vk_ssub, 0, .flags = V_FLAGS),
    [0x25] = EACH(vk_sll, H(shl), .flags = V_UIMM),
    [0x27] = EACH(vk_smul, 0, .flags = V_FLAGS, .d_sews = SEW64),
    [0x28] = EACH(vk_srl, H(shr), .flags = V_UIMM),
    [0x29] = EACH(vk_sra, H(sar), .flags = V_UIMM),
    [0x2a] = EACH(vk_ssrl, 0, .flags = V_UIMM),
    [0x2b] = EACH(vk_ssra, 0, .flags = V_UIMM),
    [0x2c] = NARROW(vk_nsrl, H(nshr), V_UIMM),
    [0x2d] = NARROW(vk_nsra, H(nsar), V_UIMM),
    [0x2e] = NARROW(vk_nclipu, 0, V_UIMM | V_FLAGS),
    [0x2f] = NARROW(vk_nclip, 0, V_UIMM | V_FLAGS),
    [0x30] = OP(v_run_reduce, vk_wredsumu, RED, H(wredsumu), .param = 1),
    [0x31] = OP(v_run_reduce, vk_wredsum, RED, H(wredsums), .param = 1),
    [0x35] = OP(v_run_each, vk_wsll, WVV, H(wshl), .flags = V_UIMM),
};
/* ... where the forms differ */
static const struct v_op op_gather16 = RUN(v_run_gather, SHAPE(0, 0, V_INDEX16, V_APART),
                                           H(gather16), .flags = 0);
static const struct v_op op_whole = RUN(v_run_whole, SHAPE(V_NONE, V_NONE, V_NONE, 0), 0,
                                        .flags = 0);
static const struct v_op op_move = EACH(vk_merge, H(mv), .flags = V_CARRY);

/* OPMVV, OPMVX */
#define REDUCE(kernel, hint_) OP(v_run_reduce, kernel, RED, hint_, .param = 0)
#define LOGIC(table, hint_) RUN(v_run_mask_logic, MMM, hint_, .param = table)
static const struct v_op mop[64] = {
    [0x00] = REDUCE(vk_redsum, H(redsum)),
    [0x01] = REDUCE(vk_redand, H(redand)),
    [0x02] = REDUCE(vk_redor, H(redor)),
    [0x03] = REDUCE(vk_redxor, H(redxor)),
    [0x04] = REDUCE(vk_redminu, H(redminu)),
    [0x05] = REDUCE(vk_redmin, H(redmins)),
    [0x06] = REDUCE(vk_redmaxu, H(redmaxu)),
    [0x07] = REDUCE(vk_redmax, H(redmaxs)),
    [0x08] = EACH(vk_aaddu, 0, .flags = 0),
    [0x09] = EACH(vk_aadd, 0, .flags = 0),
    [0x0a] = EACH(vk_asubu, 0, .flags = 0),
    [0x0b] = EACH(vk_asub, 0, .flags = 0),
    [0x0c] = EACH(vk_clmul, H(clmul), .flags = 0),
    [0x0d] = EACH(vk_clmulh, H(clmulh), .flags = 0),
    [0x0e] = RUN(v_run_slide1up, SHAPE(0, 0, V_NONE, V_APART), H(slide1up), .flags = 0),
    [0x0f] = RUN(v_run_slide1down, VV_, H(slide1down), .flags = 0),
    [0x17] = RUN(v_run_compress, SHAPE(0, 0, V_MASK, V_APART | V_VSTART0), H(compress),
                 .flags = 0),
    [0x18] = LOGIC(4, H(mandn)),
    [0x19] = LOGIC(8, H(mand)),
    [0x1a] = LOGIC(14, H(mor)),
    [0x1b] = LOGIC(6, H(mxor)),
    [0x1c] = LOGIC(13, H(morn)),
    [0x1d] = LOGIC(7, H(mnand)),
    [0x1e] = LOGIC(1, H(mnor)),
    [0x1f] = LOGIC(9, H(mxnor)),
    [0x20] = EACH(vk_divu, 0, .flags = 0),
    [0x21] = EACH(vk_div, 0, .flags = 0),
    [0x22] = EACH(vk_remu, 0, .flags = 0),
    [0x23] = EACH(vk_rem, 0, .flags = 0),
    [0x24] = EACH(vk_mulhu, H(mulhu), .d_sews = SEW64),
    [0x25] = EACH(vk_mul, H(mul), .flags = 0),
    [0x26] = EACH(vk_mulhsu, H(mulhsu), .d_sews = SEW64),
    [0x27] = EACH(vk_mulh, H(mulhs), .d_sews = SEW64),
    [0x29] = EACH(vk_madd, H(madd), .flags = 0),
    [0x2b] = EACH(vk_nmsub, H(nmsub), .flags = 0),
    [0x2d] = EACH(vk_macc, H(macc), .flags = 0),
    [0x2f] = EACH(vk_nmsac, H(nmsac), .flags = 0),
    [0x30] = WIDEN(vk_waddu, H(waddu)),
    [0x31] = WIDEN(vk_wadd, H(wadds)),
    [0x32] = WIDEN(vk_wsubu, H(wsubu)),
    [0x33] = WIDEN(vk_wsub, H(wsubs)),
    [0x34] = WIDEN_W(vk_waddu_w, H(waddu_w)),
    [0x35] = WIDEN_W(vk_wadd_w, H(wadds_w)),
    [0x36] = WIDEN_W(vk_wsubu_w, H(wsubu_w)),
    [0x37] = WIDEN_W(vk_wsub_w, H(wsubs_w)),
    [0x38] = WIDEN(vk_wmulu, H(wmulu)),
    [0x3a] = WIDEN(vk_wmulsu, H(wmulsu)),
    [0x3b] = WIDEN(vk_wmul, H(wmuls)),
    [0x3c] = WIDEN_MACC(vk_wmaccu, H(wmaccu)),
    [0x3d] = WIDEN_MACC(vk_wmacc, H(wmaccs)),
    [0x3e] = WIDEN_MACC(vk_wmaccus, H(wmaccus)),
    [0x3f] = WIDEN_MACC(vk_wmaccsu, H(wmaccsu)),
};
/* 0x10: to and from element 0, by vs1 (OPMVV) */
#define TO_X(run_, s2, hint_, flags_)                                                          \
    RUN(run_, SHAPE(V_NONE, s2, V_NONE, flags_), hint_, .flags = V_TO_X)
static const struct v_op mop_x[32] = {
    [0x00] = TO_X(v_run_to_x, V_ONE, 0, 0),
    [0x10] = TO_X(v_run_cpop, V_MASK, H(cpopm), V_VSTART0),
    [0x11] = TO_X(v_run_first, V_MASK, H(firstm), V_VSTART0),
};
static const struct v_op op_from_x = RUN(v_run_from_scalar, SHAPE(V_ONE, V_NONE, V_NONE, 0), 0,
                                         .flags = 0);
/* 0x12: unary, by vs1 */
static const struct v_op mop_unary[32] = {
    [0x02] = EXTEND(vk_zext8, 3, H(zext8)), [0x03] = EXTEND(vk_sext8, 3, H(sext8)),
    [0x04] = EXTEND(vk_zext4, 2, H(zext4)), [0x05] = EXTEND(vk_sext4, 2, H(sext4)),
    [0x06] = EXTEND(vk_zext2, 1, H(zext2)), [0x07] = EXTEND(vk_sext2, 1, H(sext2)),
    [0x08] = UNARY(vk_brev8, H(brev8)),     [0x09] = UNARY(vk_rev8, H(rev8)),
    [0x0a] = UNARY(vk_brev, H(brev)),       [0x0c] = UNARY(vk_clz, H(clz)),
    [0x0d] = UNARY(vk_ctz, H(ctz)),         [0x0e] = UNARY(vk_cpop, H(cpop)),
};
/* 0x14: of masks, by vs1 */
#define MM_ SHAPE(V_MASK, V_MASK, V_NONE, V_APART | V_VSTART0)
static const struct v_op mop_mask[32] = {
    [0x01] = RUN(v_run_set_first, MM_, 0, .param = 1),
    [0x02] = RUN(v_run_set_first, MM_, 0, .param = 2),
    [0x03] = RUN(v_run_set_first, MM_, 0, .param = 3),
    [0x10] = RUN(v_run_iota, SHAPE(0, V_MASK, V_NONE, V_APART | V_VSTART0), 0, .flags = 0),
    [0x11] = RUN(v_run_id, SHAPE(0, V_NONE, V_NONE, 0), H(id), .flags = 0),
};

/* OPFVV, OPFVF */
#define F_REDUCE(kernel, hint_) OP(v_run_reduce, kernel, RED, hint_, F_)
#define F_REDUCE_WIDE(kernel) OP(v_run_reduce, kernel, RED, 0, F_WIDE, .param = 1)
#define F_COMPARE(kernel, hint_) OP(v_run_compare, kernel, MVV, hint_, F_)
#define F_RUN(run_, shape_, hint_, flags_)                                                     \
    OP(run_, NULL, shape_, hint_, .flags = V_F | (flags_), .half = SEW16, .d_sews = SEW64,     \
       .sews = FLOAT_SEWS)
static const struct v_op fop[64] = {
    [0x00] = FLOAT(vk_fadd, H(fadd)),
    [0x01] = F_REDUCE(vk_fredsum, H(fredusum)),
    [0x02] = FLOAT(vk_fsub, H(fsub)),
    [0x03] = F_REDUCE(vk_fredsum, H(fredosum)),
    [0x04] = FLOAT(vk_fmin, H(fmin)),
    [0x05] = F_REDUCE(vk_fredmin, H(fredmin)),
    [0x06] = FLOAT(vk_fmax, H(fmax)),
    [0x07] = F_REDUCE(vk_fredmax, H(fredmax)),
    [0x08] = FLOAT(vk_fsgnj, H(fsgnj)),
    [0x09] = FLOAT(vk_fsgnjn, H(fsgnjn)),
    [0x0a] = FLOAT(vk_fsgnjx, H(fsgnjx)),
    [0x0e] = F_RUN(v_run_slide1up, SHAPE(0, 0, V_NONE, V_APART), H(slide1up), 0),
    [0x0f] = F_RUN(v_run_slide1down, VV_, H(slide1down), 0),
    [0x17] = OP(v_run_each, vk_fmerge, VVV, H(merge), .flags = V_F | V_CARRY, .half = SEW16,
                .d_sews = SEW64),
    [0x18] = F_COMPARE(vk_feq, H(fcmpeq)),
    [0x19] = F_COMPARE(vk_fle, H(fcmple)),
    [0x1b] = F_COMPARE(vk_flt, H(fcmplt)),
    [0x1c] = F_COMPARE(vk_fne, H(fcmpne)),
    [0x1d] = F_COMPARE(vk_fgt, H(fcmpgt)),
    [0x1f] = F_COMPARE(vk_fge, H(fcmpge)),
    [0x20] = FLOAT(vk_fdiv, H(fdiv)),
    [0x21] = FLOAT(vk_frdiv, H(frdiv)),
    [0x24] = FLOAT(vk_fmul, H(fmul)),
    [0x27] = FLOAT(vk_frsub, H(frsub)),
    [0x28] = FLOAT(vk_fmadd, H(fmadd)),
    [0x29] = FLOAT(vk_fnmadd, H(fnmadd)),
    [0x2a] = FLOAT(vk_fmsub, H(fmsub)),
    [0x2b] = FLOAT(vk_fnmsub, H(fnmsub)),
    [0x2c] = FLOAT(vk_fmacc, H(fmacc)),
    [0x2d] = FLOAT(vk_fnmacc, H(fnmacc)),
    [0x2e] = FLOAT(vk_fmsac, H(fmsac)),
    [0x2f] = FLOAT(vk_fnmsac, H(fnmsac)),
    [0x30] = FLOAT_WIDE(vk_fwadd, H(fwadd)),
    [0x31] = F_REDUCE_WIDE(vk_fwredsum),
    [0x32] = FLOAT_WIDE(vk_fwsub, H(fwsub)),
    [0x33] = F_REDUCE_WIDE(vk_fwredsum),
    [0x34] = OP(v_run_each, vk_fwadd_w, WWV, 0, F_WIDE),
    [0x36] = OP(v_run_each, vk_fwsub_w, WWV, 0, F_WIDE),
    [0x38] = FLOAT_WIDE(vk_fwmul, H(fwmul)),
    [0x3b] = OP(v_run_each, vk_fwmaccbf16, WVV_D, 0, .flags = V_F),
    [0x3c] = FLOAT_WIDE_MACC(vk_fwmacc, H(fwmacc)),
    [0x3d] = FLOAT_WIDE_MACC(vk_fwnmacc, H(fwnmacc)),
    [0x3e] = FLOAT_WIDE_MACC(vk_fwmsac, H(fwmsac)),
    [0x3f] = FLOAT_WIDE_MACC(vk_fwnmsac, H(fwnmsac)),
};
static const struct v_op op_fmove = OP(v_run_each, vk_fmerge, VVV, H(mv),
                                       .flags = V_F | V_CARRY, .half = SEW16, .d_sews = SEW64);
static const struct v_op op_to_f = F_RUN(v_run_to_f, SHAPE(V_NONE, V_ONE, V_NONE, 0), 0,
                                         V_TO_F | V_NO_FRM);
static const struct v_op op_from_f = F_RUN(v_run_from_scalar, SHAPE(V_ONE, V_NONE, V_NONE, 0),
                                           0, V_NO_FRM);
/* 0x12: conversions, by vs1 */
static const struct v_op fop_convert[32] = {
    [0x00] = FLOAT_1(vk_fcvt_xu, H(fcvt_u_f)),
    [0x01] = FLOAT_1(vk_fcvt_x, H(fcvt_s_f)),
    [0x02] = FLOAT_1(vk_fcvt_f_xu, H(fcvt_f_u)),
    [0x03] = FLOAT_1(vk_fcvt_f_x, H(fcvt_f_s)),
    [0x06] = FLOAT_1(vk_fcvt_xu_rtz, H(fcvt_u_f_rtz)),
    [0x07] = FLOAT_1(vk_fcvt_x_rtz, H(fcvt_s_f_rtz)),
    [0x08] = OP(v_run_each, vk_fwcvt_xu, WV_, 0, .flags = V_F, .half = SEW16),
    [0x09] = OP(v_run_each, vk_fwcvt_x, WV_, 0, .flags = V_F, .half = SEW16),
    [0x0a] = OP(v_run_each, vk_fwcvt_f_xu, WV_, H(fwcvt_f_u), .flags = V_F, .half = SEW8,
                .d_sews = SEW32),
    [0x0b] = OP(v_run_each, vk_fwcvt_f_x, WV_, H(fwcvt_f_s), .flags = V_F, .half = SEW8,
                .d_sews = SEW32),
    [0x0c] = OP(v_run_each, vk_fwcvt_f_f, WV_, H(fwcvt_f_f), .flags = V_F | V_HALF_MIN,
                .half = SEW16, .d_sews = SEW32),
    [0x0d] = OP(v_run_each, vk_fwcvtbf16, WV_, 0, .flags = V_F),
    [0x0e] = OP(v_run_each, vk_fwcvt_xu_rtz, WV_, 0, .flags = V_F, .half = SEW16),
    [0x0f] = OP(v_run_each, vk_fwcvt_x_rtz, WV_, 0, .flags = V_F, .half = SEW16),
    [0x10] = OP(v_run_each, vk_fncvt_xu, NW_, 0, .flags = V_F, .half = SEW8, .d_sews = SEW32),
    [0x11] = OP(v_run_each, vk_fncvt_x, NW_, 0, .flags = V_F, .half = SEW8, .d_sews = SEW32),
    [0x12] = OP(v_run_each, vk_fncvt_f_xu, NW_, 0, .flags = V_F, .half = SEW16),
    [0x13] = OP(v_run_each, vk_fncvt_f_x, NW_, 0, .flags = V_F, .half = SEW16),
    [0x14] = OP(v_run_each, vk_fncvt_f_f, NW_, H(fncvt_f_f), .flags = V_F | V_HALF_MIN,
                .half = SEW16, .d_sews = SEW32),
    [0x15] = FLOAT_NARROW_1(vk_fncvt_rod, 0),
    [0x16] = OP(v_run_each, vk_fncvt_xu_rtz, NW_, 0, .flags = V_F, .half = SEW8,
                .d_sews = SEW32),
    [0x17] = OP(v_run_each, vk_fncvt_x_rtz, NW_, 0, .flags = V_F, .half = SEW8,
                .d_sews = SEW32),
    [0x1d] = OP(v_run_each, vk_fncvtbf16, NW_, 0, .flags = V_F),
};
/* 0x13: unary, by vs1 */
static const struct v_op fop_unary[32] = {
    [0x00] = FLOAT_1(vk_fsqrt, H(fsqrt)),
    [0x04] = FLOAT_1(vk_frsqrt7, 0),
    [0x05] = FLOAT_1(vk_frec7, 0),
    [0x10] = FLOAT_1(vk_fclass, 0),
};

/* Cryptography (opcode OP-VE), groups of 1 << param elements */
#define GROUP(kernel, d, s2, s1, flags_, log2, hint_)                                          \
    OP(v_run_group, kernel, SHAPE(d, s2, s1, flags_), hint_, .param = log2)
static const struct v_op pop[64] = {
    [0x20] = GROUP(vk_sm3me, 0, 0, 0, V_APART2, 3, 0),
    [0x21] = GROUP(vk_sm4k, 0, 0, V_NONE, 0, 2, 0),
    [0x22] = GROUP(vk_aeskf1, 0, 0, V_NONE, 0, 2, H(aeskf1)),
    [0x2a] = GROUP(vk_aeskf2, 0, 0, V_NONE, 0, 2, H(aeskf2)),
    [0x2b] = GROUP(vk_sm3c, 0, 0, V_NONE, V_APART, 3, 0),
    [0x2c] = GROUP(vk_ghsh, 0, 0, 0, 0, 2, H(ghsh)),
    [0x2d] = GROUP(vk_sha2ms, 0, 0, 0, V_APART, 2, H(sha2ms)),
    [0x2e] = GROUP(vk_sha2ch, 0, 0, 0, V_APART, 2, H(sha2ch)),
    [0x2f] = GROUP(vk_sha2cl, 0, 0, 0, V_APART, 2, H(sha2cl)),
};
/* 0x28: a key for each group; 0x29: one key for all; by vs1 */
#define KEYS(kernel, hint_) GROUP(kernel, 0, 0, V_NONE, 0, 2, hint_)
#define ONE_KEY(kernel, hint_) GROUP(kernel, 0, V_ONE, V_NONE, V_APART, 2 | V_GROUP0, hint_)
static const struct v_op pop_vv[32] = {
    [0x00] = KEYS(vk_aesdm, H(aesdec)), [0x01] = KEYS(vk_aesdf, H(aesdeclast)),
    [0x02] = KEYS(vk_aesem, H(aesenc)), [0x03] = KEYS(vk_aesef, H(aesenclast)),
    [0x10] = KEYS(vk_sm4r, 0),          [0x11] = KEYS(vk_gmul, H(gmul)),
};
static const struct v_op pop_vs[32] = {
    [0x00] = ONE_KEY(vk_aesdm, H(aesdec)), [0x01] = ONE_KEY(vk_aesdf, H(aesdeclast)),
    [0x02] = ONE_KEY(vk_aesem, H(aesenc)), [0x03] = ONE_KEY(vk_aesef, H(aesenclast)),
    [0x07] = ONE_KEY(vk_aesz, H(aesz)),    [0x10] = ONE_KEY(vk_sm4r, 0),
};

static const struct v_op none = { .sews = 0 };

static const struct v_op *integer_op(uint32_t insn)
{
    unsigned f6 = insn >> 26, f3 = v_funct3(insn);

    if (f6 == 0x0e && f3 == V_IVV) {
        return &op_gather16;
    }
    if (f6 == 0x15 && f3 == V_IVI) {
        return &iop[0x14]; /* vror.vi with the sixth bit of the amount */
    }
    if (f6 == 0x27 && f3 == V_IVI) {
        return &op_whole;
    }
    return f6 == 0x17 && v_vm(insn) ? &op_move : &iop[f6];
}

static const struct v_op *multiply_op(uint32_t insn)
{
    unsigned f6 = insn >> 26, vs1 = v_vs1(insn);

    if (v_funct3(insn) == V_MVX) {
        return f6 == 0x10 ? &op_from_x : &mop[f6];
    }
    switch (f6) {
    case 0x10:
        return &mop_x[vs1];
    case 0x12:
        return &mop_unary[vs1];
    case 0x14:
        return &mop_mask[vs1];
    default:
        return &mop[f6];
    }
}

static const struct v_op *float_op(uint32_t insn)
{
    unsigned f6 = insn >> 26, vs1 = v_vs1(insn);
    bool vector = v_funct3(insn) == V_FVV;

    switch (f6) {
    case 0x10:
        return vector ? &op_to_f : &op_from_f;
    case 0x12:
        return &fop_convert[vs1];
    case 0x13:
        return &fop_unary[vs1];
    case 0x17:
        return v_vm(insn) ? &op_fmove : &fop[f6];
    default:
        return &fop[f6];
    }
}

static const struct v_op *crypto_op(uint32_t insn)
{
    unsigned f6 = insn >> 26, vs1 = v_vs1(insn);

    return f6 == 0x28 ? &pop_vv[vs1] : f6 == 0x29 ? &pop_vs[vs1] : &pop[f6];
}

const struct v_op *v_op_of(uint32_t insn)
{
    const struct v_op *op = &none;

    if ((insn & 0x7f) == V_CRYPTO) {
        op = crypto_op(insn);
    } else {
        switch (v_funct3(insn)) {
        case V_IVV:
        case V_IVX:
        case V_IVI:
            op = integer_op(insn);
            break;
        case V_MVV:
        case V_MVX:
            op = multiply_op(insn);
            break;
        case V_FVV:
        case V_FVF:
            op = float_op(insn);
            break;
        }
    }
    return op->run ? op : &none;
}
