/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handler of vm.save, and what a start does with a state. Owns struct save: one for each VM that is being saved or
 * restored; it holds the VM's turn (ops.h). Loop thread, but for work_main().
 */
#include "daemon/vm/save.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/waits.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define KEY_LEN STATE_KEY_BYTES
#define TICK_NS INT64_C(300000000)
#define ASK_NS INT64_C(10000000000)
#define QUIT_NS INT64_C(30000000000)

/* What is done next, or is being done. */
enum step {
    MAKE,   /* thread: key, a new file */
    WRITE,  /* the emulator saves */
    PLACE,  /* thread: the file is durable and in place */
    QUIT,   /* the emulator ends */
    OPEN,   /* thread: key, the file */
    READ,   /* the emulator loads */
    REMOVE, /* thread: the file goes */
    RUN,    /* the guest runs */
    UNDO,   /* a save failed; thread: the new file goes */
    KILL,   /* a restore failed; the emulator ends */
    OVER
};

struct save {
    struct list link; /* vmd.saves */
    struct vmd *d;
    struct op *op; /* of a save; NULL when it went with the VM */
    int64_t vm, job;
    enum step step;
    struct loop_timer *timer; /* progress; the time to quit */
    char *dir;                /* LIB/vm/ID */
    char *key_file, *uuid;
    uint8_t key[KEY_LEN];
    int fd;
    bool paused;
    bool watching; /* registered with the run */
    pthread_t thread;
    bool working;
    struct err e;       /* of the thread */
    struct api_error x; /* why it failed; code 0: it has not */
    int64_t bytes, memory;
    run_started_fn *fn;            /* of a restore */
    void (*failed)(struct vm *vm); /* of a save that no job stands for */
    void *arg;
};

static struct vm *vm_of(const struct save *k)
{
    return vm_by_id(k->d, k->vm);
}

static char *state_path(const struct vm *vm)
{
    return xasprintf("%s/%s/%lld/%s", vm->d->opt.lib, SPAWN_VM_DIR, (long long)vm->id,
                     VM_STATE);
}

/* ---- the key ---- */

/* A secret of this host's; made when first wanted. Any thread. */
static int host_key(const char *path, uint8_t out[KEY_LEN], struct err *e)
{
    AUTO_FREE char *part = xasprintf("%s.XXXXXX", path); /* another thread may be at it, too */
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        fd = mkostemp(part, O_CLOEXEC);
        if (fd < 0 || getrandom(out, KEY_LEN, 0) != KEY_LEN ||
            write(fd, out, KEY_LEN) != KEY_LEN || fsync(fd) != 0 ||
            (link(part, path) != 0 && errno != EEXIST)) {
            err_errno(e, errno, "cannot make the key '%s'", path);
            if (fd >= 0) {
                unlink(part);
            }
            return e->code;
        }
        unlink(part);
        close(take_fd(&fd));
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW); /* perhaps another thread's */
    }
    if (fd < 0) {
        return err_errno(e, errno, "cannot read the key '%s'", path);
    }
    return pread(fd, out, KEY_LEN, 0) == KEY_LEN
               ? 0
               : err_set(e, -EBADMSG, "the key '%s' is too short", path);
}

/* The VM's own, so that an emulator can make no other VM's state. */
int save_key(const char *key_file, const char *uuid, uint8_t out[STATE_KEY_BYTES],
             struct err *e)
{
    static const char what[] = "vmd machine state ";
    uint8_t host[KEY_LEN];
    unsigned n = KEY_LEN;
    AUTO_FREE char *text = xasprintf("%s%s", what, uuid);
    int rc = host_key(key_file, host, e);
    if (rc == 0 &&
        !HMAC(EVP_sha256(), host, sizeof(host), (const uint8_t *)text, strlen(text), out, &n)) {
        rc = err_set(e, -ENOMEM, "the state's key cannot be derived");
    }
    OPENSSL_cleanse(host, sizeof(host));
    return rc;
}

static int make_key(struct save *k)
{
    return save_key(k->key_file, k->uuid, k->key, &k->e);
}

/* ---- files, on a thread ---- */

static int sync_dir(const char *dir, struct err *e)
{
    AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : err_errno(e, errno, "cannot write '%s'", dir);
}

static void work_on_file(struct save *k)
{
    AUTO_FREE char *new = xasprintf("%s/%s", k->dir, VM_STATE_NEW),
                   *state = xasprintf("%s/%s", k->dir, VM_STATE);
    switch (k->step) {
    case MAKE:
        if (make_key(k) == 0 &&
            (k->fd = open(new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)) <
                0) {
            err_errno(&k->e, errno, "cannot make '%s'", new);
        }
        break;
    case PLACE:
        if (fsync(k->fd) != 0 || rename(new, state) != 0) {
            err_errno(&k->e, errno, "cannot write '%s'", state);
        } else {
            sync_dir(k->dir, &k->e);
        }
        break;
    case OPEN:
        if (make_key(k) == 0 && (k->fd = open(state, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) < 0) {
            err_errno(&k->e, errno, "cannot read '%s'", state);
        }
        break;
    case REMOVE:
        if (unlink(state) != 0 && errno != ENOENT) {
            err_errno(&k->e, errno, "cannot remove '%s'", state);
        } else {
            sync_dir(k->dir, &k->e);
        }
        break;
    default:
        unlink(new);
    }
}

static void on_worked(void *arg);

static void *work_main(void *arg)
{
    struct save *k = arg;
    work_on_file(k);
    loop_post(k->d->loop, on_worked, k);
    return NULL;
}

static void work(struct save *k, enum step step)
{
    k->step = step;
    k->e = (struct err)ERR_INIT;
    k->working = pthread_create(&k->thread, NULL, work_main, k) == 0;
    if (!k->working) { /* at once, then */
        work_on_file(k);
        loop_post(k->d->loop, on_worked, k);
    }
}

/* ---- ends ---- */

static void tell_job(struct save *k)
{
    struct job *job = job_find(k->d, k->job);
    if (!job) {
        return;
    }
    struct change *c = change_new(k->d);
    struct json_object *result = NULL;
    if (!k->x.code) {
        result = json_object_new_object();
        api_json_set_int(result, "bytes", k->bytes);
        api_json_set_int(result, "memory", k->memory);
        job->info.total = k->memory;
    }
    job->on_cancel = NULL;
    job_end(k->d, job, c, k->x.code ? &k->x : NULL, result);
    wait_job_end(k->d, k->job, c);
}

static void save_free(struct save *k)
{
    list_remove(&k->link);
    loop_timer_free(k->timer);
    fd_autoclose(&k->fd);
    OPENSSL_cleanse(k->key, sizeof(k->key));
    free(k->dir);
    free(k->key_file);
    free(k->uuid);
    free(k);
}

static void over(struct save *k)
{
    struct vm *vm = vm_of(k);
    if (k->watching && vm && vm->run) {
        run_on_end_cancel(vm->run, k);
    }
    if (k->fn) {
        k->fn(k->arg, k->x.code ? &k->x : NULL);
    } else if (k->failed) {
        if (k->x.code) {
            log_warn("daemon", "VM '%s' is not saved: %s", vm ? vm->config.name : "?",
                     k->x.message);
        }
        if (k->x.code && vm && vm->run && !run_has_ended(vm->run)) {
            k->failed(vm);
        }
    } else {
        tell_job(k);
        if (k->op) {
            k->op->job = NULL;
            op_end(k->op);
        }
    }
    save_free(k);
}

static void set_why(struct save *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void set_why(struct save *k, int code, const char *remedy, const char *fmt, ...)
{
    struct vm *vm = vm_of(k);
    va_list ap;
    va_start(ap, fmt);
    if (!k->x.code) {
        api_error_vset(&k->x, code, vm ? vm->config.name : NULL, remedy, fmt, ap);
    }
    va_end(ap);
}

/* It goes no further: what was begun is undone. */
static void give_up(struct save *k)
{
    struct vm *vm = vm_of(k);
    loop_timer_disarm(k->timer);
    if (!k->fn) {
        if (k->step != UNDO) {
            work(k, UNDO);
        }
        return;
    }
    k->step = KILL;
    if (vm && vm->run && k->watching) {
        run_kill(vm->run); /* its end goes on */
    } else {
        over(k);
    }
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct save *k = arg;
    k->watching = false;
    if (gone) {
        k->op = NULL;
    }
    if (k->step == QUIT || k->step == KILL) {
        over(k);
        return;
    }
    set_why(k, API_E_BAD_STATE,
            k->fn ? "the state is kept: look why it ended, and start it again" : NULL,
            "VM '%s' ended meanwhile: %s", vm->config.name,
            vm->reason ? vm->reason : "stopped");
    if (!k->working) {
        give_up(k);
    } /* else when the thread is done */
}

/* ---- the emulator ---- */

static void on_asked(void *arg, struct json_object *result, const struct api_error *x);

static bool ask(struct save *k, const char *method, enum step step, bool with_file)
{
    struct vm *vm = vm_of(k);
    struct json_object *params = NULL;
    bool asked;
    k->step = step;
    if (with_file) {
        AUTO_BUF key = BUF_INIT;
        params = json_object_new_object();
        base64_add(&key, k->key, sizeof(k->key));
        api_json_set_str(params, "key", key.data);
        if (step ==
            READ) { /* it runs at once; its memory comes behind, from the file that is removed meanwhile */
            api_json_set_bool(params, "lazy", true);
        }
        OPENSSL_cleanse(key.data, key.len);
    }
    asked = vm && vm->run && k->watching;
    if (!asked) {
        json_object_put(params);
    } else if (with_file) {
        asked = run_call_fd(vm->run, method, params, fcntl(k->fd, F_DUPFD_CLOEXEC, 3), 0,
                            on_asked, k);
    } else {
        asked = run_call_with(vm->run, method, params, ASK_NS, on_asked, k);
    }
    if (!asked) {
        set_why(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
                "the emulator of the VM does not answer");
        give_up(k);
    }
    return asked;
}

static void on_status(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    int64_t done = x ? 0 : api_json_get_int(result, "completed", 0);
    list_for_each (it, &vm->d->saves) {
        struct save *k = list_entry(it, struct save, link);
        struct job *job = job_find(k->d, k->job);
        if (!x && k->vm == vm->id && k->step == WRITE && job && done > job->info.done) {
            struct change *c = change_new(k->d);
            job->info.total = api_json_get_int(result, "total", 0);
            job_progress(job, c, done);
            change_commit(c, NULL, NULL);
        }
    }
}

static void on_timer(void *arg)
{
    struct save *k = arg;
    struct vm *vm = vm_of(k);
    if (!vm || !vm->run) {
        return;
    }
    if (k->step == WRITE) {
        run_call(vm->run, "emu.state_status", ASK_NS, on_status, vm);
        loop_timer_arm(k->timer, TICK_NS);
    } else if (k->step == QUIT) {
        run_kill(vm->run); /* its state is safe */
    }
}

static void quit(struct save *k)
{
    struct vm *vm = vm_of(k);
    vm->saved = true;
    run_expect_end(vm->run, "saved");
    if (ask(k, "emu.quit", QUIT, false)) {
        loop_timer_arm(k->timer, QUIT_NS);
    }
}

static void on_asked(void *arg, struct json_object *result, const struct api_error *x)
{
    struct save *k = arg;
    if (k->step == QUIT || k->step == KILL) {
        return; /* its end tells */
    }
    if (x) {
        set_why(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                k->fn ? "the state is kept; 'vmctl start --fresh' forgets it and boots" : NULL,
                "VM '%s': %s", vm_of(k)->config.name, x->message);
        give_up(k);
    } else if (k->step == WRITE) {
        k->bytes = api_json_get_int(result, "bytes", 0);
        k->memory = api_json_get_int(result, "memory", 0);
        loop_timer_disarm(k->timer);
        work(k, PLACE);
    } else if (k->step == READ) {
        work(k, REMOVE);
    } else {
        over(k);
    }
}

/* A thread is done with a file. */
static void on_worked(void *arg)
{
    struct save *k = arg;
    struct vm *vm = vm_of(k);
    enum step did = k->step;
    if (k->working) {
        pthread_join(k->thread, NULL);
        k->working = false;
    }
    if (did == UNDO) {
        struct vm *alive = k->watching && vm ? vm : NULL;
        if (alive && alive->run && alive->state == API_VM_STATE_PAUSED && !k->paused) {
            run_call(alive->run, "emu.resume", ASK_NS, on_status, alive); /* it ran before */
        }
        over(k);
        return;
    }
    if (k->e.code) {
        set_why(k, API_E_FILE_ERROR, "see that vmd's folder can be written, with room in it",
                "%s", k->e.msg);
    }
    if (did == REMOVE && !k->e.code && vm) {
        vm->saved = false;
    }
    if (did == PLACE && !k->e.code && vm &&
        !k->watching) { /* it ended by itself; the state is whole */
        vm->saved = true;
        k->x = (struct api_error)API_ERROR_INIT;
        over(k);
        return;
    }
    if (k->x.code || !vm || !k->watching) {
        give_up(k);
    } else if (did == MAKE) {
        if (ask(k, "emu.save", WRITE, true)) {
            loop_timer_arm(k->timer, TICK_NS);
        }
    } else if (did == PLACE) {
        quit(k);
    } else if (did == OPEN) {
        ask(k, "emu.load", READ, true);
    } else if (k->paused) {
        over(k);
    } else {
        ask(k, "emu.resume", RUN, false);
    }
}

static struct save *save_new(struct vm *vm)
{
    struct save *k = xnew(struct save);
    *k = (struct save){ .d = vm->d, .vm = vm->id, .fd = -1 };
    k->x = (struct api_error)API_ERROR_INIT;
    k->dir = xasprintf("%s/%s/%lld", vm->d->opt.lib, SPAWN_VM_DIR, (long long)vm->id);
    k->key_file = xasprintf("%s/state.key", vm->d->opt.lib);
    k->uuid = xstrdup(vm->config.uuid);
    k->timer = loop_timer_new(vm->d->loop, on_timer, k);
    list_append(&vm->d->saves, &k->link);
    return k;
}

/* ---- vm.save ---- */

static void on_cancel(void *arg)
{
    struct save *k = arg;
    struct vm *vm = vm_of(k);
    if (k->step == WRITE && vm && vm->run) {
        run_call(vm->run, "emu.state_cancel", ASK_NS, on_status, vm);
    }
}

/* The VM's turn has come. */
static void save_begin(struct op *op)
{
    struct save *k = op->in;
    struct vm *vm = op->vm;
    struct change *c = change_new(vm->d);
    op->in = NULL;
    k->op = op;
    job_progress(op->job, c, 0);
    change_commit(c, NULL, NULL);
    if (op->job->cancel) {
        set_why(k, API_E_CANCELLED, NULL, "the job was cancelled");
    } else if (!vm_is_live(vm)) {
        set_why(k, API_E_BAD_STATE, "start it first: 'vmctl start'", "VM '%s' is %s",
                vm->config.name, api_vm_state_name(vm->state));
    } else {
        op->job->on_cancel = on_cancel;
        op->job->arg = k;
        k->paused = vm->state == API_VM_STATE_PAUSED;
        k->watching = true;
        run_on_end(vm->run, on_vm_end, k);
        work(k, MAKE);
        return;
    }
    over(k);
}

static void save_accepted(void *arg, const struct err *e)
{
    struct save *k = arg;
    if (!op_queue_job(k->d, vm_of(k), k->job, e, k, save_begin)) {
        save_free(k);
    }
}

void api_handle_vm_save(struct api_call *call, struct api_vm_save_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    if (!vm) {
        return;
    }
    if (!vm_is_live(vm)) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
    } else if (vm->transient) {
        api_fail(call, API_E_UNSUPPORTED, vm->config.name,
                 "define it: 'vmctl define', and start that",
                 "VM '%s' is transient: its definition would go with its end, and its state "
                 "with that",
                 vm->config.name);
    } else if (jobs_active(d) >= 256) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "256 jobs are at work already");
    } else {
        struct change *c = change_new(d);
        struct job *job = job_new(d, c, "vm.save", vm->config.uuid, vm->config.name, 0, "bytes",
                                  api_call_peer(call)->principal, NULL);
        struct save *k = save_new(vm);
        struct api_vm_save_out out = { .job = job->info.job, .name = vm->config.name };
        k->job = job->info.job;
        call_commit(d, call, c, vm->config.name, api_encode(&api_type_vm_save_out, &out),
                    save_accepted, k);
    }
}

void save_quietly(struct vm *vm, void (*failed)(struct vm *vm))
{
    struct save *k = save_new(vm);
    k->failed = failed;
    k->paused = vm->state == API_VM_STATE_PAUSED;
    k->watching = true;
    run_on_end(vm->run, on_vm_end, k);
    work(k, MAKE);
}

/* ---- starts ---- */

void save_restore(struct vm *vm, bool paused, run_started_fn *fn, void *arg)
{
    struct save *k = save_new(vm);
    k->fn = fn;
    k->arg = arg;
    k->paused = paused;
    k->watching = true;
    run_on_end(vm->run, on_vm_end, k);
    work(k, OPEN);
}

int save_drop(struct vm *vm, struct err *e)
{
    AUTO_FREE char *path = state_path(vm);
    if (unlink(path) != 0 && errno != ENOENT) {
        return err_errno(e, errno, "cannot remove '%s'", path);
    }
    vm->saved = false;
    return 0;
}

void save_adopted(struct vm *vm, bool paused, const char *reason)
{
    struct err e = ERR_INIT;
    if (!vm->saved || !vm->run) {
        return;
    }
    if (paused && reason && strcmp(reason, "start") == 0) {
        log_warn("daemon",
                 "VM '%s' had not taken over its saved state when vmd ended; it is ended, the "
                 "state is kept",
                 vm->config.name);
        run_kill(vm->run);
    } else if (save_drop(vm, &e) < 0) {
        log_error("daemon", "VM '%s' runs, and an old state of it is in the way: %s",
                  vm->config.name, e.msg);
    }
}

static void look(void *arg, int64_t id)
{
    struct vmd *d = arg;
    struct vm *vm = vm_by_id(d, id);
    if (vm) {
        AUTO_FREE char *path = state_path(vm), *new = xasprintf("%s.new", path);
        vm->saved = access(path, F_OK) == 0;
        unlink(new);
    }
}

void saves_load(struct vmd *d)
{
    runfs_each(&d->opt, false, look, d);
}

void saves_end(struct vmd *d)
{
    while (!list_empty(&d->saves)) {
        struct save *k = list_entry(d->saves.next, struct save, link);
        if (k->working) {
            pthread_join(k->thread, NULL);
        }
        save_free(k);
    }
}
