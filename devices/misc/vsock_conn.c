/* SPDX-License-Identifier: Apache-2.0 */
/* See vsock_conn.h. */
#include "devices/misc/vsock_conn.h"

#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void on_ready(void *arg, int fd, unsigned events)
{
    struct vsock_conn *c = arg;

    (void)fd;
    if (events & LOOP_READ) {
        c->readable = true;
    }
    c->changed(c);
}

void vsock_conn_take(struct vsock_conn *c, struct loop *l, int take_fd)
{
    c->fd = take_fd;
    c->events = 0;
    c->watch = loop_fd_new(l, take_fd, 0, on_ready, c);
    vsock_conn_watch(c);
}

struct vsock_conn *vsock_conn_new(struct loop *l, int take_fd, enum vsock_state state,
                                  void (*changed)(struct vsock_conn *), void *owner)
{
    struct vsock_conn *c = xnew(struct vsock_conn);

    list_init(&c->node);
    c->state = state;
    c->changed = changed;
    c->owner = owner;
    c->fd = -1;
    if (take_fd >= 0) {
        vsock_conn_take(c, l, take_fd);
    }
    return c;
}

void vsock_conn_free(struct vsock_conn *c)
{
    if (!c) {
        return;
    }
    list_remove(&c->node);
    loop_fd_free(c->watch);
    fd_autoclose(&c->fd);
    free(c->room);
    free(c);
}

/* What is ready is asked for only while there is something to do with it: readiness is told again and again. */
void vsock_conn_watch(struct vsock_conn *c)
{
    bool reads = c->state == VSOCK_GREETING ||
                 (c->state == VSOCK_OPEN && !c->eof && vsock_conn_credit(c) > 0);
    unsigned events = (reads && !c->readable && !c->broken ? LOOP_READ : 0) |
                      (c->waiting > 0 && !c->broken ? LOOP_WRITE : 0);

    if (c->watch && events != c->events) {
        c->events = events;
        loop_fd_set(c->watch, events);
    }
}

int vsock_conn_greeting(struct vsock_conn *c, uint32_t *port)
{
    static const char word[] = "CONNECT ";
    uint64_t value;

    c->readable = false;
    while (c->n_line < sizeof(c->line) - 1) {
        char ch;
        ssize_t n = recv(c->fd, &ch, 1,
                         MSG_DONTWAIT); /* no byte of the stream behind the line */

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return 0;
        }
        if (n <= 0) {
            return -1;
        }
        if (ch != '\n') {
            c->line[c->n_line++] = ch;
            continue;
        }
        c->line[c->n_line] = 0;
        if (strncmp(c->line, word, sizeof(word) - 1) != 0 ||
            str_to_u64(c->line + sizeof(word) - 1, 0, UINT32_MAX, "port", &value, NULL) != 0) {
            return -1;
        }
        *port = (uint32_t)value;
        return 1;
    }
    return -1;
}

void vsock_conn_ok(struct vsock_conn *c)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

    /* A fresh socket has room for a line. */
    c->broken |= send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n;
}

bool vsock_conn_put(struct vsock_conn *c, const uint8_t *p, uint32_t n)
{
    if (n > VSOCK_ROOM - c->waiting) {
        return false;
    }
    c->room = c->room ? c->room : xalloc(VSOCK_ROOM);
    for (uint32_t done = 0; done < n;) {
        uint32_t at = (c->first + c->waiting) % VSOCK_ROOM, part = VSOCK_ROOM - at;

        part = part < n - done ? part : n - done;
        memcpy(c->room + at, p + done, part);
        c->waiting += part;
        done += part;
    }
    return true;
}

void vsock_conn_flush(struct vsock_conn *c)
{
    while (c->waiting > 0 && c->fd >= 0 && !c->broken) {
        uint32_t part = VSOCK_ROOM - c->first < c->waiting ? VSOCK_ROOM - c->first : c->waiting;
        ssize_t n = send(c->fd, c->room + c->first, part, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            c->broken = errno != EAGAIN;
            break;
        }
        c->first = (c->first + (uint32_t)n) % VSOCK_ROOM;
        c->waiting -= (uint32_t)n;
        c->taken += (uint32_t)n;
    }
    if (c->waiting == 0 && (c->guest_shut & VSOCK_NO_SEND) && !c->shut && c->fd >= 0) {
        c->shut = true;
        (void)shutdown(c->fd, SHUT_WR);
    }
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
    uint32_t under_way = c->sent - c->peer_taken;

    return c->peer_room > under_way ? c->peer_room - under_way : 0;
}
