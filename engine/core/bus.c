/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MMIO dispatch. Owns nothing; any thread. An access is cut into naturally aligned pieces of
 * a size that the device takes, and the device's lock is held over all of them, so that no
 * other thread sees half an access.
 */
#include "engine/core/bus.h"
#include "engine/core/vcpu.h"

#include <string.h>

void bus_lock_init(struct bus_lock *l)
{
    pthread_mutex_init(&l->mutex, NULL);
}

void bus_lock_done(struct bus_lock *l)
{
    pthread_mutex_destroy(&l->mutex);
}

void bus_lock(struct bus_lock *l)
{
    pthread_mutex_lock(&l->mutex);
}

void bus_unlock(struct bus_lock *l)
{
    pthread_mutex_unlock(&l->mutex);
}

static uint64_t mask_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

/* The next piece of an access at `offset` with `left` bytes to go: `unit` bytes at `at`, of
 * which `n` bytes from `skip` on belong to the access. */
struct piece {
    uint64_t at;
    unsigned unit, skip, n;
};

static struct piece next_piece(const struct mem_io_ops *ops, uint64_t offset, unsigned left)
{
    unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 8;
    struct piece p = { .unit = max };
    while (p.unit > min && (p.unit > left || (offset & (p.unit - 1)))) {
        p.unit /= 2;
    }
    p.skip = offset & (p.unit - 1);
    p.at = offset - p.skip;
    p.n = p.unit - p.skip < left ? p.unit - p.skip : left;
    return p;
}

static bool inside(const struct mem_range *r, uint64_t gpa, unsigned size)
{
    return gpa >= r->base && gpa - r->base < r->size && size <= r->size - (gpa - r->base);
}

static enum bus_result io_read(const struct mem_range *r, uint64_t offset, unsigned size,
                               uint64_t *value)
{
    uint64_t end = mem_region_size(r->region), v = 0;
    for (unsigned done = 0; done < size;) {
        struct piece p = next_piece(r->ops, offset + done, size - done);
        if (p.at + p.unit > end) {
            return BUS_NONE;
        }
        uint64_t part = r->ops->read ? r->ops->read(r->opaque, p.at, p.unit) : 0;
        v |= ((part >> (p.skip * 8)) & mask_of(p.n)) << (done * 8);
        done += p.n;
    }
    *value = v;
    return BUS_OK;
}

static enum bus_result io_write(const struct mem_range *r, uint64_t offset, unsigned size,
                                uint64_t value)
{
    uint64_t end = mem_region_size(r->region);
    for (unsigned done = 0; done < size;) {
        struct piece p = next_piece(r->ops, offset + done, size - done);
        if (p.at + p.unit > end) {
            return BUS_NONE;
        }
        if (r->ops->write) {
            uint64_t part = (value >> (done * 8)) & mask_of(p.n);
            r->ops->write(r->opaque, p.at, part << (p.skip * 8), p.unit);
        }
        done += p.n;
    }
    return BUS_OK;
}

static void enter(const struct mem_range *r)
{
    vcpu_device_begin();
    if (r->lock) {
        bus_lock(r->lock);
    }
}

static void leave(const struct mem_range *r)
{
    if (r->lock) {
        bus_unlock(r->lock);
    }
    vcpu_device_end();
}

enum bus_result bus_read(const struct mem_range *r, uint64_t gpa, unsigned size,
                         uint64_t *value)
{
    if (!inside(r, gpa, size)) {
        return BUS_NONE;
    }
    if (r->kind != MEM_IO) {
        uint8_t bytes[8] = { 0 };
        memcpy(bytes, r->host + (gpa - r->base), size);
        uint64_t v = 0;
        for (unsigned i = 0; i < size; i++) {
            v |= (uint64_t)bytes[i] << (i * 8);
        }
        *value = v;
        return BUS_OK;
    }
    enter(r);
    enum bus_result ret = io_read(r, r->offset + (gpa - r->base), size, value);
    leave(r);
    return ret;
}

enum bus_result bus_write(struct mem_space *s, const struct mem_range *r, uint64_t gpa,
                          unsigned size, uint64_t value)
{
    if (!inside(r, gpa, size)) {
        return BUS_NONE;
    }
    if (r->kind == MEM_ROM) {
        return BUS_DENIED;
    }
    if (r->kind == MEM_RAM) {
        uint8_t bytes[8];
        for (unsigned i = 0; i < size; i++) {
            bytes[i] = (uint8_t)(value >> (i * 8));
        }
        memcpy(r->host + (gpa - r->base), bytes, size);
        mem_written(s, gpa, size);
        return BUS_OK;
    }
    enter(r);
    enum bus_result ret = io_write(r, r->offset + (gpa - r->base), size, value);
    leave(r);
    return ret;
}

uint32_t bus_port_read(const struct mem_space *ports, uint16_t port, unsigned size)
{
    const struct mem_range *r = mem_find(ports, port);
    uint64_t v = 0;

    if (!r || r->kind != MEM_IO || bus_read(r, port, size, &v) != BUS_OK) {
        return (uint32_t)mask_of(size);
    }
    return (uint32_t)v;
}

void bus_port_write(struct mem_space *ports, uint16_t port, unsigned size, uint32_t value)
{
    const struct mem_range *r = mem_find(ports, port);

    if (r && r->kind == MEM_IO) {
        (void)bus_write(ports, r, port, size, value);
    }
}
