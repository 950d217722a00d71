/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: metadata in memory, and its way to the disk. The cache holds slices of L2 tables and of
 * refcount blocks, as many as are used, up to a limit. The node's lock is held throughout.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_BYTES = 32 << 20 };

void q2_cache_init(struct qcow2 *q)
{
    q->cache.slices = hash_new_u64();
    list_init(&q->cache.lru);
    q->cache.size = q->cluster < Q2_MAX_SLICE ? q->cluster : Q2_MAX_SLICE;
    q->cache.limit = CACHE_BYTES / q->cache.size;
}

static void slice_free(struct qcow2 *q, struct q2_slice *s)
{
    hash_del_u64(q->cache.slices, s->offset + 1);
    list_remove(&s->lru);
    q->cache.n_dirty[s->kind] -= s->dirty;
    q->cache.count--;
    free(s);
}

void q2_cache_done(struct qcow2 *q)
{
    if (q->cache.slices) {
        while (!list_empty(&q->cache.lru)) {
            slice_free(q, list_entry(q->cache.lru.next, struct q2_slice, lru));
        }
        hash_free(q->cache.slices);
        q->cache.slices = NULL;
    }
}

/* Makes room by forgetting what was used longest ago; what is dirty is committed first. */
static int cache_shrink(struct qcow2 *q)
{
    unsigned kept = 0;

    if (q->cache.count < q->cache.limit) {
        return 0;
    }
    if (q->cache.n_dirty[Q2_L2] + q->cache.n_dirty[Q2_REF] > q->cache.count / 2) {
        int rc = q2_commit(q);

        if (rc != 0) {
            return rc;
        }
    }
    for (struct list *it = q->cache.lru.prev; it != &q->cache.lru && kept < 64;) {
        struct q2_slice *s = list_entry(it, struct q2_slice, lru);

        it = it->prev;
        if (!s->dirty && s->pins == 0) {
            slice_free(q, s);
            if (q->cache.count < q->cache.limit) {
                break;
            }
        } else {
            kept++;
        }
    }
    return 0; /* a little over the limit harms nobody */
}

int q2_slice_get(struct qcow2 *q, enum q2_kind kind, uint64_t offset, bool fresh,
                 struct q2_slice **out)
{
    uint64_t at = offset & ~(uint64_t)(q->cache.size - 1);
    struct q2_slice *s = hash_get_u64(q->cache.slices, at + 1);
    int rc;

    if (!s) {
        rc = cache_shrink(q);
        if (rc != 0) {
            return rc;
        }
        s = xalloc(sizeof(*s) + q->cache.size);
        rc = fresh ? 0 : blk_kid_read(q->file, at, s->data, q->cache.size);
        if (rc != 0) {
            free(s);
            return rc;
        }
        s->offset = at;
        s->kind = kind;
        list_insert(&q->cache.lru, &s->lru);
        hash_put_u64(q->cache.slices, at + 1, s);
        q->cache.count++;
    } else if (q->cache.lru.next != &s->lru) {
        list_remove(&s->lru);
        list_insert(&q->cache.lru, &s->lru);
    }
    s->pins++;
    *out = s;
    return 0;
}

void q2_slice_put(struct q2_slice *s)
{
    s->pins--;
}

void q2_slice_dirty(struct qcow2 *q, struct q2_slice *s)
{
    if (!s->dirty) {
        s->dirty = true;
        q->cache.n_dirty[s->kind]++;
    }
}

void q2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    if (length / q->cache.size > q->cache.count) {
        list_for_each_safe (it, &q->cache.lru) {
            struct q2_slice *s = list_entry(it, struct q2_slice, lru);

            if (s->offset >= offset && s->offset - offset < length) {
                slice_free(q, s);
            }
        }
        return;
    }
    for (uint64_t at = offset; at < offset + length; at += q->cache.size) {
        struct q2_slice *s = hash_get_u64(q->cache.slices, at + 1);

        if (s) {
            slice_free(q, s);
        }
    }
}

static int by_offset(const void *a, const void *b)
{
    const struct q2_slice *x = *(struct q2_slice *const *)a, *y = *(struct q2_slice *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Slices that lie side by side go in one write. */
static int write_slices(struct qcow2 *q, enum q2_kind kind)
{
    size_t n = 0, want = q->cache.n_dirty[kind];
    AUTO_FREE struct q2_slice **list = xnew_n(struct q2_slice *, want + 1);
    struct iovec iov[64];
    int rc = 0;

    list_for_each (it, &q->cache.lru) {
        struct q2_slice *s = list_entry(it, struct q2_slice, lru);

        if (s->kind == kind && s->dirty && n < want) {
            list[n++] = s;
        }
    }
    qsort(list, n, sizeof(struct q2_slice *), by_offset);
    for (size_t i = 0; i < n && rc == 0;) {
        size_t k = 0;

        do {
            iov[k] = (struct iovec){ .iov_base = list[i + k]->data, .iov_len = q->cache.size };
            k++;
        } while (k < ARRAY_LEN(iov) && i + k < n &&
                 list[i + k]->offset == list[i + k - 1]->offset + q->cache.size);
        rc = blk_kid_run(q->file, BLK_WRITE, 0, list[i]->offset, k * q->cache.size, iov,
                         (unsigned)k);
        for (size_t j = 0; j < k && rc == 0; j++) {
            list[i + j]->dirty = false;
            q->cache.n_dirty[kind]--;
        }
        i += k;
    }
    return rc;
}

/* Entries [lo, hi) of a table in host order, widened to whole sectors. */
static int write_table(struct qcow2 *q, uint64_t offset, const uint64_t *table,
                       uint64_t entries, uint64_t lo, uint64_t hi, uint64_t room)
{
    AUTO_FREE uint64_t *be = NULL;

    lo &= ~63ull;
    hi = (hi + 63) & ~63ull;
    hi = hi < room ? hi : room;
    if (hi <= lo) {
        return 0;
    }
    be = xnew_n(uint64_t, hi - lo);
    for (uint64_t i = lo; i < hi; i++) {
        be[i - lo] = i < entries ? htobe64(table[i]) : 0;
    }
    return blk_kid_write(q->file, offset + lo * 8, be, (hi - lo) * 8);
}

/* The refcount table; a table that moved is there whole before the header names it. */
static int commit_rt(struct qcow2 *q)
{
    uint64_t room = (uint64_t)q->h.rt_clusters * q->cluster / 8;
    int rc;

    if (!q->rt_dirty) {
        return 0;
    }
    rc = write_table(q, q->h.rt_offset, q->rt, q->rt_entries, q->rt_moved ? 0 : q->rt_lo,
                     q->rt_moved ? room : q->rt_hi, room);
    if (rc == 0) {
        rc = q2_barrier(q);
    }
    if (rc == 0 && q->rt_moved) {
        rc = q2_header_write(q);
        rc = rc ? rc : q2_barrier(q);
    }
    if (rc == 0) {
        q->rt_dirty = q->rt_moved = false;
        q->rt_lo = UINT64_MAX;
        q->rt_hi = 0;
    }
    return rc;
}

static int commit_l1(struct qcow2 *q)
{
    uint64_t room = q2_clusters(q, (uint64_t)q->h.l1_size * 8) * q->cluster / 8;
    int rc = 0;

    if (q->l1_dirty) {
        rc = write_table(q, q->h.l1_offset, q->l1, q->h.l1_size, q->l1_moved ? 0 : q->l1_lo,
                         q->l1_moved ? room : q->l1_hi, room);
        if (rc == 0 && q->l1_moved) {
            rc = q2_barrier(q);
            q->header_dirty = true;
        }
        if (rc == 0) {
            q->l1_dirty = q->l1_moved = false;
            q->l1_lo = UINT64_MAX;
            q->l1_hi = 0;
        }
    }
    if (rc == 0 && q->header_dirty && q->unordered) {
        rc = q2_barrier(q);
    }
    if (rc == 0 && q->header_dirty) {
        rc = q2_header_write(q);
        q->header_dirty = rc != 0;
    }
    return rc;
}

static int commit_unordered(struct qcow2 *q)
{
    int rc = q->cache.n_dirty[Q2_REF] ? write_slices(q, Q2_REF) : 0;

    rc = rc ? rc : commit_rt(q);
    rc = rc || !q->cache.n_dirty[Q2_L2] ? rc : write_slices(q, Q2_L2);
    return rc ? rc : commit_l1(q);
}

static int commit_stages(struct qcow2 *q)
{
    bool l2 = q->cache.n_dirty[Q2_L2] > 0, l1 = q->l1_dirty || q->header_dirty;
    int rc = 0;

    if (!q->lazy || q->rt_dirty) {
        bool refs = q->cache.n_dirty[Q2_REF] > 0;

        rc = refs ? write_slices(q, Q2_REF) : 0;
        if (rc == 0 && (q->rt_dirty || l2 || l1)) {
            rc = q2_barrier(q); /* data and refcounts before what refers to them */
        }
    } else if (l2 || l1) {
        rc = q2_barrier(q);
    }
    rc = rc ? rc : commit_rt(q);
    if (rc == 0 && l2) {
        rc = write_slices(q, Q2_L2);
        if (rc == 0 && l1) {
            rc = q2_barrier(q);
        }
    }
    return rc ? rc : commit_l1(q);
}

int q2_commit(struct qcow2 *q)
{
    int rc;

    if (q->broken) {
        return q->broken_errno;
    }
    rc = q->unordered ? commit_unordered(q) : commit_stages(q);
    if (rc == 0 && (q->fresh.n || q->waiting.n)) {
        /* Nothing in memory refers to these any more; now nothing on disk does either. */
        rc = q2_barrier(q);
        rc = rc ? rc : q2_release_apply(q);
    }
    /* What could not be written is dirty still, and what is on disk is consistent: a later commit tries
     * again. After a flush that failed nobody knows what is on disk: nothing may be built on it. */
    if (rc != 0 && rc != -ENOSPC && q->flush_failed) {
        q->broken = true;
        q->broken_errno = rc;
    }
    return rc;
}

int q2_commit_all(struct qcow2 *q)
{
    int rc;

    do {
        rc = q2_commit(q);
    } while (rc == 0 &&
             (q->fresh.n || q->waiting.n || q->cache.n_dirty[Q2_L2] || q->l1_dirty ||
              q->rt_dirty || q->header_dirty || (!q->lazy && q->cache.n_dirty[Q2_REF])));
    return rc;
}
