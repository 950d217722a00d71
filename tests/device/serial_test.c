/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-serial on virtio-mmio: ports are announced, named, opened and closed; bytes go to the right one; ports come and go; a driver
 * that reads nothing costs nothing.
 */
#include "devices/char/virtio_serial.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <errno.h>

#define AT 0x10001000ull
#define NUM 8
#define QUEUES 20
#define DESC(q) (RIG_RAM + 0x2000u * (q))
#define AVAIL(q) (DESC(q) + 0x400)
#define USED(q) (DESC(q) + 0x800)
#define BUF(q, i) (RIG_RAM + 0x80000 + 0x1000u * (q) + 0x100u * (i))

enum { C_IN = 2, C_OUT = 3 };
enum { READY = 0, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };

struct control {
    uint32_t id;
    uint16_t event, value;
};

struct ser {
    struct rig *r;
    struct device *dev, *slot;
    struct rig_line line;
    struct rig_chr a, b;
    uint16_t avail[QUEUES], seen[QUEUES];
};

static void queue_up(struct ser *s, unsigned q)
{
    wr32(s->r, AT + 0x30, q);
    wr32(s->r, AT + 0x38, NUM);
    wr32(s->r, AT + 0x80, (uint32_t)DESC(q));
    wr32(s->r, AT + 0x90, (uint32_t)AVAIL(q));
    wr32(s->r, AT + 0xa0, (uint32_t)USED(q));
    wr32(s->r, AT + 0x44, 1);
    memset(rig_ram(s->r, DESC(q)), 0, 0x1000);
    s->avail[q] = s->seen[q] = 0;
}

static void offer(struct ser *s, unsigned q, unsigned len, bool in)
{
    unsigned i = s->avail[q] % NUM;
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } d = { BUF(q, i), len, in ? 2 : 0, 0 };
    uint16_t *ring = rig_ram(s->r, AVAIL(q));

    memcpy((uint8_t *)rig_ram(s->r, DESC(q)) + 16 * i, &d, sizeof(d));
    ring[2 + i] = (uint16_t)i;
    ring[1] = ++s->avail[q];
    wr32(s->r, AT + 0x50, q);
    rig_turn(s->r);
}

/* The next buffer that came back; its length. False: none did. */
static bool came(struct ser *s, unsigned q, void **p, uint32_t *n)
{
    const uint16_t *used = rig_ram(s->r, USED(q));
    const uint32_t *ring = rig_ram(s->r, USED(q) + 4);

    if (used[1] == s->seen[q]) {
        return false;
    }
    unsigned i = s->seen[q]++ % NUM;
    *p = rig_ram(s->r, BUF(q, ring[2 * i]));
    *n = ring[2 * i + 1];
    return true;
}

static void say(struct ser *s, uint32_t id, uint16_t event, uint16_t value)
{
    struct control c = { id, event, value };

    memcpy(rig_ram(s->r, BUF(C_OUT, s->avail[C_OUT] % NUM)), &c, sizeof(c));
    offer(s, C_OUT, sizeof(c), false);
}

/* The next control message is this one; its text goes to `more`. */
static void hears_with(struct ser *s, uint32_t id, uint16_t event, uint16_t value,
                       const void *more, size_t size)
{
    struct control c;
    void *p;
    uint32_t n;

    ck_assert_msg(came(s, C_IN, &p, &n), "no message %u", event);
    memcpy(&c, p, sizeof(c));
    ck_assert_uint_eq(c.id, id);
    ck_assert_uint_eq(c.event, event);
    ck_assert_uint_eq(c.value, value);
    ck_assert_uint_eq(n, sizeof(c) + size);
    ck_assert_mem_eq((char *)p + sizeof(c), more, size);
    offer(s, C_IN, 0x80, true);
}

static void hears(struct ser *s, uint32_t id, uint16_t event, uint16_t value, const char *more)
{
    hears_with(s, id, event, value, more, strlen(more));
}

static void hears_nothing(struct ser *s)
{
    void *p;
    uint32_t n;

    ck_assert(!came(s, C_IN, &p, &n));
}

static void bring_up(struct ser *s, unsigned messages)
{
    wr32(s->r, AT + 0x70, 0);
    wr32(s->r, AT + 0x70, 3);
    wr32(s->r, AT + 0x24, 0);
    wr32(s->r, AT + 0x20, 3); /* SIZE, MULTIPORT */
    wr32(s->r, AT + 0x24, 1);
    wr32(s->r, AT + 0x20, 1);
    wr32(s->r, AT + 0x70, 11);
    for (unsigned q = 0; q < QUEUES; q++) {
        queue_up(s, q);
    }
    wr32(s->r, AT + 0x70, 15);
    for (unsigned i = 0; i < messages; i++) {
        offer(s, C_IN, 0x80, true);
    }
}

static void setup(struct ser *s)
{
    *s = (struct ser){ .r = rig_new(1) };
    rig_chr_init(&s->a, 4096);
    rig_chr_init(&s->b, 4096);
    s->dev = rig_device(s->r, &virtio_serial_class);
    ck_assert_int_eq(virtio_serial_add(s->dev, "one", false, &s->a.chr, NULL), 0);
    ck_assert_int_eq(virtio_serial_add(s->dev, "term", true, &s->b.chr, NULL), 0);
    ck_assert_int_eq(virtio_serial_add(s->dev, "one", false, &s->a.chr, NULL), -EEXIST);
    ck_assert_int_eq(dev_realize(s->dev, NULL), 0);
    s->slot = rig_device(s->r, &virtio_mmio_class);
    ck_assert_int_eq(dev_set_ptr(s->slot, "device", s->dev, NULL), 0);
    rig_place(s->r, s->slot, AT);
    s->slot->irq[0] = rig_line(&s->line);
    rig_start(s->r);
}

static void introduce(struct ser *s)
{
    bring_up(s, 4);
    hears_nothing(s);
    say(s, 0, READY, 1);
    hears(s, 0, ADD, 1, "");
    hears(s, 1, ADD, 1, "");
    say(s, 0, PORT_READY, 1);
    hears(s, 0, CONSOLE, 1, "");
    say(s, 1, PORT_READY, 1);
    hears(s, 1, NAME, 1, "one");
    hears_nothing(s);
}

START_TEST(ports_are_announced_and_told_of_their_clients)
{
    struct ser s;

    setup(&s);
    ck_assert_uint_eq(rd32(s.r, AT + 0x10) & 3, 3); /* SIZE, MULTIPORT */
    ck_assert_uint_eq(rd32(s.r, AT + 0x104), VIRTIO_SERIAL_PORTS);
    introduce(&s);
    chr_connected(&s.a.chr, true);
    hears(&s, 1, OPEN, 1, "");
    chr_connected(&s.a.chr, false);
    chr_connected(&s.a.chr, true); /* another one: the guest is told of both */
    hears(&s, 1, OPEN, 0, "");
    hears(&s, 1, OPEN, 1, "");
    ck_assert_int_eq(virtio_serial_resize(s.dev, "term", 80, 24, NULL), 0);
    hears_with(&s, 0, RESIZE, 1, "\x50\0\x18", 4);
    ck_assert_uint_eq(rd32(s.r, AT + 0x100), 24 << 16 | 80);
    ck_assert_int_eq(virtio_serial_resize(s.dev, "one", 80, 24, NULL), -ENOENT);
    rig_free(s.r);
}
END_TEST

START_TEST(bytes_go_to_the_port_they_are_for)
{
    struct ser s;
    void *p;
    uint32_t n;

    setup(&s);
    introduce(&s);
    memcpy(rig_ram(s.r, BUF(5, 0)), "from one", 8);
    offer(&s, 5, 8, false);
    ck_assert_uint_eq(s.a.n_out, 8);
    ck_assert_mem_eq(s.a.out, "from one", 8);
    ck_assert_uint_eq(s.b.n_out, 0);
    memcpy(rig_ram(s.r, BUF(1, 0)), "term", 4);
    offer(&s, 1, 4, false);
    ck_assert_mem_eq(s.b.out, "term", 4);
    /* Only who has opened a port is given input. */
    offer(&s, 4, 16, true);
    ck_assert_uint_eq(s.a.chr.front->room(s.a.chr.front_arg), 0);
    say(&s, 1, OPEN, 1);
    ck_assert(virtio_serial_is_open(s.dev, "one"));
    ck_assert_uint_eq(s.a.chr.front->room(s.a.chr.front_arg), 16);
    s.a.chr.front->receive(s.a.chr.front_arg, (const uint8_t *)"hi", 2);
    ck_assert(came(&s, 4, &p, &n) && n == 2);
    ck_assert_mem_eq(p, "hi", 2);
    rig_state_round_trip(s.dev);
    rig_free(s.r);
}
END_TEST

START_TEST(output_waits_for_room)
{
    struct ser s;

    setup(&s);
    introduce(&s);
    s.a.room = 3;
    memcpy(rig_ram(s.r, BUF(5, 0)), "abcdef", 6);
    offer(&s, 5, 6, false);
    ck_assert_uint_eq(s.a.n_out, 3);
    s.a.room = 100;
    s.a.chr.front->writable(s.a.chr.front_arg);
    rig_turn(s.r);
    ck_assert_uint_eq(s.a.n_out, 6);
    ck_assert_mem_eq(s.a.out, "abcdef", 6);
    rig_free(s.r);
}
END_TEST

START_TEST(ports_come_and_go_while_the_driver_runs)
{
    struct ser s;
    struct rig_chr c;

    setup(&s);
    introduce(&s);
    rig_chr_init(&c, 4096);
    ck_assert_int_eq(virtio_serial_add(s.dev, "late", false, &c.chr, NULL), 0);
    hears(&s, 2, ADD, 1, "");
    say(&s, 2, PORT_READY, 1);
    hears(&s, 2, NAME, 1, "late");
    say(&s, 2, OPEN, 1);
    offer(&s, 6, 16, true);
    ck_assert_uint_eq(c.chr.front->room(c.chr.front_arg), 16);
    ck_assert_int_eq(virtio_serial_remove(s.dev, "late", NULL), 0);
    ck_assert_ptr_null(c.chr.front);
    hears(&s, 2, REMOVE, 1, "");
    ck_assert_int_eq(virtio_serial_remove(s.dev, "late", NULL), -ENOENT);
    for (unsigned i = 2; i < VIRTIO_SERIAL_PORTS; i++) { /* as many as there is room for */
        char name[16];

        snprintf(name, sizeof(name), "n%u", i);
        ck_assert_int_eq(virtio_serial_add(s.dev, name, false, &c.chr, NULL), 0);
        hears(&s, i, ADD, 1, "");
    }
    ck_assert_int_eq(virtio_serial_add(s.dev, "more", false, &c.chr, NULL), -ENOSPC);
    rig_free(s.r);
}
END_TEST

START_TEST(a_driver_that_takes_no_messages_gets_the_last_word_later)
{
    struct ser s;

    setup(&s);
    bring_up(&s, 0);
    say(&s, 0, READY, 1);
    for (unsigned i = 0; i < 1000; i++) {
        chr_connected(&s.a.chr, i & 1);
    }
    ck_assert_int_eq(virtio_serial_remove(s.dev, "term", NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        offer(&s, C_IN, 0x80, true);
    }
    hears(&s, 1, ADD, 1, "");
    say(&s, 7, PORT_READY, 1); /* which there is not */
    say(&s, UINT32_MAX, OPEN, 1);
    say(&s, 1, PORT_READY, 1);
    hears(&s, 1, NAME, 1, "one");
    hears(&s, 1, OPEN, 1, "");
    hears_nothing(&s);
    /* A reset begins anew. */
    bring_up(&s, 4);
    say(&s, 0, READY, 1);
    hears(&s, 1, ADD, 1, "");
    rig_free(s.r);
}
END_TEST

static Suite *suite_serial(void)
{
    Suite *s = suite_create("virtio-serial");
    TCase *t = tcase_create("ports");

    tcase_add_test(t, ports_are_announced_and_told_of_their_clients);
    tcase_add_test(t, bytes_go_to_the_port_they_are_for);
    tcase_add_test(t, output_waits_for_room);
    tcase_add_test(t, ports_come_and_go_while_the_driver_runs);
    tcase_add_test(t, a_driver_that_takes_no_messages_gets_the_last_word_later);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_serial, NULL);
}
