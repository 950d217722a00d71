/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One viewer: asked for its proof (rfb.h), put into TLS where that was agreed, then connected with the VM's own socket. Owns its
 * descriptors, tunnel and pump. Loop thread.
 *
 * Bounds: VNC_ASKED_MAX of each VM that are asked at a time, none of them from an address that was wrong too often; ASK_NS for all
 * before it is let in; a wrong answer is answered after WRONG_NS, so that many addresses together guess slowly, too.
 */
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/screen/pump.h"
#include "daemon/screen/vnc_int.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK_NS INT64_C(15000000000)
#define WRONG_NS INT64_C(1000000000)
#define LEAVE_NS INT64_C(2000000000)

/* What the emulator says to one who wants no security: its version, its one type, that it is content. */
static const uint8_t greeting[] = "RFB 003.008\n\1\1\0\0\0";
enum { GREETING = sizeof(greeting) };

static const char too_many[] =
    "too many wrong passwords came from this address: try again later";

enum phase { ASKING, SECURING, WRONG, GREETED, PUMPING, LEAVING };

struct vnc_guest {
    struct list link;
    struct vnc_door *o;
    enum phase phase;
    int fd; /* the viewer's; inside TLS the end of a pair whose other end the tunnel has */
    struct loop_fd *watch;
    struct loop_timer *timer;
    struct tunnel *tunnel;
    struct rfb rfb;
    struct buf in, out;
    int emu;
    struct loop_fd *emu_watch;
    uint8_t got[GREETING];
    size_t n_got;
    struct pump *pump;
    char host[56], address[80];
    const char *why; /* told when WRONG is over */
};

struct vnc_guest *vnc_guest_of(struct list *link)
{
    return list_entry(link, struct vnc_guest, link);
}

void vnc_guest_free(struct vnc_guest *g)
{
    list_remove(&g->link);
    g->o->n_guests--;
    pump_free(g->pump);
    loop_fd_free(g->watch);
    loop_fd_free(g->emu_watch);
    loop_timer_free(g->timer);
    tunnel_free(g->tunnel);
    fd_autoclose(&g->fd);
    fd_autoclose(&g->emu);
    rfb_forget(&g->rfb);
    buf_done(&g->in);
    buf_done(&g->out);
    free(g);
}

/* Everything there is to say is short enough for any socket's buffer: one that does not take it has a viewer that does not read. */
static bool flush(struct vnc_guest *g)
{
    ssize_t n = g->out.len ? send(g->fd, g->out.data, g->out.len, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : 0;
    bool all = n >= 0 && (size_t)n == g->out.len;

    buf_consume(&g->out, g->out.len);
    return all;
}

/* Says what is to be said and waits a while until the viewer has read it. */
static void leave(struct vnc_guest *g)
{
    flush(g);
    shutdown(g->fd, SHUT_WR);
    g->phase = LEAVING;
    loop_timer_arm(g->timer, LEAVE_NS);
    loop_fd_set(g->watch, LOOP_READ);
}

static void refuse(struct vnc_guest *g, const char *why)
{
    AUTO_FREE char *text = xasprintf("VM '%s': %s", g->o->vm->config.name, why);

    doors_refuse(g->o->d->doors, g->address, "vnc.connect", text);
    leave(g);
}

/* ---- let in ---- */

static void on_over(void *arg)
{
    struct vnc_guest *g = arg;

    vnc_guest_free(g);
}

static void on_greeting(void *arg, int fd, unsigned events)
{
    struct vnc_guest *g = arg;
    ssize_t n = recv(fd, g->got + g->n_got, GREETING - g->n_got, MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    g->n_got += n > 0 ? (size_t)n : 0;
    if (n <= 0 || memcmp(g->got, greeting, g->n_got) != 0) {
        log_warn("vnc", "VM '%s': its screen turned a viewer away", g->o->vm->config.name);
        leave(g);
        loop_fd_free(g->emu_watch);
        g->emu_watch = NULL;
        return;
    }
    if (g->n_got == GREETING) {
        loop_fd_free(g->emu_watch);
        loop_fd_free(g->watch);
        g->emu_watch = g->watch = NULL;
        loop_timer_disarm(g->timer);
        g->phase = PUMPING;
        g->pump = pump_new(g->o->d->loop, g->fd, g->emu, g->in.data, g->in.len, on_over, g);
        buf_done(&g->in);
    }
}

static void enter(struct vnc_guest *g)
{
    static const char hello[] = "RFB 003.008\n\1";
    struct err e = ERR_INIT;
    AUTO_FREE char *path = runfs_path(&g->o->d->opt, g->o->vm->id, VM_VNC);
    const char *user = g->rfb.user[0] ? g->rfb.user : "viewer";
    AUTO_FREE char *who = xasprintf("%s@%s", user, g->address);

    guard_right(&g->o->guard, g->host);
    g->emu = unix_connect_now(path, &e);
    if (g->emu < 0 || !flush(g) ||
        send(g->emu, hello, sizeof(hello) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) !=
            (ssize_t)sizeof(hello) - 1) {
        g->emu = g->emu < 0 ? -1 : g->emu;
        log_warn("vnc", "VM '%s': a viewer cannot be connected: %s", g->o->vm->config.name,
                 e.code ? e.msg : "it does not read");
        leave(g);
        return;
    }
    access_audit(g->o->d, who, "vnc.connect", g->o->vm->config.name, "ok");
    rfb_forget(&g->rfb);
    g->phase = GREETED;
    loop_fd_set(g->watch, 0);
    g->emu_watch = loop_fd_new(g->o->d->loop, g->emu, LOOP_READ, on_greeting, g);
}

/* ---- asked ---- */

static void secure(struct vnc_guest *g);

static enum rfb_next judge(struct vnc_guest *g)
{
    bool asked = guard_open(&g->o->guard, g->host, time_mono_ns());
    const char *why = asked ? vnc_judge(g->o, &g->rfb) : too_many;

    rfb_forget(&g->rfb);
    if (!why) {
        return rfb_verdict(&g->rfb, NULL, &g->out);
    }
    if (asked) {
        guard_wrong(&g->o->guard, g->host, time_mono_ns());
    }
    g->why = why;
    g->phase = WRONG;
    loop_fd_set(g->watch, 0);
    loop_timer_arm(g->timer, WRONG_NS);
    return RFB_MORE;
}

/* False when the viewer is no longer asked. */
static bool act(struct vnc_guest *g, enum rfb_next next)
{
    if (next == RFB_JUDGE) {
        next = judge(g);
    }
    switch (next) {
    case RFB_IN:
        enter(g);
        return false;
    case RFB_OUT:
        refuse(g, g->rfb.why);
        return false;
    case RFB_SECURE:
        secure(g);
        return false;
    default:
        if (!flush(g)) {
            refuse(g, "it does not read");
            return false;
        }
        return g->phase == ASKING;
    }
}

static void digest(struct vnc_guest *g)
{
    size_t used = 1;

    while (g->phase == ASKING && g->in.len > 0 && used > 0) {
        enum rfb_next next = rfb_feed(&g->rfb, (const uint8_t *)g->in.data, g->in.len, &used,
                                      &g->out);
        buf_consume(&g->in, used);
        if (!act(g, next)) {
            return;
        }
    }
}

static void on_viewer(void *arg, int fd, unsigned events)
{
    struct vnc_guest *g = arg;
    char bytes[RFB_INPUT_MAX];
    size_t room = sizeof(bytes) - (g->in.len < sizeof(bytes) ? g->in.len : sizeof(bytes));
    ssize_t n = recv(fd, bytes, g->phase == LEAVING ? sizeof(bytes) : room, MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        if (g->phase != LEAVING) {
            doors_refuse(g->o->d->doors, g->address, "vnc.connect",
                         "it ended before it was let in");
        }
        vnc_guest_free(g);
        return;
    }
    if (g->phase == ASKING) {
        buf_add(&g->in, bytes, (size_t)n);
        digest(g);
    }
}

/* ---- TLS ---- */

static void on_ready(void *arg, struct tunnel *t)
{
    struct vnc_guest *g = arg;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        tunnel_finish(t);
        return;
    }
    tunnel_attach(t, pair[0]);
    g->fd = pair[1];
    g->watch = loop_fd_new(g->o->d->loop, g->fd, LOOP_READ, on_viewer, g);
    g->phase = ASKING;
    act(g, rfb_secured(&g->rfb, &g->out));
}

static void on_closed(void *arg, struct tunnel *t, const struct err *why)
{
    struct vnc_guest *g = arg;

    (void)t;
    if (g->phase != PUMPING && g->phase != LEAVING) {
        doors_refuse(g->o->d->doors, g->address, "vnc.connect",
                     why->code ? why->msg : "it ended before it was let in");
    }
    vnc_guest_free(g);
}

static const struct tunnel_ops tunnel_ops = { .ready = on_ready, .closed = on_closed };

static void secure(struct vnc_guest *g)
{
    struct err e = ERR_INIT;

    if (g->in.len > 0) { /* what was said before TLS must not be taken for said inside */
        refuse(g, "it speaks before it is asked");
        return;
    }
    struct ssl_st *ssl = flush(g) ? doors_accept_viewer(g->o->d->doors, g->fd, &e) : NULL;
    if (!ssl) {
        refuse(g, e.code ? e.msg : "it does not read");
        return;
    }
    loop_fd_free(g->watch);
    g->watch = NULL;
    g->phase = SECURING;
    g->tunnel = tunnel_new(g->o->d->loop, take_fd(&g->fd), ssl, ASK_NS, true, &tunnel_ops, g);
}

/* ---- begin ---- */

static void on_timer(void *arg)
{
    struct vnc_guest *g = arg;

    if (g->phase == WRONG) {
        rfb_verdict(&g->rfb, g->why, &g->out);
        refuse(g, g->why);
        return;
    }
    if (g->phase != LEAVING) {
        doors_refuse(g->o->d->doors, g->address, "vnc.connect",
                     "it did not say in time who it is");
    }
    vnc_guest_free(g);
}

/* One who only connects cannot shut the door for others: the oldest of those who have proved nothing gives way. How many are let in
 * the emulator bounds. */
static void make_room(struct vnc_door *o)
{
    struct vnc_guest *oldest = NULL;
    unsigned n = 0;

    list_for_each (it, &o->guests) {
        struct vnc_guest *g = vnc_guest_of(it);

        if (g->phase != PUMPING) {
            oldest = oldest ? oldest : g;
            n++;
        }
    }
    if (n >= VNC_ASKED_MAX) {
        doors_refuse(o->d->doors, oldest->address, "vnc.connect",
                     "it gave way: too many have not said who they are");
        vnc_guest_free(oldest);
    }
}

void vnc_guest_new(struct vnc_door *o, int owned_fd, const char *host, const char *address)
{
    uint8_t challenge[RFB_CHALLENGE];
    AUTO_FD fd = owned_fd;

    if (getrandom(challenge, sizeof(challenge), 0) != (ssize_t)sizeof(challenge)) {
        return;
    }
    make_room(o);
    struct vnc_guest *g = xnew(struct vnc_guest);
    g->o = o;
    g->emu = -1;
    g->fd = take_fd(&fd);
    str_copy(g->host, sizeof(g->host), host);
    str_copy(g->address, sizeof(g->address), address);
    list_append(&o->guests, &g->link);
    o->n_guests++;
    g->timer = loop_timer_new(o->d->loop, on_timer, g);
    g->watch = loop_fd_new(o->d->loop, g->fd, LOOP_READ, on_viewer, g);
    loop_timer_arm(g->timer, ASK_NS);
    rfb_begin(&g->rfb, o->security,
              guard_open(&o->guard, host, time_mono_ns()) ? NULL : too_many, challenge,
              &g->out);
    if (!flush(g)) {
        vnc_guest_free(g);
    }
}
