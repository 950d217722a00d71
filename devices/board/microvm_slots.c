/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio devices of the microvm board, in its slots in this order: disks, network cards, console, entropy, screen, keyboard and tablet,
 * channels, balloon, vsock, shared folders; the power button in the last. Main thread.
 */
#include "devices/board/disks.h"
#include "devices/board/microvm.h"
#include "devices/char/virtio_serial.h"
#include "devices/fs/share.h"
#include "devices/irqchip/ioapic.h"
#include "devices/net/virtio_net.h"
#include "devices/registry.h"
#include "devices/virtio/vhost_user.h"
#include "engine/base/fd.h"
#include "engine/core/vm.h"
#include "network/port.h"
#include "storage/block.h"

#include <errno.h>
#include <stdio.h>

/* A realized device behind a transport in a slot. */
static int place(struct board *b, unsigned slot, struct device *behind, struct err *e)
{
    uint64_t at = MICROVM_VIRTIO + (uint64_t)slot * MICROVM_VIRTIO_STEP;
    struct device *d = NULL;
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "virtio-mmio.%u", slot);
    rc = dev_new(b->vm, &virtio_mmio_class, id, &d, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(d, "device", behind, e);
    rc = rc == 0 ? dev_realize(d, e) : rc;
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    d->irq[0] = ioapic_input(b->ioapic, MICROVM_SLOT_PIN + slot % 8, slot / 8);
    rc = mem_map(b->vm->root, at, 0, d->mmio[0], e);
    return rc != 0 ? rc : mem_map(b->vm->root, at + 0x100, 0, d->mmio[1], e);
}

/* Takes a device whose properties are set (rc 0), and realizes it; frees it when something has failed. */
static int take(struct board *b, struct device *take_d, int rc, struct err *e)
{
    rc = rc == 0 ? dev_realize(take_d, e) : rc;
    if (rc != 0) {
        dev_free(take_d);
        return rc;
    }
    return place(b, b->n_slots++, take_d, e);
}

/* --- devices, one by one
 * ----------------------------------------------------------------------------- */

static int add_disk(struct board *b, unsigned i, struct err *e)
{
    struct device *d = NULL;

    if (!board_disk_leads(&b->cfg, i)) {
        return 0;
    }
    int rc = board_new_disk(b->vm, &b->cfg, i, &d, e);
    return take(b, d, rc, e);
}

static int add_nic(struct board *b, unsigned i, struct err *e)
{
    struct board_nic *n = &b->cfg.nic[i];
    struct device *d = NULL;
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "nic%u", i);
    rc = dev_new(b->vm, &virtio_net_class, id, &d, e);
    rc = rc == 0 ? dev_set_str(d, "mac", n->mac, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "mtu", n->mtu, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "queues", n->queues, e) : rc;
    rc = rc == 0 ? dev_set_ptr(d, "port", n->port, e) : rc;
    if (rc == 0) {
        n->port = NULL; /* the device's now */
        b->nic[i] = d;
    }
    return take(b, d, rc, e);
}

static int add_console(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_console_class, "console0", &d, e);

    rc = rc == 0 ? dev_set_ptr(d, "chr", b->cfg.console, e) : rc;
    return take(b, d, rc, e);
}

static int add_rng(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_rng_class, "rng0", &d, e);

    return take(b, d, rc, e);
}

static int add_input(struct board *b, const char *kind, struct device **out, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_input_class, kind, &d, e);

    rc = rc == 0 ? dev_set_str(d, "kind", kind, e) : rc;
    *out = d;
    return take(b, d, rc, e);
}

static int add_screen(struct board *b, struct err *e)
{
    const struct board_screen *s = &b->cfg.screen;
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_gpu_class, "gpu0", &d, e);

    rc = rc == 0 ? dev_set_ptr(d, "display", s->display, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "width", s->width, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "height", s->height, e) : rc;
    rc = take(b, d, rc, e);
    if (rc == 0 && s->input) {
        rc = add_input(b, "keyboard", &b->input[BOARD_KEYBOARD], e);
        rc = rc == 0 ? add_input(b, "tablet", &b->input[BOARD_TABLET], e) : rc;
    }
    return rc;
}

static int add_channels(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_serial_class, "channels0", &d, e);

    for (unsigned i = 0; i < b->cfg.n_serial && rc == 0; i++) {
        const struct board_serial *s = &b->cfg.serial[i];

        rc = virtio_serial_add(d, s->name, s->console, s->chr, e);
    }
    b->serial = rc == 0 ? d : NULL;
    return take(b, d, rc, e);
}

static int add_balloon(struct board *b, struct err *e)
{
    const struct board_balloon *c = &b->cfg.balloon;
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_balloon_class, "balloon0", &d, e);

    rc = rc == 0 ? dev_set_u64(d, "memory", b->cfg.memory, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "target", c->target, e) : rc;
    rc = rc == 0 ? dev_set_u64(d, "period", c->period, e) : rc;
    rc = rc == 0 ? dev_set_bool(d, "deflate_on_oom", c->deflate_on_oom, e) : rc;
    rc = rc == 0 ? dev_set_bool(d, "reporting", c->reporting, e) : rc;
    rc = rc == 0 ? dev_set_ptr(d, "watch", c->watch, e) : rc;
    return take(b, d, rc, e);
}

static int add_vsock(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_vsock_class, "vsock0", &d, e);

    rc = rc == 0 ? dev_set_u64(d, "cid", b->cfg.vsock.cid, e) : rc;
    rc = rc == 0 ? dev_set_ptr(d, "host", b->cfg.vsock.host, e) : rc;
    return take(b, d, rc, e);
}

static int add_share(struct board *b, struct board_share *s, struct err *e)
{
    struct device *d = NULL;
    int rc = share_device_new(b->vm, s->id, s->tag, &s->back, &s->fd, &d, e);

    return rc == 0 ? take(b, d, 0, e) : rc;
}

/* --- all of them
 * ------------------------------------------------------------------------------------- */

int microvm_add_slots(struct board *b, struct err *e)
{
    const struct board_config *c = &b->cfg;
    int rc = 0;

    for (unsigned i = 0; i < c->n_disks && rc == 0; i++) {
        rc = add_disk(b, i, e);
    }
    for (unsigned i = 0; i < c->n_nics && rc == 0; i++) {
        rc = add_nic(b, i, e);
    }
    rc = rc == 0 && c->virtio_console ? add_console(b, e) : rc;
    rc = rc == 0 && c->rng ? add_rng(b, e) : rc;
    rc = rc == 0 && c->screen.gpu != BOARD_GPU_NONE ? add_screen(b, e) : rc;
    rc = rc == 0 && c->n_serial > 0 ? add_channels(b, e) : rc;
    rc = rc == 0 && c->balloon.on ? add_balloon(b, e) : rc;
    rc = rc == 0 && c->vsock.cid ? add_vsock(b, e) : rc;
    for (unsigned i = 0; i < c->n_shares && rc == 0; i++) {
        rc = add_share(b, &b->cfg.share[i], e);
    }
    if (rc == 0) {
        unsigned taken = b->n_slots;

        b->n_slots = MICROVM_SLOTS - 1;
        rc = add_input(b, "power-button", &b->button, e);
        b->n_slots = taken;
    }
    return rc;
}

int microvm_check_slots(const struct board_config *c, struct err *e)
{
    bool screen = c->screen.gpu != BOARD_GPU_NONE;
    unsigned n = c->n_nics + c->virtio_console + c->rng + screen * (c->screen.input ? 3u : 1u) +
                 (c->n_serial > 0) + c->balloon.on + (c->vsock.cid != 0) + c->n_shares;

    for (unsigned i = 0; i < c->n_disks; i++) {
        if (c->disk[i].bus != BOARD_VIRTIO_MMIO && c->disk[i].bus != BOARD_SCSI_MMIO) {
            return err_set(
                e, -ENOTSUP,
                "disk '%s': machine microvm has the buses virtio-mmio and scsi-mmio alone",
                c->disk[i].name);
        }
        n += board_disk_leads(c, i);
    }
    for (unsigned i = 0; i < c->n_nics; i++) {
        if (c->nic[i].bus != BOARD_NIC_VIRTIO_MMIO) {
            return err_set(e, -ENOTSUP,
                           "network card %u: machine microvm has the bus virtio-mmio alone", i);
        }
    }
    if (screen && c->screen.gpu != BOARD_GPU_VIRTIO_MMIO) {
        return err_set(e, -ENOTSUP,
                       "display: machine microvm has the device virtio-mmio alone");
    }
    return n < MICROVM_SLOTS
               ? 0
               : err_set(e, -ENOSPC, "%u virtio devices: machine microvm has %d slots for them",
                         n, MICROVM_SLOTS - 1);
}

void microvm_close(struct board *b)
{
    for (unsigned i = 0; i < b->cfg.n_disks; i++) {
        blk_close(b->cfg.disk[i].node);
    }
    for (unsigned i = 0; i < BOARD_MAX_FLASH; i++) {
        blk_close(b->cfg.flash[i]);
    }
    for (unsigned i = 0; i < b->cfg.n_nics; i++) {
        net_close(b->cfg.nic[i].port);
    }
    for (unsigned i = 0; i < b->cfg.n_shares; i++) {
        vhost_user_free(b->cfg.share[i].back);
        fd_autoclose(&b->cfg.share[i].fd);
    }
}
