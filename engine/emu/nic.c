/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network cards of the configuration: where each one's port leads. The spawner passes a connected socket a card; run
 * by hand, the emulator starts vmd-net and connects to sockets itself, before it confines itself. Main thread.
 */
#include "api-schema/net/nicargs.h"
#include "api-schema/net/vhostsock.h"
#include "devices/net/virtio_net.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"
#include "engine/emu/replay/replay.h"
#include "network/stream.h"
#include "network/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELPER_MS 15000 /* to get ready, on a machine that has much to do */
_Static_assert(TAP_MAX_QUEUES <= NET_TAP_QUEUES, "queues of a port on a tap");

/* vmd-net lies beside us, or where it was installed. */
static char *helper_path(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n > 0) {
        self[n] = 0;
        slash = strrchr(self, '/');
        if (slash) {
            char *path;

            *slash = 0;
            path = xasprintf("%s/vmd-net", self);
            if (access(path, X_OK) == 0) {
                return path;
            }
            free(path);
        }
    }
    return xstrdup(VMD_PKGLIBEXECDIR "/vmd-net");
}

/* Never returns. */
static void __attribute__((noreturn))
helper_main(const char *path, const struct api_nic *nic, char **args, int sock, int status)
{
    char *argv[8 + 128] = { (char *)"vmd-net" };
    unsigned n = 1;
    struct err e = ERR_INIT;
    pid_t pid;
    int connect = nic->type == API_NIC_TYPE_VHOST_USER
                      ? vhost_sock_start(nic->path, nic->server, &pid, &e)
                      : -1;

    sigset_t none;

    setsid(); /* signals of a terminal are for the emulator */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* which reads them; vmd-net ends by them */
    for (unsigned i = 0; args[i] && n < 120; i++) {
        argv[n++] = args[i];
    }
    argv[n++] = (char *)"--socket-fd";
    argv[n++] = xasprintf("%d", sock);
    argv[n++] = (char *)"--status-fd";
    argv[n++] = xasprintf("%d", status);
    if (e.code != 0) {
        dprintf(status, "network card '%s': %s", nic->name, e.msg);
        _exit(127);
    }
    if (connect >= 0) {
        argv[n++] = (char *)"--connect-fd";
        argv[n++] = xasprintf("%d", connect);
        fcntl(connect, F_SETFD, 0);
    }
    fcntl(sock, F_SETFD, 0);
    fcntl(status, F_SETFD, 0);
    execv(path, argv);
    dprintf(status, "cannot start '%s': %s", path, strerror(errno));
    _exit(127);
}

/* What it says: a plus sign, when it serves, or why it ends. */
static int helper_ready(int fd, const char *name, struct err *e)
{
    char text[400];
    size_t got = 0;
    ssize_t n = 1;

    while (n != 0 && got < sizeof(text) - 1) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        if (poll(&p, 1, HELPER_MS) == 0) {
            return err_set(e, -ETIMEDOUT, "network card '%s': vmd-net is not ready after %d s",
                           name, HELPER_MS / 1000);
        }
        n = read(fd, text + got, sizeof(text) - 1 - got);
        if (n < 0 && errno != EINTR) {
            return err_errno(e, errno, "network card '%s'", name);
        }
        got += n > 0 ? (size_t)n : 0;
    }
    text[got] = 0;
    if (strcmp(text, "+") == 0) {
        return 0;
    }
    return err_set(e, -EINVAL, got ? "%s" : "network card '%s': vmd-net ended before it served",
                   got ? text : name);
}

static int start_helper(const struct api_nic *n, int *fd, struct err *e)
{
    AUTO_FREE char *path = helper_path();
    char **args;
    int pair[2], status[2], rc;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_errno(e, errno, "network card '%s': cannot make a socket pair", n->name);
    }
    AUTO_FD mine = pair[0], theirs = pair[1];
    if (pipe2(status, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "network card '%s': cannot make a pipe", n->name);
    }
    AUTO_FD status_r = status[0], status_w = status[1];
    args = nic_args(n);
    pid = fork();
    if (pid == 0) {
        /* Twice, so that it is nobody's child to wait for. */
        if (fork() == 0) {
            helper_main(path, n, args, theirs, status_w);
        }
        _exit(0);
    }
    nic_args_free(args);
    if (pid < 0) {
        return err_errno(e, errno, "network card '%s': cannot start vmd-net", n->name);
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    close(take_fd(&theirs));
    close(take_fd(&status_w));
    rc = helper_ready(status_r, n->name, e);
    if (rc == 0) {
        *fd = take_fd(&mine);
    }
    return rc;
}

static int connect_dgram(const char *path, struct err *e)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX }, any = { .sun_family = AF_UNIX };
    AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || !str_copy(to.sun_path, sizeof(to.sun_path), path)) {
        return err_set(e, -ENAMETOOLONG, "socket '%s' has too long a name (107 bytes at most)",
                       path);
    }
    /* A name of the kernel's choice, so that the peer can answer. */
    if (bind(fd, (struct sockaddr *)&any, sizeof(any.sun_family)) < 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return err_errno(e, errno, "cannot connect to socket '%s'", path);
    }
    return take_fd(&fd);
}

static bool is_tap(const struct api_nic *n)
{
    return n->type == API_NIC_TYPE_TAP || n->type == API_NIC_TYPE_BRIDGE;
}

struct net_port *nic_port(struct emu *m, const struct api_nic *n, const int *take_fds,
                          unsigned count)
{
    int fd = take_fds[0];

    if (is_tap(n)) {
        return net_tap_new(m->loop, take_fds, count, n->name);
    }
    for (unsigned i = 1; i < count; i++) {
        close(take_fds[i]);
    }
    if (n->type != API_NIC_TYPE_DGRAM &&
        !m->board) { /* later we are confined, and it was done */
        net_stream_widen(fd);
    }
    return n->type == API_NIC_TYPE_DGRAM
               ? net_dgram_new(m->loop, fd, n->name, false)
               : net_stream_new(m->loop, fd, n->name, n->type != API_NIC_TYPE_STREAM);
}

/* A socket for the card, or queues of its tap: those that were passed, or our own. Returns how many; 0: it needs none. */
static int card_sockets(struct emu *m, const struct api_nic *n, int out[TAP_MAX_QUEUES],
                        struct err *e)
{
    int count = 0;

    for (unsigned i = 0; i < m->opt.n_nics && count < TAP_MAX_QUEUES; i++) {
        if (strcmp(m->opt.nics[i].path, n->name) == 0 && m->opt.nics[i].fd >= 0) {
            out[count++] = take_fd(&m->opt.nics[i].fd);
        }
    }
    if (count > 0) {
        return count;
    }
    if (n->type == API_NIC_TYPE_NONE) {
        return 0;
    }
    if (m->opt.config_fd >= 0) {
        return err_set(e, -ENOENT, "network card '%s' was not passed with --nic", n->name);
    }
    if (n->type == API_NIC_TYPE_NETWORK) {
        return err_set(e, -ENOTSUP, "network card '%s': only VMs of vmd have named networks",
                       n->name);
    }
    if (n->type == API_NIC_TYPE_USER || n->type == API_NIC_TYPE_VHOST_USER) {
        return start_helper(n, out, e) == 0 ? 1 : e->code;
    }
    if (is_tap(n)) {
        struct tap_wish w = nic_tap(n);

        count = tap_open(&w, out, e);
    } else {
        *out = n->type == API_NIC_TYPE_DGRAM ? connect_dgram(n->path, e)
                                             : unix_connect(n->path, e);
        count = *out < 0 ? *out : 1;
    }
    if (count < 0) {
        err_prefix(e, "network card '%s'", n->name);
        return e->code;
    }
    return count;
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++) {
        close(fds[i]);
    }
}

int nic_open(struct emu *m, size_t i, struct board_config *b, struct err *e)
{
    struct api_nic *n = &m->config.nics[i];
    struct board_nic *card = &b->nic[i];
    int fds[TAP_MAX_QUEUES], rc, count;

    if (!n->name) {
        n->name = xasprintf("nic%zu", i);
    }
    for (size_t k = 0; k < i; k++) {
        if (strcmp(m->config.nics[k].name, n->name) == 0) {
            return err_set(e, -EEXIST, "two network cards are named '%s'", n->name);
        }
    }
    rc = nic_check(n, e);
    if (rc != 0) {
        err_prefix(e, "network card '%s'", n->name);
        return rc;
    }
    count = m->opt.replay ? 0 : card_sockets(m, n, fds, e);
    if (count < 0) {
        return count;
    }
    nic_mac(&m->config, i, m->mac[i]);
    *card = (struct board_nic){ .mac = m->mac[i],
                                .bus = n->bus == API_NIC_BUS_VIRTIO_PCI ? BOARD_NIC_VIRTIO_PCI
                                                                        : BOARD_NIC_VIRTIO_MMIO,
                                .mtu = nic_mtu(n),
                                .queues = (unsigned)n->queues,
                                .hotplug = n->hotplug };
    if (card->hotplug && card->bus != BOARD_NIC_VIRTIO_PCI) {
        close_all(fds, count);
        return err_set(e, -EINVAL, "network card '%s': 'hotplug' needs the bus virtio-pci",
                       n->name);
    }
    rc = n->rom ? emu_image(m, "expansion ROM", n->rom, &card->rom, e) : 0;
    if (rc != 0) {
        close_all(fds, count);
        return rc;
    }
    if (count > 0) {
        card->port = nic_port(m, n, fds, (unsigned)count);
    }
    if (record_active(m) && n->type != API_NIC_TYPE_NONE) {
        card->port = record_nic_new(m->vm, n->name, card->port);
    }
    return 0;
}

int nic_open_all(struct emu *m, struct board_config *b, struct err *e)
{
    int rc = 0;

    for (size_t i = 0; i < m->config.n_nics && rc == 0; i++) {
        rc = nic_open(m, i, b, e);
        b->n_nics += rc == 0;
    }
    if (rc != 0) {
        nic_close_all(b);
    }
    return rc;
}

void nic_close_all(struct board_config *b)
{
    while (b->n_nics > 0) {
        net_close(b->nic[--b->n_nics].port);
    }
}

void nic_built(struct emu *m)
{
    for (size_t i = 0; i < m->config.n_nics; i++) {
        if (!m->config.nics[i].link) {
            virtio_net_set_link(m->board_class->nic(m->board, (unsigned)i), false);
        }
    }
}
