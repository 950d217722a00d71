/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a migration to bytes and back.
 */
#include "engine/emu/state/pages.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#define LEVEL 1 /* of zstd: faster than most links */
#define NAMED 8
#define WHOLE 40
#define DIFFER 72

static bool bit(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void set_bit(uint8_t *bits, uint64_t i)
{
    bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static uint64_t pages_of(const struct mem_region *r, uint64_t page)
{
    uint64_t all = (mem_region_size(r) + MEM_PAGE_SIZE - 1) / MEM_PAGE_SIZE;

    return all <= page ? 0 : all - page < PAGES_CHUNK ? all - page : PAGES_CHUNK;
}

/* Bytes of a page: the last one may be short. */
static size_t page_bytes(const struct mem_region *r, uint64_t page)
{
    uint64_t left = mem_region_size(r) - page * MEM_PAGE_SIZE;

    return left < MEM_PAGE_SIZE ? (size_t)left : MEM_PAGE_SIZE;
}

static bool is_zero(const uint8_t *p)
{
    return p[0] == 0 && memcmp(p, p + 1, MEM_PAGE_SIZE - 1) == 0;
}

/* ---- the cache ---- */

void pages_cache_init(struct pages_cache *c, uint64_t bytes)
{
    uint64_t slots = 1;

    *c = (struct pages_cache){ .slots = 0 };
    while (slots * 2 * MEM_PAGE_SIZE <= bytes) {
        slots *= 2;
    }
    if (bytes < MEM_PAGE_SIZE) {
        return;
    }
    c->tag = calloc(slots, sizeof(*c->tag));
    c->data = malloc(slots * MEM_PAGE_SIZE); /* a size that the caller chose */
    if (!c->tag || !c->data) {
        pages_cache_done(c);
        return;
    }
    c->slots = slots;
}

void pages_cache_done(struct pages_cache *c)
{
    free(c->tag);
    free(c->data);
    *c = (struct pages_cache){ .slots = 0 };
}

static uint64_t *slot(struct pages_cache *c, uint32_t region, uint64_t page, uint8_t **data,
                      uint64_t *tag)
{
    uint64_t i = (page ^ (uint64_t)region * 0x9e3779b1u) & (c->slots - 1);

    *data = c->data + i * MEM_PAGE_SIZE;
    *tag = ((uint64_t)region << 52 | page) + 1;
    return &c->tag[i];
}

/* ---- packing ---- */

/* What is sent is what was read once: the guest may write meanwhile. True: the page differs from what was sent, and `now` has
 * the difference. */
static bool take_difference(struct pages_cache *cache, uint32_t region, uint64_t page,
                            uint8_t *now)
{
    uint8_t *data;
    uint64_t tag, *has = slot(cache, region, page, &data, &tag);
    bool hit = *has == tag;

    for (unsigned i = 0; i < MEM_PAGE_SIZE; i += 8) {
        uint64_t a, b, x;

        memcpy(&a, now + i, 8);
        if (hit) {
            memcpy(&b, data + i, 8);
            x = a ^ b;
            memcpy(now + i, &x, 8);
        }
        memcpy(data + i, &a, 8);
    }
    *has = tag;
    cache->hits += hit;
    cache->misses += !hit;
    return hit;
}

static void forget(struct pages_cache *cache, uint32_t region, uint64_t page)
{
    uint8_t *data;
    uint64_t tag, *has;

    if (cache->slots) {
        has = slot(cache, region, page, &data, &tag);
        *has = *has == tag ? 0 : *has;
    }
}

/* Page i of the piece: reads it and says of it what it is. */
static void add_page(struct pages_codec *c, struct pages_cache *cache, struct mem_region *r,
                     uint32_t region, uint64_t page, uint64_t i, bool fresh, bool holds)
{
    uint8_t *head = (uint8_t *)c->bytes.data;
    uint8_t *now = (uint8_t *)c->pages.data + c->pages.len;
    size_t size = page_bytes(r, page + i);

    set_bit(head + NAMED, i);
    memset(now, 0, MEM_PAGE_SIZE);
    if (holds) { /* reading what it does not hold would give it memory */
        memcpy(now, mem_ram_host(r) + (page + i) * MEM_PAGE_SIZE, size);
    }
    if (is_zero(now)) {
        c->n_zero++;
        forget(cache, region, page + i);
        return;
    }
    if (!fresh && cache->slots && take_difference(cache, region, page + i, now)) {
        if (is_zero(now)) { /* as it was sent */
            head[NAMED + i / 8] &= (uint8_t) ~(1u << i % 8);
            c->n_same++;
            return;
        }
        set_bit(head + DIFFER, i);
        c->n_differ++;
    } else {
        set_bit(head + WHOLE, i);
        c->n_whole++;
    }
    c->pages.len += MEM_PAGE_SIZE;
}

static void compress_pages(struct pages_codec *c)
{
    size_t room = ZSTD_compressBound(c->pages.len), n = 0;

    c->pack = c->pack ? c->pack : ZSTD_createCCtx();
    buf_reserve(&c->bytes, room);
    if (c->pack) {
        n = ZSTD_compressCCtx(c->pack, c->bytes.data + PAGES_HEAD, room, c->pages.data,
                              c->pages.len, LEVEL);
    }
    if (c->pack && !ZSTD_isError(n) && n < c->pages.len) {
        c->bytes.data[0] = 1;
        c->bytes.len = PAGES_HEAD + n;
    } else {
        buf_add(&c->bytes, c->pages.data, c->pages.len);
    }
}

bool pages_pack(struct pages_codec *c, struct pages_cache *cache, struct mem_region *r,
                uint32_t region, uint64_t page, const uint64_t named[PAGES_WORDS], bool fresh)
{
    static const uint8_t head[PAGES_HEAD];
    uint64_t n = pages_of(r, page), any = 0, known = page * MEM_PAGE_SIZE, length;
    bool holds = false;

    c->bytes.len = c->pages.len = 0;
    buf_add(&c->bytes, head, sizeof(head));
    buf_reserve(&c->pages, PAGES_CHUNK * MEM_PAGE_SIZE);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = (page + i) * MEM_PAGE_SIZE;

        if (!(named[i / 64] >> i % 64 & 1)) {
            continue;
        }
        if (at >= known) {
            holds = mem_region_holds(r, at, &length);
            known = at + (length > MEM_PAGE_SIZE ? length & ~(uint64_t)(MEM_PAGE_SIZE - 1)
                                                 : MEM_PAGE_SIZE);
        }
        add_page(c, cache, r, region, page, i, fresh, holds);
    }
    for (unsigned i = 0; i < PAGES_CHUNK / 8; i++) {
        any |= (uint8_t)c->bytes.data[NAMED + i];
    }
    if (c->pages.len > 0) {
        compress_pages(c);
    }
    return c->pages.len > 0 || (any && !fresh);
}

/* ---- unpacking ---- */

static int expand(struct pages_codec *c, const uint8_t *body, size_t n, size_t want,
                  struct err *e)
{
    const uint8_t *from = body + PAGES_HEAD;
    size_t got = n - PAGES_HEAD;

    c->pages.len = 0;
    buf_reserve(&c->pages, want + 1);
    if (body[0] == 1) {
        c->unpack = c->unpack ? c->unpack : ZSTD_createDCtx();
        if (!c->unpack) {
            return err_set(e, -ENOMEM, "no memory to unpack pages");
        }
        got = ZSTD_decompressDCtx(c->unpack, c->pages.data, want, from, got);
        if (got != want) { /* an error code is none of these numbers */
            return err_set(e, -EBADMSG, "its pages cannot be unpacked");
        }
    } else if (body[0] == 0 && got == want) {
        memcpy(c->pages.data, from, want);
    } else if (body[0] == 0) {
        return err_set(e, -EBADMSG, "it has %zu bytes of pages and names %zu", got, want);
    } else {
        return err_set(e, -EBADMSG, "its packing is %u, which this program does not know",
                       body[0]);
    }
    return 0;
}

/* The masks must fit each other and the region. *data: pages that have bytes. */
static int check_masks(const uint8_t *body, uint64_t n, size_t *data, struct err *e)
{
    *data = 0;
    for (uint64_t i = 0; i < PAGES_CHUNK; i++) {
        bool named = bit(body + NAMED, i), whole = bit(body + WHOLE, i),
             differ = bit(body + DIFFER, i);

        if (named && i >= n) {
            return err_set(e, -EBADMSG, "it names a page beyond the end of its region");
        }
        if ((whole && differ) || (!named && (whole || differ))) {
            return err_set(e, -EBADMSG, "its masks of pages contradict each other");
        }
        *data += whole || differ;
    }
    return 0;
}

static void combine(uint8_t *to, const uint8_t *with, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] ^= with[i];
    }
}

int pages_unpack(struct pages_codec *c, struct mem_region *r, uint64_t page,
                 const uint8_t *body, size_t n, struct err *e)
{
    uint64_t count = pages_of(r, page);
    const uint8_t *from;
    size_t data;
    int rc;

    if (n < PAGES_HEAD) {
        return err_set(e, -EBADMSG, "it has %zu bytes, which are too few", n);
    }
    rc = check_masks(body, count, &data, e);
    rc = rc == 0 ? expand(c, body, n, data * MEM_PAGE_SIZE, e) : rc;
    from = (const uint8_t *)c->pages.data;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        uint64_t at = (page + i) * MEM_PAGE_SIZE, length;
        uint8_t *to = mem_ram_host(r) + at;

        if (bit(body + WHOLE, i)) {
            memcpy(to, from, page_bytes(r, page + i));
            from += MEM_PAGE_SIZE;
        } else if (bit(body + DIFFER, i)) {
            combine(to, from, page_bytes(r, page + i));
            from += MEM_PAGE_SIZE;
        } else if (bit(body + NAMED, i) && mem_region_holds(r, at, &length)) {
            mem_region_clear(r, at, page_bytes(r, page + i));
        }
    }
    return rc;
}

void pages_done(struct pages_codec *c)
{
    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    buf_done(&c->bytes);
    buf_done(&c->pages);
    *c = (struct pages_codec){ .pack = NULL };
}
