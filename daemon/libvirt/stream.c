/* SPDX-License-Identifier: Apache-2.0 */
/* See stream.h. A stream that waits for a method's answer lives until that is there. */
#include "daemon/libvirt/stream.h"

#include "api-schema/rpc/conn.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/session.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

enum { QUEUE_MAX = 1 << 20 };

static const int64_t again_ns = 5 * INT64_C(1000000);

static struct lv_head head_of(const struct lv_stream *st, enum lv_status status)
{
    return (struct lv_head){ .program = LV_REMOTE,
                             .procedure = st->procedure,
                             .type = LV_STREAM,
                             .serial = st->serial,
                             .status = status };
}

static void on_again(void *arg)
{
    struct lv_stream *st = arg;

    if (!st->eof && !lv_stream_full(st)) {
        st->ops->more(st);
    }
}

struct lv_stream *lv_stream_open(struct lv_call *c, struct json_object *take_result,
                                 const struct lv_stream_ops *ops, void *own)
{
    struct lv_session *q = c->q;
    struct lv_stream *st;

    if (!q || q->n_streams >= LV_STREAMS) {
        json_object_put(take_result);
        lv_fail(c, LV_E_OPERATION_FAILED, "a connection has at most %d streams", LV_STREAMS);
        return NULL;
    }
    st = xnew(struct lv_stream);
    st->q = q;
    st->ops = ops;
    st->own = own;
    st->procedure = c->p->number;
    st->serial = c->serial;
    st->again = loop_timer_new(q->d->loop, on_again, st);
    list_append(&q->streams, &st->link);
    q->n_streams++;
    lv_reply(c, take_result);
    return st;
}

static void release(struct lv_stream *st)
{
    if (st->over && st->asking == 0) {
        free(st);
    }
}

/* Nothing more is sent or taken. */
static void close_stream(struct lv_stream *st)
{
    if (st->over) {
        return;
    }
    st->over = true;
    list_remove(&st->link);
    loop_timer_free(st->again);
    if (st->q) {
        st->q->n_streams--;
    }
    st->ops->gone(st);
    st->q = NULL;
    release(st);
}

void lv_stream_send(struct lv_stream *st, const void *data, size_t n)
{
    struct lv_head head = head_of(st, LV_CONTINUE);
    const char *from = data;

    for (size_t part; n > 0 && st->q; from += part, n -= part) {
        part = n < LV_STREAM_CHUNK ? n : LV_STREAM_CHUNK;
        struct buf b = { .data = (char *)(uintptr_t)from, .len = part };
        lv_send(st->q, &head, &b);
    }
}

bool lv_stream_full(struct lv_stream *st)
{
    bool full = st->q && rpc_conn_queued(st->q->s->conn) > QUEUE_MAX;

    if (full) {
        loop_timer_arm(st->again, again_ns);
    }
    return full;
}

void lv_stream_eof(struct lv_stream *st)
{
    struct lv_head head = head_of(st, LV_CONTINUE);

    if (st->q && !st->eof) {
        st->eof = true;
        lv_send(st->q, &head, NULL);
    }
}

void lv_stream_end(struct lv_stream *st)
{
    struct lv_head head = head_of(st, LV_OK);

    if (st->q) {
        lv_send(st->q, &head, NULL);
    }
    close_stream(st);
}

void lv_stream_fail(struct lv_stream *st, const char *why)
{
    struct lv_head head = head_of(st, LV_ERROR);

    if (st->q) {
        lv_send_error(st->q, &head, LV_E_OPERATION_FAILED, why);
    }
    close_stream(st);
}

/* --- calls of methods ---------------------------------------------------------------------------- */

struct asked {
    struct lv_stream *st;
    void (*then)(struct lv_stream *st, struct json_object *result);
};

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asked *a = arg;
    struct lv_stream *st = a->st;
    void (*then)(struct lv_stream * st, struct json_object * result) = a->then;

    free(a);
    st->asking--;
    if (st->over) {
        release(st);
    } else if (x) {
        lv_stream_fail(st, x->message);
    } else {
        then(st, result);
    }
}

void lv_stream_ask(struct lv_stream *st, const char *method, struct json_object *take_params,
                   void (*then)(struct lv_stream *st, struct json_object *result))
{
    struct asked *a = xnew(struct asked);

    a->st = st;
    a->then = then;
    st->asking++;
    rpc_session_call(st->q->s, method, take_params, on_answer, a);
}

/* --- the client ------------------------------------------------------------------------------------- */

void lv_stream_packet(struct lv_session *q, const struct lv_head *head,
                      const unsigned char *data, size_t n)
{
    struct lv_stream *st = NULL;

    list_for_each (it, &q->streams) {
        struct lv_stream *one = list_entry(it, struct lv_stream, link);
        if (one->serial == head->serial && one->procedure == head->procedure) {
            st = one;
        }
    }
    if (!st) {
        return; /* it crossed with our own end */
    }
    if (head->status == LV_CONTINUE && n > 0 && st->ops->data) {
        st->ops->data(st, data, n);
    } else if (head->status == LV_OK && st->ops->finish) {
        st->ops->finish(st);
    } else if (head->status == LV_OK) {
        lv_stream_end(st);
    } else {
        close_stream(st); /* it gives up */
    }
}

void lv_streams_gone(struct lv_session *q)
{
    while (!list_empty(&q->streams)) {
        struct lv_stream *st = list_entry(q->streams.next, struct lv_stream, link);
        close_stream(st);
    }
}
