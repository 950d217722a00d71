/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translate functions of the base integer instructions (RV32I, RV64I) but the system ones. The
 * contract of all of them is in trans.h.
 */
#include "engine/arch/riscv/features.h"
#include "engine/tcg/guest_riscv/trans.h"

/* ---- jumps and branches ------------------------------------------------------------------ */

static bool has_c(const struct tcg_trans *t)
{
    return RISCV_HAS(cpu_of(t)->features, RISCV_EXT_C) != 0;
}

/* Without compressed instructions, code is aligned to 4: true if off is no valid target. */
static bool misaligned(const struct tcg_trans *t, int64_t off)
{
    return (off & 2) != 0 && !has_c(t);
}

/* Called by code for harts without C: a jump to `target` whose bit 1 is set raises, with the jump's own pc. */
static uint64_t check_target_helper(void *cpu, uint64_t target, uint64_t b, uint64_t c)
{
    (void)b;
    (void)c;
    if ((target & 2) != 0) {
        tcg_raise(cpu, RISCV_CAUSE_FETCH_MISALIGNED, target);
    }
    return 0;
}

static void check_target(struct tcg_trans *t, ir_ref target)
{
    ir_call(t->ir, check_target_helper, IR_CALL_READS, false, target, IR_NONE, IR_NONE);
}

/* x1 and x5 are link registers (Unprivileged ISA, table of return-address prediction hints). */
static bool is_link(unsigned reg)
{
    return reg == 1 || reg == 5;
}

bool trans_lui(struct tcg_trans *t, const struct riscv_u *a)
{
    set_x(t, a->rd, ir_const(t->ir, (uint64_t)(int64_t)a->imm));
    return true;
}

bool trans_auipc(struct tcg_trans *t, const struct riscv_u *a)
{
    set_x(t, a->rd, pc_value(t, (int64_t)t->off + a->imm));
    return true;
}

bool trans_jal(struct tcg_trans *t, const struct riscv_u *a)
{
    int32_t target = t->off + a->imm;

    if (misaligned(t, target)) {
        ir_call(t->ir, riscv_fetch_misaligned, riscv_fetch_misaligned_flags, false,
                ir_pcrel(t->ir, target), IR_NONE, IR_NONE);
        return tcg_stop(t, t->off);
    }
    set_x(t, a->rd, pc_value(t, t->next_off));
    return tcg_goto(t, target, is_link(a->rd) ? IR_HINT_CALL : IR_HINT_NONE);
}

static enum ir_hint jalr_hint(const struct riscv_i *a)
{
    if (is_link(a->rd)) {
        return IR_HINT_CALL;
    }
    return a->rd == 0 && is_link(a->rs1) ? IR_HINT_RETURN : IR_HINT_NONE;
}

bool trans_jalr(struct tcg_trans *t, const struct riscv_i *a)
{
    enum ir_hint hint = jalr_hint(a);
    ir_ref target;
    int64_t off;

    target = ir_addi(t->ir, get_x(t, a->rs1), a->imm);
    if (ir_is_pcrel(t->ir, target, &off) && off == (int32_t)off &&
        !misaligned(t, off)) { /* auipc and jalr: a far call or jump */
        set_x(t, a->rd, pc_value(t, t->next_off));
        return tcg_goto(t, (int32_t)(off & ~INT64_C(1)), hint);
    }
    target = ir_bin(t->ir, IR_and, 64, target, ir_const(t->ir, ~UINT64_C(1)));
    if (is_rv32(t)) {
        target = ir_un(t->ir, IR_zext32, 64, target);
    }
    if (!has_c(t)) {
        check_target(t, target);
    }
    if (a->rd != 0) {
        target = ir_kind(target) == IR_GLOBAL ? ir_copy(t->ir, target) : target;
        set_x(t, a->rd, pc_value(t, t->next_off));
    }
    return tcg_jump(t, target, hint);
}

static bool branch(struct tcg_trans *t, const struct riscv_b *a, enum ir_cond cond)
{
    ir_ref one = get_x(t, a->rs1), two = get_x(t, a->rs2);
    int32_t target = t->off + a->imm;

    if (misaligned(t, target)) {
        /* Taken, it raises: the target's address when the condition holds, else 0. */
        check_target(t, ir_select(t->ir, cond, 64, one, two, ir_pcrel(t->ir, target),
                                  ir_const(t->ir, 0)));
        return true;
    }
    if (a->rs1 == a->rs2 && (cond == IR_EQ || cond == IR_GE || cond == IR_GEU)) {
        return tcg_goto(t, target, IR_HINT_NONE);
    }
    if (a->rs1 == a->rs2) {
        return true;
    }
    tcg_branch(t, cond, 64, one, two, target);
    return true;
}

bool trans_beq(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_EQ);
}

bool trans_bne(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_NE);
}

bool trans_blt(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_LT);
}

bool trans_bge(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_GE);
}

bool trans_bltu(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_LTU);
}

bool trans_bgeu(struct tcg_trans *t, const struct riscv_b *a)
{
    return branch(t, a, IR_GEU);
}

/* ---- loads and stores -------------------------------------------------------------------- */

static bool load(struct tcg_trans *t, const struct riscv_i *a, unsigned mo)
{
    int32_t disp;
    ir_ref address = mem_addr(t, a->rs1, a->imm, &disp);

    set_x(t, a->rd, ir_ld(t->ir, address, disp, mo));
    return true;
}

static bool store(struct tcg_trans *t, const struct riscv_s *a, unsigned mo)
{
    int32_t disp;
    ir_ref address = mem_addr(t, a->rs1, a->imm, &disp);

    ir_st(t->ir, address, disp, get_x(t, a->rs2), mo);
    return true;
}

bool trans_lb(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_8 | MO_SIGN);
}

bool trans_lh(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_16 | MO_SIGN);
}

bool trans_lw(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_32 | MO_SIGN);
}

bool trans_ld(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_64);
}

bool trans_lbu(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_8);
}

bool trans_lhu(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_16);
}

bool trans_lwu(struct tcg_trans *t, const struct riscv_i *a)
{
    return load(t, a, MO_32);
}

bool trans_sb(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_8);
}

bool trans_sh(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_16);
}

bool trans_sw(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_32);
}

bool trans_sd(struct tcg_trans *t, const struct riscv_s *a)
{
    return store(t, a, MO_64);
}

/* ---- arithmetic -------------------------------------------------------------------------- */

static ir_ref imm_of(struct tcg_trans *t, int32_t imm)
{
    return ir_const(t->ir, (uint64_t)(int64_t)imm);
}

/* rd = a OP b in XLEN bits, where the low bits of the result depend on the low bits alone. */
static bool sum(struct tcg_trans *t, enum ir_opcode op, unsigned rd, ir_ref a, ir_ref b)
{
    set_xl(t, rd, ir_bin(t->ir, op, 64, a, b));
    return true;
}

/* rd = a OP b, bit by bit: sign-extended operands give a sign-extended result. */
static bool logic(struct tcg_trans *t, enum ir_opcode op, unsigned rd, ir_ref a, ir_ref b)
{
    set_x(t, rd, ir_bin(t->ir, op, 64, a, b));
    return true;
}

/* rd = a shifted by b in w bits. */
static bool shift(struct tcg_trans *t, enum ir_opcode op, unsigned w, unsigned rd, ir_ref a,
                  ir_ref b)
{
    ir_ref v = ir_bin(t->ir, op, w, a, b);

    if (w == 32) {
        set_x32(t, rd, v);
    } else {
        set_x(t, rd, v);
    }
    return true;
}

static bool set_if(struct tcg_trans *t, enum ir_cond cond, unsigned rd, ir_ref a, ir_ref b)
{
    set_x(t, rd, ir_setcond(t->ir, cond, 64, a, b));
    return true;
}

bool trans_addi(struct tcg_trans *t, const struct riscv_i *a)
{
    if (a->imm == 0) {
        if (a->rd != a->rs1) {
            set_x(t, a->rd, get_x(t, a->rs1));
        }
        return true;
    }
    return sum(t, IR_add, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_slti(struct tcg_trans *t, const struct riscv_i *a)
{
    return set_if(t, IR_LT, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_sltiu(struct tcg_trans *t, const struct riscv_i *a)
{
    return set_if(t, IR_LTU, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_xori(struct tcg_trans *t, const struct riscv_i *a)
{
    return logic(t, IR_xor, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_ori(struct tcg_trans *t, const struct riscv_i *a)
{
    return logic(t, IR_or, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_andi(struct tcg_trans *t, const struct riscv_i *a)
{
    return logic(t, IR_and, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_slli(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_shl, xlen(t), a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_srli(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_shr, xlen(t), a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_srai(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_sar, xlen(t), a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_add(struct tcg_trans *t, const struct riscv_r *a)
{
    if (a->rs1 == 0 || a->rs2 == 0) {
        unsigned source = a->rs1 | a->rs2;

        if (source != a->rd) {
            set_x(t, a->rd, get_x(t, source));
        }
        return true;
    }
    return sum(t, IR_add, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_sub(struct tcg_trans *t, const struct riscv_r *a)
{
    return sum(t, IR_sub, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_sll(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_shl, xlen(t), a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_slt(struct tcg_trans *t, const struct riscv_r *a)
{
    return set_if(t, IR_LT, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_sltu(struct tcg_trans *t, const struct riscv_r *a)
{
    return set_if(t, IR_LTU, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_xor(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_xor, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_srl(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_shr, xlen(t), a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_sra(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_sar, xlen(t), a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_or(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_or, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_and(struct tcg_trans *t, const struct riscv_r *a)
{
    return logic(t, IR_and, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

/* ---- 32-bit arithmetic of RV64 ----------------------------------------------------------- */

bool trans_addiw(struct tcg_trans *t, const struct riscv_i *a)
{
    set_x32(t, a->rd, ir_addi(t->ir, get_x(t, a->rs1), a->imm));
    return true;
}

bool trans_slliw(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_shl, 32, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_srliw(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_shr, 32, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_sraiw(struct tcg_trans *t, const struct riscv_i *a)
{
    return shift(t, IR_sar, 32, a->rd, get_x(t, a->rs1), imm_of(t, a->imm));
}

bool trans_addw(struct tcg_trans *t, const struct riscv_r *a)
{
    set_x32(t, a->rd, ir_add(t->ir, get_x(t, a->rs1), get_x(t, a->rs2)));
    return true;
}

bool trans_subw(struct tcg_trans *t, const struct riscv_r *a)
{
    set_x32(t, a->rd, ir_bin(t->ir, IR_sub, 64, get_x(t, a->rs1), get_x(t, a->rs2)));
    return true;
}

bool trans_sllw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_shl, 32, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_srlw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_shr, 32, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}

bool trans_sraw(struct tcg_trans *t, const struct riscv_r *a)
{
    return shift(t, IR_sar, 32, a->rd, get_x(t, a->rs1), get_x(t, a->rs2));
}
