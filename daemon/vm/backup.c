/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups: rows of the store, one under way for a VM at most, and handlers of backup.begin, .get and .end. Beginning one is a row of calls on behalf
 * of the caller: disk.export_start, disk.transaction, disk.export_add; what was done is undone when a later one fails. A backup
 * is over when its jobs are: the server goes then, and the files that held what guests overwrote. Loop thread.
 */
#include "daemon/vm/backup.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/supervise.h"
#include "daemon/store/store.h"
#include "daemon/vm/checkpoint.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)

struct backup {
    struct list link; /* backups.all */
    struct backups *of;
    char *vm, *row; /* UUID; name of its row */
    struct api_backup info;
    struct api_call *waits; /* backup.end, answered when it is over; NULL: nobody */
    bool ending;            /* on_over() comes */
};

struct backups {
    struct vmd *d;
    struct list all;
    struct event_listener heard;
};

static struct backup *find(const struct vm *vm)
{
    list_for_each (it, &vm->d->backups->all) {
        struct backup *b = list_entry(it, struct backup, link);

        if (strcmp(b->vm, vm->config.uuid) == 0 && !b->ending) {
            return b;
        }
    }
    return NULL;
}

bool backups_any(const struct vm *vm)
{
    return find(vm) != NULL;
}

static void backup_free(struct backup *b)
{
    list_remove(&b->link);
    api_release(&api_type_backup, &b->info);
    free(b->vm);
    free(b->row);
    free(b);
}

/* ---- the end ---- */

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void tell(struct vm *vm, const char *method, struct json_object *take_params)
{
    if (vm && vm->run && !run_has_ended(vm->run)) {
        (void)run_call_with(vm->run, method, take_params, ASK_NS, ignore, NULL);
    } else {
        json_object_put(take_params);
    }
}

static void remove_files(const struct api_backup *info)
{
    struct stat st;

    if (info->mode != API_BACKUP_MODE_PULL) {
        return;
    }
    for (size_t i = 0; i < info->n_disks; i++) {
        if (!info->disks[i].reuse && unlink(info->disks[i].file) != 0 && errno != ENOENT) {
            log_error("daemon", "backup: cannot remove '%s': %s", info->disks[i].file,
                      strerror(errno));
        }
    }
    if (info->socket && lstat(info->socket, &st) == 0 && S_ISSOCK(st.st_mode)) {
        (void)unlink(info->socket);
    }
}

static bool any_active(struct vmd *d, const struct api_backup *info)
{
    for (size_t i = 0; i < info->n_disks; i++) {
        struct job *job = job_find(d, info->disks[i].job);

        if (job && job_active(job)) {
            return true;
        }
    }
    return false;
}

static void cancel_jobs(struct vmd *d, const struct api_backup *info)
{
    for (size_t i = 0; i < info->n_disks; i++) {
        struct job *job = job_find(d, info->disks[i].job);

        if (job && job_active(job) && !job->cancel) {
            job->cancel = true;
            if (job->on_cancel) {
                job->on_cancel(job->arg);
            }
        }
    }
}

/* None of its jobs is at work any more. */
static void on_over(void *arg)
{
    struct backup *b = arg;
    struct vmd *d = b->of->d;
    struct vm *vm = vm_find(d, b->vm, false);
    struct change *c = change_new(d);

    if (b->info.uri) {
        tell(vm, "emu.export_stop", NULL);
    }
    remove_files(&b->info);
    store_tx_object_del(change_tx(c), BACKUP_KIND, b->vm, b->row);
    if (b->waits) {
        call_commit(d, b->waits, c, vm ? vm->config.name : b->vm, json_object_new_object(),
                    NULL, NULL);
    } else {
        change_commit(c, NULL, NULL);
    }
    backup_free(b);
}

/* The VM's backup under way; NULL: none. One whose jobs have just ended, of which the event is still to come, is over now. */
static struct backup *find_live(const struct vm *vm)
{
    struct backup *b = find(vm);

    if (b && !any_active(vm->d, &b->info)) {
        on_over(b);
        return NULL;
    }
    return b;
}

static void look(struct backup *b)
{
    if (!b->ending && !any_active(b->of->d, &b->info)) {
        b->ending = true;
        loop_post(b->of->d->loop, on_over, b);
    }
}

static bool has_job(const struct backup *b, int64_t number)
{
    for (size_t i = 0; i < b->info.n_disks; i++) {
        if (b->info.disks[i].job == number) {
            return true;
        }
    }
    return false;
}

/* One of a backup's jobs has ended. What others read is worth nothing without it. */
static void on_event(void *arg, const struct api_event *event)
{
    struct backups *s = arg;

    if (event->type != API_EVENT_TYPE_JOB || !event->job ||
        event->job->state < API_JOB_STATE_DONE) {
        return;
    }
    list_for_each (it, &s->all) {
        struct backup *b = list_entry(it, struct backup, link);

        if (has_job(b, event->job->job)) {
            if (event->job->state == API_JOB_STATE_FAILED) {
                cancel_jobs(s->d, &b->info);
            }
            look(b);
            return;
        }
    }
}

/* ---- life ---- */

struct backups *backups_new(struct vmd *d)
{
    struct backups *s = xnew(struct backups);

    s->d = d;
    list_init(&s->all);
    s->heard = (struct event_listener){ .fn = on_event, .arg = s };
    events_listen(d->events, &s->heard);
    return s;
}

static struct backup *add(struct backups *s, const char *vm, const char *row,
                          struct json_object *o)
{
    struct backup *b = xnew(struct backup);
    struct api_error x = API_ERROR_INIT;

    if (api_decode(&api_type_backup, o, API_LENIENT, "", &b->info, &x) < 0) {
        log_error("daemon", "backup of VM %s left out: %s", vm, x.message);
        free(b);
        return NULL;
    }
    b->of = s;
    b->vm = xstrdup(vm);
    b->row = xstrdup(row);
    list_append(&s->all, &b->link);
    return b;
}

void backups_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;

    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0) {
        log_error("daemon", "backup of VM %s left out: %s", row->scope, e.msg);
        return;
    }
    (void)add(d->backups, row->scope, row->name, o);
}

void backups_begin(struct backups *s)
{
    list_for_each (it, &s->all) {
        look(list_entry(it, struct backup, link));
    }
}

void backups_free(struct backups *s)
{
    if (s) {
        list_remove(&s->heard.link);
        list_for_each_safe (it, &s->all) {
            backup_free(list_entry(it, struct backup, link));
        }
        free(s);
    }
}

/* ---- backup.begin ---- */

struct beginning {
    struct api_call *call;
    struct vmd *d;
    char *vm; /* UUID */
    struct api_backup_begin_in *in;
    struct json_object *backup, *checkpoint, *actions; /* checkpoint NULL: none */
    size_t shown;                                      /* exports that are there */
    bool serves, acted;
};

static void beginning_free(struct beginning *g)
{
    json_object_put(g->backup);
    json_object_put(g->checkpoint);
    json_object_put(g->actions);
    free(g->vm);
    free(g);
}

/* The bitmaps of its checkpoint go again. */
static void undo_bitmaps(const struct beginning *g, struct vm *vm)
{
    struct json_object *params = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(g->actions); i++) {
        struct json_object *a = json_object_array_get_idx(g->actions, i);

        if (strcmp(api_json_get_str(a, "act"), "bitmap-add") == 0) {
            api_json_set_str(a, "act", "bitmap-remove");
            json_object_array_add(list, json_object_get(a));
        }
    }
    api_json_set(params, "actions", list);
    tell(vm, "emu.disk_actions", params);
}

/* Nothing stays of it. */
static void undo(struct beginning *g)
{
    struct vm *vm = vm_find(g->d, g->vm, false);
    struct api_backup info;

    if (g->acted &&
        api_decode(&api_type_backup, g->backup, API_LENIENT, "", &info, NULL) == 0) {
        cancel_jobs(g->d, &info);
        remove_files(&info);
        api_release(&api_type_backup, &info);
        if (g->checkpoint) {
            undo_bitmaps(g, vm);
        }
    }
    if (g->serves) {
        tell(vm, "emu.export_stop", NULL);
    }
    beginning_free(g);
}

/* The VM still; NULL: g has failed. */
static struct vm *go_on(struct beginning *g, const struct api_error *x)
{
    struct vm *vm = vm_find(g->d, g->vm, false);

    if (x) {
        api_reply_error(g->call, x);
    } else if (!vm) {
        api_fail(g->call, API_E_NOT_FOUND, "vm", NULL, "the VM was deleted meanwhile");
    }
    if (x || !vm) {
        undo(g);
        return NULL;
    }
    return vm;
}

static struct json_object *params_of(const struct beginning *g)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "vm", g->vm);
    return o;
}

static struct json_object *disk_at(const struct beginning *g, size_t i)
{
    return json_object_array_get_idx(api_json_get(g->backup, "disks"), i);
}

static void keep(struct beginning *g, struct vm *vm)
{
    struct change *c = change_new(g->d);
    const char *name = api_json_get_str(g->checkpoint, "name");
    struct backup *b;

    if (g->checkpoint && !checkpoint_keep(vm, g->checkpoint, c)) {
        change_drop(c);
        api_fail(g->call, API_E_EXISTS, name, "choose another name",
                 "VM '%s' has a checkpoint '%s' already", vm->config.name, name);
        undo(g);
        return;
    }
    AUTO_FREE char *row = xasprintf("%lld",
                                    (long long)api_json_get_int(disk_at(g, 0), "job", 0));
    b = add(g->d->backups, g->vm, row, g->backup);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = BACKUP_KIND,
                                                              .scope = g->vm,
                                                              .name = row,
                                                              .body = api_json_text(g->backup),
                                                              .changed_ns = time_real_ns() });
    call_commit(g->d, g->call, c, vm->config.name, json_object_get(g->backup), NULL, NULL);
    beginning_free(g);
    if (b) {
        look(b); /* it may have ended already */
    }
}

static void show_next(struct beginning *g, struct vm *vm);

static void on_shown(void *arg, struct json_object *result, const struct api_error *x)
{
    struct beginning *g = arg;
    struct vm *vm = go_on(g, x);

    (void)result;
    if (vm) {
        g->shown++;
        show_next(g, vm);
    }
}

static void show_next(struct beginning *g, struct vm *vm)
{
    struct json_object *disk = disk_at(g, g->shown), *params;
    const struct api_checkpoint *since = g->in->incremental
                                             ? checkpoint_find(vm, g->in->incremental)
                                             : NULL;
    const char *name = api_json_get_str(disk, "disk"),
               *bitmap = api_json_get_str(disk, "bitmap");

    if (!disk || g->in->mode == API_BACKUP_MODE_PUSH) {
        keep(g, vm);
        return;
    }
    params = params_of(g);
    api_json_set_str(params, "disk", name);
    api_json_set_str(params, "name", api_json_get_str(disk, "export"));
    api_json_set_bool(params, "backup", true);
    if (since) {
        api_json_set_str(params, "bitmap", checkpoint_bitmap(since, name));
        if (bitmap) {
            api_json_set_str(params, "bitmap_name", bitmap);
        }
    }
    api_call_nested(g->call, "disk.export_add", params, on_shown, g);
}

static void on_acted(void *arg, struct json_object *result, const struct api_error *x)
{
    struct beginning *g = arg;
    struct vm *vm = go_on(g, x);
    struct json_object *jobs = api_json_get(result, "jobs");

    if (!vm) {
        return;
    }
    g->acted = true;
    for (size_t i = 0; i < json_object_array_length(jobs) && disk_at(g, i); i++) {
        api_json_set_int(disk_at(g, i), "job",
                         json_object_get_int64(json_object_array_get_idx(jobs, i)));
    }
    show_next(g, vm);
}

static void act(struct beginning *g)
{
    struct json_object *params = params_of(g);

    api_json_set(params, "actions", json_object_get(g->actions));
    api_call_nested(g->call, "disk.transaction", params, on_acted, g);
}

static void on_serving(void *arg, struct json_object *result, const struct api_error *x)
{
    struct beginning *g = arg;

    if (go_on(g, x)) {
        g->serves = true;
        api_json_set_str(g->backup, "uri", api_json_get_str(result, "uri"));
        act(g);
    }
}

static void serve(struct beginning *g)
{
    struct json_object *params = params_of(g);
    const struct api_backup_begin_in *in = g->in;

    if (in->socket) {
        api_json_set_str(params, "socket", in->socket);
    }
    if (in->host) {
        api_json_set_str(params, "host", in->host);
        api_json_set_int(params, "port", in->port);
    }
    if (in->tls) {
        api_json_set_str(params, "tls", in->tls);
    }
    api_call_nested(g->call, "disk.export_start", params, on_serving, g);
}

/* ---- what it is of ---- */

static const struct api_disk *disk_named(const struct vm *vm, const char *name)
{
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        if (vm->config.disks[i].name && strcmp(vm->config.disks[i].name, name) == 0) {
            return &vm->config.disks[i];
        }
    }
    return NULL;
}

/* Adds a disk and what is to be done to it. */
static int plan_disk(struct beginning *g, const struct vm *vm,
                     const struct api_backup_disk *asked, const struct api_checkpoint *since,
                     struct api_error *x)
{
    const struct api_disk *disk = disk_named(vm, asked->disk);
    const char *bitmap = since ? checkpoint_bitmap(since, asked->disk) : NULL;
    bool pull = g->in->mode == API_BACKUP_MODE_PULL;
    struct json_object *o, *a;

    if (!disk) {
        return api_error_set(x, API_E_NOT_FOUND, asked->disk,
                             "see 'vmctl show' for the names of disks",
                             "VM '%s' has no disk '%s'", vm->config.name, asked->disk);
    }
    if (!asked->file && !disk->file) {
        return api_error_set(x, API_E_INVALID_PARAMS, asked->disk, "name a file",
                             "disk '%s' lies in no file beside which a backup could",
                             asked->disk);
    }
    if (since && !bitmap) {
        return api_error_set(x, API_E_NOT_FOUND, asked->disk, "back it up whole first",
                             "checkpoint '%s' has no bitmap of disk '%s'", since->name,
                             asked->disk);
    }
    o = api_encode(&api_type_backup_disk, asked);
    if (!asked->file) {
        AUTO_FREE char *file = xasprintf(
            pull ? "%s.backup-%lld" : "%s.%lld", disk->file,
            (long long)(time_real_ns() / (pull ? 1000000 : 1000000000)));

        api_json_set_str(o, "file", file);
    }
    if (pull && !asked->export) {
        api_json_set_str(o, "export", asked->disk);
    }
    a = json_object_new_object();
    api_json_set_str(a, "act", "backup");
    api_json_set_str(a, "disk", asked->disk);
    api_json_set_str(a, "file", api_json_get_str(o, "file"));
    api_json_set_str(a, "image_format",
                     api_enum_name(&api_type_disk_format, (int)asked->image_format));
    api_json_set_bool(a, "reuse", asked->reuse);
    api_json_set_bool(a, "serve", pull);
    if (pull) {
        api_json_set_str(a, "sync", "none");
    } else {
        api_json_set_int(a, "speed", g->in->speed);
    }
    if (bitmap) {
        api_json_set_str(a, "bitmap", bitmap);
        api_json_set_bool(a, "keep", true);
    }
    json_object_array_add(api_json_get(g->backup, "disks"), o);
    json_object_array_add(g->actions, a);
    return 0;
}

static int plan_disks(struct beginning *g, const struct vm *vm, struct api_error *x)
{
    const struct api_backup_begin_in *in = g->in;
    const struct api_checkpoint *since = in->incremental ? checkpoint_find(vm, in->incremental)
                                                         : NULL;
    int rc = 0;

    if (in->incremental && !since) {
        return api_error_set(
            x, API_E_NOT_FOUND, in->incremental, "'vmctl checkpoint list' shows them",
            "VM '%s' has no checkpoint '%s'", vm->config.name, in->incremental);
    }
    for (size_t i = 0; i < in->n_disks && rc == 0; i++) {
        rc = plan_disk(g, vm, &in->disks[i], since, x);
    }
    for (size_t i = 0; i < vm->config.n_disks && in->n_disks == 0 && rc == 0; i++) {
        const struct api_disk *disk = &vm->config.disks[i];
        const struct api_backup_disk asked = { .disk = disk->name,
                                               .image_format = API_DISK_FORMAT_QCOW2 };

        if (disk->file && !disk->readonly && !disk->cdrom) {
            rc = plan_disk(g, vm, &asked, since, x);
        }
    }
    return rc == 0 && json_object_array_length(g->actions) == 0
               ? api_error_set(x, API_E_INVALID_PARAMS, vm->config.name, "name its disks",
                               "VM '%s' has no disk to be backed up", vm->config.name)
               : rc;
}

static int plan(struct beginning *g, const struct vm *vm, struct api_error *x)
{
    struct api_backup_begin_in *in = g->in;
    struct api_checkpoint_create_in made = { .name = in->checkpoint,
                                             .description = in->checkpoint_description,
                                             .disks = in->checkpoint_disks,
                                             .n_disks = in->n_checkpoint_disks };

    if (find_live(vm)) {
        return api_error_set(x, API_E_BUSY, vm->config.name, "end it: 'vmctl backup end'",
                             "VM '%s' has a backup under way", vm->config.name);
    }
    if (in->mode == API_BACKUP_MODE_PUSH && (in->socket || in->host || in->tls)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "mode", "leave out socket, host and tls",
                             "a backup to files has no server");
    }
    api_json_set_str(g->backup, "mode", api_enum_name(&api_type_backup_mode, (int)in->mode));
    api_json_set(g->backup, "disks", json_object_new_array());
    if (in->incremental) {
        api_json_set_str(g->backup, "incremental", in->incremental);
    }
    if (in->checkpoint) {
        api_json_set_str(g->backup, "checkpoint", in->checkpoint);
    }
    if (in->socket) {
        api_json_set_str(g->backup, "socket", in->socket);
    }
    if (plan_disks(g, vm, x) != 0) {
        return -1;
    }
    g->checkpoint = in->checkpoint ? checkpoint_plan(vm, &made, g->actions, x) : NULL;
    return in->checkpoint && !g->checkpoint ? -1 : 0;
}

void api_handle_backup_begin(struct api_call *call, struct api_backup_begin_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;
    struct beginning *g;

    if (!vm) {
        return;
    }
    g = xnew(struct beginning);
    *g = (struct beginning){ .call = call, .d = vm->d, .in = in };
    g->vm = xstrdup(vm->config.uuid);
    g->backup = json_object_new_object();
    g->actions = json_object_new_array();
    if (plan(g, vm, &x) != 0) {
        beginning_free(g);
        api_reply_error(call, &x);
    } else if (in->mode == API_BACKUP_MODE_PULL) {
        serve(g);
    } else {
        act(g);
    }
}

/* ---- backup.get, backup.end ---- */

static struct backup *call_backup(struct api_call *call, const char *ref)
{
    struct vm *vm = call_vm(call, ref);
    struct backup *b = vm ? find_live(vm) : NULL;

    if (vm && !b) {
        api_fail(call, API_E_NOT_FOUND, vm->config.name, "'vmctl backup begin' begins one",
                 "VM '%s' has no backup under way", vm->config.name);
    }
    return b;
}

void api_handle_backup_get(struct api_call *call, struct api_backup_get_in *in)
{
    const struct backup *b = call_backup(call, in->vm);

    if (b) {
        api_reply_json(call, api_encode(&api_type_backup, &b->info));
    }
}

void api_handle_backup_end(struct api_call *call, struct api_backup_end_in *in)
{
    struct backup *b = call_backup(call, in->vm);

    if (!b) {
        return;
    }
    if (b->waits) {
        api_fail(call, API_E_NOT_FOUND, in->vm, NULL, "the backup is being ended already");
        return;
    }
    b->waits = call;
    cancel_jobs(b->of->d, &b->info);
    look(b);
}
