/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A piece of guest memory as a section of a state: which of its pages are not zero, and those, compressed by zstd when that is
 * shorter. Any thread; a struct chunk_codec belongs to one at a time.
 *
 * Bytes: u8 1 (zstd) or 0 (as they are), 7 bytes of zero, a bit for each of 256 pages, the pages.
 */
#ifndef VMD_EMU_STATE_CHUNK_H
#define VMD_EMU_STATE_CHUNK_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/core/mem.h"

#include <stdbool.h>
#include <stdint.h>

#define CHUNK_PAGES 256u
#define CHUNK_BYTES ((uint64_t)CHUNK_PAGES * MEM_PAGE_SIZE)

struct chunk_codec {
    void *pack, *unpack; /* zstd's */
    struct buf bytes, pages;
};

/* The chunk whose first page is `page`. False: it is zero, nothing is to be kept. Else c->bytes has it. */
bool chunk_pack(struct chunk_codec *c, struct mem_region *r, uint64_t page);
/* From c->bytes into memory, the pages that are not there as zeroes. -EBADMSG: it is no such thing. */
int chunk_unpack(struct chunk_codec *c, struct mem_region *r, uint64_t page, struct err *e);
/* The same of a copy of the chunk, n bytes (CHUNK_BYTES but for the last one of a region). */
bool chunk_pack_copy(struct chunk_codec *c, const uint8_t *from, size_t n);
/* From c->bytes into n bytes, all of which are written. */
int chunk_unpack_copy(struct chunk_codec *c, uint8_t *to, size_t n, struct err *e);
void chunk_done(struct chunk_codec *c);

#endif
