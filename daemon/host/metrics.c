/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metrics endpoint: one GET a connection, bounded in number, size and time. Owns struct metrics and
 * its connections. Loop thread; a client is not trusted and never waited for.
 */
#include "daemon/host/metrics.h"

#include "api-schema/gen/types.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/store/store.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/supply.h"
#include "api-schema/rpc/server.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16
#define REQUEST_MAX 8192
#define TIME_NS INT64_C(10000000000)

struct metrics {
    struct vmd *d;
    int fd;
    struct loop_fd *w;
    char *path; /* unix socket, removed at the end; NULL: a port */
    struct list conns;
    unsigned n;
};
struct conn {
    struct list link;
    struct metrics *m;
    int fd;
    struct loop_fd *w;
    struct loop_timer *timer;
    struct buf in, out;
    size_t sent;
};

/* ---- the text ---- */

static void head(struct buf *to, const char *name, const char *type, const char *help)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label(struct buf *to, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"') {
            buf_add_char(to, '\\');
        }
        buf_add_char(to, *value == '\n' ? ' ' : *value);
    }
}

enum what { CPU, UPTIME, RSS, INSTRUCTIONS, AGE, CONSOLE, READ, WRITTEN, DISK_ERRORS };

static const struct {
    const char *name, *type, *help;
    enum what what;
} figures[] = {
    { "vmd_vm_cpu_seconds_total", "counter", "Host CPU time of the emulator.", CPU },
    { "vmd_vm_uptime_seconds", "gauge", "Time since the emulator started.", UPTIME },
    { "vmd_vm_resident_bytes", "gauge", "Host memory in use by the emulator.", RSS },
    { "vmd_vm_instructions_total", "counter", "Guest instructions, where they are counted.",
      INSTRUCTIONS },
    { "vmd_vm_statistics_age_seconds", "gauge", "Age of what the emulator published last.",
      AGE },
    { "vmd_vm_console_bytes_total", "counter", "Bytes the guest wrote to its console.",
      CONSOLE },
    { "vmd_vm_disk_read_bytes_total", "counter", "Bytes read from all disks.", READ },
    { "vmd_vm_disk_written_bytes_total", "counter", "Bytes written to all disks.", WRITTEN },
    { "vmd_vm_disk_errors_total", "counter", "Disk requests that failed.", DISK_ERRORS },
};

static double figure_of(const struct api_vm_stats *s, enum what what)
{
    double sum = 0;
    for (size_t i = 0; i < s->n_disks; i++) {
        sum += (double)(what == READ      ? s->disks[i].read_bytes
                        : what == WRITTEN ? s->disks[i].written_bytes
                                          : s->disks[i].errors);
    }
    switch (what) {
    case CPU:
        return (double)s->cpu_time_ns / 1e9;
    case UPTIME:
        return (double)s->uptime_ns / 1e9;
    case RSS:
        return (double)s->memory_rss;
    case INSTRUCTIONS:
        return (double)s->instructions;
    case AGE:
        return (double)s->age_ms / 1e3;
    case CONSOLE:
        return (double)s->console_out;
    default:
        return sum;
    }
}

static void write_daemon(struct vmd *d, struct vm **list, size_t n, struct buf *to)
{
    unsigned states[16] = { 0 };
    int64_t cpus, memory;
    supply_used(d, &cpus, &memory);
    for (size_t i = 0; i < n; i++) {
        states[(unsigned)list[i]->state % ARRAY_LEN(states)]++;
    }
    head(to, "vmd_info", "gauge", "The daemon; always 1.");
    buf_printf(to, "vmd_info{version=\"%s\"} 1\n", PACKAGE_VERSION);
    head(to, "vmd_start_time_seconds", "gauge", "When the daemon started, since 1970.");
    buf_printf(to, "vmd_start_time_seconds %.3f\n", (double)d->started_ns / 1e9);
    head(to, "vmd_vms", "gauge", "VMs by state.");
    for (unsigned i = 0; i <= API_VM_STATE_UNRESPONSIVE; i++) {
        buf_printf(to, "vmd_vms{state=\"%s\"} %u\n", api_vm_state_name((enum api_vm_state)i),
                   states[i]);
    }
    head(to, "vmd_vcpus_used", "gauge", "vCPUs of the VMs that run.");
    buf_printf(to, "vmd_vcpus_used %lld\n", (long long)cpus);
    head(to, "vmd_memory_used_bytes", "gauge", "Memory given to the VMs that run.");
    buf_printf(to, "vmd_memory_used_bytes %lld\n", (long long)memory);
    head(to, "vmd_connections", "gauge", "Clients connected.");
    buf_printf(to, "vmd_connections %lld\n", (long long)rpc_server_clients(d->server));
    head(to, "vmd_store_healthy", "gauge",
         "1 while the store takes writes and is not damaged.");
    enum store_health h = store_health(d->store, NULL, 0);
    buf_printf(to, "vmd_store_healthy %d\n", h == STORE_OK || h == STORE_CHECKING);
}

void metrics_write(struct vmd *d, struct buf *to)
{
    size_t n;
    struct vm **list = vm_list(d, &n);
    struct api_vm_stats *stats = xnew_n(struct api_vm_stats, n + 1);
    AUTO_FREE bool *has = xnew_n(bool, n + 1);
    write_daemon(d, list, n, to);
    for (size_t i = 0; i < n; i++) {
        has[i] = list[i]->run && !run_has_ended(list[i]->run) &&
                 run_stats(list[i]->run, &stats[i]);
    }
    head(to, "vmd_vm_restarts", "gauge", "Restarts in a row that the daemon made.");
    for (size_t i = 0; i < n; i++) {
        buf_add_str(to, "vmd_vm_restarts{vm=\"");
        label(to, list[i]->config.name);
        buf_printf(to, "\",uuid=\"%s\"} %u\n", list[i]->config.uuid, list[i]->restarts);
    }
    for (unsigned k = 0; k < ARRAY_LEN(figures); k++) {
        head(to, figures[k].name, figures[k].type, figures[k].help);
        for (size_t i = 0; i < n; i++) {
            if (has[i] && (figures[k].what != INSTRUCTIONS || stats[i].has_instructions)) {
                buf_printf(to, "%s{vm=\"", figures[k].name);
                label(to, list[i]->config.name);
                buf_printf(to, "\",uuid=\"%s\"} %.17g\n", list[i]->config.uuid,
                           figure_of(&stats[i], figures[k].what));
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (has[i]) {
            api_release(&api_type_vm_stats, &stats[i]);
        }
    }
    free(stats);
    free(list);
}

/* ---- HTTP ---- */

static void conn_free(struct conn *c)
{
    list_remove(&c->link);
    c->m->n--;
    loop_fd_free(c->w);
    loop_timer_free(c->timer);
    close(c->fd);
    buf_done(&c->in);
    buf_done(&c->out);
    free(c);
}

static void on_time(void *arg)
{
    conn_free(arg);
}

static void answer(struct conn *c, const char *status, const char *type, struct buf *body)
{
    buf_printf(&c->out,
               "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n\r\n",
               status, type, body->len);
    buf_add(&c->out, body->data ? body->data : (void *)"", body->len);
    loop_fd_set(c->w, LOOP_WRITE);
}

/* A whole request head is there. */
static void serve(struct conn *c)
{
    AUTO_BUF body = BUF_INIT;
    const char *text = (const char *)c->in.data;
    if (strncmp(text, "GET ", 4) != 0) {
        buf_add_str(&body, "only GET\n");
        answer(c, "405 Method Not Allowed", "text/plain", &body);
    } else if (strncmp(text + 4, "/metrics ", 9) != 0 &&
               strncmp(text + 4, "/metrics?", 9) != 0) {
        buf_add_str(&body, "only /metrics\n");
        answer(c, "404 Not Found", "text/plain", &body);
    } else {
        metrics_write(c->m->d, &body);
        answer(c, "200 OK", "text/plain; version=0.0.4; charset=utf-8", &body);
    }
}

static void on_read(struct conn *c)
{
    char data[2048];
    ssize_t n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0 || c->in.len + (size_t)n > REQUEST_MAX || memchr(data, 0, (size_t)n)) {
        conn_free(c);
        return;
    }
    buf_add(&c->in, data, (size_t)n);
    if (memmem(c->in.data, c->in.len, "\r\n\r\n", 4) ||
        memmem(c->in.data, c->in.len, "\n\n", 2)) {
        buf_add_char(&c->in, 0);
        serve(c);
    }
}

static void on_conn(void *arg, int fd, unsigned events)
{
    struct conn *c = arg;
    (void)fd;
    if (c->out.len == 0 && (events & LOOP_READ)) {
        on_read(c);
        return;
    }
    ssize_t n = send(c->fd, (const char *)c->out.data + c->sent, c->out.len - c->sent,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    c->sent += n > 0 ? (size_t)n : 0;
    if (n <= 0 || c->sent == c->out.len) {
        shutdown(c->fd, SHUT_WR);
        conn_free(c);
    }
}

static void on_accept(void *arg, int fd, unsigned events)
{
    struct metrics *m = arg;
    (void)events;
    int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (s < 0) {
        return;
    }
    if (m->n >= CONNECTIONS_MAX) { /* the oldest has had its chance */
        conn_free(list_entry(m->conns.next, struct conn, link));
    }
    struct conn *c = xnew(struct conn);
    c->m = m;
    c->fd = s;
    c->w = loop_fd_new(m->d->loop, s, LOOP_READ, on_conn, c);
    c->timer = loop_timer_new(m->d->loop, on_time, c);
    loop_timer_arm(c->timer, TIME_NS);
    list_append(&m->conns, &c->link);
    m->n++;
}

static int listen_port(const char *port, struct err *e)
{
    uint64_t number;
    int one = 1;
    if (str_to_u64(port, 1, 65535, "metrics: port", &number, e) < 0) {
        return e->code;
    }
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)number),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    AUTO_FD fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 64) < 0) {
        return err_errno(e, errno, "metrics: cannot listen on port %s of 127.0.0.1", port);
    }
    return take_fd(&fd);
}

struct metrics *metrics_new(struct vmd *d, const char *where, struct err *e)
{
    bool path = where[0] == '/';
    int fd = path ? unix_listen(where, 0666, 64, e) : listen_port(where, e);
    if (fd < 0) {
        return NULL;
    }
    struct metrics *m = xnew(struct metrics);
    m->d = d;
    m->fd = fd;
    m->path = path ? xstrdup(where) : NULL;
    list_init(&m->conns);
    fd_set_nonblock(fd, true, NULL);
    m->w = loop_fd_new(d->loop, fd, LOOP_READ, on_accept, m);
    return m;
}

void metrics_free(struct metrics *m)
{
    if (!m) {
        return;
    }
    while (!list_empty(&m->conns)) {
        conn_free(list_entry(m->conns.next, struct conn, link));
    }
    loop_fd_free(m->w);
    close(m->fd);
    if (m->path) {
        unlink(m->path);
    }
    free(m->path);
    free(m);
}
