/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forwards from an address of the guest's network to one of the host. As libslirp shows a forward as one stream of
 * bytes, one connection at a time is carried; it is made when the guest first writes. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_GUESTFWD_H
#define VMD_NETWORK_SERVER_GUESTFWD_H

#include "engine/base/err.h"

#include <slirp/libslirp.h>

struct guestfwd;
struct loop;
struct user_forward;

int guestfwd_add(struct guestfwd **list, struct loop *l, Slirp *slirp,
                 const struct user_forward *f, struct err *e);
/* Once a turn: gives the guest what it has room for. */
void guestfwd_run(struct guestfwd *list);
void guestfwd_free(struct guestfwd *list);

#endif
