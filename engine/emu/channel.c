/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: ports of the VM's virtio-serial device, each with a unix socket that one client at a time connects to. Nothing is
 * kept for a client that is not there: what the guest writes then is lost, as the device tells it. Bytes of either side
 * wait while the other has no room. Owns the sockets. Main thread, but for `opened` and `accept` of the stream.
 */
#include "api-schema/rpc/call.h"
#include "devices/board/board.h"
#include "devices/char/chr.h"
#include "devices/char/virtio_serial.h"
#include "devices/registry.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536
#define TURNS 16                  /* pieces of input handed over before others get a turn */
#define TELL_NS INT64_C(20000000) /* from one change that is told to the next */

struct channel {
    struct chr chr;
    struct emu *m;
    char *name;
    bool console;
    int listen_fd, fd; /* fd -1: nobody is there */
    struct loop_fd *listener, *watch;
    bool starved; /* the guest was refused bytes */
    bool broken;  /* the client is gone, and is to be dropped */
    bool gone;    /* detached; to be freed */
    _Atomic bool open;
    _Atomic bool posted;
    bool told;
    struct loop_timer *tell;
};

struct emu_channels {
    struct channel *all[BOARD_MAX_SERIAL];
    unsigned n;
    struct device *device; /* NULL: there is none yet */
};

/* --- the client --- */

static void hang_up(struct channel *c)
{
    if (c->fd < 0) {
        return;
    }
    loop_fd_free(c->watch);
    c->watch = NULL;
    fd_autoclose(&c->fd);
    c->fd = -1;
    c->broken = false;
    chr_connected(&c->chr, false);
    if (c->starved && c->chr.front) {
        c->starved = false;
        c->chr.front->writable(c->chr.front_arg);
    }
}

static void watch(struct channel *c, bool room)
{
    if (c->fd >= 0) {
        loop_fd_set(c->watch, (room ? LOOP_READ : 0) | (c->starved ? LOOP_WRITE : 0));
    }
}

/* Gives the guest what the client sent, as far as it has room. */
static void pump(struct channel *c)
{
    const struct chr_front_ops *f = c->chr.front;
    uint8_t bytes[CHUNK];

    for (unsigned turn = 0; turn < TURNS && c->fd >= 0 && f; turn++) {
        size_t room = f->room(c->chr.front_arg);
        ssize_t n;

        if (room == 0) {
            watch(c, false); /* chan_accept goes on */
            return;
        }
        n = recv(c->fd, bytes, room < CHUNK ? room : CHUNK, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            hang_up(c);
            return;
        }
        if (n < 0) {
            break;
        }
        f->receive(c->chr.front_arg, bytes, (size_t)n);
    }
    watch(c, true);
}

static void on_client(void *arg, int fd, unsigned events)
{
    struct channel *c = arg;

    (void)fd;
    if ((events & LOOP_WRITE) && c->starved) {
        c->starved = false;
        watch(c, true);
        if (c->chr.front) {
            c->chr.front->writable(c->chr.front_arg);
        }
    }
    if (events & LOOP_READ) {
        pump(c);
    }
}

/* One that left while the guest did not listen went unnoticed. */
static bool has_left(const struct channel *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLRDHUP));
}

static void on_connect(void *arg, int fd, unsigned events)
{
    struct channel *c = arg;
    int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (s < 0) {
        return;
    }
    if (c->fd >= 0 && has_left(c) && !atomic_load(&c->open)) {
        hang_up(c);
    }
    if (c->fd >= 0) {
        log_debug("emu", "channel '%s' is in use, another client is turned away", c->name);
        close(s);
        return;
    }
    c->fd = s;
    c->watch = loop_fd_new(c->m->loop, s, LOOP_READ, on_client, c);
    chr_connected(&c->chr, true);
}

/* --- the device's side --- */

static void on_posted(void *arg);

static void post(struct channel *c)
{
    if (!atomic_exchange(&c->posted, true)) {
        loop_post(c->m->loop, on_posted, c);
    }
}

static void tell_change(void *arg)
{
    struct channel *c = arg;
    bool open = atomic_load(&c->open);

    if (c->told != open && !c->gone) {
        c->told = open;
        control_channel(c->m, c->name, open);
        loop_timer_arm(c->tell, TELL_NS);
    }
}

static void on_posted(void *arg)
{
    struct channel *c = arg;

    atomic_store(&c->posted, false);
    if (c->gone) {
        return;
    }
    if (c->broken) {
        hang_up(c);
    }
    if (c->told != atomic_load(&c->open) && !c->tell) {
        c->tell = loop_timer_new(c->m->loop, tell_change, c);
        tell_change(c);
    } else if (c->told != atomic_load(&c->open)) {
        loop_timer_arm(c->tell, TELL_NS);
    }
    pump(c);
}

/* On the main loop, with the device's lock held: a client that is gone is dropped later. */
static size_t chan_write(struct chr *chr, const uint8_t *p, size_t n)
{
    struct channel *c = container_of(chr, struct channel, chr);
    size_t done = 0;

    while (c->fd >= 0 && !c->broken && done < n) {
        ssize_t k = send(c->fd, p + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (k >= 0) {
            done += (size_t)k;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            c->starved = true;
            loop_fd_set(c->watch, LOOP_READ | LOOP_WRITE);
            return done;
        } else if (errno != EINTR) {
            c->broken = true;
            post(c);
        }
    }
    return n;
}

static void chan_accept(struct chr *chr)
{
    post(container_of(chr, struct channel, chr));
}

static void chan_opened(struct chr *chr, bool yes)
{
    struct channel *c = container_of(chr, struct channel, chr);

    atomic_store(&c->open, yes);
    post(c);
}

static const struct chr_back_ops chan_ops = {
    .write = chan_write,
    .accept = chan_accept,
    .opened = chan_opened,
};

/* --- making and ending --- */

static void channel_free(struct channel *c)
{
    loop_timer_free(c->tell);
    loop_fd_free(c->listener);
    loop_fd_free(c->watch);
    fd_autoclose(&c->fd);
    fd_autoclose(&c->listen_fd);
    free(c->name);
    free(c);
}

static struct channel *find(const struct emu *m, const char *name)
{
    for (unsigned i = 0; m->channels && i < m->channels->n; i++) {
        if (strcmp(m->channels->all[i]->name, name) == 0) {
            return m->channels->all[i];
        }
    }
    return NULL;
}

/* Takes the socket, also when it fails; -1: nobody will ever connect. */
static int channel_new(struct emu *m, const char *name, bool console, int take_sock,
                       bool listens, struct channel **out, struct err *e)
{
    AUTO_FD fd = take_sock;
    struct channel *c;
    int rc;

    if (find(m, name)) {
        return err_set(e, -EEXIST, "there is a channel '%s' already", name);
    }
    if (m->channels->n >= BOARD_MAX_SERIAL) {
        return err_set(e, -ENOSPC, "it has %d channels already", BOARD_MAX_SERIAL);
    }
    rc = fd >= 0 ? fd_set_nonblock(fd, true, e) : 0;
    if (rc == 0 && fd >= 0 && !listens && listen(fd, 8) != 0) {
        rc = err_errno(e, errno, "channel '%s': listen", name);
    }
    if (rc != 0) {
        return rc;
    }
    c = xnew(struct channel);
    *c = (struct channel){ .m = m,
                           .chr = { .back = &chan_ops },
                           .name = xstrdup(name),
                           .console = console,
                           .listen_fd = take_fd(&fd),
                           .fd = -1 };
    if (c->listen_fd >= 0) {
        c->listener = loop_fd_new(m->loop, c->listen_fd, LOOP_READ, on_connect, c);
    }
    m->channels->all[m->channels->n++] = c;
    *out = c;
    return 0;
}

static int given_socket(struct emu *m, const char *name)
{
    for (unsigned i = 0; i < m->opt.n_channels; i++) {
        if (m->opt.channels[i].fd >= 0 && strcmp(m->opt.channels[i].path, name) == 0) {
            return take_fd(&m->opt.channels[i].fd);
        }
    }
    return -1;
}

static int open_one(struct emu *m, const char *name, bool console, struct board_config *b,
                    struct err *e)
{
    int fd = given_socket(m, name), rc;
    struct channel *c = NULL;

    if (fd < 0 && m->opt.config_fd >= 0) {
        return err_set(e, -ENOENT, "channel '%s' was not passed with --channel", name);
    }
    rc = channel_new(m, name, console, fd, false, &c, e);
    if (rc == 0) {
        b->serial[b->n_serial++] = (struct board_serial){ .name = c->name,
                                                          .chr = &c->chr,
                                                          .console = console };
    }
    return rc;
}

int channels_open(struct emu *m, struct board_config *b, struct err *e)
{
    int rc = 0;

    m->channels = xnew(struct emu_channels);
    *m->channels = (struct emu_channels){ .n = 0 };
    for (size_t i = 0; i < m->config.n_channels && rc == 0; i++) {
        const struct api_channel *c = &m->config.channels[i];

        rc = c->name ? open_one(m, c->name, c->console, b, e)
                     : err_set(e, -EINVAL, "channel %zu has no name", i);
    }
    if (rc == 0 && m->config.agent) {
        rc = open_one(m, AGENT_CHANNEL, false, b, e);
    }
    return rc;
}

void channels_built(struct emu *m)
{
    m->channels->device = m->board_class->serial ? m->board_class->serial(m->board) : NULL;
}

void channels_set_running(struct emu *m)
{
    for (unsigned i = 0; m->channels && i < m->channels->n; i++) {
        post(m->channels->all[i]);
    }
}

void channels_free(struct emu *m)
{
    while (m->channels && m->channels->n > 0) {
        channel_free(m->channels->all[--m->channels->n]);
    }
    free(m->channels);
    m->channels = NULL;
}

/* --- methods --- */

void api_handle_emu_channels(struct api_call *call, struct api_emu_channels_in *in)
{
    struct emu *m = control_emu(call);
    struct api_emu_channel list[BOARD_MAX_SERIAL];
    struct api_emu_channels_out out = { .channels = list, .n_channels = m->channels->n };

    (void)in;
    for (unsigned i = 0; i < m->channels->n; i++) {
        struct channel *c = m->channels->all[i];

        list[i] = (struct api_emu_channel){ .name = c->name,
                                            .console = c->console,
                                            .open = atomic_load(&c->open),
                                            .connected = c->fd >= 0 };
    }
    api_reply_emu_channels(call, &out);
}

static void refuse(struct api_call *call, int rc, const char *name, const struct err *e)
{
    api_fail_err(call,
                 rc == -EEXIST    ? API_E_EXISTS
                 : rc == -ENOENT  ? API_E_NOT_FOUND
                 : rc == -ENOSPC  ? API_E_HOST_LIMIT
                 : rc == -ENOTSUP ? API_E_UNSUPPORTED
                                  : API_E_INVALID_PARAMS,
                 name, NULL, e);
}

static void drop(struct emu_channels *l, struct channel *c)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (l->all[i] == c) {
            memmove(&l->all[i], &l->all[i + 1], (--l->n - i) * sizeof(l->all[0]));
            return;
        }
    }
}

/* After what was posted about it. */
static void free_later(void *arg)
{
    channel_free(arg);
}

void api_handle_emu_channel_add(struct api_call *call, struct api_emu_channel_add_in *in)
{
    struct emu *m = control_emu(call);
    struct channel *c = NULL;
    struct err e = ERR_INIT;
    int fd = control_passed_fd(call);
    int rc = fd >= 0 ? channel_new(m, in->name, in->console, fd, true, &c, &e)
                     : err_set(&e, -EINVAL, "no descriptor came with the call");

    if (rc == 0 && !m->channels->device) {
        rc = hotplug_new_serial(m, &m->channels->device, &e);
    }
    if (rc == 0) {
        rc = virtio_serial_add(m->channels->device, c->name, c->console, &c->chr, &e);
    }
    if (rc != 0) {
        if (c) {
            drop(m->channels, c);
            channel_free(c);
        }
        refuse(call, rc, in->name, &e);
        return;
    }
    hotplug_came(m, "channel", c->name);
    api_reply_emu_channel_add(call);
}

void api_handle_emu_channel_remove(struct api_call *call, struct api_emu_channel_remove_in *in)
{
    struct emu *m = control_emu(call);
    struct channel *c = find(m, in->name);
    struct err e = ERR_INIT;
    int rc = c ? virtio_serial_remove(m->channels->device, in->name, &e)
               : err_set(&e, -ENOENT, "it has no channel '%s'", in->name);

    if (rc != 0) {
        refuse(call, rc, in->name, &e);
        return;
    }
    hotplug_went(m, "channel", c->name);
    drop(m->channels, c);
    c->gone = true;
    hang_up(c);
    loop_post(m->loop, free_later, c);
    api_reply_emu_channel_remove(call);
}

void api_handle_emu_channel_resize(struct api_call *call, struct api_emu_channel_resize_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    int rc = m->channels->device
                 ? virtio_serial_resize(m->channels->device, in->name, (uint16_t)in->columns,
                                        (uint16_t)in->rows, &e)
                 : err_set(&e, -ENOENT, "it has no console '%s'", in->name);

    if (rc != 0) {
        refuse(call, rc, in->name, &e);
        return;
    }
    api_reply_emu_channel_resize(call);
}
