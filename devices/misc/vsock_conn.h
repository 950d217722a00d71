/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream between guest and host, the part below the rings: its descriptor and what waits to be written there. Main thread, with
 * the lock of the device held.
 */
#ifndef VMD_DEVICES_MISC_VSOCK_CONN_H
#define VMD_DEVICES_MISC_VSOCK_CONN_H

#include "engine/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct loop_fd;

#define VSOCK_ROOM (128u << 10) /* bytes of the guest that may wait for a slow host */

enum vsock_state {
    VSOCK_GREETING, /* the client has not said where to */
    VSOCK_ASKED,    /* the guest has not answered yet */
    VSOCK_CALLING,  /* the host has not answered yet */
    VSOCK_OPEN
};

/* What the guest is to be told, one packet each, in this order. */
enum {
    VSOCK_TELL_REQUEST = 1,
    VSOCK_TELL_RESPONSE = 2,
    VSOCK_TELL_CREDIT = 4,
    VSOCK_ASK_CREDIT = 8,
    VSOCK_TELL_SHUTDOWN = 16,
    VSOCK_TELL_RESET = 32 /* and the connection ends with it */
};
enum { VSOCK_NO_RECEIVE = 1, VSOCK_NO_SEND = 2 };

struct vsock_conn {
    struct list node;
    void *owner;
    void (*changed)(
        struct vsock_conn
            *c); /* there is something to do for the guest; main loop, lock not held */
    enum vsock_state state;
    uint32_t host_port, guest_port;
    uint64_t ticket;
    int fd; /* -1: none yet */
    struct loop_fd *watch;
    unsigned events;
    bool readable; /* bytes, or the end, may be there */
    bool broken;   /* the host's end takes no more */
    bool orphan;   /* the guest is gone: what waits is all there is still to do */
    char line[24];
    unsigned n_line;

    unsigned tell;
    /* to the guest */
    uint32_t peer_room, peer_taken, sent;
    bool credit_asked, eof;
    /* from the guest */
    unsigned guest_shut; /* VSOCK_NO_ */
    uint8_t *room;       /* ring of VSOCK_ROOM; NULL until something has to wait */
    uint32_t first, waiting;
    uint32_t taken, told; /* bytes that went on to the host; as the guest knows */
    bool shut;            /* the host was told that nothing follows */
};

/* Of a descriptor, which it takes; -1: later, by vsock_conn_take(). */
struct vsock_conn *vsock_conn_new(struct loop *l, int take_fd, enum vsock_state state,
                                  void (*changed)(struct vsock_conn *), void *owner);
void vsock_conn_take(struct vsock_conn *c, struct loop *l, int take_fd);
void vsock_conn_free(struct vsock_conn *c); /* NULL is fine */
/* Sets what the descriptor is watched for; after each change of the above. */
void vsock_conn_watch(struct vsock_conn *c);
/* Reads the client's first line: 1 with *port, 0 not whole yet, -1 the client is none or gone. */
int vsock_conn_greeting(struct vsock_conn *c, uint32_t *port);
void vsock_conn_ok(struct vsock_conn *c); /* "OK port" */
/* Bytes of the guest for the host; false: more than there is room for, which the guest was told. */
bool vsock_conn_put(struct vsock_conn *c, const uint8_t *p, uint32_t n);
/* Writes what waits, as far as the host takes it. */
void vsock_conn_flush(struct vsock_conn *c);
/* How many bytes the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);

#endif
