/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in and out, calls, errors. Owns sessions and, until they are answered, calls; a call outlives its session when the
 * client goes first. Loop thread.
 */
#include "daemon/libvirt/session.h"

#include "api-schema/rpc/conn.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/events.h"
#include "daemon/libvirt/libvirt.h"
#include "daemon/libvirt/stream.h"
#include "daemon/libvirt/xdr.h"
#include "daemon/registry.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    HEAD_SIZE = 28,
    MESSAGE_MAX = 16 << 20,
    FDS_MAX = 32,
    ERROR_LEVEL = 2,      /* VIR_ERR_ERROR */
    FROM_RPC = 37,        /* VIR_FROM_RPC */
    FROM_HYPERVISOR = 10, /* VIR_FROM_QEMU: what tools expect of a domain's errors */
    KEEPALIVE_PING = 1,
    KEEPALIVE_PONG = 2,
};

static const char error_form[] =
    "code:i domain:i message:S level:i dom:[D] str1:S str2:S str3:S int1:i int2:i net:[N]";

/* --- frames -------------------------------------------------------------------------------------- */

/* Behind a call with descriptors a byte comes for each of them. */
static int64_t frame_size(const unsigned char *head, size_t have)
{
    enum { TYPE_AT = 16 };
    uint32_t length, type, fds;

    memcpy(&length, head, 4);
    length = be32toh(length);
    if (length < HEAD_SIZE) {
        return -1;
    }
    if (have < TYPE_AT + sizeof(type)) {
        return 0;
    }
    memcpy(&type, head + TYPE_AT, sizeof(type));
    if (be32toh(type) != LV_CALL_FDS || length < HEAD_SIZE + sizeof(fds)) {
        return length;
    }
    if (have < HEAD_SIZE + sizeof(fds)) {
        return 0;
    }
    memcpy(&fds, head + HEAD_SIZE, sizeof(fds));
    return be32toh(fds) <= FDS_MAX ? (int64_t)length + be32toh(fds) : -1;
}

static const struct rpc_framing framing = { .head = 4, .max = MESSAGE_MAX, .size = frame_size };

static void put_frame(struct buf *out, const struct lv_head *head, const struct buf *payload)
{
    size_t n = payload ? payload->len : 0;
    uint32_t words[7] = { htobe32((uint32_t)(HEAD_SIZE + n)),
                          htobe32(head->program),
                          htobe32(1),
                          htobe32(head->procedure),
                          htobe32(head->type),
                          htobe32(head->serial),
                          htobe32(head->status) };

    buf_reserve(out, HEAD_SIZE + n);
    buf_add(out, words, HEAD_SIZE);
    if (n) {
        buf_add(out, payload->data, n);
    }
}

bool lv_passes_fds(const struct lv_session *q)
{
    return !q->s->peer.user[0];
}

void lv_send(struct lv_session *q, const struct lv_head *head, const struct buf *payload)
{
    AUTO_BUF whole = BUF_INIT;

    put_frame(&whole, head, payload);
    rpc_conn_send_bytes(q->s->conn, whole.data, whole.len);
}

void lv_send_event(struct lv_session *q, uint32_t procedure, const char *form,
                   struct json_object *value)
{
    struct lv_head head = { .program = LV_REMOTE, .procedure = procedure, .type = LV_EVENT };
    AUTO_BUF b = BUF_INIT;

    if (lv_encode(form, value, &b, NULL) == 0) {
        lv_send(q, &head, &b);
    }
}

static void send_error(struct lv_session *q, const struct lv_head *to, int code, int domain,
                       const char *message)
{
    struct lv_head head = *to;
    AUTO_JSON o = json_object_new_object();
    AUTO_BUF b = BUF_INIT;

    head.type = to->type == LV_STREAM ? LV_STREAM : LV_REPLY;
    head.status = LV_ERROR;
    api_json_set_int(o, "code", code);
    api_json_set_int(o, "domain", domain);
    api_json_set_str(o, "message", message);
    api_json_set_int(o, "level", ERROR_LEVEL);
    api_json_set_str(o, "str1", "%s");
    api_json_set_str(o, "str2", message);
    api_json_set_int(o, "int1", -1);
    api_json_set_int(o, "int2", -1);
    lv_encode(error_form, o, &b, NULL);
    lv_send(q, &head, &b);
}

void lv_send_error(struct lv_session *q, const struct lv_head *to, int code,
                   const char *message)
{
    send_error(q, to, code, FROM_HYPERVISOR, message);
}

/* --- calls ---------------------------------------------------------------------------------------- */

static struct lv_head head_of(const struct lv_call *c)
{
    return (struct lv_head){ .program = c->program,
                             .procedure = c->p->number,
                             .type = LV_REPLY,
                             .serial = c->serial,
                             .status = LV_OK };
}

/* It was answered. */
static void call_end(struct lv_call *c)
{
    struct lv_session *q = c->q;

    list_remove(&c->link);
    json_object_put(c->args);
    json_object_put(c->kept);
    free(c);
    if (!q) {
        return;
    }
    q->n_calls--;
    if (q->held && q->n_calls < LV_CALLS) {
        q->held = false;
        rpc_conn_release(q->s->conn);
    }
    rpc_session_idle(q->s);
}

void lv_reply_raw(struct lv_call *c, const struct buf *xdr)
{
    struct lv_head head = head_of(c);

    if (c->q) {
        lv_send(c->q, &head, xdr);
    }
    call_end(c);
}

void lv_reply_fd(struct lv_call *c, int owned_fd)
{
    struct lv_head head = head_of(c);
    const uint32_t one = htobe32(1);
    AUTO_BUF payload = BUF_INIT;
    AUTO_BUF whole = BUF_INIT;
    AUTO_FD fd = owned_fd;

    head.type = LV_REPLY_FDS;
    buf_add(&payload, &one, sizeof(one)); /* how many; the result is empty */
    put_frame(&whole, &head, &payload);
    buf_add_char(&whole, 0); /* a byte for each, behind the frame */
    if (c->q &&
        rpc_conn_send_bytes_fd(c->q->s->conn, whole.data, whole.len, take_fd(&fd)) == -EBUSY) {
        lv_fail(c, LV_E_OPERATION_FAILED, "another descriptor is on its way: ask again");
        return;
    }
    call_end(c);
}

void lv_reply(struct lv_call *c, struct json_object *take_result)
{
    struct err e = ERR_INIT;
    AUTO_BUF b = BUF_INIT;
    AUTO_JSON result = take_result;

    if (lv_encode(c->p->ret, result, &b, &e) < 0) {
        lv_fail(c, LV_E_INTERNAL, "%s", e.msg);
    } else {
        lv_reply_raw(c, &b);
    }
}

void lv_fail(struct lv_call *c, enum lv_error code, const char *fmt, ...)
{
    struct lv_head head = head_of(c);
    AUTO_BUF text = BUF_INIT;
    va_list ap;

    if (code == LV_E_ARGUMENT_UNSUPPORTED || code == LV_E_OPERATION_UNSUPPORTED) {
        buf_add_str(&text, "not supported: ");
    }
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (c->q) {
        send_error(c->q, &head, code, FROM_HYPERVISOR, text.data);
    }
    call_end(c);
}

static enum lv_error not_found(const char *about)
{
    static const struct {
        const char *about;
        enum lv_error code;
    } codes[] = { { "domain", LV_E_NO_DOMAIN },     { "network", LV_E_NO_NETWORK },
                  { "pool", LV_E_NO_POOL },         { "volume", LV_E_NO_VOL },
                  { "snapshot", LV_E_NO_SNAPSHOT }, { "checkpoint", LV_E_NO_CHECKPOINT },
                  { "backup", LV_E_NO_BACKUP } };

    for (unsigned i = 0; about && i < ARRAY_LEN(codes); i++) {
        if (strcmp(codes[i].about, about) == 0) {
            return codes[i].code;
        }
    }
    return LV_E_INVALID_ARG;
}

static enum lv_error error_code(const struct api_error *x, const char *about)
{
    switch (x->code) {
    case API_E_NOT_FOUND:
        return not_found(about);
    case API_E_BAD_STATE:
    case API_E_BUSY:
        return LV_E_OPERATION_INVALID;
    case API_E_DENIED:
        return LV_E_ACCESS_DENIED;
    case API_E_TIMEOUT:
        return LV_E_OPERATION_TIMEOUT;
    case API_E_UNSUPPORTED:
        return LV_E_CONFIG_UNSUPPORTED;
    case API_E_INVALID_PARAMS:
        return LV_E_INVALID_ARG;
    default:
        return LV_E_OPERATION_FAILED;
    }
}

void lv_fail_api(struct lv_call *c, const struct api_error *x)
{
    lv_fail(c, error_code(x, c->about), "%s%s%s", x->message, x->remedy[0] ? ": " : "",
            x->remedy);
}

static void on_undone(void *arg, struct json_object *result, const struct api_error *x)
{
    struct lv_call *c = arg;

    (void)result;
    (void)x; /* what went wrong first is told */
    lv_fail(c, (enum lv_error)c->number, "%s", lv_str(c, "failed"));
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct lv_call *c = arg;

    if (x && c->undo && c->q) {
        api_json_set_str(c->args, "failed", x->message);
        c->number = error_code(x, c->about);
        rpc_session_call(c->q->s, c->undo, json_object_get(c->kept), on_undone, c);
        return;
    }

    if (x && !(c->late && x->code == API_E_TIMEOUT)) {
        lv_fail_api(c, x);
    } else {
        c->then(c, result);
    }
}

void lv_ask(struct lv_call *c, const char *about, const char *method,
            struct json_object *take_params,
            void (*then)(struct lv_call *c, struct json_object *result))
{
    c->then = then;
    c->about = about;
    if (!c->q) { /* the client has gone: nothing more is done for it */
        json_object_put(take_params);
        lv_fail(c, LV_E_RPC, "the client has gone");
        return;
    }
    rpc_session_call(c->q->s, method, take_params, on_answer, c);
}

void lv_done(struct lv_call *c, struct json_object *result)
{
    (void)result;
    lv_reply(c, NULL);
}

void lv_plain(struct lv_call *c)
{
    const char *form = c->p->args;

    if (strncmp(form, "net:", 4) == 0) {
        lv_ask(c, "network", c->p->method,
               lv_object("network", api_json_get_str(api_json_get(c->args, "net"), "uuid")),
               lv_done);
    } else if (strncmp(form, "pool:", 5) == 0) {
        lv_ask(c, "pool", c->p->method,
               lv_object("pool", api_json_get_str(api_json_get(c->args, "pool"), "uuid")),
               lv_done);
    } else {
        lv_ask(c, "domain", c->p->method, lv_vm(c), lv_done);
    }
}

const char *lv_str(const struct lv_call *c, const char *name)
{
    return api_json_get_str(c->args, name);
}

int64_t lv_int(const struct lv_call *c, const char *name)
{
    return api_json_get_int(c->args, name, 0);
}

struct json_object *lv_object(const char *key, const char *value)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, key, value);
    return o;
}

struct json_object *lv_vm(const struct lv_call *c)
{
    struct json_object *dom = api_json_get(c->args, "dom");

    if (!dom) {
        dom = api_json_get(api_json_get(c->args, "snap"), "dom");
    }
    return lv_object("vm", api_json_get_str(dom, "uuid"));
}

/* --- clients --------------------------------------------------------------------------------------- */

static void keepalive(struct lv_session *q, const struct lv_head *head)
{
    struct lv_head pong = { .program = LV_KEEPALIVE,
                            .procedure = KEEPALIVE_PONG,
                            .type = LV_EVENT };

    if (head->procedure == KEEPALIVE_PING) {
        lv_send(q, &pong, NULL);
    }
}

static bool before_open(uint32_t number)
{
    switch (number) {
    case 1:   /* CONNECT_OPEN */
    case 60:  /* CONNECT_SUPPORTS_FEATURE */
    case 66:  /* AUTH_LIST */
    case 2:   /* CONNECT_CLOSE */
    case 419: /* CONNECT_SET_IDENTITY */
        return true;
    default:
        return false;
    }
}

static void run(struct lv_session *q, const struct lv_head *head, const unsigned char *args,
                size_t n)
{
    const struct lv_procedure *p = lv_find(head->program, head->procedure);
    struct err e = ERR_INIT;
    struct json_object *o;
    char text[sizeof(e.msg) + 64];

    if (!p || !p->run) {
        snprintf(text, sizeof(text), "this function is not supported by vmd: %s (procedure %u)",
                 p ? p->name : "unknown", head->procedure);
        send_error(q, head, LV_E_NO_SUPPORT, FROM_HYPERVISOR, text);
        return;
    }
    if (!q->opened && head->program == LV_REMOTE && !before_open(head->procedure)) {
        send_error(q, head, LV_E_RPC, FROM_RPC, "no connection was opened before");
        return;
    }
    o = lv_decode(p->args, args, n, &e);
    if (!o) {
        snprintf(text, sizeof(text), "%s: %s", p->name, e.msg);
        send_error(q, head, LV_E_RPC, FROM_RPC, text);
        return;
    }
    struct lv_call *c = xnew(struct lv_call);
    c->q = q;
    c->d = q->d;
    c->p = p;
    c->program = head->program;
    c->serial = head->serial;
    c->args = o;
    list_append(&q->calls, &c->link);
    if (++q->n_calls >= LV_CALLS && !q->held) {
        q->held = true;
        rpc_conn_hold(q->s->conn);
    }
    p->run(c);
}

static void give_up(struct lv_session *q, const char *why)
{
    log_debug("libvirt", "client pid %d: %s", (int)q->s->peer.pid, why);
    rpc_conn_close(q->s->conn);
}

static void on_frame(void *state, const unsigned char *data, size_t n)
{
    struct lv_session *q = state;
    struct lv_head head;
    uint32_t words[7];

    memcpy(words, data, HEAD_SIZE);
    head = (struct lv_head){ .length = be32toh(words[0]),
                             .program = be32toh(words[1]),
                             .version = be32toh(words[2]),
                             .procedure = be32toh(words[3]),
                             .type = be32toh(words[4]),
                             .serial = be32toh(words[5]),
                             .status = be32toh(words[6]) };
    if (head.version != 1 || (head.program != LV_REMOTE && head.program != LV_QEMU &&
                              head.program != LV_KEEPALIVE)) {
        send_error(q, &head, LV_E_RPC, FROM_RPC, "Cannot find program or version");
    } else if (head.program == LV_KEEPALIVE) {
        keepalive(q, &head);
    } else if (head.type == LV_CALL && head.status == LV_OK) {
        run(q, &head, data + HEAD_SIZE, n - HEAD_SIZE);
    } else if (head.type == LV_STREAM) {
        lv_stream_packet(q, &head, data + HEAD_SIZE, n - HEAD_SIZE);
    } else if (head.type == LV_CALL_FDS) {
        send_error(q, &head, LV_E_NO_SUPPORT, FROM_RPC,
                   "this function is not supported by vmd: it takes no descriptors");
    } else {
        give_up(q, "a packet of a type that no client sends");
    }
}

static void on_garbage(void *state, const struct err *why)
{
    give_up(state, why->msg);
}

static void no_message(void *state, struct json_object *msg)
{
    (void)state;
    (void)msg;
}

static void *session_begin(void *arg, struct rpc_session *s)
{
    struct libvirt *l = arg;
    struct lv_session *q = xnew(struct lv_session);

    q->l = l;
    q->d = l->d;
    q->s = s;
    list_init(&q->calls);
    list_init(&q->callbacks);
    list_init(&q->streams);
    list_append(&l->sessions, &q->link);
    return q;
}

static bool session_idle(void *state)
{
    return list_empty(&((struct lv_session *)state)->calls);
}

static void session_end(void *state)
{
    struct lv_session *q = state;

    lv_streams_gone(q);
    list_for_each_safe (it, &q->calls) {
        struct lv_call *c = list_entry(it, struct lv_call, link);
        list_remove(&c->link);
        c->q = NULL;
    }
    list_for_each_safe (it, &q->callbacks) {
        free(list_entry(it, struct lv_callback, link));
    }
    list_remove(&q->link);
    free(q);
}

const struct rpc_dialect libvirt_dialect = {
    .framing = &framing,
    .frame = on_frame,
    .begin = session_begin,
    .message = no_message,
    .garbage = on_garbage,
    .idle = session_idle,
    .end = session_end,
};

struct libvirt *libvirt_new(struct vmd *d)
{
    struct libvirt *l = xnew(struct libvirt);

    l->d = d;
    list_init(&l->sessions);
    l->states = json_object_new_object();
    l->heard = (struct event_listener){ .fn = lv_on_event, .arg = l };
    events_listen(d->events, &l->heard);
    return l;
}

void libvirt_free(struct libvirt *l)
{
    if (l) {
        list_remove(&l->heard.link);
        json_object_put(l->states);
        free(l);
    }
}
