/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels of VMs: their checks, what vmd-spawn is asked for, vm.channel. Loop thread.
 */
#ifndef VMD_DAEMON_CHANNELS_H
#define VMD_DAEMON_CHANNELS_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "engine/base/err.h"

struct json_object;
struct vm;

#define AGENT_CHANNEL "org.qemu.guest_agent.0"

/* Names differ, and the names of their sockets, too. */
int channels_check(const struct api_vm_config *c, struct api_error *x);
/* Names, as spawn/proto.h has them; the caller's. */
struct json_object *channels_request(const struct api_vm_config *c);
/* A listening socket in the run folder, for a channel that comes while the VM runs. */
int channels_listen(struct vm *vm, const char *name, struct err *e);

#endif
