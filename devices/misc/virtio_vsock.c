/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock: streams between programs of a guest and of its host (virtio 1.2 §5.10). The host's ends are descriptors, unix sockets in
 * practice (engine/emu/vsock.c). Main loop, transport's lock; a reset may come on any thread.
 *
 * Memory is bounded: a stream holds at most VSOCK_ROOM bytes of the guest, which is the credit that the guest is given, and
 * none of the host, whose bytes are read straight into buffers of the guest as far as its credit goes.
 */
#include "devices/misc/virtio_vsock.h"

#include "devices/misc/vsock_conn.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define QUEUE_SIZE 128
#define HOST_CID 2
#define MAX_PACKET 65536
#define MAX_PIECES 16
#define MAX_RESETS 64
#define TURN 256 /* packets, then others get their turn */
#define FIRST_PORT 0x40000000u

enum { RX, TX, EVENT, N_QUEUES };
#define F_STREAM (1ull << 0)
enum { TYPE_STREAM = 1 };
enum {
    OP_REQUEST = 1,
    OP_RESPONSE = 2,
    OP_RST = 3,
    OP_SHUTDOWN = 4,
    OP_RW = 5,
    OP_CREDIT_UPDATE = 6,
    OP_CREDIT_REQUEST = 7
};

struct header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

struct vvsock {
    struct virtio v;
    uint64_t cid;
    struct vsock_host *host;

    struct list conns;
    unsigned n_conns;
    uint32_t next_port;
    uint64_t next_ticket;
    struct { /* streams that there are not */
        uint32_t host_port, guest_port;
    } reset[MAX_RESETS];
    unsigned n_resets;
    uint8_t *bounce; /* MAX_PACKET */
    bool dropped;    /* the driver has reset the device: every stream is gone */
    bool moved;      /* a loaded state: the driver is to be told that they are */
    uint64_t to_guest, from_guest;
};

/* --- streams ------------------------------------------------------------------------------------------------- */

static void conn_drop(struct vvsock *s, struct vsock_conn *c)
{
    vsock_conn_free(c);
    s->n_conns--;
}

static void drop_all(struct vvsock *s)
{
    list_for_each_safe (it, &s->conns) {
        conn_drop(s, list_entry(it, struct vsock_conn, node));
    }
    s->n_resets = 0;
    s->dropped = false;
}

static struct vsock_conn *conn_find(struct vvsock *s, uint32_t host_port, uint32_t guest_port)
{
    list_for_each (it, &s->conns) {
        struct vsock_conn *c = list_entry(it, struct vsock_conn, node);

        if (c->host_port == host_port && c->guest_port == guest_port && !c->orphan &&
            c->state != VSOCK_GREETING) {
            return c;
        }
    }
    return NULL;
}

/* What follows from what has just changed; false: the stream is gone. */
static bool settle(struct vvsock *s, struct vsock_conn *c)
{
    const unsigned both = VSOCK_NO_RECEIVE | VSOCK_NO_SEND;

    if (c->orphan && (c->waiting == 0 || c->broken)) {
        conn_drop(s, c);
        return false;
    }
    if (c->state == VSOCK_OPEN && !c->orphan &&
        (c->broken || ((c->guest_shut & both) == both && c->waiting == 0))) {
        c->tell = VSOCK_TELL_RESET;
    }
    if (c->state == VSOCK_OPEN && !c->orphan && c->taken - c->told >= VSOCK_ROOM / 4) {
        c->tell |= VSOCK_TELL_CREDIT;
    }
    vsock_conn_watch(c);
    return true;
}

static bool wants_guest(const struct vsock_conn *c)
{
    return !c->orphan && (c->tell || (c->state == VSOCK_OPEN && c->readable && !c->eof &&
                                      vsock_conn_credit(c) > 0));
}

static void greet(struct vvsock *s, struct vsock_conn *c)
{
    uint32_t port;
    int rc = vsock_conn_greeting(c, &port);

    if (rc < 0 || (rc > 0 && !virtio_working(&s->v))) {
        conn_drop(s, c);
        return;
    }
    if (rc > 0) {
        c->state = VSOCK_ASKED;
        c->guest_port = port;
        do {
            c->host_port = s->next_port;
            s->next_port = s->next_port == UINT32_MAX - 1 ? FIRST_PORT : s->next_port + 1;
        } while (conn_find(s, c->host_port, port) != c);
        c->tell = VSOCK_TELL_REQUEST;
    }
    vsock_conn_watch(c);
}

/* The host's end is ready for something. */
static void on_conn(struct vsock_conn *c)
{
    struct vvsock *s = c->owner;
    struct virtio *v = &s->v;

    bus_lock(v->lock);
    if (s->dropped) {
        drop_all(s);
    } else if (c->state == VSOCK_GREETING) {
        greet(s, c);
        virtio_ring(v, RX);
    } else {
        vsock_conn_flush(c);
        if (settle(s, c) && wants_guest(c)) {
            virtio_ring(v, RX);
        }
    }
    bus_unlock(v->lock);
}

static struct vsock_conn *conn_add(struct vvsock *s, int take_fd, enum vsock_state state)
{
    struct vsock_conn *c;

    if (s->n_conns >= VSOCK_MAX_CONNS) {
        return NULL;
    }
    c = vsock_conn_new(s->v.dev.vm->loop, take_fd, state, on_conn, s);
    list_append(&s->conns, &c->node);
    s->n_conns++;
    return c;
}

/* The oldest client that has said nothing makes room for another. */
static void drop_silent(struct vvsock *s)
{
    list_for_each_safe (it, &s->conns) {
        struct vsock_conn *c = list_entry(it, struct vsock_conn, node);

        if (c->state == VSOCK_GREETING) {
            conn_drop(s, c);
            return;
        }
    }
}

void virtio_vsock_client(struct device *d, int take_fd)
{
    struct vvsock *s = (struct vvsock *)d;

    bus_lock(s->v.lock);
    if (s->n_conns >= VSOCK_MAX_CONNS) {
        drop_silent(s);
    }
    if (!conn_add(s, take_fd, VSOCK_GREETING)) {
        close(take_fd);
    }
    bus_unlock(s->v.lock);
}

void virtio_vsock_answer(struct device *d, uint64_t ticket, int take_fd)
{
    struct vvsock *s = (struct vvsock *)d;
    struct vsock_conn *c = NULL;

    bus_lock(s->v.lock);
    list_for_each (it, &s->conns) {
        struct vsock_conn *k = list_entry(it, struct vsock_conn, node);
        c = k->state == VSOCK_CALLING && k->ticket == ticket ? k : c;
    }
    if (c && !s->dropped) {
        c->state = VSOCK_OPEN;
        c->tell = take_fd >= 0 ? VSOCK_TELL_RESPONSE : VSOCK_TELL_RESET;
        if (take_fd >= 0) {
            vsock_conn_take(c, s->v.dev.vm->loop, take_fd);
        }
        virtio_ring(&s->v, RX);
    } else if (take_fd >= 0) {
        close(take_fd); /* the guest did not wait */
    }
    bus_unlock(s->v.lock);
}

void virtio_vsock_view(struct device *d, struct vsock_view *out)
{
    struct vvsock *s = (struct vvsock *)d;

    bus_lock(s->v.lock);
    *out = (struct vsock_view){ s->n_conns, s->to_guest, s->from_guest };
    bus_unlock(s->v.lock);
}

/* --- to the guest -------------------------------------------------------------------------------------------- */

static void header_fill(const struct vvsock *s, struct header *h, uint32_t host_port,
                        uint32_t guest_port, uint16_t op)
{
    *h = (struct header){ .src_cid = htole64(HOST_CID),
                          .dst_cid = htole64(s->cid),
                          .src_port = htole32(host_port),
                          .dst_port = htole32(guest_port),
                          .type = htole16(TYPE_STREAM),
                          .op = htole16(op) };
}

static void push(struct vvsock *s, struct virtio_elem *el, const struct header *h, uint32_t len)
{
    virtio_put(el, 0, h, sizeof(*h));
    virtq_push(&s->v, RX, el, sizeof(*h) + len);
}

/* A packet of a stream, with what the guest may send. */
static void push_conn(struct vvsock *s, struct vsock_conn *c, struct virtio_elem *el,
                      uint16_t op, uint32_t flags, uint32_t len)
{
    struct header h;

    header_fill(s, &h, c->host_port, c->guest_port, op);
    h.len = htole32(len);
    h.flags = htole32(flags);
    h.buf_alloc = htole32(VSOCK_ROOM);
    h.fwd_cnt = htole32(c->taken);
    c->told = c->taken;
    c->tell &= ~(unsigned)VSOCK_TELL_CREDIT;
    push(s, el, &h, len);
}

/* The first thing that the guest is to be told; false: the stream is gone with it. */
static bool tell_guest(struct vvsock *s, struct vsock_conn *c, struct virtio_elem *el)
{
    static const struct {
        unsigned bit;
        uint16_t op;
        uint32_t flags;
    } things[] = { { VSOCK_TELL_REQUEST, OP_REQUEST, 0 },
                   { VSOCK_TELL_RESPONSE, OP_RESPONSE, 0 },
                   { VSOCK_TELL_CREDIT, OP_CREDIT_UPDATE, 0 },
                   { VSOCK_ASK_CREDIT, OP_CREDIT_REQUEST, 0 },
                   { VSOCK_TELL_SHUTDOWN, OP_SHUTDOWN, VSOCK_NO_SEND },
                   { VSOCK_TELL_RESET, OP_RST, 0 } };

    for (unsigned i = 0; i < ARRAY_LEN(things); i++) {
        if (c->tell & things[i].bit) {
            c->tell &= ~things[i].bit;
            push_conn(s, c, el, things[i].op, things[i].flags, 0);
            if (things[i].op == OP_RST) {
                conn_drop(s, c);
                return false;
            }
            break;
        }
    }
    return true;
}

/* Reads from the host into the guest's buffer, behind the header. */
static ssize_t receive(struct vsock_conn *c, const struct virtio_elem *el, uint32_t most)
{
    struct iovec iov[MAX_PIECES];
    struct msghdr m = { .msg_iov = iov };
    uint64_t skip = sizeof(struct header);

    for (unsigned i = el->n_out;
         i < el->n_out + el->n_in && m.msg_iovlen < MAX_PIECES && most > 0; i++) {
        const struct virtio_sg *g = &el->sg[i];

        if (skip >= g->len) {
            skip -= g->len;
            continue;
        }
        uint32_t n = (uint32_t)(g->len - skip) < most ? (uint32_t)(g->len - skip) : most;
        iov[m.msg_iovlen++] = (struct iovec){ g->host + skip, n };
        most -= n;
        skip = 0;
    }
    return recvmsg(c->fd, &m, MSG_DONTWAIT);
}

static void carry(struct vvsock *s, struct vsock_conn *c, struct virtio_elem *el)
{
    uint64_t room = el->in_len - sizeof(struct header);
    uint32_t credit = vsock_conn_credit(c),
             most = room < MAX_PACKET ? (uint32_t)room : MAX_PACKET;
    ssize_t n = receive(c, el, most < credit ? most : credit);

    if (n > 0) {
        c->sent += (uint32_t)n;
        s->to_guest += (uint64_t)n;
        c->credit_asked = false;
        push_conn(s, c, el, OP_RW, 0, (uint32_t)n);
        if (vsock_conn_credit(c) == 0 && !c->credit_asked) {
            c->credit_asked = true;
            c->tell |= VSOCK_ASK_CREDIT;
        }
        return;
    }
    virtq_unpop(&s->v, RX, el);
    c->readable = false;
    if (n == 0) {
        c->eof = true;
        c->tell |= VSOCK_TELL_SHUTDOWN;
    } else if (errno != EAGAIN && errno != EINTR) {
        c->broken = true;
    }
}

/* One packet of the stream; false: no buffer is there. */
static bool serve_conn(struct vvsock *s, struct vsock_conn *c)
{
    struct virtio_elem *el = virtq_pop(&s->v, RX);

    if (!el) {
        return false;
    }
    if (el->in_len <= sizeof(struct header)) {
        virtq_push(&s->v, RX, el, 0);
        virtio_broken(&s->v, "a receive buffer has no room for a packet");
        return false;
    }
    if (c->tell) {
        if (!tell_guest(s, c, el)) {
            return true;
        }
    } else {
        carry(s, c, el);
    }
    (void)settle(s, c);
    return true;
}

static bool serve_resets(struct vvsock *s)
{
    while (s->n_resets > 0) {
        struct virtio_elem *el = virtq_pop(&s->v, RX);
        struct header h;

        if (!el) {
            return false;
        }
        s->n_resets--;
        header_fill(s, &h, s->reset[s->n_resets].host_port, s->reset[s->n_resets].guest_port,
                    OP_RST);
        push(s, el, &h, 0);
    }
    return true;
}

/* A packet of each stream that has one; returns how many there were, or -1: no buffer is there. */
static int serve_round(struct vvsock *s)
{
    int n = 0;

    if (!serve_resets(s)) {
        return -1;
    }
    list_for_each_safe (it, &s->conns) {
        struct vsock_conn *c = list_entry(it, struct vsock_conn, node);

        if (wants_guest(c)) {
            if (!serve_conn(s, c)) {
                return -1;
            }
            n++;
        }
    }
    return n;
}

static void serve_rx(struct vvsock *s)
{
    bool more_tx = s->n_resets == MAX_RESETS;
    int n = 1;

    for (int total = 0; total < TURN && n > 0; total += n) {
        n = serve_round(s);
        if (n < 0 && virtq_rearm(&s->v, RX)) {
            n = 1;
        }
    }
    virtq_signal(&s->v, RX);
    if (n > 0) {
        virtio_ring(&s->v, RX);
    }
    if (more_tx && s->n_resets < MAX_RESETS) {
        virtio_ring(&s->v, TX);
    }
}

/* --- from the guest ------------------------------------------------------------------------------------------ */

static void no_such(struct vvsock *s, const struct header *h)
{
    if (h->op != OP_RST && s->n_resets < MAX_RESETS) {
        s->reset[s->n_resets].host_port = h->dst_port;
        s->reset[s->n_resets].guest_port = h->src_port;
        s->n_resets++;
    }
}

static void call_host(struct vvsock *s, const struct header *h)
{
    struct vsock_conn *c = s->host ? conn_add(s, -1, VSOCK_CALLING) : NULL;

    if (!c) {
        no_such(s, h);
        return;
    }
    c->host_port = h->dst_port;
    c->guest_port = h->src_port;
    c->peer_room = h->buf_alloc;
    c->peer_taken = h->fwd_cnt;
    c->ticket = s->next_ticket++;
    s->host->call(s->host->arg, c->host_port, c->ticket);
}

static void take_data(struct vvsock *s, struct vsock_conn *c, const struct header *h,
                      const struct virtio_elem *el)
{
    if (c->state != VSOCK_OPEN || h->len > MAX_PACKET || el->out_len < sizeof(*h) + h->len) {
        c->tell = VSOCK_TELL_RESET;
        return;
    }
    virtio_get(el, sizeof(*h), s->bounce, h->len);
    if (!vsock_conn_put(c, s->bounce, h->len)) {
        log_trace('v', "%s: the guest sends more than it was given credit for", s->v.dev.id);
        c->tell = VSOCK_TELL_RESET;
        return;
    }
    s->from_guest += h->len;
    vsock_conn_flush(c);
}

static void guest_reset(struct vvsock *s, struct vsock_conn *c)
{
    if (c->waiting > 0 && !c->broken) { /* it has seen them off properly */
        c->orphan = true;
        c->tell = 0;
        c->guest_shut = VSOCK_NO_RECEIVE | VSOCK_NO_SEND;
        vsock_conn_watch(c);
    } else {
        conn_drop(s, c);
    }
}

/* A packet of a stream that there is. */
static void on_packet(struct vvsock *s, struct vsock_conn *c, const struct header *h,
                      const struct virtio_elem *el)
{
    c->peer_room = h->buf_alloc;
    c->peer_taken = h->fwd_cnt;
    switch (h->op) {
    case OP_RESPONSE:
        if (c->state == VSOCK_ASKED) {
            c->state = VSOCK_OPEN;
            vsock_conn_ok(c);
        }
        break;
    case OP_RW:
        take_data(s, c, h, el);
        break;
    case OP_SHUTDOWN:
        c->guest_shut |= h->flags & (VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
        vsock_conn_flush(c);
        break;
    case OP_CREDIT_UPDATE:
        break;
    case OP_CREDIT_REQUEST:
        c->tell |= VSOCK_TELL_CREDIT;
        break;
    case OP_RST:
        guest_reset(s, c);
        return;
    default: /* a second request, or none that there is */
        c->tell = VSOCK_TELL_RESET;
        break;
    }
    c->state = c->tell == VSOCK_TELL_RESET ? VSOCK_OPEN : c->state;
    (void)settle(s, c);
}

static void take_packet(struct vvsock *s, const struct virtio_elem *el)
{
    struct header h;
    struct vsock_conn *c;

    if (virtio_get(el, 0, &h, sizeof(h)) < sizeof(h)) {
        log_trace('v', "%s: a packet of %llu bytes", s->v.dev.id,
                  (unsigned long long)el->out_len);
        return;
    }
    h.src_port = le32toh(h.src_port);
    h.dst_port = le32toh(h.dst_port);
    h.len = le32toh(h.len);
    h.type = le16toh(h.type);
    h.op = le16toh(h.op);
    h.flags = le32toh(h.flags);
    h.buf_alloc = le32toh(h.buf_alloc);
    h.fwd_cnt = le32toh(h.fwd_cnt);
    if (le64toh(h.src_cid) != s->cid || le64toh(h.dst_cid) != HOST_CID) {
        return; /* there is nobody else */
    }
    c = h.type == TYPE_STREAM ? conn_find(s, h.dst_port, h.src_port) : NULL;
    if (c) {
        on_packet(s, c, &h, el);
    } else if (h.type == TYPE_STREAM && h.op == OP_REQUEST) {
        call_host(s, &h);
    } else {
        no_such(s, &h);
    }
}

static void serve_tx(struct vvsock *s)
{
    struct virtio *v = &s->v;

    for (unsigned n = 0; n < TURN && s->n_resets < MAX_RESETS;) {
        struct virtio_elem *el = virtq_pop(v, TX);

        if (el) {
            n++;
            take_packet(s, el);
            virtq_push(v, TX, el, 0);
        } else if (!virtq_rearm(v, TX)) {
            virtq_signal(v, TX);
            virtio_ring(v, RX);
            return;
        }
    }
    virtq_signal(v, TX);
    virtio_ring(v, RX); /* answers; with room for more of them the rest */
    if (s->n_resets < MAX_RESETS) {
        virtio_ring(v, TX);
    }
}

/* The streams of a state that was loaded are gone (virtio 1.2 §5.10.6.7: transport reset). */
static void serve_event(struct vvsock *s)
{
    static const uint32_t transport_reset = 0;
    struct virtio_elem *el = s->moved ? virtq_pop(&s->v, EVENT) : NULL;

    if (el) {
        s->moved = false;
        virtq_push(&s->v, EVENT, el,
                   virtio_put(el, 0, &transport_reset, sizeof(transport_reset)));
        virtq_signal(&s->v, EVENT);
    }
}

static void vvsock_serve(struct virtio *v, unsigned q)
{
    struct vvsock *s = (struct vvsock *)v;

    if (s->dropped) {
        drop_all(s);
    }
    if (q == RX) {
        serve_rx(s);
    } else if (q == TX) {
        serve_tx(s);
    } else {
        serve_event(s);
    }
}

/* --- the class ----------------------------------------------------------------------------------------------- */

static void vvsock_config(struct virtio *v, uint8_t *out)
{
    uint64_t cid = htole64(((struct vvsock *)v)->cid);

    memcpy(out, &cid, sizeof(cid));
}

static void on_dropped(void *arg)
{
    struct vvsock *s = arg;

    bus_lock(s->v.lock);
    if (s->dropped) {
        drop_all(s);
    }
    bus_unlock(s->v.lock);
}

/* Descriptors belong to the loop: they are closed there. Nothing of a stream touches guest memory by itself. */
static void vvsock_reset(struct virtio *v)
{
    struct vvsock *s = (struct vvsock *)v;

    if (!list_empty(&s->conns) && !s->dropped) {
        s->dropped = true;
        loop_post(v->dev.vm->loop, on_dropped, s);
    }
    s->moved = false;
}

static const struct virtio_ops vvsock_ops = {
    .id = 19,
    .n_queues = N_QUEUES,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 8,
    .serve = vvsock_serve,
    .config = vvsock_config,
    .reset = vvsock_reset,
};

static int vvsock_realize(struct device *d, struct err *e)
{
    struct vvsock *s = (struct vvsock *)d;

    (void)e;
    virtio_setup(&s->v, &vvsock_ops, 0, F_STREAM);
    list_init(&s->conns);
    s->next_port = FIRST_PORT;
    s->bounce = xalloc(MAX_PACKET);
    return 0;
}

static void vvsock_destroy(struct device *d)
{
    struct vvsock *s = (struct vvsock *)d;

    if (s->bounce) { /* realized */
        drop_all(s);
        free(s->bounce);
    }
    virtio_done(&s->v);
}

static int vvsock_loaded(void *obj, struct err *e)
{
    struct vvsock *s = obj;

    (void)e;
    s->moved = s->v.status & VIRTIO_STATUS_DRIVER_OK;
    return 0;
}

static const struct st_field vvsock_fields[] = { VIRTIO_ST_FIELD, ST_END };
static const struct st_table vvsock_state = {
    .name = "virtio-vsock",
    .version = 1,
    .fields = vvsock_fields,
    .loaded = vvsock_loaded,
};

static const struct dev_prop vvsock_props[] = {
    { .name = "cid",
      .kind = PROP_U64,
      .offset = offsetof(struct vvsock, cid),
      .def = 3,
      .min = 3,
      .max = UINT32_MAX - 1,
      .doc = "the guest's address" },
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct vvsock, host),
      .doc = "who is asked for streams to the host; none: each is refused" },
    { .name = NULL },
};

const struct device_class virtio_vsock_class = {
    .name = "virtio-vsock",
    .doc = "streams between programs of the guest and of the host (virtio 1.2 §5.10)",
    .size = sizeof(struct vvsock),
    .props = vvsock_props,
    .state = &vvsock_state,
    .realize = vvsock_realize,
    .resumed = virtio_resumed,
    .destroy = vvsock_destroy,
};
