/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that the emulator of a VM answers for the daemon. Loop thread. */
#ifndef VMD_DAEMON_VM_RELAY_H
#define VMD_DAEMON_VM_RELAY_H

struct api_call;
struct json_object;
struct vm;

/* Answers the call with what the emulator says to the method; fails it when the VM does not run. Parameters are taken. */
void relay_call(struct api_call *call, struct vm *vm, const char *method,
                struct json_object *take_params);

#endif
