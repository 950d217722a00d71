/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is the same for images of all formats: finding out the format, making files, options as texts,
 * dispatch to the format. Owns nothing. The caller's thread.
 */
#include "storage/image.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = 4096 };

int blk_parse_size(const char *text, uint64_t *out, struct err *e)
{
    static const char units[] = "bkmgtpe";
    char *end;
    unsigned long long v;
    const char *u;
    unsigned shift = 0;

    errno = 0;
    v = strtoull(text, &end, 0);
    if (end == text || errno || text[0] == '-') {
        return err_set(e, -EINVAL, "'%s' is no size: a number with k, M, G, T, P or E", text);
    }
    if (*end) {
        u = strchr(units, *end | 32);
        if (!u || (end[1] && strcmp(end + 1, "iB") && strcmp(end + 1, "B"))) {
            return err_set(e, -EINVAL, "'%s' is no size: a number with k, M, G, T, P or E",
                           text);
        }
        shift = (unsigned)(u - units) * 10;
    }
    if (shift && v >> (64 - shift)) {
        return err_set(e, -ERANGE, "'%s' is too large", text);
    }
    *out = (uint64_t)v << shift;
    return 0;
}

const char *blk_create_option(const struct blk_create *c, const char *key)
{
    const char *value = NULL;

    for (size_t i = 0; i < c->n_options; i++) {
        if (strcmp(c->option[i].key, key) == 0) {
            value = c->option[i].value;
        }
    }
    return value;
}

int blk_create_known(const struct blk_create *c, const char *const *keys, struct err *e)
{
    for (size_t i = 0; i < c->n_options; i++) {
        const char *const *k = keys;

        while (*k && strcmp(*k, c->option[i].key)) {
            k++;
        }
        if (!*k) {
            return err_set(e, -EINVAL, "format %s has no option '%s'", c->driver,
                           c->option[i].key);
        }
    }
    return 0;
}

static int create_in(int take_fd_in, const char *path, bool mark, int *out, struct err *e)
{
    AUTO_FD fd = take_fd_in;
    struct stat st;
    int rc;

    if (fd < 0 || fstat(fd, &st) != 0) {
        return err_errno(e, errno, "cannot make %s", path);
    }
    rc = blk_lock(fd, BLK_PERM_WRITE | BLK_PERM_RESIZE, 0, path, mark, e);
    if (rc == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) != 0) {
        rc = err_errno(e, errno, "cannot empty %s", path);
    }
    if (rc == 0) {
        *out = take_fd(&fd);
    }
    return rc;
}

int blk_create_image_file(const struct blk_create *c, int *out, struct err *e)
{
    return c->given ? create_in(c->fd, c->path, false, out, e)
                    : blk_create_file(c->path, out, e);
}

int blk_create_file(const char *path, int *out, struct err *e)
{
    return create_in(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644), path, true, out, e);
}

int blk_preallocate(int fd, uint64_t offset, uint64_t length, bool write, const char *path,
                    struct err *e)
{
    AUTO_FREE char *zeroes = NULL;

    if (length && fallocate(fd, 0, (off_t)offset, (off_t)length) != 0 && errno != EOPNOTSUPP) {
        return err_errno(e, errno, "cannot reserve space for %s", path);
    }
    if (!write) {
        return 0;
    }
    zeroes = xalloc(1 << 20);
    while (length > 0) {
        size_t part = length < 1 << 20 ? (size_t)length : 1 << 20;
        ssize_t n = fd_pwrite(fd, zeroes, part, offset);

        if (n < 0 && errno != EINTR) {
            return err_errno(e, errno, "cannot write %s", path);
        }
        if (n > 0) {
            offset += (uint64_t)n;
            length -= (uint64_t)n;
        }
    }
    return 0;
}

int blk_create(const struct blk_create *c, struct err *e)
{
    const struct blk_driver *d = blk_driver_find(c->driver);

    if (!d) {
        return err_set(e, -ENOTSUP, "unknown image format '%s'", c->driver);
    }
    if (!d->create) {
        return err_set(e, -ENOTSUP,
                       "images of format %s are only read; convert to qcow2 or raw", c->driver);
    }
    return d->create(c, e);
}

static const char *probe_head(const uint8_t *head, size_t n, uint64_t size)
{
    const char *driver = "raw";
    int best = 0;

    for (unsigned i = 0; blk_format_name(i); i++) {
        const struct blk_driver *d = blk_driver_find(blk_format_name(i));
        int sure = d->probe ? d->probe(head, n, size) : 0;

        if (sure > best) {
            best = sure;
            driver = d->name;
        }
    }
    return driver;
}

int blk_probe(const char *path, const char **driver, struct err *e)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    AUTO_FREE uint8_t *head = xalloc(HEAD);
    ssize_t n;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0) {
        return err_errno(e, errno, "cannot open %s", path);
    }
    n = fd_pread(fd, head, HEAD, 0);
    if (n < 0) {
        return err_errno(e, errno, "cannot read %s", path);
    }
    *driver = probe_head(head, (size_t)n, (uint64_t)st.st_size);
    return 0;
}

int blk_probe_node(struct blk_node *n, const char **driver, struct err *e)
{
    AUTO_FREE uint8_t *head = xalloc(HEAD);
    size_t have = n->size < HEAD ? (size_t)n->size : HEAD;
    int rc = blk_pread(n, 0, head, have);

    if (rc != 0) {
        return err_errno(e, -rc, "cannot read %s", n->path);
    }
    *driver = probe_head(head, have, n->size);
    return 0;
}

static int no_verb(const struct blk_node *n, const char *what, struct err *e)
{
    return err_set(e, -ENOTSUP, "disk '%s': images of format %s have no %s", n->name,
                   n->driver->name, what);
}

int blk_info(struct blk_node *n, struct blk_image_info *out, struct err *e)
{
    struct stat st;
    int rc = 0;

    memset(out, 0, sizeof(*out));
    out->driver = n->driver->name;
    out->size = n->size;
    if (n->kid[BLK_FILE] && fstat(blk_file_fd(n->kid[BLK_FILE]), &st) == 0) {
        out->file_size = n->kid[BLK_FILE]->size;
        out->disk_size = (uint64_t)st.st_blocks * 512;
    }
    if (n->driver->image && n->driver->image->info) {
        rc = n->driver->image->info(n, out, e);
    }
    if (rc != 0) {
        blk_info_done(out);
    }
    return rc;
}

void blk_info_done(struct blk_image_info *i)
{
    for (size_t k = 0; k < i->n_snapshots; k++) {
        free(i->snapshot[k].id);
        free(i->snapshot[k].name);
    }
    for (size_t k = 0; k < i->n_bitmaps; k++) {
        free(i->bitmap[k].name);
    }
    free(i->snapshot);
    free(i->bitmap);
    free(i->backing);
    free(i->backing_format);
    free(i->data_file);
    free(i->variant);
    memset(i, 0, sizeof(*i));
}

int blk_check(struct blk_node *n, unsigned repair, struct blk_check *c, struct err *e)
{
    if (!n->driver->image || !n->driver->image->check) {
        return no_verb(n, "check", e);
    }
    return n->driver->image->check(n, repair, c, e);
}

int blk_snapshot(struct blk_node *n, enum blk_snapshot_verb verb, const char *name,
                 struct err *e)
{
    int rc;

    if (!n->driver->image || !n->driver->image->snapshot) {
        return no_verb(n, "internal snapshots", e);
    }
    blk_drain_begin(n);
    rc = n->driver->image->snapshot(n, verb, name, e);
    if (rc == 0 && verb == BLK_SNAP_APPLY) { /* other contents everywhere */
        blk_dirty_resized(n, n->size);
        blk_dirty_mark_range(n, 0, n->size);
    }
    blk_drain_end(n);
    return rc;
}

int blk_snapshot_load(struct blk_node *n, const char *name, struct err *e)
{
    if (!n->driver->image || !n->driver->image->snapshot_load) {
        return no_verb(n, "internal snapshots", e);
    }
    return n->driver->image->snapshot_load(n, name, e);
}

int blk_set_backing(struct blk_node *n, const char *backing, const char *format, struct err *e)
{
    if (!n->driver->image || !n->driver->image->set_backing) {
        return no_verb(n, "backing file", e);
    }
    return n->driver->image->set_backing(n, backing, format, e);
}

int blk_seal(struct blk_node *n, struct err *e)
{
    int rc = blk_flush(n);

    if (rc == 0 && !n->readonly && n->driver->image && n->driver->image->seal) {
        rc = n->driver->image->seal(n);
    }
    n->readonly = true;
    return rc == 0 ? 0 : err_errno(e, -rc, "disk '%s': closing %s", n->name, n->path);
}

int blk_amend(struct blk_node *n, const struct blk_amend *a, struct err *e)
{
    if (!n->driver->image || !n->driver->image->amend) {
        return no_verb(n, "options that can be changed", e);
    }
    return n->driver->image->amend(n, a, e);
}

int blk_make_empty(struct blk_node *n, struct err *e)
{
    if (!n->driver->image || !n->driver->image->make_empty) {
        return no_verb(n, "way to be emptied", e);
    }
    return n->driver->image->make_empty(n, e);
}

int blk_measure(const struct blk_create *c, uint64_t data_bytes, uint64_t *required,
                uint64_t *full, struct err *e)
{
    const struct blk_driver *d = blk_driver_find(c->driver);

    if (!d || !d->create) {
        return err_set(e, -ENOTSUP, "images of format %s are not written", c->driver);
    }
    if (d->image && d->image->measure) {
        return d->image->measure(c, data_bytes, required, full, e);
    }
    *required = *full = c->size;
    return 0;
}

int blk_parse_prealloc(const char *text, enum blk_prealloc *out, struct err *e)
{
    static const char *const modes[] = { "off", "metadata", "falloc", "full" };

    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(modes[i], text) == 0) {
            *out = (enum blk_prealloc)i;
            return 0;
        }
    }
    return err_set(e, -EINVAL, "preallocation is off, metadata, falloc or full, not '%s'",
                   text);
}

int blk_grow_prealloc(struct blk_node *n, uint64_t from, enum blk_prealloc mode, struct err *e)
{
    int rc;

    if (mode == BLK_PRE_OFF || from >= n->size) {
        return 0;
    }
    if (!n->driver->image || !n->driver->image->preallocate) {
        return err_set(e, -ENOTSUP, "disk '%s': format %s has no preallocation", n->name,
                       n->driver->name);
    }
    blk_drain_begin(n);
    rc = n->driver->image->preallocate(n, from, mode, e);
    blk_drain_end(n);
    return rc;
}
