/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What boards have in common (parts.h): making devices, giving back what they did not take. Main thread.
 */
#include "devices/board/parts.h"

#include "devices/char/virtio_serial.h"
#include "devices/registry.h"
#include "devices/virtio/vhost_user.h"
#include "engine/base/fd.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"
#include "network/port.h"
#include "storage/block.h"

#include <stdio.h>

int parts_finish(struct device *d, int rc, struct err *e)
{
    rc = rc == 0 ? dev_realize(d, e) : rc;
    if (rc != 0) {
        dev_free(d);
    }
    return rc;
}

int parts_plain(struct board_parts *b, const struct device_class *cls, const char *id,
                struct device **out, struct err *e)
{
    int rc = dev_new(b->vm, cls, id, out, e);

    return rc != 0 ? rc : parts_finish(*out, 0, e);
}

int parts_new_flash(struct board_parts *b, unsigned i, struct device **out, struct err *e)
{
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "flash%u", i);
    rc = dev_new(b->vm, &cfi_flash_class, id, out, e);
    if (rc == 0) {
        rc = dev_set_ptr(*out, "node", b->cfg.flash[i], e);
        b->cfg.flash[i] = NULL; /* the device's now */
    }
    return rc;
}

int parts_new_serial(struct board_parts *b, struct device **out, struct err *e)
{
    int rc = dev_new(b->vm, &virtio_serial_class, "channels0", out, e);

    for (unsigned i = 0; i < b->cfg.n_serial && rc == 0; i++) {
        const struct board_serial *s = &b->cfg.serial[i];

        rc = virtio_serial_add(*out, s->name, s->console, s->chr, e);
    }
    b->serial = rc == 0 ? *out : NULL;
    return rc;
}

int parts_new_console(struct board_parts *b, struct device **out, struct err *e)
{
    int rc = dev_new(b->vm, &virtio_console_class, "console0", out, e);

    return rc == 0 ? dev_set_ptr(*out, "chr", b->cfg.console, e) : rc;
}

void parts_close(struct board_parts *b)
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

void parts_done(struct board_parts *b)
{
    for (unsigned i = 0; i < BOARD_MAX_MEMORY; i++) {
        mem_free(b->more[i]);
    }
}

bool parts_uuid(const struct board_parts *b, uint8_t out[16])
{
    const char *p = b->vm->uuid;

    if (!uuid_ok(p)) {
        return false;
    }
    for (unsigned i = 0; i < 16; i++, p += 2) {
        unsigned v;

        p += *p == '-';
        if (sscanf(p, "%2x", &v) != 1) {
            return false;
        }
        out[i] = (uint8_t)v;
    }
    return true;
}

/* --- of struct board_class
 * --------------------------------------------------------------------------- */

static struct board_parts *parts_of(struct board *b)
{
    return (struct board_parts *)b;
}

struct device *parts_nic(struct board *b, unsigned i)
{
    return i < parts_of(b)->cfg.n_nics ? parts_of(b)->nic[i] : NULL;
}

struct device *parts_port(struct board *b, unsigned i)
{
    return i < BOARD_MAX_PORTS ? parts_of(b)->port[i] : NULL;
}

struct device *parts_serial(struct board *b)
{
    return parts_of(b)->serial;
}

struct device *parts_input(struct board *b, enum board_input kind)
{
    return parts_of(b)->input[kind];
}
