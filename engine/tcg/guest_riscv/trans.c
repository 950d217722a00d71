/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translation of RISC-V code to IR: fetch, decode, the registers as IR globals, and what the translate functions
 * share. Runs on the thread that translates.
 */
#include "engine/tcg/guest_riscv/trans.h"

#include "engine/arch/riscv/features.h"
#include "engine/tcg/guest_riscv/disas.h"
#include "engine/tcg/guest_riscv/guest.h"

#include <stdio.h>
#include <string.h>

#define X(n, abi, pin)                                                                         \
    [RISCV_GLOBAL_X1 + (n)-1] = { abi, offsetof(struct riscv_cpu, x[n]), pin }
#define F(n, abi) [RISCV_GLOBAL_F0 + (n)] = { abi, offsetof(struct riscv_cpu, f[n]), 0 }

/* The pins follow how often compiled code names each register. */
static const struct ir_global globals[RISCV_GLOBALS] = {
    X(1, "ra", 11),  X(2, "sp", 4),   X(3, "gp", 0),   X(4, "tp", 18),  X(5, "t0", 17),
    X(6, "t1", 15),  X(7, "t2", 22),  X(8, "s0", 6),   X(9, "s1", 10),  X(10, "a0", 3),
    X(11, "a1", 7),  X(12, "a2", 8),  X(13, "a3", 5),  X(14, "a4", 2),  X(15, "a5", 1),
    X(16, "a6", 12), X(17, "a7", 14), X(18, "s2", 9),  X(19, "s3", 13), X(20, "s4", 16),
    X(21, "s5", 19), X(22, "s6", 23), X(23, "s7", 25), X(24, "s8", 26), X(25, "s9", 27),
    X(26, "s10", 0), X(27, "s11", 0), X(28, "t3", 20), X(29, "t4", 21), X(30, "t5", 24),
    X(31, "t6", 28), F(0, "ft0"),     F(1, "ft1"),     F(2, "ft2"),     F(3, "ft3"),
    F(4, "ft4"),     F(5, "ft5"),     F(6, "ft6"),     F(7, "ft7"),     F(8, "fs0"),
    F(9, "fs1"),     F(10, "fa0"),    F(11, "fa1"),    F(12, "fa2"),    F(13, "fa3"),
    F(14, "fa4"),    F(15, "fa5"),    F(16, "fa6"),    F(17, "fa7"),    F(18, "fs2"),
    F(19, "fs3"),    F(20, "fs4"),    F(21, "fs5"),    F(22, "fs6"),    F(23, "fs7"),
    F(24, "fs8"),    F(25, "fs9"),    F(26, "fs10"),   F(27, "fs11"),   F(28, "ft8"),
    F(29, "ft9"),    F(30, "ft10"),   F(31, "ft11"),
};

/* Whether a hart has what a feature of riscv.isa stands for: an extension, or one of several
 * ("zbb_or_zbkb"). */
static bool has_feature(const struct riscv_cpu *c, const char *name)
{
    const char *end = strstr(name, "_or_");
    unsigned ext = riscv_ext_find(name, end ? (size_t)(end - name) : strlen(name));

    if (ext < RISCV_EXT_COUNT && RISCV_HAS(c->features, ext)) {
        return true;
    }
    return end && has_feature(c, end + 4);
}

isa_features riscv_isa_of(const struct riscv_cpu *c)
{
    isa_features result = RISCV_ISA_PRIV | (c->xlen == 32 ? RISCV_ISA_RV32 : RISCV_ISA_RV64);
    size_t i;

    for (i = 0; i < riscv_isa.feature_count; i++) {
        result |= has_feature(c, riscv_isa.features[i]) ? ISA_FEATURE(i) : 0;
    }
    return result;
}

/* Worked out when the hart's first instruction is translated. */
static isa_features hart_features(struct riscv_cpu *c)
{
    if (c->decode[0] == 0) {
        isa_features f = riscv_isa_of(c);

        c->decode[1] = (uint64_t)(f >> 64);
        c->decode[0] = (uint64_t)f;
    }
    return (isa_features)c->decode[1] << 64 | c->decode[0];
}

uint32_t insn_bits(struct tcg_trans *t)
{
    uint32_t bits = tcg_fetch16(t, t->off);

    return riscv_insn_length(bits) == 2 ? bits : tcg_fetch32(t, t->off);
}

bool riscv_tcg_translate(struct tcg_trans *t)
{
    struct riscv_insn insn;

    if (riscv_decode(insn_bits(t), hart_features(t->cpu), &insn) == RISCV_OP_ILLEGAL) {
        t->next_off = t->off + insn.length;
        return trans_illegal(t);
    }
    t->next_off = t->off + insn.length;
    return riscv_translate(t, &insn);
}

unsigned riscv_tcg_disas(const uint8_t *p, unsigned n, uint64_t pc, uint32_t code, char *out,
                         size_t size)
{
    uint32_t bits = 0;
    unsigned i;

    for (i = 0; i < 4 && i < n; i++) {
        bits |= (uint32_t)p[i] << (8 * i);
    }
    if (n < 2 || n < riscv_insn_length(bits)) {
        snprintf(out, size, "(cut off)");
        return n;
    }
    return riscv_disas(pc, bits, (code & RV_CODE_RV32) != 0 ? 32 : 64, out, size);
}

bool trans_illegal(struct tcg_trans *t)
{
    ir_call(t->ir, riscv_illegal, riscv_illegal_flags, false, ir_const(t->ir, insn_bits(t)),
            IR_NONE, IR_NONE);
    return tcg_stop(t, t->off);
}

void mark_fs_dirty(struct tcg_trans *t)
{
    uint32_t offset = offsetof(struct riscv_cpu, mstatus);

    if ((t->guest & RISCV_T_FS_DIRTY) == 0) {
        t->guest |= RISCV_T_FS_DIRTY;
        ir_stenv(t->ir, offset, MO_64,
                 ir_bin(t->ir, IR_or, 64, ir_ldenv(t->ir, offset, MO_64),
                        ir_const(t->ir, MSTATUS_FS)));
    }
}

void set_f(struct tcg_trans *t, unsigned n, ir_ref v)
{
    mark_fs_dirty(t);
    ir_set(t->ir, RISCV_GLOBAL_F0 + n, v);
}

/* Called by code that must ask: raises an illegal instruction with bits `insn` when FS is off. */
static uint64_t ask_fs(void *cpu, uint64_t insn, uint64_t b, uint64_t c)
{
    const struct riscv_cpu *hart = cpu;

    return (hart->mstatus & MSTATUS_FS) != 0 ? 0 : riscv_illegal(cpu, insn, b, c);
}

bool fp_on(struct tcg_trans *t)
{
    if ((t->code & RV_CODE_FS_OFF) != 0) {
        return trans_illegal(t);
    }
    if ((t->code & RV_CODE_FP_ASK) != 0 && (t->guest & RISCV_T_FP_ASKED) == 0) {
        /* What could turn FS off ends the block. */
        t->guest |= RISCV_T_FP_ASKED;
        ir_call(t->ir, ask_fs, IR_CALL_READS, false, ir_const(t->ir, insn_bits(t)), IR_NONE,
                IR_NONE);
    }
    return true;
}

ir_ref mask_pointer(struct tcg_trans *t, ir_ref va)
{
    unsigned n = (t->code & RV_CODE_PM_7) != 0 ? 7 : (t->code & RV_CODE_PM_16) != 0 ? 16 : 0;
    bool is_signed = (t->code & RV_CODE_PM_SIGNED) != 0;

    if (n == 0) {
        return va;
    }
    va = ir_bin(t->ir, IR_shl, 64, va, ir_const(t->ir, n));
    return ir_bin(t->ir, is_signed ? IR_sar : IR_shr, 64, va, ir_const(t->ir, n));
}

ir_ref mem_addr(struct tcg_trans *t, unsigned n, int32_t imm, int32_t *disp)
{
    ir_ref base = get_x(t, n);

    if ((t->code & (RV_CODE_PM_7 | RV_CODE_PM_16)) != 0) {
        *disp = 0;
        return mask_pointer(t, ir_addi(t->ir, base, imm));
    }
    if (!is_rv32(t)) {
        *disp = imm;
        return base;
    }
    *disp = 0;
    return ir_un(t->ir, IR_zext32, 64, ir_addi(t->ir, base, imm));
}

ir_ref pc_value(struct tcg_trans *t, int64_t off)
{
    ir_ref pc = ir_pcrel(t->ir, off);

    return is_rv32(t) ? ir_un(t->ir, IR_sext32, 64, pc) : pc;
}

static unsigned insn_length(const uint8_t *bytes, unsigned have)
{
    (void)have; /* the first byte tells */
    return (bytes[0] & 3) == 3 ? 4 : 2;
}

#define GUEST(guest_name, mask)                                                                \
    {                                                                                          \
        .name = guest_name, .globals = globals, .n_globals = RISCV_GLOBALS,                    \
        .pc_offset = offsetof(struct riscv_cpu, pc), .insn_align = 2, .insn_max = 4,           \
        .insn_length = insn_length,                                                            \
        .fp_flags = offsetof(struct riscv_cpu, fflags), .fp_inexact = 1,                       \
        .fp_round = offsetof(struct riscv_cpu, frm),                                           \
        .fp_underflow = 2, .fp_overflow = 4, .fp_divzero = 8, .fp_invalid = 16,                \
        .pc_mask = mask,                                                                       \
        .res_addr = offsetof(struct riscv_cpu, res_addr),                                      \
        .res_value = offsetof(struct riscv_cpu, res_value),                                    \
        .vl_offset = offsetof(struct riscv_cpu, vl),                                           \
        .variant_offset = offsetof(struct riscv_cpu, vkey),                                    \
        .mode = riscv_tcg_mode, .walk = riscv_tcg_walk, .bus_fault = riscv_tcg_bus_fault,      \
        .align_fault = riscv_tcg_align_fault, .exception = riscv_tcg_exception,                \
        .interrupt = riscv_tcg_interrupt, .translate = riscv_tcg_translate,                    \
        .disas = riscv_tcg_disas, .dump = riscv_tcg_dump,                                      \
    }

const struct tcg_guest riscv64_guest = GUEST("riscv64", UINT64_MAX);
const struct tcg_guest riscv32_guest = GUEST("riscv32", UINT32_MAX);
