/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI rig of the device tests (pci_rig.h).
 */
#include "tests/device/pci_rig.h"

#include "devices/registry.h"
#include "tests/lib/testing.h"

void pci_rig_new(struct pci_rig *p)
{
    static const uint64_t at[] = { PCI_ECAM, PCI_PIO, PCI_MMIO, PCI_MMIO64 };

    memset(p, 0, sizeof(*p));
    p->r = rig_new(1);
    p->host = rig_device(p->r, &pci_host_class);
    ck_assert_int_eq(dev_set_u64(p->host, "mmio-base", PCI_MMIO, NULL), 0);
    ck_assert_int_eq(dev_set_u64(p->host, "mmio64-base", PCI_MMIO64, NULL), 0);
    ck_assert_int_eq(dev_set_u64(p->host, "mmio64-size", 1ull << 34, NULL), 0);
    ck_assert_int_eq(dev_realize(p->host, NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        p->host->irq[i] = rig_line(&p->wire[i]);
        ck_assert_int_eq(mem_map(p->r->vm->root, at[i], -1, pci_host_region(p->host, i), NULL),
                         0);
    }
    mem_commit(p->r->vm->mem);
}

void pci_rig_free(struct pci_rig *p)
{
    rig_free(p->r);
}

struct device *pci_rig_device(struct pci_rig *p, const struct device_class *cls)
{
    return rig_device(p->r, cls);
}

void pci_rig_plug(struct pci_rig *p, struct device *d, struct pci_bus *bus, unsigned addr)
{
    struct err e = ERR_INIT;

    ck_assert_int_eq(dev_set_ptr(d, "bus", bus ? bus : pci_host_bus(p->host), NULL), 0);
    ck_assert_int_eq(dev_set_u64(d, "addr", addr, NULL), 0);
    ck_assert_msg(dev_realize(d, &e) == 0, "%s", e.msg);
}

uint32_t cfg_read(struct pci_rig *p, unsigned at, unsigned offset, unsigned size)
{
    return (uint32_t)rig_read(p->r, PCI_ECAM + ((uint64_t)at << 12) + offset, size);
}

void cfg_write(struct pci_rig *p, unsigned at, unsigned offset, uint32_t value, unsigned size)
{
    rig_write(p->r, PCI_ECAM + ((uint64_t)at << 12) + offset, value, size);
}

unsigned cfg_cap(struct pci_rig *p, unsigned at, uint8_t id, unsigned n)
{
    unsigned cap = cfg_read(p, at, PCI_CAPABILITIES, 1);

    for (unsigned steps = 0; cap; steps++) {
        ck_assert_uint_lt(steps, 48);
        ck_assert_uint_ge(cap, 0x40);
        if (cfg_read(p, at, cap, 1) == id && n-- == 0) {
            return cap;
        }
        cap = cfg_read(p, at, cap + 1, 1);
    }
    return 0;
}
