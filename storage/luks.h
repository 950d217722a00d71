/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the storage room: LUKS version 1 volumes, as raw images ("luks") and within qcow2. The header with its eight key
 * slots, and the sectors. Ciphers and hashes are openssl's, so that formats reach all of it through the secret that opens
 * them: who gives none need not link openssl. Facts: "LUKS On-Disk Format Specification" 1.2.3.
 */
#ifndef VMD_STORAGE_LUKS_H
#define VMD_STORAGE_LUKS_H

#include "storage/driver.h"

struct luks; /* an open volume */

enum { LUKS_HEADER_BYTES = 4040 * 512 }; /* of headers that we make; the payload follows */

struct blk_cipher {
    /* Reads the header at `at` of a file, which has `room` bytes for it, and unlocks the volume. -EACCES: no slot opens
     * with this secret. `who` names the image in messages. */
    int (*open)(struct blk_node *file, uint64_t at, uint64_t room,
                const struct blk_secret *secret, const char *who, struct luks **out,
                struct err *e);
    void (*close)(struct luks *l);             /* NULL is fine */
    uint64_t (*payload)(const struct luks *l); /* bytes from the header's beginning on */
    const char *(*text)(const struct luks *l); /* "aes-256-xts-plain64, sha256" */
    /* Whole sectors of 512 bytes between a file, at host offset `at`, and a vector; `sector` is the number of the
     * first. Any thread. */
    int (*read)(struct luks *l, struct blk_node *file, uint64_t at, uint64_t sector,
                uint64_t length, const struct iovec *iov, unsigned n_iov);
    int (*write)(struct luks *l, struct blk_node *file, uint64_t at, uint64_t sector,
                 uint64_t length, const struct iovec *iov, unsigned n_iov);
    /* A new header with one slot, for options such as cipher-alg (each with `prefix` before its name).
     * LUKS_HEADER_BYTES, the caller's. */
    int (*create)(const struct blk_create *c, const char *prefix, uint8_t **out, struct err *e);
};

/* Without a secret. */
int luks_refuse(const char *who, struct err *e);

#endif
