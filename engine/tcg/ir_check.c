/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifies a block of IR and prints it: operands present as the table says, temps defined once and before use, exits
 * in range, one terminator at the end. Pure functions.
 */
#include "engine/tcg/ir.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct check {
    const struct ir *ir;
    bool defined[IR_MAX_TEMPS];
    char *why;
    size_t n;
};

static bool fail(struct check *c, unsigned at, const char *what)
{
    snprintf(c->why, c->n, "op %u (%s): %s", at,
             at < c->ir->n_ops && c->ir->ops[at].op < IR_N_OPS ? ir_op_info[c->ir->ops[at].op].name
                                                                : "?",
             what);
    return false;
}

static bool use_ok(struct check *c, ir_ref r)
{
    switch (ir_kind(r)) {
    case IR_TEMP:
        return ir_index(r) < c->ir->n_temps && c->defined[ir_index(r)];
    case IR_GLOBAL:
        return ir_index(r) < c->ir->n_globals;
    case IR_CONST:
        return ir_index(r) < c->ir->n_consts;
    default:
        return false; /* page-relative values never stand in an op */
    }
}

static bool operands_ok(struct check *c, const struct ir_op *op)
{
    const char *s = ir_op_info[op->op].operands;
    const struct {
        char letter;
        ir_ref ref;
    } in[] = { { 'A', op->a }, { 'B', op->b }, { 'C', op->c }, { 'E', op->e } };
    for (unsigned i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
        bool want = strchr(s, in[i].letter);
        if (in[i].ref == IR_NONE ? want && op->op != IR_call : !want || !use_ok(c, in[i].ref)) {
            return false;
        }
    }
    return true;
}

/* A call's vector hint: a known op, operands of sane size, the argument it names is there. */
static bool vec_ok(const struct ir *ir, const struct ir_op *op)
{
    if (op->op != IR_call || !(op->aux & IR_CALL_VEC)) {
        return true;
    }
    if (op->mo >= ir->n_vecs) {
        return false;
    }
    const struct ir_vec *v = &ir->vecs[op->mo];
    bool argument = v->flags & IR_VEC_SCALAR || v->op == IR_VEC_load || v->op == IR_VEC_store;
    return v->op < IR_N_VEC_OPS && v->sew <= 3 && v->arg <= 2 && v->n && !(v->n & (v->n - 1)) &&
           (uint32_t)v->n << v->sew <= 2048 && (!argument || ir_vec_arg(v, op) != IR_NONE);
}

static bool result_ok(struct check *c, const struct ir_op *op)
{
    bool may = ir_op_info[op->op].operands[0] == 'D';
    if (op->d == IR_NONE) {
        return !may || op->op == IR_call;
    }
    if (!may) {
        return false;
    }
    if (ir_kind(op->d) == IR_GLOBAL) {
        return ir_index(op->d) < c->ir->n_globals;
    }
    if (ir_kind(op->d) != IR_TEMP || ir_index(op->d) >= c->ir->n_temps ||
        c->defined[ir_index(op->d)]) {
        return false;
    }
    return c->defined[ir_index(op->d)] = true;
}

bool ir_check(const struct ir *ir, char *why, size_t n)
{
    struct check c = { .ir = ir, .why = why, .n = n };
    if (ir->n_ops == 0) {
        return fail(&c, 0, "empty block");
    }
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        if (op->op >= IR_N_OPS || (op->w != 32 && op->w != 64) || op->cond >= IR_N_CONDS) {
            return fail(&c, i, "bad opcode, width or condition");
        }
        if (!operands_ok(&c, op)) {
            return fail(&c, i, "operand missing, unexpected or not yet defined");
        }
        if (!vec_ok(ir, op)) {
            return fail(&c, i, "bad vector hint");
        }
        if (!result_ok(&c, op)) {
            return fail(&c, i, "bad result, or a temp defined twice");
        }
        uint8_t flags = ir_op_info[op->op].flags;
        if (flags & IRF_EXIT) {
            if (op->imm < 0 || op->imm >= ir->n_exits) {
                return fail(&c, i, "no such exit");
            }
            const struct ir_exit *x = &ir->exits[op->imm];
            if (x->kind == IR_EXIT_INDIRECT && !use_ok(&c, x->ref)) {
                return fail(&c, i, "exit to an undefined value");
            }
        }
        if (!(flags & IRF_END) != (i + 1 < ir->n_ops)) {
            return fail(&c, i, "the terminator must be the last op and only that");
        }
    }
    return true;
}

static void print_ref(const struct ir *ir, ir_ref r, struct buf *b)
{
    switch (r == IR_NONE ? IR_PCREL : ir_kind(r)) {
    case IR_TEMP:
        buf_printf(b, " t%u", ir_index(r));
        break;
    case IR_GLOBAL:
        buf_printf(b, " %s", ir->globals[ir_index(r)].name);
        break;
    case IR_CONST:
        buf_printf(b, " 0x%" PRIx64, ir->consts[ir_index(r)]);
        break;
    default:
        buf_add_str(b, " -");
    }
}

static void print_exit(const struct ir *ir, unsigned n, struct buf *b)
{
    static const char *const kinds[] = { "direct", "indirect", "lookup" };
    const struct ir_exit *x = &ir->exits[n];
    buf_printf(b, " -> #%u %s", n, kinds[x->kind]);
    if (x->kind == IR_EXIT_DIRECT) {
        buf_printf(b, x->far ? " %+d far" : " %+d", x->off);
    } else if (x->kind == IR_EXIT_INDIRECT) {
        print_ref(ir, x->ref, b);
    }
}

static void print_vec(const struct ir_vec *v, struct buf *b)
{
    buf_printf(b, " [%s n=%u sew=%u d=%u a=%u b=%u", ir_vec_info[v->op].name, v->n, 8u << v->sew, v->d, v->a, v->b);
    buf_printf(b, "%s%s%s%s]", v->flags & IR_VEC_SCALAR ? " scalar" : "", v->flags & IR_VEC_MASKED ? " masked" : "",
               v->flags & IR_VEC_VL ? " vl" : "", v->flags & IR_VEC_GROUP0 ? " group0" : "");
}

void ir_print(const struct ir *ir, struct buf *b)
{
    static const char *const conds[IR_N_CONDS] = { "eq", "ne",  "lt",  "ge",  "le",
                                                   "gt", "ltu", "geu", "leu", "gtu" };
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        const char *s = ir_op_info[op->op].operands;
        buf_printf(b, op->op == IR_insn ? "%s" : "    %s", ir_op_info[op->op].name);
        if (op->w == 32) {
            buf_add_str(b, ".32");
        }
        for (; *s; s++) {
            if (*s == 'N') {
                buf_printf(b, " %s", conds[op->cond]);
            } else if (*s == 'I') {
                buf_printf(b, " %" PRId64, op->imm);
            } else if (*s == 'X') {
                print_exit(ir, (unsigned)op->imm, b);
            } else {
                print_ref(ir, *s == 'D' ? op->d : *s == 'A' ? op->a : *s == 'B' ? op->b : *s == 'C' ? op->c : op->e, b);
            }
        }
        if (ir_op_info[op->op].flags & IRF_FAULT) {
            buf_printf(b, " mo=%u", op->mo);
        }
        if (op->op == IR_call && op->aux & IR_CALL_VEC) {
            print_vec(ir_vec_of(ir, op), b);
        }
        buf_add_char(b, '\n');
    }
}
