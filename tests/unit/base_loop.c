/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of loop: posting between threads, watchers, timers, signals, freeing inside callbacks.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "tests/unit/base_suites.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct loop *loop;
static int calls;

static void make_loop(void)
{
    struct err e = ERR_INIT;
    loop = loop_new(&e);
    ck_assert_msg(loop, "%s", e.msg);
    calls = 0;
}

static void free_loop(void)
{
    loop_free(loop);
}

static void quit(void *arg)
{
    (void)arg;
    calls++;
    loop_quit(loop);
}

START_TEST(loop_quit_before_run_still_ends_it)
{
    loop_quit(loop);
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    loop_post(loop, quit, NULL); /* and the loop can run again */
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    ck_assert_int_eq(calls, 1);
}
END_TEST

enum { POSTS = 2000, POSTERS = 3 };

struct poster {
    int next; /* the number expected from this thread */
};

struct numbered {
    struct poster *from;
    int n;
};

static void check_order(void *arg)
{
    struct numbered *p = arg;
    ck_assert(loop_in_thread(loop));
    ck_assert_int_eq(p->n, p->from->next);
    p->from->next++;
    free(p);
    if (++calls == POSTS * POSTERS) {
        loop_quit(loop);
    }
}

static void *post_many(void *arg)
{
    if (loop_in_thread(loop)) {
        return arg; /* wrong */
    }
    for (int i = 0; i < POSTS; i++) {
        struct numbered *p = xnew(struct numbered);
        p->from = arg;
        p->n = i;
        loop_post(loop, check_order, p);
    }
    return NULL;
}

START_TEST(loop_post_from_threads_keeps_each_order)
{
    pthread_t threads[POSTERS];
    struct poster posters[POSTERS] = { { 0 } };
    for (int i = 0; i < POSTERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, post_many, &posters[i]), 0);
    }
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    for (int i = 0; i < POSTERS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        ck_assert_ptr_null(wrong);
        ck_assert_int_eq(posters[i].next, POSTS);
    }
}
END_TEST

static void post_again(void *arg)
{
    (void)arg;
    calls++;
    loop_post(loop, post_again, NULL);
}

START_TEST(loop_post_from_a_post_waits_for_the_next_turn)
{
    loop_post(loop, post_again, NULL);
    ck_assert_int_eq(loop_run_once(loop, 0, NULL), 0);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(loop_run_once(loop, -1, NULL), 0);
    ck_assert_int_eq(calls, 2);
}
END_TEST

START_TEST(loop_free_drops_pending_posts)
{
    struct loop *other = loop_new(NULL);
    loop_post(other, quit, NULL);
    loop_free(other);
    loop_free(NULL);
    ck_assert_int_eq(calls, 0);
}
END_TEST

static struct loop_fd *watcher;

static void read_one(void *arg, int fd, unsigned events)
{
    char c;
    ck_assert_uint_eq(events, LOOP_READ);
    ck_assert_int_eq(read(fd, &c, 1), 1);
    calls++;
    if (c == 'q') {
        loop_fd_free(watcher); /* inside its own callback */
        *(bool *)arg = true;
        loop_quit(loop);
    }
}

START_TEST(loop_fd_is_level_triggered_and_may_be_freed_inside)
{
    int ends[2];
    bool freed = false;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    watcher = loop_fd_new(loop, ends[0], LOOP_READ, read_one, &freed);
    ck_assert_int_eq(write(ends[1], "aaqa", 4), 4);
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    ck_assert_int_eq(calls, 3);
    ck_assert(freed);
    ck_assert_int_eq(loop_run_once(loop, 0, NULL), 0);
    ck_assert_int_eq(calls, 3);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

static void note_events(void *arg, int fd, unsigned events)
{
    (void)fd;
    *(unsigned *)arg |= events;
}

START_TEST(loop_fd_set_chooses_events)
{
    int ends[2];
    unsigned seen = 0;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    struct loop_fd *w = loop_fd_new(loop, ends[1], 0, note_events, &seen);
    loop_run_once(loop, 0, NULL);
    ck_assert_uint_eq(seen, 0);
    loop_fd_set(w, LOOP_WRITE);
    loop_run_once(loop, 0, NULL);
    ck_assert_uint_eq(seen, LOOP_WRITE);
    loop_fd_set(w, 0);
    seen = 0;
    loop_run_once(loop, 0, NULL);
    ck_assert_uint_eq(seen, 0);
    loop_fd_free(w);
    loop_fd_free(NULL);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(loop_fd_of_what_cannot_be_polled_is_always_ready)
{
    unsigned seen = 0;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    int fds[] = { fd, fileno(file) };
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        struct loop_fd *w = loop_fd_new(loop, fds[i], LOOP_READ, note_events, &seen);
        for (int turn = 0; turn < 3; turn++) {
            seen = 0;
            loop_run_once(loop, -1, NULL);
            ck_assert_uint_eq(seen, LOOP_READ);
        }
        loop_fd_set(w, 0);
        seen = 0;
        loop_run_once(loop, 0, NULL);
        ck_assert_uint_eq(seen, 0);
        loop_fd_set(w, LOOP_READ | LOOP_WRITE);
        loop_run_once(loop, -1, NULL);
        ck_assert_uint_eq(seen, LOOP_READ | LOOP_WRITE);
        loop_fd_free(w);
    }
    fclose(file);
    close(fd);
}
END_TEST

static int64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int order[2], ordered;

static void note_order(void *arg)
{
    order[ordered++] = *(int *)arg;
    if (ordered == 2) {
        loop_quit(loop);
    }
}

START_TEST(loop_timers_fire_in_order_and_never_early)
{
    int one = 1, two = 2;
    int64_t start = now();
    struct loop_timer *late = loop_timer_new(loop, note_order, &two);
    struct loop_timer *soon = loop_timer_new(loop, note_order, &one);
    loop_timer_arm(late, 3000001);
    loop_timer_arm(soon, 1000000);
    loop_timer_arm(soon, 2000000); /* replaces */
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    ck_assert_int_ge(now() - start, 3000001);
    ck_assert_int_eq(order[0], 1);
    ck_assert_int_eq(order[1], 2);
    loop_timer_free(late);
    loop_timer_free(soon);
    loop_timer_free(NULL);
}
END_TEST

START_TEST(loop_timer_disarmed_does_not_fire)
{
    struct loop_timer *t = loop_timer_new(loop, quit, NULL);
    loop_timer_disarm(t);
    loop_timer_arm(t, 0);
    loop_timer_disarm(t);
    loop_run_once(loop, 1000000, NULL);
    ck_assert_int_eq(calls, 0);
    loop_timer_arm(t, -5); /* the past is now */
    loop_run_once(loop, -1, NULL);
    ck_assert_int_eq(calls, 1);
    loop_timer_free(t);
}
END_TEST

enum { CROWD = 300 };

struct one {
    struct loop_timer *timer;
    int64_t due; /* 0: disarmed */
    struct crowd *all;
};

struct crowd {
    struct one ones[CROWD];
    int64_t last; /* of the one that was called before */
    int left;
};

static void on_one(void *arg)
{
    struct one *o = arg;

    ck_assert_int_gt(o->due, 0); /* not one that was disarmed, and none twice */
    ck_assert_int_ge(now(), o->due);
    ck_assert_int_ge(o->due,
                     o->all->last -
                         50000); /* armed by another reading of the clock than the test's */
    o->all->last = o->due;
    o->due = 0;
    if (--o->all->left == 0) {
        loop_quit(loop);
    }
}

START_TEST(loop_timers_of_a_crowd_fire_each_once_in_order)
{
    struct crowd *c = xnew(struct crowd);
    unsigned random = 12345;

    for (int i = 0; i < CROWD; i++) {
        c->ones[i] = (struct one){ .all = c };
        c->ones[i].timer = loop_timer_new(loop, on_one, &c->ones[i]);
    }
    for (int i = 0; i < 10 * CROWD; i++) { /* armed, moved either way, disarmed */
        struct one *o = &c->ones[(random = random * 1103515245 + 12345) / 65536 % CROWD];
        int64_t after = (random = random * 1103515245 + 12345) / 65536 % 20 * 1000000;

        if (i % 5 == 0) {
            c->left -= o->due != 0;
            o->due = 0;
            loop_timer_disarm(o->timer);
        } else {
            c->left += o->due == 0;
            o->due = now() + after;
            loop_timer_arm(o->timer, after);
        }
    }
    ck_assert_int_gt(c->left, CROWD / 2);
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    for (int i = 0; i < CROWD; i++) {
        ck_assert_int_eq(c->ones[i].due, 0);
        loop_timer_free(c->ones[i].timer);
    }
    free(c);
}
END_TEST

static void arm_again(void *arg)
{
    calls++;
    loop_timer_arm(*(struct loop_timer **)arg, 0);
}

START_TEST(loop_timer_armed_by_its_own_call_waits_for_the_next_turn)
{
    struct loop_timer *t = loop_timer_new(loop, arm_again, &t);

    loop_timer_arm(t, 0);
    for (int turn = 1; turn <= 3; turn++) {
        ck_assert_int_eq(loop_run_once(loop, -1, NULL), 0);
        ck_assert_int_eq(calls, turn);
    }
    loop_timer_free(t);
}
END_TEST

START_TEST(loop_timer_that_was_moved_ahead_wakes_nobody_before)
{
    struct loop_timer *t = loop_timer_new(loop, quit, NULL);
    struct loop_timer *gone = loop_timer_new(loop, quit, NULL);
    int64_t start = now();

    loop_timer_arm(t, 2000000);
    loop_timer_arm(gone, 1000000);
    loop_run_once(loop, 0, NULL); /* the clock is set for the nearer one */
    loop_timer_arm(t, 6000000);
    loop_timer_disarm(gone);
    ck_assert_int_eq(loop_run_once(loop, -1, NULL), 0);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_ge(now() - start, 6000000);
    loop_timer_free(t);
    loop_timer_free(gone);
}
END_TEST

static void on_signal(void *arg, int signo)
{
    *(int *)arg = signo;
    loop_quit(loop);
}

START_TEST(loop_signal_is_delivered_on_the_loop)
{
    int got = 0;
    struct loop_signal *s = loop_signal_new(loop, SIGUSR1, on_signal, &got);
    raise(SIGUSR1);
    ck_assert_int_eq(got, 0); /* not in the handler */
    ck_assert_int_eq(loop_run(loop, NULL), 0);
    ck_assert_int_eq(got, SIGUSR1);
    loop_signal_free(s);
    loop_signal_free(NULL);
}
END_TEST

START_TEST(loop_new_without_descriptors_is_an_error)
{
    struct err e = ERR_INIT;
    int last = -1, fd;
    while ((fd = dup(0)) >= 0) {
        last = fd;
    }
    for (int spare = 0; spare <= 4; spare++) {
        ck_assert_ptr_null(loop_new(&e));
        ck_assert_int_lt(e.code, 0);
        close(last--);
    }
}
END_TEST

Suite *suite_loop(void)
{
    Suite *s = suite_create("loop");
    TCase *tc = tcase_create("loop");
    tcase_add_checked_fixture(tc, make_loop, free_loop);
    tcase_add_test(tc, loop_quit_before_run_still_ends_it);
    tcase_add_test(tc, loop_post_from_threads_keeps_each_order);
    tcase_add_test(tc, loop_post_from_a_post_waits_for_the_next_turn);
    tcase_add_test(tc, loop_free_drops_pending_posts);
    tcase_add_test(tc, loop_fd_is_level_triggered_and_may_be_freed_inside);
    tcase_add_test(tc, loop_fd_set_chooses_events);
    tcase_add_test(tc, loop_fd_of_what_cannot_be_polled_is_always_ready);
    tcase_add_test(tc, loop_timers_fire_in_order_and_never_early);
    tcase_add_test(tc, loop_timer_disarmed_does_not_fire);
    tcase_add_test(tc, loop_timers_of_a_crowd_fire_each_once_in_order);
    tcase_add_test(tc, loop_timer_armed_by_its_own_call_waits_for_the_next_turn);
    tcase_add_test(tc, loop_timer_that_was_moved_ahead_wakes_nobody_before);
    tcase_add_test(tc, loop_signal_is_delivered_on_the_loop);
    tcase_add_test(tc, loop_new_without_descriptors_is_an_error);
    suite_add_tcase(s, tc);
    return s;
}
