/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rv-virt board may have besides disks, cards and screen: the memory balloon, sockets between guest and host, a watchdog. Main thread.
 */
#include "devices/board/rv_virt.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

static int add_balloon(struct board *b, struct err *e)
{
    const struct board_balloon *c = &b->cfg.balloon;
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_balloon_class, "balloon0", &d, e);

    if (rc == 0) {
        rc = dev_set_u64(d, "memory", b->cfg.memory, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "target", c->target, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "period", c->period, e);
    }
    if (rc == 0) {
        rc = dev_set_bool(d, "deflate_on_oom", c->deflate_on_oom, e);
    }
    if (rc == 0) {
        rc = dev_set_bool(d, "reporting", c->reporting, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(d, "watch", c->watch, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return rv_virt_add_virtio(b, d, e);
}

static int add_vsock(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &virtio_vsock_class, "vsock0", &d, e);

    if (rc == 0) {
        rc = dev_set_u64(d, "cid", b->cfg.vsock.cid, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(d, "host", b->cfg.vsock.host, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return rv_virt_add_virtio(b, d, e);
}

static int add_watchdog(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->vm, &i6300esb_class, "watchdog0", &d, e);

    if (rc == 0) {
        rc = dev_set_ptr(d, "host", b->cfg.guard, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return rv_virt_plug(b, d, e);
}

int rv_virt_add_extras(struct board *b, struct err *e)
{
    int rc = b->cfg.balloon.on ? add_balloon(b, e) : 0;

    if (rc == 0 && b->cfg.vsock.cid) {
        rc = add_vsock(b, e);
    }
    return rc == 0 && b->cfg.watchdog ? add_watchdog(b, e) : rc;
}
