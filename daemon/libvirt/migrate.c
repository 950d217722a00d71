/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains that move to another daemon of vmd. Whoever leads, source or client, the daemons do it themselves: all of it is in the step
 * "perform", where the source hands its VM over (vm/migrate.h). Of the client's other steps, begin and prepare look whether it would
 * go, and tell the source where to; finish and confirm tell what became of it, and change nothing.
 */
#include "api-schema/json/codec.h"
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/vm/migrate.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>
#include <unistd.h>

enum {
    /* virDomainMigrateFlags */
    LIVE = 1,
    PEER_TO_PEER = 2,
    TUNNELLED = 4,
    PERSIST_DEST = 8,
    UNDEFINE_SOURCE = 16,
    PAUSED = 32,
    NON_SHARED_DISK = 64,
    NON_SHARED_INC = 128,
    CHANGE_PROTECTION = 256,
    UNSAFE = 512,
    COMPRESSED = 2048,
    ABORT_ON_ERROR = 4096,
    AUTO_CONVERGE = 8192,
    TLS = 65536,
    PARALLEL = 131072,
    COPIES = NON_SHARED_DISK | NON_SHARED_INC,
    /* What vmd does whether it is asked or not: memory goes by TLS, by several connections, only what differs goes again, vCPUs
     * are slowed down, and it looks at what makes a migration unsafe. */
    ALWAYS = LIVE | TUNNELLED | CHANGE_PROTECTION | UNSAFE | COMPRESSED | ABORT_ON_ERROR |
             AUTO_CONVERGE | TLS | PARALLEL,
    KNOWN = ALWAYS | PEER_TO_PEER | PERSIST_DEST | UNDEFINE_SOURCE | PAUSED | COPIES,

    UNLIMITED_MIB = INT32_MAX,
};

/* What may be given. Those of the lower part are for others' ways of moving memory and disks, and mean nothing here. */
static const char *const known[] = { "destination_name",
                                     "destination_xml",
                                     "persistent_xml",
                                     "migrate_uri",
                                     "bandwidth",
                                     "migrate_disks",
                                     "parallel.connections",
                                     "listen_address",
                                     "graphics_uri",
                                     "disks_port",
                                     "auto_converge.initial",
                                     "auto_converge.increment",
                                     NULL };

/* A parameter, or, of the procedures that have none, the argument that was its place. */
static const char *word(const struct lv_call *c, const char *field, const char *arg)
{
    struct json_object *value = lv_given(c, field);
    const char *text = value ? json_object_get_string(value) : lv_str(c, arg);

    return text && text[0] ? text : NULL;
}

static int64_t bandwidth(const struct lv_call *c)
{
    struct json_object *value = lv_given(c, "bandwidth");

    return value ? json_object_get_int64(value) : lv_int(c, "resource");
}

static int64_t bytes_of_mib(int64_t mib)
{
    return mib > 0 && mib < INT32_MAX ? mib << 20 : 0;
}

/* False: the call has failed. */
static bool may_be_asked(struct lv_call *c)
{
    int64_t flags = lv_int(c, "flags");

    if (api_json_get(c->args, "params") && !lv_only(c, known)) {
        return false;
    }
    if (flags & ~(int64_t)KNOWN) {
        lv_fail(
            c, LV_E_ARGUMENT_UNSUPPORTED,
            "a domain moves while it runs, its memory before it goes on there: flags 0x%llx",
            (long long)(flags & ~(int64_t)KNOWN));
        return false;
    }
    return true;
}

/* The domain there, if the client says how it is: *config is the caller's. False: the call has failed. */
static bool read_there(struct lv_call *c, const char *arg, struct json_object **config)
{
    const char *text = word(c, "destination_xml", arg),
               *name = word(c, "destination_name", "dname");

    *config = NULL;
    if (text) {
        *config = lv_read_xml(c, &xml_domain, text);
        if (!*config) {
            return false;
        }
    }
    if (name && *config) {
        api_json_set_str(*config, "name", name);
    }
    return true;
}

/* --- where to -------------------------------------------------------------------------------------------- */

static size_t host_length(const char *text, const char *ends)
{
    return text[0] == '[' ? strcspn(text, "]") + (strchr(text, ']') != NULL)
                          : strcspn(text, ends);
}

/* The daemon behind a URI of libvirt's: vmd+tls://HOST[:PORT] as it is; of qemu+tls://HOST/system and tcp://HOST the host, where vmd is
 * at its own port. False: it is neither. */
static bool daemon_of(const char *uri, struct buf *out)
{
    static const char ours[] = "vmd+tls://";
    static const char *const theirs[] = { "qemu+tls://", "tcp://", "tls://" };
    const char *host = NULL;
    size_t n = 0;

    if (str_starts(uri, ours)) {
        host = uri + strlen(ours);
        n = strcspn(host, "/?");
    }
    for (unsigned i = 0; !host && i < sizeof(theirs) / sizeof(theirs[0]); i++) {
        if (str_starts(uri, theirs[i])) {
            host = uri + strlen(theirs[i]);
            n = host_length(host, ":/?");
        }
    }
    if (n > 0) {
        buf_printf(out, "%s%.*s", ours, (int)n, host);
    }
    return n > 0;
}

/* Where other daemons reach this one. False: nowhere. */
static bool own_address(const struct vmd *d, struct buf *out)
{
    char name[256] = "localhost";
    const char *text = d->opt.n_listen ? d->opt.listen[0] : NULL;
    size_t n = text ? host_length(text, ":") : 0;

    if (!text) {
        return false;
    }
    if ((n == 7 && strncmp(text, "0.0.0.0", n) == 0) ||
        (n == 4 && strncmp(text, "[::]", n) == 0) || (n == 1 && text[0] == '*') || n == 0) {
        gethostname(name, sizeof(name) - 1);
        buf_printf(out, "vmd+tls://%s%s", name, text + n);
    } else {
        buf_printf(out, "vmd+tls://%s", text);
    }
    return true;
}

/* --- begin: at the source ------------------------------------------------------------------------------ */

static void on_begin_xml(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();
    const char *given = word(c, "destination_xml", "xmlin");

    api_json_set_str(o, "xml", given ? given : api_json_get_str(result, "xml"));
    lv_reply(c, o);
}

static bool names_disk(struct json_object *names, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        if (strcmp(json_object_get_string(json_object_array_get_idx(names, i)), name) == 0) {
            return true;
        }
    }
    return json_object_array_length(names) == 0;
}

/* Names of disks that are asked for; the caller's. */
static struct json_object *named_disks(const struct lv_call *c)
{
    struct json_object *given = api_json_get(c->args, "params"),
                       *names = json_object_new_array();

    for (size_t i = 0; given && i < json_object_array_length(given); i++) {
        struct json_object *o = json_object_array_get_idx(given, i);

        if (strcmp(api_json_get_str(o, "field"), "migrate_disks") == 0) {
            json_object_array_add(names, json_object_get(api_json_get(o, "value")));
        }
    }
    return names;
}

static bool is_movable(struct lv_call *c, const struct vm *vm)
{
    AUTO_JSON names = named_disks(c);
    size_t n = json_object_array_length(names);
    char **list = xnew_n(char *, n + 1);
    struct api_error x = API_ERROR_INIT;
    bool movable;

    for (size_t i = 0; i < n; i++) { /* lent */
        list[i] = (char *)(uintptr_t)json_object_get_string(
            json_object_array_get_idx(names, i));
    }
    movable = migrate_movable(vm, lv_int(c, "flags") & COPIES, list, n, &x);
    free(list);
    if (!movable) {
        c->about = "domain";
        lv_fail_api(c, &x);
    }
    return movable;
}

static void on_begin(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);
    struct json_object *there, *params;

    (void)info;
    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
    } else if (!lv_active(vm->state)) {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' does not run", vm->config.name);
    } else if (is_movable(c, vm) && read_there(c, "xmlin", &there)) {
        json_object_put(there);
        params = lv_vm(c);
        lv_ask(c, "domain", "xml.get", params, on_begin_xml);
    }
}

void lv_do_migrate_begin(struct lv_call *c)
{
    if (may_be_asked(c)) {
        lv_ask(c, "domain", "vm.get", lv_vm(c), on_begin);
    }
}

/* --- prepare: at the destination ---------------------------------------------------------------------------- */

static void on_prepared(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();
    const char *uri = word(c, "migrate_uri", "uri_in");
    AUTO_BUF to = BUF_INIT;

    (void)result;
    if (!(uri ? daemon_of(uri, &to) : own_address(c->d, &to))) {
        json_object_put(o);
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                uri ? "another daemon of vmd is vmd+tls://HOST[:PORT] or tcp://HOST, not %s"
                    : "vmd listens on no network here: start it with --listen%s",
                uri ? uri : "");
        return;
    }
    api_json_set_str(o, "uri_out", to.data);
    lv_reply(c, o);
}

/* The disks that will come, without their sizes: the source knows them, and tells them when it begins. */
static struct json_object *disks_to_come(const struct lv_call *c, struct json_object *config)
{
    struct json_object *list = json_object_new_array(), *disks = api_json_get(config, "disks");
    AUTO_JSON names = named_disks(c);
    bool all = lv_int(c, "flags") & COPIES;

    for (size_t i = 0; all && disks && i < json_object_array_length(disks); i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i), *o;
        const char *name = api_json_get_str(disk, "name");

        if (name && !api_json_get_bool(disk, "readonly", false) &&
            !api_json_get_bool(disk, "cdrom", false) && names_disk(names, name)) {
            o = lv_object("name", name);
            api_json_set_int(o, "size", 0);
            json_object_array_add(list, o);
        }
    }
    return list;
}

void lv_do_migrate_prepare(struct lv_call *c)
{
    struct json_object *config = NULL, *params;

    if (!may_be_asked(c) || !read_there(c, "dom_xml", &config)) {
        return;
    }
    if (!config) {
        lv_fail(c, LV_E_INVALID_ARG, "the domain's document is missing");
        return;
    }
    params = json_object_new_object();
    api_json_set(params, "config", config);
    api_json_set(params, "disks", disks_to_come(c, config));
    api_json_set_int(params, "streams", 1);
    api_json_set_str(params, "version", PACKAGE_VERSION);
    api_json_set_bool(params, "check", true);
    api_json_set_bool(params, "reuse_images", lv_int(c, "flags") & COPIES);
    lv_ask(c, "domain", "migrate.prepare", params, on_prepared);
}

/* --- perform: at the source, all of it ------------------------------------------------------------------------ */

static void on_moved(struct lv_call *c, struct json_object *job)
{
    (void)job;
    lv_reply(c, NULL);
}

static void on_begun(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, on_moved);
}

/* As libvirt does it, images that are there already are written over. */
static void copy_disks(struct lv_call *c, int64_t flags, struct json_object *params)
{
    api_json_set_bool(params, "copy_storage_all", flags & NON_SHARED_DISK);
    api_json_set_bool(params, "copy_storage_inc", flags & NON_SHARED_INC);
    api_json_set_bool(params, "reuse_images", flags & COPIES);
    api_json_set(params, "migrate_disks", named_disks(c));
}

/* How the domain is to be there: as the client says, or (its new name alone) as it is here. Taken into the parameters. */
static bool say_there(struct lv_call *c, const struct vm *vm, struct json_object *params)
{
    const char *name = word(c, "destination_name", "dname");
    struct json_object *there;

    if (!read_there(c, "xmlin", &there)) {
        return false;
    }
    if (!there && name && strcmp(name, vm->config.name) != 0) {
        there = lv_config(vm);
        api_json_set_str(there, "name", name);
    }
    if (there) {
        api_json_set(params, "there", there);
    }
    return true;
}

static void start(struct lv_call *c, const struct vm *vm, const char *to)
{
    int64_t flags = lv_int(c, "flags"), mib = bandwidth(c);
    struct json_object *params = lv_vm(c), *streams = lv_given(c, "parallel.connections");

    if (!say_there(c, vm, params)) {
        json_object_put(params);
        return;
    }
    api_json_set_str(params, "to", to);
    copy_disks(c, flags, params);
    api_json_set_bool(params, "transient", !(flags & PERSIST_DEST));
    api_json_set_bool(params, "keep", !(flags & UNDEFINE_SOURCE));
    api_json_set_bool(params, "pause", flags & PAUSED);
    if (mib > 0) {
        api_json_set_int(params, "bandwidth", bytes_of_mib(mib));
    }
    if (streams) {
        api_json_set_int(params, "streams", json_object_get_int64(streams));
    }
    lv_ask(c, "domain", "migrate.start", params, on_begun);
}

void lv_do_migrate_perform(struct lv_call *c)
{
    const char *uri = word(c, "migrate_uri", "uri"), *there = lv_str(c, "dconnuri");
    const struct vm *vm = lv_the_vm(c);
    AUTO_BUF to = BUF_INIT;

    if (!may_be_asked(c)) {
        return;
    }
    uri = uri ? uri : there;
    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "there is no such domain");
    } else if (!uri || !daemon_of(uri, &to)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "another daemon of vmd is vmd+tls://HOST[:PORT] or qemu+tls://HOST/system");
    } else {
        start(c, vm, to.data);
    }
}

/* --- finish: at the destination; confirm: at the source --------------------------------------------------- */

static void on_found(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "dom", lv_domain_of(c->d, info));
    lv_reply(c, o);
}

/* When it was called off nothing came, or the source has it dropped; the client wants that said as an error of its own. */
void lv_do_migrate_finish(struct lv_call *c)
{
    const char *name = word(c, "destination_name", "dname");
    struct json_object *config = NULL, *params;

    if (lv_int(c, "cancelled")) {
        lv_fail(c, LV_E_MIGRATE_FINISH_OK, "the migration was called off");
        return;
    }
    if (!name && !read_there(c, "xmlin", &config)) {
        return;
    }
    params = lv_object("vm", name ? name : api_json_get_str(config, "name"));
    json_object_put(config);
    lv_ask(c, "domain", "vm.get", params, on_found);
}

void lv_do_migrate_confirm(struct lv_call *c)
{
    lv_reply(c, NULL);
}

/* --- limits --------------------------------------------------------------------------------------------- */

void lv_do_migrate_set_speed(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    if (lv_int(c, "flags")) {
        json_object_put(params);
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "there is no migration after the switch");
        return;
    }
    api_json_set_int(params, "bandwidth", bytes_of_mib(lv_int(c, "bandwidth")));
    lv_ask(c, "domain", "migrate.set", params, lv_done);
}

static void on_speed(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);

    (void)info;
    lv_reply_int(c, "bandwidth",
                 vm && vm->move_bandwidth ? vm->move_bandwidth >> 20 : UNLIMITED_MIB);
}

void lv_do_migrate_speed(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_speed);
}

void lv_do_migrate_set_downtime(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_int(params, "downtime_ms", lv_int(c, "downtime"));
    lv_ask(c, "domain", "migrate.set", params, lv_done);
}

static void on_downtime(struct lv_call *c, struct json_object *info)
{
    const struct vm *vm = lv_the_vm(c);

    (void)info;
    lv_reply_int(c, "downtime",
                 vm && vm->move_downtime_ms ? vm->move_downtime_ms : MIGRATE_DOWNTIME_MS);
}

void lv_do_migrate_downtime(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_downtime);
}
