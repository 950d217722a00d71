/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rv-virt board may have besides disks, cards and screen: the memory balloon, sockets between guest and host, a watchdog,
 * memory that comes and goes. Main thread.
 */
#include "devices/board/rv_virt.h"
#include "devices/misc/virtio_mem.h"
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

uint64_t rv_virt_memory_at(const struct board *b, unsigned i)
{
    uint64_t at = RV_RAM + b->cfg.memory;

    for (unsigned k = 0; k < b->cfg.n_memory_devices; k++) {
        at = (at + VIRTIO_MEM_ALIGN - 1) & ~(VIRTIO_MEM_ALIGN - 1);
        if (k == i) {
            break;
        }
        at += b->cfg.memory_device[k].size;
    }
    return at;
}

static int set_memory(struct board *b, unsigned i, struct device *d, struct err *e)
{
    const struct board_memory *c = &b->cfg.memory_device[i];
    int rc = mem_new_ram(c->id, c->size, &b->more[i], e);

    if (rc == 0) {
        rc = dev_set_ptr(d, "ram", b->more[i], e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(d, "watch", c->watch, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "memaddr", rv_virt_memory_at(b, i), e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "max-size", c->size, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "block-size", c->block, e);
    }
    return rc == 0 ? dev_set_u64(d, "requested-size", c->requested, e) : rc;
}

int rv_virt_add_memory(struct board *b, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < b->cfg.n_memory_devices && rc == 0; i++) {
        struct device *d = NULL;

        rc = dev_new(b->vm, &virtio_mem_class, b->cfg.memory_device[i].id, &d, e);
        if (rc == 0) {
            rc = set_memory(b, i, d, e);
        }
        if (rc != 0) {
            dev_free(d);
            return rc;
        }
        rc = rv_virt_add_virtio(b, d, e);
    }
    return rc;
}
