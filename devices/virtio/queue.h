/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the virtqueues: what split rings (queue.c) and packed ones (packed.c) share. All with
 * the transport's lock held.
 */
#ifndef VMD_DEVICES_VIRTIO_QUEUE_H
#define VMD_DEVICES_VIRTIO_QUEUE_H

#include "devices/virtio/virtio.h"

struct vring_desc;

/* State of a walk along one chain; its pieces are gathered in v->walk. */
struct virtq_walk {
    const struct vring_desc *table; /* split */
    uint32_t entries;
    bool indirect;
    unsigned n_out, n_in;
    uint64_t out_len, in_len;
};

/* Adds a buffer; false when it is not in RAM or in the wrong order (the device is broken then).
 * The caller has made sure that v->walk has room. */
bool virtq_walk_add(struct virtio *v, struct virtq_walk *w, uint64_t gpa, uint32_t len,
                    bool in);
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
