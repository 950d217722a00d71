/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that join a guest to its host, by their rings: the memory balloon, memory in blocks, sockets. */
#include "devices/misc/virtio_balloon.h"
#include "devices/misc/virtio_mem.h"
#include "devices/misc/virtio_vsock.h"
#include "tests/device/vio.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALL (64ull << 20) /* what the guest is said to have */
#define PAGE(n) (RIG_RAM + 0x80000 + 0x1000u * (n))

static void balloon_new(struct vio *v)
{
    *v = (struct vio){ .r = rig_new(1) };
    v->dev = rig_device(v->r, &virtio_balloon_class);
    ck_assert_int_eq(dev_set_u64(v->dev, "memory", ALL, NULL), 0);
    ck_assert_int_eq(dev_set_u64(v->dev, "target", ALL - (8 << 20), NULL), 0);
    ck_assert_int_eq(dev_set_bool(v->dev, "reporting", true, NULL), 0);
    vio_place(v);
}

struct wait {
    struct vio *v;
    unsigned q;
};

static bool queue_used(void *arg)
{
    struct wait *w = arg;

    return used_idx(w->v, w->q) == w->v->avail[w->q];
}

static void offer_and_wait(struct vio *v, unsigned q, uint16_t head)
{
    struct wait w = { v, q };

    offer(v, q, head);
    rig_until(v->r, queue_used, &w);
}

/* Page numbers at BUF. */
static void give(struct vio *v, unsigned q, const uint32_t *pfn, unsigned n)
{
    memcpy(rig_ram(v->r, BUF), pfn, n * 4);
    put(v, DESC(q), 0, (struct desc){ BUF, n * 4, 0, 0 });
}

static uint32_t pfn(unsigned page)
{
    return (uint32_t)(PAGE(page) >> 12);
}

START_TEST(balloon_gives_pages_back_and_says_how_much)
{
    struct vio v;
    uint32_t numbers[] = { pfn(2), pfn(1), pfn(1), pfn(4), 0, UINT32_MAX, 0x10001 };
    struct balloon_view view;

    balloon_new(&v);
    ck_assert_uint_eq(rd32(v.r, AT + R_CONFIG), 2048);
    bring_up(&v, 1 << 1 | 1 << 5, 4);
    memset(rig_ram(v.r, PAGE(0)), 0xee, 6 * 4096);
    give(&v, 0, numbers, ARRAY_LEN(numbers));
    offer_and_wait(&v, 0, 0);
    for (unsigned i = 0; i < 6; i++) {
        const uint8_t *p = rig_ram(v.r, PAGE(i));
        uint8_t want = i == 1 || i == 2 || i == 4 ? 0 : 0xee;
        ck_assert_msg(p[0] == want && p[4095] == want, "page %u", i);
    }
    virtio_balloon_view(v.dev, &view);
    ck_assert_uint_eq(view.given_back, 3 * 4096);
    ck_assert_uint_eq(view.actual, ALL);
    wr32(v.r, AT + R_CONFIG + 4, 3);
    virtio_balloon_view(v.dev, &view);
    ck_assert_uint_eq(view.actual, ALL - 3 * 4096);
    ck_assert_uint_eq(view.target, ALL - (8 << 20));
    ck_assert(view.driver);
    wr32(v.r, AT + R_CONFIG, 77); /* the host's alone */
    ck_assert_uint_eq(rd32(v.r, AT + R_CONFIG), 2048);
    give(&v, 1, numbers, 4);
    offer_and_wait(&v, 1, 0);
    wr32(v.r, AT + R_STATUS, 0);
    virtio_balloon_view(v.dev, &view);
    ck_assert_uint_eq(view.actual, ALL);
    rig_free(v.r);
}
END_TEST

START_TEST(balloon_target_changes_raise_an_interrupt)
{
    struct vio v;

    balloon_new(&v);
    bring_up(&v, 0, 2);
    virtio_balloon_set_target(v.dev, ALL / 2);
    ck_assert(v.line.level);
    ck_assert_uint_eq(rd32(v.r, AT + R_ISR), 2);
    ck_assert_uint_eq(rd32(v.r, AT + R_CONFIG), ALL / 2 / 4096);
    wr32(v.r, AT + R_ACK, 2);
    virtio_balloon_set_target(v.dev, ALL / 2);
    ck_assert(!v.line.level);
    virtio_balloon_set_target(v.dev, UINT64_MAX);
    ck_assert_uint_eq(rd32(v.r, AT + R_CONFIG), 0);
    rig_free(v.r);
}
END_TEST

START_TEST(balloon_takes_statistics_and_keeps_the_buffer)
{
    static const struct {
        uint16_t tag;
        uint64_t value;
    } __attribute__((packed))
    stats[] = { { BALLOON_FREE, 5 << 20 }, { 999, 1 }, { BALLOON_AVAILABLE, 7 << 20 } };
    struct vio v;
    struct balloon_view view;

    balloon_new(&v);
    bring_up(&v, 1 << 1 | 1 << 5, 4);
    virtio_balloon_view(v.dev, &view);
    ck_assert(view.stat[BALLOON_FREE] == BALLOON_UNKNOWN && view.updated_ns == 0);
    memcpy(rig_ram(v.r, BUF), stats, sizeof(stats));
    put(&v, DESC(2), 0, (struct desc){ BUF, sizeof(stats) + 3, 0, 0 });
    offer(&v, 2, 0);
    rig_turn(v.r);
    virtio_balloon_view(v.dev, &view);
    ck_assert_uint_eq(view.stat[BALLOON_FREE], 5 << 20);
    ck_assert_uint_eq(view.stat[BALLOON_AVAILABLE], 7 << 20);
    ck_assert_uint_eq(view.stat[BALLOON_TOTAL], BALLOON_UNKNOWN);
    ck_assert(view.updated_ns > 0);
    ck_assert_uint_eq(used_idx(&v, 2), 0);
    vm_pause(v.r->vm); /* a saved state has the buffer in the ring again */
    ck_assert(v.dev->cls->quiesce(v.dev));
    ck_assert_uint_eq(((struct virtio *)v.dev)->queue[2].last_avail, 0);
    rig_state_round_trip(v.dev);
    vm_resume(v.r->vm);
    rig_turn(v.r);
    ck_assert_uint_eq(((struct virtio *)v.dev)->queue[2].last_avail, 1);
    rig_free(v.r);
}
END_TEST

START_TEST(balloon_takes_reported_pages)
{
    struct vio v;
    struct balloon_view view;

    balloon_new(&v);
    bring_up(&v, 1 << 1 | 1 << 5, 4);
    memset(rig_ram(v.r, PAGE(0)), 0xee, 6 * 4096);
    put(&v, DESC(3), 0, (struct desc){ PAGE(1), 8192, NEXT | WRITE, 1 });
    put(&v, DESC(3), 1, (struct desc){ PAGE(4) + 8, 4096, WRITE, 0 }); /* no whole page */
    offer_and_wait(&v, 3, 0);
    virtio_balloon_view(v.dev, &view);
    ck_assert_uint_eq(view.reported, 8192);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(v.r, PAGE(2)), 0);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(v.r, PAGE(4) + 8), 0xee);
    rig_free(v.r);
}
END_TEST

START_TEST(balloon_waits_while_memory_is_watched)
{
    struct vio v;
    uint32_t number = pfn(1);
    struct wait w = { &v, 0 };

    balloon_new(&v);
    bring_up(&v, 0, 2);
    memset(rig_ram(v.r, PAGE(1)), 0xee, 4096);
    give(&v, 0, &number, 1);
    mem_region_hold(v.r->ram, true);
    offer(&v, 0, 0);
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(v.r, PAGE(1)), 0xee);
    mem_region_hold(v.r->ram, false);
    wr32(v.r, AT + R_NOTIFY, 0);
    rig_until(v.r, queue_used, &w);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(v.r, PAGE(1)), 0);
    rig_free(v.r);
}
END_TEST

/* --- memory in blocks ---------------------------------------------------------------------------------------- */

#define MEMORY_AT 0x100000000ull
#define BLOCK VIRTIO_MEM_BLOCK
#define BLOCKS 16
enum { PLUG, UNPLUG, UNPLUG_ALL, STATE };
enum { ACK, NACK, BUSY, ERROR };

struct memory {
    struct vio v;
    struct mem_region *ram;
    unsigned told;
};

static void on_memory(void *arg, struct device *d)
{
    (void)d;
    ++*(unsigned *)arg;
}

static void memory_new(struct memory *m, struct virtio_mem_watch *w, uint64_t requested,
                       uint32_t features)
{
    struct vio *v = &m->v;

    *w = (struct virtio_mem_watch){ on_memory, &m->told };
    *m = (struct memory){ .v = { .r = rig_new(1) } };
    v->dev = rig_device(v->r, &virtio_mem_class);
    ck_assert_int_eq(mem_new_ram("more", BLOCKS * BLOCK, &m->ram, NULL), 0);
    ck_assert_int_eq(dev_set_ptr(v->dev, "ram", m->ram, NULL), 0);
    ck_assert_int_eq(dev_set_ptr(v->dev, "watch", w, NULL), 0);
    ck_assert_int_eq(dev_set_u64(v->dev, "memaddr", MEMORY_AT, NULL), 0);
    ck_assert_int_eq(dev_set_u64(v->dev, "max-size", BLOCKS * BLOCK, NULL), 0);
    ck_assert_int_eq(dev_set_u64(v->dev, "requested-size", requested * BLOCK, NULL), 0);
    vio_place(v);
    bring_up(v, features, 1);
}

static void memory_free(struct memory *m)
{
    rig_free(m->v.r);
    mem_free(m->ram);
}

/* Response to a request, and in *state what it says of blocks. */
static unsigned ask(struct memory *m, unsigned type, uint64_t first, unsigned n,
                    unsigned *state)
{
    struct {
        uint16_t type, pad[3];
        uint64_t addr;
        uint16_t n, pad2[3];
    } r = { .type = (uint16_t)type, .addr = MEMORY_AT + first, .n = (uint16_t)n };
    uint16_t *answer = rig_ram(m->v.r, BUF + 0x100);

    memcpy(rig_ram(m->v.r, BUF), &r, sizeof(r));
    memset(answer, 0xff, 10);
    put(&m->v, DESC(0), 0, (struct desc){ BUF, sizeof(r), NEXT, 1 });
    put(&m->v, DESC(0), 1, (struct desc){ BUF + 0x100, 10, WRITE, 0 });
    offer_and_wait(&m->v, 0, 0);
    if (state) {
        *state = answer[4];
    }
    return answer[0];
}

static bool there(struct memory *m, uint64_t block)
{
    return mem_dma_reaches(m->v.r->vm->mem, MEMORY_AT + block * BLOCK, BLOCK, true);
}

static uint64_t plugged(struct memory *m)
{
    return rig_read(m->v.r, AT + R_CONFIG + 40, 4) / BLOCK;
}

START_TEST(memory_has_the_blocks_that_are_plugged_and_nothing_else)
{
    struct virtio_mem_watch w;
    struct memory m;
    struct mem_space *mem;
    unsigned state = 9;
    uint64_t word = 0x1234;

    memory_new(&m, &w, 8, 2);
    mem = m.v.r->vm->mem;
    ck_assert_uint_eq(rig_read(m.v.r, AT + R_CONFIG, 4), BLOCK);
    ck_assert_uint_eq(rig_read(m.v.r, AT + R_CONFIG + 20, 4), 1); /* 4 GiB */
    ck_assert_uint_eq(rig_read(m.v.r, AT + R_CONFIG + 24, 4), BLOCKS * BLOCK);
    ck_assert_uint_eq(rig_read(m.v.r, AT + R_CONFIG + 48, 4), 8 * BLOCK);
    ck_assert(!there(&m, 0) && mem_dma_write(mem, MEMORY_AT, &word, 8) < 0);
    ck_assert_uint_eq(ask(&m, PLUG, 2 * BLOCK, 3, NULL), ACK);
    ck_assert(!there(&m, 1) && there(&m, 2) && there(&m, 4) && !there(&m, 5));
    ck_assert_uint_eq(plugged(&m), 3);
    ck_assert_int_eq(mem_dma_write(mem, MEMORY_AT + 3 * BLOCK, &word, 8), 0);
    ck_assert(mem_dma_write(mem, MEMORY_AT + 5 * BLOCK - 4, &word, 8) < 0); /* over the edge */
    ck_assert_uint_eq(ask(&m, STATE, 2 * BLOCK, 3, &state), ACK);
    ck_assert_uint_eq(state, 0);
    ck_assert_uint_eq(ask(&m, STATE, 0, 2, &state), ACK);
    ck_assert_uint_eq(state, 1);
    ck_assert_uint_eq(ask(&m, STATE, 0, 16, &state), ACK);
    ck_assert_uint_eq(state, 2);
    ck_assert_uint_eq(ask(&m, UNPLUG, 3 * BLOCK, 1, NULL), ACK);
    ck_assert(there(&m, 2) && !there(&m, 3) && there(&m, 4));
    ck_assert_uint_eq(ask(&m, PLUG, 3 * BLOCK, 1, NULL), ACK);
    ck_assert_int_eq(mem_dma_read(mem, MEMORY_AT + 3 * BLOCK, &word, 8), 0);
    ck_assert_uint_eq(word, 0);
    ck_assert_uint_eq(ask(&m, UNPLUG_ALL, 0, 0, NULL), ACK);
    ck_assert(plugged(&m) == 0 && !there(&m, 2) && m.told == 4);
    memory_free(&m);
}
END_TEST

static bool is_broken(void *arg)
{
    struct memory *m = arg;

    return rd32(m->v.r, AT + R_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

START_TEST(memory_refuses_what_is_too_much_or_makes_no_sense)
{
    struct virtio_mem_watch w;
    struct memory m;

    memory_new(&m, &w, 8, 2);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 9, NULL), NACK);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 8, NULL), ACK);
    ck_assert_uint_eq(ask(&m, PLUG, 9 * BLOCK, 1, NULL), NACK);
    ck_assert_uint_eq(ask(&m, PLUG, 7 * BLOCK, 2, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, UNPLUG, 7 * BLOCK, 2, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, UNPLUG, 15 * BLOCK, 2, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, UNPLUG, BLOCK / 2, 1, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, UNPLUG, 0, 0, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, UNPLUG, (uint64_t)-BLOCK, 2, NULL), ERROR);
    ck_assert_uint_eq(ask(&m, 4, 0, 1, NULL), ERROR);
    ck_assert_uint_eq(plugged(&m), 8);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, 17 * BLOCK, NULL), -EINVAL);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, BLOCK / 2, NULL), -EINVAL);
    m.v.line.rises = 0;
    ck_assert_int_eq(virtio_mem_request(m.v.dev, 2 * BLOCK, NULL), 0);
    ck_assert(rig_read(m.v.r, AT + R_CONFIG + 48, 4) == 2 * BLOCK &&
              (rd32(m.v.r, AT + R_ISR) & 2));
    ck_assert_uint_eq(ask(&m, PLUG, 9 * BLOCK, 1, NULL), NACK);
    put(&m.v, DESC(0), 0,
        (struct desc){ BUF, 8, 0, 0 }); /* a request without room for an answer */
    offer(&m.v, 0, 0);
    rig_until(m.v.r, is_broken, &m);
    memory_free(&m);
    memory_new(&m, &w, 8, 0); /* a driver that might look at blocks that are not there */
    ck_assert_uint_eq(ask(&m, PLUG, 0, 1, NULL), NACK);
    memory_free(&m);
}
END_TEST

START_TEST(memory_that_is_watched_stays_as_it_is)
{
    struct virtio_mem_watch w;
    struct memory m;

    memory_new(&m, &w, 8, 2);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 2, NULL), ACK);
    mem_region_hold(m.ram, true);
    ck_assert_uint_eq(ask(&m, PLUG, 4 * BLOCK, 1, NULL), BUSY);
    ck_assert_uint_eq(ask(&m, UNPLUG, 0, 1, NULL), BUSY);
    ck_assert_uint_eq(ask(&m, UNPLUG_ALL, 0, 0, NULL), BUSY);
    vm_reset(m.v.r->vm);
    ck_assert(there(&m, 0) && there(&m, 1));
    mem_region_hold(m.ram, false);
    vm_reset(m.v.r->vm);
    ck_assert(!there(&m, 0) && !there(&m, 1));
    memory_free(&m);
}
END_TEST

START_TEST(memory_goes_when_the_guest_has_none_and_is_asked_for_none)
{
    struct virtio_mem_watch w;
    struct memory m;

    memory_new(&m, &w, 8, 2);
    ck_assert_int_eq(virtio_mem_leave(m.v.dev, NULL), -EBUSY); /* asked to have some */
    ck_assert_uint_eq(ask(&m, PLUG, 0, 2, NULL), ACK);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, 0, NULL), 0);
    ck_assert_int_eq(virtio_mem_leave(m.v.dev, NULL), -EBUSY); /* has some */
    (void)rd32(m.v.r, AT + R_ISR);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, 0, NULL), 0);
    ck_assert(rd32(m.v.r, AT + R_ISR) & 2); /* asked once more */
    ck_assert_uint_eq(ask(&m, UNPLUG, 0, 2, NULL), ACK);
    ck_assert_int_eq(virtio_mem_leave(m.v.dev, NULL), 0);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, BLOCK, NULL), -EBUSY);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 1, NULL), NACK);
    virtio_mem_stay(m.v.dev);
    ck_assert_int_eq(virtio_mem_request(m.v.dev, BLOCK, NULL), 0);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 1, NULL), ACK);
    memory_free(&m);
}
END_TEST

START_TEST(memory_is_kept_by_a_driver_s_reset_and_in_a_state)
{
    struct virtio_mem_watch w;
    struct memory m;

    memory_new(&m, &w, 8, 2);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 3, NULL), ACK);
    ck_assert_uint_eq(ask(&m, UNPLUG, BLOCK, 1, NULL), ACK);
    bring_up(&m.v, 2, 1);
    ck_assert(plugged(&m) == 2 && there(&m, 0) && !there(&m, 1) && there(&m, 2));
    vm_pause(m.v.r->vm);
    rig_state_round_trip(m.v.dev);
    ck_assert(there(&m, 0) && !there(&m, 1) && there(&m, 2));
    vm_resume(m.v.r->vm);
    ck_assert_uint_eq(ask(&m, PLUG, BLOCK, 1, NULL), ACK);
    memory_free(&m);
}
END_TEST

/* Pages have their numbers before they are plugged: a log that was begun then has them. */
START_TEST(memory_that_comes_while_a_log_is_kept_is_in_it)
{
    struct virtio_mem_watch w;
    struct memory m;
    struct mem_space *mem;
    uint64_t *log, first, word = 1;

    memory_new(&m, &w, 8, 2);
    mem = m.v.r->vm->mem;
    ck_assert(mem_region_numbered(m.ram, &first));
    mem_dirty_start(mem);
    log = xnew_n(uint64_t, mem_ram_pages(mem) / 64 + 1);
    ck_assert_uint_eq(ask(&m, PLUG, 0, 2, NULL), ACK);
    ck_assert_int_eq(mem_dma_write(mem, MEMORY_AT + BLOCK + 5 * 4096, &word, 8), 0);
    mem_dirty_take(mem, log);
    first += BLOCK / 4096 + 5;
    ck_assert(log[first / 64] >> first % 64 & 1);
    ck_assert_uint_eq(ask(&m, UNPLUG, BLOCK, 1, NULL), ACK);
    mem_dirty_take(mem, log);
    ck_assert(log[first / 64] >> first % 64 & 1);
    mem_dirty_stop(mem);
    free(log);
    memory_free(&m);
}
END_TEST

/* --- sockets ------------------------------------------------------------------------------------------------- */

#define RX_ROOM 0x400u
#define RX_BUF(i) (BUF + RX_ROOM * (i))
#define TX_BUF (BUF + 0x8000)
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

struct packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
    uint8_t data[];
} __attribute__((packed));

struct calls {
    unsigned n;
    uint32_t port;
    uint64_t ticket;
};

static void on_call(void *arg, uint32_t port, uint64_t ticket)
{
    struct calls *c = arg;

    *c = (struct calls){ c->n + 1, port, ticket };
}

static void sockets_new(struct vio *v, struct vsock_host *host)
{
    *v = (struct vio){ .r = rig_new(1) };
    v->dev = rig_device(v->r, &virtio_vsock_class);
    ck_assert_int_eq(dev_set_u64(v->dev, "cid", 9, NULL), 0);
    ck_assert_int_eq(dev_set_ptr(v->dev, "host", host, NULL), 0);
    vio_place(v);
    ck_assert_uint_eq(rd32(v->r, AT + R_CONFIG), 9);
    bring_up(v, 1, 3);
    for (uint16_t i = 0; i < NUM; i++) {
        put(v, DESC(0), i, (struct desc){ RX_BUF(i), RX_ROOM, WRITE, 0 });
        offer(v, 0, i);
    }
    rig_turn(v->r);
}

/* The next packet that the guest got; its buffer is offered again, and the last of eight to be used. */
static const struct packet *got(struct vio *v, unsigned *seen)
{
    for (unsigned i = 0; i < 20 && used_idx(v, 0) == *seen; i++) {
        rig_turn(v->r);
    }
    ck_assert_msg(used_idx(v, 0) != *seen, "no packet");
    uint32_t id = ((uint32_t *)rig_ram(v->r, USED(0)))[1 + 2 * (*seen % NUM)];
    ++*seen;
    offer(v, 0, (uint16_t)id);
    return rig_ram(v->r, RX_BUF(id));
}

static void say(struct vio *v, uint32_t guest_port, uint32_t host_port, uint16_t op,
                uint32_t len, uint32_t room, uint32_t taken)
{
    struct packet p = { 9, 2, guest_port, host_port, len, 1, op, 0, room, taken };

    memcpy(rig_ram(v->r, TX_BUF), &p, sizeof(p));
    put(v, DESC(1), 0, (struct desc){ TX_BUF, (uint32_t)sizeof(p) + len, 0, 0 });
    offer_and_wait(v, 1, 0);
}

static void socket_pair(int pair[2])
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
}

START_TEST(sockets_of_the_host_reach_the_guest_as_far_as_its_credit_goes)
{
    struct vio v;
    const struct packet *p;
    unsigned seen = 0;
    int pair[2];
    char line[64];

    sockets_new(&v, NULL);
    socket_pair(pair);
    ck_assert_int_eq(write(pair[1], "CONNECT 77\nabcdefghijklmnopqrst", 31), 31);
    virtio_vsock_client(v.dev, pair[0]);
    p = got(&v, &seen);
    ck_assert(p->op == REQUEST && p->dst_port == 77 && p->dst_cid == 9 && p->src_cid == 2 &&
              p->type == 1);
    uint32_t port = p->src_port;
    say(&v, 77, port, RESPONSE, 0, 12, 0);
    p = got(&v, &seen);
    ck_assert(p->op == RW && p->len == 12 && memcmp(p->data, "abcdefghijkl", 12) == 0);
    ssize_t n = read(pair[1], line, sizeof(line));
    ck_assert(n > 3 && memcmp(line, "OK ", 3) == 0 && line[n - 1] == '\n');
    ck_assert_uint_eq(got(&v, &seen)->op, CREDIT_REQUEST);
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), seen);
    say(&v, 77, port, CREDIT_UPDATE, 0, 12, 12);
    p = got(&v, &seen);
    ck_assert(p->op == RW && p->len == 8 && memcmp(p->data, "mnopqrst", 8) == 0);
    memcpy(rig_ram(v.r, TX_BUF + sizeof(*p)), "hello", 5);
    say(&v, 77, port, RW, 5, 12, 20);
    ck_assert_int_eq(read(pair[1], line, sizeof(line)), 5);
    close(pair[1]);
    ck_assert_uint_eq(got(&v, &seen)->op, SHUTDOWN);
    rig_free(v.r);
}
END_TEST

START_TEST(sockets_of_the_guest_are_answered_or_refused)
{
    struct calls calls = { 0 };
    struct vsock_host host = { on_call, &calls };
    struct vio v;
    const struct packet *p;
    struct vsock_view view;
    unsigned seen = 0;
    int pair[2];

    sockets_new(&v, &host);
    say(&v, 5, 80, REQUEST, 0, 1000, 0);
    ck_assert(calls.n == 1 && calls.port == 80);
    virtio_vsock_answer(v.dev, calls.ticket, -1);
    p = got(&v, &seen);
    ck_assert(p->op == RST && p->src_port == 80 && p->dst_port == 5);
    say(&v, 6, 80, REQUEST, 0, 1000, 0);
    socket_pair(pair);
    virtio_vsock_answer(v.dev, calls.ticket, pair[0]);
    p = got(&v, &seen);
    ck_assert(p->op == RESPONSE && p->buf_alloc > 0 && p->dst_port == 6);
    /* More than it was given credit for: nobody reads at the host's end. */
    for (unsigned i = 0; i < 64; i++) {
        say(&v, 6, 80, RW, 30000, 1000, 0);
        virtio_vsock_view(v.dev, &view);
        if (view.conns == 0) {
            break;
        }
    }
    ck_assert_uint_eq(view.conns, 0);
    while ((p = got(&v, &seen))->op == CREDIT_UPDATE) {
    }
    ck_assert_uint_eq(p->op, RST);
    close(pair[1]);
    say(&v, 7, 81, RW, 4, 0, 0); /* a stream that there is not */
    p = got(&v, &seen);
    ck_assert(p->op == RST && p->src_port == 81 && p->dst_port == 7);
    say(&v, 7, 81, RST, 0, 0, 0); /* to which nothing is said */
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), seen);
    rig_state_round_trip(v.dev);
    rig_free(v.r);
}
END_TEST

START_TEST(sockets_end_with_a_reset_and_the_driver_of_a_loaded_state_is_told)
{
    struct calls calls = { 0 };
    struct vsock_host host = { on_call, &calls };
    struct wait w = { NULL, 2 };
    struct vio v;
    unsigned seen = 0;
    int pair[2];
    char c;

    sockets_new(&v, &host);
    say(&v, 6, 80, REQUEST, 0, 1000, 0);
    socket_pair(pair);
    virtio_vsock_answer(v.dev, calls.ticket, pair[0]);
    ck_assert_uint_eq(got(&v, &seen)->op, RESPONSE);
    vm_pause(v.r->vm);
    rig_state_round_trip(v.dev); /* loads it */
    vm_resume(v.r->vm);
    memset(rig_ram(v.r, BUF + 0xf000), 0xff, 4);
    put(&v, DESC(2), 0, (struct desc){ BUF + 0xf000, 4, WRITE, 0 });
    offer(&v, 2, 0);
    w.v = &v;
    rig_until(v.r, queue_used, &w);
    ck_assert_uint_eq(*(uint32_t *)rig_ram(v.r, BUF + 0xf000), 0);
    ck_assert(read(pair[1], &c, 1) < 0 && errno == EAGAIN);
    wr32(v.r, AT + R_STATUS, 0);
    rig_turn(v.r);
    ck_assert_int_eq(read(pair[1], &c, 1), 0);
    close(pair[1]);
    rig_free(v.r);
}
END_TEST

static Suite *suite_extras(void)
{
    Suite *s = suite_create("extras");
    TCase *t = tcase_create("extras");

    tcase_add_test(t, balloon_gives_pages_back_and_says_how_much);
    tcase_add_test(t, balloon_target_changes_raise_an_interrupt);
    tcase_add_test(t, balloon_takes_statistics_and_keeps_the_buffer);
    tcase_add_test(t, balloon_takes_reported_pages);
    tcase_add_test(t, balloon_waits_while_memory_is_watched);
    tcase_add_test(t, memory_has_the_blocks_that_are_plugged_and_nothing_else);
    tcase_add_test(t, memory_refuses_what_is_too_much_or_makes_no_sense);
    tcase_add_test(t, memory_that_is_watched_stays_as_it_is);
    tcase_add_test(t, memory_goes_when_the_guest_has_none_and_is_asked_for_none);
    tcase_add_test(t, memory_is_kept_by_a_driver_s_reset_and_in_a_state);
    tcase_add_test(t, memory_that_comes_while_a_log_is_kept_is_in_it);
    tcase_add_test(t, sockets_of_the_host_reach_the_guest_as_far_as_its_credit_goes);
    tcase_add_test(t, sockets_of_the_guest_are_answered_or_refused);
    tcase_add_test(t, sockets_end_with_a_reset_and_the_driver_of_a_loaded_state_is_told);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_extras, NULL);
}
