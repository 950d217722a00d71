/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on snapshots, step by step. Owns struct work_on. Loop thread, but for the functions work_run_*() and run_*(), which threads
 * of daemon/storage/work.h run.
 */
#include "daemon/vm/snapshot_work.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/storage/work.h"
#include "daemon/vm/save.h"
#include "daemon/vm/state_tool.h"
#include "daemon/waits.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_NS INT64_C(10000000000)
#define AGAIN_NS INT64_C(200000000)
#define TRIES 50u

struct vm *work_vm(const struct work_on *k)
{
    return vm_by_id(k->d, k->vm);
}

void work_set_why(struct work_on *k, int code, const char *remedy, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (!k->x.code) {
        api_error_vset(&k->x, code, k->s ? k->s->info.name : archive_file(k->archive), remedy,
                       fmt, ap);
    }
    va_end(ap);
}

/* ---- beginning and end ---- */

static void on_tick(void *arg)
{
    struct work_on *k = arg;

    k->tick(k);
}

void work_later(struct work_on *k, int64_t ns, void (*tick)(struct work_on *k))
{
    k->tick = tick;
    loop_timer_arm(k->timer, ns);
}

struct work_on *work_new(struct op *op, struct snapshot *s)
{
    struct vm *vm = op->vm;
    struct work_on *k = xnew(struct work_on);

    k->d = vm->d;
    k->op = op;
    k->vm = vm->id;
    k->job = op->job ? op->job->info.job : 0;
    k->s = s;
    k->fd = -1;
    k->x = (struct api_error)API_ERROR_INIT;
    k->uuid = xstrdup(vm->config.uuid);
    k->dir = snapshots_dir(vm);
    k->key_file = xasprintf("%s/state.key", vm->d->opt.lib);
    k->program = xstrdup(vm->d->opt.state);
    k->timer = loop_timer_new(vm->d->loop, on_tick, k);
    list_append(&vm->d->snapshot_work, &k->link);
    return k;
}

void work_free(struct work_on *k)
{
    list_remove(&k->link);
    loop_timer_free(k->timer);
    fd_autoclose(&k->fd);
    OPENSSL_cleanse(k->key, sizeof(k->key));
    for (size_t i = 0; i < k->n_images; i++) {
        free(k->image[i]);
        free(k->disk[i]);
    }
    free(k->image);
    free(k->disk);
    archive_free(k->archive);
    free(k->uuid);
    free(k->dir);
    free(k->key_file);
    free(k->program);
    free(k);
}

/* c has the rows; the job ends in it. s NULL: it is no more. */
void work_finish(struct work_on *k, struct change *c, const struct snapshot *s)
{
    struct vm *vm = work_vm(k);
    struct job *job = job_find(k->d, k->job);
    struct op *op = k->op;

    if (k->watching && vm && vm->run) {
        run_on_end_cancel(vm->run, k);
    }
    if (k->x.code) {
        log_warn("daemon", "VM '%s': snapshot: %s", vm ? vm->config.name : "?", k->x.message);
    }
    change_must_tell(c);
    if (job) {
        job->on_cancel = NULL;
        job_end(k->d, job, c, k->x.code ? &k->x : NULL,
                s && !k->x.code ? api_encode(&api_type_snapshot, &s->info) : NULL);
        wait_job_end(k->d, k->job, c);
    } else {
        change_commit(c, NULL, NULL);
    }
    work_free(k);
    op->job = NULL;
    op_end(op);
}

void work_tell(struct work_on *k, struct change *c, const char *reason)
{
    AUTO_JSON detail = json_object_new_object();

    api_json_set_str(detail, "snapshot", k->s->info.name);
    vm_event(work_vm(k), c, API_EVENT_TYPE_VM_SNAPSHOT, reason, detail);
}

/* The VM is at s from now on; NULL: at none. */
void work_make_current(struct work_on *k, struct snapshot *s, struct change *c)
{
    struct snapshot *was = snapshot_current(k->d, k->uuid);

    if (was && was != s) {
        was->info.current = false;
        snapshot_put(was, c);
    }
    if (s) {
        s->info.current = true;
        snapshot_put(s, c);
    }
}

/* ---- threads ---- */

static void on_worked(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    k->working = false;
    if (!k->dead) {
        k->then(k);
    }
}

void work_start(struct work_on *k, void (*run)(struct work *w), void (*then)(struct work_on *))
{
    k->w = (struct work){ .run = run, .ended = on_worked, .e = ERR_INIT };
    list_init(&k->w.link);
    k->then = then;
    k->working = works_start(k->d->pools->works, &k->w);
    if (!k->working) {
        err_set(&k->w.e, -EBUSY, "too much is being done with files already");
        then(k);
    }
}

int work_sync_dir(const char *dir, struct err *e)
{
    AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0 ? 0 : err_errno(e, errno, "cannot write '%s'", dir);
}

char *work_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? xasprintf("%.*s", slash == path ? 1 : (int)(slash - path), path) : NULL;
}

/* A file of its own, under the name that it has until it is whole. */
static void make_external(struct work_on *k, const char *path, const char *part)
{
    struct stat st;

    if (lstat(path, &st) == 0) {
        err_set(&k->w.e, -EEXIST, "'%s' is there already", path);
        return;
    }
    k->fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (k->fd < 0) {
        err_errno(&k->w.e, errno, "cannot make '%s'", path);
    }
}

/* It is whole: it gets its name, unless another file has that by now. */
static int name_external(struct work_on *k, struct err *e)
{
    AUTO_FREE char *part = snapshot_file_part(k->s);
    const char *path = k->s->info.memory_file;
    AUTO_FREE char *dir = work_folder_of(path);

    if (renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_NOREPLACE) != 0) {
        return err_errno(e, errno, "cannot make '%s'", path);
    }
    return work_sync_dir(dir, e);
}

/* The VM's folder, that of its snapshots, the file. */
void work_run_make(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);
    AUTO_FREE char *part = snapshot_file_part(k->s);
    AUTO_FREE char *path = snapshot_file(k->dir, k->s);

    if (save_key(k->key_file, k->uuid, k->key, &w->e) != 0) {
        return;
    }
    if (part) {
        make_external(k, path, part);
        return;
    }
    if (mkdir(k->dir, 0700) != 0 && errno != EEXIST) {
        err_errno(&w->e, errno, "cannot make '%s'", k->dir);
        return;
    }
    k->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (k->fd < 0) {
        err_errno(&w->e, errno, "cannot make '%s'", path);
    }
}

void work_run_sync(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);
    AUTO_FREE char *above = xasprintf("%s/..", k->dir);

    if (fsync(k->fd) != 0) {
        err_errno(&w->e, errno, "cannot write the snapshot '%s'", k->s->info.name);
    } else if (k->s->info.memory_file) {
        name_external(k, &w->e);
    } else if (work_sync_dir(k->dir, &w->e) == 0) {
        work_sync_dir(above, &w->e);
    }
}

/* Its seal, and all of it: whoever goes back gives up what is there now. */
static void check_state(struct work_on *k, const char *path)
{
    AUTO_JSON request = json_object_new_object();
    AUTO_BUF answer = BUF_INIT;
    struct err e = ERR_INIT;
    int rc;

    api_json_set_str(request, "do", "check");
    rc = state_tool(k->d->pools->works, k->program, request, k->key, &k->fd, 1, &answer, &e);
    if (rc < 0) {
        err_set(&k->w.e, rc, "'%s': %s", path, e.msg);
    }
}

/* The VM's memory and devices; read once by vmd-state, for all that the page cache keeps, and once by its emulator. */
static void open_state(struct work_on *k)
{
    struct work *w = &k->w;
    AUTO_FREE char *path = snapshot_file(k->dir, k->s);
    struct stat st;

    if (save_key(k->key_file, k->uuid, k->key, &w->e) != 0) {
        return;
    }
    k->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (k->fd < 0 || fstat(k->fd, &st) != 0) {
        err_errno(&w->e, errno, "cannot read '%s'", path);
    } else if (st.st_size != k->s->info.bytes) {
        err_set(&w->e, -EBADMSG, "'%s' has %lld bytes, not the %lld that were written", path,
                (long long)st.st_size, (long long)k->s->info.bytes);
    } else {
        check_state(k, path);
    }
}

/* An emulator may be writing to it: not to what is read here, since the VM's turn is ours. */
static int look_into(struct work_on *k, const char *path, const char *tag, struct err *e)
{
    const char *const args[] = { "snapshot", "-U",   "-f", "qcow2", "--list",
                                 "--output", "json", path, NULL };
    AUTO_FREE char *dir = work_folder_of(path);
    AUTO_BUF out = BUF_INIT;
    AUTO_JSON list = NULL;
    struct err bad = ERR_INIT;
    int rc = dir ? works_image(k->d->pools->works, dir, args, &out, e)
                 : err_set(e, -EINVAL, "'%s' is no absolute path", path);

    if (rc != 0) {
        return rc;
    }
    if (api_json_parse((const char *)out.data, out.len, &list, &bad) < 0 ||
        !json_object_is_type(list, json_type_array)) {
        return err_set(e, -EBADMSG, "'%s': its snapshots cannot be listed", path);
    }
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        const char *name = api_json_get_str(json_object_array_get_idx(list, i), "name");

        if (name && strcmp(name, tag) == 0) {
            return 0;
        }
    }
    return err_set(e, -ENOENT, "'%s' has no snapshot '%s' in it", path, tag);
}

void work_run_open(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    for (size_t i = 0; i < k->n_images && w->e.code == 0; i++) {
        look_into(k, k->image[i], k->s->info.tag, &w->e);
    }
    if (w->e.code == 0 && k->s->info.memory) {
        open_state(k);
    }
}

static void run_unlink(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    (void)snapshot_file_drop(k->dir, k->s, &w->e);
}

static int on_image_as(struct work_on *k, const char *path, const char *option, const char *tag,
                       struct err *e)
{
    AUTO_FREE char *dir = work_folder_of(path);
    const char *const args[] = { "snapshot", "-f", "qcow2", option, tag, path, NULL };

    return dir ? works_image(k->d->pools->works, dir, args, NULL, e)
               : err_set(e, -EINVAL, "'%s' is no absolute path", path);
}

static int on_image(struct work_on *k, const char *path, const char *option, struct err *e)
{
    return on_image_as(k, path, option, k->s->info.tag, e);
}

/* Of one that was being imported: the image's own contents are back (cli/image_member.c). */
static int undo_import(struct work_on *k, const char *path, struct err *e)
{
    AUTO_FREE char *back = xasprintf("%s.back", k->s->info.tag);
    struct err none = ERR_INIT;
    int rc = look_into(k, path, back, &none);

    if (rc != 0) {
        return rc == -ENOENT ? 0 : err_set(e, rc, "%s", none.msg);
    }
    rc = on_image_as(k, path, "--apply", back, e);
    return rc == 0 ? on_image_as(k, path, "--delete", back, e) : rc;
}

void work_run_take(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    for (size_t i = 0; i < k->n_images && w->e.code == 0; i++) {
        on_image(k, k->image[i], "--create", &w->e);
    }
}

void work_run_apply(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    for (size_t i = 0; i < k->n_images && w->e.code == 0; i++) {
        on_image(k, k->image[i], "--apply", &w->e);
    }
}

/* From each that has it. */
static void run_drop(struct work *w)
{
    struct work_on *k = container_of(w, struct work_on, w);

    for (size_t i = 0; i < k->n_images && w->e.code == 0; i++) {
        struct err e = ERR_INIT;

        if (access(k->image[i], F_OK) != 0 && errno == ENOENT) {
            continue;
        }
        if (snapshot_is_import(k->s) && undo_import(k, k->image[i], &w->e) != 0) {
            return;
        }
        if (on_image(k, k->image[i], "--delete", &e) != 0 &&
            !strstr(e.msg, "has no snapshot")) {
            w->e = e;
        }
    }
}

/* Whose images; false: k->x says why not. */
bool work_find_images(struct work_on *k)
{
    struct api_vm_config config;
    struct api_error x = API_ERROR_INIT;
    bool ok = false;

    if (!snapshot_config(k->s, &config)) {
        work_set_why(k, API_E_INTERNAL_ERROR, NULL,
                     "the definition of the snapshot is unreadable");
        return false;
    }
    if (pools_resolve(k->d, &config, &x) < 0) {
        work_set_why(k, x.code, x.remedy[0] ? x.remedy : NULL, "%s", x.message);
    } else {
        k->image = xnew_n(char *, config.n_disks + 1);
        k->disk = xnew_n(char *, config.n_disks + 1);
        for (size_t i = 0; i < config.n_disks; i++) {
            const struct api_disk *disk = &config.disks[i];

            if (!disk->readonly && !disk->cdrom && disk->file &&
                disk->format == API_DISK_FORMAT_QCOW2 &&
                !snapshot_leaves_out(k->s, disk->name)) {
                k->disk[k->n_images] = xstrdup(disk->name);
                k->image[k->n_images++] = xstrdup(disk->file);
            }
        }
        ok = true;
    }
    api_release(&api_type_vm_config, &config);
    return ok;
}

/* ---- the emulator ---- */

static void answered(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    void (*reply)(struct work_on *, struct json_object *,
                  const struct api_error *) = take_ptr(k->reply);

    if (reply) {
        reply(k, result, x);
    }
}

static void on_reply(void *arg, struct json_object *result, const struct api_error *x)
{
    answered(arg, result, x);
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct work_on *k = arg;
    struct api_error x = API_ERROR_INIT;

    (void)gone; /* transient ones have no snapshots */
    k->watching = false;
    if (k->dead) {
        return;
    }
    if (k->waits_end) {
        k->waits_end = false;
        loop_timer_disarm(k->timer);
        k->then(k);
    } else if (k->reply) {
        api_error_set(&x, API_E_BAD_STATE, vm->config.name, NULL, "VM '%s' ended meanwhile",
                      vm->config.name);
        answered(k, NULL, &x);
    }
}

void work_watch(struct work_on *k)
{
    if (!k->watching) {
        k->watching = true;
        run_on_end(work_vm(k)->run, on_vm_end, k);
    }
}

/* reply once, perhaps before this returns. */
void work_ask(struct work_on *k, const char *method, struct json_object *take_params,
              bool with_file, int64_t deadline_ns,
              void (*reply)(struct work_on *, struct json_object *, const struct api_error *))
{
    struct vm *vm = work_vm(k);
    struct api_error x = API_ERROR_INIT;
    int fd = with_file ? fcntl(k->fd, F_DUPFD_CLOEXEC, 3) : -1;

    k->reply = reply;
    if (!vm->run || run_has_ended(vm->run)) {
        json_object_put(take_params);
        fd_autoclose(&fd);
    } else if (fd >= 0
                   ? run_call_fd(vm->run, method, take_params, fd, deadline_ns, on_reply, k)
                   : run_call_with(vm->run, method, take_params, deadline_ns, on_reply, k)) {
        return;
    }
    api_error_set(&x, API_E_UNRESPONSIVE, vm->config.name,
                  "'vmctl stop --force' ends it whatever it does",
                  "the emulator of VM '%s' does not answer", vm->config.name);
    answered(k, NULL, &x);
}

struct json_object *work_key(struct work_on *k)
{
    struct json_object *o = json_object_new_object();
    AUTO_BUF key = BUF_INIT;

    base64_add(&key, k->key, sizeof(k->key));
    api_json_set_str(o, "key", key.data);
    OPENSSL_cleanse(key.data, key.len);
    return o;
}

static struct json_object *with_name(const char *name)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", name);
    return o;
}

/* ---- dropping: what was asked, or what failed ---- */

void work_drop(struct work_on *k);

static void dropped(struct work_on *k)
{
    struct change *c = change_new(k->d);
    struct snapshot *s = k->s;
    bool was_whole = s->info.state == API_SNAPSHOT_STATE_DELETING;

    list_for_each (it, &k->d->snapshots) {
        struct snapshot *child = list_entry(it, struct snapshot, link);

        if (child->info.parent && strcmp(child->vm, s->vm) == 0 &&
            strcmp(child->info.parent, s->info.name) == 0) {
            free(child->info.parent);
            child->info.parent = s->info.parent ? xstrdup(s->info.parent) : NULL;
            snapshot_put(child, c);
        }
    }
    if (s->info.current) {
        s->info.current = false;
        work_make_current(k, s->info.parent ? snapshot_find(k->d, s->vm, s->info.parent) : NULL,
                          c);
    }
    snapshot_del(s, c);
    if (was_whole) {
        work_tell(k, c, "deleted");
    }
    work_finish(k, c, NULL);
    snapshot_free(s);
}

/* It stays as it is now, for another attempt. */
static void drop_failed(struct work_on *k, const char *words)
{
    work_set_why(k, API_E_FILE_ERROR, "delete it again: 'vmctl snapshot delete'",
                 "snapshot '%s' is not deleted: %s", k->s->info.name, words);
    work_finish(k, change_new(k->d), NULL);
}

static void unlinked(struct work_on *k)
{
    if (k->w.e.code) {
        drop_failed(k, k->w.e.msg);
    } else {
        dropped(k);
    }
}

static void images_dropped(struct work_on *k)
{
    if (k->w.e.code) {
        drop_failed(k, k->w.e.msg);
    } else {
        work_start(k, run_unlink, unlinked);
    }
}

static void on_disks_dropped(struct work_on *k, struct json_object *result,
                             const struct api_error *x)
{
    (void)result;
    if (!x || x->code == API_E_NOT_FOUND) {
        work_start(k, run_unlink, unlinked);
    } else if (++k->tries < TRIES) { /* it may be about to end */
        work_later(k, AGAIN_NS, work_drop);
    } else {
        drop_failed(k, x->message);
    }
}

/* A save that nobody waits for any more takes its snapshot back itself. */
static void on_status(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    if (!x && !api_json_get_bool(result, "active", false)) {
        work_ask(k, "emu.disk_snapshot_delete", with_name(k->s->info.tag), false, ASK_NS,
                 on_disks_dropped);
    } else if (++k->tries < TRIES) {
        work_later(k, AGAIN_NS, work_drop);
    } else {
        drop_failed(k, x ? x->message : "its state is still being saved");
    }
}

static void on_called_off(struct work_on *k, struct json_object *result,
                          const struct api_error *x)
{
    (void)result;
    (void)x;
    work_ask(k, "emu.state_status", NULL, false, ASK_NS, on_status);
}

void work_drop(struct work_on *k)
{
    struct vm *vm = work_vm(k);

    if (!vm->run) {
        if (k->n_images == 0 && !k->image && !work_find_images(k)) {
            work_finish(k, change_new(k->d), NULL);
        } else {
            work_start(k, run_drop, images_dropped);
        }
    } else if (k->s->info.state == API_SNAPSHOT_STATE_MAKING) {
        work_ask(k, "emu.state_cancel", NULL, false, ASK_NS, on_called_off);
    } else {
        work_ask(k, "emu.disk_snapshot_delete", with_name(k->s->info.tag), false, ASK_NS,
                 on_disks_dropped);
    }
}
