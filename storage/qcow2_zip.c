/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: compressed clusters, raw deflate with a window of 4 KiB or zstd. Packing and unpacking run in the
 * caller's thread without the lock, several at a time.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW = -12, ZSTD_LEVEL = 3 };

static int unzip_zlib(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    z_stream z = { .next_in = (Bytef *)in,
                   .avail_in = (uInt)n_in,
                   .next_out = out,
                   .avail_out = (uInt)n_out };
    int rc;

    if (inflateInit2(&z, WINDOW) != Z_OK) {
        return -ENOMEM;
    }
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK) && z.avail_out == 0 ? 0
                                                                                       : -EIO;
}

/* The input ends with whatever fills its last sector. */
static int unzip_zstd(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    ZSTD_inBuffer i = { .src = in, .size = n_in };
    ZSTD_outBuffer o = { .dst = out, .size = n_out };
    size_t rc = 1;

    if (!ctx) {
        return -ENOMEM;
    }
    while (o.pos < n_out && rc != 0 && !ZSTD_isError(rc)) {
        size_t in_was = i.pos, out_was = o.pos;

        rc = ZSTD_decompressStream(ctx, &o, &i);
        if (i.pos == in_was && o.pos == out_was) {
            break;
        }
    }
    ZSTD_freeDCtx(ctx);
    return !ZSTD_isError(rc) && o.pos == n_out ? 0 : -EIO;
}

int q2_zip_read(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t offset, length;
    AUTO_FREE uint8_t *in = NULL;
    int rc;

    if (!q2_zip_range(q, entry, &offset, &length)) {
        return -EIO;
    }
    in = try_alloc_n(length, 1);
    if (!in) {
        return -ENOMEM;
    }
    rc = blk_kid_read(q->file, offset, in, length);
    if (rc == 0) {
        rc = q->h.compression == 1 ? unzip_zstd(in, length, out, q->cluster)
                                   : unzip_zlib(in, length, out, q->cluster);
    }
    return rc;
}

/* Bytes, 0 when it does not get smaller. */
static size_t zip(const struct qcow2 *q, const uint8_t *in, uint8_t *out)
{
    z_stream z = { .next_in = (Bytef *)in,
                   .avail_in = (uInt)q->cluster,
                   .next_out = out,
                   .avail_out = (uInt)q->cluster - 1 };
    int rc;

    if (q->h.compression == 1) {
        size_t n = ZSTD_compress(out, q->cluster - 1, in, q->cluster, ZSTD_LEVEL);

        return ZSTD_isError(n) ? 0 : n;
    }
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW, 9, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        return 0;
    }
    rc = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return rc == Z_STREAM_END ? z.total_out : 0;
}

/* Lock held. Room for `size` bytes behind the last compressed cluster, or in a new cluster. Each
 * cluster counts every compressed one that touches it. */
static int zip_room(struct qcow2 *q, uint64_t size, uint64_t *offset)
{
    uint64_t mask = q->cluster - 1, at = q->zip_offset, left, next;
    int rc;

    left = at & mask ? q->cluster - (at & mask) : 0;
    if (left == 0 || left < size) {
        rc = q2_alloc_exact(q, 1, &next);
        if (rc != 0) {
            return rc;
        }
        if (left == 0 || next != (at & ~mask) + q->cluster ||
            q2_refcount_add(q, at & ~mask, 1, 1) != 0) {
            at = next;
        }
    } else if (q2_refcount_add(q, at & ~mask, 1, 1) != 0) {
        rc = q2_alloc_exact(q, 1, &at);
        if (rc != 0) {
            return rc;
        }
    }
    *offset = at;
    at += size;
    q->zip_offset = at & mask ? at : 0;
    return 0;
}

static void zip_release(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    uint64_t first = offset >> q->cluster_bits;

    q2_release(q, first << q->cluster_bits,
               ((offset + size - 1) >> q->cluster_bits) - first + 1, false);
}

static int zip_store(struct qcow2 *q, uint64_t cluster, const uint8_t *data, uint64_t size)
{
    struct q2_alloc a = { .first = cluster, .last = cluster };
    uint64_t offset = 0, sectors, old, *entry;
    struct q2_slice *s;
    int rc;

    pthread_mutex_lock(&q->lock);
    for (struct list *it = q->allocs.next; it != &q->allocs;) {
        struct q2_alloc *other = list_entry(it, struct q2_alloc, link);

        it = it->next;
        if (other->first <= cluster && cluster <= other->last) {
            pthread_cond_wait(&q->changed, &q->lock);
            it = q->allocs.next;
        }
    }
    rc = q->broken ? q->broken_errno : zip_room(q, size, &offset);
    if (rc != 0) {
        pthread_mutex_unlock(&q->lock);
        return rc;
    }
    list_append(&q->allocs, &a.link);
    pthread_mutex_unlock(&q->lock);
    rc = blk_kid_write(q->file, offset, data, size);
    pthread_mutex_lock(&q->lock);
    rc = rc ? rc : q2_entry(q, cluster << q->cluster_bits, &s, &entry);
    if (rc == 0) {
        sectors = ((offset + size - 1) >> 9) - (offset >> 9);
        old = be64toh(entry[0]);
        entry[0] = htobe64(Q2_COMPRESSED | offset | sectors << (62 - (q->cluster_bits - 8)));
        if (q2_ext_l2(q)) {
            entry[1] = 0;
        }
        q2_slice_dirty(q, s);
        q2_slice_put(s);
        q2_entry_release(q, old, false);
    } else {
        zip_release(q, offset, size);
    }
    list_remove(&a.link);
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int q2_zip_write(struct qcow2 *q, struct blk_req *r)
{
    AUTO_FREE uint8_t *in = NULL, *out = NULL;
    size_t n = 0;

    if (q->data != q->file) {
        return -ENOTSUP;
    }
    if (r->at & (q->cluster - 1) || r->length > q->cluster ||
        (r->length < q->cluster && r->at + r->length != q->node.size)) {
        return -EINVAL;
    }
    in = xalloc(q->cluster);
    out = xalloc(q->cluster);
    for (unsigned i = 0; i < r->n_iov; i++) {
        memcpy(in + n, r->iov[i].iov_base, r->iov[i].iov_len);
        n += r->iov[i].iov_len;
    }
    n = zip(q, in, out);
    if (n == 0) {
        struct blk_req plain = *r;

        plain.flags &= ~(unsigned)BLK_COMPRESS;
        return q2_run_req(&q->node, &plain);
    }
    return zip_store(q, r->at >> q->cluster_bits, out, n);
}
