/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory and calls of the x86-64 back end: the inline TLB lookup, its slow path out of line, helper calls.
 */
#include "engine/tcg/host_x86_64/target.h"

void gen_site(struct ra *r)
{
    if (r->n_sites < r->max_fixups) {
        r->sites[r->n_sites++] = (struct tcg_site){ r->a.at, r->insn };
    } else {
        r->fail = true;
    }
}

static uint32_t x_check_tag(struct asm_buf *a, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                            unsigned t1)
{
    if (lo) {
        x_rm(a, 0x8d | X_W, t0, base, lo);
        x_rr(a, 0xc1, 5, t0); /* the index needs only the low 32 bits */
    } else {
        x_vex(a, 3, 3, 0, 0xf0, t0, 0, base); /* rorx: the same, without a move */
    }
    x_8(a, TLB_SHIFT);
    if (hi) {
        x_rm(a, 0x8d | X_W, t1, base, hi);
    } else {
        x_rr(a, 0x8b | X_W, t1, base);
    }
    x_alu_imm(a, 4, 0, t0, TLB_MASK);
    x_alu_imm(a, 4, X_W, t1, -4096 | low_bits);
    x_rmx(a, 0x3b | X_W, t1, SPACE, t0, 0, TLB_OFF(tag[write]));
    return x_jcc(a, CC_NE, a->at);
}

uint32_t gen_check_tag(struct ra *r, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                       unsigned t1)
{
    return x_check_tag(&r->a, base, lo, hi, low_bits, write, t0, t1);
}

uint32_t x_check(struct asm_buf *a, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                 unsigned t1)
{
    uint32_t miss = x_check_tag(a, base, lo, hi, low_bits, write, t0, t1);
    x_rmx(a, 0x8b | X_W, t0, SPACE, t0, 0, TLB_OFF(addend));
    return miss;
}

uint32_t gen_check(struct ra *r, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                   unsigned t1)
{
    return x_check(&r->a, base, lo, hi, low_bits, write, t0, t1);
}

uint32_t gen_lookup_in(struct ra *r, unsigned base, int32_t disp, unsigned mo, bool write, unsigned t0,
                       unsigned t1)
{
    int32_t last = (1 << (mo & MO_SIZE)) - 1;
    bool aligned = mo & MO_ALIGN || disp > INT32_MAX - last;
    return gen_check(r, base, disp, aligned ? disp : disp + last, aligned ? last : 0, write, t0, t1);
}

/* The same in scratch registers of its choice; returns the one with the result. */
static unsigned gen_lookup(struct ra *r, unsigned base, int32_t disp, unsigned mo, bool write,
                           struct fixup *f)
{
    unsigned t0 = ra_scratch(r), t1 = ra_scratch(r);
    if (r->groups && group_lookup(r, base, f, t0, t1)) {
        return f->t0;
    }
    f->jump = gen_lookup_in(r, base, disp, mo, write, t0, t1);
    return t0;
}

struct fixup *new_fixup(struct ra *r, enum fixup_kind kind)
{
    if (r->n_fixups == r->max_fixups) {
        r->fail = true; /* never in the first tier: there is room for every op and exit */
        r->n_fixups--;
    }
    struct fixup *f = &r->fixups[r->n_fixups++];
    memset(f, 0, sizeof(*f));
    f->kind = (uint8_t)kind;
    f->insn = r->insn;
    f->snapshot = vec_snapshot(r);
    f->ir = r->ir;
    f->exit_base = r->exit_base;
    return f;
}

const unsigned load_code[8] = {
    [MO_8] = X_0F | 0xb6, [MO_16] = X_0F | 0xb7, [MO_32] = 0x8b, [MO_64] = 0x8b | X_W,
    [MO_8 | MO_SIGN] = X_0F | 0xbe | X_W, [MO_16 | MO_SIGN] = X_0F | 0xbf | X_W,
    [MO_32 | MO_SIGN] = 0x63 | X_W, [MO_64 | MO_SIGN] = 0x8b | X_W,
};

void gen_load_value(struct ra *r, const struct fixup *f)
{
    unsigned c = f->dest_xmm ? X_0F | X_F2 | 0x10 : load_code[f->mo & 7]; /* movsd */
    if (f->dest_xmm && f->mo & MO_ONES) {
        x_rr(&r->a, X_66 | X_0F | 0x76, 1, 1); /* pcmpeqd: ones */
        x_vex_mx(&r->a, 3, 1, 0, 0x21, f->dest, 1, f->t0, f->base, f->disp);
        x_8(&r->a, 0); /* vinsertps */
        return;
    }
    x_rmx(&r->a, c, f->dest, f->t0, f->base, 0, f->disp);
}

void gen_load(struct ra *r, const struct ir_op *op)
{
    if (op->op == IR_ldenv) {
        gen_fp_read(r, (uint32_t)op->imm, 1u << (op->mo & MO_SIZE));
        unsigned d = ra_dest(r, op->d);
        x_rm(&r->a, load_code[op->mo & 7], d, ENV, (int32_t)op->imm);
        ra_done(r, op->d, d);
        return;
    }
    if (r->lean && gen_lean(r, op)) {
        return;
    }
    struct fixup *f = new_fixup(r, FIX_LOAD);
    unsigned base = ra_use_reg(r, op->a);
    int32_t disp = (int32_t)op->imm;
    unsigned t0 = gen_lookup(r, base, disp, op->mo, op->mo & MO_AMO, f);
    bool pinned = ir_kind(op->d) == IR_GLOBAL && r->pin[ir_index(op->d)] >= 0;
    unsigned d = pinned ? (unsigned)r->pin[ir_index(op->d)] : t0;
    bool whole = (op->mo & MO_SIZE) == MO_64 || op->mo & MO_ONES;
    bool cached = whole && r->x_on && ir_kind(op->d) == IR_GLOBAL && r->is_fp[ir_index(op->d)];
    bool xmm = cached || (whole && ra_in_xmm(r, op->d));
    unsigned x = cached ? ra_x_dest(r, ir_index(op->d)) : xmm ? (unsigned)r->xpin[ir_index(op->d)] : 0;
    unsigned ones = op->mo & MO_ONES && !xmm ? ra_scratch(r) : 0;
    f->t0 = (uint8_t)t0;
    f->dest_xmm = xmm;
    f->base = (uint8_t)base;
    f->disp = disp;
    f->mo = op->mo;
    f->dest = (uint8_t)(xmm ? x : d);
    f->keep_x = ra_x_live(r);
    gen_load_value(r, f);
    f->back = r->a.at;
    f->live = ra_live_mask(r); /* before the result takes its register */
    if (xmm) {
        ra_done_xmm(r, ir_index(op->d), op->mo & MO_ONES);
    } else {
        if (op->mo & MO_ONES) {
            x_mov_imm(&r->a, ones, 0xffffffff00000000u);
            x_rr(&r->a, 0x0b | X_W, d, ones);
        }
        ra_done(r, op->d, d);
    }
}

static void store_imm(struct ra *r, unsigned size, int32_t imm)
{
    if (size == MO_8) {
        x_8(&r->a, (uint8_t)imm);
    } else if (size == MO_16) {
        x_8(&r->a, (uint8_t)imm);
        x_8(&r->a, (uint8_t)(imm >> 8));
    } else {
        x_32(&r->a, (uint32_t)imm);
    }
}

const unsigned store_code[4] = { 0x88 | X_BYTE_REG, 0x89 | X_66, 0x89, 0x89 | X_W };
static const unsigned store_imm_code[] = { 0xc6, 0xc7 | X_66, 0xc7, 0xc7 | X_W };

void gen_store_value(struct ra *r, const struct fixup *f)
{
    unsigned size = f->mo & MO_SIZE;
    unsigned c = f->value_xmm   ? X_0F | 0x11 | (size == MO_64 ? X_F2 : X_F3) /* movsd, movss */
                 : f->value_imm ? store_imm_code[size]
                                : store_code[size];
    x_rmx(&r->a, c, f->value_imm ? 0 : f->value_reg, f->t0, f->base, 0, f->disp);
    if (f->value_imm) {
        store_imm(r, size, f->imm);
    }
}

static void store_env(struct ra *r, const struct ir_op *op)
{
    unsigned size = op->mo & MO_SIZE;
    int32_t disp = (int32_t)op->imm;
    struct opnd v = ra_use(r, op->a, size == MO_64 ? 64 : 32);
    if (v.place == IN_MEM) {
        v = (struct opnd){ .place = IN_REG, .reg = (uint8_t)ra_use_reg(r, op->a) };
    }
    gen_fp_write(r, (uint32_t)disp, 1u << size, v);
    if (v.place == IN_REG) {
        x_rm(&r->a, store_code[size], v.reg, ENV, disp);
    } else {
        x_rm(&r->a, store_imm_code[size], 0, ENV, disp);
        store_imm(r, size, v.imm);
    }
    vec_wrote(r, disp, 1u << size);
}

void gen_store(struct ra *r, const struct ir_op *op)
{
    if (op->op == IR_stenv) {
        store_env(r, op);
        return;
    }
    if (r->lean && gen_lean(r, op)) {
        return;
    }
    unsigned size = op->mo & MO_SIZE;
    bool cached = r->x_on && ir_kind(op->b) == IR_GLOBAL && r->x_reg[ir_index(op->b)] >= 0;
    bool xmm = size >= MO_32 && (cached || ra_in_xmm(r, op->b));
    struct opnd v = !xmm     ? ra_use(r, op->b, size == MO_64 ? 64 : 32)
                    : cached ? (struct opnd){ .place = IN_XMM, .reg = (uint8_t)ra_x_use(r, ir_index(op->b)) }
                             : ra_home(r, ir_index(op->b));
    if (v.place == IN_MEM) {
        v = (struct opnd){ .place = IN_REG, .reg = (uint8_t)ra_use_reg(r, op->b) };
    }
    struct fixup *f = new_fixup(r, FIX_STORE);
    unsigned base = ra_use_reg(r, op->a);
    f->t0 = (uint8_t)gen_lookup(r, base, (int32_t)op->imm, op->mo, true, f);
    f->base = (uint8_t)base;
    f->disp = (int32_t)op->imm;
    f->mo = op->mo;
    f->value_imm = v.place == IS_IMM;
    f->value_xmm = xmm;
    f->value_reg = v.reg;
    f->imm = v.imm;
    f->keep_x = ra_x_live(r);
    gen_store_value(r, f);
    f->back = r->a.at;
    f->live = ra_live_mask(r);
}

void save_live(struct ra *r, uint8_t live)
{
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        if (live >> s & 1) {
            x_rm(&r->a, 0x89 | X_W, scratch_regs[s], ENV, ENV_OFF(save) + 8 * (int32_t)s);
        }
    }
}

void restore_live(struct ra *r, uint8_t live)
{
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        if (live >> s & 1) {
            x_rm(&r->a, 0x8b | X_W, scratch_regs[s], ENV, ENV_OFF(save) + 8 * (int32_t)s);
        }
    }
}

/* The slow path of an inline access: saves what lives in scratch registers, calls, comes back. */
void gen_memory_stub(struct ra *r, const struct fixup *f)
{
    uint8_t live = f->live;
    uint32_t look = 0;
    if (f->differs) {
        group_differs(r, f, &look);
    }
    x_here(&r->a, f->jump);
    if (f->group) {
        x_here(&r->a, group_stub(r, f));
    }
    if (look) {
        x_here(&r->a, look);
    }
    for (unsigned s = 0; s < N_SCRATCH; s++) {
        if (f->kind == FIX_LOAD && !f->dest_xmm && scratch_regs[s] == f->dest) {
            live &= (uint8_t)~(1u << s);
        }
    }
    save_live(r, live);
    if (f->kind == FIX_STORE && !f->value_imm) {
        x_rm(&r->a, f->value_xmm ? X_66 | X_0F | 0xd6 : 0x89 | X_W, f->value_reg, ENV, ENV_OFF(arg));
    }
    x_rm(&r->a, 0x8d | X_W, RSI, f->base, f->disp);
    if (f->kind == FIX_LOAD) {
        x_mov_imm(&r->a, RDX, f->mo);
    } else {
        if (f->value_imm) {
            x_mov_imm(&r->a, RDX, (uint64_t)(int64_t)f->imm);
        } else {
            x_rm(&r->a, 0x8b | X_W, RDX, ENV, ENV_OFF(arg));
        }
        x_mov_imm(&r->a, RCX, f->mo);
    }
    const struct thunks *th = r->th;
    x_call(&r->a, f->kind == FIX_LOAD ? (f->keep_x ? th->load_x : th->load) : (f->keep_x ? th->store_x : th->store));
    r->insn = f->insn;
    gen_site(r);
    if (f->kind == FIX_LOAD && f->dest_xmm) {
        x_rr(&r->a, X_66 | X_0F | 0x6e | X_W, f->dest, RAX);
    } else if (f->kind == FIX_LOAD && f->dest != RAX) {
        x_rr(&r->a, 0x8b | X_W, f->dest, RAX);
    }
    restore_live(r, live);
    vec_reload(r, f->snapshot);
    x_jmp(&r->a, f->back);
}

/* Loads an argument register after ra_spill_all: sources are pins, memory or constants, never scratch registers. */
void gen_load_arg(struct ra *r, unsigned reg, ir_ref ref)
{
    if (ref == IR_NONE) {
        return;
    }
    if (ir_kind(ref) == IR_CONST) {
        x_mov_imm(&r->a, reg, r->ir->consts[ir_index(ref)]);
    } else if (ra_in_xmm(r, ref)) {
        x_load(&r->a, 64, reg, ra_home(r, ir_index(ref)));
    } else {
        x_load(&r->a, 64, reg, ra_use(r, ref, 64));
    }
}

static void call(struct ra *r, uint64_t fn, uint32_t thunk, ir_ref d)
{
    x_mov_imm(&r->a, RAX, fn);
    x_call(&r->a, thunk);
    gen_site(r);
    vec_drop(r);
    ra_x_forget(r);
    if (d != IR_NONE) {
        bool pinned = ir_kind(d) == IR_GLOBAL && r->pin[ir_index(d)] >= 0;
        r->busy |= 1; /* rax */
        if (pinned) {
            x_rr(&r->a, 0x8b | X_W, (unsigned)r->pin[ir_index(d)], RAX);
        } else {
            ra_done(r, d, RAX);
        }
    }
}

void gen_call(struct ra *r, const struct ir_op *op)
{
    if (op->aux >> IR_FP_SHIFT == IR_SC) {
        gen_atomic(r, op);
        return;
    }
    if (op->aux >> IR_FP_SHIFT && gen_fp(r, op)) {
        return;
    }
    if (op->aux & IR_CALL_VEC && gen_vec(r, op)) {
        return;
    }
    ra_spill_all(r);
    if (!(op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS | IR_CALL_READS))) {
        memset(r->boxed, 0, sizeof(r->boxed));
    }
    gen_load_arg(r, RSI, op->a);
    gen_load_arg(r, RDX, op->b);
    gen_load_arg(r, RCX, op->c);
    uint32_t thunk = op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS) ? r->th->clean
                     : op->aux & IR_CALL_READS                     ? r->th->reads
                                                                   : r->th->full;
    call(r, (uint64_t)op->imm, thunk, op->d);
}
