/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device that device_add makes stands on, by QMP's names: netdev_add, chardev-add, object-add and their opposites. A
 * back end is a name and what was said about it; the host's side of it is made with its device, by the method vm.attach. Owns
 * struct qmp_back. Loop thread.
 */
#include "daemon/qmp/plug.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/codec.h"
#include "api-schema/net/nicargs.h"
#include "daemon/auth/access.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/session.h"
#include "daemon/run/supervise.h"
#include "engine/base/base64.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>
#include <sys/stat.h>

#define BACKS_MAX 64 /* of a VM, of all kinds */
#define ID_MAX 63

struct qmp_back *qmp_back_find(const struct vm *vm, enum qmp_back_kind kind, const char *id)
{
    if (!vm->qmp || !id) {
        return NULL;
    }
    list_for_each (it, &vm->qmp->backs) {
        struct qmp_back *b = list_entry(it, struct qmp_back, link);

        if (b->kind == kind && strcmp(b->id, id) == 0) {
            return b;
        }
    }
    return NULL;
}

static void back_free(struct qmp_vm *v, struct qmp_back *b)
{
    list_remove(&b->link);
    v->n_backs--;
    json_object_put(b->nic);
    free(b->id);
    free(b->type);
    free(b->path);
    free(b);
}

void qmp_backs_free(struct qmp_vm *v)
{
    while (!list_empty(&v->backs)) {
        back_free(v, list_entry(v->backs.next, struct qmp_back, link));
    }
}

/* A text with the name in the place of its %s; the caller's. */
static char *named(const char *text, const char *id)
{
    const char *at = strstr(text, "%s");

    return xasprintf("%.*s%s%s", (int)(at - text), text, id, at + 2);
}

/* QEMU's identifiers: a letter, then letters, digits, '-', '.' and '_'. */
bool qmp_id_ok(const char *id)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    return id[0] && strchr(letters, id[0]) &&
           id[strspn(
               id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")] == 0 &&
           strlen(id) <= ID_MAX;
}

/* False after the command was answered. */
static bool id_free(struct qmp_cmd *c, enum qmp_back_kind kind)
{
    static const char *const taken[] = {
        [QMP_BACK_NETDEV] = "Duplicate ID '%s'",
        [QMP_BACK_CHARDEV] = "Chardev with id '%s' already exists",
        [QMP_BACK_OBJECT] =
            "attempt to add duplicate property '%s' to object (type 'container')",
    };
    const char *id = qmp_arg(c, "id");

    if (!c->vm->qmp) {
        qmp_error(c, "GenericError", "VM '%s' is %s", c->vm->config.name,
                  api_vm_state_name(c->vm->state));
    } else if (!qmp_id_ok(id)) {
        qmp_error(c, "GenericError", "Parameter 'id' expects an identifier");
    } else if (qmp_back_find(c->vm, kind, id)) {
        AUTO_FREE char *text = named(taken[kind], id);

        qmp_error(c, "GenericError", "%s", text);
    } else if (c->vm->qmp->n_backs >= BACKS_MAX) {
        qmp_error(c, "GenericError", "there are %d of them already", BACKS_MAX);
    } else {
        return true;
    }
    return false;
}

static struct qmp_back *back_new(struct qmp_cmd *c, enum qmp_back_kind kind, const char *type)
{
    struct qmp_back *b = xnew(struct qmp_back);

    *b = (struct qmp_back){ .kind = kind,
                            .id = xstrdup(qmp_arg(c, "id")),
                            .type = xstrdup(type) };
    list_append(&c->vm->qmp->backs, &b->link);
    c->vm->qmp->n_backs++;
    return b;
}

/* --- network back ends -------------------------------------------------------------------------------------- */

/* Members that have another name there; all are of one type on both sides. */
static const struct {
    const char *type, *qmp, *nic;
} nic_words[] = {
    { "user", "hostname", "hostname" }, { "user", "restrict", "restricted" },
    { "user", "net", "net" },           { "user", "host", "host" },
    { "user", "dns", "dns" },           { "user", "dhcpstart", "dhcp_start" },
    { "user", "ipv4", "ipv4" },         { "user", "ipv6", "ipv6" },
    { "user", "domainname", "domain" }, { "user", "tftp", "tftp" },
    { "user", "bootfile", "bootfile" }, { "user", "dnssearch", "search" },
    { "user", "hostfwd", "forward" },   { "user", "guestfwd", "guest_forward" },
    { "user", "ipv6-prefix", NULL },    { "user", "ipv6-prefixlen", NULL },
    { "tap", "ifname", "ifname" },      { "tap", "queues", "queues" },
    { "tap", "script", NULL },          { "tap", "downscript", NULL },
    { "tap", "vhost", NULL },           { "tap", "vnet_hdr", NULL },
    { "bridge", "br", "bridge" },       { "stream", "addr", NULL },
    { "stream", "server", NULL },       { "dgram", "remote", NULL },
};

static const char *const nic_types[] = { "user", "tap", "bridge", "stream", "dgram" };

/* What has one value only. False after the command was answered. */
static bool only(struct qmp_cmd *c, const char *name, const char *text, bool flag)
{
    struct json_object *v = api_json_get(c->args, name);

    if (v && json_object_is_type(v, json_type_string) && text &&
        strcmp(json_object_get_string(v), text) != 0) {
        qmp_error(c, "GenericError", "'%s' is \"%s\" or absent: vmd runs no script", name,
                  text);
        return false;
    }
    if (v && json_object_is_type(v, json_type_boolean) && !text &&
        json_object_get_boolean(v) != flag) {
        qmp_error(c, "GenericError", "'%s' is %s or absent", name, flag ? "true" : "false");
        return false;
    }
    return true;
}

/* Lists of {"str": TEXT}; what a guest forward leads to has no "tcp:" with us. NULL after the command was answered. */
static struct json_object *texts(struct qmp_cmd *c, const char *name, struct json_object *from)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        const char *text = api_json_get_str(json_object_array_get_idx(from, i), "str");
        const char *dash = text ? strchr(text, '-') : NULL;

        if (!text ||
            (strcmp(name, "guestfwd") == 0 && (!dash || str_starts(dash + 1, "cmd:")))) {
            json_object_put(list);
            qmp_error(c, "GenericError", "'%s[%zu]' is {\"str\": TEXT}%s", name, i,
                      dash ? ", and a guest forward leads to tcp:ADDRESS:PORT" : "");
            return NULL;
        }
        if (strcmp(name, "guestfwd") == 0 && str_starts(dash + 1, "tcp:")) {
            AUTO_FREE char *whole = xasprintf("%.*s-%s", (int)(dash - text), text, dash + 5);

            json_object_array_add(list, json_object_new_string(whole));
        } else {
            json_object_array_add(list, json_object_new_string(text));
        }
    }
    return list;
}

/* The path of a unix socket; NULL after the command was answered. */
static const char *socket_path(struct qmp_cmd *c, const char *name)
{
    struct json_object *a = api_json_get(c->args, name);
    const char *type = api_json_get_str(a, "type"), *path = api_json_get_str(a, "path");

    if (!type || strcmp(type, "unix") != 0 || !path) {
        qmp_error(c, "GenericError", "'%s' is {\"type\": \"unix\", \"path\": PATH}", name);
        return NULL;
    }
    return path;
}

/* One argument; false after the command was answered. */
static bool nic_member(struct qmp_cmd *c, unsigned i, struct json_object *nic)
{
    struct json_object *v = api_json_get(c->args, nic_words[i].qmp);

    if (nic_words[i].nic && json_object_is_type(v, json_type_array)) {
        v = texts(c, nic_words[i].qmp, v);
        if (v) {
            api_json_set(nic, nic_words[i].nic, v);
        }
        return v != NULL;
    }
    if (nic_words[i].nic) {
        api_json_set(nic, nic_words[i].nic, json_object_get(v));
    }
    return true;
}

static bool known_argument(const char *type, const char *name)
{
    bool known = strcmp(name, "type") == 0 || strcmp(name, "id") == 0;

    for (unsigned i = 0; i < ARRAY_LEN(nic_words); i++) {
        known |= strcmp(nic_words[i].type, type) == 0 && strcmp(nic_words[i].qmp, name) == 0;
    }
    return known;
}

/* Those that have no member of their own. False after the command was answered. */
static bool nic_special(struct qmp_cmd *c, const char *type, struct json_object *nic)
{
    const char *prefix = qmp_arg(c, "ipv6-prefix"), *path = NULL;

    if (strcmp(type, "stream") == 0 || strcmp(type, "dgram") == 0) {
        path = socket_path(c, strcmp(type, "stream") == 0 ? "addr" : "remote");
        if (!path || !only(c, "server", NULL, false)) {
            return false;
        }
        api_json_set_str(nic, "path", path);
    }
    if (prefix) {
        AUTO_FREE char *net6 = xasprintf("%s/%d", prefix,
                                         (int)api_json_get_int(c->args, "ipv6-prefixlen", 64));

        api_json_set_str(nic, "net6", net6);
    }
    if (strcmp(type, "bridge") == 0 && !qmp_arg(c, "br")) {
        api_json_set_str(nic, "bridge", "br0"); /* QEMU's */
    }
    return only(c, "script", "no", false) && only(c, "downscript", "no", false) &&
           only(c, "vhost", NULL, false) && only(c, "vnet_hdr", NULL, true);
}

/* The card as vm.attach wants it, checked as far as it can be without its device; NULL after the command was answered. */
static struct json_object *nic_of(struct qmp_cmd *c, const char *type)
{
    AUTO_JSON nic = json_object_new_object();
    struct api_error x = API_ERROR_INIT;
    struct err e = ERR_INIT;
    struct api_nic decoded;
    int rc;

    api_json_set_str(nic, "type", type);
    json_object_object_foreach(c->args, key, value)
    {
        (void)value;
        if (!known_argument(type, key)) {
            qmp_error(c, "GenericError", "Parameter '%s' is unexpected", key);
            return NULL;
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(nic_words); i++) {
        if (strcmp(nic_words[i].type, type) == 0 && api_json_get(c->args, nic_words[i].qmp) &&
            !nic_member(c, i, nic)) {
            return NULL;
        }
    }
    if (!nic_special(c, type, nic)) {
        return NULL;
    }
    if (api_decode(&api_type_nic, nic, API_STRICT, "", &decoded, &x) != 0) {
        qmp_error(c, "GenericError", "%s", x.message);
        return NULL;
    }
    rc = nic_check(&decoded, &e);
    api_release(&api_type_nic, &decoded);
    if (rc != 0) {
        qmp_error(c, "GenericError", "%s", e.msg);
        return NULL;
    }
    return json_object_get(nic);
}

void qmp_do_netdev_add(struct qmp_cmd *c)
{
    const char *type = qmp_arg(c, "type");
    struct json_object *nic;
    bool known = false;

    for (unsigned i = 0; i < ARRAY_LEN(nic_types); i++) {
        known |= strcmp(nic_types[i], type) == 0;
    }
    if (!known) {
        qmp_error(c, "GenericError",
                  "'type' %s is not there: user, tap, bridge, stream and dgram are", type);
        return;
    }
    if (!id_free(c, QMP_BACK_NETDEV)) {
        return;
    }
    nic = nic_of(c, type);
    if (nic) {
        back_new(c, QMP_BACK_NETDEV, type)->nic = nic;
        qmp_return_nothing(c);
    }
}

/* Takes one away that no device stands on. */
static void back_del(struct qmp_cmd *c, enum qmp_back_kind kind, const char *class,
                     const char *missing, const char *busy)
{
    const char *id = qmp_arg(c, "id");
    struct qmp_back *b = qmp_back_find(c->vm, kind, id);
    AUTO_FREE char *text = named(b ? busy : missing, id);

    if (!b) {
        qmp_error(c, class, "%s", text);
    } else if (b->users) {
        qmp_error(c, "GenericError", "%s", text);
    } else {
        back_free(c->vm->qmp, b);
        qmp_return_nothing(c);
    }
}

/* QEMU lets it go with its card, and scripts count on that: here, too, once the guest was asked for the card. */
void qmp_do_netdev_del(struct qmp_cmd *c)
{
    struct qmp_back *b = qmp_back_find(c->vm, QMP_BACK_NETDEV, qmp_arg(c, "id"));
    struct qmp_plugged *p = b ? qmp_plugged_on(c->vm, b->id) : NULL;

    if (p && p->leaving) {
        b->users = 0;
        free(take_ptr(p->back));
    }
    back_del(c, QMP_BACK_NETDEV, "DeviceNotFound", "Device '%s' not found",
             "Device '%s' is in use: device_del its card first");
}

/* --- character devices --------------------------------------------------------------------------------------- */

void qmp_do_chardev_add(struct qmp_cmd *c)
{
    struct json_object *backend = api_json_get(c->args, "backend");
    struct json_object *data = api_json_get(backend, "data"),
                       *addr = api_json_get(data, "addr");
    const char *type = api_json_get_str(backend, "type"),
               *kind = api_json_get_str(addr, "type");
    const char *path = api_json_get_str(api_json_get(addr, "data"), "path");
    bool client = strcmp(type, "socket") == 0 && !api_json_get_bool(data, "server", true);
    struct api_error x = API_ERROR_INIT;
    struct stat st;

    if (strcmp(type, "null") != 0 && strcmp(type, "socket") != 0) {
        qmp_error(c, "GenericError", "'%s' is no backend here: socket and null are", type);
    } else if (strcmp(type, "socket") == 0 &&
               (!kind || strcmp(kind, "unix") != 0 || !path || path[0] != '/')) {
        qmp_error(
            c, "GenericError",
            "'backend.data.addr' is {\"type\": \"unix\", \"data\": {\"path\": an absolute "
            "path}}");
    } else if (path && strcmp(type, "socket") == 0 &&
               access_file(c->call, c->vm->config.project, "backend.data.addr.data.path", path,
                           &x) < 0) {
        qmp_error(c, "GenericError", "%s", x.message);
    } else if (path && strcmp(type, "socket") == 0 && !client && lstat(path, &st) == 0) {
        qmp_error(c, "GenericError", "'%s' is there already", path);
    } else if (id_free(c, QMP_BACK_CHARDEV)) {
        struct qmp_back *b = back_new(c, QMP_BACK_CHARDEV, client ? QMP_CLIENT : type);

        b->path = strcmp(type, "socket") == 0 ? xstrdup(path) : NULL;
        qmp_return_nothing(c);
    }
}

void qmp_do_chardev_remove(struct qmp_cmd *c)
{
    back_del(c, QMP_BACK_CHARDEV, "GenericError", "Chardev '%s' not found",
             "Chardev '%s' is busy");
}

/* --- objects --------------------------------------------------------------------------------------------------- */

/* What each type takes, ended by NULL. */
static const struct object_type {
    const char *name;
    const char *const args[6];
} object_types[] = {
    { "iothread", { NULL } },
    { "secret", { "data", "format", NULL } },
    { "rng-random", { "filename", NULL } },
    { "rng-builtin", { NULL } },
    { "tls-creds-x509", { "dir", "endpoint", "verify-peer", NULL } },
    { "fsdev-local", { "path", "security_model", "readonly", NULL } },
    { "memory-backend-ram", { "size", "share", "merge", "dump", "prealloc", NULL } },
    { "memory-backend-memfd", { "size", "share", "merge", "dump", "prealloc", NULL } },
};

static const char *why_not(const char *type)
{
    if (str_starts(type, "memory-backend-")) {
        return "memory-backend-ram and -memfd are, for virtio-mem-pci";
    }
    if (str_starts(type, "tls-creds-")) {
        return "tls-creds-x509 is, for the client of an NBD node";
    }
    if (strcmp(type, "throttle-group") == 0) {
        return "block_set_io_throttle makes groups by naming them";
    }
    return "iothread, secret, rng-random, rng-builtin, fsdev-local and tls-creds-x509 are";
}

/* False after the command was answered. */
static bool object_args(struct qmp_cmd *c, const struct object_type *t)
{
    json_object_object_foreach(c->args, key, value)
    {
        bool known = strcmp(key, "id") == 0 || strcmp(key, "qom-type") == 0;

        (void)value;
        for (unsigned i = 0; i < ARRAY_LEN(t->args) && t->args[i]; i++) {
            known |= strcmp(key, t->args[i]) == 0;
        }
        if (!known) {
            qmp_error(c, "GenericError", "Property '%s.%s' not found", t->name, key);
            return false;
        }
    }
    return true;
}

/* A secret is looked at and forgotten: nothing of a VM takes one by name. False after the command was answered. */
static bool secret_ok(struct qmp_cmd *c)
{
    const char *data = qmp_arg(c, "data"), *format = qmp_arg(c, "format");
    AUTO_BUF bytes = BUF_INIT;

    if (!data) {
        qmp_error(c, "GenericError", "Must provide 'data'");
    } else if (format && strcmp(format, "raw") != 0 && strcmp(format, "base64") != 0) {
        qmp_error(c, "GenericError", "Parameter 'format' does not accept value '%s'", format);
    } else if (format && strcmp(format, "base64") == 0 && !base64_take(&bytes, data)) {
        qmp_error(c, "GenericError", "Base64 data '%.40s' is not valid", data);
    } else {
        return true;
    }
    return false;
}

/* Of an NBD node; an export's server has the daemon's. False after the command was answered. */
static bool creds_ok(struct qmp_cmd *c)
{
    const char *dir = qmp_arg(c, "dir"), *endpoint = qmp_arg(c, "endpoint");
    struct api_error x = API_ERROR_INIT;

    if (!endpoint || strcmp(endpoint, "client") != 0) {
        qmp_error(
            c, "GenericError",
            "'endpoint' is client: servers have the daemon's certificates ('vmctl cert')");
    } else if (!dir || dir[0] != '/') {
        qmp_error(c, "GenericError", "'dir' is an absolute path");
    } else if (!api_json_get_bool(c->args, "verify-peer", true)) {
        qmp_error(c, "GenericError",
                  "'verify-peer' is on: who the server is, is always checked");
    } else if (access_file(c->call, c->vm->config.project, "dir", dir, &x) < 0) {
        qmp_error(c, "GenericError", "%s", x.message);
    } else {
        return true;
    }
    return false;
}

/* A folder for virtio-9p-pci, in the words of QEMU's -fsdev. False after the command was answered. */
static bool folder_ok(struct qmp_cmd *c)
{
    const char *path = qmp_arg(c, "path"), *model = qmp_arg(c, "security_model");
    struct api_error x = API_ERROR_INIT;

    if (!path || path[0] != '/') {
        qmp_error(c, "GenericError", "'path' is an absolute path");
    } else if (model && strcmp(model, "mapped") != 0 && strcmp(model, "mapped-xattr") != 0 &&
               strcmp(model, "passthrough") != 0) {
        qmp_error(c, "GenericError",
                  "'security_model' is mapped-xattr (mapped) or passthrough, not '%.20s'",
                  model);
    } else if (access_file(c->call, c->vm->config.project, "path", path, &x) < 0) {
        qmp_error(c, "GenericError", "%s", x.message);
    } else {
        return true;
    }
    return false;
}

/* For virtio-mem-pci: the memory itself is made with the device. False after the command was answered. */
static bool memory_ok(struct qmp_cmd *c)
{
    int64_t size = api_json_get_int(c->args, "size", 0);

    if (size <= 0) {
        qmp_error(c, "GenericError", "property 'size' of %s must be set, in bytes",
                  qmp_arg(c, "qom-type"));
    } else if (api_json_get_bool(c->args, "prealloc", false)) {
        qmp_error(c, "GenericError", "'prealloc' is off: memory comes as the guest plugs it");
    } else {
        return true;
    }
    return false;
}

void qmp_do_object_add(struct qmp_cmd *c)
{
    const char *type = qmp_arg(c, "qom-type"), *file = qmp_arg(c, "filename");
    const struct object_type *t = NULL;

    for (unsigned i = 0; i < ARRAY_LEN(object_types); i++) {
        t = strcmp(object_types[i].name, type) == 0 ? &object_types[i] : t;
    }
    if (!t) {
        qmp_error(c, "GenericError", "object type '%s' is not there: %s", type, why_not(type));
    } else if (!object_args(c, t) || !id_free(c, QMP_BACK_OBJECT)) {
        return;
    } else if (file && strcmp(file, "/dev/urandom") != 0 && strcmp(file, "/dev/random") != 0) {
        qmp_error(c, "GenericError", "'filename' is /dev/urandom: the kernel's random numbers");
    } else if (strcmp(type, "secret") == 0           ? secret_ok(c)
               : strcmp(type, "tls-creds-x509") == 0 ? creds_ok(c)
               : strcmp(type, "fsdev-local") == 0    ? folder_ok(c)
               : str_starts(type, "memory-backend-") ? memory_ok(c)
                                                     : true) {
        struct qmp_back *b = back_new(c, QMP_BACK_OBJECT, type);
        const char *path = qmp_arg(c, "dir") ? qmp_arg(c, "dir") : qmp_arg(c, "path"),
                   *model = qmp_arg(c, "security_model");

        b->path = path ? xstrdup(path) : NULL;
        b->security = model && strcmp(model, "passthrough") == 0 ? "passthrough" : NULL;
        b->readonly = api_json_get_bool(c->args, "readonly", false);
        b->size = api_json_get_int(c->args, "size", 0);
        qmp_return_nothing(c);
    }
}

void qmp_do_object_del(struct qmp_cmd *c)
{
    back_del(c, QMP_BACK_OBJECT, "GenericError", "object '%s' not found",
             "object '%s' is in use, can not be deleted");
}

/* What was added changes nothing: which threads do I/O is said by the definition. */
void qmp_do_query_iothreads(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array();
    int pid = c->vm->run ? run_pid(c->vm->run) : 0;

    if (!c->vm->qmp) {
        qmp_return(c, list);
        return;
    }
    list_for_each (it, &c->vm->qmp->backs) {
        const struct qmp_back *b = list_entry(it, struct qmp_back, link);

        if (b->kind == QMP_BACK_OBJECT && strcmp(b->type, "iothread") == 0) {
            struct json_object *o = json_object_new_object();

            api_json_set_int(o, "poll-shrink", 0);
            api_json_set_int(o, "thread-id", pid);
            api_json_set_int(o, "aio-max-batch", 0);
            api_json_set_int(o, "poll-grow", 0);
            api_json_set_int(o, "poll-max-ns", 0);
            api_json_set_str(o, "id", b->id);
            json_object_array_add(list, o);
        }
    }
    qmp_return(c, list);
}
