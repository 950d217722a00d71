/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migrations: rows of the store, looking, resolving. Loop thread.
 */
#include "daemon/vm/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/vm/migrate_out.h"
#include "daemon/vm/snapshot.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

/* ---- what cannot move, whatever the other daemon says ---- */

static bool stays(const struct vm *vm, struct api_error *x, const char *remedy,
                  const char *what, const char *which)
{
    api_error_set(x, API_E_UNSUPPORTED, vm->config.name, remedy,
                  "%s%s of VM '%s' is written, and does not move by itself", what, which,
                  vm->config.name);
    return false;
}

static bool is_copied(const struct api_disk *disk, bool all, char *const *disks, size_t n_disks)
{
    for (size_t i = 0; i < n_disks; i++) {
        if (disk->name && strcmp(disks[i], disk->name) == 0) {
            return true;
        }
    }
    return all && n_disks == 0;
}

bool migrate_movable(const struct vm *vm, bool all, char *const *disks, size_t n_disks,
                     struct api_error *x)
{
    if (snapshots_any(vm)) {
        api_error_set(x, API_E_UNSUPPORTED, vm->config.name, "delete them",
                      "'%s' has snapshots, which stay", vm->config.name);
        return false;
    }
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        const struct api_disk *disk = &vm->config.disks[i];

        if (!disk->readonly && !disk->cdrom && !is_copied(disk, all, disks, n_disks)) {
            AUTO_FREE char *name = xasprintf("'%s'", disk->name);

            return stays(vm, x, "have it copied: --copy-storage-all", "disk ", name);
        }
    }
    for (size_t i = 0; i < vm->config.n_flash; i++) {
        if (!vm->config.flash[i].readonly) {
            AUTO_FREE char *number = xasprintf("%zu", i);

            return stays(vm, x, "attach it read-only", "flash ", number);
        }
    }
    return true;
}

/* ---- rows ---- */

void migrate_row_put(struct change *c, const struct migrate_row *row)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_str(o, "state", row->state);
    api_json_set_str(o, "ticket", row->ticket);
    api_json_set_str(o, "host", row->host ? row->host : "");
    api_json_set_str(o, "user", row->user ? row->user : "");
    api_json_set_int(o, "port", row->port);
    api_json_set_bool(o, "paused", row->paused);
    api_json_set_bool(o, "transient", row->transient);
    api_json_set_bool(o, "keep", row->keep);
    if (row->n_files > 0) {
        struct json_object *list = json_object_new_array();
        for (size_t i = 0; i < row->n_files; i++) {
            json_object_array_add(list, json_object_new_string(row->files[i]));
        }
        api_json_set(o, "files", list);
        api_json_set_str(o, "mark", row->mark ? row->mark : "");
    }
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = MIGRATE_KIND,
                                                              .scope = row->uuid,
                                                              .name = row->name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
}

void migrate_row_del(struct change *c, const char *uuid, const char *name)
{
    store_tx_object_del(change_tx(c), MIGRATE_KIND, uuid, name);
}

void migrate_row_free(struct migrate_row *row)
{
    free(row->uuid);
    free(row->name);
    free(row->state);
    free(row->ticket);
    free(row->host);
    free(row->user);
    for (size_t i = 0; i < row->n_files; i++) {
        free(row->files[i]);
    }
    free(row->files);
    free(row->mark);
    free(row);
}

static char *member(struct json_object *o, const char *name)
{
    const char *s = api_json_get_str(o, name);
    return xstrdup(s ? s : "");
}

void migrate_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0) {
        log_error("daemon", "migration of VM %s left out: %s", row->scope, e.msg);
        return;
    }
    struct migrate_row *k = xnew(struct migrate_row);
    *k = (struct migrate_row){ .uuid = xstrdup(row->scope),
                               .name = xstrdup(row->name),
                               .state = member(o, "state"),
                               .ticket = member(o, "ticket"),
                               .host = member(o, "host"),
                               .user = member(o, "user"),
                               .mark = member(o, "mark"),
                               .port = (int)api_json_get_int(o, "port", 0),
                               .paused = api_json_get_bool(o, "paused", false),
                               .transient = api_json_get_bool(o, "transient", false),
                               .keep = api_json_get_bool(o, "keep", false) };
    struct json_object *list = api_json_get(o, "files");
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    k->files = xnew_n(char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct json_object *file = json_object_array_get_idx(list, i);
        k->files[k->n_files++] = xstrdup(json_object_get_string(file));
    }
    list_append(&d->migrate_rows, &k->link);
}

void migrates_begin(struct vmd *d)
{
    while (!list_empty(&d->migrate_rows)) {
        struct migrate_row *k = list_entry(d->migrate_rows.next, struct migrate_row, link);
        list_remove(&k->link);
        if (strcmp(k->name, "out") == 0) {
            migrate_out_load(d, k);
        } else {
            migrate_in_load(d, k);
        }
        migrate_row_free(k);
    }
}

void migrates_end(struct vmd *d)
{
    migrate_outs_end(d);
    migrate_ins_end(d);
    while (!list_empty(&d->migrate_rows)) {
        struct migrate_row *k = list_entry(d->migrate_rows.next, struct migrate_row, link);
        list_remove(&k->link);
        migrate_row_free(k);
    }
}

/* ---- looking ---- */

struct listing {
    struct vmd *d;
    struct api_call *call;
    struct api_migrate_list_out out;
};

static void add_one(void *arg, const struct api_migration *m)
{
    struct listing *l = arg;
    struct vm *vm = vm_find(l->d, m->uuid, true);
    if (vm && !access_sees(l->call, vm->config.project)) {
        return;
    }
    l->out.migrations = xrealloc_n(l->out.migrations, l->out.n_migrations + 1,
                                   sizeof(l->out.migrations[0]));
    l->out.migrations[l->out.n_migrations++] = *m;
}

static enum api_migration_state state_of(const struct migrate_out *k)
{
    return k->step < FOLLOW  ? API_MIGRATION_STATE_PREPARING
           : k->step <= COPY ? API_MIGRATION_STATE_COPYING
           : k->step < GIVE  ? API_MIGRATION_STATE_HANDING_OVER
           : k->step == BACK ? API_MIGRATION_STATE_BACK
                             : API_MIGRATION_STATE_GIVEN;
}

void migrate_outs_each(struct vmd *d, void (*fn)(void *arg, const struct api_migration *m),
                       void *arg)
{
    list_for_each (it, &d->migrate_outs) {
        struct migrate_out *k = list_entry(it, struct migrate_out, link);
        const struct api_migration m = { .vm = k->name,
                                         .uuid = k->uuid,
                                         .incoming = false,
                                         .peer = k->url,
                                         .state = state_of(k),
                                         .why = k->why[0] ? k->why : NULL,
                                         .job = k->job,
                                         .has_job = k->job > 0,
                                         .rounds = k->rounds,
                                         .has_rounds = k->rounds > 0,
                                         .check = k->in.check };
        if (k->step != OVER) {
            fn(arg, &m);
        }
    }
}

void api_handle_migrate_list(struct api_call *call, struct api_migrate_list_in *in)
{
    struct listing l = { .d = call_daemon(call), .call = call };
    (void)in;
    migrate_outs_each(l.d, add_one, &l);
    migrate_ins_each(l.d, add_one, &l);
    api_reply_migrate_list(call, &l.out);
    free(l.out.migrations); /* their texts are lent */
}

void api_handle_migrate_resolve(struct api_call *call, struct api_migrate_resolve_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    bool here = in->owner == API_MIGRATION_OWNER_HERE;
    if (!vm || migrate_out_resolve(vm, call, here) || migrate_in_resolve(vm, call, here)) {
        return;
    }
    api_fail(call, API_E_BAD_STATE, vm->config.name,
             "'vmctl migrate list' shows those in doubt", "no migration of VM '%s' is in doubt",
             vm->config.name);
}
