/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of disk.*. Owns struct bjob: one for each job that works. Loop thread, but for open_main().
 */
#include "daemon/vm/blockjobs.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/swap_record.h"
#include "daemon/waits.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_NS INT64_C(200000000)
#define ASK_NS INT64_C(20000000000)
#define BJOBS_MAX 256

struct bjob {
    struct list link; /* vmd.bjobs */
    struct vmd *d;
    int64_t vm, job;
    char id[32], *disk;
    char *file;  /* target, or the image a commit writes to; NULL: none is needed */
    bool create; /* a new file */
    struct json_object *request; /* of emu.job_start, until it is sent */
    struct loop_timer *tick;
    int fd, record_fd; /* until they are passed */
    struct run *run;   /* whose end is heard of; NULL: none */
    bool records;      /* the disk may get another image */
    char *stood_on;    /* what it had when the job began, if that is a file */
    bool covers;       /* was and now are known */
    struct run_disk was, now;
    bool made, working, begun;
    pthread_t thread;
    struct err e; /* of the thread */
    struct api_error x;
    struct api_block_job seen; /* owned */
};

static struct vm *vm_of(const struct bjob *k)
{
    return vm_by_id(k->d, k->vm);
}

static void bjob_free(struct bjob *k)
{
    list_remove(&k->link);
    if (k->run) {
        run_on_end_cancel(k->run, k);
    }
    loop_timer_free(k->tick);
    fd_autoclose(&k->fd);
    fd_autoclose(&k->record_fd);
    json_object_put(k->request);
    api_release(&api_type_block_job, &k->seen);
    free(k->disk);
    free(k->file);
    free(k->stood_on);
    free(k);
}

/* ---- the end ---- */

void disk_takes_file(struct api_disk *disk, const char *file, enum api_disk_format format)
{
    free(disk->file);
    disk->file = xstrdup(file);
    disk->format = format;
    free(disk->pool); /* it is no volume any more */
    free(disk->volume);
    disk->pool = disk->volume = NULL;
}

/* Which images it writes is held against other VMs that open them. */
static void claim(struct bjob *k, const struct api_disk *disk)
{
    if (!k->run || run_has_ended(k->run) || !disk->file || disk->file[0] != '/') {
        return;
    }
    if (k->covers && strcmp(disk->file, k->stood_on) == 0) {
        run_disk_covered(k->run, &k->was, &k->now);
    } else { /* the job is the last daemon's, or an overlay came since */
        run_disk_covered_at(k->run, disk->file, k->file);
    }
}

static struct api_disk *disk_of(struct vm *vm, const char *named)
{
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        struct api_disk *disk = &vm->config.disks[i];
        char name[32];

        snprintf(name, sizeof(name), "disk%zu", i);
        if (strcmp(disk->name ? disk->name : name, named) == 0) {
            return disk;
        }
    }
    return NULL;
}

/* The VM goes on with another image, and its definition says so in the same transaction. What an emulator may say is that it
 * does; which image that is, is what was asked for. Another one means that an overlay came since, of which the definition knows. */
static void redefine(struct bjob *k, struct change *c)
{
    struct vm *vm = vm_of(k);
    struct job *job = job_find(k->d, k->job);
    const char *word = job ? api_json_get_str(job->info.result, "format") : NULL;
    int format = -1;

    word = word ? word : k->seen.format; /* of a commit's base */
    format = word ? api_enum_value(&api_type_disk_format, word) : -1;
    if (!vm || !k->seen.swapped || !k->file || !k->seen.file || format < 0 ||
        strcmp(k->seen.file, k->file) != 0) {
        return;
    }
    struct api_disk *disk = disk_of(vm, k->disk);
    if (disk) {
        claim(k, disk);
        disk_takes_file(disk, k->file, (enum api_disk_format)format);
        vm_put(vm, c);
    }
}

static void dismiss(struct vm *vm, const char *id);

struct ended {
    struct vmd *d;
    int64_t vm, job;
    bool begun;
};

/* Only now may the emulator forget which image the disk stands on. */
static void on_durable(void *arg, const struct err *e)
{
    struct ended *n = arg;
    struct vm *vm = vm_by_id(n->d, n->vm);
    char id[32];

    wait_job_answer(n->d, n->job);
    snprintf(id, sizeof(id), "job-%lld", (long long)n->job);
    if (!e) {
        swap_record_drop(n->d, n->job);
    }
    if (!e && n->begun && vm && vm->run) {
        dismiss(vm, id);
    }
    free(n);
}

/* Tells the end and forgets k. */
static void over(struct bjob *k)
{
    struct job *job = job_find(k->d, k->job);
    struct change *c = change_new(k->d);
    struct ended *n = xnew(struct ended);

    if (k->made && k->x.code) {
        unlink(k->file);
    }
    redefine(k, c);
    if (job) {
        struct json_object *result = json_object_get(job->info.result);

        job->on_cancel = NULL;
        json_object_put(job->info.result);
        job->info.result = NULL;
        if (!k->x.code && k->seen.total > 0) {
            job->info.total = k->seen.total;
        }
        job_end(k->d, job, c, k->x.code ? &k->x : NULL, result);
    }
    *n = (struct ended){ .d = k->d, .vm = k->vm, .job = k->job, .begun = k->begun };
    change_must_tell(c);
    change_commit(c, on_durable, n);
    bjob_free(k);
}

static void fail(struct bjob *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void fail(struct bjob *k, int code, const char *remedy, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    api_error_vset(&k->x, code, k->disk, remedy, fmt, ap);
    va_end(ap);
    over(k);
}

/* ---- the VM's end ---- */

/* The emulator can tell no more; what it left in writing can. */
static bool has_swapped(struct bjob *k)
{
    enum api_disk_format format;

    if (!k->file || !swap_record_read(k->d, k->job, &format)) {
        return false;
    }
    free(k->seen.file);
    free(k->seen.format);
    k->seen.swapped = true;
    k->seen.file = xstrdup(k->file);
    k->seen.format = xstrdup(api_disk_format_name(format));
    return true;
}

static void vm_is_over(struct bjob *k)
{
    if (has_swapped(k)) {
        over(k);
    } else {
        fail(k, API_E_BAD_STATE, "begin it again", "the VM ended before its job");
    }
}

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct bjob *k = arg;

    (void)vm;
    k->run = NULL;
    k->vm = gone ? 0 : k->vm; /* no definition to change */
    vm_is_over(k);
}

static void hear_of_end(struct bjob *k, struct vm *vm)
{
    k->run = vm->run;
    run_on_end(k->run, vm_ended, k);
}

/* ---- following ---- */

static void on_dismissed(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void dismiss(struct vm *vm, const char *id)
{
    struct json_object *p = json_object_new_object();

    api_json_set_str(p, "id", id);
    api_json_set_str(p, "act", "dismiss");
    (void)run_call_with(vm->run, "emu.job_set", p, ASK_NS, on_dismissed, NULL);
}

static bool tell_emulator(struct bjob *k, const char *act, int64_t speed, rpc_done_fn *fn,
                          void *arg)
{
    struct vm *vm = vm_of(k);
    struct json_object *p = json_object_new_object();

    api_json_set_str(p, "id", k->id);
    if (act) {
        api_json_set_str(p, "act", act);
    }
    if (speed >= 0) {
        api_json_set_int(p, "speed", speed);
    }
    if (!vm || !vm->run) {
        json_object_put(p);
        return false;
    }
    return run_call_with(vm->run, "emu.job_set", p, ASK_NS, fn, arg);
}

static void take_seen(struct bjob *k, struct api_block_job *now)
{
    struct job *job = job_find(k->d, k->job);
    bool news = now->done != k->seen.done || now->state != k->seen.state;

    api_release(&api_type_block_job, &k->seen);
    k->seen = *now;
    memset(now, 0, sizeof(*now));
    if (job && news) {
        struct change *c = change_new(k->d);

        job->info.total = k->seen.total;
        api_json_set_str(job->info.result, "state",
                         api_enum_name(&api_type_block_job_state, (int)k->seen.state));
        api_json_set_int(job->info.result, "speed", k->seen.speed);
        job_progress(job, c, k->seen.done);
        change_commit(c, NULL, NULL);
    }
    if (k->seen.state != API_BLOCK_JOB_STATE_ENDED) {
        return;
    }
    if (k->seen.cancelled) {
        if (job) {
            job->cancel = true;
        }
        fail(k, API_E_CANCELLED, NULL, "the job was cancelled");
    } else if (k->seen.error) {
        fail(k, API_E_FILE_ERROR, NULL, "%s", k->seen.error);
    } else {
        over(k);
    }
}

static void on_jobs(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    struct vmd *d = vm->d;
    struct api_emu_jobs_out out;

    if (x || api_decode(&api_type_emu_jobs_out, result, API_LENIENT, "", &out, NULL) < 0) {
        return;
    }
    list_for_each_safe (it, &d->bjobs) {
        struct bjob *k = list_entry(it, struct bjob, link);
        bool found = false;

        if (k->vm != vm->id || !k->begun) {
            continue;
        }
        for (size_t i = 0; i < out.n_jobs && !found; i++) {
            if (out.jobs[i].id && strcmp(out.jobs[i].id, k->id) == 0) {
                found = true;
                take_seen(k, &out.jobs[i]);
            }
        }
        if (!found) {
            fail(k, API_E_CANCELLED, "begin it again", "vmd ended before the job had begun");
        }
    }
    api_release(&api_type_emu_jobs_out, &out);
}

static void on_tick(void *arg)
{
    struct bjob *k = arg;
    struct vm *vm = vm_of(k);

    if (!vm || !vm->run) {
        vm_is_over(k);
        return;
    }
    if (k->begun && !run_has_ended(vm->run)) {
        run_call(vm->run, "emu.jobs", ASK_NS, on_jobs, vm);
    }
    loop_timer_arm(k->tick, TICK_NS);
}

/* ---- beginning ---- */

static struct bjob *find_bjob(struct vmd *d, int64_t job)
{
    list_for_each (it, &d->bjobs) {
        struct bjob *k = list_entry(it, struct bjob, link);

        if (k->job == job) {
            return k;
        }
    }
    return NULL;
}

/* Replies come with the daemon's VM as argument; which job it is, is in the ticket. */
struct ticket {
    struct vmd *d;
    int64_t job;
};

static struct ticket *ticket_new(struct bjob *k)
{
    struct ticket *t = xnew(struct ticket);

    *t = (struct ticket){ .d = k->d, .job = k->job };
    return t;
}

static struct bjob *ticket_take(void *arg)
{
    struct ticket *t = arg;
    struct bjob *k = find_bjob(t->d, t->job);

    free(t);
    return k;
}

static void gone_mute(struct bjob *k)
{
    fail(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
         "the emulator does not answer");
}

static void on_begun(void *arg, struct json_object *result, const struct api_error *x)
{
    struct bjob *k = ticket_take(arg);

    (void)result;
    if (!k) {
        return;
    }
    /* Without an answer it may have begun, and swap images: what the emulator lists is what is. */
    if (x && x->code != API_E_INTERNAL_ERROR && x->code != API_E_TIMEOUT) {
        fail(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s", x->message);
        return;
    }
    k->begun = true;
    k->made = false; /* it has data now: people decide about it */
    struct job *job = job_find(k->d, k->job);
    if (job && !api_json_get(job->info.result, "state")) {
        /* From now on it can be told something. */
        struct change *c = change_new(k->d);

        api_json_set_str(job->info.result, "state",
                         api_enum_name(&api_type_block_job_state, API_BLOCK_JOB_STATE_RUNNING));
        job_progress(job, c, job->info.done);
        change_commit(c, NULL, NULL);
    }
}

static void start(struct bjob *k)
{
    struct vm *vm = vm_of(k);
    struct ticket *t = ticket_new(k);

    if (!vm || !vm->run ||
        !run_call_with(vm->run, "emu.job_start", take_ptr(k->request), ASK_NS, on_begun, t)) {
        free(t);
        gone_mute(k);
        return;
    }
    hear_of_end(k, vm);
    loop_timer_arm(k->tick, TICK_NS / 4);
}

static void pass(struct bjob *k, const char *path, int owned_fd);

static void on_file(void *arg, struct json_object *result, const struct api_error *x)
{
    struct bjob *k = ticket_take(arg);

    (void)result;
    if (k && x) {
        fail(k, x->code, NULL, "%s", x->message);
    } else if (k && k->record_fd >= 0) {
        AUTO_FREE char *path = swap_record_path(k->d, k->job);

        pass(k, path, take_fd(&k->record_fd));
    } else if (k) {
        start(k);
    }
}

static void pass(struct bjob *k, const char *path, int owned_fd)
{
    struct vm *vm = vm_of(k);
    struct json_object *p = json_object_new_object();
    struct ticket *t = ticket_new(k);

    api_json_set_str(p, "path", path);
    if (!vm || !vm->run) {
        json_object_put(p);
        fd_autoclose(&owned_fd);
    } else if (run_call_fd(vm->run, "emu.file_add", p, owned_fd, ASK_NS, on_file, t)) {
        return;
    }
    free(t);
    gone_mute(k);
}

static void *open_main(void *arg);

static void on_opened(void *arg)
{
    struct bjob *k = arg;

    pthread_join(k->thread, NULL);
    k->working = false;
    if (k->e.code) {
        fail(k, k->e.code == -EEXIST ? API_E_EXISTS : API_E_FILE_ERROR,
             k->e.code == -EEXIST ? "choose another name, or use it with --reuse"
                                  : "choose a file that vmd may write",
             "%s", k->e.msg);
        return;
    }
    pass(k, k->file, take_fd(&k->fd));
}

/* Nothing here may hold up the loop. */
static void *open_main(void *arg)
{
    struct bjob *k = arg;
    struct stat st, was;

    k->fd = open(k->file,
                 O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK |
                     (k->create ? O_CREAT | O_EXCL : 0),
                 0600);
    k->made = k->create && k->fd >= 0;
    if (k->fd < 0 || fstat(k->fd, &st) != 0) {
        err_errno(&k->e, errno, "cannot open '%s'", k->file);
    } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        err_set(&k->e, -EINVAL, "'%s' is neither a file nor a block device", k->file);
    } else if (k->records) {
        k->record_fd = swap_record_open(k->d, k->job, &k->e);
        if (k->stood_on && stat(k->stood_on, &was) == 0) {
            k->covers = true;
            k->was = run_disk_of(&was, false);
            k->now = run_disk_of(&st, true);
        }
    }
    loop_post(k->d->loop, on_opened, k);
    return NULL;
}

static void on_cancel(void *arg)
{
    struct bjob *k = arg;

    (void)tell_emulator(k, "cancel", -1, on_dismissed, NULL);
}

/* What its row keeps from the first, by which the next daemon follows it (blockjob_follow()). */
static struct json_object *works_on(const char *disk, const char *file, const char *id,
                                    const char *format)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "disk", disk);
    if (file) {
        api_json_set_str(o, "file", file);
    }
    if (id) {
        api_json_set_str(o, "id", id);
    }
    if (format) {
        api_json_set_str(o, "format", format);
    }
    return o;
}

static struct bjob *bjob_new(struct vmd *d, const struct vm *vm, struct job *job,
                             const char *disk, const char *file)
{
    struct bjob *k = xnew(struct bjob);

    *k = (struct bjob){ .d = d,
                        .vm = vm->id,
                        .job = job->info.job,
                        .disk = xstrdup(disk),
                        .file = file ? xstrdup(file) : NULL,
                        .fd = -1,
                        .record_fd = -1 };
    k->x = (struct api_error)API_ERROR_INIT;
    k->e = (struct err)ERR_INIT;
    snprintf(k->id, sizeof(k->id), "job-%lld", (long long)job->info.job);
    k->tick = loop_timer_new(d->loop, on_tick, k);
    list_append(&d->bjobs, &k->link);
    job->on_cancel = on_cancel;
    job->arg = k;
    return k;
}

static void accepted(void *arg, const struct err *e)
{
    struct bjob *k = arg;
    struct job *job = job_find(k->d, k->job);
    int rc;

    if (e || !job) {
        if (job) {
            job_forget(k->d, job);
        }
        bjob_free(k);
        return;
    }
    if (!k->file) {
        start(k);
        return;
    }
    rc = pthread_create(&k->thread, NULL, open_main, k);
    if (rc != 0) {
        fail(k, API_E_HOST_LIMIT, NULL, "cannot start a thread: %s", strerror(rc));
        return;
    }
    k->working = true;
}

/* What a method says, for all kinds; `request` is taken. */
struct ask {
    const char *method, *kind, *vm, *disk, *file, *id, *format;
    bool create, records;
    struct json_object *request;
};

static bool may(struct api_call *call, struct vm *vm, const struct ask *a)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;

    if (!vm_is_live(vm)) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
    } else if (jobs_active(d) >= BJOBS_MAX) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "%d jobs are at work already", BJOBS_MAX);
    } else if (a->file && access_file(call, vm->config.project, "file", a->file, &x) < 0) {
        api_reply_error(call, &x);
    } else {
        return true;
    }
    return false;
}

static void begin(struct api_call *call, struct ask *a)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, a->vm);

    if (!vm || !may(call, vm, a)) {
        json_object_put(a->request);
        return;
    }
    struct change *c = change_new(d);
    struct job *job = job_new(d, c, a->method, vm->config.uuid, vm->config.name, 0, "bytes",
                              api_call_peer(call)->principal,
                              works_on(a->disk, a->file, a->id, a->format));
    struct bjob *k = bjob_new(d, vm, job, a->disk, a->file);
    struct api_disk_mirror_out out = { .job = k->job, .name = vm->config.name };

    k->create = a->create;
    k->records = a->records;
    if (k->records) {
        const struct api_disk *disk = disk_of(vm, k->disk);

        k->stood_on = disk && disk->file && disk->file[0] == '/' ? xstrdup(disk->file) : NULL;
    }
    k->request = a->request;
    if (k->records) {
        AUTO_FREE char *path = swap_record_path(d, k->job);

        api_json_set_str(k->request, "record", path);
    }
    api_json_set_str(k->request, "id", k->id);
    api_json_set_str(k->request, "kind", a->kind);
    api_json_set_str(k->request, "disk", k->disk);
    call_commit(d, call, c, vm->config.name, api_encode(&api_type_disk_mirror_out, &out),
                accepted, k);
}

static void set_target(struct ask *a, const char *file, enum api_disk_format format, bool reuse,
                       enum api_block_sync sync, int64_t speed)
{
    a->file = file;
    a->create = !reuse;
    a->request = json_object_new_object();
    api_json_set_str(a->request, "target", file);
    a->format = api_enum_name(&api_type_disk_format, (int)format);
    api_json_set_str(a->request, "format", a->format);
    api_json_set_bool(a->request, "create", !reuse);
    api_json_set_str(a->request, "sync", api_enum_name(&api_type_block_sync, (int)sync));
    api_json_set_int(a->request, "speed", speed);
}

void api_handle_disk_mirror(struct api_call *call, struct api_disk_mirror_in *in)
{
    struct ask a = {
        .method = "disk.mirror", .kind = "mirror", .vm = in->vm, .disk = in->disk, .id = in->id
    };

    set_target(&a, in->file, in->image_format, in->reuse, in->sync, in->speed);
    a.records = true;
    api_json_set_bool(a.request, "finish", in->pivot);
    begin(call, &a);
}

void api_handle_disk_backup(struct api_call *call, struct api_disk_backup_in *in)
{
    struct ask a = {
        .method = "disk.backup", .kind = "backup", .vm = in->vm, .disk = in->disk, .id = in->id
    };

    set_target(&a, in->file, in->image_format, in->reuse, in->sync, in->speed);
    if (in->bitmap) {
        api_json_set_str(a.request, "bitmap", in->bitmap);
    }
    begin(call, &a);
}

void api_handle_disk_stream(struct api_call *call, struct api_disk_stream_in *in)
{
    struct ask a = {
        .method = "disk.stream", .kind = "stream", .vm = in->vm, .disk = in->disk, .id = in->id
    };

    a.request = json_object_new_object();
    if (in->base) {
        api_json_set_str(a.request, "base", in->base);
    }
    api_json_set_int(a.request, "speed", in->speed);
    begin(call, &a);
}

void api_handle_disk_commit(struct api_call *call, struct api_disk_commit_in *in)
{
    struct ask a = {
        .method = "disk.commit", .kind = "commit", .vm = in->vm, .disk = in->disk, .id = in->id
    };

    a.file = in->base;
    a.records = true;
    a.request = json_object_new_object();
    api_json_set_str(a.request, "base", in->base);
    if (in->top) {
        api_json_set_str(a.request, "top", in->top);
    }
    api_json_set_bool(a.request, "finish", in->pivot);
    api_json_set_int(a.request, "speed", in->speed);
    begin(call, &a);
}

/* ---- those that begin with others ---- */

int64_t blockjob_plan(struct vm *vm, struct change *c, const char *disk, const char *file,
                      const char *id, int64_t owner)
{
    struct job *job = job_new(vm->d, c, "disk.backup", vm->config.uuid, vm->config.name, 0,
                              "bytes", owner, works_on(disk, file, id, NULL));

    return bjob_new(vm->d, vm, job, disk, file)->job;
}

void blockjob_planned(struct vmd *d, int64_t number, const struct api_error *x, bool forget)
{
    struct bjob *k = find_bjob(d, number);
    struct job *job = job_find(d, number);

    if (!k) {
        return;
    }
    if (forget) {
        if (job) {
            job_forget(d, job);
        }
        bjob_free(k);
    } else if (x) {
        fail(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s", x->message);
    } else {
        k->begun = true;
        hear_of_end(k, vm_of(k));
        loop_timer_arm(k->tick, TICK_NS / 4);
    }
}

bool blockjobs_full(struct vmd *d)
{
    return jobs_active(d) >= BJOBS_MAX;
}

/* ---- looking and telling ---- */

static void on_told(void *arg, struct json_object *result, const struct api_error *x)
{
    struct api_call *call = arg;

    (void)result;
    if (x) {
        api_reply_error(call, x);
    } else {
        call_finish(call_daemon(call), call, "job", json_object_new_object());
    }
}

void api_handle_disk_job(struct api_call *call, struct api_disk_job_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);

    if (!vm) {
        return;
    }
    list_for_each (it, &d->bjobs) {
        struct bjob *k = list_entry(it, struct bjob, link);

        if (k->vm == vm->id && strcmp(k->disk, in->disk) == 0 && k->begun) {
            const char *act = in->has_act ? api_enum_name(&api_type_block_job_act, (int)in->act)
                                          : NULL;

            if (!tell_emulator(k, act, in->has_speed ? in->speed : -1, on_told, call)) {
                api_fail(call, API_E_UNRESPONSIVE, vm->config.name, NULL,
                         "the emulator of VM '%s' does not answer", vm->config.name);
            }
            return;
        }
    }
    api_fail(call, API_E_NOT_FOUND, in->disk, "'vmctl jobs' lists all",
             "disk '%s' of VM '%s' has no job", in->disk, vm->config.name);
}

/* ---- after a restart ---- */

bool blockjob_follow(struct vmd *d, struct job *job)
{
    static const char *const kinds[] = { "disk.mirror", "disk.backup", "disk.stream",
                                         "disk.commit" };
    struct vm *vm = job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
    const char *disk = api_json_get_str(job->info.result, "disk");
    bool ours = false;
    struct bjob *k;

    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        ours |= job->info.kind && strcmp(job->info.kind, kinds[i]) == 0;
    }
    if (!ours || !vm || !disk) {
        return false;
    }
    k = bjob_new(d, vm, job, disk, api_json_get_str(job->info.result, "file"));
    k->begun = true;
    if (!vm->run || run_pid(vm->run) <= 0) {
        vm_is_over(k);
        return true;
    }
    hear_of_end(k, vm);
    loop_timer_arm(k->tick, TICK_NS);
    return true;
}

/* The last daemon told of their ends, and had no time left to tell the emulator so. */
static void on_leftovers(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    struct api_emu_jobs_out out;

    if (x || api_decode(&api_type_emu_jobs_out, result, API_LENIENT, "", &out, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < out.n_jobs; i++) {
        long long number;

        if (out.jobs[i].state == API_BLOCK_JOB_STATE_ENDED && out.jobs[i].id &&
            sscanf(out.jobs[i].id, "job-%lld", &number) == 1 && !find_bjob(vm->d, number)) {
            dismiss(vm, out.jobs[i].id);
        }
    }
    api_release(&api_type_emu_jobs_out, &out);
}

static bool is_followed(struct vmd *d, int64_t job)
{
    return find_bjob(d, job) != NULL;
}

void blockjobs_begin(struct vmd *d)
{
    size_t n;
    AUTO_FREE struct vm **list = vm_list(d, &n);

    for (size_t i = 0; i < n; i++) {
        if (list[i]->config.n_disks && list[i]->run && run_pid(list[i]->run) > 0) {
            run_call(list[i]->run, "emu.jobs", ASK_NS, on_leftovers, list[i]);
        }
    }
    swap_records_tidy(d, is_followed);
}

void blockjobs_end(struct vmd *d)
{
    while (!list_empty(&d->bjobs)) {
        struct bjob *k = list_entry(d->bjobs.next, struct bjob, link);

        if (k->working) {
            pthread_join(k->thread, NULL);
        }
        bjob_free(k);
    }
}
