/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block nodes on real files: transfers, bounds, order of flushes, holes, locks between processes,
 * closing with requests in flight.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (1u << 20)

struct fixture {
    struct loop *loop;
    struct blk_pool *pool;
    char path[64];
};

static void set_up(struct fixture *f)
{
    struct err e = ERR_INIT;
    int fd;

    strcpy(f->path, "/tmp/vmd-block-test-XXXXXX");
    fd = mkstemp(f->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, SIZE), 0);
    close(fd);
    f->loop = loop_new(&e);
    ck_assert_int_eq(blk_pool_new(f->loop,
                                  &(struct blk_pool_options){ .io_threads = test_io_threads() },
                                  &f->pool, &e),
                     0);
    /* All of them, or none where the kernel has no ring. */
    ck_assert(blk_pool_io_threads(f->pool) == test_io_threads() ||
              blk_pool_io_threads(f->pool) == 0);
}

static void tear_down(struct fixture *f)
{
    blk_pool_free(f->pool);
    loop_free(f->loop);
    unlink(f->path);
}

static int open_node(struct fixture *f, bool readonly, struct blk_node **n, struct err *e)
{
    struct blk_options o = {
        .name = "root", .driver = "raw", .path = f->path, .fd = -1, .readonly = readonly
    };

    return blk_open(f->pool, &o, n, e);
}

static struct blk_node *must_open(struct fixture *f, bool readonly)
{
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;

    ck_assert_msg(open_node(f, readonly, &n, &e) == 0, "%s", e.msg);
    return n;
}

struct wait {
    bool done;
    int result;
};

static void on_done(struct blk_req *r, int result)
{
    struct wait *w = r->arg;

    ck_assert(!w->done);
    w->done = true;
    w->result = result;
}

static int run(struct fixture *f, struct blk_node *n, struct blk_req r)
{
    struct wait w = { .done = false };

    r.done = on_done;
    r.arg = &w;
    blk_submit(n, &r);
    ck_assert(!w.done); /* never from within submit */
    while (!w.done) {
        ck_assert_int_eq(loop_run_once(f->loop, -1, NULL), 0);
    }
    return w.result;
}

/* How often the kernel takes nothing before it does; the linker puts this in the place of liburing's. */
static atomic_int refusals;

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring)
{
    if (io_uring_sq_ready(ring) > 0 && atomic_load(&refusals) > 0) {
        atomic_fetch_sub(&refusals, 1);
        return -ENOMEM;
    }
    return __real_io_uring_submit(ring);
}

static int transfer(struct fixture *f, struct blk_node *n, enum blk_op op, uint64_t at, void *p,
                    size_t len)
{
    struct iovec iov = { .iov_base = p, .iov_len = len };

    return run(
        f, n,
        (struct blk_req){ .op = op, .offset = at, .length = len, .iov = &iov, .n_iov = 1 });
}

START_TEST(what_is_written_is_read_back_in_pieces)
{
    struct fixture f;
    uint64_t seed = test_seed();
    struct blk_node *n;
    AUTO_FREE uint8_t *shadow = xalloc(SIZE);
    AUTO_FREE uint8_t *data = xalloc(SIZE);

    set_up(&f);
    n = must_open(&f, false);
    ck_assert_uint_eq(blk_size(n), SIZE);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t at = test_random(&seed) % SIZE, left = SIZE - at,
                 len = test_random(&seed) % 70000;
        struct iovec iov[300];
        unsigned parts = 0;
        size_t used = 0;

        len = len < left ? len : left;
        for (size_t j = 0; j < len; j++) {
            data[j] = (uint8_t)test_random(&seed);
        }
        while (used < len) {
            size_t piece = parts == 299 ? len - used : 1 + test_random(&seed) % 600;

            piece = piece < len - used ? piece : len - used;
            iov[parts++] = (struct iovec){ .iov_base = data + used, .iov_len = piece };
            used += piece;
        }
        ck_assert_int_eq(
            run(&f, n,
                (struct blk_req){
                    .op = BLK_WRITE, .offset = at, .length = len, .iov = iov, .n_iov = parts }),
            0);
        memcpy(shadow + at, data, len);
        memset(data, 0, len);
        ck_assert_int_eq(
            run(&f, n,
                (struct blk_req){
                    .op = BLK_READ, .offset = at, .length = len, .iov = iov, .n_iov = parts }),
            0);
        ck_assert_int_eq(memcmp(shadow + at, data, len), 0);
    }
    ck_assert_int_eq(run(&f, n, (struct blk_req){ .op = BLK_FLUSH }), 0);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, 0, data, SIZE), 0);
    ck_assert_int_eq(memcmp(shadow, data, SIZE), 0);
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(requests_out_of_range_or_against_read_only_fail)
{
    struct fixture f;
    struct blk_node *n;
    uint8_t b[1024];

    set_up(&f);
    n = must_open(&f, true);
    ck_assert(blk_readonly(n));
    ck_assert_int_eq(transfer(&f, n, BLK_READ, SIZE - 512, b, 1024), -EINVAL);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, UINT64_MAX - 511, b, 1024), -EINVAL);
    ck_assert_int_eq(transfer(&f, n, BLK_WRITE, 0, b, 512), -EROFS);
    ck_assert_int_eq(run(&f, n, (struct blk_req){ .op = BLK_ZERO, .length = 512 }), -EROFS);
    ck_assert_int_eq(run(&f, n, (struct blk_req){ .op = BLK_DISCARD, .length = 512 }), -EROFS);
    ck_assert_int_eq(run(&f, n, (struct blk_req){ .op = BLK_FLUSH }), 0);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, SIZE, b, 0), 0);
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(zeroes_and_holes_read_as_zeroes_and_show_in_the_map)
{
    struct fixture f;
    struct blk_node *n;
    struct blk_extent x;
    AUTO_FREE uint8_t *b = xalloc(SIZE);

    set_up(&f);
    n = must_open(&f, false);
    memset(b, 0x77, SIZE);
    ck_assert_int_eq(transfer(&f, n, BLK_WRITE, 0, b, SIZE), 0);
    ck_assert_int_eq(
        run(&f, n, (struct blk_req){ .op = BLK_ZERO, .offset = 512, .length = 1024 }), 0);
    ck_assert_int_eq(
        run(&f, n,
            (struct blk_req){
                .op = BLK_ZERO, .flags = BLK_UNMAP, .offset = 131072, .length = 131072 }),
        0);
    ck_assert_int_eq(
        run(&f, n, (struct blk_req){ .op = BLK_DISCARD, .offset = 524288, .length = 4096 }), 0);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, 0, b, SIZE), 0);
    ck_assert(b[511] == 0x77 && b[512] == 0 && b[1535] == 0 && b[1536] == 0x77);
    ck_assert(b[131071] == 0x77 && b[131072] == 0 && b[262143] == 0 && b[262144] == 0x77);
    for (uint64_t at = 0; at < SIZE; at += x.length) {
        ck_assert_int_eq(blk_map(n, at, &x, NULL), 0);
        ck_assert_uint_gt(x.length, 0);
        ck_assert(x.data || (b[at] == 0 && memcmp(b + at, b + at + 1, x.length - 1) == 0));
    }
    ck_assert_int_lt(blk_map(n, SIZE, &x, NULL), 0);
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(file_that_shrank_gives_an_error_not_zeroes)
{
    struct fixture f;
    struct blk_node *n;
    struct blk_counters c;
    uint8_t b[512];

    set_up(&f);
    n = must_open(&f, false);
    ck_assert_int_eq(truncate(f.path, SIZE / 2), 0);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, SIZE - 512, b, 512), -EIO);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, 0, b, 512), 0);
    blk_count(n, &c);
    ck_assert(c.errors == 1 && c.reads == 1 && c.read_bytes == 512);
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(close_and_wait_idle_leave_nothing_in_flight)
{
    struct fixture f;
    struct wait w[64];
    struct blk_req r[64];
    AUTO_FREE uint8_t *b = xalloc(65536);
    struct iovec iov = { .iov_base = b, .iov_len = 65536 };

    set_up(&f);
    for (unsigned round = 0; round < 20; round++) {
        struct blk_node *n = must_open(&f, false);

        memset(w, 0, sizeof(w));
        for (unsigned i = 0; i < 64; i++) {
            r[i] = (struct blk_req){ .op = BLK_READ,
                                     .offset = i * 4096,
                                     .length = 65536,
                                     .iov = &iov,
                                     .n_iov = 1,
                                     .done = on_done,
                                     .arg = &w[i] };
            blk_submit(n, &r[i]);
        }
        blk_wait_idle(n);
        memset(b, 0xcc, 65536);
        blk_close(n);
        ck_assert_int_eq(loop_run_once(f.loop, 0, NULL), 0);
        ck_assert_int_eq(b[0], 0xcc);
        ck_assert_int_eq(memcmp(b, b + 1, 65535), 0); /* all the same */
        for (unsigned i = 0; i < 64; i++) {
            ck_assert(!w[i].done); /* dropped with the node */
        }
    }
    tear_down(&f);
}
END_TEST

START_TEST(bad_images_are_refused_by_name)
{
    struct fixture f;
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;
    struct blk_options o = { .name = "root", .driver = "qcow9", .fd = -1 };

    set_up(&f);
    o.path = f.path;
    ck_assert_int_lt(blk_open(f.pool, &o, &n, &e), 0);
    ck_assert_ptr_nonnull(strstr(e.msg, "qcow9"));
    o.driver = "raw";
    o.path = "/nonexistent/image";
    ck_assert_int_eq(blk_open(f.pool, &o, &n, &e), -ENOENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "disk 'root'"));
    o.path = "/tmp";
    o.readonly = true;
    ck_assert_int_lt(blk_open(f.pool, &o, &n, &e), 0);
    o.path = f.path;
    o.readonly = false;
    ck_assert_int_eq(truncate(f.path, 1000), 0);
    ck_assert_int_eq(blk_open(f.pool, &o, &n, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, "multiple of 512"));
    ck_assert_int_eq(truncate(f.path, 1024), 0);
    o.fd = open(f.path, O_RDONLY);
    ck_assert_int_eq(blk_open(f.pool, &o, &n, &e), -EACCES);
    ck_assert_int_eq(fcntl(o.fd, F_GETFD), 0); /* still the caller's */
    close(o.fd);
    ck_assert_ptr_null(n);
    tear_down(&f);
}
END_TEST

START_TEST(writer_locks_out_all_and_readers_share)
{
    struct fixture f;
    struct blk_node *one = NULL, *two = NULL;
    struct err e = ERR_INIT;

    set_up(&f);
    one = must_open(&f, true);
    two = must_open(&f, true);
    blk_close(two);
    two = NULL;
    ck_assert_int_eq(open_node(&f, false, &two, &e), -EBUSY);
    blk_close(one);
    one = must_open(&f, false);
    ck_assert_int_eq(open_node(&f, true, &two, &e), -EBUSY);
    ck_assert_int_eq(open_node(&f, false, &two, &e), -EBUSY);
    blk_close(one);
    one = must_open(&f, false);
    blk_close(one);
    tear_down(&f);
}
END_TEST

START_TEST(lock_names_its_holder_and_dies_with_it)
{
    struct fixture f;
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;
    int ready[2];
    char byte, want[64];
    pid_t pid;

    set_up(&f);
    ck_assert_int_eq(pipe(ready), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct fixture child = f;

        child.loop = loop_new(&e);
        if (!child.loop ||
            blk_pool_new(child.loop,
                         &(struct blk_pool_options){ .io_threads = test_io_threads() },
                         &child.pool, &e) != 0 ||
            open_node(&child, false, &n, &e) != 0) {
            _exit(1);
        }
        prctl(PR_SET_NAME, "vm:db1", 0, 0, 0);
        if (write(ready[1], "x", 1) != 1) {
            _exit(1);
        }
        pause();
        _exit(0);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(open_node(&f, true, &n, &e), -EBUSY);
    snprintf(want, sizeof(want), "disk 'root' is locked by VM 'db1' (pid %d)", (int)pid);
    ck_assert_str_eq(e.msg, want);
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    n = must_open(&f, false);
    blk_close(n);
    close(ready[0]);
    close(ready[1]);
    tear_down(&f);
}
END_TEST

static void count_flushes(void *arg, const struct blk_req *r)
{
    *(unsigned *)arg += r->op == BLK_FLUSH;
}

START_TEST(durable_writes_are_flushed_before_they_complete)
{
    static const enum blk_op changes[] = { BLK_WRITE, BLK_ZERO, BLK_DISCARD };
    struct fixture f;
    unsigned flushes = 0;
    struct blk_tap tap = { .event = count_flushes, .arg = &flushes };
    struct blk_options o = {
        .name = "root", .driver = "raw", .fd = -1, .durable = true, .tap = &tap
    };
    struct blk_node *n = NULL;
    char data[4096] = "durable";
    struct err e = ERR_INIT;

    set_up(&f);
    o.path = f.path;
    ck_assert_msg(blk_open(f.pool, &o, &n, &e) == 0, "%s", e.msg);
    for (unsigned i = 0; i < ARRAY_LEN(changes); i++) {
        ck_assert_int_eq(transfer(&f, n, changes[i], 0, data, sizeof(data)), 0);
        ck_assert_uint_eq(flushes, i + 1);
    }
    ck_assert_int_eq(transfer(&f, n, BLK_READ, 0, data, sizeof(data)), 0);
    ck_assert_uint_eq(flushes, 3);
    ck_assert_int_eq(blk_pwrite(n, 512, data, 512), 0);
    ck_assert_uint_eq(flushes, 4);
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(staged_requests_do_not_need_the_loop)
{
    struct fixture f;
    struct wait w[8] = { 0 };
    struct blk_req r[8];
    char data[8][512];
    struct iovec iov[8];
    struct blk_node *n;
    bool taken;

    set_up(&f);
    n = must_open(&f, false);
    for (unsigned i = 0; i < 8; i++) {
        memset(data[i], 'a' + (int)i, 512);
        iov[i] = (struct iovec){ .iov_base = data[i], .iov_len = 512 };
        r[i] = (struct blk_req){ .op = BLK_WRITE,
                                 .offset = i * 512,
                                 .length = 512,
                                 .iov = &iov[i],
                                 .n_iov = 1,
                                 .done = on_done,
                                 .arg = &w[i] };
        blk_submit(n, &r[i]);
    }
    taken = blk_cancel(&r[3]); /* without a ring a thread may have begun it */
    blk_wait_idle(n);          /* no turn of the loop in between */
    ck_assert(!w[0].done);
    while (!w[7].done || !w[3].done) {
        ck_assert_int_eq(loop_run_once(f.loop, -1, NULL), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        char back[512];

        ck_assert(w[i].done && w[i].result == (i == 3 && taken ? -ECANCELED : 0));
        ck_assert_int_eq(blk_pread(n, i * 512, back, 512), 0);
        ck_assert_int_eq(back[0], i == 3 && taken ? 0 : 'a' + (int)i);
    }
    blk_close(n);
    tear_down(&f);
}
END_TEST

START_TEST(what_the_kernel_does_not_take_it_gets_again)
{
    struct fixture f;
    char data[512] = "once", back[512] = "";
    struct iovec iov = { .iov_base = data, .iov_len = sizeof(data) };
    struct wait w = { .done = false };
    struct blk_req r = { .op = BLK_WRITE,
                         .offset = 512,
                         .length = sizeof(data),
                         .iov = &iov,
                         .n_iov = 1,
                         .done = on_done,
                         .arg = &w };
    struct blk_node *n;

    set_up(&f);
    n = must_open(&f, false);
    atomic_store(&refusals, 3);
    ck_assert_int_eq(transfer(&f, n, BLK_WRITE, 0, data, sizeof(data)), 0);
    atomic_store(&refusals, 3);
    ck_assert_int_eq(transfer(&f, n, BLK_READ, 0, back, sizeof(back)), 0);
    ck_assert_str_eq(back, "once");
    atomic_store(&refusals, 3); /* and nobody but who waits for it is there to do so */
    blk_submit(n, &r);
    ck_assert_int_eq(loop_run_once(f.loop, 0, NULL), 0);
    blk_wait_idle(n);
    while (!w.done) {
        ck_assert_int_eq(loop_run_once(f.loop, -1, NULL), 0);
    }
    ck_assert_int_eq(w.result, 0);
    atomic_store(&refusals, 0); /* where no ring is */
    blk_close(n);
    tear_down(&f);
}
END_TEST

static Suite *suite_block(void)
{
    Suite *s = suite_create("block");
    TCase *t = tcase_create("file and raw");

    tcase_set_timeout(t, 120); /* guards against hangs on a busy machine */

    tcase_add_test(t, what_is_written_is_read_back_in_pieces);
    tcase_add_test(t, requests_out_of_range_or_against_read_only_fail);
    tcase_add_test(t, zeroes_and_holes_read_as_zeroes_and_show_in_the_map);
    tcase_add_test(t, file_that_shrank_gives_an_error_not_zeroes);
    tcase_add_test(t, close_and_wait_idle_leave_nothing_in_flight);
    tcase_add_test(t, bad_images_are_refused_by_name);
    tcase_add_test(t, durable_writes_are_flushed_before_they_complete);
    tcase_add_test(t, staged_requests_do_not_need_the_loop);
    tcase_add_test(t, what_the_kernel_does_not_take_it_gets_again);
    tcase_add_test(t, writer_locks_out_all_and_readers_share);
    tcase_add_test(t, lock_names_its_holder_and_dies_with_it);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_block, NULL);
}
