/* SPDX-License-Identifier: Apache-2.0 */
/* The calling side: replies, errors, deadlines, ends. The server runs on the same loop. */
#include "tests/schema/rpc_lib.h"

#include <pthread.h>

/* --- the calling side -------------------------------------------------------------------------- */

struct outcome {
    unsigned called, notified, ended;
    int code;
    char result[256], message[sizeof(((struct api_error *)0)->message)];
    struct rpc_client *free_in_callback;
};

static void on_done(void *arg, struct json_object *result, const struct api_error *x)
{
    struct outcome *o = arg;

    o->called++;
    o->code = x ? x->code : 0;
    snprintf(o->result, sizeof(o->result), "%s", x ? "" : api_json_text(result));
    snprintf(o->message, sizeof(o->message), "%s", x ? x->message : "");
    rpc_client_free(o->free_in_callback);
}

static void on_note(void *arg, const char *method, struct json_object *params)
{
    (void)method;
    (void)params;
    ((struct outcome *)arg)->notified++;
}

static void on_end(void *arg, const struct err *why)
{
    (void)why;
    ((struct outcome *)arg)->ended++;
}

static const struct rpc_client_ops client_ops = { .notify = on_note, .closed = on_end };

static struct rpc_client *new_client(struct outcome *o, int *other)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    if (other) {
        *other = fds[1];
        fcntl(fds[1], F_SETFL, O_NONBLOCK);
    } else {
        rpc_server_add(t.server, fds[1], API_ROLE_ADMIN, NULL);
    }
    return rpc_client_new(t.loop, fds[0], "the server", &client_ops, o, NULL);
}

START_TEST(client_gets_results_errors_and_notifications)
{
    struct outcome o = { 0 };
    struct rpc_client *c = new_client(&o, NULL);
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", "none");
    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    ck_assert_uint_eq(o.called, 0); /* never from within the call */
    spin(5);
    ck_assert_uint_eq(o.called, 1);
    ck_assert_str_eq(o.result, "{}");
    ck_assert_uint_eq(o.notified, 1); /* hello */
    rpc_client_call(c, "vm.start", params, 0, on_done, &o);
    spin(5);
    ck_assert_int_eq(o.code, API_E_NOT_FOUND);
    ck_assert_str_eq(o.message, "no VM 'none'");
    rpc_client_free(c);
}
END_TEST

START_TEST(client_deadline_and_cancel)
{
    struct outcome o = { 0 }, cancelled = { 0 };
    struct rpc_client *c = new_client(&o, NULL);
    struct json_object *params = json_object_new_object();
    uint64_t id;

    api_json_set_str(params, "vm", "a");
    rpc_client_call(c, "vm.wait", json_object_get(params), 20000000, on_done, &o);
    id = rpc_client_call(c, "vm.wait", params, 0, on_done, &cancelled);
    for (int i = 0; i < 100 && !o.called; i++) {
        loop_run_once(t.loop, 100000000, NULL);
    }
    ck_assert_int_eq(o.code, API_E_TIMEOUT);
    rpc_client_cancel(c, id);
    answer_waiting(); /* too late for both */
    spin(5);
    ck_assert_uint_eq(o.called, 1);
    ck_assert_uint_eq(cancelled.called, 0);
    ck_assert(rpc_client_is_open(c));
    rpc_client_free(c);
}
END_TEST

START_TEST(client_fails_open_calls_when_the_connection_ends)
{
    struct outcome o = { 0 }, late = { 0 };
    int other;
    struct rpc_client *c = new_client(&o, &other);

    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    rpc_client_call(c, "api.ping", NULL, 1000000000, on_done, &o);
    spin(3);
    close(other);
    spin(5);
    ck_assert_uint_eq(o.called, 2);
    ck_assert_uint_eq(o.ended, 1);
    ck_assert_int_eq(o.code, API_E_INTERNAL_ERROR);
    ck_assert(!rpc_client_is_open(c));
    rpc_client_call(c, "api.ping", NULL, 0, on_done, &late);
    ck_assert_uint_eq(late.called, 0);
    spin(5);
    ck_assert_uint_eq(late.called, 1);
    rpc_client_free(c);
}
END_TEST

START_TEST(client_may_be_freed_from_its_own_callback)
{
    struct outcome o = { 0 };
    struct rpc_client *c = new_client(&o, NULL);

    o.free_in_callback = c;
    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    spin(10);
    ck_assert_uint_eq(o.called, 1);
}
END_TEST

static void read_lines(int from, char *lines, size_t size, int *fds, unsigned *n_fds)
{
    for (size_t n = 0; n + 1 < size;) {
        unsigned some = 4;
        ssize_t got;

        spin(3);
        got = fd_recv(from, lines + n, 64, fds + *n_fds, &some, NULL); /* in small pieces */
        if (got <= 0) {
            return;
        }
        *n_fds += some;
        n += (size_t)got;
        lines[n] = 0;
    }
}

START_TEST(client_passes_a_descriptor_with_its_line)
{
    struct outcome before = { 0 }, with = { 0 }, again = { 0 };
    int other, fds[16], pipe_fds[2];
    unsigned n_fds = 0;
    char lines[1024] = "", c1;
    struct rpc_client *c = new_client(&before, &other);

    ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
    rpc_client_call(c, "a.before", NULL, 0, on_done, &before);
    rpc_client_call_fd(c, "a.with", NULL, pipe_fds[1], 0, on_done, &with);
    rpc_client_call_fd(c, "a.again", NULL, dup(pipe_fds[0]), 0, on_done, &again);
    rpc_client_call(c, "a.after", NULL, 0, on_done, &before);
    read_lines(other, lines, sizeof(lines), fds, &n_fds);
    ck_assert_uint_eq(n_fds, 1);
    ck_assert_int_eq(write(fds[0], "x", 1), 1);
    close(fds[0]);
    ck_assert_int_eq(read(pipe_fds[0], &c1, 1), 1);
    ck_assert_int_eq(read(pipe_fds[0], &c1, 1), 0); /* ours was closed when it had gone out */
    close(pipe_fds[0]);
    ck_assert_ptr_nonnull(strstr(lines, "a.with"));
    ck_assert_ptr_nonnull(strstr(lines, "a.after"));
    ck_assert_ptr_null(strstr(lines, "a.again"));
    ck_assert_uint_eq(with.called, 0);
    ck_assert_uint_eq(again.called, 1); /* one at a time */
    ck_assert_int_eq(again.code, API_E_BUSY);
    close(other);
    spin(3);
    ck_assert_uint_eq(with.called, 1);
    ck_assert_uint_eq(before.called, 2);
    rpc_client_free(c);
}
END_TEST

START_TEST(client_ends_on_garbage_from_the_server)
{
    static const char *const bad[] = { "garbage\n", "{\"a\":1,\"a\":2}\n", "\xff\n" };
    struct outcome o = { 0 };
    int other;
    struct rpc_client *c = new_client(&o, &other);

    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    ck_assert_int_gt(write(other, bad[_i], strlen(bad[_i])), 0);
    spin(5);
    ck_assert_uint_eq(o.called, 1);
    ck_assert_uint_eq(o.ended, 1);
    ck_assert_ptr_nonnull(strstr(o.message, "no reply"));
    rpc_client_free(c);
    close(other);
}
END_TEST

START_TEST(client_ignores_replies_nobody_waits_for)
{
    static const char text[] = "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":1}\n{\"jsonrpc\":\"2."
                               "0\",\"id\":\"x\",\"result\":1}\n"
                               "[]\n5\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}\n";
    struct outcome o = { 0 };
    int other;
    struct rpc_client *c = new_client(&o, &other);

    rpc_client_call(c, "api.ping", NULL, 0, on_done, &o);
    ck_assert_int_gt(write(other, text, sizeof(text) - 1), 0);
    spin(5);
    ck_assert_str_eq(o.result, "true");
    rpc_client_free(c);
    close(other);
}
END_TEST

/* --- the blocking caller: it runs on a thread of its own, the server on this one --------------- */

struct dialler {
    char path[64];
    int (*work)(struct dialler *d, struct rpc_dial *dial);
    int rc, open_code;
    volatile sig_atomic_t flag;
    bool done;
};

static void on_dialled(void *arg)
{
    ((struct dialler *)arg)->done = true;
}

static void *dial_thread(void *arg)
{
    struct dialler *d = arg;
    struct err e = ERR_INIT;
    struct rpc_dial *dial = rpc_dial_open(d->path, 5000, &e);

    d->open_code = e.code;
    d->rc = dial ? d->work(d, dial) : -1;
    rpc_dial_close(dial);
    loop_post(t.loop, on_dialled, d);
    return NULL;
}

static void dial_and(struct dialler *d, int (*work)(struct dialler *, struct rpc_dial *),
                     int fd)
{
    pthread_t thread;

    d->work = work;
    ck_assert_int_eq(pthread_create(&thread, NULL, dial_thread, d), 0);
    for (int i = 0; i < 10000 && !d->done; i++) {
        loop_run_once(t.loop, 5000000, NULL);
        if (t.n_waiting && d->flag == 0) {
            d->flag = 1;
        }
        if (i == 20 && fd >= 0) {
            rpc_server_listen(t.server, fd, API_ROLE_ADMIN, NULL);
        }
    }
    pthread_join(thread, NULL);
    unlink(d->path);
}

static int bound(struct dialler *d, int backlog)
{
    struct err e = ERR_INIT;
    int fd;

    snprintf(d->path, sizeof(d->path), "/tmp/vmd-dial-test-%d", (int)getpid());
    fd = unix_listen(d->path, 0600, backlog, &e);
    ck_assert_msg(fd >= 0, "%s", e.msg);
    return fd;
}

static int call_and_listen(struct dialler *d, struct rpc_dial *dial)
{
    struct api_error x = API_ERROR_INIT;
    AUTO_JSON result = NULL;
    struct json_object *params = NULL;
    char *method = NULL;

    (void)d;
    if (!api_json_get_str(rpc_dial_hello(dial), "schema") ||
        rpc_dial_call(dial, "api.ping", NULL, -1, &result, &x) < 0 || !result) {
        return 1;
    }
    if (rpc_dial_call(dial, "vm.sleep", NULL, -1, NULL, &x) == 0 ||
        x.code != API_E_METHOD_NOT_FOUND) {
        return 2;
    }
    return rpc_dial_next(dial, 20, &method, &params, &x) == 0 ? 0 : 3;
}

START_TEST(dial_calls_and_waits_for_notifications)
{
    struct dialler d = { .path = "" };

    rpc_server_listen(t.server, bound(&d, 8), API_ROLE_ADMIN, NULL);
    dial_and(&d, call_and_listen, -1);
    ck_assert_int_eq(d.rc, 0);
}
END_TEST

START_TEST(dial_waits_while_the_queue_of_connections_is_full)
{
    struct dialler d = { .path = "" };
    int fd = bound(&d, 0), first = unix_connect(d.path, NULL);

    ck_assert_int_ge(first, 0);
    dial_and(&d, call_and_listen, fd); /* begins to accept some turns later */
    ck_assert_int_eq(d.rc, 0);
    close(first);
}
END_TEST

static int call_interrupted(struct dialler *d, struct rpc_dial *dial)
{
    struct json_object *params = json_object_new_object();
    struct api_error x = API_ERROR_INIT;

    rpc_dial_watch(dial, &d->flag);
    api_json_set_str(params, "vm", "a");
    return rpc_dial_call(dial, "vm.wait", params, -1, NULL, &x) < 0 ? x.code : 0;
}

START_TEST(dial_is_interrupted_by_a_flag)
{
    struct dialler d = { .path = "" };

    rpc_server_listen(t.server, bound(&d, 8), API_ROLE_ADMIN, NULL);
    dial_and(&d, call_interrupted, -1);
    ck_assert_int_eq(d.rc, API_E_CANCELLED);
}
END_TEST

START_TEST(dial_says_when_nobody_listens)
{
    struct err e = ERR_INIT;

    ck_assert_ptr_null(rpc_dial_open("/tmp/vmd-dial-test-nobody", 100, &e));
    ck_assert_int_eq(e.code, -ENOENT);
}
END_TEST

static Suite *suite_client(void)
{
    Suite *s = suite_create("rpc client");
    TCase *c = tcase_create("rpc client");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, client_gets_results_errors_and_notifications);
    tcase_add_test(c, client_deadline_and_cancel);
    tcase_add_test(c, client_fails_open_calls_when_the_connection_ends);
    tcase_add_test(c, client_may_be_freed_from_its_own_callback);
    tcase_add_loop_test(c, client_ends_on_garbage_from_the_server, 0, 3);
    tcase_add_test(c, client_ignores_replies_nobody_waits_for);
    tcase_add_test(c, client_passes_a_descriptor_with_its_line);
    tcase_add_test(c, dial_calls_and_waits_for_notifications);
    tcase_add_test(c, dial_waits_while_the_queue_of_connections_is_full);
    tcase_add_test(c, dial_is_interrupted_by_a_flag);
    tcase_add_test(c, dial_says_when_nobody_listens);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_client, NULL);
}
