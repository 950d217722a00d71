/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block nodes: opening the graph of an image, and the checks that every request passes. Loop
 * thread, except blk_wait_idle.
 */
#include "storage/block.h"

#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct blk_driver *const formats[] = { &blk_raw_driver };

static const struct blk_driver *blk_find_format(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
        if (strcmp(formats[i]->name, name) == 0) {
            return formats[i];
        }
    }
    return NULL;
}

static int blk_node_new(const struct blk_driver *d, struct blk_pool *pool,
                        struct blk_node *child, const struct blk_options *o,
                        struct blk_node **out, struct err *e)
{
    struct blk_node *n = xalloc(d->size);
    int rc;

    n->driver = d;
    n->pool = pool;
    n->name = xstrdup(o->name);
    n->readonly = o->readonly;
    n->child = child;
    rc = d->open(n, o, e);
    if (rc != 0) {
        n->child = NULL; /* stays the caller's */
        blk_close(n);
        return rc;
    }
    *out = n;
    return 0;
}

int blk_open(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
             struct err *e)
{
    const struct blk_driver *format = blk_find_format(o->driver);
    struct blk_options file = *o;
    struct blk_node *child = NULL;
    int rc;

    if (!format) {
        return err_set(e, -ENOTSUP, "disk '%s': unknown image format '%s' (known: raw)",
                       o->name, o->driver);
    }
    file.driver = "file";
    rc = blk_node_new(&blk_file_driver, pool, NULL, &file, &child, e);
    if (rc != 0) {
        return rc;
    }
    rc = blk_node_new(format, pool, child, o, out, e);
    if (rc != 0) {
        if (o->fd >= 0) {
            blk_file_release(
                child); /* a given descriptor stays the caller's when opening fails */
        }
        blk_close(child);
    }
    return rc;
}

void blk_close(struct blk_node *n)
{
    struct blk_node *child;

    if (!n) {
        return;
    }
    child = n->child;
    n->driver->close(n);
    free(n->name);
    free(n);
    blk_close(child);
}

const char *blk_name(const struct blk_node *n)
{
    return n->name;
}

uint64_t blk_size(const struct blk_node *n)
{
    return n->size;
}

bool blk_readonly(const struct blk_node *n)
{
    return n->readonly;
}

static int blk_check(const struct blk_node *n, const struct blk_req *r)
{
    if (r->op != BLK_READ && r->op != BLK_FLUSH && n->readonly) {
        return -EROFS;
    }
    if (r->op == BLK_FLUSH) {
        return 0;
    }
    return r->offset <= n->size && r->length <= n->size - r->offset ? 0 : -EINVAL;
}

void blk_submit(struct blk_node *n, struct blk_req *r)
{
    int rc = blk_check(n, r);

    if (rc != 0) {
        blk_pool_complete(n->pool, n, r, rc);
    } else {
        n->driver->submit(n, r);
    }
}

int blk_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    if (offset >= n->size) {
        return err_set(e, -EINVAL, "disk '%s': offset beyond its end", n->name);
    }
    return n->driver->map(n, offset, out, e);
}

void blk_wait_idle(struct blk_node *n)
{
    n->driver->wait_idle(n);
}

void blk_account(struct blk_node *n, const struct blk_req *r, int result)
{
    if (result != 0) {
        n->count.errors++;
    } else if (r->op == BLK_READ) {
        n->count.reads++;
        n->count.read_bytes += r->length;
    } else if (r->op == BLK_FLUSH) {
        n->count.flushes++;
    } else {
        n->count.writes++;
        n->count.written_bytes += r->op == BLK_WRITE ? r->length : 0;
    }
}

void blk_count(const struct blk_node *n, struct blk_counters *out)
{
    while (n->child) {
        n = n->child;
    }
    *out = (struct blk_counters){
        .reads = n->count.reads,
        .read_bytes = n->count.read_bytes,
        .writes = n->count.writes,
        .written_bytes = n->count.written_bytes,
        .flushes = n->count.flushes,
        .errors = n->count.errors,
    };
}
