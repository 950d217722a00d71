/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread pool that does blocking file I/O for the block nodes of one loop. `mutex` protects
 * both lists and the counters; completions are delivered in batches on the loop.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#define DEFAULT_THREADS 4

struct blk_pool {
    struct loop *loop;
    struct blk_pool_options options;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* todo grew, or stop */
    pthread_cond_t idle; /* a request left `running` */
    struct list todo, running, done;
    bool stop, delivering; /* a delivery is posted */
    unsigned n_threads;
    pthread_t *threads;
};

static void pool_deliver(void *arg);

/* Mutex held. */
static void pool_finish_locked(struct blk_pool *p, struct blk_req *r, int result)
{
    r->result = result;
    list_remove(&r->link);
    list_append(&p->done, &r->link);
    pthread_cond_broadcast(&p->idle);
    if (!p->delivering) {
        p->delivering = true;
        loop_post(p->loop, pool_deliver, p);
    }
}

static void pool_deliver(void *arg)
{
    struct blk_pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    p->delivering = false;
    while (!list_empty(&p->done)) {
        struct blk_req *r = list_entry(p->done.next, struct blk_req, link);

        list_remove(&r->link);
        pthread_mutex_unlock(&p->mutex);
        r->done(r, r->result);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
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
        list_append(&p->running, &r->link);
        pthread_mutex_unlock(&p->mutex);
        rc = blk_file_run(r->node, r);
        blk_account(r->node, r, rc);
        pthread_mutex_lock(&p->mutex);
        pool_finish_locked(p, r, rc);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

void blk_pool_submit(struct blk_pool *p, struct blk_node *n, struct blk_req *r)
{
    pthread_mutex_lock(&p->mutex);
    r->node = n;
    list_append(&p->todo, &r->link);
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

void blk_pool_complete(struct blk_pool *p, struct blk_node *n, struct blk_req *r, int result)
{
    pthread_mutex_lock(&p->mutex);
    r->node = n;
    list_init(&r->link);
    pool_finish_locked(p, r, result);
    pthread_mutex_unlock(&p->mutex);
}

static bool list_has(const struct list *l, const struct blk_node *n)
{
    list_for_each (it, l) {
        if (list_entry(it, struct blk_req, link)->node == n) {
            return true;
        }
    }
    return false;
}

void blk_pool_wait_idle(struct blk_pool *p, struct blk_node *n)
{
    pthread_mutex_lock(&p->mutex);
    while (list_has(&p->todo, n) || list_has(&p->running, n)) {
        pthread_cond_wait(&p->idle, &p->mutex);
    }
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
    list_init(&p->running);
    list_init(&p->done);
    p->threads = xnew_n(pthread_t, p->options.threads);
    rc = pool_start_threads(p, e);
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
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_threads; i++) {
        pthread_join(p->threads[i], NULL);
    }
    free(p->threads);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
