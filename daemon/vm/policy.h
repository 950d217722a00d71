/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon does with VMs without being asked: starts them after the host has booted, starts
 * them again when they ended, watches whether their emulators are alive, ends them in order when the
 * host is shut down. The settings are members of VmConfig (autostart, restart, watchdog,
 * host_shutdown). Loop thread.
 */
#ifndef VMD_DAEMON_POLICY_H
#define VMD_DAEMON_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct change;
struct json_object;
struct policy;
struct run;
struct store_object;
struct vm;
struct vmd;

struct policy *policy_new(struct vmd *d);
void policy_free(struct policy *p);
/* A row of kind "restart": a restart that was due when the last daemon ended. */
void policy_load(struct vmd *d, const struct store_object *row);
/* Emulators were taken up, clients may come: begins to act. */
void policy_begin(struct vmd *d);

/* The run has ended for `reason`: decides whether the VM is started again and adds that to the
 * change that makes the end durable. policy_ended() follows when it is. */
void policy_ending(struct run *run, const char *reason, struct change *c);
void policy_ended(struct vm *vm);
/* A start begins, or the VM is deleted: no restart is due any more. */
void policy_clear(struct vm *vm, struct change *c);
/* The definition has changed: a restart it no longer asks for is dropped. */
void policy_changed(struct vm *vm);
/* vm.stop of a VM that waits for its restart: true when there was one, which is off now. */
bool policy_cancel(struct vm *vm);
/* Time of the restart that is due, ms since 1970; 0: none is. */
int64_t policy_restart_due_ms(const struct vm *vm);

/* host.shutdown: ends VMs by their own settings, those that others come after last. fn(arg, result)
 * once, when all have ended; the result is the caller's. False: one is under way already. */
bool policy_shutdown(struct vmd *d, void (*fn)(void *arg, struct json_object *take_result),
                     void *arg);
/* No VM may be started now: the host is shut down. */
bool policy_is_shutting(const struct vmd *d);

#endif
