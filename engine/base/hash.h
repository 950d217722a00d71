/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash tables keyed by string or by 64-bit number. Open addressing, grows at 3/4 load.
 * Values are borrowed pointers, never NULL. No lock: the owner says what protects it.
 */
#ifndef VMD_BASE_HASH_H
#define VMD_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash; /* one table */

struct hash *hash_new_str(void); /* keys are copied */
struct hash *hash_new_u64(void);
void hash_free(struct hash *h); /* keys go, values stay the caller's */
size_t hash_count(const struct hash *h);

void *hash_get_str(const struct hash *h, const char *key); /* NULL when absent */
void *hash_put_str(struct hash *h, const char *key, void *value); /* returns what it replaced */
void *hash_del_str(struct hash *h, const char *key);
void *hash_get_u64(const struct hash *h, uint64_t key);
void *hash_put_u64(struct hash *h, uint64_t key, void *value);
void *hash_del_u64(struct hash *h, uint64_t key);

/* Calls fn for every entry until it returns false; the table must not change meanwhile. */
void hash_each(const struct hash *h, bool (*fn)(const char *skey, uint64_t ukey, void *value, void *arg),
               void *arg);

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);

#endif
