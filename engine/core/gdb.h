/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debugging a guest with GDB: its Remote Serial Protocol (GDB manual, appendix E) over a
 * unix or TCP stream that somebody else opened. All-stop; each vCPU is a thread, numbered
 * from 1.
 *
 * Registers come from the architecture (struct gdb_arch), addresses and breakpoints from the
 * engine. Main thread, everything. One client at a time: while it is connected it decides
 * when the guest runs; when it goes, breakpoints go and the guest runs on.
 */
#ifndef VMD_CORE_GDB_H
#define VMD_CORE_GDB_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct gdb;
struct vcpu;
struct vm;

/* What an architecture tells GDB; struct arch_ops.gdb. vCPU at the barrier. */
struct gdb_arch {
    unsigned n_general; /* registers 0 .. n_general - 1 are those of the packets g and G */
    /* Bytes of register n in this vCPU, 1 to 8; 0: there is none. */
    unsigned (*size)(struct vcpu *c, unsigned n);
    uint64_t (*get)(struct vcpu *c, unsigned n);
    bool (*put)(struct vcpu *c, unsigned n, uint64_t v); /* false: cannot be written */
    void (*xml)(struct vcpu *c, struct buf *out);        /* the target description */
};

/* Serves GDB on fd: a listening socket, or one connected already. The descriptor is taken over
 * when this succeeds. -ENOTSUP when architecture or engine cannot be debugged. */
int gdb_new(struct vm *vm, int fd, bool listening, struct gdb **out, struct err *e);
void gdb_free(struct gdb *g); /* before the VM; NULL is fine */
/* The owner of vm->on_state passes changes on, so that the client learns of a guest that was
 * stopped, paused or resumed by others. */
void gdb_vm_state(struct gdb *g);

#endif
