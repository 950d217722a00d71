/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Front end of vhost-user for network cards (vhost.h). Owns the window, its bells, and the connection to the back end. The conversation
 * is vhost_talk.h's. Each descriptor has a chunk of the window of its own; a frame is a chain of them to the back end, and as many as it
 * needs from it (mergeable buffers, virtio 1.2 §5.1.6.3.1).
 *
 * Nothing in the window is trusted, since the back end writes there: what was offered is kept here, frames are copied before they
 * are looked at, indices are read once and checked, and a back end that breaks the rules is hung up on.
 */
#include "network/server/vhost.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/vhost_talk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING VHOST_PORT_RING
#define CHUNK 4096u
#define AVAIL_AT (16u * RING)
#define USED_AT (AVAIL_AT + 2048u)
#define CHUNKS_AT 16384u /* behind the rings */
#define STRIDE (CHUNKS_AT + RING * CHUNK)
#define CHUNKS_MAX ((NET_VHDR + NET_MAX_FRAME + CHUNK - 1) / CHUNK)
#define BATCH 64 /* frames of a ring before other work of the loop gets its turn */
#define PATIENCE_NS INT64_C(8000000000)

#define F(n) (1ull << (n))
#define F_CSUM F(0)
#define F_GUEST_CSUM F(1)
#define F_GUEST_TSO (F(7) | F(8) | F(9))
#define F_HOST_TSO4 F(11)
#define F_HOST_TSO6 F(12)
#define F_HOST_ECN F(13)
#define F_MRG_RXBUF F(15)
#define F_MQ F(22)

enum { DESC_NEXT = 1, DESC_WRITE = 2 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

struct ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct ring_avail {
    uint16_t flags, idx, ring[RING];
};

struct ring_used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[RING];
};

struct vhost;
struct ring {
    struct vhost *v;
    unsigned i; /* even: to us */
    int kick, call;
    struct loop_fd *watch; /* of call, while a back end is there */
    uint16_t avail_idx, used_idx;
    uint16_t free[RING], n_free; /* descriptors that nobody uses */
    uint16_t next[RING];
    uint8_t chain[RING]; /* by first descriptor: how many the back end has; 0: none */
    bool dirty;          /* the back end has not been told of all */
};

struct vhost {
    struct net_port port;
    struct loop *loop;
    int window_fd, connect_fd, sock;
    uint8_t *window;
    size_t window_size;
    struct loop_fd *connect_watch, *watch; /* the latter: of sock; NULL: no back end is there */
    unsigned pairs, used_pairs;
    struct ring ring[2 * VHOST_PAIRS_MAX];
    uint8_t in[CHUNKS_MAX * CHUNK]; /* a frame that came, with its header */
    size_t in_len;                  /* the front end has no room for it; 0: there is none */
    bool full;                      /* the front end was told to wait */
    const char *broken; /* how the back end broke the rules; it is hung up on soon */
    bool complained;
    struct loop_task work;
};

static struct vhost *vhost_of(struct net_port *p)
{
    return container_of(p, struct vhost, port);
}

static uint8_t *ring_base(const struct vhost *v, unsigned i)
{
    return v->window + (size_t)i * STRIDE;
}

static struct ring_desc *ring_desc(const struct ring *r)
{
    return (struct ring_desc *)(void *)ring_base(r->v, r->i);
}

static struct ring_avail *ring_avail(const struct ring *r)
{
    return (struct ring_avail *)(void *)(ring_base(r->v, r->i) + AVAIL_AT);
}

static struct ring_used *ring_used(const struct ring *r)
{
    return (struct ring_used *)(void *)(ring_base(r->v, r->i) + USED_AT);
}

static uint8_t *chunk(const struct ring *r, unsigned id)
{
    return ring_base(r->v, r->i) + CHUNKS_AT + (size_t)id * CHUNK;
}

/* Hangs up when the callback that noticed has returned. */
static void breaks(struct vhost *v, const char *how)
{
    v->broken = v->broken ? v->broken : how;
    loop_task_queue(v->loop, &v->work);
}

/* --- rings --- */

static void publish(struct ring *r, unsigned head, unsigned n)
{
    struct ring_avail *avail = ring_avail(r);

    r->chain[head] = (uint8_t)n;
    avail->ring[r->avail_idx % RING] = htole16((uint16_t)head);
    __atomic_store_n(&avail->idx, htole16(++r->avail_idx), __ATOMIC_RELEASE);
    r->dirty = true;
}

static void kick(struct ring *r)
{
    uint64_t one = 1;

    if (!r->dirty) {
        return;
    }
    r->dirty = false;
    atomic_thread_fence(memory_order_seq_cst); /* our index before its wish */
    if (!(le16toh(__atomic_load_n(&ring_used(r)->flags, __ATOMIC_RELAXED)) & USED_NO_NOTIFY)) {
        ssize_t n = write(r->kick, &one, sizeof(one));

        (void)n; /* full: it has not looked yet */
    }
}

/* How many the back end has given back. */
static unsigned ready(struct ring *r)
{
    uint16_t idx = le16toh(__atomic_load_n(&ring_used(r)->idx, __ATOMIC_ACQUIRE));
    uint16_t n = (uint16_t)(idx - r->used_idx);

    if (n > (uint16_t)(r->avail_idx - r->used_idx)) {
        breaks(r->v, "it returns more buffers than it was given");
        return 0;
    }
    return n;
}

/* Takes the next of them: its first descriptor, or -1. */
static int take_used(struct ring *r, uint32_t *len)
{
    struct ring_used *used = ring_used(r);
    unsigned at = r->used_idx % RING;
    uint32_t id = le32toh(__atomic_load_n(&used->ring[at].id, __ATOMIC_RELAXED));

    *len = le32toh(__atomic_load_n(&used->ring[at].len, __ATOMIC_RELAXED));
    if (id >= RING || r->chain[id] == 0) {
        breaks(r->v, "it returns a buffer that it was not given");
        return -1;
    }
    r->used_idx++;
    return (int)id;
}

static void ring_start(struct ring *r)
{
    struct ring_desc *desc = ring_desc(r);
    uint64_t n;
    ssize_t got = read(r->call, &n, sizeof(n)); /* of a back end before this one */

    (void)got;
    memset(ring_base(r->v, r->i), 0, CHUNKS_AT);
    memset(r->chain, 0, sizeof(r->chain));
    r->avail_idx = r->used_idx = r->n_free = 0;
    for (unsigned id = 0; id < RING; id++) {
        desc[id] = (struct ring_desc){
            .addr = htole64(VHOST_GPA + (uint64_t)r->i * STRIDE + CHUNKS_AT + id * CHUNK),
            .len = htole32(CHUNK),
            .flags = htole16(r->i % 2 ? 0 : DESC_WRITE),
        };
        if (r->i % 2) {
            r->free[r->n_free++] = (uint16_t)(RING - 1 - id);
        } else {
            publish(r, id, 1);
        }
    }
    /* What was sent is looked for when there is something to send. */
    ring_avail(r)->flags = htole16(r->i % 2 ? AVAIL_NO_INTERRUPT : 0);
}

/* --- sending --- */

static void reclaim(struct ring *r)
{
    for (unsigned n = ready(r); n > 0; n--) {
        uint32_t len;
        int head = take_used(r, &len);
        uint16_t id = (uint16_t)head;

        if (head < 0) {
            return;
        }
        for (unsigned k = r->chain[head]; k > 0; k--) {
            r->free[r->n_free++] = id;
            id = r->next[id];
        }
        r->chain[head] = 0;
    }
}

/* Room for a frame of any size; false: the bell rings when there is. */
static bool make_room(struct ring *r)
{
    struct ring_avail *avail = ring_avail(r);

    if (r->n_free >= CHUNKS_MAX) {
        return true;
    }
    reclaim(r);
    if (r->n_free >= CHUNKS_MAX) {
        return true;
    }
    kick(r);
    __atomic_store_n(&avail->flags, 0, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_seq_cst); /* our wish before its index */
    reclaim(r);
    if (r->n_free < CHUNKS_MAX) {
        return false;
    }
    __atomic_store_n(&avail->flags, htole16(AVAIL_NO_INTERRUPT), __ATOMIC_RELAXED);
    return true;
}

/* Copies the frame behind its header into a chain. */
static void put_frame(struct ring *r, const struct net_frame *f)
{
    struct ring_desc *desc = ring_desc(r);
    size_t total = NET_VHDR + f->len, at = 0;
    uint16_t head = r->free[r->n_free - 1], id = head;
    unsigned n = 0;

    while (at < total) {
        size_t part = total - at < CHUNK ? total - at : CHUNK, skip = at == 0 ? NET_VHDR : 0;
        bool last = at + part == total;
        uint8_t *to = chunk(r, id);

        r->n_free--;
        if (skip) {
            net_hdr_put(to, &f->hdr);
        }
        net_frame_get(f, at + skip - NET_VHDR, to + skip, part - skip);
        r->next[id] = last ? 0 : r->free[r->n_free - 1];
        desc[id].len = htole32((uint32_t)part);
        desc[id].flags = htole16(last ? 0 : DESC_NEXT);
        desc[id].next = htole16(r->next[id]);
        id = r->next[id];
        at += part;
        n++;
    }
    publish(r, head, n);
}

static int vhost_send(struct net_port *p, const struct net_frame *f)
{
    struct vhost *v = vhost_of(p);
    struct ring *r;

    if (!v->watch || v->broken) {
        return -ENETDOWN;
    }
    r = &v->ring[2 * (net_frame_flow(f) % v->used_pairs) + 1];
    if (!make_room(r)) {
        v->full = true;
        return v->broken ? -ENETDOWN : -EAGAIN;
    }
    put_frame(r, f);
    return 0;
}

static void vhost_flush(struct net_port *p)
{
    struct vhost *v = vhost_of(p);

    for (unsigned i = 1; v->watch && i < 2 * v->used_pairs; i += 2) {
        kick(&v->ring[i]);
    }
}

/* --- receiving --- */

/* A buffer's bytes to v->in, and the buffer back to the back end. False: it broke the rules. */
static bool take_chunk(struct ring *r)
{
    struct vhost *v = r->v;
    uint32_t len;
    int id = take_used(r, &len);

    if (id < 0) {
        return false;
    }
    len = len < CHUNK ? len : CHUNK;
    memcpy(v->in + v->in_len, chunk(r, (unsigned)id), len);
    v->in_len += len;
    publish(r, (unsigned)id, 1);
    return true;
}

/* The next frame to v->in. False: there is none. A frame of which something is amiss has no length. */
static bool take_frame(struct ring *r)
{
    struct vhost *v = r->v;
    unsigned have = ready(r), n;

    if (have == 0 || !take_chunk(r)) {
        return false;
    }
    n = v->in_len >= NET_VHDR ? v->in[10] | (unsigned)v->in[11] << 8 : 0;
    if (n == 0 || n > CHUNKS_MAX || n > have) {
        v->port.rx.errors++;
        v->in_len = 0;
        return true;
    }
    while (--n > 0) {
        if (!take_chunk(r)) {
            v->in_len = 0;
            return false;
        }
    }
    return true;
}

/* False: the front end has no room for it. */
static bool deliver(struct vhost *v)
{
    struct iovec iov = { v->in + NET_VHDR, v->in_len - NET_VHDR };
    struct net_frame f = { .iov = &iov, .n_iov = 1, .len = iov.iov_len };

    if (v->in_len > NET_VHDR && iov.iov_len <= NET_MAX_FRAME) {
        net_hdr_get(&f.hdr, v->in);
        if (net_deliver(&v->port, &f) == -EAGAIN) {
            return false;
        }
    }
    v->in_len = 0;
    return true;
}

static void receive(struct vhost *v, struct ring *r)
{
    bool some = false, more = true;
    unsigned n = 0;

    while (n < BATCH && v->watch && !v->broken && v->in_len == 0 && (more = take_frame(r))) {
        some = deliver(v) || some;
        n++;
    }
    kick(r);
    if (some) {
        net_delivered(&v->port);
    }
    if (n == BATCH && more) {
        loop_task_queue(v->loop, &v->work);
    }
}

static void receive_all(struct vhost *v)
{
    for (unsigned i = 0; v->watch && i < 2 * v->used_pairs; i += 2) {
        receive(v, &v->ring[i]);
    }
}

static void vhost_recv_ready(struct net_port *p)
{
    if (vhost_of(p)->in_len > 0) {
        loop_task_queue(vhost_of(p)->loop, &vhost_of(p)->work);
    }
}

static void on_call(void *arg, int fd, unsigned events)
{
    struct ring *r = arg;
    struct vhost *v = r->v;
    uint64_t n;

    (void)events;
    if (read(fd, &n, sizeof(n)) != sizeof(n)) {
        return;
    }
    if (r->i % 2 == 0) {
        receive(v, r);
    } else if (v->full && make_room(r)) {
        v->full = false;
        net_writable(&v->port);
    }
}

/* --- back ends that come and go --- */

static void ask_connection(struct vhost *v)
{
    /* Who makes connections is gone when we are about to end. */
    (void)!send(v->connect_fd, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void hang_up(struct vhost *v, const char *why)
{
    log_warn("net", "%s: the vhost-user back end is lost: %s; the link is down until one comes",
             v->port.name, why);
    for (unsigned i = 0; i < 2 * v->used_pairs; i++) {
        loop_fd_free(v->ring[i].watch);
        v->ring[i].watch = NULL;
    }
    loop_fd_free(v->watch);
    v->watch = NULL;
    fd_autoclose(&v->sock);
    v->sock = -1;
    v->broken = NULL;
    v->in_len = 0;
    net_set_up(&v->port, false);
    if (v->full) {
        v->full = false;
        net_writable(&v->port); /* what it has is dropped then */
    }
    ask_connection(v);
}

/* Nothing is expected there but its end. */
static void on_socket(void *arg, int fd, unsigned events)
{
    struct vhost *v = arg;
    char bytes[256];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    hang_up(v, n > 0 ? "it speaks without being asked" : "it has hung up");
}

static void on_work(void *arg)
{
    struct vhost *v = arg;

    if (v->watch && v->broken) {
        hang_up(v, v->broken);
    } else if (v->watch && (v->in_len == 0 || deliver(v))) {
        net_delivered(&v->port);
        receive_all(v);
    }
}

static int talk(struct vhost *v, int sock, struct err *e)
{
    struct vhost_plan_ring ring[2 * VHOST_PAIRS_MAX];
    struct vhost_plan plan = { .sock = sock,
                               .name = v->port.name,
                               .need = F_MRG_RXBUF,
                               .wish = F_CSUM | F_GUEST_CSUM | F_GUEST_TSO | F_HOST_TSO4 |
                                       F_HOST_TSO6 | F_HOST_ECN | (v->pairs > 1 ? F_MQ : 0),
                               .window_fd = v->window_fd,
                               .window_size = v->window_size,
                               .ring = ring,
                               .n_rings = 2 * v->pairs,
                               .least_rings = 2,
                               .unit = 2 };
    int rc;

    for (unsigned i = 0; i < 2 * v->pairs; i++) {
        const size_t at = (size_t)i * STRIDE;

        ring_start(&v->ring[i]);
        ring[i] = (struct vhost_plan_ring){ .desc_at = at,
                                            .avail_at = at + AVAIL_AT,
                                            .used_at = at + USED_AT,
                                            .size = RING,
                                            .kick = v->ring[i].kick,
                                            .call = v->ring[i].call };
    }
    rc = vhost_talk(&plan, PATIENCE_NS, e);
    if (rc != 0) {
        return rc;
    }
    v->used_pairs = plan.n_rings / 2;
    v->port.takes = (plan.features & F_CSUM ? NET_OFF_CSUM : 0u) |
                    (plan.features & F_HOST_TSO4 ? NET_OFF_TSO4 : 0u) |
                    (plan.features & F_HOST_TSO6 ? NET_OFF_TSO6 : 0u) |
                    (plan.features & F_HOST_ECN ? NET_OFF_ECN : 0u);
    return 0;
}

/* Shakes hands; the socket is taken, also when it fails. */
static int begin(struct vhost *v, int take_sock, struct err *e)
{
    int rc = talk(v, take_sock, e);

    if (rc != 0) {
        close(take_sock);
        return rc;
    }
    v->sock = take_sock;
    v->watch = loop_fd_new(v->loop, v->sock, LOOP_READ, on_socket, v);
    for (unsigned i = 0; i < 2 * v->used_pairs; i++) {
        struct ring *r = &v->ring[i];

        r->watch = loop_fd_new(v->loop, r->call, LOOP_READ, on_call, r);
        kick(r);
    }
    v->complained = false;
    log_info("net", "%s: a vhost-user back end is there, with %u pairs of queues", v->port.name,
             v->used_pairs);
    net_set_up(&v->port, true);
    return 0;
}

static void on_connection(void *arg, int fd, unsigned events)
{
    struct vhost *v = arg;
    struct err e = ERR_INIT;
    unsigned n_fds = 1;
    int sock = -1;
    char byte;
    ssize_t n = fd_recv(fd, &byte, 1, &sock, &n_fds, &e);

    (void)events;
    if (n <= 0 || n_fds == 0) {
        if (n != -EAGAIN) {
            loop_fd_free(v->connect_watch);
            v->connect_watch = NULL;
        }
        return;
    }
    if (v->watch) {
        close(sock); /* nobody asked for it */
        return;
    }
    if (begin(v, sock, &e) != 0) {
        if (!v->complained) {
            log_warn("net", "%s; it is tried again", e.msg);
        }
        v->complained = true;
        ask_connection(v);
    }
}

/* --- making and ending --- */

static void vhost_close(struct net_port *p)
{
    struct vhost *v = vhost_of(p);

    loop_task_cancel(&v->work);
    loop_fd_free(v->watch);
    loop_fd_free(v->connect_watch);
    for (unsigned i = 0; i < 2 * VHOST_PAIRS_MAX; i++) {
        loop_fd_free(v->ring[i].watch);
        fd_autoclose(&v->ring[i].kick);
        fd_autoclose(&v->ring[i].call);
    }
    fd_autoclose(&v->sock);
    fd_autoclose(&v->connect_fd);
    fd_autoclose(&v->window_fd);
    if (v->window) {
        munmap(v->window, v->window_size);
    }
    net_port_done(p);
    free(v);
}

static const struct net_port_ops vhost_ops = {
    .kind = "vhost-user",
    .send = vhost_send,
    .flush = vhost_flush,
    .recv_ready = vhost_recv_ready,
    .close = vhost_close,
};

/* The window, which nobody can make smaller, and the bells. */
static int open_kit(struct vhost *v, struct err *e)
{
    void *at;

    v->window_size = 2 * (size_t)v->pairs * STRIDE;
    v->window_fd = memfd_create("vmd-vhost-net", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (v->window_fd < 0 || ftruncate(v->window_fd, (off_t)v->window_size) < 0 ||
        fcntl(v->window_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return err_errno(e, errno, "cannot make memory for vhost-user");
    }
    at = mmap(NULL, v->window_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
              v->window_fd, 0);
    if (at == MAP_FAILED) {
        return err_errno(e, errno, "cannot map memory for vhost-user");
    }
    v->window = at;
    for (unsigned i = 0; i < 2 * v->pairs; i++) {
        struct ring *r = &v->ring[i];

        r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (r->kick < 0 || r->call < 0) {
            return err_errno(e, errno, "cannot make bells for vhost-user");
        }
    }
    return 0;
}

/* The back end that is there already. */
static int first(struct vhost *v, struct err *e)
{
    unsigned n_fds = 1;
    int sock = -1;
    char byte;
    ssize_t n = fd_recv(v->connect_fd, &byte, 1, &sock, &n_fds, e);

    if (n <= 0 || n_fds == 0) {
        return n < 0 ? (int)n : err_set(e, -EPIPE, "%s: no connection came", v->port.name);
    }
    return begin(v, sock, e);
}

struct net_port *vhost_port_new(struct loop *l, const struct vhost_options *o, struct err *e)
{
    struct vhost *v = xnew(struct vhost);

    net_port_init(&v->port, &vhost_ops, o->name, 0);
    v->port.up = false;
    v->loop = l;
    v->pairs = o->pairs < 1 ? 1 : o->pairs < VHOST_PAIRS_MAX ? o->pairs : VHOST_PAIRS_MAX;
    v->connect_fd = o->connect_fd;
    v->window_fd = v->sock = -1;
    loop_task_init(&v->work, on_work, v);
    for (unsigned i = 0; i < 2 * VHOST_PAIRS_MAX; i++) {
        v->ring[i].v = v;
        v->ring[i].i = i;
        v->ring[i].kick = v->ring[i].call = -1;
    }
    if (open_kit(v, e) != 0 || (!o->listens && first(v, e) != 0)) {
        vhost_close(&v->port);
        return NULL;
    }
    if (o->listens) {
        ask_connection(v);
    }
    v->connect_watch = loop_fd_new(l, v->connect_fd, LOOP_READ, on_connection, v);
    return &v->port;
}

uint8_t *vhost_port_window(struct net_port *p, size_t *size, int *call_fd)
{
    struct vhost *v = vhost_of(p);

    *size = v->window_size;
    *call_fd = v->ring[0].call;
    return v->window;
}

void vhost_port_ring(unsigned i, size_t at[3])
{
    at[0] = (size_t)i * STRIDE;
    at[1] = at[0] + AVAIL_AT;
    at[2] = at[0] + USED_AT;
}
