/* SPDX-License-Identifier: Apache-2.0 */
/* See vnc.h. Owns struct vnc_door of each VM that ever had one. Loop thread. */
#include "daemon/screen/vnc.h"

#include "api-schema/json/error.h"
#include "api-schema/tls/tls.h"
#include "daemon/auth/stream.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/screen/vnc_int.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_FIRST 5900 /* where viewers look by themselves */
#define PORTS 100
#define ACCEPTS_A_TURN 4
#define PAUSE_NS INT64_C(100000000)

static const enum rfb_security kinds[] = {
    [API_VNC_SECURITY_NONE] = RFB_NONE,
    [API_VNC_SECURITY_PASSWORD] = RFB_PASSWORD,
    [API_VNC_SECURITY_TLS] = RFB_TLS,
    [API_VNC_SECURITY_TLS_PASSWORD] = RFB_TLS_PASSWORD,
    [API_VNC_SECURITY_TLS_USER] = RFB_TLS_USER,
};

/* ---- addresses ---- */

struct place {
    char host[64];
    int port; /* 0: the first that is free */
};

static int parse(const char *text, struct place *out, struct err *e)
{
    struct in6_addr six;
    struct in_addr four;
    AUTO_FREE char *host = NULL;
    const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
    int port = 0, rc = tls_parse_address(text, &host, &port, e);

    if (rc < 0) {
        return rc;
    }
    if (strcmp(host, "*") != 0 && inet_pton(AF_INET, host, &four) != 1 &&
        inet_pton(AF_INET6, host, &six) != 1) {
        return err_set(e, -EINVAL, "'%s' is no address of an interface", host);
    }
    str_copy(out->host, sizeof(out->host), host);
    out->port = colon && colon > bracket ? port : 0;
    return 0;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

int vnc_check(const struct api_vm_config *c, struct api_error *x)
{
    struct place at = { .port = 0 };
    struct err e = ERR_INIT;

    if (!c->vnc) {
        return 0;
    }
    if (!c->display) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.vnc",
                             "give it a screen: 'vmctl set VM --display virtio'",
                             "VM '%s' has no screen that VNC could show", c->name);
    }
    if (parse(c->vnc->listen, &at, &e) < 0) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.vnc.listen",
                             "say ADDRESS or ADDRESS:PORT, as 127.0.0.1:5901 or [::1]", "%s",
                             e.msg);
    }
    if ((c->vnc->security == API_VNC_SECURITY_NONE ||
         c->vnc->security == API_VNC_SECURITY_TLS) &&
        !is_loopback(at.host)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "config.vnc.security",
                             "choose tls-password or tls-user, or listen on 127.0.0.1",
                             "with '%s' nobody is asked who he is: that is for addresses "
                             "of this host alone",
                             api_vnc_security_name(c->vnc->security));
    }
    return 0;
}

/* ---- the password ---- */

static struct vnc_door *door_of(struct vm *vm)
{
    if (!vm->vnc) {
        vm->vnc = xnew(struct vnc_door);
        vm->vnc->d = vm->d;
        vm->vnc->vm = vm;
        vm->vnc->fd = -1;
        vm->vnc->until_ns = VNC_FOREVER;
        list_init(&vm->vnc->guests);
    }
    return vm->vnc;
}

void vnc_set_password(struct vm *vm, const char *password)
{
    struct vnc_door *o = door_of(vm);

    OPENSSL_cleanse(o->password, sizeof(o->password));
    str_copy(o->password, sizeof(o->password), password);
}

bool vnc_has_password(const struct vm *vm)
{
    return vm->vnc && vm->vnc->password[0] && time_mono_ns() < vm->vnc->until_ns;
}

void vnc_set_expiry(struct vm *vm, int64_t until_ns)
{
    door_of(vm)->until_ns = until_ns;
}

/* Takes as long for every text of the same length as the stored one's place. */
static bool same(const char *a, const char *b)
{
    char x[RFB_PASSWORD_MAX + 1] = { 0 }, y[RFB_PASSWORD_MAX + 1] = { 0 };
    bool equal;

    str_copy(x, sizeof(x), a);
    str_copy(y, sizeof(y), b);
    equal = CRYPTO_memcmp(x, y, sizeof(x)) == 0;
    OPENSSL_cleanse(x, sizeof(x));
    OPENSSL_cleanse(y, sizeof(y));
    return equal;
}

const char *vnc_judge(struct vnc_door *o, const struct rfb *r)
{
    static const char no[] = "the password is wrong";
    uint8_t want[RFB_CHALLENGE];

    if (r->security == RFB_TLS_USER) {
        AUTO_FREE char *path = runfs_path(&o->d->opt, o->vm->id, VM_VNC);
        if (stream_spend(o->d, r->password, r->user, path)) {
            return NULL;
        }
    }
    if (!vnc_has_password(o->vm)) {
        return "no password is set, or it has expired";
    }
    if (r->security == RFB_TLS_USER) {
        return same(r->user, o->vm->config.name) && same(r->password, o->password)
                   ? NULL
                   : "the user name or the password is wrong";
    }
    return rfb_answer(o->password, r->challenge, want) &&
                   CRYPTO_memcmp(want, r->answer, sizeof(want)) == 0
               ? NULL
               : no;
}

/* ---- listening ---- */

static void on_acceptable(void *arg, int fd, unsigned events)
{
    struct vnc_door *o = arg;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage at;
        socklen_t n = sizeof(at);
        char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "0", address[96];
        const char *name = host;
        int client = accept4(fd, (struct sockaddr *)&at, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (client < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                loop_fd_set(o->watch, 0);
                loop_timer_arm(o->again, PAUSE_NS);
            }
            return;
        }
        (void)getnameinfo((struct sockaddr *)&at, n, host, sizeof(host), port, sizeof(port),
                          NI_NUMERICHOST | NI_NUMERICSERV);
        name += str_starts(host, "::ffff:") ? 7 : 0;
        snprintf(address, sizeof(address), strchr(name, ':') ? "[%.64s]:%.8s" : "%.64s:%.8s",
                 name, port);
        vnc_guest_new(o, client, name, address);
    }
}

static void on_again(void *arg)
{
    struct vnc_door *o = arg;

    loop_fd_set(o->watch, LOOP_READ);
}

static int bind_at(const char *host, int port, struct err *e)
{
    struct addrinfo *list = NULL,
                    hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV };
    char number[16];
    int on = 1, off = 0;

    snprintf(number, sizeof(number), "%d", port);
    if (getaddrinfo(host, number, &hints, &list) != 0) {
        return err_set(e, -EINVAL, "'%s' is no address", host);
    }
    AUTO_FD fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (list->ai_family == AF_INET6) {
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        }
    }
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 64) < 0) {
        err_errno(e, errno, "cannot listen on %s port %d", host, port);
    }
    freeaddrinfo(list);
    return e->code ? e->code : take_fd(&fd);
}

/* '*' is both families, where the host has the younger one. */
static int listen_at(const struct place *at, struct err *e)
{
    const char *hosts[] = { strcmp(at->host, "*") == 0 ? "::" : at->host, "0.0.0.0" };
    int fd = -1, last = at->port ? at->port : PORT_FIRST + PORTS - 1;

    for (int i = 0; fd < 0 && i < (strcmp(at->host, "*") == 0 ? 2 : 1); i++) {
        for (int port = at->port ? at->port : PORT_FIRST; fd < 0 && port <= last; port++) {
            *e = (struct err)ERR_INIT;
            fd = bind_at(hosts[i], port, e);
        }
    }
    return fd;
}

static void name_own_address(struct vnc_door *o)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof(at);
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (getsockname(o->fd, (struct sockaddr *)&at, &n) == 0 &&
        getnameinfo((struct sockaddr *)&at, n, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        snprintf(o->address, sizeof(o->address),
                 strchr(host, ':') ? "[%.60s]:%.8s" : "%.60s:%.8s", host, port);
    }
}

static void open_door(struct vnc_door *o)
{
    const struct api_vm_config *c = &o->vm->config;
    struct place at = { .port = 0 };
    struct err e = ERR_INIT;

    o->problem[0] = 0;
    str_copy(o->listen, sizeof(o->listen), c->vnc->listen);
    o->fd = parse(c->vnc->listen, &at, &e) < 0 ? -1 : listen_at(&at, &e);
    if (o->fd < 0) {
        o->fd = -1;
        str_copy(o->problem, sizeof(o->problem), e.msg);
        log_warn("vnc", "VM '%s': %s; its screen is not served there", c->name, e.msg);
        return;
    }
    name_own_address(o);
    o->watch = loop_fd_new(o->d->loop, o->fd, LOOP_READ, on_acceptable, o);
    o->again = loop_timer_new(o->d->loop, on_again, o);
    log_info("vnc", "VM '%s': viewers are waited for at %s (%s)", c->name, o->address,
             api_vnc_security_name(c->vnc->security));
}

static void close_door(struct vnc_door *o)
{
    loop_fd_free(o->watch);
    loop_timer_free(o->again);
    o->watch = NULL;
    o->again = NULL;
    if (o->fd >= 0) {
        close(o->fd);
    }
    o->fd = -1;
    o->listen[0] = o->address[0] = o->problem[0] = 0;
}

static bool is_wanted(const struct vm *vm)
{
    return vm->config.vnc && vm->config.display && vm->run &&
           vm->state != API_VM_STATE_STARTING && vm->state != API_VM_STATE_STOPPED &&
           vm->state != API_VM_STATE_CRASHED;
}

void vnc_changed(struct vm *vm)
{
    bool wanted = is_wanted(vm);

    if (!wanted && !vm->vnc) {
        return;
    }
    struct vnc_door *o = door_of(vm);
    if (!wanted || strcmp(o->listen, vm->config.vnc->listen) != 0) {
        close_door(o);
    }
    if (wanted) {
        o->security = kinds[vm->config.vnc->security];
        if (o->fd < 0 && !o->problem[0]) {
            open_door(o);
        }
    }
}

unsigned vnc_disconnect(struct vm *vm)
{
    unsigned n = vm->vnc ? vm->vnc->n_guests : 0;

    while (vm->vnc && !list_empty(&vm->vnc->guests)) {
        vnc_guest_free(vnc_guest_of(vm->vnc->guests.next));
    }
    return n;
}

unsigned vnc_viewers(const struct vm *vm)
{
    return vm->vnc ? vm->vnc->n_guests : 0;
}

void vnc_free(struct vm *vm)
{
    if (vm->vnc) {
        vnc_disconnect(vm);
        close_door(vm->vnc);
        OPENSSL_cleanse(vm->vnc->password, sizeof(vm->vnc->password));
        free(vm->vnc);
        vm->vnc = NULL;
    }
}

const char *vnc_address(const struct vm *vm)
{
    return vm->vnc && vm->vnc->fd >= 0 ? vm->vnc->address : NULL;
}

const char *vnc_problem(const struct vm *vm)
{
    return vm->vnc && vm->vnc->problem[0] ? vm->vnc->problem : NULL;
}
