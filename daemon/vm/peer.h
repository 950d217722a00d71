/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other daemons, reached by TLS with a certificate that they gave: LIB/peers/HOST_PORT has ca.pem, cert.pem and key.pem. What waits
 * for the network does so on a thread of its own; its end is told on the loop. All of it is called on the loop's thread.
 */
#ifndef VMD_DAEMON_PEER_H
#define VMD_DAEMON_PEER_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <pthread.h>
#include <stdbool.h>

#define PEER_LANES 16

struct tls_link;
struct vmd;

/* Connections to a daemon that are being made, and their result. */
struct peer_dial {
    struct list link; /* vmd.dials */
    struct vmd *d;
    char *host, *dir, *url;
    int port;
    unsigned n;         /* how many */
    char *ticket;       /* NULL: of RPC; else streams of that migration */
    char *token, *user; /* to join with */
    pthread_t thread;
    bool threaded;
    void (*done)(void *arg, struct peer_dial *k); /* NULL: nobody waits any more */
    void *arg;
    struct tls_link *tls[PEER_LANES]; /* the owner takes what it wants */
    int fd[PEER_LANES];
    struct err e;
};

/* 0, or -EINVAL: it is no vmd+tls:// URL. */
int peer_parse(const char *url, char **host, int *port, struct err *e);
/* Is there a certificate for it? */
bool peer_known(struct vmd *d, const char *host, int port);
/* Connects: `n` streams of a migration's ticket, or (ticket NULL) one for RPC. done(arg, k) once, unless it is dropped; k is freed after,
 * with all that was not taken out of it. */
struct peer_dial *peer_dial(struct vmd *d, const char *host, int port, const char *ticket,
                            unsigned n, void (*done)(void *arg, struct peer_dial *k),
                            void *arg);
void peer_drop(struct peer_dial *k); /* nobody waits for it; NULL is fine */
/* Ends a link without waiting for it. */
void peer_close(struct tls_link *take_link);
/* The daemon ends: waits for the threads; the loop runs no more. */
void peers_end(struct vmd *d);

#endif
