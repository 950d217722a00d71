/* SPDX-License-Identifier: Apache-2.0 */
/* Storage pools and volumes. The key of a volume is the path of its image, or POOL/VOLUME where it has none. */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>

static struct json_object *which(const struct lv_call *c)
{
    return lv_object("pool", api_json_get_str(api_json_get(c->args, "pool"), "uuid"));
}

/* --- pools ---------------------------------------------------------------------------------------- */

static void reply_pool(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object(),
                       *one = lv_object("name", api_json_get_str(info, "name"));

    api_json_set_str(one, "uuid", api_json_get_str(info, "uuid"));
    api_json_set(o, "pool", one);
    lv_reply(c, o);
}

void lv_do_pool_by_name(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.get", lv_object("pool", lv_str(c, "name")), reply_pool);
}

void lv_do_pool_by_uuid(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.get", lv_object("pool", lv_str(c, "uuid")), reply_pool);
}

void lv_do_pool_by_volume(struct lv_call *c)
{
    const char *name = api_json_get_str(api_json_get(c->args, "vol"), "pool");

    lv_ask(c, "pool", "pool.get", lv_object("pool", name), reply_pool);
}

void lv_do_pool_define(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_pool, lv_str(c, "xml")), *params;

    if (definition) {
        params = json_object_new_object();
        api_json_set(params, "config", definition);
        lv_ask(c, "pool", "pool.define", params, reply_pool);
    }
}

void lv_do_pool_start(struct lv_call *c)
{
    enum { WITH_BUILD = 1 };
    struct json_object *params = which(c);

    api_json_set_bool(params, "build", lv_int(c, "flags") & WITH_BUILD);
    lv_ask(c, "pool", "pool.start", params, lv_done);
}

/* Defined, and started. */
static void on_created(struct lv_call *c, struct json_object *info)
{
    enum { WITH_BUILD = 1, BUILD_NO_OVERWRITE = 4 };
    struct json_object *params = lv_object("pool", api_json_get_str(info, "uuid"));

    c->kept = lv_object("pool", api_json_get_str(info, "uuid"));
    c->undo = "pool.undefine";
    api_json_set_bool(params, "build", lv_int(c, "flags") & (WITH_BUILD | BUILD_NO_OVERWRITE));
    lv_ask(c, "pool", "pool.start", params, reply_pool);
}

void lv_do_pool_create_xml(struct lv_call *c)
{
    enum { BUILD_OVERWRITE = 2 };
    struct json_object *definition, *params;

    if (lv_int(c, "flags") & BUILD_OVERWRITE) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "what is in a pool's folder is never overwritten");
        return;
    }
    definition = lv_read_xml(c, &xml_pool, lv_str(c, "xml"));
    if (definition) {
        params = json_object_new_object();
        api_json_set(params, "config", definition);
        lv_ask(c, "pool", "pool.define", params, on_created);
    }
}

/* What vmd makes pools of, valid under storagepoolcaps.rng. */
/* Each kind of libvirt's, and "nbd", which libvirt has not. */
static void on_pool_capabilities(struct lv_call *c, struct json_object *result)
{
    static const char folders[] = "    <volOptions>\n"
                                  "      <defaultFormat type='raw'/>\n"
                                  "      <enum name='targetFormatType'>\n"
                                  "        <value>raw</value>\n"
                                  "        <value>qcow2</value>\n"
                                  "      </enum>\n"
                                  "    </volOptions>\n";
    static const char groups[] = "    <poolOptions>\n"
                                 "      <defaultFormat type='lvm2'/>\n"
                                 "      <enum name='sourceFormatType'>\n"
                                 "        <value>lvm2</value>\n"
                                 "      </enum>\n"
                                 "    </poolOptions>\n";
    static const struct {
        const char *type, *options; /* NULL: there is no such pool */
    } kinds[] = { { "dir", folders },       { "fs", folders }, { "netfs", NULL },
                  { "logical", groups },    { "nbd", "" },     { "disk", NULL },
                  { "iscsi", NULL },        { "scsi", NULL },  { "mpath", NULL },
                  { "iscsi-direct", NULL }, { "rbd", NULL },   { "sheepdog", NULL },
                  { "gluster", NULL },      { "zfs", NULL },   { "vstorage", NULL } };
    AUTO_BUF b = BUF_INIT;

    (void)result;
    buf_add_str(&b, "<storagepoolCapabilities>\n");
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].options && kinds[i].options[0]) {
            buf_printf(&b, "  <pool type='%s' supported='yes'>\n%s  </pool>\n", kinds[i].type,
                       kinds[i].options);
        } else {
            buf_printf(&b, "  <pool type='%s' supported='%s'/>\n", kinds[i].type,
                       kinds[i].options ? "yes" : "no");
        }
    }
    buf_add_str(&b, "</storagepoolCapabilities>\n");
    lv_reply_str(c, "capabilities", b.data);
}

void lv_do_pool_capabilities(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_pool_capabilities);
}

static void on_by_target(struct lv_call *c, struct json_object *result)
{
    struct json_object *pools = api_json_get(result, "pools");

    for (size_t i = 0; i < json_object_array_length(pools); i++) {
        struct json_object *one = json_object_array_get_idx(pools, i);
        const char *path = api_json_get_str(one, "path");
        if (path && strcmp(path, lv_str(c, "path")) == 0) {
            reply_pool(c, one);
            return;
        }
    }
    lv_fail(c, LV_E_NO_POOL, "no storage pool with matching target path '%s'",
            lv_str(c, "path"));
}

void lv_do_pool_by_target(struct lv_call *c)
{
    lv_ask(c, NULL, "pool.list", NULL, on_by_target);
}

void lv_do_pool_build(struct lv_call *c)
{
    enum { NEW = 0, OVERWRITE = 2, NO_OVERWRITE = 4 };

    if (lv_int(c, "flags") != NEW) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a pool is a folder: what is in it is never overwritten");
        return;
    }
    lv_ask(c, "pool", "pool.build", which(c), lv_done);
}

void lv_do_pool_refresh(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.refresh", which(c), lv_done);
}

static void on_pool_info(struct lv_call *c, struct json_object *info)
{
    enum { INACTIVE, BUILDING, RUNNING };
    const char *state = api_json_get_str(info, "state");
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "state",
                     strcmp(state, "active") == 0     ? RUNNING
                     : strcmp(state, "starting") == 0 ? BUILDING
                                                      : INACTIVE);
    api_json_set_int(o, "capacity", api_json_get_int(info, "capacity", 0));
    api_json_set_int(o, "allocation", api_json_get_int(info, "allocation", 0));
    api_json_set_int(o, "available", api_json_get_int(info, "available", 0));
    lv_reply(c, o);
}

void lv_do_pool_info(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.get", which(c), on_pool_info);
}

void lv_do_pool_xml(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.xml", which(c), lv_reply_xml);
}

static void on_autostart(struct lv_call *c, struct json_object *info)
{
    lv_reply_int(c, "autostart", api_json_get_bool(info, "autostart", false));
}

void lv_do_pool_autostart(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.get", which(c), on_autostart);
}

void lv_do_pool_set_autostart(struct lv_call *c)
{
    struct json_object *params = which(c);

    api_json_set_str(params, "autostart", lv_int(c, "autostart") ? "on" : "off");
    lv_ask(c, "pool", "pool.set", params, lv_done);
}

static void on_active(struct lv_call *c, struct json_object *info)
{
    lv_reply_int(c, "active", strcmp(api_json_get_str(info, "state"), "active") == 0);
}

void lv_do_pool_is_active(struct lv_call *c)
{
    lv_ask(c, "pool", "pool.get", which(c), on_active);
}

/* --- volumes ---------------------------------------------------------------------------------------- */

static struct json_object *handle(struct json_object *volume)
{
    const char *pool = api_json_get_str(volume, "pool"),
               *name = api_json_get_str(volume, "name"),
               *path = api_json_get_str(volume, "path");
    struct json_object *o = lv_object("pool", pool);
    AUTO_BUF key = BUF_INIT;

    buf_printf(&key, "%s/%s", pool, name);
    api_json_set_str(o, "name", name);
    api_json_set_str(o, "key", path ? path : key.data);
    return o;
}

static struct json_object *volume_of(const struct lv_call *c)
{
    struct json_object *vol = api_json_get(c->args, "vol"),
                       *params = lv_object("pool", api_json_get_str(vol, "pool"));

    api_json_set_str(params, "volume", api_json_get_str(vol, "name"));
    return params;
}

static void on_volumes(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "volumes"), *o = json_object_new_object(),
                       *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        json_object_array_add(list, handle(json_object_array_get_idx(from, i)));
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "vols", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_pool_volumes(struct lv_call *c)
{
    lv_ask(c, "pool", "volume.list", which(c), on_volumes);
}

static void on_count(struct lv_call *c, struct json_object *result)
{
    lv_reply_int(c, "num", (int64_t)json_object_array_length(api_json_get(result, "volumes")));
}

void lv_do_pool_num_of_volumes(struct lv_call *c)
{
    lv_ask(c, "pool", "volume.list", which(c), on_count);
}

static void on_names(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "volumes"), *o = json_object_new_object(),
                       *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(from) && (int64_t)i < lv_int(c, "maxnames");
         i++) {
        struct json_object *one = json_object_array_get_idx(from, i);
        json_object_array_add(list, json_object_get(api_json_get(one, "name")));
    }
    api_json_set(o, "names", list);
    lv_reply(c, o);
}

void lv_do_pool_volume_names(struct lv_call *c)
{
    lv_ask(c, "pool", "volume.list", which(c), on_names);
}

static void reply_volume(struct lv_call *c, struct json_object *volume)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "vol", handle(volume));
    lv_reply(c, o);
}

void lv_do_volume_by_name(struct lv_call *c)
{
    struct json_object *params = which(c);

    api_json_set_str(params, "volume", lv_str(c, "name"));
    lv_ask(c, "volume", "volume.get", params, reply_volume);
}

/* --- one of any pool, by its key ---------------------------------------------------------------------- */

static void next_pool(struct lv_call *c);

static void on_searched(struct lv_call *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "volumes");

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        AUTO_JSON one = handle(json_object_array_get_idx(list, i));
        if (strcmp(api_json_get_str(one, "key"), lv_str(c, "key")) == 0) {
            reply_volume(c, json_object_array_get_idx(list, i));
            return;
        }
    }
    next_pool(c);
}

static void next_pool(struct lv_call *c)
{
    struct json_object *pools = api_json_get(c->kept, "pools");

    while (c->number < (int64_t)json_object_array_length(pools)) {
        struct json_object *one = json_object_array_get_idx(pools, (size_t)c->number++);
        if (strcmp(api_json_get_str(one, "state"), "active") == 0) {
            lv_ask(c, "pool", "volume.list", lv_object("pool", api_json_get_str(one, "name")),
                   on_searched);
            return;
        }
    }
    lv_fail(c, LV_E_NO_VOL, "no storage volume with the key or path '%s'", lv_str(c, "key"));
}

static void on_pools(struct lv_call *c, struct json_object *result)
{
    c->kept = json_object_get(result);
    next_pool(c);
}

void lv_do_volume_by_key(struct lv_call *c)
{
    lv_ask(c, NULL, "pool.list", NULL, on_pools);
}

/* --- what is done with one ------------------------------------------------------------------------------ */

static int type_of(const char *path)
{
    enum { A_FILE, A_DEVICE, FAR = 3 };

    return path && strncmp(path, "/dev/", 5) == 0 ? A_DEVICE
           : path && path[0] == '/'               ? A_FILE
                                                  : FAR;
}

static void on_volume_info(struct lv_call *c, struct json_object *volume)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "type", type_of(api_json_get_str(volume, "path")));
    api_json_set_int(o, "capacity", api_json_get_int(volume, "capacity", 0));
    api_json_set_int(o, "allocation", api_json_get_int(volume, "allocation", 0));
    lv_reply(c, o);
}

void lv_do_volume_info(struct lv_call *c)
{
    lv_ask(c, "volume", "volume.get", volume_of(c), on_volume_info);
}

void lv_do_volume_xml(struct lv_call *c)
{
    lv_ask(c, "volume", "volume.xml", volume_of(c), lv_reply_xml);
}

static void on_path(struct lv_call *c, struct json_object *volume)
{
    AUTO_JSON one = handle(volume);

    lv_reply(c, lv_object("name", api_json_get_str(one, "key")));
}

void lv_do_volume_path(struct lv_call *c)
{
    lv_ask(c, "volume", "volume.get", volume_of(c), on_path);
}

void lv_do_volume_delete(struct lv_call *c)
{
    lv_ask(c, "volume", "volume.delete", volume_of(c), lv_done);
}

void lv_do_volume_wipe(struct lv_call *c)
{
    enum { ZERO = 0, RANDOM = 8 };
    int64_t algorithm = lv_int(c, "algorithm");
    struct json_object *params;

    if (algorithm != ZERO && algorithm != RANDOM) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "a volume is wiped by 'zero' or 'random'");
        return;
    }
    params = volume_of(c);
    api_json_set_str(params, "algorithm", algorithm == RANDOM ? "random" : "zero");
    lv_ask(c, "volume", "volume.wipe", params, lv_done);
}

/* A copy has the name and the format of its XML, and is as large as the volume. */
void lv_do_volume_create_from(struct lv_call *c)
{
    struct json_object *from = api_json_get(c->args, "clone"), *params;
    const char *pool = api_json_get_str(api_json_get(c->args, "pool"), "name"), *format;
    AUTO_JSON definition = NULL;

    if (strcmp(pool, api_json_get_str(from, "pool")) != 0) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "a volume is copied within its pool");
        return;
    }
    definition = lv_read_xml(c, &xml_volume, lv_str(c, "xml"));
    if (!definition) {
        return;
    }
    format = api_json_get_str(definition, "format");
    params = lv_object("pool", pool);
    api_json_set_str(params, "volume", api_json_get_str(from, "name"));
    api_json_set_str(params, "name", api_json_get_str(definition, "name"));
    if (format) {
        api_json_set_str(params, "format", format);
    }
    lv_ask(c, "volume", "volume.clone", params, reply_volume);
}

void lv_do_volume_resize(struct lv_call *c)
{
    enum { ALLOCATE = 1, DELTA = 2, SHRINK = 4 };
    struct json_object *params;

    if (lv_int(c, "flags") & (ALLOCATE | DELTA)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a volume is given its new capacity, nothing is allocated before it is used");
        return;
    }
    params = volume_of(c);
    api_json_set_int(params, "capacity", lv_int(c, "capacity"));
    api_json_set_bool(params, "shrink", lv_int(c, "flags") & SHRINK);
    lv_ask(c, "volume", "volume.resize", params, lv_done);
}

void lv_do_volume_create(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_volume, lv_str(c, "xml")), *params;

    if (definition) {
        params = lv_object("pool", api_json_get_str(api_json_get(c->args, "pool"), "name"));
        api_json_set(params, "config", definition);
        lv_ask(c, "volume", "volume.create", params, reply_volume);
    }
}
