/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: reads, writes, zeroes, discard and flush of guest data. Any thread; the node's lock is taken for
 * looking up and for changing tables, never held while data moves. A write that needs new clusters
 * announces them (struct q2_alloc), so that no second one allocates the same meanwhile.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { ALLOC_BYTES = 8 << 20, ZERO_BYTES = 1 << 20 };

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

unsigned q2_io_begin(struct qcow2 *q)
{
    atomic_fetch_add(&q->io[q->epoch], 1);
    return q->epoch;
}

void q2_io_end(struct qcow2 *q, unsigned epoch)
{
    atomic_fetch_sub(&q->io[epoch], 1);
}

void q2_settled(struct blk_node *n, struct blk_req *r)
{
    q2_io_end(q2_of(n), (unsigned)r->ticket);
}

static void iov_zero(const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
}

/* --- reading --- */

static int read_backing(struct qcow2 *q, uint64_t offset, uint64_t length, struct iovec *iov,
                        unsigned n)
{
    struct blk_node *b = q->node.kid[BLK_BACKING];
    uint64_t have = b && offset < b->size ? min64(b->size - offset, length) : 0;
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, n + 1);
    unsigned k;

    if (have < length) {
        k = blk_iov_slice(iov, n, have, length - have, part);
        iov_zero(part, k);
    }
    if (have == 0) {
        return 0;
    }
    k = blk_iov_slice(iov, n, 0, have, part);
    return blk_kid_run(b, BLK_READ, 0, offset, have, part, k);
}

static int read_zip(struct qcow2 *q, uint64_t entry, uint64_t in, const struct iovec *iov,
                    unsigned n)
{
    AUTO_FREE uint8_t *cluster = NULL;
    int rc;

    if (n == 1 && in == 0 && iov[0].iov_len == q->cluster) {
        return q2_zip_read(q, entry, iov[0].iov_base);
    }
    cluster = xalloc(q->cluster);
    rc = q2_zip_read(q, entry, cluster);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        memcpy(iov[i].iov_base, cluster + in, iov[i].iov_len);
        in += iov[i].iov_len;
    }
    return rc;
}

int q2_read(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov,
            unsigned n_iov)
{
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, n_iov + 1);
    uint64_t done = 0;
    int rc = 0;

    while (done < length && rc == 0) {
        struct q2_run run;
        unsigned epoch, k;

        pthread_mutex_lock(&q->lock);
        rc = q2_lookup(q, offset + done, length - done, &run);
        epoch = q2_io_begin(q);
        pthread_mutex_unlock(&q->lock);
        if (rc == 0) {
            k = blk_iov_slice(iov, n_iov, done, run.length, part);
            if (run.type == Q2_T_DATA) {
                rc = q2_data_read(q, run.host, run.length, part, k);
            } else if (run.type == Q2_T_ZIP) {
                rc = read_zip(q, run.entry, (offset + done) & (q->cluster - 1), part, k);
            } else if (run.type == Q2_T_ZERO) {
                iov_zero(part, k);
            } else {
                rc = read_backing(q, offset + done, run.length, part, k);
            }
            done += run.length;
        }
        q2_io_end(q, epoch);
    }
    return rc;
}

/* --- writing --- */

/* A write into clusters that have no place of their own yet. */
struct q2_write {
    struct q2_alloc alloc;   /* guest clusters */
    uint64_t offset, length; /* guest bytes of data, within those clusters */
    uint64_t from, to;       /* guest bytes that are written: data and copies around it */
    uint64_t host;           /* of the first cluster */
    bool reuse;              /* the cluster had its place already */
    bool virgin;             /* the place reads as zeroes */
};

static bool alloc_conflicts(const struct qcow2 *q, uint64_t first, uint64_t last)
{
    list_for_each (it, &q->allocs) {
        const struct q2_alloc *a = list_entry(it, struct q2_alloc, link);

        if (first <= a->last && a->first <= last) {
            return true;
        }
    }
    return false;
}

static void alloc_wait(struct qcow2 *q, uint64_t first, uint64_t last)
{
    while (alloc_conflicts(q, first, last)) {
        pthread_cond_wait(&q->changed, &q->lock);
    }
}

static bool host_taken(const struct qcow2 *q, const struct q2_run *run)
{
    return !(run->entry & Q2_COMPRESSED) && run->entry & Q2_COPIED &&
           (run->entry & Q2_OFFSET || q->data != q->file);
}

/* Which guest bytes around the data a new place must get too. */
static int copy_range(struct qcow2 *q, struct q2_write *w, const struct q2_run *first)
{
    uint64_t mask = (q->cluster >> q->sub_bits) - 1, end = w->offset + w->length;
    struct q2_run run;
    int rc = 0;

    if (q2_ext_l2(q) && !w->reuse) {
        uint64_t last = end - 1;

        rc = q2_lookup(q, last & ~(q->cluster - 1), 1, &run);
        if (rc == 0 && ((uint32_t)first->bitmap || first->entry & Q2_COMPRESSED ||
                        (uint32_t)run.bitmap || run.entry & Q2_COMPRESSED)) {
            mask = q->cluster - 1; /* what was there moves as a whole */
        }
    }
    w->from = w->offset & ~mask;
    w->to = (end + mask) & ~mask;
    if (rc == 0 && w->reuse && q2_ext_l2(q)) { /* subclusters that are there need no copy */
        rc = q2_lookup(q, w->offset, 1, &run);
        w->from = run.type == Q2_T_DATA ? w->offset : w->from;
        rc = rc ? rc : q2_lookup(q, end - 1, 1, &run);
        w->to = run.type == Q2_T_DATA ? end : w->to;
    }
    return rc;
}

/* How many clusters from the first on need a place and are not being given one. */
static int count_needed(struct qcow2 *q, uint64_t cluster, uint64_t most, uint64_t *n)
{
    for (*n = 1; *n < most; ++*n) {
        struct q2_run run;
        int rc = q2_lookup(q, (cluster + *n) << q->cluster_bits, 1, &run);

        if (rc != 0) {
            return rc;
        }
        if (host_taken(q, &run) || alloc_conflicts(q, cluster + *n, cluster + *n)) {
            break;
        }
    }
    return 0;
}

/* Lock held. Finds a place for the first clusters of a write and announces them. */
static int write_place(struct qcow2 *q, struct q2_write *w, const struct q2_run *run)
{
    uint64_t first = w->offset >> q->cluster_bits, n = 1, virgin = q->virgin;
    uint64_t most = ((w->offset + w->length - 1) >> q->cluster_bits) - first + 1, end;
    struct q2_slice *s;
    uint64_t *entry;
    int rc;

    w->reuse = host_taken(q, run);
    if (w->reuse) {
        w->host = q->data != q->file ? first << q->cluster_bits
                                     : run->entry & Q2_OFFSET & ~(q->cluster - 1);
    } else {
        rc = count_needed(q, first, min64(most, 1 + ALLOC_BYTES / q->cluster), &n);
        if (rc != 0) {
            return rc;
        }
        if (q->data != q->file) {
            w->host = first << q->cluster_bits;
        } else {
            rc = q2_alloc(q, n, &w->host, &n);
            if (rc != 0) {
                return rc;
            }
            w->virgin = !q->luks && blk_file_grows_zero(q->file) &&
                        w->host >> q->cluster_bits >= virgin;
        }
    }
    end = (first + n) << q->cluster_bits;
    w->length = min64(w->length, end - w->offset);
    rc = copy_range(q, w, run);
    rc = rc ? rc : q2_entry(q, w->offset, &s, &entry);
    if (rc != 0) {
        if (!w->reuse && q->data == q->file) {
            q2_release(q, w->host, n, false);
        }
        return rc;
    }
    q2_slice_put(s);
    w->alloc.first = first;
    w->alloc.last = first + n - 1;
    list_append(&q->allocs, &w->alloc.link);
    return 0;
}

/* Does a guest range read as zeroes for sure? */
static bool reads_zero(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    const struct blk_node *b = q->node.kid[BLK_BACKING];
    bool zero = true;

    pthread_mutex_lock(&q->lock);
    while (length > 0 && zero) {
        struct q2_run run;

        zero = q2_lookup(q, offset, length, &run) == 0 &&
               (run.type == Q2_T_ZERO || (run.type == Q2_T_NONE && (!b || offset >= b->size)));
        offset += run.length;
        length -= zero ? run.length : 0;
    }
    pthread_mutex_unlock(&q->lock);
    return zero;
}

/* The old contents of a range around the data, zero behind the end of the disk. Sets *mem to NULL when
 * the place has that already. */
static int copy_read(struct qcow2 *q, const struct q2_write *w, uint64_t from, uint64_t to,
                     uint8_t **mem)
{
    uint64_t end = min64(to, q->node.size);
    struct iovec iov;

    *mem = NULL;
    if (from == to || (w->virgin && (from >= end || reads_zero(q, from, end - from)))) {
        return 0;
    }
    *mem = xalloc(to - from);
    if (from >= end) {
        return 0;
    }
    iov = (struct iovec){ .iov_base = *mem, .iov_len = end - from };
    return q2_read(q, from, end - from, &iov, 1);
}

static int write_data(struct qcow2 *q, struct q2_write *w, const struct iovec *iov,
                      unsigned n_iov, uint64_t skip)
{
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, n_iov + 3);
    AUTO_FREE uint8_t *head = NULL, *tail = NULL;
    uint64_t end = w->offset + w->length, start, at = w->offset, total = w->length;
    unsigned n = 0;
    int rc = copy_read(q, w, w->from, w->offset, &head);

    rc = rc ? rc : copy_read(q, w, end, w->to, &tail);
    if (rc != 0) {
        return rc;
    }
    if (head) {
        part[n++] = (struct iovec){ .iov_base = head, .iov_len = w->offset - w->from };
        total += w->offset - w->from;
        at = w->from;
    }
    n += blk_iov_slice(iov, n_iov, skip, w->length, part + n);
    if (tail) {
        part[n++] = (struct iovec){ .iov_base = tail, .iov_len = w->to - end };
        total += w->to - end;
    }
    start = w->alloc.first << q->cluster_bits;
    return q2_data_write(q, w->host + (at - start), total, part, n);
}

/* Bits of the subclusters of one cluster that [from, to) covers. */
static uint64_t sub_mask(const struct qcow2 *q, uint64_t cluster, uint64_t from, uint64_t to)
{
    uint64_t start = cluster << q->cluster_bits, size = q->cluster >> q->sub_bits;
    uint64_t a = from > start ? (from - start) / size : 0;
    uint64_t b = to < start + q->cluster ? (to - start + size - 1) / size : q->subs;

    return ((b - a == 64 ? 0 : 1ull << (b - a)) - 1) << a;
}

/* Lock held. The tables learn of the new places. */
static int write_link(struct qcow2 *q, const struct q2_write *w)
{
    for (uint64_t c = w->alloc.first; c <= w->alloc.last; c++) {
        uint64_t host = w->host + ((c - w->alloc.first) << q->cluster_bits), old, *entry;
        struct q2_slice *s;
        int rc = q2_entry(q, c << q->cluster_bits, &s, &entry);

        if (rc != 0) {
            return rc;
        }
        old = be64toh(entry[0]);
        entry[0] = htobe64(host | Q2_COPIED);
        if (q2_ext_l2(q)) {
            uint64_t bits = sub_mask(q, c, w->from, w->to);
            uint64_t map = old & Q2_COMPRESSED ? 0 : be64toh(entry[1]);

            entry[1] = htobe64((map & ~(bits << 32)) | bits);
        }
        q2_slice_dirty(q, s);
        q2_slice_put(s);
        if (!w->reuse) {
            q2_entry_release(q, old, false);
        }
    }
    return 0;
}

static int write_new(struct qcow2 *q, struct q2_write *w, const struct iovec *iov,
                     unsigned n_iov, uint64_t skip)
{
    int rc = write_data(q, w, iov, n_iov, skip);

    pthread_mutex_lock(&q->lock);
    if (rc == 0) {
        rc = write_link(q, w);
    } else if (!w->reuse && q->data == q->file) {
        q2_release(q, w->host, w->alloc.last - w->alloc.first + 1, false);
    }
    list_remove(&w->alloc.link);
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int q2_write(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov,
                    unsigned n_iov)
{
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, n_iov + 1);
    uint64_t done = 0;
    int rc = 0;

    while (done < length && rc == 0) {
        struct q2_write w = { .offset = offset + done, .length = length - done };
        uint64_t cluster = w.offset >> q->cluster_bits;
        struct q2_run run;

        pthread_mutex_lock(&q->lock);
        alloc_wait(q, cluster, cluster);
        rc = q->broken ? q->broken_errno : q2_lookup(q, w.offset, w.length, &run);
        if (rc == 0 && run.type == Q2_T_DATA && run.copied) {
            unsigned epoch = q2_io_begin(q);

            pthread_mutex_unlock(&q->lock);
            rc = q2_data_write(q, run.host, run.length, part,
                               blk_iov_slice(iov, n_iov, done, run.length, part));
            q2_io_end(q, epoch);
            done += run.length;
            continue;
        }
        rc = rc ? rc : write_place(q, &w, &run);
        pthread_mutex_unlock(&q->lock);
        if (rc == 0) {
            rc = write_new(q, &w, iov, n_iov, done);
            done += w.length;
        }
    }
    return rc;
}

/* --- zeroes and discard --- */

static int write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    AUTO_FREE uint8_t *zero = NULL;
    int rc = 0;

    if (length == 0 || reads_zero(q, offset, length)) {
        return 0;
    }
    zero = xalloc(min64(length, ZERO_BYTES));
    while (length > 0 && rc == 0) {
        struct iovec iov = { .iov_base = zero, .iov_len = min64(length, ZERO_BYTES) };

        rc = q2_write(q, offset, iov.iov_len, &iov, 1);
        offset += iov.iov_len;
        length -= iov.iov_len;
    }
    return rc;
}

/* What the entry of a whole cluster becomes. Keeps the place where `unmap` does not ask for it back. */
static void zero_entry(struct qcow2 *q, uint64_t offset, bool unmap, uint64_t *entry)
{
    const struct blk_node *b = q->node.kid[BLK_BACKING];
    uint64_t old = be64toh(entry[0]);
    bool keep = !(old & Q2_COMPRESSED) && old & Q2_COPIED && (!unmap || q->data != q->file) &&
                (old & Q2_OFFSET || q->data != q->file);
    bool none = !keep && (!b || offset >= b->size) && !q->backing_name;
    uint64_t zero = q2_ext_l2(q) ? 0 : Q2_ZERO;

    entry[0] = htobe64(keep ? (old & ~Q2_ZERO) | zero : none ? 0 : zero);
    if (q2_ext_l2(q)) {
        entry[1] = htobe64(none ? 0 : 0xffffffffull << 32);
    }
    if (!keep) {
        q2_entry_release(q, old, unmap);
    }
}

/* Whole clusters [first, last). Lock held. */
static int zero_clusters(struct qcow2 *q, uint64_t first, uint64_t last, bool unmap)
{
    const struct blk_node *b = q->node.kid[BLK_BACKING];
    int rc = 0;

    for (uint64_t c = first; c < last && rc == 0;) {
        uint64_t at = c << q->cluster_bits, *entry;
        struct q2_slice *s;
        struct q2_run run;

        alloc_wait(q, c, c);
        rc = q->broken ? q->broken_errno
                       : q2_lookup(q, at, (last - c) << q->cluster_bits, &run);
        if (rc == 0 && run.length >= q->cluster &&
            ((run.type == Q2_T_NONE && (!b || at >= b->size) && !q->backing_name) ||
             (run.type == Q2_T_ZERO && !(unmap && run.entry & Q2_OFFSET)))) {
            c += run.type == Q2_T_NONE ? run.length >> q->cluster_bits : 1;
            continue; /* it reads as zeroes already */
        }
        rc = rc ? rc : q2_entry(q, at, &s, &entry);
        if (rc == 0) {
            zero_entry(q, at, unmap, entry);
            q2_slice_dirty(q, s);
            q2_slice_put(s);
            c++;
        }
    }
    return rc;
}

static int q2_zero(struct qcow2 *q, uint64_t offset, uint64_t length, bool unmap, bool hint)
{
    uint64_t end = offset + length, first = (offset + q->cluster - 1) >> q->cluster_bits;
    uint64_t last = end == q->node.size ? q2_clusters(q, end) : end >> q->cluster_bits;
    int rc = 0;

    if (q->data != q->file && length > 0) {
        rc = blk_kid_run(q->data, BLK_ZERO, unmap ? BLK_UNMAP : 0, offset, length, NULL, 0);
    }
    if (rc == 0 && first >= last) {
        return hint ? 0 : write_zeroes(q, offset, length);
    }
    if (rc == 0 && !hint) {
        rc = write_zeroes(q, offset, (first << q->cluster_bits) - offset);
        if (rc == 0 && last << q->cluster_bits < end) {
            rc = write_zeroes(q, last << q->cluster_bits, end - (last << q->cluster_bits));
        }
    }
    if (rc == 0 && q->h.version < 3 && (q->node.kid[BLK_BACKING] || q->backing_name)) {
        return hint ? 0 /* version 2 cannot hide what the backing file has */
                    : write_zeroes(q, first << q->cluster_bits,
                                   min64(last << q->cluster_bits, end) -
                                       (first << q->cluster_bits));
    }
    if (rc == 0) {
        pthread_mutex_lock(&q->lock);
        rc = zero_clusters(q, first, last, unmap || q->h.version < 3);
        if (rc == 0 && q->fresh.n > 4096) {
            rc = q2_commit(q);
        }
        pthread_mutex_unlock(&q->lock);
    }
    return rc;
}

/* --- requests --- */

static int q2_flush(struct qcow2 *q)
{
    int rc;

    if (q->node.readonly) {
        return 0;
    }
    pthread_mutex_lock(&q->lock);
    rc = q2_commit(q);
    pthread_mutex_unlock(&q->lock);
    return rc ? rc : q2_barrier(q);
}

int q2_run_req(struct blk_node *n, struct blk_req *r)
{
    struct qcow2 *q = q2_of(n);

    switch (r->op) {
    case BLK_READ:
        return q2_read(q, r->at, r->length, r->iov, r->n_iov);
    case BLK_WRITE:
        return r->flags & BLK_COMPRESS ? q2_zip_write(q, r)
                                       : q2_write(q, r->at, r->length, r->iov, r->n_iov);
    case BLK_ZERO:
        return q2_zero(q, r->at, r->length, r->flags & BLK_UNMAP, false);
    case BLK_DISCARD:
        return q2_zero(q, r->at, r->length, true, true);
    case BLK_FLUSH:
        return q2_flush(q);
    }
    return -EINVAL;
}

/* Is the piece of L2 table that answers for `offset` in memory? */
static bool lookup_ready(const struct qcow2 *q, uint64_t offset)
{
    uint64_t i = offset >> (q->cluster_bits + q->l2_bits), table, at;

    table = i < q->h.l1_size ? q->l1[i] & Q2_OFFSET : 0;
    if (!table) {
        return true;
    }
    at = table + (offset >> q->cluster_bits & ((1ull << q->l2_bits) - 1)) * q->l2_entry;
    return hash_get_u64(q->cache.slices, (at & ~(uint64_t)(q->cache.size - 1)) + 1) != NULL;
}

/* What needs neither tables from disk nor a change of tables goes down at once. */
void q2_submit(struct blk_node *n, struct blk_req *r)
{
    struct qcow2 *q = q2_of(n);
    struct q2_run run = { .type = Q2_T_NONE };
    bool pass = false;

    if ((r->op == BLK_READ || (r->op == BLK_WRITE && !(r->flags & BLK_COMPRESS))) &&
        r->length > 0 && pthread_mutex_trylock(&q->lock) == 0) {
        pass = !q->broken && !q->luks && !q->locked && lookup_ready(q, r->at) &&
               q2_lookup(q, r->at, r->length, &run) == 0 && run.type == Q2_T_DATA &&
               run.length == r->length && (r->op == BLK_READ || run.copied);
        if (pass) {
            r->ticket = (int)q2_io_begin(q);
        }
        pthread_mutex_unlock(&q->lock);
    }
    if (pass) {
        r->flags |= r->op == BLK_READ ? BLK_PAST_END : 0;
        blk_forward(n, q->data, r, run.host);
    } else {
        blk_pool_submit(n->pool, r);
    }
}
