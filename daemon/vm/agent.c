/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to a guest agent (agent.h; protocol: qga-schema of QEMU 7.2). Each connection, and each command after one that
 * was not answered in time, begins with guest-sync-delimited, so that late answers are told from the awaited one. Owns struct
 * agent, one for each VM that runs with an agent's channel. Loop thread.
 */
#include "daemon/vm/agent.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/channels.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MS_NS INT64_C(1000000)
#define ANSWER_MAX (768u << 10) /* bytes: what one of our own answers can carry */
#define QUEUE_MAX 64
#define ADDRESSES_MAX 64
#define REFRESH_MS 30000
#define REFRESH_TIMEOUT_MS 5000
#define SILENCE_MS 1500 /* a silent command has succeeded when no error came by then */
#define ASK_NS INT64_C(10000000000)

struct ask {
    struct list link;
    char *line;
    int64_t until_ns;
    bool silent;
    agent_fn *fn;
    void *arg;
};

struct agent {
    struct vm *vm;
    bool open; /* it listens */
    int fd;    /* -1: not connected */
    struct loop_fd *watch;
    struct buf in, out;
    struct list queue; /* struct ask */
    unsigned n_queue;
    struct ask *now; /* sent, not answered */
    bool synced, syncing;
    int64_t sync_id;
    struct loop_timer *deadline, *refresh;
    int64_t refresh_ms;
    char *address[ADDRESSES_MAX];
    size_t n_addresses;
};

static void go_on(struct agent *a);

/* ---- commands ---- */

static void ask_done(struct ask *k, struct json_object *result, const struct api_error *x)
{
    agent_fn *fn = k->fn;
    void *arg = k->arg;
    free(k->line);
    free(k);
    fn(arg, result, x);
}

static void ask_fail(struct ask *k, int code, const char *vm, const char *remedy,
                     const char *why)
{
    struct api_error x = API_ERROR_INIT;
    api_error_set(&x, code, vm, remedy, "the guest agent of VM '%s' %s", vm, why);
    ask_done(k, NULL, &x);
}

static const char *vm_name(const struct agent *a)
{
    return a->vm->config.name;
}

/* The one that waits for its answer is over; what comes is not for the next one. */
static void now_fails(struct agent *a, int code, const char *why)
{
    struct ask *k = take_ptr(a->now);
    a->synced = a->syncing = false;
    if (k && k->silent) {
        ask_done(k, NULL, NULL);
    } else if (k) {
        ask_fail(k, code, vm_name(a), NULL, why);
    }
}

static void disconnect(struct agent *a)
{
    loop_fd_free(a->watch);
    a->watch = NULL;
    fd_autoclose(&a->fd);
    a->fd = -1;
    buf_done(&a->in);
    buf_done(&a->out);
    a->synced = a->syncing = false;
}

static void fail_queue(struct agent *a, int code, const char *why)
{
    while (!list_empty(&a->queue)) {
        struct ask *k = list_entry(a->queue.next, struct ask, link);
        list_remove(&k->link);
        a->n_queue--;
        ask_fail(k, code, vm_name(a), NULL, why);
    }
}

/* ---- the wire ---- */

static void watch(struct agent *a)
{
    if (a->watch) {
        loop_fd_set(a->watch, LOOP_READ | (a->out.len ? LOOP_WRITE : 0));
    }
}

/* False: the connection is gone. */
static bool flush(struct agent *a)
{
    while (a->fd >= 0 && a->out.len > 0) {
        ssize_t n = send(a->fd, a->out.data, a->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            return false;
        }
        if (n < 0) {
            break;
        }
        buf_consume(&a->out, (size_t)n);
    }
    watch(a);
    return a->fd >= 0;
}

static void answered(struct agent *a, struct json_object *o)
{
    struct json_object *error = api_json_get(o, "error");
    struct ask *k = take_ptr(a->now);
    if (error) {
        const char *desc = api_json_get_str(error, "desc"),
                   *class = api_json_get_str(error, "class");
        bool unknown = class && strcmp(class, "CommandNotFound") == 0;
        AUTO_FREE char *why = xasprintf("refuses: %.300s", desc ? desc : "it does not say why");
        ask_fail(k, unknown ? API_E_UNSUPPORTED : API_E_GUEST_ERROR, vm_name(a), NULL, why);
    } else {
        ask_done(k, api_json_get(o, "return"), NULL);
    }
}

/* One line. While syncing only what follows the delimiter counts. */
static void take_line(struct agent *a, const char *line, size_t n)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    const char *from = memrchr(line, 0xff, n);
    if (a->syncing && !from) {
        return;
    }
    n -= from ? (size_t)(from + 1 - line) : 0;
    line = from ? from + 1 : line;
    if (api_json_parse(line, n, &o, &e) < 0 || !json_object_is_type(o, json_type_object)) {
        if (a->now && !a->syncing) {
            now_fails(a, API_E_GUEST_ERROR, "answers with what is no JSON");
        }
        return;
    }
    if (a->syncing) {
        if (api_json_get_int(o, "return", -1) == a->sync_id) {
            a->syncing = false;
            a->synced = true;
        }
    } else if (a->now &&
               (api_json_get(o, "error") || json_object_object_get_ex(o, "return", NULL))) {
        answered(a, o);
    }
}

static bool take_input(struct agent *a)
{
    char bytes[65536];
    ssize_t n = recv(a->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    if (n == 0) {
        return false;
    }
    buf_add(&a->in, bytes, (size_t)n);
    struct buf in = a->in; /* an answer can lead to the end of the connection */
    a->in = (struct buf)BUF_INIT;
    size_t done = 0;
    const char *end;
    while (a->fd >= 0 && in.len > done &&
           (end = memchr(in.data + done, '\n', in.len - done)) != NULL) {
        size_t length = (size_t)(end - in.data) - done;
        take_line(a, in.data + done, length);
        done += length + 1;
    }
    if (a->fd < 0) {
        buf_done(&in);
        return true;
    }
    buf_consume(&in, done);
    a->in = in;
    if (a->in.len > ANSWER_MAX) {
        buf_done(&a->in);
        if (a->now) {
            now_fails(a, API_E_HOST_LIMIT, "answers with more than can be carried (768 KiB)");
        }
    }
    return true;
}

static void on_socket(void *arg, int fd, unsigned events)
{
    struct agent *a = arg;
    (void)fd;
    bool ok = !(events & LOOP_WRITE) || flush(a);
    ok = ok && (!(events & LOOP_READ) || take_input(a));
    if (!ok) {
        disconnect(a);
        now_fails(a, API_E_UNRESPONSIVE, "is not connected any more");
    }
    go_on(a);
}

static bool reach(struct agent *a)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    AUTO_FREE char *path = runfs_channel(&a->vm->d->opt, a->vm->id, AGENT_CHANNEL);
    if (a->fd >= 0) {
        return true;
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || !str_copy(to.sun_path, sizeof(to.sun_path), path) ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return false;
    }
    a->fd = take_fd(&fd);
    a->watch = loop_fd_new(a->vm->d->loop, a->fd, LOOP_READ, on_socket, a);
    return true;
}

/* ---- turns ---- */

static void set_deadline(struct agent *a)
{
    int64_t at = INT64_MAX, now = time_mono_ns();
    list_for_each (n, &a->queue) {
        const struct ask *k = list_entry(n, struct ask, link);
        at = k->until_ns < at ? k->until_ns : at;
    }
    at = a->now && a->now->until_ns < at ? a->now->until_ns : at;
    if (at == INT64_MAX) {
        loop_timer_disarm(a->deadline);
    } else {
        loop_timer_arm(a->deadline, at > now ? at - now : 0);
    }
}

/* Sends what can be sent: a sync first, then the next command. */
static void go_on(struct agent *a)
{
    while (a->open && !a->syncing && !a->now && !list_empty(&a->queue)) {
        struct ask *k = list_entry(a->queue.next, struct ask, link);
        if (!reach(a)) {
            list_remove(&k->link);
            a->n_queue--;
            ask_fail(k, API_E_UNRESPONSIVE, vm_name(a), "try again", "cannot be reached");
            continue;
        }
        if (!a->synced) {
            a->syncing = true;
            a->sync_id = (a->sync_id + 1) & 0x7fffffff;
            buf_add_char(&a->out, (char)0xff);
            buf_printf(&a->out,
                       "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%lld}}\n",
                       (long long)a->sync_id);
        } else {
            list_remove(&k->link);
            a->n_queue--;
            a->now = k;
            buf_add_str(&a->out, k->line);
            if (k->silent) {
                k->until_ns = time_mono_ns() + SILENCE_MS * MS_NS;
            }
        }
        if (!flush(a)) {
            disconnect(a);
            now_fails(a, API_E_UNRESPONSIVE, "is not connected any more");
        }
    }
    set_deadline(a);
}

static void on_deadline(void *arg)
{
    struct agent *a = arg;
    int64_t now = time_mono_ns();
    list_for_each_safe (n, &a->queue) {
        struct ask *k = list_entry(n, struct ask, link);
        if (k->until_ns <= now) {
            list_remove(&k->link);
            a->n_queue--;
            a->synced = a->syncing = false; /* a sync that was not answered is sent again */
            ask_fail(k, API_E_TIMEOUT, vm_name(a), "see whether it runs in the guest",
                     "has not answered in time");
        }
    }
    if (a->now && a->now->until_ns <= now) {
        now_fails(a, API_E_TIMEOUT, "has not answered in time; the command may still be done");
    }
    go_on(a);
}

void agent_ask(struct vm *vm, const char *execute, struct json_object *take_arguments,
               int64_t timeout_ms, bool silent, agent_fn *fn, void *arg)
{
    AUTO_JSON o = json_object_new_object();
    struct agent *a = vm->agent;
    struct ask *k = xnew(struct ask);
    api_json_set_str(o, "execute", execute);
    if (take_arguments) {
        api_json_set(o, "arguments", take_arguments);
    }
    *k = (struct ask){ .line = xasprintf("%s\n", api_json_text(o)),
                       .until_ns = time_mono_ns() + timeout_ms * MS_NS,
                       .silent = silent,
                       .fn = fn,
                       .arg = arg };
    if (!a || !a->open) {
        ask_fail(k, a ? API_E_BAD_STATE : API_E_UNSUPPORTED, vm->config.name,
                 a ? "install qemu-guest-agent in the guest, and start it"
                   : "give the VM 'agent': true, and start it",
                 a ? "does not listen" : "has no channel: the VM does not run with one");
        return;
    }
    if (a->n_queue >= QUEUE_MAX) {
        ask_fail(k, API_E_OVERLOAD, vm->config.name, "try again later", "has too much to do");
        return;
    }
    list_append(&a->queue, &k->link);
    a->n_queue++;
    go_on(a);
}

/* ---- addresses ---- */

static void drop_addresses(struct agent *a)
{
    while (a->n_addresses > 0) {
        free(a->address[--a->n_addresses]);
    }
}

/* One that others can reach, in the form that addresses are written in. */
static bool add_address(struct agent *a, const char *text)
{
    unsigned char raw[16];
    char clean[INET6_ADDRSTRLEN];
    bool v4 = text && inet_pton(AF_INET, text, raw) == 1;
    if (!v4 && (!text || inet_pton(AF_INET6, text, raw) != 1)) {
        return false;
    }
    static const unsigned char loopback6[16] = { [15] = 1 };
    bool local = v4 ? raw[0] == 127 || (raw[0] == 169 && raw[1] == 254)
                    : memcmp(raw, loopback6, 16) == 0 ||
                          (raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80);
    if (local || a->n_addresses >= ADDRESSES_MAX ||
        !inet_ntop(v4 ? AF_INET : AF_INET6, raw, clean, sizeof(clean))) {
        return false;
    }
    a->address[a->n_addresses++] = xstrdup(clean);
    return true;
}

static void on_interfaces(void *arg, struct json_object *result, const struct api_error *x)
{
    struct agent *a = ((struct vm *)arg)->agent;
    if (!a) {
        return;
    }
    if (!x) {
        drop_addresses(a);
    }
    size_t n = !x && json_object_is_type(result, json_type_array)
                   ? json_object_array_length(result)
                   : 0;
    for (size_t i = 0; i < n; i++) {
        struct json_object *list = api_json_get(json_object_array_get_idx(result, i),
                                                "ip-addresses");
        size_t many = list && json_object_is_type(list, json_type_array)
                          ? json_object_array_length(list)
                          : 0;
        for (size_t k = 0; k < many; k++) {
            add_address(a, api_json_get_str(json_object_array_get_idx(list, k), "ip-address"));
        }
    }
    a->refresh_ms = a->n_addresses > 0 ? REFRESH_MS : 2 * a->refresh_ms;
    a->refresh_ms = a->refresh_ms > REFRESH_MS ? REFRESH_MS : a->refresh_ms;
    if (a->open) {
        loop_timer_arm(a->refresh, a->refresh_ms * MS_NS);
    }
}

static void on_refresh(void *arg)
{
    struct agent *a = arg;
    if (a->vm->state == API_VM_STATE_RUNNING) {
        agent_ask(a->vm, "guest-network-get-interfaces", NULL, REFRESH_TIMEOUT_MS, false,
                  on_interfaces, a->vm);
    } else {
        loop_timer_arm(a->refresh, REFRESH_MS * MS_NS);
    }
}

char **agent_addresses(const struct vm *vm, size_t *n)
{
    *n = vm->agent ? vm->agent->n_addresses : 0;
    return vm->agent ? vm->agent->address : NULL;
}

/* ---- its life ---- */

bool agent_listens(const struct vm *vm)
{
    return vm->agent && vm->agent->open;
}

static void set_open(struct agent *a, bool open)
{
    if (a->open == open) {
        return;
    }
    a->open = open;
    a->synced = a->syncing = false;
    if (open) {
        a->refresh_ms = 500;
        loop_timer_arm(a->refresh, 0);
        go_on(a);
    } else {
        loop_timer_disarm(a->refresh);
        drop_addresses(a);
        now_fails(a, API_E_BAD_STATE, "has ended");
        fail_queue(a, API_E_BAD_STATE, "has ended");
        set_deadline(a);
    }
}

static void on_channels(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg;
    struct api_emu_channels_out out;
    if (x || api_decode(&api_type_emu_channels_out, result, API_LENIENT, "", &out, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < out.n_channels; i++) {
        agent_channel(vm, out.channels[i].name, out.channels[i].open);
    }
    api_release(&api_type_emu_channels_out, &out);
}

void agent_up(struct vm *vm)
{
    if (!vm->agent && !vm->config.agent) {
        return;
    }
    if (!vm->agent) {
        struct agent *a = xnew(struct agent);
        /* Not what the last one counted from: a guest that was saved in between answers that one's sync yet. */
        *a = (struct agent){ .vm = vm,
                             .fd = -1,
                             .sync_id = (time_real_ns() / 1000) & 0x7fffffff };
        list_init(&a->queue);
        a->deadline = loop_timer_new(vm->d->loop, on_deadline, a);
        a->refresh = loop_timer_new(vm->d->loop, on_refresh, a);
        vm->agent = a;
    }
    run_call(vm->run, "emu.channels", ASK_NS, on_channels, vm);
}

void agent_channel(struct vm *vm, const char *name, bool open)
{
    if (vm->agent && strcmp(name, AGENT_CHANNEL) == 0) {
        set_open(vm->agent, open);
    }
}

void agent_gone(struct vm *vm, const char *why)
{
    struct agent *a = vm->agent;
    if (!a) {
        return;
    }
    AUTO_FREE char *text = xasprintf("is gone: %s", why);
    a->open = false;
    now_fails(a, API_E_BAD_STATE, text);
    fail_queue(a, API_E_BAD_STATE, text);
    disconnect(a);
    drop_addresses(a);
    loop_timer_free(a->deadline);
    loop_timer_free(a->refresh);
    vm->agent = NULL;
    free(a);
}
