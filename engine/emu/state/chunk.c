/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of memory to bytes and back.
 */
#include "engine/emu/state/chunk.h"

#include "engine/base/entropy.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#define HEAD 40u /* bytes before the pages */
#define LEVEL 1  /* of zstd: as fast as the copy to the page cache */

static uint64_t pages_of(const struct mem_region *r, uint64_t page)
{
    uint64_t all = (mem_region_size(r) + MEM_PAGE_SIZE - 1) / MEM_PAGE_SIZE;

    return all - page < CHUNK_PAGES ? all - page : CHUNK_PAGES;
}

/* Bytes of a page: the last one may be short. */
static size_t page_bytes(const struct mem_region *r, uint64_t page)
{
    uint64_t left = mem_region_size(r) - page * MEM_PAGE_SIZE;

    return left < MEM_PAGE_SIZE ? (size_t)left : MEM_PAGE_SIZE;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Gathers the pages that are not zero; a short last one is filled up. */
static void gather(struct chunk_codec *c, struct mem_region *r, uint64_t page)
{
    const uint8_t *host = mem_ram_host(r);
    uint8_t *bits = (uint8_t *)c->bytes.data + 8;
    uint64_t n = pages_of(r, page), length = 0, i = 0;
    static const uint8_t zero[MEM_PAGE_SIZE];

    while (i < n) {
        uint64_t at = (page + i) * MEM_PAGE_SIZE;
        bool holds = mem_region_holds(r, at, &length);
        uint64_t end = at + length >= mem_region_size(r) ? n
                                                         : (at + length) / MEM_PAGE_SIZE - page;

        end = end > n ? n : end <= i ? i + 1 : end;
        for (; holds && i < end; i++) {
            const uint8_t *p = host + (page + i) * MEM_PAGE_SIZE;
            size_t size = page_bytes(r, page + i);

            if (!is_zero(p, size)) {
                bits[i / 8] |= (uint8_t)(1u << i % 8);
                buf_add(&c->bytes, p, size);
                buf_add(&c->bytes, zero, MEM_PAGE_SIZE - size);
            }
        }
        i = end;
    }
}

static void begin_pack(struct chunk_codec *c)
{
    static const uint8_t head[HEAD];

    c->bytes.len = 0;
    buf_reserve(&c->bytes, HEAD + CHUNK_BYTES);
    buf_add(&c->bytes, head, sizeof(head));
}

static bool end_pack(struct chunk_codec *c)
{
    size_t have = c->bytes.len - HEAD, n;

    if (have == 0) {
        return false;
    }
    if (looks_random((const uint8_t *)c->bytes.data + HEAD, have)) {
        return true;
    }
    c->pack = c->pack ? c->pack : ZSTD_createCCtx();
    c->pages.len = 0;
    buf_reserve(&c->pages, HEAD + have);
    n = c->pack ? ZSTD_compressCCtx(c->pack, c->pages.data + HEAD, have - 1,
                                    c->bytes.data + HEAD, have, LEVEL)
                : 0;
    if (c->pack && !ZSTD_isError(n)) {
        struct buf whole = c->bytes;

        memcpy(c->pages.data, whole.data, HEAD);
        c->pages.data[0] = 1;
        c->pages.len = HEAD + n;
        c->bytes = c->pages;
        c->pages = whole;
    }
    return true;
}

bool chunk_pack(struct chunk_codec *c, struct mem_region *r, uint64_t page)
{
    begin_pack(c);
    gather(c, r, page);
    return end_pack(c);
}

bool chunk_pack_copy(struct chunk_codec *c, const uint8_t *from, size_t n)
{
    static const uint8_t zero[MEM_PAGE_SIZE];

    begin_pack(c);
    for (size_t i = 0; i * MEM_PAGE_SIZE < n; i++) {
        const uint8_t *p = from + i * MEM_PAGE_SIZE;
        size_t size = n - i * MEM_PAGE_SIZE;

        size = size < MEM_PAGE_SIZE ? size : MEM_PAGE_SIZE;
        if (!is_zero(p, size)) {
            c->bytes.data[8 + i / 8] |= (char)(1u << i % 8);
            buf_add(&c->bytes, p, size);
            buf_add(&c->bytes, zero, MEM_PAGE_SIZE - size);
        }
    }
    return end_pack(c);
}

static int expand(struct chunk_codec *c, size_t want, struct err *e)
{
    const uint8_t *from = (const uint8_t *)c->bytes.data + HEAD;
    size_t n = c->bytes.len - HEAD;

    c->pages.len = 0;
    buf_reserve(&c->pages, want + 1);
    if (c->bytes.data[0] == 1) {
        c->unpack = c->unpack ? c->unpack : ZSTD_createDCtx();
        if (!c->unpack) {
            return err_set(e, -ENOMEM, "no memory to unpack a piece of the state");
        }
        n = ZSTD_decompressDCtx(c->unpack, c->pages.data, want, from, n);
    } else if (c->bytes.data[0] == 0 && n == want) {
        memcpy(c->pages.data, from, n);
    } else {
        n = SIZE_MAX;
    }
    if (n != want) { /* an error code is none of these numbers */
        return err_set(e, -EBADMSG, "a piece of memory in the state cannot be unpacked");
    }
    c->pages.len = want;
    return 0;
}

/* Which of the chunk's n pages are there, unpacked into c->pages. */
static int take_pages(struct chunk_codec *c, uint64_t n, uint8_t bits[CHUNK_PAGES / 8],
                      struct err *e)
{
    size_t some = 0;

    if (c->bytes.len < HEAD) {
        return err_set(e, -EBADMSG, "a piece of memory in the state is too short");
    }
    memcpy(bits, c->bytes.data + 8, CHUNK_PAGES / 8);
    for (uint64_t i = 0; i < CHUNK_PAGES; i++) {
        bool is = bits[i / 8] & (1u << i % 8);

        if (is && i >= n) {
            return err_set(e, -EBADMSG,
                           "a piece of memory in the state goes beyond its region");
        }
        some += is;
    }
    return expand(c, some * MEM_PAGE_SIZE, e);
}

int chunk_unpack(struct chunk_codec *c, struct mem_region *r, uint64_t page, struct err *e)
{
    uint64_t n = pages_of(r, page);
    uint8_t *host = mem_ram_host(r), bits[CHUNK_PAGES / 8];
    int rc = take_pages(c, n, bits, e);

    for (uint64_t i = 0, at = 0; i < n && rc == 0; i++) {
        if (bits[i / 8] & (1u << i % 8)) {
            memcpy(host + (page + i) * MEM_PAGE_SIZE, c->pages.data + at,
                   page_bytes(r, page + i));
            at += MEM_PAGE_SIZE;
        } else {
            uint64_t from = (page + i) * MEM_PAGE_SIZE, length;

            if (mem_region_holds(r, from, &length)) {
                mem_region_clear(r, from, page_bytes(r, page + i));
            }
        }
    }
    return rc;
}

int chunk_unpack_copy(struct chunk_codec *c, uint8_t *to, size_t n, struct err *e)
{
    uint8_t bits[CHUNK_PAGES / 8];
    int rc = take_pages(c, (n + MEM_PAGE_SIZE - 1) / MEM_PAGE_SIZE, bits, e);

    for (size_t i = 0, at = 0; i * MEM_PAGE_SIZE < n && rc == 0; i++) {
        size_t size = n - i * MEM_PAGE_SIZE;

        size = size < MEM_PAGE_SIZE ? size : MEM_PAGE_SIZE;
        if (bits[i / 8] & (1u << i % 8)) {
            memcpy(to + i * MEM_PAGE_SIZE, c->pages.data + at, size);
            at += MEM_PAGE_SIZE;
        } else {
            memset(to + i * MEM_PAGE_SIZE, 0, size);
        }
    }
    return rc;
}

void chunk_done(struct chunk_codec *c)
{
    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    buf_done(&c->bytes);
    buf_done(&c->pages);
    *c = (struct chunk_codec){ .pack = NULL };
}
