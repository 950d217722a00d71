/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.export_start: makes the listening socket of a VM's NBD server, reads the keys, and passes both to its emulator, which makes no
 * socket and opens no file. An operation of its VM. Owns struct exporting, one for each at work. Loop thread, but for
 * listen_main().
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/disk_actions.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)
#define PEM_MAX 65536

struct exporting {
    struct list link; /* vmd.dexports */
    struct vmd *d;
    int64_t vm, clients;
    struct op *op;
    char *socket, *host, *tls; /* borrowed by the thread */
    int port, fd;
    char *uri;
    struct buf pem[3]; /* certificate, key, authority */
    bool waits, working;
    pthread_t thread;
    struct err e;
};

static struct vm *vm_of(const struct exporting *k)
{
    struct vm *vm = vm_by_id(k->d, k->vm);

    return vm && vm->op == k->op ? vm : NULL;
}

static void exporting_free(struct exporting *k)
{
    list_remove(&k->link);
    fd_autoclose(&k->fd);
    for (unsigned i = 0; i < 3; i++) {
        if (k->pem[i].data) {
            explicit_bzero(k->pem[i].data, k->pem[i].len);
        }
        buf_done(&k->pem[i]);
    }
    free(k->socket);
    free(k->host);
    free(k->tls);
    free(k->uri);
    free(k);
}

static void failf(struct exporting *k, int code, const char *remedy, const char *text)
{
    struct op *op = vm_of(k) ? k->op : NULL;

    if (op) {
        op_failf(op, code, remedy, "VM '%s': %s", op->vm->config.name, text);
    }
    exporting_free(k);
}

/* ---- the emulator ---- */

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct exporting *k = arg;

    (void)vm;
    (void)gone;
    k->waits = false;
    failf(k, API_E_BAD_STATE, NULL, "it ended meanwhile");
}

static void on_durable(void *arg, const struct err *e)
{
    struct exporting *k = arg;
    struct op *op = vm_of(k) ? k->op : NULL;

    (void)e;
    exporting_free(k);
    if (op) {
        op->call = NULL; /* answered right after this */
        op_end(op);
    }
}

static void on_started(void *arg, struct json_object *result, const struct api_error *x)
{
    struct exporting *k = arg;
    struct vm *vm = k->op->vm;
    struct json_object *o;

    (void)result;
    run_on_end_cancel(vm->run, k);
    k->waits = false;
    if (x) {
        failf(k, x->code == API_E_TIMEOUT ? API_E_UNRESPONSIVE : x->code,
              x->remedy[0] ? x->remedy : NULL, x->message);
        return;
    }
    o = json_object_new_object();
    api_json_set_str(o, "uri", k->uri);
    call_commit(k->d, k->op->call, change_new(k->d), vm->config.name, o, on_durable, k);
}

static void pass(struct exporting *k)
{
    static const char *const names[] = { "certificate", "key", "authority" };
    struct vm *vm = vm_of(k);
    struct json_object *o;

    if (!vm || !vm->run || run_has_ended(vm->run)) {
        failf(k, API_E_BAD_STATE, "start it first: 'vmctl start'", "it does not run");
        return;
    }
    o = json_object_new_object();
    api_json_set_int(o, "clients", k->clients);
    for (unsigned i = 0; i < 3; i++) {
        if (k->pem[i].len) {
            api_json_set_str(o, names[i], (const char *)k->pem[i].data);
        }
    }
    k->waits = true;
    run_on_end(vm->run, vm_ended, k);
    if (!run_call_fd(vm->run, "emu.export_start", o, take_fd(&k->fd), ASK_NS, on_started, k)) {
        run_on_end_cancel(vm->run, k);
        k->waits = false;
        failf(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
              "its emulator does not answer");
    }
}

/* ---- the thread ---- */

static bool is_loopback(const struct sockaddr *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)a;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)a;

    return a->sa_family == AF_INET    ? ntohl(v4->sin_addr.s_addr) >> 24 == 127
           : a->sa_family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr)
                                      : false;
}

static int bind_one(struct exporting *k, const struct addrinfo *a)
{
    const int one = 1;
    struct sockaddr_storage got;
    socklen_t n = sizeof(got);
    char host[64], port[16];
    AUTO_FD fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&got, &n) != 0) {
        return err_errno(&k->e, errno, "cannot listen to %s port %d", k->host, k->port);
    }
    if (getnameinfo((struct sockaddr *)&got, n, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return err_set(&k->e, -EINVAL, "cannot tell the address of %s", k->host);
    }
    k->fd = take_fd(&fd);
    k->uri = xasprintf(a->ai_family == AF_INET6 ? "%s://[%s]:%s/" : "%s://%s:%s/",
                       k->tls ? "nbds" : "nbd", host, port);
    return 0;
}

static void listen_tcp(struct exporting *k)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list = NULL;
    char port[16];
    int rc;

    snprintf(port, sizeof(port), "%d", k->port);
    rc = getaddrinfo(k->host, port, &hints, &list);
    if (rc != 0) {
        err_set(&k->e, -EINVAL, "address %s: %s", k->host, gai_strerror(rc));
        return;
    }
    for (const struct addrinfo *a = list; a && k->fd < 0; a = a->ai_next) {
        k->e = (struct err)ERR_INIT;
        if (!k->tls && !is_loopback(a->ai_addr)) {
            err_set(&k->e, -EACCES, "%s is not of this host alone: that needs TLS", k->host);
        } else {
            (void)bind_one(k, a);
        }
    }
    freeaddrinfo(list);
}

static void read_keys(struct exporting *k)
{
    static const char *const names[] = { "server-cert.pem", "server-key.pem", "ca-cert.pem" };

    for (unsigned i = 0; i < 3 && !k->e.code; i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", k->tls, names[i]);

        if (i == 2 && access(path, F_OK) != 0) {
            break; /* clients need none then */
        }
        if (file_slurp(path, &k->pem[i], PEM_MAX - 1, &k->e) == 0) {
            buf_add(&k->pem[i], "", 1);
        }
    }
}

static void on_listening(void *arg)
{
    struct exporting *k = arg;

    pthread_join(k->thread, NULL);
    k->working = false;
    if (k->e.code) {
        failf(k, k->e.code == -EADDRINUSE ? API_E_EXISTS : API_E_FILE_ERROR, NULL, k->e.msg);
        return;
    }
    pass(k);
}

static void *listen_main(void *arg)
{
    struct exporting *k = arg;

    if (k->tls) {
        read_keys(k);
    }
    if (!k->e.code && k->host) {
        listen_tcp(k);
    } else if (!k->e.code) {
        int fd = unix_listen(k->socket, 0660, 64, &k->e);

        k->fd = fd >= 0 ? fd : -1;
        k->uri = xasprintf("%s+unix:///?socket=%s", k->tls ? "nbds" : "nbd", k->socket);
    }
    loop_post(k->d->loop, on_listening, k);
    return NULL;
}

/* ---- the call ---- */

static bool may(struct op *op, const struct api_disk_export_start_in *in)
{
    struct vm *vm = op->vm;
    struct api_error x = API_ERROR_INIT;

    if (!vm_is_live(vm)) {
        op_failf(op, API_E_BAD_STATE, "start it first: 'vmctl start'", "VM '%s' is %s",
                 vm->config.name, api_vm_state_name(vm->state));
    } else if (in->socket && in->host) {
        op_failf(op, API_E_INVALID_PARAMS, "choose one",
                 "a unix socket or an address, not both");
    } else if ((in->socket &&
                access_file(op->call, vm->config.project, "socket", in->socket, &x) < 0) ||
               (in->tls && access_file(op->call, vm->config.project, "tls", in->tls, &x) < 0)) {
        op_fail(op, &x);
    } else {
        return true;
    }
    return false;
}

static void start_begin(struct op *op)
{
    const struct api_disk_export_start_in *in = op->in;
    struct exporting *k;
    int rc;

    if (!may(op, in)) {
        return;
    }
    k = xnew(struct exporting);
    *k = (struct exporting){ .d = op->vm->d,
                             .vm = op->vm->id,
                             .op = op,
                             .fd = -1,
                             .port = (int)in->port,
                             .clients = in->clients,
                             .host = in->host ? xstrdup(in->host) : NULL,
                             .tls = in->tls ? xstrdup(in->tls) : NULL };
    k->e = (struct err)ERR_INIT;
    k->socket = in->socket ? xstrdup(in->socket) : runfs_path(&k->d->opt, op->vm->id, VM_NBD);
    list_append(&k->d->dexports, &k->link);
    rc = pthread_create(&k->thread, NULL, listen_main, k);
    if (rc != 0) {
        failf(k, API_E_HOST_LIMIT, NULL, "cannot start a thread");
        return;
    }
    k->working = true;
}

void api_handle_disk_export_start(struct api_call *call, struct api_disk_export_start_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, start_begin, false);
    }
}

void disk_exports_end(struct vmd *d)
{
    while (!list_empty(&d->dexports)) {
        struct exporting *k = list_entry(d->dexports.next, struct exporting, link);

        if (k->working) {
            pthread_join(k->thread, NULL);
        }
        exporting_free(k);
    }
}
