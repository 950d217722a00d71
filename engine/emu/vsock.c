/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets between guest and host: the listening socket for calls to the guest, and the way of the guest's calls to the monitor, which
 * connects them. Owns struct emu_vsock. Main thread.
 */
#include "devices/misc/virtio_vsock.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/vsockcall.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 64

struct emu_vsock {
    struct emu *m;
    struct vsock_host host;
    int listen_fd, call_fd; /* or -1 */
    struct loop_fd *listener, *answers;
};

static struct device *vsock_device(const struct emu_vsock *s)
{
    return s->m->vm ? dev_find(s->m->vm, "vsock0") : NULL;
}

static void on_client(void *arg, int fd, unsigned events)
{
    struct emu_vsock *s = arg;
    struct device *d = vsock_device(s);
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (client >= 0 && d) {
        virtio_vsock_client(d, client);
    } else if (client >= 0) {
        close(client);
    }
}

static void on_answer(void *arg, int fd, unsigned events)
{
    struct emu_vsock *s = arg;
    struct device *d = vsock_device(s);
    struct vsock_call c;
    unsigned n = 1;
    AUTO_FD stream = -1;
    ssize_t got = fd_recv(fd, &c, sizeof(c), &stream, &n, NULL);

    (void)events;
    if (got == 0 || (got < 0 && got != -EAGAIN && got != -EINTR)) { /* the monitor is gone */
        loop_fd_free(s->answers);
        s->answers = NULL;
    } else if (got == sizeof(c) && d) {
        virtio_vsock_answer(d, c.ticket, n == 1 ? take_fd(&stream) : -1);
    }
}

struct refusal {
    struct emu_vsock *s;
    uint64_t ticket;
};

static void on_refuse(void *arg)
{
    struct refusal *r = arg;
    struct device *d = vsock_device(r->s);

    if (d) {
        virtio_vsock_answer(d, r->ticket, -1);
    }
    free(r);
}

static void on_call(void *arg, uint32_t port, uint64_t ticket)
{
    struct emu_vsock *s = arg;
    struct vsock_call c = { .ticket = ticket, .port = port };

    if (!s->answers ||
        send(s->call_fd, &c, sizeof(c), MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(c)) {
        struct refusal *r = xnew(struct refusal);

        *r = (struct refusal){ s, ticket };
        loop_post(s->m->loop, on_refuse, r);
    }
}

int vsock_new(struct emu *m, struct board_config *b, struct err *e)
{
    struct emu_vsock *s;

    if (!m->config.vsock) {
        return 0;
    }
    s = m->vsock = xnew(struct emu_vsock);
    s->m = m;
    s->host = (struct vsock_host){ on_call, s };
    s->listen_fd = take_fd(&m->opt.vsock_fd);
    s->call_fd = take_fd(&m->opt.vsock_call_fd);
    b->vsock = (struct board_vsock){ (uint64_t)m->config.vsock->cid, &s->host };
    if (s->listen_fd >= 0) {
        if (fd_set_nonblock(s->listen_fd, true, e) != 0 || listen(s->listen_fd, BACKLOG) != 0) {
            return err_errno(e, errno, "--vsock-fd: listen");
        }
        s->listener = loop_fd_new(m->loop, s->listen_fd, LOOP_READ, on_client, s);
    }
    if (s->call_fd >= 0) {
        s->answers = loop_fd_new(m->loop, s->call_fd, LOOP_READ, on_answer, s);
    }
    return 0;
}

void vsock_free(struct emu *m)
{
    struct emu_vsock *s = m->vsock;

    if (s) {
        loop_fd_free(s->listener);
        loop_fd_free(s->answers);
        fd_autoclose(&s->listen_fd);
        fd_autoclose(&s->call_fd);
        free(s);
        m->vsock = NULL;
    }
}
