/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels and drivers that the rows of vec_ops.c name: what each computes stands there and in vec.h.
 */
#ifndef VMD_TCG_GUEST_RISCV_VEC_KERNELS_H
#define VMD_TCG_GUEST_RISCV_VEC_KERNELS_H

#include "engine/tcg/guest_riscv/vec.h"

/* helper_v_int.c */
extern const v_kernel vk_add[4], vk_sub[4], vk_rsub[4], vk_and[4], vk_or[4], vk_xor[4];
extern const v_kernel vk_minu[4], vk_min[4], vk_maxu[4], vk_max[4], vk_sll[4], vk_srl[4];
extern const v_kernel vk_sra[4], vk_mul[4], vk_macc[4], vk_nmsac[4], vk_madd[4], vk_nmsub[4];
extern const v_kernel vk_divu[4], vk_remu[4], vk_div[4], vk_rem[4], vk_mulhu[4], vk_mulh[4];
extern const v_kernel vk_mulhsu[4], vk_adc[4], vk_sbc[4], vk_madc[4], vk_msbc[4], vk_merge[4];
extern const v_kernel vk_seq[4], vk_sne[4], vk_sltu[4], vk_slt[4], vk_sleu[4], vk_sle[4];
extern const v_kernel vk_sgtu[4], vk_sgt[4];

extern const v_kernel vk_fmerge[4];

/* helper_v_wide.c */
extern const v_kernel vk_waddu[4], vk_wadd[4], vk_wsubu[4], vk_wsub[4], vk_waddu_w[4];
extern const v_kernel vk_wadd_w[4], vk_wsubu_w[4], vk_wsub_w[4], vk_wmulu[4], vk_wmul[4];
extern const v_kernel vk_wmulsu[4], vk_wmaccu[4], vk_wmacc[4], vk_wmaccsu[4], vk_wmaccus[4];
extern const v_kernel vk_wsll[4], vk_zext2[4], vk_zext4[4], vk_zext8[4], vk_sext2[4];
extern const v_kernel vk_sext4[4], vk_sext8[4], vk_nsrl[4], vk_nsra[4], vk_saddu[4];
extern const v_kernel vk_ssubu[4], vk_sadd[4], vk_ssub[4], vk_aaddu[4], vk_aadd[4];
extern const v_kernel vk_asubu[4], vk_asub[4], vk_smul[4], vk_ssrl[4], vk_ssra[4];
extern const v_kernel vk_nclipu[4], vk_nclip[4];

/* helper_v_bits.c */
extern const v_kernel vk_andn[4], vk_rol[4], vk_ror[4], vk_brev8[4], vk_rev8[4], vk_brev[4];
extern const v_kernel vk_clz[4], vk_ctz[4], vk_cpop[4], vk_clmul[4], vk_clmulh[4];

/* helper_v_mask.c */
extern const v_kernel vk_redsum[4], vk_redand[4], vk_redor[4], vk_redxor[4], vk_redminu[4];
extern const v_kernel vk_redmin[4], vk_redmaxu[4], vk_redmax[4], vk_wredsumu[4], vk_wredsum[4];
uint64_t v_run_mask_logic(struct v_args *v);
uint64_t v_run_cpop(struct v_args *v);
uint64_t v_run_first(struct v_args *v);
uint64_t v_run_set_first(struct v_args *v);
uint64_t v_run_iota(struct v_args *v);
uint64_t v_run_id(struct v_args *v);
uint64_t v_run_to_x(struct v_args *v);
uint64_t v_run_to_f(struct v_args *v);
uint64_t v_run_from_scalar(struct v_args *v);
uint64_t v_run_whole(struct v_args *v);
uint64_t v_run_slideup(struct v_args *v);
uint64_t v_run_slidedown(struct v_args *v);
uint64_t v_run_slide1up(struct v_args *v);
uint64_t v_run_slide1down(struct v_args *v);
uint64_t v_run_gather(struct v_args *v);
uint64_t v_run_compress(struct v_args *v);
uint64_t v_run_reduce(struct v_args *v);

/* helper_v_fp.c */
extern const v_kernel vk_fadd[4], vk_fsub[4], vk_frsub[4], vk_fmul[4], vk_fdiv[4], vk_frdiv[4];
extern const v_kernel vk_fsqrt[4], vk_fmin[4], vk_fmax[4], vk_fclass[4], vk_fmacc[4];
extern const v_kernel vk_fnmacc[4], vk_fmsac[4], vk_fnmsac[4], vk_fmadd[4], vk_fnmadd[4];
extern const v_kernel vk_fmsub[4], vk_fnmsub[4], vk_fsgnj[4], vk_fsgnjn[4], vk_fsgnjx[4];
extern const v_kernel vk_feq[4], vk_fne[4], vk_flt[4], vk_fle[4], vk_fgt[4], vk_fge[4];
extern const v_kernel vk_fwadd[4], vk_fwsub[4], vk_fwmul[4], vk_fwadd_w[4], vk_fwsub_w[4];
extern const v_kernel vk_fwmacc[4], vk_fwnmacc[4], vk_fwmsac[4], vk_fwnmsac[4], vk_fredsum[4];
extern const v_kernel vk_fredmin[4], vk_fredmax[4], vk_fwredsum[4], vk_fwcvtbf16[4];
extern const v_kernel vk_fncvtbf16[4], vk_fwmaccbf16[4];

/* helper_v_cvt.c */
extern const v_kernel vk_fcvt_xu[4], vk_fcvt_xu_rtz[4], vk_fcvt_x[4], vk_fcvt_x_rtz[4];
extern const v_kernel vk_fwcvt_xu[4], vk_fwcvt_xu_rtz[4], vk_fwcvt_x[4], vk_fwcvt_x_rtz[4];
extern const v_kernel vk_fncvt_xu[4], vk_fncvt_xu_rtz[4], vk_fncvt_x[4], vk_fncvt_x_rtz[4];
extern const v_kernel vk_fcvt_f_xu[4], vk_fcvt_f_x[4], vk_fwcvt_f_xu[4], vk_fwcvt_f_x[4];
extern const v_kernel vk_fncvt_f_xu[4], vk_fncvt_f_x[4], vk_fwcvt_f_f[4], vk_fncvt_f_f[4];
extern const v_kernel vk_fncvt_rod[4], vk_frsqrt7[4], vk_frec7[4];

/* helper_v_crypto.c */
extern const v_kernel vk_aesem[4], vk_aesef[4], vk_aesdm[4], vk_aesdf[4], vk_aesz[4];
extern const v_kernel vk_aeskf1[4], vk_aeskf2[4], vk_sha2ms[4], vk_sha2cl[4], vk_sha2ch[4];
extern const v_kernel vk_ghsh[4], vk_gmul[4], vk_sm4k[4], vk_sm4r[4], vk_sm3me[4], vk_sm3c[4];
uint64_t v_run_group(struct v_args *v);

#endif
