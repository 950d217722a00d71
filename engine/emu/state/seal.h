/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shows that a state file's bytes are those that were written, by somebody who had the key. The whole has an HMAC-SHA-256
 * (RFC 2104), a section since format 2 a seal of two steps: a universal hash under a secret key, for which a GMAC (NIST SP 800-38D,
 * AES-256, nothing to encrypt) of a constant nonce serves, and its encryption under another, so that no hash is ever seen and
 * equal bytes at the same place have equal seals in every file of a VM. That is four times as fast as the SHA-256 of format 1.
 */
#ifndef VMD_EMU_STATE_SEAL_H
#define VMD_EMU_STATE_SEAL_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define STATE_KEY_LEN 32
#define STATE_DIGEST_LEN 32
#define SEAL_SAID 24 /* bytes that say where a section belongs */

struct state_seal {
    unsigned format;
    struct evp_cipher_st *gcm, *aes; /* format 2 */
    uint8_t hash_key[STATE_KEY_LEN], seal_key[STATE_KEY_LEN];
};

/* For sections of a file of that format. -ENOMEM; seal_done() is due then, too. */
int seal_begin(struct state_seal *s, unsigned format, const uint8_t key[STATE_KEY_LEN]);
/* The seal of a section, of `said` and its n bytes; what it does not need of `out` is zero. -ENOMEM. Any thread. */
int seal_section(const struct state_seal *s, const uint8_t said[SEAL_SAID], const void *p,
                 size_t n, uint8_t out[STATE_DIGEST_LEN]);
void seal_done(struct state_seal *s);

/* The HMAC of the texts, one after the other. -ENOMEM. */
int seal_whole(const uint8_t key[STATE_KEY_LEN], const struct iovec text[3],
               uint8_t out[STATE_DIGEST_LEN]);

#endif
