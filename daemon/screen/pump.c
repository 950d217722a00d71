/* SPDX-License-Identifier: Apache-2.0 */
/* See pump.h. Owns its buffers and the watches of both descriptors. */
#include "daemon/screen/pump.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { SIZE = 16384, ROUNDS = 8 /* then others have their turn */ };

/* One way: from side[i] to side[!i]. */
struct way {
    char data[SIZE];
    size_t at, len;
    bool eof, dead; /* no more comes; nothing more is taken */
};

struct pump {
    int fd[2];
    struct loop_fd *watch[2];
    struct loop_timer *end;
    struct way way[2];
    void (*over)(void *arg);
    void *arg;
};

static bool read_some(struct way *w, int fd)
{
    ssize_t n = recv(fd, w->data, SIZE, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    w->eof = n <= 0;
    w->at = 0;
    w->len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool write_some(struct way *w, int fd)
{
    ssize_t n = send(fd, w->data + w->at, w->len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n >= 0) {
        w->at += (size_t)n;
        w->len -= (size_t)n;
        return true;
    }
    w->dead = errno != EAGAIN && errno != EINTR;
    return false;
}

static bool step(struct pump *p, int i)
{
    struct way *w = &p->way[i];
    bool moved = w->len == 0 && !w->eof && read_some(w, p->fd[i]);

    return (w->len > 0 && write_some(w, p->fd[!i])) || moved;
}

static bool is_over(const struct pump *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->way[i].dead || (p->way[i].eof && p->way[i].len == 0)) {
            return true;
        }
    }
    return false;
}

static void on_fd(void *arg, int fd, unsigned events)
{
    struct pump *p = arg;
    bool moved = true;

    (void)fd;
    (void)events;
    for (int round = 0; round < ROUNDS && moved && !is_over(p); round++) {
        moved = step(p, 0);
        moved |= step(p, 1);
    }
    if (is_over(p)) {
        loop_fd_set(p->watch[0], 0);
        loop_fd_set(p->watch[1], 0);
        loop_timer_arm(p->end, 0);
        return;
    }
    for (int i = 0; i < 2; i++) {
        loop_fd_set(p->watch[i], (p->way[i].len == 0 && !p->way[i].eof ? LOOP_READ : 0) |
                                     (p->way[!i].len ? LOOP_WRITE : 0));
    }
}

static void on_end(void *arg)
{
    struct pump *p = arg;

    p->over(p->arg);
}

struct pump *pump_new(struct loop *l, int a, int b, const void *first, size_t n_first,
                      void (*over)(void *arg), void *arg)
{
    struct pump *p = xnew(struct pump);

    p->fd[0] = a;
    p->fd[1] = b;
    p->over = over;
    p->arg = arg;
    p->way[0].len = n_first < SIZE ? n_first : SIZE;
    if (n_first) {
        memcpy(p->way[0].data, first, p->way[0].len);
    }
    p->end = loop_timer_new(l, on_end, p);
    p->watch[0] = loop_fd_new(l, a, LOOP_READ, on_fd, p);
    p->watch[1] = loop_fd_new(l, b, LOOP_READ | (n_first ? LOOP_WRITE : 0), on_fd, p);
    return p;
}

void pump_free(struct pump *p)
{
    if (p) {
        loop_fd_free(p->watch[0]);
        loop_fd_free(p->watch[1]);
        loop_timer_free(p->end);
        free(p);
    }
}
