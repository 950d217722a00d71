/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that join a guest to its host, by their rings: the memory balloon. */
#include "devices/misc/virtio_balloon.h"
#include "tests/device/vio.h"

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

static Suite *suite_extras(void)
{
    Suite *s = suite_create("extras");
    TCase *t = tcase_create("balloon");

    tcase_add_test(t, balloon_gives_pages_back_and_says_how_much);
    tcase_add_test(t, balloon_target_changes_raise_an_interrupt);
    tcase_add_test(t, balloon_takes_statistics_and_keeps_the_buffer);
    tcase_add_test(t, balloon_takes_reported_pages);
    tcase_add_test(t, balloon_waits_while_memory_is_watched);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_extras, NULL);
}
