/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Front end of vhost-user: the queues (vhost_user.h says how). The conversation is network/vhost_talk.h's. Owns the requests that the back
 * end has, and where they lie in the window. Main loop; what reset_lock covers is the transport's.
 *
 * Nothing in the window is trusted, since the back end writes there: what was offered is kept here, indices are read once
 * and checked, and a back end that breaks the rules is given up.
 */
#include "devices/virtio/vhost_int.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE VHOST_PAGE
#define NO_DESC UINT16_MAX
/* Segments of a request whose bounds the back end sees; those behind them lie together and are shown as one. Back ends of virtio-fs
 * avoid a copy where headers come apart from data. */
#define SEGMENTS 2

enum { DESC_NEXT = 1, DESC_WRITE = 2 };
enum { USED_NO_NOTIFY = 1 };

struct ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct ring_avail {
    uint16_t flags, idx, ring[VHOST_RING];
};

struct ring_used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[VHOST_RING];
};

static struct ring_desc *ring_desc(const struct vhost_user *u, unsigned q)
{
    return (struct ring_desc *)(void *)(u->kit->window + vhost_desc_at(q));
}

static struct ring_avail *ring_avail(const struct vhost_user *u, unsigned q)
{
    return (struct ring_avail *)(void *)(u->kit->window + vhost_avail_at(q));
}

static struct ring_used *ring_used(const struct vhost_user *u, unsigned q)
{
    return (struct ring_used *)(void *)(u->kit->window + vhost_used_at(q));
}

bool vhost_user_alive(const struct vhost_user *u)
{
    return u->why[0] == 0;
}

/* --- room in the window --- */

static bool page_taken(const struct vhost_user *u, unsigned page)
{
    return u->pages[page / 64] >> (page % 64) & 1;
}

static void mark_pages(struct vhost_user *u, unsigned first, unsigned n, bool taken)
{
    for (unsigned p = first; p < first + n; p++) {
        if (taken) {
            u->pages[p / 64] |= 1ull << (p % 64);
        } else {
            u->pages[p / 64] &= ~(1ull << (p % 64));
        }
    }
}

/* n pages in a row; VHOST_PAGES: there is no such room. */
static unsigned take_pages(struct vhost_user *u, unsigned n)
{
    unsigned run = 0;

    for (unsigned p = VHOST_FIRST_PAGE; p < VHOST_PAGES; p++) {
        run = page_taken(u, p) ? 0 : run + 1;
        if (run == n) {
            mark_pages(u, p + 1 - n, n, true);
            return p + 1 - n;
        }
    }
    return VHOST_PAGES;
}

/* --- requests under way --- */

static void drop_request(struct vhost_user *u, unsigned q, uint16_t head)
{
    struct vhost_queue *vq = &u->queue[q];
    struct vhost_request *r = &vq->request[head];
    uint16_t at = head;

    mark_pages(u, r->page, r->pages, false);
    vq->used_pages -= r->pages;
    for (unsigned i = 0; i < r->descs; i++) {
        uint16_t next = vq->next[at];

        vq->next[at] = vq->free_desc;
        vq->free_desc = at;
        vq->n_free++;
        at = next;
    }
    r->el = NULL;
}

/* Pieces as the back end sees them: offsets and lengths within the copy. */
struct piece {
    uint64_t at;
    uint32_t len;
    bool in;
};

static unsigned add_pieces(struct piece *p, unsigned n, const struct virtio_sg *sg,
                           unsigned n_sg, uint64_t at, uint64_t total, bool in)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < n_sg && done < total; i++) {
        uint64_t len = i < SEGMENTS ? sg[i].len : total - done;

        p[n++] = (struct piece){ .at = at + done, .len = (uint32_t)len, .in = in };
        done += len;
    }
    return n;
}

static void put_descs(struct vhost_user *u, unsigned q, const struct piece *p, unsigned n)
{
    struct vhost_queue *vq = &u->queue[q];
    struct ring_desc *table = ring_desc(u, q);
    uint16_t at = vq->free_desc;

    for (unsigned i = 0; i < n; i++) {
        bool last = i + 1 == n;

        table[at] = (struct ring_desc){
            .addr = htole64(VHOST_GPA + p[i].at),
            .len = htole32(p[i].len),
            .flags = htole16((uint16_t)((p[i].in ? DESC_WRITE : 0) | (last ? 0 : DESC_NEXT))),
            .next = htole16(last ? 0 : vq->next[at]),
        };
        at = vq->next[at];
    }
    vq->free_desc = at;
    vq->n_free -= n;
}

/* False: there is no room now. */
static bool offer(struct vhost_user *u, unsigned q, struct virtio_elem *el)
{
    struct vhost_queue *vq = &u->queue[q];
    struct piece pieces[2 * (SEGMENTS + 1)];
    unsigned out_pages = (unsigned)((el->out_len + PAGE - 1) / PAGE),
             n_pages = out_pages + (unsigned)((el->in_len + PAGE - 1) / PAGE), n, page;
    struct ring_avail *avail = ring_avail(u, q);
    uint16_t head = vq->free_desc;

    if (vq->n_free < ARRAY_LEN(pieces) || vq->used_pages + n_pages > VHOST_PAGES / 2) {
        return false;
    }
    page = take_pages(u, n_pages);
    if (page == VHOST_PAGES) {
        return false;
    }
    n = add_pieces(pieces, 0, el->sg, el->n_out, (uint64_t)page * PAGE, el->out_len, false);
    n = add_pieces(pieces, n, el->sg + el->n_out, el->n_in, (uint64_t)(page + out_pages) * PAGE,
                   el->in_len, true);
    virtio_get(el, 0, u->kit->window + (size_t)page * PAGE, (size_t)el->out_len);
    put_descs(u, q, pieces, n);
    vq->request[head] = (struct vhost_request){
        .el = el, .page = page, .pages = n_pages, .in_page = page + out_pages, .descs = n
    };
    vq->used_pages += n_pages;
    avail->ring[vq->avail_idx % VHOST_RING] = htole16(head);
    __atomic_store_n(&avail->idx, htole16(++vq->avail_idx), __ATOMIC_RELEASE);
    return true;
}

/* --- the end of a back end --- */

static void fail_request(struct vhost_user *u, unsigned q, struct virtio_elem *el)
{
    uint64_t written = 0;

    if (virtq_live(u->v, q, el)) {
        written = u->ops->fail(u->v, el);
    }
    virtq_push(u->v, q, el, written);
}

static void fail_all(struct vhost_user *u, unsigned q)
{
    struct vhost_queue *vq = &u->queue[q];

    for (unsigned i = 0; i < VHOST_RING; i++) {
        struct virtio_elem *el = vq->request[i].el;

        if (el) {
            drop_request(u, q, (uint16_t)i);
            fail_request(u, q, el);
        }
    }
}

/* What is under way fails when the queue is served next. */
static void give_up(struct vhost_user *u, const char *why)
{
    if (u->why[0]) {
        return;
    }
    snprintf(u->why, sizeof(u->why), "%s", why);
    log_error("vhost-user", "%s: %s; what the guest asks of it fails from now on", u->name,
              why);
    loop_fd_free(u->watch);
    u->watch = NULL;
    fd_autoclose(&u->sock);
    u->sock = -1;
    for (unsigned q = 0; u->v && q < u->n_queues; q++) {
        virtio_ring(u->v, q);
    }
    if (u->gone) {
        u->gone(u->gone_arg, why);
    }
}

/* --- serving --- */

/* Gives the guest what is done; true when something was. */
static bool collect(struct vhost_user *u, unsigned q)
{
    struct vhost_queue *vq = &u->queue[q];
    struct ring_used *used = ring_used(u, q);
    uint16_t idx = le16toh(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE));
    bool some = false;

    if ((uint16_t)(idx - vq->used_idx) > (uint16_t)(vq->avail_idx - vq->used_idx)) {
        give_up(u, "it returns more requests than it was given");
        return false;
    }
    while (vq->used_idx != idx) {
        uint32_t id = le32toh(__atomic_load_n(&used->ring[vq->used_idx % VHOST_RING].id,
                                              __ATOMIC_RELAXED)),
                 len = le32toh(__atomic_load_n(&used->ring[vq->used_idx % VHOST_RING].len,
                                               __ATOMIC_RELAXED));
        struct virtio_elem *el = id < VHOST_RING ? vq->request[id].el : NULL;

        if (!el) {
            give_up(u, "it returns a request that it was not given");
            return some;
        }
        vq->used_idx++;
        len = len < el->in_len ? len : (uint32_t)el->in_len;
        if (virtq_live(u->v, q, el)) {
            virtio_put(el, 0, u->kit->window + (size_t)vq->request[id].in_page * PAGE, len);
        }
        drop_request(u, q, (uint16_t)id);
        virtq_push(u->v, q, el, virtq_live(u->v, q, el) ? len : 0);
        some = true;
    }
    return some;
}

static void kick(struct vhost_user *u, unsigned q)
{
    uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst); /* our index before its wish */
    if (!(le16toh(__atomic_load_n(&ring_used(u, q)->flags, __ATOMIC_RELAXED)) &
          USED_NO_NOTIFY)) {
        ssize_t n = write(u->kit->kick[q], &one, sizeof(one));

        (void)n; /* full: it has not looked yet */
    }
}

/* True when something was offered. */
static bool submit(struct vhost_user *u, unsigned q)
{
    struct virtio *v = u->v;
    bool some = false;

    for (;;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (!el) {
            if (virtq_rearm(v, q)) {
                continue;
            }
            return some;
        }
        if (!vhost_user_alive(u)) {
            fail_request(u, q, el);
        } else if (el->out_len + el->in_len > VHOST_REQUEST_MAX) {
            virtio_broken(v, "a request is larger than 2 MiB");
            virtq_push(v, q, el, 0);
            return some;
        } else if (el->n_out + el->n_in == 0) {
            virtq_push(v, q, el, 0);
        } else if (!offer(u, q, el)) {
            virtq_unpop(v, q, el); /* goes on when something is done */
            return some;
        } else {
            some = true;
        }
    }
}

void vhost_user_serve(struct vhost_user *u, unsigned q)
{
    (void)collect(u, q);
    if (submit(u, q)) {
        kick(u, q);
    }
    if (!vhost_user_alive(u)) {
        fail_all(u, q);
    }
    virtq_signal(u->v, q);
}

static void on_call(void *arg, int fd, unsigned events)
{
    struct vhost_call *c = arg;
    struct vhost_user *u = c->u;
    uint64_t n;

    (void)events;
    if (read(fd, &n, sizeof(n)) != sizeof(n) || !u->v) {
        return;
    }
    bus_lock(u->v->lock);
    if (virtio_may_run(u->v)) { /* else when it runs again: virtio_resumed() */
        if (virtio_working(u->v)) {
            vhost_user_serve(u, c->q);
        } else {
            (void)collect(u, c->q); /* of a driver that is no more */
        }
    }
    bus_unlock(u->v->lock);
}

/* Nothing is expected there but its end. */
static void on_socket(void *arg, int fd, unsigned events)
{
    struct vhost_user *u = arg;
    char bytes[256];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    give_up(u, n > 0 ? "it speaks without being asked" : "its process has ended");
}

/* --- making and ending --- */

void vhost_user_bind(struct vhost_user *u, struct virtio *v, const struct vhost_user_ops *ops)
{
    u->v = v;
    u->ops = ops;
}

void vhost_user_on_gone(struct vhost_user *u, void (*gone)(void *arg, const char *why),
                        void *arg)
{
    u->gone = gone;
    u->gone_arg = arg;
}

static void queue_init(struct vhost_queue *vq)
{
    vq->n_free = VHOST_RING;
    for (unsigned i = 0; i < VHOST_RING; i++) {
        vq->next[i] = (uint16_t)((i + 1) % VHOST_RING);
    }
}

static int talk(struct vhost_user *u, uint64_t features, int64_t patience_ns, struct err *e)
{
    struct vhost_plan_ring ring[VHOST_MAX_QUEUES];
    struct vhost_plan plan = { .sock = u->sock,
                               .name = u->name,
                               .need = features,
                               .window_fd = u->kit->window_fd,
                               .window_size = VHOST_WINDOW,
                               .ring = ring,
                               .n_rings = u->n_queues,
                               .least_rings = u->n_queues,
                               .unit = 1 };

    for (unsigned q = 0; q < u->n_queues; q++) {
        ring[q] = (struct vhost_plan_ring){ .desc_at = vhost_desc_at(q),
                                            .avail_at = vhost_avail_at(q),
                                            .used_at = vhost_used_at(q),
                                            .size = VHOST_RING,
                                            .kick = u->kit->kick[q],
                                            .call = u->kit->call[q] };
    }
    return vhost_talk(&plan, patience_ns, e);
}

int vhost_user_new(struct loop *loop, int take_sock, struct vhost_kit *kit, const char *name,
                   unsigned n_queues, uint64_t features, int64_t patience_ns,
                   struct vhost_user **out, struct err *e)
{
    struct vhost_user *u = xnew(struct vhost_user);
    int rc;

    *u = (struct vhost_user){ .kit = kit, .sock = take_sock, .n_queues = n_queues };
    snprintf(u->name, sizeof(u->name), "%s", name);
    memset(kit->window, 0, (size_t)VHOST_FIRST_PAGE * PAGE);
    for (unsigned q = 0; q < n_queues; q++) {
        uint64_t n;
        ssize_t got = read(kit->call[q], &n, sizeof(n)); /* of a back end before this one */

        (void)got;
        queue_init(&u->queue[q]);
    }
    rc = talk(u, features, patience_ns, e);
    if (rc != 0) {
        fd_autoclose(&u->sock);
        free(u);
        return rc;
    }
    kit->taken = true;
    u->watch = loop_fd_new(loop, u->sock, LOOP_READ, on_socket, u);
    for (unsigned q = 0; q < n_queues; q++) {
        u->call[q] = (struct vhost_call){ .u = u, .q = q };
        u->call[q].watch = loop_fd_new(loop, kit->call[q], LOOP_READ, on_call, &u->call[q]);
    }
    *out = u;
    return 0;
}

void vhost_user_free(struct vhost_user *u)
{
    if (!u) {
        return;
    }
    loop_fd_free(u->watch);
    fd_autoclose(&u->sock);
    for (unsigned q = 0; q < u->n_queues; q++) {
        loop_fd_free(u->call[q].watch);
        for (unsigned i = 0; i < VHOST_RING; i++) {
            virtio_elem_free(u->queue[q].request[i].el);
        }
    }
    u->kit->taken = false;
    free(u);
}
