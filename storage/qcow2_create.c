/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: new images, preallocation, and how large an image becomes. A new image is header, refcount table,
 * refcount blocks and an empty L1 table, in this order. The caller's thread.
 */
#include "storage/luks.h"
#include "storage/qcow2.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

struct q2_new {
    uint64_t size, cluster, rt_clusters, blocks, l1_entries, l1_clusters, total;
    unsigned version, refcount_order, l2_bits;
    uint64_t luks_clusters;
    bool lazy, extended, zstd, data_raw, luks;
    const char *backing, *backing_format, *data_file;
    enum blk_prealloc prealloc;
};

static int parse_bool(const struct blk_create *c, const char *key, bool *out, struct err *e)
{
    const char *v = blk_create_option(c, key);

    if (!v) {
        return 0;
    }
    *out = strcmp(v, "on") == 0 || strcmp(v, "true") == 0 || strcmp(v, "yes") == 0;
    if (!*out && strcmp(v, "off") && strcmp(v, "false") && strcmp(v, "no")) {
        return err_set(e, -EINVAL, "option %s is on or off, not '%s'", key, v);
    }
    return 0;
}

static int parse_numbers(const struct blk_create *c, struct q2_new *n, struct err *e)
{
    const char *v = blk_create_option(c, "cluster_size");
    uint64_t bits = 16;
    int rc;

    n->cluster = 65536;
    rc = v ? blk_parse_size(v, &n->cluster, e) : 0;
    if (rc == 0 &&
        (n->cluster < 512 || n->cluster > 2 << 20 || n->cluster & (n->cluster - 1))) {
        rc = err_set(e, -EINVAL, "cluster_size is a power of two from 512 to 2M, not '%s'", v);
    }
    v = blk_create_option(c, "refcount_bits");
    rc = rc ? rc : v ? blk_parse_size(v, &bits, e) : 0;
    if (rc == 0 && (bits < 1 || bits > 64 || bits & (bits - 1))) {
        rc = err_set(e, -EINVAL, "refcount_bits is 1, 2, 4, 8, 16, 32 or 64, not '%s'", v);
    }
    n->refcount_order = (unsigned)__builtin_ctzll(bits ? bits : 1);
    v = blk_create_option(c, "compat");
    n->version = v && (strcmp(v, "0.10") == 0 || strcmp(v, "v2") == 0) ? 2 : 3;
    if (rc == 0 && v && n->version == 3 && strcmp(v, "1.1") && strcmp(v, "v3")) {
        rc = err_set(e, -EINVAL, "compat is 0.10 or 1.1, not '%s'", v);
    }
    return rc;
}

static int parse_words(const struct blk_create *c, struct q2_new *n, struct err *e)
{
    const char *v = blk_create_option(c, "compression_type");

    if (v && strcmp(v, "zlib") && strcmp(v, "zstd")) {
        return err_set(e, -EINVAL, "compression_type is zlib or zstd, not '%s'", v);
    }
    n->zstd = v && strcmp(v, "zstd") == 0;
    v = blk_create_option(c, "preallocation");
    if (v && blk_parse_prealloc(v, &n->prealloc, e) != 0) {
        return e->code;
    }
    n->backing = blk_create_option(c, "backing_file");
    n->backing_format = blk_create_option(c, "backing_fmt");
    n->data_file = blk_create_option(c, "data_file");
    return 0;
}

static int parse_encryption(const struct blk_create *c, struct q2_new *n, struct err *e)
{
    const char *v = blk_create_option(c, "encrypt.format");

    for (size_t i = 0; i < c->n_options && !v; i++) {
        if (strncmp(c->option[i].key, "encrypt.", 8) == 0) {
            return err_set(e, -EINVAL, "%s goes with encrypt.format=luks", c->option[i].key);
        }
    }
    if (v && strcmp(v, "luks") != 0) {
        return err_set(e, -EINVAL, "encrypt.format is luks, not '%s'", v);
    }
    n->luks = v != NULL;
    if (n->luks && n->prealloc != BLK_PRE_OFF) {
        return err_set(e, -EINVAL, "preallocation does not go with encryption");
    }
    return 0;
}

static int new_parse(const struct blk_create *c, struct q2_new *n, struct err *e)
{
    static const char *const keys[] = { "cluster_size",
                                        "compat",
                                        "backing_file",
                                        "backing_fmt",
                                        "preallocation",
                                        "lazy_refcounts",
                                        "refcount_bits",
                                        "compression_type",
                                        "extended_l2",
                                        "data_file",
                                        "data_file_raw",
                                        "encrypt.format",
                                        "encrypt.key-file",
                                        "encrypt.cipher-alg",
                                        "encrypt.cipher-mode",
                                        "encrypt.ivgen-alg",
                                        "encrypt.ivgen-hash-alg",
                                        "encrypt.hash-alg",
                                        "encrypt.iter-time",
                                        NULL };
    int rc = blk_create_known(c, keys, e);

    *n = (struct q2_new){ .size = c->size };
    rc = rc ? rc : parse_numbers(c, n, e);
    rc = rc ? rc : parse_words(c, n, e);
    rc = rc ? rc : parse_encryption(c, n, e);
    rc = rc ? rc : parse_bool(c, "lazy_refcounts", &n->lazy, e);
    rc = rc ? rc : parse_bool(c, "extended_l2", &n->extended, e);
    rc = rc ? rc : parse_bool(c, "data_file_raw", &n->data_raw, e);
    if (rc != 0) {
        return rc;
    }
    if (n->version == 2 &&
        (n->lazy || n->extended || n->zstd || n->data_file || n->refcount_order != 4)) {
        return err_set(
            e, -EINVAL,
            "compat=0.10 has no lazy_refcounts, extended_l2, zstd, data_file, and only "
            "16 refcount_bits");
    }
    if (n->extended && n->cluster < 16384) {
        return err_set(e, -EINVAL, "extended_l2 needs a cluster_size of at least 16k");
    }
    if (n->data_raw && (!n->data_file || n->backing)) {
        return err_set(e, -EINVAL,
                       "data_file_raw goes with data_file, and without a backing file");
    }
    if (n->prealloc != BLK_PRE_OFF && n->backing && !n->extended) {
        return err_set(e, -EINVAL, "preallocation would hide the backing file");
    }
    if (n->backing && (strlen(n->backing) > 1023 || strlen(n->backing) + 256 > n->cluster)) {
        return err_set(e, -ENAMETOOLONG, "the backing file's name is too long");
    }
    return 0;
}

static uint64_t up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* Refcount blocks and table that count `clusters` others and themselves. */
static void refcounts_for(uint64_t clusters, uint64_t cluster, unsigned order, uint64_t *blocks,
                          uint64_t *table)
{
    uint64_t per = cluster * 8 >> order, was;

    *blocks = *table = 1;
    do {
        was = *blocks + *table;
        *blocks = up(clusters + was, per);
        *table = up(*blocks * 8, cluster);
    } while (*blocks + *table != was);
}

static int new_layout(struct q2_new *n, const char *path, struct err *e)
{
    n->l2_bits = (unsigned)__builtin_ctzll(n->cluster) - (n->extended ? 4 : 3);
    n->l1_entries = up(n->size, n->cluster << n->l2_bits);
    n->l1_clusters = up(n->l1_entries * 8, n->cluster);
    if (n->size > 1ull << 62 || n->l1_entries * 8 > Q2_MAX_L1) {
        return err_set(e, -EFBIG,
                       "%s: %llu bytes are too many for clusters of %llu; raise cluster_size",
                       path, (unsigned long long)n->size, (unsigned long long)n->cluster);
    }
    n->luks_clusters = n->luks ? up(LUKS_HEADER_BYTES, n->cluster) : 0;
    refcounts_for(1 + n->l1_clusters + n->luks_clusters, n->cluster, n->refcount_order,
                  &n->blocks, &n->rt_clusters);
    n->total = 1 + n->rt_clusters + n->blocks + n->l1_clusters + n->luks_clusters;
    return 0;
}

static int put_at(int fd, const void *p, size_t n, uint64_t at, const char *path, struct err *e)
{
    while (n > 0) {
        ssize_t k = fd_pwrite(fd, p, n, at);

        if (k < 0 && errno != EINTR) {
            return err_errno(e, errno, "cannot write %s", path);
        }
        if (k > 0) {
            p = (const char *)p + k;
            n -= (size_t)k;
            at += (uint64_t)k;
        }
    }
    return 0;
}

static int write_counts(const struct q2_new *n, int fd, const char *path, struct err *e)
{
    uint64_t per = n->cluster * 8 >> n->refcount_order, first = 1 + n->rt_clusters;
    AUTO_FREE uint64_t *rt = xnew_n(uint64_t, n->rt_clusters * n->cluster / 8);
    AUTO_FREE uint8_t *block = xalloc(n->cluster);
    int rc = 0;

    for (uint64_t b = 0; b < n->blocks && rc == 0; b++) {
        memset(block, 0, n->cluster);
        for (uint64_t i = 0; i < per && b * per + i < n->total; i++) {
            q2_ref_write(block, n->refcount_order, i, 1);
        }
        rt[b] = htobe64((first + b) * n->cluster);
        rc = put_at(fd, block, n->cluster, (first + b) * n->cluster, path, e);
    }
    return rc ? rc : put_at(fd, rt, n->rt_clusters * n->cluster, n->cluster, path, e);
}

static struct q2_header new_header(const struct q2_new *n)
{
    return (struct q2_header){
        .version = n->version,
        .cluster_bits = (uint32_t)__builtin_ctzll(n->cluster),
        .size = n->size,
        .crypt = n->luks ? 2 : 0,
        .l1_size = (uint32_t)n->l1_entries,
        .l1_offset = (1 + n->rt_clusters + n->blocks) * n->cluster,
        .rt_offset = n->cluster,
        .rt_clusters = (uint32_t)n->rt_clusters,
        .incompatible = (n->zstd ? Q2_I_COMPRESSION : 0) |
                        (n->extended ? Q2_I_EXTENDED_L2 : 0) |
                        (n->data_file ? Q2_I_DATA_FILE : 0),
        .compatible = n->lazy ? Q2_C_LAZY : 0,
        .autoclear = n->data_raw ? Q2_A_RAW_DATA : 0,
        .refcount_order = n->refcount_order,
        .length = n->version >= 3 ? Q2_HEADER : 72,
        .compression = n->zstd,
    };
}

/* Names of the feature bits, for programs that do not know them. */
static struct q2_ext feature_names(void)
{
    static const struct {
        uint8_t kind, bit;
        char name[46];
    } names[] = {
        { 0, 0, "dirty bit" },
        { 0, 1, "corrupt bit" },
        { 0, 2, "external data file" },
        { 0, 3, "compression type" },
        { 0, 4, "extended L2 entries" },
        { 1, 0, "lazy refcounts" },
        { 2, 0, "bitmaps" },
        { 2, 1, "raw external data" },
    };

    return (struct q2_ext){ .type = Q2_X_NAMES,
                            .length = sizeof(names),
                            .data = xmemdup(names, sizeof(names)) };
}

static int write_header(const struct q2_new *n, const struct blk_create *c, int fd,
                        struct err *e)
{
    struct blk_options o = { .name = c->path, .path = c->path, .driver = "raw", .fd = fd };
    struct blk_node *file;
    struct qcow2 q = { .h = new_header(n), .cluster = n->cluster };
    int rc = blk_open_file(NULL, &o, &file, e);

    if (rc != 0) {
        return rc;
    }
    q.node.name = (char *)c->path;
    q.file = q.data = file;
    q.backing_name = (char *)n->backing;
    q.backing_format = (char *)n->backing_format;
    q.ext = xnew_n(struct q2_ext, 3);
    if (n->luks) {
        uint64_t place[2] = { htobe64((n->total - n->luks_clusters) * n->cluster),
                              htobe64(LUKS_HEADER_BYTES) };

        q.ext[q.n_ext++] = (struct q2_ext){ .type = Q2_X_CRYPTO,
                                            .length = sizeof(place),
                                            .data = xmemdup(place, sizeof(place)) };
    }
    if (n->version >= 3 && n->cluster > 1024) {
        q.ext[q.n_ext++] = feature_names();
    }
    if (n->data_file) {
        q.ext[q.n_ext++] = (struct q2_ext){ .type = Q2_X_DATA_FILE,
                                            .length = (uint32_t)strlen(n->data_file),
                                            .data = (uint8_t *)xstrdup(n->data_file) };
    }
    rc = q2_header_rewrite(&q, e);
    for (size_t i = 0; i < q.n_ext; i++) {
        free(q.ext[i].data);
    }
    free(q.ext);
    blk_file_release(file);
    blk_close(file);
    return rc;
}

/* --- preallocation --- */

/* New clusters for guest clusters that have none. `zero`: they read as zeroes whatever lies there. */
static int link_run(struct qcow2 *q, uint64_t guest, uint64_t host, uint64_t clusters,
                    bool zero)
{
    int rc = 0;

    for (uint64_t i = 0; i < clusters && rc == 0; i++) {
        uint64_t at = host + (i << q->cluster_bits), *entry, old;
        struct q2_slice *s;

        rc = q2_entry(q, guest + (i << q->cluster_bits), &s, &entry);
        if (rc != 0) {
            break;
        }
        old = be64toh(entry[0]);
        if (old & (Q2_OFFSET | Q2_COMPRESSED) ||
            (q->data != q->file && old & Q2_COPIED)) { /* has one */
            if (q->data == q->file) {
                q2_release(q, at, 1, false);
            }
        } else {
            entry[0] = htobe64(at | Q2_COPIED | (zero && !q2_ext_l2(q) ? Q2_ZERO : 0));
            if (q2_ext_l2(q)) { /* a place, and nothing in it yet: the backing file shows */
                entry[1] = zero              ? htobe64(0xffffffffull << 32)
                           : q->backing_name ? 0
                                             : htobe64(0xffffffffull);
            }
            q2_slice_dirty(q, s);
        }
        q2_slice_put(s);
    }
    return rc;
}

/* Guest bytes from `at` on, a whole cluster's beginning; the lock is held. `anew`: nothing was ever written, so that
 * the file's new space reads as zeroes; space that a table left behind does not. */
static int preallocate(struct qcow2 *q, uint64_t at, enum blk_prealloc mode, bool anew,
                       struct err *e)
{
    uint64_t end = q2_clusters(q, q->node.size) << q->cluster_bits, host = at, got;
    bool full = mode == BLK_PRE_FULL, v2 = q->h.version < 3, zero = !anew && !full && !v2;
    int rc = 0, sys = 0;

    for (; at < end && rc == 0 && sys == 0; at += got << q->cluster_bits) {
        uint64_t fresh = q->end << q->cluster_bits; /* what lies before it may have held tables */

        got = (end - at) >> q->cluster_bits;
        got = got < 1 << 16 ? got : 1 << 16;
        host = at;
        sys = q->data != q->file ? 0 : q2_alloc(q, got, &host, &got);
        if (sys == 0 && !zero && !full && (!anew || (q->data == q->file && host < fresh))) {
            sys = blk_kid_run(q->data, BLK_ZERO, 0, host, got << q->cluster_bits, NULL, 0);
        }
        if (sys == 0 && mode >= BLK_PRE_FALLOC) {
            rc = blk_preallocate(blk_file_fd(q->data), host, got << q->cluster_bits, full,
                                 q->node.path, e);
        }
        sys = sys || rc ? sys : link_run(q, at, host, got, zero);
    }
    if (rc == 0 && sys == 0 && q->file->size < q->end << q->cluster_bits) {
        rc = q->file->driver->resize(q->file, q->end << q->cluster_bits, e);
    }
    return sys ? err_errno(e, -sys, "cannot preallocate %s", q->node.path) : rc;
}

int q2_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc mode, struct err *e)
{
    struct qcow2 *q = q2_of(n);
    int rc, sys;

    if (q->h.crypt) {
        return err_set(e, -ENOTSUP, "disk '%s': preallocation does not go with encryption",
                       n->name);
    }
    pthread_mutex_lock(&q->lock);
    rc = preallocate(q, q2_clusters(q, from) << q->cluster_bits, mode, false, e);
    sys = q2_commit_all(q);
    pthread_mutex_unlock(&q->lock);
    return rc || !sys ? rc : err_errno(e, -sys, "disk '%s': cannot preallocate", n->name);
}

static int preallocate_new(const struct q2_new *n, const struct blk_create *c, struct err *e)
{
    struct blk_options o = { .name = c->path,
                             .path = c->path,
                             .driver = "qcow2",
                             .fd = -1,
                             .follow = true,
                             .no_backing = true };
    struct blk_node *node;
    int rc = blk_open(NULL, &o, &node, e);

    if (rc != 0) {
        return rc;
    }
    pthread_mutex_lock(&q2_of(node)->lock);
    rc = preallocate(q2_of(node), 0, n->prealloc, true, e);
    pthread_mutex_unlock(&q2_of(node)->lock);
    if (rc != 0) {
        blk_close(node);
        return rc;
    }
    return blk_close_flush(node, e);
}

static int write_luks(const struct q2_new *n, const struct blk_create *c, const uint8_t *head,
                      int fd, struct err *e)
{
    return put_at(fd, head, LUKS_HEADER_BYTES, (n->total - n->luks_clusters) * n->cluster,
                  c->path, e);
}

static int create_data_file(const struct q2_new *n, const char *image, struct err *e)
{
    AUTO_FREE char *path = blk_relative(image, n->data_file);
    AUTO_FD fd = -1;
    int rc = blk_create_file(path, &fd, e);

    if (rc == 0 && ftruncate(fd, (off_t)n->size) != 0) {
        rc = err_errno(e, errno, "cannot make %s as large as the disk", path);
    }
    return rc;
}

int q2_create(const struct blk_create *c, struct err *e)
{
    struct q2_new n;
    AUTO_FREE uint8_t *luks = NULL;
    AUTO_FD fd = -1;
    int rc = new_parse(c, &n, e);

    rc = rc ? rc : new_layout(&n, c->path, e);
    if (rc == 0 && n.luks) {
        rc = c->secret ? c->secret->by->create(c, "encrypt.", &luks, e)
                       : err_set(e, -EINVAL,
                                 "an encrypted image needs a secret: encrypt.key-file=FILE or "
                                 "--secret FILE");
    }
    rc = rc ? rc : blk_create_image_file(c, &fd, e);
    if (rc == 0 && ftruncate(fd, (off_t)(n.total * n.cluster)) != 0) {
        rc = err_errno(e, errno, "cannot make %s", c->path);
    }
    rc = rc ? rc : write_counts(&n, fd, c->path, e);
    rc = rc || !luks ? rc : write_luks(&n, c, luks, fd, e);
    rc = rc ? rc : write_header(&n, c, fd, e);
    if (rc == 0 && n.data_file) {
        rc = create_data_file(&n, c->path, e);
    }
    if (rc == 0 && n.prealloc != BLK_PRE_OFF) {
        close(take_fd(&fd)); /* and with it our lock */
        rc = preallocate_new(&n, c, e);
    }
    return rc;
}

int q2_measure(const struct blk_create *c, uint64_t data_bytes, uint64_t *required,
               uint64_t *full, struct err *e)
{
    struct q2_new n;
    uint64_t clusters, l2, blocks, table, fixed;
    int rc = new_parse(c, &n, e);

    rc = rc ? rc : new_layout(&n, "the image", e);
    if (rc != 0) {
        return rc;
    }
    clusters = up(n.size, n.cluster);
    l2 = up(clusters, 1ull << n.l2_bits);
    fixed = 1 + n.l1_clusters + l2 + n.luks_clusters;
    refcounts_for(fixed + clusters, n.cluster, n.refcount_order, &blocks, &table);
    fixed += blocks + table;
    *full = (fixed + clusters) * n.cluster;
    *required = fixed * n.cluster + up(data_bytes, n.cluster) * n.cluster;
    return 0;
}
