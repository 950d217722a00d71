/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Front end of vhost-user (the specification of that name): virtqueues that another process serves, by a unix socket.
 *
 * The back end never sees the guest's memory (ADR 0032). It gets one window of memory of its own: rings in the layout of split
 * virtqueues, and room for copies of requests. The guest's rings are served here, by virtio.h: a request is copied into
 * the window, offered to the back end there, and what comes back is copied to the guest, as any device of vmd does. So a reset
 * needs nobody's consent, translated code and the log of dirty pages learn of every write, and a back end that was
 * taken over reaches what the guest had given to it, no more.
 *
 * Main loop, but for vhost_kit_open().
 */
#ifndef VMD_DEVICES_VIRTIO_VHOST_USER_H
#define VMD_DEVICES_VIRTIO_VHOST_USER_H

#include "devices/virtio/virtio.h"

#define VHOST_MAX_QUEUES 2
#define VHOST_RING 1024 /* entries of the back end's rings */
#define VHOST_WINDOW (8u << 20)

struct loop;
struct vhost_user;

/* What a front end needs of the host and cannot make when the process is confined: the window and the bells of its queues.
 * Can be used for one back end after another. */
struct vhost_kit {
    int window_fd;
    uint8_t *window; /* VHOST_WINDOW bytes */
    int kick[VHOST_MAX_QUEUES], call[VHOST_MAX_QUEUES];
    bool taken;
};
int vhost_kit_open(struct vhost_kit *k, struct err *e);
void vhost_kit_close(
    struct vhost_kit *k); /* also one that failed to open, or is all zero with `window` NULL */

struct vhost_user_ops {
    /* The back end is gone: completes a request in the guest's memory with an error; returns the bytes written. Lock held. */
    uint64_t (*fail)(struct virtio *v, struct virtio_elem *el);
    /* It has gone, once; NULL: nobody wants to know. */
    void (*gone)(void *arg, const char *why);
};

/* Shakes hands with the back end at a connected socket, which is taken, also on failure; waits up to `patience_ns` for it.
 * Negotiates VERSION_1, and of `features` all that it must have. The kit stays the caller's, and is taken until the end. `name`
 * is borrowed until this returns. */
int vhost_user_new(struct loop *loop, int take_sock, struct vhost_kit *kit, const char *name,
                   unsigned n_queues, uint64_t features, int64_t patience_ns,
                   struct vhost_user **out, struct err *e);
void vhost_user_free(struct vhost_user *u); /* NULL is fine */
/* Whose queues they are; before the first vhost_user_serve(). */
void vhost_user_bind(struct vhost_user *u, struct virtio *v, const struct vhost_user_ops *ops);
void vhost_user_on_gone(struct vhost_user *u, void (*gone)(void *arg, const char *why),
                        void *arg);
/* virtio_ops.serve: takes back what is done, offers what is new. Lock held. */
void vhost_user_serve(struct vhost_user *u, unsigned q);
bool vhost_user_alive(const struct vhost_user *u);

#endif
