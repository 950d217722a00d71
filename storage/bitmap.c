/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps in memory. Bits live in chunks that exist only when some of their bits are set, so that a
 * bitmap of a large disk costs what has changed. Owns the bitmaps of each node; one mutex a node protects them.
 */
#include "storage/bitmap.h"

#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BITS = 32768, CHUNK_BYTES = CHUNK_BITS / 8, CHUNK_WORDS = CHUNK_BITS / 64 };
enum { MIN_SHIFT = 9, MAX_SHIFT = 31, DEFAULT_MIN = 4096, DEFAULT_GRAIN = 65536 };

/* Stands for each chunk whose bits are all set; never written. */
static const uint64_t full[CHUNK_WORDS] = { [0 ... CHUNK_WORDS - 1] = UINT64_MAX };

struct bits {
    uint64_t n, n_set;
    const uint64_t **chunk; /* NULL: all zero */
    uint64_t n_chunks;
};

struct blk_dirty {
    struct list link;
    struct blk_node *node;
    struct blk_dirty_set *set;
    char *name;
    unsigned shift; /* log2 of the granularity */
    uint64_t size;  /* bytes of the node */
    bool enabled, persistent, frozen, inconsistent;
    struct bits bits, later; /* later: while frozen */
    void *note;
};

struct blk_dirty_set {
    pthread_mutex_t mutex;
    struct list bitmaps; /* struct blk_dirty.link */
};

/* --- bits; mutex held --- */

static bool bits_init(struct bits *b, uint64_t n)
{
    *b = (struct bits){ .n = n, .n_chunks = n / CHUNK_BITS + (n % CHUNK_BITS != 0) };
    b->chunk = try_alloc_n(b->n_chunks + 1, sizeof(*b->chunk));
    return b->chunk != NULL;
}

static void chunk_put(struct bits *b, uint64_t i, const uint64_t *now)
{
    if (b->chunk[i] != full) {
        free((void *)(uintptr_t)b->chunk[i]);
    }
    b->chunk[i] = now;
}

static void bits_done(struct bits *b)
{
    for (uint64_t i = 0; b->chunk && i < b->n_chunks; i++) {
        chunk_put(b, i, NULL);
    }
    free(b->chunk);
    *b = (struct bits){ 0 };
}

/* Bits [from, to) of one word. */
static uint64_t word_mask(unsigned from, unsigned to)
{
    return (to == 64 ? UINT64_MAX : (1ull << to) - 1) & ~((1ull << from) - 1);
}

/* A chunk of our own, that may be written. */
static uint64_t *chunk_own(struct bits *b, uint64_t i)
{
    const uint64_t *was = b->chunk[i];

    if (!was || was == full) {
        uint64_t *own = xnew_n(uint64_t, CHUNK_WORDS);

        memset(own, was ? 0xff : 0, CHUNK_BYTES);
        chunk_put(b, i, own);
    }
    return (uint64_t *)(uintptr_t)b->chunk[i];
}

/* Bits [from, to) of chunk i, which they do not fill. */
static void chunk_change(struct bits *b, uint64_t i, uint64_t from, uint64_t to, bool on)
{
    uint64_t *chunk = chunk_own(b, i);

    while (from < to) {
        uint64_t word = from / 64, stop = (word + 1) * 64 < to ? (word + 1) * 64 : to;
        uint64_t *w = &chunk[word % CHUNK_WORDS], was = *w;
        uint64_t mask = word_mask((unsigned)(from % 64), (unsigned)(stop - word * 64));

        *w = on ? was | mask : was & ~mask;
        b->n_set += (uint64_t)__builtin_popcountll(*w);
        b->n_set -= (uint64_t)__builtin_popcountll(was);
        from = stop;
    }
}

static uint64_t chunk_count(const uint64_t *chunk)
{
    uint64_t n = chunk == full ? CHUNK_BITS : 0;

    for (unsigned i = 0; chunk && chunk != full && i < CHUNK_WORDS; i++) {
        n += (uint64_t)__builtin_popcountll(chunk[i]);
    }
    return n;
}

static void bits_change(struct bits *b, uint64_t from, uint64_t to, bool on)
{
    while (from < to) {
        uint64_t c = from / CHUNK_BITS, end = (c + 1) * CHUNK_BITS;

        end = end < to ? end : to;
        if (b->chunk[c] == (on ? full : NULL)) {
            from = end; /* it is so already */
            continue;
        }
        if (end - from == CHUNK_BITS) {
            b->n_set -= chunk_count(b->chunk[c]);
            b->n_set += on ? CHUNK_BITS : 0;
            chunk_put(b, c, on ? full : NULL);
        } else {
            chunk_change(b, c, from, end, on);
        }
        from = end;
    }
}

/* The first bit from `at` on that is (on) or is not set; b->n when there is none. */
static uint64_t bits_next(const struct bits *b, uint64_t at, bool on)
{
    while (at < b->n) {
        const uint64_t *chunk = b->chunk[at / CHUNK_BITS];
        uint64_t w;

        if (!chunk) {
            if (!on) {
                return at;
            }
            at = (at / CHUNK_BITS + 1) * CHUNK_BITS;
            continue;
        }
        w = chunk[at / 64 % CHUNK_WORDS];
        w = (on ? w : ~w) & word_mask((unsigned)(at % 64), 64);
        if (w) {
            at = at / 64 * 64 + (unsigned)__builtin_ctzll(w);
            return at < b->n ? at : b->n;
        }
        at = (at / 64 + 1) * 64;
    }
    return b->n;
}

static void bits_join(struct bits *to, const struct bits *from)
{
    for (uint64_t at = bits_next(from, 0, true), end; at < from->n;
         at = bits_next(from, end, true)) {
        end = bits_next(from, at, false);
        bits_change(to, at, end, true);
    }
}

/* Another size. What is new is `on`. */
static bool bits_resize(struct bits *b, uint64_t n, bool on)
{
    struct bits now;
    uint64_t was = b->n;

    if (!bits_init(&now, n)) {
        return false;
    }
    if (n < was) {
        bits_change(b, n, was, false);
    }
    for (uint64_t i = 0; i < now.n_chunks && i < b->n_chunks; i++) {
        now.chunk[i] = b->chunk[i];
        b->chunk[i] = NULL;
    }
    now.n_set = b->n_set;
    bits_done(b);
    *b = now;
    if (on && n > was) {
        bits_change(b, was, n, true);
    }
    return true;
}

/* --- making and finding --- */

static uint64_t bits_for(uint64_t size, unsigned shift)
{
    return (size >> shift) + ((size & ((1ull << shift) - 1)) != 0);
}

static struct blk_dirty_set *set_of(struct blk_node *n)
{
    struct blk_dirty_set *s = n->dirty;

    if (!s) {
        s = xnew(struct blk_dirty_set);
        pthread_mutex_init(&s->mutex, NULL);
        list_init(&s->bitmaps);
        n->dirty = s; /* from here on other threads see it */
    }
    return s;
}

static int check_name(struct blk_node *n, const struct blk_dirty_options *o, struct err *e)
{
    struct blk_dirty *d = NULL;

    if (!o->name) {
        return 0;
    }
    if (!*o->name || strlen(o->name) > BLK_DIRTY_MAX_NAME) {
        return err_set(e, -EINVAL, "a bitmap's name has 1 to %d bytes", BLK_DIRTY_MAX_NAME);
    }
    while ((d = blk_dirty_each(n, d))) {
        if (d->name && strcmp(d->name, o->name) == 0) {
            return err_set(e, -EEXIST, "disk '%s' has a bitmap '%s' already", n->name, o->name);
        }
    }
    return 0;
}

static uint32_t default_granularity(struct blk_node *n)
{
    struct blk_image_info i;
    uint32_t g = DEFAULT_GRAIN;

    if (n->driver->image && n->driver->image->info && blk_info(n, &i, NULL) == 0) {
        g = i.cluster_size ? (uint32_t)i.cluster_size : g;
        blk_info_done(&i);
    }
    return g < DEFAULT_MIN ? DEFAULT_MIN : g;
}

int blk_dirty_new(struct blk_node *n, const struct blk_dirty_options *o, struct blk_dirty **out,
                  struct err *e)
{
    uint32_t g = o->granularity ? o->granularity : default_granularity(n);
    struct blk_dirty *d;
    unsigned shift;
    int rc = check_name(n, o, e);

    if (rc != 0) {
        return rc;
    }
    if (g < 1u << MIN_SHIFT || g & (g - 1)) {
        return err_set(e, -EINVAL,
                       "a bitmap's granularity is a power of two from 512 bytes to 2 GiB, not "
                       "%u",
                       g);
    }
    if (o->persistent && (!n->driver->image || !n->driver->image->bitmaps_kept ||
                          !n->driver->image->bitmaps_kept(n))) {
        return err_set(e, -ENOTSUP, "disk '%s': its format, %s, keeps no bitmaps", n->name,
                       n->driver->name);
    }
    shift = (unsigned)__builtin_ctz(g);
    if (bits_for(n->size, shift) > BLK_DIRTY_MAX_BITS) {
        return err_set(e, -EFBIG,
                       "disk '%s' is too large for a bitmap of granularity %u; raise it",
                       n->name, g);
    }
    d = xnew(struct blk_dirty);
    if (!bits_init(&d->bits, bits_for(n->size, shift))) {
        free(d);
        return err_set(e, -ENOMEM, "disk '%s': no memory for a bitmap", n->name);
    }
    d->node = n;
    d->name = o->name ? xstrdup(o->name) : NULL;
    d->shift = shift;
    d->size = n->size;
    d->enabled = !o->disabled;
    d->persistent = o->persistent;
    d->set = set_of(n);
    pthread_mutex_lock(&d->set->mutex);
    list_append(&d->set->bitmaps, &d->link);
    pthread_mutex_unlock(&d->set->mutex);
    *out = d;
    return 0;
}

static void dirty_destroy(struct blk_dirty *d)
{
    list_remove(&d->link);
    bits_done(&d->bits);
    bits_done(&d->later);
    free(d->note);
    free(d->name);
    free(d);
}

static int not_now(const struct blk_dirty *d, bool bits_needed, struct err *e)
{
    if (d->frozen) {
        return err_set(e, -EBUSY, "disk '%s': a job uses bitmap '%s'", d->node->name,
                       d->name ? d->name : "");
    }
    if (bits_needed && d->inconsistent) {
        return err_set(
            e, -EINVAL,
            "disk '%s': bitmap '%s' is inconsistent, since the image was not closed; "
            "remove it and begin with a full backup",
            d->node->name, d->name ? d->name : "");
    }
    return 0;
}

int blk_dirty_free(struct blk_dirty *d, struct err *e)
{
    struct blk_dirty_set *set = d ? d->set : NULL;
    int rc = d ? not_now(d, false, e) : 0;

    if (d && rc == 0) {
        pthread_mutex_lock(&set->mutex);
        dirty_destroy(d);
        pthread_mutex_unlock(&set->mutex);
    }
    return rc;
}

void blk_dirty_done(struct blk_node *n)
{
    if (n->dirty) {
        while (!list_empty(&n->dirty->bitmaps)) {
            dirty_destroy(list_entry(n->dirty->bitmaps.next, struct blk_dirty, link));
        }
        pthread_mutex_destroy(&n->dirty->mutex);
        free(n->dirty);
        n->dirty = NULL;
    }
}

struct blk_dirty *blk_dirty_each(struct blk_node *n, struct blk_dirty *last)
{
    struct list *next;

    if (!n->dirty) {
        return NULL;
    }
    next = last ? last->link.next : n->dirty->bitmaps.next;
    return next == &n->dirty->bitmaps ? NULL : list_entry(next, struct blk_dirty, link);
}

int blk_dirty_find(struct blk_node *n, const char *name, struct blk_dirty **out, struct err *e)
{
    struct blk_dirty *d = NULL;

    while ((d = blk_dirty_each(n, d))) {
        if (d->name && strcmp(d->name, name) == 0) {
            *out = d;
            return 0;
        }
    }
    return err_set(e, -ENOENT, "disk '%s' has no bitmap '%s'", n->name, name);
}

void blk_dirty_get(const struct blk_dirty *d, struct blk_dirty_info *out)
{
    pthread_mutex_lock(&d->set->mutex);
    *out = (struct blk_dirty_info){ .name = d->name,
                                    .granularity = 1u << d->shift,
                                    .size = d->size,
                                    .enabled = d->enabled,
                                    .persistent = d->persistent,
                                    .frozen = d->frozen,
                                    .inconsistent = d->inconsistent };
    out->dirty = d->bits.n_set << d->shift;
    out->dirty = out->dirty < d->size ? out->dirty : d->size;
    pthread_mutex_unlock(&d->set->mutex);
}

/* --- changing --- */

int blk_dirty_enable(struct blk_dirty *d, bool on, struct err *e)
{
    int rc = not_now(d, true, e);

    if (rc == 0) {
        pthread_mutex_lock(&d->set->mutex);
        d->enabled = on;
        pthread_mutex_unlock(&d->set->mutex);
    }
    return rc;
}

int blk_dirty_clear(struct blk_dirty *d, struct err *e)
{
    int rc = not_now(d, true, e);

    if (rc == 0) {
        pthread_mutex_lock(&d->set->mutex);
        bits_change(&d->bits, 0, d->bits.n, false);
        pthread_mutex_unlock(&d->set->mutex);
    }
    return rc;
}

static struct bits *bits_now(struct blk_dirty *d)
{
    return d->frozen ? &d->later : &d->bits;
}

/* Mutex held. */
static void set_range(struct blk_dirty *d, uint64_t offset, uint64_t length)
{
    uint64_t end = length < d->size - offset ? offset + length : d->size;

    bits_change(bits_now(d), offset >> d->shift, bits_for(end, d->shift), true);
}

int blk_dirty_merge(struct blk_dirty *to, const struct blk_dirty *from, struct err *e)
{
    int rc = not_now(to, true, e);
    uint64_t at = 0, length;

    rc = rc ? rc : not_now(from, true, e);
    if (rc == 0 && from->size != to->size) {
        return err_set(e, -EINVAL, "bitmaps '%s' and '%s' are of disks of different size",
                       from->name ? from->name : "", to->name ? to->name : "");
    }
    if (rc == 0 && from == to) {
        return 0;
    }
    while (rc == 0 && blk_dirty_next(from, at, UINT64_MAX, &at, &length)) {
        blk_dirty_set(to, at, length);
        at += length;
    }
    return rc;
}

void blk_dirty_set(struct blk_dirty *d, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&d->set->mutex);
    if (offset < d->size && length > 0) {
        set_range(d, offset, length);
    }
    pthread_mutex_unlock(&d->set->mutex);
}

void blk_dirty_reset(struct blk_dirty *d, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&d->set->mutex);
    if (offset < d->size && length > 0) {
        uint64_t end = length < d->size - offset ? offset + length : d->size;
        uint64_t from = bits_for(offset, d->shift);
        uint64_t to = end == d->size ? bits_now(d)->n : end >> d->shift;

        bits_change(bits_now(d), from, to, false);
    }
    pthread_mutex_unlock(&d->set->mutex);
}

bool blk_dirty_next(const struct blk_dirty *d, uint64_t offset, uint64_t most, uint64_t *at,
                    uint64_t *length)
{
    uint64_t from, to, limit, begin;

    if (offset >= d->size) {
        return false;
    }
    pthread_mutex_lock(&d->set->mutex);
    from = bits_next(&d->bits, offset >> d->shift, true);
    to = from < d->bits.n ? bits_next(&d->bits, from, false) : from;
    limit = most >> d->shift ? most >> d->shift : 1;
    to = to - from > limit ? from + limit : to;
    pthread_mutex_unlock(&d->set->mutex);
    if (from == to) {
        return false;
    }
    begin = from << d->shift;
    *at = begin > offset ? begin : offset;
    *length = (to << d->shift < d->size ? to << d->shift : d->size) - *at;
    return true;
}

int blk_dirty_freeze(struct blk_dirty *d, struct err *e)
{
    int rc = not_now(d, true, e);

    if (rc != 0) {
        return rc;
    }
    if (!bits_init(&d->later, d->bits.n)) {
        return err_set(e, -ENOMEM, "disk '%s': no memory for a bitmap", d->node->name);
    }
    pthread_mutex_lock(&d->set->mutex);
    d->frozen = true;
    pthread_mutex_unlock(&d->set->mutex);
    return 0;
}

void blk_dirty_thaw(struct blk_dirty *d, bool done)
{
    pthread_mutex_lock(&d->set->mutex);
    if (d->frozen) {
        struct bits keep = done ? d->later : d->bits, drop = done ? d->bits : d->later;

        if (!done) {
            bits_join(&keep, &drop);
        }
        bits_done(&drop);
        d->bits = keep;
        d->later = (struct bits){ 0 };
        d->frozen = false;
    }
    pthread_mutex_unlock(&d->set->mutex);
}

/* --- the node tells --- */

void blk_dirty_mark_range(struct blk_node *n, uint64_t offset, uint64_t length)
{
    if (!n->dirty || length == 0) {
        return;
    }
    pthread_mutex_lock(&n->dirty->mutex);
    list_for_each (it, &n->dirty->bitmaps) {
        struct blk_dirty *d = list_entry(it, struct blk_dirty, link);

        if (d->enabled && !d->inconsistent && offset < d->size) {
            set_range(d, offset, length);
        }
    }
    pthread_mutex_unlock(&n->dirty->mutex);
}

void blk_dirty_mark(struct blk_node *n, const struct blk_req *r)
{
    if (r->op == BLK_WRITE || r->op == BLK_ZERO || r->op == BLK_DISCARD) {
        blk_dirty_mark_range(n, r->offset, r->length);
    }
}

void blk_dirty_resized(struct blk_node *n, uint64_t size)
{
    if (!n->dirty) {
        return;
    }
    pthread_mutex_lock(&n->dirty->mutex);
    list_for_each (it, &n->dirty->bitmaps) {
        struct blk_dirty *d = list_entry(it, struct blk_dirty, link);
        uint64_t bits = bits_for(size, d->shift);

        if (bits > BLK_DIRTY_MAX_BITS || !bits_resize(&d->bits, bits, d->enabled) ||
            (d->frozen && !bits_resize(&d->later, bits, d->enabled))) {
            d->inconsistent = true; /* no memory: it knows nothing any more */
        } else {
            d->size = size;
        }
    }
    pthread_mutex_unlock(&n->dirty->mutex);
}

/* --- formats that keep them --- */

uint64_t blk_dirty_bytes(const struct blk_dirty *d)
{
    return (d->bits.n + 7) / 8;
}

/* What is set in either set: a bitmap in use by a job has lost nothing. */
static uint8_t byte_at(const struct bits *b, uint64_t i)
{
    const uint64_t *chunk = b->chunk ? b->chunk[i / CHUNK_BYTES] : NULL;

    return chunk ? (uint8_t)(chunk[i / 8 % CHUNK_WORDS] >> (i % 8 * 8)) : 0;
}

void blk_dirty_export(const struct blk_dirty *d, uint64_t first, uint8_t *out, size_t n,
                      bool *zero, bool *ones)
{
    uint64_t have = blk_dirty_bytes(d);
    uint64_t last = first + n < have ? first + n : have;

    memset(out, 0, n);
    *zero = *ones = true;
    pthread_mutex_lock(&d->set->mutex);
    for (uint64_t i = first; i < last; i++) {
        uint8_t all = i + 1 == have && d->bits.n % 8 ? (uint8_t)((1u << d->bits.n % 8) - 1)
                                                     : 0xff;

        if (i % CHUNK_BYTES == 0 && !d->bits.chunk[i / CHUNK_BYTES] && !d->frozen) {
            uint64_t skip = last - i < CHUNK_BYTES ? last - i : CHUNK_BYTES;

            *ones = false;
            i += skip - 1;
            continue;
        }
        out[i - first] = byte_at(&d->bits, i) | byte_at(&d->later, i);
        *zero = *zero && out[i - first] == 0;
        *ones = *ones && out[i - first] == all;
    }
    pthread_mutex_unlock(&d->set->mutex);
}

void blk_dirty_import(struct blk_dirty *d, uint64_t first, const uint8_t *in, size_t n)
{
    pthread_mutex_lock(&d->set->mutex);
    for (uint64_t i = 0; i < n && (first + i) * 8 < d->bits.n; i++) {
        for (unsigned k = 0; in[i] && k < 8; k++) {
            uint64_t bit = (first + i) * 8 + k;

            if (in[i] >> k & 1 && bit < d->bits.n) {
                bits_change(&d->bits, bit, bit + 1, true);
            }
        }
    }
    pthread_mutex_unlock(&d->set->mutex);
}

void blk_dirty_import_ones(struct blk_dirty *d, uint64_t first, uint64_t n)
{
    pthread_mutex_lock(&d->set->mutex);
    if (first * 8 < d->bits.n) {
        uint64_t end = n < d->bits.n / 8 + 1 - first ? (first + n) * 8 : d->bits.n;

        bits_change(&d->bits, first * 8, end < d->bits.n ? end : d->bits.n, true);
    }
    pthread_mutex_unlock(&d->set->mutex);
}

void blk_dirty_set_inconsistent(struct blk_dirty *d)
{
    d->inconsistent = true;
}

void blk_dirty_note(struct blk_dirty *d, void *take_note)
{
    free(d->note);
    d->note = take_note;
}

void *blk_dirty_noted(const struct blk_dirty *d)
{
    return d->note;
}
