/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: packets both ways beside the calls of a session, each told apart by the procedure and the serial of the call that opened it.
 * A stream goes with its session. Inside of daemon/libvirt. Loop thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_STREAM_H
#define VMD_DAEMON_LIBVIRT_STREAM_H

#include "engine/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_error;
struct json_object;
struct loop_timer;
struct lv_call;
struct lv_head;
struct lv_session;

struct lv_stream;

struct lv_stream_ops {
    /* The client sends bytes (borrowed), or has sent all of them. NULL: it only reads. */
    void (*data)(struct lv_stream *st, const unsigned char *data, size_t n);
    void (*finish)(struct lv_stream *st);
    /* The client takes more than it did: go on sending. NULL: never asked for. */
    void (*more)(struct lv_stream *st);
    /* It is over, whoever ended it: frees st->own. */
    void (*gone)(struct lv_stream *st);
};

struct lv_stream {
    struct list link; /* lv_session.streams */
    struct lv_session
        *q; /* NULL: the session has gone, and what still waits for an answer ends it */
    const struct lv_stream_ops *ops;
    void *own;
    uint32_t procedure, serial;
    unsigned asking; /* calls under way */
    bool eof, over;  /* eof: the client was told that there is no more */
    struct loop_timer *again;
};

enum { LV_STREAMS = 16, LV_STREAM_CHUNK = 256 * 1024 };

/* Answers the call with take_result and opens a stream behind it. NULL: the client has gone or has too many, `own` is the caller's still. */
struct lv_stream *lv_stream_open(struct lv_call *c, struct json_object *take_result,
                                 const struct lv_stream_ops *ops, void *own);
void lv_stream_send(struct lv_stream *st, const void *data, size_t n);
/* True while the client should get nothing more; ops->more is called when that is over. */
bool lv_stream_full(struct lv_stream *st);
/* All was sent: tells the client, which then ends the stream. */
void lv_stream_eof(struct lv_stream *st);
/* The client has ended it, and all was done. Nothing of st is valid behind these two. */
void lv_stream_end(struct lv_stream *st);
void lv_stream_fail(struct lv_stream *st, const char *why);
/* A method on behalf of the session; then(st, result), NULL result: it failed, and so has the stream. */
void lv_stream_ask(struct lv_stream *st, const char *method, struct json_object *take_params,
                   void (*then)(struct lv_stream *st, struct json_object *result));

/* session.c: a packet of a stream came; the session ends. */
void lv_stream_packet(struct lv_session *q, const struct lv_head *head,
                      const unsigned char *data, size_t n);
void lv_streams_gone(struct lv_session *q);

#endif
