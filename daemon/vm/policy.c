/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restart policy, autostart and watchdog. Owns struct policy and the `auto_` members of struct vm.
 * (The orderly shutdown is policy_shutdown.c.) Loop thread.
 *
 * A restart that is due is a durable row (kind "restart") written with the end it follows, so that it
 * happens also when the daemon dies in between; times are kept by the boot clock while the daemon
 * lives, so that a jump of the wall clock neither delays nor hurries one.
 */
#include "daemon/vm/policy.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/vm/policy_in.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/stats.h"
#include "daemon/store/store.h"
#include "daemon/vm/vmops.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <signal.h>
#include <string.h>

#define MS INT64_C(1000000)
#define ROW_NS (600 * 1000 * MS) /* a run this long begins the row of restarts anew */
#define WATCH_NS (500 * MS)
#define KIND "restart"
#define BOOT_FACT "autostart_boot"

/* ---- small things ---- */

static void tell(struct vm *vm, const char *reason, struct json_object *detail)
{
    struct change *c = change_new(vm->d);
    change_must_tell(c);
    vm_event(vm, c, API_EVENT_TYPE_VM_POLICY, reason, detail);
    change_commit(c, NULL, NULL);
    json_object_put(detail);
}

static void on_watch(void *arg);

struct policy *policy_new(struct vmd *d)
{
    struct policy *p = xnew(struct policy);
    p->d = d;
    p->watch = loop_timer_new(d->loop, on_watch, p);
    return p;
}

void policy_free(struct policy *p)
{
    if (p) {
        loop_timer_free(p->watch);
        loop_timer_free(p->delay);
        free(p->boot);
        free(p);
    }
}

/* ---- restart ---- */

/* Ends that somebody asked for: never followed by a start. */
static bool wanted_end(const struct run *run, const char *reason)
{
    static const char *const asked[] = { "quit", "killed", "saved", "migrated" };
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++) {
        if (strcmp(reason, asked[i]) == 0) {
            return true;
        }
    }
    return run->asked;
}

static bool is_failure(const char *reason)
{
    static const char *const failures[] = { "crashed", "lost",  "watchdog",    "fail",
                                            "panic",   "reset", "start-failed" };
    for (unsigned i = 0; i < ARRAY_LEN(failures); i++) {
        if (strcmp(reason, failures[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool wants_restart(const struct vm *vm, const struct run *run, const char *reason)
{
    const struct api_restart_policy *r = vm->config.restart;
    const struct api_watchdog *w = vm->config.watchdog;
    if (vm->transient || vm->pending || policy_is_shutting(vm->d) || wanted_end(run, reason)) {
        return false;
    }
    if (run_replay_mode(run) == API_REPLAY_MODE_REPLAY) {
        return false; /* it was a look at the past */
    }
    /* A start that a person made and that failed was answered to them. */
    if (strcmp(reason, "start-failed") == 0 && vm->restarts == 0) {
        return false;
    }
    if (strcmp(reason, "watchdog") == 0 && w && w->action == API_WATCHDOG_ACTION_RESET) {
        return true;
    }
    return r && (r->mode == API_RESTART_MODE_ALWAYS ||
                 (r->mode == API_RESTART_MODE_ON_FAILURE && is_failure(reason)));
}

static int64_t restart_delay_ns(const struct vm *vm)
{
    const struct api_restart_policy *r = vm->config.restart;
    int64_t delay = r ? r->delay_ms : 1000, most = r ? r->max_delay_ms : 60000;
    for (unsigned i = 1; i < vm->restarts && delay < most; i++) {
        delay = delay > most / 2 ? most : delay * 2;
    }
    return (delay < most ? delay : most) * MS;
}

static void put_row(struct vm *vm, struct change *c)
{
    AUTO_JSON body = json_object_new_object();
    api_json_set_int(body, "restarts", vm->restarts);
    api_json_set_int(body, "due_ms", vm->restart_due_ms);
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = KIND,
                                                              .scope = vm->config.uuid,
                                                              .name = "due",
                                                              .body = api_json_text(body),
                                                              .changed_ns = time_real_ns() });
    vm->restart_row = true;
}

void policy_ending(struct run *run, const char *reason, struct change *c)
{
    struct vm *vm = run->vm;
    const struct api_restart_policy *r = vm->config.restart;
    int64_t limit = r ? r->limit : 10;
    vm->end_decided = true;
    if (!wants_restart(vm, run, reason)) {
        vm->restarts = 0;
        return;
    }
    if (run->start_time && proc_uptime_ns(run->start_time) > ROW_NS) {
        vm->restarts = 0;
    }
    if (limit > 0 && vm->restarts >= limit) {
        log_error("daemon", "VM '%s' ended (%s) after %u restarts in a row; given up",
                  vm->config.name, reason, vm->restarts);
        vm_event(vm, c, API_EVENT_TYPE_VM_POLICY, "restart-given-up", NULL);
        vm->restarts = 0;
        return;
    }
    vm->restarts++;
    vm->restart_due_ms = time_real_ns() / MS + restart_delay_ns(vm) / MS;
    put_row(vm, c);
    AUTO_JSON detail = json_object_new_object();
    api_json_set_int(detail, "restarts", vm->restarts);
    api_json_set_int(detail, "delay_ms", restart_delay_ns(vm) / MS);
    vm_event(vm, c, API_EVENT_TYPE_VM_POLICY, "restart", detail);
}

static void drop_row(struct vm *vm)
{
    struct change *c = change_new(vm->d);
    policy_clear(vm, c);
    change_commit(c, NULL, NULL);
}

static void restart_done(struct vm *vm, const struct api_error *x)
{
    if (!x) {
        return;
    }
    log_warn("daemon", "VM '%s' could not be started again: %s", vm->config.name, x->message);
    if (vm->run || vm->end_decided) {
        return;
    }
    /* It failed before there was a run whose end could decide: files, or the host's size. */
    const struct api_restart_policy *r = vm->config.restart;
    int64_t limit = r ? r->limit : 10;
    if (policy_is_shutting(vm->d) || (limit > 0 && vm->restarts >= limit)) {
        tell(vm, "restart-given-up", NULL);
        vm->restarts = 0;
        return;
    }
    struct change *c = change_new(vm->d);
    vm->restarts++;
    vm->restart_due_ms = time_real_ns() / MS + restart_delay_ns(vm) / MS;
    put_row(vm, c);
    change_commit(c, NULL, NULL);
    policy_ended(vm);
}

static void restart_begin(struct op *op)
{
    struct vm *vm = op->vm;
    if (vm->run || !vm->restart_due_ms) {
        op_end(op); /* somebody was faster */
        return;
    }
    op->after = restart_done;
    vm->restart_due_ms = 0;
    vm->end_decided = false;
    vmop_start(op);
}

static void on_restart(void *arg)
{
    struct vm *vm = arg;
    loop_timer_free(vm->restart_timer);
    vm->restart_timer = NULL;
    op_queue(vm, NULL, NULL, NULL, restart_begin, false);
}

void policy_ended(struct vm *vm)
{
    if (!vm->restart_due_ms || !vm->d->policy->begun) {
        return;
    }
    loop_timer_free(vm->restart_timer);
    vm->restart_timer = loop_timer_new(vm->d->loop, on_restart, vm);
    loop_timer_arm(vm->restart_timer, restart_delay_ns(vm));
}

void policy_clear(struct vm *vm, struct change *c)
{
    loop_timer_free(vm->restart_timer);
    vm->restart_timer = NULL;
    vm->restart_due_ms = 0;
    if (vm->restart_row) {
        vm->restart_row = false;
        store_tx_object_del(change_tx(c), KIND, vm->config.uuid, "due");
    }
}

bool policy_cancel(struct vm *vm)
{
    if (!vm->restart_due_ms) {
        return false;
    }
    vm->restarts = 0;
    drop_row(vm);
    return true;
}

void policy_changed(struct vm *vm)
{
    const struct api_restart_policy *r = vm->config.restart;
    if (vm->restart_due_ms && (!r || r->mode == API_RESTART_MODE_NEVER)) {
        policy_cancel(vm);
    }
}

int64_t policy_restart_due_ms(const struct vm *vm)
{
    return vm->restart_due_ms;
}

void policy_load(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct vm *vm = vm_find(d, row->scope, true);
    if (!vm || api_json_parse(row->body, strlen(row->body), &o, NULL) < 0) {
        return;
    }
    vm->restart_row = true;
    vm->restarts = (unsigned)api_json_get_int(o, "restarts", 1);
    vm->restart_due_ms = api_json_get_int(o, "due_ms", 1);
    vm->restart_due_ms = vm->restart_due_ms > 0 ? vm->restart_due_ms : 1;
}

/* ---- watchdog ---- */

static void bite(struct run *run, int64_t age_ms)
{
    struct vm *vm = run->vm;
    enum api_watchdog_action action = vm->config.watchdog->action;
    struct json_object *detail = json_object_new_object();
    api_json_set_str(detail, "action", api_watchdog_action_name(action));
    api_json_set_int(detail, "age_ms", age_ms);
    log_warn("daemon", "VM '%s' (pid %d) has shown no life for %lld ms; watchdog: %s",
             vm->config.name, (int)run->pid, (long long)age_ms,
             api_watchdog_action_name(action));
    run->bitten = true;
    tell(vm, "watchdog", detail);
    if (action == API_WATCHDOG_ACTION_PAUSE) {
        struct err e = ERR_INIT;
        proc_signal(run->pidfd, run->pid, run->start_time, SIGSTOP, &e);
    } else if (action != API_WATCHDOG_ACTION_NONE) {
        run_expect_end(run, "watchdog");
        run_kill(run);
    }
}

static void watch_one(struct vm *vm)
{
    struct run *run = vm->run;
    const struct api_watchdog *w = vm->config.watchdog;
    if (!w || !run || !run->up || run->ended || run->emu_dead || run->kill_wanted) {
        return;
    }
    int64_t age = run->stats ? stats_age_ms(run->stats) : -1;
    if (age < 0) {
        return; /* never published: the connection tells */
    }
    if (age < w->timeout_ms) {
        run->bitten = false;
    } else if (!run->bitten) {
        bite(run, age);
    }
}

static void on_watch(void *arg)
{
    struct policy *p = arg;
    size_t n;
    struct vm **list = vm_list(p->d, &n);
    for (size_t i = 0; i < n; i++) {
        watch_one(list[i]);
    }
    free(list);
    loop_timer_arm(p->watch, WATCH_NS);
}

/* ---- autostart ---- */

static bool is_autostart(const struct vm *vm)
{
    return vm->config.autostart && vm->config.autostart->enabled == API_SWITCH_ON;
}

static bool comes_after(const struct vm *vm, const struct vm *other)
{
    const struct api_autostart *a = vm->config.autostart;
    for (size_t i = 0; a && i < a->n_after; i++) {
        if (strcmp(a->after[i], other->config.name) == 0) {
            return true;
        }
    }
    return false;
}

bool policy_comes_after(const struct vm *vm, const struct vm *other)
{
    return comes_after(vm, other);
}

/* May list[i] be next: nobody it comes after is still to be placed? */
static bool is_free(struct vm **list, size_t n, size_t i, const bool *placed)
{
    for (size_t k = 0; k < n; k++) {
        if (k != i && !placed[k] && comes_after(list[i], list[k])) {
            return false;
        }
    }
    return true;
}

/* Of those that may be next the first by priority (the list is sorted by name). When none may be, the
 * order is a circle: the first by priority breaks it. */
static size_t pick(struct vm **list, size_t n, const bool *placed)
{
    size_t best = n, any = n;
    for (size_t i = 0; i < n; i++) {
        if (placed[i]) {
            continue;
        }
        int64_t mine = list[i]->config.autostart->priority;
        if (any == n || mine < list[any]->config.autostart->priority) {
            any = i;
        }
        if ((best == n || mine < list[best]->config.autostart->priority) &&
            is_free(list, n, i, placed)) {
            best = i;
        }
    }
    if (best == n) {
        log_warn("daemon", "autostart: 'after' of VM '%s' goes in a circle; it is started now",
                 list[any]->config.name);
        return any;
    }
    return best;
}

size_t policy_order(struct vmd *d, int64_t **ids)
{
    size_t n, kept = 0;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        if (is_autostart(list[i]) && !list[i]->transient) {
            list[kept++] = list[i];
        }
    }
    AUTO_FREE bool *placed = xnew_n(bool, kept + 1);
    *ids = xnew_n(int64_t, kept + 1);
    for (size_t k = 0; k < kept; k++) {
        size_t i = pick(list, kept, placed);
        placed[i] = true;
        (*ids)[k] = list[i]->id;
    }
    free(list);
    return kept;
}

static void boot_next(struct policy *p);

static void boot_done(struct vm *vm, const struct api_error *x)
{
    if (x) {
        log_error("daemon", "autostart of VM '%s' failed: %s", vm->config.name, x->message);
    } else {
        tell(vm, "autostart", NULL);
    }
    boot_next(vm->d->policy);
}

static void boot_begin(struct op *op)
{
    op->after = boot_done;
    if (op->vm->run) {
        op->after = NULL;
        struct policy *p = op->vm->d->policy;
        op_end(op);
        boot_next(p);
        return;
    }
    vmop_start(op);
}

static void on_delay(void *arg)
{
    struct policy *p = arg;
    struct vm *vm = vm_by_id(p->d, p->boot[p->boot_at++]);
    loop_timer_free(p->delay);
    p->delay = NULL;
    if (!vm || vm->run || vm->pending || !is_autostart(vm)) {
        boot_next(p);
        return;
    }
    op_queue(vm, NULL, NULL, NULL, boot_begin, false);
}

static void boot_next(struct policy *p)
{
    if (p->boot_at >= p->boot_n || policy_is_shutting(p->d) || p->d->ending) {
        struct change *c = change_new(p->d);
        store_tx_fact_put(change_tx(c), BOOT_FACT, p->d->boot_id);
        change_commit(c, NULL, NULL);
        return;
    }
    struct vm *vm = vm_by_id(p->d, p->boot[p->boot_at]);
    int64_t delay = vm && vm->config.autostart ? vm->config.autostart->delay_ms * MS : 0;
    p->delay = loop_timer_new(p->d->loop, on_delay, p);
    loop_timer_arm(p->delay, delay);
}

void policy_begin(struct vmd *d)
{
    struct policy *p = d->policy;
    size_t n;
    p->begun = true;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        if (list[i]->restart_due_ms && !list[i]->run) {
            policy_ended(list[i]);
        }
    }
    free(list);
    loop_timer_arm(p->watch, WATCH_NS);
    AUTO_FREE char *boot = store_fact(d->store, BOOT_FACT);
    if (!boot || strcmp(boot, d->boot_id) != 0) {
        p->boot_n = policy_order(d, &p->boot);
        boot_next(p);
    }
}
