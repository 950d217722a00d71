/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the virtqueues: what split rings (queue.c) and packed ones (packed.c) share. All with
 * the transport's lock held.
 */
#ifndef VMD_DEVICES_VIRTIO_QUEUE_H
#define VMD_DEVICES_VIRTIO_QUEUE_H

#include "devices/virtio/virtio.h"

/* A part of a queue, or a table of descriptors. Behind an IOMMU its pages may be anywhere. */
struct virtq_part {
    uint8_t *flat; /* in one piece from here on, or NULL */
    uint64_t gpa;  /* of flat */
    uint64_t at;   /* the driver's address */
    bool write;
};

/* Finds n bytes of it in guest RAM; false when they are not all there. */
bool virtq_part_map(struct virtio *v, struct virtq_part *p, uint64_t at, uint64_t n,
                    bool write);
/* virtq_at() of a part in pieces: n bytes, which no page boundary divides. Never NULL: where nothing is left of it the device is broken, and gets a
 * place that nobody looks at. */
void *virtq_part_at(struct virtio *v, const struct virtq_part *p, uint64_t offset, size_t n);
static inline void *virtq_at(struct virtio *v, const struct virtq_part *p, uint64_t offset,
                             size_t n)
{
    return p->flat ? p->flat + offset : virtq_part_at(v, p, offset, n);
}
/* Tells whom it concerns that the bytes were written. */
void virtq_part_written(struct virtio *v, const struct virtq_part *p, uint64_t offset,
                        uint64_t n);

/* State of a walk along one chain; its pieces are gathered in v->walk. */
struct virtq_walk {
    struct virtq_part table; /* split */
    uint32_t entries;
    bool indirect;
    unsigned n_out, n_in;
    uint64_t out_len, in_len;
};

/* Adds a buffer, in as many pieces as it has; false when it is not in RAM, in the wrong order, or one piece too many (the device is broken then). */
bool virtq_walk_add(struct virtio *v, struct virtq_walk *w, uint64_t at, uint32_t len, bool in);
/* A request of what the walk gathered. */
struct virtio_elem *virtq_elem_new(struct virtio *v, const struct virtq *vq,
                                   const struct virtq_walk *w, uint16_t id);

struct virtio_elem *virtq_packed_pop(struct virtio *v, struct virtq *vq);
void virtq_packed_push(struct virtio *v, struct virtq *vq, struct virtio_elem *const *el,
                       const uint64_t *written, unsigned n);
void virtq_packed_unpop(struct virtq *vq, const struct virtio_elem *el);
bool virtq_packed_wants(struct virtio *v, struct virtq *vq); /* an interrupt? */
bool virtq_packed_rearm(struct virtio *v, struct virtq *vq);

#endif
