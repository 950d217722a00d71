/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: check and repair. Counts every reference that the tables make and compares with the refcounts
 * on disk. A refcount that is too high is a leak; one that is too low, a reference outside the file and a
 * wrong "refcount 1" flag are corruptions. Repair drops references that lead nowhere, writes refcount
 * structures anew at the end of the file, and only then lets the header name them.
 */
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct walk {
    struct qcow2 *q;
    struct blk_check *c;
    uint32_t *refs; /* of each cluster of the file, counted by us */
    uint64_t clusters;
    bool fix;       /* drop references that lead nowhere */
    uint8_t *flags; /* of each cluster: how entries of the active table mark it */
    uint8_t *table; /* an L2 table; NULL: slices in memory, which can be changed */
    uint64_t last_host;
    bool active; /* the L1 table in use, not a snapshot's */
};

enum { AHEAD = 32 }; /* L2 tables that the kernel is told of before they are read */
enum { MARKED_ONE = 1, MARKED_MORE = 2 };

static void say(struct walk *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct walk *w, const char *fmt, ...)
{
    char text[240];
    va_list ap;

    if (w->c->say) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        w->c->say(w->c->arg, text);
    }
}

/* Counts references to a range of bytes; false when it lies outside the file. */
static bool count(struct walk *w, uint64_t offset, uint64_t length)
{
    unsigned b = w->q->cluster_bits;
    uint64_t first = offset >> b, last = (offset + (length ? length : 1) - 1) >> b;

    if (last >= w->clusters || last < first) {
        return false;
    }
    for (uint64_t i = first; i <= last; i++) {
        w->refs[i] += w->refs[i] < UINT32_MAX;
    }
    w->c->end = (last + 1) << b > w->c->end ? (last + 1) << b : w->c->end;
    return true;
}

static void corrupt(struct walk *w, bool fixed)
{
    if (fixed) {
        w->c->corruptions_fixed++;
    } else {
        w->c->corruptions++;
    }
}

/* --- what refers to clusters --- */

/* What an entry, counted already, says of the cluster's refcount. */
static void note_flag(struct walk *w, uint64_t entry)
{
    uint64_t at = (entry & Q2_OFFSET) >> w->q->cluster_bits;

    if (w->active && at && at < w->clusters && !(entry & Q2_COMPRESSED)) {
        w->flags[at] |= entry & Q2_COPIED ? MARKED_ONE : MARKED_MORE;
    }
}

static void count_stats(struct walk *w, uint64_t entry, uint64_t host)
{
    if (!w->active) {
        return;
    }
    w->c->allocated++;
    w->c->compressed += (entry & Q2_COMPRESSED) != 0;
    if (w->last_host && host != w->last_host) {
        w->c->fragmented++;
    }
    w->last_host = host + w->q->cluster;
}

/* One L2 entry; true when it was changed. */
static bool check_entry(struct walk *w, uint8_t *p, uint64_t guest)
{
    struct qcow2 *q = w->q;
    uint64_t raw, e, offset, length, bitmap = 0;
    bool ok;

    memcpy(&raw, p, 8);
    e = be64toh(raw);
    if (q2_ext_l2(q)) {
        memcpy(&bitmap, p + 8, 8);
        bitmap = be64toh(bitmap);
    }
    if (q->data == q->file) {
        note_flag(w, e);
    }
    if (e & Q2_COMPRESSED) {
        ok = q2_zip_range(q, e, &offset, &length) && !bitmap && !(e & Q2_COPIED);
        /* its last sector may lie behind the end of the file, its first byte not */
        if (ok && offset < w->clusters << q->cluster_bits &&
            offset + length > w->clusters << q->cluster_bits) {
            length = (w->clusters << q->cluster_bits) - offset;
        }
        ok = ok && count(w, offset, length);
    } else if (q->data != q->file) {
        offset = e & Q2_OFFSET;
        ok = (offset & (q->cluster - 1)) == 0;
    } else {
        offset = e & Q2_OFFSET;
        if (!offset && !(bitmap & 0xffffffff)) {
            return false;
        }
        ok = offset && (offset & (q->cluster - 1)) == 0 && count(w, offset, q->cluster);
    }
    if (ok && (bitmap & bitmap >> 32 & 0xffffffff)) {
        ok = false; /* a subcluster cannot be both allocated and zero */
    }
    if (ok) {
        count_stats(w, e, offset);
        return false;
    }
    say(w, "%s: the entry of guest offset %#llx, %#llx, leads nowhere",
        w->fix ? "repairing" : "ERROR", (unsigned long long)guest, (unsigned long long)e);
    corrupt(w, w->fix);
    if (w->fix) {
        memset(p, 0, q->l2_entry);
    }
    return w->fix;
}

/* Entries of a piece of a table that starts at guest offset `guest`; true when one was changed. */
static bool check_entries(struct walk *w, uint8_t *p, uint64_t bytes, uint64_t guest)
{
    const struct qcow2 *q = w->q;
    bool changed = false;

    for (uint64_t at = 0; at < bytes; at += 64) { /* most of a table is empty */
        uint64_t word[8], any = 0;

        memcpy(word, p + at, sizeof(word));
        for (unsigned k = 0; k < 8; k++) {
            any |= word[k];
        }
        for (uint64_t i = at; any && i < at + 64; i += q->l2_entry) {
            if (word[(i - at) / 8] | word[(i - at + q->l2_entry - 8) / 8]) {
                changed |= check_entry(w, p + i,
                                       guest + ((i / q->l2_entry) << q->cluster_bits));
            }
        }
    }
    return changed;
}

static int check_l2(struct walk *w, uint64_t table, uint64_t guest)
{
    struct qcow2 *q = w->q;
    int rc = 0;

    if (w->table) {
        rc = blk_kid_read(q->file, table, w->table, q->cluster);
        if (rc == 0) {
            check_entries(w, w->table, q->cluster, guest);
        }
        return rc;
    }
    for (uint64_t part = 0; part < q->cluster && rc == 0; part += q->cache.size) {
        struct q2_slice *s;

        rc = q2_slice_get(q, Q2_L2, table + part, false, &s);
        if (rc != 0) {
            break;
        }
        if (check_entries(w, s->data, q->cache.size,
                          guest + ((part / q->l2_entry) << q->cluster_bits))) {
            q2_slice_dirty(q, s);
        }
        q2_slice_put(s);
    }
    return rc;
}

/* Tells the kernel of tables behind entry i; `told` is the first that it has not heard of. */
static void read_ahead(struct walk *w, const uint64_t *l1, uint32_t entries, uint32_t i,
                       uint32_t *told)
{
    const struct qcow2 *q = w->q;

    for (*told = *told > i ? *told : i + 1; *told < entries && *told - i <= AHEAD; ++*told) {
        if (l1[*told] & Q2_OFFSET) {
            blk_file_will_read(q->file, l1[*told] & Q2_OFFSET, q->cluster);
        }
    }
}

static int check_l1(struct walk *w, uint64_t *l1, uint64_t offset, uint32_t entries,
                    bool *changed)
{
    struct qcow2 *q = w->q;
    uint32_t told = 0;
    int rc = 0;

    if (entries && !count(w, offset, (uint64_t)entries * 8)) {
        say(w, "ERROR: an L1 table at %#llx lies outside the file", (unsigned long long)offset);
        corrupt(w, false);
    }
    for (uint32_t i = 0; i < entries && rc == 0; i++) {
        uint64_t table = l1[i] & Q2_OFFSET;

        if (!table) {
            continue;
        }
        note_flag(w, l1[i]);
        if (table & (q->cluster - 1) || !count(w, table, q->cluster)) {
            say(w, "%s: L1 entry %u leads nowhere", w->fix ? "repairing" : "ERROR", i);
            corrupt(w, w->fix);
            if (w->fix) {
                l1[i] = 0;
                *changed = true;
            }
            continue;
        }
        read_ahead(w, l1, entries, i, &told);
        rc = check_l2(w, table, (uint64_t)i << (q->cluster_bits + q->l2_bits));
        if (w->c->progress && w->active) {
            w->c->progress(w->c->arg, i + 1, entries);
        }
    }
    return rc;
}

static int check_snapshots(struct walk *w)
{
    struct qcow2 *q = w->q;
    int rc = 0;

    if (q->n_snaps && !count(w, q->h.snapshots_offset, q2_snaps_bytes(q))) {
        corrupt(w, false);
    }
    for (size_t i = 0; i < q->n_snaps && rc == 0; i++) {
        const struct q2_snapshot *s = &q->snap[i];
        AUTO_FREE uint64_t *l1 = NULL;
        bool changed = false;

        if (q2_l1_read(q, s->l1_offset, s->l1_size, &l1, "a snapshot", NULL) != 0) {
            say(w, "ERROR: the L1 table of snapshot '%s' lies outside the file", s->pub.name);
            corrupt(w, false);
            continue;
        }
        rc = check_l1(w, l1, s->l1_offset, s->l1_size, &changed);
        if (rc == 0 && changed) {
            for (uint32_t k = 0; k < s->l1_size; k++) {
                l1[k] = htobe64(l1[k]);
            }
            rc = blk_kid_write(q->file, s->l1_offset, l1, (size_t)s->l1_size * 8);
        }
    }
    return rc;
}

static bool count_area(struct walk *w, uint64_t offset, uint64_t bytes)
{
    return !(offset & (w->q->cluster - 1)) && offset && count(w, offset, bytes);
}

/* One bitmap of the directory; false when it makes no sense. */
static bool check_bitmap(struct walk *w, const uint8_t *p)
{
    AUTO_FREE uint64_t *table = NULL;
    uint32_t n;
    uint64_t at;

    memcpy(&at, p, 8);
    memcpy(&n, p + 8, 4);
    at = be64toh(at);
    n = be32toh(n);
    if (n == 0) {
        return true;
    }
    if (n > Q2_MAX_L1 / 8 || !count_area(w, at, (uint64_t)n * 8)) {
        return false;
    }
    table = try_alloc_n(n, 8);
    if (!table || blk_kid_read(w->q->file, at, table, (size_t)n * 8) != 0) {
        w->c->errors++;
        return true;
    }
    for (uint32_t k = 0; k < n; k++) {
        uint64_t bits = be64toh(table[k]);

        if (bits & Q2_OFFSET && !count_area(w, bits & Q2_OFFSET, w->q->cluster)) {
            return false;
        }
    }
    return true;
}

static bool check_directory(struct walk *w, const uint8_t *ext)
{
    AUTO_FREE uint8_t *dir = NULL;
    uint64_t size, offset, at = 0;

    memcpy(&size, ext + 8, 8);
    memcpy(&offset, ext + 16, 8);
    size = be64toh(size);
    offset = be64toh(offset);
    if (size > Q2_MAX_SNAPSHOT_BYTES || !count_area(w, offset, size)) {
        return false;
    }
    dir = xalloc(size + 1);
    if (blk_kid_read(w->q->file, offset, dir, size) != 0) {
        w->c->errors++;
        return true;
    }
    while (at + 24 <= size) {
        uint32_t extra;
        uint16_t name;

        memcpy(&name, dir + at + 18, 2);
        memcpy(&extra, dir + at + 20, 4);
        if (!check_bitmap(w, dir + at)) {
            return false;
        }
        at += (24 + (uint64_t)be16toh(name) + be32toh(extra) + 7) & ~7ull;
    }
    return at == size;
}

/* Clusters of dirty bitmaps: directory, tables, bits. What the header names without saying that it is up to
 * date counts for nothing. Repair drops bitmaps that make no sense. */
static void check_bitmaps(struct walk *w)
{
    struct qcow2 *q = w->q;
    bool ok = true;

    if (!(q->h.autoclear & Q2_A_BITMAPS)) {
        return;
    }
    for (size_t i = 0; i < q->n_ext && ok; i++) {
        if (q->ext[i].type == Q2_X_BITMAPS) {
            ok = q->ext[i].length == 24 && check_directory(w, q->ext[i].data);
        }
    }
    if (!ok) {
        say(w, "%s: the dirty bitmaps make no sense", w->fix ? "repairing" : "ERROR");
        corrupt(w, w->fix);
        if (w->fix) {
            q2_bitmaps_forget(q);
            q->header_dirty = true;
        }
    }
}

/* The clusters of a LUKS header. */
static void check_crypto(struct walk *w)
{
    for (size_t i = 0; i < w->q->n_ext; i++) {
        const struct q2_ext *x = &w->q->ext[i];
        uint64_t place[2];

        if (x->type == Q2_X_CRYPTO && x->length == sizeof(place)) {
            memcpy(place, x->data, sizeof(place));
            if (!count_area(w, be64toh(place[0]), be64toh(place[1]))) {
                say(w, "ERROR: the LUKS header lies outside the file");
                corrupt(w, false);
            }
        }
    }
}

/* Everything but the refcount structures. */
static int count_tables(struct walk *w)
{
    struct qcow2 *q = w->q;
    bool changed = false;
    int rc;

    count(w, 0, q->cluster);
    w->active = true;
    rc = check_l1(w, q->l1, q->h.l1_offset, q->h.l1_size, &changed);
    if (changed) {
        q->l1_dirty = true;
        q->l1_lo = 0;
        q->l1_hi = q->h.l1_size;
    }
    w->active = false;
    rc = rc ? rc : check_snapshots(w);
    if (rc == 0) {
        check_crypto(w);
        check_bitmaps(w);
    }
    return rc;
}

/* The refcount table and its blocks; true when one of them cannot be. */
static bool count_refcounts(struct walk *w)
{
    struct qcow2 *q = w->q;
    bool broken = !count(w, q->h.rt_offset, (uint64_t)q->h.rt_clusters << q->cluster_bits);

    for (uint64_t i = 0; i < q->rt_entries; i++) {
        uint64_t at = q->rt[i];

        if (at && (at & (q->cluster - 1) || !count(w, at, q->cluster))) {
            say(w, "ERROR: refcount block %llu, at %#llx, leads nowhere", (unsigned long long)i,
                (unsigned long long)at);
            corrupt(w, false);
            broken = true;
        } else if (at && w->refs[at >> q->cluster_bits] > 1) {
            say(w, "ERROR: refcount block %llu lies on something else", (unsigned long long)i);
            corrupt(w, false);
            broken = true;
        }
    }
    return broken;
}

/* --- comparing --- */

/* A cluster whose refcount differs from what we counted. */
static int differs(struct walk *w, uint64_t i, uint64_t have, unsigned repair, bool *low)
{
    struct qcow2 *q = w->q;
    int rc = 0;

    say(w, "%s: cluster %llu refcount=%llu reference=%u",
        have > w->refs[i] ? "Leaked" : "ERROR", (unsigned long long)i, (unsigned long long)have,
        w->refs[i]);
    if (have < w->refs[i]) {
        w->c->corruptions++;
        *low = true;
    } else if (repair && !*low) {
        for (uint64_t more = have - w->refs[i]; more && rc == 0;) {
            int64_t part = more < INT64_MAX ? (int64_t)more : INT64_MAX;

            rc = q2_refcount_add(q, i << q->cluster_bits, 1, -part);
            more -= (uint64_t)part;
        }
        w->c->leaks_fixed += rc == 0;
    } else {
        w->c->leaks++;
    }
    return rc;
}

/* Whether any refcount is too low. Leaks are put right at once when that is asked for. */
static int compare(struct walk *w, unsigned repair, bool *low)
{
    struct qcow2 *q = w->q;
    int rc = 0;

    for (uint64_t i = 0, n = 0; i < w->clusters && rc == 0; i += n) {
        uint64_t have;

        rc = q2_refcount_span(q, i, w->clusters - i, &have, &n);
        for (uint64_t k = i; rc == 0 && k < i + n; k++) {
            if (have != w->refs[k]) {
                rc = differs(w, k, have, repair, low);
            }
        }
    }
    return rc;
}

/* The flag of one entry of an active table. */
static bool wrong_flag(struct walk *w, uint64_t e, bool fix)
{
    struct qcow2 *q = w->q;
    uint64_t at = (e & Q2_OFFSET) >> q->cluster_bits;
    bool is = e & Q2_COPIED, want;

    if (!(e & Q2_OFFSET) || e & Q2_COMPRESSED || at >= w->clusters) {
        return false;
    }
    want = w->refs[at] == 1;
    if (is == want) {
        return false;
    }
    say(w, "%s: the entry %#llx says refcount %s 1, which is %u", fix ? "repairing" : "ERROR",
        (unsigned long long)e, is ? "is" : "is not", w->refs[at]);
    corrupt(w, fix);
    return true;
}

static int check_flags(struct walk *w, bool fix)
{
    struct qcow2 *q = w->q;

    for (uint32_t i = 0; i < q->h.l1_size; i++) {
        uint64_t table = q->l1[i] & Q2_OFFSET;

        if (wrong_flag(w, q->l1[i], fix) && fix) {
            q->l1[i] ^= Q2_COPIED;
            q->l1_dirty = true;
            q->l1_lo = 0;
            q->l1_hi = q->h.l1_size;
        }
        if (q->data != q->file || !table || table & (q->cluster - 1) ||
            table >> q->cluster_bits >= w->clusters) {
            continue;
        }
        for (uint64_t part = 0; part < q->cluster; part += q->cache.size) {
            struct q2_slice *s;
            int rc = q2_slice_get(q, Q2_L2, table + part, false, &s);

            if (rc != 0) {
                return rc;
            }
            for (uint64_t k = 0; k < q->cache.size; k += q->l2_entry) {
                uint64_t raw;

                memcpy(&raw, s->data + k, 8);
                if (raw && wrong_flag(w, be64toh(raw), fix) && fix) {
                    raw = htobe64(be64toh(raw) ^ Q2_COPIED);
                    memcpy(s->data + k, &raw, 8);
                    q2_slice_dirty(q, s);
                }
            }
            q2_slice_put(s);
        }
    }
    return 0;
}

/* --- rebuilding --- */

/* New refcount blocks and table behind the last cluster, for w->refs, which counts no old ones. Nothing
 * that is in use is written over; the header names the new table when all of it is on the disk. */
static int rebuild(struct walk *w)
{
    struct qcow2 *q = w->q;
    uint64_t per = 1ull << q->ref_bits, base = w->clusters, blocks = 1, table = 1, was, total,
             b = 0;
    AUTO_FREE uint8_t *block = xalloc(q->cluster);
    uint64_t old_rt = q->rt_entries, *rt;
    int rc = 0;

    (void)old_rt;
    do {
        was = blocks + table;
        total = base + was;
        blocks = (total + per - 1) / per;
        table = q2_clusters(q, blocks * 8);
    } while (blocks + table != was);
    if (table << q->cluster_bits > Q2_MAX_RT) {
        return -EFBIG;
    }
    rt = xnew_n(uint64_t, table << (q->cluster_bits - 3));
    for (b = 0; b < blocks && rc == 0; b++) {
        memset(block, 0, q->cluster);
        for (uint64_t i = 0; i < per && b * per + i < total; i++) {
            uint64_t c = b * per + i, v = c < base ? w->refs[c] : 1;

            if (v > q->refcount_max) {
                rc = -EOVERFLOW;
            }
            q2_ref_write(block, q->h.refcount_order, i, v);
        }
        rt[b] = (base + table + b) << q->cluster_bits;
        rc = rc ? rc : blk_kid_write(q->file, rt[b], block, q->cluster);
    }
    if (rc != 0) {
        free(rt);
        return rc;
    }
    list_for_each (it, &q->cache.lru) { /* what is in memory of the old ones is void */
        struct q2_slice *s = list_entry(it, struct q2_slice, lru);

        if (s->kind == Q2_REF && s->dirty) {
            s->dirty = false;
            q->cache.n_dirty[Q2_REF]--;
        }
    }
    for (uint64_t i = 0; i < q->rt_entries; i++) {
        if (q->rt[i]) {
            q2_cache_drop(q, q->rt[i] & ~(q->cluster - 1), q->cluster);
        }
    }
    free(q->rt);
    q->rt = rt;
    q->rt_entries = table << (q->cluster_bits - 3);
    q->h.rt_offset = base << q->cluster_bits;
    q->h.rt_clusters = (uint32_t)table;
    q->rt_dirty = q->rt_moved = true;
    q->end = q->virgin = base + blocks + table;
    q->free_hint = 0;
    return q2_commit(q);
}

static int walk_new(struct walk *w, struct qcow2 *q, struct blk_check *c)
{
    uint64_t length = blk_file_length(q->file), end = q->end << q->cluster_bits;

    w->q = q;
    w->c = c;
    w->clusters = q2_clusters(q, length > end ? length : end);
    w->refs = try_alloc_n(w->clusters + 1, sizeof(*w->refs));
    w->flags = try_alloc_n(w->clusters + 1, 1);
    w->table = w->fix ? NULL : xalloc_aligned(4096, q->cluster < 4096 ? 4096 : q->cluster);
    return w->refs && w->flags ? 0 : -ENOMEM;
}

static void walk_done(struct walk *w)
{
    free(w->refs);
    free(w->flags);
    free(w->table);
}

/* Does any cluster's count differ from what the entries say? They were looked at when it was not known yet. */
static bool flags_differ(const struct walk *w)
{
    for (uint64_t i = 0; i < w->clusters; i++) {
        if (w->flags[i] & (w->refs[i] == 1 ? MARKED_MORE : MARKED_ONE)) {
            return true;
        }
    }
    return false;
}

static int check_pass(struct qcow2 *q, unsigned repair, struct blk_check *c, bool *low)
{
    struct walk w = { .fix = repair & BLK_REPAIR_ALL };
    int rc = walk_new(&w, q, c);

    rc = rc ? rc : count_tables(&w);
    if (rc == 0) {
        *low = count_refcounts(&w);
        rc = compare(&w, *low ? 0 : repair, low);
    }
    rc = rc || !flags_differ(&w) ? rc : check_flags(&w, false);
    walk_done(&w);
    return rc;
}

static int repair_all(struct qcow2 *q, struct blk_check *c, bool low)
{
    struct blk_check quiet = { 0 };
    struct walk w = { .fix = true };
    int rc = walk_new(&w, q, &quiet);

    rc = rc ? rc : count_tables(&w);
    if (rc == 0 && low) {
        rc = rebuild(&w);
    } else if (rc == 0) {
        count_refcounts(&w);
    }
    rc = rc ? rc : check_flags(&w, true);
    rc = rc ? rc : q2_commit_all(q);
    if (rc == 0) {
        q->h.incompatible &= ~(uint64_t)(Q2_I_DIRTY | Q2_I_CORRUPT);
        rc = q2_barrier(q);
        rc = rc ? rc : q2_header_write(q);
        rc = rc ? rc : q2_barrier(q);
    }
    c->corruptions_fixed += quiet.corruptions_fixed;
    walk_done(&w);
    return rc;
}

static int check_locked(struct qcow2 *q, unsigned repair, struct blk_check *c)
{
    bool low = false;
    int rc = check_pass(q, 0, c, &low);

    if (rc == 0 && repair && (c->corruptions || c->leaks || q->h.incompatible & 3)) {
        uint64_t was = c->corruptions, leaks = c->leaks;
        struct blk_check after = { 0 };

        if (!(repair & BLK_REPAIR_ALL)) {
            struct blk_check fix = { 0 };

            rc = check_pass(q, BLK_REPAIR_LEAKS, &fix, &low);
            rc = rc ? rc : q2_commit_all(q);
        } else {
            if (!low && c->leaks) {
                struct blk_check fix = { 0 };

                rc = check_pass(q, BLK_REPAIR_LEAKS, &fix, &low);
            }
            rc = rc ? rc : repair_all(q, &after, low);
        }
        memset(&after, 0, sizeof(after));
        rc = rc ? rc : check_pass(q, 0, &after, &low);
        if (rc == 0 && repair & BLK_REPAIR_ALL && after.leaks && !after.corruptions) {
            rc = check_pass(q, BLK_REPAIR_LEAKS, &after, &low); /* what repair let go */
            rc = rc ? rc : q2_commit_all(q);
            memset(&after, 0, sizeof(after));
            rc = rc ? rc : check_pass(q, 0, &after, &low);
        }
        c->corruptions = after.corruptions;
        c->leaks = after.leaks;
        c->corruptions_fixed = was - (after.corruptions < was ? after.corruptions : was);
        c->leaks_fixed = leaks - (after.leaks < leaks ? after.leaks : leaks);
        c->end = after.end;
        c->allocated = after.allocated;
        c->compressed = after.compressed;
        c->fragmented = after.fragmented;
    }
    return rc;
}

int q2_check(struct blk_node *n, unsigned repair, struct blk_check *c, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    int rc;

    if (repair && n->readonly) {
        return err_set(e, -EROFS, "disk '%s' is read-only", n->name);
    }
    pthread_mutex_lock(&q->lock);
    rc = n->readonly ? 0 : q2_commit_all(q);
    rc = rc ? rc : check_locked(q, repair, c);
    c->total = q2_clusters(q, n->size);
    pthread_mutex_unlock(&q->lock);
    return rc ? err_errno(e, -rc, "disk '%s': check", n->name) : 0;
}
