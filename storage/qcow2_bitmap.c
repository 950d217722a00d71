/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: persistent dirty bitmaps. Opening reads them all; while the image is open for writing its directory says
 * that they are in use, so that after a crash nobody trusts them. Closing writes tables and bits to new
 * clusters, and only when these are on the disk does the header name their directory. The node's lock is held
 * throughout.
 */
#include "storage/qcow2.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXT_BYTES = 24,
    ENTRY = 24,
    MAX_BITMAPS = 65535,
    MAX_DIR = 16 << 20,
    MAX_INDEX = 1 << 29, /* bytes of bits of all bitmaps of an image, / 64 */
    F_IN_USE = 1,
    F_AUTO = 2,
    F_EXTRA_OK = 4,
    TYPE_DIRTY = 1
};
#define ONES 1ull

struct entry { /* of the directory */
    uint64_t table;
    uint32_t n_table, flags, extra_size;
    unsigned shift, name_size;
    const uint8_t *extra, *name;
    size_t bytes;
};

/* What a bitmap that is kept as it is (inconsistent) has in the image, and extra data of any. */
struct note {
    uint64_t table;
    uint32_t n_table, extra_size;
    uint8_t extra[];
};

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

static int bad(struct qcow2 *q, struct err *e, const char *what)
{
    return err_set(
        e, -EINVAL,
        "disk '%s': the dirty bitmaps of %s are not sound: %s; drop them with 'vmctl "
        "image check --repair all'",
        q->node.name, q->node.path, what);
}

static struct q2_ext *extension(struct qcow2 *q)
{
    for (size_t i = 0; i < q->n_ext; i++) {
        if (q->ext[i].type == Q2_X_BITMAPS) {
            return &q->ext[i];
        }
    }
    return NULL;
}

static bool area_ok(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end = blk_file_length(q->file);

    return !(offset & (q->cluster - 1)) && offset >= q->cluster && offset <= end &&
           bytes <= end - offset;
}

/* --- reading --- */

static int entry_decode(struct qcow2 *q, const uint8_t *p, size_t left, struct entry *out,
                        struct err *e)
{
    if (left < ENTRY) {
        return bad(q, e, "the directory is cut off");
    }
    *out = (struct entry){ .table = get(p, 8),
                           .n_table = (uint32_t)get(p + 8, 4),
                           .flags = (uint32_t)get(p + 12, 4),
                           .shift = p[17],
                           .name_size = (unsigned)get(p + 18, 2),
                           .extra_size = (uint32_t)get(p + 20, 4),
                           .extra = p + ENTRY };
    out->bytes = (ENTRY + (size_t)out->name_size + out->extra_size + 7) & ~(size_t)7;
    if (out->extra_size > left || out->bytes > left) {
        return bad(q, e, "the directory is cut off");
    }
    out->name = p + ENTRY + out->extra_size;
    if (p[16] != TYPE_DIRTY || out->shift < 9 || out->shift > 31 ||
        out->flags & ~(uint32_t)(F_IN_USE | F_AUTO | F_EXTRA_OK) || out->name_size == 0 ||
        out->name_size > BLK_DIRTY_MAX_NAME || memchr(out->name, 0, out->name_size)) {
        return bad(q, e, "an entry of the directory makes no sense");
    }
    if (out->extra_size && !(out->flags & F_EXTRA_OK)) {
        return bad(q, e, "a bitmap has extra data that we do not know");
    }
    if ((uint64_t)out->n_table << q->cluster_bits > BLK_DIRTY_MAX_BITS / 8 ||
        (out->n_table && !area_ok(q, out->table, (uint64_t)out->n_table * 8))) {
        return bad(q, e, "a bitmap's table lies outside the file");
    }
    return 0;
}

static int table_read(struct qcow2 *q, uint64_t at, uint32_t n, uint64_t **out)
{
    uint64_t *t = try_alloc_n((size_t)n + 1, 8);
    int rc = !t ? -ENOMEM : n ? blk_kid_read(q->file, at, t, (size_t)n * 8) : 0;

    if (rc != 0) {
        free(t);
        return rc;
    }
    for (uint32_t i = 0; i < n; i++) {
        t[i] = be64toh(t[i]);
    }
    *out = t;
    return 0;
}

static int bits_read(struct qcow2 *q, const struct entry *x, struct blk_dirty *d,
                     uint64_t *clusters_left, struct err *e)
{
    AUTO_FREE uint64_t *table = NULL;
    AUTO_FREE uint8_t *data = xalloc(q->cluster);
    int rc = table_read(q, x->table, x->n_table, &table);

    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': table of a bitmap", q->node.name);
    }
    for (uint32_t i = 0; i < x->n_table; i++) {
        uint64_t at = table[i] & Q2_OFFSET, first = (uint64_t)i << q->cluster_bits;

        if (table[i] & ~(Q2_OFFSET | ONES) || (at && table[i] & ONES) ||
            (at && !area_ok(q, at, 1))) {
            return bad(q, e, "an entry of a table leads nowhere");
        }
        if (table[i] == ONES) {
            blk_dirty_import_ones(d, first, q->cluster);
        }
        if (!at) {
            continue;
        }
        if (!(*clusters_left)--) { /* each has one of its own */
            return bad(q, e, "they are larger than the file");
        }
        rc = blk_kid_read(q->file, at, data, q->cluster);
        if (rc != 0) {
            return err_errno(e, -rc, "disk '%s': a bitmap", q->node.name);
        }
        blk_dirty_import(d, first, data, q->cluster);
    }
    return 0;
}

static int entry_load(struct qcow2 *q, const struct entry *x, uint64_t left[2], struct err *e)
{
    AUTO_FREE char *name = xstrndup((const char *)x->name, x->name_size);
    struct blk_dirty_options o = { .name = name,
                                   .granularity = 1u << x->shift,
                                   .disabled = !(x->flags & F_AUTO),
                                   .persistent = true };
    uint64_t bytes = ((q->node.size >> x->shift) + 8) / 8;
    struct blk_dirty *d;
    struct note *note;
    int rc;

    if (bytes > left[1]) {
        return bad(q, e, "they are too large");
    }
    left[1] -= bytes;
    rc = blk_dirty_new(&q->node, &o, &d, e);
    if (rc != 0) {
        err_prefix(e, "%s", q->node.path);
        return rc;
    }
    note = xalloc(sizeof(*note) + x->extra_size);
    *note = (struct note){ .table = x->table, .n_table = x->n_table };
    note->extra_size = x->extra_size;
    memcpy(note->extra, x->extra, x->extra_size);
    blk_dirty_note(d, note);
    if (x->flags & F_IN_USE) {
        blk_dirty_set_inconsistent(d);
        return 0;
    }
    if (x->n_table != q2_clusters(q, blk_dirty_bytes(d))) {
        return bad(q, e, "a bitmap's table does not fit the size of the disk");
    }
    return bits_read(q, x, d, &left[0], e);
}

/* Every bitmap that is trusted now is marked as in use, in place: single bits of entries. */
static int mark_in_use(struct qcow2 *q, uint8_t *dir, uint64_t at, size_t size, struct err *e)
{
    bool changed = false;
    int rc = 0;

    for (size_t i = 0; i + ENTRY <= size;) {
        changed |= !(dir[i + 15] & F_IN_USE);
        dir[i + 15] |= F_IN_USE;
        i += (ENTRY + (size_t)get(dir + i + 18, 2) + (size_t)get(dir + i + 20, 4) + 7) &
             ~(size_t)7;
    }
    if (changed) {
        rc = blk_kid_write(q->file, at, dir, size);
        rc = rc ? rc : q2_barrier(q);
    }
    return rc ? err_errno(e, -rc, "disk '%s': directory of bitmaps", q->node.name) : 0;
}

static int directory_load(struct qcow2 *q, const struct q2_ext *x, struct err *e)
{
    uint64_t size, at, left[2] = { blk_file_length(q->file) >> q->cluster_bits, MAX_INDEX };
    uint32_t n;
    AUTO_FREE uint8_t *dir = NULL;
    int rc;

    if (x->length != EXT_BYTES) {
        return bad(q, e, "the header extension");
    }
    n = (uint32_t)get(x->data, 4);
    size = get(x->data + 8, 8);
    at = get(x->data + 16, 8);
    if (n == 0 || n > MAX_BITMAPS || get(x->data + 4, 4) || size > MAX_DIR ||
        !area_ok(q, at, size)) {
        return bad(q, e, "their directory lies outside the file");
    }
    dir = xalloc(size + 1);
    rc = blk_kid_read(q->file, at, dir, size);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': directory of bitmaps", q->node.name);
    }
    q->bm_old = xnew_n(struct q2_bm_old, n);
    for (size_t i = 0; q->n_bm_old < n && rc == 0;) {
        struct entry entry = { 0 };

        rc = entry_decode(q, dir + i, size - i, &entry, e);
        if (rc == 0) {
            q->bm_old[q->n_bm_old++] = (struct q2_bm_old){ .table = entry.table,
                                                           .n_table = entry.n_table };
            i += entry.bytes;
            rc = entry_load(q, &entry, left, e);
        }
        if (rc == 0 && q->n_bm_old == n && i != size) {
            rc = bad(q, e, "the directory is longer than its entries");
        }
    }
    return rc == 0 && !q->node.readonly ? mark_in_use(q, dir, at, size, e) : rc;
}

int q2_bitmaps_load(struct qcow2 *q, struct err *e)
{
    struct q2_ext *x = extension(q);
    int rc = 0;

    if (x && q->h.autoclear & Q2_A_BITMAPS) {
        rc = directory_load(q, x, e);
        if (rc != 0) {
            blk_dirty_done(&q->node);
            q->n_bm_old = 0;
            return q->node.readonly ? 0 : rc; /* the contents can be read all the same */
        }
    } else if (x && !q->node.readonly) {
        q2_bitmaps_forget(q); /* a program that knows nothing of them has written since */
    }
    q->bm_loaded = !q->node.readonly;
    return 0;
}

void q2_bitmaps_forget(struct qcow2 *q)
{
    struct q2_ext *x = extension(q);

    q->h.autoclear &= ~(uint64_t)Q2_A_BITMAPS;
    if (x) {
        free(x->data);
        *x = q->ext[--q->n_ext];
    }
}

/* --- writing --- */

struct save {
    struct qcow2 *q;
    struct buf dir;
    uint32_t n;
    struct q2_frees made; /* clusters of this save */
    bool named;           /* the header may lead to them */
};

static int save_alloc(struct save *s, uint64_t clusters, uint64_t *at)
{
    struct q2_frees *f = &s->made;
    int rc = q2_alloc_exact(s->q, clusters, at);

    if (rc == 0) {
        if (f->n == f->room) {
            f->room = f->room ? f->room * 2 : 16;
            f->item = xrealloc_n(f->item, f->room, sizeof(*f->item));
        }
        f->item[f->n++] = (struct q2_free){ .offset = *at, .clusters = clusters };
    }
    return rc;
}

static int save_bits(struct save *s, const struct blk_dirty *d, uint64_t *at, uint32_t *n)
{
    struct qcow2 *q = s->q;
    uint64_t entries = q2_clusters(q, blk_dirty_bytes(d)), room = q2_clusters(q, entries * 8);
    AUTO_FREE uint64_t *table = xnew_n(uint64_t, (room << q->cluster_bits) / 8 + 1);
    AUTO_FREE uint8_t *data = xalloc(q->cluster);
    int rc = 0;

    for (uint64_t i = 0; i < entries && rc == 0; i++) {
        bool zero, ones;
        uint64_t to = 0;

        blk_dirty_export(d, i << q->cluster_bits, data, q->cluster, &zero, &ones);
        if (!zero && !ones) {
            rc = save_alloc(s, 1, &to);
            rc = rc ? rc : blk_kid_write(q->file, to, data, q->cluster);
        }
        table[i] = htobe64(ones ? ONES : to);
    }
    if (rc == 0 && room) {
        rc = save_alloc(s, room, at);
        rc = rc ? rc : blk_kid_write(q->file, *at, table, room << q->cluster_bits);
    }
    *n = (uint32_t)entries;
    return rc;
}

static int save_entry(struct save *s, struct blk_dirty *d)
{
    const struct note *note = blk_dirty_noted(d);
    uint8_t head[ENTRY] = { 0 };
    struct blk_dirty_info i;
    uint64_t table = 0;
    uint32_t n = 0, flags, extra = note ? note->extra_size : 0;
    size_t bytes;
    int rc = 0;

    blk_dirty_get(d, &i);
    if (i.inconsistent) {
        table = note ? note->table : 0;
        n = note ? note->n_table : 0;
    } else {
        rc = save_bits(s, d, &table, &n);
    }
    flags = (i.inconsistent ? F_IN_USE : 0) | (i.enabled ? F_AUTO : 0) |
            (extra ? F_EXTRA_OK : 0);
    put(head, 8, table);
    put(head + 8, 4, n);
    put(head + 12, 4, flags);
    head[16] = TYPE_DIRTY;
    head[17] = (uint8_t)__builtin_ctz(i.granularity);
    put(head + 18, 2, strlen(i.name));
    put(head + 20, 4, extra);
    buf_add(&s->dir, head, ENTRY);
    if (extra) {
        buf_add(&s->dir, note->extra, extra);
    }
    buf_add(&s->dir, i.name, strlen(i.name));
    bytes = (s->dir.len + 7) & ~(size_t)7;
    buf_add(&s->dir, "\0\0\0\0\0\0\0", bytes - s->dir.len);
    s->n++;
    return rc;
}

static int save_directory(struct save *s)
{
    struct qcow2 *q = s->q;
    uint64_t at, clusters = q2_clusters(q, s->dir.len), used = s->dir.len;
    struct q2_ext *x;
    int rc = save_alloc(s, clusters, &at);

    if (rc == 0) {
        buf_reserve(&s->dir, (clusters << q->cluster_bits) - used);
        memset(s->dir.data + used, 0, (clusters << q->cluster_bits) - used);
        rc = blk_kid_write(q->file, at, s->dir.data, clusters << q->cluster_bits);
    }
    if (rc != 0) {
        return rc;
    }
    x = extension(q);
    if (!x) {
        q->ext = xrealloc_n(q->ext, q->n_ext + 1, sizeof(*q->ext));
        x = &q->ext[q->n_ext++];
        *x = (struct q2_ext){ .type = Q2_X_BITMAPS, .length = EXT_BYTES };
        x->data = xalloc(EXT_BYTES);
    }
    put(x->data, 4, s->n);
    put(x->data + 8, 8, used);
    put(x->data + 16, 8, at);
    q->h.autoclear |= Q2_A_BITMAPS;
    return 0;
}

/* The clusters of what was in the image before, but for tables that are kept. */
static int release_old(struct qcow2 *q, uint64_t dir, uint64_t dir_bytes)
{
    int rc = 0;

    for (size_t i = 0; i < q->n_bm_old && rc == 0; i++) {
        const struct q2_bm_old *o = &q->bm_old[i];
        AUTO_FREE uint64_t *table = NULL;
        struct blk_dirty *d = NULL;
        bool kept = o->n_table == 0;

        while ((d = blk_dirty_each(&q->node, d))) {
            const struct note *note = blk_dirty_noted(d);
            struct blk_dirty_info info;

            blk_dirty_get(d, &info);
            kept |= info.inconsistent && note && note->table == o->table;
        }
        if (kept) {
            continue;
        }
        rc = table_read(q, o->table, o->n_table, &table);
        for (uint32_t k = 0; k < o->n_table && rc == 0; k++) {
            if (table[k] & Q2_OFFSET && area_ok(q, table[k] & Q2_OFFSET, 1)) {
                q2_release(q, table[k] & Q2_OFFSET, 1, false);
            }
        }
        if (rc == 0) {
            q2_release(q, o->table, q2_clusters(q, (uint64_t)o->n_table * 8), false);
        }
    }
    if (rc == 0 && dir_bytes) {
        q2_release(q, dir, q2_clusters(q, dir_bytes), false);
    }
    return rc ? rc : q2_commit_all(q);
}

static int save_all(struct save *s)
{
    struct qcow2 *q = s->q;
    struct blk_dirty *d = NULL;
    struct err e = ERR_INIT;
    int rc = 0;

    while (rc == 0 && (d = blk_dirty_each(&q->node, d))) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        rc = i.persistent ? save_entry(s, d) : 0;
    }
    if (rc == 0 && (s->n > MAX_BITMAPS || s->dir.len > MAX_DIR)) {
        rc = -EFBIG;
    }
    if (rc == 0 && s->n) {
        rc = save_directory(s);
    } else if (rc == 0) {
        q2_bitmaps_forget(q);
    }
    rc = rc ? rc : q2_commit_all(q); /* refcounts and bits before what leads to them */
    rc = rc ? rc : q2_barrier(q);
    s->named = rc == 0;
    rc = rc ? rc : q2_header_rewrite(q, &e);
    if (rc != 0 && e.code) {
        log_error("storage", "%s", e.msg);
    }
    return rc;
}

int q2_bitmaps_save(struct qcow2 *q)
{
    struct save s = { .q = q, .dir = BUF_INIT };
    const struct q2_ext *x = extension(q);
    bool had = x && x->length == EXT_BYTES; /* unchecked when opening failed */
    uint64_t old = had ? get(x->data + 16, 8) : 0, old_bytes = had ? get(x->data + 8, 8) : 0;
    struct blk_dirty *d = NULL;
    bool any = q->n_bm_old > 0;
    int rc;

    while (!any && (d = blk_dirty_each(&q->node, d))) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        any = i.persistent;
    }
    if (!any || !q->bm_loaded || q->broken) {
        return 0;
    }
    rc = save_all(&s);
    if (rc == 0) {
        rc = release_old(q, old, old_bytes);
    } else if (!q->broken) { /* the old directory stays: its bitmaps count as inconsistent */
        for (size_t i = 0; i < s.made.n && !s.named; i++) {
            q2_release(q, s.made.item[i].offset, s.made.item[i].clusters, false);
        }
        (void)q2_commit_all(q);
        log_error("storage", "disk '%s': its dirty bitmaps cannot be kept: %s", q->node.name,
                  strerror(-rc));
    }
    q2_frees_done(&s.made);
    buf_done(&s.dir);
    return rc;
}

bool q2_bitmaps_kept(struct blk_node *n)
{
    return q2_of(n)->h.version >= 3;
}

void q2_bitmaps_info(struct blk_node *n, struct blk_image_info *out)
{
    struct blk_dirty *d = NULL;

    while ((d = blk_dirty_each(n, d))) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        if (!i.persistent) {
            continue;
        }
        out->bitmap = xrealloc_n(out->bitmap, out->n_bitmaps + 1, sizeof(*out->bitmap));
        out->bitmap[out->n_bitmaps++] = (struct blk_bitmap){ .name = xstrdup(i.name),
                                                             .granularity = i.granularity,
                                                             .in_use = i.inconsistent,
                                                             .enabled = i.enabled };
    }
}
