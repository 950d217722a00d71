/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest's agent does and tells. Its answers are a guest's word: they are looked at member by member. */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "engine/base/base64.h"

#include <stdio.h>
#include <string.h>

enum { NS = 1000000000, ENTRIES_MAX = 1024 };

/* Elements of a list that a guest gave; none of what is no list, and not more than anybody needs. */
static size_t count(struct json_object *list)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

    return n < ENTRIES_MAX ? n : ENTRIES_MAX;
}

static struct json_object *texts(struct json_object *list)
{
    struct json_object *out = json_object_new_array();

    for (size_t i = 0; i < count(list); i++) {
        struct json_object *s = json_object_array_get_idx(list, i);
        if (json_object_is_type(s, json_type_string)) {
            json_object_array_add(out, json_object_get(s));
        }
    }
    return out;
}

/* --- file systems --------------------------------------------------------------------------------------- */

static void on_frozen(struct lv_call *c, struct json_object *result)
{
    lv_reply_int(c, "filesystems", api_json_get_int(result, "count", 0));
}

void lv_do_domain_freeze(struct lv_call *c)
{
    struct json_object *params = lv_vm(c), *list = api_json_get(c->args, "mountpoints");

    if (list && json_object_array_length(list)) {
        api_json_set(params, "mountpoints", json_object_get(list));
    }
    lv_ask(c, "domain", "agent.freeze", params, on_frozen);
}

void lv_do_domain_thaw(struct lv_call *c)
{
    lv_ask(c, "domain", "agent.thaw", lv_vm(c), on_frozen);
}

static void on_fsinfo(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "result"), *list = json_object_new_array(),
                       *o = json_object_new_object(), *to, *devs, *disks;

    for (size_t i = 0; i < count(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i);
        const char *mount = api_json_get_str(one, "mountpoint"),
                   *name = api_json_get_str(one, "name"), *type = api_json_get_str(one, "type");
        to = lv_object("mountpoint", mount ? mount : "");
        api_json_set_str(to, "name", name ? name : "");
        api_json_set_str(to, "fstype", type ? type : "");
        devs = json_object_new_array();
        disks = api_json_get(one, "disk");
        for (size_t k = 0; k < count(disks); k++) {
            const char *dev = api_json_get_str(json_object_array_get_idx(disks, k), "serial");
            if (dev) {
                json_object_array_add(devs, json_object_new_string(dev));
            }
        }
        api_json_set(to, "dev_aliases", devs);
        json_object_array_add(list, to);
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    api_json_set(o, "info", list);
    lv_reply(c, o);
}

void lv_do_domain_fsinfo(struct lv_call *c)
{
    lv_agent(c, "guest-get-fsinfo", NULL, on_fsinfo);
}

void lv_do_domain_fstrim(struct lv_call *c)
{
    struct json_object *args = json_object_new_object();

    if (lv_str(c, "mount_point")) {
        json_object_put(args);
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "all file systems are trimmed, not one alone");
        return;
    }
    api_json_set_int(args, "minimum", lv_int(c, "minimum"));
    lv_agent(c, "guest-fstrim", args, lv_done);
}

/* --- clock ------------------------------------------------------------------------------------------------ */

static void on_time(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();
    int64_t ns = json_object_get_int64(api_json_get(result, "result"));

    api_json_set_int(o, "seconds", ns / NS);
    api_json_set_int(o, "nseconds", ns % NS);
    lv_reply(c, o);
}

void lv_do_domain_time(struct lv_call *c)
{
    lv_agent(c, "guest-get-time", NULL, on_time);
}

void lv_do_domain_set_time(struct lv_call *c)
{
    enum { SYNC = 1 };
    struct json_object *args = NULL;
    int64_t seconds = lv_int(c, "seconds");

    if (seconds < 0 || seconds > INT64_MAX / NS - 1 || lv_int(c, "nseconds") >= NS) {
        lv_fail(c, LV_E_INVALID_ARG, "no time of a guest: %lld", (long long)seconds);
        return;
    }
    if (!(lv_int(c, "flags") & SYNC)) { /* else from the clock of its board */
        args = json_object_new_object();
        api_json_set_int(args, "time", seconds * NS + lv_int(c, "nseconds"));
    }
    lv_agent(c, "guest-set-time", args, lv_done);
}

/* --- users --------------------------------------------------------------------------------------------------- */

void lv_do_domain_set_password(struct lv_call *c)
{
    enum { CRYPTED = 1 };
    const char *user = lv_str(c, "user"), *password = lv_str(c, "password");
    struct json_object *args;
    AUTO_BUF text = BUF_INIT;

    if (!user || !password) {
        lv_fail(c, LV_E_INVALID_ARG, "a user and a password are needed");
        return;
    }
    base64_add(&text, password, strlen(password));
    args = lv_object("username", user);
    api_json_set_str(args, "password", text.data ? text.data : "");
    api_json_set_bool(args, "crypted", lv_int(c, "flags") & CRYPTED);
    lv_agent(c, "guest-set-user-password", args, lv_done);
}

static void on_keys(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "keys", texts(api_json_get(api_json_get(result, "result"), "keys")));
    lv_reply(c, o);
}

void lv_do_domain_ssh_keys(struct lv_call *c)
{
    lv_agent(c, "guest-ssh-get-authorized-keys", lv_object("username", lv_str(c, "user")),
             on_keys);
}

void lv_do_domain_set_ssh_keys(struct lv_call *c)
{
    enum { APPEND = 1, REMOVE = 2 };
    struct json_object *args = lv_object("username", lv_str(c, "user"));
    int64_t flags = lv_int(c, "flags");

    api_json_set(args, "keys", json_object_get(api_json_get(c->args, "keys")));
    if (!(flags & REMOVE)) {
        api_json_set_bool(args, "reset", !(flags & APPEND));
    }
    lv_agent(c,
             flags & REMOVE ? "guest-ssh-remove-authorized-keys"
                            : "guest-ssh-add-authorized-keys",
             args, lv_done);
}

/* --- names, vCPUs --------------------------------------------------------------------------------------------- */

static void on_hostname(struct lv_call *c, struct json_object *result)
{
    const char *name = api_json_get_str(api_json_get(result, "result"), "host-name");

    lv_reply_str(c, "hostname", name ? name : "");
}

void lv_do_domain_hostname(struct lv_call *c)
{
    enum { LEASE = 1 };

    if (lv_int(c, "flags") & LEASE) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "the guest's agent tells its name (--source agent), 'net-dhcp-leases' that of "
                "leases");
        return;
    }
    lv_agent(c, "guest-get-host-name", NULL, on_hostname);
}

/* Numbers as virsh writes lists: 0-2,4 */
static void put_list(struct buf *b, const bool *set, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t last = i;
        if (!set[i]) {
            continue;
        }
        while (last + 1 < n && set[last + 1]) {
            last++;
        }
        buf_printf(b, last > i ? "%s%zu-%zu" : "%s%zu", b->len ? "," : "", i, last);
        i = last;
    }
}

static void on_guest_vcpus(struct lv_call *c, struct json_object *result)
{
    static const char *const names[] = { "vcpus", "online", "offlinable" };
    struct json_object *from = api_json_get(result, "result"), *o = json_object_new_object(),
                       *list = json_object_new_array();

    for (unsigned k = 0; k < 3; k++) {
        bool set[ENTRIES_MAX] = { false };
        AUTO_BUF text = BUF_INIT;
        for (size_t i = 0; i < count(from); i++) {
            struct json_object *one = json_object_array_get_idx(from, i);
            int64_t id = api_json_get_int(one, "logical-id", -1);
            if (id >= 0 && id < ENTRIES_MAX) {
                set[id] = k == 0   ? true
                          : k == 1 ? api_json_get_bool(one, "online", false)
                                   : api_json_get_bool(one, "can-offline", false);
            }
        }
        put_list(&text, set, ENTRIES_MAX);
        lv_param_str(list, names[k], text.data ? text.data : "");
    }
    api_json_set(o, "params", list);
    lv_reply(c, o);
}

void lv_do_domain_guest_vcpus(struct lv_call *c)
{
    lv_agent(c, "guest-get-vcpus", NULL, on_guest_vcpus);
}

/* A list as "0-2,4" to the agent's structs; NULL: it is none. */
static struct json_object *vcpus_of(const char *text, bool online)
{
    struct json_object *list = json_object_new_array();
    unsigned from, to;
    int n;

    while (*text) {
        if (sscanf(text, "%u-%u%n", &from, &to, &n) < 2 &&
            (sscanf(text, "%u%n", &from, &n) < 1)) {
            break;
        }
        to = strchr(text, '-') && strchr(text, '-') < text + n ? to : from;
        if (to < from || to >= ENTRIES_MAX) {
            break;
        }
        for (unsigned id = from; id <= to && json_object_array_length(list) < ENTRIES_MAX;
             id++) {
            struct json_object *o = json_object_new_object();
            api_json_set_int(o, "logical-id", id);
            api_json_set_bool(o, "online", online);
            json_object_array_add(list, o);
        }
        text += n;
        text += *text == ',';
    }
    if (*text || json_object_array_length(list) == 0) {
        json_object_put(list);
        return NULL;
    }
    return list;
}

void lv_do_domain_set_guest_vcpus(struct lv_call *c)
{
    struct json_object *list = vcpus_of(lv_str(c, "cpumap"), lv_int(c, "state")), *args;

    if (!list) {
        lv_fail(c, LV_E_INVALID_ARG, "'%s' is no list of vCPUs", lv_str(c, "cpumap"));
        return;
    }
    args = json_object_new_object();
    api_json_set(args, "vcpus", list);
    lv_agent(c, "guest-set-vcpus", args, lv_done);
}

/* --- all of it in one ------------------------------------------------------------------------------------------- */

enum { USERS = 1, SYSTEM = 2, ZONE = 4, NAME = 8, FILES = 16, KINDS = 31 };

static void add_text(struct json_object *list, const char *field, struct json_object *from,
                     const char *member)
{
    const char *text = api_json_get_str(from, member);

    if (text) {
        lv_param_str(list, field, text);
    }
}

static void add_users(struct json_object *list, struct json_object *r)
{
    char field[64];

    lv_param(list, "user.count", 'u', (int64_t)count(r));
    for (size_t i = 0; i < count(r); i++) {
        struct json_object *one = json_object_array_get_idx(r, i);
        snprintf(field, sizeof(field), "user.%zu.name", i);
        add_text(list, field, one, "user");
        snprintf(field, sizeof(field), "user.%zu.login-time", i);
        double since = json_object_get_double(api_json_get(one, "login-time"));
        lv_param(list, field, 'H', since > 0 && since < 1e12 ? (int64_t)(since * 1000) : 0);
    }
}

static void add_system(struct json_object *list, struct json_object *r)
{
    static const char *const names[] = {
        "id",         "name",           "pretty-name",    "version",
        "version-id", "kernel-release", "kernel-version", "machine",
        "variant",    "variant-id"
    };
    char field[64];

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(field, sizeof(field), "os.%s", names[i]);
        add_text(list, field, r, names[i]);
    }
}

static void add_zone(struct json_object *list, struct json_object *r)
{
    add_text(list, "timezone.name", r, "zone");
    lv_param(list, "timezone.offset", 'i', api_json_get_int(r, "offset", 0));
}

static void add_name(struct json_object *list, struct json_object *r)
{
    add_text(list, "hostname", r, "host-name");
}

static void add_files(struct json_object *list, struct json_object *r)
{
    static const char *const names[] = { "mountpoint", "name", "fstype" }, *const members[] = {
        "mountpoint", "name", "type"
    };
    char field[64];

    lv_param(list, "fs.count", 'u', (int64_t)count(r));
    for (size_t i = 0; i < count(r); i++) {
        struct json_object *one = json_object_array_get_idx(r, i);
        for (unsigned k = 0; k < 3; k++) {
            snprintf(field, sizeof(field), "fs.%zu.%s", i, names[k]);
            add_text(list, field, one, members[k]);
        }
        if (api_json_get(one, "total-bytes")) {
            snprintf(field, sizeof(field), "fs.%zu.total-bytes", i);
            lv_param(list, field, 'H', api_json_get_int(one, "total-bytes", 0));
            snprintf(field, sizeof(field), "fs.%zu.used-bytes", i);
            lv_param(list, field, 'H', api_json_get_int(one, "used-bytes", 0));
        }
    }
}

static const struct {
    int kind;
    const char *command;
    void (*add)(struct json_object *list, struct json_object *result);
} parts[] = { { USERS, "guest-get-users", add_users },
              { SYSTEM, "guest-get-osinfo", add_system },
              { ZONE, "guest-get-timezone", add_zone },
              { NAME, "guest-get-host-name", add_name },
              { FILES, "guest-get-fsinfo", add_files } };

static void next_part(struct lv_call *c);

static void on_part(struct lv_call *c, struct json_object *result)
{
    parts[c->number].add(c->kept, api_json_get(result, "result"));
    c->number++;
    next_part(c);
}

static void next_part(struct lv_call *c)
{
    int64_t wanted = lv_int(c, "types") ? lv_int(c, "types") : KINDS;
    struct json_object *o;

    while (c->number < (int64_t)(sizeof(parts) / sizeof(parts[0]))) {
        if (wanted & parts[c->number].kind) {
            lv_agent(c, parts[c->number].command, NULL, on_part);
            return;
        }
        c->number++;
    }
    o = json_object_new_object();
    api_json_set(o, "params", json_object_get(c->kept));
    lv_reply(c, o);
}

void lv_do_domain_guest_info(struct lv_call *c)
{
    if (lv_int(c, "types") & ~KINDS) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "told are users, the system, time zone, name and file systems");
        return;
    }
    c->kept = json_object_new_array();
    c->number = 0;
    next_part(c);
}

/* --- any command -------------------------------------------------------------------------------------------------- */

static void on_command(struct lv_call *c, struct json_object *result)
{
    AUTO_JSON o = json_object_new_object();
    struct json_object *r = api_json_get(result, "result");

    json_object_object_add(o, "return", r ? json_object_get(r) : json_object_new_object());
    lv_reply_str(c, "result", api_json_text(o));
}

void lv_do_agent_command(struct lv_call *c)
{
    AUTO_JSON command = NULL;
    const char *text = lv_str(c, "cmd");
    struct json_object *args;

    if (api_json_parse(text, strlen(text), &command, NULL) < 0 ||
        !api_json_get_str(command, "execute")) {
        lv_fail(c, LV_E_INVALID_ARG, "a command is {\"execute\": NAME, \"arguments\": {...}}");
        return;
    }
    args = api_json_get(command, "arguments");
    lv_agent(c, api_json_get_str(command, "execute"), args ? json_object_get(args) : NULL,
             on_command);
}
