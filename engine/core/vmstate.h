/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a whole machine but for its memory, by the state tables of what it consists of: clock, vCPUs, devices.
 * It holds architecture and devices, never an engine's private data, so that another engine takes it up.
 *
 * Stream: a number of parts, each text name ("machine", "vcpu0", "device:serial0"), text class, and an object of
 * state.h; then an empty name. Main thread, the VM paused.
 */
#ifndef VMD_CORE_VMSTATE_H
#define VMD_CORE_VMSTATE_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct vm;

/* Is nothing in flight in any device? If not it is to be asked again when the loop has turned; nobody may resume the VM
 * meanwhile. */
bool vmstate_quiet(struct vm *vm);
/* Appends the machine's state; its devices are quiet. */
void vmstate_save(struct vm *vm, struct buf *out);
/* Takes it over into a machine that was reset and has not run since. -EBADMSG, -EINVAL: the stream is
 * damaged or of another machine; names the part. Some of it may have been taken over by then: such a machine must not run
 * before another reset. */
int vmstate_load(struct vm *vm, const void *p, size_t n, struct err *e);
#endif
