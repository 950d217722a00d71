/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of vmd-tls share. One thread. */
#ifndef VMD_STORAGE_TLS_RELAY_H
#define VMD_STORAGE_TLS_RELAY_H

#include "engine/base/err.h"

struct ssl_st;

/* From here on the process can read, write and wait. */
int confine_relay(struct err *e);
/*
 * Begins NBD with the server at `far` (fixed newstyle, NBD_OPT_STARTTLS; doc/proto.md of the NetworkBlockDevice project) and ends at the
 * server's word that TLS may begin. greeting: its first 18 bytes, which go to our own client.
 */
enum { GREETING = 18 };
int relay_start_tls(int far, unsigned char *greeting, struct err *e);
/* Bytes both ways until one side has gone. `near` gets the greeting first; its four bytes of flags are those that were sent already. */
int relay_run(struct ssl_st *ssl, int far, int near, const unsigned char *greeting,
              struct err *e);

#endif
