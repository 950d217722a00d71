/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed virtqueues (virtio 1.2 §2.8) with indirect descriptors and event index. All with the
 * transport's lock held.
 *
 * One ring of descriptors serves both directions. The flags of a descriptor say whose it is,
 * relative to a wrap counter that each side keeps; they are read first and written last, everything
 * else of a descriptor is copied once.
 */
#include "devices/virtio/queue.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <string.h>

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};
struct packed_event {
    uint16_t off_wrap, flags;
};

struct packed {
    struct virtq_part desc, driver, device;
};

static struct packed_desc *desc_at(struct virtio *v, const struct packed *r, unsigned i)
{
    return virtq_at(v, &r->desc, i * sizeof(struct packed_desc), sizeof(struct packed_desc));
}

static struct packed_event *event_at(struct virtio *v, const struct virtq_part *p)
{
    return virtq_at(v, p, 0, sizeof(struct packed_event));
}

static uint16_t load16(const uint16_t *p)
{
    return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
}

static bool ring_map(struct virtio *v, const struct virtq *vq, struct packed *r)
{
    if (!vq->ready || !virtio_working(v)) {
        return false;
    }
    if (!virtq_part_map(v, &r->desc, vq->desc, vq->num * sizeof(struct packed_desc), true) ||
        !virtq_part_map(v, &r->driver, vq->avail, sizeof(struct packed_event), false) ||
        !virtq_part_map(v, &r->device, vq->used, sizeof(struct packed_event), true)) {
        virtio_broken(v, "a virtqueue is not in RAM");
        return false;
    }
    return true;
}

static bool available(struct virtio *v, const struct virtq *vq, const struct packed *r)
{
    uint16_t flags = load16(&desc_at(v, r, vq->last_avail)->flags);

    return (flags & AVAIL ? true : false) == vq->avail_wrap &&
           (flags & USED ? true : false) != vq->avail_wrap;
}

/* All descriptors of an indirect table, in order (§2.8.7). */
static bool walk_table(struct virtio *v, struct virtq_walk *w, const struct packed_desc *d)
{
    uint32_t len = le32toh(d->len), n = len / sizeof(*d);
    struct virtq_part table;

    if (!(v->features & VIRTIO_F_INDIRECT_DESC) || w->n_out + w->n_in > 0 ||
        (le16toh(d->flags) & NEXT) || n == 0 || len % sizeof(*d) || n > VIRTIO_MAX_CHAIN) {
        virtio_broken(v, "an indirect descriptor is not valid");
        return false;
    }
    if (!virtq_part_map(v, &table, le64toh(d->addr), len, false)) {
        virtio_broken(v, "an indirect table is not in RAM");
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct packed_desc one;

        memcpy(&one, virtq_at(v, &table, i * sizeof(one), sizeof(one)), sizeof(one));
        if (!virtq_walk_add(v, w, le64toh(one.addr), le32toh(one.len),
                            le16toh(one.flags) & WRITE)) {
            return false;
        }
    }
    return true;
}

/* Takes descriptors from the ring up to one without NEXT; *id is that one's. 0: broken. */
static unsigned walk_ring(struct virtio *v, const struct virtq *vq, const struct packed *r,
                          struct virtq_walk *w, uint16_t *id)
{
    unsigned at = vq->last_avail,
             limit = vq->num < VIRTIO_MAX_CHAIN ? vq->num : VIRTIO_MAX_CHAIN;

    for (unsigned n = 1; n <= limit; n++) {
        struct packed_desc d;
        uint16_t flags;

        memcpy(&d, desc_at(v, r, at), sizeof(d));
        flags = le16toh(d.flags);
        *id = le16toh(d.id);
        if (flags & INDIRECT
                ? !walk_table(v, w, &d)
                : !virtq_walk_add(v, w, le64toh(d.addr), le32toh(d.len), flags & WRITE)) {
            return 0;
        }
        if (!(flags & NEXT)) {
            return n;
        }
        at = at + 1 < vq->num ? at + 1 : 0;
    }
    virtio_broken(v, "a descriptor chain is longer than its ring");
    return 0;
}

struct virtio_elem *virtq_packed_pop(struct virtio *v, struct virtq *vq)
{
    struct virtq_walk w = { .entries = vq->num };
    struct virtio_elem *el;
    struct packed r;
    uint16_t id = 0;
    unsigned n;

    if (!ring_map(v, vq, &r) || !available(v, vq, &r)) {
        return NULL;
    }
    if (vq->in_flight >= vq->num) {
        virtio_broken(v, "more requests are in flight than the queue has entries");
        return NULL;
    }
    n = walk_ring(v, vq, &r, &w, &id);
    if (n == 0) {
        return NULL;
    }
    el = virtq_elem_new(v, vq, &w, id);
    el->descs = (uint16_t)n;
    vq->in_flight++;
    vq->last_avail += (uint16_t)n;
    if (vq->last_avail >= vq->num) {
        vq->last_avail -= (uint16_t)vq->num;
        vq->avail_wrap = !vq->avail_wrap;
    }
    return el;
}

void virtq_packed_push(struct virtio *v, struct virtq *vq, struct virtio_elem *const *el,
                       const uint64_t *written, unsigned n)
{
    uint64_t first_at = vq->used_idx * sizeof(struct packed_desc);
    struct packed_desc *first;
    struct packed r;
    uint16_t first_flags = 0;

    if (!ring_map(v, vq, &r)) {
        return;
    }
    first = desc_at(v, &r, vq->used_idx);
    for (unsigned i = 0; i < n; i++) {
        struct packed_desc *d = desc_at(v, &r, vq->used_idx);
        uint16_t flags = (uint16_t)((vq->used_wrap ? AVAIL | USED : 0) |
                                    (written[i] ? WRITE : 0));

        d->id = htole16(el[i]->head);
        d->len = htole32(written[i] > UINT32_MAX ? UINT32_MAX : (uint32_t)written[i]);
        if (i == 0) {
            first_flags = flags; /* until these are there the driver looks no further */
        } else {
            store16(&d->flags, flags);
            virtq_part_written(v, &r.desc, vq->used_idx * sizeof(*d), sizeof(*d));
        }
        vq->used_idx += el[i]->descs;
        if (vq->used_idx >= vq->num) {
            vq->used_idx -= (uint16_t)vq->num;
            vq->used_wrap = !vq->used_wrap;
            vq->signalled_valid = false;
        }
    }
    store16(&first->flags, first_flags);
    virtq_part_written(v, &r.desc, first_at, sizeof(*first));
}

void virtq_packed_unpop(struct virtq *vq, const struct virtio_elem *el)
{
    if (vq->last_avail < el->descs) {
        vq->last_avail += (uint16_t)vq->num;
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->last_avail -= el->descs;
}

bool virtq_packed_wants(struct virtio *v, struct virtq *vq)
{
    uint16_t old = vq->signalled, fresh = vq->used_idx, flags, off_wrap, off;
    bool valid = vq->signalled_valid;
    struct packed r;

    if (!ring_map(v, vq, &r)) {
        return false;
    }
    atomic_thread_fence(memory_order_seq_cst); /* used flags before the driver's wish */
    vq->signalled = fresh;
    vq->signalled_valid = true;
    flags = load16(&event_at(v, &r.driver)->flags) & 3;
    if (flags != EVENT_DESC || !(v->features & VIRTIO_F_EVENT_IDX)) {
        return flags != EVENT_DISABLE;
    }
    off_wrap = load16(&event_at(v, &r.driver)->off_wrap);
    off = off_wrap & 0x7fff;
    if ((off_wrap >> 15 ? true : false) != vq->used_wrap) {
        off -= (uint16_t)vq->num;
    }
    return !valid || (uint16_t)(fresh - off - 1) < (uint16_t)(fresh - old);
}

bool virtq_packed_rearm(struct virtio *v, struct virtq *vq)
{
    struct packed r;

    if (!ring_map(v, vq, &r)) {
        return false;
    }
    if (v->features & VIRTIO_F_EVENT_IDX) {
        struct packed_event *event = event_at(v, &r.device);

        store16(&event->off_wrap, (uint16_t)(vq->last_avail | (vq->avail_wrap ? 1u << 15 : 0)));
        store16(&event->flags, EVENT_DESC);
        virtq_part_written(v, &r.device, 0, sizeof(struct packed_event));
    }
    atomic_thread_fence(memory_order_seq_cst); /* our wish before the driver's flags */
    return available(v, vq, &r);
}
