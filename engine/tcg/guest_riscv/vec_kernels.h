/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels and drivers that the rows of vec_ops.c name: what each computes stands there and in vec.h.
 */
#ifndef VMD_TCG_GUEST_RISCV_VEC_KERNELS_H
#define VMD_TCG_GUEST_RISCV_VEC_KERNELS_H

#include "engine/tcg/guest_riscv/vec.h"

/* helper_v_int.c */
extern const v_kernel vk_add[4], vk_sub[4], vk_rsub[4], vk_and[4], vk_or[4], vk_xor[4];
extern const v_kernel vk_minu[4], vk_min[4], vk_maxu[4], vk_max[4], vk_sll[4], vk_srl[4], vk_sra[4];
extern const v_kernel vk_mul[4], vk_macc[4], vk_nmsac[4], vk_madd[4], vk_nmsub[4];
extern const v_kernel vk_divu[4], vk_remu[4], vk_div[4], vk_rem[4];
extern const v_kernel vk_mulhu[4], vk_mulh[4], vk_mulhsu[4];
extern const v_kernel vk_adc[4], vk_sbc[4], vk_madc[4], vk_msbc[4], vk_merge[4];
extern const v_kernel vk_seq[4], vk_sne[4], vk_sltu[4], vk_slt[4], vk_sleu[4], vk_sle[4];
extern const v_kernel vk_sgtu[4], vk_sgt[4];

#endif
