/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network port that is recorded: a filter before the port of a card. Frames that come wait for a place between two
 * instructions; what the card has no room for then stays here, in order. Frames that go are always taken, as a wire takes
 * them: what the back end has no room for waits here, and what is too much is lost. In a replay the back end gets nothing and
 * gives nothing. Main thread.
 */
#include "engine/emu/replay/replay.h"

#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "network/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ON_TAPE_MAX                                                                            \
    256 /* frames given to the tape and not here yet, and those that the card had no room for */
#define WAITING_MAX 1024 /* of the latter alone; more are lost, in a replay as well */
#define OUT_MAX 256
enum { KIND_FRAME, KIND_LINK }; /* first byte of an input */

struct kept {
    struct list link;
    size_t n; /* with the header */
    uint8_t p[];
};

struct record_nic {
    struct net_port outer; /* first */
    struct net_port *inner;
    struct vm *vm;
    uint32_t source;
    struct list in, out; /* struct kept */
    unsigned asked, n_in, n_out;
    bool draining, starved;
};

static struct record_nic *of_outer(struct net_port *p)
{
    return (struct record_nic *)p;
}

static struct kept *keep(struct list *l, const uint8_t *p, size_t n)
{
    struct kept *k = xalloc(sizeof(*k) + n);

    k->n = n;
    memcpy(k->p, p, n);
    list_init(&k->link);
    list_append(l, &k->link);
    return k;
}

static void drop(struct kept *k)
{
    list_remove(&k->link);
    free(k);
}

static int deliver(struct net_port *p, const uint8_t *bytes, size_t n,
                   int (*fn)(struct net_port *p, const struct net_frame *f))
{
    struct iovec iov = { (void *)(uintptr_t)(bytes + NET_VHDR), n - NET_VHDR };
    struct net_frame f = { .iov = &iov, .n_iov = 1, .len = n - NET_VHDR };

    net_hdr_get(&f.hdr, bytes);
    return fn(p, &f);
}

/* ---- in ---- */

/* Between two instructions. */
static void drain(void *arg)
{
    struct record_nic *c = arg;
    bool some = false;

    c->draining = false;
    while (!list_empty(&c->in)) {
        struct kept *k = list_entry(c->in.next, struct kept, link);

        if (deliver(&c->outer, k->p, k->n, net_deliver) == -EAGAIN) {
            break;
        }
        drop(k);
        c->n_in--;
        some = true;
    }
    if (some) {
        net_delivered(&c->outer);
    }
    if (c->starved && c->asked + c->n_in < ON_TAPE_MAX) {
        c->starved = false;
        net_recv_ready(c->inner);
    }
}

static int on_tape(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct record_nic *c = arg;

    if (n == 2 && p[0] == KIND_LINK) {
        net_set_up(&c->outer, p[1] != 0);
        return 0;
    }
    if (n < 1 + NET_VHDR + 14 || p[0] != KIND_FRAME || n > 1 + NET_VHDR + NET_MAX_FRAME) {
        return err_set(e, -EBADMSG, "%zu bytes are no input of a network card", n);
    }
    c->asked -= c->asked > 0;
    if (c->n_in < WAITING_MAX) {
        keep(&c->in, p + 1, n - 1);
        c->n_in++;
    }
    drain(c);
    return 0;
}

static int inner_receive(void *arg, const struct net_frame *f)
{
    struct record_nic *c = arg;
    size_t n = 1 + NET_VHDR + f->len;
    AUTO_FREE uint8_t *bytes = NULL;

    if (!replay_records(c->vm) || f->len < 14) {
        return 0;
    }
    if (c->asked + c->n_in >= ON_TAPE_MAX) {
        c->starved = true;
        return -EAGAIN;
    }
    bytes = xalloc(n);
    bytes[0] = KIND_FRAME;
    net_hdr_put(bytes + 1, &f->hdr);
    net_frame_get(f, 0, bytes + 1 + NET_VHDR, f->len);
    c->asked++;
    replay_input(c->vm, c->source, bytes, n);
    return 0;
}

static void inner_link(void *arg, bool up)
{
    struct record_nic *c = arg;
    uint8_t bytes[2] = { KIND_LINK, up };

    if (replay_records(c->vm)) {
        replay_input(c->vm, c->source, bytes, sizeof(bytes));
    }
}

static void outer_recv_ready(struct net_port *p)
{
    struct record_nic *c = of_outer(p);

    if (!c->draining) { /* not from within a call of the card */
        c->draining = true;
        vm_post(c->vm, drain, c);
    }
}

/* ---- out ---- */

static void inner_writable(void *arg)
{
    struct record_nic *c = arg;

    while (!list_empty(&c->out)) {
        struct kept *k = list_entry(c->out.next, struct kept, link);

        if (deliver(c->inner, k->p, k->n, net_send) == -EAGAIN) {
            return;
        }
        drop(k);
        c->n_out--;
    }
    net_flush(c->inner);
}

static int outer_send(struct net_port *p, const struct net_frame *f)
{
    struct record_nic *c = of_outer(p);
    size_t n = NET_VHDR + f->len;
    AUTO_FREE uint8_t *bytes = xalloc(n);

    net_hdr_put(bytes, &f->hdr);
    net_frame_get(f, 0, bytes + NET_VHDR, f->len);
    replay_output(c->vm, c->source, bytes, n);
    if (!replay_records(c->vm)) {
        return 0;
    }
    if (!list_empty(&c->out) || net_send(c->inner, f) == -EAGAIN) {
        if (c->n_out < OUT_MAX) {
            keep(&c->out, bytes, n);
            c->n_out++;
        } else {
            log_trace('n', "%s: a frame of %zu bytes is dropped: no room", p->name, f->len);
        }
    }
    return 0;
}

static void outer_flush(struct net_port *p)
{
    if (replay_records(of_outer(p)->vm)) {
        net_flush(of_outer(p)->inner);
    }
}

static void outer_set_offloads(struct net_port *p, unsigned takes)
{
    if (of_outer(p)->inner) {
        net_set_offloads(of_outer(p)->inner, takes);
    }
}

/* ---- life ---- */

static void free_list(struct list *l)
{
    while (!list_empty(l)) {
        drop(list_entry(l->next, struct kept, link));
    }
}

static void outer_close(struct net_port *p)
{
    struct record_nic *c = of_outer(p);

    net_close(c->inner);
    free_list(&c->in);
    free_list(&c->out);
    net_port_done(p);
    free(c);
}

static const struct net_port_ops outer_ops = {
    .kind = "recorded",
    .send = outer_send,
    .flush = outer_flush,
    .recv_ready = outer_recv_ready,
    .set_offloads = outer_set_offloads,
    .close = outer_close,
};
static const struct net_front_ops inner_front = {
    .receive = inner_receive,
    .writable = inner_writable,
    .link = inner_link,
};

struct net_port *record_nic_new(struct vm *vm, const char *name, struct net_port *take_inner)
{
    struct record_nic *c = xnew(struct record_nic);
    AUTO_FREE char *source = xasprintf("nic:%s", name);

    net_port_init(&c->outer, &outer_ops, name, NET_OFF_ALL);
    c->inner = take_inner;
    c->vm = vm;
    list_init(&c->in);
    list_init(&c->out);
    c->source = replay_source(vm, source, on_tape, c);
    if (take_inner) {
        net_attach(take_inner, &inner_front, c);
        if (!take_inner->up) {
            inner_link(c, false);
        }
    }
    return &c->outer;
}
