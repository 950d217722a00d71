/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IR builder: appends ops, folds constants and page-relative addresses as it goes, and remembers what each global
 * is known to hold. Owns nothing; enters from the translating thread.
 */
#include "engine/tcg/ir.h"

#include <stdio.h>
#include <string.h>

const struct ir_op_info ir_op_info[IR_N_OPS] = {
#define IR_OP(name, operands, flags, doc) { #name, operands, doc, flags },
#include "engine/tcg/ir.def"
#undef IR_OP
};

const struct ir_vec_info ir_vec_info[IR_N_VEC_OPS] = {
#define IR_VEC_OP(name, kind, doc) { #name, doc, kind },
#include "engine/tcg/ir_vec.def"
#undef IR_VEC_OP
};

static ir_ref make_ref(enum ir_kind k, unsigned n)
{
    return (uint32_t)k << 30 | n;
}

void ir_start(struct ir *ir, const struct ir_global *globals, unsigned n, uint32_t pc_offset)
{
    ir->globals = globals;
    ir->n_globals = n;
    ir->pc_offset = pc_offset;
    ir->n_ops = ir->n_temps = ir->n_exits = ir->n_consts = ir->n_vecs = 0;
    ir->overflow = false;
    ir->insn_off = 0;
    for (unsigned i = 0; i < n; i++) {
        ir->known[i] = IR_NONE;
    }
}

static ir_ref pool(struct ir *ir, enum ir_kind k, uint64_t v)
{
    /* The last few are the likely ones; an older twin only costs a slot. */
    unsigned from = ir->n_consts > 16 ? ir->n_consts - 16 : 0;
    for (unsigned i = from; i < ir->n_consts; i++) {
        if (ir->consts[i] == v) {
            return make_ref(k, i);
        }
    }
    if (ir->n_consts == IR_MAX_CONSTS) {
        ir->overflow = true;
        return make_ref(k, 0);
    }
    ir->consts[ir->n_consts] = v;
    return make_ref(k, ir->n_consts++);
}

ir_ref ir_const(struct ir *ir, uint64_t v)
{
    return pool(ir, IR_CONST, v);
}

ir_ref ir_pcrel(struct ir *ir, int64_t off)
{
    return pool(ir, IR_PCREL, (uint64_t)off);
}

bool ir_is_const(const struct ir *ir, ir_ref r, uint64_t *v)
{
    if (r == IR_NONE || ir_kind(r) != IR_CONST) {
        return false;
    }
    *v = ir->consts[ir_index(r)];
    return true;
}

bool ir_is_pcrel(const struct ir *ir, ir_ref r, int64_t *off)
{
    if (r == IR_NONE || ir_kind(r) != IR_PCREL) {
        return false;
    }
    *off = (int64_t)ir->consts[ir_index(r)];
    return true;
}

static struct ir_op *emit(struct ir *ir, enum ir_opcode code)
{
    if (ir->n_ops == IR_MAX_OPS) {
        ir->overflow = true;
        ir->n_ops--; /* the block is thrown away; writes stay in bounds */
    }
    struct ir_op *op = &ir->ops[ir->n_ops++];
    *op = (struct ir_op){ .op = (uint8_t)code, .w = 64, .d = IR_NONE, .a = IR_NONE, .b = IR_NONE,
                          .c = IR_NONE, .e = IR_NONE };
    return op;
}

static ir_ref new_temp(struct ir *ir)
{
    if (ir->n_temps == IR_MAX_TEMPS) {
        ir->overflow = true;
        ir->n_temps--;
    }
    return make_ref(IR_TEMP, ir->n_temps++);
}

/* Page-relative values are builder-only: as an operand they become a temp. */
static ir_ref operand(struct ir *ir, ir_ref r)
{
    int64_t off;
    if (!ir_is_pcrel(ir, r, &off)) {
        return r;
    }
    struct ir_op *op = emit(ir, IR_pcrel);
    op->imm = off;
    return op->d = new_temp(ir);
}

ir_ref ir_get(struct ir *ir, unsigned g)
{
    return ir->known[g] != IR_NONE ? ir->known[g] : ir_global(g);
}

void ir_set(struct ir *ir, unsigned g, ir_ref v)
{
    if (v == ir_global(g) || (ir->known[g] != IR_NONE && v == ir->known[g])) {
        return;
    }
    int64_t off;
    bool fixed = ir_kind(v) == IR_CONST || ir_kind(v) == IR_PCREL;
    if (ir_is_pcrel(ir, v, &off)) {
        struct ir_op *op = emit(ir, IR_pcrel);
        op->imm = off;
        op->d = ir_global(g);
    } else {
        struct ir_op *op = emit(ir, IR_mov);
        op->a = v;
        op->d = ir_global(g);
    }
    ir->known[g] = fixed ? v : IR_NONE;
}

ir_ref ir_copy(struct ir *ir, ir_ref v)
{
    if (ir_kind(v) != IR_GLOBAL) {
        return v;
    }
    struct ir_op *op = emit(ir, IR_mov);
    op->a = v;
    return op->d = new_temp(ir);
}

static uint64_t lo(unsigned w, uint64_t v)
{
    return w == 32 ? (uint32_t)v : v;
}

static int64_t slo(unsigned w, uint64_t v)
{
    return w == 32 ? (int32_t)v : (int64_t)v;
}

static uint64_t eval_div(enum ir_opcode op, unsigned w, uint64_t a, uint64_t b)
{
    int64_t sa = slo(w, a), sb = slo(w, b);
    uint64_t ua = lo(w, a), ub = lo(w, b);
    switch (op) {
    case IR_divu:
        return ub ? ua / ub : UINT64_MAX;
    case IR_remu:
        return ub ? ua % ub : ua;
    case IR_divs:
        return sb == 0 ? UINT64_MAX : sb == -1 ? 0 - (uint64_t)sa : (uint64_t)(sa / sb);
    default: /* IR_rems */
        return sb == 0 ? (uint64_t)sa : sb == -1 ? 0 : (uint64_t)(sa % sb);
    }
}

static uint64_t eval_shift(enum ir_opcode op, unsigned w, uint64_t a, uint64_t b)
{
    unsigned n = b & (w - 1), m = (w - n) & (w - 1);
    a = lo(w, a);
    switch (op) {
    case IR_shl:
        return a << n;
    case IR_shr:
        return a >> n;
    case IR_sar:
        return (uint64_t)(slo(w, a) >> n);
    case IR_rotl:
        return a << n | a >> m;
    default: /* IR_rotr */
        return a >> n | a << m;
    }
}

static uint64_t eval_unary(enum ir_opcode op, unsigned w, uint64_t a)
{
    switch (op) {
    case IR_clz:
        return lo(w, a) ? (unsigned)__builtin_clzll(lo(w, a)) - (64 - w) : w;
    case IR_ctz:
        return lo(w, a) ? (unsigned)__builtin_ctzll(lo(w, a)) : w;
    case IR_popcnt:
        return (unsigned)__builtin_popcountll(lo(w, a));
    case IR_bswap:
        return w == 32 ? __builtin_bswap32((uint32_t)a) : __builtin_bswap64(a);
    case IR_sext8:
        return (uint64_t)(int8_t)a;
    case IR_sext16:
        return (uint64_t)(int16_t)a;
    case IR_sext32:
        return (uint64_t)(int32_t)a;
    case IR_zext8:
        return (uint8_t)a;
    case IR_zext16:
        return (uint16_t)a;
    case IR_zext32:
        return (uint32_t)a;
    default: /* IR_mov */
        return a;
    }
}

static bool is_shift(enum ir_opcode op)
{
    return op == IR_shl || op == IR_shr || op == IR_sar || op == IR_rotl || op == IR_rotr;
}

static bool is_div(enum ir_opcode op)
{
    return op == IR_divu || op == IR_divs || op == IR_remu || op == IR_rems;
}

static bool keeps_width(enum ir_opcode op)
{
    return op == IR_mov || (op >= IR_sext8 && op <= IR_zext32);
}

uint64_t ir_eval(enum ir_opcode op, unsigned w, uint64_t a, uint64_t b)
{
    uint64_t r;
    switch (op) {
    case IR_add:
        r = a + b;
        break;
    case IR_sub:
        r = a - b;
        break;
    case IR_mul:
        r = a * b;
        break;
    case IR_and:
        r = a & b;
        break;
    case IR_or:
        r = a | b;
        break;
    case IR_xor:
        r = a ^ b;
        break;
    case IR_andc:
        r = a & ~b;
        break;
    case IR_orc:
        r = a | ~b;
        break;
    case IR_eqv:
        r = ~(a ^ b);
        break;
    case IR_mulhu:
        r = w == 32 ? (uint64_t)(uint32_t)a * (uint32_t)b >> 32
                    : (uint64_t)((unsigned __int128)a * b >> 64);
        break;
    case IR_mulhs:
        r = w == 32 ? (uint64_t)((int64_t)(int32_t)a * (int32_t)b >> 32)
                    : (uint64_t)((__int128)(int64_t)a * (int64_t)b >> 64);
        break;
    default:
        r = is_shift(op) ? eval_shift(op, w, a, b)
            : is_div(op) ? eval_div(op, w, a, b)
                         : eval_unary(op, w, a);
    }
    return keeps_width(op) ? r : lo(w, r);
}

bool ir_eval_cond(enum ir_cond c, unsigned w, uint64_t a, uint64_t b)
{
    int64_t sa = slo(w, a), sb = slo(w, b);
    uint64_t ua = lo(w, a), ub = lo(w, b);
    switch (c) {
    case IR_EQ:
        return ua == ub;
    case IR_NE:
        return ua != ub;
    case IR_LT:
        return sa < sb;
    case IR_GE:
        return sa >= sb;
    case IR_LE:
        return sa <= sb;
    case IR_GT:
        return sa > sb;
    case IR_LTU:
        return ua < ub;
    case IR_GEU:
        return ua >= ub;
    case IR_LEU:
        return ua <= ub;
    default: /* IR_GTU */
        return ua > ub;
    }
}

static bool commutes(enum ir_opcode op)
{
    return op == IR_add || op == IR_mul || op == IR_and || op == IR_or || op == IR_xor ||
           op == IR_eqv || op == IR_mulhu || op == IR_mulhs;
}

/* x op 0 == x and the like, for 64-bit ops (a 32-bit one also truncates). IR_NONE when nothing applies. */
static ir_ref identity(struct ir *ir, enum ir_opcode op, unsigned w, ir_ref a, uint64_t b)
{
    if (op == IR_and && b == 0) {
        return ir_const(ir, 0);
    }
    if (w != 64) {
        return IR_NONE;
    }
    bool zero_is_same = op == IR_add || op == IR_sub || op == IR_or || op == IR_xor ||
                        op == IR_andc || is_shift(op);
    if ((b == 0 && zero_is_same) || (b == UINT64_MAX && op == IR_and) ||
        (b == 1 && (op == IR_mul || op == IR_divu || op == IR_divs))) {
        return a;
    }
    return IR_NONE;
}

ir_ref ir_bin(struct ir *ir, enum ir_opcode op, unsigned w, ir_ref a, ir_ref b)
{
    uint64_t va, vb = 0;
    int64_t off, off2;
    bool ca = ir_is_const(ir, a, &va), cb = ir_is_const(ir, b, &vb);
    if (ca && cb) {
        return ir_const(ir, ir_eval(op, w, va, vb));
    }
    if (w == 64 && op == IR_add && ir_is_pcrel(ir, a, &off) && cb) {
        return ir_pcrel(ir, off + (int64_t)vb);
    }
    if (w == 64 && op == IR_add && ir_is_pcrel(ir, b, &off) && ca) {
        return ir_pcrel(ir, off + (int64_t)va);
    }
    if (w == 64 && op == IR_sub && ir_is_pcrel(ir, a, &off)) {
        if (cb) {
            return ir_pcrel(ir, off - (int64_t)vb);
        }
        if (ir_is_pcrel(ir, b, &off2)) {
            return ir_const(ir, (uint64_t)(off - off2));
        }
    }
    if (ca && commutes(op)) {
        ir_ref t = a;
        a = b;
        b = t;
        vb = va;
        cb = true;
    }
    if (cb) {
        ir_ref same = identity(ir, op, w, a, vb);
        if (same != IR_NONE) {
            return ir_copy(ir, same);
        }
        if (op == IR_sub) {
            op = IR_add;
            b = ir_const(ir, 0 - vb);
        } else if (op == IR_andc) {
            op = IR_and;
            b = ir_const(ir, ~vb);
        }
    }
    a = operand(ir, a);
    b = operand(ir, b);
    struct ir_op *o = emit(ir, op);
    o->w = (uint8_t)w;
    o->a = a;
    o->b = b;
    return o->d = new_temp(ir);
}

ir_ref ir_un(struct ir *ir, enum ir_opcode op, unsigned w, ir_ref a)
{
    uint64_t va;
    if (ir_is_const(ir, a, &va)) {
        return ir_const(ir, ir_eval(op, w, va, 0));
    }
    a = operand(ir, a);
    struct ir_op *o = emit(ir, op);
    o->w = (uint8_t)w;
    o->a = a;
    return o->d = new_temp(ir);
}

static enum ir_cond swapped(enum ir_cond c)
{
    static const uint8_t to[IR_N_CONDS] = { IR_EQ,  IR_NE,  IR_GT,  IR_LE,  IR_GE,
                                            IR_LT,  IR_GTU, IR_LEU, IR_GEU, IR_LTU };
    return to[c];
}

/* Puts a constant second, where hosts have immediates. */
static void order(struct ir *ir, enum ir_cond *c, ir_ref *a, ir_ref *b)
{
    uint64_t v;
    if (ir_is_const(ir, *a, &v) && !ir_is_const(ir, *b, &v)) {
        ir_ref t = *a;
        *a = *b;
        *b = t;
        *c = swapped(*c);
    }
    *a = operand(ir, *a);
    *b = operand(ir, *b);
}

ir_ref ir_setcond(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b)
{
    uint64_t va, vb;
    if (ir_is_const(ir, a, &va) && ir_is_const(ir, b, &vb)) {
        return ir_const(ir, ir_eval_cond(c, w, va, vb));
    }
    order(ir, &c, &a, &b);
    struct ir_op *o = emit(ir, IR_setcond);
    o->w = (uint8_t)w;
    o->cond = (uint8_t)c;
    o->a = a;
    o->b = b;
    return o->d = new_temp(ir);
}

ir_ref ir_select(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b, ir_ref yes,
                 ir_ref no)
{
    uint64_t va, vb;
    if (ir_is_const(ir, a, &va) && ir_is_const(ir, b, &vb)) {
        return ir_copy(ir, ir_eval_cond(c, w, va, vb) ? yes : no);
    }
    order(ir, &c, &a, &b);
    yes = operand(ir, yes);
    no = operand(ir, no);
    struct ir_op *o = emit(ir, IR_select);
    o->w = (uint8_t)w;
    o->cond = (uint8_t)c;
    o->a = a;
    o->b = b;
    o->c = yes;
    o->e = no;
    return o->d = new_temp(ir);
}

ir_ref ir_ldenv(struct ir *ir, uint32_t offset, unsigned mo)
{
    struct ir_op *o = emit(ir, IR_ldenv);
    o->imm = offset;
    o->mo = (uint8_t)mo;
    return o->d = new_temp(ir);
}

void ir_stenv(struct ir *ir, uint32_t offset, unsigned mo, ir_ref v)
{
    v = operand(ir, v);
    struct ir_op *o = emit(ir, IR_stenv);
    o->imm = offset;
    o->mo = (uint8_t)mo;
    o->a = v;
}

void ir_setpc(struct ir *ir, ir_ref v)
{
    ir_stenv(ir, ir->pc_offset, MO_64, v);
}

/* Address and displacement: a constant part of the address moves into the displacement where it fits. */
static ir_ref address(struct ir *ir, ir_ref a, int32_t *disp)
{
    uint64_t v;
    int64_t off;
    if (ir_is_const(ir, a, &v)) {
        a = ir_const(ir, v + (uint64_t)(int64_t)*disp);
        *disp = 0;
    } else if (ir_is_pcrel(ir, a, &off)) {
        a = ir_pcrel(ir, off + *disp);
        *disp = 0;
    }
    return operand(ir, a);
}

ir_ref ir_ld(struct ir *ir, ir_ref a, int32_t disp, unsigned mo)
{
    a = address(ir, a, &disp);
    struct ir_op *o = emit(ir, IR_ld);
    o->a = a;
    o->imm = disp;
    o->mo = (uint8_t)mo;
    return o->d = new_temp(ir);
}

void ir_st(struct ir *ir, ir_ref a, int32_t disp, ir_ref v, unsigned mo)
{
    a = address(ir, a, &disp);
    v = operand(ir, v);
    struct ir_op *o = emit(ir, IR_st);
    o->a = a;
    o->b = v;
    o->imm = disp;
    o->mo = (uint8_t)mo;
}

ir_ref ir_amo(struct ir *ir, enum ir_amo kind, ir_ref a, ir_ref v, unsigned mo)
{
    a = operand(ir, a);
    v = operand(ir, v);
    struct ir_op *o = emit(ir, IR_amo);
    o->a = a;
    o->b = v;
    o->aux = (uint16_t)kind;
    o->mo = (uint8_t)mo;
    return o->d = new_temp(ir);
}

ir_ref ir_cas(struct ir *ir, ir_ref a, ir_ref expect, ir_ref v, unsigned mo)
{
    a = operand(ir, a);
    expect = operand(ir, expect);
    v = operand(ir, v);
    struct ir_op *o = emit(ir, IR_cas);
    o->a = a;
    o->b = expect;
    o->c = v;
    o->mo = (uint8_t)mo;
    return o->d = new_temp(ir);
}

void ir_fence(struct ir *ir, unsigned orders)
{
    emit(ir, IR_fence)->imm = orders;
}

ir_ref ir_call(struct ir *ir, ir_helper fn, unsigned flags, bool want_result, ir_ref a, ir_ref b,
               ir_ref c)
{
    a = a == IR_NONE ? a : operand(ir, a);
    b = b == IR_NONE ? b : operand(ir, b);
    c = c == IR_NONE ? c : operand(ir, c);
    struct ir_op *o = emit(ir, IR_call);
    o->a = a;
    o->b = b;
    o->c = c;
    o->aux = (uint16_t)flags;
    o->imm = (int64_t)(intptr_t)fn;
    if (!(flags & (IR_CALL_PURE | IR_CALL_NO_GLOBALS | IR_CALL_READS))) {
        for (unsigned i = 0; i < ir->n_globals; i++) {
            ir->known[i] = IR_NONE;
        }
    }
    return want_result ? (o->d = new_temp(ir)) : IR_NONE;
}

void ir_fp_hint(struct ir *ir, enum ir_fp kind, unsigned w, bool ask)
{
    struct ir_op *o = &ir->ops[ir->n_ops - 1];
    o->aux |= (uint16_t)(kind << IR_FP_SHIFT);
    o->w = (uint8_t)w;
    o->mo = ask;
}

void ir_vec_hint(struct ir *ir, const struct ir_vec *v)
{
    struct ir_op *o = &ir->ops[ir->n_ops - 1];
    if (ir->n_vecs < IR_MAX_VECS) {
        o->aux |= IR_CALL_VEC;
        o->mo = (uint8_t)ir->n_vecs;
        ir->vecs[ir->n_vecs++] = *v;
    }
}

void ir_sc_hint(struct ir *ir, unsigned w)
{
    ir_fp_hint(ir, IR_SC, w, false);
}

void ir_insn(struct ir *ir, int32_t off)
{
    ir->insn_off = off;
    emit(ir, IR_insn)->imm = off;
}

unsigned ir_exit_new(struct ir *ir, enum ir_exit_kind kind, int32_t off, ir_ref ref,
                     enum ir_hint hint)
{
    if (kind == IR_EXIT_INDIRECT) {
        ref = operand(ir, ref);
    }
    if (ir->n_exits == IR_MAX_EXITS) {
        ir->overflow = true;
        ir->n_exits--;
    }
    ir->exits[ir->n_exits] = (struct ir_exit){ .kind = (uint8_t)kind, .hint = (uint8_t)hint, .off = off, .ref = ref };
    return ir->n_exits++;
}

void ir_count(struct ir *ir, unsigned exit)
{
    emit(ir, IR_count)->imm = exit;
}

void ir_poll(struct ir *ir, unsigned exit)
{
    emit(ir, IR_poll)->imm = exit;
}

void ir_brcond(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b, unsigned exit)
{
    order(ir, &c, &a, &b);
    struct ir_op *o = emit(ir, IR_brcond);
    o->w = (uint8_t)w;
    o->cond = (uint8_t)c;
    o->a = a;
    o->b = b;
    o->imm = exit;
}

void ir_exit(struct ir *ir, unsigned exit)
{
    emit(ir, IR_exit)->imm = exit;
}
