/* SPDX-License-Identifier: Apache-2.0 */
/* What goes through streams: consoles, volumes up and down, pictures of screens. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/libvirt/stream.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- consoles -------------------------------------------------------------------------------------- */

enum { TYPED_MAX = 65536 };

struct console {
    int fd;
    struct loop_fd *ready;
    struct buf typed; /* waits for the socket */
};

static void console_gone(struct lv_stream *st)
{
    struct console *k = st->own;

    loop_fd_free(k->ready);
    close(k->fd);
    buf_done(&k->typed);
    free(k);
}

static void console_wants(struct lv_stream *st)
{
    struct console *k = st->own;

    loop_fd_set(k->ready,
                (lv_stream_full(st) ? 0 : LOOP_READ) | (k->typed.len ? LOOP_WRITE : 0));
}

static void console_ready(void *arg, int fd, unsigned events)
{
    struct lv_stream *st = arg;
    struct console *k = st->own;
    char data[16384];
    ssize_t n;

    if ((events & LOOP_WRITE) && k->typed.len) {
        n = send(fd, k->typed.data, k->typed.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            buf_consume(&k->typed, (size_t)n);
        }
    }
    if (events & LOOP_READ) {
        n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            loop_fd_set(k->ready, 0);
            lv_stream_eof(st);
            return;
        }
        if (n > 0) {
            lv_stream_send(st, data, (size_t)n);
        }
    }
    console_wants(st);
}

static void console_data(struct lv_stream *st, const unsigned char *data, size_t n)
{
    struct console *k = st->own;

    if (st->eof) {
        return; /* nobody is there any more to read it */
    }
    if (k->typed.len + n > TYPED_MAX) {
        lv_stream_fail(st, "the guest does not read what is typed");
        return;
    }
    buf_add(&k->typed, data, n);
    console_wants(st);
}

static const struct lv_stream_ops console_ops = { .data = console_data,
                                                  .more = console_wants,
                                                  .gone = console_gone };

static void on_console(struct lv_call *c, struct json_object *result)
{
    struct err e = ERR_INIT;
    AUTO_FD fd = unix_connect_now(api_json_get_str(result, "path"), &e);
    struct lv_stream *st;
    struct console *k;

    if (fd < 0) {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", e.msg);
        return;
    }
    k = xnew(struct console);
    st = lv_stream_open(c, NULL, &console_ops, k);
    if (!st) {
        free(k);
        return;
    }
    k->fd = take_fd(&fd);
    k->ready = loop_fd_new(st->q->d->loop, k->fd, LOOP_READ, console_ready, st);
}

void lv_do_domain_open_console(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.console", lv_vm(c), on_console);
}

static void on_channel(struct lv_call *c, struct json_object *result)
{
    on_console(c, result);
}

void lv_do_domain_open_channel(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "channel", lv_str(c, "name") ? lv_str(c, "name") : "");
    lv_ask(c, "domain", "vm.channel", params, on_channel);
}

/* --- volumes ------------------------------------------------------------------------------------------ */

/* HELD_MAX: of all uploads of a session together; while they hold more it is not read. */
enum { PIECE = 512 * 1024, HELD_MAX = 4 << 20 };

struct transfer {
    char *pool, *volume;
    int64_t offset, left; /* left: bytes still wanted; -1: all that there are */
    struct buf held;      /* up: not written yet */
    bool asking, finished, last;
};

/* So many bytes more, or less, wait to be written. */
static void count_held(struct lv_session *q, ssize_t more)
{
    bool full;

    q->held_bytes += (size_t)more;
    full = q->held_bytes >= HELD_MAX;
    if (full != q->full) {
        q->full = full;
        (full ? rpc_conn_hold : rpc_conn_release)(q->s->conn);
    }
}

static void transfer_gone(struct lv_stream *st)
{
    struct transfer *t = st->own;

    if (st->q && t->held.len) {
        count_held(st->q, -(ssize_t)t->held.len);
    }
    free(t->pool);
    free(t->volume);
    buf_done(&t->held);
    free(t);
}

static struct json_object *place(const struct transfer *t)
{
    struct json_object *o = lv_object("pool", t->pool);

    api_json_set_str(o, "volume", t->volume);
    api_json_set_int(o, "offset", t->offset);
    return o;
}

static struct lv_stream *open_transfer(struct lv_call *c, const struct lv_stream_ops *ops)
{
    struct json_object *vol = api_json_get(c->args, "vol");
    struct transfer *t = xnew(struct transfer);
    struct lv_stream *st;

    t->pool = xstrdup(api_json_get_str(vol, "pool"));
    t->volume = xstrdup(api_json_get_str(vol, "name"));
    t->offset = lv_int(c, "offset");
    t->left = lv_int(c, "length") ? lv_int(c, "length") : -1;
    st = lv_stream_open(c, NULL, ops, t);
    if (!st) {
        free(t->pool);
        free(t->volume);
        free(t);
    }
    return st;
}

static void read_more(struct lv_stream *st);

static void on_read(struct lv_stream *st, struct json_object *result)
{
    struct transfer *t = st->own;
    AUTO_BUF data = BUF_INIT;

    t->asking = false;
    base64_take(&data, api_json_get_str(result, "data"));
    if (data.len == 0) {
        lv_stream_eof(st);
        return;
    }
    lv_stream_send(st, data.data, data.len);
    t->offset += (int64_t)data.len;
    t->left -= t->left > 0 ? (int64_t)data.len : 0;
    read_more(st);
}

static void read_more(struct lv_stream *st)
{
    struct transfer *t = st->own;
    struct json_object *params;

    if (t->left == 0) {
        lv_stream_eof(st);
    } else if (!t->asking && !lv_stream_full(st)) {
        params = place(t);
        api_json_set_int(params, "length", t->left > 0 && t->left < PIECE ? t->left : PIECE);
        t->asking = true;
        lv_stream_ask(st, "volume.read", params, on_read);
    }
}

static const struct lv_stream_ops download_ops = { .more = read_more, .gone = transfer_gone };

static void on_download(struct lv_call *c, struct json_object *volume)
{
    struct lv_stream *st;

    (void)volume;
    st = open_transfer(c, &download_ops);
    if (st) {
        read_more(st);
    }
}

static struct json_object *volume_of(const struct lv_call *c)
{
    struct json_object *vol = api_json_get(c->args, "vol"),
                       *o = lv_object("pool", api_json_get_str(vol, "pool"));

    api_json_set_str(o, "volume", api_json_get_str(vol, "name"));
    return o;
}

void lv_do_volume_download(struct lv_call *c)
{
    lv_ask(c, "volume", "volume.get", volume_of(c), on_download);
}

static void write_more(struct lv_stream *st);

static void on_written(struct lv_stream *st, struct json_object *result)
{
    struct transfer *t = st->own;

    (void)result;
    t->asking = false;
    if (t->last) {
        lv_stream_end(st);
    } else {
        write_more(st);
    }
}

/* With the last piece, which may be empty, the file ends and is kept. */
static void write_more(struct lv_stream *st)
{
    struct transfer *t = st->own;
    size_t n = t->held.len < PIECE ? t->held.len : PIECE;
    AUTO_BUF text = BUF_INIT;
    struct json_object *params;

    if (t->asking || (!t->finished && n == 0)) {
        return;
    }
    t->last = t->finished && n == t->held.len;
    if (n) {
        base64_add(&text, t->held.data, n);
    }
    params = place(t);
    api_json_set_str(params, "data", text.data ? text.data : "");
    api_json_set_bool(params, "last", t->last);
    buf_consume(&t->held, n);
    t->offset += (int64_t)n;
    t->asking = true;
    count_held(st->q, -(ssize_t)n);
    lv_stream_ask(st, "volume.write", params, on_written);
}

static void upload_data(struct lv_stream *st, const unsigned char *data, size_t n)
{
    struct transfer *t = st->own;

    if (t->left >= 0 && n > (size_t)t->left) {
        lv_stream_fail(st, "more came than was announced");
        return;
    }
    t->left -= t->left > 0 ? (int64_t)n : 0;
    buf_add(&t->held, data, n);
    count_held(st->q, (ssize_t)n);
    write_more(st);
}

static void upload_finish(struct lv_stream *st)
{
    struct transfer *t = st->own;

    t->finished = true;
    write_more(st);
}

static const struct lv_stream_ops upload_ops = { .data = upload_data,
                                                 .finish = upload_finish,
                                                 .gone = transfer_gone };

static void on_upload(struct lv_call *c, struct json_object *volume)
{
    (void)volume;
    open_transfer(c, &upload_ops);
}

void lv_do_volume_upload(struct lv_call *c)
{
    if (lv_int(c, "offset")) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "an upload takes the place of the whole volume: its offset is 0");
        return;
    }
    lv_ask(c, "volume", "volume.get", volume_of(c), on_upload);
}

/* --- pictures ------------------------------------------------------------------------------------------- */

struct picture {
    char *vm;
    int64_t number, next; /* next -1: that was all */
};

static void picture_gone(struct lv_stream *st)
{
    struct picture *p = st->own;

    free(p->vm);
    free(p);
}

static void picture_more(struct lv_stream *st);

static void on_piece(struct lv_stream *st, struct json_object *result)
{
    struct picture *p = st->own;
    AUTO_BUF data = BUF_INIT;

    base64_take(&data, api_json_get_str(result, "data"));
    lv_stream_send(st, data.data, data.len);
    p->next = api_json_get_int(result, "next", -1);
    picture_more(st);
}

static void picture_more(struct lv_stream *st)
{
    struct picture *p = st->own;
    struct json_object *params;

    if (p->next < 0) {
        lv_stream_eof(st);
    } else if (!lv_stream_full(st) && st->asking == 0) {
        params = lv_object("vm", p->vm);
        api_json_set_int(params, "picture", p->number);
        api_json_set_int(params, "after", p->next);
        lv_stream_ask(st, "vm.screenshot", params, on_piece);
    }
}

static const struct lv_stream_ops picture_ops = { .more = picture_more, .gone = picture_gone };

static void on_taken(struct lv_call *c, struct json_object *result)
{
    AUTO_JSON vm = lv_vm(c);
    struct picture *p = xnew(struct picture);
    struct lv_stream *st;
    AUTO_BUF data = BUF_INIT;

    p->vm = xstrdup(api_json_get_str(vm, "vm"));
    p->number = api_json_get_int(result, "picture", 0);
    p->next = api_json_get_int(result, "next", -1);
    base64_take(&data, api_json_get_str(result, "data"));
    st = lv_stream_open(c, lv_object("mime", "image/png"), &picture_ops, p);
    if (!st) {
        free(p->vm);
        free(p);
        return;
    }
    lv_stream_send(st, data.data, data.len);
    picture_more(st);
}

void lv_do_domain_screenshot(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.screenshot", lv_vm(c), on_taken);
}
