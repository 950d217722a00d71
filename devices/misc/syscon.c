/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscon: the SiFive test finisher: a guest ends or resets its machine by one write. Holds no
 * state. vCPU threads enter by MMIO; the request is served by the main thread.
 */
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

enum { FINISH_FAIL = 0x3333, FINISH_PASS = 0x5555, FINISH_RESET = 0x7777 };

struct syscon {
    struct device dev;
};

static void syscon_written(struct device *d, const struct dev_reg *r, unsigned index,
                           uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    switch (value & 0xffff) {
    case FINISH_PASS:
        vm_request(d->vm, VM_REQ_POWEROFF, "guest-poweroff");
        break;
    case FINISH_RESET:
        vm_request(d->vm, VM_REQ_RESET, "guest-reset");
        break;
    case FINISH_FAIL:
        log_info("devices", "%s: the guest reports failure, code %u", d->id,
                 (unsigned)(value >> 16));
        vm_request(d->vm, VM_REQ_POWEROFF, "guest-fail");
        break;
    default:
        log_trace('u', "%s: unknown value 0x%08llx", d->id, (unsigned long long)value);
    }
}

static const struct dev_reg syscon_regs[] = {
    { .name = "FINISH",
      .doc = "0x5555 powers off, 0x7777 resets, 0x3333 | code << 16 reports failure",
      .offset = 0,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .written = syscon_written },
    { .name = NULL },
};

static const struct dev_reg_block syscon_blocks[] = {
    { .name = "mmio", .size = 0x1000, .regs = syscon_regs, .min_size = 2, .max_size = 4 },
    { .name = NULL },
};

const struct device_class syscon_class = {
    .name = "syscon",
    .doc = "power-off and reset by one write (SiFive test finisher)",
    .size = sizeof(struct syscon),
    .blocks = syscon_blocks,
};
