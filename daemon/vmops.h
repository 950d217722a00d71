/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that run and end VMs, as begin functions for op_queue(). Loop thread.
 */
#ifndef VMD_DAEMON_VMOPS_H
#define VMD_DAEMON_VMOPS_H

struct op;

/* Starts op->vm (op->flag: paused), for a call or for a job of kind vm.create. */
void vmop_start(struct op *op);

#endif
