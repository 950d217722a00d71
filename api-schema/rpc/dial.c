/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocking caller: an asynchronous client on a loop of its own that runs while it waits. Owns
 * both, and the notifications nobody has asked for yet. One thread.
 */
#include "api-schema/rpc/client.h"

#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { NOTES_MAX = 1024 };

static const int64_t flag_poll_ns = 100 * INT64_C(1000000);
static const int64_t queue_full_ns = 20 * INT64_C(1000000);

struct note {
    struct list node;
    char *method;
    struct json_object *params;
};

struct rpc_dial {
    struct loop *loop;
    struct rpc_client *client;
    struct json_object *hello;
    struct list notes;
    unsigned n_notes;
    bool ended;
    struct err why;
    const volatile sig_atomic_t *flag; /* NULL: nothing interrupts */
};

struct answer {
    bool there;
    int rc;
    struct json_object *result;
    struct api_error *x;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void note_free(struct rpc_dial *d, struct note *n)
{
    list_remove(&n->node);
    d->n_notes--;
    free(n->method);
    json_object_put(n->params);
    free(n);
}

static void on_notify(void *arg, const char *method, struct json_object *params)
{
    struct rpc_dial *d = arg;
    struct note *n;

    if (strcmp(method, "hello") == 0 && !d->hello) {
        d->hello = params ? json_object_get(params) : json_object_new_object();
        return;
    }
    if (d->n_notes == NOTES_MAX) {
        note_free(d, list_entry(d->notes.next, struct note, node));
    }
    n = xnew(struct note);
    n->method = xstrdup(method);
    n->params = json_object_get(params);
    list_append(&d->notes, &n->node);
    d->n_notes++;
}

static void on_closed(void *arg, const struct err *why)
{
    struct rpc_dial *d = arg;

    d->ended = true;
    d->why = *why;
}

static const struct rpc_client_ops ops = { .notify = on_notify, .closed = on_closed };

static bool interrupted(const struct rpc_dial *d)
{
    return d->flag && *d->flag;
}

/* One turn of the loop. False when the deadline (-1: none) passed, a flag was raised, or the loop
 * failed. */
static bool turn(struct rpc_dial *d, int64_t deadline_ns)
{
    int64_t left = deadline_ns < 0 ? -1 : deadline_ns - now_ns();

    if (interrupted(d) || (deadline_ns >= 0 && left <= 0)) {
        return false;
    }
    if (d->flag && (left < 0 || left > flag_poll_ns)) {
        left = flag_poll_ns;
    }
    return loop_run_once(d->loop, left, NULL) == 0;
}

void rpc_dial_watch(struct rpc_dial *d, const volatile sig_atomic_t *flag)
{
    d->flag = flag;
}

static int64_t deadline_after(int timeout_ms)
{
    return timeout_ms < 0 ? -1 : now_ns() + timeout_ms * INT64_C(1000000);
}

/* A server whose queue of connections is full for the moment is tried again. */
static int connect_dial(struct rpc_dial *d, const char *path, int64_t deadline, struct err *e)
{
    for (;;) {
        struct err why = ERR_INIT;

        d->client = rpc_client_connect(d->loop, path, "vmd", &ops, d, &why);
        if (d->client) {
            return 0;
        }
        if (why.code != -EAGAIN || (deadline >= 0 && now_ns() > deadline)) {
            return err_set(e, why.code, "%s", why.msg);
        }
        loop_run_once(d->loop, queue_full_ns, NULL);
    }
}

static struct rpc_dial *await_hello(struct rpc_dial *d, const char *path, int64_t deadline,
                                    struct err *e)
{
    while (!d->hello && !d->ended) {
        if (!turn(d, deadline)) {
            err_set(e, -ETIMEDOUT, "vmd at %s accepts connections but does not greet", path);
            rpc_dial_close(d);
            return NULL;
        }
    }
    if (!d->hello) {
        err_set(e, d->why.code ? d->why.code : -ECONNRESET,
                "vmd at %s refused the connection: %s", path,
                d->why.msg[0] ? d->why.msg : "it closed it");
        rpc_dial_close(d);
        return NULL;
    }
    return d;
}

struct rpc_dial *rpc_dial_open(const char *path, int timeout_ms, struct err *e)
{
    struct rpc_dial *d = xnew(struct rpc_dial);
    int64_t deadline = deadline_after(timeout_ms);

    list_init(&d->notes);
    d->loop = loop_new(e);
    if (!d->loop || connect_dial(d, path, deadline, e) < 0) {
        rpc_dial_close(d);
        return NULL;
    }
    return await_hello(d, path, deadline, e);
}

struct rpc_dial *rpc_dial_open_fd(int owned_fd, const char *where, int timeout_ms,
                                  struct err *e)
{
    AUTO_FD fd = owned_fd;
    struct rpc_dial *d = xnew(struct rpc_dial);

    list_init(&d->notes);
    d->loop = loop_new(e);
    d->client = d->loop ? rpc_client_new(d->loop, take_fd(&fd), "vmd", &ops, d, e) : NULL;
    if (!d->client) {
        rpc_dial_close(d);
        return NULL;
    }
    return await_hello(d, where, deadline_after(timeout_ms), e);
}

void rpc_dial_close(struct rpc_dial *d)
{
    if (!d) {
        return;
    }
    rpc_client_free(d->client);
    list_for_each_safe (it, &d->notes) {
        note_free(d, list_entry(it, struct note, node));
    }
    json_object_put(d->hello);
    loop_free(d->loop);
    free(d);
}

struct json_object *rpc_dial_hello(const struct rpc_dial *d)
{
    return d->hello;
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct answer *a = arg;

    a->there = true;
    if (x) {
        a->rc = -1;
        if (a->x) {
            *a->x = *x;
        }
    } else {
        a->result = json_object_get(result);
    }
}

int rpc_dial_call(struct rpc_dial *d, const char *method, struct json_object *take_params,
                  int timeout_ms, struct json_object **result, struct api_error *x)
{
    struct answer a = { .x = x };
    int64_t wait = timeout_ms < 0 ? 0 : timeout_ms ? timeout_ms * INT64_C(1000000) : 1;
    uint64_t id = rpc_client_call(d->client, method, take_params, wait, on_answer, &a);

    while (!a.there) {
        if (!turn(d, -1)) {
            rpc_client_cancel(d->client, id);
            return api_error_set(x, API_E_CANCELLED, NULL, NULL, "%s: interrupted", method);
        }
    }
    if (a.rc == 0) {
        if (result) {
            *result = a.result;
        } else {
            json_object_put(a.result);
        }
    }
    return a.rc;
}

int rpc_dial_next(struct rpc_dial *d, int timeout_ms, char **method,
                  struct json_object **params, struct api_error *x)
{
    int64_t deadline = deadline_after(timeout_ms);
    struct note *n;

    while (list_empty(&d->notes)) {
        if (d->ended) {
            return api_error_set(x, API_E_INTERNAL_ERROR, "vmd", NULL,
                                 "the connection to vmd ended%s%s", d->why.msg[0] ? ": " : "",
                                 d->why.msg);
        }
        if (!turn(d, deadline)) {
            return interrupted(d) ? api_error_set(x, API_E_CANCELLED, NULL, NULL, "interrupted")
                                  : 0;
        }
    }
    n = list_entry(d->notes.next, struct note, node);
    *method = xstrdup(n->method);
    *params = json_object_get(n->params);
    note_free(d, n);
    return 1;
}

struct loop *rpc_dial_loop(struct rpc_dial *d)
{
    return d->loop;
}

struct rpc_client *rpc_dial_client(struct rpc_dial *d)
{
    return d->client;
}
