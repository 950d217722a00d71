/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl image nbd-serve`: exports one image until its last client has gone, or with --persistent until it is
 * told to end. Options are named as qemu-nbd users know them. One event loop and the threads of the storage room.
 */
#include "cli/image.h"

#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "storage/bitmap.h"
#include "storage/nbd.h"
#include "storage/work.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct serve {
    struct cli *c;
    struct loop *loop;
    struct blk_pool *pool;
    struct workers *workers;
    struct nbd_server *server;
    struct blk_node *node;
    struct nbd_tls tls;
    bool persistent;
    struct loop_signal *sig[3];
};

static void on_signal(void *arg, int signo)
{
    struct serve *s = arg;

    (void)signo;
    loop_quit(s->loop);
}

static void on_clients(void *arg, unsigned now)
{
    struct serve *s = arg;

    if (now == 0 && !s->persistent) {
        loop_quit(s->loop);
    }
}

/* --- where it listens --- */

static int listen_tcp(const char *host, const char *port, int *out, struct err *e)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list = NULL;
    const int one = 1;
    int rc = getaddrinfo(host, port, &hints, &list), why = EADDRNOTAVAIL;

    if (rc != 0) {
        return err_set(e, -EINVAL, "address %s port %s: %s", host, port, gai_strerror(rc));
    }
    *out = -1;
    for (struct addrinfo *a = list; a && *out < 0; a = a->ai_next) {
        AUTO_FD fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

        if (fd >= 0) {
            (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        }
        if (fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 64) == 0) {
            *out = take_fd(&fd);
        } else {
            why = errno;
        }
    }
    freeaddrinfo(list);
    return *out >= 0 ? 0 : err_errno(e, why, "cannot listen to %s port %s", host, port);
}

static int serve_listen(struct serve *s, struct cli_input *in, struct err *e)
{
    const char *path = cli_own(in, "socket"), *host = cli_own(in, "bind");
    const char *port = cli_own(in, "port");
    int fd = -1, rc;

    if (path) {
        rc = fd = unix_listen(path, 0600, 64, e);
    } else {
        rc = listen_tcp(host ? host : "127.0.0.1", port ? port : NBD_PORT, &fd, e);
    }
    return rc < 0 ? rc : nbd_server_listen(s->server, fd, e);
}

/* --- what it exports --- */

static int serve_open(struct serve *s, struct cli_input *in, struct img_source *src)
{
    const struct blk_pool_options po = { 0 };
    const struct workers_options wo = { 0 };
    struct err e = ERR_INIT;
    int status;

    s->loop = loop_new(&e);
    if (!s->loop || blk_pool_new(s->loop, &po, &s->pool, &e) != 0 ||
        workers_new(s->loop, &wo, &s->workers, &e) != 0) {
        return img_error(s->c, &e);
    }
    src->pool = s->pool;
    status = img_cache(s->c, cli_own(in, "cache"), src);
    status = status != CLI_OK ? status : img_open(s->c, src, &s->node);
    if (status == CLI_OK && cli_own(in, "snapshot") &&
        blk_snapshot_load(s->node, cli_own(in, "snapshot"), &e) != 0) {
        status = img_error(s->c, &e);
    }
    return status;
}

static int find_bitmap(struct serve *s, const char *name, struct nbd_export_options *x,
                       struct err *e)
{
    x->bitmap_name = name;
    return name ? blk_dirty_find(s->node, name, &x->bitmap, e) : 0;
}

static int serve_export(struct serve *s, struct cli_input *in, const struct img_source *src)
{
    const char *shared = cli_own(in, "shared"), *name = cli_own(in, "export-name");
    const struct nbd_tls_files files = { .dir = cli_own(in, "tls-creds"),
                                         .verify = img_flag(in, "tls-verify-peer") };
    struct nbd_export_options x = { .name = name ? name : "",
                                    .description = cli_own(in, "description"),
                                    .node = s->node,
                                    .writable = src->write,
                                    .owned = true };
    struct nbd_server_options o = { .max_clients = 1, .clients_changed = on_clients, .arg = s };
    struct err e = ERR_INIT;
    int rc = files.dir ? nbd_tls_new(&files, &s->tls, &e) : 0;

    if (rc != 0) {
        return img_error(s->c, &e);
    }
    if (shared) {
        o.max_clients = (unsigned)strtoul(shared, NULL, 10);
        o.max_clients = o.max_clients ? o.max_clients : UINT32_MAX;
    }
    o.tls = files.dir ? &s->tls : NULL;
    s->server = nbd_server_new(s->loop, s->workers, &o);
    rc = find_bitmap(s, cli_own(in, "bitmap"), &x, &e);
    rc = rc != 0 ? rc : nbd_export_add(s->server, &x, &e);
    rc = rc != 0 ? rc : serve_listen(s, in, &e);
    return rc == 0 ? CLI_OK : img_error(s->c, &e);
}

static int write_pid(struct cli *c, const char *path)
{
    AUTO_FREE char *text = xasprintf("%d\n", (int)getpid());
    struct err e = ERR_INIT;

    return !path || file_replace(path, text, strlen(text), 0644, &e) == 0 ? CLI_OK
                                                                          : img_error(c, &e);
}

static int serve_run(struct serve *s, struct cli_input *in)
{
    static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
    struct err e = ERR_INIT;
    int status = write_pid(s->c, cli_own(in, "pid-file"));

    for (unsigned i = 0; i < ARRAY_LEN(ends); i++) {
        s->sig[i] = loop_signal_new(s->loop, ends[i], on_signal, s);
    }
    if (status == CLI_OK && loop_run(s->loop, &e) != 0) {
        status = img_error(s->c, &e);
    }
    return status;
}

int cli_verb_image_nbd_serve(struct cli *c, struct cli_input *in)
{
    struct serve s = { .c = c, .persistent = img_flag(in, "persistent") };
    struct img_source src = { .path = img_arg(in, "FILE"),
                              .format = cli_own(in, "image-format"),
                              .write = !img_flag(in, "read-only") && !cli_own(in, "snapshot"),
                              .shared = img_flag(in, "force-share") };
    int status;

    signal(SIGPIPE, SIG_IGN);
    status = serve_open(&s, in, &src);
    status = status != CLI_OK ? status : serve_export(&s, in, &src);
    status = status != CLI_OK ? status : serve_run(&s, in);
    nbd_server_free(s.server);
    if (s.node) {
        status = img_close(c, s.node, status);
    }
    if (cli_own(in, "socket") && s.server) {
        (void)unlink(cli_own(in, "socket"));
    }
    for (unsigned i = 0; i < ARRAY_LEN(s.sig); i++) {
        if (s.sig[i]) {
            loop_signal_free(s.sig[i]);
        }
    }
    workers_free(s.workers);
    blk_pool_free(s.pool);
    loop_free(s.loop);
    nbd_tls_free(&s.tls);
    return status;
}
