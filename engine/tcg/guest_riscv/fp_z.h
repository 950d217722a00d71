/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of half precision, BF16 and the additional floating point (Zfhmin, Zfh, Zfbfmin, Zfa): of the type ir_helper, to be
 * called with IR_CALL_NO_GLOBALS. The rules of helper.h for floating point hold. vCPU thread.
 */
#ifndef VMD_TCG_GUEST_RISCV_FP_Z_H
#define VMD_TCG_GUEST_RISCV_FP_Z_H

#include "engine/tcg/guest_riscv/helper.h"

/* H(name): arguments a, b, rm or a, rm, as in the D extension. */
#define RISCV_FP_Z_HELPERS(H)                                                                  \
    H(fadd_h)                                                                                  \
    H(fsub_h)                                                                                  \
    H(fmul_h)                                                                                  \
    H(fdiv_h)                                                                                  \
    H(fsqrt_h)                                                                                 \
    H(fmin_h)                                                                                  \
    H(fmax_h)                                                                                  \
    H(feq_h)                                                                                   \
    H(flt_h)                                                                                   \
    H(fle_h)                                                                                   \
    H(fclass_h)                                                                                \
    H(fcvt_w_h)                                                                                \
    H(fcvt_wu_h)                                                                               \
    H(fcvt_l_h)                                                                                \
    H(fcvt_lu_h)                                                                               \
    H(fcvt_h_w)                                                                                \
    H(fcvt_h_wu)                                                                               \
    H(fcvt_h_l)                                                                                \
    H(fcvt_h_lu)                                                                               \
    H(fcvt_s_h)                                                                                \
    H(fcvt_h_s)                                                                                \
    H(fcvt_d_h)                                                                                \
    H(fcvt_h_d)                                                                                \
    H(fcvt_bf16_s)                                                                             \
    H(fcvt_s_bf16)                                                                             \
    H(fminm_h)                                                                                 \
    H(fmaxm_h)                                                                                 \
    H(fminm_s)                                                                                 \
    H(fmaxm_s)                                                                                 \
    H(fminm_d)                                                                                 \
    H(fmaxm_d)                                                                                 \
    H(fround_h)                                                                                \
    H(froundnx_h)                                                                              \
    H(fround_s)                                                                                \
    H(froundnx_s)                                                                              \
    H(fround_d)                                                                                \
    H(froundnx_d)                                                                              \
    H(fleq_h)                                                                                  \
    H(fltq_h)                                                                                  \
    H(fleq_s)                                                                                  \
    H(fltq_s)                                                                                  \
    H(fleq_d)                                                                                  \
    H(fltq_d)                                                                                  \
    H(fcvtmod_w_d)

#define RISCV_FP_Z_DECLARE(name)                                                               \
    uint64_t riscv_##name(void *cpu, uint64_t a, uint64_t b, uint64_t c);
RISCV_FP_Z_HELPERS(RISCV_FP_Z_DECLARE)
#undef RISCV_FP_Z_DECLARE

/* As riscv_fma_helper(), for half precision. */
ir_helper riscv_fma_h_helper(unsigned kind, unsigned rm);
/* What fli puts into an f register: constant n (0..31) of Zfa's table, boxed; format 0 single, 1 double, 2 half. */
uint64_t riscv_fli(unsigned n, unsigned format);

#endif
