/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O threads (lane.h). A thread sleeps at the eventfd of its ring, which says that something completed there, or that it was given
 * something. `staged` is under the pool's mutex; the ring is the thread's alone, but for its table of files.
 */
#include "storage/lane.h"

#include "engine/base/mem.h"
#include "storage/driver.h"
#include "storage/uring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

struct lane {
    struct blk_pool *pool;
    void (*thread_start)(void *arg);
    void *arg;
    struct uring *ring;
    pthread_t thread;
    struct list staged; /* struct blk_req.link; result: its slot */
    bool awake;         /* looks at `staged` again before it sleeps */
    bool stop, started;
};

static void wake(struct lane *l)
{
    const uint64_t one = 1;

    (void)!write(uring_event(l->ring), &one, sizeof(one));
}

/* Mutex held: what was given goes into the ring. */
static void stage_locked(struct lane *l)
{
    while (!list_empty(&l->staged)) {
        struct blk_req *r = list_entry(l->staged.next, struct blk_req, link);

        list_remove(&r->link);
        if (uring_queue(l->ring, r, r->result) != 0) {
            blk_pool_queue_locked(l->pool, r);
        }
    }
}

/* Mutex held. False: nothing was through. */
static bool reap_locked(struct lane *l)
{
    struct blk_req *r;
    bool any = false;
    int result;

    while (uring_reap(l->ring, &r, &result)) {
        blk_pool_ring_done_locked(l->pool, r, result);
        any = true;
    }
    return any;
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;
    struct pollfd p = { .fd = uring_event(l->ring), .events = POLLIN };
    bool behind = false; /* the kernel has not taken all that is in the ring */

    if (l->thread_start) {
        l->thread_start(l->arg);
    }
    blk_pool_lock(l->pool);
    while (!l->stop) {
        bool given = behind || !list_empty(&l->staged);

        l->awake = true;
        stage_locked(l);
        if (given) {
            blk_pool_unlock(l->pool);
            behind = !uring_submit(
                l->ring); /* copies what is in the page cache, beside others */
            blk_pool_lock(l->pool);
        }
        if (reap_locked(l) || !list_empty(&l->staged) || l->stop) {
            continue;
        }
        l->awake = false;
        blk_pool_unlock(l->pool);
        if (poll(&p, 1, behind ? URING_AGAIN_NS / 1000000 : -1) > 0) {
            uring_clear(l->ring);
        }
        blk_pool_lock(l->pool);
    }
    blk_pool_unlock(l->pool);
    return NULL;
}

void lane_give_locked(struct lane *l, struct blk_req *r)
{
    list_append(&l->staged, &r->link);
    if (!l->awake) {
        l->awake = true;
        wake(l);
    }
}

bool lane_take_back_locked(struct lane *l, struct blk_req *r)
{
    list_for_each (it, &l->staged) {
        if (it == &r->link) {
            list_remove(&r->link);
            return true;
        }
    }
    return false;
}

int lane_register(struct lane *l, int fd)
{
    return uring_register(l->ring, fd);
}

void lane_unregister(struct lane *l, int slot)
{
    uring_unregister(l->ring, slot);
}

int lane_new(struct blk_pool *pool, const struct blk_pool_options *options, struct lane **out,
             struct err *e)
{
    struct lane *l = xnew(struct lane);
    sigset_t all, was;
    int rc;

    *out = NULL;
    l->pool = pool;
    l->thread_start = options->thread_start;
    l->arg = options->arg;
    list_init(&l->staged);
    l->ring = uring_new();
    if (!l->ring) {
        free(l);
        return 0;
    }
    sigfillset(&all); /* signals are the main thread's business */
    pthread_sigmask(SIG_BLOCK, &all, &was);
    rc = pthread_create(&l->thread, NULL, lane_main, l);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    l->started = rc == 0;
    if (rc != 0) {
        lane_free(l);
        return err_errno(e, rc, "cannot start an I/O thread");
    }
    *out = l;
    return 0;
}

void lane_free(struct lane *l)
{
    if (!l) {
        return;
    }
    if (l->started) {
        blk_pool_lock(l->pool);
        l->stop = true;
        blk_pool_unlock(l->pool);
        wake(l);
        pthread_join(l->thread, NULL);
    }
    uring_free(l->ring);
    free(l);
}
