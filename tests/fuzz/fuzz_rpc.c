/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the framing of both dialects, JSON-RPC by lines and QMP as a stream of values, with the real server, roles
 * and checks of every method's parameters; handlers answer at once and do nothing. The first byte is the role, the second how
 * the rest is cut into pieces. Whatever is sent gets answers that are JSON, one a line; the same ones however it is cut;
 * and when the client has said all, the connection ends.
 */
#include "api-schema/json/json.h"
#include "api-schema/qmp/qmp.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server.h"
#include "engine/base/buf.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_rpc";

/* Small, so that inputs reach them. */
static const struct rpc_limits limits = { .line_max = 1500,
                                          .out_pause = 64 << 10,
                                          .out_max = 4 << 20,
                                          .stall_ns = INT64_C(10000000000),
                                          .line_ns = INT64_C(30000000000) };
static struct {
    struct loop *loop;
    struct rpc_server *server;
    struct api_handler handlers[API_N_METHODS];
    struct api_handler_table table;
    uint64_t n_calls, n_lines, n_errors, n_qmp;
} f;

static void handle(struct api_call *call, void *in)
{
    (void)in;
    f.n_calls++;
    if (api_call_key(call)) {
        api_fail(call, API_E_NOT_FOUND, "it", "look for it elsewhere", "there is no such thing");
    } else {
        api_reply_json(call, json_object_get(api_call_params(call)));
    }
}

/* ---- QMP, without a VM ---- */

#define STAND_IN(name)                                                                         \
    void name(struct qmp_cmd *c)                                                               \
    {                                                                                          \
        (void)c;                                                                               \
    }
QMP_EACH_RUN(STAND_IN)

struct dialect {
    struct rpc_session *s;
};

static bool claims(struct json_object *first)
{
    return json_object_is_type(first, json_type_object) &&
           json_object_object_get_ex(first, "execute", NULL);
}

static void *begin(void *arg, struct rpc_session *s)
{
    struct dialect *q = xnew(struct dialect);

    (void)arg;
    f.n_qmp++;
    q->s = s;
    return q;
}

static void say(struct dialect *q, const char *text)
{
    AUTO_JSON o = json_object_new_object();

    api_json_set_str(o, "said", text);
    rpc_conn_send(q->s->conn, o);
}

static void message(void *state, struct json_object *msg)
{
    char desc[QMP_DESC_MAX] = "ok";
    struct qmp_request r;
    const struct qmp_command *c;

    if (qmp_parse(msg, true, &r, desc)) {
        c = qmp_find(r.name);
        if (!c) {
            snprintf(desc, sizeof(desc), "The command %.100s has not been found", r.name);
        } else if (qmp_check(c, r.args, desc)) {
            snprintf(desc, sizeof(desc), "ok");
        }
    }
    if (!desc[0]) {
        FUZZ_FAIL("refused without a word: %s", api_json_text(msg));
    }
    say(state, desc);
}

static void garbage(void *state, const struct err *why)
{
    say(state, why->msg);
}

static bool idle(void *state)
{
    (void)state;
    return true;
}

static void end(void *state)
{
    free(state);
}

static const struct rpc_dialect dialect = { .claims = claims,
                                            .begin = begin,
                                            .message = message,
                                            .garbage = garbage,
                                            .idle = idle,
                                            .end = end };

void fuzz_setup(void)
{
    struct rpc_server_config config = { .program = "vmd",
                                        .qmp = "{\"version\":{},\"capabilities\":[]}",
                                        .dialect = &dialect,
                                        .handlers = &f.table,
                                        .limits = &limits };

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < API_N_METHODS; i++) {
        f.handlers[i] = (struct api_handler){ api_methods[i], handle };
    }
    f.table = (struct api_handler_table){ f.handlers, API_N_METHODS };
    f.loop = loop_new(NULL);
    f.server = rpc_server_new(f.loop, &config, NULL, NULL);
}

void fuzz_finish(void)
{
    rpc_server_free(f.server);
    loop_free(f.loop);
    printf("# %llu calls, %llu sessions of QMP, %llu lines answered, %llu of them errors\n",
           (unsigned long long)f.n_calls, (unsigned long long)f.n_qmp,
           (unsigned long long)f.n_lines, (unsigned long long)f.n_errors);
}

/* ---- a client ---- */

/* False at the end of the connection. */
static bool receive(int fd, struct buf *out)
{
    char b[65536];
    ssize_t n;

    while ((n = read(fd, b, sizeof(b))) > 0) {
        buf_add(out, b, (size_t)n);
    }
    return n < 0 && errno == EAGAIN;
}

static void talk(const uint8_t *data, size_t size, enum api_role role, size_t piece,
                 struct buf *out)
{
    int pair[2];
    size_t at = 0;
    bool open = true;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        FUZZ_FAIL("no descriptors are left");
    }
    rpc_server_add(f.server, pair[1], role, NULL);
    for (unsigned turn = 0; open; turn++) {
        if (turn > 100000) {
            FUZZ_FAIL("the connection does not end");
        }
        if (at < size) {
            size_t room = size - at < piece ? size - at : piece;
            ssize_t n = write(pair[0], data + at, room);
            at += n > 0 ? (size_t)n : errno == EAGAIN ? 0 : room;
        }
        if (at == size) {
            shutdown(pair[0], SHUT_WR);
            at++;
        }
        loop_run_once(f.loop, 0, NULL);
        open = receive(pair[0], out);
    }
    close(pair[0]);
    while (rpc_server_clients(f.server) > 0) {
        loop_run_once(f.loop, 0, NULL);
    }
}

static void check_lines(const struct buf *b)
{
    size_t at = 0;

    while (at < b->len) {
        const char *line = b->data + at, *end = memchr(line, '\n', b->len - at);
        AUTO_JSON o = NULL;
        struct err e = ERR_INIT;
        if (!end) {
            FUZZ_FAIL("an answer without its end: %.*s", (int)(b->len - at), line);
        }
        if (api_json_parse_max(line, (size_t)(end - line), 4 << 20, 0, &o, &e) != 0 || !o) {
            FUZZ_FAIL("an answer that is no JSON (%s): %.*s", e.msg, (int)(end - line), line);
        }
        f.n_lines++;
        f.n_errors += api_json_get(o, "error") != NULL;
        at = (size_t)(end - b->data) + 1;
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    AUTO_BUF whole = BUF_INIT;
    AUTO_BUF cut = BUF_INIT;

    if (size < 2) {
        return;
    }
    enum api_role role = (enum api_role)(API_ROLE_VIEWER + data[0] % 4);
    size_t piece = data[1] % 16 == 0 ? 1 : 1 + data[1];
    talk(data + 2, size - 2, role, size, &whole);
    check_lines(&whole);
    talk(data + 2, size - 2, role, piece, &cut);
    if (whole.len != cut.len || memcmp(whole.data, cut.data, cut.len) != 0) {
        FUZZ_FAIL("other answers in pieces of %zu:\n%.*s\n%.*s", piece, (int)whole.len, whole.data,
                  (int)cut.len, cut.data);
    }
}
