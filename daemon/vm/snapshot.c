/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: rows of the store, looking. Owns the list vmd.snapshots. Loop thread.
 */
#include "daemon/vm/snapshot.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/spawn/proto.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- rows ---- */

void snapshot_free(struct snapshot *s)
{
    list_remove(&s->link);
    api_release(&api_type_snapshot, &s->info);
    free(s->vm);
    free(s->config);
    free(s);
}

void snapshot_put(const struct snapshot *s, struct change *c)
{
    AUTO_JSON o = json_object_new_object();

    api_json_set(o, "snapshot", api_encode(&api_type_snapshot, &s->info));
    api_json_set_str(o, "config", s->config);
    if (s->start) {
        api_json_set_bool(o, "start", true);
    }
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = SNAPSHOT_KIND,
                                                              .scope = s->vm,
                                                              .name = s->info.name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
}

void snapshot_del(const struct snapshot *s, struct change *c)
{
    store_tx_object_del(change_tx(c), SNAPSHOT_KIND, s->vm, s->info.name);
}

/* By time; rows come by name. */
void snapshot_insert(struct vmd *d, struct snapshot *s)
{
    struct list *before = &d->snapshots;

    list_for_each (it, &d->snapshots) {
        if (list_entry(it, struct snapshot, link)->info.created_ms > s->info.created_ms) {
            before = it;
            break;
        }
    }
    list_append(before, &s->link); /* in front of it */
}

void snapshots_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct snapshot *s = xnew(struct snapshot);
    const char *config;

    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_snapshot, api_json_get(o, "snapshot"), API_LENIENT, "", &s->info,
                   &x) < 0) {
        log_error("daemon", "snapshot '%s' of VM %s left out: %s", row->name, row->scope,
                  e.code ? e.msg : x.message);
        free(s);
        return;
    }
    config = api_json_get_str(o, "config");
    s->vm = xstrdup(row->scope);
    s->config = xstrdup(config ? config : "{}");
    s->start = api_json_get_bool(o, "start", false);
    snapshot_insert(d, s);
}

struct snapshot *snapshot_new(struct vm *vm, const struct api_snapshot_create_in *in)
{
    struct snapshot *s = xnew(struct snapshot);
    const struct snapshot *current = snapshot_current(vm->d, vm->config.uuid);
    AUTO_JSON config = api_encode(&api_type_vm_config, &vm->config);
    struct api_error x = API_ERROR_INIT;
    uint32_t mark = 0;

    if (getrandom(&mark, sizeof(mark), 0) != sizeof(mark)) {
        mark = (uint32_t)time_real_ns();
    }
    s->vm = xstrdup(vm->config.uuid);
    s->config = xstrdup(api_json_text(config));
    s->info.name = xstrdup(in->name);
    s->info.description = in->description ? xstrdup(in->description) : NULL;
    s->info.parent = current ? xstrdup(current->info.name) : NULL;
    s->info.state = API_SNAPSHOT_STATE_MAKING;
    s->info.memory = snapshot_has_memory(vm, in);
    s->info.memory_file = in->memory_file ? xstrdup(in->memory_file) : NULL;
    s->info.running = vm->state == API_VM_STATE_RUNNING;
    s->info.stopped = !vm->run;
    s->info.quiesced = in->quiesce;
    s->info.created_ms = time_real_ns() / 1000000;
    (void)snapshot_choose_disks(vm, in, &s->info, &x); /* it may be, so it can */
    /* A name that nobody else can have given to a snapshot in the images, now or before. */
    s->info.tag = xasprintf("%s.%08x", in->name, mark);
    list_append(&vm->d->snapshots, &s->link);
    return s;
}

bool snapshot_config(const struct snapshot *s, struct api_vm_config *out)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;

    return api_json_parse(s->config, strlen(s->config), &o, &e) == 0 &&
           api_decode(&api_type_vm_config, o, API_LENIENT, "", out, &x) == 0;
}

struct snapshot *snapshot_find(struct vmd *d, const char *uuid, const char *name)
{
    list_for_each (it, &d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if (strcmp(s->vm, uuid) == 0 && strcmp(s->info.name, name) == 0) {
            return s;
        }
    }
    return NULL;
}

struct snapshot *snapshot_current(struct vmd *d, const char *uuid)
{
    list_for_each (it, &d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if (s->info.current && strcmp(s->vm, uuid) == 0) {
            return s;
        }
    }
    return NULL;
}

bool snapshot_is_import(const struct snapshot *s)
{
    return s->info.imported && s->info.state == API_SNAPSHOT_STATE_MAKING;
}

const struct snapshot *snapshot_in_doubt(const struct vm *vm)
{
    list_for_each (it, &vm->d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if ((s->info.state == API_SNAPSHOT_STATE_REVERTING || snapshot_is_import(s)) &&
            strcmp(s->vm, vm->config.uuid) == 0) {
            return s;
        }
    }
    return NULL;
}

bool snapshots_any(const struct vm *vm)
{
    list_for_each (it, &vm->d->snapshots) {
        if (strcmp(list_entry(it, struct snapshot, link)->vm, vm->config.uuid) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- with their VM ---- */

char *snapshots_dir(const struct vm *vm)
{
    return xasprintf("%s/%s/%lld/snapshots", vm->d->opt.lib, SPAWN_VM_DIR, (long long)vm->id);
}

char *snapshot_file(const char *dir, const struct snapshot *s)
{
    return s->info.memory_file ? xstrdup(s->info.memory_file)
                               : xasprintf("%s/%s", dir, s->info.name);
}

char *snapshot_file_part(const struct snapshot *s)
{
    return s->info.memory_file
               ? xasprintf("%s.%s.part", s->info.memory_file, strrchr(s->info.tag, '.') + 1)
               : NULL;
}

static int drop_file(const char *path, struct err *e)
{
    return unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR
               ? 0
               : err_errno(e, errno, "cannot remove '%s'", path);
}

/* Somebody may have put another file in its place, or had one there before this one got its name. */
static int drop_external(const struct snapshot *s, struct err *e)
{
    const char *path = s->info.memory_file;
    AUTO_FREE char *part = snapshot_file_part(s);
    struct stat st;
    bool is_ours = s->info.bytes > 0 && lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                   st.st_size == s->info.bytes;
    int rc = is_ours ? drop_file(path, e) : 0;

    return rc == 0 ? drop_file(part, e) : rc;
}

int snapshot_file_drop(const char *dir, const struct snapshot *s, struct err *e)
{
    AUTO_FREE char *path = snapshot_file(dir, s);

    return s->info.memory_file ? drop_external(s, e) : drop_file(path, e);
}

bool snapshot_has_disks(const struct snapshot *s)
{
    for (size_t i = 0; i < s->info.n_disks; i++) {
        if (s->info.disks[i].snapshot != API_SNAPSHOT_MODE_NO) {
            return true;
        }
    }
    return false;
}

void snapshots_drop_rows(struct vm *vm, struct change *c)
{
    list_for_each (it, &vm->d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if (strcmp(s->vm, vm->config.uuid) == 0) {
            snapshot_del(s, c);
        }
    }
}

void snapshots_drop_files(struct vm *vm)
{
    AUTO_FREE char *dir = snapshots_dir(vm);

    list_for_each_safe (it, &vm->d->snapshots) {
        struct snapshot *s = list_entry(it, struct snapshot, link);

        if (strcmp(s->vm, vm->config.uuid) == 0) {
            struct err e = ERR_INIT;

            if (snapshot_file_drop(dir, s, &e) != 0) {
                log_warn("daemon", "snapshot '%s' of VM '%s': %s", s->info.name,
                         vm->config.name, e.msg);
            }
            snapshot_free(s);
        }
    }
    rmdir(dir);
}

/* ---- looking ---- */

void api_handle_snapshot_list(struct api_call *call, struct api_snapshot_list_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o, *list;

    if (!vm) {
        return;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    list_for_each (it, &vm->d->snapshots) {
        const struct snapshot *s = list_entry(it, struct snapshot, link);

        if (strcmp(s->vm, vm->config.uuid) == 0) {
            json_object_array_add(list, api_encode(&api_type_snapshot, &s->info));
        }
    }
    api_json_set(o, "snapshots", list);
    api_reply_json(call, o);
}

void api_handle_snapshot_get(struct api_call *call, struct api_snapshot_get_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    const struct snapshot *s = vm ? snapshot_find(vm->d, vm->config.uuid, in->name) : NULL;

    if (vm && !s) {
        api_fail(call, API_E_NOT_FOUND, in->name, "'vmctl snapshot list' shows what there is",
                 "VM '%s' has no snapshot '%s'", vm->config.name, in->name);
    } else if (s) {
        api_reply_json(call, api_encode(&api_type_snapshot, &s->info));
    }
}
