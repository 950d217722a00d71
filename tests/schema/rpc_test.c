/* SPDX-License-Identifier: Apache-2.0 */
/* The server: framing, dispatch, bounds, ends. The peer is played by hand with raw bytes. */
#include "tests/schema/rpc_lib.h"

/* --- requests -------------------------------------------------------------------------------- */

START_TEST(rpc_answers_a_request)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\",\"params\":{\"echo\":[1,"
            "\"x\"]}}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"echo\":[1,\"x\"]}}");
    say(&p, "\n\r\n{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"api.ping\"}\r\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{}}");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_takes_bytes_one_by_one_and_many_lines_at_once)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"api.ping\"}\n";
    struct peer p = greeted(API_ROLE_ADMIN);
    AUTO_BUF many = BUF_INIT;

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        char one[2] = { request[i], 0 };
        say(&p, one);
        spin(2);
    }
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}");
    for (int i = 0; i < 1000; i++) {
        buf_add_str(&many, request);
    }
    say(&p, many.data);
    for (int i = 0; i < 1000; i++) {
        expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}");
    }
    hang_up(&p);
}
END_TEST

static const struct {
    const char *request, *reply;
} mistakes[] = {
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.strat\"}",
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32601,\"message\":\"no method "
      "'vm.strat'\",\"data\":{\"error\":"
      "\"method-not-found\",\"object\":\"vm.strat\",\"remedy\":\"did you mean "
      "'vm.start'?\"}}}" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\",\"x\":1}"
      "}",
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32602,\"message\":\"x: no such "
      "member of VmStartIn\",\"data\":{\"error\":"
      "\"invalid-params\",\"object\":\"x\",\"remedy\":\"known members: vm, fresh, paused, "
      "record, scratch, replay, to\"}}}" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\"}",
      "vm: missing, expected the name or UUID of a VM" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"none\"}}",
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1001,\"message\":\"no VM "
      "'none'\",\"data\":{\"error\":\"not-found\","
      "\"object\":\"VM none\",\"remedy\":\"see 'vmctl list'\"}}}" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":[\"a\"]}",
      "parameters go by name" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":5}",
      "'params' must be an object" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"api.ping\"}",
      "\"id\":null,\"error\":{\"code\":-32600" },
    { "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"api.ping\"}",
      "\"id\":null,\"error\":{\"code\":-32600" },
    { "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"api.ping\"}",
      "'jsonrpc' must be \\\"2.0\\\"" },
    { "{\"id\":1,\"method\":\"api.ping\"}", "'jsonrpc' must be" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1}", "'method' must be a string" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", "'method' must be a string" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\",\"extra\":0}",
      "jsonrpc, id, method and params only" },
    { "5", "a request must be an object" },
    { "null", "a request must be an object" },
    { "[]", "a batch has 1 to 256 requests" },
    { "{\"jsonrpc\":", "\"id\":null,\"error\":{\"code\":-32700" },
    { "\xff\xfe", "\"code\":-32700" },
    { "{\"a\":1,\"a\":2}", "stands twice" },
    { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "deeper than 32" },
    { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\","
      "\"idempotency_key\":\"\"}}",
      "idempotency_key: expected a string of 1 to 128 bytes" },
};

START_TEST(rpc_mistakes_are_answered_and_the_connection_goes_on)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, mistakes[_i].request);
    say(&p, "\n");
    expect_part(&p, mistakes[_i].reply);
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_notifications_are_run_and_not_answered)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, "{\"jsonrpc\":\"2.0\",\"method\":\"vm.start\",\"params\":{\"vm\":\"a\"}}\n"
            "{\"jsonrpc\":\"2.0\",\"method\":\"vm.start\",\"params\":{\"vm\":\"none\"}}\n"
            "{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}\n"
            "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
    ck_assert_uint_eq(t.started, 2);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_batches_are_answered_together_when_all_are_done)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}},"
            "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"},7,"
            "{\"jsonrpc\":\"2.0\",\"method\":\"api.ping\"}]\n");
    spin(5);
    receive(&p);
    ck_assert_uint_eq(p.in.len, 0);
    answer_waiting();
    expect_part(&p,
                "[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"state\":\"stopped\",\"deleted\":"
                "false}},{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}},{\"jsonrpc\":\"2.0\","
                "\"id\":null,\"error\":{\"code\":-32600,");
    say(&p, "[{\"jsonrpc\":\"2.0\",\"method\":\"api.ping\"}]\n{\"jsonrpc\":\"2.0\",\"id\":3,"
            "\"method\":\"api.ping\"}\n");
    expect(
        &p,
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}"); /* a batch of notifications has no reply */
    hang_up(&p);
}
END_TEST

START_TEST(rpc_connections_that_hold_the_most_go_when_all_hold_too_much)
{
    enum { PEERS = 40, BEGUN = 1000000 };
    struct peer peers[PEERS], small = greeted(API_ROLE_ADMIN);
    AUTO_FREE char *text = xalloc(BEGUN + 1);
    unsigned gone = 0;

    memset(text, 'x', BEGUN);
    say(&small, "{\"jsonrpc\"");
    for (unsigned i = 0; i < PEERS; i++) {
        ssize_t n = 0;
        peers[i] = greeted(API_ROLE_ADMIN);
        for (size_t sent = 0; sent < BEGUN && n >= 0; sent += (size_t)n) {
            n = send(peers[i].fd, text + sent, BEGUN - sent, MSG_NOSIGNAL);
            n = n < 0 && errno == EAGAIN ? 0 : n;
            spin(3);
        }
    }
    spin(10);
    for (unsigned i = 0; i < PEERS; i++) {
        receive(&peers[i]);
        gone += peers[i].eof;
        hang_up(&peers[i]);
    }
    ck_assert_uint_ge(gone, PEERS - (32u << 20) / BEGUN);
    ck_assert_uint_lt(gone, PEERS / 2);
    say(&small, ":\"2.0\",\"id\":7,\"method\":\"api.ping\"}\n");
    expect(&small, "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}");
    hang_up(&small);
}
END_TEST

/* A batch of n calls that start a VM. */
static char *batch_of(unsigned n, const char *vm)
{
    AUTO_BUF b = BUF_INIT;

    buf_add_char(&b, '[');
    for (unsigned i = 0; i < n; i++) {
        buf_printf(&b,
                   "%s{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"vm.start\",\"params\":{"
                   "\"vm\":\"%s\"}}",
                   i ? "," : "", i, vm);
    }
    buf_add_str(&b, "]\n");
    return buf_take(&b);
}

START_TEST(rpc_replies_of_a_batch_are_bounded_and_the_rest_is_told_so)
{
    enum { CALLS = 14, FIT = (8 << 20) / 700100 };
    struct peer p = greeted(API_ROLE_ADMIN);
    AUTO_FREE char *batch = batch_of(CALLS, "big");

    say(&p, batch);
    AUTO_FREE char *text = line(&p);
    ck_assert_ptr_nonnull(text);
    AUTO_JSON all = json_tokener_parse(text);
    ck_assert_uint_eq(json_object_array_length(all), CALLS);
    for (unsigned i = 0; i < CALLS; i++) {
        struct json_object *one = json_object_array_get_idx(all, i);
        ck_assert_int_eq(api_json_get_int(one, "id", -1), i);
        ck_assert_msg((api_json_get(one, "result") != NULL) == (i < FIT), "reply %u", i);
        if (i >= FIT) {
            struct json_object *error = api_json_get(one, "error");
            ck_assert_int_eq(api_json_get_int(error, "code", 0), API_E_OVERLOAD);
            ck_assert_str_eq(api_json_get_str(error, "message"),
                             "the replies of this batch exceed 8388608 bytes");
        }
    }
    ck_assert_uint_eq(t.started, CALLS); /* what was asked for was done */
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"api.ping\"}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_batch_lets_others_have_their_turn)
{
    enum { CALLS = 20 };
    struct peer p = greeted(API_ROLE_ADMIN), other = greeted(API_ROLE_ADMIN);
    AUTO_FREE char *batch = batch_of(CALLS, "slow");

    say(&p, batch);
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":\"behind\",\"method\":\"api.ping\"}\n");
    spin(1);
    say(&other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\"}\n");
    expect(&other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
    ck_assert_uint_ge(t.started, 1);
    ck_assert_uint_lt(t.started, CALLS); /* and it is not through yet */
    receive(&p);
    ck_assert_uint_eq(p.in.len, 0);
    expect_part(&p, "\"id\":19,");
    ck_assert_uint_eq(t.started, CALLS);
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":\"behind\",\"result\":{}}");

    say(&p, batch);
    spin(1);
    ck_assert_uint_lt(t.started, 2 * CALLS);
    hang_up(&p);
    for (unsigned i = 0; i < 1000 && t.closed == 0; i++) {
        loop_run_once(t.loop, 10000000, NULL);
    }
    ck_assert_uint_eq(t.closed, 1); /* whatever of it was begun */
    hang_up(&other);
}
END_TEST

START_TEST(rpc_refuses_a_batch_that_is_too_long)
{
    struct peer p = greeted(API_ROLE_ADMIN);
    AUTO_BUF b = BUF_INIT;

    buf_add_char(&b, '[');
    for (int i = 0; i < 257; i++) {
        buf_add_str(&b, i ? ",1" : "1");
    }
    buf_add_str(&b, "]\n");
    say(&p, b.data);
    expect_part(&p, "a batch has 1 to 256 requests, not 257");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_deadline_ends_the_wait_and_not_the_work)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\","
            "\"deadline_ms\":5}}\n");
    expect_part(&p,
                "\"id\":1,\"error\":{\"code\":1010,\"message\":\"vm.wait has not ended before "
                "its deadline\"");
    ck_assert_uint_eq(t.gone, 1);
    ck_assert_uint_eq(t.after_ok, 0);
    answer_waiting(); /* no second answer, but its end is told to the hooks */
    ck_assert_uint_eq(t.after_ok, 1);
    say(&p,
        "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\","
        "\"deadline_ms\":5}},{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"api.ping\",\"params\":"
        "{\"deadline_ms\":60000}}]\n");
    expect_part(&p, "[{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":1010,");
    hang_up(&p);
    spin(5);
    answer_waiting(); /* after client and deadline */
}
END_TEST

START_TEST(rpc_deadline_must_be_a_time)
{
    static const char *const wrong[] = { "0", "-1", "86400001", "1.5", "\"5\"", "null", "{}" };
    struct peer p = greeted(API_ROLE_ADMIN);
    AUTO_FREE char *text = xasprintf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\","
                                     "\"params\":{\"deadline_ms\":%s}}\n",
                                     wrong[_i]);

    say(&p, text);
    expect_part(&p,
                "\"code\":-32602,\"message\":\"deadline_ms: expected milliseconds from 1 to "
                "86400000\"");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_roles_are_checked)
{
    struct peer p = greeted(API_ROLE_VIEWER);

    say(&p,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\"}}\n");
    expect_part(&p, "\"code\":1005,\"message\":\"vm.start needs role operator, this connection "
                    "has viewer\"");
    say(&p, "{\"jsonrpc\":\"2.0\",\"method\":\"vm.start\",\"params\":{\"vm\":\"a\"}}\n"
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\"}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
    ck_assert_uint_eq(t.started, 0);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_idempotency_key_reaches_the_hooks_not_the_parameters)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\","
            "\"idempotency_key\":\"k1\"}}\n");
    expect_part(&p, "\"state\":\"running\"");
    ck_assert_str_eq(t.last_key, "k1");
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\","
            "\"idempotency_key\":\"seen\"}}\n");
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"remembered\"}");
    ck_assert_uint_eq(t.started, 1);
    ck_assert_uint_eq(t.after_ok, 2);
    /* a method that changes nothing takes no key */
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"api.ping\",\"params\":{\"idempotency_"
            "key\":\"k\"}}\n");
    expect_part(&p, "idempotency_key: no such member");
    hang_up(&p);
}
END_TEST

START_TEST(rpc_drained_server_answers_what_is_open_and_refuses_the_rest)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}\n");
    spin(5);
    rpc_server_drain(t.server);
    say(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"}\n");
    expect_part(&p, "\"code\":1016,\"message\":\"vmd is ending\"");
    answer_waiting();
    expect_part(&p, "\"id\":1,\"result\":{\"state\":\"stopped\"");
    hang_up(&p);
}
END_TEST

/* --- ends and bounds -------------------------------------------------------------------------- */

START_TEST(rpc_half_closed_client_still_gets_its_answers)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}\n"
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"}"); /* no newline at the end */
    shutdown(p.fd, SHUT_WR);
    expect(&p, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
    spin(5);
    ck_assert_uint_eq(t.closed, 0);
    answer_waiting();
    expect_part(&p, "\"id\":1,\"result\"");
    expect_end(&p);
    ck_assert_uint_eq(t.closed, 1);
    ck_assert_uint_eq(t.gone, 0);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_half_closed_client_without_calls_is_closed)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    shutdown(p.fd, SHUT_WR);
    expect_end(&p);
    ck_assert_uint_eq(t.closed, 1);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_client_that_vanishes_is_noticed_and_its_calls_live_on)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}\n"
        "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}]\n"
        "{\"jsonrpc\":\"2.0\",\"id\":3,\"meth");
    spin(5);
    ck_assert_uint_eq(t.n_waiting, 2);
    hang_up(&p);
    spin(10);
    ck_assert_uint_eq(t.gone, 2);
    ck_assert_uint_eq(t.closed, 1);
    ck_assert_uint_eq(rpc_server_clients(t.server), 0);
    ck_assert_ptr_null(api_call_session(t.waiting[0]));
    answer_waiting();
    ck_assert_uint_eq(t.after_ok, 2);
}
END_TEST

START_TEST(rpc_half_closed_client_that_vanishes_later_is_noticed)
{
    struct peer p = greeted(API_ROLE_ADMIN);

    say(&p,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}\n");
    shutdown(p.fd, SHUT_WR);
    spin(5);
    ck_assert_uint_eq(t.closed, 0);
    hang_up(&p);
    for (int i = 0; i < 100 && t.closed == 0; i++) {
        loop_run_once(t.loop, 100000000, NULL);
    }
    ck_assert_uint_eq(t.closed, 1);
    ck_assert_uint_eq(t.gone, 1);
}
END_TEST

START_TEST(rpc_line_that_is_too_long_ends_the_connection_with_an_error)
{
    struct rpc_limits small = rpc_limits_default;
    struct peer p;
    AUTO_BUF b = BUF_INIT;

    teardown();
    small.line_max = 1000;
    setup_limits(&small, 0);
    p = greeted(API_ROLE_ADMIN);
    for (int i = 0; i < 1001; i++) {
        buf_add_char(&b, ' ');
    }
    say(&p, b.data);
    expect_part(&p, "a line exceeds 1000 bytes");
    expect_end(&p);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_longest_line_is_accepted)
{
    struct peer p = greeted(API_ROLE_ADMIN);
    AUTO_BUF b = BUF_INIT;
    AUTO_FREE char *reply = NULL;

    buf_add_str(
        &b, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\",\"params\":{\"echo\":\"");
    while (b.len < API_JSON_MAX_SIZE - 3) {
        buf_add_char(&b, 'x');
    }
    buf_add_str(&b, "\"}}");
    buf_add_char(&b, '\n');
    say(&p, b.data);
    reply = line(&p);
    ck_assert_uint_gt(strlen(reply), 1000000);
    buf_done(&b);
    for (size_t i = 0; i < API_JSON_MAX_SIZE + 2; i++) {
        buf_add_char(&b, 'x');
    }
    /* The server stops reading what is too long: the rest may not fit into the socket. */
    (void)!write(p.fd, b.data, b.len);
    for (size_t sent = 0; sent < b.len && t.closed == 0;) {
        ssize_t k = write(p.fd, b.data + sent, b.len - sent);
        sent += k > 0 ? (size_t)k : 0;
        if (k < 0 && errno != EAGAIN) {
            break;
        }
        spin(1);
    }
    expect_part(&p, "a line exceeds 1048576 bytes");
    expect_end(&p);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_client_that_only_asks_is_not_read_any_more)
{
    static const char request[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.wait\",\"params\":{\"vm\":\"a\"}}\n";
    struct peer p = greeted(API_ROLE_ADMIN);
    struct peer q = greeted(API_ROLE_ADMIN);

    for (int i = 0; i < 400; i++) {
        say(&p, request);
        spin(2);
    }
    ck_assert_uint_eq(t.n_waiting, 257); /* one above 256 holds it */
    say(&q, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"api.ping\"}\n");
    expect(&q, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
    for (int i = 0; i < 10 && t.n_waiting; i++) {
        answer_waiting();
        spin(20);
    }
    for (int i = 0; i < 400; i++) {
        expect_part(&p, "\"state\":\"stopped\"");
    }
    hang_up(&p);
    hang_up(&q);
}
END_TEST

/* Asks without ever reading: the server stops reading from it with a bounded queue. */
START_TEST(rpc_client_that_never_reads_stops_itself)
{
    static const char request[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\",\"params\":{\"echo\":"
        "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}\n";
    struct peer p = greeted(API_ROLE_ADMIN);
    size_t sent = 0;
    int full = 0;

    while (full < 1000) {
        ssize_t k = write(p.fd, request + sent % (sizeof(request) - 1),
                          sizeof(request) - 1 - sent % (sizeof(request) - 1));
        sent += k > 0 ? (size_t)k : 0;
        full = k > 0 ? 0 : full + 1;
        spin(1);
        ck_assert_uint_lt(sent, 8u << 20);
    }
    ck_assert_uint_eq(t.closed, 0);
    for (int i = 0; i < 1000 && p.in.len <= 256u * 1024; i++) {
        receive(&p); /* it goes on when it reads */
        spin(1);
    }
    ck_assert_uint_gt(p.in.len, 256u * 1024);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_slow_reader_is_cut_off_and_others_are_not)
{
    struct rpc_limits small = rpc_limits_default;
    struct peer p, q;
    AUTO_JSON params = json_object_new_object();
    char text[4096];
    size_t lines = 0;

    teardown();
    small.out_max = 64 * 1024;
    setup_limits(&small, 0);
    p = greeted(API_ROLE_ADMIN);
    q = greeted(API_ROLE_ADMIN);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    api_json_set_str(params, "x", text);
    for (; t.closed == 0 && lines < 10000; lines++) {
        AUTO_FREE char *got = NULL;
        rpc_server_notify_all(t.server, "event", params);
        spin(3);
        got = line(&q);
        ck_assert_ptr_nonnull(got);
    }
    ck_assert_uint_eq(t.closed, 1);
    ck_assert_uint_lt(lines, 1000);
    ck_assert_uint_eq(rpc_server_clients(t.server), 1);
    hang_up(&p);
    hang_up(&q);
}
END_TEST

START_TEST(rpc_reader_that_stalls_is_cut_off)
{
    struct rpc_limits small = rpc_limits_default;
    struct peer p;
    AUTO_JSON params = json_object_new_object();
    AUTO_BUF text = BUF_INIT;

    teardown();
    small.stall_ns = 50000000;
    setup_limits(&small, 0);
    p = greeted(API_ROLE_ADMIN);
    for (int i = 0; i < 1000000; i++) {
        buf_add_char(&text, 'x');
    }
    api_json_set_str(params, "x", text.data);
    rpc_server_notify_all(t.server, "event", params);
    for (int i = 0; i < 200 && t.closed == 0; i++) {
        loop_run_once(t.loop, 50000000, NULL);
    }
    ck_assert_uint_eq(t.closed, 1);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_line_that_never_ends_is_cut_off)
{
    struct rpc_limits small = rpc_limits_default;
    struct peer p;

    teardown();
    small.line_ns = 50000000;
    setup_limits(&small, 0);
    p = greeted(API_ROLE_ADMIN);
    say(&p, "{\"jsonrpc\":");
    expect_end(&p);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_cap_of_clients_is_kept)
{
    struct peer p, q, r;

    teardown();
    setup_limits(NULL, 2);
    p = greeted(API_ROLE_ADMIN);
    q = greeted(API_ROLE_ADMIN);
    r = connect_as(API_ROLE_ADMIN);
    expect_part(&r, "\"id\":null,\"error\":{\"code\":1014,\"message\":\"too many clients\"");
    expect_end(&r);
    hang_up(&r);
    hang_up(&q);
    spin(5);
    r = greeted(API_ROLE_ADMIN);
    hang_up(&r);
    hang_up(&p);
}
END_TEST

START_TEST(rpc_client_without_a_role_is_turned_away)
{
    struct peer p = connect_as(API_ROLE_NONE);

    expect_part(&p, "\"code\":1005");
    expect_end(&p);
    hang_up(&p);
}
END_TEST

/* Random bytes and broken requests: the server answers or ends, never more; a good client goes on. */
START_TEST(rpc_survives_random_clients)
{
    static const char *const pieces[] = {
        "{\"jsonrpc\":\"2.0\",",
        "\"id\":1,",
        "\"method\":\"api.ping\"",
        "}",
        "\n",
        "[",
        "]",
        ",",
        "\"params\":{}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.start\",\"params\":{\"vm\":\"a\"}}\n",
        "\xff",
        "\r\n",
        "{",
        "null",
    };
    uint64_t state = test_seed();
    struct peer good = greeted(API_ROLE_ADMIN);

    for (int round = 0; round < 300; round++) {
        struct peer p = connect_as(API_ROLE_OPERATOR);
        unsigned n = test_random(&state) % 40;

        for (unsigned i = 0; i < n; i++) {
            say(&p, pieces[test_random(&state) % (sizeof(pieces) / sizeof(pieces[0]))]);
            spin(test_random(&state) % 2);
        }
        if (test_random(&state) % 2) {
            shutdown(p.fd, SHUT_WR);
            spin(3);
        }
        receive(&p);
        hang_up(&p);
        say(&good, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\"}\n");
        expect(&good, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
    }
    spin(10);
    ck_assert_uint_eq(rpc_server_clients(t.server), 1);
    hang_up(&good);
}
END_TEST

static void add_requests(TCase *c)
{
    tcase_add_test(c, rpc_answers_a_request);
    tcase_add_test(c, rpc_takes_bytes_one_by_one_and_many_lines_at_once);
    tcase_add_loop_test(c, rpc_mistakes_are_answered_and_the_connection_goes_on, 0,
                        sizeof(mistakes) / sizeof(mistakes[0]));
    tcase_add_test(c, rpc_notifications_are_run_and_not_answered);
    tcase_add_test(c, rpc_batches_are_answered_together_when_all_are_done);
    tcase_add_test(c, rpc_connections_that_hold_the_most_go_when_all_hold_too_much);
    tcase_add_test(c, rpc_replies_of_a_batch_are_bounded_and_the_rest_is_told_so);
    tcase_add_test(c, rpc_batch_lets_others_have_their_turn);
    tcase_add_test(c, rpc_refuses_a_batch_that_is_too_long);
    tcase_add_test(c, rpc_deadline_ends_the_wait_and_not_the_work);
    tcase_add_loop_test(c, rpc_deadline_must_be_a_time, 0, 7);
    tcase_add_test(c, rpc_roles_are_checked);
    tcase_add_test(c, rpc_idempotency_key_reaches_the_hooks_not_the_parameters);
    tcase_add_test(c, rpc_drained_server_answers_what_is_open_and_refuses_the_rest);
}

static void add_bounds(TCase *c)
{
    tcase_add_test(c, rpc_half_closed_client_still_gets_its_answers);
    tcase_add_test(c, rpc_half_closed_client_without_calls_is_closed);
    tcase_add_test(c, rpc_client_that_vanishes_is_noticed_and_its_calls_live_on);
    tcase_add_test(c, rpc_half_closed_client_that_vanishes_later_is_noticed);
    tcase_add_test(c, rpc_line_that_is_too_long_ends_the_connection_with_an_error);
    tcase_add_test(c, rpc_longest_line_is_accepted);
    tcase_add_test(c, rpc_client_that_only_asks_is_not_read_any_more);
    tcase_add_test(c, rpc_client_that_never_reads_stops_itself);
    tcase_add_test(c, rpc_slow_reader_is_cut_off_and_others_are_not);
    tcase_add_test(c, rpc_reader_that_stalls_is_cut_off);
    tcase_add_test(c, rpc_line_that_never_ends_is_cut_off);
    tcase_add_test(c, rpc_cap_of_clients_is_kept);
    tcase_add_test(c, rpc_client_without_a_role_is_turned_away);
    tcase_add_test(c, rpc_survives_random_clients);
}

static Suite *suite_rpc(void)
{
    Suite *s = suite_create("rpc");
    TCase *c = tcase_create("rpc");

    tcase_add_checked_fixture(c, setup, teardown);
    add_requests(c);
    add_bounds(c);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_rpc, NULL);
}
