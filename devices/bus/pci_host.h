/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI Express host bridge: config space by ECAM, windows for memory and I/O, four interrupt
 * wires. One a board; its struct device has those as irq[0..3], and as irq[4..7] those of slots from the property direct-from on.
 */
#ifndef VMD_DEVICES_BUS_PCI_HOST_H
#define VMD_DEVICES_BUS_PCI_HOST_H

#include "devices/bus/pci.h"

enum pci_region { PCI_REGION_ECAM, PCI_REGION_PIO, PCI_REGION_MMIO, PCI_REGION_MMIO64 };

/* The root bus of a realized bridge. */
struct pci_bus *pci_host_bus(struct device *host);
/* What the board maps at the addresses that the bridge's properties name. */
struct mem_region *pci_host_region(struct device *host, enum pci_region which);
/* Gives each BAR and bridge window on the bus an address, as firmware would, without turning
 * decoding on. Main thread, vCPUs paused or not started. */
void pci_host_assign(struct device *host);

/* Functions that are plugged from now on are behind it; what was plugged before (the IOMMU's own function) is not. Main thread, before the guest runs. */
void pci_host_set_iommu(struct device *host, const struct pci_iommu *iommu);
/* Is there a function with that number? Any thread; no lock of the host's is held. */
bool pci_host_has(struct device *host, uint16_t requester);

/* Config space by other ways than ECAM; what is not there reads as all ones. Any thread; no lock of the host's or a function's is held. */
uint32_t pci_host_config_read(struct device *host, unsigned bus, unsigned devfn,
                              unsigned offset, unsigned size);
void pci_host_config_write(struct device *host, unsigned bus, unsigned devfn, unsigned offset,
                           uint32_t value, unsigned size);

/* --- for pci.c and bridges --- */

/* A function's command, BARs or windows may have changed: maps anew what it and everything below
 * it shows. The function's lock is held. */
void pci_host_update(struct pci_fn *f);
/* Adds level (+1, -1) to the wire that pin A of f leads to. The function's lock is held. */
void pci_host_wire(struct pci_fn *f, bool level);
/* Onto f->bus at f->addr; sets devfn, and dev.dma where there is an IOMMU. */
int pci_host_plug(struct pci_fn *f, struct err *e);
void pci_host_unplug(struct pci_fn *f);
/* Whether what is on a bus answers. Any thread; no lock of the host's is held. */
void pci_host_power(struct pci_bus *bus, bool on);
/* A bridge's secondary bus. */
void pci_host_bus_init(struct pci_bus *bus, struct pci_fn *bridge);

#endif
