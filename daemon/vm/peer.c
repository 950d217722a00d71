/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to other daemons, and the handlers of peer.*. Owns struct peer_dial. Loop thread, but for dial_main().
 */
#include "daemon/vm/peer.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/tls/link.h"
#include "api-schema/tls/tls.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINK_MS 10000
#define ANSWER_MAX 65536

int peer_parse(const char *url, char **host, int *port, struct err *e)
{
    if (!str_starts(url, "vmd+tls://")) {
        return err_set(e, -EINVAL, "'%s' is no URL of a daemon: write vmd+tls://HOST[:PORT]",
                       url);
    }
    AUTO_FREE char *text = xstrdup(url + strlen("vmd+tls://"));
    size_t n = strlen(text);
    if (n > 0 && text[n - 1] == '/') {
        text[n - 1] = 0;
    }
    int rc = tls_parse_address(text, host, port, e);
    if (rc == 0 && strchr(*host, '/')) {
        free(*host);
        *host = NULL;
        rc = err_set(e, -EINVAL, "'%s' names no host", url);
    }
    return rc;
}

static char *dir_of(const struct vmd *d, const char *host, int port)
{
    return xasprintf("%s/peers/%s_%d", d->opt.lib, host, port);
}

bool peer_known(struct vmd *d, const char *host, int port)
{
    AUTO_FREE char *dir = dir_of(d, host, port), *path = xasprintf("%s/cert.pem", dir);
    return access(path, F_OK) == 0;
}

/* ---- on a thread ---- */

/* Sends one line and reads one; an answer that says `error` is one. NULL with e set. */
static struct json_object *ask_line(int fd, struct tls_link *link, struct json_object *take,
                                    struct err *e)
{
    AUTO_FREE char *line = xasprintf("%s\n", api_json_text(take));
    AUTO_BUF b = BUF_INIT;
    struct json_object *o = NULL, *x;
    struct err why = ERR_INIT;
    char c;
    ssize_t n = -1;
    json_object_put(take);
    if (fd_write_all(fd, line, strlen(line), "the daemon", e) == 0) {
        while ((n = recv(fd, &c, 1, 0)) > 0 && c != '\n' && b.len < ANSWER_MAX) {
            buf_add_char(&b, c);
        }
    }
    if (n <= 0) {
        bool told = tls_link_why(link, 1000, &why) == 0 && why.code;
        err_set(e, told ? why.code : -EPIPE, "%s", told ? why.msg : "it did not answer");
        return NULL;
    }
    if (api_json_parse(b.data ? b.data : "", b.len, &o, e) < 0) {
        return NULL;
    }
    x = api_json_get(o, "error");
    if (x) {
        const char *message = api_json_get_str(x, "message");
        err_set(e, -EACCES, "it refuses: %s", message ? message : "?");
        json_object_put(o);
        return NULL;
    }
    return o;
}

static void dial_streams(struct peer_dial *k)
{
    AUTO_FREE char *ca = xasprintf("%s/ca.pem", k->dir),
                   *cert = xasprintf("%s/cert.pem", k->dir),
                   *key = xasprintf("%s/key.pem", k->dir);
    struct tls_target to = { .host = k->host,
                             .port = k->port,
                             .files = { .ca = ca, .cert = cert, .key = key } };
    for (unsigned i = 0; i < k->n && k->e.code == 0; i++) {
        k->tls[i] = tls_link_open(&to, k->ticket ? TLS_PROTO_STREAM : TLS_PROTO_RPC, LINK_MS,
                                  &k->e);
        if (!k->tls[i]) {
            return;
        }
        k->fd[i] = tls_link_take_fd(k->tls[i]);
        if (k->ticket) {
            struct json_object *o = json_object_new_object();
            api_json_set_str(o, "ticket", k->ticket);
            api_json_set_int(o, "stream", i);
            json_object_put(ask_line(k->fd[i], k->tls[i], o, &k->e));
        }
    }
}

static int write_three(const struct peer_dial *k, struct json_object *reply, const char *key,
                       struct err *e)
{
    const char *texts[] = { api_json_get_str(reply, "ca"), key,
                            api_json_get_str(reply, "certificate") };
    static const char *const names[] = { "ca.pem", "key.pem", "cert.pem" };
    AUTO_FREE char *all = xasprintf("%s/peers", k->d->opt.lib);
    mkdir(all, 0700);
    if (mkdir(k->dir, 0700) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make '%s'", k->dir);
    }
    for (unsigned i = 0; i < 3; i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", k->dir, names[i]);
        if (!texts[i]) {
            return err_set(e, -EPROTO, "no certificate came");
        }
        if (file_replace(path, texts[i], strlen(texts[i]), 0600, e) < 0) {
            return e->code;
        }
    }
    return 0;
}

static void dial_join(struct peer_dial *k)
{
    unsigned char secret[TLS_TOKEN_SECRET], ca[32];
    struct tls_target to = { .host = k->host, .port = k->port, .ca_pin = ca };
    AUTO_FREE char *request = NULL;
    char *key = NULL;
    if (tls_token_parse(k->token, secret, ca, &k->e) < 0 ||
        tls_make_request("join", &key, &request, &k->e) < 0) {
        return;
    }
    struct tls_link *link = tls_link_open(&to, TLS_PROTO_JOIN, LINK_MS, &k->e);
    if (link) {
        struct json_object *o = json_object_new_object();
        int fd = tls_link_take_fd(link);
        api_json_set_str(o, "token", k->token);
        api_json_set_str(o, "user", k->user);
        api_json_set_str(o, "request", request);
        AUTO_JSON reply = ask_line(fd, link, o, &k->e);
        close(fd);
        tls_link_close(link);
        if (reply) {
            const char *user = api_json_get_str(reply, "user");
            write_three(k, reply, key, &k->e);
            free(k->user);
            k->user = xstrdup(user ? user : "?");
        }
    }
    explicit_bzero(key, strlen(key));
    free(key);
}

static void on_dialled(void *arg);

static void *dial_main(void *arg)
{
    struct peer_dial *k = arg;
    if (k->token) {
        dial_join(k);
    } else {
        dial_streams(k);
    }
    loop_post(k->d->loop, on_dialled, k);
    return NULL;
}

/* ---- on the loop ---- */

static void dial_free(struct peer_dial *k)
{
    list_remove(&k->link);
    for (unsigned i = 0; i < PEER_LANES; i++) {
        fd_autoclose(&k->fd[i]);
        peer_close(k->tls[i]);
    }
    free(k->host);
    free(k->dir);
    free(k->url);
    free(k->ticket);
    free(k->token);
    free(k->user);
    free(k);
}

static void on_dialled(void *arg)
{
    struct peer_dial *k = arg;
    if (k->threaded) {
        pthread_join(k->thread, NULL);
        k->threaded = false;
    }
    if (k->done) {
        k->done(k->arg, k);
    }
    dial_free(k);
}

static struct peer_dial *dial_new(struct vmd *d, const char *host, int port,
                                  void (*done)(void *arg, struct peer_dial *k), void *arg)
{
    struct peer_dial *k = xnew(struct peer_dial);
    *k = (struct peer_dial){ .d = d, .port = port, .done = done, .arg = arg };
    k->host = xstrdup(host);
    k->url = xasprintf(strchr(host, ':') ? "vmd+tls://[%s]:%d" : "vmd+tls://%s:%d", host, port);
    k->dir = dir_of(d, host, port);
    for (unsigned i = 0; i < PEER_LANES; i++) {
        k->fd[i] = -1;
    }
    list_append(&d->dials, &k->link);
    return k;
}

static void dial_begin(struct peer_dial *k)
{
    int rc = pthread_create(&k->thread, NULL, dial_main, k);
    k->threaded = rc == 0;
    if (rc != 0) {
        err_errno(&k->e, rc, "cannot start a thread");
        loop_post(k->d->loop, on_dialled, k);
    }
}

struct peer_dial *peer_dial(struct vmd *d, const char *host, int port, const char *ticket,
                            unsigned n, void (*done)(void *arg, struct peer_dial *k), void *arg)
{
    struct peer_dial *k = dial_new(d, host, port, done, arg);
    k->ticket = ticket ? xstrdup(ticket) : NULL;
    k->n = n;
    dial_begin(k);
    return k;
}

void peer_drop(struct peer_dial *k)
{
    if (k) {
        k->done = NULL;
    }
}

/* It may wait for an emulator that holds the other end. */
static void *close_main(void *arg)
{
    tls_link_close(arg);
    return NULL;
}

void peer_close(struct tls_link *take_link)
{
    pthread_t thread;
    if (take_link && pthread_create(&thread, NULL, close_main, take_link) == 0) {
        pthread_detach(thread);
    }
}

void peers_end(struct vmd *d)
{
    while (!list_empty(&d->dials)) {
        struct peer_dial *k = list_entry(d->dials.next, struct peer_dial, link);
        if (k->threaded) {
            pthread_join(k->thread, NULL);
        }
        dial_free(k);
    }
}

/* ---- peer.* ---- */

static void fill_peer(const char *dir, const char *url, struct api_peer *out)
{
    AUTO_FREE char *path = xasprintf("%s/cert.pem", dir);
    struct x509_st *cert = tls_cert_read(path, NULL);
    char user[64] = "";
    *out = (struct api_peer){ .url = xstrdup(url) };
    if (cert) {
        if (tls_common_name(cert, user, sizeof(user))) {
            out->user = xstrdup(user);
        }
        out->expires_ms = tls_not_after(cert) * 1000;
        tls_cert_free(cert);
    }
}

static void on_joined(void *arg, struct peer_dial *k)
{
    struct api_call *call = arg;
    if (k->e.code) {
        api_fail(call,
                 k->e.code == -EINVAL   ? API_E_INVALID_PARAMS
                 : k->e.code == -EACCES ? API_E_DENIED
                                        : API_E_UNRESPONSIVE,
                 k->url, "ask for a new token there: each is valid for some minutes, once",
                 "%s: %s", k->url, k->e.msg);
        return;
    }
    struct api_peer out;
    fill_peer(k->dir, k->url, &out);
    log_info("access", "joined %s as %s", k->url, k->user);
    call_finish(k->d, call, k->url, api_encode(&api_type_peer, &out));
    api_release(&api_type_peer, &out);
}

static void default_name(char *out, size_t size)
{
    char host[64] = "host";
    size_t n;
    gethostname(host, sizeof(host) - 1);
    n = (size_t)snprintf(out, size, "vmd-%s", host);
    for (size_t i = 0; i < n && i < size; i++) {
        char one[2] = { out[i], 0 };
        out[i] = str_is_name(one) || strchr("._+-", out[i]) ? out[i] : '-';
    }
}

void api_handle_peer_add(struct api_call *call, struct api_peer_add_in *in)
{
    struct vmd *d = call_daemon(call);
    struct err e = ERR_INIT;
    AUTO_FREE char *host = NULL;
    char name[64];
    int port;
    if (peer_parse(in->url, &host, &port, &e) < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "url", NULL, "%s", e.msg);
        return;
    }
    default_name(name, sizeof(name));
    struct peer_dial *k = dial_new(d, host, port, on_joined, call);
    k->token = xstrdup(in->token);
    k->user = xstrdup(in->user ? in->user : name);
    dial_begin(k);
}

void api_handle_peer_list(struct api_call *call, struct api_peer_list_in *in)
{
    struct vmd *d = call_daemon(call);
    AUTO_FREE char *all = xasprintf("%s/peers", d->opt.lib);
    struct api_peer_list_out out = { .n_peers = 0 };
    DIR *dir = opendir(all);
    (void)in;
    for (struct dirent *f; dir && (f = readdir(dir)) && out.n_peers < 1000;) {
        char *port = strrchr(f->d_name, '_');
        if (f->d_name[0] == '.' || !port) {
            continue;
        }
        AUTO_FREE char *path = xasprintf("%s/%s", all, f->d_name);
        AUTO_FREE char *host = xstrndup(f->d_name, (size_t)(port - f->d_name));
        AUTO_FREE char *url = xasprintf(
            strchr(host, ':') ? "vmd+tls://[%s]:%s" : "vmd+tls://%s:%s", host, port + 1);
        out.peers = xrealloc_n(out.peers, out.n_peers + 1, sizeof(out.peers[0]));
        fill_peer(path, url, &out.peers[out.n_peers++]);
    }
    if (dir) {
        closedir(dir);
    }
    api_reply_peer_list(call, &out);
    api_release(&api_type_peer_list_out, &out);
}

void api_handle_peer_delete(struct api_call *call, struct api_peer_delete_in *in)
{
    struct vmd *d = call_daemon(call);
    static const char *const names[] = { "cert.pem", "key.pem", "ca.pem" };
    struct err e = ERR_INIT;
    AUTO_FREE char *host = NULL;
    int port;
    if (peer_parse(in->url, &host, &port, &e) < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "url", NULL, "%s", e.msg);
        return;
    }
    AUTO_FREE char *dir = dir_of(d, host, port);
    if (access(dir, F_OK) < 0) {
        api_fail(call, API_E_NOT_FOUND, in->url, "'vmctl peer list' shows those there are",
                 "there is no certificate for %s", in->url);
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", dir, names[i]);
        unlink(path);
    }
    if (rmdir(dir) < 0) {
        api_fail(call, API_E_FILE_ERROR, dir, NULL, "cannot remove '%s': %s", dir,
                 strerror(errno));
        return;
    }
    call_finish(d, call, in->url, json_object_new_object());
}
