/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-net: user-mode networking of one network card or its vhost-user back end, in a process of its own. The emulator, which the guest may have
 * taken over, can make no socket; this process can, and has nothing else: no file but the resolver's configuration and the TFTP
 * folder, no guest memory. It is joined to the emulator by a socket pair and ends with it. One thread.
 *
 * Whoever starts it reads from --status-fd: a plus sign, when it serves, else why it cannot.
 */
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "network/server/confine.h"
#include "network/server/join.h"
#include "network/server/lan.h"
#include "network/server/user.h"
#include "network/server/vhost.h"
#include "network/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct user_options user;
    int fd, status_fd, ports_fd, control_fd;
    const char *network; /* a named network, as lan.h says; NULL: user mode of one card */
    struct vhost_options vhost; /* with connect_fd: a vhost-user back end of one card */
    bool sandbox;
};

enum {
    O_FD = 256,
    O_STATUS,
    O_NAME,
    O_NET,
    O_HOST,
    O_DNS,
    O_DHCP,
    O_NET6,
    O_HOST6,
    O_DNS6,
    O_NO4,
    O_NO6,
    O_RESTRICT,
    O_HOSTNAME,
    O_DOMAIN,
    O_SEARCH,
    O_TFTP,
    O_TFTP_NAME,
    O_BOOTFILE,
    O_FORWARD,
    O_GUEST_FORWARD,
    O_MTU,
    O_NETWORK,
    O_PORTS,
    O_CONTROL,
    O_CONNECT,
    O_VHOST_QUEUES,
    O_VHOST_LISTENS,
    O_NO_SANDBOX,
    O_VERSION,
    O_HELP
};

static const struct option long_options[] = {
    { "socket-fd", required_argument, NULL, O_FD },
    { "status-fd", required_argument, NULL, O_STATUS },
    { "name", required_argument, NULL, O_NAME },
    { "net", required_argument, NULL, O_NET },
    { "host", required_argument, NULL, O_HOST },
    { "dns", required_argument, NULL, O_DNS },
    { "dhcp-start", required_argument, NULL, O_DHCP },
    { "net6", required_argument, NULL, O_NET6 },
    { "host6", required_argument, NULL, O_HOST6 },
    { "dns6", required_argument, NULL, O_DNS6 },
    { "no-ipv4", no_argument, NULL, O_NO4 },
    { "no-ipv6", no_argument, NULL, O_NO6 },
    { "restrict", no_argument, NULL, O_RESTRICT },
    { "hostname", required_argument, NULL, O_HOSTNAME },
    { "domain", required_argument, NULL, O_DOMAIN },
    { "search", required_argument, NULL, O_SEARCH },
    { "tftp", required_argument, NULL, O_TFTP },
    { "tftp-name", required_argument, NULL, O_TFTP_NAME },
    { "bootfile", required_argument, NULL, O_BOOTFILE },
    { "forward", required_argument, NULL, O_FORWARD },
    { "guest-forward", required_argument, NULL, O_GUEST_FORWARD },
    { "mtu", required_argument, NULL, O_MTU },
    { "network", required_argument, NULL, O_NETWORK },
    { "ports-fd", required_argument, NULL, O_PORTS },
    { "control-fd", required_argument, NULL, O_CONTROL },
    { "connect-fd", required_argument, NULL, O_CONNECT },
    { "vhost-queues", required_argument, NULL, O_VHOST_QUEUES },
    { "vhost-listens", no_argument, NULL, O_VHOST_LISTENS },
    { "no-sandbox", no_argument, NULL, O_NO_SANDBOX },
    { "version", no_argument, NULL, O_VERSION },
    { "help", no_argument, NULL, O_HELP },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "usage: vmd-net --socket-fd N [--name NAME] [OPTION]...\n"
    "\n"
    "User-mode networking of one network card. Started by vmd and vmd-emu, not by hand: the "
    "socket\n"
    "carries frames behind their length (32 bits, big-endian) and their virtio header.\n"
    "\n"
    "  --net A.B.C.D/N --host A --dns A --dhcp-start A   IPv4 network, gateway, resolver, "
    "first guest\n"
    "  --net6 A::/N --host6 A --dns6 A                   the same of IPv6\n"
    "  --no-ipv4, --no-ipv6, --restrict                  without; nothing reaches the world\n"
    "  --hostname N --domain N --search N                what DHCP tells\n"
    "  --tftp DIR --tftp-name N --bootfile FILE          for network boot\n"
    "  --forward tcp:[ADDRESS]:PORT-[ADDRESS]:PORT       from the host to the guest (tcp or "
    "udp)\n"
    "  --guest-forward tcp:ADDRESS:PORT-ADDRESS:PORT     from the guest to the host\n"
    "  --mtu N                                           largest packet, 1500 by default\n"
    "  --network JSON --ports-fd N --control-fd N        a named network: a switch with a "
    "gateway\n"
    "  --connect-fd N --vhost-queues N --vhost-listens   a vhost-user back end, not user mode\n"
    "  --status-fd N                                     where a failure to start is told\n"
    "  --no-sandbox                                      no filter of system calls\n"
    "  --version, --help\n";

static int add_text(const char **list, unsigned *n, unsigned max, const char *what,
                    const char *arg, struct err *e)
{
    if (*n == max) {
        return err_set(e, -E2BIG, "more than %u times %s", max, what);
    }
    list[(*n)++] = arg;
    return 0;
}

/* Options that are a text kept as it is. */
static const char **text_of(struct user_options *u, int opt)
{
    switch (opt) {
    case O_NAME:
        return &u->name;
    case O_NET:
        return &u->net;
    case O_HOST:
        return &u->host;
    case O_DNS:
        return &u->dns;
    case O_DHCP:
        return &u->dhcp_start;
    case O_NET6:
        return &u->net6;
    case O_HOST6:
        return &u->host6;
    case O_DNS6:
        return &u->dns6;
    case O_HOSTNAME:
        return &u->hostname;
    case O_DOMAIN:
        return &u->domain;
    case O_TFTP:
        return &u->tftp;
    case O_TFTP_NAME:
        return &u->tftp_name;
    case O_BOOTFILE:
        return &u->bootfile;
    default:
        return NULL;
    }
}

/* Options that are the number of a descriptor. */
static int *fd_of(struct options *o, int opt)
{
    switch (opt) {
    case O_FD:
        return &o->fd;
    case O_STATUS:
        return &o->status_fd;
    case O_PORTS:
        return &o->ports_fd;
    case O_CONTROL:
        return &o->control_fd;
    case O_CONNECT:
        return &o->vhost.connect_fd;
    default:
        return NULL;
    }
}

static int parse_one(struct options *o, int opt, const char *arg, struct err *e)
{
    const char **text = text_of(&o->user, opt);
    uint64_t n = 0;
    int rc = 0, *fd;

    if (text) {
        *text = arg;
        return 0;
    }
    fd = fd_of(o, opt);
    if (fd) {
        rc = str_to_u64(arg, 0, 1 << 20, "descriptor", &n, e);
        *fd = (int)n;
        return rc;
    }
    switch (opt) {
    case O_NETWORK:
        o->network = arg;
        return 0;
    case O_MTU:
        rc = str_to_u64(arg, 576, 65521, "--mtu", &n, e);
        o->user.mtu = (unsigned)n;
        return rc;
    case O_VHOST_QUEUES:
        rc = str_to_u64(arg, 1, VHOST_PAIRS_MAX, "--vhost-queues", &n, e);
        o->vhost.pairs = (unsigned)n;
        return rc;
    case O_VHOST_LISTENS:
        o->vhost.listens = true;
        return 0;
    case O_NO4:
        o->user.no_ipv4 = true;
        return 0;
    case O_NO6:
        o->user.no_ipv6 = true;
        return 0;
    case O_RESTRICT:
        o->user.restricted = true;
        return 0;
    case O_NO_SANDBOX:
        o->sandbox = false;
        return 0;
    case O_SEARCH:
        return add_text(o->user.search, &o->user.n_search, ARRAY_LEN(o->user.search),
                        "--search", arg, e);
    case O_FORWARD:
        return add_text(o->user.forward, &o->user.n_forward, USER_FORWARDS_MAX, "--forward",
                        arg, e);
    case O_GUEST_FORWARD:
        return add_text(o->user.guest_forward, &o->user.n_guest_forward, USER_FORWARDS_MAX,
                        "--guest-forward", arg, e);
    default:
        return err_set(e, -EINVAL, "unknown option or missing argument; see vmd-net --help");
    }
}

static void on_end(void *arg)
{
    loop_quit(arg);
}

static int set_up(struct options *o, struct loop *l, struct net_join **out, struct err *e)
{
    struct net_port *far, *link;

    o->vhost.name = o->user.name;
    far = o->vhost.connect_fd >= 0 ? vhost_port_new(l, &o->vhost, e) : user_new(l, &o->user, e);
    if (!far) {
        return e->code;
    }
    net_stream_widen(o->fd);
    link = net_stream_new(l, o->fd, o->user.name, true);
    net_stream_on_end(link, on_end, l);
    *out = net_join_new(link, far);
    return o->sandbox ? confine_net(e) : 0;
}

/* A sign of its own: an end of the pipe is what a process that died leaves, too. */
static int say_ready(struct options *o, struct err *e)
{
    if (o->status_fd >= 0) {
        if (write(o->status_fd, "+", 1) != 1) {
            return err_errno(e, errno, "who started vmd-net is gone");
        }
        close(o->status_fd);
        o->status_fd = -1;
    }
    return 0;
}

static int serve(struct options *o, struct err *e)
{
    struct loop *l = loop_new(e);
    struct net_join *j = NULL;
    int rc = l ? set_up(o, l, &j, e) : -ENOMEM;

    if (rc == 0) {
        rc = say_ready(o, e);
    }
    if (rc == 0) {
        rc = loop_run(l, e);
    }
    net_join_free(j);
    loop_free(l);
    return rc;
}

static int serve_network(struct options *o, struct err *e)
{
    struct loop *l = loop_new(e);
    struct lan *n = NULL;
    int rc = l ? 0 : -ENOMEM;

    if (rc == 0) {
        (void)fcntl(o->ports_fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(o->control_fd, F_SETFD, FD_CLOEXEC);
        n = lan_new(l, o->network, o->ports_fd, o->control_fd, e);
        rc = n ? 0 : e->code;
    }
    if (rc == 0 && o->sandbox) {
        rc = confine_net(e);
    }
    if (rc == 0) {
        rc = say_ready(o, e);
    }
    if (rc == 0) {
        rc = loop_run(l, e);
    }
    lan_free(n);
    loop_free(l);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = { .fd = -1,
                         .status_fd = -1,
                         .ports_fd = -1,
                         .control_fd = -1,
                         .sandbox = true,
                         .vhost = { .connect_fd = -1, .pairs = 1 },
                         .user = { .name = "nic" } };
    struct err e = ERR_INIT;
    int opt, rc = 0;

    log_init("vmd-net", LOG_INFO, STDERR_FILENO);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C is for the emulator, with which we end */
    opterr = 0;
    while (rc == 0 && (opt = getopt_long(argc, argv, "d:", long_options, NULL)) != -1) {
        if (opt == O_VERSION || opt == O_HELP) {
            printf(opt == O_HELP ? "%s" : "vmd-net %s\n",
                   opt == O_HELP ? help : PACKAGE_VERSION);
            return 0;
        }
        if (opt == 'd') {
            log_set_trace(optarg);
        } else {
            rc = parse_one(&o, opt, optarg, &e);
        }
    }
    if (rc == 0 && (o.network ? o.ports_fd < 0 || o.control_fd < 0 : o.fd < 0)) {
        rc = err_set(&e, -EINVAL, "vmd-net is started by vmd and vmd-emu; see vmd-net --help");
    }
    if (rc == 0) {
        (void)fcntl(o.fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(o.vhost.connect_fd, F_SETFD, FD_CLOEXEC);
        rc = o.network ? serve_network(&o, &e) : serve(&o, &e);
    }
    if (rc != 0) {
        dprintf(o.status_fd >= 0 ? o.status_fd : STDERR_FILENO, "%s%s",
                o.status_fd >= 0 ? "" : "vmd-net: ", e.msg);
        return 1;
    }
    return 0;
}
