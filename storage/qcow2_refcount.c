/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: refcounts of any width, allocation of clusters, and their release, which waits until
 * nothing on disk and no data I/O in flight can need the old contents. The node's lock is held.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t q2_ref_read(const uint8_t *block, unsigned order, uint64_t i)
{
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;

    switch (order) {
    case 0:
    case 1:
    case 2:
        return block[(i << order) / 8] >> ((i << order) % 8) & ((1u << (1u << order)) - 1);
    case 3:
        return block[i];
    case 4:
        memcpy(&v16, block + i * 2, 2);
        return be16toh(v16);
    case 5:
        memcpy(&v32, block + i * 4, 4);
        return be32toh(v32);
    default:
        memcpy(&v64, block + i * 8, 8);
        return be64toh(v64);
    }
}

void q2_ref_write(uint8_t *block, unsigned order, uint64_t i, uint64_t value)
{
    unsigned shift = (unsigned)((i << order) % 8);
    unsigned mask = order < 3 ? ((1u << (1u << order)) - 1) << shift : 0;
    uint8_t *byte = &block[(i << order) / 8];
    uint16_t v16 = htobe16((uint16_t)value);
    uint32_t v32 = htobe32((uint32_t)value);
    uint64_t v64 = htobe64(value);

    switch (order) {
    case 0:
    case 1:
    case 2:
        *byte = (uint8_t)((*byte & ~mask) | (unsigned)value << shift);
        break;
    case 3:
        block[i] = (uint8_t)value;
        break;
    case 4:
        memcpy(block + i * 2, &v16, 2);
        break;
    case 5:
        memcpy(block + i * 4, &v32, 4);
        break;
    default:
        memcpy(block + i * 8, &v64, 8);
    }
}

static void rt_touch(struct qcow2 *q, uint64_t i)
{
    q->rt_dirty = true;
    q->rt_lo = i < q->rt_lo ? i : q->rt_lo;
    q->rt_hi = i + 1 > q->rt_hi ? i + 1 : q->rt_hi;
}

/* Which slice holds the refcount of a cluster, and where in it. */
static int ref_slice(struct qcow2 *q, uint64_t cluster, struct q2_slice **s, uint64_t *index)
{
    uint64_t t = cluster >> q->ref_bits, in = cluster & ((1ull << q->ref_bits) - 1);
    uint64_t block = t < q->rt_entries ? q->rt[t] : 0;
    uint64_t per = q->cache.size * 8 >> q->h.refcount_order;

    *s = NULL;
    if (!block) {
        return 0;
    }
    if (block & (q->cluster - 1)) {
        return q2_corrupt(q, "refcount block at %#llx is not aligned to a cluster",
                          (unsigned long long)block);
    }
    *index = in % per;
    return q2_slice_get(q, Q2_REF, block + in / per * q->cache.size, false, s);
}

int q2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out)
{
    struct q2_slice *s;
    uint64_t i = 0;
    int rc = ref_slice(q, cluster, &s, &i);

    if (rc == 0) {
        *out = s ? q2_ref_read(s->data, q->h.refcount_order, i) : 0;
        if (s) {
            q2_slice_put(s);
        }
    }
    return rc;
}

int q2_refcount_span(struct qcow2 *q, uint64_t cluster, uint64_t most, uint64_t *value,
                     uint64_t *n)
{
    uint64_t per = q->cache.size * 8 >> q->h.refcount_order, i = 0, k = 1;
    struct q2_slice *s;
    int rc = ref_slice(q, cluster, &s, &i);

    if (rc != 0) {
        return rc;
    }
    if (!s) { /* a range without a block */
        k = (1ull << q->ref_bits) - (cluster & ((1ull << q->ref_bits) - 1));
        *value = 0;
        *n = k < most ? k : most;
        return 0;
    }
    most = per - i < most ? per - i : most;
    *value = q2_ref_read(s->data, q->h.refcount_order, i);
    while (k < most && q2_ref_read(s->data, q->h.refcount_order, i + k) == *value) {
        k++;
    }
    *n = k;
    q2_slice_put(s);
    return 0;
}

static int ref_fill(struct qcow2 *q, uint64_t cluster, uint64_t n, uint64_t value);

/* Ranges that `n` clusters from `at` on touch and that have no block. */
static uint64_t ranges_without(const struct qcow2 *q, uint64_t at, uint64_t n)
{
    uint64_t count = 0;

    for (uint64_t t = at >> q->ref_bits; t <= (at + n - 1) >> q->ref_bits; t++) {
        count += t >= q->rt_entries || !q->rt[t];
    }
    return count;
}

/* An empty block at a cluster that nothing refers to yet. */
static int ref_block_clear(struct qcow2 *q, uint64_t cluster)
{
    uint64_t at = cluster << q->cluster_bits;
    int rc = 0;

    for (uint64_t i = 0; i < q->cluster && rc == 0; i += q->cache.size) {
        struct q2_slice *s;

        rc = q2_slice_get(q, Q2_REF, at + i, true, &s);
        if (rc == 0) {
            memset(s->data, 0, q->cache.size);
            q2_slice_dirty(q, s);
            q2_slice_put(s);
        }
    }
    return rc;
}

struct rt_plan {
    uint64_t at, clusters, blocks, entries; /* of the new table; the blocks lie behind it */
};

/* How large the table has to be to name the blocks that count it, too. */
static int rt_plan(const struct qcow2 *q, uint64_t need, struct rt_plan *p)
{
    uint64_t want = need + need / 2, last, n;

    *p = (struct rt_plan){ .at = q->end };
    want = want > Q2_MAX_RT / 8 && need <= Q2_MAX_RT / 8 ? Q2_MAX_RT / 8 : want;
    for (;; want = last + 2) {
        p->clusters = q2_clusters(q, want * 8);
        p->entries = p->clusters * q->cluster / 8;
        while ((n = ranges_without(q, p->at, p->clusters + p->blocks)) > p->blocks) {
            p->blocks = n;
        }
        last = (p->at + p->clusters + p->blocks - 1) >> q->ref_bits;
        if (p->entries > last && p->entries >= need) {
            break;
        }
    }
    return p->clusters * q->cluster > Q2_MAX_RT ? -EFBIG : 0;
}

/* A larger refcount table behind everything, and behind it the blocks that count both: their ranges may
 * have none, and a range's first cluster may lie within the table. The old table goes when the header names the
 * new one. What was changed before goes to the disk first, so that no commit comes in between. */
static int rt_grow(struct qcow2 *q, uint64_t need)
{
    uint64_t old = q->h.rt_offset, old_clusters = q->h.rt_clusters, old_entries = q->rt_entries;
    uint64_t *table, *was = q->rt;
    struct rt_plan p;
    int rc = q2_commit(q);

    rc = rc ? rc : rt_plan(q, need, &p);
    if (rc != 0) {
        return rc;
    }
    for (uint64_t i = 0; i < p.blocks && rc == 0; i++) {
        rc = ref_block_clear(q, p.at + p.clusters + i);
    }
    table = xnew_n(uint64_t, p.entries);
    memcpy(table, was, old_entries * 8);
    for (uint64_t t = p.at >> q->ref_bits, i = 0; i < p.blocks; t++) {
        if (!table[t]) {
            table[t] = (p.at + p.clusters + i++) << q->cluster_bits;
        }
    }
    q->rt = table;
    q->rt_entries = p.entries;
    rc = rc ? rc : ref_fill(q, p.at, p.clusters + p.blocks, 1);
    if (rc != 0) { /* nothing refers to them, and somebody else may come to lie there */
        q2_cache_drop(q, (p.at + p.clusters) << q->cluster_bits, p.blocks << q->cluster_bits);
        q->rt = was;
        q->rt_entries = old_entries;
        free(table);
        return rc;
    }
    free(was);
    q->h.rt_offset = p.at << q->cluster_bits;
    q->h.rt_clusters = (uint32_t)p.clusters;
    q->rt_dirty = q->rt_moved = true;
    q2_release(q, old, old_clusters, false);
    return 0;
}

/* A new block for a range whose clusters are all free: the range's first cluster. */
static int ref_block_new(struct qcow2 *q, uint64_t t)
{
    uint64_t cluster = t << q->ref_bits, at = cluster << q->cluster_bits;
    int rc = 0;

    if (t == 0) { /* the header's own block: only a broken image has none */
        return q2_corrupt(q, "the first clusters have no refcounts");
    }
    if (t >= q->rt_entries) {
        rc = rt_grow(q, t + 1);
        if (rc != 0 || q->rt[t]) {
            return rc;
        }
    }
    rc = ref_block_clear(q, cluster);
    if (rc == 0) {
        q->rt[t] = at;
        rt_touch(q, t);
        rc = ref_fill(q, cluster, 1, 1);
    }
    return rc;
}

/* The same refcount for n clusters, one or more; a range that has no block gets one. */
static int ref_fill(struct qcow2 *q, uint64_t cluster, uint64_t n, uint64_t value)
{
    uint64_t per = q->cache.size * 8 >> q->h.refcount_order, end = cluster + n;
    int rc = 0;

    while (cluster < end && rc == 0) {
        struct q2_slice *s;
        uint64_t i = 0, k;

        rc = ref_slice(q, cluster, &s, &i);
        if (rc == 0 && !s) {
            rc = ref_block_new(q, cluster >> q->ref_bits);
            rc = rc ? rc : ref_slice(q, cluster, &s, &i);
        }
        if (rc != 0) {
            break;
        }
        k = per - i < end - cluster ? per - i : end - cluster;
        for (uint64_t j = 0; j < k; j++) {
            q2_ref_write(s->data, q->h.refcount_order, i + j, value);
        }
        q2_slice_dirty(q, s);
        q2_slice_put(s);
        cluster += k;
        if (value) {
            q->end = cluster > q->end ? cluster : q->end;
            q->virgin = cluster > q->virgin ? cluster : q->virgin;
        }
    }
    return rc;
}

/* Nobody refers to these any more. */
static void refs_gone(struct qcow2 *q, uint64_t c, uint64_t n)
{
    uint64_t zip = q->zip_offset >> q->cluster_bits;

    q2_cache_drop(q, c << q->cluster_bits, n << q->cluster_bits);
    if (zip >= c && zip < c + n) {
        q->zip_offset = 0; /* the next compressed cluster goes elsewhere */
    }
    q->free_hint = c < q->free_hint ? c : q->free_hint;
}

int q2_refcount_add(struct qcow2 *q, uint64_t offset, uint64_t length, int64_t delta)
{
    uint64_t first = offset >> q->cluster_bits, n;
    uint64_t last = (offset + (length ? length : 1) - 1) >> q->cluster_bits;

    for (uint64_t c = first; c <= last; c += n) {
        uint64_t v = 0;
        int rc = q2_lazy_mark(q);

        n = 1;
        rc = rc ? rc : q2_refcount_span(q, c, last - c + 1, &v, &n);
        if (rc == 0 && delta < 0 && v == 0) {
            rc = q2_corrupt(q, "cluster at %#llx is released although nobody holds it",
                            (unsigned long long)(c << q->cluster_bits));
        }
        if (rc == 0 && delta > 0 && v == q->refcount_max) {
            rc = -EOVERFLOW;
        }
        n = v == 0 ? 1 : n; /* there may be no block yet, which takes a cluster itself */
        rc = rc ? rc : ref_fill(q, c, n, v + (uint64_t)delta);
        if (rc != 0) {
            for (uint64_t undo = first; undo < c && delta > 0; undo++) {
                uint64_t u = 0;

                if (q2_refcount_get(q, undo, &u) == 0 && u) {
                    (void)ref_fill(q, undo, 1, u - 1);
                }
            }
            return rc;
        }
        if (v + (uint64_t)delta == 0) {
            refs_gone(q, c, n);
        }
    }
    return 0;
}

static bool in_range(uint64_t c, uint64_t n, uint64_t first, uint64_t count)
{
    return c < first + count && first < c + n;
}

/* Refcounts that lie would have us write over tables: a free cluster must not be one of those. */
static bool overlaps(const struct qcow2 *q, uint64_t c, uint64_t n)
{
    unsigned b = q->cluster_bits;

    if (c == 0 || in_range(c, n, q->h.rt_offset >> b, q->h.rt_clusters) ||
        in_range(c, n, q->h.l1_offset >> b, q2_clusters(q, (uint64_t)q->h.l1_size * 8)) ||
        (q->n_snaps &&
         in_range(c, n, q->h.snapshots_offset >> b, q2_clusters(q, q2_snaps_bytes(q))))) {
        return true;
    }
    for (uint64_t i = 0; i < q->h.l1_size; i++) {
        if (q->l1[i] & Q2_OFFSET && in_range(c, n, (q->l1[i] & Q2_OFFSET) >> b, 1)) {
            return true;
        }
    }
    for (uint64_t i = 0; i < q->rt_entries; i++) {
        if (q->rt[i] && in_range(c, n, q->rt[i] >> b, 1)) {
            return true;
        }
    }
    return false;
}

/* The first run of free clusters from the hint on, no longer than `want`, at least `least`. */
static int find_free(struct qcow2 *q, uint64_t want, uint64_t least, uint64_t *first,
                     uint64_t *count)
{
    uint64_t c = q->free_hint ? q->free_hint : 1, n = 0;
    bool any = false;

    while (n < want && c + n < q->end) {
        uint64_t v, k;
        int rc = q2_refcount_span(q, c + n, q->end - c - n, &v, &k);

        if (rc != 0) {
            return rc;
        }
        if (v == 0) {
            if (!any) {
                q->free_hint = c + n;
                any = true;
            }
            n = k < want - n ? n + k : want;
        } else if (n >= least) {
            break;
        } else {
            c += n + k;
            n = 0;
        }
    }
    if (c + n >= q->end) { /* behind everything all is free */
        if (!any) {
            q->free_hint = c;
        }
        n = want;
    }
    *first = c;
    *count = n;
    return 0;
}

static int alloc_at(struct qcow2 *q, uint64_t want, uint64_t least, uint64_t *offset,
                    uint64_t *got)
{
    uint64_t first, n;
    int rc;

    for (;;) {
        uint64_t range;

        rc = find_free(q, want, least, &first, &n);
        if (rc != 0) {
            return rc;
        }
        /* A range without a block: the block comes first and takes the first cluster. */
        range = first >> q->ref_bits;
        for (uint64_t t = range; t <= (first + n - 1) >> q->ref_bits && rc == 0; t++) {
            if (t >= q->rt_entries || !q->rt[t]) {
                rc = ref_block_new(q, t);
                range = UINT64_MAX;
                break;
            }
        }
        if (rc != 0) {
            return rc;
        }
        if (range != UINT64_MAX) {
            break;
        }
    }
    if (first + n > Q2_OFFSET >> q->cluster_bits) {
        return -EFBIG;
    }
    if (overlaps(q, first, n)) {
        return q2_corrupt(q, "the free cluster at %#llx holds metadata",
                          (unsigned long long)(first << q->cluster_bits));
    }
    rc = ref_fill(q, first, n, 1);
    if (rc == 0) {
        if (first == q->free_hint) {
            q->free_hint = first + n;
        }
        *offset = first << q->cluster_bits;
        *got = n;
    }
    return rc;
}

/* With lazy refcounts the image says that its refcounts are not to be trusted before they become wrong. */
int q2_lazy_mark(struct qcow2 *q)
{
    int rc;

    if (!q->lazy || q->h.incompatible & Q2_I_DIRTY) {
        return 0;
    }
    q->h.incompatible |= Q2_I_DIRTY;
    rc = q2_header_write(q);
    return rc ? rc : q2_barrier(q);
}

int q2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got)
{
    int rc = q->broken ? q->broken_errno : q2_lazy_mark(q);

    return rc ? rc : alloc_at(q, want, 1, offset, got);
}

int q2_alloc_exact(struct qcow2 *q, uint64_t clusters, uint64_t *offset)
{
    uint64_t got;
    int rc = q->broken ? q->broken_errno : q2_lazy_mark(q);

    return rc ? rc : alloc_at(q, clusters, clusters, offset, &got);
}

/* --- release --- */

void q2_release(struct qcow2 *q, uint64_t offset, uint64_t clusters, bool punch)
{
    struct q2_frees *f = &q->fresh;
    struct q2_free *last = f->n ? &f->item[f->n - 1] : NULL;

    if (last && last->offset + (last->clusters << q->cluster_bits) == offset &&
        last->punch == punch) {
        last->clusters += clusters;
        return;
    }
    if (f->n == f->room) {
        f->room = f->room ? f->room * 2 : 64;
        f->item = xrealloc_n(f->item, f->room, sizeof(*f->item));
    }
    f->item[f->n++] = (struct q2_free){ .offset = offset,
                                        .clusters = clusters,
                                        .punch = punch };
}

void q2_frees_done(struct q2_frees *f)
{
    free(f->item);
    *f = (struct q2_frees){ 0 };
}

static int release_batch(struct qcow2 *q, struct q2_frees *f)
{
    int rc = 0;

    for (size_t i = 0; i < f->n && rc == 0; i++) {
        const struct q2_free *x = &f->item[i];

        rc = q2_refcount_add(q, x->offset, x->clusters << q->cluster_bits, -1);
        for (uint64_t c = 0, n = 0; rc == 0 && x->punch && c < x->clusters; c += n) {
            uint64_t v, at = x->offset + (c << q->cluster_bits);

            rc = q2_refcount_span(q, at >> q->cluster_bits, x->clusters - c, &v, &n);
            if (rc == 0 && v == 0) {
                (void)blk_kid_run(q->file, BLK_DISCARD, BLK_UNMAP, at, n << q->cluster_bits,
                                  NULL, 0);
            }
        }
    }
    f->n = 0;
    return rc;
}

/* Nothing on disk refers to them. What was begun on them before may still run: two epochs take
 * turns, and a batch goes when the last I/O of its epoch is through. */
int q2_release_apply(struct qcow2 *q)
{
    int rc = 0;

    for (int round = 0; round < 2 && rc == 0; round++) {
        if (q->waiting.n && atomic_load(&q->io[q->waiting_epoch]) == 0) {
            rc = release_batch(q, &q->waiting);
        }
        if (rc == 0 && q->waiting.n == 0 && q->fresh.n) {
            struct q2_frees f = q->waiting;

            q->waiting = q->fresh;
            q->fresh = f;
            q->waiting_epoch = q->epoch;
            q->epoch ^= 1;
        }
    }
    return rc;
}
