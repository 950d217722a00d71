/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding of register tables. Owns nothing; called by the bus with the device's lock held.
 *
 * An access may be smaller than a register (its bytes are merged under the masks) or larger
 * (it is served register by register, low address first). What hits no register reads as
 * zero, is dropped on writes, and is traced: -d m.
 */
#include "engine/base/log.h"
#include "engine/core/device.h"

#include <inttypes.h>
#include <string.h>

#define TRACE_LETTER 'm'

static uint64_t mask_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static unsigned field_size(const struct dev_reg *r)
{
    return r->field_size ? r->field_size : r->size;
}

static void *field_at(struct device *d, const struct dev_reg *r, unsigned index)
{
    return (char *)d + r->field + (size_t)index * field_size(r);
}

static uint64_t field_get(struct device *d, const struct dev_reg *r, unsigned index)
{
    const void *p = field_at(d, r, index);
    switch (field_size(r)) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}

static void field_put(struct device *d, const struct dev_reg *r, unsigned index, uint64_t v)
{
    void *p = field_at(d, r, index);
    switch (field_size(r)) {
    case 1:
        *(uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)v;
        break;
    case 4:
        *(uint32_t *)p = (uint32_t)v;
        break;
    default:
        *(uint64_t *)p = v;
    }
}

static uint64_t reg_value(struct device *d, const struct dev_reg *r, unsigned index)
{
    return r->field == DEV_NO_FIELD ? r->reset : field_get(d, r, index);
}

/* The register that holds the byte at `offset`: which element, and which byte of it. */
static const struct dev_reg *reg_at(const struct dev_reg_block *b, uint64_t offset,
                                    unsigned *index, unsigned *byte)
{
    for (const struct dev_reg *r = b->regs; r && r->name; r++) {
        unsigned count = r->count ? r->count : 1, stride = r->stride ? r->stride : r->size;
        if (offset < r->offset || offset - r->offset >= (uint64_t)count * stride) {
            continue;
        }
        uint64_t rel = offset - r->offset;
        if (rel % stride < r->size) {
            *index = (unsigned)(rel / stride);
            *byte = (unsigned)(rel % stride);
            return r;
        }
    }
    return NULL;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct dev_port *port = opaque;
    struct device *d = port->device;
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        unsigned index, byte, n = 1;
        const struct dev_reg *r = reg_at(port->block, offset + done, &index, &byte);
        if (!r) {
            log_trace(TRACE_LETTER, "%s: read of nothing at %s+0x%" PRIx64, d->id,
                      port->block->name, offset + done);
        } else {
            n = r->size - byte < size - done ? r->size - byte : size - done;
            uint64_t v = r->read ? r->read(d, r, index) : reg_value(d, r, index);
            log_trace(TRACE_LETTER, "%s: %s[%u] -> 0x%" PRIx64, d->id, r->name, index, v);
            value |= ((v >> (byte * 8)) & mask_of(n)) << (done * 8);
        }
        done += n;
    }
    return value;
}

/* Writes the bytes of `lanes` of one register. */
static void reg_write(struct device *d, const struct dev_reg *r, unsigned index, uint64_t v,
                      uint64_t lanes)
{
    uint64_t old = reg_value(d, r, index);
    uint64_t writable = r->writable & lanes, w1c = r->w1c & lanes;
    log_trace(TRACE_LETTER, "%s: %s[%u] <- 0x%" PRIx64 "%s", d->id, r->name, index, v & lanes,
              writable | w1c ? "" : " (read-only)");
    if (!(writable | w1c)) {
        return;
    }
    uint64_t value = v & (writable | w1c);
    if (r->field != DEV_NO_FIELD) {
        field_put(d, r, index, ((old & ~writable) | (v & writable)) & ~(v & w1c));
    } else if (r->read && lanes != mask_of(r->size)) {
        /* what it holds only its hook knows */
        value |= r->read(d, r, index) & r->writable & ~lanes;
    }
    if (r->written) {
        r->written(d, r, index, old, value);
    }
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct dev_port *port = opaque;
    struct device *d = port->device;
    for (unsigned done = 0; done < size;) {
        unsigned index, byte, n = 1;
        const struct dev_reg *r = reg_at(port->block, offset + done, &index, &byte);
        if (!r) {
            log_trace(TRACE_LETTER, "%s: write of nothing at %s+0x%" PRIx64, d->id,
                      port->block->name, offset + done);
        } else {
            n = r->size - byte < size - done ? r->size - byte : size - done;
            uint64_t part = (value >> (done * 8)) & mask_of(n);
            reg_write(d, r, index, part << (byte * 8), mask_of(n) << (byte * 8));
        }
        done += n;
    }
}

const struct mem_io_ops dev_reg_ops = { .read = port_read, .write = port_write };

void dev_regs_reset(struct device *d, const struct dev_reg_block *b)
{
    for (const struct dev_reg *r = b->regs; r && r->name; r++) {
        for (unsigned i = 0; r->field != DEV_NO_FIELD && i < (r->count ? r->count : 1u); i++) {
            field_put(d, r, i, r->reset);
        }
    }
}
