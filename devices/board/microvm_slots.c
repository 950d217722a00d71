/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio devices of the microvm board, in its slots in this order: disks, network cards, console, entropy, screen, keyboard and tablet,
 * channels, balloon, vsock, shared folders; the power button in the last. Main thread.
 */
#include "devices/board/disks.h"
#include "devices/board/microvm.h"
#include "devices/fs/share.h"
#include "devices/irqchip/ioapic.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

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
    rc = dev_new(b->p.vm, &virtio_mmio_class, id, &d, e);
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
    rc = mem_map(b->p.vm->root, at, 0, d->mmio[0], e);
    return rc != 0 ? rc : mem_map(b->p.vm->root, at + 0x100, 0, d->mmio[1], e);
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

    if (!board_disk_leads(&b->p.cfg, i)) {
        return 0;
    }
    int rc = board_new_disk(b->p.vm, &b->p.cfg, i, &d, e);
    return take(b, d, rc, e);
}

typedef int (*parts_new_fn)(struct board_parts *b, struct device **out, struct err *e);

static int add(struct board *b, parts_new_fn make, struct err *e)
{
    struct device *d = NULL;
    int rc = make(&b->p, &d, e);

    return take(b, d, rc, e);
}

static int add_nic(struct board *b, unsigned i, struct err *e)
{
    struct device *d = NULL;
    int rc = parts_new_net(&b->p, i, &d, e);

    return take(b, d, rc, e);
}

static int add_rng(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->p.vm, &virtio_rng_class, "rng0", &d, e);

    return take(b, d, rc, e);
}

static int add_button(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->p.vm, &virtio_input_class, "power-button", &d, e);

    rc = rc == 0 ? dev_set_str(d, "kind", "power-button", e) : rc;
    b->button = d;
    return take(b, d, rc, e);
}

/* And keyboard and tablet. */
static int add_screen(struct board *b, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < (b->p.cfg.screen.input ? 1u + BOARD_SCREEN_INPUTS : 1u) && rc == 0;
         i++) {
        struct device *d = NULL;

        rc = parts_new_screen(&b->p, i, &d, e);
        rc = take(b, d, rc, e);
    }
    return rc;
}

static int add_share(struct board *b, struct board_share *s, struct err *e)
{
    struct device *d = NULL;
    int rc = share_device_new(b->p.vm, s->id, s->tag, &s->back, &s->fd, &d, e);

    return rc == 0 ? take(b, d, 0, e) : rc;
}

/* --- all of them
 * ------------------------------------------------------------------------------------- */

int microvm_add_slots(struct board *b, struct err *e)
{
    const struct board_config *c = &b->p.cfg;
    int rc = 0;

    for (unsigned i = 0; i < c->n_disks && rc == 0; i++) {
        rc = add_disk(b, i, e);
    }
    for (unsigned i = 0; i < c->n_nics && rc == 0; i++) {
        rc = add_nic(b, i, e);
    }
    rc = rc == 0 && c->virtio_console ? add(b, parts_new_console, e) : rc;
    rc = rc == 0 && c->rng ? add_rng(b, e) : rc;
    rc = rc == 0 && c->screen.gpu != BOARD_GPU_NONE ? add_screen(b, e) : rc;
    rc = rc == 0 && c->n_serial > 0 ? add(b, parts_new_serial, e) : rc;
    rc = rc == 0 && c->balloon.on ? add(b, parts_new_balloon, e) : rc;
    rc = rc == 0 && c->vsock.cid ? add(b, parts_new_vsock, e) : rc;
    for (unsigned i = 0; i < c->n_shares && rc == 0; i++) {
        rc = add_share(b, &b->p.cfg.share[i], e);
    }
    if (rc == 0) {
        unsigned taken = b->n_slots;

        b->n_slots = MICROVM_SLOTS - 1;
        rc = add_button(b, e);
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
