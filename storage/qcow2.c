/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "qcow2": opening, the header with its extensions, resizing, closing. Owns what
 * struct qcow2 holds; the rest of the driver is listed in qcow2.h. Facts: QEMU, docs/interop/qcow2.txt.
 */
#include "storage/qcow2.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 1023, V2_LENGTH = 72, V3_LENGTH = 104 };

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return be64toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, 8);
}

/* --- errors of metadata --- */

int q2_barrier(struct qcow2 *q)
{
    int rc = q->data != q->file ? blk_kid_run(q->data, BLK_FLUSH, 0, 0, 0, NULL, 0) : 0;

    rc = rc ? rc : blk_kid_run(q->file, BLK_FLUSH, 0, 0, 0, NULL, 0);
    if (rc != 0) {
        atomic_store(&q->flush_failed, true);
    }
    return rc;
}

int q2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!q->broken) {
        log_error("storage",
                  "disk '%s': image is corrupt: %s; run 'vmctl image check --repair all %s'",
                  q->node.name, text, q->node.path);
    }
    if (!q->node.readonly && q->opened) {
        q->broken = true;
        q->broken_errno = -EIO;
        if (q->h.version >= 3 && !(q->h.incompatible & Q2_I_CORRUPT)) {
            q->h.incompatible |= Q2_I_CORRUPT;
            (void)q2_header_write(q);
            (void)q2_barrier(q);
        }
    }
    return -EIO;
}

/* --- the header --- */

static void header_decode(struct q2_header *h, const uint8_t *p)
{
    h->magic = get32(p);
    h->version = get32(p + 4);
    h->backing_offset = get64(p + 8);
    h->backing_size = get32(p + 16);
    h->cluster_bits = get32(p + 20);
    h->size = get64(p + 24);
    h->crypt = get32(p + 32);
    h->l1_size = get32(p + 36);
    h->l1_offset = get64(p + 40);
    h->rt_offset = get64(p + 48);
    h->rt_clusters = get32(p + 56);
    h->n_snapshots = get32(p + 60);
    h->snapshots_offset = get64(p + 64);
    h->refcount_order = 4;
    h->length = V2_LENGTH;
    if (h->version >= 3) {
        h->incompatible = get64(p + 72);
        h->compatible = get64(p + 80);
        h->autoclear = get64(p + 88);
        h->refcount_order = get32(p + 96);
        h->length = get32(p + 100);
        h->compression = h->length > V3_LENGTH ? p[104] : 0;
    }
}

static size_t header_encode(const struct q2_header *h, uint8_t *p)
{
    put32(p, Q2_MAGIC);
    put32(p + 4, h->version);
    put64(p + 8, h->backing_offset);
    put32(p + 16, h->backing_size);
    put32(p + 20, h->cluster_bits);
    put64(p + 24, h->size);
    put32(p + 32, h->crypt);
    put32(p + 36, h->l1_size);
    put64(p + 40, h->l1_offset);
    put64(p + 48, h->rt_offset);
    put32(p + 56, h->rt_clusters);
    put32(p + 60, h->n_snapshots);
    put64(p + 64, h->snapshots_offset);
    if (h->version < 3) {
        return V2_LENGTH;
    }
    put64(p + 72, h->incompatible);
    put64(p + 80, h->compatible);
    put64(p + 88, h->autoclear);
    put32(p + 96, h->refcount_order);
    put32(p + 100, h->length);
    if (h->length > V3_LENGTH) {
        p[104] = h->compression;
    }
    return h->length > V3_LENGTH ? V3_LENGTH + 8 : V3_LENGTH;
}

int q2_header_write(struct qcow2 *q)
{
    uint8_t p[Q2_HEADER] = { 0 };
    size_t n = header_encode(&q->h, p);

    return blk_kid_write(q->file, 0, p, n);
}

static void add_extension(struct buf *b, uint32_t type, const void *data, size_t n)
{
    uint8_t head[8];
    static const char pad[8];

    put32(head, type);
    put32(head + 4, (uint32_t)n);
    buf_add(b, head, 8);
    buf_add(b, data, n);
    buf_add(b, pad, (8 - n % 8) % 8);
}

/* Header and extensions; the names of features, which nobody needs, last and only on wish. */
static void encode_extensions(const struct qcow2 *q, struct buf *b, bool names)
{
    static const uint8_t head[Q2_HEADER];

    b->len = 0;
    buf_add(b, head, q->h.version >= 3 ? q->h.length : V2_LENGTH);
    for (size_t i = 0; i < q->n_ext; i++) {
        if (q->ext[i].type != Q2_X_NAMES) {
            add_extension(b, q->ext[i].type, q->ext[i].data, q->ext[i].length);
        }
    }
    if (q->backing_format) {
        add_extension(b, Q2_X_BACKING_FORMAT, q->backing_format, strlen(q->backing_format));
    }
    for (size_t i = 0; i < q->n_ext && names; i++) {
        if (q->ext[i].type == Q2_X_NAMES) {
            add_extension(b, Q2_X_NAMES, q->ext[i].data, q->ext[i].length);
        }
    }
    add_extension(b, Q2_X_END, "", 0);
}

/* Where the backing file's name goes, `from` or later: not onto the name that the header on disk leads to,
 * unless it is the same. */
static uint64_t place_name(const struct qcow2 *q, const uint8_t *old, uint64_t from)
{
    uint64_t was = q->h.backing_offset, was_end = was + q->h.backing_size;
    uint64_t n = strlen(q->backing_name);

    if (was >= from && n == q->h.backing_size && memcmp(old + was, q->backing_name, n) == 0) {
        return was;
    }
    if (!was || from + n <= was || was_end <= from || was_end + n > q->cluster) {
        return from;
    }
    return was_end;
}

/* Sector 0 takes effect, so what it leads to is on the disk before. */
static int write_first_cluster(struct qcow2 *q, const uint8_t *p, uint64_t end)
{
    int rc = 0;

    if (end > BLK_SECTOR || q->cluster == BLK_SECTOR) {
        return blk_kid_write(q->file, 0, p, q->cluster);
    }
    rc = blk_kid_write(q->file, BLK_SECTOR, p + BLK_SECTOR, q->cluster - BLK_SECTOR);
    rc = rc ? rc : q2_barrier(q);
    return rc ? rc : blk_kid_write(q->file, 0, p, BLK_SECTOR);
}

int q2_header_rewrite(struct qcow2 *q, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    AUTO_FREE uint8_t *p = xalloc(q->cluster);
    uint64_t name = q->backing_name ? strlen(q->backing_name) : 0, at = 0;
    int rc;

    if (q->h.length > Q2_HEADER) {
        return err_set(e, -ENOTSUP, "disk '%s': its header is longer than we know",
                       q->node.name);
    }
    q->h.length = q->h.version >= 3 ? Q2_HEADER : V2_LENGTH;
    encode_extensions(q, &b, true);
    if (b.len > BLK_SECTOR && (q->opened || b.len + name > q->cluster)) {
        encode_extensions(q, &b, false); /* without them all of it may fit into one sector */
    }
    rc = blk_kid_read(q->file, 0, p, q->cluster);
    if (rc == 0 && name && name <= MAX_NAME && b.len + name <= q->cluster) {
        at = place_name(q, p, b.len);
    }
    if (rc == 0 && (b.len + name > q->cluster || name > MAX_NAME)) {
        return err_set(e, -ENAMETOOLONG, "disk '%s': the names do not fit into its header",
                       q->node.name);
    }
    q->h.backing_offset = at;
    q->h.backing_size = (uint32_t)name;
    header_encode(&q->h, (uint8_t *)b.data);
    memcpy(p, b.data, b.len);
    if (name) {
        memcpy(p + at, q->backing_name, name);
    }
    rc = rc ? rc : write_first_cluster(q, p, b.len);
    rc = rc ? rc : q2_barrier(q);
    return rc ? err_errno(e, -rc, "disk '%s': header", q->node.name) : 0;
}

/* --- opening --- */

static int bad(struct qcow2 *q, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "disk '%s': %s is no sound qcow2 image: %s", q->node.name,
                   q->node.path, what);
}

static int check_features(struct qcow2 *q, bool for_check, struct err *e)
{
    const struct q2_header *h = &q->h;
    uint64_t unknown = h->incompatible & ~(uint64_t)Q2_I_KNOWN;

    if (unknown) {
        return err_set(e, -ENOTSUP, "disk '%s': %s needs feature bit %d, which we do not know",
                       q->node.name, q->node.path, __builtin_ctzll(unknown));
    }
    if (h->compression > 1 || (h->compression && !(h->incompatible & Q2_I_COMPRESSION))) {
        return bad(q, e, "unknown compression type");
    }
    if (h->incompatible & Q2_I_CORRUPT && !q->node.readonly && !for_check) {
        return err_set(
            e, -EIO,
            "disk '%s': %s is marked corrupt; run 'vmctl image check --repair all %s' or open "
            "it read-only",
            q->node.name, q->node.path, q->node.path);
    }
    return 0;
}

/* An area of the image: aligned, and within the file. */
static bool area_ok(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return (offset & (q->cluster - 1)) == 0 && offset >= q->cluster &&
           offset <= q->file->size && bytes <= q->file->size - offset;
}

static int check_header(struct qcow2 *q, struct err *e)
{
    const struct q2_header *h = &q->h;
    uint64_t l2_span;

    if (h->version < 2 || h->version > 3) {
        return err_set(e, -ENOTSUP, "disk '%s': %s is qcow2 version %u; we know 2 and 3",
                       q->node.name, q->node.path, h->version);
    }
    if (h->cluster_bits < 9 || h->cluster_bits > 21) {
        return bad(q, e, "its cluster size is not 512 bytes to 2 MiB");
    }
    if (h->refcount_order > 6) {
        return bad(q, e, "its refcounts are wider than 64 bits");
    }
    if (h->version >= 3 &&
        (h->length < V3_LENGTH || h->length % 8 || h->length > 1ull << h->cluster_bits)) {
        return bad(q, e, "the length of its header");
    }
    q->cluster_bits = h->cluster_bits;
    q->cluster = 1ull << h->cluster_bits;
    q->sub_bits = h->incompatible & Q2_I_EXTENDED_L2 ? 5 : 0;
    q->subs = 1u << q->sub_bits;
    q->l2_entry = q->sub_bits ? 16 : 8;
    q->l2_bits = q->cluster_bits - (q->sub_bits ? 4 : 3);
    q->refcount_bits = 1u << h->refcount_order;
    q->ref_bits = q->cluster_bits + 3 - h->refcount_order;
    q->refcount_max = h->refcount_order == 6 ? UINT64_MAX : (1ull << q->refcount_bits) - 1;
    if (q->sub_bits && q->cluster_bits < 14) {
        return bad(q, e, "extended L2 entries with clusters under 16 KiB");
    }
    if (h->size > 1ull << 62) {
        return bad(q, e, "its size is beyond all bounds");
    }
    l2_span = q->cluster_bits + q->l2_bits;
    if ((uint64_t)h->l1_size * 8 > Q2_MAX_L1) {
        return err_set(e, -EFBIG, "disk '%s': the L1 table of %s is larger than 32 MiB",
                       q->node.name, q->node.path);
    }
    if (h->l1_size < (h->size + (1ull << l2_span) - 1) >> l2_span) {
        return bad(q, e, "its L1 table is too small for its size");
    }
    if (h->l1_size && !area_ok(q, h->l1_offset, (uint64_t)h->l1_size * 8)) {
        return bad(q, e, "its L1 table lies outside the file");
    }
    if ((uint64_t)h->rt_clusters << q->cluster_bits > Q2_MAX_RT) {
        return err_set(e, -EFBIG, "disk '%s': the refcount table of %s is larger than 8 MiB",
                       q->node.name, q->node.path);
    }
    if (!h->rt_clusters || !area_ok(q, h->rt_offset, 8)) {
        return bad(q, e, "its refcount table lies outside the file");
    }
    return 0;
}

static void keep_extension(struct qcow2 *q, uint32_t type, const uint8_t *data, uint32_t n)
{
    q->ext = xrealloc_n(q->ext, q->n_ext + 1, sizeof(*q->ext));
    q->ext[q->n_ext++] = (struct q2_ext){ .type = type,
                                          .length = n,
                                          .data = xmemdup(data, n ? n : 1) };
}

static int read_extensions(struct qcow2 *q, const uint8_t *p, size_t size, struct err *e)
{
    size_t at = q->h.length;

    while (at + 8 <= size) {
        uint32_t type = get32(p + at), n = get32(p + at + 4);

        at += 8;
        if (type == Q2_X_END) {
            return 0;
        }
        if (n > size - at) {
            return bad(q, e, "a header extension is longer than the header");
        }
        if (type == Q2_X_BACKING_FORMAT) {
            free(q->backing_format);
            q->backing_format = xstrndup((const char *)p + at, n);
        } else {
            if (type == Q2_X_DATA_FILE) {
                free(q->data_name);
                q->data_name = xstrndup((const char *)p + at, n);
            }
            keep_extension(q, type, p + at, n);
        }
        at += (n + 7) & ~7u;
    }
    return 0;
}

/* Extensions and the backing file's name: all within the first cluster. */
static int read_names(struct qcow2 *q, struct err *e)
{
    uint64_t limit = q->h.backing_offset ? q->h.backing_offset : q->cluster;
    AUTO_FREE uint8_t *p = xalloc(q->cluster);
    int rc = blk_kid_read(q->file, 0, p, q->cluster);

    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", q->node.name, q->node.path);
    }
    if (q->h.backing_offset) {
        if (q->h.backing_size > MAX_NAME || q->h.backing_size == 0 || limit > q->cluster ||
            q->h.backing_size > q->cluster - limit) {
            return bad(q, e, "the name of its backing file");
        }
        q->backing_name = xstrndup((char *)p + limit, q->h.backing_size);
    }
    return read_extensions(q, p, limit, e);
}

static int read_tables(struct qcow2 *q, struct err *e)
{
    uint64_t bytes = (uint64_t)q->h.rt_clusters << q->cluster_bits;
    int rc;

    q->rt_entries = bytes / 8;
    q->rt = try_alloc_n(q->rt_entries, 8);
    if (!q->rt) {
        return err_set(e, -ENOMEM, "disk '%s': no memory for the refcount table", q->node.name);
    }
    rc = blk_kid_read(q->file, q->h.rt_offset, q->rt, bytes);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': refcount table", q->node.name);
    }
    for (uint64_t i = 0; i < q->rt_entries; i++) {
        q->rt[i] = be64toh(q->rt[i]) & ~511ull;
    }
    q->rt_lo = q->l1_lo = UINT64_MAX;
    return q2_l1_read(q, q->h.l1_offset, q->h.l1_size, &q->l1, "the image", e);
}

static int open_kid(struct qcow2 *q, const struct blk_options *o, enum blk_role role,
                    const struct blk_options *given, const char *named, const char *format,
                    struct err *e)
{
    static const char *const roles[] = { "file", "backing", "data" };
    AUTO_FREE char *name = xasprintf("%s/%s", o->name, roles[role]);
    AUTO_FREE char *path = blk_relative(o->path ? o->path : "", named ? named : "");
    struct blk_options k = { .name = name,
                             .path = path,
                             .driver = format,
                             .fd = -1,
                             .readonly = role == BLK_BACKING || o->readonly,
                             .direct = o->direct,
                             .unsafe = o->unsafe,
                             .unlocked = o->unlocked,
                             .follow = true,
                             .secret = o->secret,
                             .depth = o->depth + 1 };
    struct blk_node *kid;
    int rc;

    if (!given && !o->follow) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s needs the %s file %s, which was not given; make it stand "
                       "alone with 'vmctl image %s'",
                       o->name, o->path, roles[role], named,
                       role == BLK_BACKING ? "rebase -b \"\"" : "convert");
    }
    if (!given && strncmp(path, "json:", 5) && strncmp(named, "file:", 5) == 0) {
        free(path);
        path = blk_relative(o->path, named + 5);
        k.path = path;
    }
    if (!given && !format) {
        rc = blk_probe(k.path, &k.driver, e);
        if (rc != 0) {
            err_prefix(e, "%s file of %s", roles[role], o->path);
            return rc;
        }
    }
    rc = role == BLK_DATA ? blk_open_file(q->node.pool, given ? given : &k, &kid, e)
                          : blk_open_graph(q->node.pool, given ? given : &k, &kid, e);
    if (rc == 0) {
        blk_set_kid(&q->node, role, kid);
    } else if (rc != -ELOOP) {
        err_prefix(e, "%s file of %s", roles[role], o->path);
    }
    return rc;
}

static int open_kids(struct qcow2 *q, const struct blk_options *o, struct err *e)
{
    int rc = 0;

    if (q->h.incompatible & Q2_I_DATA_FILE) {
        if (!q->data_name && !o->data) {
            return bad(q, e, "it names no data file");
        }
        rc = open_kid(q, o, BLK_DATA, o->data, q->data_name, "raw", e);
        q->data = q->node.kid[BLK_DATA];
    }
    if (rc == 0 && (q->backing_name || o->backing) && !o->no_backing) {
        rc = open_kid(q, o, BLK_BACKING, o->backing, q->backing_name, q->backing_format, e);
    }
    return rc;
}

/* Before anything is written: features that others must be told of, and what a crash left. */
static int open_for_writing(struct qcow2 *q, const struct blk_options *o, struct err *e)
{
    uint64_t clear = q->h.autoclear & ~(uint64_t)(Q2_A_RAW_DATA | Q2_A_BITMAPS);
    int rc;

    q->lazy = q->h.compatible & Q2_C_LAZY && q->h.version >= 3;
    if (o->for_check) {
        q->lazy = false;
        return 0;
    }
    if (q->h.incompatible & Q2_I_DIRTY) {
        struct blk_check c = { 0 };

        rc = q2_check(&q->node, BLK_REPAIR_ALL, &c, e);
        if (rc == 0 && c.corruptions) {
            rc = err_set(
                e, -EIO,
                "disk '%s': %s was not closed and its repair failed; run 'vmctl image check "
                "--repair all %s'",
                o->name, o->path, o->path);
        }
        if (rc != 0) {
            return rc;
        }
    }
    if (clear) { /* what does not follow our writes must not be trusted any more */
        q->h.autoclear &= ~clear;
        rc = q2_header_write(q);
        if (rc != 0) {
            return err_errno(e, -rc, "disk '%s': header", o->name);
        }
    }
    return 0;
}

static int q2_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    uint8_t head[Q2_HEADER];
    int rc;

    q->file = q->data = n->kid[BLK_FILE];
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    list_init(&q->allocs);
    list_init(&q->scratch);
    rc = blk_kid_read(q->file, 0, head, sizeof(head));
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", o->name, o->path);
    }
    header_decode(&q->h, head);
    if (q->h.magic != Q2_MAGIC) {
        return err_set(e, -EINVAL, "disk '%s': %s is no qcow2 image", o->name, o->path);
    }
    rc = check_header(q, e);
    rc = rc ? rc : check_features(q, o->for_check, e);
    rc = rc ? rc : read_names(q, e);
    rc = rc ? rc : q2_crypt_open(q, o, e);
    rc = rc ? rc : read_tables(q, e);
    rc = rc ? rc : q2_snaps_load(q, e);
    rc = rc ? rc : open_kids(q, o, e);
    if (rc != 0) {
        return rc;
    }
    n->size = (q->h.size + BLK_SECTOR - 1) & ~(uint64_t)(BLK_SECTOR - 1);
    q2_cache_init(q);
    q->end = q->virgin = q2_clusters(q, blk_file_length(q->file));
    q->opened = true;
    rc = n->readonly ? 0 : open_for_writing(q, o, e);
    return rc || (o->for_check && !n->readonly) ? rc : q2_bitmaps_load(q, e);
}

/* The last that is written to an image. */
static int q2_seal(struct blk_node *n)
{
    struct qcow2 *q = q2_of(n);
    int rc;

    pthread_mutex_lock(&q->lock);
    q->lazy = false;
    rc = q2_commit_all(q);
    rc = rc ? rc : q2_bitmaps_save(q);
    if (rc == 0 && q->h.incompatible & Q2_I_DIRTY && !q->broken) {
        rc = q2_barrier(q);
        q->h.incompatible &= ~(uint64_t)Q2_I_DIRTY;
        rc = rc ? rc : q2_header_write(q);
    }
    rc = rc ? rc : q2_barrier(q);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int q2_close(struct blk_node *n)
{
    struct qcow2 *q = q2_of(n);
    int rc = q->opened && !n->readonly ? q2_seal(n) : 0;

    q2_crypt_close(q);
    q2_zip_done(q);
    q2_cache_done(q);
    q2_snaps_done(q);
    q2_frees_done(&q->fresh);
    q2_frees_done(&q->waiting);
    for (size_t i = 0; i < q->n_ext; i++) {
        free(q->ext[i].data);
    }
    free(q->ext);
    free(q->bm_old);
    free(q->l1);
    free(q->rt);
    free(q->backing_name);
    free(q->backing_format);
    free(q->data_name);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->changed);
    return rc;
}

/* --- extents, size, names --- */

static int q2_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    struct q2_run run;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = q2_lookup(q, offset, n->size - offset, &run);
    pthread_mutex_unlock(&q->lock);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': extent query", n->name);
    }
    *out = (struct blk_extent){ .length = run.length,
                                .data = run.type == Q2_T_DATA || run.type == Q2_T_ZIP,
                                .zero = run.type == Q2_T_ZERO,
                                .present = run.type != Q2_T_NONE,
                                .compressed = run.type == Q2_T_ZIP,
                                .has_host = run.type == Q2_T_DATA && !q->h.crypt,
                                .host = run.host };
    return 0;
}

static int l1_grow(struct qcow2 *q, uint64_t entries, struct err *e)
{
    uint64_t clusters = q2_clusters(q, entries * 8), at, *l1;
    uint64_t old = q->h.l1_offset, old_clusters = q2_clusters(q, (uint64_t)q->h.l1_size * 8);
    int rc;

    if (entries * 8 > Q2_MAX_L1) {
        return err_set(e, -EFBIG, "disk '%s': too large for clusters of %llu bytes",
                       q->node.name, (unsigned long long)q->cluster);
    }
    rc = q2_alloc_exact(q, clusters, &at);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot grow", q->node.name);
    }
    l1 = xnew_n(uint64_t, entries);
    memcpy(l1, q->l1, (size_t)q->h.l1_size * 8);
    free(q->l1);
    q->l1 = l1;
    if (q->h.l1_size) {
        q2_release(q, old, old_clusters, false);
    }
    q->h.l1_size = (uint32_t)entries;
    q->h.l1_offset = at;
    q->l1_dirty = q->l1_moved = true;
    return 0;
}

static int resize_locked(struct qcow2 *q, uint64_t size, struct err *e)
{
    unsigned span = q->cluster_bits + q->l2_bits;
    uint64_t entries = (size >> span) + ((size & ((1ull << span) - 1)) != 0);
    int rc = entries > q->h.l1_size ? l1_grow(q, entries, e) : 0;

    if (rc == 0) {
        rc = q2_commit_all(q);
        rc = rc ? err_errno(e, -rc, "disk '%s': cannot resize", q->node.name) : 0;
    }
    return rc;
}

static int resize_header(struct qcow2 *q, uint64_t size)
{
    int rc;

    pthread_mutex_lock(&q->lock);
    q->h.size = size;
    q->header_dirty = true;
    rc = q2_commit_all(q);
    pthread_mutex_unlock(&q->lock);
    return rc ? rc : q2_barrier(q);
}

static int q2_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    uint64_t was = n->size, top = (was + q->cluster - 1) & ~(q->cluster - 1);
    const struct blk_node *b = n->kid[BLK_BACKING];
    int rc;

    if (q->h.version < 3 && q->n_snaps) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': version 2 images with snapshots cannot be resized", n->name);
    }
    if (size > 1ull << 62) {
        return err_set(e, -EFBIG, "disk '%s': too large", n->name);
    }
    if (size < was) { /* what goes reads as zeroes when the disk grows again */
        rc = blk_zero(n, size, was - size, BLK_UNMAP);
        rc = rc ? rc : blk_flush(n);
        rc = rc ? rc : resize_header(q, size);
        if (rc == 0) {
            n->size = size;
        }
        return rc ? err_errno(e, -rc, "disk '%s': cannot shrink", n->name) : 0;
    }
    pthread_mutex_lock(&q->lock);
    rc = resize_locked(q, size, e);
    pthread_mutex_unlock(&q->lock);
    if (rc != 0) {
        return rc;
    }
    n->size = size;
    if (q->data != q->file && q->data->size < size) {
        rc = q->data->driver->resize(q->data, size, e);
    }
    /* The rest of the last cluster, and what a longer backing file would show. */
    if (rc == 0) {
        uint64_t to = b && b->size > top ? b->size : top;

        to = to < size ? to : size;
        rc = to > was ? blk_zero(n, was, to - was, 0) : 0;
        rc = rc ? rc : blk_flush(n);
        rc = rc ? rc : resize_header(q, size);
        rc = rc ? err_errno(e, -rc, "disk '%s': cannot grow", n->name) : 0;
    }
    if (rc != 0) {
        n->size = was;
    }
    return rc;
}

static int q2_set_backing(struct blk_node *n, const char *backing, const char *format,
                          struct err *e)
{
    struct qcow2 *q = q2_of(n);
    int rc;

    if (n->readonly) {
        return err_set(e, -EROFS, "disk '%s' is read-only", n->name);
    }
    if (backing && strlen(backing) > MAX_NAME) {
        return err_set(e, -ENAMETOOLONG,
                       "disk '%s': a backing file's name has at most %d bytes", n->name,
                       MAX_NAME);
    }
    pthread_mutex_lock(&q->lock);
    rc = q2_commit_all(q);
    if (rc == 0) {
        free(q->backing_name);
        free(q->backing_format);
        q->backing_name = backing ? xstrdup(backing) : NULL;
        q->backing_format = backing && format ? xstrdup(format) : NULL;
        rc = q2_header_rewrite(q, e);
    } else {
        err_errno(e, -rc, "disk '%s'", n->name);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int q2_make_empty(struct blk_node *n, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    for (uint64_t at = 0; at < n->size && rc == 0;) {
        struct q2_slice *s;
        struct q2_run run;
        uint64_t *entry;

        rc = q2_lookup(q, at, n->size - at, &run);
        if (rc == 0 && run.type == Q2_T_NONE && run.length >= q->cluster) {
            at += run.length & ~(q->cluster - 1);
            continue;
        }
        rc = rc ? rc : q2_entry(q, at, &s, &entry);
        if (rc == 0) {
            q2_entry_release(q, be64toh(entry[0]), true);
            memset(entry, 0, q->l2_entry);
            q2_slice_dirty(q, s);
            q2_slice_put(s);
            at += q->cluster;
        }
    }
    rc = rc ? rc : q2_commit_all(q);
    pthread_mutex_unlock(&q->lock);
    return rc ? err_errno(e, -rc, "disk '%s': cannot be emptied", n->name) : 0;
}

static int q2_info(struct blk_node *n, struct blk_image_info *out, struct err *e)
{
    const struct qcow2 *q = q2_of(n);

    (void)e;
    out->cluster_size = q->cluster;
    out->version = q->h.version;
    out->refcount_bits = q->refcount_bits;
    out->compression = q->h.compression ? "zstd" : "zlib";
    out->backing = q->backing_name ? xstrdup(q->backing_name) : NULL;
    out->backing_format = q->backing_format ? xstrdup(q->backing_format) : NULL;
    out->data_file = q->data_name ? xstrdup(q->data_name) : NULL;
    out->data_file_raw = q->h.autoclear & Q2_A_RAW_DATA;
    out->lazy_refcounts = q->h.compatible & Q2_C_LAZY;
    out->extended_l2 = q2_ext_l2(q);
    out->dirty = q->h.incompatible & Q2_I_DIRTY;
    out->corrupt = q->h.incompatible & Q2_I_CORRUPT;
    out->encrypted = q->h.crypt != 0;
    out->snapshot = xnew_n(struct blk_snapshot, q->n_snaps + 1);
    out->n_snapshots = q->n_snaps;
    for (size_t i = 0; i < q->n_snaps; i++) {
        out->snapshot[i] = q->snap[i].pub;
        out->snapshot[i].id = xstrdup(q->snap[i].pub.id);
        out->snapshot[i].name = xstrdup(q->snap[i].pub.name);
    }
    q2_bitmaps_info(n, out);
    return 0;
}

static int q2_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size;
    return n >= 8 && get32(head) == Q2_MAGIC && get32(head + 4) >= 2 ? 100 : 0;
}

static const struct blk_image_ops q2_image = {
    .info = q2_info,
    .check = q2_check,
    .snapshot = q2_snapshot,
    .snapshot_load = q2_snapshot_load,
    .bitmaps_kept = q2_bitmaps_kept,
    .set_backing = q2_set_backing,
    .amend = q2_amend,
    .make_empty = q2_make_empty,
    .seal = q2_seal,
    .measure = q2_measure,
    .preallocate = q2_preallocate,
};

const struct blk_driver blk_qcow2_driver = {
    .name = "qcow2",
    .doc = "QEMU's copy-on-write images, versions 2 and 3",
    .kind = BLK_FORMAT,
    .size = sizeof(struct qcow2),
    .probe = q2_probe,
    .open = q2_open,
    .run = q2_run_req,
    .submit = q2_submit,
    .settled = q2_settled,
    .map = q2_map,
    .resize = q2_resize,
    .create = q2_create,
    .image = &q2_image,
    .close = q2_close,
};
