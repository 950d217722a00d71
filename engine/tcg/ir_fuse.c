/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pass: instruction sequences that stand for one operation. What compilers write for guests without the
 * instruction is recognised by what the values are, not by neighbourhood:
 *
 *   (x << n) >> n                      an extension of 8, 16 or 32 bits
 *   (x >> n) | (x << (w - n))          a rotation; also with + or ^, also of sign-extended 32-bit halves
 *
 * The shifts themselves stay; they are dropped later where nothing else reads them. One forward walk.
 */
#include "engine/tcg/ir_pass.h"

#include <string.h>

enum kind { OTHER, SHR32, SHL32, SHR64, SHL64 };

/* What a value is known to be: src shifted by n; valid as long as src, if it is a global, has version ver. */
struct shape {
    uint8_t kind;
    bool extended; /* a 32-bit result that has been sign-extended */
    uint8_t n;
    uint16_t at; /* index of the op that shifted */
    ir_ref src, amount;
    uint32_t ver;
};

struct fuse {
    struct ir *ir;
    uint32_t ver[IR_MAX_GLOBALS];
    struct shape global[IR_MAX_GLOBALS];
    struct shape temp[IR_MAX_TEMPS];
};

/* An extension is worth its longer life only near its shifts. */
#define MAX_DISTANCE 8

static const struct shape nothing;

static const struct shape *shape_of(const struct fuse *f, ir_ref r)
{
    if (r == IR_NONE) {
        return &nothing;
    }
    switch (ir_kind(r)) {
    case IR_TEMP:
        return &f->temp[ir_index(r)];
    case IR_GLOBAL:
        return &f->global[ir_index(r)];
    default:
        return &nothing;
    }
}

static bool current(const struct fuse *f, const struct shape *s)
{
    return ir_kind(s->src) != IR_GLOBAL || f->ver[ir_index(s->src)] == s->ver;
}

static bool insert(struct fuse *f, unsigned at, const struct ir_op *op)
{
    struct ir *ir = f->ir;
    if (ir->n_ops == IR_MAX_OPS || ir->n_temps == IR_MAX_TEMPS) {
        return false;
    }
    memmove(&ir->ops[at + 1], &ir->ops[at], (ir->n_ops - at) * sizeof(ir->ops[0]));
    ir->n_ops++;
    ir->ops[at] = *op;
    ir->ops[at].d = (ir_ref)IR_TEMP << 30 | ir->n_temps;
    f->temp[ir->n_temps++] = nothing;
    for (unsigned i = 0; i < ir->n_temps; i++) {
        f->temp[i].at += f->temp[i].at >= at;
    }
    for (unsigned i = 0; i < ir->n_globals; i++) {
        f->global[i].at += f->global[i].at >= at;
    }
    return true;
}

static struct ir_op make(enum ir_opcode code, unsigned w, ir_ref a, ir_ref b)
{
    return (struct ir_op){ .op = (uint8_t)code,
                           .w = (uint8_t)w,
                           .d = IR_NONE,
                           .a = a,
                           .b = b,
                           .c = IR_NONE,
                           .e = IR_NONE };
}

/* The extension that shifting left and back right by n is, or IR_N_OPS. */
static enum ir_opcode extension(enum ir_opcode right, unsigned n)
{
    switch (n) {
    case 32:
        return right == IR_sar ? IR_sext32 : IR_zext32;
    case 48:
        return right == IR_sar ? IR_sext16 : IR_zext16;
    case 56:
        return right == IR_sar ? IR_sext8 : IR_zext8;
    default:
        return IR_N_OPS;
    }
}

/* ops[i] shifts right by n what was shifted left: by the same n, an extension of the original. True when an op
 * was inserted before i. */
static bool fuse_extension(struct fuse *f, unsigned i, unsigned n)
{
    struct ir *ir = f->ir;
    struct ir_op *op = &ir->ops[i];
    const struct shape *s = shape_of(f, op->a);
    enum ir_opcode code = extension((enum ir_opcode)op->op, n);
    if (code == IR_N_OPS || op->w != 64 || s->kind != SHL64 || s->n != n ||
        i - s->at > MAX_DISTANCE || ir_kind(ir->ops[s->at].d) != IR_TEMP) {
        return false;
    }
    /* Right behind the left shift its source still has the value that it had there. */
    unsigned at = s->at + 1u;
    struct ir_op ext = make(code, 64, s->src, IR_NONE);
    if (!insert(f, at, &ext)) {
        return false;
    }
    ir_ref d = ir->ops[i + 1].d;
    ir->ops[i + 1] = make(IR_mov, 64, ir->ops[at].d, IR_NONE);
    ir->ops[i + 1].d = d;
    return true;
}

static bool opposite(const struct shape *a, const struct shape *b)
{
    return (a->kind == SHR32 && b->kind == SHL32 && b->extended && a->n + b->n == 32) ||
           (a->kind == SHR64 && b->kind == SHL64 && a->n + b->n == 64);
}

/* ops[i] joins two shifts of the same value: a rotation. True when an op was inserted before i. */
static bool fuse_rotation(struct fuse *f, unsigned i)
{
    struct ir *ir = f->ir;
    struct ir_op *op = &ir->ops[i];
    const struct shape *a = shape_of(f, op->a), *b = shape_of(f, op->b);
    if (a->kind == SHL32 || a->kind == SHL64) {
        const struct shape *swap = a;
        a = b;
        b = swap;
    }
    if (op->w != 64 || !opposite(a, b) || a->src != b->src || a->ver != b->ver ||
        !current(f, a)) {
        return false;
    }
    ir_ref d = op->d;
    struct ir_op rotation = make(IR_rotr, a->kind == SHR64 ? 64 : 32, a->src, a->amount);
    if (a->kind == SHR64) {
        *op = rotation;
        op->d = d;
        return false;
    }
    if (!insert(f, i, &rotation)) {
        return false;
    }
    ir->ops[i + 1] = make(IR_sext32, 64, ir->ops[i].d, IR_NONE);
    ir->ops[i + 1].d = d;
    return true;
}

/* The shape of an op's result. */
static struct shape result_shape(struct fuse *f, const struct ir_op *op, unsigned i)
{
    struct shape s = nothing;
    uint64_t n;
    if (op->op == IR_mov) {
        return *shape_of(f, op->a);
    }
    if (op->op == IR_sext32) {
        s = *shape_of(f, op->a);
        s.extended = true;
        return s.kind == SHR32 || s.kind == SHL32 ? s : nothing;
    }
    if ((op->op != IR_shl && op->op != IR_shr) || !ir_is_const(f->ir, op->b, &n) || n == 0 ||
        n >= op->w || ir_kind(op->a) == IR_CONST) {
        return nothing;
    }
    if (op->w == 32) {
        s.kind = op->op == IR_shl ? SHL32 : SHR32;
    } else {
        s.kind = op->op == IR_shl ? SHL64 : SHR64;
    }
    s.n = (uint8_t)n;
    s.at = (uint16_t)i;
    s.src = op->a;
    s.amount = op->b;
    s.ver = ir_kind(op->a) == IR_GLOBAL ? f->ver[ir_index(op->a)] : 0;
    return s;
}

static void forget_globals(struct fuse *f)
{
    for (unsigned i = 0; i < f->ir->n_globals; i++) {
        f->ver[i]++;
        f->global[i] = nothing;
    }
}

static void note_result(struct fuse *f, const struct ir_op *op, unsigned i)
{
    struct shape s = result_shape(f, op, i);
    if (op->op == IR_call && !(op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS | IR_CALL_READS))) {
        forget_globals(f);
    }
    if (op->d == IR_NONE) {
        return;
    }
    if (ir_kind(op->d) == IR_TEMP) {
        f->temp[ir_index(op->d)] = s;
    } else if (ir_kind(op->d) == IR_GLOBAL) {
        f->ver[ir_index(op->d)]++;
        f->global[ir_index(op->d)] = s;
    }
}

void ir_fuse(struct ir *ir)
{
    struct fuse f;
    f.ir = ir;
    memset(f.ver, 0, ir->n_globals * sizeof(f.ver[0]));
    memset(f.global, 0, ir->n_globals * sizeof(f.global[0]));
    memset(f.temp, 0, ir->n_temps * sizeof(f.temp[0]));
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        uint64_t n;
        if ((op->op == IR_shr || op->op == IR_sar) && ir_is_const(ir, op->b, &n)) {
            i += fuse_extension(&f, i, (unsigned)n);
        } else if (op->op == IR_or || op->op == IR_xor || op->op == IR_add) {
            i += fuse_rotation(&f, i);
        }
        note_result(&f, &ir->ops[i], i);
    }
}
