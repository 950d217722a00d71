/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash tables: open addressing with linear probing, and removal by shifting back, so that no
 * tombstones gather. Owns the slots and the copies of string keys; the caller locks.
 * Each table hashes under a secret of its own (SipHash-1-3), since clients choose names.
 */
#include "engine/base/hash.h"

#include "engine/base/mem.h"

#include <assert.h>
#include <endian.h>
#include <string.h>
#include <sys/random.h>

struct slot {
    char *skey; /* string tables only */
    uint64_t ukey;
    uint64_t hash;
    void *value; /* NULL: the slot is free */
};

struct hash {
    struct slot *slots;
    size_t mask; /* slots - 1, a power of two less one */
    size_t count;
    uint64_t seed;
    bool strings;
};

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

/* Aumasson and Bernstein, "SipHash: a fast short-input PRF", §2, with 1 and 3 rounds. */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *bytes = p;
    uint64_t k0 = seed, k1 = seed * UINT64_C(0x9e3779b97f4a7c15);
    struct sip s = { k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573) };
    size_t i = 0;
    uint64_t m;
    for (; n - i >= 8; i += 8) {
        memcpy(&m, bytes + i, 8);
        sip_word(&s, le64toh(m));
    }
    m = (uint64_t)n << 56;
    for (unsigned shift = 0; i < n; i++, shift += 8) {
        m |= (uint64_t)bytes[i] << shift;
    }
    sip_word(&s, m);
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static struct hash *hash_new(bool strings)
{
    struct hash *h = xnew(struct hash);
    h->strings = strings;
    h->mask = 15;
    h->slots = xnew_n(struct slot, h->mask + 1);
    if (getrandom(&h->seed, sizeof(h->seed), GRND_NONBLOCK) != (ssize_t)sizeof(h->seed)) {
        h->seed = (uintptr_t)h; /* early boot: the address is the only secret at hand */
    }
    return h;
}

struct hash *hash_new_str(void)
{
    return hash_new(true);
}

struct hash *hash_new_u64(void)
{
    return hash_new(false);
}

void hash_free(struct hash *h)
{
    if (!h) {
        return;
    }
    for (size_t i = 0; h->strings && i <= h->mask; i++) {
        free(h->slots[i].skey);
    }
    free(h->slots);
    free(h);
}

size_t hash_count(const struct hash *h)
{
    return h->count;
}

/* The finalizer of splitmix64: every bit of the key reaches every bit of the result. */
static uint64_t hash_u64(const struct hash *h, uint64_t key)
{
    uint64_t x = key + h->seed;
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The slot that holds the key, or the free slot where it belongs. */
static struct slot *find(const struct hash *h, uint64_t hash, const char *skey, uint64_t ukey)
{
    size_t i = hash & h->mask;
    while (h->slots[i].value) {
        const struct slot *s = &h->slots[i];
        if (s->hash == hash && (skey ? strcmp(s->skey, skey) == 0 : s->ukey == ukey)) {
            break;
        }
        i = (i + 1) & h->mask;
    }
    return &h->slots[i];
}

static void grow(struct hash *h)
{
    struct slot *old = h->slots;
    size_t n = h->mask + 1;
    h->slots = xnew_n(struct slot, 2 * n);
    h->mask = 2 * n - 1;
    for (size_t i = 0; i < n; i++) {
        if (old[i].value) {
            *find(h, old[i].hash, old[i].skey, old[i].ukey) = old[i];
        }
    }
    free(old);
}

static void *put(struct hash *h, uint64_t hash, const char *skey, uint64_t ukey, void *value)
{
    assert(value);
    struct slot *s = find(h, hash, skey, ukey);
    void *was = s->value;
    if (was) {
        s->value = value;
        return was;
    }
    if ((h->count + 1) * 4 > (h->mask + 1) * 3) {
        grow(h);
        s = find(h, hash, skey, ukey);
    }
    *s = (struct slot){ skey ? xstrdup(skey) : NULL, ukey, hash, value };
    h->count++;
    return NULL;
}

static void *del(struct hash *h, uint64_t hash, const char *skey, uint64_t ukey)
{
    struct slot *s = find(h, hash, skey, ukey);
    void *was = s->value;
    if (!was) {
        return NULL;
    }
    free(s->skey);
    h->count--;
    /* Moves later entries of the same run into the hole, as long as that is not before their
     * own place. */
    size_t hole = (size_t)(s - h->slots);
    for (size_t i = (hole + 1) & h->mask; h->slots[i].value; i = (i + 1) & h->mask) {
        size_t home = h->slots[i].hash & h->mask;
        if (((i - home) & h->mask) >= ((i - hole) & h->mask)) {
            h->slots[hole] = h->slots[i];
            hole = i;
        }
    }
    h->slots[hole] = (struct slot){ NULL, 0, 0, NULL };
    return was;
}

void *hash_get_str(const struct hash *h, const char *key)
{
    return find(h, hash_bytes(key, strlen(key), h->seed), key, 0)->value;
}

void *hash_put_str(struct hash *h, const char *key, void *value)
{
    return put(h, hash_bytes(key, strlen(key), h->seed), key, 0, value);
}

void *hash_del_str(struct hash *h, const char *key)
{
    return del(h, hash_bytes(key, strlen(key), h->seed), key, 0);
}

void *hash_get_u64(const struct hash *h, uint64_t key)
{
    return find(h, hash_u64(h, key), NULL, key)->value;
}

void *hash_put_u64(struct hash *h, uint64_t key, void *value)
{
    return put(h, hash_u64(h, key), NULL, key, value);
}

void *hash_del_u64(struct hash *h, uint64_t key)
{
    return del(h, hash_u64(h, key), NULL, key);
}

void hash_each(const struct hash *h,
               bool (*fn)(const char *skey, uint64_t ukey, void *value, void *arg), void *arg)
{
    for (size_t i = 0; i <= h->mask; i++) {
        const struct slot *s = &h->slots[i];
        if (s->value && !fn(s->skey, s->ukey, s->value, arg)) {
            return;
        }
    }
}
