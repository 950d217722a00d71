/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mmio and its devices: negotiation, split rings in order and broken on purpose, disks
 * on a real file, entropy, console.
 */
#include "devices/input/virtio_input.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "tests/device/rig.h"
#include "tests/device/vio.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct vio rng_new(void)
{
    struct vio v = { .r = rig_new(1) };

    v.dev = rig_device(v.r, &virtio_rng_class);
    return v;
}

/* --- transport --- */

START_TEST(mmio_slot_without_device_says_so)
{
    struct vio v = { .r = rig_new(1) };

    v.slot = rig_device(v.r, &virtio_mmio_class);
    rig_place(v.r, v.slot, AT);
    ck_assert_uint_eq(rd32(v.r, AT), 0x74726976);
    ck_assert_uint_eq(rd32(v.r, AT + 4), 2);
    ck_assert_uint_eq(rd32(v.r, AT + R_ID), 0);
    for (unsigned i = 0; i < 0x200; i += 4) {
        wr32(v.r, AT + i, UINT32_MAX);
        (void)rd32(v.r, AT + i);
    }
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 0);
    rig_free(v.r);
}
END_TEST

START_TEST(mmio_negotiates_features_once_and_refuses_others)
{
    struct vio v = rng_new();

    vio_place(&v);
    ck_assert_uint_eq(rd32(v.r, AT + R_ID), 4);
    wr32(v.r, AT + R_DEV_SEL, 0);
    ck_assert_uint_eq(rd32(v.r, AT + R_DEV_FEAT), 3u << 28);
    wr32(v.r, AT + R_DEV_SEL, 1);
    ck_assert_uint_eq(rd32(v.r, AT + R_DEV_FEAT), 1);
    wr32(v.r, AT + R_DEV_SEL, 7);
    ck_assert_uint_eq(rd32(v.r, AT + R_DEV_FEAT), 0);
    wr32(v.r, AT + R_STATUS, 3);
    wr32(v.r, AT + R_STATUS, 11); /* a driver without VERSION_1 */
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 3);
    wr32(v.r, AT + R_DRV_SEL, 1);
    wr32(v.r, AT + R_DRV_FEAT, 1);
    wr32(v.r, AT + R_DRV_SEL, 0);
    wr32(v.r, AT + R_DRV_FEAT, 1); /* not offered */
    wr32(v.r, AT + R_STATUS, 11);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 3);
    wr32(v.r, AT + R_STATUS, 7); /* DRIVER_OK without FEATURES_OK */
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 3);
    wr32(v.r, AT + R_DRV_FEAT, 0);
    wr32(v.r, AT + R_STATUS, 11);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 11);
    wr32(v.r, AT + R_DRV_FEAT, 1); /* too late */
    wr32(v.r, AT + R_STATUS, 15);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 15);
    wr32(v.r, AT + R_STATUS, 0);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 0);
    rig_free(v.r);
}
END_TEST

START_TEST(queue_of_a_wrong_shape_is_not_taken)
{
    static const struct {
        uint32_t num, desc, avail, used;
    } bad[] = {
        { 0, 0, 0, 0 },   { 3, 0, 0, 0 },   { 128, 0, 0, 0 }, { UINT32_MAX, 0, 0, 0 },
        { NUM, 8, 0, 0 }, { NUM, 0, 1, 0 }, { NUM, 0, 0, 2 },
    };
    struct vio v = rng_new();

    vio_place(&v);
    bring_up(&v, 0, 0);
    ck_assert_uint_eq(rd32(v.r, AT + R_QMAX), 64);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        wr32(v.r, AT + R_QSEL, 0);
        wr32(v.r, AT + R_QNUM, bad[i].num);
        wr32(v.r, AT + R_DESC, (uint32_t)DESC(0) + bad[i].desc);
        wr32(v.r, AT + R_DRIVER, (uint32_t)AVAIL(0) + bad[i].avail);
        wr32(v.r, AT + R_DEVICE, (uint32_t)USED(0) + bad[i].used);
        wr32(v.r, AT + R_QREADY, 1);
        ck_assert_uint_eq(rd32(v.r, AT + R_QREADY), 0);
    }
    wr32(v.r, AT + R_QSEL, 1); /* there is no second */
    ck_assert_uint_eq(rd32(v.r, AT + R_QMAX), 0);
    wr32(v.r, AT + R_QREADY, 1);
    ck_assert_uint_eq(rd32(v.r, AT + R_QREADY), 0);
    wr32(v.r, AT + R_NOTIFY, 1);
    wr32(v.r, AT + R_NOTIFY, UINT32_MAX);
    rig_turn(v.r);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 15);
    rig_free(v.r);
}
END_TEST

/* --- entropy: rings that work --- */

START_TEST(rng_fills_buffers_and_interrupts)
{
    struct vio v = rng_new();
    uint8_t *bytes;
    unsigned zeroes = 0;

    vio_place(&v);
    bring_up(&v, 0, 1);
    bytes = rig_ram(v.r, BUF);
    for (unsigned round = 0; round < 40; round++) {
        memset(bytes, 0, 64);
        put(&v, DESC(0), 2, (struct desc){ BUF, 32, NEXT | WRITE, 5 });
        put(&v, DESC(0), 5, (struct desc){ BUF + 32, 32, WRITE, 0 });
        offer(&v, 0, 2);
        rig_until(v.r, all_used, &v);
        ck_assert_uint_eq(used_len(&v, 0, round), 64);
        ck_assert(v.line.level);
        ck_assert_uint_eq(rd32(v.r, AT + R_ISR), 1);
        wr32(v.r, AT + R_ACK, 1);
        ck_assert(!v.line.level);
        for (unsigned i = 0; i < 64; i++) {
            zeroes += bytes[i] == 0;
        }
    }
    ck_assert_uint_lt(zeroes, 200); /* of 2560 bytes 10 are expected */
    rig_state_round_trip(v.dev);
    rig_state_round_trip(v.slot);
    rig_free(v.r);
}
END_TEST

START_TEST(indirect_tables_and_event_index_work)
{
    struct vio v = rng_new();
    uint16_t *avail;

    vio_place(&v);
    bring_up(&v, 3u << 28, 1);
    avail = rig_ram(v.r, AVAIL(0));
    avail[2 + NUM] = 2; /* used_event: interrupt after the third */
    for (unsigned i = 0; i < 5; i++) {
        put(&v, TABLE, 0, (struct desc){ BUF, 16, NEXT | WRITE, 1 });
        put(&v, TABLE, 1, (struct desc){ BUF + 64, 16, WRITE, 0 });
        put(&v, DESC(0), i, (struct desc){ TABLE, 32, INDIRECT, 0 });
        offer(&v, 0, (uint16_t)i);
        rig_until(v.r, all_used, &v);
        ck_assert_uint_eq(used_len(&v, 0, i), 32);
        ck_assert_uint_eq(((uint16_t *)rig_ram(v.r, USED(0)))[2 + NUM * 4],
                          i + 1); /* avail_event */
        /* The first push always tells: nothing was told before. */
        ck_assert_uint_eq(v.line.rises, i < 2 ? 1 : 2);
        wr32(v.r, AT + R_ACK, 1);
    }
    rig_free(v.r);
}
END_TEST

START_TEST(requests_wait_while_the_vm_is_paused)
{
    struct vio v = rng_new();

    vio_place(&v);
    bring_up(&v, 0, 1);
    vm_pause(v.r->vm);
    put(&v, DESC(0), 0, (struct desc){ BUF, 32, WRITE, 0 });
    offer(&v, 0, 0);
    for (unsigned i = 0; i < 5; i++) {
        rig_turn(v.r);
    }
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    vm_resume(v.r->vm);
    rig_until(v.r, all_used, &v);
    rig_free(v.r);
}
END_TEST

/* --- rings that are broken on purpose --- */

/* Offers head 0 after `spoil`; the device must ask for a reset, and work again after one. */
static void broken(void (*spoil)(struct vio *v), uint32_t features)
{
    struct vio v = rng_new();

    vio_place(&v);
    bring_up(&v, features, 1);
    spoil(&v);
    offer(&v, 0, 0);
    rig_turn(v.r);
    rig_turn(v.r);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 15 | 64);
    ck_assert_uint_eq(rd32(v.r, AT + R_ISR), 2);
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    wr32(v.r, AT + R_NOTIFY, 0);
    rig_turn(v.r);
    bring_up(&v, 0, 1);
    put(&v, DESC(0), 0, (struct desc){ BUF, 32, WRITE, 0 });
    offer(&v, 0, 0);
    rig_until(v.r, all_used, &v);
    rig_free(v.r);
}

static void spoil_loop(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ BUF, 1, NEXT | WRITE, 1 });
    put(v, DESC(0), 1, (struct desc){ BUF, 1, NEXT | WRITE, 0 });
}
static void spoil_self_loop_of_nothing(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ BUF, 0, NEXT | WRITE, 0 });
}
static void spoil_next(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ BUF, 1, NEXT | WRITE, NUM });
}
static void spoil_head(struct vio *v)
{
    ((uint16_t *)rig_ram(v->r, AVAIL(0)))[2] = 0;
    v->avail[0] = 1;
    ((uint16_t *)rig_ram(v->r, AVAIL(0)))[2] = 0xfff0; /* taken before the good one */
}
static void spoil_index(struct vio *v)
{
    v->avail[0] = 5000;
}
static void spoil_address(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ 0x1000, 16, WRITE, 0 });
}
static void spoil_address_wrap(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ UINT64_MAX - 7, 16, WRITE, 0 });
}
static void spoil_length(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ BUF, UINT32_MAX, WRITE, 0 });
}
static void spoil_mmio(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ AT, 16, WRITE, 0 }); /* device to device */
}
static void spoil_order(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ BUF, 16, NEXT | WRITE, 1 });
    put(v, DESC(0), 1, (struct desc){ BUF, 16, 0, 0 });
}
static void spoil_indirect_unasked(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ TABLE, 16, INDIRECT, 0 });
}
static void spoil_indirect_nested(struct vio *v)
{
    put(v, TABLE, 0, (struct desc){ TABLE, 16, INDIRECT, 0 });
    put(v, DESC(0), 0, (struct desc){ TABLE, 16, INDIRECT, 0 });
}
static void spoil_indirect_size(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ TABLE, 17, INDIRECT, 0 });
}
static void spoil_indirect_huge(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ TABLE, 0xfffffff0, INDIRECT, 0 });
}
static void spoil_indirect_empty(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ TABLE, 0, INDIRECT, 0 });
}
static void spoil_indirect_loop(struct vio *v)
{
    put(v, TABLE, 0, (struct desc){ BUF, 1, NEXT | WRITE, 0 });
    put(v, DESC(0), 0, (struct desc){ TABLE, 16, INDIRECT, 0 });
}
static void spoil_indirect_next(struct vio *v)
{
    put(v, TABLE, 0, (struct desc){ BUF, 1, WRITE, 0 });
    put(v, DESC(0), 0, (struct desc){ TABLE, 16, INDIRECT | NEXT, 1 });
}
static void spoil_indirect_nowhere(struct vio *v)
{
    put(v, DESC(0), 0, (struct desc){ 0x40, 16, INDIRECT, 0 });
}

static const struct {
    void (*spoil)(struct vio *v);
    uint32_t features;
} spoils[] = {
    { spoil_loop, 0 },
    { spoil_self_loop_of_nothing, 0 },
    { spoil_next, 0 },
    { spoil_head, 0 },
    { spoil_index, 0 },
    { spoil_address, 0 },
    { spoil_address_wrap, 0 },
    { spoil_length, 0 },
    { spoil_mmio, 0 },
    { spoil_order, 0 },
    { spoil_indirect_unasked, 0 },
    { spoil_indirect_nested, 1u << 28 },
    { spoil_indirect_size, 1u << 28 },
    { spoil_indirect_huge, 1u << 28 },
    { spoil_indirect_empty, 1u << 28 },
    { spoil_indirect_loop, 1u << 28 },
    { spoil_indirect_next, 1u << 28 },
    { spoil_indirect_nowhere, 1u << 28 },
};

START_TEST(broken_ring_asks_for_a_reset_and_works_after_it)
{
    broken(spoils[_i].spoil, spoils[_i].features);
}
END_TEST

START_TEST(ring_that_is_not_in_ram_asks_for_a_reset)
{
    struct vio v = rng_new();

    vio_place(&v);
    bring_up(&v, 0, 0);
    wr32(v.r, AT + R_QNUM, NUM);
    wr32(v.r, AT + R_DESC, (uint32_t)(RIG_RAM + RIG_RAM_SIZE - 16)); /* only the first entry */
    wr32(v.r, AT + R_DRIVER, 0);
    wr32(v.r, AT + R_DEVICE, 0xfffffffc);
    wr32(v.r, AT + R_DEVICE + 4, UINT32_MAX);
    wr32(v.r, AT + R_QREADY, 1);
    rig_turn(v.r);
    rig_turn(v.r);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 15 | 64);
    rig_free(v.r);
}
END_TEST

/* --- disk --- */

#define SECTORS 64

struct disk {
    struct vio v;
    struct blk_pool *pool;
    struct blk_node *node;
    char path[64];
};

static struct disk *disk_new(bool readonly)
{
    struct disk *k = xnew(struct disk);
    struct blk_options o = { .name = "root", .driver = "raw", .fd = -1, .readonly = readonly };
    struct err e = ERR_INIT;
    int fd;

    strcpy(k->path, "/tmp/vmd-virtio-test-XXXXXX");
    fd = mkstemp(k->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, SECTORS * 512), 0);
    close(fd);
    o.path = k->path;
    k->v.r = rig_new(1);
    ck_assert_int_eq(blk_pool_new(k->v.r->loop,
                                  &(struct blk_pool_options){ .io_threads = test_io_threads() },
                                  &k->pool, &e),
                     0);
    ck_assert_msg(blk_open(k->pool, &o, &k->node, &e) == 0, "%s", e.msg);
    k->v.dev = rig_device(k->v.r, &virtio_blk_class);
    ck_assert_int_eq(dev_set_ptr(k->v.dev, "node", k->node, &e), 0);
    ck_assert_int_eq(dev_set_str(k->v.dev, "serial", "root", &e), 0);
    return k;
}

static void disk_free(struct disk *k)
{
    vm_free(k->v.r->vm);
    mem_free(k->v.r->ram);
    blk_pool_free(k->pool);
    loop_free(k->v.r->loop);
    free(k->v.r);
    unlink(k->path);
    free(k);
}

/* One request: header, n bytes at BUF + 512 in or out, status; returns the status. */
static uint8_t disk_do(struct disk *k, uint32_t type, uint64_t sector, uint32_t n, bool in)
{
    struct vio *v = &k->v;
    uint8_t *head = rig_ram(v->r, BUF), *status = rig_ram(v->r, BUF + 16);

    memcpy(head, &type, 4);
    memset(head + 4, 0, 4);
    memcpy(head + 8, &sector, 8);
    *status = 0xff;
    put(v, DESC(0), 0, (struct desc){ BUF, 16, NEXT, n ? 1 : 2 });
    put(v, DESC(0), 1, (struct desc){ BUF + 512, n, NEXT | (in ? WRITE : 0), 2 });
    put(v, DESC(0), 2, (struct desc){ BUF + 16, 1, WRITE, 0 });
    offer(v, 0, 0);
    rig_until(v->r, all_used, v);
    wr32(v->r, AT + R_ACK, 3);
    return *status;
}

START_TEST(disk_writes_reads_flushes_and_zeroes)
{
    struct disk *k = disk_new(false);
    struct vio *v = &k->v;
    uint8_t *data;
    uint64_t range[2] = { 3, 2 };

    vio_place(v);
    bring_up(v, 1 << 9, 1);
    data = rig_ram(v->r, BUF + 512);
    ck_assert_uint_eq(rig_read(v->r, AT + R_CONFIG, 8), SECTORS);
    ck_assert_uint_eq(rd32(v->r, AT + R_CONFIG + 20), 512);
    memset(data, 0x5a, 1024);
    ck_assert_uint_eq(disk_do(k, 1, 3, 1024, false), 0);
    memset(data, 0, 1024);
    ck_assert_uint_eq(disk_do(k, 0, 4, 512, true), 0);
    ck_assert_uint_eq(data[0], 0x5a);
    ck_assert_uint_eq(used_len(v, 0, v->avail[0] - 1u), 513);
    ck_assert_uint_eq(disk_do(k, 4, 0, 0, false), 0);
    memcpy(data, range, sizeof(range));
    ck_assert_uint_eq(disk_do(k, 13, 0, 16, false), 0);
    ck_assert_uint_eq(disk_do(k, 0, 3, 512, true), 0);
    ck_assert_uint_eq(data[0], 0);
    memcpy(data, range, sizeof(range));
    ck_assert_uint_eq(disk_do(k, 11, 0, 16, false), 0);
    ck_assert_uint_eq(disk_do(k, 8, 0, 20, true), 0);
    ck_assert_str_eq((char *)data, "root");
    rig_state_round_trip(v->dev);
    disk_free(k);
}
END_TEST

START_TEST(disk_refuses_what_lies_outside_or_is_unknown)
{
    struct disk *k = disk_new(false);
    uint8_t *data;
    uint64_t range[2] = { UINT64_MAX, 2 };

    vio_place(&k->v);
    bring_up(&k->v, 1 << 9, 1);
    data = rig_ram(k->v.r, BUF + 512);
    ck_assert_uint_eq(disk_do(k, 0, SECTORS, 512, true), 1);
    ck_assert_uint_eq(disk_do(k, 0, UINT64_MAX, 512, true), 1);
    ck_assert_uint_eq(disk_do(k, 0, UINT64_MAX / 512 + 1, 512, true), 1);
    ck_assert_uint_eq(disk_do(k, 1, SECTORS - 1, 1024, false), 1);
    ck_assert_uint_eq(disk_do(k, 0, 0, 511, true), 1);
    ck_assert_uint_eq(disk_do(k, 77, 0, 512, true), 2);
    ck_assert_uint_eq(disk_do(k, 8, 0, 8, true), 1);
    memcpy(data, range, sizeof(range));
    ck_assert_uint_eq(disk_do(k, 13, 0, 16, false), 1);
    range[0] = 0;
    range[1] = 2 | 0xf0ull << 32;
    memcpy(data, range, sizeof(range));
    ck_assert_uint_eq(disk_do(k, 13, 0, 16, false), 2);
    ck_assert_uint_eq(disk_do(k, 11, 0, 32, false), 2);
    ck_assert_uint_eq(disk_do(k, 0, 0, 512, true), 0); /* still works */
    disk_free(k);
}
END_TEST

START_TEST(readonly_disk_refuses_writes)
{
    struct disk *k = disk_new(true);

    vio_place(&k->v);
    wr32(k->v.r, AT + R_DEV_SEL, 0);
    ck_assert_uint_ne(rd32(k->v.r, AT + R_DEV_FEAT) & 1 << 5, 0);
    ck_assert_uint_eq(rd32(k->v.r, AT + R_DEV_FEAT) & (1 << 13 | 1 << 14), 0);
    bring_up(&k->v, 1 << 5 | 1 << 9, 1);
    ck_assert_uint_eq(disk_do(k, 1, 0, 512, false), 1);
    ck_assert_uint_eq(disk_do(k, 0, 0, 512, true), 0);
    ck_assert_uint_eq(disk_do(k, 4, 0, 0, false), 0);
    disk_free(k);
}
END_TEST

START_TEST(disk_reset_with_requests_in_flight_touches_memory_no_more)
{
    struct disk *k = disk_new(false);
    struct vio *v = &k->v;

    vio_place(v);
    for (unsigned round = 0; round < 50; round++) {
        uint8_t *page;

        bring_up(v, 0, 1);
        page = rig_ram(v->r, BUF + 512);
        memset(rig_ram(v->r, BUF), 0, 16); /* type IN, sector 0 */
        put(v, DESC(0), 0, (struct desc){ BUF, 16, NEXT, 1 });
        put(v, DESC(0), 1, (struct desc){ BUF + 512, 4096, NEXT | WRITE, 2 });
        put(v, DESC(0), 2, (struct desc){ BUF + 16, 1, WRITE, 0 });
        for (unsigned i = 0; i < NUM; i++) {
            offer(v, 0, 0);
        }
        rig_turn(v->r); /* submits */
        wr32(v->r, AT + R_STATUS, 0);
        memset(page, 0xcc, 4096);
        memset(rig_ram(v->r, USED(0)), 0xcc, 64);
        rig_turn(v->r); /* completions of before the reset come now */
        rig_turn(v->r);
        ck_assert_uint_eq(page[0], 0xcc);
        ck_assert_uint_eq(used_idx(v, 0), 0xcccc);
        ck_assert(!v->line.level);
    }
    disk_free(k);
}
END_TEST

START_TEST(disk_request_offered_without_end_is_bounded)
{
    struct disk *k = disk_new(false);
    struct vio *v = &k->v;

    vio_place(v);
    bring_up(v, 0, 1);
    vm_pause(v->r->vm); /* nothing completes */
    memset(rig_ram(v->r, BUF), 0, 16);
    put(v, DESC(0), 0, (struct desc){ BUF, 16, NEXT, 2 });
    put(v, DESC(0), 2, (struct desc){ BUF + 16, 1, WRITE, 0 });
    vm_resume(v->r->vm);
    for (unsigned i = 0; i < 2000; i++) {
        offer(v, 0, 0); /* the same chain again and again */
        if (i % 3 == 0) {
            rig_turn(v->r);
        }
    }
    for (unsigned i = 0; i < 100; i++) {
        rig_turn(v->r);
    }
    disk_free(k);
}
END_TEST

/* --- console --- */

static bool queue1_used(void *arg)
{
    return used_idx(arg, 1) == ((struct vio *)arg)->avail[1];
}

START_TEST(console_carries_bytes_both_ways_and_waits_for_room)
{
    struct vio v = { .r = rig_new(1) };
    struct rig_chr c;
    const struct chr_front_ops *f;

    rig_chr_init(&c, 3);
    v.dev = rig_device(v.r, &virtio_console_class);
    ck_assert_int_eq(dev_set_ptr(v.dev, "chr", &c.chr, NULL), 0);
    vio_place(&v);
    f = c.chr.front;
    ck_assert_uint_eq(f->room(v.dev), 0);
    bring_up(&v, 0, 2);
    memcpy(rig_ram(v.r, BUF), "hello", 5);
    put(&v, DESC(1), 0, (struct desc){ BUF, 2, NEXT, 1 });
    put(&v, DESC(1), 1, (struct desc){ BUF + 2, 3, 0, 0 });
    offer(&v, 1, 0);
    rig_turn(v.r);
    ck_assert_uint_eq(c.n_out, 3);
    ck_assert_uint_eq(used_idx(&v, 1), 0);
    rig_state_round_trip(v.dev);
    c.room = 100;
    f->writable(v.dev);
    rig_until(v.r, queue1_used, &v);
    ck_assert_int_eq(memcmp(c.out, "hello", 5), 0);
    put(&v, DESC(0), 0, (struct desc){ BUF + 64, 4, WRITE, 0 });
    offer(&v, 0, 0);
    rig_turn(v.r);
    ck_assert_uint_ge(c.accepts, 1);
    ck_assert_uint_eq(f->room(v.dev), 4);
    v.dev->cls->quiesce(v.dev);           /* the buffer goes back to its ring ... */
    ck_assert_uint_eq(f->room(v.dev), 4); /* ... and is there again */
    f->receive(v.dev, (const uint8_t *)"xyz", 3);
    ck_assert_uint_eq(used_idx(&v, 0), 1);
    ck_assert_uint_eq(used_len(&v, 0, 0), 3);
    ck_assert_int_eq(memcmp(rig_ram(v.r, BUF + 64), "xyz", 3), 0);
    ck_assert_uint_eq(f->room(v.dev), 0);
    wr32(v.r, AT + R_CONFIG + 8, '!');
    ck_assert_uint_eq(c.out[5], '!');
    rig_free(v.r);
}
END_TEST

/* --- keys --- */

static struct vio button_new(void)
{
    struct vio v = { .r = rig_new(1) };

    v.dev = rig_device(v.r, &virtio_input_class);
    ck_assert_int_eq(dev_set_str(v.dev, "kind", "power-button", NULL), 0);
    return v;
}

/* Size of a piece of the configuration space; its first bytes go to `out`. */
static unsigned config_piece(struct vio *v, uint8_t select, uint8_t subsel, uint8_t *out)
{
    rig_write(v->r, AT + R_CONFIG, select, 1);
    rig_write(v->r, AT + R_CONFIG + 1, subsel, 1);
    for (unsigned i = 0; i < 128; i++) {
        out[i] = (uint8_t)rig_read(v->r, AT + R_CONFIG + 8 + i, 1);
    }
    return (unsigned)rig_read(v->r, AT + R_CONFIG + 2, 1);
}

START_TEST(button_says_what_it_is)
{
    struct vio v = button_new();
    uint8_t text[128], none[128] = { 0 };

    vio_place(&v);
    ck_assert_uint_eq(rd32(v.r, AT + R_ID), 18);
    ck_assert_uint_eq(config_piece(&v, 1, 0, text), strlen("Power Button"));
    ck_assert_int_eq(memcmp(text, "Power Button", 13), 0);
    ck_assert_uint_eq(config_piece(&v, 3, 0, text), 8);
    ck_assert_uint_eq(config_piece(&v, 0x11, 1, text), 15); /* keys: 116 alone */
    for (unsigned i = 0; i < 128; i++) {
        ck_assert_uint_eq(text[i], i == 14 ? 1 << 4 : 0);
    }
    /* Pieces that it has not: other kinds of events, axes, properties, what nobody knows. */
    static const uint8_t empty[][2] = { { 0, 0 },    { 0x11, 2 }, { 0x11, 255 },
                                        { 0x10, 0 }, { 0x12, 1 }, { 0xee, 1 } };
    for (unsigned i = 0; i < ARRAY_LEN(empty); i++) {
        ck_assert_uint_eq(config_piece(&v, empty[i][0], empty[i][1], text), 0);
        ck_assert_int_eq(memcmp(text, none, sizeof(none)), 0);
    }
    rig_free(v.r);
}
END_TEST

static void check_event(struct vio *v, unsigned i, uint16_t type, uint16_t code, uint32_t value)
{
    const uint8_t *p = rig_ram(v->r, BUF + 8 * i);
    uint16_t halves[2];
    uint32_t word;

    memcpy(halves, p, 4);
    memcpy(&word, p + 4, 4);
    ck_assert_uint_eq(halves[0], type);
    ck_assert_uint_eq(halves[1], code);
    ck_assert_uint_eq(word, value);
    ck_assert_uint_eq(used_len(v, 0, i), 8);
}

START_TEST(button_tells_a_press_and_keeps_it_until_there_are_buffers)
{
    struct vio v = button_new();
    struct err e = ERR_INIT;

    vio_place(&v);
    ck_assert_int_eq(virtio_input_tap(v.dev, INPUT_KEY_POWER, &e), -ENODEV);
    bring_up(&v, 0, 2);
    ck_assert_int_eq(virtio_input_tap(v.dev, 30, &e), -EINVAL);
    put(&v, DESC(0), 0, (struct desc){ BUF, 8, WRITE, 0 });
    offer(&v, 0, 0);
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    vm_pause(v.r->vm);
    ck_assert_int_eq(virtio_input_tap(v.dev, INPUT_KEY_POWER, &e), 0);
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    rig_state_round_trip(v.dev);
    vm_resume(v.r->vm);
    rig_until(v.r, all_used, &v);
    ck_assert(v.line.level);
    for (uint16_t i = 1; i < 4; i++) {
        put(&v, DESC(0), i, (struct desc){ BUF + 8u * i, 8, WRITE, 0 });
        offer(&v, 0, i);
        rig_until(v.r, all_used, &v);
    }
    check_event(&v, 0, 1, INPUT_KEY_POWER, 1);
    check_event(&v, 1, 0, 0, 0);
    check_event(&v, 2, 1, INPUT_KEY_POWER, 0);
    check_event(&v, 3, 0, 0, 0);
    rig_free(v.r);
}
END_TEST

START_TEST(button_bounds_what_a_guest_does_not_read)
{
    struct vio v = button_new();
    struct err e = ERR_INIT;
    unsigned taps = 0;

    vio_place(&v);
    bring_up(&v, 0, 2);
    while (virtio_input_tap(v.dev, INPUT_KEY_POWER, &e) == 0) {
        ck_assert_uint_lt(taps++, 100);
    }
    ck_assert_int_eq(e.code, -ENOSPC);
    rig_state_round_trip(v.dev);
    /* A buffer too small for an event is the driver's fault. */
    put(&v, DESC(0), 0, (struct desc){ BUF, 7, WRITE, 0 });
    offer(&v, 0, 0);
    rig_turn(v.r);
    rig_turn(v.r);
    ck_assert_uint_eq(rd32(v.r, AT + R_STATUS), 15 | 64);
    ck_assert_int_eq(virtio_input_tap(v.dev, INPUT_KEY_POWER, &e), -ENODEV);
    /* A reset forgets them all; lights are taken and shown nowhere. */
    bring_up(&v, 0, 2);
    put(&v, DESC(1), 0, (struct desc){ BUF, 8, 0, 0 });
    offer(&v, 1, 0);
    rig_until(v.r, queue1_used, &v);
    put(&v, DESC(0), 0, (struct desc){ BUF, 8, WRITE, 0 });
    offer(&v, 0, 0);
    rig_turn(v.r);
    ck_assert_uint_eq(used_idx(&v, 0), 0);
    rig_free(v.r);
}
END_TEST

static Suite *suite_virtio(void)
{

    Suite *s = suite_create("virtio");
    TCase *t = tcase_create("virtio");

    tcase_set_timeout(t, 120);

    tcase_add_test(t, mmio_slot_without_device_says_so);
    tcase_add_test(t, mmio_negotiates_features_once_and_refuses_others);
    tcase_add_test(t, queue_of_a_wrong_shape_is_not_taken);
    tcase_add_test(t, rng_fills_buffers_and_interrupts);
    tcase_add_test(t, indirect_tables_and_event_index_work);
    tcase_add_test(t, requests_wait_while_the_vm_is_paused);
    tcase_add_loop_test(t, broken_ring_asks_for_a_reset_and_works_after_it, 0,
                        (int)ARRAY_LEN(spoils));
    tcase_add_test(t, ring_that_is_not_in_ram_asks_for_a_reset);
    tcase_add_test(t, disk_writes_reads_flushes_and_zeroes);
    tcase_add_test(t, disk_refuses_what_lies_outside_or_is_unknown);
    tcase_add_test(t, readonly_disk_refuses_writes);
    tcase_add_test(t, disk_reset_with_requests_in_flight_touches_memory_no_more);
    tcase_add_test(t, disk_request_offered_without_end_is_bounded);
    tcase_add_test(t, console_carries_bytes_both_ways_and_waits_for_room);
    tcase_add_test(t, button_says_what_it_is);
    tcase_add_test(t, button_tells_a_press_and_keeps_it_until_there_are_buffers);
    tcase_add_test(t, button_bounds_what_a_guest_does_not_read);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_virtio, NULL);
}
