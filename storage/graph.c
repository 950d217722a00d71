/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The graph: the list of drivers, opening an image with all nodes below it, claims and what follows
 * from them for the image locks, closing. Loop thread.
 */
#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "storage/disk.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One line registers a driver. */
static const struct blk_driver *const drivers[] = {
    &blk_raw_driver,
    &blk_qcow2_driver,
    &blk_luks_driver,
    &blk_vdi_driver,
    &blk_vhd_driver,
    &blk_vhdx_driver,
    &blk_vmdk_driver,
};

const struct blk_driver *blk_driver_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(drivers); i++) {
        if (strcmp(drivers[i]->name, name) == 0 ||
            (drivers[i]->alias && strcmp(drivers[i]->alias, name) == 0)) {
            return drivers[i];
        }
    }
    return NULL;
}

const char *blk_format_name(unsigned i)
{
    return i < ARRAY_LEN(drivers) ? drivers[i]->name : NULL;
}

/* --- claims --- */

static void claims_sum(const struct blk_node *n, unsigned *need, unsigned *share)
{
    *need = 0;
    *share = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;
    list_for_each (it, &n->claims) {
        const struct blk_claim *c = list_entry(it, struct blk_claim, link);

        *need |= c->need;
        *share &= c->share;
    }
}

static int claims_fit(const struct blk_node *n, const struct blk_claim *mine, struct err *e)
{
    static const char *const verbs[] = { "reading", "writing", "resizing" };

    list_for_each (it, &n->claims) {
        const struct blk_claim *c = list_entry(it, struct blk_claim, link);
        unsigned bad = (mine->need & ~c->share) | (c->need & ~mine->share);

        if (c != mine && bad) {
            return err_set(e, -EBUSY,
                           "disk '%s' is in use by %s, which does not go with %s by %s",
                           n->name, c->who, verbs[__builtin_ctz(bad)], mine->who);
        }
    }
    return 0;
}

/* What the sum of the claims on n means for its kids, and for its file's locks. */
static int claims_push(struct blk_node *n, struct err *e)
{
    unsigned need, share;
    int rc = 0;

    claims_sum(n, &need, &share);
    if (n->driver->kind == BLK_PROTOCOL) {
        int fd = blk_file_fd(n); /* -1: not a file, nothing to lock */

        return fd < 0 || list_empty(&n->claims)
                   ? 0
                   : blk_lock(fd, need, share, n->name, !blk_pool_confined(n->pool), e);
    }
    for (unsigned i = 0; i < BLK_ROLES && rc == 0; i++) {
        struct blk_claim *c = n->hold[i], was;

        if (!c) {
            continue;
        }
        was = *c;
        if (i == BLK_BACKING) {
            c->need = BLK_PERM_READ;
            c->share = BLK_PERM_READ; /* and more where a job made it writable */
            c->share |= c->node->readonly ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE;
        } else {
            c->need = need | (need & BLK_PERM_WRITE ? BLK_PERM_RESIZE : 0);
            c->share = share;
        }
        rc = claims_fit(c->node, c, e);
        if (rc == 0) {
            rc = claims_push(c->node, e);
        }
        if (rc != 0) {
            c->need = was.need;
            c->share = was.share;
        }
    }
    return rc;
}

static struct blk_claim *claim_new(struct blk_node *n, const char *who, unsigned need,
                                   unsigned share)
{
    struct blk_claim *c = xnew(struct blk_claim);

    c->node = n;
    c->who = xstrdup(who);
    c->need = need;
    c->share = share;
    list_append(&n->claims, &c->link);
    return c;
}

static void claim_free(struct blk_claim *c)
{
    if (c) {
        list_remove(&c->link);
        free(c->who);
        free(c);
    }
}

int blk_claim(struct blk_node *n, const char *who, unsigned need, unsigned share,
              struct blk_claim **out, struct err *e)
{
    struct blk_claim *c = claim_new(n, who, need, share);
    int rc = n->readonly && (need & ~(unsigned)BLK_PERM_READ)
                 ? err_set(e, -EROFS, "disk '%s' is read-only", n->name)
                 : claims_fit(n, c, e);

    if (rc == 0) {
        rc = claims_push(n, e);
    }
    if (rc != 0) {
        claim_free(c);
        (void)claims_push(n, NULL);
        return rc;
    }
    *out = c;
    return 0;
}

void blk_unclaim(struct blk_claim *c)
{
    if (c) {
        struct blk_node *n = c->node;

        claim_free(c);
        (void)claims_push(n, NULL); /* less than before: cannot be refused */
    }
}

/* --- opening --- */

static int node_close(struct blk_node *n)
{
    int rc;

    if (!n) {
        return 0;
    }
    blk_wait_idle(n);
    blk_throttle_done(n);
    blk_gate_done(n);
    blk_faults_done(n);
    rc = n->driver->close(n);
    blk_dirty_done(n);
    if (n->pool) {
        blk_pool_forget(n->pool, n);
    }
    for (unsigned i = 0; i < BLK_ROLES; i++) {
        int kid;

        claim_free(n->hold[i]);
        kid = node_close(n->kid[i]);
        rc = rc ? rc : kid;
    }
    claim_free(n->owner);
    while (!list_empty(&n->claims)) {
        claim_free(list_entry(n->claims.next, struct blk_claim, link));
    }
    list_remove(&n->in_pool);
    free(n->name);
    free(n->path);
    free(n);
    return rc;
}

struct blk_node *blk_node_new(const struct blk_driver *d, struct blk_pool *pool,
                              const struct blk_options *o)
{
    struct blk_node *n = xalloc(d->size);

    n->driver = d;
    n->pool = pool;
    n->name = xstrdup(o->name);
    n->path = xstrdup(o->path ? o->path : o->name);
    n->readonly = o->readonly;
    n->durable = o->durable;
    list_init(&n->in_pool);
    list_init(&n->claims);
    list_init(&n->held);
    list_init(&n->kept);
    return n;
}

void blk_set_kid(struct blk_node *n, enum blk_role role, struct blk_node *take_kid)
{
    n->kid[role] = take_kid;
    n->hold[role] = claim_new(take_kid, n->name, 0,
                              BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE);
}

struct blk_node *blk_take_kid(struct blk_node *n, enum blk_role role)
{
    struct blk_node *kid = n->kid[role];

    n->kid[role] = NULL;
    claim_free(n->hold[role]);
    n->hold[role] = NULL;
    return kid;
}

int blk_open_file(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
                  struct err *e)
{
    struct blk_node *n = blk_node_new(o->protocol ? o->protocol : &blk_file_driver, pool, o);
    int rc = n->driver->open(n, o, e);

    if (rc != 0) {
        node_close(n);
        return rc;
    }
    *out = n;
    return 0;
}

char *blk_relative(const char *image, const char *named)
{
    const char *slash = strrchr(image, '/');

    return named[0] == '/' || !slash ? xstrdup(named)
                                     : xasprintf("%.*s/%s", (int)(slash - image), image, named);
}

/* Lock before the first byte is read: what another process writes meanwhile would be read torn. */
static int lock_for_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct blk_claim *c = n->hold[BLK_FILE];

    if (o->unlocked) {
        return 0;
    }
    c->need = BLK_PERM_READ | (o->readonly ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE);
    c->share = BLK_PERM_READ;
    return claims_push(n->kid[BLK_FILE], e);
}

static int unknown_format(const struct blk_options *o, struct err *e)
{
    AUTO_BUF known = BUF_INIT;

    for (unsigned i = 0; i < ARRAY_LEN(drivers); i++) {
        buf_printf(&known, "%s%s", i ? ", " : "", drivers[i]->name);
    }
    return err_set(e, -ENOTSUP, "disk '%s': unknown image format '%s' (known: %s)", o->name,
                   o->driver ? o->driver : "", known.data);
}

/* Descriptors that were given stay the caller's when opening fails, those of the whole chain. */
static void release_given(struct blk_node *n, const struct blk_options *o)
{
    if (o->fd >= 0) {
        blk_file_release(n->kid[BLK_FILE]);
    }
    if (o->data && o->data->fd >= 0 && n->kid[BLK_DATA]) {
        blk_file_release(n->kid[BLK_DATA]);
    }
    if (o->backing && n->kid[BLK_BACKING]) {
        release_given(n->kid[BLK_BACKING], o->backing);
    }
}

/* The node and what stands below it, without an owner's claim. */
int blk_open_graph(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
                   struct err *e)
{
    const struct blk_driver *format = o->driver ? blk_driver_find(o->driver) : NULL;
    struct blk_node *n, *file = NULL;
    int rc;

    if (!format) {
        return unknown_format(o, e);
    }
    if (o->depth > BLK_MAX_DEPTH) {
        return err_set(e, -ELOOP, "%s: more than %d images in the backing chain, or a loop",
                       o->path, BLK_MAX_DEPTH);
    }
    rc = blk_open_file(pool, o, &file, e);
    if (rc != 0) {
        return rc;
    }
    n = blk_node_new(format, pool, o);
    blk_set_kid(n, BLK_FILE, file);
    rc = lock_for_open(n, o, e);
    if (rc == 0) {
        rc = format->open(n, o, e);
    }
    if (rc != 0) {
        release_given(n, o);
        node_close(n);
        return rc;
    }
    *out = n;
    return 0;
}

/* The locks of an image's file are given up, or (on) taken for reading again. */
static int locks_set(struct blk_node *n, bool on, struct err *e)
{
    struct blk_claim *c = n->hold[BLK_FILE];

    c->need = on ? BLK_PERM_READ : 0;
    c->share = BLK_PERM_READ | (on ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE);
    return claims_push(n->kid[BLK_FILE], e);
}

int blk_reopen_backing(struct blk_node *parent, int fd, struct err *e)
{
    struct blk_node *was = parent->kid[BLK_BACKING], *now, *under;
    struct blk_options o = { .name = was->name,
                             .path = was->path,
                             .driver = was->driver->name,
                             .fd = fd,
                             .no_backing = true };
    int rc;

    if (!was->readonly) {
        return 0;
    }
    if (was->kid[BLK_DATA]) {
        return err_set(e, -ENOTSUP, "disk '%s': %s has an external data file", was->name,
                       was->path);
    }
    blk_wait_idle(was);
    (void)locks_set(was, false, NULL);
    rc = blk_open_graph(parent->pool, &o, &now, e);
    if (rc != 0) {
        (void)locks_set(was, true, NULL);
        return rc;
    }
    under = was->kid[BLK_BACKING] ? blk_take_kid(was, BLK_BACKING) : NULL;
    if (under) {
        blk_set_kid(now, BLK_BACKING, under);
    }
    (void)blk_take_kid(parent, BLK_BACKING);
    blk_set_kid(parent, BLK_BACKING, now);
    rc = claims_push(parent, e);
    (void)node_close(was);
    return rc;
}

int blk_open(struct blk_pool *pool, const struct blk_options *o, struct blk_node **out,
             struct err *e)
{
    struct blk_node *n = NULL;
    unsigned need = BLK_PERM_READ | (o->readonly ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE);
    int rc = blk_open_graph(pool, o, &n, e);

    if (rc == 0 && !o->unlocked) {
        rc = blk_claim(n, "its user", need, BLK_PERM_READ, &n->owner, e);
        if (rc != 0) {
            release_given(n, o);
            node_close(n);
        }
    }
    if (rc == 0) {
        if (pool) {
            blk_pool_add(pool, n);
        }
        *out = n;
    }
    return rc;
}

int blk_claims_renew(struct blk_node *n, struct err *e)
{
    return claims_push(n, e);
}

int blk_own(struct blk_node *n, struct err *e)
{
    return blk_claim(n, "its user",
                     BLK_PERM_READ | (n->readonly ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE),
                     BLK_PERM_READ, &n->owner, e);
}

int blk_close_flush(struct blk_node *n, struct err *e)
{
    AUTO_FREE char *name = n ? xstrdup(n->name) : NULL;
    int rc = node_close(n);

    return rc == 0 ? 0 : err_errno(e, -rc, "disk '%s': closing", name);
}

void blk_close(struct blk_node *n)
{
    AUTO_FREE char *name = n ? xstrdup(n->name) : NULL;
    int rc = node_close(n);

    if (rc != 0) {
        log_error("storage", "disk '%s': closing: %s", name, strerror(-rc));
    }
}

struct blk_node *blk_find(struct blk_pool *pool, const char *name)
{
    static const char *const roles[BLK_ROLES] = { "file", "backing", "data" };
    size_t len = strcspn(name, "/");
    struct blk_node *n = blk_pool_top(pool, name, len);

    if (n && name[len]) { /* below the filter of a disk */
        n = blk_disk_image(n);
    }

    for (name += len; n && *name; name += len) {
        struct blk_node *next = NULL;

        name++;
        len = strcspn(name, "/");
        for (unsigned i = 0; i < BLK_ROLES; i++) {
            if (strlen(roles[i]) == len && strncmp(name, roles[i], len) == 0) {
                next = n->kid[i];
            }
        }
        n = next;
    }
    return n;
}
