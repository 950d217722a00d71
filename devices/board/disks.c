/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a configuration, grouped by their controllers (disks.h). Owns nothing. Main thread.
 */
#include "devices/board/disks.h"
#include "devices/block/nvme_namespaces.h"
#include "devices/registry.h"
#include "devices/scsi/units.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"

#include <errno.h>
#include <stdio.h>

#define SATA_PORTS 6

/* Kinds of controllers that take several disks. */
static const struct kind {
    enum board_disk_bus bus;
    const struct device_class *cls;
    const char *id, *what;
    unsigned first, places; /* of `unit` */
    bool luns;
} kinds[] = {
    { BOARD_NVME, &nvme_class, "nvme", "namespace", 1, NVME_NAMESPACES, false },
    { BOARD_SCSI, &virtio_scsi_class, "scsi", "target", 0, 256, true },
    { BOARD_SCSI_MMIO, &virtio_scsi_class, "scsi-mmio", "target", 0, 256, true },
    { BOARD_SATA, &ahci_class, "sata", "port", 0, SATA_PORTS, false },
    { BOARD_USB, &usb_storage_class, "usb-disk", "unit", 0, 1, false },
};

static const struct kind *kind_of(enum board_disk_bus bus)
{
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].bus == bus) {
            return &kinds[i];
        }
    }
    return NULL; /* a virtio disk is its own controller */
}

/* Do two disks share a controller? */
static bool together(const struct board_config *c, unsigned i, unsigned j)
{
    return i == j || (c->disk[i].bus == c->disk[j].bus && c->disk[i].bus != BOARD_USB &&
                      kind_of(c->disk[i].bus) && c->disk[i].controller != BOARD_ANY &&
                      c->disk[i].controller == c->disk[j].controller);
}

static unsigned leader(const struct board_config *c, unsigned i)
{
    unsigned j = 0;

    while (!together(c, i, j)) {
        j++;
    }
    return j;
}

bool board_disk_leads(const struct board_config *c, unsigned i)
{
    return leader(c, i) == i;
}

void board_disk_device(const struct board_config *c, unsigned i, char out[24])
{
    const struct kind *k = kind_of(c->disk[i].bus);
    unsigned first = leader(c, i), number = 0;

    if (c->disk[first].id) {
        snprintf(out, 24, "%s", c->disk[first].id);
        return;
    }
    if (!k) {
        snprintf(out, 24, "disk%u", i);
        return;
    }
    for (unsigned j = 0; j < first; j++) {
        number += c->disk[j].bus == k->bus && board_disk_leads(c, j);
    }
    snprintf(out, 24, "%s%u", k->id, number);
}

static bool place_taken(const struct board_config *c, unsigned i, uint32_t unit, unsigned lun)
{
    for (unsigned j = 0; j < c->n_disks; j++) {
        if (j != i && together(c, i, j) && c->disk[j].unit == unit && c->disk[j].lun == lun) {
            return true;
        }
    }
    return false;
}

/* Gives disk i its place, or checks the one that was asked for. */
static int choose_place(struct board_config *c, const struct kind *k, unsigned i, struct err *e)
{
    struct board_disk *d = &c->disk[i];
    uint32_t unit = d->unit;

    for (uint32_t at = k->first; unit == BOARD_ANY && at < k->first + k->places; at++) {
        if (!place_taken(c, i, at, d->lun)) {
            unit = at;
        }
    }
    if (unit == BOARD_ANY) {
        return err_set(
            e, -ENOSPC,
            "disk '%s': its %s controller has no free %s; give it another controller", d->name,
            k->id, k->what);
    }
    if (unit < k->first || unit >= k->first + k->places || (d->lun && !k->luns)) {
        return err_set(e, -EINVAL, "disk '%s': a %s controller has %ss %u to %u%s", d->name,
                       k->id, k->what, k->first, k->first + k->places - 1,
                       k->luns ? "" : " without LUNs");
    }
    if (place_taken(c, i, unit, d->lun)) {
        return err_set(e, -EEXIST, "disk '%s': %s %u of its %s controller is taken", d->name,
                       k->what, unit, k->id);
    }
    d->unit = unit;
    return 0;
}

static const char *serial_of(const struct board_disk *d)
{
    return d->serial ? d->serial : d->name;
}

/* Namespaces have no gaps: they go in the order of their numbers. */
static int give_namespaces(struct board_config *c, unsigned i, struct device *d, struct err *e)
{
    struct nvme_namespaces *ns = xnew(struct nvme_namespaces);

    for (uint32_t unit = 1; unit <= NVME_NAMESPACES; unit++) {
        for (unsigned j = i; j < c->n_disks; j++) {
            if (together(c, i, j) && c->disk[j].unit == unit) {
                ns->node[ns->n++] = c->disk[j].node;
                c->disk[j].node = NULL;
            }
        }
    }
    return dev_set_ptr(d, "namespaces", ns, e);
}

static void fill_unit(struct board_disk *disk, struct scsi_unit *u)
{
    u->target = (uint16_t)disk->unit;
    u->lun = (uint16_t)disk->lun;
    u->cdrom = disk->cdrom;
    u->removable = disk->removable;
    u->tray_open = disk->tray_open;
    u->tray_moved = disk->tray_moved;
    u->tray_arg = disk->tray_arg;
    u->node = disk->node;
    disk->node = NULL;
    str_copy(u->serial, sizeof(u->serial), serial_of(disk));
}

static int give_units(struct board_config *c, unsigned i, struct device *d, struct err *e)
{
    struct scsi_units *units = xnew(struct scsi_units);
    uint64_t queues = 1;
    int rc = dev_set_ptr(d, "units", units, e);

    for (unsigned j = i; j < c->n_disks && rc == 0; j++) {
        struct board_disk *disk = &c->disk[j];
        struct scsi_unit *u = &units->unit[units->n];

        if (!together(c, i, j)) {
            continue;
        }
        if (units->n == SCSI_MAX_UNITS) {
            return err_set(e, -ENOSPC,
                           "disk '%s': a controller takes %d disks; give it another",
                           disk->name, SCSI_MAX_UNITS);
        }
        fill_unit(disk, u);
        queues = disk->queues > queues ? disk->queues : queues;
        units->n++;
    }
    if (rc == 0 && c->disk[i].bus != BOARD_SATA && c->disk[i].bus != BOARD_USB) {
        rc = dev_set_u64(d, "queues", queues, e);
    }
    return rc;
}

static int give_virtio(struct board_config *c, unsigned i, struct device *d, struct err *e)
{
    struct board_disk *disk = &c->disk[i];
    int rc = dev_set_str(d, "serial", serial_of(disk), e);

    if (rc == 0) {
        rc = dev_set_u64(d, "queues", disk->queues ? disk->queues : 1, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(d, "node", disk->node, e);
    }
    if (rc == 0) {
        disk->node = NULL; /* the device's now */
    }
    return rc;
}

/* What a bus cannot do is refused, never left out. */
static int check(const struct board_config *c, unsigned i, struct err *e)
{
    const struct board_disk *d = &c->disk[i];
    bool scsi = d->bus == BOARD_SCSI || d->bus == BOARD_SCSI_MMIO || d->bus == BOARD_USB;

    if (d->cdrom && !scsi && d->bus != BOARD_SATA) {
        return err_set(e, -EINVAL, "disk '%s': a CD-ROM drive needs the bus scsi, sata or usb",
                       d->name);
    }
    if (d->removable && !scsi && !d->cdrom) {
        return err_set(e, -EINVAL, "disk '%s': a removable medium needs the bus scsi or usb",
                       d->name);
    }
    if (d->hotplug && d->bus != BOARD_VIRTIO_PCI &&
        (d->bus != BOARD_NVME || d->controller != BOARD_ANY)) {
        return err_set(
            e, -EINVAL,
            "disk '%s': 'hotplug' needs the bus virtio-pci, or nvme with a controller "
            "of its own",
            d->name);
    }
    return 0;
}

int board_disk_unit(struct board_config *c, unsigned i, struct scsi_unit *out, struct err *e)
{
    int rc = check(c, i, e);

    rc = rc == 0 ? choose_place(c, kind_of(c->disk[i].bus), i, e) : rc;
    if (rc == 0) {
        *out = (struct scsi_unit){ .lun = 0 };
        fill_unit(&c->disk[i], out);
    }
    return rc;
}

int board_new_disk(struct vm *vm, struct board_config *c, unsigned i, struct device **out,
                   struct err *e)
{
    const struct kind *k = kind_of(c->disk[i].bus);
    char id[24];
    int rc = check(c, i, e);

    for (unsigned j = i; k && j < c->n_disks && rc == 0; j++) {
        rc = together(c, i, j) ? check(c, j, e) : 0;
        if (rc == 0 && together(c, i, j) && c->disk[j].unit != BOARD_ANY) {
            rc = choose_place(c, k, j, e);
        }
    }
    for (unsigned j = i; k && j < c->n_disks && rc == 0; j++) {
        if (together(c, i, j) && c->disk[j].unit == BOARD_ANY) {
            rc = choose_place(c, k, j, e);
        }
    }
    if (rc != 0) {
        return rc;
    }
    board_disk_device(c, i, id);
    rc = dev_new(vm, k ? k->cls : &virtio_blk_class, id, out, e);
    if (rc != 0) {
        return rc;
    }
    if (!k) {
        return give_virtio(c, i, *out, e);
    }
    if (k->bus == BOARD_NVME) {
        rc = dev_set_str(*out, "serial", serial_of(&c->disk[i]), e);
        return rc != 0 ? rc : give_namespaces(c, i, *out, e);
    }
    return give_units(c, i, *out, e);
}
