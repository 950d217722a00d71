/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the vhost-user front end: its queues (vhost_user.c), what it has of the host (vhost_kit.c), and what the fuzzer needs to know.
 */
#ifndef VMD_DEVICES_VIRTIO_VHOST_INT_H
#define VMD_DEVICES_VIRTIO_VHOST_INT_H

#include "devices/virtio/vhost_user.h"
#include "network/vhost_talk.h"

#define VHOST_PAGE 4096u
#define VHOST_PAGES (VHOST_WINDOW / VHOST_PAGE)
#define VHOST_REQUEST_MAX (2u << 20)

/* The window: rings of each queue, then copies of requests. */
#define VHOST_RINGS 32768u /* bytes of a queue's */
static inline unsigned vhost_desc_at(unsigned q)
{
    return q * VHOST_RINGS;
}
static inline unsigned vhost_avail_at(unsigned q)
{
    return q * VHOST_RINGS + 16u * VHOST_RING;
}
static inline unsigned vhost_used_at(unsigned q)
{
    return q * VHOST_RINGS + 16u * VHOST_RING + 4096u;
}
#define VHOST_FIRST_PAGE (VHOST_MAX_QUEUES * VHOST_RINGS / VHOST_PAGE)

struct vhost_request {
    struct virtio_elem *el; /* NULL: none */
    unsigned page, pages, in_page, descs;
};

struct vhost_queue {
    struct vhost_request request[VHOST_RING]; /* by first descriptor */
    uint16_t next[VHOST_RING]; /* of the chains that are out, and of the free ones */
    uint16_t free_desc, avail_idx, used_idx;
    unsigned n_free, used_pages;
};

struct vhost_call {
    struct vhost_user *u;
    unsigned q;
    struct loop_fd *watch;
};

struct vhost_user {
    struct vhost_kit *kit;
    struct virtio *v;
    const struct vhost_user_ops *ops;
    char name[80], why[128]; /* why it is gone, or "" */
    int sock;
    struct loop_fd *watch;
    void (*gone)(void *arg, const char *why);
    void *gone_arg;
    unsigned n_queues;
    uint64_t pages[VHOST_PAGES / 64]; /* taken */
    struct vhost_queue queue[VHOST_MAX_QUEUES];
    struct vhost_call call[VHOST_MAX_QUEUES];
};

#endif
