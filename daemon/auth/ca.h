/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small certificate authority of a daemon: files in one folder, keys readable by their owner
 * alone and never in the store.
 *
 *   ca.pem ca.key          the authority (EC P-256, ten years)
 *   server.pem server.key  the daemon's certificate, followed by the authority's
 *   crl.pem                what was revoked, for other programs; vmd itself looks in its store
 *
 * Loop thread; each call reads and writes small files and makes at most two signatures.
 */
#ifndef VMD_DAEMON_AUTH_CA_H
#define VMD_DAEMON_AUTH_CA_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CA_SERIAL_MAX 42

struct ca_issued {
    char *pem; /* the caller's */
    char serial[CA_SERIAL_MAX], fingerprint[65];
    int64_t not_before, not_after; /* seconds since 1970 */
};

struct ca_revoked {
    const char *serial; /* hexadecimal */
    int64_t when;       /* seconds since 1970 */
};

bool ca_there(const char *dir);
/* Makes authority and server certificate for these names (DNS names and addresses). -EEXIST when
 * there is one: ca_renew_server() makes only the daemon's certificate anew. */
int ca_create(const char *dir, char *const *names, size_t n, struct err *e);
int ca_renew_server(const char *dir, char *const *names, size_t n, struct err *e);
/* Signs a request (PEM) for use as a client; of the request only the key counts. */
int ca_sign(const char *dir, const char *request, const char *user, int64_t seconds,
            struct ca_issued *out, struct err *e);
/* SHA-256 of the authority's certificate. */
int ca_fingerprint(const char *dir, unsigned char out[32], struct err *e);
int ca_write_crl(const char *dir, const struct ca_revoked *list, size_t n, struct err *e);
/* Text of dir/name; the caller's. */
char *ca_read(const char *dir, const char *name, struct err *e);

#endif
