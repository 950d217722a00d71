/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest forwards: a connection of ours for what a guest writes to an address of its network. The loop's thread.
 */
#include "network/server/guestfwd.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/server/user_parse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define OUT_MAX (256u << 10)

struct guestfwd {
    struct guestfwd *next;
    struct loop *loop;
    Slirp *slirp;
    struct user_forward f;
    int fd; /* -1: no connection */
    struct loop_fd *watch;
    bool connecting, readable;
    struct buf out;
};

static void hang_up(struct guestfwd *g)
{
    loop_fd_free(g->watch);
    g->watch = NULL;
    if (g->fd >= 0) {
        close(g->fd);
    }
    g->fd = -1;
    g->connecting = g->readable = false;
    buf_done(&g->out);
}

static void update(struct guestfwd *g)
{
    if (g->watch) {
        loop_fd_set(g->watch, (g->readable ? 0 : LOOP_READ) |
                                  (g->connecting || g->out.len ? LOOP_WRITE : 0));
    }
}

static void write_out(struct guestfwd *g)
{
    while (g->out.len > 0) {
        ssize_t n = send(g->fd, g->out.data, g->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0) {
            log_trace('n', "guest forward: %s", strerror(errno));
            hang_up(g);
            return;
        }
        buf_consume(&g->out, (size_t)n);
    }
}

static void on_ready(void *arg, int fd, unsigned events)
{
    struct guestfwd *g = arg;

    (void)fd;
    if (events & LOOP_WRITE) {
        g->connecting = false;
        write_out(g);
    }
    g->readable = g->readable || (events & LOOP_READ);
    update(g);
    guestfwd_run(g);
}

static int dial(struct guestfwd *g)
{
    g->fd = socket(g->f.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (g->fd < 0) {
        return -errno;
    }
    if (connect(g->fd, (struct sockaddr *)&g->f.to, g->f.to_len) < 0 && errno != EINPROGRESS) {
        int why = errno;

        hang_up(g);
        return -why;
    }
    g->connecting = true;
    g->watch = loop_fd_new(g->loop, g->fd, LOOP_READ | LOOP_WRITE, on_ready, g);
    return 0;
}

/* libslirp: the guest has written. */
static ssize_t on_write(const void *bytes, size_t n, void *opaque)
{
    struct guestfwd *g = opaque;

    if (g->out.len + n > OUT_MAX || (g->fd < 0 && dial(g) < 0)) {
        return -1; /* which resets the guest's connection */
    }
    buf_add(&g->out, bytes, n);
    if (!g->connecting) {
        write_out(g);
    }
    update(g);
    return (ssize_t)n;
}

static void read_in(struct guestfwd *g)
{
    struct sockaddr_in *from = (struct sockaddr_in *)&g->f.from;
    uint8_t bytes[16384];

    for (;;) {
        size_t room = slirp_socket_can_recv(g->slirp, from->sin_addr, ntohs(from->sin_port));
        ssize_t n;

        if (room == 0) {
            return; /* libslirp notifies when there is some */
        }
        n = recv(g->fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            g->readable = false;
            return;
        }
        if (n <= 0) {
            hang_up(g);
            return;
        }
        slirp_socket_recv(g->slirp, from->sin_addr, ntohs(from->sin_port), bytes, (int)n);
    }
}

void guestfwd_run(struct guestfwd *list)
{
    for (struct guestfwd *g = list; g; g = g->next) {
        if (g->readable && g->fd >= 0) {
            read_in(g);
            update(g);
        }
    }
}

int guestfwd_add(struct guestfwd **list, struct loop *l, Slirp *slirp,
                 const struct user_forward *f, struct err *e)
{
    const struct sockaddr_in *from = (const struct sockaddr_in *)&f->from;
    struct in_addr address = from->sin_addr;
    struct guestfwd *g;

    if (f->from.ss_family != AF_INET) {
        return err_set(e, -EINVAL, "the guest's address must be of IPv4");
    }
    g = xnew(struct guestfwd);
    g->loop = l;
    g->slirp = slirp;
    g->f = *f;
    g->fd = -1;
    if (slirp_add_guestfwd(slirp, on_write, g, &address, ntohs(from->sin_port)) < 0) {
        free(g);
        return err_set(e, -EINVAL,
                       "the address is not one of the guest's network, or is taken");
    }
    g->next = *list;
    *list = g;
    return 0;
}

void guestfwd_free(struct guestfwd *list)
{
    while (list) {
        struct guestfwd *next = list->next;

        hang_up(list);
        free(list);
        list = next;
    }
}
