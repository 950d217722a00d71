/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images of other programs, which we only read: what their formats have in common. Owns the cache of tables.
 */
#include "storage/foreign.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MERGE = 4096 }; /* blocks of one run at most */

uint64_t fo_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0) {
        v = v << 8 | p[n];
    }
    return v;
}

uint64_t fo_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

int fo_open(struct foreign *f, const struct fo_format *format, const struct blk_options *o,
            struct err *e)
{
    f->format = format;
    f->file = f->node.kid[BLK_FILE];
    f->length = f->file->size;
    pthread_mutex_init(&f->lock, NULL);
    f->slice = xalloc_n(FO_SLICES, sizeof(*f->slice));
    if (!o->readonly) {
        return err_set(
            e, -EROFS,
            "disk '%s': images of format %s are only read; mark it read-only, or make "
            "a qcow2 image of it with 'vmctl image convert -O qcow2'",
            o->name, f->node.driver->name);
    }
    return 0;
}

int fo_bad(const struct foreign *f, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "disk '%s': %s is no sound %s image: %s", f->node.name,
                   f->node.path, f->node.driver->name, what);
}

bool fo_inside(const struct foreign *f, uint64_t offset, uint64_t length)
{
    return offset <= f->length && length <= f->length - offset;
}

int fo_table(struct foreign *f, uint64_t at, void *out, size_t n)
{
    uint64_t start = at / FO_SLICE * FO_SLICE;
    unsigned i = (unsigned)(at / FO_SLICE % FO_SLICES);
    int rc = 0;

    if (at - start + n > FO_SLICE) { /* a table that is not aligned */
        return blk_kid_read(f->file, at, out, n);
    }
    pthread_mutex_lock(&f->lock);
    if (f->slice[i].at != start + 1) {
        f->slice[i].at = 0;
        rc = blk_kid_read(f->file, start, f->slice[i].data, FO_SLICE);
        f->slice[i].at = rc == 0 ? start + 1 : 0;
    }
    memcpy(out, f->slice[i].data + (at - start), n);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int fo_data(const struct foreign *f, uint64_t host, uint64_t length, struct fo_run *run)
{
    if (host >= f->length) {
        return -EIO;
    }
    *run = (struct fo_run){ .type = FO_DATA, .host = host, .length = length };
    return 0;
}

/* As far as the same goes on. */
static int lookup(struct foreign *f, uint64_t offset, uint64_t most, struct fo_run *run)
{
    int rc = f->format->lookup(f, offset, run);

    for (unsigned i = 0; rc == 0 && i < MERGE && run->length < most; i++) {
        struct fo_run next;

        if (run->type == FO_PACKED || f->format->lookup(f, offset + run->length, &next) != 0 ||
            next.type != run->type ||
            (run->type == FO_DATA && next.host != run->host + run->length)) {
            break;
        }
        run->length += next.length;
    }
    if (rc == 0 && run->length > most) {
        run->length = most;
    }
    return rc;
}

/* The block unpacked last stays: small reads go through it one after the other. */
static int read_packed(struct foreign *f, const struct fo_run *run, uint64_t offset,
                       const struct iovec *iov, unsigned n)
{
    uint64_t start = offset / f->block * f->block, in = offset - start;
    AUTO_FREE uint8_t *mem = NULL;
    bool have = false;
    int rc = 0;

    pthread_mutex_lock(&f->lock);
    if (f->packed_at == start + 1) {
        mem = f->packed_mem;
        f->packed_mem = NULL;
        f->packed_at = 0;
        have = true;
    }
    pthread_mutex_unlock(&f->lock);
    if (!have) {
        mem = xalloc(f->block);
        rc = f->format->unpack(f, run->host, start, mem);
    }
    for (unsigned i = 0; i < n && rc == 0; i++) {
        memcpy(iov[i].iov_base, mem + in, iov[i].iov_len);
        in += iov[i].iov_len;
    }
    if (rc == 0 && in < f->block) { /* somebody may want the rest */
        pthread_mutex_lock(&f->lock);
        if (f->packed_at == 0) {
            free(f->packed_mem);
            f->packed_mem = take_ptr(mem);
            f->packed_at = start + 1;
        }
        pthread_mutex_unlock(&f->lock);
    }
    return rc;
}

static int read_all(struct foreign *f, const struct blk_req *r)
{
    AUTO_FREE struct iovec *part = xnew_n(struct iovec, r->n_iov + 1);
    uint64_t done = 0;
    int rc = 0;

    while (done < r->length && rc == 0) {
        struct fo_run run;
        unsigned n;

        rc = lookup(f, r->at + done, r->length - done, &run);
        if (rc != 0) {
            break;
        }
        n = blk_iov_slice(r->iov, r->n_iov, done, run.length, part);
        if (run.type == FO_DATA) {
            rc = blk_kid_run(f->file, BLK_READ, 0, run.host, run.length, part, n);
        } else if (run.type == FO_PACKED) {
            rc = read_packed(f, &run, r->at + done, part, n);
        } else {
            for (unsigned i = 0; i < n; i++) {
                memset(part[i].iov_base, 0, part[i].iov_len);
            }
        }
        done += run.length;
    }
    return rc;
}

int fo_run_req(struct blk_node *n, struct blk_req *r)
{
    struct foreign *f = (struct foreign *)n;

    switch (r->op) {
    case BLK_READ:
        return read_all(f, r);
    case BLK_FLUSH:
        return 0;
    default:
        return -EROFS;
    }
}

int fo_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct foreign *f = (struct foreign *)n;
    struct fo_run run;
    int rc = lookup(f, offset, n->size - offset, &run);

    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': the block at offset %llu of %s leads nowhere",
                         n->name, (unsigned long long)offset, n->path);
    }
    *out = (struct blk_extent){ .length = run.length,
                                .data = run.type == FO_DATA || run.type == FO_PACKED,
                                .zero = run.type == FO_ZERO || run.type == FO_HOLE,
                                .present = run.type != FO_HOLE,
                                .compressed = run.type == FO_PACKED,
                                .has_host = run.type == FO_DATA,
                                .host = run.host };
    return 0;
}

int fo_close(struct blk_node *n)
{
    struct foreign *f = (struct foreign *)n;

    if (f->slice) {
        pthread_mutex_destroy(&f->lock);
    }
    free(f->slice);
    free(f->packed_mem);
    return 0;
}

static int fo_info(struct blk_node *n, struct blk_image_info *out, struct err *e)
{
    const struct foreign *f = (const struct foreign *)n;

    (void)e;
    out->cluster_size = f->block;
    out->variant = f->variant[0] ? xstrdup(f->variant) : NULL;
    return 0;
}

const struct blk_image_ops fo_image = { .info = fo_info };
