/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: what a network card, a switch or a filter sends Ethernet frames through and gets them from. A
 * port has a back end (a socket, a tap, a user-mode network) and a front end (the card). Filters are ports in front
 * of another port, so that what is above and below them need not know of them.
 *
 * A frame carries what offloading knows of it: a checksum that is still to be filled in, or a segment
 * larger than the link's, to be cut. Back ends that cannot do that are given plain frames: the port does the work
 * first (offload.h). What arrives is checked by the back end before the front end sees it.
 *
 * Everything of a port belongs to one event loop. Nothing here blocks.
 */
#ifndef VMD_NETWORK_PORT_H
#define VMD_NETWORK_PORT_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct loop;

#define NET_MAX_FRAME (65535 + 18) /* an IP packet of the largest size in a tagged frame */
#define NET_MAX_IOV 64             /* pieces of a frame; more are joined by who sends */

/* As struct virtio_net_hdr without num_buffers (virtio 1.2 §5.1.6), in host byte order. */
struct net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};
enum { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum {
    NET_GSO_NONE = 0,
    NET_GSO_TCPV4 = 1,
    NET_GSO_UDP = 3, /* fragmentation: never offered, refused */
    NET_GSO_TCPV6 = 4,
    NET_GSO_UDP_L4 = 5,
    NET_GSO_ECN = 0x80 /* with either TCP */
};

/* What a receiver takes as it is. */
enum {
    NET_OFF_CSUM = 1,
    NET_OFF_TSO4 = 2,
    NET_OFF_TSO6 = 4,
    NET_OFF_ECN = 8,
    NET_OFF_USO = 16,
    NET_OFF_ALL = 31
};

/* A frame from the Ethernet header on, without FCS. Valid during the call only. */
struct net_frame {
    struct net_hdr hdr;
    const struct iovec *iov;
    unsigned n_iov;
    unsigned queue; /* it was sent on, or came by, among those of a port that has several */
    size_t len;     /* of all pieces */
};

struct net_counters {
    uint64_t frames, bytes, dropped, errors;
};

/* Who is above a port. Called on the loop, never from within net_send() or another call of the port. */
struct net_front_ops {
    /* A frame. 0: taken or dropped; -EAGAIN: no room, the port keeps it and waits for net_recv_ready(). */
    int (*receive)(void *arg, const struct net_frame *f);
    /* After some frames: tell the guest. */
    void (*received)(void *arg);
    /* net_send() said -EAGAIN, and there is room again. */
    void (*writable)(void *arg);
    /* The link went up or down. */
    void (*link)(void *arg, bool up);
};

struct net_port;
struct net_port_ops {
    const char *kind; /* "stream" */
    /* 0: taken (perhaps until flush); -EAGAIN: no room, writable() follows; else it is dropped. */
    int (*send)(struct net_port *p, const struct net_frame *f);
    void (*flush)(struct net_port *p); /* may be NULL */
    /* The front end has room again. */
    void (*recv_ready)(struct net_port *p);
    /* The front end takes such frames (NET_OFF_...). May be NULL: the back end gives plain ones. */
    void (*set_offloads)(struct net_port *p, unsigned takes);
    /* The front end's own link went up or down, which it is to pass on. May be NULL. */
    void (*tell_link)(struct net_port *p, bool up);
    void (*close)(struct net_port *p); /* frees it */
};

struct net_port {
    const struct net_port_ops *ops;
    const struct net_front_ops *front; /* NULL: nobody, frames are dropped */
    void *front_arg;
    char *name;      /* for messages */
    unsigned takes;  /* NET_OFF_... that the back end takes as they are */
    unsigned gives;  /* those the front end takes */
    unsigned queues; /* of the back end, if it has several: it says by which a frame came */
    bool up;         /* the back end has a carrier */
    struct net_counters tx, rx; /* seen from the front end: tx is what it sent */
};

/* --- for front ends --- */

void net_attach(struct net_port *p, const struct net_front_ops *ops, void *arg);
/* Sends a frame, after doing what the back end cannot. 0, -EAGAIN (try again after writable(); never when a part of it
 * is out), or another error: it is dropped and counted. */
int net_send(struct net_port *p, const struct net_frame *f);
void net_flush(struct net_port *p);
void net_recv_ready(struct net_port *p);
/* For those who join two ports: that on the other side is up or down. Passes between programs of ours. */
void net_tell_link(struct net_port *p, bool up);
/* What of NET_OFF_ALL the front end takes; frames with more are completed before it sees them. */
void net_set_offloads(struct net_port *p, unsigned takes);
void net_close(struct net_port *p); /* NULL is fine; closes the ports below a filter, too */

/* --- for back ends --- */

void net_port_init(struct net_port *p, const struct net_port_ops *ops, const char *name,
                   unsigned takes);
void net_port_done(struct net_port *p);
/* Hands a frame to the front end, after doing what that cannot. 0 or -EAGAIN: keep it. */
int net_deliver(struct net_port *p, const struct net_frame *f);
void net_delivered(struct net_port *p);
void net_writable(struct net_port *p);
void net_set_up(struct net_port *p, bool up);

/* --- frames --- */

/* Copies `n` bytes at `at` of the frame; returns how many there were. */
size_t net_frame_get(const struct net_frame *f, size_t at, void *out, size_t n);
/* The flow that it is of, below NET_FLOWS: the same for both of its directions. */
#define NET_FLOWS 256
unsigned net_frame_flow(const struct net_frame *f);
#define NET_VHDR 12 /* struct virtio_net_hdr_v1 on the wire, little-endian */
void net_hdr_put(uint8_t out[NET_VHDR], const struct net_hdr *h);
void net_hdr_get(struct net_hdr *h, const uint8_t in[NET_VHDR]);

#endif
