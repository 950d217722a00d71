/* SPDX-License-Identifier: Apache-2.0 */
/* The exports of an NBD server. Any thread; a server may take as long as it likes, so callers have a bound of their own. */
#ifndef VMD_STORAGE_NBD_LIST_H
#define VMD_STORAGE_NBD_LIST_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NBD_LIST_MAX = 10000 };

struct nbd_listed {
    char *name, *description; /* as the server says: any bytes but 0 */
    int64_t size;             /* -1: it does not tell */
    bool readonly;
};
struct nbd_list {
    struct nbd_listed *item;
    size_t n;
    bool more; /* the server has more than NBD_LIST_MAX */
};

/* fd >= 0: a connection, which is taken, instead of an address. The caller calls nbd_list_done(). */
int nbd_list(const char *uri, int fd, struct nbd_list *out, struct err *e);
void nbd_list_done(struct nbd_list *l);

#endif
