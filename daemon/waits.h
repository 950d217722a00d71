/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that wait: vm.wait for a state, job.wait for an end. Each ends with an answer, its timeout,
 * or its client's going. Loop thread.
 */
#ifndef VMD_DAEMON_WAITS_H
#define VMD_DAEMON_WAITS_H

#include "api-schema/gen/types.h"

#include <stddef.h>
#include <stdint.h>

struct api_call;
struct change;
struct job;
struct vm;
struct vmd;

/* timeout_ms < 0: none. Takes no ownership of states. */
void wait_vm(struct api_call *call, struct vm *vm, const enum api_vm_state *states, size_t n,
             int64_t timeout_ms);
void wait_job(struct api_call *call, struct job *job, int64_t timeout_ms);
/* Commits the change in which a job ends (job_end()), then answers those that wait for it. */
void wait_job_end(struct vmd *d, int64_t job, struct change *c);
/* The second half alone: that change was committed. */
void wait_job_answer(struct vmd *d, int64_t job);
/* The daemon ends: everybody is told. */
void waits_end(struct vmd *d);

#endif
