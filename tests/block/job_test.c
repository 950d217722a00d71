/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block jobs under a guest that goes on writing: random requests through the disk's filter, beside a shadow of what the
 * disk must read as. After each job the copy, or the disk with its new chain, is compared byte by byte. --seed repeats.
 */
#include "storage/job.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/work.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 8 << 20, DEPTH = 16, UNIT = 512, MOST = 96 * 1024 };

struct guest_req {
    struct blk_req r;
    struct iovec iov;
    bool busy;
    uint8_t *mem;
};

static struct loop *loop;
static struct blk_pool *pool;
static struct workers *workers;
static struct blk_jobs *jobs;
static struct blk_node *disk;
static uint8_t *shadow, *moment; /* as it is, as it was when the job began */
static struct guest_req guest[DEPTH];
static char folder[] = "/tmp/vmd-job.XXXXXX";
static uint64_t seed;
static unsigned told, guest_errors, requests;

static char *path(const char *name)
{
    return xasprintf("%s/%s", folder, name);
}

static uint64_t rnd(uint64_t n)
{
    return test_random(&seed) % n;
}

static void make(const char *name, const char *driver, const char *backing)
{
    AUTO_FREE char *p = path(name), *b = backing ? path(backing) : NULL;
    struct blk_option o[3] = { { "cluster_size", "65536" } };
    struct blk_create c = {
        .path = p, .driver = driver, .size = SIZE, .option = o, .n_options = 1
    };
    struct err e = ERR_INIT;

    if (strcmp(driver, "raw") == 0) {
        c.n_options = 0;
    }
    if (b) {
        o[c.n_options++] = (struct blk_option){ "backing_file", b };
        o[c.n_options++] = (struct blk_option){ "backing_fmt", "qcow2" };
    }
    ck_assert_msg(blk_create(&c, &e) == 0, "%s", e.msg);
}

static struct blk_node *open_image(const char *name, const char *driver, bool readonly)
{
    AUTO_FREE char *p = path(name);
    struct blk_options o = { .name = name,
                             .driver = driver,
                             .path = p,
                             .fd = -1,
                             .follow = true,
                             .readonly = readonly };
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;

    ck_assert_msg(blk_open(pool, &o, &n, &e) == 0, "%s", e.msg);
    return n;
}

/* --- the guest --- */

static void on_done(struct blk_req *r, int result)
{
    struct guest_req *g = r->arg;

    g->busy = false;
    guest_errors += result != 0;
}

static bool hits_other(uint64_t at, uint64_t n)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        const struct blk_req *r = &guest[i].r;

        if (guest[i].busy && at < r->offset + r->length && r->offset < at + n) {
            return true;
        }
    }
    return false;
}

/* The shadow changes when the request is made: no two that overlap are under way. */
static void guest_write(void)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        struct guest_req *g = &guest[i];
        uint64_t n = (rnd(MOST / UNIT) + 1) * UNIT, at = rnd((SIZE - n) / UNIT) * UNIT;

        if (g->busy || hits_other(at, n)) {
            continue;
        }
        g->r = (struct blk_req){
            .op = BLK_WRITE, .offset = at, .length = n, .done = on_done, .arg = g
        };
        if (rnd(5) == 0) {
            g->r.op = BLK_ZERO;
            g->r.flags = rnd(2) ? BLK_UNMAP : 0;
            memset(shadow + at, 0, n);
        } else {
            memset(g->mem, (int)rnd(256), n);
            memcpy(g->mem, &(uint64_t){ test_random(&seed) }, 8);
            memcpy(shadow + at, g->mem, n);
            g->iov = (struct iovec){ .iov_base = g->mem, .iov_len = n };
            g->r.iov = &g->iov;
            g->r.n_iov = 1;
        }
        g->busy = true;
        requests++;
        blk_submit(disk, &g->r);
    }
}

static bool guest_busy(void)
{
    bool busy = false;

    for (unsigned i = 0; i < DEPTH; i++) {
        busy |= guest[i].busy;
    }
    return busy;
}

static void turn(bool writing)
{
    if (writing) {
        guest_write();
    }
    ck_assert_int_eq(loop_run_once(loop, 1000000, NULL), 0);
}

static void rest(void)
{
    while (guest_busy()) {
        turn(false);
    }
}

static void write_for(unsigned turns)
{
    while (turns--) {
        turn(true);
    }
    rest();
}

/* --- comparing --- */

static void expect(struct blk_node *n, const uint8_t *want, const char *what)
{
    AUTO_FREE uint8_t *got = xalloc(SIZE);

    ck_assert_int_eq(blk_pread(n, 0, got, SIZE), 0);
    for (uint64_t i = 0; i < SIZE; i++) {
        if (got[i] != want[i]) {
            ck_abort_msg("%s differs at %#llx: %02x, not %02x", what, (unsigned long long)i,
                         got[i], want[i]);
        }
    }
}

static void expect_image(const char *name, const char *driver, const uint8_t *want)
{
    struct blk_node *n = open_image(name, driver, true);

    expect(n, want, name);
    blk_close(n);
}

/* --- jobs --- */

static void on_changed(void *arg, struct blk_job *j)
{
    (void)arg;
    (void)j;
    told++;
}

static struct blk_job *start(struct blk_job_options *o)
{
    struct blk_job *j = NULL;
    struct err e = ERR_INIT;
    unsigned which;

    o->id = "job0";
    o->disk = disk;
    o->changed = on_changed;
    memcpy(moment, shadow, SIZE);
    ck_assert_msg(blk_jobs_start(jobs, o, 1, &j, &which, &e) == 0, "%s", e.msg);
    return j;
}

static struct blk_job_info info(struct blk_job *j)
{
    struct blk_job_info i;

    blk_job_get(j, &i);
    return i;
}

static void until(struct blk_job *j, enum blk_job_state state, bool writing)
{
    while (info(j).state != state) {
        ck_assert_msg(info(j).state != BLK_JOB_ENDED, "it ended: %s", info(j).message);
        turn(writing);
    }
}

static void ended_well(struct blk_job *j, bool writing)
{
    until(j, BLK_JOB_ENDED, writing);
    rest();
    ck_assert_msg(info(j).error == 0, "%s", info(j).message);
    ck_assert_uint_gt(told, 0);
    blk_job_free(j);
}

static void setup(void)
{
    const struct blk_pool_options po = { .io_threads = test_io_threads() };
    const struct workers_options wo = { 0 };
    struct err e = ERR_INIT;

    seed = test_seed();
    ck_assert_ptr_nonnull(mkdtemp(folder));
    loop = loop_new(&e);
    ck_assert_int_eq(blk_pool_new(loop, &po, &pool, &e), 0);
    ck_assert_int_eq(workers_new(loop, &wo, &workers, &e), 0);
    jobs = blk_jobs_new(loop, workers);
    shadow = xalloc(SIZE);
    moment = xalloc(SIZE);
    for (unsigned i = 0; i < DEPTH; i++) {
        guest[i].mem = xalloc(MOST);
    }
}

static void begin(const char *driver)
{
    make("disk", driver, NULL);
    disk = blk_disk_new(pool, open_image("disk", driver, false));
    write_for(40);
}

/* Three images, each with something of its own; the disk is the topmost. */
static void begin_chain(void)
{
    static const char *const names[] = { "base", "mid", "top" };

    for (unsigned i = 0; i < 3; i++) {
        make(names[i], "qcow2", i ? names[i - 1] : NULL);
        disk = blk_disk_new(pool, open_image(names[i], "qcow2", false));
        write_for(12);
        if (i < 2) {
            blk_close(disk);
        }
    }
}

static void teardown(void)
{
    AUTO_FREE char *cmd = xasprintf("rm -rf %s", folder);

    rest();
    expect(disk, shadow, "the disk");
    ck_assert_uint_eq(guest_errors, 0);
    blk_jobs_free(jobs);
    blk_close(disk);
    workers_free(workers);
    blk_pool_free(pool);
    loop_free(loop);
    for (unsigned i = 0; i < DEPTH; i++) {
        free(guest[i].mem);
    }
    free(shadow);
    free(moment);
    ck_assert_int_eq(system(cmd), 0);
}

static struct blk_node *target(const char *name, const char *driver)
{
    make(name, driver, NULL);
    return open_image(name, driver, false);
}

START_TEST(mirror_of_a_busy_disk_takes_its_place)
{
    struct blk_job_options o = { .kind = BLK_JOB_MIRROR };
    struct blk_job *j;
    struct err e = ERR_INIT;
    AUTO_FREE uint8_t *last = xalloc(SIZE);

    setup();
    begin(_i ? "qcow2" : "raw");
    o.target = target("copy", _i ? "raw" : "qcow2");
    j = start(&o);
    ck_assert_int_lt(blk_job_complete(j, &e), 0);
    until(j, BLK_JOB_READY, true);
    write_for(20);
    ck_assert_int_eq(blk_job_complete(j, &e), 0);
    until(j, BLK_JOB_ENDED, true);
    ck_assert_msg(info(j).error == 0 && info(j).swapped, "%s", info(j).message);
    blk_job_free(j);
    write_for(20);
    memcpy(last, shadow, SIZE);
    ck_assert_str_eq(blk_driver_name(blk_disk_image(disk)), _i ? "raw" : "qcow2");
    teardown();
}
END_TEST

START_TEST(mirror_that_is_left_is_a_whole_copy)
{
    struct blk_job_options o = { .kind = BLK_JOB_MIRROR };
    struct blk_job *j;

    setup();
    begin("qcow2");
    o.target = target("copy", "raw");
    j = start(&o);
    until(j, BLK_JOB_READY, true);
    write_for(10);
    blk_job_cancel(j, false);
    ended_well(j, false);
    expect_image("copy", "raw", shadow);
    write_for(10);
    teardown();
}
END_TEST

START_TEST(mirror_of_a_disk_that_stands_still_ends_by_itself)
{
    struct blk_job_options o = { .kind = BLK_JOB_MIRROR, .keen = true };
    struct blk_job *j;

    setup();
    begin("qcow2");
    o.target = target("copy", _i == 2 ? "qcow2" : "raw");
    j = start(&o);
    if (_i == 1) { /* too early */
        blk_job_end_still(j);
        until(j, BLK_JOB_ENDED, false);
        ck_assert_int_eq(info(j).error, -ECANCELED);
        blk_job_free(j);
    } else {
        until(j, BLK_JOB_READY, true);
        write_for(20);
        blk_job_end_still(j);
        ended_well(j, false);
        expect_image("copy", _i == 2 ? "qcow2" : "raw", shadow);
    }
    write_for(10);
    teardown();
}
END_TEST

START_TEST(backup_is_the_disk_as_it_was)
{
    struct blk_job_options o = { .kind = BLK_JOB_BACKUP, .speed = _i == 2 ? 30 << 20 : 0 };
    struct blk_job *j;

    setup();
    begin("qcow2");
    for (unsigned i = 0; i < 10; i++) {
        guest_write(); /* some are in flight when it begins */
    }
    o.target = target("copy", _i ? "qcow2" : "raw");
    j = start(&o);
    ended_well(j, true);
    expect_image("copy", _i ? "qcow2" : "raw", moment);
    teardown();
}
END_TEST

START_TEST(incremental_backups_add_up)
{
    struct blk_job_options o = { .kind = BLK_JOB_BACKUP, .sync = BLK_SYNC_BITMAP };
    const struct blk_dirty_options d = { .name = "since", .persistent = true };
    struct blk_job *j;
    struct err e = ERR_INIT;

    setup();
    make("disk", "qcow2", NULL);
    disk = blk_disk_new(pool, open_image("disk", "qcow2", false));
    ck_assert_msg(blk_dirty_new(blk_disk_image(disk), &d, &o.bitmap, &e) == 0, "%s", e.msg);
    make("copy", "raw", NULL);
    for (unsigned round = 0; round < 4; round++) {
        write_for(4);
        o.target = open_image("copy", "raw", false);
        j = start(&o);
        if (round == 2) { /* one that fails must not lose what was to be copied */
            blk_job_cancel(j, true);
            until(j, BLK_JOB_ENDED, true);
            ck_assert_int_eq(info(j).error, -ECANCELED);
            rest();
            blk_job_free(j);
            continue;
        }
        ended_well(j, true);
        expect_image("copy", "raw", moment);
    }
    teardown();
}
END_TEST

START_TEST(stream_makes_the_disk_stand_alone)
{
    struct blk_job_options o = { .kind = BLK_JOB_STREAM };
    struct blk_job *j;

    setup();
    begin_chain();
    if (_i) { /* down to the lowest image only */
        AUTO_FREE char *base = path("base");

        o.base = blk_child(blk_child(blk_disk_image(disk), BLK_BACKING), BLK_BACKING);
        o.backing_name = base;
        o.backing_format = "qcow2";
        j = start(&o);
    } else {
        j = start(&o);
    }
    ended_well(j, true);
    ck_assert_int_eq(blk_child(blk_disk_image(disk), BLK_BACKING) != NULL, _i);
    write_for(10);
    blk_close(disk);
    disk = blk_disk_new(pool, open_image("top", "qcow2", false));
    ck_assert_int_eq(blk_child(blk_disk_image(disk), BLK_BACKING) != NULL, _i);
    teardown();
}
END_TEST

START_TEST(commit_of_the_middle_shortens_the_chain)
{
    struct blk_job_options o = { .kind = BLK_JOB_COMMIT, .backing_format = "qcow2" };
    struct blk_job *j;
    struct blk_node *image;
    struct err e = ERR_INIT;
    AUTO_FREE char *base = NULL;

    setup();
    begin_chain();
    base = path("base");
    o.backing_name = base;
    image = blk_disk_image(disk);
    blk_drain_begin(disk);
    ck_assert_msg(blk_reopen_base(disk, blk_child(blk_child(image, BLK_BACKING), BLK_BACKING),
                                  -1, &e) == 0,
                  "%s", e.msg);
    blk_drain_end(disk);
    o.top = blk_child(image, BLK_BACKING);
    o.base = blk_child(o.top, BLK_BACKING);
    j = start(&o);
    ended_well(j, true);
    ck_assert_str_eq(blk_path(blk_child(image, BLK_BACKING)), base);
    write_for(10);
    expect(disk, shadow, "the disk");
    blk_close(disk);
    disk = blk_disk_new(pool, open_image("top", "qcow2", false));
    teardown();
}
END_TEST

START_TEST(commit_of_the_disk_goes_on_with_the_base)
{
    struct blk_job_options o = { .kind = BLK_JOB_COMMIT };
    struct blk_job *j;
    struct err e = ERR_INIT;
    AUTO_FREE char *base = NULL;
    struct blk_node *image;

    setup();
    begin_chain();
    base = path(_i ? "base" : "mid");
    image = blk_disk_image(disk);
    o.base = blk_child(image, BLK_BACKING);
    o.base = _i ? blk_child(o.base, BLK_BACKING) : o.base;
    blk_drain_begin(disk);
    ck_assert_msg(blk_reopen_base(disk, o.base, -1, &e) == 0, "%s", e.msg);
    blk_drain_end(disk);
    o.base = blk_child(image, BLK_BACKING);
    o.base = _i ? blk_child(o.base, BLK_BACKING) : o.base;
    j = start(&o);
    until(j, BLK_JOB_READY, true);
    write_for(10);
    ck_assert_int_eq(blk_job_complete(j, &e), 0);
    ended_well(j, true);
    ck_assert_str_eq(blk_path(disk), base);
    write_for(10);
    blk_close(disk);
    disk = blk_disk_new(pool, open_image(_i ? "base" : "mid", "qcow2", false));
    teardown();
}
END_TEST

START_TEST(jobs_pause_and_are_refused_twice)
{
    struct blk_job_options o = { .kind = BLK_JOB_MIRROR, .speed = 1 << 20 }, second;
    struct blk_job *j, *other;
    struct err e = ERR_INIT;
    unsigned which;
    uint64_t done;

    setup();
    begin("raw");
    o.target = target("copy", "raw");
    j = start(&o);
    second = o;
    second.id = "job1";
    ck_assert_int_eq(blk_jobs_start(jobs, &second, 1, &other, &which, &e), -EBUSY);
    blk_job_pause(j);
    ck_assert_int_eq(info(j).state, BLK_JOB_PAUSED);
    write_for(20);
    done = info(j).done;
    write_for(20);
    ck_assert_uint_eq(info(j).done, done);
    ck_assert_int_eq(blk_job_resume(j, &e), 0);
    blk_job_set_speed(j, 0);
    until(j, BLK_JOB_READY, true);
    blk_job_cancel(j, true);
    until(j, BLK_JOB_ENDED, false);
    ck_assert_int_eq(info(j).error, -ECANCELED);
    blk_job_free(j);
    teardown();
}
END_TEST

static Suite *suite_jobs(void)
{
    Suite *s = suite_create("block jobs");
    TCase *t = tcase_create("block jobs");

    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, mirror_of_a_busy_disk_takes_its_place, 0, 2);
    tcase_add_test(t, mirror_that_is_left_is_a_whole_copy);
    tcase_add_loop_test(t, mirror_of_a_disk_that_stands_still_ends_by_itself, 0, 3);
    tcase_add_loop_test(t, backup_is_the_disk_as_it_was, 0, 3);
    tcase_add_test(t, incremental_backups_add_up);
    tcase_add_loop_test(t, stream_makes_the_disk_stand_alone, 0, 2);
    tcase_add_test(t, commit_of_the_middle_shortens_the_chain);
    tcase_add_loop_test(t, commit_of_the_disk_goes_on_with_the_base, 0, 2);
    tcase_add_test(t, jobs_pause_and_are_refused_twice);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_jobs, NULL);
}
