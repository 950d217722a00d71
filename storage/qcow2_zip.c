/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: compressed clusters, raw deflate with a window of 4 KiB or zstd. Packing and unpacking run in the
 * caller's thread without the lock, several at a time.
 */
#include "storage/qcow2.h"

#include "engine/base/entropy.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <libdeflate.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW = -12, ZSTD_LEVEL = 3, ZSTD_QUICK = -3 };

/* Contexts and memory of one thread's packing or unpacking; kept for the next one. */
struct q2_scratch {
    struct list link;
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    struct libdeflate_decompressor *inflate;
    z_stream deflate;
    bool has_deflate;
    uint8_t *in, *out; /* in: two clusters, out: one */
};

static struct q2_scratch *scratch_take(struct qcow2 *q)
{
    struct q2_scratch *s = NULL;

    pthread_mutex_lock(&q->lock);
    if (!list_empty(&q->scratch)) {
        s = list_entry(q->scratch.next, struct q2_scratch, link);
        list_remove(&s->link);
    }
    pthread_mutex_unlock(&q->lock);
    if (!s) {
        s = xnew(struct q2_scratch);
        s->in = xalloc(2 * q->cluster);
        s->out = xalloc(q->cluster);
        list_init(&s->link);
    }
    return s;
}

static void scratch_put(struct qcow2 *q, struct q2_scratch *s)
{
    pthread_mutex_lock(&q->lock);
    list_append(&q->scratch, &s->link);
    pthread_mutex_unlock(&q->lock);
}

void q2_zip_done(struct qcow2 *q)
{
    while (q->scratch.next && !list_empty(&q->scratch)) {
        struct q2_scratch *s = list_entry(q->scratch.next, struct q2_scratch, link);

        list_remove(&s->link);
        ZSTD_freeCCtx(s->pack);
        ZSTD_freeDCtx(s->unpack);
        libdeflate_free_decompressor(s->inflate);
        if (s->has_deflate) {
            deflateEnd(&s->deflate);
        }
        free(s->in);
        free(s->out);
        free(s);
    }
}

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

/* libdeflate wants a stream that ends where the cluster does, which is how everybody writes them; zlib takes all
 * others. */
static int unzip_deflate(struct q2_scratch *s, size_t n_in, uint8_t *out, size_t n_out)
{
    size_t used;

    s->inflate = s->inflate ? s->inflate : libdeflate_alloc_decompressor();
    return s->inflate && libdeflate_deflate_decompress_ex(s->inflate, s->in, n_in, out, n_out,
                                                          &used, NULL) == LIBDEFLATE_SUCCESS
               ? 0
               : unzip_zlib(s->in, n_in, out, n_out);
}

/* The input ends with whatever fills its last sector. */
static int unzip_zstd(struct q2_scratch *s, size_t n_in, uint8_t *out, size_t n_out)
{
    ZSTD_inBuffer i = { .src = s->in, .size = n_in };
    ZSTD_outBuffer o = { .dst = out, .size = n_out };
    size_t rc = 1;

    s->unpack = s->unpack ? s->unpack : ZSTD_createDCtx();
    if (!s->unpack) {
        return -ENOMEM;
    }
    ZSTD_DCtx_reset(s->unpack, ZSTD_reset_session_only);
    while (o.pos < n_out && rc != 0 && !ZSTD_isError(rc)) {
        size_t in_was = i.pos, out_was = o.pos;

        rc = ZSTD_decompressStream(s->unpack, &o, &i);
        if (i.pos == in_was && o.pos == out_was) {
            break;
        }
    }
    return !ZSTD_isError(rc) && o.pos == n_out ? 0 : -EIO;
}

int q2_zip_read(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t offset, length;
    struct q2_scratch *s;
    int rc;

    /* the length of a descriptor is at most a cluster and a half */
    if (!q2_zip_range(q, entry, &offset, &length) || length > 2 * q->cluster) {
        return -EIO;
    }
    s = scratch_take(q);
    rc = blk_kid_read(q->file, offset, s->in, length);
    if (rc == 0) {
        rc = q->h.compression == 1 ? unzip_zstd(s, length, out, q->cluster)
                                   : unzip_deflate(s, length, out, q->cluster);
    }
    scratch_put(q, s);
    return rc;
}

/* A cluster that a search for repetitions will not make smaller, found out in a fraction of its time. */
static bool packs_badly(const struct qcow2 *q, struct q2_scratch *s, const uint8_t *in)
{
    size_t n;

    if (!looks_random(in, q->cluster)) {
        return false;
    }
    s->pack = s->pack ? s->pack : ZSTD_createCCtx();
    if (!s->pack) {
        return false;
    }
    n = ZSTD_compressCCtx(s->pack, s->out, q->cluster - 1, in, q->cluster, ZSTD_QUICK);
    return ZSTD_isError(n) || n > q->cluster - q->cluster / 64;
}

static size_t zip_zlib(const struct qcow2 *q, struct q2_scratch *s, const uint8_t *in)
{
    int rc = s->has_deflate ? deflateReset(&s->deflate)
                            : deflateInit2(&s->deflate, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                                           WINDOW, 9, Z_DEFAULT_STRATEGY);

    if (rc != Z_OK) {
        return 0;
    }
    s->has_deflate = true;
    s->deflate.next_in = (Bytef *)in;
    s->deflate.avail_in = (uInt)q->cluster;
    s->deflate.next_out = s->out;
    s->deflate.avail_out = (uInt)q->cluster - 1;
    return deflate(&s->deflate, Z_FINISH) == Z_STREAM_END ? s->deflate.total_out : 0;
}

/* Bytes in s->out, 0 when it does not get smaller. */
static size_t zip(const struct qcow2 *q, struct q2_scratch *s, const uint8_t *in)
{
    size_t n;

    if (q->h.compression != 1) {
        return packs_badly(q, s, in) ? 0 : zip_zlib(q, s, in);
    }
    s->pack = s->pack ? s->pack : ZSTD_createCCtx();
    if (!s->pack) {
        return 0;
    }
    n = ZSTD_compressCCtx(s->pack, s->out, q->cluster - 1, in, q->cluster, ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : n;
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
    const uint8_t *in;
    struct q2_scratch *s;
    size_t n = 0;
    int rc;

    if (q->data != q->file || q->h.crypt) {
        return -ENOTSUP;
    }
    if (r->at & (q->cluster - 1) || r->length > q->cluster ||
        (r->length < q->cluster && r->at + r->length != q->node.size)) {
        return -EINVAL;
    }
    s = scratch_take(q);
    in = r->n_iov == 1 && r->length == q->cluster ? r->iov[0].iov_base : s->in;
    for (unsigned i = 0; i < r->n_iov && in == s->in; i++) {
        memcpy(s->in + n, r->iov[i].iov_base, r->iov[i].iov_len);
        n += r->iov[i].iov_len;
    }
    if (in == s->in) {
        memset(s->in + n, 0, q->cluster - n);
    }
    n = zip(q, s, in);
    if (n == 0) {
        struct blk_req plain = *r;

        plain.flags &= ~(unsigned)BLK_COMPRESS;
        rc = q2_run_req(&q->node, &plain);
    } else {
        rc = zip_store(q, r->at >> q->cluster_bits, s->out, n);
    }
    scratch_put(q, s);
    return rc;
}
