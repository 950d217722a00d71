/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server: listening, clients with what they may have in memory, bytes in and out, exports. A client that does
 * not read what it asked for, or sends more than it may, is not read from until it does; nobody else waits for it.
 * Loop thread.
 */
#include "storage/nbd_server.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "storage/driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENTS = 100,
    IN_SIZE = NBD_OPTION_MAX + 64,
    QUEUED = 256 * 1024,
    TURNS = 32,
    PIECES = 32
};
#define HANDSHAKE_NS 15000000000ll
#define AGAIN_NS 100000000ll /* after accept() found no descriptor */

struct nbd_listener {
    struct list link;
    struct nbd_server *server;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *again;
};

struct nbd_server {
    struct loop *loop;
    struct workers *workers;
    struct nbd_server_options options;
    struct list listeners, clients, exports;
    unsigned n_clients; /* that are not ending */
};

static void pump(struct nbd_client *c);

struct workers *nbd_workers(const struct nbd_client *c)
{
    return c->server->workers;
}

bool nbd_has_tls(const struct nbd_client *c)
{
    return c->server->options.tls != NULL;
}

struct list *nbd_exports(const struct nbd_client *c)
{
    return &c->server->exports;
}

/* --- exports --- */

struct nbd_export *nbd_export_find(const struct nbd_server *s, const char *name, size_t n)
{
    list_for_each (it, &s->exports) {
        struct nbd_export *x = list_entry(it, struct nbd_export, link);

        if (strlen(x->name) == n && memcmp(x->name, name, n) == 0) {
            return x;
        }
    }
    return NULL;
}

static void export_free(struct nbd_export *x)
{
    blk_unclaim(x->claim);
    free(x->name);
    free(x->description);
    free(x->id);
    free(x->bitmap_name);
    free(x);
}

int nbd_export_add(struct nbd_server *s, const struct nbd_export_options *o, struct err *e)
{
    struct nbd_export *x;
    unsigned need = BLK_PERM_READ | (o->writable ? BLK_PERM_WRITE : 0);

    if (strlen(o->name) > NBD_NAME_MAX) {
        return err_set(e, -EINVAL, "the name of an export has at most %d bytes", NBD_NAME_MAX);
    }
    if (nbd_export_find(s, o->name, strlen(o->name))) {
        return err_set(e, -EEXIST, "there is an export '%s' already", o->name);
    }
    if (o->writable && blk_readonly(o->node)) {
        return err_set(e, -EROFS, "disk '%s' is read-only; export it so", blk_name(o->node));
    }
    x = xnew(struct nbd_export);
    if (!o->owned) {
        int rc = blk_claim(o->node, "an NBD export", need,
                           BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE, &x->claim, e);

        if (rc != 0) {
            free(x);
            return rc;
        }
    }
    x->name = xstrdup(o->name);
    x->description = o->description ? xstrdup(o->description) : NULL;
    x->id = o->id ? xstrdup(o->id) : NULL;
    x->node = o->node;
    x->writable = o->writable;
    x->bitmap = o->bitmap;
    x->bitmap_name = o->bitmap ? xstrdup(o->bitmap_name) : NULL;
    list_append(&s->exports, &x->link);
    return 0;
}

static void export_drop(struct nbd_server *s, struct nbd_export *x)
{
    list_remove(&x->link);
    x->gone = true;
    list_for_each (it, &s->clients) {
        struct nbd_client *c = list_entry(it, struct nbd_client, link);

        if (c->meta_export == x) {
            c->meta_export = NULL;
        }
        if (c->export == x) {
            nbd_end(c, true);
        }
    }
    if (x->clients == 0) {
        export_free(x);
    }
}

int nbd_export_remove(struct nbd_server *s, const char *name, bool safe, struct err *e)
{
    struct nbd_export *x = nbd_export_find(s, name, strlen(name));

    if (!x) {
        return err_set(e, -ENOENT, "there is no export '%s'", name);
    }
    if (safe && x->clients) {
        return err_set(e, -EBUSY, "%u clients use the export '%s'", x->clients, name);
    }
    export_drop(s, x);
    return 0;
}

bool nbd_export_get(const struct nbd_server *s, unsigned index, struct nbd_export_info *out)
{
    list_for_each (it, &s->exports) {
        const struct nbd_export *x = list_entry(it, struct nbd_export, link);

        if (index-- == 0) {
            *out = (struct nbd_export_info){ .name = x->name,
                                             .description = x->description,
                                             .bitmap = x->bitmap_name,
                                             .dirty = x->bitmap,
                                             .id = x->id,
                                             .node = x->node,
                                             .writable = x->writable,
                                             .clients = x->clients };
            return true;
        }
    }
    return false;
}

/* --- the end of a client --- */

void nbd_request_free(struct nbd_request *r)
{
    if (r) {
        r->client->bytes -= r->charged;
        buf_done(&r->chunks);
        free(r->data);
        free(r);
    }
}

static void out_free(struct nbd_client *c, struct nbd_out *o)
{
    list_remove(&o->link);
    c->queued -= o->head_n;
    nbd_request_free(o->free);
    free(o);
}

static void on_reap(void *arg)
{
    struct nbd_client *c = arg;
    struct nbd_export *x = c->export;

    if (c->in_flight > 0) {
        return; /* the last one calls again */
    }
    while (!list_empty(&c->out)) {
        out_free(c, list_entry(c->out.next, struct nbd_out, link));
    }
    nbd_request_free(c->filling);
    loop_task_cancel(&c->again);
    loop_timer_free(c->deadline);
    list_remove(&c->link);
    if (c->tls) {
        c->server->options.tls->free(c->tls);
    }
    close(c->fd);
    if (x && --x->clients == 0 && x->gone) {
        export_free(x);
    }
    free(c->in);
    free(c);
}

void nbd_end(struct nbd_client *c, bool now)
{
    struct nbd_server *s = c->server;

    if (c->state == NBD_ST_DEAD) {
        return;
    }
    if (!now && (c->in_flight > 0 || !list_empty(&c->out))) {
        c->state = NBD_ST_LAST;
        return;
    }
    c->state = NBD_ST_DEAD;
    loop_fd_free(c->watch);
    c->watch = NULL;
    loop_timer_disarm(c->deadline);
    (void)shutdown(c->fd, SHUT_RDWR);
    loop_task_queue(s->loop, &c->reap);
    s->n_clients--;
    if (s->options.clients_changed) {
        s->options.clients_changed(s->options.arg, s->n_clients);
    }
}

void nbd_settled(struct nbd_client *c)
{
    c->in_flight--;
    if (c->state == NBD_ST_DEAD) {
        loop_task_queue(c->server->loop, &c->reap);
    } else {
        loop_task_queue(c->server->loop, &c->again);
    }
}

/* --- bytes out --- */

static ssize_t tls_out(struct nbd_client *c, struct nbd_out *o)
{
    const void *p = o->at < o->head_n ? o->head + o->at : o->data + (o->at - o->head_n);
    size_t n = o->at < o->head_n ? o->head_n - o->at : o->n - o->at;

    return c->server->options.tls->write(c->tls, p, n);
}

static ssize_t plain_out(struct nbd_client *c)
{
    struct iovec iov[PIECES + 1];
    int n = 0;
    ssize_t got;

    list_for_each (it, &c->out) {
        struct nbd_out *o = list_entry(it, struct nbd_out, link);

        if (n >= PIECES) {
            break;
        }
        if (o->at < o->head_n) {
            iov[n++] = (struct iovec){ .iov_base = o->head + o->at,
                                       .iov_len = o->head_n - o->at };
        }
        if (o->n > o->head_n) {
            size_t at = o->at > o->head_n ? o->at - o->head_n : 0;

            iov[n++] = (struct iovec){ .iov_base = (uint8_t *)o->data + at,
                                       .iov_len = o->n - o->head_n - at };
        }
    }
    got = writev(c->fd, iov, n);
    return got < 0 ? -errno : got;
}

/* As much as goes. False: the client is gone. */
static bool flush_out(struct nbd_client *c)
{
    while (!list_empty(&c->out)) {
        struct nbd_out *first = list_entry(c->out.next, struct nbd_out, link);
        ssize_t n = c->tls ? tls_out(c, first) : plain_out(c);

        if (n == -EAGAIN) {
            return true;
        }
        if (n <= 0 && n != -EINTR) {
            nbd_end(c, true);
            return false;
        }
        while (n > 0) {
            struct nbd_out *o = list_entry(c->out.next, struct nbd_out, link);
            size_t part = o->n - o->at < (size_t)n ? o->n - o->at : (size_t)n;

            o->at += part;
            n -= (ssize_t)part;
            if (o->at == o->n) {
                out_free(c, o);
            }
        }
    }
    return true;
}

void nbd_send(struct nbd_client *c, const void *head, size_t head_n, const void *data,
              size_t data_n, struct nbd_request *free_after)
{
    struct nbd_out *o;

    if (c->state == NBD_ST_DEAD) {
        nbd_request_free(free_after);
        return;
    }
    o = xalloc(sizeof(*o) + head_n);
    *o = (struct nbd_out){
        .n = head_n + data_n, .head_n = head_n, .data = data, .free = free_after
    };
    memcpy(o->head, head, head_n);
    list_append(&c->out, &o->link);
    c->queued += head_n;
    loop_task_queue(c->server->loop, &c->again);
}

/* --- bytes in --- */

void nbd_enter(struct nbd_client *c, struct nbd_export *x)
{
    if (c->state == NBD_ST_DEAD) {
        return;
    }
    c->export = x;
    x->clients++;
    if (c->meta_export != x) {
        c->contexts = 0;
    }
    c->state = NBD_ST_REQUEST;
    loop_timer_disarm(c->deadline);
}

static bool busy(const struct nbd_client *c)
{
    return c->in_flight >= NBD_CLIENT_REQUESTS || c->queued > QUEUED || c->starttls ||
           c->bytes > NBD_CLIENT_BYTES - NBD_REQUEST_MAX;
}

static void take_flags(struct nbd_client *c, const uint8_t *p)
{
    uint32_t flags = get32(p);

    if (!(flags & NBD_FIXED_NEWSTYLE) ||
        (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))) {
        nbd_end(c, true);
        return;
    }
    c->no_zeroes = flags & NBD_NO_ZEROES;
    c->state = NBD_ST_OPTION;
}

static void take_option_head(struct nbd_client *c, const uint8_t *p)
{
    c->option = get32(p + 8);
    c->option_length = get32(p + 12);
    if (get64(p) != NBD_OPT_MAGIC || c->option_length > NBD_OPTION_MAX ||
        ++c->n_options > NBD_OPTIONS) {
        nbd_end(c, true);
        return;
    }
    c->state = NBD_ST_DATA;
}

static size_t needs(const struct nbd_client *c)
{
    static const size_t fixed[] = {
        [NBD_ST_FLAGS] = 4, [NBD_ST_OPTION] = 16, [NBD_ST_REQUEST] = 28
    };

    return c->state == NBD_ST_DATA ? c->option_length : fixed[c->state];
}

/* Bytes that need no parsing: data of writes. */
static void take_payload(struct nbd_client *c)
{
    size_t have = c->in_len - c->in_at, part;

    if (c->state == NBD_ST_DROP) {
        part = have < c->drop ? have : (size_t)c->drop;
        c->drop -= part;
        c->state = c->drop ? NBD_ST_DROP : NBD_ST_REQUEST;
    } else {
        part = c->filling->length - c->filled;
        part = part < have ? part : have;
        memcpy(c->filling->data + c->filled, c->in + c->in_at, part);
        c->filled += part;
        if (c->filled == c->filling->length) {
            c->state = NBD_ST_REQUEST;
            nbd_write_filled(c);
        }
    }
    c->in_at += part;
}

/* Takes one thing from what was read; false: more bytes are needed, or there is no room. */
static bool parse(struct nbd_client *c)
{
    const uint8_t *p = c->in + c->in_at;
    size_t have = c->in_len - c->in_at, need;
    enum nbd_state was = c->state;

    if (was >= NBD_ST_LAST) {
        return false;
    }
    if (was == NBD_ST_PAYLOAD || was == NBD_ST_DROP) {
        if (have > 0) {
            take_payload(c);
        }
        return have > 0;
    }
    need = needs(c);
    if (have < need || busy(c)) {
        return false;
    }
    c->in_at += need;
    if (was == NBD_ST_FLAGS) {
        take_flags(c, p);
    } else if (was == NBD_ST_OPTION) {
        take_option_head(c, p);
    } else if (was == NBD_ST_REQUEST) {
        nbd_request(c, p);
    } else {
        c->state = NBD_ST_OPTION;
        nbd_option(c, p);
    }
    if (c->starttls && c->in_at != c->in_len) {
        nbd_end(c, true); /* somebody put plain bytes where TLS begins */
    }
    return true;
}

/* Reads once: 1, 0 when nothing is there, -1 when the client has gone. */
static int read_more(struct nbd_client *c)
{
    bool direct = c->state == NBD_ST_PAYLOAD && c->in_at == c->in_len;
    uint8_t *to;
    size_t room;
    ssize_t n;

    if (c->in_at > 0) {
        memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
        c->in_len -= c->in_at;
        c->in_at = 0;
    }
    to = direct ? c->filling->data + c->filled : c->in + c->in_len;
    room = direct ? c->filling->length - c->filled : IN_SIZE - c->in_len;
    n = c->tls ? c->server->options.tls->read(c->tls, to, room) : recv(c->fd, to, room, 0);
    n = n < 0 && !c->tls ? -errno : n;
    if (n == -EAGAIN || n == -EINTR) {
        return n == -EINTR;
    }
    if (n <= 0) {
        return -1;
    }
    if (!direct) {
        c->in_len += (size_t)n;
        return 1;
    }
    c->filled += (size_t)n;
    if (c->filled == c->filling->length) {
        c->state = NBD_ST_REQUEST;
        nbd_write_filled(c);
    }
    return 1;
}

/* The acknowledgement is out: what follows is TLS. */
static void begin_tls(struct nbd_client *c)
{
    const struct nbd_tls *t = c->server->options.tls;

    c->starttls = c->structured = false;
    c->contexts = 0;
    c->tls = t->accept(t->arg, c->fd);
    if (!c->tls) {
        nbd_end(c, true);
    }
}

static void watch_again(struct nbd_client *c)
{
    unsigned events = list_empty(&c->out) ? 0 : LOOP_WRITE;

    if (!busy(c) && c->state < NBD_ST_LAST) {
        events |= LOOP_READ;
    }
    if (c->tls) {
        events |= c->server->options.tls->want(c->tls) & LOOP_WRITE;
    }
    loop_fd_set(c->watch, events);
}

/* All that can be done now, within bounds. */
static void pump(struct nbd_client *c)
{
    for (unsigned turn = 0; c->state != NBD_ST_DEAD; turn++) {
        int more;

        while (parse(c)) {
            /* one thing after the other */
        }
        if (c->state == NBD_ST_DEAD || !flush_out(c)) {
            return;
        }
        if (c->state == NBD_ST_LAST && c->in_flight == 0 && list_empty(&c->out)) {
            nbd_end(c, true);
            return;
        }
        if (c->starttls && list_empty(&c->out)) {
            begin_tls(c);
            continue;
        }
        if (c->state == NBD_ST_LAST || busy(c)) {
            break;
        }
        if (turn >= TURNS) { /* others have their turn too */
            loop_task_queue(c->server->loop, &c->again);
            break;
        }
        more = read_more(c);
        if (more < 0) {
            nbd_end(c, true);
            return;
        }
        if (more == 0) {
            break;
        }
    }
    if (c->state != NBD_ST_DEAD) {
        watch_again(c);
    }
}

static void on_again(void *arg)
{
    pump(arg);
}

static void on_ready(void *arg, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    pump(arg);
}

static void on_deadline(void *arg)
{
    nbd_end(arg, true);
}

/* --- listening --- */

void nbd_server_connect(struct nbd_server *s, int take_fd)
{
    uint8_t hello[18];
    struct nbd_client *c;

    if (s->n_clients >= s->options.max_clients || fd_set_nonblock(take_fd, true, NULL) != 0) {
        close(take_fd);
        return;
    }
    c = xnew(struct nbd_client);
    c->server = s;
    c->fd = take_fd;
    c->in = xalloc(IN_SIZE);
    list_init(&c->out);
    list_append(&s->clients, &c->link);
    loop_task_init(&c->again, on_again, c);
    loop_task_init(&c->reap, on_reap, c);
    c->watch = loop_fd_new(s->loop, take_fd, LOOP_READ, on_ready, c);
    c->deadline = loop_timer_new(s->loop, on_deadline, c);
    loop_timer_arm(c->deadline, HANDSHAKE_NS);
    s->n_clients++;
    put64(hello, NBD_MAGIC);
    put64(hello + 8, NBD_OPT_MAGIC);
    put16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    nbd_send(c, hello, sizeof(hello), NULL, 0, NULL);
    if (s->options.clients_changed) {
        s->options.clients_changed(s->options.arg, s->n_clients);
    }
}

static void on_accept(void *arg, int fd, unsigned events)
{
    struct nbd_listener *l = arg;
    int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (got >= 0) {
        nbd_server_connect(l->server, got);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        loop_fd_set(l->watch, 0);
        loop_timer_arm(l->again, AGAIN_NS);
    }
}

static void on_listen_again(void *arg)
{
    loop_fd_set(((struct nbd_listener *)arg)->watch, LOOP_READ);
}

int nbd_server_listen(struct nbd_server *s, int take_fd, struct err *e)
{
    struct nbd_listener *l;
    int rc = fd_set_nonblock(take_fd, true, e);

    if (rc != 0) {
        close(take_fd);
        return rc;
    }
    l = xnew(struct nbd_listener);
    l->server = s;
    l->fd = take_fd;
    l->watch = loop_fd_new(s->loop, take_fd, LOOP_READ, on_accept, l);
    l->again = loop_timer_new(s->loop, on_listen_again, l);
    list_append(&s->listeners, &l->link);
    return 0;
}

unsigned nbd_server_clients(const struct nbd_server *s)
{
    return s->n_clients;
}

bool nbd_server_uses(const struct nbd_server *s, const struct blk_node *n)
{
    list_for_each (it, &s->clients) {
        const struct nbd_client *c = list_entry(it, struct nbd_client, link);

        if (!n || (c->in_flight > 0 && c->export && c->export->node == n)) {
            return true;
        }
    }
    return false;
}

struct nbd_server *nbd_server_new(struct loop *loop, struct workers *workers,
                                  const struct nbd_server_options *o)
{
    struct nbd_server *s = xnew(struct nbd_server);

    s->loop = loop;
    s->workers = workers;
    s->options = *o;
    if (s->options.max_clients == 0) {
        s->options.max_clients = CLIENTS;
    }
    list_init(&s->listeners);
    list_init(&s->clients);
    list_init(&s->exports);
    return s;
}

void nbd_server_stop(struct nbd_server *s)
{
    while (!list_empty(&s->listeners)) {
        struct nbd_listener *l = list_entry(s->listeners.next, struct nbd_listener, link);

        list_remove(&l->link);
        loop_fd_free(l->watch);
        loop_timer_free(l->again);
        close(l->fd);
        free(l);
    }
    list_for_each (it, &s->clients) {
        nbd_end(list_entry(it, struct nbd_client, link), true);
    }
    while (!list_empty(&s->exports)) {
        export_drop(s, list_entry(s->exports.next, struct nbd_export, link));
    }
}

void nbd_server_free(struct nbd_server *s)
{
    if (!s) {
        return;
    }
    nbd_server_stop(s);
    while (!list_empty(&s->clients) && loop_run_once(s->loop, -1, NULL) == 0) {
        /* what is in flight ends */
    }
    free(s);
}
