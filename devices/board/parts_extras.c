/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a board may have besides disks, cards and screen: the memory balloon, sockets between guest and host, a watchdog,
 * a sound card, memory that comes and goes. Main thread.
 */
#include "devices/board/parts.h"
#include "devices/misc/virtio_mem.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

int parts_new_balloon(struct board_parts *b, struct device **out, struct err *e)
{
    const struct board_balloon *c = &b->cfg.balloon;
    int rc = dev_new(b->vm, &virtio_balloon_class, "balloon0", out, e);
    struct device *d = *out;

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
    return rc;
}

int parts_new_vsock(struct board_parts *b, struct device **out, struct err *e)
{
    int rc = dev_new(b->vm, &virtio_vsock_class, "vsock0", out, e);
    struct device *d = *out;

    if (rc == 0) {
        rc = dev_set_u64(d, "cid", b->cfg.vsock.cid, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(d, "host", b->cfg.vsock.host, e);
    }
    return rc;
}

typedef int (*parts_new_fn)(struct board_parts *b, struct device **out, struct err *e);

static int add(struct board_parts *b, parts_new_fn make, struct err *e)
{
    struct device *d = NULL;
    int rc = make(b, &d, e);

    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    return parts_add_virtio(b, d, e);
}

static int new_sound(struct board_parts *b, struct device **out, struct err *e)
{
    int rc = dev_new(b->vm, &virtio_snd_class, "sound0", out, e);

    return rc == 0 ? dev_set_ptr(*out, "host", b->cfg.audio, e) : rc;
}

static int add_watchdog(struct board_parts *b, struct err *e)
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
    return parts_plug(b, d, e);
}

int parts_add_extras(struct board_parts *b, struct err *e)
{
    int rc = b->cfg.balloon.on ? add(b, parts_new_balloon, e) : 0;

    if (rc == 0 && b->cfg.vsock.cid) {
        rc = add(b, parts_new_vsock, e);
    }
    if (rc == 0 && b->cfg.watchdog) {
        rc = add_watchdog(b, e);
    }
    return rc == 0 && b->cfg.sound ? add(b, new_sound, e) : rc;
}

uint64_t parts_memory_at(const struct board_parts *b, unsigned i)
{
    uint64_t at = b->memory_end;

    for (unsigned k = 0; k < b->cfg.n_memory_devices; k++) {
        at = (at + VIRTIO_MEM_ALIGN - 1) & ~(VIRTIO_MEM_ALIGN - 1);
        if (k == i) {
            break;
        }
        at += b->cfg.memory_device[k].size;
    }
    return at;
}

/* Devices lie at multiples of a large number: as many gaps may be between those that come. */
bool parts_memory_room(struct board *board, uint64_t *at, uint64_t *size)
{
    const struct board_parts *b = (struct board_parts *)board;
    uint64_t end = parts_memory_at(b, b->cfg.n_memory_devices);

    *at = (end + VIRTIO_MEM_ALIGN - 1) & ~(VIRTIO_MEM_ALIGN - 1);
    *size = b->cfg.memory_room + (BOARD_MAX_MEMORY - 1) * VIRTIO_MEM_ALIGN;
    return b->cfg.memory_room > 0;
}

uint64_t parts_memory_end(const struct board_parts *b)
{
    uint64_t at, size;

    return parts_memory_room((struct board *)b, &at, &size)
               ? at + size
               : parts_memory_at(b, b->cfg.n_memory_devices);
}

static int set_memory(struct board_parts *b, unsigned i, struct device *d, struct err *e)
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
        rc = dev_set_u64(d, "memaddr", parts_memory_at(b, i), e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "max-size", c->size, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(d, "block-size", c->block, e);
    }
    return rc == 0 ? dev_set_u64(d, "requested-size", c->requested, e) : rc;
}

int parts_add_memory(struct board_parts *b, struct err *e)
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
        rc = parts_add_virtio(b, d, e);
    }
    return rc;
}
