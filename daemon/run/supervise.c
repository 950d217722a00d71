/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting an emulator: intent row with a fresh cookie, durable before vmd-spawn is asked; spawn;
 * hello over the control socket; row with the process and the state `running`, durable before the
 * start is answered. Owns struct run. Loop thread.
 */
#include "daemon/run/supervise.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/network/networks.h"
#include "daemon/vm/cloudinit.h"
#include "daemon/vm/agent.h"
#include "daemon/vm/channels.h"
#include "daemon/vm/nics.h"
#include "daemon/vm/shares.h"
#include "daemon/events.h"
#include "daemon/run/linger.h"
#include "daemon/ops.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/media.h"
#include "daemon/vm/reconnect.h"
#include "daemon/vm/save.h"
#include "daemon/qmp/qmp.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/runfs.h"
#include "daemon/run/spawner.h"
#include "daemon/run/stats.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RSS_EVERY_NS INT64_C(1000000000)
#define START_DEADLINE_NS INT64_C(20000000000)
#define DOOM_FIRST_NS                                                                          \
    INT64_C(                                                                                   \
        200000000) /* a killed process has ended by then, but for what the kernel waits for */
#define DOOM_AGAIN_NS INT64_C(50000000)

struct run *run_new(struct vm *vm, const char *cookie)
{
    struct run *run = xnew(struct run);
    run->vm = vm;
    run->d = vm->d;
    run->pidfd = run->mon_pidfd = -1;
    run->since_ns = time_real_ns();
    str_copy(run->cookie, sizeof(run->cookie), cookie);
    list_init(&run->enders);
    vm->run = run;
    return run;
}

void run_free(struct run *run)
{
    if (!run) {
        return;
    }
    if (run->vm && run->vm->run == run) {
        run->vm->run = NULL;
    }
    loop_fd_free(run->w_pid);
    loop_fd_free(run->w_mon);
    loop_timer_free(run->timer);
    loop_timer_free(run->grace);
    loop_timer_free(run->doom);
    rpc_client_free(run->client);
    stats_close(run->stats);
    fd_autoclose(&run->pidfd);
    fd_autoclose(&run->mon_pidfd);
    reconnect_forget(run);
    media_forget(run);
    free(run->record);
    free(run->replay);
    free(run);
}

const char *run_replay_file(const struct run *run)
{
    return run->replay;
}

enum api_replay_mode run_replay_mode(const struct run *run)
{
    return run->record   ? API_REPLAY_MODE_RECORD
           : run->replay ? API_REPLAY_MODE_REPLAY
                         : run->mode;
}

pid_t run_pid(const struct run *run)
{
    return run->pid;
}

bool run_is_mute(const struct run *run)
{
    return run->mute && run->vm->state == API_VM_STATE_UNRESPONSIVE;
}

const struct run_disks *run_disks_of(struct run *run)
{
    struct run_process p;
    if (run->disks_unread &&
        runfs_process(&run->d->opt, run->vm->id, run->cookie, &p, NULL) == 0) {
        run->disks = p.disks;
    }
    run->disks_unread = false;
    return &run->disks;
}

struct run_disk run_disk_of(const struct stat *st, bool write)
{
    bool device = S_ISBLK(st->st_mode);

    return (struct run_disk){ .dev = device ? st->st_rdev : st->st_dev,
                              .ino = device ? 0 : st->st_ino,
                              .write = write };
}

void run_disk_covered(struct run *run, const struct run_disk *was, const struct run_disk *now)
{
    struct run_disks *disks = &run->disks;
    bool known = false;

    (void)run_disks_of(run);
    for (unsigned i = 0; i < disks->n; i++) {
        struct run_disk *one = &disks->disk[i];

        if (one->dev == now->dev &&
            one->ino == now->ino) { /* a commit's base was there all the time */
            one->write |= now->write;
            known = true;
        } else if (one->dev == was->dev && one->ino == was->ino) {
            one->write = false;
        }
    }
    if (!known && disks->n < RUN_DISKS) {
        disks->disk[disks->n++] = *now;
    }
    runfs_set_disks(&run->d->opt, run->vm->id, run->cookie, disks);
}

void run_disk_covered_at(struct run *run, const char *was, const char *now)
{
    struct stat a, b;

    if (stat(was, &a) == 0 && stat(now, &b) == 0) {
        const struct run_disk from = run_disk_of(&a, false), to = run_disk_of(&b, true);

        run_disk_covered(run, &from, &to);
    }
}

void run_disks_read(const struct json_object *list, struct run_disks *out)
{
    out->n = 0;
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;
    for (size_t i = 0; i < n && out->n < RUN_DISKS; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        out->disk[out->n++] = (struct run_disk){ .dev = (uint64_t)api_json_get_int(o, "dev", 0),
                                                 .ino = (uint64_t)api_json_get_int(o, "ino", 0),
                                                 .write = api_json_get_bool(o, "write",
                                                                            false) };
    }
}

bool run_has_ended(const struct run *run)
{
    return run->ended;
}

/* An emulator in its jail has no /proc to look at, so we look; as often as it publishes the rest. */
static int64_t resident(struct run *run)
{
    int64_t now = time_mono_ns();
    if (run->rss_ns == 0 || now - run->rss_ns >= RSS_EVERY_NS) {
        run->rss = proc_memory_rss(run->pid);
        run->rss_ns = now;
    }
    return run->rss;
}

bool run_stats(struct run *run, struct api_vm_stats *out)
{
    if (!run->stats || !stats_read(run->stats, out)) {
        return false;
    }
    if (out->memory_rss == 0 && run->pid > 0) {
        out->memory_rss = resident(run);
    }
    return true;
}

void run_row(const struct run *run, struct store_run *row)
{
    *row = (struct store_run){ .vm = run->vm->id,
                               .cookie = run->cookie,
                               .boot_id = run->d->boot_id,
                               .since_ns = run->since_ns,
                               .pid = run->pid,
                               .start_time = (int64_t)run->start_time,
                               .mon_pid = run->mon_pid,
                               .mon_start = (int64_t)run->mon_start };
}

/* ---- killing ---- */

static const char *word_of_kill(const struct run *run)
{
    return strcmp(run->expected, "watchdog") == 0 ? "watchdog" : "killed";
}

/* A disk that does not answer keeps its process in the kernel, killed or not. Seen twice to be so, the VM has ended. */
static void on_doom(void *arg)
{
    struct run *run = arg;
    if (run->emu_dead) {
        return;
    }
    bool stuck = linger_stuck(run->pid);
    if (!stuck || !run->stuck) {
        run->stuck = stuck;
        loop_timer_arm(run->doom, DOOM_AGAIN_NS);
        return;
    }
    log_warn(
        "daemon",
        "VM '%s': the kernel cannot end its killed emulator (pid %d) before a disk answers",
        run->vm->config.name, (int)run->pid);
    snprintf(
        run->failure, sizeof(run->failure),
        "process %d, which was killed, waits for a disk that does not answer; the VM can be "
        "started again when that does",
        (int)run->pid);
    run->lingers = run->emu_dead = run->mon_dead = true;
    run_finish(run);
}

void run_kill(struct run *run)
{
    run->kill_wanted = true;
    if (run->pidfd >= 0 && !run->emu_dead) {
        run->killed = true;
        runfs_set_ending(&run->d->opt, run->vm->id, run->cookie, word_of_kill(run));
        struct err e = ERR_INIT;
        cgroup_kill(&run->d->cgroup, run->vm->id); /* whatever it has made besides itself */
        if (proc_signal(run->pidfd, run->pid, run->start_time, SIGKILL, &e) == -EPERM) {
            log_error("daemon", "VM '%s': %s", run->vm->config.name, e.msg);
        }
        if (!run->doom) {
            run->doom = loop_timer_new(run->d->loop, on_doom, run);
            loop_timer_arm(run->doom, DOOM_FIRST_NS);
        }
    }
}

void run_expect_end(struct run *run, const char *reason)
{
    str_copy(run->expected, sizeof(run->expected), reason);
    if (run->pid > 0) {
        runfs_set_ending(&run->d->opt, run->vm->id, run->cookie, reason);
    }
}

void run_asked(struct run *run)
{
    run->asked = true;
    if (run->pid > 0 && !run->expected[0] && !run->killed) {
        runfs_set_ending(&run->d->opt, run->vm->id, run->cookie, "asked");
    }
}

/* What a daemon before us did to it. */
static void read_ending(struct run *run)
{
    char reason[sizeof(run->expected)];
    if (run->expected[0] || run->killed ||
        !runfs_ending(&run->d->opt, run->vm->id, run->cookie, reason, sizeof(reason))) {
        return;
    }
    if (strcmp(reason, "asked") == 0) {
        run->asked = true;
        return;
    }
    run->killed = strcmp(reason, "killed") == 0 || strcmp(reason, "watchdog") == 0;
    if (strcmp(reason, "killed") == 0) {
        return;
    }
    str_copy(run->expected, sizeof(run->expected), reason);
}

/* ---- the start ---- */

static void start_answer(struct run *run, const struct api_error *x)
{
    run_started_fn *fn = run->started;
    run->started = NULL;
    if (fn) {
        fn(run->started_arg, x);
    }
}

static int api_code_of_start(const struct err *e)
{
    switch (e->code) {
    case -ENOENT:
    case -EACCES:
    case -EPERM:
    case -EISDIR:
    case -EROFS:
    case -ETXTBSY:
    case -EINVAL:
        return API_E_FILE_ERROR;
    case -EBUSY:
        return API_E_BUSY;
    case -EEXIST:
        return API_E_EXISTS;
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
    case -EAGAIN:
        return API_E_HOST_LIMIT;
    default:
        return API_E_START_FAILED;
    }
}

void run_abort_start(struct run *run, int code, const struct err *e)
{
    run->fail_code = code ? code : api_code_of_start(e);
    str_copy(run->failure, sizeof(run->failure), e->msg);
    run->emu_dead = run->mon_dead = true;
    run_finish(run);
}

static void on_deadline(void *arg)
{
    struct run *run = arg;
    str_copy(run->failure, sizeof(run->failure),
             "the emulator did not answer within 20 s and was killed; see its log");
    run->fail_code = API_E_START_FAILED;
    run_kill(run);
}

/* The client has waited long enough; the VM stays `starting` until a helper can look. */
static void on_no_helper(void *arg)
{
    struct run *run = arg;
    struct api_error x = API_ERROR_INIT;
    api_error_set(
        &x, API_E_START_FAILED, run->vm->config.name,
        "see the log of vmd for why vmd-spawn does not run",
        "the helper vmd-spawn died while it started the VM, and no other is ready yet; "
        "whether the VM runs is not known before");
    start_answer(run, &x);
}

/* Whether the dead helper had started it is not known: look when its successor is ready (the
 * successor waits until nothing is under way any more). */
static void look_again(void *arg)
{
    struct run *run = arg;
    struct run_process p;
    struct err e = ERR_INIT;
    loop_timer_free(run->grace);
    run->grace = NULL;
    if (runfs_process(&run->d->opt, run->vm->id, run->cookie, &p, &e) < 0) {
        err_set(&e, -ECONNRESET,
                "the helper vmd-spawn died while it started the VM; start it again");
        run_abort_start(run, API_E_START_FAILED, &e);
        return;
    }
    run->pid = p.pid;
    run->start_time = p.start_time;
    run->mon_pid = p.mon_pid;
    run->mon_start = p.mon_start;
    int pidfd = proc_pidfd(p.pid, p.start_time, NULL);
    int mon = proc_pidfd(p.mon_pid, p.mon_start, NULL);
    int stats = mon >= 0 ? stats_of_monitor(p.mon_pid, NULL) : -1;
    run_attach(run, pidfd, mon, stats);
    if (pidfd >= 0) {
        run_connect(run);
    }
}

static void on_spawned(void *arg, struct spawned *what, const struct err *e)
{
    struct run *run = arg;
    if (e && e->code == -ECONNRESET) {
        run->grace = loop_timer_new(run->d->loop, on_no_helper, run);
        loop_timer_arm(run->grace, START_DEADLINE_NS);
        spawner_when_ready(run->d->spawner, look_again, run);
        return;
    }
    if (e) {
        run_abort_start(run, 0, e);
        return;
    }
    run->pid = what->pid;
    run->start_time = what->start_time;
    run->mon_pid = what->mon_pid;
    run->mon_start = what->mon_start;
    run->grace = loop_timer_new(run->d->loop, on_deadline, run);
    loop_timer_arm(run->grace, START_DEADLINE_NS);
    run_attach(run, what->fds[0], what->fds[1], what->fds[2]);
    if (run->kill_wanted) {
        run_kill(run);
        return;
    }
    run_connect(run);
}

static struct json_object *sound_request(const struct api_audio *a)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "backend", api_audio_backend_name(a->backend));
    if (a->server) {
        api_json_set_str(o, "server", a->server);
    }
    if (a->device) {
        api_json_set_str(o, "device", a->device);
    }
    api_json_set_int(o, "rate", a->rate);
    api_json_set_int(o, "channels", a->channels);
    api_json_set_int(o, "sample", a->format); /* enum audio_sample has the same order */
    return o;
}

static struct json_object *build_request(struct run *run, const char *cgroup)
{
    struct vm *vm = run->vm;
    struct json_object *o = json_object_new_object();
    AUTO_JSON config = preflight_emu_config(&vm->config);
    struct json_object *files = preflight_files(&vm->config);
    cloudinit_give(vm, config, files);
    networks_resolve(run->d, config);
    AUTO_FREE char *log = runfs_log(&run->d->opt, vm->id);
    api_json_set_int(o, "vm", vm->id);
    api_json_set_str(o, "name", vm->config.name);
    api_json_set_str(o, "cookie", run->cookie);
    api_json_set_str(o, "config", api_json_text(config));
    api_json_set_bool(o, "paused", run->paused);
    api_json_set_bool(o, "screen", run->vm->config.display != NULL);
    api_json_set_bool(o, "vsock", run->vm->config.vsock != NULL);
    api_json_set_bool(o, "kvm", run->vm->config.engine == API_ENGINE_KVM);
    api_json_set_str(o, "log", log);
    preflight_tape_file(files, run->record, run->replay);
    api_json_set_bool(o, "scratch", run->scratch);
    api_json_set_int(o, "to", run->replay_to);
    api_json_set(o, "files", files);
    /* Nothing comes from the world to what is replayed, and nothing goes there. */
    api_json_set(o, "nics", run->replay ? json_object_new_array() : nics_request(vm));
    api_json_set(o, "channels", channels_request(&vm->config));
    api_json_set(o, "shares", shares_request(vm->config.shares, vm->config.n_shares));
    if (vm->config.audio && vm->config.audio->backend != API_AUDIO_BACKEND_FILE) {
        api_json_set(o, "sound", sound_request(vm->config.audio));
    }
    if (cgroup) {
        api_json_set_str(o, "cgroup", cgroup);
    }
    return o;
}

/* Limits where the host can keep them; a host that has no control groups for us says so in host.info
 * and in the log, and the VM starts. False: the limits themselves are refused. */
static bool make_group(struct run *run, char **dir, struct err *e)
{
    const struct api_limits *l = run->vm->config.limits;
    if (!l) {
        return true;
    }
    if (!run->d->cgroup.usable) {
        log_warn("daemon", "VM '%s' runs without its limits: %s", run->vm->config.name,
                 run->d->cgroup.why);
        return true;
    }
    return cgroup_make(&run->d->cgroup, run->vm->id, l, dir, e) == 0;
}

static void on_intent(void *arg, const struct err *e)
{
    struct run *run = arg;
    struct err why = ERR_INIT;
    if (e) {
        run_abort_start(run, API_E_STORE_ERROR, e);
        return;
    }
    if (run->kill_wanted) {
        err_set(&why, -ECANCELED, "the start was cancelled");
        run_abort_start(run, API_E_CANCELLED, &why);
        return;
    }
    if (runfs_make_lib(&run->d->opt, run->vm->id, &why) < 0 ||
        cloudinit_write(run->vm, &why) < 0) {
        run_abort_start(run, 0, &why);
        return;
    }
    AUTO_FREE char *cgroup = NULL;
    if (!make_group(run, &cgroup, &why)) {
        run_abort_start(run, API_E_HOST_LIMIT, &why);
        return;
    }
    spawner_start(run->d->spawner, build_request(run, cgroup), on_spawned, run);
}

void run_start(struct vm *vm, bool paused, const struct run_disks *disks, run_started_fn *fn,
               void *arg)
{
    run_start_tape(vm, paused, disks, NULL, fn, arg);
}

void run_start_tape(struct vm *vm, bool paused, const struct run_disks *disks,
                    const struct api_vm_start_in *tape, run_started_fn *fn, void *arg)
{
    char cookie[COOKIE_LEN + 1];
    cookie_make(cookie);
    struct run *run = run_new(vm, cookie);
    struct store_run row;
    run->paused = paused;
    run->disks = *disks;
    run->started = fn;
    run->started_arg = arg;
    run->replay_to = tape && tape->has_to ? tape->to : -1;
    if (tape) {
        run->record = tape->record ? xstrdup(tape->record) : NULL;
        run->replay = tape->replay ? xstrdup(tape->replay) : NULL;
        run->scratch = tape->scratch;
    }
    struct change *c = change_new(vm->d);
    run_row(run, &row);
    store_tx_run_put(change_tx(c), &row);
    policy_clear(vm, c);
    vm->restart_needed = false;
    vm_set_state(vm, API_VM_STATE_STARTING, NULL, c);
    change_commit(c, on_intent, run);
}

static void on_up(void *arg, const struct err *e)
{
    struct run *run = arg;
    vm_wake(run->vm, false);
    if (!run->started) {
        return;
    }
    if (e) {
        /* The intent is durable, so the VM would be found again; yet the answer must be honest. */
        struct api_error x = API_ERROR_INIT;
        api_error_set(&x, API_E_STORE_ERROR, run->vm->config.name,
                      "mend the disk under the store; the VM runs",
                      "the VM runs, but this could not be made durable: %s", e->msg);
        start_answer(run, &x);
        return;
    }
    start_answer(run, NULL);
}

void run_is_up(struct run *run, enum api_vm_state state, const char *reason, const char *raw)
{
    struct store_run row;
    struct change *c = change_new(run->d);
    loop_timer_free(run->grace);
    run->grace = NULL;
    run->up = true;
    if (!run->started) { /* taken up */
        save_adopted(run->vm, state == API_VM_STATE_PAUSED, raw);
    }
    if (!run->stored) {
        run_row(run, &row);
        store_tx_run_put(change_tx(c), &row);
        run->stored = true;
    }
    change_must_tell(c);
    vm_set_state(run->vm, state, reason, c);
    agent_up(run->vm);
    if (run->started) {
        qmp_vm_up(run->vm);
    } else {
        qmp_vm_up_later(run->vm);
    }
    change_commit(c, on_up, run);
}

/* ---- the end ---- */

struct ender {
    struct list link;
    void (*fn)(void *arg, struct vm *vm, bool gone);
    void *arg;
};

void run_on_end(struct run *run, void (*fn)(void *arg, struct vm *vm, bool gone), void *arg)
{
    struct ender *n = xnew(struct ender);
    n->fn = fn;
    n->arg = arg;
    list_append(&run->enders, &n->link);
}

void run_on_end_cancel(struct run *run, void *arg)
{
    list_for_each_safe (l, &run->enders) {
        struct ender *n = list_entry(l, struct ender, link);
        if (n->arg == arg) {
            list_remove(l);
            free(n);
        }
    }
}

bool exit_is_crash(const char *reason)
{
    static const char *const crashes[] = { "crashed", "lost" };
    for (unsigned i = 0; i < ARRAY_LEN(crashes); i++) {
        if (strcmp(reason, crashes[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* How it ended, in one word. */
static const char *exit_reason(const struct run *run, const struct run_exit *x, bool known)
{
    if (!run->up && run->started) {
        return "start-failed";
    }
    if (!known) {
        return run->killed        ? word_of_kill(run)
               : run->expected[0] ? run->expected
               : run->failure[0]  ? "start-failed"
                                  : "lost";
    }
    if (x->signal) {
        return run->killed ? word_of_kill(run) : "crashed";
    }
    if (x->status != 0 && strcmp(run->said, "panic") == 0) {
        return "panic"; /* of the guest: no failure of the emulator */
    }
    if (x->status != 0) {
        return run->up || run->adopting ? "crashed" : "start-failed";
    }
    return run->expected[0] ? run->expected : run->said[0] ? run->said : "poweroff";
}

static void set_exit(struct vm *vm, const char *reason, const struct run_exit *x,
                     const char *message)
{
    if (!vm->exit) {
        vm->exit = xnew(struct api_vm_exit);
    }
    api_release(&api_type_vm_exit, vm->exit);
    *vm->exit = (struct api_vm_exit){ .reason = xstrdup(reason),
                                      .status = x->status,
                                      .has_status = x->status >= 0,
                                      .signal = x->signal,
                                      .has_signal = x->signal > 0,
                                      .message = message[0] ? xstrdup(message) : NULL,
                                      .time_ms = x->ended_ns / 1000000,
                                      .has_time_ms = true };
}

static void answer_failed_start(struct run *run)
{
    struct api_error x = API_ERROR_INIT;
    const char *name = run->vm->config.name;
    const char *message = run->failure[0]                           ? run->failure
                          : run->vm->exit && run->vm->exit->message ? run->vm->exit->message
                                                                    : "it left no message";
    if (run->kill_wanted && !run->fail_code) {
        api_error_set(&x, API_E_CANCELLED, name, NULL, "the start was cancelled");
    } else if (run->failure[0]) {
        api_error_set(&x, run->fail_code, name, NULL, "%s", message);
    } else {
        api_error_set(&x, API_E_START_FAILED, name,
                      "check the kernel, initrd and disks of the definition",
                      "the emulator ended before the guest ran: %s", message);
    }
    start_answer(run, &x);
}

static void tell_enders(struct run *run, struct vm *vm, bool gone)
{
    while (!list_empty(&run->enders)) {
        struct ender *n = list_entry(run->enders.next, struct ender, link);
        list_remove(&n->link);
        n->fn(n->arg, vm, gone);
        free(n);
    }
}

static void on_retry(void *arg)
{
    struct run *run = arg;
    loop_timer_free(run->timer);
    run->timer = NULL;
    run_finish(run);
}

static void on_finished(void *arg, const struct err *e)
{
    struct run *run = arg;
    struct vm *vm = run->vm;
    struct vmd *d = run->d;
    if (e && !run->shutting) {
        /* The record of the end is in the run folder; it is made durable when the store can. */
        log_error("daemon", "VM '%s' has ended, which is not durable yet: %s", vm->config.name,
                  e->msg);
        run->ended = false;
        run->timer = loop_timer_new(d->loop, on_retry, run);
        loop_timer_arm(run->timer, 1000000000);
        if (run->started) {
            answer_failed_start(run);
        }
        return;
    }
    bool gone = run->gone && !vm->pending;
    agent_gone(vm, "the VM has ended");
    qmp_vm_gone(vm);
    if (run->lingers && run->pidfd >= 0) {
        loop_fd_free(run->w_pid);
        run->w_pid = NULL;
        linger_watch(d, vm->id, take_fd(&run->pidfd));
    } else if (!e) {
        linger_folder(d, vm->id);
    }
    vm->run = NULL;
    if (run->started) {
        answer_failed_start(run);
    }
    vm_wake(vm, gone);
    tell_enders(run, vm, gone);
    if (gone) {
        ops_drop(vm, API_E_NOT_FOUND, "the VM has ended and its definition is gone");
        runfs_clean_lib(&d->opt, vm->id);
        vm_free(vm);
    } else {
        policy_ended(vm);
    }
    run->vm = NULL;
    run_free(run);
}

void run_finish(struct run *run)
{
    struct vm *vm = run->vm;
    struct run_exit x = { .status = -1, .ended_ns = time_real_ns() };
    char words[400] = "";
    if (run->ended) {
        return;
    }
    run->ended = true;
    run_settle(run);
    rpc_client_free(run->client);
    run->client = NULL;
    loop_timer_free(run->timer);
    run->timer = NULL;
    loop_timer_free(run->grace);
    run->grace = NULL;
    read_ending(run);
    bool known = runfs_exit(&run->d->opt, vm->id, run->cookie, &x, NULL) == 0;
    const char *reason = exit_reason(run, &x, known);
    bool failed = exit_is_crash(reason) || strcmp(reason, "start-failed") == 0;
    if (run->failure[0]) {
        str_copy(words, sizeof(words), run->failure);
    } else if (failed) {
        runfs_last_words(&run->d->opt, vm->id, words, sizeof(words));
    }
    linger_group(run->d, vm->id);
    set_exit(vm, reason, &x, words);
    struct change *c = change_new(run->d);
    store_tx_exit_put(change_tx(c), &(struct store_exit){ .vm = vm->id,
                                                          .uuid = vm->config.uuid,
                                                          .name = vm->config.name,
                                                          .cookie = run->cookie,
                                                          .pid = run->pid,
                                                          .started_ns = run->since_ns,
                                                          .ended_ns = x.ended_ns,
                                                          .status = x.status,
                                                          .signal = x.signal,
                                                          .reason = reason,
                                                          .message = words });
    store_tx_run_del(change_tx(c), vm->id);
    vm_set_state(vm, exit_is_crash(reason) ? API_VM_STATE_CRASHED : API_VM_STATE_STOPPED,
                 reason, c);
    policy_ending(run, reason, c);
    run->gone = vm->transient;
    if (run->gone) {
        store_tx_vm_del(change_tx(c), vm->id);
        vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, reason, NULL);
    }
    log_info("daemon", "VM '%s' ended: %s%s%s", vm->config.name, reason, words[0] ? ": " : "",
             words);
    change_commit(c, on_finished, run);
}

void run_forget(struct run *run)
{
    run->shutting = true;
    run_settle(run);
    if (!run->ended) {
        agent_gone(run->vm, "the daemon ends");
        tell_enders(run, run->vm, false);
        run_free(run);
    }
}
