/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pass: extensions from 32 bits whose upper half nobody looks at. Guests with 32-bit arithmetic on 64-bit registers
 * extend every result; in a chain of such instructions only the last one's extension is seen by anybody.
 *
 * One backward walk that knows for every value how much of it is looked at later: nothing, the low half, all. Whatever
 * observes globals (a possible fault, an exit, a helper) looks at all of all of them.
 */
#include "engine/tcg/ir_pass.h"

#include <string.h>

enum demand { UNSEEN, LOW, ALL };

struct narrow {
    struct ir *ir;
    uint8_t temp[IR_MAX_TEMPS];
    uint8_t global[IR_MAX_GLOBALS];
    uint16_t uses[IR_MAX_TEMPS];
};

static uint8_t *demand_of(struct narrow *s, ir_ref r)
{
    if (r == IR_NONE) {
        return NULL;
    }
    switch (ir_kind(r)) {
    case IR_TEMP:
        return &s->temp[ir_index(r)];
    case IR_GLOBAL:
        return &s->global[ir_index(r)];
    default:
        return NULL;
    }
}

static void look(struct narrow *s, ir_ref r, enum demand level)
{
    uint8_t *d = demand_of(s, r);
    if (d && *d < level) {
        *d = (uint8_t)level;
    }
}

static bool is_pure(const struct ir_op *op)
{
    return !(ir_op_info[op->op].flags & (IRF_SIDE | IRF_FAULT | IRF_EXIT));
}

/* How much of operand a is looked at (of b as well, but for shifts) when `seen` of the result is. */
static enum demand of_operands(const struct ir *ir, const struct ir_op *op, enum demand seen)
{
    uint64_t mask;
    switch (op->op) {
    case IR_sext8:
    case IR_sext16:
    case IR_sext32:
    case IR_zext8:
    case IR_zext16:
    case IR_zext32:
        return LOW;
    case IR_and:
        if (op->w == 64 && ir_is_const(ir, op->b, &mask) && mask <= UINT32_MAX) {
            return LOW;
        }
        break;
    default:
        break;
    }
    if (op->w == 32 && is_pure(op) && op->op != IR_mov && op->op != IR_select &&
        op->op != IR_ldenv) {
        return LOW;
    }
    switch (op->op) {
    case IR_mov:
    case IR_add:
    case IR_sub:
    case IR_mul:
    case IR_and:
    case IR_or:
    case IR_xor:
    case IR_andc:
    case IR_orc:
    case IR_eqv:
    case IR_shl:
        return op->w == 64 ? seen : ALL;
    default:
        return ALL;
    }
}

static bool is_shift(const struct ir_op *op)
{
    return op->op == IR_shl || op->op == IR_shr || op->op == IR_sar || op->op == IR_rotl ||
           op->op == IR_rotr;
}

static void look_at_operands(struct narrow *s, const struct ir_op *op, enum demand seen)
{
    bool is_word = (op->mo & MO_SIZE) != MO_64;
    switch (op->op) {
    case IR_st:
        look(s, op->a, ALL);
        look(s, op->b, is_word ? LOW : ALL);
        break;
    case IR_stenv:
        look(s, op->a, is_word ? LOW : ALL);
        break;
    case IR_brcond:
        look(s, op->a, op->w == 32 ? LOW : ALL);
        look(s, op->b, op->w == 32 ? LOW : ALL);
        break;
    default: {
        enum demand level = of_operands(s->ir, op, seen);
        look(s, op->a, level);
        look(s, op->b, is_shift(op) ? LOW : level);
        look(s, op->c, ALL);
        look(s, op->e, ALL);
    }
    }
    if (ir_op_info[op->op].flags & IRF_EXIT && s->ir->exits[op->imm].kind == IR_EXIT_INDIRECT) {
        look(s, s->ir->exits[op->imm].ref, ALL);
    }
}

static void count_uses(struct narrow *s)
{
    struct ir *ir = s->ir;
    memset(s->uses, 0, ir->n_temps * sizeof(s->uses[0]));
    for (unsigned i = 0; i < ir->n_ops; i++) {
        const struct ir_op *op = &ir->ops[i];
        const ir_ref in[] = { op->a, op->b, op->c, op->e };
        for (unsigned k = 0; k < 4; k++) {
            if (in[k] != IR_NONE && ir_kind(in[k]) == IR_TEMP) {
                s->uses[ir_index(in[k])]++;
            }
        }
    }
    for (unsigned i = 0; i < ir->n_exits; i++) {
        ir_ref r = ir->exits[i].ref;
        if (ir->exits[i].kind == IR_EXIT_INDIRECT && ir_kind(r) == IR_TEMP) {
            s->uses[ir_index(r)]++;
        }
    }
}

/* ops[i] extends for nobody: its operand's op writes the result itself when it stands right before and has no other
 * reader; else the extension becomes a plain move. True when ops[i] is gone. */
static bool drop_extension(struct narrow *s, unsigned i)
{
    struct ir_op *op = &s->ir->ops[i], *before = op - 1;
    if (i > 0 && ir_kind(op->a) == IR_TEMP && before->d == op->a &&
        s->uses[ir_index(op->a)] == 1) {
        before->d = op->d;
        ir_pass_remove(op);
        return true;
    }
    op->op = IR_mov;
    op->w = 64;
    return false;
}

void ir_narrow(struct ir *ir)
{
    struct narrow s;
    s.ir = ir;
    memset(s.temp, UNSEEN, ir->n_temps);
    memset(s.global, ALL, ir->n_globals);
    count_uses(&s);
    for (unsigned i = ir->n_ops; i-- > 0;) {
        struct ir_op *op = &ir->ops[i];
        uint8_t *d = demand_of(&s, op->d);
        enum demand seen = d ? (enum demand) * d : ALL;
        if (d && seen != ALL && (op->op == IR_sext32 || op->op == IR_zext32) &&
            drop_extension(&s, i)) {
            continue; /* the op before has the result now, and what is seen of it */
        }
        if (d) {
            *d = UNSEEN;
        }
        if (ir_observes_globals(op)) {
            memset(s.global, ALL, ir->n_globals);
        }
        look_at_operands(&s, op, seen);
    }
    ir_pass_compact(ir);
}
