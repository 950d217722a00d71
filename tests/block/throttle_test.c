/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on disks (throttle.c), by a clock of our own: users who always want more are let work for so many seconds of that
 * clock, and what they got is counted.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "storage/disk.h"
#include "storage/image.h"
#include "storage/throttle.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 1 << 20, DISKS = 3, DEPTH = 4, WANTS = 16 };
#define S_NS INT64_C(1000000000)

struct user {
    struct blk_node *node;
    enum blk_op op;
    uint32_t length;
    bool stop;
    struct blk_req req[DEPTH];
    unsigned out; /* submitted, not done */
    uint64_t bytes, ops, order[WANTS], n_order;
    int result;
};

static struct loop *loop;
static struct blk_pool *pool;
static struct blk_node *disk[DISKS];
static char *image[DISKS];
static uint8_t data[SIZE];
static struct iovec iov = { data, SIZE };
static int64_t now;
static struct user user[WANTS];
static unsigned n_users;

static int64_t clock_of_ours(void)
{
    return now;
}

static void setup(void)
{
    const struct blk_pool_options po = { .clock = clock_of_ours,
                                         .io_threads = test_io_threads() };
    struct err e = ERR_INIT;

    now = 5;
    n_users = 0;
    memset(user, 0, sizeof(user));
    loop = loop_new(&e);
    ck_assert_int_eq(blk_pool_new(loop, &po, &pool, &e), 0);
    for (unsigned i = 0; i < DISKS; i++) {
        char name[] = "/tmp/vmd-throttle.XXXXXX";
        int fd = mkstemp(name);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(ftruncate(fd, SIZE), 0);
        close(fd);
        image[i] = xstrdup(name);
        const struct blk_options o = { .name = i == 0   ? "vda"
                                               : i == 1 ? "vdb"
                                                        : "vdc",
                                       .driver = "raw",
                                       .path = name,
                                       .fd = -1 };
        ck_assert_msg(blk_open(pool, &o, &disk[i], &e) == 0, "%s", e.msg);
        disk[i] = blk_disk_new(pool, disk[i]);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < DISKS; i++) {
        blk_close(disk[i]);
        unlink(image[i]);
        free(image[i]);
    }
    ck_assert_int_eq(blk_throttle_poll(pool), -1);
    blk_pool_free(pool);
    loop_free(loop);
}

static void on_done(struct blk_req *r, int rc)
{
    struct user *u = r->arg;

    u->out--;
    u->result = rc;
    if (rc == 0) {
        u->bytes += r->length;
        u->ops++;
    }
    if (u->n_order < WANTS) {
        u->order[u->n_order++] = (uint64_t)(r - u->req);
    }
    if (!u->stop) {
        u->out++;
        blk_submit(u->node, r);
    }
}

static struct user *use(struct blk_node *n, enum blk_op op, uint32_t length, unsigned depth,
                        bool once)
{
    struct user *u = &user[n_users++];

    *u = (struct user){ .node = n, .op = op, .length = length, .stop = once };
    for (unsigned i = 0; i < depth; i++) {
        u->req[i] = (struct blk_req){
            .op = op, .length = length, .iov = &iov, .n_iov = 1, .done = on_done, .arg = u
        };
        u->out++;
        blk_submit(n, &u->req[i]);
    }
    return u;
}

/* Until all that is out waits for a limit. */
static void settle(void)
{
    struct err e = ERR_INIT;

    for (;;) {
        unsigned out = 0, wait = 0;

        for (unsigned i = 0; i < n_users; i++) {
            out += user[i].out;
        }
        for (unsigned i = 0; i < DISKS; i++) {
            wait += blk_throttle_waiting(disk[i]);
        }
        if (out == wait) {
            return;
        }
        ck_assert_int_ge(loop_run_once(loop, 1000000, &e), 0);
    }
}

/* So much time of our clock. */
static void let_work(int64_t ns)
{
    int64_t end = now + ns;

    for (;;) {
        settle();
        int64_t next = blk_throttle_poll(pool);
        settle();
        if (blk_throttle_poll(pool) != next) {
            continue;
        }
        if (next < 0 || now + next > end) {
            now = end;
            return;
        }
        now += next > 0 ? next : 1;
        (void)blk_throttle_poll(pool);
    }
}

static void stop(void)
{
    for (unsigned i = 0; i < n_users; i++) {
        user[i].stop = true;
    }
}

static struct limits limit(enum limit_kind kind, uint64_t rate, uint64_t burst, uint64_t length)
{
    struct limits l = { 0 };

    l.at[kind] = (struct limit){ .rate = rate, .burst = burst, .length = length };
    return l;
}

static void set(unsigned i, const char *group, struct limits l)
{
    struct err e = ERR_INIT;

    ck_assert_msg(blk_throttle_set(disk[i], group, &l, &e) == 0, "%s", e.msg);
}

/* What is allowed, and what must be had: all of it but a request that is too large for what is left. */
static void had(uint64_t got, double rate, double seconds, double size, double one)
{
    ck_assert_msg((double)got <= rate * seconds + size + one, "%llu is too much",
                  (unsigned long long)got);
    ck_assert_msg((double)got >= rate * seconds + size - one, "%llu is too little",
                  (unsigned long long)got);
}

START_TEST(bytes_a_second_are_kept)
{
    setup();
    set(0, NULL, limit(LIMIT_BYTES, 1 << 20, 0, 0));
    struct user *u = use(disk[0], _i ? BLK_WRITE : BLK_READ, 65536, DEPTH, false);
    let_work(10 * S_NS);
    had(u->bytes, 1 << 20, 10, (1 << 20) / 10.0, 65536);
    let_work(10 * S_NS);
    had(u->bytes, 1 << 20, 20, (1 << 20) / 10.0, 65536);
    stop();
    teardown();
}
END_TEST

START_TEST(requests_a_second_are_kept)
{
    setup();
    set(0, NULL, limit(LIMIT_WRITE_OPS, 50, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 512, DEPTH, false);
    struct user *z = use(disk[0], BLK_ZERO, 512, 1, false);
    struct user *d = use(disk[0], BLK_DISCARD, 512, 1, false);
    let_work(10 * S_NS);
    had(u->ops + z->ops + d->ops, 50, 10, 5, 1);
    stop();
    teardown();
}
END_TEST

START_TEST(a_large_request_counts_as_several)
{
    setup();
    struct limits l = limit(LIMIT_OPS, 40, 0, 0);
    l.op_size = 4096;
    set(0, NULL, l);
    struct user *u = use(disk[0], BLK_WRITE, 16384, DEPTH, false);
    let_work(10 * S_NS);
    had(u->ops * 4, 40, 10, 4, 4);
    stop();
    teardown();
}
END_TEST

START_TEST(what_has_no_limit_goes_on)
{
    setup();
    set(0, NULL, limit(LIMIT_WRITE_BYTES, 4096, 0, 0));
    use(disk[0], BLK_WRITE, 65536, DEPTH, false);
    let_work(S_NS);
    struct user *r = use(disk[0], BLK_READ, 65536, DEPTH, true);
    struct user *f = use(disk[0], BLK_FLUSH, 0, 1, true);
    struct user *other = use(disk[1], BLK_WRITE, 65536, DEPTH, true);
    settle();
    ck_assert_uint_eq(r->ops, DEPTH);
    ck_assert_uint_eq(f->ops, 1);
    ck_assert_uint_eq(other->ops, DEPTH);
    stop();
    teardown();
}
END_TEST

START_TEST(a_burst_lasts_as_long_as_it_may)
{
    setup();
    /* 2 s at 1 MiB/s for a guest that did nothing before, then 100 KiB/s */
    set(0, NULL, limit(LIMIT_BYTES, 100 << 10, 1 << 20, 2));
    struct user *u = use(disk[0], BLK_READ, 4096, DEPTH, false);
    let_work(S_NS);
    had(u->bytes, 1 << 20, 1, (1 << 20) / 10.0, 4096);
    let_work(9 * S_NS);
    had(u->bytes, 100 << 10, 10, 2 << 20, 4096);
    stop();
    teardown();
}
END_TEST

START_TEST(disks_of_a_group_share_its_limit)
{
    struct user *u[DISKS];
    uint64_t all = 0;

    setup();
    for (unsigned i = 0; i < DISKS; i++) {
        set(i, "tenant", limit(LIMIT_BYTES, 3 << 20, 0, 0));
        u[i] = use(disk[i], i ? BLK_WRITE : BLK_READ, 32768, i + 1, false);
    }
    let_work(10 * S_NS);
    for (unsigned i = 0; i < DISKS; i++) {
        all += u[i]->bytes;
    }
    had(all, 3 << 20, 10, (3 << 20) / 10.0, 32768);
    /* the one that reads has a direction for itself; those that write take turns, however deep their queues are */
    ck_assert_uint_ge(u[0]->bytes, all * 4 / 10);
    ck_assert_uint_ge(u[1]->bytes, all * 2 / 10);
    ck_assert_uint_ge(u[2]->bytes, all * 2 / 10);
    stop();
    teardown();
}
END_TEST

START_TEST(a_limit_can_be_changed_and_lifted_while_requests_wait)
{
    const char *group = "";
    struct limits l;

    setup();
    set(0, NULL, limit(LIMIT_BYTES, 1000, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 65536, DEPTH, true);
    let_work(S_NS);
    ck_assert_uint_eq(u->ops, 1);
    ck_assert_uint_eq(blk_throttle_waiting(disk[0]), DEPTH - 1);
    set(0, "other", limit(LIMIT_BYTES, 65536, 0, 0));
    ck_assert(blk_throttle_get(disk[0], &l, &group));
    ck_assert_str_eq(group, "other");
    ck_assert_uint_eq(l.at[LIMIT_BYTES].rate, 65536);
    let_work(S_NS / 2);
    ck_assert_uint_eq(u->ops, 2); /* a new bucket is empty */
    set(0, NULL, (struct limits){ 0 });
    settle();
    ck_assert_uint_eq(u->ops, DEPTH);
    ck_assert(!blk_throttle_get(disk[0], &l, &group));
    uint64_t seen = 0; /* those that were let go at once end in any order */
    for (unsigned i = 0; i < DEPTH; i++) {
        ck_assert(i >= 2 || u->order[i] == i);
        seen |= 1ull << u->order[i];
    }
    ck_assert_uint_eq(seen, UINT64_MAX >> (64 - DEPTH));
    teardown();
}
END_TEST

START_TEST(asking_again_and_again_gives_no_more)
{
    setup();
    set(0, NULL, limit(LIMIT_BYTES, 1 << 20, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 65536, DEPTH, false);
    for (unsigned i = 0; i < 1000; i++) {
        let_work(S_NS / 100);
        set(0, NULL, limit(LIMIT_BYTES, 1 << 20, 0, 0));
    }
    had(u->bytes, 1 << 20, 10, (1 << 20) / 10.0, 65536);
    stop();
    teardown();
}
END_TEST

START_TEST(a_reset_takes_back_what_waits)
{
    setup();
    set(0, NULL, limit(LIMIT_OPS, 1, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 512, DEPTH, true);
    settle();
    ck_assert(blk_cancel(&u->req[2]));
    settle();
    ck_assert_int_eq(u->result, -ECANCELED);
    blk_abandon(disk[0]);
    ck_assert_uint_eq(blk_throttle_waiting(disk[0]), 0);
    settle();
    ck_assert_uint_eq(u->ops, 1);
    ck_assert_uint_eq(u->out, 0);
    teardown();
}
END_TEST

START_TEST(before_a_snapshot_what_waits_is_done_and_made_up_for)
{
    setup();
    set(0, NULL, limit(LIMIT_OPS, 10, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 512, DEPTH, true);
    settle();
    ck_assert_uint_eq(u->ops, 2);
    blk_settle(disk[0]);
    settle();
    ck_assert_uint_eq(u->ops, DEPTH);
    struct user *v = use(disk[0], BLK_WRITE, 512, 1, true);
    let_work(S_NS / 5);
    ck_assert_uint_eq(v->ops, 0);
    let_work(S_NS / 5);
    ck_assert_uint_eq(v->ops, 1);
    teardown();
}
END_TEST

START_TEST(what_waits_is_not_in_flight_while_a_job_looks)
{
    setup();
    set(0, NULL, limit(LIMIT_OPS, 10, 0, 0));
    struct user *u = use(disk[0], BLK_WRITE, 512, DEPTH, true);
    settle();
    blk_drain_begin(disk[0]);
    now += 10 * S_NS;
    ck_assert_int_eq(blk_throttle_poll(pool), -1);
    ck_assert_uint_eq(u->ops, 2);
    blk_drain_end(disk[0]);
    settle();
    ck_assert_uint_eq(u->ops, DEPTH);
    teardown();
}
END_TEST

START_TEST(limits_that_contradict_are_refused)
{
    struct limits bad[7] = { { { { 0 } }, 0 } };
    struct err e = ERR_INIT;

    setup();
    bad[0] = limit(LIMIT_BYTES, 5, 0, 0);
    bad[0].at[LIMIT_READ_BYTES].rate = 5;
    bad[1] = limit(LIMIT_OPS, 0, 5, 0);
    bad[2] = limit(LIMIT_OPS, 5, 4, 0);
    bad[3] = limit(LIMIT_OPS, 5, 0, 2);
    bad[4] = limit(LIMIT_BYTES, 5, 0, 0);
    bad[4].op_size = 512;
    bad[5] = limit(LIMIT_OPS, LIMIT_MAX + 1, 0, 0);
    bad[6] = limit(LIMIT_OPS, 5, LIMIT_MAX, 2);
    for (unsigned i = 0; i < 7; i++) {
        ck_assert_int_eq(blk_throttle_set(disk[0], NULL, &bad[i], &e), -EINVAL);
    }
    teardown();
}
END_TEST

/* A bucket against its promise, in each window of a random life. */
START_TEST(a_bucket_never_gives_more_than_it_promises)
{
    uint64_t seed = test_seed();

    for (unsigned round = 0; round < 200; round++) {
        struct bucket b = { .limit = { .rate = 1 + test_random(&seed) % 1000000 } };
        double size = (double)b.limit.rate / 10, given = 0;
        uint64_t largest = 1 + test_random(&seed) % 100000;
        int64_t t = 0, since = 0;

        if (test_random(&seed) % 2) {
            b.limit.burst = b.limit.rate * (1 + test_random(&seed) % 9);
            b.limit.length = 1 + test_random(&seed) % 5;
            size = (double)(b.limit.burst * b.limit.length);
        }
        for (unsigned i = 0; i < 500; i++) {
            uint64_t units = 1 + test_random(&seed) % largest;
            int64_t wait = bucket_wait(&b);

            if (test_random(&seed) % 50 == 0) { /* a new window */
                since = t;
                given = 0;
            }
            wait += test_random(&seed) % 20 == 0 ? (int64_t)(test_random(&seed) % S_NS) : 0;
            t += wait;
            bucket_leak(&b, wait);
            if (bucket_wait(&b) == 0) {
                bucket_fill(&b, (double)units);
                given += (double)units;
            }
            double may = (double)b.limit.rate * (double)(t - since) / 1e9 + size +
                         (double)largest + 1;
            ck_assert(given <= may);
        }
        ck_assert(t > 0);
    }
}
END_TEST

static Suite *suite_throttle(void)
{
    Suite *s = suite_create("limits of disks");
    TCase *t = tcase_create("limits of disks");

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, bytes_a_second_are_kept, 0, 2);
    tcase_add_test(t, requests_a_second_are_kept);
    tcase_add_test(t, a_large_request_counts_as_several);
    tcase_add_test(t, what_has_no_limit_goes_on);
    tcase_add_test(t, a_burst_lasts_as_long_as_it_may);
    tcase_add_test(t, disks_of_a_group_share_its_limit);
    tcase_add_test(t, a_limit_can_be_changed_and_lifted_while_requests_wait);
    tcase_add_test(t, asking_again_and_again_gives_no_more);
    tcase_add_test(t, a_reset_takes_back_what_waits);
    tcase_add_test(t, before_a_snapshot_what_waits_is_done_and_made_up_for);
    tcase_add_test(t, what_waits_is_not_in_flight_while_a_job_looks);
    tcase_add_test(t, limits_that_contradict_are_refused);
    tcase_add_test(t, a_bucket_never_gives_more_than_it_promises);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_throttle, NULL);
}
