/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of requests that fail (gate.c), by faults on purpose (faulty.c) at the file below a qcow2 image or at the image
 * itself.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "storage/disk.h"
#include "storage/faulty.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 1 << 20, N = 8192 };

static struct loop *loop;
static struct blk_pool *pool;
static struct blk_node *disk;
static char *image;
static uint8_t data[N], back[N];
static struct iovec iov = { data, N };
static struct blk_req req;
static unsigned done, told[4];
static int result;

static void on_failed(void *arg, struct blk_node *n, enum blk_op op, int error,
                      enum blk_on_error did)
{
    (void)arg;
    ck_assert_ptr_eq(n, disk);
    ck_assert_int_eq(op, BLK_WRITE);
    ck_assert_int_eq(error, -EIO);
    told[did]++;
}

static void on_done(struct blk_req *r, int rc)
{
    ck_assert_ptr_eq(r, &req);
    result = rc;
    done++;
}

static void open_disk(void)
{
    const struct blk_options o = { .name = "vda", .driver = "qcow2", .path = image, .fd = -1 };
    struct err e = ERR_INIT;

    ck_assert_msg(blk_open(pool, &o, &disk, &e) == 0, "%s", e.msg);
    disk = blk_disk_new(pool, disk);
}

static void setup(void)
{
    const struct blk_pool_options po = { .io_threads = test_io_threads() };
    char name[] = "/tmp/vmd-gate.XXXXXX";
    struct err e = ERR_INIT;
    int fd = mkstemp(name);

    ck_assert_int_ge(fd, 0);
    close(fd);
    unlink(name);
    image = xstrdup(name);
    const struct blk_create c = { .path = image, .driver = "qcow2", .size = SIZE };
    ck_assert_msg(blk_create(&c, &e) == 0, "%s", e.msg);
    loop = loop_new(&e);
    ck_assert_int_eq(blk_pool_new(loop, &po, &pool, &e), 0);
    open_disk();
    memset(data, 1, N);
    ck_assert_int_eq(blk_pwrite(disk, 0, data, N), 0);
}

static void teardown(void)
{
    blk_close(disk);
    blk_pool_free(pool);
    loop_free(loop);
    unlink(image);
    free(image);
}

static void policy(enum blk_on_error write)
{
    const struct blk_policy p = { .read = BLK_ON_REPORT, .write = write, .failed = on_failed };

    blk_set_policy(disk, &p);
}

static void fault(bool file, unsigned times)
{
    const struct blk_fault f = {
        .ops = 1u << BLK_WRITE, .action = BLK_FAULT_FAIL, .error = -EIO, .count = times
    };
    struct blk_node *n = blk_disk_image(disk);
    struct err e = ERR_INIT;
    unsigned id;

    n = file ? blk_child(n, BLK_FILE) : n;
    const char *name = blk_driver_name(n);
    ck_assert_msg(blk_fault_add(n, &f, &id, &e) == 0, "%s", e.msg);
    ck_assert_str_eq(blk_driver_name(n), name);
}

/* A write to where clusters are, which the format hands on to the file. */
static void begin(uint8_t byte)
{
    memset(data, byte, N);
    req = (struct blk_req){
        .op = BLK_WRITE, .length = N, .iov = &iov, .n_iov = 1, .done = on_done
    };
    done = 0;
    blk_submit(disk, &req);
}

static void until_done(void)
{
    struct err e = ERR_INIT;

    while (!done) {
        ck_assert_int_ge(loop_run_once(loop, 100, &e), 0);
    }
    ck_assert_uint_eq(done, 1);
}

static void until_kept(void)
{
    struct err e = ERR_INIT;

    while (!blk_kept(disk)) {
        ck_assert_int_ge(loop_run_once(loop, 100, &e), 0);
    }
    ck_assert_uint_eq(done, 0);
}

static void holds(uint8_t byte)
{
    memset(data, byte, N);
    ck_assert_int_eq(blk_pread(disk, 0, back, N), 0);
    ck_assert_mem_eq(back, data, N);
}

START_TEST(kept_requests_are_tried_again_until_they_succeed)
{
    setup();
    policy(BLK_ON_STOP);
    fault(_i, 2);
    begin(2);
    until_kept();
    blk_retry(disk);
    until_kept();
    blk_retry(disk);
    until_done();
    ck_assert_int_eq(result, 0);
    ck_assert_uint_eq(told[BLK_ON_STOP], 2);
    holds(2);
    teardown();
}
END_TEST

/* They settled when they failed; what they held must be free again when they go back. */
static void still_sound(void)
{
    struct err e = ERR_INIT;

    begin(3);
    until_done();
    ck_assert_int_eq(result, 0);
    req = (struct blk_req){ .op = BLK_DISCARD, .flags = BLK_UNMAP, .length = SIZE };
    ck_assert_int_eq(blk_run(disk, &req), 0);
    ck_assert_int_eq(blk_flush(disk), 0);
    ck_assert_msg(blk_close_flush(disk, &e) == 0, "%s", e.msg);
    open_disk();
    holds(0);
}

START_TEST(kept_requests_go_back_with_their_error_at_a_reset)
{
    setup();
    policy(BLK_ON_STOP);
    fault(_i, 1);
    begin(2);
    until_kept();
    blk_abandon(disk);
    ck_assert_uint_eq(blk_kept(disk), 0);
    until_done();
    ck_assert_int_eq(result, -EIO);
    still_sound();
    teardown();
}
END_TEST

START_TEST(what_failed_before_a_reset_is_not_kept_after_it)
{
    setup();
    policy(BLK_ON_STOP);
    fault(_i, 1);
    begin(2);
    blk_abandon(disk); /* it failed, and the loop has not seen it */
    until_done();
    ck_assert_int_eq(result, -EIO);
    ck_assert_uint_eq(told[BLK_ON_STOP], 0);
    still_sound();
    teardown();
}
END_TEST

START_TEST(kept_requests_can_be_cancelled)
{
    setup();
    policy(BLK_ON_STOP);
    fault(_i, 1);
    begin(2);
    until_kept();
    ck_assert(blk_cancel(&req));
    until_done();
    ck_assert_int_eq(result, -ECANCELED);
    still_sound();
    teardown();
}
END_TEST

START_TEST(errors_are_told_or_ignored)
{
    setup();
    policy(BLK_ON_IGNORE);
    fault(_i, 2);
    begin(2);
    until_done();
    ck_assert_int_eq(result, 0);
    ck_assert_uint_eq(told[BLK_ON_IGNORE], 1);
    policy(BLK_ON_ENOSPC);
    begin(2);
    until_done();
    ck_assert_int_eq(result, -EIO);
    ck_assert_uint_eq(told[BLK_ON_REPORT], 1);
    holds(1);
    teardown();
}
END_TEST

static Suite *suite_gate(void)
{
    Suite *s = suite_create("errors of disks");
    TCase *t = tcase_create("errors of disks");

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, kept_requests_are_tried_again_until_they_succeed, 0, 2);
    tcase_add_loop_test(t, kept_requests_go_back_with_their_error_at_a_reset, 0, 2);
    tcase_add_loop_test(t, what_failed_before_a_reset_is_not_kept_after_it, 0, 2);
    tcase_add_loop_test(t, kept_requests_can_be_cancelled, 0, 2);
    tcase_add_loop_test(t, errors_are_told_or_ignored, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_gate, NULL);
}
