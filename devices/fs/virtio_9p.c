/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-9p: a folder of the host by messages of 9P2000.L (virtio 1.2 §5.12 has no more than the name; the layout is that of
 * Linux' 9pnet_virtio). The messages pass to a server at a stream socket, vmd-share, as 9P has them on a wire, and its
 * answers come back by their tags: no file of the host is touched here. When the server is gone each request is answered with
 * an error, so that no program of the guest hangs. Main loop, transport's lock.
 *
 * Guest and server are both checked: sizes, tags, who answers what. What the server has of the guest's session is
 * counted (fids), to know whether the machine can be saved.
 */
#include "devices/fs/share.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define QUEUE_SIZE 128
#define MESSAGE_MAX (1u << 20) /* bytes; Linux asks for half of it at most */
#define UNSENT_MAX (2u << 20)  /* then the queue waits */
#define TAG_MAX 128
#define F_MOUNT_TAG 1u
#define HEADER 7

enum {
    RLERROR = 7,
    RXATTRWALK = 31,
    TVERSION = 100,
    RVERSION = 101,
    RATTACH = 105,
    TWALK = 110,
    RWALK = 111,
    TCLUNK = 120,
    TREMOVE = 122
};

struct header {
    uint32_t size;
    uint8_t type;
    uint16_t tag;
} __attribute__((packed));

struct lerror {
    struct header h;
    uint32_t error;
} __attribute__((packed));

/* A message that the server has. */
struct pending {
    struct virtio_elem *el; /* NULL: free */
    uint16_t tag;
    uint8_t type;
    bool new_fid;   /* it walks to a fid that was not there */
    uint16_t names; /* of a walk */
    uint64_t order;
};

struct v9p {
    struct virtio v;
    char *tag;
    struct p9_server *server;
    struct loop_fd *watch;
    struct pending pending[QUEUE_SIZE * 2]; /* also those of drivers that are no more */
    unsigned n_pending;
    uint64_t order;
    struct buf out; /* not sent yet, from out_at on */
    size_t out_at;
    uint8_t *in; /* MESSAGE_MAX bytes: a message that comes */
    size_t in_len;
    bool gone;
    int64_t fids; /* that the server has for the guest */
};

static struct v9p *v9p_of(struct virtio *v)
{
    return (struct v9p *)v;
}

/* --- answers of our own --- */

static void answer_error(struct virtio *v, struct virtio_elem *el, uint16_t tag, int error)
{
    struct lerror r = {
        .h = { .size = htole32(sizeof(r)), .type = RLERROR, .tag = htole16(tag) },
        .error = htole32((uint32_t)error)
    };
    uint64_t n = 0;

    if (virtq_live(v, 0, el)) {
        n = virtio_put(el, 0, &r, sizeof(r));
    }
    virtq_push(v, 0, el, n);
}

static void drop(struct v9p *p, struct pending *q)
{
    q->el = NULL;
    p->n_pending--;
}

static void give_up(struct v9p *p, const char *why)
{
    if (p->gone) {
        return;
    }
    p->gone = true;
    log_error("9p", "%s: %s; what the guest asks of it fails from now on", p->v.dev.id, why);
    loop_fd_free(p->watch);
    p->watch = NULL;
    fd_autoclose(&p->server->fd);
    p->server->fd = -1;
    virtio_ring(&p->v, 0);
}

static void fail_all(struct v9p *p)
{
    for (unsigned i = 0; i < ARRAY_LEN(p->pending); i++) {
        struct pending q = p->pending[i];

        if (q.el) {
            drop(p, &p->pending[i]);
            answer_error(&p->v, q.el, q.tag, ENOTCONN);
        }
    }
}

/* --- to the server --- */

static void watch(struct v9p *p)
{
    if (p->watch) {
        bool run = virtio_may_run(
            &p->v); /* what comes while it stands still waits in the socket */

        loop_fd_set(p->watch,
                    (run ? LOOP_READ : 0) | (p->out.len > p->out_at ? LOOP_WRITE : 0));
    }
}

static void flush(struct v9p *p)
{
    while (p->out_at < p->out.len) {
        ssize_t n = send(p->server->fd, p->out.data + p->out_at, p->out.len - p->out_at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n < 0) {
            give_up(p, "its server has ended");
            return;
        }
        p->out_at += (size_t)n;
    }
    p->out.len = 0;
    p->out_at = 0;
}

static struct pending *free_pending(struct v9p *p)
{
    for (unsigned i = 0; i < ARRAY_LEN(p->pending); i++) {
        if (!p->pending[i].el) {
            return &p->pending[i];
        }
    }
    return NULL;
}

/* The first that was sent under a tag: the server works in order. */
static struct pending *find_pending(struct v9p *p, uint16_t tag)
{
    struct pending *found = NULL;

    for (unsigned i = 0; i < ARRAY_LEN(p->pending); i++) {
        struct pending *q = &p->pending[i];

        if (q->el && q->tag == tag && (!found || q->order < found->order)) {
            found = q;
        }
    }
    return found;
}

static bool tag_used(struct v9p *p, uint16_t tag)
{
    for (unsigned i = 0; i < ARRAY_LEN(p->pending); i++) {
        const struct pending *q = &p->pending[i];

        if (q->el && q->tag == tag && virtq_live(&p->v, 0, q->el)) {
            return true;
        }
    }
    return false;
}

/* Takes the request. */
static void pass_on(struct v9p *p, struct virtio_elem *el)
{
    struct header h;
    uint8_t *message;
    struct pending *q = free_pending(p);

    if (virtio_get(el, 0, &h, sizeof(h)) != sizeof(h) || el->in_len < sizeof(struct lerror)) {
        virtio_broken(&p->v, "a request is no message of 9P, or has no room for an answer");
        virtq_push(&p->v, 0, el, 0);
        return;
    }
    uint32_t size = le32toh(h.size);
    uint16_t tag = le16toh(h.tag);
    if (size < HEADER || size > MESSAGE_MAX || size > el->out_len || !q || tag_used(p, tag)) {
        answer_error(&p->v, el, tag, size > MESSAGE_MAX ? EMSGSIZE : EINVAL);
        return;
    }
    if (p->gone) {
        answer_error(&p->v, el, tag, ENOTCONN);
        return;
    }
    *q = (struct pending){ .el = el, .tag = tag, .type = h.type, .order = p->order++ };
    p->n_pending++;
    buf_reserve(&p->out, size);
    message = (uint8_t *)p->out.data + p->out.len;
    virtio_get(el, 0, message, size);
    p->out.len += size;
    memcpy(message, &h, sizeof(h)); /* which was checked, and could be another by now */
    if (h.type == TWALK && size >= HEADER + 10) {
        q->new_fid = memcmp(message + HEADER, message + HEADER + 4, 4) != 0;
        q->names = (uint16_t)(message[HEADER + 8] | message[HEADER + 9] << 8);
    }
}

static void v9p_serve(struct virtio *v, unsigned q)
{
    struct v9p *p = v9p_of(v);

    if (p->gone) {
        fail_all(p);
    }
    while (p->out.len - p->out_at < UNSENT_MAX && p->n_pending < ARRAY_LEN(p->pending)) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (el) {
            pass_on(p, el);
        } else if (!virtq_rearm(v, q)) {
            break;
        }
    }
    if (!p->gone) {
        flush(p);
    }
    watch(p);
    virtq_signal(v, q);
}

/* --- from the server --- */

static void count_fids(struct v9p *p, const struct pending *q, uint8_t type, const uint8_t *m,
                       uint32_t size)
{
    bool walked = type == RWALK && q->new_fid && size >= HEADER + 2 &&
                  (uint16_t)(m[HEADER] | m[HEADER + 1] << 8) == q->names;

    if (q->type == TVERSION) {
        p->fids = 0;
    } else if (type == RATTACH || type == RXATTRWALK || walked) {
        p->fids++;
    } else if ((q->type == TCLUNK || q->type == TREMOVE) && p->fids > 0) {
        p->fids--; /* also when it fails */
    }
}

/* A whole message. False: the server is given up. */
static bool answer(struct v9p *p, uint32_t size)
{
    struct header h;
    struct pending *at, q;

    memcpy(&h, p->in, sizeof(h));
    at = find_pending(p, le16toh(h.tag));
    if (!at) {
        give_up(p, "its server answers what nobody asked");
        return false;
    }
    q = *at;
    drop(p, at);
    count_fids(p, &q, h.type, p->in, size);
    if (!virtq_live(&p->v, 0, q.el)) {
        virtq_push(&p->v, 0, q.el, 0);
    } else if (size > q.el->in_len) {
        answer_error(&p->v, q.el, q.tag, EMSGSIZE);
    } else {
        virtio_put(q.el, 0, p->in, size);
        virtq_push(&p->v, 0, q.el, size);
    }
    return true;
}

/* How much of the next message is missing; 0: it cannot be one. */
static size_t missing(const struct v9p *p)
{
    uint32_t size;

    if (p->in_len < HEADER) {
        return HEADER - p->in_len;
    }
    memcpy(&size, p->in, sizeof(size));
    size = le32toh(size);
    return size >= HEADER && size <= MESSAGE_MAX ? size - p->in_len : 0;
}

static void receive(struct v9p *p)
{
    for (unsigned turn = 0; turn < 4 * QUEUE_SIZE && !p->gone; turn++) {
        ssize_t n = recv(p->server->fd, p->in + p->in_len, missing(p), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            give_up(p, "its server has ended");
            return;
        }
        p->in_len += (size_t)n;
        if (p->in_len < HEADER) {
            continue;
        }
        uint32_t size;
        memcpy(&size, p->in, sizeof(size));
        size = le32toh(size);
        if (size < HEADER || size > MESSAGE_MAX) {
            give_up(p, "its server does not speak 9P");
        } else if (p->in_len == size) {
            p->in_len = 0;
            if (!answer(p, size)) {
                return;
            }
        }
    }
}

static void on_server(void *arg, int fd, unsigned events)
{
    struct v9p *p = arg;

    (void)fd;
    bus_lock(p->v.lock);
    if ((events & LOOP_READ) && virtio_may_run(&p->v)) {
        receive(p);
    }
    if (!p->gone && (events & LOOP_WRITE)) {
        flush(p);
    }
    if (virtio_working(&p->v) && virtio_may_run(&p->v)) {
        v9p_serve(&p->v, 0); /* there may be room again */
    }
    watch(p);
    bus_unlock(p->v.lock);
}

/* --- the device --- */

static void v9p_config(struct virtio *v, uint8_t *out)
{
    const struct v9p *p = v9p_of(v);
    size_t n = strlen(p->tag);

    out[0] = (uint8_t)n;
    out[1] = 0;
    memcpy(out + 2, p->tag, n);
}

static const struct virtio_ops v9p_ops = {
    .id = 9,
    .n_queues = 1,
    .queue_max = { QUEUE_SIZE },
    .config_size = 2 + TAG_MAX,
    .serve = v9p_serve,
    .config = v9p_config,
};

static int v9p_realize(struct device *d, struct err *e)
{
    struct v9p *p = (struct v9p *)d;
    int rc;

    if (!p->tag[0] || strlen(p->tag) > TAG_MAX) {
        return err_set(e, -EINVAL, "%s: the tag '%s' has not 1 to %d bytes", d->id, p->tag,
                       TAG_MAX);
    }
    rc = fd_set_nonblock(p->server->fd, true, e);
    if (rc != 0) {
        return rc;
    }
    virtio_setup(&p->v, &v9p_ops, 0, F_MOUNT_TAG);
    p->in = xalloc(MESSAGE_MAX);
    p->watch = loop_fd_new(d->vm->loop, p->server->fd, LOOP_READ, on_server, p);
    return 0;
}

static void v9p_resumed(struct device *d)
{
    bus_lock(((struct v9p *)d)->v.lock);
    watch((struct v9p *)d);
    bus_unlock(((struct v9p *)d)->v.lock);
    virtio_resumed(d);
}

static void v9p_destroy(struct device *d)
{
    struct v9p *p = (struct v9p *)d;

    loop_fd_free(p->watch);
    for (unsigned i = 0; i < ARRAY_LEN(p->pending); i++) {
        virtio_elem_free(p->pending[i].el);
    }
    if (p->server) {
        fd_autoclose(&p->server->fd);
        free(p->server);
    }
    buf_done(&p->out);
    free(p->in);
    virtio_done(&p->v);
}

bool virtio_9p_mounted(const struct device *d)
{
    const struct v9p *p = (const struct v9p *)d;

    return p->fids > 0 || p->n_pending > 0;
}

static const struct st_field v9p_fields[] = {
    VIRTIO_ST_FIELD,
    ST_END,
};
static const struct st_table v9p_state = {
    .name = "virtio-9p",
    .version = 1,
    .fields = v9p_fields,
};
static const struct dev_prop v9p_props[] = {
    { .name = "tag",
      .kind = PROP_STR,
      .offset = offsetof(struct v9p, tag),
      .required = true,
      .doc = "name that the guest mounts it by" },
    { .name = "server",
      .kind = PROP_PTR,
      .offset = offsetof(struct v9p, server),
      .required = true,
      .doc = "connected socket of a 9P2000.L server, taken" },
    { .name = NULL },
};

const struct device_class virtio_9p_class = {
    .name = "virtio-9p",
    .doc = "virtio 9P transport: a folder of the host, by a server of its own",
    .size = sizeof(struct v9p),
    .props = v9p_props,
    .state = &v9p_state,
    .realize = v9p_realize,
    .resumed = v9p_resumed,
    .destroy = v9p_destroy,
};
