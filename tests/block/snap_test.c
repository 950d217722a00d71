/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of two disks at once, inside their images and by overlays, between random writes: what each snapshot holds and
 * what the disks read as is compared byte by byte, and a failure on one disk leaves the other as it was. --seed repeats.
 */
#include "storage/snap.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 4 << 20, DISKS = 2, MOST = 96 * 1024, UNIT = 512 };

static struct loop *loop;
static struct blk_pool *pool;
static struct blk_node *disk[DISKS];
static uint8_t *shadow[DISKS];
static char folder[] = "/tmp/vmd-snap.XXXXXX";
static uint64_t seed;

static char *path(const char *name)
{
    return xasprintf("%s/%s", folder, name);
}

static struct blk_node *image(const char *name, const char *driver, const char *backing,
                              uint64_t size)
{
    AUTO_FREE char *p = path(name), *b = backing ? path(backing) : NULL;
    struct blk_option o[2] = { { "backing_file", b }, { "backing_fmt", "qcow2" } };
    struct blk_create c = {
        .path = p, .driver = driver, .size = size, .option = o, .n_options = b ? 2 : 0
    };
    struct blk_options open = {
        .name = name, .driver = driver, .path = p, .fd = -1, .no_backing = true
    };
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;

    ck_assert_msg(blk_create(&c, &e) == 0, "%s", e.msg);
    ck_assert_msg(blk_open(pool, &open, &n, &e) == 0, "%s", e.msg);
    return n;
}

static void setup(void)
{
    const struct blk_pool_options o = { .io_threads = test_io_threads() };
    struct err e = ERR_INIT;

    seed = test_seed();
    ck_assert_ptr_nonnull(mkdtemp(folder));
    loop = loop_new(&e);
    ck_assert_ptr_nonnull(loop);
    ck_assert_int_eq(blk_pool_new(loop, &o, &pool, &e), 0);
    for (unsigned i = 0; i < DISKS; i++) {
        AUTO_FREE char *name = xasprintf("d%u", i);

        disk[i] = blk_disk_new(pool, image(name, "qcow2", NULL, SIZE));
        shadow[i] = xalloc(SIZE);
    }
}

static void teardown(void)
{
    AUTO_FREE char *rm = xasprintf("rm -rf %s", folder);

    for (unsigned i = 0; i < DISKS; i++) {
        blk_close(disk[i]);
        free(shadow[i]);
    }
    blk_pool_free(pool);
    loop_free(loop);
    ck_assert_int_eq(system(rm), 0);
    strcpy(folder, "/tmp/vmd-snap.XXXXXX");
}

static void write_some(void)
{
    for (unsigned k = 0; k < 20; k++) {
        unsigned i = (unsigned)(test_random(&seed) % DISKS);
        uint64_t n = (test_random(&seed) % (MOST / UNIT) + 1) * UNIT;
        uint64_t at = test_random(&seed) % ((SIZE - n) / UNIT) * UNIT;

        memset(shadow[i] + at, (int)(test_random(&seed) % 256), n);
        memcpy(shadow[i] + at, &(uint64_t){ test_random(&seed) }, 8);
        ck_assert_int_eq(blk_pwrite(disk[i], at, shadow[i] + at, n), 0);
    }
}

static void same(struct blk_node *n, const uint8_t *want)
{
    AUTO_FREE uint8_t *got = xalloc(SIZE);

    ck_assert_int_eq(blk_pread(n, 0, got, SIZE), 0);
    ck_assert_msg(memcmp(got, want, SIZE) == 0, "disk '%s' reads as something else",
                  blk_name(n));
}

/* The image in a file, closed by everybody; of a snapshot in it, or (NULL) itself. */
static void file_is(const char *name, const char *snapshot, const uint8_t *want)
{
    AUTO_FREE char *p = path(name);
    struct blk_options o = { .name = name,
                             .driver = "qcow2",
                             .path = p,
                             .fd = -1,
                             .readonly = true,
                             .unlocked = true,
                             .follow = true };
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;

    ck_assert_msg(blk_open(NULL, &o, &n, &e) == 0, "%s", e.msg);
    ck_assert_msg(!snapshot || blk_snapshot_load(n, snapshot, &e) == 0, "%s", e.msg);
    same(n, want);
    blk_close(n);
}

START_TEST(snapshots_inside_hold_one_instant_of_both_disks)
{
    uint8_t *moment[3][DISKS];
    struct blk_snap s[DISKS];
    unsigned which, found;
    struct err e = ERR_INIT;

    for (unsigned k = 0; k < 3; k++) {
        AUTO_FREE char *name = xasprintf("s%u", k);

        write_some();
        for (unsigned i = 0; i < DISKS; i++) {
            s[i] = (struct blk_snap){ .disk = disk[i], .name = name };
            moment[k][i] = xalloc(SIZE);
            memcpy(moment[k][i], shadow[i], SIZE);
        }
        ck_assert_msg(blk_snap_all(NULL, s, DISKS, &which, &e) == 0, "%s", e.msg);
        write_some();
        same(disk[0], shadow[0]);
        same(disk[1], shadow[1]);
    }
    ck_assert_int_eq(blk_snap_delete(disk, DISKS, "s1", &found, &e), 0);
    ck_assert_uint_eq(found, DISKS);
    for (unsigned i = 0; i < DISKS; i++) {
        AUTO_FREE char *name = xasprintf("d%u", i);

        ck_assert_int_eq(blk_flush(disk[i]), 0);
        file_is(name, "s0", moment[0][i]);
        file_is(name, "s2", moment[2][i]);
        for (unsigned k = 0; k < 3; k++) {
            free(moment[k][i]);
        }
    }
}
END_TEST

START_TEST(overlays_take_writes_and_leave_what_is_below)
{
    static const char *const names[DISKS][3] = { { "d0", "a0", "b0" }, { "d1", "a1", "b1" } };
    uint8_t *moment[2][DISKS];
    struct blk_snap s[DISKS];
    unsigned which;
    struct err e = ERR_INIT;

    for (unsigned k = 0; k < 2; k++) {
        write_some();
        for (unsigned i = 0; i < DISKS; i++) {
            s[i] = (struct blk_snap){
                .disk = disk[i], .overlay = image(names[i][k + 1], "qcow2", names[i][k], SIZE)
            };
            moment[k][i] = xalloc(SIZE);
            memcpy(moment[k][i], shadow[i], SIZE);
        }
        ck_assert_msg(blk_snap_all(NULL, s, DISKS, &which, &e) == 0, "%s", e.msg);
        write_some();
        same(disk[0], shadow[0]);
        same(disk[1], shadow[1]);
    }
    for (unsigned i = 0; i < DISKS; i++) {
        ck_assert(blk_readonly(blk_child(blk_disk_image(disk[i]), BLK_BACKING)));
        ck_assert_int_eq(blk_flush(disk[i]), 0);
        file_is(names[i][0], NULL, moment[0][i]);
        file_is(names[i][1], NULL, moment[1][i]);
        file_is(names[i][2], NULL, shadow[i]);
        free(moment[0][i]);
        free(moment[1][i]);
    }
}
END_TEST

START_TEST(a_snapshot_that_one_disk_cannot_take_is_taken_of_none)
{
    struct blk_snap s[DISKS] = { { .disk = disk[0], .name = "s" },
                                 { .disk = disk[1], .name = "s" } };
    struct blk_node *small = image("small", "qcow2", "d1", SIZE / 2);
    struct blk_snap bad[DISKS] = { { .disk = disk[0], .name = "t" },
                                   { .disk = disk[1], .overlay = small } };
    struct blk_image_info i;
    char too_long[70000] = "";
    unsigned which = 9;
    struct err e = ERR_INIT;

    write_some();
    ck_assert_int_eq(blk_snap_all(NULL, s + 1, 1, &which, &e), 0);
    ck_assert_int_eq(blk_snap_all(NULL, s, DISKS, &which, &e), -EEXIST);
    ck_assert_uint_eq(which, 1);
    e = (struct err)ERR_INIT;
    ck_assert_int_eq(blk_snap_all(NULL, bad, DISKS, &which, &e), -EINVAL);
    ck_assert_uint_eq(which, 1);
    bad[1] = (struct blk_snap){ .disk = disk[1],
                                .name = too_long }; /* that is found out late */
    memset(too_long, 'x', sizeof(too_long) - 1);
    e = (struct err)ERR_INIT;
    ck_assert_int_eq(blk_snap_all(NULL, bad, DISKS, &which, &e), -EINVAL);
    ck_assert_uint_eq(which, 1);
    bad[1] = bad[0];
    e = (struct err)ERR_INIT;
    ck_assert_int_eq(blk_snap_all(NULL, bad, DISKS, &which, &e), -EINVAL);
    blk_close(small);
    ck_assert_int_eq(blk_info(blk_disk_image(disk[0]), &i, &e), 0);
    ck_assert_uint_eq(i.n_snapshots, 0);
    blk_info_done(&i);
    write_some();
    same(disk[0], shadow[0]);
    same(disk[1], shadow[1]);
}
END_TEST

START_TEST(what_was_prepared_can_be_taken_back)
{
    struct blk_node *over = image("over", "qcow2", "d1", SIZE);
    struct blk_snap s[DISKS] = { { .disk = disk[0], .name = "s" },
                                 { .disk = disk[1], .overlay = over } };
    struct blk_image_info i;
    unsigned which;
    struct err e = ERR_INIT;

    write_some();
    ck_assert_int_eq(blk_snap_prepare(NULL, s, DISKS, &which, &e), 0);
    blk_snap_finish(s, DISKS, false);
    blk_close(over);
    ck_assert_int_eq(blk_info(blk_disk_image(disk[0]), &i, &e), 0);
    ck_assert_uint_eq(i.n_snapshots, 0);
    blk_info_done(&i);
    write_some();
    same(disk[0], shadow[0]);
    same(disk[1], shadow[1]);
    ck_assert(!blk_readonly(blk_disk_image(disk[1])));
}
END_TEST

START_TEST(a_bitmap_is_kept_in_the_image_below)
{
    const struct blk_dirty_options bo = { .name = "b", .persistent = true };
    struct blk_snap s = { .disk = disk[0], .overlay = image("over", "qcow2", "d0", SIZE) };
    AUTO_FREE char *p = path("d0");
    struct blk_options o = {
        .name = "d0", .driver = "qcow2", .path = p, .fd = -1, .readonly = true, .unlocked = true
    };
    struct blk_dirty_info info;
    struct blk_dirty *d;
    struct blk_node *n = NULL;
    unsigned which;
    struct err e = ERR_INIT;

    ck_assert_int_eq(blk_dirty_new(blk_disk_image(disk[0]), &bo, &d, &e), 0);
    memset(shadow[0], 7, 65536);
    ck_assert_int_eq(blk_pwrite(disk[0], 0, shadow[0], 65536), 0);
    ck_assert_msg(blk_snap_all(NULL, &s, 1, &which, &e) == 0, "%s", e.msg);
    memset(shadow[0], 8, 2 * 65536);
    ck_assert_int_eq(blk_pwrite(disk[0], 0, shadow[0], 2 * 65536), 0);
    ck_assert_msg(blk_open(NULL, &o, &n, &e) == 0, "%s", e.msg);
    ck_assert_msg(blk_dirty_find(n, "b", &d, &e) == 0, "%s", e.msg);
    blk_dirty_get(d, &info);
    ck_assert(!info.inconsistent);
    ck_assert_uint_eq(info.dirty, 65536);
    blk_close(n);
    same(disk[0], shadow[0]);
}
END_TEST

static Suite *suite_snap(void)
{
    Suite *s = suite_create("snap");
    TCase *c = tcase_create("disks");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, snapshots_inside_hold_one_instant_of_both_disks);
    tcase_add_test(c, overlays_take_writes_and_leave_what_is_below);
    tcase_add_test(c, a_snapshot_that_one_disk_cannot_take_is_taken_of_none);
    tcase_add_test(c, what_was_prepared_can_be_taken_back);
    tcase_add_test(c, a_bitmap_is_kept_in_the_image_below);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_snap, NULL);
}
