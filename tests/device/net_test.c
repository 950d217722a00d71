/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net on a socket pair: frames both ways, merged buffers, filters, control queue, link, broken requests.
 */
#include "devices/net/virtio_net.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/mem.h"
#include "network/stream.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#define AT 0x10001000ull
#define NUM 64
enum {
    R_DRV_FEAT = 0x20,
    R_DRV_SEL = 0x24,
    R_QSEL = 0x30,
    R_QNUM = 0x38,
    R_QREADY = 0x44,
    R_NOTIFY = 0x50,
    R_ISR = 0x60,
    R_ACK = 0x64,
    R_STATUS = 0x70,
    R_DESC = 0x80,
    R_DRIVER = 0x90,
    R_DEVICE = 0xa0,
    R_CONFIG = 0x100
};
enum { NEXT = 1, WRITE = 2 };
enum {
    F_GUEST_CSUM = 1,
    F_MRG = 1 << 15,
    F_STATUS = 1 << 16,
    F_CTRL = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23
};
#define DESC(q) (RIG_RAM + 0x10000u * (q))
#define AVAIL(q) (DESC(q) + 0x4000)
#define USED(q) (DESC(q) + 0x8000)
#define BUF(q, i) (RIG_RAM + 0x40000u + 0x20000u * (q) + 0x800u * (i))
#define BUF_SIZE 0x800u
static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct card {
    struct rig *r;
    struct device *slot, *dev;
    struct rig_line line;
    uint16_t avail[3];
    int peer;
};

static void queue_set_up(struct card *c, unsigned q)
{
    wr32(c->r, AT + R_QSEL, q);
    wr32(c->r, AT + R_QNUM, NUM);
    wr32(c->r, AT + R_DESC, (uint32_t)DESC(q));
    wr32(c->r, AT + R_DRIVER, (uint32_t)AVAIL(q));
    wr32(c->r, AT + R_DEVICE, (uint32_t)USED(q));
    wr32(c->r, AT + R_QREADY, 1);
    c->avail[q] = 0;
    memset(rig_ram(c->r, DESC(q)), 0, 0x10000);
}

static void bring_up_with(struct card *c, uint32_t features, uint32_t high)
{
    wr32(c->r, AT + R_STATUS, 0);
    wr32(c->r, AT + R_STATUS, 3);
    wr32(c->r, AT + R_DRV_SEL, 0);
    wr32(c->r, AT + R_DRV_FEAT, features);
    wr32(c->r, AT + R_DRV_SEL, 1);
    wr32(c->r, AT + R_DRV_FEAT, 1 | high);
    wr32(c->r, AT + R_STATUS, 11);
    ck_assert_uint_eq(rd32(c->r, AT + R_STATUS), 11);
    for (unsigned q = 0; q < 3; q++) {
        queue_set_up(c, q);
    }
    wr32(c->r, AT + R_STATUS, 15);
    ck_assert_uint_eq(rd32(c->r, AT + R_STATUS), 15);
}

static void bring_up(struct card *c, uint32_t features)
{
    bring_up_with(c, features, 0);
}

static struct card card_new(void)
{
    struct card c = { .r = rig_new(1) };
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    c.peer = pair[1];
    c.dev = rig_device(c.r, &virtio_net_class);
    ck_assert_int_eq(dev_set_str(c.dev, "mac", "52:54:00:01:02:03", NULL), 0);
    ck_assert_int_eq(
        dev_set_ptr(c.dev, "port", net_stream_new(c.r->loop, pair[0], "n", false), NULL), 0);
    ck_assert_int_eq(dev_realize(c.dev, NULL), 0);
    c.slot = rig_device(c.r, &virtio_mmio_class);
    ck_assert_int_eq(dev_set_ptr(c.slot, "device", c.dev, NULL), 0);
    rig_place(c.r, c.slot, AT);
    return c;
}

/* Behind the move of the struct, since the line has its address. */
static void card_start(struct card *c, uint32_t features)
{
    c->slot->irq[0] = rig_line(&c->line);
    rig_start(c->r);
    bring_up(c, features);
}

static void card_free(struct card *c)
{
    close(c->peer);
    rig_free(c->r);
}

static void put(struct card *c, unsigned q, unsigned i, struct desc d)
{
    memcpy((struct desc *)rig_ram(c->r, DESC(q)) + i, &d, sizeof(d));
}

static void offer(struct card *c, unsigned q, uint16_t head)
{
    uint16_t *ring = rig_ram(c->r, AVAIL(q));

    ring[2 + c->avail[q] % NUM] = head;
    ring[1] = ++c->avail[q];
    wr32(c->r, AT + R_NOTIFY, q);
}

static uint16_t used_idx(struct card *c, unsigned q)
{
    return ((volatile uint16_t *)rig_ram(c->r, USED(q)))[1];
}

static uint32_t used_len(struct card *c, unsigned q, unsigned i)
{
    return ((uint32_t *)rig_ram(c->r, USED(q)))[1 + 2 * (i % NUM) + 1];
}

static void turns(struct card *c)
{
    for (unsigned i = 0; i < 10; i++) {
        rig_turn(c->r);
    }
}

static void add_rx(struct card *c, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint16_t head = (uint16_t)(c->avail[0] % NUM);

        put(c, 0, head, (struct desc){ BUF(0, head), BUF_SIZE, WRITE, 0 });
        offer(c, 0, head);
    }
    turns(c);
}

static void from_peer(struct card *c, const uint8_t *to, uint16_t type, size_t len)
{
    AUTO_FREE uint8_t *f = xalloc(len + 4);
    uint32_t n = htonl((uint32_t)len);

    memcpy(f, &n, 4);
    memcpy(f + 4, to, 6);
    f[4 + 12] = (uint8_t)(type >> 8);
    f[4 + 13] = (uint8_t)type;
    for (size_t i = 18; i < len; i++) {
        f[4 + i] = (uint8_t)i;
    }
    f[4 + 15] = 7; /* the VLAN of a tagged frame */
    ck_assert_int_eq(send(c->peer, f, len + 4, 0), (ssize_t)len + 4);
    turns(c);
}

/* Gives the control queue a command; its answer. */
static uint8_t control(struct card *c, const void *bytes, uint32_t n)
{
    uint16_t before = used_idx(c, 2);

    memcpy(rig_ram(c->r, BUF(2, 0)), bytes, n);
    *(uint8_t *)rig_ram(c->r, BUF(2, 8)) = 0xee;
    put(c, 2, 0, (struct desc){ BUF(2, 0), n, NEXT, 1 });
    put(c, 2, 1, (struct desc){ BUF(2, 8), 1, WRITE, 0 });
    offer(c, 2, 0);
    turns(c);
    ck_assert_uint_eq(used_idx(c, 2), before + 1);
    return *(uint8_t *)rig_ram(c->r, BUF(2, 8));
}

START_TEST(frame_goes_out_behind_its_length)
{
    struct card c = card_new();
    uint8_t got[200], *p;

    card_start(&c, 0);
    p = rig_ram(c.r, BUF(1, 0));
    for (unsigned i = 0; i < 112; i++) {
        p[i] = i < 12 ? 0 : (uint8_t)i;
    }
    put(&c, 1, 0, (struct desc){ BUF(1, 0), 20, NEXT, 1 });
    put(&c, 1, 1, (struct desc){ BUF(1, 0) + 20, 92, 0, 0 });
    offer(&c, 1, 0);
    turns(&c);
    ck_assert_int_eq(recv(c.peer, got, sizeof(got), 0), 104);
    ck_assert_uint_eq(got[3], 100);
    ck_assert_int_eq(memcmp(got + 4, p + 12, 100), 0);
    ck_assert_uint_eq(used_idx(&c, 1), 1);
    ck_assert_uint_eq(rd32(c.r, AT + R_ISR), 1);
    rig_state_round_trip(c.dev);
    card_free(&c);
}
END_TEST

START_TEST(frame_without_its_header_breaks_the_device)
{
    struct card c = card_new();

    card_start(&c, 0);
    put(&c, 1, 0, (struct desc){ BUF(1, 0), 11, 0, 0 });
    offer(&c, 1, 0);
    turns(&c);
    ck_assert_uint_eq(rd32(c.r, AT + R_STATUS), 15 | 64);
    bring_up(&c, 0); /* and it works again */
    card_free(&c);
}
END_TEST

START_TEST(large_frame_is_spread_over_merged_buffers)
{
    struct card c = card_new();
    uint8_t *p;

    card_start(&c, F_MRG);
    add_rx(&c, 3);
    from_peer(&c, mac, 0x0800, 9000); /* needs five: it waits, and none is taken */
    ck_assert_uint_eq(used_idx(&c, 0), 0);
    add_rx(&c, 3);
    ck_assert_uint_eq(used_idx(&c, 0), 5);
    p = rig_ram(c.r, BUF(0, 0));
    ck_assert_uint_eq(p[10], 5);
    ck_assert_uint_eq(used_len(&c, 0, 0), BUF_SIZE);
    ck_assert_uint_eq(used_len(&c, 0, 4), 9012 - 4 * BUF_SIZE);
    for (size_t i = 18; i < 9000; i++) {
        size_t at = i + 12;

        p = rig_ram(c.r, BUF(0, at / BUF_SIZE));
        ck_assert_uint_eq(p[at % BUF_SIZE], (uint8_t)i);
    }
    ck_assert(c.line.level);
    card_free(&c);
}
END_TEST

/* A driver on another processor that looks at the ring all the time. */
struct watcher {
    struct card *c;
    bool packed;
    atomic_uint seen; /* frames */
    unsigned torn;    /* frames of which a buffer was missing when the first was there */
};
enum {
    PIECES = 4,
    FRAMES = 400,
    PACKED_AVAIL = 1 << 7,
    PACKED_USED = 1 << 15,
    RING_PACKED = 4
};

static bool piece_there(const struct watcher *w, unsigned i)
{
    const uint16_t *ring = rig_ram(w->c->r, (w->packed ? DESC(0) : USED(0)));
    bool odd = i / NUM & 1; /* lap */

    if (!w->packed) {
        return (int16_t)(__atomic_load_n(ring + 1, __ATOMIC_ACQUIRE) - (uint16_t)i) > 0;
    }
    uint16_t flags = __atomic_load_n(ring + 8 * (i % NUM) + 7, __ATOMIC_ACQUIRE);
    return odd ? !(flags & (PACKED_AVAIL | PACKED_USED))
               : (flags & PACKED_AVAIL) && (flags & PACKED_USED);
}

static void *watch(void *arg)
{
    struct watcher *w = arg;

    for (unsigned f = 0; f < FRAMES; f++) {
        bool torn = false;

        for (unsigned turn = 1; !piece_there(w, PIECES * f); turn++) {
            if (turn % 4096 == 0) {
                sched_yield(); /* there may be one processor only */
            }
        }
        for (unsigned i = 1; i < PIECES; i++) {
            torn = torn || !piece_there(w, PIECES * f + i);
        }
        w->torn += torn;
        atomic_store(&w->seen, f + 1);
    }
    return NULL;
}

START_TEST(driver_sees_all_buffers_of_a_frame_or_none)
{
    struct card c = card_new();
    struct watcher w = { .c = &c, .packed = _i };
    pthread_t t;

    c.slot->irq[0] = rig_line(&c.line);
    rig_start(c.r);
    bring_up_with(&c, F_MRG, w.packed ? RING_PACKED : 0);
    ck_assert_int_eq(pthread_create(&t, NULL, watch, &w), 0);
    for (unsigned f = 0; f < FRAMES; f++) {
        for (unsigned i = PIECES * f; w.packed && i < PIECES * (f + 1); i++) {
            uint16_t mine = i / NUM & 1 ? PACKED_USED : PACKED_AVAIL;

            put(&c, 0, i % NUM,
                (struct desc){ BUF(0, i % NUM), BUF_SIZE, (uint16_t)i, WRITE | mine });
        }
        if (!w.packed) {
            add_rx(&c, PIECES);
        }
        from_peer(&c, mac, 0x0800, 4 * BUF_SIZE - 100);
        while (atomic_load(&w.seen) <= f) {
            sched_yield();
        }
    }
    pthread_join(t, NULL);
    ck_assert_uint_eq(w.torn, 0);
    card_free(&c);
}
END_TEST

START_TEST(frame_that_no_buffer_fits_is_dropped)
{
    struct card c = card_new();

    card_start(&c, 0);
    add_rx(&c, 2);
    from_peer(&c, mac, 0x0800, 4000);
    from_peer(&c, mac, 0x0800, 100);
    ck_assert_uint_eq(used_idx(&c, 0), 1);
    ck_assert_uint_eq(used_len(&c, 0, 0), 112);
    card_free(&c);
}
END_TEST

START_TEST(filters_let_in_what_the_driver_asked_for)
{
    static const uint8_t other[6] = { 2, 0, 0, 0, 0, 9 }, multi[6] = { 1, 0, 0x5e, 0, 0, 1 };
    static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };
    static const uint8_t table[] = { 1, 0, 1, 0, 0, 0, 2, 0,    0, 0, 0,
                                     9, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1 };
    struct card c = card_new();

    card_start(&c, F_CTRL | F_MRG);
    add_rx(&c, 20);
    from_peer(&c, other, 0x0800, 60); /* promiscuous until told otherwise */
    ck_assert_uint_eq(used_idx(&c, 0), 1);
    ck_assert_uint_eq(control(&c, "\0\0\0", 3), 0);
    from_peer(&c, other, 0x0800, 60);
    from_peer(&c, multi, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 1);
    from_peer(&c, mac, 0x0800, 60);
    from_peer(&c, broadcast, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 3);
    ck_assert_uint_eq(control(&c, table, sizeof(table)), 0);
    from_peer(&c, other, 0x0800, 60);
    from_peer(&c, multi, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 5);
    from_peer(&c, mac, 0x8100, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 5);
    ck_assert_uint_eq(control(&c, "\2\0\7\0", 4), 0);
    from_peer(&c, mac, 0x8100, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 6);
    ck_assert_uint_eq(control(&c, "\0\5\1", 3), 0); /* no broadcast */
    from_peer(&c, broadcast, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 6);
    ck_assert_uint_eq(control(&c, "\1\1\2\0\0\0\0\5", 8), 0);
    from_peer(&c, mac, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 6);
    rig_state_round_trip(c.dev);
    card_free(&c);
}
END_TEST

START_TEST(control_commands_out_of_order_are_refused)
{
    static const struct {
        const char *bytes;
        uint32_t n;
    } bad[] = { { "", 1 },
                { "\0\6\1", 3 },
                { "\0\0", 2 },
                { "\1\0\377\377\377\377", 6 },
                { "\1\0\0\0\0\0", 6 },
                { "\1\1\2\0", 4 },
                { "\2\0\0\20", 4 },
                { "\2\2\1\0", 4 },
                { "\3\0", 2 },
                { "\4\0\1\0", 4 },
                { "\5\0\0\0\0\0\0\0\0\0", 10 },
                { "\11\0\1", 3 } };
    struct card c = card_new();

    card_start(&c, F_CTRL);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(control(&c, bad[i].bytes, bad[i].n) == 1, "%u", i);
    }
    card_free(&c);
}
END_TEST

START_TEST(pulled_cable_is_seen_and_carries_nothing)
{
    struct card c = card_new();

    card_start(&c, F_STATUS | F_MRG);
    add_rx(&c, 4);
    ck_assert_uint_eq(rig_read(c.r, AT + R_CONFIG + 6, 2), 1);
    virtio_net_set_link(c.dev, false);
    ck_assert_uint_eq(rig_read(c.r, AT + R_CONFIG + 6, 2), 0);
    ck_assert_uint_eq(rd32(c.r, AT + R_ISR), 2);
    from_peer(&c, mac, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 0);
    virtio_net_set_link(c.dev, true);
    from_peer(&c, mac, 0x0800, 60);
    ck_assert_uint_eq(used_idx(&c, 0), 1);
    close(c.peer);
    c.peer = dup(0);
    turns(&c);
    ck_assert_uint_eq(rig_read(c.r, AT + R_CONFIG + 6, 2), 0);
    card_free(&c);
}
END_TEST

static Suite *suite_net(void)
{
    Suite *s = suite_create("virtio-net");
    TCase *t = tcase_create("card");

    tcase_set_timeout(t, 120);
    tcase_add_test(t, frame_goes_out_behind_its_length);
    tcase_add_test(t, frame_without_its_header_breaks_the_device);
    tcase_add_test(t, large_frame_is_spread_over_merged_buffers);
    tcase_add_loop_test(t, driver_sees_all_buffers_of_a_frame_or_none, 0, 2);
    tcase_add_test(t, frame_that_no_buffer_fits_is_dropped);
    tcase_add_test(t, filters_let_in_what_the_driver_asked_for);
    tcase_add_test(t, control_commands_out_of_order_are_refused);
    tcase_add_test(t, pulled_cable_is_seen_and_carries_nothing);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_net, NULL);
}
