/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that run and end VMs, as begin functions for op_queue(). Loop thread.
 */
#ifndef VMD_DAEMON_VMOPS_H
#define VMD_DAEMON_VMOPS_H

struct json_object;
struct op;

/* Starts op->vm (op->flag: paused), for a call or for a job of kind vm.create. */
void vmop_start(struct op *op);

/* Asks the emulator of a VM that runs or is paused for op->method; its answer is the call's, as op->out says.
 * params may be NULL. Ends op. */
void vmop_ask(struct op *op, struct json_object *take_params);

/* Ends op->vm, which runs or is paused, as vm.stop does; then goes on with then(op). */
void vmop_stop_then(struct op *op, void (*then)(struct op *op));

#endif
