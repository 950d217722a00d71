/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that a guest plugs and unplugs (VmConfig.memory_devices): vm.memory_resize, the event. Loop thread. */
#ifndef VMD_DAEMON_VM_MEMDEV_H
#define VMD_DAEMON_VM_MEMDEV_H

#include "engine/base/err.h"

#include <stdint.h>

struct vm;

/* The emulator says that the guest has so many bytes of a device now. */
void memory_told(struct vm *vm, const char *name, int64_t plugged);

/* Memory for a device of so many bytes (emu.attach_memory); the caller's, or a negative code. */
int memory_file(int64_t size, struct err *e);

#endif
