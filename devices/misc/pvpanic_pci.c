/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvpanic-pci: by one byte the guest tells that its kernel has panicked (QEMU, docs/specs/pvpanic). Holds no state of its own.
 * vCPU threads enter by MMIO; the request is served by the main thread.
 */
#include "devices/bus/pci.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

enum { PANICKED = 1, CRASH_LOADED = 2 };

struct pvpanic {
    struct pci_fn pci;
};

static void event_written(struct device *d, const struct dev_reg *r, unsigned index,
                          uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    if (value & PANICKED) {
        vm_request(d->vm, VM_REQ_PANIC, "guest-panic");
    } else if (value & CRASH_LOADED) {
        log_info("devices", "%s: the guest has panicked and goes over to its crash kernel",
                 d->id);
    }
}

static const struct dev_reg pvpanic_regs[] = {
    { .name = "EVENT",
      .doc = "read: events there are; written: bit 0 panicked, bit 1 panicked and a crash "
             "kernel takes over",
      .offset = 0,
      .size = 1,
      .writable = PANICKED | CRASH_LOADED,
      .reset = PANICKED | CRASH_LOADED,
      .field = DEV_NO_FIELD,
      .written = event_written },
    { .name = NULL },
};

static const struct dev_reg_block pvpanic_blocks[] = {
    { .name = "mmio", .size = 16, .regs = pvpanic_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

static int pvpanic_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = PCI_VENDOR_REDHAT,
                                         .device = 0x0011,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x088000,
                                         .revision = 1 };
    struct pci_fn *f = (struct pci_fn *)d;
    int rc = pci_fn_init(f, &id, e);

    if (rc == 0) {
        pci_bar_set(f, 0, PCI_BAR_MEM32, d->mmio[0]);
        pci_fn_ready(f);
    }
    return rc;
}

static void pvpanic_reset(struct device *d)
{
    pci_fn_reset((struct pci_fn *)d);
}

static void pvpanic_destroy(struct device *d)
{
    pci_fn_done((struct pci_fn *)d);
}

static const struct st_field pvpanic_fields[] = { PCI_ST_FIELD, ST_END };
static const struct st_table pvpanic_state = {
    .name = "pvpanic-pci",
    .version = 1,
    .fields = pvpanic_fields,
};

static const struct dev_prop pvpanic_props[] = {
    PCI_PROPS,
    { .name = NULL },
};

const struct device_class pvpanic_pci_class = {
    .name = "pvpanic-pci",
    .doc = "the guest tells of its kernel's panic",
    .size = sizeof(struct pvpanic),
    .props = pvpanic_props,
    .blocks = pvpanic_blocks,
    .state = &pvpanic_state,
    .realize = pvpanic_realize,
    .reset = pvpanic_reset,
    .destroy = pvpanic_destroy,
};
