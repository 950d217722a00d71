/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and network cards that come and go while a VM runs: vm.attach, vm.detach, and who waits for a guest to let go.
 * Loop thread.
 */
#ifndef VMD_DAEMON_HOTPLUG_H
#define VMD_DAEMON_HOTPLUG_H

#include <stdbool.h>

struct vm;

/* The emulator says that a device has gone, or (refused) that the guest keeps it: tells it, answers who waits. */
void hotplug_told(struct vm *vm, const char *kind, const char *name, bool refused);

#endif
