/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI host bridge on the rig of the device tests, and accesses to config space as a guest makes
 * them. One thread.
 */
#ifndef VMD_TESTS_DEVICE_PCI_RIG_H
#define VMD_TESTS_DEVICE_PCI_RIG_H

#include "devices/bus/pci_host.h"
#include "tests/device/rig.h"

#define PCI_ECAM 0x30000000ull
#define PCI_PIO 0x3000000ull
#define PCI_MMIO 0x40000000ull
#define PCI_MMIO64 0x400000000ull

struct pci_rig {
    struct rig *r;
    struct device *host;
    struct rig_line wire[4];
};

void pci_rig_new(struct pci_rig *p);
void pci_rig_free(struct pci_rig *p);
/* Makes a function; the caller sets properties and then calls pci_rig_plug(). */
struct device *pci_rig_device(struct pci_rig *p, const struct device_class *cls);
/* Realizes it on a bus (NULL: the root bus) at slot << 3 | function. */
void pci_rig_plug(struct pci_rig *p, struct device *d, struct pci_bus *bus, unsigned addr);

/* Config space; `at` is bus << 8 | slot << 3 | function. */
uint32_t cfg_read(struct pci_rig *p, unsigned at, unsigned offset, unsigned size);
void cfg_write(struct pci_rig *p, unsigned at, unsigned offset, uint32_t value, unsigned size);
/* Offset of the n-th (from 0) capability with an id, or 0. */
unsigned cfg_cap(struct pci_rig *p, unsigned at, uint8_t id, unsigned n);

#endif
