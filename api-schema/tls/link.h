/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calling side of TLS for a program that waits: connects, shakes hands, and gives a plain
 * stream descriptor whose bytes a thread of its own carries through TLS. Whatever speaks over a
 * unix socket speaks over it unchanged.
 *
 * One thread opens and closes a link and reads its descriptor; the thread inside owns the rest.
 */
#ifndef VMD_API_LINK_H
#define VMD_API_LINK_H

#include "api-schema/tls/tls.h"
#include "engine/base/err.h"

struct tls_link;

struct tls_target {
    const char *host; /* name or address to connect to */
    int port;
    const char *name; /* that the certificate must be for; NULL: host */
    struct tls_files files;
    const unsigned char
        *ca_pin; /* 32 bytes: trust the CA with this fingerprint; NULL: files.ca */
};

/* Connects within timeout_ms (all of it: name, TCP, TLS). NULL on failure: e->code is -EACCES when
 * one side refuses the other's certificate, -ECONNREFUSED or -ETIMEDOUT when nobody answers. */
struct tls_link *tls_link_open(const struct tls_target *to, enum tls_proto proto,
                               int timeout_ms, struct err *e);
/* The plain end: a connected stream socket, blocking. Taken once; the caller closes it. */
int tls_link_take_fd(struct tls_link *k);
/* Why it ended, when it has: 0 and e->code 0 for an orderly end. -EAGAIN while it lives. In TLS 1.3 a
 * server tells only after the handshake that it refuses a certificate: here it shows. Waits at most
 * wait_ms for the end. */
int tls_link_why(struct tls_link *k, int wait_ms, struct err *e);
/* Ends the thread. Close the descriptor first: what was written to it is then still sent. NULL is
 * fine. */
void tls_link_close(struct tls_link *k);

#endif
