/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A character stream that is recorded: what comes waits for a place between two instructions; what goes out is always
 * taken, and the machine is held when too much of it waits. `lock` protects the output.
 */
#include "engine/emu/replay/replay.h"

#include "devices/char/chr.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define IN_MAX 4096                  /* bytes on their way in */
#define OUT_HELD (1u << 20)          /* the machine waits from here */
#define OUT_FREE (OUT_HELD / 2)      /* ... to here */
enum { KIND_BYTES, KIND_CONNECTED }; /* first byte of an input */

struct record_chr {
    struct chr outer; /* of the device */
    struct chr *inner;
    struct vm *vm;
    uint32_t source;
    size_t asked;  /* bytes given to the tape and not here yet */
    struct buf in; /* here, and the device has no room */
    bool draining; /* a drain is posted; lock */
    pthread_mutex_t lock;
    struct buf out; /* the back end has no room */
    bool holding;
};

static struct record_chr *of_outer(struct chr *c)
{
    return container_of(c, struct record_chr, outer);
}

/* ---- out ---- */

static void set_holding(struct record_chr *c, bool on)
{
    if (c->holding != on) {
        c->holding = on;
        replay_hold(c->vm, on);
    }
}

/* Lock held. */
static void flush_locked(struct record_chr *c)
{
    if (c->out.len > 0) {
        buf_consume(&c->out, chr_write(c->inner, (uint8_t *)c->out.data, c->out.len));
    }
    if (c->out.len >= OUT_HELD) {
        set_holding(c, true);
    } else if (c->out.len <= OUT_FREE) {
        set_holding(c, false);
    }
}

static size_t outer_write(struct chr *chr, const uint8_t *p, size_t n)
{
    struct record_chr *c = of_outer(chr);

    replay_stream(c->vm, p, n);
    pthread_mutex_lock(&c->lock);
    buf_add(&c->out, p, n);
    flush_locked(c);
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void inner_writable(void *arg)
{
    struct record_chr *c = arg;

    pthread_mutex_lock(&c->lock);
    flush_locked(c);
    pthread_mutex_unlock(&c->lock);
}

static void outer_opened(struct chr *chr, bool yes)
{
    chr_opened(of_outer(chr)->inner, yes);
}

/* ---- in ---- */

/* Between two instructions. */
static void drain(void *arg)
{
    struct record_chr *c = arg;
    const struct chr_front_ops *f = c->outer.front;

    pthread_mutex_lock(&c->lock);
    c->draining = false;
    pthread_mutex_unlock(&c->lock);
    while (c->in.len > 0 && f) {
        size_t room = f->room(c->outer.front_arg), n = c->in.len < room ? c->in.len : room;

        if (n == 0) {
            break;
        }
        f->receive(c->outer.front_arg, (uint8_t *)c->in.data, n);
        buf_consume(&c->in, n);
    }
    if (replay_records(c->vm) && c->in.len == 0) {
        chr_accept(c->inner);
    }
}

static void outer_accept(struct chr *chr)
{
    struct record_chr *c = of_outer(chr);
    bool post;

    pthread_mutex_lock(&c->lock);
    post = !c->draining;
    c->draining = true;
    pthread_mutex_unlock(&c->lock);
    if (post) {
        vm_post(c->vm, drain, c);
    }
}

static size_t inner_room(void *arg)
{
    struct record_chr *c = arg;
    size_t has = c->asked + c->in.len;

    return !replay_records(c->vm) || has >= IN_MAX ? 0 : IN_MAX - has;
}

static void inner_receive(void *arg, const uint8_t *p, size_t n)
{
    struct record_chr *c = arg;
    uint8_t bytes[1 + IN_MAX] = { KIND_BYTES };

    memcpy(bytes + 1, p, n);
    c->asked += n;
    replay_input(c->vm, c->source, bytes, n + 1);
}

static void inner_connected(void *arg, bool yes)
{
    struct record_chr *c = arg;
    uint8_t bytes[2] = { KIND_CONNECTED, yes };

    if (replay_records(c->vm)) {
        replay_input(c->vm, c->source, bytes, sizeof(bytes));
    }
}

static int on_tape(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct record_chr *c = arg;

    if (n == 2 && p[0] == KIND_CONNECTED) {
        chr_connected(&c->outer, p[1] != 0);
        return 0;
    }
    if (n < 2 || p[0] != KIND_BYTES || n - 1 > IN_MAX || c->in.len > 16 * IN_MAX) {
        return err_set(e, -EBADMSG, "%zu bytes are no input of a console", n);
    }
    c->asked -= n - 1 < c->asked ? n - 1 : c->asked;
    buf_add(&c->in, p + 1, n - 1);
    drain(c);
    return 0;
}

static const struct chr_back_ops outer_ops = {
    .write = outer_write,
    .accept = outer_accept,
    .opened = outer_opened,
};
static const struct chr_front_ops inner_ops = {
    .room = inner_room,
    .receive = inner_receive,
    .writable = inner_writable,
    .connected = inner_connected,
};

/* ---- life ---- */

struct record_chr *record_chr_new(struct vm *vm, const char *name, struct chr *inner)
{
    struct record_chr *c = xnew(struct record_chr);

    c->outer.back = &outer_ops;
    c->inner = inner;
    c->vm = vm;
    pthread_mutex_init(&c->lock, NULL);
    c->source = replay_source(vm, name, on_tape, c);
    return c;
}

struct chr *record_chr_front(struct record_chr *c)
{
    return &c->outer;
}

void record_chr_start(struct record_chr *c)
{
    chr_attach(c->inner, &inner_ops, c);
}

void record_chr_free(struct record_chr *c)
{
    if (c) {
        chr_attach(c->inner, NULL, NULL);
        pthread_mutex_destroy(&c->lock);
        buf_done(&c->in);
        buf_done(&c->out);
        free(c);
    }
}
