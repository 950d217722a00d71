/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of virtual time and timers. Real time passes only to let things happen; nothing is
 * asserted about how much.
 */
#include "engine/core/clock.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define MS 1000000ull

struct fired {
    struct clock *c;
    struct vtimer *t;
    _Atomic unsigned n;
    uint64_t last;
    unsigned *order, place;
    uint64_t again; /* re-arm for this */
    bool stop_clock, free_self;
};

static void on_timer(void *arg)
{
    struct fired *f = arg;
    atomic_fetch_add(&f->n, 1);
    f->last = clock_now(f->c);
    if (f->order) {
        f->place = ++*f->order;
    }
    if (f->again) {
        vtimer_arm(f->t, f->again);
    }
    if (f->stop_clock) {
        clock_stop(f->c);
    }
    if (f->free_self) {
        vtimer_free(f->t);
        f->t = NULL;
    }
}

struct fixture {
    struct loop *loop;
    struct clock *c;
};

static void make(struct fixture *x)
{
    struct err e = ERR_INIT;
    x->loop = loop_new(&e);
    x->c = clock_new(x->loop, &e);
}

static void drop(struct fixture *x)
{
    clock_free(x->c);
    loop_run_once(x->loop, 0, NULL);
    loop_free(x->loop);
}

static void turn(struct fixture *x)
{
    loop_run_once(x->loop, 2 * (int64_t)MS, NULL);
}

START_TEST(time_stands_still_while_stopped)
{
    struct fixture x;
    make(&x);
    ck_assert_uint_eq(clock_now(x.c), 0);
    turn(&x);
    ck_assert_uint_eq(clock_now(x.c), 0);
    clock_start(x.c);
    clock_start(x.c);
    while (clock_now(x.c) == 0) {
    }
    clock_stop(x.c);
    clock_stop(x.c);
    uint64_t t = clock_now(x.c);
    turn(&x);
    ck_assert_uint_eq(clock_now(x.c), t);
    clock_start(x.c);
    ck_assert_uint_ge(clock_now(x.c), t);
    clock_stop(x.c);
    clock_set(x.c, 12345);
    ck_assert_uint_eq(clock_now(x.c), 12345);
    drop(&x);
}
END_TEST

START_TEST(wall_clock_has_an_offset)
{
    struct fixture x;
    make(&x);
    uint64_t now = clock_wall(x.c);
    ck_assert_uint_gt(now, 1600000000ull * 1000000000ull);
    clock_set_wall_offset(x.c, -1000000000000ll);
    ck_assert_uint_lt(clock_wall(x.c), now);
    drop(&x);
}
END_TEST

START_TEST(timers_fire_in_order_of_deadline_and_once)
{
    struct fixture x;
    make(&x);
    unsigned order = 0;
    struct fired f[20];
    memset(f, 0, sizeof(f));
    uint64_t rnd = test_seed();
    for (unsigned i = 0; i < 20; i++) {
        f[i] = (struct fired){ .c = x.c, .order = &order };
        f[i].t = vtimer_new(x.c, on_timer, &f[i]);
        vtimer_arm(f[i].t, test_random(&rnd) % (5 * MS)); /* the later of two arms counts */
        vtimer_arm(f[i].t, (i * 7 % 20) * MS / 10);
    }
    clock_start(x.c);
    while (order < 20) {
        turn(&x);
    }
    turn(&x);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(atomic_load(&f[i].n), 1);
        ck_assert_uint_eq(f[i].place, i * 7 % 20 + 1);
        ck_assert_uint_ge(f[i].last, (i * 7 % 20) * MS / 10);
        ck_assert_uint_eq(vtimer_deadline(f[i].t), UINT64_MAX);
        vtimer_free(f[i].t);
    }
    drop(&x);
}
END_TEST

START_TEST(timers_wait_for_a_stopped_clock)
{
    struct fixture x;
    make(&x);
    struct fired f = { .c = x.c };
    f.t = vtimer_new(x.c, on_timer, &f);
    vtimer_arm(f.t, 0);
    turn(&x);
    ck_assert_uint_eq(atomic_load(&f.n), 0);
    clock_start(x.c);
    while (atomic_load(&f.n) == 0) {
        turn(&x);
    }
    clock_stop(x.c);
    vtimer_arm(f.t, 5);
    ck_assert_uint_eq(vtimer_deadline(f.t), 5);
    turn(&x);
    ck_assert_uint_eq(atomic_load(&f.n), 1);
    vtimer_disarm(f.t);
    clock_start(x.c);
    turn(&x);
    ck_assert_uint_eq(atomic_load(&f.n), 1);
    vtimer_free(f.t);
    drop(&x);
}
END_TEST

START_TEST(timer_that_rearms_for_the_past_starves_nobody)
{
    struct fixture x;
    make(&x);
    struct fired f = { .c = x.c, .again = 1 }, other = { .c = x.c };
    f.t = vtimer_new(x.c, on_timer, &f);
    other.t = vtimer_new(x.c, on_timer, &other);
    vtimer_arm(f.t, 1);
    vtimer_arm(other.t, MS);
    clock_start(x.c);
    while (atomic_load(&other.n) == 0) { /* each turn ends */
        turn(&x);
    }
    ck_assert_uint_gt(atomic_load(&f.n), 1);
    vtimer_free(f.t);
    vtimer_free(other.t);
    drop(&x);
}
END_TEST

START_TEST(timer_function_may_stop_the_clock_and_free_its_timer)
{
    struct fixture x;
    make(&x);
    struct fired f[3] = { { .c = x.c, .stop_clock = true, .free_self = true },
                          { .c = x.c },
                          { .c = x.c } };
    for (unsigned i = 0; i < 3; i++) {
        f[i].t = vtimer_new(x.c, on_timer, &f[i]);
        vtimer_arm(f[i].t, i + 1);
    }
    clock_start(x.c);
    while (atomic_load(&f[0].n) == 0) {
        turn(&x);
    }
    turn(&x);
    ck_assert_uint_eq(atomic_load(&f[1].n), 0); /* due as well, but the clock stands */
    ck_assert_uint_eq(vtimer_deadline(f[1].t), 2);
    clock_start(x.c);
    while (atomic_load(&f[2].n) == 0) {
        turn(&x);
    }
    ck_assert_uint_eq(atomic_load(&f[1].n), 1);
    ck_assert_uint_eq(atomic_load(&f[0].n), 1);
    vtimer_free(f[1].t);
    vtimer_free(f[2].t);
    drop(&x);
}
END_TEST

struct armer {
    struct clock *c;
    struct fired *f;
    _Atomic bool end;
};

/* A vCPU's way: arms near and far deadlines at will, and waits for some of them. */
static void *arm_thread(void *arg)
{
    struct armer *a = arg;
    uint64_t rnd = 77;
    for (unsigned i = 0; i < 300; i++) {
        vtimer_arm(a->f->t, clock_now(a->c) + 1000 * MS);
        unsigned before = atomic_load(&a->f->n);
        vtimer_arm(a->f->t, clock_now(a->c) + test_random(&rnd) % 100000);
        while (atomic_load(&a->f->n) == before) {
            sched_yield();
        }
    }
    vtimer_disarm(a->f->t);
    atomic_store(&a->end, true);
    return NULL;
}

START_TEST(arming_from_other_threads_loses_no_deadline)
{
    struct fixture x;
    make(&x);
    struct fired f[3];
    struct armer a[3];
    pthread_t t[3];
    memset(f, 0, sizeof(f));
    clock_start(x.c);
    for (unsigned i = 0; i < 3; i++) {
        f[i].c = x.c;
        f[i].t = vtimer_new(x.c, on_timer, &f[i]);
        a[i] = (struct armer){ x.c, &f[i], false };
        pthread_create(&t[i], NULL, arm_thread, &a[i]);
    }
    while (!atomic_load(&a[0].end) || !atomic_load(&a[1].end) || !atomic_load(&a[2].end)) {
        turn(&x);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        ck_assert_uint_ge(atomic_load(&f[i].n), 300);
        vtimer_free(f[i].t);
    }
    drop(&x);
}
END_TEST

static void *read_thread(void *arg)
{
    struct armer *a = arg;
    uint64_t last = 0;
    while (!atomic_load(&a->end)) {
        uint64_t now = clock_now(a->c);
        ck_assert_uint_ge(now, last); /* never back, whatever the main thread does */
        last = now;
    }
    return NULL;
}

START_TEST(time_never_runs_back_while_started_and_stopped)
{
    struct fixture x;
    make(&x);
    struct armer a = { .c = x.c };
    pthread_t t;
    pthread_create(&t, NULL, read_thread, &a);
    for (unsigned i = 0; i < 20000; i++) {
        clock_start(x.c);
        clock_stop(x.c);
    }
    atomic_store(&a.end, true);
    pthread_join(t, NULL);
    drop(&x);
}
END_TEST

static void *arm_once(void *arg)
{
    vtimer_arm(arg, 1000 * MS);
    return NULL;
}

START_TEST(clock_may_be_freed_with_a_post_under_way)
{
    struct fixture x;
    make(&x);
    struct fired f = { .c = x.c };
    f.t = vtimer_new(x.c, on_timer, &f);
    clock_start(x.c);
    pthread_t t;
    /* Posts from another thread, and nobody turns the loop before the clock is gone. */
    pthread_create(&t, NULL, arm_once, f.t);
    pthread_join(t, NULL);
    vtimer_free(f.t);
    drop(&x);
}
END_TEST

static Suite *suite_clock(void)
{
    Suite *s = suite_create("clock");
    TCase *c = tcase_create("clock");
    tcase_add_test(c, time_stands_still_while_stopped);
    tcase_add_test(c, wall_clock_has_an_offset);
    tcase_add_test(c, timers_fire_in_order_of_deadline_and_once);
    tcase_add_test(c, timers_wait_for_a_stopped_clock);
    tcase_add_test(c, timer_that_rearms_for_the_past_starves_nobody);
    tcase_add_test(c, timer_function_may_stop_the_clock_and_free_its_timer);
    tcase_add_test(c, arming_from_other_threads_loses_no_deadline);
    tcase_add_test(c, time_never_runs_back_while_started_and_stopped);
    tcase_add_test(c, clock_may_be_freed_with_a_post_under_way);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_clock, NULL);
}
