/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RISC-V functions that translated code calls, and the translation mode they keep up.
 *
 * All have the type ir_helper with cpu a struct riscv_cpu; arguments that a helper does not name are ignored. x
 * values are sign-extended to 64 bits also for RV32, f values are the raw 64-bit register with
 * singles NaN-boxed (a helper unboxes its operands and boxes its result). They run on the vCPU's own thread.
 *
 * RISCV_HELPERS(H) lists them: H(name, flags for ir_call(), arguments and meaning).
 */
#ifndef VMD_TCG_GUEST_RISCV_HELPER_H
#define VMD_TCG_GUEST_RISCV_HELPER_H

#include "engine/arch/riscv/cpu.h"
#include "engine/tcg/guest.h"
#include "engine/tcg/ir.h"

/*
 * tcg_mode.code for RISC-V. In user mode the rounding mode is part of it: a dynamic rm (7) means the mode's frm, and is
 * an illegal instruction when that is 5 or more. FS off makes every F and D instruction (and access to
 * fflags, frm and fcsr, which the CSR helpers check) illegal. In the other modes code asks for both when it runs
 * (RV_CODE_FP_ASK, the two fields are 0): kernels hold no arithmetic, and what they leave in FS and frm for their
 * processes must not split their code and its caches in two.
 */
enum {
    RV_CODE_PRIV = 3 << 0, /* enum riscv_priv */
    RV_CODE_RV32 = 1 << 2,
    RV_CODE_FS_OFF = 1 << 3,
    RV_CODE_FRM_SHIFT = 4, /* three bits: frm; 5 stands for all invalid ones */
    RV_CODE_FRM = 7 << 4,
    RV_CODE_FP_ASK = 1 << 7,
    RV_CODE_VS_OFF = 1 << 8, /* vectors are off (in user mode; else they ask) */
    RV_CODE_CBZ = 1 << 12,   /* below machine mode: cbo.zero is allowed */
    RV_CODE_PM_7 = 1 << 9,   /* pointer masking: the top 7 or 16 bits of data addresses are ignored, */
    RV_CODE_PM_16 = 1 << 10,
    RV_CODE_PM_SIGNED = 1 << 11, /* ... replaced by the bit below them, not by 0 */
};

/* Exception causes (Privileged 1.12 table 3.6). */
enum riscv_cause {
    RISCV_CAUSE_FETCH_MISALIGNED = 0,
    RISCV_CAUSE_FETCH_ACCESS = 1,
    RISCV_CAUSE_ILLEGAL = 2,
    RISCV_CAUSE_BREAKPOINT = 3,
    RISCV_CAUSE_LOAD_MISALIGNED = 4,
    RISCV_CAUSE_LOAD_ACCESS = 5,
    RISCV_CAUSE_STORE_MISALIGNED = 6,
    RISCV_CAUSE_STORE_ACCESS = 7,
    RISCV_CAUSE_ECALL_U = 8,
    RISCV_CAUSE_ECALL_S = 9,
    RISCV_CAUSE_ECALL_M = 11,
    RISCV_CAUSE_FETCH_PAGE = 12,
    RISCV_CAUSE_LOAD_PAGE = 13,
    RISCV_CAUSE_STORE_PAGE = 15,
};

/*
 * insn is the instruction's bits (16 or 32, zero-extended). rm is a static rounding mode 0..4: the translator
 * resolves 7 by RV_CODE_FRM and makes invalid ones illegal. FP helpers neither check nor set
 * mstatus.FS: translated code sets both its bits once a block that writes an f register or fflags.
 *
 * CSR: the register number is insn >> 20. An access that is not allowed raises an illegal instruction with tval insn.
 * After one that writes, the block goes on only when riscv_csr_is_plain(); else tcg_stop().
 * sret, mret: set pc and mode; end with tcg_stop_pc(). sfence_vma: then tcg_stop(). fence.i: no helper, tcg_stop().
 * wfi: ir_setpc(behind it) first, then call, then tcg_stop(); returns when work is pending.
 * sc: 0 when it stored. With the reservation gone or the value changed it stores nothing and gives 1.
 */
#define RISCV_HELPERS(H)                                                                       \
    H(riscv_illegal, 0, "insn: raises an illegal instruction exception")                       \
    H(riscv_ecall, 0, "environment call from the current privilege")                           \
    H(riscv_ebreak, 0, "breakpoint")                                                           \
    H(riscv_fetch_misaligned, 0, "target: jump to a misaligned address without C")             \
    H(riscv_csr_read, IR_CALL_READS, "insn: csrrs, csrrc with rs1 x0 or uimm 0")               \
    H(riscv_csr_write, 0, "insn, value: csrrw with rd x0 (no read)")                           \
    H(riscv_csr_swap, 0, "insn, value: csrrw; returns the old value")                          \
    H(riscv_csr_set, 0, "insn, mask: csrrs; returns the old value")                            \
    H(riscv_csr_clear, 0, "insn, mask: csrrc; returns the old value")                          \
    H(riscv_sret, 0, "insn")                                                                   \
    H(riscv_mret, 0, "insn")                                                                   \
    H(riscv_wfi, 0, "insn")                                                                    \
    H(riscv_pause, IR_CALL_NO_GLOBALS, "the hint of a spin loop: lets other threads run")      \
    H(riscv_sfence_vma, 0, "insn, rs1 value, rs2 value")                                       \
    H(riscv_lr_w, IR_CALL_READS,                                                               \
      "address: returns the sign-extended word, sets the reservation")                         \
    H(riscv_lr_d, IR_CALL_READS, "address")                                                    \
    H(riscv_sc_w, IR_CALL_READS, "address, value: returns 0 or 1")                             \
    H(riscv_sc_d, IR_CALL_READS, "address, value: returns 0 or 1")                             \
    H(riscv_amocas_q, 0, "insn, address: the registers are in the instruction")                \
    H(riscv_wrs, IR_CALL_READS, "insn: waits a little, or is illegal")                         \
    H(riscv_cbo_allowed, IR_CALL_READS, "insn: illegal when the envcfg registers say so")      \
    H(riscv_cbo, IR_CALL_READS, "insn, address: cbo.inval, clean, flush")                      \
    H(riscv_cbo_zero, IR_CALL_READS, "address of the block: all of it becomes zero")           \
    H(riscv_clmul, IR_CALL_PURE, "a, b: low 64 bits of the carry-less product")                \
    H(riscv_clmulh, IR_CALL_PURE, "a, b: high 64 bits")                                        \
    H(riscv_clmulr, IR_CALL_PURE, "a, b: bits 126 to 63")                                      \
    H(riscv_clmulh_32, IR_CALL_PURE, "a, b: the same for words")                               \
    H(riscv_clmulr_32, IR_CALL_PURE, "a, b: bits 62 to 31, for words")                         \
    H(riscv_xperm4, IR_CALL_PURE, "a, b: nibbles of a, as b names them")                       \
    H(riscv_xperm8, IR_CALL_PURE, "a, b: bytes of a, as b names them")                         \
    H(riscv_xperm4_32, IR_CALL_PURE, "a, b: the same for words")                               \
    H(riscv_xperm8_32, IR_CALL_PURE, "a, b: the same for words")                               \
    H(riscv_aes64es, IR_CALL_PURE, "a low, b high half of the state: low half after")          \
    H(riscv_aes64esm, IR_CALL_PURE, "the same, with the columns mixed")                        \
    H(riscv_aes64ds, IR_CALL_PURE, "the same backwards")                                       \
    H(riscv_aes64dsm, IR_CALL_PURE, "the same backwards, with the columns mixed")              \
    H(riscv_aes64im, IR_CALL_PURE, "a: columns mixed backwards")                               \
    H(riscv_aes64ks1i, IR_CALL_PURE, "a, round number")                                        \
    H(riscv_aes32, IR_CALL_PURE, "a, b, insn: one byte of RV32's AES, SM4")                    \
    H(riscv_fadd_s, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fsub_s, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fmul_s, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fdiv_s, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fsqrt_s, IR_CALL_NO_GLOBALS, "a, rm")                                              \
    H(riscv_fsgnj_s, IR_CALL_PURE, "a, b")                                                     \
    H(riscv_fsgnjn_s, IR_CALL_PURE, "a, b")                                                    \
    H(riscv_fsgnjx_s, IR_CALL_PURE, "a, b")                                                    \
    H(riscv_fmin_s, IR_CALL_NO_GLOBALS, "a, b")                                                \
    H(riscv_fmax_s, IR_CALL_NO_GLOBALS, "a, b")                                                \
    H(riscv_feq_s, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_flt_s, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_fle_s, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_fclass_s, IR_CALL_PURE, "a: the ten-bit class mask")                               \
    H(riscv_fcvt_w_s, IR_CALL_NO_GLOBALS, "a, rm: x value")                                    \
    H(riscv_fcvt_wu_s, IR_CALL_NO_GLOBALS, "a, rm: x value (sign-extended word)")              \
    H(riscv_fcvt_l_s, IR_CALL_NO_GLOBALS, "a, rm: x value")                                    \
    H(riscv_fcvt_lu_s, IR_CALL_NO_GLOBALS, "a, rm: x value")                                   \
    H(riscv_fcvt_s_w, IR_CALL_NO_GLOBALS, "x value, rm")                                       \
    H(riscv_fcvt_s_wu, IR_CALL_NO_GLOBALS, "x value, rm")                                      \
    H(riscv_fcvt_s_l, IR_CALL_NO_GLOBALS, "x value, rm")                                       \
    H(riscv_fcvt_s_lu, IR_CALL_NO_GLOBALS, "x value, rm")                                      \
    H(riscv_fadd_d, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fsub_d, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fmul_d, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fdiv_d, IR_CALL_NO_GLOBALS, "a, b, rm")                                            \
    H(riscv_fsqrt_d, IR_CALL_NO_GLOBALS, "a, rm")                                              \
    H(riscv_fmin_d, IR_CALL_NO_GLOBALS, "a, b")                                                \
    H(riscv_fmax_d, IR_CALL_NO_GLOBALS, "a, b")                                                \
    H(riscv_feq_d, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_flt_d, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_fle_d, IR_CALL_NO_GLOBALS, "a, b: 0 or 1")                                         \
    H(riscv_fclass_d, IR_CALL_PURE, "a: the ten-bit class mask")                               \
    H(riscv_fcvt_w_d, IR_CALL_NO_GLOBALS, "a, rm: x value")                                    \
    H(riscv_fcvt_wu_d, IR_CALL_NO_GLOBALS, "a, rm: x value (sign-extended word)")              \
    H(riscv_fcvt_l_d, IR_CALL_NO_GLOBALS, "a, rm: x value")                                    \
    H(riscv_fcvt_lu_d, IR_CALL_NO_GLOBALS, "a, rm: x value")                                   \
    H(riscv_fcvt_d_w, IR_CALL_NO_GLOBALS, "x value, rm")                                       \
    H(riscv_fcvt_d_wu, IR_CALL_NO_GLOBALS, "x value, rm")                                      \
    H(riscv_fcvt_d_l, IR_CALL_NO_GLOBALS, "x value, rm")                                       \
    H(riscv_fcvt_d_lu, IR_CALL_NO_GLOBALS, "x value, rm")                                      \
    H(riscv_fcvt_s_d, IR_CALL_NO_GLOBALS, "a, rm")                                             \
    H(riscv_fcvt_d_s, IR_CALL_NO_GLOBALS, "a")                                                 \
    H(riscv_v_ask, IR_CALL_READS, "insn: raises an illegal instruction when VS is off")        \
    H(riscv_v_set, IR_CALL_NO_GLOBALS, "vtype, AVL: vsetvl; returns vl")                       \
    H(riscv_v_arith, IR_CALL_READS,                                                            \
      "insn, x or f or immediate operand, struct v_op: any of OP-V; the x or f result")        \
    H(riscv_v_load, IR_CALL_READS, "insn, address, stride or index base")                      \
    H(riscv_v_store, IR_CALL_READS, "insn, address, stride or index base")

/* Bits above the instruction in the first argument of vector helpers. */
#define RISCV_V_CHECKED (1ull << 32) /* legal under the vtype of now, VS is on */
#define RISCV_V_PM_SHIFT 40          /* RV_CODE_PM_* of the block: addresses are pointers with such tags */

#define RISCV_HELPER_DECLARE(name, flags, doc)                                                 \
    uint64_t name(void *cpu, uint64_t a, uint64_t b, uint64_t c);
RISCV_HELPERS(RISCV_HELPER_DECLARE)
#undef RISCV_HELPER_DECLARE

/* The flags of the list above, as constants: ir_call(ir, riscv_fadd_s, riscv_fadd_s_flags, ...). */
enum {
#define RISCV_HELPER_FLAGS(name, flags, doc) name##_flags = (flags),
    RISCV_HELPERS(RISCV_HELPER_FLAGS)
#undef RISCV_HELPER_FLAGS
};

/* The four fused multiply-adds in both widths take three operands, so the rounding mode chooses the
 * function. `kind` is 0 fmadd, 1 fmsub (a*b-c), 2 fnmsub (-a*b+c), 3 fnmadd (-a*b-c): bits 3:2 of the opcode.
 * Arguments a, b, c; IR_CALL_NO_GLOBALS. rm is 0..4. */
ir_helper riscv_fma_helper(bool is_double, unsigned kind, unsigned rm);

/* A write of this CSR changes nothing that code already translated behind it relies on (trap scratch
 * registers, fflags ...): the block may go on. */
bool riscv_csr_is_plain(unsigned csr);
/* Reads a clock or a counter, or arms a timer: exact under an instruction clock only after tcg_io_begin(). */
bool riscv_csr_uses_clock(unsigned csr);

/* ---- the hooks of struct tcg_guest (guest.h) that this half of the guest implements ---- */

struct tcg_mode riscv_tcg_mode(void *cpu);         /* trap.c */
int riscv_tcg_walk(void *cpu, struct tcg_walk *w); /* mmu.c */
void riscv_tcg_bus_fault(void *cpu, uint64_t va, uint64_t gpa, enum tcg_access access,
                         uint32_t *cause, uint64_t *tval); /* mmu.c */
void riscv_tcg_align_fault(void *cpu, uint64_t va, enum tcg_access access, uint32_t *cause,
                           uint64_t *tval);                         /* mmu.c */
void riscv_tcg_exception(void *cpu, uint32_t cause, uint64_t tval); /* trap.c */
bool riscv_tcg_interrupt(void *cpu);                                /* trap.c */
void riscv_tcg_dump(void *cpu, struct buf *b);                      /* trap.c */

#endif
