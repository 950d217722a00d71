/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI Express side of boards: host bridge, root ports, and the functions that the
 * configuration asks for, in slots of the root bus in its order. Main thread.
 */
#include "devices/board/parts.h"
#include "devices/board/disks.h"
#include "devices/bus/pci_host.h"
#include "devices/bus/pci_rom.h"
#include "devices/bus/pci_root_port.h"
#include "devices/fs/share.h"
#include "devices/misc/virtio_iommu.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdio.h>

int parts_add_host(struct board_parts *b, const struct parts_pci *p, struct err *e)
{
    int rc = dev_new(b->vm, &pci_host_class, "pci", &b->pci, e);

    rc = rc == 0 ? dev_set_u64(b->pci, "mmio-base", p->mmio, e) : rc;
    rc = rc == 0 ? dev_set_u64(b->pci, "mmio-size", p->mmio_size, e) : rc;
    rc = rc == 0 ? dev_set_u64(b->pci, "mmio64-base", p->mmio64, e) : rc;
    rc = rc == 0 ? dev_set_u64(b->pci, "mmio64-size", p->mmio64 ? p->mmio64_size : 0, e) : rc;
    rc = rc == 0 ? dev_set_bool(b->pci, "own-bridge", p->own_bridge, e) : rc;
    if (rc == 0 && p->direct_from) {
        rc = dev_set_u64(b->pci, "direct-from", p->direct_from, e);
    }
    rc = parts_finish(b->pci, rc, e);
    b->pci = rc == 0 ? b->pci : NULL;
    return rc;
}

/* The bus of a free slot that a card can be taken out of. */
static struct pci_bus *slot_bus(struct board_parts *b, const char *id, struct err *e)
{
    for (unsigned i = 0; i < BOARD_MAX_PORTS && b->port[i]; i++) {
        if (!pci_root_port_taken(b->port[i])) {
            return pci_root_port_bus(b->port[i]);
        }
    }
    err_set(e, -ENOSPC, "%s: no hot-plug slot is free; ask for more with 'root_ports'", id);
    return NULL;
}

/* Realizes a function on the root bus or in a slot; frees it when that fails. */
static int plug(struct board_parts *b, struct device *d, bool hotplug, struct err *e)
{
    struct pci_bus *bus = hotplug ? slot_bus(b, d->id, e) : pci_host_bus(b->pci);
    int rc = bus ? dev_set_ptr(d, "bus", bus, e) : -ENOSPC;

    if (rc == 0) {
        rc = dev_realize(d, e);
    }
    if (rc != 0) {
        dev_free(d);
    }
    return rc;
}

static int add_root_port(struct board_parts *b, unsigned i, struct err *e)
{
    struct device *d;
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "root-port%u", i);
    rc = dev_new(b->vm, &pcie_root_port_class, id, &d, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_u64(d, "slot", i + 1, e);
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    rc = plug(b, d, false, e);
    if (rc == 0) {
        b->port[i] = d;
    }
    return rc;
}

/* A virtio device behind a function of its own. */
static int add_virtio_with(struct board_parts *b, struct device *behind, bool hotplug,
                           struct pci_rom *rom, struct err *e)
{
    struct device *d;
    char id[64];
    int rc;

    snprintf(id, sizeof(id), "%s.pci", behind->id);
    rc = dev_realize(behind, e);
    if (rc != 0) {
        dev_free(behind);
        return rc;
    }
    rc = dev_new(b->vm, &virtio_pci_class, id, &d, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(d, "device", behind, e);
    rc = rc == 0 && rom ? dev_set_ptr(d, "rom", rom, e) : rc;
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return plug(b, d, hotplug, e);
}

static int add_virtio(struct board_parts *b, struct device *behind, bool hotplug, struct err *e)
{
    return add_virtio_with(b, behind, hotplug, NULL, e);
}

int parts_plug(struct board_parts *b, struct device *d, struct err *e)
{
    return plug(b, d, false, e);
}

int parts_plug_at(struct board_parts *b, struct device *d, unsigned devfn, bool multifunction,
                  struct err *e)
{
    int rc = dev_set_u64(d, "addr", devfn, e);

    rc = rc == 0 ? dev_set_bool(d, "multifunction", multifunction, e) : rc;
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return plug(b, d, false, e);
}

int parts_add_virtio(struct board_parts *b, struct device *behind, struct err *e)
{
    return add_virtio(b, behind, false, e);
}

/* The controller of disk i, when i is the first at it. */
static int add_disk(struct board_parts *b, unsigned i, struct err *e)
{
    enum board_disk_bus bus = b->cfg.disk[i].bus;
    struct device *d = NULL;
    int rc;

    if (bus == BOARD_VIRTIO_MMIO || bus == BOARD_SCSI_MMIO || bus == BOARD_USB ||
        !board_disk_leads(&b->cfg, i)) {
        return 0;
    }
    rc = board_new_disk(b->vm, &b->cfg, i, &d, e);
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    if (bus == BOARD_SATA && b->sata_at) {
        unsigned at = b->sata_at;

        b->sata_at = 0;
        return parts_plug_at(b, d, at, true, e);
    }
    bool hotplug = b->cfg.disk[i].hotplug;
    return bus == BOARD_VIRTIO_PCI || bus == BOARD_SCSI ? add_virtio(b, d, hotplug, e)
                                                        : plug(b, d, hotplug, e);
}

static int add_panic(struct board_parts *b, struct err *e)
{
    struct device *d;
    int rc = dev_new(b->vm, &pvpanic_pci_class, "panic0", &d, e);

    return rc != 0 ? rc : plug(b, d, false, e);
}

static int add_nic(struct board_parts *b, unsigned i, struct err *e)
{
    const struct board_nic *n = &b->cfg.nic[i];
    struct pci_rom rom = { .path = n->rom.path, .fd = n->rom.fd };
    struct device *d = NULL;
    int rc;

    if (!parts_nic_on_pci(n)) {
        return 0;
    }
    rc = parts_new_net(b, i, &d, e);
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return add_virtio_with(b, d, n->hotplug, rom.path ? &rom : NULL, e);
}

static int add_serial(struct board_parts *b, struct err *e)
{
    struct device *d = NULL;
    int rc = parts_new_serial(b, &d, e);

    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return add_virtio(b, d, false, e);
}

static int add_share(struct board_parts *b, struct board_share *s, struct err *e)
{
    struct device *d = NULL;
    int rc = share_device_new(b->vm, s->id, s->tag, &s->back, &s->fd, &d, e);

    return rc == 0 ? add_virtio(b, d, s->hotplug, e) : rc;
}

/* Before all functions that are to be behind it. */
static int add_iommu(struct board_parts *b, struct err *e)
{
    struct pci_iommu port;
    struct device *d, *f;
    int rc = dev_new(b->vm, &virtio_iommu_class, "iommu0", &d, e);

    rc = rc == 0 ? dev_set_ptr(d, "host", b->pci, e) : rc;
    rc = parts_finish(d, rc, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_new(b->vm, &virtio_pci_class, "iommu0.pci", &f, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(f, "device", d, e);
    if (rc != 0) {
        dev_free(f);
        return rc;
    }
    rc = parts_plug_at(b, f, PCI_DEVFN(PARTS_IOMMU_SLOT, 0), false, e);
    port = virtio_iommu_port(d);
    pci_host_set_iommu(b->pci, &port);
    return rc;
}

int parts_add_pci(struct board_parts *b, struct err *e)
{
    int rc = b->cfg.iommu ? add_iommu(b, e) : 0;

    for (unsigned i = 0; i < b->cfg.root_ports && i < BOARD_MAX_PORTS && rc == 0; i++) {
        rc = add_root_port(b, i, e);
    }
    for (unsigned i = 0; i < b->cfg.n_disks && rc == 0; i++) {
        rc = add_disk(b, i, e);
    }
    if (rc == 0 && b->cfg.panic) {
        rc = add_panic(b, e);
    }
    for (unsigned i = 0; i < b->cfg.n_nics && rc == 0; i++) {
        rc = add_nic(b, i, e);
    }
    if (rc == 0 && b->cfg.n_serial > 0) {
        rc = add_serial(b, e);
    }
    if (rc == 0) {
        rc = parts_add_screen(b, e);
    }
    rc = rc == 0 ? parts_add_extras(b, e) : rc;
    rc = rc == 0 ? parts_add_usb(b, e) : rc;
    for (unsigned i = 0; i < b->cfg.n_shares && rc == 0;
         i++) { /* behind those that were there before them */
        rc = add_share(b, &b->cfg.share[i], e);
    }
    return rc == 0 ? parts_add_memory(b, e) : rc;
}
