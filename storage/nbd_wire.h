/* SPDX-License-Identifier: Apache-2.0 */
/* Between the two parts of the NBD client over a given descriptor: nbd_hello.c greets, nbd_wire.c works. */
#ifndef VMD_STORAGE_NBD_WIRE_H
#define VMD_STORAGE_NBD_WIRE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What the server and we agreed on. */
struct nbd_hello {
    uint64_t size, least,
        most;       /* bytes of the export, of the smallest and largest request; 0: not told */
    uint16_t flags; /* NBD_HAS_FLAGS and the like */
    bool structured, has_context;
    uint32_t context; /* of base:allocation */
};
/* Blocks, for at most some seconds. The descriptor stays the caller's and does not block from then on. Errors name neither disk
 * nor server. Any thread. */
int nbd_hello(int fd, const char *export, struct nbd_hello *h, struct err *e);

#endif
