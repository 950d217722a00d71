/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter node of a VM's disk. `mutex` protects guards, what is in flight and what is kept; it is taken with the
 * pool's mutex held and never the other way round.
 */
#include "storage/disk.h"

#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>

struct flying {
    struct list link;
    const struct blk_req *req;
};

struct blk_disk {
    struct blk_node node;
    pthread_mutex_t mutex;
    pthread_cond_t landed;
    struct list guards;
    struct list flying; /* writes below, while there are guards */
    struct list kept;   /* struct blk_req.link */
    pthread_rwlock_t
        chain; /* who looks where data lie, beside requests, and who changes the images below */
};

static struct blk_disk *disk_of(struct blk_node *n)
{
    return (struct blk_disk *)n;
}

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* Mutex held. */
static struct blk_guard *who_keeps(struct blk_disk *d, const struct blk_req *r)
{
    list_for_each (it, &d->guards) {
        struct blk_guard *g = list_entry(it, struct blk_guard, link);

        if (g->must_wait(g, r->offset, r->length)) {
            return g;
        }
    }
    return NULL;
}

static void take_off_locked(struct blk_disk *d, const struct blk_req *r)
{
    struct flying *f = xnew(struct flying);

    f->req = r;
    list_append(&d->flying, &f->link);
}

static void disk_submit(struct blk_node *n, struct blk_req *r)
{
    struct blk_disk *d = disk_of(n);
    struct blk_node *kid = n->kid[BLK_FILE];
    bool kept = false;

    if (r->op != BLK_READ && r->op != BLK_FLUSH) {
        pthread_mutex_lock(&d->mutex);
        if (!list_empty(&d->guards)) {
            struct blk_guard *g = who_keeps(d, r);

            kept = g != NULL;
            if (g) {
                list_append(&d->kept, &r->link);
                g->kept(g, r->offset, r->length);
            } else {
                take_off_locked(d, r);
            }
        }
        pthread_mutex_unlock(&d->mutex);
    }
    if (kept) {
        return;
    }
    r->via = kid;
    if (kid->driver->submit) {
        kid->driver->submit(kid, r);
    } else {
        blk_pool_submit(kid->pool, r);
    }
}

/* With the pool's mutex held. */
static void disk_settled(struct blk_node *n, struct blk_req *r)
{
    struct blk_disk *d = disk_of(n);

    if (r->op == BLK_READ || r->op == BLK_FLUSH) {
        return;
    }
    pthread_mutex_lock(&d->mutex);
    list_for_each (it, &d->flying) {
        struct flying *f = list_entry(it, struct flying, link);

        if (f->req == r) {
            list_remove(&f->link);
            free(f);
            pthread_cond_broadcast(&d->landed);
            break;
        }
    }
    pthread_mutex_unlock(&d->mutex);
}

static int disk_run(struct blk_node *n, struct blk_req *r)
{
    r->via = n->kid[BLK_FILE];
    return r->via->driver->run(r->via, r);
}

static int disk_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e)
{
    struct blk_disk *d = disk_of(n);
    int rc;

    pthread_rwlock_rdlock(&d->chain);
    rc = blk_map(n->kid[BLK_FILE], offset, out, e);
    pthread_rwlock_unlock(&d->chain);
    return rc;
}

static int disk_resize(struct blk_node *n, uint64_t size, struct err *e)
{
    int rc = blk_resize(n->kid[BLK_FILE], size, e);

    if (rc == 0) {
        n->size = size;
    }
    return rc;
}

static int disk_close(struct blk_node *n)
{
    struct blk_disk *d = disk_of(n);

    pthread_rwlock_destroy(&d->chain);
    pthread_cond_destroy(&d->landed);
    pthread_mutex_destroy(&d->mutex);
    return 0;
}

static int disk_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_disk *d = disk_of(n);

    (void)o;
    (void)e;
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->landed, NULL);
    pthread_rwlock_init(&d->chain, NULL);
    list_init(&d->guards);
    list_init(&d->flying);
    list_init(&d->kept);
    return 0;
}

static const struct blk_driver disk_driver = {
    .name = "disk",
    .doc = "what a device sees of its image",
    .kind = BLK_FILTER,
    .size = sizeof(struct blk_disk),
    .open = disk_open,
    .run = disk_run,
    .submit = disk_submit,
    .settled = disk_settled,
    .map = disk_map,
    .resize = disk_resize,
    .close = disk_close,
};

struct blk_node *blk_disk_new(struct blk_pool *pool, struct blk_node *take_image)
{
    const struct blk_options o = { .name = take_image->name,
                                   .path = take_image->path,
                                   .readonly = take_image->readonly };
    struct blk_node *n = blk_node_new(&disk_driver, pool, &o);

    (void)disk_open(n, &o, NULL);
    list_remove(&take_image->in_pool);
    n->kid[BLK_FILE] = take_image;
    n->size = take_image->size;
    n->durable = take_image->durable;
    blk_pool_add(pool, n);
    return n;
}

/* --- a drive with nothing in it: an image of no bytes --- */

static int nothing_run(struct blk_node *n, struct blk_req *r)
{
    (void)n;
    return r->op == BLK_FLUSH ? 0 : -ENOMEDIUM;
}

static int nothing_map(struct blk_node *n, uint64_t offset, struct blk_extent *out,
                       struct err *e)
{
    (void)offset;
    (void)out;
    return err_set(e, -ENOMEDIUM, "disk '%s' has no medium", n->name);
}

static int nothing_close(struct blk_node *n)
{
    (void)n;
    return 0;
}

static const struct blk_driver nothing_driver = {
    .name = "nothing",
    .doc = "a drive without a medium",
    .kind = BLK_FORMAT,
    .size = sizeof(struct blk_node),
    .run = nothing_run,
    .map = nothing_map,
    .close = nothing_close,
};

struct blk_node *blk_nothing_new(struct blk_pool *pool, const char *name)
{
    const struct blk_options o = { .name = name, .path = "", .readonly = true };
    struct blk_node *n = blk_node_new(&nothing_driver, pool, &o);

    blk_pool_add(pool, n);
    return n;
}

bool blk_is_nothing(const struct blk_node *n)
{
    return blk_own_driver(n->driver == &disk_driver ? n->kid[BLK_FILE] : n) == &nothing_driver;
}

struct blk_node *blk_disk_image(struct blk_node *n)
{
    return n->driver == &disk_driver ? n->kid[BLK_FILE] : n;
}

struct blk_node *blk_disk_swap(struct blk_node *disk, struct blk_node *take_image)
{
    struct blk_node *was = disk->kid[BLK_FILE];

    list_remove(&take_image->in_pool);
    disk->kid[BLK_FILE] = take_image;
    disk->readonly = take_image->readonly;
    free(disk->path);
    disk->path = xstrdup(take_image->path);
    if (disk->size != take_image->size) {
        disk->size = take_image->size;
        blk_dirty_resized(disk, disk->size);
    }
    return was;
}

void blk_disk_change(struct blk_node *disk, bool begin)
{
    if (disk->driver != &disk_driver) {
        return;
    }
    if (begin) {
        pthread_rwlock_wrlock(&disk_of(disk)->chain);
    } else {
        pthread_rwlock_unlock(&disk_of(disk)->chain);
    }
}

/* --- guards --- */

void blk_guard_lock(struct blk_node *disk)
{
    pthread_mutex_lock(&disk_of(disk)->mutex);
}

void blk_guard_unlock(struct blk_node *disk)
{
    pthread_mutex_unlock(&disk_of(disk)->mutex);
}

void blk_guard_add(struct blk_node *disk, struct blk_guard *g)
{
    blk_guard_lock(disk);
    list_append(&disk_of(disk)->guards, &g->link);
    blk_guard_unlock(disk);
}

void blk_guard_remove(struct blk_node *disk, struct blk_guard *g)
{
    blk_guard_lock(disk);
    list_remove(&g->link);
    blk_guard_unlock(disk);
    blk_guard_recheck(disk);
}

void blk_guard_recheck(struct blk_node *disk)
{
    struct blk_disk *d = disk_of(disk);
    struct list go;

    list_init(&go);
    pthread_mutex_lock(&d->mutex);
    list_for_each_safe (it, &d->kept) {
        struct blk_req *r = list_entry(it, struct blk_req, link);

        if (!who_keeps(d, r)) {
            list_remove(it);
            list_append(&go, it);
            take_off_locked(d, r);
        }
    }
    pthread_mutex_unlock(&d->mutex);
    while (!list_empty(&go)) {
        struct blk_req *r = list_entry(go.next, struct blk_req, link);

        list_remove(&r->link);
        r->via = disk->kid[BLK_FILE];
        blk_pool_submit(disk->pool, r); /* a thread runs it: this may not be the loop's */
    }
}

void blk_guard_settle(struct blk_node *disk, uint64_t offset, uint64_t length)
{
    struct blk_disk *d = disk_of(disk);
    bool again;

    pthread_mutex_lock(&d->mutex);
    do {
        again = false;
        list_for_each (it, &d->flying) {
            const struct blk_req *r = list_entry(it, struct flying, link)->req;

            again |= overlaps(offset, length, r->offset, r->length);
        }
        if (again) {
            pthread_cond_wait(&d->landed, &d->mutex);
        }
    } while (again);
    pthread_mutex_unlock(&d->mutex);
}

bool blk_guard_find(struct blk_node *disk, struct blk_guard *g,
                    bool (*fits)(struct blk_guard *g, uint64_t offset, uint64_t length),
                    uint64_t *offset, uint64_t *length)
{
    list_for_each (it, &disk_of(disk)->kept) {
        const struct blk_req *r = list_entry(it, struct blk_req, link);

        if (fits(g, r->offset, r->length)) {
            *offset = r->offset;
            *length = r->length;
            return true;
        }
    }
    return false;
}
