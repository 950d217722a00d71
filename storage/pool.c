/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous I/O for the block nodes of one loop: threads for what blocks, a ring (uring.c) for
 * plain reads and writes where the kernel has one. `mutex` protects the lists, the ring and the
 * waiting for idle nodes; completions are delivered in batches on the loop.
 *
 * What is meant for the ring is staged and goes there at the end of the loop's turn, in one call; most of it is
 * through by then and is delivered at once. Somebody who waits meanwhile leaves it to the threads, since he may be one
 * that the loop waits for.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/driver.h"
#include "storage/lane.h"
#include "storage/uring.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define DEFAULT_THREADS 4
#define LOOK_NS 1000000 /* how long a thread that waits goes without looking at the ring */

struct blk_pool {
    struct loop *loop;
    struct blk_pool_options options;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* todo grew, or stop */
    pthread_cond_t idle; /* a node may have become idle */
    struct list todo, done;
    struct list staged;       /* for the ring; result: its slot */
    struct loop_task kick;    /* loop thread */
    struct loop_timer *again; /* loop thread: the ring has not taken all of it */
    bool kicking;             /* loop thread: what done() submits waits for the next turn */
    bool direct;              /* who reaps delivers, too */
    struct list nodes;        /* struct blk_node.in_pool; loop thread */
    struct list groups;       /* of limits, throttle.c; loop thread */
    bool stop, delivering;    /* a delivery is posted */
    bool confined;
    unsigned n_threads;
    pthread_t *threads;
    struct uring *ring; /* NULL: none */
    struct loop_fd *ring_watch;
    struct lane *lane
        [BLK_IO_THREADS_MAX]; /* in place of the loop, for reads and writes of registered files */
    unsigned n_lanes;
};

static void pool_deliver(void *arg);

/* Mutex held. */
static void pool_queue_locked(struct blk_pool *p, struct blk_req *r)
{
    list_append(&p->todo, &r->link);
    pthread_cond_signal(&p->work);
}

/* Mutex held. */
static void pool_hand_over_locked(struct blk_pool *p, struct blk_req *r)
{
    list_append(&p->done, &r->link);
    if (!p->delivering && !p->direct) {
        p->delivering = true;
        loop_post(p->loop, pool_deliver, p);
    }
}

/* Mutex held. */
static void pool_finish_locked(struct blk_pool *p, struct blk_req *r, int result)
{
    if (r->from && r->from->driver->settled) {
        r->from->driver->settled(r->from, r);
    }
    if (r->node->driver->kind == BLK_FILTER && r->node->driver->settled) {
        r->node->driver->settled(r->node, r);
    }
    blk_changed(r);
    if (result == 0 && blk_must_flush(r) && !(r->flags & BLK_FLUSHED)) {
        r->flags |= BLK_FLUSHED;
        r->via = r->node;
        r->from = NULL;
        pool_queue_locked(p, r);
        return;
    }
    blk_account(r->node, r, result);
    r->result = result;
    if (atomic_fetch_sub(&r->node->in_flight, 1) == 1) {
        pthread_cond_broadcast(&p->idle);
    }
    pool_hand_over_locked(p, r);
}

static void pool_deliver(void *arg)
{
    struct blk_pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    p->delivering = false;
    while (!list_empty(&p->done)) {
        struct blk_req *r = list_entry(p->done.next, struct blk_req, link);

        struct blk_node *n = r->node;
        enum blk_on_error did = BLK_ON_REPORT;
        enum blk_op op = r->op;
        int error = r->result;

        list_remove(&r->link);
        bool judged = error != 0 && n->policy && blk_gate_judge(r, &did);
        pthread_mutex_unlock(&p->mutex);
        if (judged) { /* of what is kept nothing but this is known any more */
            blk_gate_tell(n, op, error, did);
        }
        if (!judged || did != BLK_ON_STOP) {
            r->done(r, r->result);
        }
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
}

static int pool_run(struct blk_req *r)
{
    struct blk_req flush = { .op = BLK_FLUSH, .node = r->node, .via = r->node };

    return r->flags & BLK_FLUSHED ? r->node->driver->run(r->node, &flush)
                                  : r->via->driver->run(r->via, r);
}

static void *pool_thread(void *arg)
{
    struct blk_pool *p = arg;

    if (p->options.thread_start) {
        p->options.thread_start(p->options.arg);
    }
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (list_empty(&p->todo) && !p->stop) {
            pthread_cond_wait(&p->work, &p->mutex);
        }
        if (list_empty(&p->todo)) {
            break;
        }
        struct blk_req *r = list_entry(p->todo.next, struct blk_req, link);
        int rc;

        list_remove(&r->link);
        pthread_mutex_unlock(&p->mutex);
        rc = pool_run(r);
        pthread_mutex_lock(&p->mutex);
        pool_finish_locked(p, r, rc);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

void blk_pool_submit(struct blk_pool *p, struct blk_req *r)
{
    pthread_mutex_lock(&p->mutex);
    pool_queue_locked(p, r);
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_complete(struct blk_pool *p, struct blk_req *r, int result)
{
    pthread_mutex_lock(&p->mutex);
    pool_finish_locked(p, r, result);
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_lock(struct blk_pool *p)
{
    pthread_mutex_lock(&p->mutex);
}

void blk_pool_unlock(struct blk_pool *p)
{
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_return_locked(struct blk_pool *p, struct blk_req *r, int result)
{
    r->result = result;
    pool_hand_over_locked(p, r);
}

bool blk_pool_cancel(struct blk_pool *p, struct blk_req *r)
{
    bool found = false;

    pthread_mutex_lock(&p->mutex);
    list_for_each (it, &p->todo) {
        found |= it == &r->link && !(r->flags & BLK_FLUSHED);
    }
    list_for_each (it, &p->staged) {
        found |= it == &r->link;
    }
    if (found) {
        list_remove(&r->link);
    }
    for (unsigned i = 0; i < p->n_lanes && !found; i++) {
        found = lane_take_back_locked(p->lane[i], r);
    }
    if (found) {
        pool_finish_locked(p, r, -ECANCELED);
    }
    pthread_mutex_unlock(&p->mutex);
    return found;
}

/* --- the ring --- */

/* What the ring could not do whole (a short transfer, memory pressure, an odd file
 * system) a thread does again from the start: both directions give the same when repeated. */
void blk_pool_ring_done_locked(struct blk_pool *p, struct blk_req *r, int result)
{
    if (result >= 0 && (uint64_t)result == r->length) {
        pool_finish_locked(p, r, 0);
    } else if (result >= 0 || result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP ||
               result == -EINVAL) {
        pool_queue_locked(p, r);
    } else {
        pool_finish_locked(p, r, result);
    }
}

void blk_pool_queue_locked(struct blk_pool *p, struct blk_req *r)
{
    pool_queue_locked(p, r);
}

/* Mutex held. */
static void ring_reap_locked(struct blk_pool *p)
{
    struct blk_req *r;
    int result;

    while (p->ring && uring_reap(p->ring, &r, &result)) {
        blk_pool_ring_done_locked(p, r, result);
    }
}

static void on_ring(void *arg, int fd, unsigned events)
{
    struct blk_pool *p = arg;

    (void)fd;
    (void)events;
    pthread_mutex_lock(&p->mutex);
    uring_clear(p->ring);
    p->direct = true;
    ring_reap_locked(p);
    p->direct = false;
    pthread_mutex_unlock(&p->mutex);
    pool_deliver(p);
}

/* The end of a turn: what is staged goes to the ring, and what is through is delivered. */
static void pool_kick(void *arg)
{
    struct blk_pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    while (!list_empty(&p->staged)) {
        struct blk_req *r = list_entry(p->staged.next, struct blk_req, link);

        list_remove(&r->link);
        if (uring_queue(p->ring, r, r->result) != 0) {
            pool_queue_locked(p, r);
        }
    }
    if (!uring_submit(p->ring)) {
        loop_timer_arm(p->again, URING_AGAIN_NS);
    }
    p->direct = true;
    ring_reap_locked(p);
    p->direct = false;
    pthread_mutex_unlock(&p->mutex);
    p->kicking = true;
    pool_deliver(p);
    p->kicking = false;
}

/* The one that the node was given to; else that of the guest's queue, so that a queue's requests stay together. */
static struct lane *lane_of(struct blk_pool *p, const struct blk_req *r)
{
    unsigned asked = r->node->io_thread;

    return p->lane[asked && asked <= p->n_lanes ? asked - 1
                                                : (r->node->io_first + r->queue) % p->n_lanes];
}

void blk_pool_submit_fd(struct blk_pool *p, struct blk_req *r, int slot)
{
    bool first;

    if (!p->ring) {
        blk_pool_submit(p, r);
        return;
    }
    pthread_mutex_lock(&p->mutex);
    r->result = slot;
    if (p->n_lanes) {
        lane_give_locked(lane_of(p, r), r);
        pthread_mutex_unlock(&p->mutex);
        return;
    }
    first = list_empty(&p->staged);
    list_append(&p->staged, &r->link);
    pthread_mutex_unlock(&p->mutex);
    if (first && p->kicking) {
        loop_post(p->loop, pool_kick, p); /* others get their turn in between */
    } else if (first) {
        loop_task_queue(p->loop, &p->kick);
    }
}

/* Mutex held. */
static void staged_to_threads(struct blk_pool *p)
{
    while (!list_empty(&p->staged)) {
        struct blk_req *r = list_entry(p->staged.next, struct blk_req, link);

        list_remove(&r->link);
        pool_queue_locked(p, r);
    }
}

int blk_pool_register(struct blk_pool *p, int fd)
{
    int slot = p->ring ? uring_register(p->ring, fd) : -1;

    for (unsigned i = 0; i < p->n_lanes && slot >= 0; i++) {
        if (lane_register(p->lane[i], fd) !=
            slot) { /* one of them is full, or the kernel is: threads do it */
            while (i-- > 0) {
                lane_unregister(p->lane[i], slot);
            }
            uring_unregister(p->ring, slot);
            return -1;
        }
    }
    return slot;
}

void blk_pool_unregister(struct blk_pool *p, int slot)
{
    if (p->ring && slot >= 0) {
        uring_unregister(p->ring, slot);
        for (unsigned i = 0; i < p->n_lanes; i++) {
            lane_unregister(p->lane[i], slot);
        }
    }
}

/* --- waiting --- */

void blk_pool_wait_idle(struct blk_pool *p, struct blk_node *n)
{
    pthread_mutex_lock(&p->mutex);
    while (atomic_load(&n->in_flight) != 0) {
        struct timespec until;

        staged_to_threads(p);
        if (p->ring) { /* what it has not taken before */
            (void)uring_submit(p->ring);
        }
        ring_reap_locked(p);
        if (atomic_load(&n->in_flight) == 0) {
            break;
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&p->idle, &p->mutex, &until);
    }
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_wake(struct blk_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->idle);
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_forget(struct blk_pool *p, struct blk_node *n)
{
    pthread_mutex_lock(&p->mutex);
    list_for_each_safe (it, &p->done) {
        if (list_entry(it, struct blk_req, link)->node == n) {
            list_remove(it);
        }
    }
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_report_locked(struct blk_pool *p, struct blk_node *n)
{
    list_for_each (it, &p->done) {
        struct blk_req *r = list_entry(it, struct blk_req, link);

        r->flags |= r->node == n ? BLK_REPORT : 0;
    }
}

void blk_pool_add(struct blk_pool *p, struct blk_node *n)
{
    list_append(&p->nodes, &n->in_pool);
}

struct blk_node *blk_pool_top(struct blk_pool *p, const char *name, size_t len)
{
    list_for_each (it, &p->nodes) {
        struct blk_node *n = list_entry(it, struct blk_node, in_pool);

        if (strlen(n->name) == len && memcmp(n->name, name, len) == 0) {
            return n;
        }
    }
    return NULL;
}

/* --- life --- */

/* Threads inherit the mask: signals are the main thread's business. */
static int pool_start_threads(struct blk_pool *p, struct err *e)
{
    sigset_t all, was;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &was);
    for (; p->n_threads < p->options.threads && rc == 0; p->n_threads += rc == 0) {
        rc = pthread_create(&p->threads[p->n_threads], NULL, pool_thread, p);
    }
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return rc == 0 ? 0 : err_errno(e, rc, "cannot start an I/O thread");
}

/* As many as were asked for, or as the kernel has rings for: none, and the loop does it all. */
static int pool_start_lanes(struct blk_pool *p, struct err *e)
{
    int rc = 0;

    while (p->ring && rc == 0 && p->n_lanes < p->options.io_threads &&
           p->n_lanes < BLK_IO_THREADS_MAX) {
        rc = lane_new(p, &p->options, &p->lane[p->n_lanes], e);
        if (!p->lane[p->n_lanes]) {
            break;
        }
        p->n_lanes++;
    }
    return rc;
}

int blk_pool_new(struct loop *loop, const struct blk_pool_options *o, struct blk_pool **out,
                 struct err *e)
{
    struct blk_pool *p = xnew(struct blk_pool);
    int rc;

    p->loop = loop;
    p->options = *o;
    if (p->options.threads == 0) {
        p->options.threads = DEFAULT_THREADS;
    }
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->idle, NULL);
    list_init(&p->todo);
    list_init(&p->done);
    list_init(&p->staged);
    list_init(&p->nodes);
    list_init(&p->groups);
    loop_task_init(&p->kick, pool_kick, p);
    p->threads = xnew_n(pthread_t, p->options.threads);
    p->ring = o->no_uring ? NULL : uring_new();
    if (p->ring) {
        p->again = loop_timer_new(loop, pool_kick, p);
        p->ring_watch = loop_fd_new(loop, uring_event(p->ring), LOOP_READ, on_ring, p);
    }
    rc = pool_start_threads(p, e);
    rc = rc == 0 ? pool_start_lanes(p, e) : rc;
    if (rc != 0) {
        blk_pool_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void blk_pool_free(struct blk_pool *p)
{
    if (!p) {
        return;
    }
    while (p->n_lanes > 0) {
        lane_free(p->lane[--p->n_lanes]);
    }
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_threads; i++) {
        pthread_join(p->threads[i], NULL);
    }
    loop_task_cancel(&p->kick);
    loop_timer_free(p->again);
    if (p->ring_watch) {
        loop_fd_free(p->ring_watch);
    }
    uring_free(p->ring);
    free(p->threads);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

void blk_pool_confine(struct blk_pool *p)
{
    if (p) {
        p->confined = true;
    }
}

bool blk_pool_confined(const struct blk_pool *p)
{
    return p && p->confined;
}

struct list *blk_pool_groups(struct blk_pool *p)
{
    return &p->groups;
}

struct loop *blk_pool_loop(const struct blk_pool *p)
{
    return p->loop;
}

unsigned blk_pool_io_threads(const struct blk_pool *p)
{
    return p ? p->n_lanes : 0;
}

bool blk_pool_has_clock(const struct blk_pool *p)
{
    return p->options.clock != NULL;
}

int64_t blk_pool_now(const struct blk_pool *p)
{
    struct timespec t;

    if (p->options.clock) {
        return p->options.clock();
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
