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
    int fd;
    bool made, working, begun, asking, over;
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
    loop_timer_free(k->tick);
    fd_autoclose(&k->fd);
    json_object_put(k->request);
    api_release(&api_type_block_job, &k->seen);
    free(k->disk);
    free(k->file);
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

/* The VM goes on with another image, and its definition says so in the same transaction. */
static void redefine(struct bjob *k, struct change *c)
{
    struct vm *vm = vm_of(k);

    for (size_t i = 0; vm && k->seen.swapped && k->seen.file && i < vm->config.n_disks; i++) {
        struct api_disk *disk = &vm->config.disks[i];
        char name[32];
        int format = api_enum_value(&api_type_disk_format, k->seen.format);

        snprintf(name, sizeof(name), "disk%zu", i);
        if (strcmp(disk->name ? disk->name : name, k->disk) == 0 && format >= 0) {
            disk_takes_file(disk, k->seen.file, (enum api_disk_format)format);
            vm_put(vm, c);
        }
    }
}

/* Tells the end and forgets k. */
static void over(struct bjob *k)
{
    struct job *job = job_find(k->d, k->job);
    struct change *c = change_new(k->d);

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
    wait_job_end(k->d, k->job, c);
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

/* ---- following ---- */

static void on_dismissed(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
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
    (void)tell_emulator(k, "dismiss", -1, on_dismissed, NULL);
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

    if (!vm || !vm->run || run_has_ended(vm->run)) {
        fail(k, API_E_BAD_STATE, "begin it again", "the VM ended before its job");
        return;
    }
    if (k->begun) {
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
    if (x) {
        fail(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
             x->remedy[0] ? x->remedy : NULL, "%s", x->message);
        return;
    }
    k->begun = true;
    k->made = false; /* it has data now: people decide about it */
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
    loop_timer_arm(k->tick, TICK_NS / 4);
}

static void on_file(void *arg, struct json_object *result, const struct api_error *x)
{
    struct bjob *k = ticket_take(arg);

    (void)result;
    if (k && x) {
        fail(k, x->code, NULL, "%s", x->message);
    } else if (k) {
        start(k);
    }
}

static void *open_main(void *arg);

static void on_opened(void *arg)
{
    struct bjob *k = arg;
    struct vm *vm = vm_of(k);
    struct json_object *p;
    struct ticket *t;

    pthread_join(k->thread, NULL);
    k->working = false;
    if (k->e.code) {
        fail(k, k->e.code == -EEXIST ? API_E_EXISTS : API_E_FILE_ERROR,
             k->e.code == -EEXIST ? "choose another name, or use it with --reuse"
                                  : "choose a file that vmd may write",
             "%s", k->e.msg);
        return;
    }
    p = json_object_new_object();
    t = ticket_new(k);
    api_json_set_str(p, "path", k->file);
    if (!vm || !vm->run ||
        !run_call_fd(vm->run, "emu.file_add", p, take_fd(&k->fd), ASK_NS, on_file, t)) {
        free(t);
        gone_mute(k);
    }
}

/* Nothing here may hold up the loop. */
static void *open_main(void *arg)
{
    struct bjob *k = arg;
    struct stat st;

    k->fd = open(k->file,
                 O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK |
                     (k->create ? O_CREAT | O_EXCL : 0),
                 0600);
    k->made = k->create && k->fd >= 0;
    if (k->fd < 0 || fstat(k->fd, &st) != 0) {
        err_errno(&k->e, errno, "cannot open '%s'", k->file);
    } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        err_set(&k->e, -EINVAL, "'%s' is neither a file nor a block device", k->file);
    }
    loop_post(k->d->loop, on_opened, k);
    return NULL;
}

static void on_cancel(void *arg)
{
    struct bjob *k = arg;

    (void)tell_emulator(k, "cancel", -1, on_dismissed, NULL);
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
                        .fd = -1 };
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
    const char *method, *kind, *vm, *disk, *file, *id;
    bool create;
    struct json_object *request;
};

static bool may(struct api_call *call, struct vm *vm, const struct ask *a)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;

    if (!vm->run || (vm->state != API_VM_STATE_RUNNING && vm->state != API_VM_STATE_PAUSED)) {
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
                              api_call_peer(call)->principal);
    struct bjob *k = bjob_new(d, vm, job, a->disk, a->file);
    struct api_disk_mirror_out out = { .job = k->job, .name = vm->config.name };

    job->info.result = json_object_new_object();
    api_json_set_str(job->info.result, "disk", k->disk);
    if (k->file) {
        api_json_set_str(job->info.result, "file", k->file);
    }
    if (a->id) {
        api_json_set_str(job->info.result, "id", a->id);
    }
    k->create = a->create;
    k->request = a->request;
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
    api_json_set_str(a->request, "format", api_enum_name(&api_type_disk_format, (int)format));
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
                              "bytes", owner);
    struct bjob *k = bjob_new(vm->d, vm, job, disk, file);

    job->info.result = json_object_new_object();
    api_json_set_str(job->info.result, "disk", disk);
    api_json_set_str(job->info.result, "file", file);
    if (id) {
        api_json_set_str(job->info.result, "id", id);
    }
    return k->job;
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
    if (!ours || !vm || !vm->run || run_pid(vm->run) <= 0 || !disk) {
        return false;
    }
    k = bjob_new(d, vm, job, disk, api_json_get_str(job->info.result, "file"));
    k->begun = true;
    loop_timer_arm(k->tick, TICK_NS);
    return true;
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
