/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets between a guest and its host, the host's side of them: streams of descriptors. Main thread.
 */
#ifndef VMD_DEVICES_MISC_VIRTIO_VSOCK_H
#define VMD_DEVICES_MISC_VIRTIO_VSOCK_H

#include <stdbool.h>
#include <stdint.h>

struct device;

#define VSOCK_MAX_CONNS 512

/* What the device asks of its host; main loop, the device's lock held. */
struct vsock_host {
    /* The guest wants a stream to that port of the host; virtio_vsock_answer() follows, later. */
    void (*call)(void *arg, uint32_t port, uint64_t ticket);
    void *arg;
};

/* A client of the host, which says "CONNECT port\n" first and is told "OK port\n" when the guest takes the call. Takes the descriptor,
 * a stream that does not block. */
void virtio_vsock_client(struct device *d, int take_fd);
/* To a call of the guest: the stream (taken), or -1: nobody listens there. */
void virtio_vsock_answer(struct device *d, uint64_t ticket, int take_fd);

struct vsock_view {
    unsigned conns;                /* at the moment, of either side */
    uint64_t to_guest, from_guest; /* bytes, ever */
};
void virtio_vsock_view(struct device *d, struct vsock_view *out);

#endif
