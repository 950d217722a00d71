/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which daemon and how to reach it: contexts in $XDG_CONFIG_HOME/vmd/contexts.json, and TLS. One thread,
 * beside those of the links.
 */
#ifndef VMD_CLI_REMOTE_H
#define VMD_CLI_REMOTE_H

#include "api-schema/tls/link.h"
#include "engine/base/err.h"

#include <stdbool.h>

/* Where a daemon is. */
struct place {
    char *socket;      /* unix socket; NULL: TLS */
    char *host, *name; /* name: in the certificate, NULL: host */
    int port;
    char *ca, *cert, *key; /* files */
    char *context;         /* its name, NULL: by URL */
};

void place_done(struct place *p);
/* From a URL, a path or the name of a context; NULL: the context in use (*none: there is none). */
int place_find(const char *text, struct place *p, bool *none, struct err *e);
/* Opens TLS to it. */
struct tls_link *place_link(const struct place *p, enum tls_proto proto, int timeout_ms,
                            struct err *e);
/* A stream that a ticket opens: its descriptor, and the link under it. */
int place_stream(const struct place *p, const char *ticket, struct tls_link **link,
                 struct err *e);

#endif
