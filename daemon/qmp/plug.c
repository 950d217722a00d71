/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP's device_add and device_del, by the methods vm.attach and vm.detach: QEMU's drivers and properties become disks, cards,
 * channels and entropy devices. Owns struct qmp_plugged. Loop thread.
 */
#include "daemon/qmp/plug.h"

#include "api-schema/gen/types.h"
#include "api-schema/rpc/call.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/session.h"
#include "daemon/run/runfs.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what is plugged ---- */

struct qmp_plugged *qmp_plugged_named(const struct vm *vm, const char *kind, const char *name)
{
    if (!vm->qmp || !kind || !name) {
        return NULL;
    }
    list_for_each (it, &vm->qmp->plugged) {
        struct qmp_plugged *p = list_entry(it, struct qmp_plugged, link);

        if (strcmp(p->kind, kind) == 0 && strcmp(p->name, name) == 0) {
            return p;
        }
    }
    return NULL;
}

struct qmp_plugged *qmp_plugged_find(const struct vm *vm, const char *id)
{
    if (!vm->qmp || !id) {
        return NULL;
    }
    list_for_each (it, &vm->qmp->plugged) {
        struct qmp_plugged *p = list_entry(it, struct qmp_plugged, link);

        if (strcmp(p->id, id) == 0) {
            return p;
        }
    }
    return NULL;
}

struct qmp_plugged *qmp_plugged_on(const struct vm *vm, const char *node_or_netdev)
{
    if (!vm->qmp || !node_or_netdev) {
        return NULL;
    }
    list_for_each (it, &vm->qmp->plugged) {
        struct qmp_plugged *p = list_entry(it, struct qmp_plugged, link);
        bool card = p->back && p->stands_on == QMP_BACK_NETDEV;

        if ((p->node && strcmp(p->node, node_or_netdev) == 0) ||
            (card && strcmp(p->back, node_or_netdev) == 0)) {
            return p;
        }
    }
    return NULL;
}

static void plugged_free(struct qmp_plugged *p)
{
    if (p->link_path) {
        unlink(p->link_path);
    }
    list_remove(&p->link);
    free(p->id);
    free(p->name);
    free(p->node);
    free(p->back);
    free(p->iothread);
    free(p->link_path);
    free(p);
}

static void use(const struct vm *vm, enum qmp_back_kind kind, const char *id, int by)
{
    struct qmp_back *b = qmp_back_find(vm, kind, id);

    if (b) {
        b->users = (unsigned)((int)b->users + by);
    }
}

void qmp_plugged_gone(struct vm *vm, struct qmp_plugged *p)
{
    use(vm, p->stands_on, p->back, -1);
    use(vm, QMP_BACK_OBJECT, p->iothread, -1);
    plugged_free(p);
}

void qmp_plugged_free(struct qmp_vm *v)
{
    while (!list_empty(&v->plugged)) {
        plugged_free(list_entry(v->plugged.next, struct qmp_plugged, link));
    }
}

/* ---- drivers and their properties ---- */

enum { DISK = 1, NIC = 2, CHANNEL = 4, RNG = 8, SHARE = 16, MEMORY = 32, ALL = 63 };
enum { CONSOLE = 1, CDROM = 2, NINE = 4 };

static const struct driver {
    const char *name;
    unsigned what;   /* one of them */
    const char *bus; /* of a disk */
    unsigned flags;
} drivers[] = {
    { "virtio-blk-pci", DISK, "virtio-pci", 0 },
    { "virtio-blk-pci-non-transitional", DISK, "virtio-pci", 0 },
    { "nvme", DISK, "nvme", 0 },
    { "scsi-hd", DISK, "scsi", 0 },
    { "scsi-cd", DISK, "scsi", CDROM },
    { "virtio-net-pci", NIC, NULL, 0 },
    { "virtio-net-pci-non-transitional", NIC, NULL, 0 },
    { "virtserialport", CHANNEL, NULL, 0 },
    { "virtconsole", CHANNEL, NULL, CONSOLE },
    { "virtio-rng-pci", RNG, NULL, 0 },
    { "virtio-rng-pci-non-transitional", RNG, NULL, 0 },
    { "vhost-user-fs-pci", SHARE, NULL, 0 },
    { "virtio-9p-pci", SHARE, NULL, NINE },
    { "virtio-9p-pci-non-transitional", SHARE, NULL, NINE },
    { "virtio-mem-pci", MEMORY, NULL, 0 },
};

/* Names and kinds that vm.attach knows them by. */
static const char *kind_of(unsigned what)
{
    return what == DISK      ? "disk"
           : what == NIC     ? "nic"
           : what == CHANNEL ? "channel"
           : what == SHARE   ? "share"
           : what == MEMORY  ? "memory"
                             : "rng";
}

/* What drivers have; where `to` is a member of vm.attach's object, it gets the value as its type says. */
enum { SLOTTED = DISK | NIC | RNG | SHARE | MEMORY };
enum as { AS_IS, AS_TEXT, AS_NUMBER, AS_ERROR, AS_CACHE, AS_SWITCH, AS_EMPTY, AS_NO, AS_ZERO };
static const struct prop {
    const char *name;
    unsigned of;
    enum as as;
    const char *to;
} props[] = {
    { "driver", ALL, AS_IS, NULL },
    { "id", ALL, AS_IS, NULL },
    { "bus", ALL, AS_IS, NULL }, /* any free slot does */
    { "addr", SLOTTED, AS_IS, NULL },
    { "multifunction", SLOTTED, AS_NO, NULL },
    { "disable-legacy", SLOTTED, AS_IS, NULL }, /* there is no legacy interface */
    { "disable-modern", SLOTTED, AS_NO, NULL },
    { "bootindex", DISK | NIC, AS_IS, NULL }, /* what comes while it runs is not booted from */
    { "drive", DISK, AS_IS, NULL },
    { "iothread", DISK, AS_IS, NULL },
    { "serial", DISK, AS_TEXT, "serial" },
    { "num-queues", DISK, AS_NUMBER, "queues" },
    { "write-cache", DISK, AS_CACHE, "cache" },
    { "share-rw", DISK, AS_NO, NULL },
    { "werror", DISK, AS_ERROR, "werror" },
    { "rerror", DISK, AS_ERROR, "rerror" },
    { "scsi-id", DISK, AS_NUMBER, "unit" },
    { "lun", DISK, AS_NUMBER, "lun" },
    { "removable", DISK, AS_SWITCH, "removable" },
    { "netdev", NIC, AS_IS, NULL },
    { "mac", NIC, AS_TEXT, "mac" },
    { "host_mtu", NIC, AS_NUMBER, "mtu" },
    { "mq", NIC, AS_IS, NULL },      /* the back end says how many */
    { "vectors", NIC, AS_IS, NULL }, /* as many as there are queues */
    { "romfile", NIC, AS_EMPTY, NULL },
    { "chardev", CHANNEL | SHARE, AS_IS, NULL },
    { "tag", SHARE, AS_TEXT, "tag" },
    { "mount_tag", SHARE, AS_TEXT, "tag" },
    { "fsdev", SHARE, AS_IS, NULL },
    { "queue-size", SHARE, AS_IS, NULL }, /* what the driver makes of 256 entries */
    { "name", CHANNEL, AS_TEXT, "name" },
    { "nr", CHANNEL, AS_IS, NULL }, /* the first free one */
    { "rng", RNG, AS_IS, NULL },
    { "memdev", MEMORY, AS_IS, NULL },
    { "requested-size", MEMORY, AS_NUMBER, "requested" },
    { "block-size", MEMORY, AS_NUMBER, "block" },
    { "node", MEMORY, AS_ZERO, NULL },    /* there is one */
    { "prealloc", MEMORY, AS_NO, NULL },  /* memory comes as it is touched */
    { "memaddr", MEMORY, AS_ZERO, NULL }, /* where there is room */
    { "dynamic-memslots", MEMORY, AS_IS, NULL },
    { "unplugged-inaccessible", MEMORY, AS_IS, NULL }, /* it always is */
};

static const struct prop *prop_of(const char *name, unsigned what)
{
    for (unsigned i = 0; i < ARRAY_LEN(props); i++) {
        if ((props[i].of & what) && strcmp(props[i].name, name) == 0) {
            return &props[i];
        }
    }
    return NULL;
}

/* Properties of QEMU come as what they are or as text. */
static bool number_of(struct json_object *v, int64_t *out)
{
    const char *text = json_object_get_string(v);
    char *end = NULL;

    errno = 0;
    *out = json_object_is_type(v, json_type_int) ? json_object_get_int64(v)
                                                 : strtoll(text ? text : "", &end, 10);
    return errno == 0 && (!end || (end != text && !*end));
}

static bool is_on(struct json_object *v)
{
    const char *text = json_object_get_string(v);

    return json_object_is_type(v, json_type_boolean)
               ? json_object_get_boolean(v)
               : text && (strcmp(text, "on") == 0 || strcmp(text, "true") == 0);
}

static bool bad_value(struct qmp_cmd *c, const struct prop *p, const char *what)
{
    qmp_error(c, "GenericError", "Property '%s.%s' %s", qmp_arg(c, "driver"), p->name, what);
    return false;
}

/* False after the command was answered. */
static bool set_prop(struct qmp_cmd *c, const struct prop *p, struct json_object *v,
                     struct json_object *to)
{
    const char *text = json_object_get_string(v);
    int64_t n;

    switch (p->as) {
    case AS_IS:
        return true;
    case AS_NO:
        return !is_on(v) || bad_value(c, p, "can only be off");
    case AS_EMPTY:
        return (text && !*text) ||
               bad_value(c, p, "can only be empty: there is no other firmware");
    case AS_TEXT:
        api_json_set_str(to, p->to, text ? text : "");
        return true;
    case AS_NUMBER:
        if (!number_of(v, &n)) {
            return bad_value(c, p, "is a number");
        }
        api_json_set_int(to, p->to, n);
        return true;
    case AS_ZERO:
        return (number_of(v, &n) && n == 0) || bad_value(c, p, "can only be 0");
    case AS_SWITCH:
        api_json_set_bool(to, p->to, is_on(v));
        return true;
    case AS_CACHE:
        if (text && strcmp(text, "auto") != 0 && !is_on(v)) {
            api_json_set_str(to, p->to, "writethrough");
        }
        return true;
    default: /* AS_ERROR */
        if (text && strcmp(text, "auto") != 0) {
            api_json_set_str(to, p->to, text);
        }
        return true;
    }
}

static bool set_props(struct qmp_cmd *c, const struct driver *d, struct json_object *to)
{
    json_object_object_foreach(c->args, key, value)
    {
        const struct prop *p = prop_of(key, d->what);

        if (!p) {
            qmp_error(c, "GenericError", "Property '%s.%s' not found", d->name, key);
            return false;
        }
        if (!set_prop(c, p, value, to)) {
            return false;
        }
    }
    return true;
}

/* ---- device_add ---- */

/* The back end that the driver's property names; NULL after the command was answered. */
static struct qmp_back *stands_on(struct qmp_cmd *c, const char *prop, enum qmp_back_kind kind,
                                  const char *type)
{
    const char *id = qmp_arg(c, prop);
    struct qmp_back *b = qmp_back_find(c->vm, kind, id);

    if (!id) {
        qmp_error(c, "GenericError", "'%s' property is not set", prop);
    } else if (!b || (type && !str_starts(b->type, type))) {
        qmp_error(c, "GenericError", "Property '%s.%s' can't find value '%s'",
                  qmp_arg(c, "driver"), prop, id);
    } else if (b->users && kind != QMP_BACK_OBJECT) {
        qmp_error(c, "GenericError", "Property '%s.%s' can't take value '%s', it's in use",
                  qmp_arg(c, "driver"), prop, id);
    } else {
        return b;
    }
    return NULL;
}

static bool take_disk(struct qmp_cmd *c, struct json_object *to, struct qmp_plugged *p)
{
    const char *drive = qmp_arg(c, "drive");
    const struct qmp_node *n = drive ? qmp_node_find(c, drive) : NULL;
    const struct api_disk *has = drive ? qmp_disk(c, drive) : NULL;

    if (!drive) {
        qmp_error(c, "GenericError", "drive property not set");
    } else if (has || (n && qmp_plugged_on(c->vm, drive))) {
        qmp_error(c, "GenericError", "Property '%s.drive' can't take value '%s', it's in use",
                  qmp_arg(c, "driver"), drive);
    } else if (!n) {
        qmp_error(c, "GenericError", "Property '%s.drive' can't find value '%s'",
                  qmp_arg(c, "driver"), drive);
    } else if (qmp_arg(c, "iothread") &&
               !stands_on(c, "iothread", QMP_BACK_OBJECT, "iothread")) {
        return false;
    } else {
        api_json_set_str(to, "file", n->file);
        api_json_set_str(to, "format", n->format);
        if (n->readonly) {
            api_json_set_bool(to, "readonly", true);
        }
        if (n->direct && !api_json_get(to, "cache")) {
            api_json_set_str(to, "cache", "none");
        }
        p->node = xstrdup(drive);
        p->iothread = qmp_arg(c, "iothread") ? xstrdup(qmp_arg(c, "iothread")) : NULL;
        return true;
    }
    return false;
}

static bool take_back(struct qmp_cmd *c, const char *prop, enum qmp_back_kind kind,
                      const char *type, struct qmp_plugged *p, struct qmp_back **out)
{
    *out = stands_on(c, prop, kind, type);
    if (*out) {
        p->stands_on = kind;
        p->back = xstrdup((*out)->id);
    }
    return *out != NULL;
}

/* Of a folder that vmd serves, or of a server that somebody else runs. False after the command was answered. */
static bool take_share(struct qmp_cmd *c, const struct driver *d, struct json_object *to,
                       struct qmp_plugged *p)
{
    bool nine = d->flags & NINE;
    struct qmp_back *b = NULL;

    if (!api_json_get_str(to, "tag")) {
        qmp_error(c, "GenericError", "'%s' property is not set", nine ? "mount_tag" : "tag");
        return false;
    }
    if (!take_back(c, nine ? "fsdev" : "chardev", nine ? QMP_BACK_OBJECT : QMP_BACK_CHARDEV,
                   nine ? "fsdev-local" : QMP_CLIENT, p, &b)) {
        return false;
    }
    api_json_set_str(to, "driver", nine ? "9p" : "virtiofs");
    api_json_set_str(to, nine ? "path" : "socket", b->path);
    if (nine && b->security) {
        api_json_set_str(to, "security", b->security);
    }
    if (nine && b->readonly) {
        api_json_set_bool(to, "readonly", true);
    }
    return true;
}

/* Fills what vm.attach gets; false after the command was answered. */
static bool fill(struct qmp_cmd *c, const struct driver *d, struct json_object *to,
                 struct qmp_plugged *p)
{
    struct qmp_back *b = NULL;

    if (d->what == DISK) {
        api_json_set_str(to, "bus", d->bus);
        if (d->flags & CDROM) {
            api_json_set_bool(to, "cdrom", true);
        }
        return set_props(c, d, to) && take_disk(c, to, p);
    }
    if (d->what == NIC) {
        if (!take_back(c, "netdev", QMP_BACK_NETDEV, NULL, p, &b)) {
            return false;
        }
        json_object_object_foreach(b->nic, key, value)
        {
            api_json_set(to, key, json_object_get(value));
        }
        api_json_set_str(to, "bus", "virtio-pci");
        return set_props(c, d, to);
    }
    if (d->what == CHANNEL) {
        if (d->flags & CONSOLE) {
            api_json_set_bool(to, "console", true);
        }
        if (!set_props(c, d, to) || !take_back(c, "chardev", QMP_BACK_CHARDEV, NULL, p, &b)) {
            return false;
        }
        if (strcmp(b->type, QMP_CLIENT) == 0) {
            qmp_error(c, "GenericError",
                      "chardev '%s' is a client, which vhost-user-fs-pci takes", b->id);
            return false;
        }
        p->link_path = b->path ? xstrdup(b->path) : NULL;
        return true;
    }
    if (d->what == SHARE) {
        return set_props(c, d, to) && take_share(c, d, to, p);
    }
    if (d->what == MEMORY) {
        if (!set_props(c, d, to) ||
            !take_back(c, "memdev", QMP_BACK_OBJECT, "memory-backend-", p, &b)) {
            return false;
        }
        if (b->users > 0) {
            qmp_error(c, "GenericError", "can't use already busy memdev: %s", b->id);
            return false;
        }
        api_json_set_int(to, "size", b->size);
        return true;
    }
    return set_props(c, d, to) && take_back(c, "rng", QMP_BACK_OBJECT, "rng-", p, &b);
}

static void plugging_failed(struct qmp_cmd *c, struct qmp_plugged *p, const char *text)
{
    if (c->vm->qmp) {
        qmp_plugged_gone(c->vm, p);
    }
    qmp_error(c, "GenericError", "%s", text);
}

static void on_attached(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct vm *vm = vm_by_id(c->d, *(int64_t *)c->data);
    const char *kind = api_json_get_str(c->kept, "kind"),
               *given = api_json_get_str(c->kept, "name");
    struct qmp_plugged *p = vm ? qmp_plugged_named(vm, kind, given) : NULL;

    c->vm = vm;
    (void)result;
    if (x && p) {
        plugging_failed(c, p, x->message);
    } else if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_return_nothing(c);
    }
}

/* A client that connects to the chardev's path comes to the channel's socket. False after the command was answered. */
static bool lead_there(struct qmp_cmd *c, struct qmp_plugged *p)
{
    AUTO_FREE char *socket = runfs_channel(&c->d->opt, c->vm->id, p->name);

    if (p->link_path && symlink(socket, p->link_path) != 0) {
        int error = errno;
        AUTO_FREE char *path = take_ptr(p->link_path);
        AUTO_FREE char *text = xasprintf("cannot make '%s': %s", path, strerror(error));

        plugging_failed(c, p, text);
        return false;
    }
    return true;
}

/* Takes `to`. */
static void attach(struct qmp_cmd *c, unsigned what, struct json_object *to,
                   struct qmp_plugged *p)
{
    struct json_object *in = qmp_vm_param(c);
    int64_t *vm = xnew(int64_t);

    *vm = c->vm->id;
    c->data = vm;
    c->kept = json_object_new_object();
    api_json_set_str(c->kept, "kind", p->kind);
    api_json_set_str(c->kept, "name", p->name);
    api_json_set_bool(in, "live", true);
    if (what == RNG) {
        api_json_set_str(in, "rng", p->name);
        json_object_put(to);
    } else {
        if (what != SHARE) { /* which has its tag */
            api_json_set_str(to, "name", p->name);
        }
        api_json_set(in, what == MEMORY ? "memory_device" : p->kind, to);
    }
    api_call_nested(c->call, "vm.attach", in, on_attached, c);
}

/* A name that no device has: QMP's, or one of ours. */
static char *free_id(const struct vm *vm)
{
    char *id = NULL;

    for (unsigned i = 0; !id || qmp_plugged_find(vm, id); i++) {
        free(id);
        id = xasprintf("qmp%u", i);
    }
    return id;
}

static const struct driver *driver_of(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(drivers); i++) {
        if (strcmp(drivers[i].name, name) == 0) {
            return &drivers[i];
        }
    }
    return NULL;
}

void qmp_do_device_add(struct qmp_cmd *c)
{
    const struct driver *d = driver_of(qmp_arg(c, "driver"));
    const char *id = qmp_arg(c, "id"), *name;
    struct json_object *to;
    struct qmp_plugged *p;

    if (!d) {
        qmp_error(c, "GenericError", "'%.100s' is not a valid device model name",
                  qmp_arg(c, "driver"));
    } else if (!c->vm->qmp) {
        qmp_error(c, "GenericError", "VM '%s' is %s", c->vm->config.name,
                  api_vm_state_name(c->vm->state));
    } else if (id && !qmp_id_ok(id)) {
        qmp_error(c, "GenericError", "Parameter 'id' expects an identifier");
    } else if (id && qmp_plugged_find(c->vm, id)) {
        qmp_error(c, "GenericError", "Duplicate device ID '%s'", id);
    } else {
        to = json_object_new_object();
        p = xnew(struct qmp_plugged);
        *p = (struct qmp_plugged){ .kind = kind_of(d->what),
                                   .id = id ? xstrdup(id) : free_id(c->vm) };
        list_init(&p->link);
        if (!fill(c, d, to, p)) {
            free(take_ptr(p->link_path)); /* nobody has made it */
            plugged_free(p);
            json_object_put(to);
            return;
        }
        name = api_json_get_str(to, d->what == SHARE ? "tag" : "name");
        p->name = xstrdup(name && *name ? name : p->id);
        list_append(&c->vm->qmp->plugged, &p->link);
        use(c->vm, p->stands_on, p->back, 1);
        use(c->vm, QMP_BACK_OBJECT, p->iothread, 1);
        if (lead_there(c, p)) {
            attach(c, d->what, to, p);
        } else {
            json_object_put(to);
        }
    }
}

/* ---- device_del ---- */

static void with_asked(struct qmp_cmd *c, struct json_object *result)
{
    const char *name = api_json_get_str(c->kept, "name");
    struct qmp_plugged *p = qmp_plugged_named(c->vm, api_json_get_str(c->kept, "kind"), name);

    (void)result;
    if (p) {
        p->leaving = true;
    }
    qmp_return_nothing(c); /* DEVICE_DELETED follows when the guest has let go of it */
}

/* Nobody is asked for a channel. */
static void channel_del(struct qmp_cmd *c, const char *name)
{
    struct json_object *in = qmp_vm_param(c);

    api_json_set_str(in, "channel", name);
    api_json_set_bool(in, "live", true);
    api_call_nested(c->call, "vm.detach", in, qmp_on_done, c);
}

/* The guest is asked. */
static void ask_for(struct qmp_cmd *c, const char *kind, const char *name)
{
    struct json_object *o = json_object_new_object();

    if (kind) {
        api_json_set_str(o, "kind", kind);
    }
    api_json_set_str(o, "name", name);
    c->kept = json_object_get(o);
    qmp_ask(c, "emu.detach", o, with_asked);
}

static const char *id_of(const struct qmp_cmd *c)
{
    static const char peripheral[] = "/machine/peripheral/";
    const char *id = qmp_arg(c, "id");

    return id + (str_starts(id, peripheral) ? sizeof(peripheral) - 1 : 0);
}

/* What came by other ways may be a channel, which only the emulator knows. */
static void with_channels(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "channels");

    for (size_t i = 0;
         json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        const char *name = api_json_get_str(json_object_array_get_idx(list, i), "name");

        if (name && strcmp(name, id_of(c)) == 0) {
            channel_del(c, name);
            return;
        }
    }
    ask_for(c, NULL, id_of(c));
}

void qmp_do_device_del(struct qmp_cmd *c)
{
    const char *id = id_of(c);
    const struct qmp_plugged *p = qmp_plugged_find(c->vm, id);

    if (!*id || strlen(id) > 63) {
        qmp_error(c, "DeviceNotFound", "Device '%.200s' not found", qmp_arg(c, "id"));
    } else if (!p) {
        qmp_ask(c, "emu.channels", NULL, with_channels);
    } else if (strcmp(p->kind, "channel") == 0) {
        channel_del(c, p->name);
    } else {
        ask_for(c, p->kind, p->name);
    }
}
