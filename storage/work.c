/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads and a queue. `mutex` protects the lists; `done` is called on the loop.
 */
#include "storage/work.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define DEFAULT_THREADS 4

struct workers {
    struct loop *loop;
    struct workers_options options;
    pthread_mutex_t mutex;
    pthread_cond_t more; /* todo grew, or stop */
    struct list todo, done;
    bool stop, delivering;
    unsigned n_threads;
    pthread_t *threads;
    bool *freed; /* set when freed within a delivery */
};

static void deliver(void *arg)
{
    struct workers *ws = arg;
    bool freed = false;

    pthread_mutex_lock(&ws->mutex);
    ws->delivering = false;
    ws->freed = &freed;
    while (!list_empty(&ws->done)) {
        struct work *w = list_entry(ws->done.next, struct work, link);

        list_remove(&w->link);
        pthread_mutex_unlock(&ws->mutex);
        w->done(w);
        if (freed) {
            return;
        }
        pthread_mutex_lock(&ws->mutex);
    }
    ws->freed = NULL;
    pthread_mutex_unlock(&ws->mutex);
}

static void *worker(void *arg)
{
    struct workers *ws = arg;

    if (ws->options.thread_start) {
        ws->options.thread_start(ws->options.arg);
    }
    pthread_mutex_lock(&ws->mutex);
    for (;;) {
        while (list_empty(&ws->todo) && !ws->stop) {
            pthread_cond_wait(&ws->more, &ws->mutex);
        }
        if (list_empty(&ws->todo)) {
            break;
        }
        struct work *w = list_entry(ws->todo.next, struct work, link);

        list_remove(&w->link);
        pthread_mutex_unlock(&ws->mutex);
        w->run(w);
        pthread_mutex_lock(&ws->mutex);
        list_append(&ws->done, &w->link);
        if (!ws->delivering && !ws->stop) {
            ws->delivering = true;
            loop_post(ws->loop, deliver, ws);
        }
    }
    pthread_mutex_unlock(&ws->mutex);
    return NULL;
}

void workers_queue(struct workers *ws, struct work *w)
{
    pthread_mutex_lock(&ws->mutex);
    list_append(&ws->todo, &w->link);
    pthread_cond_signal(&ws->more);
    pthread_mutex_unlock(&ws->mutex);
}

/* Threads inherit the mask: signals are the main thread's business. */
static int start_threads(struct workers *ws, struct err *e)
{
    sigset_t all, was;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &was);
    for (; ws->n_threads < ws->options.threads && rc == 0; ws->n_threads += rc == 0) {
        rc = pthread_create(&ws->threads[ws->n_threads], NULL, worker, ws);
    }
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return rc == 0 ? 0 : err_errno(e, rc, "cannot start a thread for storage jobs");
}

int workers_new(struct loop *loop, const struct workers_options *o, struct workers **out,
                struct err *e)
{
    struct workers *ws = xnew(struct workers);
    int rc;

    ws->loop = loop;
    ws->options = *o;
    if (ws->options.threads == 0) {
        ws->options.threads = DEFAULT_THREADS;
    }
    pthread_mutex_init(&ws->mutex, NULL);
    pthread_cond_init(&ws->more, NULL);
    list_init(&ws->todo);
    list_init(&ws->done);
    ws->threads = xnew_n(pthread_t, ws->options.threads);
    rc = start_threads(ws, e);
    if (rc != 0) {
        workers_free(ws);
        return rc;
    }
    *out = ws;
    return 0;
}

void workers_free(struct workers *ws)
{
    if (!ws) {
        return;
    }
    pthread_mutex_lock(&ws->mutex);
    ws->stop = true;
    pthread_cond_broadcast(&ws->more);
    pthread_mutex_unlock(&ws->mutex);
    for (unsigned i = 0; i < ws->n_threads; i++) {
        pthread_join(ws->threads[i], NULL);
    }
    if (ws->freed) {
        *ws->freed = true;
    }
    free(ws->threads);
    pthread_cond_destroy(&ws->more);
    pthread_mutex_destroy(&ws->mutex);
    free(ws);
}
