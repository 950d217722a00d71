/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a piece of memory in a migration: those that are named, each zero, whole, or as what differs from what was sent
 * of it before. A struct pages_codec belongs to one thread at a time; what it reads may be written by the guest meanwhile:
 * such a page is dirty again and goes again.
 *
 * Body: u8 1 (zstd) or 0 (as they are), 7 bytes of zero; three times a bit for each of 256 pages: named, whole, differing; then
 * 4 KiB for each page whole or differing, in order. One that differs is combined with what is there by exclusive or. A page
 * that is named and neither is zero.
 */
#ifndef VMD_EMU_STATE_PAGES_H
#define VMD_EMU_STATE_PAGES_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/core/mem.h"

#include <stdbool.h>
#include <stdint.h>

#define PAGES_CHUNK 256u /* pages of a piece */
#define PAGES_WORDS (PAGES_CHUNK / 64)
#define PAGES_HEAD 104u

/* What was sent of pages before, for differences; NULL entries: nothing. */
struct pages_cache {
    uint64_t *tag; /* region and page that a slot holds, plus one */
    uint8_t *data;
    uint64_t slots; /* a power of two; 0: no differences are made */
    uint64_t hits, misses;
};

struct pages_codec {
    void *pack, *unpack; /* zstd's */
    struct buf bytes, pages;
    uint64_t n_zero, n_whole, n_differ, n_same; /* pages, all times */
};

/* About `bytes` of memory; less where there is not as much. */
void pages_cache_init(struct pages_cache *c, uint64_t bytes);
void pages_cache_done(struct pages_cache *c);

/* c->bytes gets the body for the pages of `named` (bit N: page + N) of region number `region`. False: nothing needs to be told,
 * where `fresh`: who receives it has zeroes there. */
bool pages_pack(struct pages_codec *c, struct pages_cache *cache, struct mem_region *r,
                uint32_t region, uint64_t page, const uint64_t named[PAGES_WORDS], bool fresh);
/* From a body into memory. -EBADMSG: it is no such thing; some pages may have been written. */
int pages_unpack(struct pages_codec *c, struct mem_region *r, uint64_t page,
                 const uint8_t *body, size_t n, struct err *e);
void pages_done(struct pages_codec *c);

#endif
