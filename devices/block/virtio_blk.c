/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk: a disk (virtio 1.2 §5.2) on a block node, which it owns. Requests are taken,
 * submitted and completed on the main loop; data moves straight between guest RAM and the node.
 * The transport's lock covers all. Requests that complete in one turn of the loop are shown to the guest together, with
 * one interrupt a queue.
 *
 * While the VM is paused completions are kept back, so that nothing changes in guest memory's
 * rings.
 */
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/str.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"
#include "storage/block.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define QUEUE_SIZE 256
#define SERIAL_SIZE 20
#define MAX_ZERO_SECTORS (1u << 22) /* 2 GiB a request */

enum {
    F_SEG_MAX = 1 << 2,
    F_RO = 1 << 5,
    F_BLK_SIZE = 1 << 6,
    F_FLUSH = 1 << 9,
    F_CONFIG_WCE = 1 << 11,
    F_MQ = 1 << 12,
    F_DISCARD = 1 << 13,
    F_WRITE_ZEROES = 1 << 14
};
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

struct vblk {
    struct virtio v;
    struct blk_node *node;
    char *serial;
    uint64_t queues;
    bool packed;
    bool write_through;    /* the driver has turned the write cache off */
    struct list in_flight; /* struct vblk_req.node; main loop */
    struct list through;   /* completed in this turn; main loop */
    struct loop_task show;
    struct list finished; /* while paused: completed, not yet shown to the guest */
    unsigned to_signal;   /* a bit a queue that has new used buffers */
};

struct vblk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct vblk_range { /* of discard and write zeroes */
    uint64_t sector;
    uint32_t sectors, flags;
};

struct vblk_req {
    struct blk_req io;
    struct list node;
    struct vblk *owner;
    unsigned q;
    struct virtio_elem *el;
    uint8_t status;
    bool flush_after; /* the driver knows no flush: writes are durable when they complete */
    struct iovec iov[];
};

static void vblk_finish(struct vblk_req *r)
{
    struct vblk *b = r->owner;

    if (r->el->in_len > 0 && virtq_live(&b->v, r->q, r->el)) {
        virtio_put(r->el, r->el->in_len - 1, &r->status, 1);
    }
    virtq_push(&b->v, r->q, r->el, r->el->in_len);
    b->to_signal |= 1u << r->q;
    list_remove(&r->node);
    free(r);
}

/* Lock held, after a batch. */
static void vblk_signal(struct vblk *b)
{
    for (unsigned q = 0; b->to_signal; q++) {
        if (b->to_signal >> q & 1) {
            b->to_signal &= ~(1u << q);
            virtq_signal(&b->v, q);
        }
    }
}

static void vblk_show(void *arg)
{
    struct vblk *b = arg;

    bus_lock(b->v.lock);
    while (!list_empty(&b->through)) {
        struct vblk_req *r = list_entry(b->through.next, struct vblk_req, node);

        if (virtio_may_run(&b->v)) {
            vblk_finish(r);
        } else {
            list_remove(&r->node);
            list_append(&b->finished, &r->node);
        }
    }
    vblk_signal(b);
    bus_unlock(b->v.lock);
}

static void vblk_done(struct blk_req *io, int result)
{
    struct vblk_req *r = container_of(io, struct vblk_req, io);
    struct vblk *b = r->owner;

    if (result == 0 && r->flush_after) {
        r->flush_after = false;
        io->op = BLK_FLUSH;
        blk_submit(b->node, io);
        return;
    }
    if (result != 0) {
        log_trace('v', "%s: request fails: %s", b->v.dev.id, strerror(-result));
        r->status = S_IOERR;
    }
    list_remove(&r->node);
    list_append(&b->through, &r->node);
    vm_task(b->v.dev.vm, &b->show);
}

/* Completes at once, without the node. */
static void vblk_answer(struct vblk_req *r, uint8_t status)
{
    r->status = status;
    vblk_finish(r);
}

static void vblk_submit(struct vblk_req *r, enum blk_op op)
{
    r->io.op = op;
    r->status = S_OK;
    blk_submit(r->owner->node, &r->io);
}

/* Without a flush in the protocol, or with the cache turned off, a write is durable when it
 * completes (virtio 1.2 §5.2.6.2). */
static bool durable(const struct vblk *b)
{
    return !(b->v.features & F_FLUSH) || b->write_through;
}

static void vblk_rw(struct vblk_req *r, const struct vblk_header *h, bool write)
{
    const struct virtio_elem *el = r->el;
    uint64_t length = write ? el->out_len - sizeof(*h) : el->in_len - 1;
    uint64_t skip = write ? sizeof(*h) : 0, left = length;
    unsigned first = write ? 0 : el->n_out, last = write ? el->n_out : el->n_out + el->n_in,
             n = 0;
    uint64_t sectors = blk_size(r->owner->node) / BLK_SECTOR;

    if (length % BLK_SECTOR || h->sector > sectors ||
        length / BLK_SECTOR > sectors - h->sector) {
        vblk_answer(r, S_IOERR);
        return;
    }
    for (unsigned i = first; i < last && left > 0; i++) {
        uint64_t part = el->sg[i].len;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part -= skip;
        part = part < left ? part : left;
        r->iov[n++] = (struct iovec){ .iov_base = el->sg[i].host + skip, .iov_len = part };
        left -= part;
        skip = 0;
    }
    r->io.offset = h->sector * BLK_SECTOR;
    r->io.length = length;
    r->io.iov = r->iov;
    r->io.n_iov = n;
    r->flush_after = write && durable(r->owner);
    vblk_submit(r, write ? BLK_WRITE : BLK_READ);
}

static void vblk_zero(struct vblk_req *r, uint32_t type)
{
    struct vblk_range range;
    uint64_t sectors = blk_size(r->owner->node) / BLK_SECTOR, sector;
    uint32_t count, flags;

    if (r->el->out_len != sizeof(struct vblk_header) + sizeof(range)) {
        vblk_answer(r, S_UNSUPP); /* one segment, as the configuration space says */
        return;
    }
    virtio_get(r->el, sizeof(struct vblk_header), &range, sizeof(range));
    sector = le64toh(range.sector);
    count = le32toh(range.sectors);
    flags = le32toh(range.flags);
    if ((flags & ~1u) || (type == T_DISCARD && flags)) {
        vblk_answer(r, S_UNSUPP);
    } else if (count > MAX_ZERO_SECTORS || sector > sectors || count > sectors - sector) {
        vblk_answer(r, S_IOERR);
    } else {
        r->io.offset = sector * BLK_SECTOR;
        r->io.length = (uint64_t)count * BLK_SECTOR;
        r->io.flags = flags & 1 ? BLK_UNMAP : 0;
        r->flush_after = durable(r->owner);
        vblk_submit(r, type == T_DISCARD ? BLK_DISCARD : BLK_ZERO);
    }
}

static void vblk_id(struct vblk_req *r)
{
    char id[SERIAL_SIZE] = { 0 };

    if (r->owner->serial) {
        memcpy(id, r->owner->serial, strnlen(r->owner->serial, sizeof(id)));
    }
    if (r->el->in_len > sizeof(id)) {
        virtio_put(r->el, 0, id, sizeof(id));
    }
    vblk_answer(r, r->el->in_len > sizeof(id) ? S_OK : S_IOERR);
}

static void vblk_start(struct vblk_req *r)
{
    struct vblk *b = r->owner;
    struct vblk_header h;
    uint32_t type;

    virtio_get(r->el, 0, &h, sizeof(h));
    h.sector = le64toh(h.sector);
    type = le32toh(h.type);
    if (blk_readonly(b->node) &&
        (type == T_OUT || type == T_DISCARD || type == T_WRITE_ZEROES)) {
        vblk_answer(r, S_IOERR);
        return;
    }
    switch (type) {
    case T_IN:
    case T_OUT:
        vblk_rw(r, &h, type == T_OUT);
        break;
    case T_FLUSH:
        vblk_submit(r, BLK_FLUSH);
        break;
    case T_GET_ID:
        vblk_id(r);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        vblk_zero(r, type);
        break;
    default:
        vblk_answer(r, S_UNSUPP);
    }
}

static void vblk_take(struct vblk *b, unsigned q, struct virtio_elem *el)
{
    struct vblk_req *r = xalloc(sizeof(*r) + (el->n_out + el->n_in) * sizeof(r->iov[0]));

    r->owner = b;
    r->q = q;
    r->el = el;
    r->io.done = vblk_done;
    r->io.queue = q;
    list_append(&b->in_flight, &r->node);
    vblk_start(r);
}

/* What completed while the VM was paused is shown to the guest. */
static void vblk_finish_all(struct vblk *b)
{
    while (!list_empty(&b->finished)) {
        vblk_finish(list_entry(b->finished.next, struct vblk_req, node));
    }
    vblk_signal(b);
}

static void vblk_serve(struct virtio *v, unsigned q)
{
    struct vblk *b = (struct vblk *)v;

    vblk_finish_all(b);
    /* At most a queue's worth at a time: other work of the loop gets its turn. */
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (!el) {
            if (!virtq_rearm(v, q)) {
                vblk_signal(b);
                return;
            }
            continue;
        }
        n++;
        if (el->out_len < sizeof(struct vblk_header) || el->in_len < 1) {
            virtio_elem_free(el);
            virtio_broken(v, "a disk request lacks its header or its status");
            return;
        }
        vblk_take(b, q, el);
    }
    vblk_signal(b);
    virtio_ring(v, q);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

/* struct virtio_blk_config (virtio 1.2 §5.2.4). */
static void vblk_config(struct virtio *v, uint8_t *out)
{
    struct vblk *b = (struct vblk *)v;
    uint64_t capacity = htole64(blk_size(b->node) / BLK_SECTOR);

    memcpy(out, &capacity, sizeof(capacity));
    put32(out + 12, QUEUE_SIZE - 2); /* seg_max */
    put32(out + 20, BLK_SECTOR);     /* blk_size */
    out[32] = !b->write_through;
    out[34] = (uint8_t)v->n_queues;
    put32(out + 36, MAX_ZERO_SECTORS);
    put32(out + 40, 1); /* max_discard_seg */
    put32(out + 44, 1); /* discard_sector_alignment */
    put32(out + 48, MAX_ZERO_SECTORS);
    put32(out + 52, 1); /* max_write_zeroes_seg */
    out[56] = 1;        /* write_zeroes_may_unmap */
}

static void vblk_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                unsigned size)
{
    if (offset == 32 && size == 1 && (v->features & F_CONFIG_WCE)) {
        ((struct vblk *)v)->write_through = !(value & 1);
    }
}

/* Waits until the node touches no guest memory; results that come later find their
 * generation gone. */
static void vblk_drop(struct virtio *v)
{
    struct vblk *b = (struct vblk *)v;

    blk_abandon(b->node);
    while (!list_empty(&b->finished)) {
        struct vblk_req *r = list_entry(b->finished.next, struct vblk_req, node);

        list_remove(&r->node);
        virtio_elem_free(r->el);
        free(r);
    }
    b->to_signal = 0;
    b->write_through = false;
}

static const struct virtio_ops vblk_ops = {
    .id = 2,
    .n_queues = 1,
    .queue_max = { QUEUE_SIZE },
    .config_size = 60,
    .serve = vblk_serve,
    .config = vblk_config,
    .config_written = vblk_config_written,
    .reset = vblk_drop,
};

static int vblk_realize(struct device *d, struct err *e)
{
    struct vblk *b = (struct vblk *)d;
    uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_CONFIG_WCE;

    (void)e;
    list_init(&b->in_flight);
    list_init(&b->finished);
    list_init(&b->through);
    loop_task_init(&b->show, vblk_show, b);
    features |= blk_readonly(b->node) ? F_RO : F_DISCARD | F_WRITE_ZEROES;
    features |= b->queues > 1 ? F_MQ : 0;
    features |= b->packed ? VIRTIO_F_RING_PACKED : 0;
    virtio_setup(&b->v, &vblk_ops, (unsigned)b->queues, features);
    return 0;
}

static bool vblk_quiesce(struct device *d)
{
    struct vblk *b = (struct vblk *)d;
    bool quiet;

    bus_lock(b->v.lock);
    quiet = list_empty(&b->in_flight) && list_empty(&b->through);
    if (quiet) {
        vblk_finish_all(b);
    }
    bus_unlock(b->v.lock);
    return quiet;
}

static void vblk_free_list(struct list *l)
{
    while (l->next && !list_empty(l)) {
        struct vblk_req *r = list_entry(l->next, struct vblk_req, node);

        list_remove(&r->node);
        virtio_elem_free(r->el);
        free(r);
    }
}

static void vblk_destroy(struct device *d)
{
    struct vblk *b = (struct vblk *)d;

    blk_close(b->node);    /* no completion comes after this */
    if (b->through.next) { /* else never realized */
        loop_task_cancel(&b->show);
    }
    vblk_free_list(&b->in_flight);
    vblk_free_list(&b->through);
    vblk_free_list(&b->finished);
    virtio_done(&b->v);
}

static void vblk_changed(struct device *d, const void *node)
{
    struct vblk *b = (struct vblk *)d;

    if (node == b->node) {
        bus_lock(b->v.lock);
        virtio_config_changed(&b->v);
        bus_unlock(b->v.lock);
    }
}

static const struct st_field vblk_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vblk, write_through, ST_BOOL, 2,
             "the driver has turned the write cache off"),
    ST_END,
};
static const struct st_table vblk_state = {
    .name = "virtio-blk",
    .version = 2,
    .fields = vblk_fields,
};

static const struct dev_prop vblk_props[] = {
    { .name = "node",
      .kind = PROP_PTR,
      .offset = offsetof(struct vblk, node),
      .required = true,
      .doc = "block node of the disk; the device closes it" },
    { .name = "serial",
      .kind = PROP_STR,
      .offset = offsetof(struct vblk, serial),
      .doc = "identification string, up to 20 bytes" },
    { .name = "queues",
      .kind = PROP_U64,
      .offset = offsetof(struct vblk, queues),
      .def = 1,
      .min = 1,
      .max = VIRTIO_MAX_QUEUES,
      .doc = "request queues" },
    { .name = "packed",
      .kind = PROP_BOOL,
      .offset = offsetof(struct vblk, packed),
      .def = true,
      .doc = "offer packed rings" },
    { .name = NULL },
};

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .doc =
        "virtio disk with several queues, flush, write cache toggle, discard and write zeroes",
    .size = sizeof(struct vblk),
    .props = vblk_props,
    .state = &vblk_state,
    .realize = vblk_realize,
    .quiesce = vblk_quiesce,
    .resumed = virtio_resumed,
    .changed = vblk_changed,
    .destroy = vblk_destroy,
};
