/* SPDX-License-Identifier: Apache-2.0 */
/* The calling side: replies, errors, deadlines, ends. The server runs on the same loop. */
#include "tests/schema/rpc_lib.h"

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
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_client, NULL);
}
