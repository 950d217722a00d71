/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-spawn: starts emulators for vmd. A small process of its own, started by vmd before that has
 * threads or a store; one thread; ends when vmd does. Emulators and their monitors outlive it.
 *
 * Owns the lock RUN/spawn.lock: while an old spawner still works off what its dead daemon asked
 * for, a new one waits, so that a new daemon sees the run folders at rest.
 */
#include "api-schema/json/json.h"
#include "daemon/spawn/spawn.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int send_json(struct spawner *sp, struct json_object *o, const int *fds, unsigned nfds)
{
    struct err e = ERR_INIT;
    const char *text = api_json_text(o);
    size_t n = strlen(text);
    int rc = n > SPAWN_PACKET_MAX
                 ? err_set(&e, -EMSGSIZE, "an answer of %zu bytes is too long", n)
                 : fd_send(sp->sock, text, n, fds, nfds, &e);
    if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET) {
        log_error("spawn", "%s", e.msg);
    }
    return rc;
}

static int send_ready(struct spawner *sp)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_bool(o, "ready", true);
    return send_json(sp, o, NULL, 0);
}

/* Why it cannot begin to serve; it ends then, and vmd tries again later. */
static void send_failed(struct spawner *sp, const struct err *e)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_str(o, "failed", e->msg);
    send_json(sp, o, NULL, 0);
}

static int send_layers(struct spawner *sp)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < LAYER_COUNT; i++) {
        struct json_object *one = json_object_new_object();
        api_json_set_str(one, "name", layer_name[i]);
        api_json_set_bool(one, "active", sp->layer[i].active);
        if (sp->layer[i].reason[0]) {
            api_json_set_str(one, "reason", sp->layer[i].reason);
        }
        json_object_array_add(list, one);
    }
    api_json_set(o, "layers", list);
    return send_json(sp, o, NULL, 0);
}

static void send_error(struct spawner *sp, int64_t id, const char *path, const struct err *e)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *x = json_object_new_object();
    api_json_set_int(o, "id", id);
    api_json_set_int(x, "code", e->code);
    api_json_set_str(x, "message", e->msg);
    if (path) {
        api_json_set_str(x, "path", path);
    }
    api_json_set(o, "error", x);
    send_json(sp, o, NULL, 0);
}

/* An answer as long as the paths in it. */
static void send_list(struct spawner *sp, int64_t id, struct json_object *o, const int *fds,
                      unsigned nfds)
{
    if (send_json(sp, o, fds, nfds) == -EMSGSIZE) {
        struct err e = ERR_INIT;
        err_set(&e, -E2BIG,
                "the paths of all images together are too long; move them to shorter ones");
        send_error(sp, id, "", &e);
    }
}

static void send_started(struct spawner *sp, int64_t id, struct started *s)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_int(o, "id", id);
    api_json_set_int(o, "pid", s->pid);
    api_json_set_int(o, "start_time", (int64_t)s->start_time);
    api_json_set_int(o, "mon_pid", s->mon_pid);
    api_json_set_int(o, "mon_start", (int64_t)s->mon_start);
    send_json(sp, o, s->fds, 3);
    for (unsigned i = 0; i < 3; i++) {
        close(s->fds[i]);
    }
}

static bool cookie_ok(const char *s)
{
    return s && strlen(s) == COOKIE_LEN && strspn(s, "0123456789abcdef") == COOKIE_LEN;
}

static int read_files(struct start *st, const struct json_object *list, struct err *e)
{
    size_t n = list ? json_object_array_length(list) : 0;
    if (n > SPAWN_FILES_MAX) {
        return err_set(e, -E2BIG, "VM '%s' names %zu files, at most %d are possible", st->name,
                       n, SPAWN_FILES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        struct spawn_file *f = &st->files[i];
        f->key = api_json_get_str(o, "key");
        f->path = api_json_get_str(o, "path");
        f->what = api_json_get_str(o, "what");
        f->disk = api_json_get_bool(o, "disk", false);
        f->write = api_json_get_bool(o, "write", false);
        f->made = api_json_get_bool(o, "made", false);
        f->format = api_json_get_str(o, "format");
        const char *tape = api_json_get_str(o, "tape");
        f->tape = !tape ? TAPE_NONE : strcmp(tape, "replay") == 0 ? TAPE_REPLAY : TAPE_RECORD;
        f->fd = -1;
        if (!f->key || !f->path || !f->what) {
            return err_set(e, -EPROTO, "file %zu of VM '%s' is incomplete", i, st->name);
        }
    }
    st->n_files = (unsigned)n;
    return 0;
}

static int read_nic(struct start *st, const struct json_object *o, struct err *e)
{
    struct spawn_nic *nic = &st->nics[st->n_nics++];
    struct json_object *args = api_json_get(o, "args");
    nic->name = api_json_get_str(o, "name");
    nic->path = api_json_get_str(o, "path");
    nic->hello = api_json_get_str(o, "hello");
    nic->dgram = api_json_get_bool(o, "dgram", false);
    nic->vhost = api_json_get_str(o, "vhost");
    nic->listens = api_json_get_bool(o, "listens", false);
    nic->tftp = api_json_get_str(o, "tftp");
    nic->is_tap = api_json_get_bool(o, "tap", false);
    nic->tap = (struct tap_wish){ .ifname = api_json_get_str(o, "ifname"),
                                  .bridge = api_json_get_str(o, "bridge"),
                                  .mtu = (unsigned)api_json_get_int(o, "mtu", 0),
                                  .vlan = (unsigned)api_json_get_int(o, "vlan", 0),
                                  .queues = (unsigned)api_json_get_int(o, "queues", 1) };
    if (!nic->name ||
        (!nic->path && !nic->is_tap && !json_object_is_type(args, json_type_array))) {
        return err_set(e, -EPROTO, "a network card of VM '%s' is incomplete", st->name);
    }
    nic->n_args = nic->path || nic->is_tap ? 0 : (unsigned)json_object_array_length(args);
    nic->args = xnew_n(const char *, nic->n_args + 1);
    for (unsigned i = 0; i < nic->n_args; i++) {
        const char *text = json_object_get_string(json_object_array_get_idx(args, i));
        nic->args[i] = text ? text : "";
    }
    return 0;
}

static int read_nics(struct start *st, const struct json_object *list, struct err *e)
{
    size_t n = list ? json_object_array_length(list) : 0;
    int rc = 0;
    if (n > SPAWN_NICS_MAX) {
        return err_set(e, -E2BIG, "VM '%s' has %zu network cards, at most %d are possible",
                       st->name, n, SPAWN_NICS_MAX);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = read_nic(st, json_object_array_get_idx(list, i), e);
    }
    return rc;
}

static int read_channels(struct start *st, const struct json_object *list, struct err *e)
{
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    if (n > SPAWN_CHANNELS_MAX) {
        return err_set(e, -E2BIG, "VM '%s' has %zu channels, at most %d are possible", st->name,
                       n, SPAWN_CHANNELS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        struct spawn_channel *c = &st->channels[st->n_channels++];
        const char *name = json_object_get_string(json_object_array_get_idx(list, i));
        *c = (struct spawn_channel){ .name = name ? name : "", .fd = -1 };
        vm_channel_socket(c->socket, c->name);
    }
    return 0;
}

static int read_request(struct start *st, const struct json_object *req, struct err *e)
{
    st->vm = api_json_get_int(req, "vm", 0);
    st->name = api_json_get_str(req, "name");
    st->cookie = api_json_get_str(req, "cookie");
    st->config = api_json_get_str(req, "config");
    st->log = api_json_get_str(req, "log");
    st->cgroup = api_json_get_str(req, "cgroup");
    st->paused = api_json_get_bool(req, "paused", false);
    st->screen = api_json_get_bool(req, "screen", false);
    st->vsock = api_json_get_bool(req, "vsock", false);
    st->kvm = api_json_get_bool(req, "kvm", false);
    st->scratch = api_json_get_bool(req, "scratch", false);
    st->replay_to = api_json_get_int(req, "to", -1);
    st->folders = api_json_get(req, "folders");
    if (st->vm <= 0 || !st->name || !st->config || !cookie_ok(st->cookie)) {
        return err_set(e, -EPROTO, "vmd-spawn cannot understand the request");
    }
    struct json_object *files = api_json_get(req, "files");
    if (files && !json_object_is_type(files, json_type_array)) {
        return err_set(e, -EPROTO, "vmd-spawn cannot understand the request");
    }
    struct json_object *nics = api_json_get(req, "nics");
    if (nics && !json_object_is_type(nics, json_type_array)) {
        return err_set(e, -EPROTO, "vmd-spawn cannot understand the request");
    }
    int rc = read_files(st, files, e);
    if (rc == 0) {
        rc = read_channels(st, api_json_get(req, "channels"), e);
    }
    if (rc == 0) {
        rc = shares_read(st, api_json_get(req, "shares"), e);
    }
    rc = rc < 0 ? rc : sound_read(st, api_json_get(req, "sound"), e);
    return rc < 0 ? rc : read_nics(st, nics, e);
}

static const struct start nothing_open = { .dir_fd = -1,
                                           .lock_fd = -1,
                                           .control_fd = -1,
                                           .console_fd = -1,
                                           .vsock_fd = -1,
                                           .vsock_call_fd = -1,
                                           .sound_fd = -1,
                                           .sound_ring_fd = -1,
                                           .console_log_fd = -1,
                                           .stats_fd = -1,
                                           .config_fd = -1,
                                           .emu_log_fd = -1,
                                           .vnc_fd = -1,
                                           .uffd_fd = -1,
                                           .kvm_fd = -1 };

/* One that did not run when we started was perhaps installed meanwhile. */
static int try_emulator(struct spawner *sp, struct err *e)
{
    if (sp->tried) {
        return 0;
    }
    int rc = jail_probe(sp, e);
    send_layers(sp);
    return rc;
}

static void handle_start(struct spawner *sp, const struct json_object *req)
{
    struct err e = ERR_INIT;
    struct started out = { 0 };
    struct start st = nothing_open;
    st.sp = sp;
    int64_t id = api_json_get_int(req, "id", 0);
    int rc = read_request(&st, req, &e);
    if (rc == 0) {
        rc = try_emulator(sp, &e);
    }
    if (rc == 0) {
        rc = start_prepare(&st, &e);
    }
    if (rc == 0) {
        rc = monitor_start(&st, &out, &e);
    }
    start_done(&st, rc < 0);
    if (rc < 0) {
        send_error(sp, id, NULL, &e);
    } else {
        send_started(sp, id, &out);
    }
}

/* The files of a request that is not a start. */
static int read_list(struct start *st, const struct json_object *req, struct err *e)
{
    struct json_object *files = api_json_get(req, "files");
    const char *name = api_json_get_str(req, "name");
    st->vm = api_json_get_int(req, "vm", 0);
    st->name = name ? name : "?";
    st->folders = api_json_get(req, "folders");
    return files && json_object_is_type(files, json_type_array)
               ? read_files(st, files, e)
               : err_set(e, -EPROTO, "vmd-spawn cannot understand the request");
}

static void handle_check(struct spawner *sp, const struct json_object *req)
{
    struct err e = ERR_INIT;
    struct start st = nothing_open;
    const char *bad = NULL;
    st.sp = sp;
    st.check = true;
    int64_t id = api_json_get_int(req, "id", 0);
    int rc = read_list(&st, req, &e);
    if (rc == 0) {
        rc = try_emulator(sp, &e);
    }
    if (rc == 0) {
        rc = files_open(&st, &bad, &e);
    }
    if (rc < 0) {
        send_error(sp, id, bad, &e);
    } else {
        AUTO_JSON o = json_object_new_object();
        api_json_set_int(o, "id", id);
        api_json_set(o, "disks", files_disks(&st, true));
        send_list(sp, id, o, NULL, 0);
    }
    start_done(&st, false);
}

static void add_opened(struct json_object *list, const char *role, const char *key,
                       const char *format, const char *path)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "role", role);
    api_json_set_str(o, "key", key);
    api_json_set_str(o, "format", format);
    api_json_set_str(o, "path", path);
    json_object_array_add(list, o);
}

/* The packet's list and the descriptors in its order. */
static struct json_object *list_opened(const struct start *st, int *fds, unsigned *count)
{
    struct json_object *list = json_object_new_array();
    unsigned n = 0;
    for (unsigned i = 0; i < st->n_files; i++) {
        const struct spawn_file *f = &st->files[i];
        fds[n++] = f->fd;
        add_opened(list, "file", f->key, f->format ? f->format : "raw", f->path);
        for (unsigned k = 0; k < st->n_images; k++) {
            const struct spawn_image *m = &st->images[k];
            if (m->file == i) {
                fds[n++] = m->fd;
                add_opened(list, m->data ? "data" : "backing", f->key, m->format, m->path);
            }
        }
    }
    for (unsigned i = 0; i < st->n_nics; i++) {
        for (unsigned k = 0; k < st->nics[i].n_fds; k++) {
            fds[n++] = st->nics[i].fds[k];
            add_opened(list, "nic", st->nics[i].name, "",
                       st->nics[i].path ? st->nics[i].path : "");
        }
    }
    for (unsigned i = 0; i < st->n_shares; i++) {
        fds[n++] = st->shares[i].fd;
        add_opened(list, "share", st->shares[i].tag, "",
                   st->shares[i].path ? st->shares[i].path : "");
    }
    *count = n;
    return list;
}

/* Where the processes of cards say what they have to say: as those of the start. */
static int open_emu_log(struct start *st, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%lld/%s", st->sp->run, (long long)st->vm, VM_EMU_LOG);
    st->emu_log_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    return st->emu_log_fd < 0 ? err_errno(e, errno, "cannot open '%s'", path) : 0;
}

/* Sockets, taps and processes for cards of a VM that runs. The processes end when the emulator closes their sockets. */
static int connect_nics(struct start *st, const struct json_object *req, struct err *e)
{
    struct json_object *nics = api_json_get(req, "nics");
    int rc = nics && json_object_is_type(nics, json_type_array) ? read_nics(st, nics, e) : 0;
    st->vm = api_json_get_int(req, "vm", 0);
    rc = rc == 0 ? shares_read(st, api_json_get(req, "shares"), e) : rc;
    if (rc == 0 && st->n_nics + st->n_shares > 0) {
        rc = open_emu_log(st, e);
    }
    if (rc == 0 && st->n_shares > 0) {
        rc = shares_start(st, true, e);
    }
    if (rc == 0 && st->n_nics > 0) {
        rc = nics_start(st, true, e);
    }
    for (unsigned i = 0; i < st->n_nics && rc == 0; i++) {
        int size = 1 << 20; /* the emulator is confined already, and may not */
        (void)setsockopt(st->nics[i].fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    return rc;
}

static void handle_open(struct spawner *sp, const struct json_object *req)
{
    struct err e = ERR_INIT;
    struct start st = nothing_open;
    const char *bad = NULL;
    int fds[SPAWN_OPEN_MAX + SPAWN_NICS_MAX * TAP_MAX_QUEUES + SPAWN_SHARES_MAX];
    st.sp = sp;
    int64_t id = api_json_get_int(req, "id", 0);
    int rc = read_list(&st, req, &e);
    if (rc == 0) {
        rc = files_open(&st, &bad, &e);
    }
    if (rc == 0) {
        rc = connect_nics(&st, req, &e);
    }
    if (rc == 0 && st.n_files + st.n_images > SPAWN_OPEN_MAX) {
        rc = err_set(&e, -E2BIG, "%u images at once, at most %d can be given to a VM that runs",
                     st.n_files + st.n_images, SPAWN_OPEN_MAX);
    }
    if (rc < 0) {
        send_error(sp, id, bad, &e);
    } else {
        AUTO_JSON o = json_object_new_object();
        unsigned n;
        api_json_set_int(o, "id", id);
        api_json_set(o, "images", list_opened(&st, fds, &n));
        send_list(sp, id, o, fds, n);
    }
    for (unsigned i = 0; i < st.n_nics; i++) {
        while (st.nics[i].n_fds > 0) {
            close(st.nics[i].fds[--st.nics[i].n_fds]);
        }
    }
    for (unsigned i = 0; i < st.n_shares; i++) {
        fd_autoclose(&st.shares[i].fd);
    }
    start_done(&st, false);
}

static void handle_network(struct spawner *sp, const struct json_object *req)
{
    struct err e = ERR_INIT;
    struct net_started out = { .pidfd = -1 };
    int64_t id = api_json_get_int(req, "id", 0);
    int rc = try_emulator(sp, &e); /* which tells what layers of a jail there are */
    if (rc == 0) {
        rc = network_start(sp, req, &out, &e);
    }
    if (rc < 0) {
        send_error(sp, id, NULL, &e);
        return;
    }
    AUTO_JSON o = json_object_new_object();
    api_json_set_int(o, "id", id);
    api_json_set_int(o, "pid", out.pid);
    api_json_set_int(o, "start_time", (int64_t)out.start_time);
    send_json(sp, o, &out.pidfd, 1);
    close(out.pidfd);
}

static void reap(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static void on_child(int sig)
{
    (void)sig; /* only to interrupt the wait, so that monitors are reaped soon */
}

/* Waits for a packet; SIGCHLD is let through only here, so none is missed. */
static void wait_packet(const struct spawner *sp)
{
    struct pollfd p = { .fd = sp->sock, .events = POLLIN };
    sigset_t none;
    sigemptyset(&none);
    do {
        reap();
    } while (ppoll(&p, 1, NULL, &none) < 0 && errno == EINTR);
}

static int serve(struct spawner *sp)
{
    AUTO_FREE char *packet = xalloc(SPAWN_PACKET_MAX);
    for (;;) {
        wait_packet(sp);
        ssize_t n = recv(sp->sock, packet, SPAWN_PACKET_MAX, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return 0; /* vmd is gone; nothing is left in the queue */
        }
        AUTO_JSON req = NULL;
        struct err e = ERR_INIT;
        if (api_json_parse(packet, (size_t)n, &req, &e) < 0) {
            log_error("spawn", "packet refused: %s", e.msg);
            continue;
        }
        const char *op = api_json_get_str(req, "op");
        if (op && strcmp(op, "check") == 0) {
            handle_check(sp, req);
        } else if (op && strcmp(op, "open") == 0) {
            handle_open(sp, req);
        } else if (op && strcmp(op, "network") == 0) {
            handle_network(sp, req);
        } else {
            handle_start(sp, req);
        }
    }
}

/* Waits for the spawner of a daemon before us to finish. */
static int lock_run(const char *run, struct err *e)
{
    AUTO_FREE char *path = xasprintf("%s/%s", run, SPAWN_LOCK);
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fd < 0) {
        return err_errno(e, errno, "cannot open '%s'", path);
    }
    while (fcntl(fd, F_OFD_SETLKW, &lock) < 0) {
        if (errno != EINTR) {
            return err_errno(e, errno, "cannot lock '%s'", path);
        }
    }
    return take_fd(&fd); /* held until the process ends */
}

static int set_up(struct spawner *sp, const char *run, int *lock, struct err *e)
{
    sp->root = geteuid() == 0;
    *lock = lock_run(run, e);
    if (*lock < 0) {
        return *lock;
    }
    sp->run_fd = open(sp->run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (sp->run_fd < 0) {
        return err_errno(e, errno, "cannot open '%s'", sp->run);
    }
    return proc_boot_id(sp->boot_id, e);
}

static void set_signals(void)
{
    struct sigaction child = { .sa_handler = on_child }; /* no SA_RESTART */
    sigset_t block;
    sigaction(SIGCHLD, &child, NULL);
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, NULL);
    /* A terminal's Ctrl-C goes to the whole group; vmd decides when we end. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "socket-fd", required_argument, NULL, 's' },
        { "run", required_argument, NULL, 'r' },
        { "emulator", required_argument, NULL, 'e' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    struct spawner sp = { .sock = -1, .run_fd = -1, .emulator_fd = -1 };
    const char *run = NULL;
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 's':
            sp.sock = atoi(optarg);
            break;
        case 'r':
            run = optarg;
            break;
        case 'e':
            sp.emulator = optarg;
            break;
        case 'v':
            printf("vmd-spawn %s\n", PACKAGE_VERSION);
            return 0;
        default:
            return 2;
        }
    }
    if (sp.sock < 0 || !run || !sp.emulator) {
        fprintf(stderr, "vmd-spawn is started by vmd, not by hand\n");
        return 2;
    }
    log_init("vmd-spawn", LOG_INFO, 2);
    set_signals();
    struct err e = ERR_INIT;
    AUTO_FREE char *vm_dir = xasprintf("%s/%s", run, SPAWN_VM_DIR);
    sp.run = vm_dir;
    fd_set_cloexec(sp.sock, true, NULL);
    AUTO_FD lock = -1;
    if (set_up(&sp, run, &lock, &e) < 0) {
        log_error("spawn", "%s", e.msg);
        send_failed(&sp, &e);
        return 1;
    }
    if (send_ready(&sp) < 0) {
        return 0;
    }
    if (jail_probe(&sp, &e) < 0) {
        log_error("spawn", "%s",
                  e.msg); /* VMs are listed and defined without; a start says so */
    }
    send_layers(&sp);
    return serve(&sp);
}
