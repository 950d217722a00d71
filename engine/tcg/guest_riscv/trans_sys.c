/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of fences, CSR instructions and the privileged instructions. The contract of all of them is in trans.h.
 *
 * Most CSR accesses are helpers. Inline are those that trap handlers, locks and libm do all the time:
 * scratch, cause and trap-value registers, fflags and frm, vl, and the interrupt-enable bits of status.
 */
#include "engine/tcg/guest_riscv/trans.h"

#include "engine/arch/riscv/vector.h"

#include <stddef.h>

/* ---- fences ------------------------------------------------------------------------------ */

enum { PAUSE = 0x0100000f };           /* fence w, none: Zihintpause */
enum { SET_W = 1 | 4, SET_R = 2 | 8 }; /* of fence's pred and succ; O counts as W, I as R */

bool trans_fence(struct tcg_trans *t, const struct riscv_fence *a)
{
    bool pr = (a->pred & SET_R) != 0, pw = (a->pred & SET_W) != 0;
    bool sr = (a->succ & SET_R) != 0, sw = (a->succ & SET_W) != 0;
    bool tso = a->fm == 8;
    unsigned orders = (pr && sr ? IR_FENCE_LL : 0u) | (pr && sw ? IR_FENCE_LS : 0u) |
                      (pw && sr && !tso ? IR_FENCE_SL : 0u) | (pw && sw ? IR_FENCE_SS : 0u);

    if (orders != 0) {
        ir_fence(t->ir, orders);
    } else if (insn_bits(t) == PAUSE) {
        ir_call(t->ir, riscv_pause, riscv_pause_flags, false, IR_NONE, IR_NONE, IR_NONE);
    }
    return true;
}

bool trans_fence_i(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    return tcg_stop(t, t->next_off);
}

/* ---- CSRs -------------------------------------------------------------------------------- */

enum {
    CSR_FFLAGS = 0x001,
    CSR_FRM = 0x002,
    CSR_SSTATUS = 0x100,
    CSR_SSCRATCH = 0x140,
    CSR_SCAUSE = 0x142,
    CSR_STVAL = 0x143,
    CSR_MSTATUS = 0x300,
    CSR_MSCRATCH = 0x340,
    CSR_MCAUSE = 0x342,
    CSR_MTVAL = 0x343,
    CSR_VL = 0xc20,
    CSR_VLENB = 0xc22
};

enum csr_op { CSR_WRITE, CSR_SET, CSR_CLEAR };

/* A CSR instruction: what it does, and with which value (the constant 0 or a register). */
struct csr_insn {
    enum csr_op op;
    unsigned csr, rd;
    bool reads, writes;
    bool is_imm;
    ir_ref value;
    uint64_t imm;
};

/* CSRs that are a plain XLEN-bit field of the CPU state. */
static const struct {
    uint16_t csr;
    bool writable; /* any value is legal */
    uint32_t offset;
} fields[] = {
    { CSR_SSCRATCH, true, offsetof(struct riscv_cpu, sscratch) },
    { CSR_MSCRATCH, true, offsetof(struct riscv_cpu, mscratch) },
    { CSR_SCAUSE, false, offsetof(struct riscv_cpu, scause) },
    { CSR_STVAL, true, offsetof(struct riscv_cpu, stval) },
    { CSR_MCAUSE, false, offsetof(struct riscv_cpu, mcause) },
    { CSR_MTVAL, true, offsetof(struct riscv_cpu, mtval) },
};

/* The new value that op gives a register holding old. */
static ir_ref combine(struct tcg_trans *t, const struct csr_insn *in, ir_ref old)
{
    switch (in->op) {
    case CSR_SET:
        return ir_bin(t->ir, IR_or, 64, old, in->value);
    case CSR_CLEAR:
        return ir_bin(t->ir, IR_andc, 64, old, in->value);
    default:
        return in->value;
    }
}

/* Plain fields of the CPU state. True when it emitted the whole instruction. */
static bool inline_field(struct tcg_trans *t, const struct csr_insn *in)
{
    size_t i;

    if (is_rv32(t) || priv(t) < (in->csr >> 8 & 3)) {
        return false;
    }
    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].csr == in->csr && (fields[i].writable || !in->writes)) {
            bool need_old = in->reads || in->op != CSR_WRITE;
            ir_ref old = need_old ? ir_ldenv(t->ir, fields[i].offset, MO_64) : IR_NONE;

            if (in->writes) {
                ir_stenv(t->ir, fields[i].offset, MO_64, combine(t, in, old));
            }
            if (in->reads) {
                set_x(t, in->rd, old);
            }
            return true;
        }
    }
    return false;
}

/* fflags read and written, frm read. */
static bool inline_fp(struct tcg_trans *t, const struct csr_insn *in)
{
    unsigned frm = (t->code & RV_CODE_FRM) >> RV_CODE_FRM_SHIFT;
    uint32_t offset = offsetof(struct riscv_cpu, fflags);
    ir_ref old;

    if ((t->code & (RV_CODE_FS_OFF | RV_CODE_FP_ASK)) != 0) {
        return false;
    }
    if (in->csr == CSR_FRM && !in->writes && frm <= 4) {
        set_x(t, in->rd, ir_const(t->ir, frm));
        return true;
    }
    if (in->csr != CSR_FFLAGS) {
        return false;
    }
    old = ir_ldenv(t->ir, offset, MO_8);
    if (in->writes) {
        mark_fs_dirty(t);
        ir_stenv(t->ir, offset, MO_8,
                 ir_bin(t->ir, IR_and, 64, combine(t, in, old), ir_const(t->ir, 31)));
    }
    set_x(t, in->rd, old);
    return true;
}

/* Clearing SIE or MIE by an immediate: nothing that runs depends on it, so the block goes on. */
static bool inline_disable(struct tcg_trans *t, const struct csr_insn *in)
{
    uint32_t offset = offsetof(struct riscv_cpu, mstatus);
    uint64_t allowed = in->csr == CSR_MSTATUS ? MSTATUS_MIE | MSTATUS_SIE : MSTATUS_SIE;

    if ((in->csr != CSR_SSTATUS && in->csr != CSR_MSTATUS) || priv(t) < (in->csr >> 8 & 3) ||
        in->op != CSR_CLEAR || !in->is_imm || (in->imm & ~allowed) != 0) {
        return false;
    }
    if (in->reads) {
        uint32_t read = in->csr << 20 | 2 << 12 | 0x73; /* csrrs x0, csr, x0 */

        set_x(t, in->rd,
              ir_call(t->ir, riscv_csr_read, riscv_csr_read_flags, true, ir_const(t->ir, read),
                      IR_NONE, IR_NONE));
    }
    ir_stenv(
        t->ir, offset, MO_64,
        ir_bin(t->ir, IR_and, 64, ir_ldenv(t->ir, offset, MO_64), ir_const(t->ir, ~in->imm)));
    return true;
}

/* vl and vlenb read where the block knows that vectors are on. */
static bool inline_vector(struct tcg_trans *t, const struct csr_insn *in)
{
    if (in->writes || !t->variant_known || (t->variant & RISCV_VKEY_VS) == 0) {
        return false;
    }
    if (in->csr == CSR_VL) {
        set_x(t, in->rd, ir_ldenv(t->ir, offsetof(struct riscv_cpu, vl), MO_64));
        return true;
    }
    if (in->csr == CSR_VLENB) {
        set_x(t, in->rd, ir_const(t->ir, cpu_of(t)->vlenb));
        return true;
    }
    return false;
}

static bool by_helper(struct tcg_trans *t, const struct csr_insn *in)
{
    ir_ref bits = ir_const(t->ir, insn_bits(t)), old;

    if (!in->writes) {
        old = ir_call(t->ir, riscv_csr_read, riscv_csr_read_flags, true, bits, IR_NONE,
                      IR_NONE);
        set_x(t, in->rd, old);
        return true;
    }
    if (in->op == CSR_WRITE && !in->reads) {
        ir_call(t->ir, riscv_csr_write, riscv_csr_write_flags, false, bits, in->value, IR_NONE);
    } else if (in->op == CSR_WRITE) {
        old = ir_call(t->ir, riscv_csr_swap, riscv_csr_swap_flags, true, bits, in->value,
                      IR_NONE);
        set_x(t, in->rd, old);
    } else {
        ir_helper helper = in->op == CSR_SET ? riscv_csr_set : riscv_csr_clear;

        old = ir_call(t->ir, helper, riscv_csr_set_flags, true, bits, in->value, IR_NONE);
        set_x(t, in->rd, old);
    }
    return riscv_csr_is_plain(in->csr) ? true : tcg_stop(t, t->next_off);
}

static bool csr(struct tcg_trans *t, const struct riscv_csr *a, enum csr_op op, bool is_imm)
{
    struct csr_insn in = {
        .op = op,
        .csr = (uint32_t)a->csr & 0xfff,
        .rd = a->rd,
        .reads = a->rd != 0,
        .writes = op == CSR_WRITE || a->rs1 != 0,
        .is_imm = is_imm,
        .value = is_imm ? ir_const(t->ir, a->rs1) : get_x(t, a->rs1),
        .imm = is_imm ? a->rs1 : 0,
    };

    if (inline_field(t, &in) || inline_fp(t, &in) || inline_disable(t, &in) ||
        inline_vector(t, &in)) {
        return true;
    }
    return by_helper(t, &in);
}

bool trans_csrrw(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_WRITE, false);
}

bool trans_csrrs(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_SET, false);
}

bool trans_csrrc(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_CLEAR, false);
}

bool trans_csrrwi(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_WRITE, true);
}

bool trans_csrrsi(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_SET, true);
}

bool trans_csrrci(struct tcg_trans *t, const struct riscv_csr *a)
{
    return csr(t, a, CSR_CLEAR, true);
}

/* ---- traps and privileged instructions --------------------------------------------------- */

/* Calls a helper that takes the instruction's bits. */
static void call_with_bits(struct tcg_trans *t, ir_helper helper, unsigned flags)
{
    ir_call(t->ir, helper, flags, false, ir_const(t->ir, insn_bits(t)), IR_NONE, IR_NONE);
}

bool trans_ecall(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    ir_setpc(t->ir, ir_pcrel(t->ir, t->off));
    call_with_bits(t, riscv_ecall, riscv_ecall_flags);
    return tcg_stop_pc(t);
}

bool trans_ebreak(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    call_with_bits(t, riscv_ebreak, riscv_ebreak_flags);
    return tcg_stop(t, t->off);
}

bool trans_mret(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    call_with_bits(t, riscv_mret, riscv_mret_flags);
    return tcg_stop_pc(t);
}

bool trans_sret(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    call_with_bits(t, riscv_sret, riscv_sret_flags);
    return tcg_stop_pc(t);
}

bool trans_wfi(struct tcg_trans *t, const struct riscv_none *a)
{
    (void)a;
    ir_setpc(t->ir, ir_pcrel(t->ir, t->next_off));
    call_with_bits(t, riscv_wfi, riscv_wfi_flags);
    return tcg_stop(t, t->next_off);
}

bool trans_sfence_vma(struct tcg_trans *t, const struct riscv_r *a)
{
    ir_call(t->ir, riscv_sfence_vma, riscv_sfence_vma_flags, false,
            ir_const(t->ir, insn_bits(t)), mask_pointer(t, get_x(t, a->rs1)),
            get_x(t, a->rs2));
    return tcg_stop(t, t->next_off);
}
