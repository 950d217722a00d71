/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI Express side of the rv-virt board: host bridge, root ports, and the functions that the
 * configuration asks for, in slots of the root bus in its order. Main thread.
 */
#include "devices/board/rv_virt.h"
#include "devices/board/disks.h"
#include "devices/bus/pci_host.h"
#include "devices/bus/pci_root_port.h"
#include "devices/char/virtio_serial.h"
#include "devices/fs/share.h"
#include "devices/irqchip/plic.h"
#include "devices/registry.h"
#include "devices/virtio/vhost_user.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <stdio.h>

/* The window for 64-bit BARs: the next multiple of its size behind RAM and what may come of it. */
static uint64_t mmio64_base(const struct board *b)
{
    uint64_t end = rv_virt_memory_at(b, b->cfg.n_memory_devices);

    return b->cfg.xlen == 32 ? 0 : (end + RV_PCI_MMIO64_SIZE - 1) & ~(RV_PCI_MMIO64_SIZE - 1);
}

static int add_host(struct board *b, struct device *plic, struct err *e)
{
    int rc = dev_new(b->vm, &pci_host_class, "pci", &b->pci, e);

    b->pci_mmio64 = mmio64_base(b);
    if (rc == 0) {
        rc = dev_set_u64(b->pci, "mmio-base", RV_PCI_MMIO, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(b->pci, "mmio-size", RV_PCI_MMIO_SIZE, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(b->pci, "mmio64-base", b->pci_mmio64, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(b->pci, "mmio64-size", b->pci_mmio64 ? RV_PCI_MMIO64_SIZE : 0, e);
    }
    if (rc == 0) {
        rc = dev_realize(b->pci, e);
    }
    if (rc != 0) {
        dev_free(b->pci);
        b->pci = NULL;
        return rc;
    }
    for (unsigned i = 0; i < 4; i++) {
        b->pci->irq[i] = plic_input(plic, RV_IRQ_PCI + i);
    }
    return 0;
}

static int map_host(struct board *b, struct err *e)
{
    const struct {
        enum pci_region region;
        uint64_t at;
    } map[] = { { PCI_REGION_ECAM, RV_PCI_ECAM },
                { PCI_REGION_PIO, RV_PCI_PIO },
                { PCI_REGION_MMIO, RV_PCI_MMIO },
                { PCI_REGION_MMIO64, b->pci_mmio64 } };
    int rc = 0;

    for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]) && rc == 0; i++) {
        if (map[i].at) {
            rc = mem_map(b->vm->root, map[i].at, 0, pci_host_region(b->pci, map[i].region), e);
        }
    }
    return rc;
}

/* The bus of a free slot that a card can be taken out of. */
static struct pci_bus *slot_bus(struct board *b, const char *id, struct err *e)
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
static int plug(struct board *b, struct device *d, bool hotplug, struct err *e)
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

static int add_root_port(struct board *b, unsigned i, struct err *e)
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

struct device *rv_virt_port(struct board *b, unsigned i)
{
    return i < BOARD_MAX_PORTS ? b->port[i] : NULL;
}

/* A virtio device behind a function of its own. */
static int add_virtio(struct board *b, struct device *behind, bool hotplug, struct err *e)
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
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return plug(b, d, hotplug, e);
}

int rv_virt_plug(struct board *b, struct device *d, struct err *e)
{
    return plug(b, d, false, e);
}

int rv_virt_add_virtio(struct board *b, struct device *behind, struct err *e)
{
    return add_virtio(b, behind, false, e);
}

/* The controller of disk i, when i is the first at it. */
static int add_disk(struct board *b, unsigned i, struct err *e)
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
    bool hotplug = b->cfg.disk[i].hotplug;
    return bus == BOARD_VIRTIO_PCI || bus == BOARD_SCSI ? add_virtio(b, d, hotplug, e)
                                                        : plug(b, d, hotplug, e);
}

static int add_panic(struct board *b, struct err *e)
{
    struct device *d;
    int rc = dev_new(b->vm, &pvpanic_pci_class, "panic0", &d, e);

    return rc != 0 ? rc : plug(b, d, false, e);
}

static int add_nic(struct board *b, unsigned i, struct err *e)
{
    struct device *d = NULL;
    int rc;

    if (!rv_virt_nic_on_pci(&b->cfg.nic[i])) {
        return 0;
    }
    rc = rv_virt_new_net(b, i, &d, e);
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return add_virtio(b, d, b->cfg.nic[i].hotplug, e);
}

/* The ports' device. */
static int add_serial(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_serial_class, "channels0", &d, e);

    for (unsigned i = 0; i < b->cfg.n_serial && rc == 0; i++) {
        const struct board_serial *s = &b->cfg.serial[i];

        rc = virtio_serial_add(d, s->name, s->console, s->chr, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    b->serial = d;
    return add_virtio(b, d, false, e);
}

static int add_share(struct board *b, struct board_share *s, struct err *e)
{
    struct device *d = NULL;
    int rc = share_device_new(b->vm, s->id, s->tag, &s->back, &s->fd, &d, e);

    return rc == 0 ? add_virtio(b, d, s->hotplug, e) : rc;
}

void rv_virt_close_shares(struct board *b)
{
    for (unsigned i = 0; i < b->cfg.n_shares; i++) { /* those that no device has taken */
        vhost_user_free(b->cfg.share[i].back);
        fd_autoclose(&b->cfg.share[i].fd);
    }
}

int rv_virt_add_pci(struct board *b, struct device *plic, struct err *e)
{
    int rc = add_host(b, plic, e);

    if (rc == 0) {
        rc = map_host(b, e);
    }
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
        rc = rv_virt_add_screen(b, e);
    }
    rc = rc == 0 ? rv_virt_add_extras(b, e) : rc;
    rc = rc == 0 ? rv_virt_add_usb(b, e) : rc;
    for (unsigned i = 0; i < b->cfg.n_shares && rc == 0; i++) { /* behind those that were there before them */
        rc = add_share(b, &b->cfg.share[i], e);
    }
    return rc == 0 ? rv_virt_add_memory(b, e) : rc;
}
