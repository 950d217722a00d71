/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written blocks in memory: a table from the number of a block of 32 KiB to its bytes, with a bit a sector that was written.
 */
#include "engine/emu/replay/scratch.h"

#include "engine/base/hash.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u
#define BLOCK (64 * SECTOR)

struct block {
    uint64_t written; /* a bit a sector */
    uint8_t *bytes;   /* NULL: zeroes */
};

struct scratch {
    struct hash *blocks; /* struct block */
    uint64_t max, taken;
};

struct scratch *scratch_new(uint64_t max)
{
    struct scratch *s = xnew(struct scratch);

    s->blocks = hash_new_u64();
    s->max = max;
    return s;
}

static bool free_block(const char *skey, uint64_t key, void *value, void *arg)
{
    struct block *b = value;

    (void)skey;
    (void)key;
    (void)arg;
    free(b->bytes);
    free(b);
    return true;
}

void scratch_free(struct scratch *s)
{
    if (s) {
        hash_each(s->blocks, free_block, NULL);
        hash_free(s->blocks);
        free(s);
    }
}

static uint64_t bits_of(uint64_t from, uint64_t to)
{
    uint64_t first = from / SECTOR, n = (to - from) / SECTOR;

    return (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << first;
}

/* Memory that the range takes at most; -ENOSPC is told before anything changes. */
static bool fits(const struct scratch *s, uint64_t at, uint64_t n, bool zeroes)
{
    uint64_t blocks = n == 0 ? 0 : (at + n - 1) / BLOCK - at / BLOCK + 1;
    uint64_t each = sizeof(struct block) + 32 + (zeroes ? 0 : BLOCK);

    return blocks <= (s->max - s->taken) / each && s->max - s->taken >= 4 * (uint64_t)BLOCK;
}

static struct block *block_at(struct scratch *s, uint64_t number)
{
    struct block *b = hash_get_u64(s->blocks, number);

    if (!b) {
        b = xnew(struct block);
        s->taken += sizeof(*b) + 32;
        hash_put_u64(s->blocks, number, b);
    }
    return b;
}

static void write_part(struct scratch *s, struct block *b, uint64_t from, uint64_t to,
                       const uint8_t *p)
{
    if (!b->bytes && (p || to - from < BLOCK)) {
        if (!p && !b->written) { /* zeroes over nothing: a block of zeroes serves */
            b->written |= bits_of(from, to);
            return;
        }
        b->bytes = xnew_n(uint8_t, BLOCK);
        s->taken += BLOCK;
    }
    if (b->bytes && p) {
        memcpy(b->bytes + from, p, to - from);
    } else if (b->bytes) {
        memset(b->bytes + from, 0, to - from);
    }
    b->written |= bits_of(from, to);
}

int scratch_write(struct scratch *s, uint64_t at, const uint8_t *p, uint64_t n)
{
    if (!fits(s, at, n, !p)) {
        return -ENOSPC;
    }
    for (uint64_t done = 0; done < n;) {
        uint64_t from = (at + done) % BLOCK, part = BLOCK - from;

        part = part < n - done ? part : n - done;
        write_part(s, block_at(s, (at + done) / BLOCK), from, from + part, p ? p + done : NULL);
        done += part;
    }
    return 0;
}

void scratch_over(const struct scratch *s, uint64_t at, uint8_t *p, uint64_t n)
{
    for (uint64_t done = 0; done < n;) {
        uint64_t from = (at + done) % BLOCK, part = SECTOR - from % SECTOR;
        const struct block *b = hash_get_u64(s->blocks, (at + done) / BLOCK);

        part = part < n - done ? part : n - done;
        if (!b) {
            part = BLOCK - from < n - done ? BLOCK - from : n - done;
        } else if (b->written >> from / SECTOR & 1) {
            if (b->bytes) {
                memcpy(p + done, b->bytes + from, part);
            } else {
                memset(p + done, 0, part);
            }
        }
        done += part;
    }
}

struct scratch *scratch_copy(const struct scratch *s, uint64_t at, uint64_t n)
{
    struct scratch *copy = scratch_new(s->max);

    for (uint64_t i = at / BLOCK; n > 0 && i <= (at + n - 1) / BLOCK; i++) {
        const struct block *b = hash_get_u64(s->blocks, i);

        if (b) {
            struct block *k = xmemdup(b, sizeof(*b));

            k->bytes = b->bytes ? xmemdup(b->bytes, BLOCK) : NULL;
            hash_put_u64(copy->blocks, i, k);
        }
    }
    return copy;
}

bool scratch_has(const struct scratch *s, uint64_t at, uint64_t n)
{
    for (uint64_t b = at / BLOCK; n > 0 && b <= (at + n - 1) / BLOCK; b++) {
        if (hash_get_u64(s->blocks, b)) {
            return true;
        }
    }
    return false;
}
