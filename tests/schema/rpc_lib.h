/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with a few of the real methods and a peer that speaks raw bytes, over socket pairs and one
 * loop, for the tests of both sides. State of one test at a time; one thread.
 */
#ifndef VMD_TESTS_RPC_LIB_H
#define VMD_TESTS_RPC_LIB_H

#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/client.h"
#include "api-schema/rpc/server.h"
#include "engine/base/fd.h"
#include "tests/lib/testing.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- a server with a few of the real methods ------------------------------------------------ */

static struct {
    struct loop *loop;
    struct rpc_server *server;
    struct api_call *waiting[512]; /* vm.wait calls, unanswered */
    unsigned n_waiting, gone, closed, after_ok, after_error, started;
    char last_key[64];
} t;

static inline void handle_ping(struct api_call *call, void *in)
{
    api_handle_api_ping(call, in);
}

static inline void handle_start(struct api_call *call, void *in)
{
    struct api_vm_start_in *p = in;
    struct api_vm_info info = {
        .name = p->vm, .uuid = "u", .state = API_VM_STATE_RUNNING, .cpus = 1
    };

    t.started++;
    if (strcmp(p->vm, "big") == 0) { /* 700,000 bytes with its quotes */
        AUTO_FREE char *text = xalloc(700000 - 1);
        memset(text, 'b', 700000 - 2);
        text[700000 - 2] = 0;
        api_reply_json(call, json_object_new_string(text));
        return;
    }
    if (strcmp(p->vm, "slow") == 0) { /* longer than a batch may have a turn */
        usleep(3000);
    }
    if (strcmp(p->vm, "none") == 0) {
        api_fail(call, API_E_NOT_FOUND, "VM none", "see 'vmctl list'", "no VM '%s'", p->vm);
        return;
    }
    api_reply_vm_start(call, &info);
}

static inline void on_gone(void *arg, struct api_call *call)
{
    (void)arg;
    t.gone++;
    ck_assert_ptr_nonnull(api_call_method(call));
}

static inline void handle_wait(struct api_call *call, void *in)
{
    (void)in;
    api_call_on_gone(call, on_gone, NULL);
    t.waiting[t.n_waiting++] = call;
}

static inline void handle_shutdown(struct api_call *call, void *in)
{
    (void)in;
    api_reply_host_shutdown_daemon(call);
}

static const struct api_handler handlers[] = {
    { &api_method_api_ping, handle_ping },
    { &api_method_host_shutdown_daemon, handle_shutdown },
    { &api_method_vm_start, handle_start },
    { &api_method_vm_wait, handle_wait },
};
static const struct api_handler_table table = { handlers, 4 };

static inline bool before(void *arg, struct api_call *call)
{
    const char *key = api_call_key(call);

    (void)arg;
    snprintf(t.last_key, sizeof(t.last_key), "%s", key ? key : "");
    if (key && strcmp(key, "seen") == 0) {
        api_reply_json(call, json_object_new_string("remembered"));
        return true;
    }
    return false;
}

static inline void after(void *arg, struct api_call *call, struct json_object *result,
                         const struct api_error *x)
{
    (void)arg;
    (void)call;
    ck_assert((result == NULL) != (x == NULL));
    t.after_ok += x == NULL;
    t.after_error += x != NULL;
}

static inline void session_closed(void *arg, struct rpc_session *s)
{
    (void)arg;
    (void)s;
    t.closed++;
}

static const struct rpc_server_ops server_ops = { .before = before,
                                                  .after = after,
                                                  .closed = session_closed };

static inline void setup_limits(const struct rpc_limits *limits, unsigned max_clients)
{
    struct rpc_server_config config = {
        .program = "vmd",
        .handlers = &table,
        .limits = limits,
        .max_clients = max_clients,
    };

    memset(&t, 0, sizeof(t));
    t.loop = loop_new(NULL);
    ck_assert_ptr_nonnull(t.loop);
    t.server = rpc_server_new(t.loop, &config, &server_ops, NULL);
}

static inline void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* for the peers played here */
    setup_limits(NULL, 0);
}

static inline void answer_waiting(void)
{
    for (unsigned i = 0; i < t.n_waiting; i++) {
        struct api_vm_wait_out out = { .state = API_VM_STATE_STOPPED };
        api_reply_vm_wait(t.waiting[i], &out);
    }
    t.n_waiting = 0;
}

static inline void teardown(void)
{
    rpc_server_free(t.server);
    answer_waiting();
    loop_free(t.loop);
}

static inline void spin(int turns)
{
    for (int i = 0; i < turns; i++) {
        loop_run_once(t.loop, 0, NULL);
    }
}

/* --- a peer that speaks raw bytes ------------------------------------------------------------ */

struct peer {
    int fd;
    struct buf in;
    bool eof;
};

static inline struct peer connect_as(enum api_role role)
{
    struct peer p = { .in = BUF_INIT };
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
                     0);
    p.fd = fds[0];
    rpc_server_add(t.server, fds[1], role, NULL);
    return p;
}

static inline void hang_up(struct peer *p)
{
    close(p->fd);
    buf_done(&p->in);
}

static inline void receive(struct peer *p)
{
    char b[65536];
    ssize_t n;

    while ((n = read(p->fd, b, sizeof(b))) > 0) {
        buf_add(&p->in, b, (size_t)n);
    }
    p->eof = p->eof || n == 0;
}

/* Next line the server sends, NULL at the end of the connection; the caller's. */
static inline char *line(struct peer *p)
{
    for (int i = 0; i < 100000; i++) {
        char *end = p->in.data ? memchr(p->in.data, '\n', p->in.len) : NULL;
        if (end) {
            size_t n = (size_t)(end - p->in.data);
            char *text = xstrndup(p->in.data, n);
            buf_consume(&p->in, n + 1);
            return text;
        }
        if (p->eof) {
            return NULL;
        }
        loop_run_once(t.loop, 1000000, NULL);
        receive(p);
    }
    ck_abort_msg("no line came");
    return NULL;
}

static inline void expect(struct peer *p, const char *text)
{
    AUTO_FREE char *got = line(p);

    ck_assert_ptr_nonnull(got);
    ck_assert_str_eq(got, text);
}

static inline void expect_part(struct peer *p, const char *part)
{
    AUTO_FREE char *got = line(p);

    ck_assert_ptr_nonnull(got);
    ck_assert_msg(strstr(got, part) != NULL, "'%s' does not contain '%s'", got, part);
}

static inline void expect_end(struct peer *p)
{
    AUTO_FREE char *got = line(p);

    ck_assert_msg(!got, "'%s' came in place of the end", got);
}

static inline void say(struct peer *p, const char *text)
{
    size_t n = strlen(text), done = 0;

    while (done < n) {
        ssize_t k = write(p->fd, text + done, n - done);
        if (k < 0 && errno == EPIPE) {
            return; /* the server closed; what it said is read later */
        }
        ck_assert(k > 0 || errno == EAGAIN);
        done += k > 0 ? (size_t)k : 0;
        spin(k < 0);
    }
}

static inline struct peer greeted(enum api_role role)
{
    struct peer p = connect_as(role);

    expect_part(&p, "{\"jsonrpc\":\"2.0\",\"method\":\"hello\",\"params\":{\"program\":\"vmd\","
                    "\"version\":\"");
    return p;
}

#endif
