/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on one VM, one at a time, in the order the calls came. An operation begins when the
 * one before it has ended, and ends with op_end(). Loop thread.
 */
#ifndef VMD_DAEMON_OPS_H
#define VMD_DAEMON_OPS_H

#include "api-schema/json/error.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct api_type;
struct api_vm_start_in;
struct err;
struct job;
struct loop_timer;
struct vm;
struct vmd;

struct op {
    struct list link; /* in vm->ops while it waits */
    struct vm *vm;
    struct api_call *call; /* NULL: a job's */
    struct job *job;
    void (*begin)(struct op *op);
    void *in;                           /* decoded parameters, of the call */
    bool flag;                          /* force, paused, whatever `begin` makes of it */
    const struct api_vm_start_in *tape; /* of a start with a recording, or NULL */
    bool held;                          /* waits for the VM's end, registered with run_on_end */
    const char *method;                 /* static, what the emulator is asked */
    const char *done;                   /* static, word for state changes */
    /* The emulator's answer is the call's, of this type; NULL: VmInfo is */
    const struct api_type *out;
    struct loop_timer *timer;
    unsigned tries; /* to reach the emulator */
    /* Of an op that ends its VM: what comes then, in place of the answer */
    void (*then)(struct op *op);
    void *own; /* freed with it */
    /* A start of the daemon's own: told how it went, after the op has ended */
    void (*after)(struct vm *vm, const struct api_error *x);
};

/* Runs begin(op) when the VM is free. With too many waiting the call is told `busy`. */
void op_queue(struct vm *vm, struct api_call *call, struct job *job, void *in,
              void (*begin)(struct op *op), bool flag);
/* When the change that made a job has been stored, or could not be (e): queues what the job does. False: there is nothing to do,
 * the job is forgotten, and `in` is the caller's still. `vm` is NULL when it has gone. */
bool op_queue_job(struct vmd *d, struct vm *vm, int64_t job, const struct err *e, void *in,
                  void (*begin)(struct op *op));
/* Frees op; the next one begins. The call must have been answered, or be about to. */
void op_end(struct op *op);
/* Before vm_free(): calls that wait are told that the VM is gone. Also ends the current op. */
void ops_drop(struct vm *vm, int code, const char *why);
/* Ends the op with VmInfo of the VM as the reply (durable audit and key first). */
void op_reply_info(struct op *op);
void op_fail(struct op *op, const struct api_error *x);
void op_failf(struct op *op, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
