/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parallel flash: the Intel command set as a driver uses it, and contents that outlive the VM.
 */
#include "devices/block/pflash.h"
#include "devices/registry.h"
#include "storage/block.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <sys/mman.h>
#include <unistd.h>

#define AT 0x20000000ull
#define BOTH(x) ((uint32_t)(x) << 16 | (uint32_t)(x))
#define READY BOTH(0x80)
#define SECTOR 0x40000u

struct fl {
    struct rig *r;
    struct device *d;
    struct blk_pool *pool;
    int fd; /* the image */
};

static void fl_make(struct fl *f, size_t size, bool readonly, bool bytes)
{
    struct blk_options o = {
        .name = "vars", .driver = "raw", .path = "test", .readonly = readonly
    };
    struct blk_node *node;
    struct err e = ERR_INIT;

    f->r = rig_new(1);
    f->fd = memfd_create("flash", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(f->fd, (off_t)size), 0);
    ck_assert_int_eq(blk_pool_new(f->r->loop, &(struct blk_pool_options){ 0 }, &f->pool, &e),
                     0);
    o.fd = dup(f->fd);
    ck_assert_msg(blk_open(f->pool, &o, &node, &e) == 0, "%s", e.msg);
    f->d = rig_device(f->r, &cfi_flash_class);
    ck_assert_int_eq(dev_set_ptr(f->d, "node", node, NULL), 0);
    ck_assert_int_eq(dev_set_bool(f->d, "bytes", bytes, NULL), 0);
    ck_assert_msg(dev_realize(f->d, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(mem_map(f->r->vm->root, AT, 0, pflash_region(f->d), NULL), 0);
    rig_start(f->r);
}

static void fl_new(struct fl *f, size_t size, bool readonly)
{
    fl_make(f, size, readonly, false);
}

static void fl_free(struct fl *f)
{
    vm_free(f->r->vm);
    blk_pool_free(f->pool);
    mem_free(f->r->ram);
    loop_free(f->r->loop);
    free(f->r);
    close(f->fd);
}

START_TEST(the_query_table_describes_the_bank)
{
    static const char want[] = { 'Q', 'R', 'Y', 1, 0 };
    struct fl f;

    fl_new(&f, 1 << 20, false);
    wr32(f.r, AT + 0x55 * 4, BOTH(0x98));
    for (unsigned i = 0; i < sizeof(want); i++) {
        ck_assert_uint_eq(rd32(f.r, AT + 4 * (0x10 + i)), BOTH(want[i]));
    }
    ck_assert_uint_eq(rd32(f.r, AT + 4 * 0x27), BOTH(0x18));
    ck_assert_uint_eq(rig_read(f.r, AT + 4 * 0x2d, 1), 0x7f);
    ck_assert_uint_eq(rd32(f.r, AT + 4 * 0x1000), 0);
    wr32(f.r, AT, BOTH(0x90));
    ck_assert_uint_eq(rd32(f.r, AT), BOTH(0x89));
    wr32(f.r, AT, BOTH(0xff));
    ck_assert_uint_eq(rd32(f.r, AT), 0);
    ck_assert_uint_eq(rd32(f.r, AT + (1 << 20)), UINT32_MAX); /* behind the image */
    fl_free(&f);
}
END_TEST

START_TEST(programs_clear_bits_and_erasing_sets_them)
{
    struct fl f;
    uint8_t byte;

    fl_new(&f, 1 << 20, false);
    wr32(f.r, AT + SECTOR, BOTH(0x20));
    wr32(f.r, AT + SECTOR, BOTH(0xd0));
    ck_assert_uint_eq(rd32(f.r, AT), READY);
    wr32(f.r, AT + SECTOR + 8, BOTH(0x40));
    wr32(f.r, AT + SECTOR + 8, 0x12345678);
    ck_assert_uint_eq(rd32(f.r, AT), READY);
    wr32(f.r, AT, BOTH(0xff));
    ck_assert_uint_eq(rd32(f.r, AT + SECTOR + 8), 0x12345678);
    ck_assert_uint_eq(rd32(f.r, AT + SECTOR), UINT32_MAX);
    ck_assert_uint_eq(rd32(f.r, AT + SECTOR - 4), 0);
    wr32(f.r, AT + SECTOR + 8, BOTH(0x10));
    wr32(f.r, AT + SECTOR + 8, 0xff00ff00);
    wr32(f.r, AT, BOTH(0xff));
    ck_assert_uint_eq(rd32(f.r, AT + SECTOR + 8), 0x12345678 & 0xff00ff00);
    while (!f.d->cls->quiesce(f.d)) {
        ck_assert_int_eq(loop_run_once(f.r->loop, 1000000, NULL), 0);
    }
    ck_assert_int_eq(pread(f.fd, &byte, 1, SECTOR + 9), 1);
    ck_assert_uint_eq(byte, 0x56);
    ck_assert_int_eq(pread(f.fd, &byte, 1, SECTOR), 1);
    ck_assert_uint_eq(byte, 0xff);
    fl_free(&f);
}
END_TEST

START_TEST(a_buffer_is_programmed_when_confirmed)
{
    struct fl f;
    uint64_t at = AT + SECTOR + 0x100;

    fl_new(&f, 1 << 20, false);
    wr32(f.r, AT + SECTOR, BOTH(0x20));
    wr32(f.r, AT + SECTOR, BOTH(0xd0));
    for (unsigned confirm = 0; confirm < 2; confirm++) {
        wr32(f.r, at, BOTH(0xe8));
        ck_assert_uint_eq(rd32(f.r, at), READY);
        wr32(f.r, at, BOTH(7));
        for (uint32_t i = 0; i < 8; i++) {
            wr32(f.r, at + 4 * i, 0xabcd0000 + i);
        }
        rig_state_round_trip(f.d);
        wr32(f.r, at, BOTH(confirm ? 0xd0 : 0xff));
        ck_assert_uint_eq(rd32(f.r, at), confirm ? READY : BOTH(0xb0));
        wr32(f.r, at, BOTH(0x50));
        wr32(f.r, at, BOTH(0xff));
        ck_assert_uint_eq(rd32(f.r, at + 28), confirm ? 0xabcd0007 : UINT32_MAX);
        ck_assert_uint_eq(rd32(f.r, at + 32), UINT32_MAX);
    }
    wr32(f.r, at, BOTH(0xe8));
    wr32(f.r, at, BOTH(0xffff)); /* more than the buffer holds */
    ck_assert_uint_eq(rd32(f.r, at), BOTH(0x90));
    wr32(f.r, at, BOTH(0xe8));
    wr32(f.r, at, BOTH(1));
    wr32(f.r, at, 0);
    wr32(f.r, AT, 0); /* outside the buffer */
    ck_assert_uint_eq(rd32(f.r, at), BOTH(0x90));
    fl_free(&f);
}
END_TEST

START_TEST(a_chip_of_bytes_has_small_sectors)
{
    struct fl f;

    fl_make(&f, 64 << 10, false, true);
    rig_write(f.r, AT + 5, 0x70, 1);
    ck_assert_uint_eq(rig_read(f.r, AT + 5, 1), 0x80);
    rig_write(f.r, AT + 0x1000, 0x20, 1);
    rig_write(f.r, AT + 0x1000, 0xd0, 1);
    rig_write(f.r, AT + 0x1003, 0x10, 1);
    rig_write(f.r, AT + 0x1003, 0x5a, 1);
    ck_assert_uint_eq(rig_read(f.r, AT + 0x1003, 1), 0x80);
    rig_write(f.r, AT + 0x1003, 0xff, 1);
    ck_assert_uint_eq(rd32(f.r, AT + 0x1000), 0x5affffff);
    ck_assert_uint_eq(rd32(f.r, AT + 0xffc), 0);
    ck_assert_uint_eq(rd32(f.r, AT + 0x1ffc), UINT32_MAX);
    ck_assert_uint_eq(rd32(f.r, AT + 0x2000), 0);
    fl_free(&f);
}
END_TEST

START_TEST(a_read_only_bank_is_memory)
{
    struct fl f;

    fl_new(&f, 4096, true);
    wr32(f.r, AT, BOTH(0x98));
    ck_assert_uint_eq(rd32(f.r, AT + 0x40), 0);
    ck_assert_int_eq(mem_region_kind(pflash_region(f.d)), MEM_ROM);
    fl_free(&f);
}
END_TEST

static Suite *suite_pflash(void)
{
    Suite *s = suite_create("pflash");
    TCase *t = tcase_create("pflash");

    tcase_add_test(t, the_query_table_describes_the_bank);
    tcase_add_test(t, programs_clear_bits_and_erasing_sets_them);
    tcase_add_test(t, a_buffer_is_programmed_when_confirmed);
    tcase_add_test(t, a_chip_of_bytes_has_small_sectors);
    tcase_add_test(t, a_read_only_bank_is_memory);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_pflash, NULL);
}
