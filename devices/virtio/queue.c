/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (virtio 1.2 §2.7) with indirect descriptors and event index, and what they
 * share with packed ones (packed.c). All with the transport's lock held.
 *
 * The rings are shared with running vCPUs: indices are read and written once with acquire and
 * release order, and every descriptor is copied before it is checked.
 */
#include "devices/virtio/queue.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <string.h>

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1 };

struct vring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct vring_used_elem {
    uint32_t id, len;
};
/* Both rings: flags and an index of 16 bits each, the entries (16 bits each in the available ring), the other's event. */
enum { RING_FLAGS = 0, RING_INDEX = 2, RING = 4 };

struct vring {
    struct virtq_part desc, avail, used;
};

static uint64_t avail_entry(const struct virtq *vq, uint32_t index)
{
    return RING + (index % vq->num) * sizeof(uint16_t);
}

static uint64_t used_event_at(const struct virtq *vq)
{
    return RING + vq->num * sizeof(uint16_t);
}

static uint64_t avail_event_at(const struct virtq *vq)
{
    return RING + vq->num * sizeof(struct vring_used_elem);
}

static uint64_t used_bytes(const struct virtq *vq)
{
    return avail_event_at(vq) + sizeof(uint16_t);
}

/* --- parts of queues
 * ------------------------------------------------------------------------- */

bool virtq_part_map(struct virtio *v, struct virtq_part *p, uint64_t at, uint64_t n, bool write)
{
    uint64_t gpa, part;

    p->at = at;
    p->write = write;
    p->flat = dma_map(&v->dev, at, n, write, &p->gpa);
    for (uint64_t done = 0; !p->flat && v->dev.dma && done < n; done += part) {
        part = n - done;
        if (at > UINT64_MAX - done || !dma_piece(&v->dev, at + done, &part, write, &gpa)) {
            return false;
        }
    }
    return p->flat || v->dev.dma;
}

void *virtq_part_at(struct virtio *v, const struct virtq_part *p, uint64_t offset, size_t n)
{
    uint64_t gpa;
    void *host = dma_map(&v->dev, p->at + offset, n, p->write, &gpa);

    if (!host) {
        virtio_broken(v, "a part of a virtqueue was taken out of its reach");
        memset(v->nowhere, 0, sizeof(v->nowhere));
        return v->nowhere;
    }
    return host;
}

void virtq_part_written(struct virtio *v, const struct virtq_part *p, uint64_t offset,
                        uint64_t n)
{
    uint64_t gpa, part;

    if (p->flat) {
        mem_written(v->dev.vm->mem, p->gpa + offset, n);
        return;
    }
    for (uint64_t done = 0; done < n; done += part) {
        part = n - done;
        if (!dma_piece(&v->dev, p->at + offset + done, &part, true, &gpa)) {
            return;
        }
        mem_written(v->dev.vm->mem, gpa, part);
    }
}

/* --- split rings
 * ----------------------------------------------------------------------------- */

/* Finds the three parts in guest RAM; a queue that is not there breaks the device. */
static bool vring_map(struct virtio *v, const struct virtq *vq, struct vring *r)
{
    if (!vq->ready || !virtio_working(v)) {
        return false;
    }
    if (!virtq_part_map(v, &r->desc, vq->desc, vq->num * sizeof(struct vring_desc), false) ||
        !virtq_part_map(v, &r->avail, vq->avail, used_event_at(vq) + sizeof(uint16_t), false) ||
        !virtq_part_map(v, &r->used, vq->used, used_bytes(vq), true)) {
        virtio_broken(v, "a virtqueue is not in RAM");
        return false;
    }
    return true;
}

static uint16_t load16(const uint16_t *p)
{
    return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
}

static bool has_event_idx(const struct virtio *v)
{
    return v->features & VIRTIO_F_EVENT_IDX;
}

static uint16_t avail_load(struct virtio *v, const struct vring *r, uint64_t offset)
{
    return load16(virtq_at(v, &r->avail, offset, sizeof(uint16_t)));
}

static void used_store(struct virtio *v, const struct vring *r, uint64_t offset, uint16_t value)
{
    store16(virtq_at(v, &r->used, offset, sizeof(value)), value);
}

static bool walk_indirect(struct virtio *v, struct virtq_walk *w, const struct vring_desc *d)
{
    uint32_t len = le32toh(d->len);

    if (!(v->features & VIRTIO_F_INDIRECT_DESC) || w->indirect || w->n_out + w->n_in > 0 ||
        (le16toh(d->flags) & DESC_NEXT) || len == 0 || len % sizeof(*d) ||
        len / sizeof(*d) > VIRTIO_MAX_CHAIN) {
        virtio_broken(v, "an indirect descriptor is not valid");
        return false;
    }
    if (!virtq_part_map(v, &w->table, le64toh(d->addr), len, false)) {
        virtio_broken(v, "an indirect table is not in RAM");
        return false;
    }
    w->entries = len / sizeof(*d);
    w->indirect = true;
    return true;
}

static bool add_piece(struct virtio *v, struct virtq_walk *w, uint64_t at, uint64_t *len,
                      bool in)
{
    struct virtio_sg *sg = &v->walk[w->n_out + w->n_in];

    if (w->n_out + w->n_in == VIRTIO_MAX_CHAIN) {
        virtio_broken(v, "a request is in too many pieces");
        return false;
    }
    sg->host = dma_piece(&v->dev, at, len, in, &sg->gpa);
    if (!sg->host) {
        virtio_broken(v, "a buffer is not in RAM");
        return false;
    }
    sg->len = (uint32_t)*len;
    if (in) {
        w->n_in++;
        w->in_len += sg->len;
    } else {
        w->n_out++;
        w->out_len += sg->len;
    }
    return true;
}

bool virtq_walk_add(struct virtio *v, struct virtq_walk *w, uint64_t at, uint32_t len, bool in)
{
    if (len > 0 && !in && w->n_in > 0) {
        virtio_broken(v, "a readable descriptor follows a writable one");
        return false;
    }
    for (uint64_t done = 0, part; done < len; done += part) {
        part = len - done;
        if (!add_piece(v, w, at + done, &part, in)) {
            return false;
        }
    }
    return true;
}

/* Follows the chain from `head` into v->walk. Bounded: no table is walked further than its
 * number of entries. */
static bool walk_chain(struct virtio *v, struct virtq_walk *w, uint16_t head)
{
    uint32_t at = head, steps = 0;

    for (;;) {
        struct vring_desc d;

        if (at >= w->entries || steps++ >= w->entries || steps > VIRTIO_MAX_CHAIN) {
            virtio_broken(v, "a descriptor chain leaves its table or loops");
            return false;
        }
        memcpy(&d, virtq_at(v, &w->table, at * sizeof(d), sizeof(d)), sizeof(d));
        if (le16toh(d.flags) & DESC_INDIRECT) {
            if (!walk_indirect(v, w, &d)) {
                return false;
            }
            at = steps = 0;
            continue;
        }
        if (!virtq_walk_add(v, w, le64toh(d.addr), le32toh(d.len),
                            le16toh(d.flags) & DESC_WRITE)) {
            return false;
        }
        if (!(le16toh(d.flags) & DESC_NEXT)) {
            return true;
        }
        at = le16toh(d.next);
    }
}

struct virtio_elem *virtq_elem_new(struct virtio *v, const struct virtq *vq,
                                   const struct virtq_walk *w, uint16_t id)
{
    size_t n = w->n_out + w->n_in;
    struct virtio_elem *el = xalloc(sizeof(*el) + n * sizeof(el->sg[0]));

    list_init(&el->node);
    el->head = id;
    el->generation = vq->generation;
    el->n_out = w->n_out;
    el->n_in = w->n_in;
    el->out_len = w->out_len;
    el->in_len = w->in_len;
    memcpy(el->sg, v->walk, n * sizeof(el->sg[0]));
    return el;
}

struct virtio_elem *virtq_pop(struct virtio *v, unsigned q)
{
    struct virtq *vq = &v->queue[q];
    struct vring r;
    struct virtq_walk w = { .entries = vq->num };
    uint16_t waiting, head;

    if (v->features & VIRTIO_F_RING_PACKED) {
        return virtq_packed_pop(v, vq);
    }
    if (!vring_map(v, vq, &r)) {
        return NULL;
    }
    waiting = avail_load(v, &r, RING_INDEX) - vq->last_avail;
    if (waiting == 0) {
        return NULL;
    }
    head = avail_load(v, &r, avail_entry(vq, vq->last_avail));
    if (waiting > vq->num || head >= vq->num) {
        virtio_broken(v, "the available ring has an impossible index");
        return NULL;
    }
    /* A driver that offers buffers twice could otherwise make us hold any number of
     * requests. */
    if (vq->in_flight >= vq->num) {
        virtio_broken(v, "more requests are in flight than the queue has entries");
        return NULL;
    }
    w.table = r.desc; /* until an indirect one */
    if (!walk_chain(v, &w, head)) {
        return NULL;
    }
    vq->last_avail++;
    vq->in_flight++;
    return virtq_elem_new(v, vq, &w, head);
}

void virtio_elem_free(struct virtio_elem *el)
{
    free(el);
}

/* Device writes become known to the dirty log and the translator before the driver can see
 * the completion. */
static void elem_written(struct virtio *v, const struct virtio_elem *el, uint64_t written)
{
    for (unsigned i = el->n_out; i < el->n_out + el->n_in && written > 0; i++) {
        uint64_t n = el->sg[i].len < written ? el->sg[i].len : written;

        mem_written(v->dev.vm->mem, el->sg[i].gpa, n);
        written -= n;
    }
}

static void split_push(struct virtio *v, struct virtq *vq, struct virtio_elem *const *el,
                       const uint64_t *written, unsigned n)
{
    struct vring r;

    if (!vring_map(v, vq, &r)) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t slot = RING + (vq->used_idx++ % vq->num) * sizeof(struct vring_used_elem);
        uint32_t len = written[i] > UINT32_MAX ? UINT32_MAX : (uint32_t)written[i];

        /* One by one: a page may end between them. */
        *(uint32_t *)virtq_at(v, &r.used, slot, 4) = htole32(el[i]->head);
        *(uint32_t *)virtq_at(v, &r.used, slot + 4, 4) = htole32(len);
    }
    used_store(v, &r, RING_INDEX, vq->used_idx);
    virtq_part_written(v, &r.used, 0, used_bytes(vq));
}

void virtq_push_all(struct virtio *v, unsigned q, struct virtio_elem *const *el,
                    const uint64_t *written, unsigned n)
{
    struct virtq *vq = &v->queue[q];
    unsigned live = 0;

    for (unsigned i = 0; i < n; i++) {
        elem_written(v, el[i], written[i]);
        live += el[i]->generation == vq->generation;
    }
    vq->in_flight -= live;
    if (live == n) { /* a reset ends all that came before it */
        (v->features & VIRTIO_F_RING_PACKED ? virtq_packed_push : split_push)(v, vq, el,
                                                                              written, n);
    }
    for (unsigned i = 0; i < n; i++) {
        virtio_elem_free(el[i]);
    }
}

void virtq_push(struct virtio *v, unsigned q, struct virtio_elem *el, uint64_t written)
{
    virtq_push_all(v, q, &el, &written, 1);
}

void virtq_unpop(struct virtio *v, unsigned q, struct virtio_elem *el)
{
    struct virtq *vq = &v->queue[q];

    if (el->generation == vq->generation) {
        vq->in_flight--;
        if (v->features & VIRTIO_F_RING_PACKED) {
            virtq_packed_unpop(vq, el);
        } else {
            vq->last_avail--;
        }
    }
    virtio_elem_free(el);
}

/* virtio 1.2 §2.7.7.2: interrupts are wanted when used_event lies in the entries filled
 * since the last one. */
static bool signal_wanted(struct virtio *v, struct virtq *vq, const struct vring *r)
{
    uint16_t old = vq->signalled, fresh = vq->used_idx;
    bool valid = vq->signalled_valid;

    atomic_thread_fence(memory_order_seq_cst); /* used index before the driver's wish */
    if (!has_event_idx(v)) {
        return !(avail_load(v, r, RING_FLAGS) & AVAIL_NO_INTERRUPT);
    }
    vq->signalled = fresh;
    vq->signalled_valid = true;
    return !valid || (uint16_t)(fresh - avail_load(v, r, used_event_at(vq)) - 1) <
                         (uint16_t)(fresh - old);
}

void virtq_signal(struct virtio *v, unsigned q)
{
    struct virtq *vq = &v->queue[q];
    struct vring r;

    if (v->features & VIRTIO_F_RING_PACKED ? virtq_packed_wants(v, vq)
                                           : vring_map(v, vq, &r) && signal_wanted(v, vq, &r)) {
        v->isr |= VIRTIO_ISR_QUEUE;
        if (v->raise) {
            v->raise(v->transport, (int)q);
        }
    }
}

bool virtq_rearm(struct virtio *v, unsigned q)
{
    struct virtq *vq = &v->queue[q];
    struct vring r;

    if (v->features & VIRTIO_F_RING_PACKED) {
        return virtq_packed_rearm(v, vq);
    }
    if (!vring_map(v, vq, &r)) {
        return false;
    }
    if (has_event_idx(v)) {
        used_store(v, &r, avail_event_at(vq), vq->last_avail);
        virtq_part_written(v, &r.used, 0, used_bytes(vq));
    }
    atomic_thread_fence(memory_order_seq_cst); /* our wish before the driver's index */
    return avail_load(v, &r, RING_INDEX) != vq->last_avail;
}

/* Copies n bytes between buf and sg[0..count), `skip` bytes into it. */
static size_t sg_copy(const struct virtio_sg *sg, unsigned count, uint64_t skip, uint8_t *buf,
                      size_t n, bool to_guest)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < n; i++) {
        size_t part;

        if (skip >= sg[i].len) {
            skip -= sg[i].len;
            continue;
        }
        part = sg[i].len - skip < n - done ? (size_t)(sg[i].len - skip) : n - done;
        if (to_guest) {
            memcpy(sg[i].host + skip, buf + done, part);
        } else {
            memcpy(buf + done, sg[i].host + skip, part);
        }
        done += part;
        skip = 0;
    }
    return done;
}

size_t virtio_get(const struct virtio_elem *el, uint64_t skip, void *out, size_t n)
{
    return sg_copy(el->sg, el->n_out, skip, out, n, false);
}

size_t virtio_put(struct virtio_elem *el, uint64_t skip, const void *in, size_t n)
{
    return sg_copy(el->sg + el->n_out, el->n_in, skip, (uint8_t *)(uintptr_t)in, n, true);
}
