/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handler of vm.dump. Owns struct dump: one for each job, from when it begins to work until it has ended. The job holds the VM's turn
 * (ops.h), so that nothing else is asked of the VM meanwhile but stop --force. Loop thread, but for work_main().
 */
#include "daemon/vm/dump.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/waits.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_NS INT64_C(300000000)
#define ASK_NS INT64_C(5000000000)

struct dump {
    struct list link; /* vmd.dumps */
    struct vmd *d;
    struct op *
        op; /* the VM's turn; NULL when it went with the VM, or another daemon's job is followed */
    int64_t vm, job;
    struct loop_timer *tick;
    char *file;
    uint64_t begin, length; /* length UINT64_MAX: all */
    int fd;
    bool made;      /* the file is new, and goes when the dump fails */
    bool asking;    /* the emulator is at work; registered with the run */
    bool working;   /* a thread is */
    bool finishing; /* nothing more is asked; the file is to be closed */
    bool closing;   /* and that is what the thread does or did */
    pthread_t thread;
    struct err e;       /* of the thread */
    struct api_error x; /* why it failed; code 0: it has not */
    int64_t bytes, memory;
};

static struct vm *vm_of(const struct dump *k)
{
    return vm_by_id(k->d, k->vm);
}

static void see(struct dump *k, enum api_emu_dump_state state, int64_t completed, int64_t total)
{
    struct vm *vm = vm_of(k);
    if (vm) {
        vm->dump = (struct dump_seen){ state, completed, total };
    }
}

/* ---- the end ---- */

static void tell_end(struct dump *k)
{
    struct job *job = job_find(k->d, k->job);
    if (!job) {
        return;
    }
    struct change *c = change_new(k->d);
    struct json_object *result = NULL;
    if (!k->x.code) {
        result = json_object_new_object();
        api_json_set_str(result, "file", k->file);
        api_json_set_int(result, "bytes", k->bytes);
        api_json_set_int(result, "memory", k->memory);
        job->info.total = k->memory;
    }
    json_object_put(job->info.result);
    job->info.result = NULL;
    job_end(k->d, job, c, k->x.code ? &k->x : NULL, result);
    wait_job_end(k->d, k->job, c);
}

static void dump_free(struct dump *k)
{
    list_remove(&k->link);
    loop_timer_free(k->tick);
    fd_autoclose(&k->fd);
    free(k->file);
    free(k);
}

static void on_worked(void *arg);

/* Opens the file, or ends it: nothing here may hold up the loop. */
static void open_file(struct dump *k)
{
    if (k->fd >= 0) { /* it was given */
        return;
    }
    k->fd = open(k->file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    k->made = k->fd >= 0;
    if (k->fd < 0) {
        err_errno(&k->e, errno, "cannot make '%s'", k->file);
    }
}

static void close_file(struct dump *k)
{
    if (k->fd < 0 && !k->x.code) { /* of a job that is followed */
        k->fd = open(k->file, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    }
    if (k->fd >= 0 && !k->x.code && fsync(k->fd) != 0) {
        err_errno(&k->e, errno, "cannot write '%s'", k->file);
    }
    if (k->made && (k->x.code || k->e.code)) {
        unlink(k->file);
    }
    if (k->fd >= 0) {
        close(take_fd(&k->fd));
    }
}

static void *work_main(void *arg)
{
    struct dump *k = arg;
    if (k->closing) {
        close_file(k);
    } else {
        open_file(k);
    }
    loop_post(k->d->loop, on_worked, k);
    return NULL;
}

static void work(struct dump *k)
{
    int rc;
    k->e = (struct err)ERR_INIT;
    k->closing = k->finishing;
    rc = pthread_create(&k->thread, NULL, work_main, k);
    if (rc == 0) {
        k->working = true;
        return;
    }
    if (!k->x.code) {
        api_error_set(&k->x, API_E_HOST_LIMIT, k->file, NULL, "cannot start a thread: %s",
                      strerror(rc));
    }
    k->finishing = k->closing = true;
    close_file(k); /* at once, then */
    loop_post(k->d->loop, on_worked, k);
}

static void finish(struct dump *k)
{
    struct job *job = job_find(k->d, k->job);
    loop_timer_disarm(k->tick);
    k->finishing = true;
    if (job) {
        job->on_cancel = NULL;
    }
    if (!k->working) {
        work(k);
    }
}

static void fail(struct dump *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void fail(struct dump *k, int code, const char *remedy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!k->x.code) {
        api_error_vset(&k->x, code, k->file, remedy, fmt, ap);
    }
    va_end(ap);
    finish(k);
}

/* ---- at work ---- */

static void on_status(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    struct api_emu_dump_status_out out;
    if (x ||
        api_decode(&api_type_emu_dump_status_out, result, API_LENIENT, "", &out, NULL) < 0) {
        return;
    }
    list_for_each (it, &vm->d->dumps) {
        struct dump *k = list_entry(it, struct dump, link);
        struct job *job = job_find(k->d, k->job);
        if (k->vm != vm->id || k->finishing || !job) {
            continue;
        }
        see(k, out.state, out.completed, out.total);
        if (out.state == API_EMU_DUMP_STATE_ACTIVE && out.completed > job->info.done) {
            struct change *c = change_new(k->d);
            job->info.total = out.total;
            job_progress(job, c, out.completed);
            change_commit(c, NULL, NULL);
        }
        if (!k->op && out.state != API_EMU_DUMP_STATE_ACTIVE) { /* one that is followed */
            k->bytes = out.bytes;
            k->memory = out.total;
            if (out.state == API_EMU_DUMP_STATE_COMPLETED) {
                finish(k);
            } else {
                fail(k, API_E_FILE_ERROR, "begin it again", "%s",
                     out.error ? out.error : "vmd ended before the dump began");
            }
        }
        break;
    }
    api_release(&api_type_emu_dump_status_out, &out);
}

static void on_tick(void *arg)
{
    struct dump *k = arg;
    struct vm *vm = vm_of(k);
    if (vm && vm->run) {
        run_call(vm->run, "emu.dump_status", ASK_NS, on_status, vm);
    }
    if (!k->op && (!vm || !vm->run || run_has_ended(vm->run))) {
        fail(k, API_E_CANCELLED, "begin it again", "the VM ended before its dump was whole");
        return;
    }
    loop_timer_arm(k->tick, TICK_NS);
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct dump *k = arg;
    k->asking = false;
    if (gone) {
        k->op = NULL; /* goes with the VM */
    }
    fail(k, API_E_BAD_STATE, NULL, "VM '%s' ended before its dump was whole", vm->config.name);
}

static void on_dumped(void *arg, struct json_object *result, const struct api_error *x)
{
    struct dump *k = arg;
    struct vm *vm = vm_of(k);
    run_on_end_cancel(vm->run, k);
    k->asking = false;
    if (x) {
        fail(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
             x->remedy[0] ? x->remedy : NULL, "VM '%s': %s", vm->config.name, x->message);
        return;
    }
    k->bytes = api_json_get_int(result, "bytes", 0);
    k->memory = api_json_get_int(result, "memory", 0);
    finish(k);
}

static void ask(struct dump *k)
{
    struct vm *vm = vm_of(k);
    struct json_object *params = json_object_new_object();
    int fd = fcntl(k->fd, F_DUPFD_CLOEXEC, 3);
    api_json_set_int(params, "begin", (int64_t)k->begin);
    if (k->length != UINT64_MAX) {
        api_json_set_int(params, "length", (int64_t)k->length);
    }
    if (!run_call_fd(vm->run, "emu.dump", params, fd, 0, on_dumped, k)) {
        run_on_end_cancel(vm->run, k);
        k->asking = false;
        fail(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
             "the emulator of VM '%s' (pid %d) does not answer", vm->config.name,
             (int)run_pid(vm->run));
        return;
    }
    see(k, API_EMU_DUMP_STATE_ACTIVE, 0, 0);
    loop_timer_arm(k->tick, TICK_NS);
}

/* The file is closed. */
static void ended(struct dump *k)
{
    see(k, k->x.code ? API_EMU_DUMP_STATE_FAILED : API_EMU_DUMP_STATE_COMPLETED, k->memory,
        k->memory);
    tell_end(k);
    if (k->op) {
        k->op->job = NULL;
        op_end(k->op);
    }
    dump_free(k);
}

/* The thread is done. */
static void on_worked(void *arg)
{
    struct dump *k = arg;
    bool exists = k->e.code == -EEXIST;
    if (k->working) {
        pthread_join(k->thread, NULL);
        k->working = false;
    }
    if (k->e.code && !k->x.code) {
        api_error_set(&k->x, exists ? API_E_EXISTS : API_E_FILE_ERROR, k->file,
                      exists ? "choose another name"
                             : "choose a folder that vmd may write to, with room in it",
                      "no dump was made: %s", k->e.msg);
    }
    if (k->closing) {
        ended(k);
    } else if (k->finishing || k->x.code) { /* not wanted any more, or not to be had */
        if (k->asking) {
            run_on_end_cancel(vm_of(k)->run, k);
            k->asking = false;
        }
        finish(k);
    } else {
        ask(k);
    }
}

static void on_cancel(void *arg)
{
    struct dump *k = arg;
    struct vm *vm = vm_of(k);
    if (!k->finishing && !k->x.code) {
        api_error_set(&k->x, API_E_CANCELLED, k->file, NULL, "the job was cancelled");
    }
    if (k->asking && vm && vm->run) {
        run_call(vm->run, "emu.dump_cancel", ASK_NS, on_status, vm);
    }
}

static struct dump *dump_new(struct vmd *d, const struct vm *vm, const struct job *job,
                             const char *file)
{
    struct dump *k = xnew(struct dump);
    *k = (struct dump){ .d = d,
                        .vm = vm->id,
                        .job = job->info.job,
                        .file = xstrdup(file),
                        .length = UINT64_MAX,
                        .fd = -1 };
    k->x = (struct api_error)API_ERROR_INIT;
    k->tick = loop_timer_new(d->loop, on_tick, k);
    list_append(&d->dumps, &k->link);
    return k;
}

/* The VM's turn has come. */
static void dump_begin(struct op *op)
{
    struct dump *k = op->in;
    struct vm *vm = op->vm;
    struct change *c = change_new(vm->d);
    op->in = NULL;
    k->op = op;
    job_progress(op->job, c, 0);
    change_commit(c, NULL, NULL);
    if (op->job->cancel) {
        fail(k, API_E_CANCELLED, NULL, "the job was cancelled");
    } else if (!vm_is_live(vm)) {
        fail(k, API_E_BAD_STATE, "start it first: 'vmctl start'", "VM '%s' is %s",
             vm->config.name, api_vm_state_name(vm->state));
    } else {
        op->job->on_cancel = on_cancel;
        op->job->arg = k;
        k->asking = true;
        run_on_end(vm->run, on_vm_end, k);
        work(k);
    }
}

/* ---- accepting ---- */

static void dump_accepted(void *arg, const struct err *e)
{
    struct dump *k = arg;
    if (!op_queue_job(k->d, vm_of(k), k->job, e, k, dump_begin)) {
        dump_free(k);
    }
}

void api_handle_vm_dump(struct api_call *call, struct api_vm_dump_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    struct api_error x = API_ERROR_INIT;
    if (!vm) {
        return;
    }
    AUTO_FD given = take_fd(&vm->dump_fd);
    if (access_file(call, vm->config.project, "file", in->file, &x) < 0) {
        api_reply_error(call, &x);
    } else if (!vm_is_live(vm)) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
    } else if (jobs_active(d) >= 256) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "256 jobs are at work already");
    } else {
        struct change *c = change_new(d);
        struct job *job = job_new(d, c, "vm.dump", vm->config.uuid, vm->config.name, 0, "bytes",
                                  api_call_peer(call)->principal, NULL);
        struct dump *k = dump_new(d, vm, job, in->file);
        struct api_vm_dump_out out = { .job = k->job,
                                       .name = vm->config.name,
                                       .file = k->file };
        job->info.result = json_object_new_object();
        api_json_set_str(job->info.result, "file", k->file);
        k->begin = (uint64_t)in->begin;
        k->length = in->has_length ? (uint64_t)in->length : UINT64_MAX;
        k->fd = take_fd(&given);
        call_commit(d, call, c, vm->config.name, api_encode(&api_type_vm_dump_out, &out),
                    dump_accepted, k);
    }
}

bool dump_follow(struct vmd *d, struct job *job)
{
    struct vm *vm = job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
    const char *file = api_json_get_str(job->info.result, "file");
    if (!vm || !vm->run || run_pid(vm->run) <= 0 || !file) {
        return false;
    }
    loop_timer_arm(dump_new(d, vm, job, file)->tick, TICK_NS);
    return true;
}

void dumps_end(struct vmd *d)
{
    while (!list_empty(&d->dumps)) {
        struct dump *k = list_entry(d->dumps.next, struct dump, link);
        if (k->working) {
            pthread_join(k->thread, NULL);
        }
        dump_free(k);
    }
}
