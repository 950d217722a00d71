/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: internal snapshots. A snapshot is a copy of the L1 table; every cluster it reaches has one
 * reference more. While references change, a version 3 image carries the dirty bit, so that after a
 * crash its refcounts are made anew; in version 2 each step leaves at most leaks.
 */
#include "storage/qcow2.h"

#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIXED = 40, EXTRA = 24, MAX_EXTRA = 1024, MAX_TEXT = 65535 };

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static void put(uint8_t *p, unsigned n, uint64_t v)
{
    for (unsigned i = n; i-- > 0; v >>= 8) {
        p[i] = (uint8_t)v;
    }
}

int q2_l1_read(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **out,
               const char *of, struct err *e)
{
    uint64_t bytes = (uint64_t)entries * 8, file = blk_file_length(q->file), *l1;
    int rc;

    if (bytes > Q2_MAX_L1 || offset & (q->cluster - 1) || offset > file ||
        bytes > file - offset) {
        return err_set(e, -EINVAL, "disk '%s': the L1 table of %s lies outside the file",
                       q->node.name, of);
    }
    l1 = try_alloc_n(entries + 1, 8);
    if (!l1) {
        return err_set(e, -ENOMEM, "disk '%s': no memory for an L1 table", q->node.name);
    }
    rc = entries ? blk_kid_read(q->file, offset, l1, bytes) : 0;
    if (rc != 0) {
        free(l1);
        return err_errno(e, -rc, "disk '%s': L1 table of %s", q->node.name, of);
    }
    for (uint32_t i = 0; i < entries; i++) {
        l1[i] = be64toh(l1[i]) & (Q2_OFFSET | Q2_COPIED); /* the rest is reserved */
    }
    *out = l1;
    return 0;
}

/* --- the table of snapshots --- */

static void snap_free(struct q2_snapshot *s)
{
    free(s->pub.id);
    free(s->pub.name);
    free(s->extra);
}

void q2_snaps_done(struct qcow2 *q)
{
    for (size_t i = 0; i < q->n_snaps; i++) {
        snap_free(&q->snap[i]);
    }
    free(q->snap);
}

static int snap_decode(struct qcow2 *q, struct q2_snapshot *s, const uint8_t *p, size_t left,
                       size_t *used)
{
    size_t id, name, extra;

    if (left < FIXED) {
        return -EINVAL;
    }
    id = get(p + 12, 2);
    name = get(p + 14, 2);
    extra = get(p + 36, 4);
    if (extra > MAX_EXTRA || FIXED + extra + id + name > left ||
        get(p + 8, 4) * 8 > Q2_MAX_L1) {
        return -EINVAL;
    }
    s->l1_offset = get(p, 8);
    s->l1_size = (uint32_t)get(p + 8, 4);
    s->pub.date_sec = (int64_t)get(p + 16, 4);
    s->pub.date_nsec = (uint32_t)get(p + 20, 4);
    s->pub.vm_clock_ns = get(p + 24, 8);
    s->pub.vm_state_size = extra >= 8 ? get(p + 40, 8) : get(p + 32, 4);
    s->pub.size = extra >= 16 ? get(p + 48, 8) : q->h.size;
    s->pub.icount = extra >= 24 ? get(p + 56, 8) : UINT64_MAX;
    s->extra_size = extra > EXTRA ? (uint32_t)(extra - EXTRA) : 0;
    s->extra = s->extra_size ? xmemdup(p + FIXED + EXTRA, s->extra_size) : NULL;
    s->pub.id = xstrndup((const char *)p + FIXED + extra, id);
    s->pub.name = xstrndup((const char *)p + FIXED + extra + id, name);
    *used = (FIXED + extra + id + name + 7) & ~(size_t)7;
    return 0;
}

int q2_snaps_load(struct qcow2 *q, struct err *e)
{
    uint64_t at = q->h.snapshots_offset, left;
    AUTO_FREE uint8_t *p = NULL;
    int rc;

    if (q->h.n_snapshots == 0) {
        return 0;
    }
    if (q->h.n_snapshots > Q2_MAX_SNAPSHOTS || at < q->cluster || at & (q->cluster - 1) ||
        at >= q->file->size) {
        return err_set(e, -EINVAL, "disk '%s': the table of snapshots of %s is not sound",
                       q->node.name, q->node.path);
    }
    left = q->file->size - at;
    left = left < Q2_MAX_SNAPSHOT_BYTES ? left : Q2_MAX_SNAPSHOT_BYTES;
    p = xalloc(left);
    rc = blk_kid_read(q->file, at, p, left);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': table of snapshots", q->node.name);
    }
    q->snap = xnew_n(struct q2_snapshot, q->h.n_snapshots);
    at = 0;
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        size_t used = 0;

        if (at > left || snap_decode(q, &q->snap[i], p + at, left - at, &used) != 0) {
            return err_set(e, -EINVAL, "disk '%s': snapshot %u of %s is not sound",
                           q->node.name, i + 1, q->node.path);
        }
        q->n_snaps = i + 1;
        at += used;
    }
    return 0;
}

static size_t snap_bytes(const struct q2_snapshot *s)
{
    return (FIXED + EXTRA + s->extra_size + strlen(s->pub.id) + strlen(s->pub.name) + 7) &
           ~(size_t)7;
}

uint64_t q2_snaps_bytes(const struct qcow2 *q)
{
    uint64_t n = 0;

    for (size_t i = 0; i < q->n_snaps; i++) {
        n += snap_bytes(&q->snap[i]);
    }
    return n;
}

static void snap_encode(const struct q2_snapshot *s, uint8_t *p)
{
    size_t id = strlen(s->pub.id), name = strlen(s->pub.name), at = FIXED + EXTRA;

    put(p, 8, s->l1_offset);
    put(p + 8, 4, s->l1_size);
    put(p + 12, 2, id);
    put(p + 14, 2, name);
    put(p + 16, 4, (uint64_t)s->pub.date_sec);
    put(p + 20, 4, s->pub.date_nsec);
    put(p + 24, 8, s->pub.vm_clock_ns);
    put(p + 32, 4, s->pub.vm_state_size > UINT32_MAX ? 0 : s->pub.vm_state_size);
    put(p + 36, 4, EXTRA + s->extra_size);
    put(p + 40, 8, s->pub.vm_state_size);
    put(p + 48, 8, s->pub.size);
    put(p + 56, 8, s->pub.icount);
    if (s->extra) {
        memcpy(p + at, s->extra, s->extra_size);
        at += s->extra_size;
    }
    memcpy(p + at, s->pub.id, id);
    memcpy(p + at + id, s->pub.name, name);
}

/* Writes the table anew, elsewhere; the header names it at the next commit. `old_bytes`: size of the
 * table that the header names now. */
static int table_write(struct qcow2 *q, uint64_t old_bytes)
{
    uint64_t bytes = q2_snaps_bytes(q), old = q->h.snapshots_offset, at = 0, n = 0;
    AUTO_FREE uint8_t *p = NULL;
    int rc = 0;

    if (bytes > Q2_MAX_SNAPSHOT_BYTES) {
        return -EFBIG;
    }
    if (bytes) {
        uint64_t room = q2_clusters(q, bytes) << q->cluster_bits;

        p = xalloc(room);
        for (size_t i = 0; i < q->n_snaps; i++) {
            snap_encode(&q->snap[i], p + n);
            n += snap_bytes(&q->snap[i]);
        }
        rc = q2_alloc_exact(q, room >> q->cluster_bits, &at);
        rc = rc ? rc : blk_kid_write(q->file, at, p, room);
    }
    if (rc == 0) {
        q->h.snapshots_offset = at;
        q->h.n_snapshots = (uint32_t)q->n_snaps;
        q->header_dirty = true;
        if (old_bytes) {
            q2_release(q, old, q2_clusters(q, old_bytes), false);
        }
    }
    return rc;
}

/* --- references of a whole L1 table --- */

enum walk {
    WALK_TEST,  /* would one reference more each still fit? */
    WALK_ADD,   /* one more each */
    WALK_SHARE, /* the same for the active table, whose "refcount 1" flags are wrong then */
    WALK_DROP,
    WALK_FLAGS /* the active table's flags are put right */
};

static int walk_ref(struct qcow2 *q, uint64_t offset, uint64_t length, enum walk how)
{
    uint64_t first = offset >> q->cluster_bits;
    uint64_t last = (offset + length - 1) >> q->cluster_bits;
    int rc = 0;

    if (how == WALK_TEST &&
        length % q->cluster) { /* of compressed ones, many share a cluster */
        uint64_t v;

        rc = q2_refcount_get(q, first, &v);
        return rc ? rc : v > q->refcount_max - v ? -EOVERFLOW : 0;
    }
    if (how == WALK_TEST) {
        for (uint64_t n = 0; first <= last && rc == 0; first += n) {
            uint64_t v;

            rc = q2_refcount_span(q, first, last - first + 1, &v, &n);
            rc = rc ? rc : v > q->refcount_max - 1 ? -EOVERFLOW : 0;
        }
        return rc;
    }
    if (how == WALK_ADD || how == WALK_SHARE) {
        return q2_refcount_add(q, offset, length, 1);
    }
    if (how == WALK_DROP) {
        q2_release(q, first << q->cluster_bits, last - first + 1, true);
    }
    return 0;
}

/* Sets the flag that says "refcount 1" of entries i and following. */
static void set_flags(struct qcow2 *q, struct q2_slice *s, unsigned i, uint64_t n, bool on)
{
    bool changed = false;

    for (uint64_t end = i + n; i < end; i++) {
        uint64_t raw, now;

        memcpy(&raw, s->data + (size_t)i * q->l2_entry, 8);
        now = on ? raw | htobe64(Q2_COPIED) : raw & ~htobe64(Q2_COPIED);
        changed |= now != raw;
        memcpy(s->data + (size_t)i * q->l2_entry, &now, 8);
    }
    if (changed) {
        q2_slice_dirty(q, s);
    }
}

/* The flag that says "refcount 1" of one entry. */
static int flag_for(struct qcow2 *q, uint64_t entry, uint64_t *out)
{
    uint64_t refs;
    int rc = q2_refcount_get(q, (entry & Q2_OFFSET) >> q->cluster_bits, &refs);

    *out = (entry & ~Q2_COPIED) | (rc == 0 && refs == 1 ? Q2_COPIED : 0);
    return rc;
}

/* Entries i and n - 1 following, whose clusters lie side by side from `offset` on. */
static int walk_run(struct qcow2 *q, struct q2_slice *s, unsigned i, uint64_t n,
                    uint64_t offset, enum walk how)
{
    int rc = 0;

    if (n == 0) {
        return 0;
    }
    if (how != WALK_FLAGS) {
        rc = walk_ref(q, offset, n << q->cluster_bits, how);
        if (rc == 0 && how == WALK_SHARE) {
            set_flags(q, s, i, n, false);
        }
        return rc;
    }
    for (uint64_t k = 0, span = 0; k < n && rc == 0; k += span) {
        uint64_t v;

        rc = q2_refcount_span(q, (offset >> q->cluster_bits) + k, n - k, &v, &span);
        if (rc == 0) {
            set_flags(q, s, i + (unsigned)k, span, v == 1);
        }
    }
    return rc;
}

static int walk_slice(struct qcow2 *q, struct q2_slice *s, enum walk how)
{
    unsigned entries = (unsigned)(q->cache.size / q->l2_entry), first = 0;
    uint64_t start = 0, n = 0; /* of the run that ends here */
    int rc = 0;

    for (unsigned i = 0; i < entries && rc == 0; i++) {
        uint64_t raw, entry, offset, length;

        memcpy(&raw, s->data + (size_t)i * q->l2_entry, 8);
        entry = be64toh(raw);
        offset = entry & Q2_OFFSET;
        if (entry & Q2_COMPRESSED) {
            rc = q2_zip_range(q, entry, &offset, &length) ? walk_ref(q, offset, length, how)
                                                          : 0;
            continue;
        }
        if (!offset) {
            continue;
        }
        if (offset & (q->cluster - 1)) {
            return q2_corrupt(q, "data cluster at %#llx is not aligned",
                              (unsigned long long)offset);
        }
        if (n && first + n == i && start + (n << q->cluster_bits) == offset) {
            n++;
            continue;
        }
        rc = walk_run(q, s, first, n, start, how);
        first = i;
        start = offset;
        n = 1;
    }
    return rc ? rc : walk_run(q, s, first, n, start, how);
}

static int walk_l2(struct qcow2 *q, uint64_t table, enum walk how)
{
    int rc = 0;

    for (uint64_t part = 0; part < q->cluster && rc == 0; part += q->cache.size) {
        struct q2_slice *s;

        rc = q2_slice_get(q, Q2_L2, table + part, false, &s);
        if (rc != 0) {
            break;
        }
        rc = walk_slice(q, s, how);
        q2_slice_put(s);
    }
    return rc;
}

/* Every reference that an L1 table makes, its own clusters not among them. WALK_SHARE and WALK_FLAGS are for
 * the active table alone. */
static int walk_l1(struct qcow2 *q, uint64_t *l1, uint32_t entries, enum walk how)
{
    int rc = 0;

    for (uint32_t i = 0; i < entries && rc == 0; i++) {
        uint64_t table = l1[i] & Q2_OFFSET, now;

        if (!table) {
            continue;
        }
        if (table & (q->cluster - 1)) {
            return q2_corrupt(q, "L2 table at %#llx is not aligned", (unsigned long long)table);
        }
        rc = walk_l2(q, table, how);
        rc = rc ? rc : walk_ref(q, table, q->cluster, how);
        if (rc == 0 && (how == WALK_FLAGS || how == WALK_SHARE)) {
            rc = flag_for(q, l1[i], &now);
            if (rc == 0 && now != l1[i]) {
                l1[i] = now;
                q->l1_dirty = true;
                q->l1_lo = i < q->l1_lo ? i : q->l1_lo;
                q->l1_hi = i + 1 > q->l1_hi ? i + 1 : q->l1_hi;
            }
        }
    }
    return rc;
}

/* The dirty bit is on disk, before any reference changes. */
static int begin(struct qcow2 *q)
{
    int rc;

    if (q->h.version < 3 || q->lazy) {
        return q2_lazy_mark(q);
    }
    q->h.incompatible |= Q2_I_DIRTY;
    rc = q2_header_write(q);
    rc = rc ? rc : q2_barrier(q);
    q->unordered = rc == 0;
    return rc;
}

/* All of it is on disk, and then the header without that bit, which may name a new table as well. */
static int end(struct qcow2 *q)
{
    int rc = 0;

    if (q->unordered) {
        q->h.incompatible &= ~(uint64_t)Q2_I_DIRTY;
        q->header_dirty = true;
        rc = q2_commit(q);
        q->unordered = false;
    }
    rc = rc ? rc : q2_commit_all(q);
    return rc ? rc : q2_barrier(q);
}

static int write_l1_copy(struct qcow2 *q, const uint64_t *l1, uint32_t entries, uint64_t *at)
{
    uint64_t clusters = q2_clusters(q, (uint64_t)entries * 8);
    AUTO_FREE uint64_t *be = xnew_n(uint64_t, (clusters ? clusters : 1) * q->cluster / 8);
    int rc = q2_alloc_exact(q, clusters ? clusters : 1, at);

    for (uint32_t i = 0; i < entries; i++) {
        be[i] = htobe64(l1[i] & ~Q2_COPIED);
    }
    return rc ? rc : blk_kid_write(q->file, *at, be, (clusters ? clusters : 1) * q->cluster);
}

static void l1_touch(struct qcow2 *q)
{
    q->l1_dirty = true;
    q->l1_lo = 0;
    q->l1_hi = q->h.l1_size;
}

/* --- verbs; lock held --- */

static char *new_id(const struct qcow2 *q)
{
    unsigned long top = 0;

    for (size_t i = 0; i < q->n_snaps; i++) {
        unsigned long v = strtoul(q->snap[i].pub.id, NULL, 10);

        top = v > top ? v : top;
    }
    return xasprintf("%lu", top + 1);
}

static int snap_create(struct qcow2 *q, const char *name)
{
    struct q2_snapshot s = { .l1_size = q->h.l1_size };
    uint64_t old_bytes = q2_snaps_bytes(q);
    struct timespec now;
    int rc = walk_l1(q, q->l1, q->h.l1_size, WALK_SHARE);

    rc = rc ? rc : write_l1_copy(q, q->l1, q->h.l1_size, &s.l1_offset);
    if (rc != 0) {
        return rc;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    s.pub = (struct blk_snapshot){ .id = new_id(q),
                                   .name = xstrdup(name),
                                   .size = q->h.size,
                                   .date_sec = now.tv_sec,
                                   .date_nsec = (uint32_t)now.tv_nsec,
                                   .icount = UINT64_MAX };
    q->snap = xrealloc_n(q->snap, q->n_snaps + 1, sizeof(*q->snap));
    q->snap[q->n_snaps++] = s;
    rc = table_write(q, old_bytes);
    q->zip_offset = 0; /* compressed data goes on in a cluster of its own */
    return rc;
}

static int snap_delete(struct qcow2 *q, size_t i, struct err *e)
{
    struct q2_snapshot gone = q->snap[i];
    uint64_t old_bytes = q2_snaps_bytes(q), *l1 = NULL;
    int rc = q2_l1_read(q, gone.l1_offset, gone.l1_size, &l1, "the snapshot", e);

    if (rc != 0) {
        return rc;
    }
    memmove(&q->snap[i], &q->snap[i + 1], (q->n_snaps - i - 1) * sizeof(gone));
    q->n_snaps--;
    rc = table_write(q, old_bytes);
    if (rc == 0 && q->h.version >= 3) { /* in one write with the dirty bit */
        q->h.incompatible |= Q2_I_DIRTY;
        q->unordered = !q->lazy;
    }
    rc = rc ? rc : q2_commit(q); /* the table on disk has forgotten it */
    rc = rc ? rc : q2_barrier(q);
    rc = rc ? rc : walk_l1(q, l1, gone.l1_size, WALK_DROP);
    if (rc == 0) {
        uint64_t n = q2_clusters(q, (uint64_t)gone.l1_size * 8);

        q2_release(q, gone.l1_offset, n ? n : 1, true);
        rc = q2_commit_all(q);
    }
    rc = rc ? rc : walk_l1(q, q->l1, q->h.l1_size, WALK_FLAGS);
    snap_free(&gone);
    free(l1);
    return rc;
}

static int snap_apply(struct qcow2 *q, size_t i, struct err *e)
{
    const struct q2_snapshot *s = &q->snap[i];
    uint64_t *l1 = NULL, *old = q->l1, at, n = q2_clusters(q, (uint64_t)q->h.l1_size * 8);
    uint64_t old_at = q->h.l1_offset, need;
    uint32_t old_size = q->h.l1_size;
    unsigned span = q->cluster_bits + q->l2_bits;
    int rc = q2_l1_read(q, s->l1_offset, s->l1_size, &l1, "the snapshot", e);

    need = (s->pub.size >> span) + ((s->pub.size & ((1ull << span) - 1)) != 0);
    if (rc == 0 && need > s->l1_size) {
        rc = err_set(e, -EINVAL, "disk '%s': the snapshot's L1 table is too small",
                     q->node.name);
    }
    rc = rc ? rc : walk_l1(q, l1, s->l1_size, WALK_ADD);
    rc = rc ? rc : write_l1_copy(q, l1, s->l1_size, &at);
    if (rc != 0) {
        free(l1);
        return rc;
    }
    for (uint32_t k = 0; k < s->l1_size; k++) {
        l1[k] &= ~Q2_COPIED;
    }
    q->l1 = l1;
    q->h.l1_size = s->l1_size;
    q->h.l1_offset = at;
    q->h.size = s->pub.size;
    q->node.size = (s->pub.size + BLK_SECTOR - 1) & ~(uint64_t)(BLK_SECTOR - 1);
    q->l1_moved = true;
    l1_touch(q);
    rc = q2_commit(q);
    rc = rc ? rc : walk_l1(q, old, old_size, WALK_DROP);
    if (rc == 0) {
        q2_release(q, old_at, n, true);
        rc = q2_commit_all(q);
    }
    free(old);
    return rc ? rc : walk_l1(q, q->l1, q->h.l1_size, WALK_FLAGS);
}

static int find(const struct qcow2 *q, const char *name, size_t *i)
{
    for (int by_id = 1; by_id >= 0; by_id--) {
        for (*i = 0; *i < q->n_snaps; ++*i) {
            const struct blk_snapshot *s = &q->snap[*i].pub;

            if (strcmp(by_id ? s->id : s->name, name) == 0) {
                return 0;
            }
        }
    }
    return -ENOENT;
}

/* Before anything is changed: is there room in the refcounts? */
static int snap_test(struct qcow2 *q, enum blk_snapshot_verb verb, size_t i)
{
    uint64_t *l1 = NULL;
    int rc;

    if (verb == BLK_SNAP_CREATE) {
        return walk_l1(q, q->l1, q->h.l1_size, WALK_TEST);
    }
    if (verb == BLK_SNAP_DELETE) {
        return 0;
    }
    rc = q2_l1_read(q, q->snap[i].l1_offset, q->snap[i].l1_size, &l1, "the snapshot", NULL);
    rc = rc ? rc : walk_l1(q, l1, q->snap[i].l1_size, WALK_TEST);
    free(l1);
    return rc;
}

int q2_snapshot(struct blk_node *n, enum blk_snapshot_verb verb, const char *name,
                struct err *e)
{
    struct qcow2 *q = q2_of(n);
    struct err why = ERR_INIT;
    size_t i = 0;
    int rc = 0;

    if (n->readonly) {
        return err_set(e, -EROFS, "disk '%s' is read-only", n->name);
    }
    if (q->data != q->file) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': an image with an external data file has no snapshots",
                       n->name);
    }
    if (verb != BLK_SNAP_CREATE && find(q, name, &i) != 0) {
        return err_set(e, -ENOENT, "disk '%s' has no snapshot '%s'", n->name, name);
    }
    if (verb == BLK_SNAP_CREATE &&
        (strlen(name) > MAX_TEXT || q->n_snaps >= Q2_MAX_SNAPSHOTS)) {
        return err_set(e, -EINVAL, "disk '%s': too many snapshots, or too long a name",
                       n->name);
    }
    pthread_mutex_lock(&q->lock);
    rc = q2_commit_all(q);
    rc = rc ? rc : snap_test(q, verb, i);
    if (rc == -EOVERFLOW) {
        pthread_mutex_unlock(&q->lock);
        return err_set(
            e, rc,
            "disk '%s': its refcounts of %u bits hold no further snapshot; convert it with a "
            "larger refcount_bits",
            n->name, q->refcount_bits);
    }
    rc = rc || verb == BLK_SNAP_DELETE ? rc : begin(q);
    if (rc == 0) {
        rc = verb == BLK_SNAP_CREATE   ? snap_create(q, name)
             : verb == BLK_SNAP_DELETE ? snap_delete(q, i, &why)
                                       : snap_apply(q, i, &why);
    }
    rc = rc ? rc : end(q);
    if (rc != 0) { /* tables in memory may be ahead of what is counted */
        q->broken = true;
        q->broken_errno = rc;
    }
    pthread_mutex_unlock(&q->lock);
    if (rc != 0) {
        return why.code ? err_set(e, rc, "%s", why.msg)
                        : err_errno(e, -rc, "disk '%s': snapshot '%s'", n->name, name);
    }
    return 0;
}

int q2_snapshot_load(struct blk_node *n, const char *name, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    uint64_t *l1;
    size_t i;
    int rc;

    if (!n->readonly) {
        return err_set(e, -EINVAL, "disk '%s': a snapshot is read from an image open read-only",
                       n->name);
    }
    if (find(q, name, &i) != 0) {
        return err_set(e, -ENOENT, "disk '%s' has no snapshot '%s'", n->name, name);
    }
    rc = q2_l1_read(q, q->snap[i].l1_offset, q->snap[i].l1_size, &l1, "the snapshot", e);
    if (rc == 0) {
        pthread_mutex_lock(&q->lock);
        free(q->l1);
        q->l1 = l1;
        q->h.l1_size = q->snap[i].l1_size;
        n->size = (q->snap[i].pub.size + BLK_SECTOR - 1) & ~(uint64_t)(BLK_SECTOR - 1);
        q->snapshot_loaded = true;
        pthread_mutex_unlock(&q->lock);
    }
    return rc;
}
