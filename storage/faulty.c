/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for a node's own driver, under its name, once there were rules, and hands on what no rule hits. Owns the rules.
 * Rules change on the loop; requests come on any thread, and those under way when the first rule comes stay with the
 * node's own driver.
 */
#include "storage/faulty.h"

#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <string.h>
#include <time.h>

struct blk_faults {
    struct blk_driver driver;     /* what the node has meanwhile; first: see blk_own_driver() */
    pthread_mutex_t mutex;        /* guards `rule` */
    pthread_cond_t never;         /* what a delay waits for */
    const struct blk_driver *own; /* of the node */
    struct blk_fault rule[BLK_FAULTS_MAX];
    unsigned n, last_id;
};

static bool fits(const struct blk_fault *f, const struct blk_req *r)
{
    uint64_t end = r->at + r->length;

    if (f->ops && !(f->ops & 1u << r->op)) {
        return false;
    }
    return f->length == 0 || r->op == BLK_FLUSH ||
           (r->at < f->offset + f->length && end > f->offset);
}

/* What is to be done to r; counts it. */
static bool choose(struct blk_faults *x, const struct blk_req *r, struct blk_fault *out)
{
    bool found = false;

    pthread_mutex_lock(&x->mutex);
    for (unsigned i = 0; i < x->n && !found; i++) {
        struct blk_fault *f = &x->rule[i];

        if (!fits(f, r)) {
            continue;
        }
        found = f->seen >= f->skip && (f->count == 0 || f->hits < f->count);
        f->seen++;
        f->hits += found;
        *out = *f;
    }
    pthread_mutex_unlock(&x->mutex);
    return found;
}

static void wait_ns(struct blk_faults *x, uint64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec += (long)(ns % 1000000000);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&x->mutex);
    while (pthread_cond_timedwait(&x->never, &x->mutex, &until) == 0) {
    }
    pthread_mutex_unlock(&x->mutex);
}

/* The first bytes of r. */
static int run_part(struct blk_faults *x, struct blk_node *n, const struct blk_req *r,
                    uint64_t bytes)
{
    AUTO_FREE struct iovec *iov = xnew_n(struct iovec, r->n_iov + 1);
    struct blk_req part = *r;

    part.length = bytes < r->length ? bytes : r->length;
    part.iov = iov;
    part.n_iov = blk_iov_slice(r->iov, r->n_iov, 0, part.length, iov);
    return part.length ? x->own->run(n, &part) : 0;
}

static void clear_behind(const struct blk_req *r, uint64_t bytes)
{
    AUTO_FREE struct iovec *iov = xnew_n(struct iovec, r->n_iov + 1);
    unsigned n = bytes < r->length
                     ? blk_iov_slice(r->iov, r->n_iov, bytes, r->length - bytes, iov)
                     : 0;

    for (unsigned i = 0; i < n; i++) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
}

static int run_hit(struct blk_faults *x, const struct blk_fault *f, struct blk_node *n,
                   struct blk_req *r)
{
    uint64_t bytes = f->bytes ? f->bytes : r->length / 2 / BLK_SECTOR * BLK_SECTOR;
    bool ranged = r->op != BLK_FLUSH;
    int rc;

    switch (f->action) {
    case BLK_FAULT_FAIL:
        return f->error;
    case BLK_FAULT_DELAY:
        wait_ns(x, f->delay_ns);
        return x->own->run(n, r);
    case BLK_FAULT_TEAR:
        rc = ranged && r->op != BLK_READ ? run_part(x, n, r, bytes) : 0;
        return rc ? rc : f->error;
    case BLK_FAULT_SHORTEN:
        if (r->op == BLK_READ) {
            rc = x->own->run(n, r);
            clear_behind(r, bytes);
            return rc;
        }
        return ranged ? run_part(x, n, r, bytes) : 0;
    }
    return -EINVAL;
}

static int faulty_run(struct blk_node *n, struct blk_req *r)
{
    struct blk_faults *x = n->faults;
    struct blk_fault f;
    bool passed = r->passed == n;

    r->passed = NULL;
    return !passed && choose(x, r, &f) ? run_hit(x, &f, n, r) : x->own->run(n, r);
}

/* What a rule may hit goes to a thread, which looks at it; the rest goes the way it always does. */
static void faulty_submit(struct blk_node *n, struct blk_req *r)
{
    struct blk_faults *x = n->faults;
    bool may = false;

    pthread_mutex_lock(&x->mutex);
    for (unsigned i = 0; i < x->n; i++) {
        may |= fits(&x->rule[i], r);
    }
    pthread_mutex_unlock(&x->mutex);
    if (may || !x->own->submit) {
        blk_pool_submit(n->pool, r);
    } else {
        r->passed = n;
        x->own->submit(n, r);
    }
}

/* --- rules --- */

static void put_over(struct blk_node *n)
{
    struct blk_faults *x = xnew(struct blk_faults);

    pthread_mutex_init(&x->mutex, NULL);
    pthread_cond_init(&x->never, NULL);
    x->own = n->driver;
    x->driver = *n->driver;
    x->driver.run = faulty_run;
    x->driver.submit = faulty_submit;
    n->faults = x;
    __atomic_store_n(&n->driver, &x->driver, __ATOMIC_RELEASE); /* threads look at it */
}

const struct blk_driver *blk_own_driver(const struct blk_node *n)
{
    const struct blk_driver *d = n->driver;

    return d->run == faulty_run ? ((const struct blk_faults *)d)->own : d;
}

void blk_faults_done(struct blk_node *n)
{
    struct blk_faults *x = n->faults;

    if (x) {
        n->driver = x->own;
        n->faults = NULL;
        pthread_cond_destroy(&x->never);
        pthread_mutex_destroy(&x->mutex);
        free(x);
    }
}

static int check(const struct blk_node *n, const struct blk_fault *f, struct err *e)
{
    const char *bad = f->action == BLK_FAULT_DELAY && f->delay_ns > BLK_FAULT_DELAY_MAX
                          ? "a delay is at most 10 s"
                      : (f->action == BLK_FAULT_FAIL || f->action == BLK_FAULT_TEAR) &&
                              (f->error >= 0 || f->error < -4095)
                          ? "its error is none"
                      : f->offset + f->length < f->offset ? "its range has no end"
                                                          : NULL;

    return bad ? err_set(e, -EINVAL, "disk '%s': a fault is refused: %s", n->name, bad) : 0;
}

int blk_fault_add(struct blk_node *n, const struct blk_fault *f, unsigned *id, struct err *e)
{
    int rc = check(n, f, e);

    if (rc != 0) {
        return rc;
    }
    if (n->faults && n->faults->n == BLK_FAULTS_MAX) {
        return err_set(e, -EOVERFLOW, "disk '%s' has %d faults already; remove some", n->name,
                       BLK_FAULTS_MAX);
    }
    if (!n->faults) {
        put_over(n);
    }
    pthread_mutex_lock(&n->faults->mutex);
    struct blk_fault *to = &n->faults->rule[n->faults->n++];

    *to = *f;
    to->id = ++n->faults->last_id;
    to->seen = to->hits = 0;
    *id = to->id;
    pthread_mutex_unlock(&n->faults->mutex);
    return 0;
}

int blk_fault_remove(struct blk_node *n, unsigned id, struct err *e)
{
    struct blk_faults *x = n->faults;
    unsigned left = 0, before = x ? x->n : 0;

    if (x) {
        pthread_mutex_lock(&x->mutex);
        for (unsigned i = 0; i < x->n; i++) {
            if (id != 0 && x->rule[i].id != id) {
                x->rule[left++] = x->rule[i];
            }
        }
        x->n = left;
        pthread_mutex_unlock(&x->mutex);
    }
    return id != 0 && left == before
               ? err_set(e, -ENOENT, "disk '%s' has no fault %u", n->name, id)
               : 0;
}

size_t blk_fault_list(const struct blk_node *n, struct blk_fault *out, size_t most)
{
    struct blk_faults *x = n->faults;
    size_t count = 0;

    if (x) {
        pthread_mutex_lock(&x->mutex);
        count = x->n;
        memcpy(out, x->rule, (count < most ? count : most) * sizeof(*out));
        pthread_mutex_unlock(&x->mutex);
    }
    return count;
}
