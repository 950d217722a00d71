/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands about disks. Sizes are the emulator's to tell, since only it has the images open; counters come from the
 * page it publishes. Loop thread.
 */
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/plug.h"
#include "daemon/qmp/session.h"

#include "api-schema/disk/limits.h"
#include "api-schema/gen/types.h"
#include "api-schema/json/codec.h"
#include "daemon/run/supervise.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>

void qmp_disk_device(unsigned i, char out[24])
{
    snprintf(out, 24, "disk%u", i);
}

static void set_zeros(struct json_object *o, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        api_json_set_int(o, names[i], 0);
    }
}

static struct json_object *image_info(const struct api_disk *disk, int64_t size)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "virtual-size", size);
    api_json_set_str(o, "filename", disk->file);
    api_json_set_str(o, "format", api_disk_format_name(disk->format));
    api_json_set_bool(o, "dirty-flag", false);
    return o;
}

/* A disk in the emulator's list; NULL when it is not in it. */
static struct json_object *block_of(struct json_object *blocks, const char *name)
{
    for (size_t i = 0; blocks && i < json_object_array_length(blocks); i++) {
        struct json_object *o = json_object_array_get_idx(blocks, i);
        const char *is = api_json_get_str(o, "name");
        if (is && strcmp(is, name) == 0) {
            return o;
        }
    }
    return NULL;
}

/* Averages always; the rest, as QEMU does, where there is one. */
static void add_limits(struct json_object *o, struct json_object *block)
{
    struct json_object *says = api_json_get(block, "throttle");
    struct api_disk_throttle t;
    struct limits l = { 0 };

    if (says && api_decode(&api_type_disk_throttle, says, API_LENIENT, "", &t, NULL) == 0) {
        disk_limits(&t, &l);
        api_json_set_str(o, "group",
                         t.group_name ? t.group_name : api_json_get_str(block, "name"));
        api_release(&api_type_disk_throttle, &t);
    }
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        const struct disk_limit_words *w = &disk_limit_words[i];

        api_json_set_int(o, w->rate, (int64_t)l.at[i].rate);
        if (l.at[i].burst) {
            api_json_set_int(o, w->burst, (int64_t)l.at[i].burst);
            api_json_set_int(o, w->length, l.at[i].length ? (int64_t)l.at[i].length : 1);
        }
    }
    if (l.op_size) {
        api_json_set_int(o, "iops_size", (int64_t)l.op_size);
    }
}

/* Its bitmaps, of what the emulator tells of all; NULL: it has none. */
static struct json_object *bitmaps_of(struct json_object *told, const char *disk)
{
    struct json_object *from = api_json_get(told, "bitmaps"), *list = NULL;

    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *b = json_object_array_get_idx(from, i), *o;

        if (strcmp(api_json_get_str(b, "disk"), disk) != 0) {
            continue;
        }
        o = json_object_new_object();
        api_json_set_str(o, "name", api_json_get_str(b, "name"));
        api_json_set_int(o, "count", api_json_get_int(b, "dirty", 0));
        api_json_set_int(o, "granularity", api_json_get_int(b, "granularity", 0));
        api_json_set_bool(o, "recording", api_json_get_bool(b, "recording", false));
        api_json_set_bool(o, "busy", api_json_get_bool(b, "busy", false));
        api_json_set_bool(o, "persistent", api_json_get_bool(b, "persistent", false));
        if (api_json_get_bool(b, "inconsistent", false)) {
            api_json_set_bool(o, "inconsistent", true);
        }
        list = list ? list : json_object_new_array();
        json_object_array_add(list, o);
    }
    return list;
}

static struct json_object *node_info(const struct api_disk *disk, struct json_object *block,
                                     struct json_object *bitmaps)
{
    struct json_object *o = json_object_new_object(), *cache = json_object_new_object();

    add_limits(o, block);
    api_json_set_int(o, "write_threshold", 0);
    api_json_set_str(o, "detect_zeroes", "off");
    api_json_set(o, "image", image_info(disk, block ? api_json_get_int(block, "size", 0) : 0));
    api_json_set_bool(o, "ro", disk->readonly || disk->cdrom);
    api_json_set_str(o, "node-name", disk->name);
    api_json_set_int(o, "backing_file_depth", 0);
    api_json_set_str(o, "drv", api_disk_format_name(disk->format));
    api_json_set_bool(o, "encrypted", false);
    api_json_set_bool(cache, "no-flush", false);
    api_json_set_bool(cache, "direct", false);
    api_json_set_bool(cache, "writeback", true);
    api_json_set(o, "cache", cache);
    api_json_set_str(o, "file", disk->file ? disk->file : "");
    bitmaps = bitmaps_of(bitmaps, disk->name);
    if (bitmaps) {
        api_json_set(o, "dirty-bitmaps", bitmaps);
    }
    return o;
}

static struct json_object *blocks_of(struct json_object *result)
{
    struct json_object *blocks = api_json_get(result, "blocks");

    return json_object_is_type(blocks, json_type_array) ? blocks : NULL;
}

/* Disks that the running VM has and its definition has not. Calls fn(arg, disk, block). */
static void each_live(const struct vm *vm, struct json_object *blocks,
                      void (*fn)(void *arg, const struct api_disk *disk,
                                 struct json_object *block),
                      void *arg)
{
    for (size_t i = 0; blocks && i < json_object_array_length(blocks); i++) {
        struct json_object *b = json_object_array_get_idx(blocks, i);
        const char *name = api_json_get_str(b, "name"), *file = api_json_get_str(b, "file");
        const char *word = api_json_get_str(b, "format");
        int format = word ? api_enum_value(&api_type_disk_format, word) : 0;
        struct api_disk d = { .name = (char *)name,
                              .file = (char *)(file ? file : ""),
                              .format = format < 0 ? 0 : (enum api_disk_format)format,
                              .readonly = api_json_get_bool(b, "readonly", false),
                              .cdrom = api_json_get_bool(b, "cdrom", false),
                              .removable = api_json_get_bool(b, "removable", false) };
        bool known = !name;

        for (size_t k = 0; k < vm->config.n_disks && !known; k++) {
            known = strcmp(vm->config.disks[k].name, name) == 0;
        }
        if (!known) {
            fn(arg, &d, b);
        }
    }
}

struct listing {
    struct qmp_cmd *c;
    struct json_object *list;
};

/* By the name that blockdev-add gave its image, if it is of device_add. */
static struct json_object *live_info(struct qmp_cmd *c, const struct api_disk *disk,
                                     struct json_object *block)
{
    const struct qmp_plugged *p = qmp_plugged_named(c->vm, "disk", disk->name);
    struct json_object *o = node_info(disk, block, c->kept);

    if (p && p->node) {
        api_json_set_str(o, "node-name", p->node);
    }
    return o;
}

static void add_live_node(void *arg, const struct api_disk *disk, struct json_object *block)
{
    struct listing *l = arg;

    json_object_array_add(l->list, live_info(l->c, disk, block));
}

static void with_nodes(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = json_object_new_array(), *blocks = blocks_of(result);
    struct listing l = { c, list };

    for (size_t i = 0; i < c->vm->config.n_disks; i++) {
        const struct api_disk *disk = &c->vm->config.disks[i];
        json_object_array_add(list, node_info(disk, block_of(blocks, disk->name), c->kept));
    }
    each_live(c->vm, blocks, add_live_node, &l);
    qmp_return(c, list);
}

static void nodes_with_bitmaps(struct qmp_cmd *c, struct json_object *result)
{
    c->kept = json_object_get(result);
    qmp_ask(c, "emu.blocks", NULL, with_nodes);
}

void qmp_do_query_named_block_nodes(struct qmp_cmd *c)
{
    qmp_ask(c, "emu.disk_bitmaps", NULL, nodes_with_bitmaps);
}

/* Takes what is known of its image. */
static struct json_object *block_info(const struct api_disk *disk, const char *qdev,
                                      struct json_object *block,
                                      struct json_object *take_inserted)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "io-status", "ok");
    api_json_set_str(o, "device", disk->name);
    api_json_set_bool(o, "locked", api_json_get_bool(block, "locked", false));
    api_json_set_bool(o, "removable", disk->cdrom || disk->removable);
    if (disk->cdrom || disk->removable) {
        api_json_set_bool(o, "tray_open", api_json_get_bool(block, "tray_open", false));
    }
    if (disk->file && disk->file[0]) {
        api_json_set(o, "inserted", take_inserted);
    } else { /* a drive without a medium */
        json_object_put(take_inserted);
    }
    api_json_set_str(o, "qdev", qdev);
    api_json_set_str(o, "type", "unknown");
    return o;
}

static void add_live_block(void *arg, const struct api_disk *disk, struct json_object *block)
{
    struct listing *l = arg;
    const struct qmp_plugged *p = qmp_plugged_named(l->c->vm, "disk", disk->name);

    json_object_array_add(
        l->list, block_info(disk, p ? p->id : disk->name, block, live_info(l->c, disk, block)));
}

/* A disk of the definition with the medium that it has now, which may differ. */
static struct api_disk as_it_is(const struct api_disk *disk, struct json_object *block)
{
    struct api_disk now = *disk;

    if (block && (disk->cdrom || disk->removable)) {
        now.file = (char *)api_json_get_str(block, "file");
    }
    return now;
}

static void with_blocks(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = json_object_new_array(), *blocks = blocks_of(result);
    struct listing l = { c, list };

    for (size_t i = 0; i < c->vm->config.n_disks; i++) {
        struct json_object *block = block_of(blocks, c->vm->config.disks[i].name);
        struct api_disk disk = as_it_is(&c->vm->config.disks[i], block);
        char device[24];

        qmp_disk_device((unsigned)i, device);
        json_object_array_add(
            list, block_info(&disk, device, block, node_info(&disk, block, c->kept)));
    }
    each_live(c->vm, blocks, add_live_block, &l);
    qmp_return(c, list);
}

static void blocks_with_bitmaps(struct qmp_cmd *c, struct json_object *result)
{
    c->kept = json_object_get(result);
    qmp_ask(c, "emu.blocks", NULL, with_blocks);
}

void qmp_do_query_block(struct qmp_cmd *c)
{
    qmp_ask(c, "emu.disk_bitmaps", NULL, blocks_with_bitmaps);
}

static void resized(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

void qmp_do_block_resize(struct qmp_cmd *c)
{
    const char *device = qmp_arg(c, "device"), *node = qmp_arg(c, "node-name");
    struct json_object *params;

    if (!device == !node) {
        qmp_error(c, "GenericError", "one of device and node-name is needed, not both");
        return;
    }
    const struct qmp_plugged *p = qmp_plugged_on(c->vm, node);
    const struct api_disk *disk = node ? qmp_disk(c, node) : NULL;
    params = json_object_new_object();
    api_json_set_str(params, "disk", device ? device : p ? p->name : disk ? disk->name : node);
    api_json_set_int(params, "size", api_json_get_int(c->args, "size", 0));
    qmp_ask(c, "emu.disk_resize", params, resized);
}

/* --- limits --- */

const struct api_disk *qmp_disk(const struct qmp_cmd *c, const char *name)
{
    const struct api_vm_config *config = &c->vm->config;

    for (size_t i = 0; name && i < config->n_disks; i++) {
        if (strcmp(config->disks[i].name, name) == 0) {
            return &config->disks[i];
        }
    }
    for (size_t i = 0; name && i < config->n_disks; i++) {
        char device[24];

        qmp_disk_device((unsigned)i, device);
        if (strcmp(device, name) == 0) {
            return &config->disks[i];
        }
    }
    const struct qmp_node *node = name ? qmp_node_find(c, name) : NULL;
    for (size_t i = 0; node && i < config->n_disks; i++) {
        if (config->disks[i].file && strcmp(config->disks[i].file, node->file) == 0) {
            return &config->disks[i];
        }
    }
    return NULL;
}

static void nothing_to_say(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

static bool limit_arg(struct qmp_cmd *c, const char *name, uint64_t *out)
{
    int64_t v = api_json_get_int(c->args, name, 0);

    if (v < 0 || v > (int64_t)LIMIT_MAX) {
        qmp_error(c, "GenericError", "%s must be within the range 0..%lld", name,
                  (long long)LIMIT_MAX);
        return false;
    }
    *out = (uint64_t)v;
    return true;
}

void qmp_do_block_set_io_throttle(struct qmp_cmd *c)
{
    const char *device = qmp_arg(c, "device"), *id = qmp_arg(c, "id");
    const struct api_disk *disk = qmp_disk(c, device ? device : id);
    struct api_disk_throttle t = { .group_name = (char *)qmp_arg(c, "group") };
    struct err e = ERR_INIT;
    struct json_object *p;
    struct limits l;

    if (!disk) {
        qmp_error(c, "DeviceNotFound", "Device '%s' not found", device ? device : id ? id : "");
        return;
    }
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        const struct disk_limit_words *w = &disk_limit_words[i];
        struct limit one = { 0 };

        if (!limit_arg(c, w->rate, &one.rate) || !limit_arg(c, w->burst, &one.burst) ||
            !limit_arg(c, w->length, &one.length)) {
            return;
        }
        disk_limit_put(&t, i, &one);
    }
    t.size_iops_sec = api_json_get_int(c->args, "iops_size", 0);
    disk_limits(&t, &l);
    if (t.size_iops_sec < 0 || limits_check(&l, &e) != 0) {
        qmp_error(c, "GenericError", "%s", e.code ? e.msg : "iops_size is negative");
        return;
    }
    p = json_object_new_object();
    api_json_set_str(p, "disk", disk->name);
    api_json_set(p, "throttle", api_encode(&api_type_disk_throttle, &t));
    qmp_ask(c, "emu.disk_throttle", p, nothing_to_say);
}

/* --- counters ----------------------------------------------------------------------------------------------- */

static struct json_object *disk_counters(const struct api_disk_stats *s)
{
    static const char *const zeros[] = {
        "unmap_operations",
        "unmap_merged",
        "flush_total_time_ns",
        "wr_highest_offset",
        "wr_total_time_ns",
        "failed_wr_operations",
        "failed_rd_operations",
        "wr_merged",
        "failed_unmap_operations",
        "failed_flush_operations",
        "rd_total_time_ns",
        "invalid_unmap_operations",
        "unmap_bytes",
        "rd_merged",
        "unmap_total_time_ns",
        "invalid_flush_operations",
        "invalid_wr_operations",
        "invalid_rd_operations",
    };
    struct json_object *o = json_object_new_object();

    set_zeros(o, zeros, ARRAY_LEN(zeros));
    api_json_set_int(o, "rd_bytes", s->read_bytes);
    api_json_set_int(o, "wr_bytes", s->written_bytes);
    api_json_set_int(o, "rd_operations", s->reads);
    api_json_set_int(o, "wr_operations", s->writes);
    api_json_set_int(o, "flush_operations", s->flushes);
    api_json_set_bool(o, "account_invalid", false);
    api_json_set_bool(o, "account_failed", false);
    api_json_set(o, "timed_stats", json_object_new_array());
    return o;
}

static struct api_disk_stats counters_of(const struct api_vm_stats *s, const char *name)
{
    for (size_t i = 0; i < s->n_disks; i++) {
        if (strcmp(s->disks[i].name, name) == 0) {
            return s->disks[i];
        }
    }
    return (struct api_disk_stats){ 0 };
}

void qmp_do_query_blockstats(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array();
    struct api_vm_stats s = { 0 };
    bool has = c->vm->run && !run_has_ended(c->vm->run) && run_stats(c->vm->run, &s);

    for (size_t i = 0; has && i < c->vm->config.n_disks; i++) {
        const char *name = c->vm->config.disks[i].name;
        struct api_disk_stats counters = counters_of(&s, name);
        struct json_object *o = json_object_new_object();
        char device[24];

        qmp_disk_device((unsigned)i, device);
        api_json_set_str(o, "device", name);
        api_json_set(o, "stats", disk_counters(&counters));
        api_json_set_str(o, "node-name", name);
        api_json_set_str(o, "qdev", device);
        json_object_array_add(list, o);
    }
    for (size_t i = 0; has && i < s.n_disks; i++) {
        const struct qmp_plugged *p = qmp_plugged_named(c->vm, "disk", s.disks[i].name);
        struct json_object *o;

        if (!p) {
            continue; /* of the definition, or without a name here */
        }
        o = json_object_new_object();
        api_json_set_str(o, "device", p->name);
        api_json_set(o, "stats", disk_counters(&s.disks[i]));
        api_json_set_str(o, "node-name", p->node);
        api_json_set_str(o, "qdev", p->id);
        json_object_array_add(list, o);
    }
    if (has) {
        api_vm_stats_release(&s);
    }
    qmp_return(c, list);
}
