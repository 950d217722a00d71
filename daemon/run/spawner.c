/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to vmd-spawn and its life. Owns the socket, the requests in flight, and the process's
 * pidfd. Loop thread.
 */
#include "daemon/run/spawner.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTART_NS                                                                             \
    INT64_C(200000000) /* between attempts when the helper dies; longer each time */
#define RESTART_MOST_NS INT64_C(5000000000)
#define GIVE_UP 3 /* dead so often before it was ready: requests fail instead of waiting */
#define SECOND_NS INT64_C(1000000000)
#define CHILD_SOCK 3

struct request {
    struct list link;
    int64_t id;
    struct json_object *body;
    bool sent;
    int64_t since_ns;    /* when it was sent */
    spawned_fn *fn;      /* a start, or */
    checked_fn *checked; /* a check, or */
    opened_fn *opened;   /* images that were opened, or */
    netted_fn *netted;   /* the process of a network */
    void *arg;
};
struct ready_wait {
    struct list link;
    void (*fn)(void *arg);
    void *arg;
};
struct spawner_client {
    struct vmd *d;
    pid_t pid;
    int sock; /* -1 while none runs */
    bool ready;
    struct loop_fd *watch;
    struct loop_timer *restart, *stuck;
    struct list requests, waits, told;
    int64_t next_id;
    struct json_object *layers;
    char *packet;
    int64_t answered_ns;
    unsigned failures; /* since one was last ready */
    char why[400];     /* what the last of them said */
};

extern char **environ;

static int make_pair(int pair[2], struct err *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "cannot make a socket pair");
    }
    int size = 4 * SPAWN_PACKET_MAX;
    for (int i = 0; i < 2; i++) {
        setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    return 0;
}

int spawner_launch(const struct vmd_options *o, pid_t *pid, int *sock, struct err *e)
{
    int pair[2];
    int rc = make_pair(pair, e);
    if (rc < 0) {
        return rc;
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    if (theirs == CHILD_SOCK) { /* dup2 onto itself would keep close-on-exec */
        int other = fcntl(theirs, F_DUPFD_CLOEXEC, CHILD_SOCK + 1);
        if (other < 0) {
            return err_errno(e, errno, "cannot move a descriptor");
        }
        close(theirs);
        theirs = other;
    }
    char *argv[] = { o->spawn, (char *)"--socket-fd", (char *)"3", (char *)"--run",
                     o->run,   (char *)"--emulator",  o->emulator, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, theirs, CHILD_SOCK);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    rc = posix_spawn(pid, o->spawn, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (rc != 0) {
        return err_errno(e, rc, "cannot start the helper '%s'", o->spawn);
    }
    *sock = take_fd(&mine);
    return 0;
}

static void request_free(struct request *r)
{
    list_remove(&r->link);
    json_object_put(r->body);
    free(r);
}

static void request_fail(struct request *r, const char *path, const struct err *e)
{
    spawned_fn *fn = r->fn;
    checked_fn *checked = r->checked;
    opened_fn *opened = r->opened;
    netted_fn *netted = r->netted;
    void *arg = r->arg;
    request_free(r);
    if (netted) {
        netted(arg, 0, 0, -1, e);
    } else if (checked) {
        checked(arg, NULL, path, e);
    } else if (opened) {
        opened(arg, NULL, NULL, 0, path, e);
    } else {
        fn(arg, NULL, e);
    }
}

static void run_waits(struct list *waits);

/* `all`: also those that were not sent yet. Else the one that the helper was at, and starts, of which nobody knows how far they
 * got; what only looked at files behind those is asked of the next helper. */
static void fail_requests(struct spawner_client *s, bool all, bool served, const struct err *e)
{
    struct list old;
    bool first = true;
    list_init(&old);
    list_for_each_safe (n, &s->requests) {
        struct request *r = list_entry(n, struct request, link);
        if (all || (r->sent && (first || r->fn || r->netted || !served))) {
            list_remove(n);
            list_append(&old, n);
        }
        first &= !r->sent;
        r->sent = false;
    }
    while (!list_empty(&old)) {
        request_fail(list_entry(old.next, struct request, link), "", e);
    }
}

/* Another one later. When none gets as far as being ready, nobody waits for the one after it. */
static void again_later(struct spawner_client *s)
{
    int64_t pause = RESTART_NS << (s->failures < 5 ? s->failures : 5);
    loop_timer_arm(s->restart, pause < RESTART_MOST_NS ? pause : RESTART_MOST_NS);
    if (s->failures >= GIVE_UP) {
        struct err e = ERR_INIT;
        err_set(&e, -ENOEXEC, "the helper '%s' does not run: %s", s->d->opt.spawn,
                s->why[0] ? s->why : "it ends at once; see the log of vmd");
        fail_requests(s, true, false, &e);
        run_waits(&s->told);
    }
}

/* The helper died: the requests it had fail; the others wait for the next one. */
static void lost(struct spawner_client *s)
{
    struct err e = ERR_INIT;
    err_set(&e, -ECONNRESET, "the helper vmd-spawn died; see the log of vmd");
    loop_fd_free(s->watch);
    s->watch = NULL;
    fd_autoclose(&s->sock);
    s->sock = -1;
    s->failures = s->ready ? 0 : s->failures + 1;
    bool served = s->ready;
    s->ready = false;
    loop_timer_disarm(s->stuck);
    waitpid(s->pid, NULL, WNOHANG);
    log_error("daemon", "vmd-spawn (pid %d) died; starting another", (int)s->pid);
    fail_requests(s, false, served, &e);
    again_later(s);
}

/* Opening a file may hang (a dead NFS server, a stopped FUSE daemon): the helper does, not we. */
static void on_stuck(void *arg)
{
    struct spawner_client *s = arg;
    int64_t limit = s->d->opt.helper_timeout;
    if (!list_empty(&s->requests) && s->sock >= 0) {
        log_error("daemon", "vmd-spawn (pid %d) has not answered for %d s; killing it",
                  (int)s->pid, (int)limit);
        kill(s->pid, SIGKILL);
        lost(s);
    }
}

/* The helper works off one after the other: it has its time from the answer before, or from when the first was sent, whatever is
 * asked meanwhile. */
static void watch_answers(struct spawner_client *s)
{
    struct request *first = list_empty(&s->requests)
                                ? NULL
                                : list_entry(s->requests.next, struct request, link);
    if (!first || !first->sent) {
        loop_timer_disarm(s->stuck);
        return;
    }
    int64_t from = first->since_ns > s->answered_ns ? first->since_ns : s->answered_ns;
    int64_t left = from + s->d->opt.helper_timeout * SECOND_NS - time_mono_ns();
    loop_timer_arm(s->stuck, left > 0 ? left : 0);
}

/* Sends what could not be sent yet: no helper, or its queue was full. */
static void send_waiting(struct spawner_client *s)
{
    struct err e = ERR_INIT;
    list_for_each_safe (n, &s->requests) {
        struct request *r = list_entry(n, struct request, link);
        if (r->sent) {
            continue;
        }
        const char *text = api_json_text(r->body);
        int rc = s->sock < 0 ? -EAGAIN : fd_send(s->sock, text, strlen(text), NULL, 0, &e);
        if (rc == -EAGAIN || rc == -ENOBUFS || rc == -EPIPE || rc == -ECONNRESET) {
            return;
        }
        if (rc < 0) {
            request_fail(r, "", &e);
            return; /* the list may have changed; the next answer or request goes on */
        }
        r->sent = true;
        r->since_ns = time_mono_ns();
    }
}

static void run_waits(struct list *waits)
{
    while (!list_empty(waits)) {
        struct ready_wait *w = list_entry(waits->next, struct ready_wait, link);
        list_remove(&w->link);
        w->fn(w->arg);
        free(w);
    }
}

static void on_ready(struct spawner_client *s)
{
    s->ready = true;
    s->failures = 0;
    s->why[0] = 0;
    run_waits(&s->waits);
}

static struct request *find(struct spawner_client *s, int64_t id)
{
    list_for_each (n, &s->requests) {
        struct request *r = list_entry(n, struct request, link);
        if (r->id == id) {
            return r;
        }
    }
    return NULL;
}

/* Ends a request with what the packet says. Takes the descriptors. */
static void on_answer(struct spawner_client *s, struct json_object *o, int *fds, unsigned nfds)
{
    struct request *r = find(s, api_json_get_int(o, "id", 0));
    struct json_object *x = api_json_get(o, "error");
    struct err e = ERR_INIT;
    struct json_object *images = api_json_get(o, "images");
    size_t most = images && json_object_is_type(images, json_type_array)
                      ? json_object_array_length(images)
                      : 0;
    if (!r || (!x && nfds != (r->checked ? 0 : r->netted ? 1 : r->opened ? most : 3))) {
        log_error("daemon", "vmd-spawn sent an answer that was not asked for");
        for (unsigned i = 0; i < nfds; i++) {
            close(fds[i]);
        }
        return;
    }
    if (x) {
        const char *text = api_json_get_str(x, "message"), *path = api_json_get_str(x, "path");
        int64_t code = api_json_get_int(x, "code", -EIO);
        err_set(&e, code < 0 && code > -4096 ? (int)code : -EIO, "%s", text ? text : "?");
        request_fail(r, path ? path : "", &e);
        return;
    }
    spawned_fn *fn = r->fn;
    checked_fn *checked = r->checked;
    opened_fn *opened = r->opened;
    netted_fn *netted = r->netted;
    void *arg = r->arg;
    request_free(r);
    if (netted) {
        netted(arg, (pid_t)api_json_get_int(o, "pid", 0),
               (uint64_t)api_json_get_int(o, "start_time", 0), fds[0], NULL);
        return;
    }
    if (checked) {
        checked(arg, api_json_get(o, "disks"), "", NULL);
        return;
    }
    if (opened) {
        opened(arg, images, fds, nfds, "", NULL);
        return;
    }
    struct spawned what = { .pid = (pid_t)api_json_get_int(o, "pid", 0),
                            .mon_pid = (pid_t)api_json_get_int(o, "mon_pid", 0),
                            .start_time = (uint64_t)api_json_get_int(o, "start_time", 0),
                            .mon_start = (uint64_t)api_json_get_int(o, "mon_start", 0),
                            .fds = { fds[0], fds[1], fds[2] } };
    fn(arg, &what, NULL);
}

static void on_packet(struct spawner_client *s, size_t n, int *fds, unsigned nfds)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    if (api_json_parse(s->packet, n, &o, &e) < 0) {
        log_error("daemon", "vmd-spawn: %s", e.msg);
    } else if (api_json_get(o, "id")) {
        on_answer(s, o, fds, nfds);
        return;
    } else if (api_json_get_bool(o, "ready", false)) {
        on_ready(s);
    } else if (api_json_get_str(o, "failed")) {
        str_copy(s->why, sizeof(s->why), api_json_get_str(o, "failed"));
    } else if (api_json_get(o, "layers")) {
        json_object_put(s->layers);
        s->layers = json_object_get(api_json_get(o, "layers"));
        run_waits(&s->told);
    }
    for (unsigned i = 0; i < nfds; i++) {
        close(fds[i]);
    }
}

static void on_readable(void *arg, int fd, unsigned events)
{
    (void)events;
    struct spawner_client *s = arg;
    int fds[SPAWN_OPEN_MAX];
    unsigned nfds = SPAWN_OPEN_MAX;
    struct err e = ERR_INIT;
    ssize_t n = fd_recv(fd, s->packet, SPAWN_PACKET_MAX, fds, &nfds, &e);
    if (n == -EAGAIN || n == -EINTR) {
        return;
    }
    if (n <= 0) {
        lost(s);
        return;
    }
    s->answered_ns = time_mono_ns();
    on_packet(s, (size_t)n, fds, nfds);
    send_waiting(s);
    watch_answers(s);
}

static void adopt_socket(struct spawner_client *s, pid_t pid, int take_sock)
{
    s->pid = pid;
    s->sock = take_sock;
    fd_set_nonblock(take_sock, true, NULL);
    s->watch = loop_fd_new(s->d->loop, take_sock, LOOP_READ, on_readable, s);
}

static void on_restart(void *arg)
{
    struct spawner_client *s = arg;
    struct err e = ERR_INIT;
    pid_t pid;
    int sock;
    waitpid(s->pid, NULL, WNOHANG);
    if (spawner_launch(&s->d->opt, &pid, &sock, &e) < 0) {
        log_error("daemon", "%s", e.msg);
        str_copy(s->why, sizeof(s->why), e.msg);
        s->failures++;
        again_later(s);
        return;
    }
    adopt_socket(s, pid, sock);
}

struct spawner_client *spawner_new(struct vmd *d, pid_t pid, int take_sock)
{
    struct spawner_client *s = xnew(struct spawner_client);
    s->d = d;
    s->next_id = 1;
    s->packet = xalloc(SPAWN_PACKET_MAX);
    list_init(&s->requests);
    list_init(&s->waits);
    list_init(&s->told);
    s->restart = loop_timer_new(d->loop, on_restart, s);
    s->stuck = loop_timer_new(d->loop, on_stuck, s);
    adopt_socket(s, pid, take_sock);
    return s;
}

static void free_waits(struct list *waits)
{
    while (!list_empty(waits)) {
        struct ready_wait *w = list_entry(waits->next, struct ready_wait, link);
        list_remove(&w->link);
        free(w);
    }
}

void spawner_free(struct spawner_client *s)
{
    if (!s) {
        return;
    }
    loop_fd_free(s->watch);
    loop_timer_free(s->restart);
    loop_timer_free(s->stuck);
    if (s->sock >= 0) {
        close(s->sock); /* it ends by itself when it sees that */
        waitpid(s->pid, NULL, 0);
    }
    while (!list_empty(&s->requests)) {
        request_free(list_entry(s->requests.next, struct request, link));
    }
    free_waits(&s->waits);
    free_waits(&s->told);
    json_object_put(s->layers);
    free(s->packet);
    free(s);
}

bool spawner_ready(const struct spawner_client *s)
{
    return s->ready;
}

static void wait_or_run(bool now, struct list *waits, void (*fn)(void *arg), void *arg)
{
    if (now) {
        fn(arg);
        return;
    }
    struct ready_wait *w = xnew(struct ready_wait);
    w->fn = fn;
    w->arg = arg;
    list_append(waits, &w->link);
}

void spawner_when_ready(struct spawner_client *s, void (*fn)(void *arg), void *arg)
{
    wait_or_run(s->ready, &s->waits, fn, arg);
}

void spawner_when_told(struct spawner_client *s, void (*fn)(void *arg), void *arg)
{
    wait_or_run(s->layers != NULL, &s->told, fn, arg);
}

/* Where images may name others. */
static struct json_object *image_folders(const struct vmd *d)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < d->opt.n_image_dir; i++) {
        json_object_array_add(list, json_object_new_string(d->opt.image_dir[i]));
    }
    return list;
}

static struct request *request_new(struct spawner_client *s, struct json_object *take_body,
                                   const char *op, void *arg)
{
    struct request *r = xnew(struct request);
    r->id = s->next_id++;
    r->arg = arg;
    r->body = take_body;
    list_append(&s->requests, &r->link);
    api_json_set_int(take_body, "id", r->id);
    api_json_set_str(take_body, "op", op);
    api_json_set(take_body, "folders", image_folders(s->d));
    return r;
}

void spawner_start(struct spawner_client *s, struct json_object *take_request, spawned_fn *fn,
                   void *arg)
{
    request_new(s, take_request, "start", arg)->fn = fn;
    send_waiting(s);
    watch_answers(s);
}

void spawner_check(struct spawner_client *s, struct json_object *take_files, checked_fn *fn,
                   void *arg)
{
    struct json_object *body = json_object_new_object();
    api_json_set(body, "files", take_files);
    request_new(s, body, "check", arg)->checked = fn;
    send_waiting(s);
    watch_answers(s);
}

void spawner_open(struct spawner_client *s, const char *name, struct json_object *take_files,
                  opened_fn *fn, void *arg)
{
    struct json_object *body = json_object_new_object();
    api_json_set(body, "files", take_files);
    api_json_set_str(body, "name", name);
    request_new(s, body, "open", arg)->opened = fn;
    send_waiting(s);
    watch_answers(s);
}

void spawner_network(struct spawner_client *s, struct json_object *take_request, netted_fn *fn,
                     void *arg)
{
    request_new(s, take_request, "network", arg)->netted = fn;
    send_waiting(s);
    watch_answers(s);
}

void spawner_open_ends(struct spawner_client *s, int64_t vm, const char *name, const char *what,
                       struct json_object *take_list, opened_fn *fn, void *arg)
{
    struct json_object *body = json_object_new_object();
    api_json_set_int(body, "vm", vm);
    api_json_set(body, "files", json_object_new_array());
    api_json_set(body, what, take_list);
    api_json_set_str(body, "name", name);
    request_new(s, body, "open", arg)->opened = fn;
    send_waiting(s);
    watch_answers(s);
}

void spawner_fail_checks(struct spawner_client *s)
{
    struct err e = ERR_INIT;
    err_set(&e, -ECANCELED, "vmd is shutting down");
    for (struct list *n = s->requests.next; n != &s->requests;) {
        struct request *r = list_entry(n, struct request, link);
        n = n->next;
        if (r->checked || r->opened || r->netted) {
            request_fail(r, "", &e);
            n = s->requests.next; /* whatever the callback did to the list */
        }
    }
}

struct json_object *spawner_layers(const struct spawner_client *s)
{
    return s->layers;
}
