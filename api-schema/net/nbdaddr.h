/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of NBD exports (doc/uri.md of the NetworkBlockDevice project): nbd://HOST[:PORT]/EXPORT and
 * nbd+unix:///EXPORT?socket=PATH, with TLS nbds:// and nbds+unix:// and ?tls-certificates=FOLDER, perhaps &tls-hostname=NAME, for whoever
 * connects: vmd-spawn, or an emulator that is run by hand. Any thread.
 */
#ifndef VMD_API_NET_NBDADDR_H
#define VMD_API_NET_NBDADDR_H

#include "engine/base/err.h"

#include <stdbool.h>

enum {
    NBD_ADDR_EXPORT = 1024,
    NBD_ADDR_HOST = 256,
    NBD_ADDR_PATH = 108,
    NBD_ADDR_FOLDER = 1024
};

struct nbd_addr {
    char host[NBD_ADDR_HOST], port[8]; /* of TCP */
    char path[NBD_ADDR_PATH];          /* of a unix socket; "": TCP */
    char export[NBD_ADDR_EXPORT];
    bool tls;
    char certificates[NBD_ADDR_FOLDER]; /* ca-cert.pem, client-cert.pem, client-key.pem */
    char tls_host[NBD_ADDR_HOST];       /* whose certificate it must be; "": the host's */
};

/* Begins it as one of these addresses? */
bool nbd_addr_is(const char *uri);
int nbd_addr_parse(const char *uri, struct nbd_addr *out, struct err *e);
/* The address as text, that nbd_addr_parse() takes; the caller's. */
char *nbd_addr_text(const struct nbd_addr *a);
/* Whose certificate a server with TLS must have. */
const char *nbd_addr_tls_host(const struct nbd_addr *a);
/* A descriptor that does not block, or a negative code. Waits for at most some seconds beside the resolver's own time. TLS is the
 * caller's business. */
int nbd_addr_connect(const struct nbd_addr *a, struct err *e);

#endif
