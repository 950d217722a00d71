/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: every runtime row is an emulator that lives, one that has ended, or an intent
 * that may or may not have become one. Part of struct run (run.h). Loop thread, asynchronous: no
 * emulator is waited for.
 */
#include "daemon/daemon.h"
#include "daemon/events.h"
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
#include <string.h>

#define ADOPT_MOST_NS INT64_C(120000000) /* then clients are let in, whoever has not answered */

struct adopt {
    struct vmd *d;
    unsigned open; /* runs that have not settled, plus one while rows are gone through */
    struct loop_timer *timer;
    void (*fn)(void *arg);
    void *arg;
};

/* The one that is not needed any more frees it. */
static void adopt_done(struct adopt *a)
{
    void (*fn)(void *arg) = a->fn;
    a->fn = NULL;
    if (fn) {
        loop_timer_free(a->timer);
        a->timer = NULL;
        fn(a->arg);
    }
    if (a->open == 0) {
        free(a);
    }
}

static void on_settled(void *arg)
{
    struct adopt *a = arg;
    a->open--;
    if (a->open == 0) {
        adopt_done(a);
    }
}

static void on_time(void *arg)
{
    struct adopt *a = arg;
    log_warn("daemon", "%u emulators have not answered yet; they are listed as unresponsive",
             a->open);
    adopt_done(a);
}

/* The process is known by number: is it still that one? */
static void take_up(struct run *run)
{
    struct err e = ERR_INIT;
    int pidfd = proc_pidfd(run->pid, run->start_time, &e);
    int mon = proc_pidfd(run->mon_pid, run->mon_start, NULL);
    int stats = -1;
    if (mon >= 0) {
        stats = stats_of_monitor(run->mon_pid, &e);
        if (stats < 0) {
            log_warn("daemon", "VM '%s': no statistics: %s", run->vm->config.name, e.msg);
        }
    }
    run->vm->state = pidfd >= 0 ? API_VM_STATE_UNRESPONSIVE : API_VM_STATE_STOPPING;
    free(run->vm->reason);
    run->vm->reason = xstrdup("not taken up again yet");
    run_attach(run, pidfd, mon, stats);
    if (pidfd >= 0 && run->kill_wanted) { /* before it was known which process it is */
        run_kill(run);
    } else if (pidfd >= 0) {
        run_connect(run);
    }
}

/* Once no spawner of a former daemon is at work: what the run folder says is final. */
static void take_up_intent(void *arg)
{
    struct run *run = arg;
    struct run_process p;
    struct err e = ERR_INIT;
    if (runfs_process(&run->d->opt, run->vm->id, run->cookie, &p, &e) == 0) {
        run->pid = p.pid;
        run->start_time = p.start_time;
        run->mon_pid = p.mon_pid;
        run->mon_start = p.mon_start;
        take_up(run);
        return;
    }
    err_set(&e, -ECANCELED, "vmd ended before the emulator was started");
    run->adopting = false;
    run_abort_start(run, API_E_CANCELLED, &e);
}

static void each_run(void *arg, const struct store_run *row)
{
    struct adopt *a = arg;
    struct vm *vm = vm_by_id(a->d, row->vm);
    if (!vm) {
        log_error("daemon", "a runtime row names VM %lld, which is not defined",
                  (long long)row->vm);
        return;
    }
    struct run *run = run_new(vm, row->cookie);
    run->since_ns = row->since_ns;
    run->pid = (pid_t)row->pid;
    run->start_time = (uint64_t)row->start_time;
    run->mon_pid = (pid_t)row->mon_pid;
    run->mon_start = (uint64_t)row->mon_start;
    run->stored = run->pid > 0;
    run->disks_unread = true;
    run->adopting = true;
    run->settled = on_settled;
    run->settled_arg = a;
    a->open++;
    if (strcmp(row->boot_id, a->d->boot_id) != 0) {
        run->pid = 0;
        run_expect_end(run, "lost");
        str_copy(run->failure, sizeof(run->failure), "the host went down while the VM ran");
        run->emu_dead = run->mon_dead = true;
        run_finish(run);
    } else if (run->pid > 0) {
        take_up(run);
    } else {
        vm->state = API_VM_STATE_STARTING;
        spawner_when_ready(a->d->spawner, take_up_intent, run);
    }
}

/* ---- leftovers ---- */

static void sweep_run(void *arg, int64_t id)
{
    struct vmd *d = arg;
    struct vm *vm = vm_by_id(d, id);
    if ((!vm || !vm->run) && !runfs_locked(&d->opt, id)) {
        runfs_clean(&d->opt, id);
    }
}

static void sweep_lib(void *arg, int64_t id)
{
    struct vmd *d = arg;
    if (!vm_by_id(d, id)) {
        runfs_clean_lib(&d->opt, id);
    }
}

static void sweep(void *arg)
{
    struct vmd *d = arg;
    runfs_each(&d->opt, true, sweep_run, d);
    runfs_each(&d->opt, false, sweep_lib, d);
}

/* Transient VMs that were defined but never got as far as an intent. */
static void drop_idle_transients(struct vmd *d)
{
    size_t n;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        if (list[i]->transient && !list[i]->run) {
            struct change *c = change_new(d);
            store_tx_vm_del(change_tx(c), list[i]->id);
            vm_event(list[i], c, API_EVENT_TYPE_VM_DELETED, "start-failed", NULL);
            change_must_tell(c);
            change_commit(c, NULL, NULL);
            vm_free(list[i]);
        }
    }
    free(list);
}

void runs_adopt(struct vmd *d, void (*fn)(void *arg), void *arg)
{
    struct err e = ERR_INIT;
    struct adopt *a = xnew(struct adopt);
    a->d = d;
    a->open = 1;
    a->fn = fn;
    a->arg = arg;
    a->timer = loop_timer_new(d->loop, on_time, a);
    loop_timer_arm(a->timer, ADOPT_MOST_NS);
    if (store_load_runs(d->store, each_run, a, &e) < 0) {
        log_error("daemon", "%s", e.msg);
    }
    drop_idle_transients(d);
    spawner_when_ready(d->spawner, sweep, d);
    on_settled(a);
}
