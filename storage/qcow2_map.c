/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: from a guest offset to the host. Extended L2 tables give 32 subclusters a state each; other images
 * have one "subcluster" a cluster, so that all code sees the same. The node's lock is held.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static uint64_t l1_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> (q->cluster_bits + q->l2_bits);
}

static uint64_t l2_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits & ((1ull << q->l2_bits) - 1);
}

static int check_l2(struct qcow2 *q, uint64_t entry)
{
    uint64_t at = entry & Q2_OFFSET;

    if (at & (q->cluster - 1)) {
        return q2_corrupt(q, "L2 table at %#llx is not aligned to a cluster",
                          (unsigned long long)at);
    }
    return 0;
}

bool q2_zip_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t sectors;

    *offset = entry & ((1ull << shift) - 1);
    sectors = (entry >> shift & ((1ull << (q->cluster_bits - 8)) - 1)) + 1;
    *length = sectors * 512 - (*offset & 511);
    return *offset != 0;
}

/* Offset 0 is a data cluster only in an external file, where it must be marked. */
static uint64_t host_of(const struct qcow2 *q, uint64_t e)
{
    return e & Q2_OFFSET || (q->data != q->file && e & Q2_COPIED) ? e & Q2_OFFSET : Q2_NONE;
}

/* State of subcluster `sub` of an entry. */
static enum q2_type sub_type(const struct qcow2 *q, uint64_t e, uint64_t bitmap, unsigned sub)
{
    if (e & Q2_COMPRESSED) {
        return Q2_T_ZIP;
    }
    if (q2_ext_l2(q)) {
        if (bitmap >> (32 + sub) & 1) {
            return Q2_T_ZERO;
        }
        return bitmap >> sub & 1 && host_of(q, e) != Q2_NONE ? Q2_T_DATA : Q2_T_NONE;
    }
    if (q->h.version >= 3 && e & Q2_ZERO) {
        return Q2_T_ZERO;
    }
    return host_of(q, e) != Q2_NONE ? Q2_T_DATA : Q2_T_NONE;
}

/* Does the next subcluster go on where the run ends? */
static bool goes_on(const struct q2_run *run, enum q2_type type, uint64_t host, bool copied,
                    uint64_t entry)
{
    if (type != run->type || run->type == Q2_T_ZIP) {
        return type == run->type && entry == run->entry;
    }
    return run->type != Q2_T_DATA || (host == run->host + run->length && copied == run->copied);
}

static void extend_run(struct qcow2 *q, const struct q2_slice *s, uint64_t offset, uint64_t max,
                       struct q2_run *run)
{
    uint64_t sub_size = q->cluster >> q->sub_bits, at = offset;
    uint64_t i = (l2_index(q, offset) * q->l2_entry) % q->cache.size / q->l2_entry;
    uint64_t per = q->cache.size / q->l2_entry;

    run->length = 0;
    for (; i < per; i++) {
        uint64_t e, bitmap = 0, host;
        unsigned sub = (unsigned)((at & (q->cluster - 1)) / sub_size);

        memcpy(&e, s->data + i * q->l2_entry, 8);
        e = be64toh(e);
        if (q2_ext_l2(q)) {
            memcpy(&bitmap, s->data + i * q->l2_entry + 8, 8);
            bitmap = be64toh(bitmap);
        }
        host = host_of(q, e);
        for (; sub < q->subs; sub++) {
            enum q2_type type = sub_type(q, e, bitmap, sub);
            uint64_t here = host == Q2_NONE ? Q2_NONE : host + (at & (q->cluster - 1));
            uint64_t step = sub_size - (at & (sub_size - 1));

            if (run->length == 0) {
                *run = (struct q2_run){ .type = type,
                                        .host = here,
                                        .entry = e,
                                        .bitmap = bitmap,
                                        .copied = e & Q2_COPIED };
            } else if (!goes_on(run, type, here, e & Q2_COPIED, e)) {
                return;
            }
            run->length += step;
            at += step;
            if (run->length >= max) {
                return;
            }
        }
    }
}

int q2_lookup(struct qcow2 *q, uint64_t offset, uint64_t max, struct q2_run *run)
{
    uint64_t i = l1_index(q, offset), table;
    struct q2_slice *s;
    int rc;

    table = i < q->h.l1_size ? q->l1[i] & Q2_OFFSET : 0;
    if (!table) {
        uint64_t span = 1ull << (q->cluster_bits + q->l2_bits),
                 left = span - (offset & (span - 1));

        *run = (struct q2_run){ .type = Q2_T_NONE,
                                .length = left < max ? left : max,
                                .host = Q2_NONE };
        return 0;
    }
    rc = check_l2(q, table);
    if (rc == 0) {
        rc = q2_slice_get(q, Q2_L2, table + l2_index(q, offset) * q->l2_entry, false, &s);
    }
    if (rc != 0) {
        return rc;
    }
    extend_run(q, s, offset, max, run);
    q2_slice_put(s);
    run->length = run->length < max ? run->length : max;
    if (run->type == Q2_T_DATA && (run->entry & Q2_OFFSET) & (q->cluster - 1)) {
        return q2_corrupt(q, "data cluster at %#llx is not aligned to a cluster",
                          (unsigned long long)(run->entry & Q2_OFFSET));
    }
    return 0;
}

/* A copy of an L2 table that a snapshot shares, or a new empty one. */
static int l2_own(struct qcow2 *q, uint64_t i)
{
    uint64_t old = q->l1[i] & Q2_OFFSET, at;
    int rc = old ? check_l2(q, old) : 0;

    rc = rc ? rc : q2_alloc_exact(q, 1, &at);
    for (uint64_t part = 0; part < q->cluster && rc == 0; part += q->cache.size) {
        struct q2_slice *from = NULL, *to;

        rc = old ? q2_slice_get(q, Q2_L2, old + part, false, &from) : 0;
        if (rc != 0) {
            break;
        }
        rc = q2_slice_get(q, Q2_L2, at + part, true, &to);
        if (rc == 0) {
            if (from) {
                memcpy(to->data, from->data, q->cache.size);
            } else {
                memset(to->data, 0, q->cache.size);
            }
            q2_slice_dirty(q, to);
            q2_slice_put(to);
        }
        if (from) {
            q2_slice_put(from);
        }
    }
    if (rc != 0) {
        return rc;
    }
    q->l1[i] = at | Q2_COPIED;
    q->l1_dirty = true;
    q->l1_lo = i < q->l1_lo ? i : q->l1_lo;
    q->l1_hi = i + 1 > q->l1_hi ? i + 1 : q->l1_hi;
    if (old) {
        q2_release(q, old, 1, false);
    }
    return 0;
}

int q2_entry(struct qcow2 *q, uint64_t offset, struct q2_slice **s, uint64_t **entry)
{
    uint64_t i = l1_index(q, offset), at;
    int rc = 0;

    if (i >= q->h.l1_size) {
        return -EINVAL;
    }
    if (!(q->l1[i] & Q2_OFFSET) || !(q->l1[i] & Q2_COPIED)) {
        rc = l2_own(q, i);
    }
    at = (q->l1[i] & Q2_OFFSET) + l2_index(q, offset) * q->l2_entry;
    rc = rc ? rc : check_l2(q, q->l1[i] & Q2_OFFSET);
    rc = rc ? rc : q2_slice_get(q, Q2_L2, at, false, s);
    if (rc == 0) {
        *entry = (uint64_t *)(void *)((*s)->data + at % q->cache.size);
    }
    return rc;
}

void q2_entry_release(struct qcow2 *q, uint64_t e, bool punch)
{
    uint64_t offset, length;

    if (e & Q2_COMPRESSED) {
        if (q2_zip_range(q, e, &offset, &length)) {
            uint64_t first = offset >> q->cluster_bits;

            q2_release(q, first << q->cluster_bits,
                       ((offset + length - 1) >> q->cluster_bits) - first + 1, false);
        }
    } else if (q->data != q->file) {
        /* an external data file has no refcounts */
    } else if (e & Q2_OFFSET) {
        q2_release(q, e & Q2_OFFSET & ~(q->cluster - 1), 1, punch);
    }
}
