/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the passes over IR share. Pure functions; a pass belongs to the thread that translates.
 */
#ifndef VMD_TCG_IR_PASS_H
#define VMD_TCG_IR_PASS_H

#include "engine/tcg/ir.h"

/* A removed op, until ir_pass_compact(): a marker that no guest instruction makes. */
static inline void ir_pass_remove(struct ir_op *op)
{
    *op = (struct ir_op){ .op = IR_insn,
                          .w = 64,
                          .d = IR_NONE,
                          .a = IR_NONE,
                          .b = IR_NONE,
                          .c = IR_NONE,
                          .e = IR_NONE,
                          .imm = INT64_MIN };
}

/* Closes the gaps of removed ops. */
static inline void ir_pass_compact(struct ir *ir)
{
    unsigned out = 0;
    for (unsigned i = 0; i < ir->n_ops; i++) {
        if (ir->ops[i].op == IR_insn && ir->ops[i].imm == INT64_MIN) {
            continue;
        }
        if (out != i) {
            ir->ops[out] = ir->ops[i];
        }
        out++;
    }
    ir->n_ops = out;
}

/* Does anything outside the op's operands see the globals when it runs? */
static inline bool ir_observes_globals(const struct ir_op *op)
{
    if (op->op == IR_call) {
        return !(op->aux & (IR_CALL_PURE | IR_CALL_NO_GLOBALS));
    }
    return ir_op_info[op->op].flags & (IRF_FAULT | IRF_EXIT);
}

/* Shifts that undo each other become extensions, two shifts and an or become a rotation (ir_fuse.c).
 * Runs on the builder's output, before destinations are forwarded. */
void ir_fuse(struct ir *ir);

/* Drops extensions whose upper half nobody looks at before it is overwritten (ir_narrow.c). Runs after
 * destinations are forwarded. */
void ir_narrow(struct ir *ir);

#endif
