/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of agent.*: each is one command of the guest agent, or a few of them one after the other. Owns struct talk, one for each
 * call at work. What the agent answers is a guest's word: it is looked at member by member. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/vm/agent.h"
#include "engine/base/base64.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "daemon/run/proc.h"

#include <string.h>

#define MS_NS INT64_C(1000000)
#define POLL_FIRST_MS 20
#define EXEC_FLOOR_MS 10000
#define POLL_MOST_MS 1000
#define PIECE 262144

struct talk {
    struct vmd *d;
    int64_t vm;
    struct api_call *call;
    void *in;
    int64_t until_ns;
    int64_t floor_ms; /* what each command has at least, however late it is */
    struct loop_timer *timer; /* between two looks at a program */
    int64_t poll_ms, pid, handle, bytes;
    struct api_agent_file_read_out read;
    char *data;
    struct api_error failed; /* what goes wrong before a file is closed again */
};

static void talk_free(struct talk *t)
{
    loop_timer_free(t->timer);
    free(t->data);
    free(t);
}

static void talk_fail(struct talk *t, const struct api_error *x)
{
    struct api_call *call = t->call;
    talk_free(t);
    api_reply_error(call, x);
}

static void talk_failf(struct talk *t, int code, const char *why)
{
    struct vm *vm = vm_by_id(t->d, t->vm);
    struct api_error x = API_ERROR_INIT;
    api_error_set(&x, code, vm ? vm->config.name : "?", NULL, "the guest agent %s", why);
    talk_fail(t, &x);
}

/* Durable audit first, where something was changed. */
static void talk_done(struct talk *t, bool changed, struct json_object *take_result)
{
    struct vm *vm = vm_by_id(t->d, t->vm);
    struct api_call *call = t->call;
    struct vmd *d = t->d;
    talk_free(t);
    if (changed) {
        call_finish(d, call, vm ? vm->config.name : "?", take_result);
    } else {
        api_reply_json(call, take_result);
    }
}

static struct talk *talk_new(struct api_call *call, void *in, const char *ref,
                             int64_t timeout_ms)
{
    struct vm *vm = call_vm(call, ref);
    struct talk *t;
    if (!vm) {
        return NULL;
    }
    t = xnew(struct talk);
    *t = (struct talk){ .d = vm->d,
                        .vm = vm->id,
                        .call = call,
                        .in = in,
                        .until_ns = time_mono_ns() + timeout_ms * MS_NS,
                        .failed = API_ERROR_INIT };
    return t;
}

static void say(struct talk *t, const char *execute, struct json_object *take_arguments,
                agent_fn *fn)
{
    struct vm *vm = vm_by_id(t->d, t->vm);
    int64_t left = (t->until_ns - time_mono_ns()) / MS_NS;
    if (!vm) {
        json_object_put(take_arguments);
        talk_failf(t, API_E_BAD_STATE, "is gone with its VM");
        return;
    }
    left = left > t->floor_ms ? left : t->floor_ms;
    agent_ask(vm, execute, take_arguments, left > 1 ? left : 1, false, fn, t);
}

/* ---- one command ---- */

static void on_info(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    const char *version = api_json_get_str(r, "version");
    struct json_object *list = api_json_get(r, "supported_commands");
    struct json_object *names = json_object_new_array(), *out = json_object_new_object();
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    for (size_t i = 0; i < n && i < 1024; i++) {
        struct json_object *c = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(c, "name");
        if (name && api_json_get_bool(c, "enabled", false)) {
            json_object_array_add(names, json_object_new_string(name));
        }
    }
    api_json_set_str(out, "version", version ? version : "?");
    api_json_set(out, "commands", names);
    talk_done(t, false, out);
}

void api_handle_agent_info(struct api_call *call, struct api_agent_info_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, "guest-info", NULL, on_info);
    }
}

static struct json_object *addresses(struct json_object *list)
{
    struct json_object *out = json_object_new_array();
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    for (size_t i = 0; i < n && i < 256; i++) {
        struct json_object *a = json_object_array_get_idx(list, i);
        const char *text = api_json_get_str(a, "ip-address");
        if (text) {
            struct json_object *o = json_object_new_object();
            api_json_set_str(o, "address", text);
            api_json_set_int(o, "prefix", api_json_get_int(a, "prefix", 0));
            json_object_array_add(out, o);
        }
    }
    return out;
}

static void on_interfaces(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    struct json_object *list = json_object_new_array(), *out = json_object_new_object();
    size_t n = json_object_is_type(r, json_type_array) ? json_object_array_length(r) : 0;
    for (size_t i = 0; i < n && i < 256; i++) {
        struct json_object *f = json_object_array_get_idx(r, i);
        const char *name = api_json_get_str(f, "name");
        const char *mac = api_json_get_str(f, "hardware-address");
        if (name) {
            struct json_object *o = json_object_new_object();
            api_json_set_str(o, "name", name);
            if (mac) {
                api_json_set_str(o, "mac", mac);
            }
            api_json_set(o, "addresses", addresses(api_json_get(f, "ip-addresses")));
            json_object_array_add(list, o);
        }
    }
    api_json_set(out, "interfaces", list);
    talk_done(t, false, out);
}

void api_handle_agent_interfaces(struct api_call *call, struct api_agent_interfaces_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, "guest-network-get-interfaces", NULL, on_interfaces);
    }
}

static void on_command(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    struct json_object *out = json_object_new_object();
    json_object_object_add(out, "result", json_object_get(r));
    talk_done(t, true, out);
}

void api_handle_agent_command(struct api_call *call, struct api_agent_command_in *in)
{
    struct talk *t;
    if (in->arguments && !json_object_is_type(in->arguments, json_type_object)) {
        api_fail(call, API_E_INVALID_PARAMS, "arguments", NULL, "'arguments' is no object");
        return;
    }
    t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, in->execute, json_object_get(in->arguments), on_command);
    }
}

/* ---- file systems ---- */

static void on_count(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    struct json_object *out = json_object_new_object();
    api_json_set_int(out, "count",
                     json_object_is_type(r, json_type_int) ? json_object_get_int64(r) : 0);
    talk_done(t, true, out);
}

void api_handle_agent_freeze(struct api_call *call, struct api_agent_freeze_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (!t) {
        return;
    }
    if (in->n_mountpoints == 0) {
        say(t, "guest-fsfreeze-freeze", NULL, on_count);
        return;
    }
    struct json_object *list = json_object_new_array(), *o = json_object_new_object();
    for (size_t i = 0; i < in->n_mountpoints; i++) {
        json_object_array_add(list, json_object_new_string(in->mountpoints[i]));
    }
    api_json_set(o, "mountpoints", list);
    say(t, "guest-fsfreeze-freeze-list", o, on_count);
}

void api_handle_agent_thaw(struct api_call *call, struct api_agent_thaw_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, "guest-fsfreeze-thaw", NULL, on_count);
    }
}

static void on_freeze_status(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    const char *word = json_object_is_type(r, json_type_string) ? json_object_get_string(r)
                                                                : "";
    struct json_object *out = json_object_new_object();
    api_json_set_bool(out, "frozen", strcmp(word, "frozen") == 0);
    talk_done(t, false, out);
}

void api_handle_agent_freeze_status(struct api_call *call,
                                    struct api_agent_freeze_status_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, "guest-fsfreeze-status", NULL, on_freeze_status);
    }
}

/* ---- programs ---- */

static void look(void *arg);

static struct json_object *with_number(const char *name, int64_t n)
{
    struct json_object *o = json_object_new_object();
    api_json_set_int(o, name, n);
    return o;
}

static struct json_object *what_became(const struct talk *t, struct json_object *r)
{
    static const char *const from[] = { "out-data", "err-data" }, *const to[] = { "output",
                                                                                  "errors" };
    struct json_object *o = with_number("pid", t->pid);
    int64_t status = api_json_get_int(r, "exitcode", -1),
            sig = api_json_get_int(r, "signal", -1);
    api_json_set_bool(o, "exited", api_json_get_bool(r, "exited", false));
    if (status >= 0) {
        api_json_set_int(o, "status", status);
    }
    if (sig > 0) {
        api_json_set_int(o, "signal", sig);
    }
    for (unsigned i = 0; i < 2; i++) {
        const char *text = api_json_get_str(r, from[i]);
        if (text) {
            api_json_set_str(o, to[i], text);
        }
    }
    api_json_set_bool(o, "truncated",
                      api_json_get_bool(r, "out-truncated", false) ||
                          api_json_get_bool(r, "err-truncated", false));
    return o;
}

static void on_status(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    bool late = time_mono_ns() + t->poll_ms * MS_NS > t->until_ns;
    if (x) {
        talk_fail(t, x);
    } else if (t->poll_ms == 0 || late || api_json_get_bool(r, "exited", false)) {
        talk_done(t, t->poll_ms > 0, what_became(t, r));
    } else {
        loop_timer_arm(t->timer, t->poll_ms * MS_NS);
        t->poll_ms = 2 * t->poll_ms > POLL_MOST_MS ? POLL_MOST_MS : 2 * t->poll_ms;
    }
}

static void look(void *arg)
{
    struct talk *t = arg;
    say(t, "guest-exec-status", with_number("pid", t->pid), on_status);
}

static void on_begun(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        talk_fail(t, x);
        return;
    }
    t->pid = api_json_get_int(r, "pid", 0);
    if (t->pid <= 0) {
        talk_failf(t, API_E_GUEST_ERROR, "does not tell the program's process");
        return;
    }
    t->poll_ms = POLL_FIRST_MS;
    t->timer = loop_timer_new(t->d->loop, look, t);
    loop_timer_arm(t->timer, t->poll_ms * MS_NS);
}

static void add_texts(struct json_object *o, const char *name, char *const *texts, size_t n)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        json_object_array_add(list, json_object_new_string(texts[i]));
    }
    api_json_set(o, name, list);
}

void api_handle_agent_exec(struct api_call *call, struct api_agent_exec_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (!t) {
        return;
    }
    t->floor_ms = EXEC_FLOOR_MS;
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "path", in->path);
    add_texts(o, "arg", in->args, in->n_args);
    if (in->n_env > 0) {
        add_texts(o, "env", in->env, in->n_env);
    }
    if (in->input) {
        api_json_set_str(o, "input-data", in->input);
    }
    api_json_set_bool(o, "capture-output", true);
    say(t, "guest-exec", o, on_begun);
}

void api_handle_agent_exec_status(struct api_call *call, struct api_agent_exec_status_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        t->pid = in->pid;
        look(t);
    }
}

/* ---- files ---- */

static struct json_object *file_opening(const char *path, const char *mode)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "path", path);
    api_json_set_str(o, "mode", mode);
    return o;
}

/* What was done stands, or what went wrong before; the agent may keep the file open, should it fail to close it. */
static void on_closed(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    bool wrote = t->data == NULL;
    (void)r;
    if (t->failed.code) {
        struct api_error why = t->failed;
        talk_fail(t, &why);
    } else if (x && wrote) {
        talk_fail(t, x); /* what it had not written yet */
    } else if (wrote) {
        talk_done(t, true, with_number("bytes", t->bytes));
    } else {
        t->read.data = t->data;
        talk_done(t, false, api_encode(&api_type_agent_file_read_out, &t->read));
    }
}

static void close_file(struct talk *t, const struct api_error *x)
{
    if (x) {
        t->failed = *x;
    }
    say(t, "guest-file-close", with_number("handle", t->handle), on_closed);
}

static void close_with(struct talk *t, const char *why)
{
    struct api_error x = API_ERROR_INIT;
    api_error_set(&x, API_E_GUEST_ERROR, "?", NULL, "the guest agent %s", why);
    close_file(t, &x);
}

static void on_read(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    const char *data = x ? NULL : api_json_get_str(r, "buf-b64");
    if (x) {
        close_file(t, x);
    } else if (!data || strlen(data) > 700000) {
        close_with(t, "does not tell what it has read");
    } else {
        t->data = xstrdup(data);
        t->read.bytes = api_json_get_int(r, "count", 0);
        t->read.eof = api_json_get_bool(r, "eof", false);
        close_file(t, NULL);
    }
}

static void read_on(struct talk *t)
{
    const struct api_agent_file_read_in *in = t->in;
    struct json_object *o = with_number("handle", t->handle);
    api_json_set_int(o, "count", in->count);
    say(t, "guest-file-read", o, on_read);
}

static void on_sought(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    (void)r;
    if (x) {
        close_file(t, x);
    } else {
        read_on(t);
    }
}

static bool has_handle(struct talk *t, struct json_object *r, const struct api_error *x)
{
    if (x) {
        talk_fail(t, x);
        return false;
    }
    t->handle = json_object_is_type(r, json_type_int) ? json_object_get_int64(r) : -1;
    if (t->handle < 0) {
        talk_failf(t, API_E_GUEST_ERROR, "does not tell the file's handle");
        return false;
    }
    return true;
}

static void on_open_to_read(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    const struct api_agent_file_read_in *in = t->in;
    if (!has_handle(t, r, x)) {
        return;
    }
    if (in->offset == 0) {
        read_on(t);
        return;
    }
    struct json_object *o = with_number("handle", t->handle);
    api_json_set_int(o, "offset", in->offset);
    api_json_set_int(o, "whence", 0);
    say(t, "guest-file-seek", o, on_sought);
}

void api_handle_agent_file_read(struct api_call *call, struct api_agent_file_read_in *in)
{
    struct talk *t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        say(t, "guest-file-open", file_opening(in->path, "r"), on_open_to_read);
    }
}

static void on_written(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    if (x) {
        close_file(t, x);
        return;
    }
    t->bytes = api_json_get_int(r, "count", 0);
    close_file(t, NULL);
}

static void on_open_to_write(void *arg, struct json_object *r, const struct api_error *x)
{
    struct talk *t = arg;
    const struct api_agent_file_write_in *in = t->in;
    if (!has_handle(t, r, x)) {
        return;
    }
    if (!in->data[0]) {
        close_file(t, NULL);
        return;
    }
    struct json_object *o = with_number("handle", t->handle);
    api_json_set_str(o, "buf-b64", in->data);
    say(t, "guest-file-write", o, on_written);
}

void api_handle_agent_file_write(struct api_call *call, struct api_agent_file_write_in *in)
{
    AUTO_BUF bytes = BUF_INIT;
    struct talk *t;
    if (!base64_take(&bytes, in->data) || bytes.len > PIECE) {
        api_fail(call, API_E_INVALID_PARAMS, "data", NULL,
                 "'data' is no base64, or of more than 256 KiB");
        return;
    }
    t = talk_new(call, in, in->vm, in->timeout_ms);
    if (t) {
        bool create = in->mode == API_GUEST_FILE_MODE_CREATE;
        say(t, "guest-file-open", file_opening(in->path, create ? "w" : "a"), on_open_to_write);
    }
}
