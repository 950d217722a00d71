/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and forwards of user-mode networking, from text. Pure functions, any thread.
 */
#ifndef VMD_NETWORK_SERVER_USER_PARSE_H
#define VMD_NETWORK_SERVER_USER_PARSE_H

#include "network/server/user.h"

#include <slirp/libslirp.h>
#include <sys/socket.h>

/* "tcp:127.0.0.1:2222-10.0.2.15:22": connections to `from` are passed on to `to`. */
struct user_forward {
    bool udp;
    struct sockaddr_storage from, to;
    socklen_t from_len, to_len;
};

/* `from_any`: the first address may be absent (127.0.0.1), as may the second (the guest's first). IPv6 addresses stand in
 * brackets. Leaves *out alone when it fails. */
int user_parse_forward(const char *text, bool from_any, struct user_forward *out,
                       struct err *e);
/* Fills everything but the texts of vdnssearch. */
int user_parse_config(const struct user_options *o, SlirpConfig *cfg, struct err *e);

#endif
