/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands about the screen, the keyboard and the tablet of a VM. What changes something is the method of the API that does the
 * same; the file of a picture is written by a thread. Loop thread, but for shot_write().
 */
#include "api-schema/gen/types.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/qmp/cmd.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/spawn/proto.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "daemon/run/proc.h"
#include "daemon/screen/vnc.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHOT_MAX = 512 << 20, EVENTS_MAX = 64, KEYS_MAX = 16 };

/* --- pictures -------------------------------------------------------------------------------------------- */

struct shot {
    struct work work;
    struct qmp_cmd *c;
    char *uuid, *file;
    bool png;
    int64_t picture, after;
    struct buf data;
};

static void shot_free(struct shot *s)
{
    buf_done(&s->data);
    free(s->uuid);
    free(s->file);
    free(s);
}

static void shot_fail(struct shot *s, const char *why)
{
    qmp_error(s->c, "GenericError", "%s", why);
    shot_free(s);
}

/* A new file, or one that is there and empty, as tools make it to keep its name: nothing is ever lost. */
static int shot_open(const char *path, bool *made, struct err *e)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    *made = fd >= 0;
    if (fd < 0 && errno == EEXIST) {
        fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0)) {
            close(fd);
            return err_set(e, -EEXIST, "failed to open file '%s': it is there already", path);
        }
    }
    return fd < 0 ? err_errno(e, errno, "failed to open file '%s'", path) : fd;
}

static void shot_write(struct work *w)
{
    struct shot *s = (struct shot *)((char *)w - offsetof(struct shot, work));
    bool made;
    AUTO_FD fd = shot_open(s->file, &made, &w->e);

    w->failed = fd < 0 || fd_write_all(fd, s->data.data, s->data.len, s->file, &w->e) < 0;
    if (w->failed && fd >= 0 && made) {
        unlink(s->file);
    }
}

static void shot_written(struct work *w)
{
    struct shot *s = (struct shot *)((char *)w - offsetof(struct shot, work));

    if (w->failed) {
        shot_fail(s, w->e.msg);
        return;
    }
    qmp_return_nothing(s->c);
    shot_free(s);
}

static void shot_ask(struct shot *s);

static void on_piece(void *arg, struct json_object *result, const struct api_error *x)
{
    struct shot *s = arg;
    const char *data = x ? NULL : api_json_get_str(result, "data");

    if (x) {
        shot_fail(s, x->code == API_E_UNSUPPORTED
                         ? "There is no console to take a screendump from"
                         : x->message);
        return;
    }
    if (!data || !base64_take(&s->data, data) || s->data.len > SHOT_MAX) {
        shot_fail(s, "the emulator sent no picture");
        return;
    }
    s->picture = api_json_get_int(result, "picture", 0);
    s->after = api_json_get_int(result, "next", 0);
    if (s->after > 0) {
        shot_ask(s);
        return;
    }
    s->work.run = shot_write;
    s->work.ended = shot_written;
    if (!works_start(s->c->d->pools->works, &s->work)) {
        shot_fail(s, "too much is being written already");
    }
}

static void shot_ask(struct shot *s)
{
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", s->uuid);
    api_json_set_str(params, "format", s->png ? "png" : "ppm");
    api_json_set_int(params, "picture", s->picture);
    api_json_set_int(params, "after", s->after);
    api_call_nested(s->c->call, "vm.screenshot", params, on_piece, s);
}

/* A VM has one screen, without a name. */
static bool other_screen(struct qmp_cmd *c)
{
    const char *device = qmp_arg(c, "device");

    if (device) {
        qmp_error(c, "DeviceNotFound", "Device '%.200s' not found", device);
        return true;
    }
    if (api_json_get_int(c->args, "head", 0) != 0) {
        qmp_error(c, "GenericError", "'head' must be specified together with 'device'");
        return true;
    }
    return false;
}

void qmp_do_screendump(struct qmp_cmd *c)
{
    const char *file = qmp_arg(c, "filename"), *format = qmp_arg(c, "format");
    struct api_error x = API_ERROR_INIT;
    struct shot *s;

    if (other_screen(c)) {
        return;
    }
    if (file[0] != '/') {
        qmp_error(c, "GenericError", "Parameter 'filename' expects an absolute path");
        return;
    }
    if (access_file(c->call, c->vm->config.project, "filename", file, &x) < 0) {
        qmp_error(c, "GenericError", "%s", x.message);
        return;
    }
    s = xnew(struct shot);
    s->c = c;
    s->uuid = xstrdup(c->vm->config.uuid);
    s->file = xstrdup(file);
    s->png = format && strcmp(format, "png") == 0;
    shot_ask(s);
}

/* --- VNC -------------------------------------------------------------------------------------------------- */

static void set_address(struct json_object *o, const char *host)
{
    api_json_set_bool(o, "websocket", false);
    api_json_set_str(o, "family", "unix");
    api_json_set_str(o, "service", "");
    api_json_set_str(o, "host", host);
}

static void on_clients(struct qmp_cmd *c, struct json_object *result)
{
    AUTO_FREE char *path = runfs_path(&c->d->opt, c->vm->id, VM_VNC);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t n = api_json_get_int(result, "clients", 0);

    for (int64_t i = 0; i < n && i < 64; i++) {
        struct json_object *one = json_object_new_object();
        set_address(one, "");
        json_object_array_add(list, one);
    }
    api_json_set_bool(o, "enabled", true);
    api_json_set_str(o, "auth", "none");
    api_json_set_str(o, "family", "unix");
    api_json_set_str(o, "service", "");
    api_json_set_str(o, "host", path);
    api_json_set(o, "clients", list);
    qmp_return(c, o);
}

void qmp_do_query_vnc(struct qmp_cmd *c)
{
    struct json_object *o;

    if (c->vm->config.display && c->vm->run && !run_has_ended(c->vm->run)) {
        qmp_ask(c, "emu.vnc", NULL, on_clients);
        return;
    }
    o = json_object_new_object();
    api_json_set_bool(o, "enabled", false);
    qmp_return(c, o);
}

struct json_object *qmp_vnc_event(const struct vm *vm)
{
    AUTO_FREE char *path = runfs_path(&vm->d->opt, vm->id, VM_VNC);
    struct json_object *o = json_object_new_object(), *server = json_object_new_object(),
                       *client = json_object_new_object();

    api_json_set_str(server, "auth", "none");
    set_address(server, path);
    set_address(client, "");
    api_json_set(o, "server", server);
    api_json_set(o, "client", client);
    return o;
}

static bool no_viewers(struct qmp_cmd *c)
{
    const char *protocol = qmp_arg(c, "protocol");

    if (protocol && strcmp(protocol, "vnc") != 0) {
        qmp_error(c, "GenericError", "VMs have no display by %s", protocol);
        return true;
    }
    if (!c->vm->config.vnc) {
        qmp_error(c, "GenericError",
                  "VNC is not served on the network: the VM has no member 'vnc'");
    }
    return !c->vm->config.vnc;
}

void qmp_do_set_password(struct qmp_cmd *c)
{
    const char *password = qmp_arg(c, "password"), *connected = qmp_arg(c, "connected");

    if (no_viewers(c)) {
        return;
    }
    if (strlen(password) > VNC_PASSWORD_MAX) {
        qmp_error(c, "GenericError", "The password is longer than %d bytes", VNC_PASSWORD_MAX);
        return;
    }
    if (connected && strcmp(connected, "fail") == 0 && vnc_viewers(c->vm) > 0) {
        qmp_error(c, "GenericError", "Viewers are connected");
        return;
    }
    vnc_set_password(c->vm, password);
    if (connected && strcmp(connected, "disconnect") == 0) {
        vnc_disconnect(c->vm);
    }
    qmp_return_nothing(c);
}

void qmp_do_change_vnc_password(struct qmp_cmd *c)
{
    qmp_do_set_password(c);
}

void qmp_do_expire_password(struct qmp_cmd *c)
{
    const char *text = qmp_arg(c, "time");
    const bool from_now = text[0] == '+';
    int64_t real_s = time_real_ns() / 1000000000, left_s = 0;
    uint64_t value = 0;

    if (no_viewers(c)) {
        return;
    }
    if (strcmp(text, "never") == 0) {
        vnc_set_expiry(c->vm, VNC_FOREVER);
        qmp_return_nothing(c);
        return;
    }
    if (strcmp(text, "now") != 0) {
        if (str_to_u64(text + from_now, 0, UINT32_MAX, "time", &value, NULL) < 0) {
            qmp_error(c, "GenericError",
                      "Parameter 'time' expects now, never, +SECONDS or seconds since 1970");
            return;
        }
        left_s = from_now ? (int64_t)value : (int64_t)value - real_s;
    }
    vnc_set_expiry(c->vm, time_mono_ns() + (left_s > 0 ? left_s : 0) * INT64_C(1000000000));
    qmp_return_nothing(c);
}

/* --- keys and pointers ------------------------------------------------------------------------------------- */

static size_t count(struct json_object *list)
{
    return list ? json_object_array_length(list) : 0;
}

/* What the API calls a key: its name, or a scan code as #N. Answers the command when it is none. */
static bool key_name(struct qmp_cmd *c, struct json_object *key, const char *where, char *out,
                     size_t size)
{
    const char *type = api_json_get_str(key, "type"), *name = api_json_get_str(key, "data");
    int64_t number = api_json_get_int(key, "data", -1);
    bool by_name = type && strcmp(type, "qcode") == 0;

    if (by_name && name && name[0] != '#' && strlen(name) < size) {
        str_copy(out, size, name);
        return true;
    }
    if (!by_name && !name && number > 0 && number < 0x10000) {
        snprintf(out, size, "#%d", (int)number);
        return true;
    }
    qmp_error(c, "GenericError", "Invalid parameter type for '%s.data', expected: %s", where,
              by_name ? "string" : "integer");
    return false;
}

void qmp_do_send_key(struct qmp_cmd *c)
{
    struct json_object *list = api_json_get(c->args, "keys"), *params, *names;
    size_t n = count(list);

    if (n > KEYS_MAX) {
        qmp_error(c, "GenericError", "at most %d keys are pressed together", KEYS_MAX);
        return;
    }
    names = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        char name[40], where[32];
        snprintf(where, sizeof(where), "keys[%zu]", i);
        if (!key_name(c, json_object_array_get_idx(list, i), where, name, sizeof(name))) {
            json_object_put(names);
            return;
        }
        json_object_array_add(names, json_object_new_string(name));
    }
    params = qmp_vm_param(c);
    api_json_set(params, "keys", names);
    api_json_set_int(params, "hold_ms", api_json_get_int(c->args, "hold-time", 100));
    api_call_nested(c->call, "vm.send_key", params, qmp_on_done, c);
}

/* Buttons are keys; wheels turn when their button goes down. */
static const struct {
    const char *button, *key, *axis;
    int value;
} buttons[] = { { "left", "btn-left", NULL, 0 },     { "middle", "btn-middle", NULL, 0 },
                { "right", "btn-right", NULL, 0 },   { "side", "btn-side", NULL, 0 },
                { "extra", "btn-extra", NULL, 0 },   { "wheel-up", NULL, "wheel", 1 },
                { "wheel-down", NULL, "wheel", -1 }, { "wheel-left", NULL, "hwheel", -1 },
                { "wheel-right", NULL, "hwheel", 1 } };

static void add_turn(struct json_object *to, const char *axis, int64_t value,
                     const char *action)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "axis", axis);
    api_json_set_str(o, "action", action);
    api_json_set_int(o, "value", value);
    json_object_array_add(to, o);
}

static void add_press(struct json_object *to, const char *key, bool down)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "key", key);
    api_json_set_str(o, "action", down ? "down" : "up");
    json_object_array_add(to, o);
}

static bool add_button(struct json_object *to, struct json_object *data)
{
    const char *name = api_json_get_str(data, "button");
    bool down = api_json_get_bool(data, "down", false);

    for (unsigned i = 0; name && i < ARRAY_LEN(buttons); i++) {
        if (strcmp(name, buttons[i].button) != 0) {
            continue;
        }
        if (buttons[i].key) {
            add_press(to, buttons[i].key, down);
        } else if (down) {
            add_turn(to, buttons[i].axis, buttons[i].value, "turn");
        }
        return true;
    }
    return false;
}

/* One event of the command as one of the API's. Answers the command and returns false when there is no such thing. */
static bool add_event(struct qmp_cmd *c, struct json_object *to, struct json_object *ev,
                      size_t i)
{
    const char *type = api_json_get_str(ev, "type");
    struct json_object *data = api_json_get(ev, "data");
    const char *axis = api_json_get_str(data, "axis");
    int64_t value = api_json_get_int(data, "value", -1);
    char name[40], where[48];

    snprintf(where, sizeof(where), "events[%zu].data", i);
    if (!type || !json_object_is_type(data, json_type_object)) {
        qmp_error(c, "GenericError", "Invalid parameter type for '%s', expected: object",
                  where);
        return false;
    }
    if (strcmp(type, "key") == 0) {
        snprintf(where, sizeof(where), "events[%zu].data.key", i);
        if (!key_name(c, api_json_get(data, "key"), where, name, sizeof(name))) {
            return false;
        }
        add_press(to, name, api_json_get_bool(data, "down", false));
        return true;
    }
    if (strcmp(type, "rel") == 0) {
        qmp_error(c, "GenericError", "Input handler not found for event type rel");
        return false;
    }
    if (strcmp(type, "btn") == 0 && add_button(to, data)) {
        return true;
    }
    if (strcmp(type, "abs") == 0 && axis && value >= 0 && value <= 0x7fff &&
        (strcmp(axis, "x") == 0 || strcmp(axis, "y") == 0)) {
        add_turn(to, axis, value, "move");
        return true;
    }
    qmp_error(c, "GenericError", "Invalid parameter '%s'", where);
    return false;
}

void qmp_do_input_send_event(struct qmp_cmd *c)
{
    struct json_object *list = api_json_get(c->args, "events"), *events, *params;
    size_t n = count(list);

    if (other_screen(c)) {
        return;
    }
    if (c->vm->state != API_VM_STATE_RUNNING && c->vm->state != API_VM_STATE_STOPPING) {
        qmp_error(c, "GenericError", "VM not running");
        return;
    }
    if (n > EVENTS_MAX) {
        qmp_error(c, "GenericError", "at most %d events at once", EVENTS_MAX);
        return;
    }
    events = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        if (!add_event(c, events, json_object_array_get_idx(list, i), i)) {
            json_object_put(events);
            return;
        }
    }
    params = qmp_vm_param(c);
    api_json_set(params, "events", events);
    api_call_nested(c->call, "vm.input", params, qmp_on_done, c);
}
