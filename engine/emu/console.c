/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console hub. Owns the readers, the backlog and the log file. `lock` protects `pending`
 * and the flags beside it, which the device's side shares; all else belongs to the main thread.
 */
#include "engine/emu/console.h"

#include "devices/char/chr.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 65536
#define PENDING_MAX 65536       /* output the main thread has not picked up yet */
#define CLIENT_QUEUE_MAX 262144 /* a client behind by more is dropped */
#define STDOUT_QUEUE_MAX 65536
#define INPUT_QUEUE_MAX 4096
#define MAX_CLIENTS 32
#define LOG_MAX (64ll << 20) /* then the log file begins anew */
#define FLUSH_CLIENTS_MS 2000
#define ESCAPE 0x1d /* Ctrl-] */

struct client {
    struct list node;
    struct console *owner;
    int fd;
    struct loop_fd *watch;
    struct buf out;
    bool eof; /* sends no more; still reads */
};

struct console {
    struct chr chr;
    struct loop *loop;

    pthread_mutex_t lock;
    struct buf pending;
    bool distributing; /* a distribution is posted */
    bool starved;      /* the device was refused bytes: tell it when there is room */
    bool unbounded;    /* the end: take everything */

    _Atomic bool input_waiting; /* input is queued: the device may ask for it */
    _Atomic bool pumping;       /* a pump is posted */
    bool running;
    struct buf input;
    struct list clients;
    unsigned n_clients;
    int listen_fd;
    struct loop_fd *listener;
    char backlog[BACKLOG]; /* ring */
    uint64_t written;      /* bytes ever put into it */
    uint64_t taken;        /* bytes ever given to the device */
    int log_fd;
    bool log_rotates, log_failing;

    bool stdio, stdin_open, stdout_open, tty;
    struct termios tty_before;
    struct loop_fd *in_watch, *out_watch;
    struct buf out;
    void (*quit)(void *arg);
    void *quit_arg;
};

static void console_distribute(struct console *c);
static void console_pump(struct console *c);
static void watch_inputs(struct console *c);

/* --- the device's side, any thread
 * ----------------------------------------------------------- */

static void on_distribute(void *arg)
{
    struct console *c = arg;

    pthread_mutex_lock(&c->lock);
    c->distributing = false;
    pthread_mutex_unlock(&c->lock);
    console_distribute(c);
}

static size_t hub_write(struct chr *chr, const uint8_t *p, size_t n)
{
    struct console *c = container_of(chr, struct console, chr);
    size_t room;
    bool post;

    pthread_mutex_lock(&c->lock);
    room = c->unbounded ? n : PENDING_MAX - c->pending.len;
    if (n > room) {
        n = room;
        c->starved = true;
    }
    buf_add(&c->pending, p, n);
    post = !c->distributing;
    c->distributing = true;
    pthread_mutex_unlock(&c->lock);
    if (post) {
        loop_post(c->loop, on_distribute, c);
    }
    return n;
}

static void on_pump(void *arg)
{
    struct console *c = arg;

    atomic_store(&c->pumping, false);
    console_pump(c);
}

static void hub_accept(struct chr *chr)
{
    struct console *c = container_of(chr, struct console, chr);

    if (atomic_load(&c->input_waiting) && !atomic_exchange(&c->pumping, true)) {
        loop_post(c->loop, on_pump, c);
    }
}

static const struct chr_back_ops hub_ops = {
    .write = hub_write,
    .accept = hub_accept,
};

/* --- log file
 * -------------------------------------------------------------------------------- */

static void log_output(struct console *c, const char *p, size_t n)
{
    struct err e = ERR_INIT;
    int rc;

    if (c->log_fd < 0) {
        return;
    }
    if (c->log_rotates && lseek(c->log_fd, 0, SEEK_END) > LOG_MAX &&
        ftruncate(c->log_fd, 0) == 0) {
        (void)lseek(c->log_fd, 0, SEEK_SET);
    }
    rc = fd_write_all(c->log_fd, p, n, "the console log", &e);
    if (rc != 0 && !c->log_failing) {
        log_warn("emu", "%s; its output is missing there until it can be written again", e.msg);
    }
    c->log_failing = rc != 0;
}

void console_log_to(struct console *c, int take_fd)
{
    struct stat st;

    c->log_fd = take_fd;
    c->log_rotates = fstat(take_fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* --- clients
 * --------------------------------------------------------------------------------- */

static void client_free(struct client *k)
{
    list_remove(&k->node);
    k->owner->n_clients--;
    loop_fd_free(k->watch);
    close(k->fd);
    buf_done(&k->out);
    free(k);
}

static void client_watch(struct client *k)
{
    bool read_on = !k->eof && k->owner->input.len < INPUT_QUEUE_MAX;

    loop_fd_set(k->watch, (read_on ? LOOP_READ : 0) | (k->out.len ? LOOP_WRITE : 0));
}

/* Writes what the socket takes; false when the client is gone. */
static bool client_send(struct client *k)
{
    while (k->out.len > 0) {
        ssize_t n = send(k->fd, k->out.data, k->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK;
        }
        buf_consume(&k->out, (size_t)n);
    }
    return true;
}

/* Reads once; false when the client is gone. */
static bool client_receive(struct client *k)
{
    char bytes[INPUT_QUEUE_MAX];
    ssize_t n = recv(k->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    if (n == 0) {
        struct pollfd p = { .fd = k->fd };

        k->eof = true; /* perhaps only its sending side: it may go on reading */
        return poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLERR));
    }
    buf_add(&k->owner->input, bytes, (size_t)n);
    console_pump(k->owner);
    return true;
}

static void on_client(void *arg, int fd, unsigned events)
{
    struct client *k = arg;

    (void)fd;
    if (((events & LOOP_WRITE) && !client_send(k)) ||
        ((events & LOOP_READ) && !client_receive(k))) {
        client_free(k);
        return;
    }
    client_watch(k);
}

static void client_output(struct client *k, const char *p, size_t n)
{
    bool slow = k->out.len + n > CLIENT_QUEUE_MAX;

    if (slow) {
        log_debug("emu", "a console client reads too slowly and is dropped");
    } else {
        buf_add(&k->out, p, n);
    }
    if (slow || !client_send(k)) {
        client_free(k);
        return;
    }
    client_watch(k);
}

/* The last 64 KiB, oldest first, into b. */
static void backlog_get(const struct console *c, struct buf *b)
{
    size_t at = c->written % BACKLOG;

    if (c->written > BACKLOG) {
        buf_add(b, c->backlog + at, BACKLOG - at);
    }
    buf_add(b, c->backlog, at);
}

static void backlog_put(struct console *c, const char *p, size_t n)
{
    if (n > BACKLOG) {
        c->written += n - BACKLOG;
        p += n - BACKLOG;
        n = BACKLOG;
    }
    while (n > 0) {
        size_t at = c->written % BACKLOG, part = n < BACKLOG - at ? n : BACKLOG - at;

        memcpy(c->backlog + at, p, part);
        c->written += part;
        p += part;
        n -= part;
    }
}

/* One that sends no more may have gone unnoticed; a new client takes its place. */
static void evict_half_closed(struct console *c)
{
    list_for_each_safe (it, &c->clients) {
        struct client *k = list_entry(it, struct client, node);

        if (k->eof) {
            client_free(k);
            return;
        }
    }
}

static void on_connect(void *arg, int fd, unsigned events)
{
    struct console *c = arg;
    struct client *k;
    int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (s < 0) {
        return;
    }
    if (c->n_clients >= MAX_CLIENTS) {
        evict_half_closed(c);
    }
    if (c->n_clients >= MAX_CLIENTS) {
        log_warn("emu", "console: more than %d clients, one is turned away", MAX_CLIENTS);
        close(s);
        return;
    }
    k = xnew(struct client);
    k->owner = c;
    k->fd = s;
    k->watch = loop_fd_new(c->loop, s, 0, on_client, k);
    list_append(&c->clients, &k->node);
    c->n_clients++;
    backlog_get(c, &k->out);
    if (client_send(k)) {
        client_watch(k);
    } else {
        client_free(k);
    }
}

int console_listen(struct console *c, int take_fd, struct err *e)
{
    int rc = fd_set_nonblock(take_fd, true, e);

    if (rc == 0 && listen(take_fd, MAX_CLIENTS) != 0) {
        rc = err_errno(e, errno, "console socket: listen");
    }
    if (rc != 0) {
        close(take_fd);
        return rc;
    }
    c->listen_fd = take_fd;
    c->listener = loop_fd_new(c->loop, take_fd, LOOP_READ, on_connect, c);
    return 0;
}

/* --- standard input and output
 * --------------------------------------------------------------- */

/* Writes without ever blocking and without O_NONBLOCK, which would reach other users of the
 * same terminal or pipe: at most PIPE_BUF bytes, when poll says that they fit. False: not
 * now. */
static bool stdout_step(struct console *c)
{
    struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
    size_t n = c->out.len < 4096 ? c->out.len : 4096;
    ssize_t done;

    if (poll(&p, 1, 0) <= 0) {
        return false;
    }
    done = write(STDOUT_FILENO, c->out.data, n);
    if (done < 0) {
        if (errno == EINTR || errno == EAGAIN) {
            return errno == EINTR;
        }
        log_warn("emu", "standard output is gone (%s); the console goes on without it",
                 strerror(errno));
        c->stdout_open = false;
        buf_consume(&c->out, c->out.len);
        return true;
    }
    buf_consume(&c->out, (size_t)done);
    return true;
}

static void stdout_send(struct console *c)
{
    while (c->out.len > 0 && stdout_step(c)) {
    }
    loop_fd_set(c->out_watch, c->out.len > 0 ? LOOP_WRITE : 0);
}

static void on_stdout(void *arg, int fd, unsigned events)
{
    struct console *c = arg;

    (void)fd, (void)events;
    stdout_send(c);
    if (c->out.len == 0) {
        console_distribute(c);
    }
}

static void on_stdin(void *arg, int fd, unsigned events)
{
    struct console *c = arg;
    char bytes[INPUT_QUEUE_MAX], *escape;
    ssize_t n = read(fd, bytes, sizeof(bytes));

    (void)events;
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        c->stdin_open = false;
    } else if (n > 0) {
        escape = c->tty ? memchr(bytes, ESCAPE, (size_t)n) : NULL;
        buf_add(&c->input, bytes, escape ? (size_t)(escape - bytes) : (size_t)n);
        if (escape && c->quit) {
            c->quit(c->quit_arg);
        }
        console_pump(c);
    }
    watch_inputs(c);
}

static void tty_raw(struct console *c)
{
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &c->tty_before) != 0) {
        return;
    }
    raw = c->tty_before;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own messages stay readable */
    c->tty = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

int console_stdio(struct console *c, void (*quit)(void *arg), void *arg, struct err *e)
{
    (void)e;
    c->stdio = c->stdin_open = c->stdout_open = true;
    c->quit = quit;
    c->quit_arg = arg;
    tty_raw(c);
    c->in_watch = loop_fd_new(c->loop, STDIN_FILENO, 0, on_stdin, c);
    c->out_watch = loop_fd_new(c->loop, STDOUT_FILENO, 0, on_stdout, c);
    watch_inputs(c);
    return 0;
}

/* --- flow
 * ------------------------------------------------------------------------------------ */

/* Main thread: hands pending output to every reader. While standard output is behind, output
 * stays pending and the device is held up. */
static void console_distribute(struct console *c)
{
    struct buf got = BUF_INIT;
    bool starved;

    if (c->stdout_open && c->out.len >= STDOUT_QUEUE_MAX && !c->unbounded) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    got = c->pending;
    c->pending = (struct buf)BUF_INIT;
    starved = c->starved;
    c->starved = false;
    pthread_mutex_unlock(&c->lock);
    if (got.len > 0) {
        backlog_put(c, got.data, got.len);
        log_output(c, got.data, got.len);
        list_for_each_safe (it, &c->clients) {
            client_output(list_entry(it, struct client, node), got.data, got.len);
        }
        if (c->stdout_open) {
            buf_add(&c->out, got.data, got.len);
            stdout_send(c);
        }
    }
    buf_done(&got);
    if (starved && c->chr.front) {
        c->chr.front->writable(c->chr.front_arg);
    }
}

/* Sources are read only while there is room for what they send. */
static void watch_inputs(struct console *c)
{
    bool room = c->input.len < INPUT_QUEUE_MAX;

    if (c->stdio) {
        loop_fd_set(c->in_watch, c->stdin_open && room ? LOOP_READ : 0);
    }
    list_for_each (it, &c->clients) {
        client_watch(list_entry(it, struct client, node));
    }
}

/* Main thread: gives queued input to the device as far as it has room. */
static void console_pump(struct console *c)
{
    const struct chr_front_ops *f = c->chr.front;
    size_t before = c->input.len;

    atomic_store(&c->input_waiting,
                 c->input.len > 0); /* before the look at the room: no wake-up is missed */
    while (c->running && f && c->input.len > 0) {
        size_t room = f->room(c->chr.front_arg), n = room < c->input.len ? room : c->input.len;

        if (n == 0) {
            break;
        }
        f->receive(c->chr.front_arg, (const uint8_t *)c->input.data, n);
        buf_consume(&c->input, n);
        c->taken += n;
    }
    atomic_store(&c->input_waiting, c->input.len > 0);
    if (before >= INPUT_QUEUE_MAX && c->input.len < INPUT_QUEUE_MAX) {
        watch_inputs(c);
    }
}

void console_set_running(struct console *c, bool running)
{
    c->running = running;
    if (running) {
        console_pump(c);
    }
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static void flush_clients(struct console *c)
{
    int64_t deadline = now_ms() + FLUSH_CLIENTS_MS, left;

    list_for_each_safe (it, &c->clients) {
        struct client *k = list_entry(it, struct client, node);
        struct pollfd p = { .fd = k->fd, .events = POLLOUT };

        while (client_send(k) && k->out.len > 0 && (left = deadline - now_ms()) > 0) {
            (void)poll(&p, 1, (int)left);
        }
    }
}

void console_flush(struct console *c)
{
    struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

    pthread_mutex_lock(&c->lock);
    c->unbounded = true;
    pthread_mutex_unlock(&c->lock);
    if (c->chr.front) {
        c->chr.front->writable(c->chr.front_arg); /* what the device itself still holds */
    }
    console_distribute(c);
    while (c->stdout_open && c->out.len > 0) {
        (void)poll(&p, 1, -1);
        stdout_send(c);
    }
    flush_clients(c);
}

void console_counts(struct console *c, uint64_t *in, uint64_t *out)
{
    *in = c->taken;
    *out = c->written;
}

struct chr *console_chr(struct console *c)
{
    return &c->chr;
}

struct console *console_new(struct loop *loop)
{
    struct console *c = xnew(struct console);

    c->chr.back = &hub_ops;
    c->loop = loop;
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->clients);
    c->listen_fd = c->log_fd = -1;
    return c;
}

void console_free(struct console *c)
{
    if (!c) {
        return;
    }
    list_for_each_safe (it, &c->clients) {
        client_free(list_entry(it, struct client, node));
    }
    loop_fd_free(c->listener);
    loop_fd_free(c->in_watch);
    loop_fd_free(c->out_watch);
    fd_autoclose(&c->listen_fd);
    fd_autoclose(&c->log_fd);
    if (c->tty) {
        tcsetattr(STDIN_FILENO, TCSANOW, &c->tty_before);
    }
    buf_done(&c->pending);
    buf_done(&c->input);
    buf_done(&c->out);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
