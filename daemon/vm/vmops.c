/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.*: starting, pausing, resetting, ending. Each is an operation (ops.h) that asks
 * the emulator and answers when it is so. Loop thread.
 */
#include "daemon/vm/vmops.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/vm/agent.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/save.h"
#include "daemon/vm/snapshot.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/waits.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <string.h>

#define SECOND INT64_C(1000000000)
#define ASK_NS (10 * SECOND)   /* the emulator's answer to a request */
#define QUIT_NS (30 * SECOND)  /* flushing disks and ending */
#define REACH_NS (SECOND / 50) /* from one look for a connection to the next */
#define REACH_TRIES 250u
#define KILL_NS (10 * SECOND) /* the kernel ending a killed process */
#define AGENT_MS 10000        /* a guest agent's answer */
#define DOWN_MS 60000         /* a guest powering off, where nobody says */

/* ---- start ---- */

static void job_finish(struct op *op, const struct api_error *x)
{
    struct vmd *d = op->vm->d;
    struct change *c = change_new(d);
    int64_t id = op->job->info.job;
    job_end(d, op->job, c, x, x ? NULL : vm_info(op->vm, false, false));
    wait_job_end(d, id, c);
    op->job = NULL;
}

static void on_started(void *arg, const struct api_error *x)
{
    struct op *op = arg;
    struct vm *vm = op->vm;
    if (op->after) {
        void (*after)(struct vm * vm, const struct api_error *x) = op->after;
        op->after = NULL;
        op_end(op);
        after(vm, x);
    } else if (op->job) {
        job_finish(op, x);
        op_end(op);
    } else if (x) {
        op_fail(op, x);
    } else {
        op_reply_info(op);
    }
}

/* A transient VM that never had a run: its definition goes here, not with its end. */
static void unstarted_gone(void *arg, const struct err *e)
{
    struct vm *vm = arg;
    (void)e; /* when not durable, the next daemon drops it (adopt.c) */
    ops_drop(vm, API_E_NOT_FOUND, "the VM was not started and its definition is gone");
    vm_wake(vm, true);
    runfs_clean_lib(&vm->d->opt, vm->id);
    vm_free(vm);
}

static void drop_unstarted(struct op *op, const struct api_error *x)
{
    struct vm *vm = op->vm;
    struct change *c = change_new(vm->d);
    vm->pending = true; /* not to be found any more */
    store_tx_vm_del(change_tx(c), vm->id);
    vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, "start-failed", NULL);
    change_must_tell(c);
    if (op->job) {
        job_finish(op, x);
    } else if (op->call) {
        api_reply_error(op->call, x);
        op->call = NULL;
    }
    change_commit(c, unstarted_gone, vm); /* the op goes with the VM */
}

static void cancel_start(void *arg)
{
    struct vm *vm = arg;
    if (vm->run) {
        run_kill(vm->run);
    }
}

/* Its emulator stands still before the first instruction. */
static void on_restorable(void *arg, const struct api_error *x)
{
    struct op *op = arg;
    if (x) {
        on_started(op, x);
    } else {
        save_restore(op->vm, op->flag, on_started, op);
    }
}

static void on_preflight(void *arg, const struct api_error *x, const struct run_disks *disks)
{
    struct op *op = arg;
    struct vm *vm = op->vm;
    struct api_error cancelled = API_ERROR_INIT;
    if (!x && op->job && op->job->cancel) {
        api_error_set(&cancelled, API_E_CANCELLED, vm->config.name, NULL,
                      "the job was cancelled");
        x = &cancelled;
    }
    if (x) {
        if (vm->transient) {
            drop_unstarted(op, x);
        } else {
            on_started(op, x);
        }
        return;
    }
    if (op->job) {
        struct change *c = change_new(vm->d);
        job_progress(op->job, c, 1);
        change_commit(c, NULL, NULL);
        op->job->on_cancel = cancel_start;
        op->job->arg = vm;
    }
    run_start_tape(vm, op->flag || vm->saved, disks, op->tape,
                   vm->saved ? on_restorable : on_started, op);
}

static void start_after_end(void *arg, struct vm *vm, bool gone)
{
    struct op *op = arg;
    (void)vm;
    op->held = false;
    if (!gone) { /* else the op goes with the VM */
        vmop_start(op);
    }
}

void vmop_start(struct op *op)
{
    struct vm *vm = op->vm;
    struct api_error x = API_ERROR_INIT;
    if (policy_is_shutting(vm->d)) {
        api_error_set(&x, API_E_BAD_STATE, vm->config.name, "start it when the host is back",
                      "VM '%s' is not started: the host is being shut down", vm->config.name);
        on_started(op, &x);
        return;
    }
    const struct snapshot *doubt = snapshot_in_doubt(vm);
    if (doubt && snapshot_is_import(doubt)) {
        api_error_set(
            &x, API_E_BAD_STATE, vm->config.name,
            "delete that snapshot: 'vmctl snapshot delete'",
            "an import of snapshot '%s' into VM '%s' was broken off, and is not undone",
            doubt->info.name, vm->config.name);
        on_started(op, &x);
        return;
    }
    if (doubt) {
        api_error_set(&x, API_E_BAD_STATE, vm->config.name,
                      "go back again: 'vmctl snapshot revert'; or delete that snapshot",
                      "VM '%s' was going back to snapshot '%s' and has not reached it",
                      vm->config.name, doubt->info.name);
        on_started(op, &x);
        return;
    }
    if (vm->run && run_has_ended(vm->run)) { /* its end is on its way to the disk */
        op->held = true;
        run_on_end(vm->run, start_after_end, op);
        return;
    }
    if (vm->run) {
        api_error_set(&x, API_E_BAD_STATE, vm->config.name,
                      vm->state == API_VM_STATE_STOPPING ? "wait for its end: 'vmctl wait'"
                                                         : NULL,
                      "VM '%s' is %s already (pid %d)", vm->config.name,
                      api_vm_state_name(vm->state), (int)run_pid(vm->run));
        on_started(op, &x);
        return;
    }
    preflight_start_tape(vm, op->tape, on_preflight, op);
}

static void start_begin(struct op *op)
{
    const struct api_vm_start_in *in = op->in;
    struct err e = ERR_INIT;
    if (in->record || in->replay) {
        op->tape = in;
        if (op->vm->saved && !in->fresh) {
            op_failf(op, API_E_BAD_STATE, "start it with 'fresh', or without a recording",
                     "VM '%s' goes on from its saved state, and recordings begin with a boot",
                     op->vm->config.name);
            return;
        }
    }
    if (in->fresh && !op->vm->run && save_drop(op->vm, &e) < 0) {
        op_failf(op, API_E_FILE_ERROR, NULL, "%s", e.msg);
        return;
    }
    vmop_start(op);
}

/* False after the call was answered. */
static bool tape_ok(struct api_call *call, const struct vm *vm,
                    const struct api_vm_start_in *in)
{
    struct api_error x = API_ERROR_INIT;
    const char *path = in->record ? in->record : in->replay;
    if (in->record && in->replay) {
        api_fail(call, API_E_INVALID_PARAMS, "replay", "make a recording, or play one",
                 "VM '%s' cannot be recorded while it is replayed", vm->config.name);
        return false;
    }
    if ((in->has_to && !in->replay) || (in->scratch && !in->record)) {
        api_fail(call, API_E_INVALID_PARAMS, in->scratch ? "scratch" : "to", NULL,
                 in->scratch ? "'scratch' is for recordings: give 'record', too"
                             : "'to' is for replays: give 'replay', too");
        return false;
    }
    if (path &&
        access_file(call, vm->config.project, in->record ? "record" : "replay", path, &x) < 0) {
        api_reply_error(call, &x);
        return false;
    }
    return true;
}

void api_handle_vm_start(struct api_call *call, struct api_vm_start_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm && tape_ok(call, vm, in)) {
        op_queue(vm, call, NULL, in, start_begin, in->paused);
    }
}

/* ---- asking the emulator ---- */

static void stop_begin(struct op *op);
static void stop_ended(void *arg, struct vm *vm, bool gone);

static void ask_fail(struct op *op, const struct api_error *x)
{
    if (x->code == API_E_TIMEOUT) {
        op_failf(op, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
                 "the emulator of VM '%s' (pid %d) does not answer", op->vm->config.name,
                 (int)run_pid(op->vm->run));
    } else if (x->code == API_E_UNSUPPORTED || x->code == API_E_BAD_STATE ||
               x->code == API_E_INVALID_PARAMS || x->code == API_E_NOT_FOUND ||
               x->code == API_E_HOST_LIMIT || x->code == API_E_EXISTS ||
               x->code == API_E_BUSY || x->code == API_E_FILE_ERROR ||
               x->code == API_E_GUEST_ERROR) {
        op_failf(op, x->code, x->remedy[0] ? x->remedy : NULL, "VM '%s': %s",
                 op->vm->config.name, x->message);
    } else {
        op_failf(op, API_E_UNRESPONSIVE, "look at its state: 'vmctl show'",
                 "the emulator of VM '%s' could not be asked: %s", op->vm->config.name,
                 x->message);
    }
}

/* The VM ended while it was asked. */
static void ended_meanwhile(void *arg, struct vm *vm, bool gone)
{
    struct op *op = arg;
    bool meant = strcmp(op->method, "emu.reset") == 0 ||
                 strcmp(op->method, "emu.powerdown") == 0;
    if (meant && vm->exit && !exit_is_crash(vm->exit->reason)) {
        stop_ended(op, vm, gone); /* a reset may be an end, too: emu.set_action */
        return;
    }
    op->held = false;
    op_failf(op, API_E_BAD_STATE, NULL, "VM '%s' ended meanwhile: %s", vm->config.name,
             vm->reason ? vm->reason : "stopped");
}

/* The emulator's answer, checked by its schema, goes on to the caller. */
static void answer_with(struct op *op, struct json_object *result)
{
    struct vm *vm = op->vm;
    struct api_error x = API_ERROR_INIT;
    void *out = xalloc(op->out->size ? op->out->size : 1);
    if (api_decode(op->out, result, API_LENIENT, "", out, &x) != 0) {
        free(out);
        op_failf(op, API_E_UNRESPONSIVE, NULL, "the emulator of VM '%s' answered wrongly: %s",
                 vm->config.name, x.message);
        return;
    }
    struct json_object *json = api_encode(op->out, out);
    api_release(op->out, out);
    free(out);
    if (op->flag) { /* it changed something: durable audit first */
        call_finish(vm->d, op->call, vm->config.name, json);
    } else {
        api_reply_json(op->call, json);
    }
    op_end(op);
}

/* --- a power-off that is waited for. It is no operation: others may go on meanwhile. --- */

struct down {
    struct api_call *call;
    struct vm *vm;
    struct loop_timer *timer;
    int64_t ms;
    bool force;
};

static void down_ended(void *arg, struct vm *vm, bool gone)
{
    struct down *k = arg;
    (void)gone;
    loop_timer_free(k->timer);
    call_finish(vm->d, k->call, vm->config.name, vm_info_raw(vm, false, false));
    free(k);
}

static void down_late(void *arg)
{
    struct down *k = arg;
    struct vm *vm = k->vm;
    run_on_end_cancel(vm->run, k);
    loop_timer_free(k->timer);
    if (k->force) {
        op_queue(vm, k->call, NULL, NULL, stop_begin, true);
    } else {
        api_fail(k->call, API_E_TIMEOUT, vm->config.name,
                 "wait longer: 'vmctl wait', or end it: 'vmctl stop'",
                 "the guest of VM '%s' was asked to power off and has not within %lld ms",
                 vm->config.name, (long long)k->ms);
    }
    free(k);
}

static void down_wait(struct op *op)
{
    const struct api_vm_shutdown_in *in = op->in;
    const struct api_host_shutdown *h = op->vm->config.host_shutdown;
    struct down *k = xnew(struct down);
    *k = (struct down){ .call = take_ptr(op->call), .vm = op->vm, .force = in->force };
    k->ms = in->has_timeout_ms ? in->timeout_ms : h ? h->timeout_ms : DOWN_MS;
    k->timer = loop_timer_new(op->vm->d->loop, down_late, k);
    loop_timer_arm(k->timer, k->ms * (SECOND / 1000));
    run_on_end(op->vm->run, down_ended, k);
    op_end(op);
}

static void shutdown_begin(struct op *op);

/* A VM whose guest cannot be asked: with force that is no reason not to end it. */
static bool ends_unasked(struct op *op)
{
    if (op->begin != shutdown_begin || !op->flag) {
        return false;
    }
    stop_begin(op);
    return true;
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct op *op = arg;
    struct vm *vm = op->vm;
    (void)result;
    if (op->held && vm->run) {
        run_on_end_cancel(vm->run, op);
        op->held = false;
    }
    if (x) {
        if (!ends_unasked(op)) {
            ask_fail(op, x);
        }
        return;
    }
    if (op->out) {
        answer_with(op, result);
        return;
    }
    /* Its notification may come after its answer; the state is known already. */
    if (strcmp(op->method, "emu.pause") == 0 && vm->state == API_VM_STATE_RUNNING) {
        vm_tell_state(vm, API_VM_STATE_PAUSED, "pause");
    } else if (strcmp(op->method, "emu.resume") == 0 && vm->state == API_VM_STATE_PAUSED) {
        vm_tell_state(vm, API_VM_STATE_RUNNING, "resume");
    } else if (strcmp(op->method, "emu.powerdown") == 0 && vm->state == API_VM_STATE_RUNNING) {
        run_asked(vm->run);
        vm_tell_state(vm, API_VM_STATE_STOPPING, "asked to power off");
    }
    const struct api_vm_shutdown_in *down = op->begin == shutdown_begin ? op->in : NULL;
    if (down && vm->run && (down->has_timeout_ms || down->force)) {
        down_wait(op);
        return;
    }
    op_reply_info(op);
}

static void ask_with(struct op *op, struct json_object *take_params)
{
    struct vm *vm = op->vm;
    op->held = true;
    run_on_end(vm->run, ended_meanwhile, op);
    if (!run_call_with(vm->run, op->method, take_params, ASK_NS, on_answer, op)) {
        run_on_end_cancel(vm->run, op);
        op->held = false;
        if (ends_unasked(op)) {
            return;
        }
        op_failf(op, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
                 "the emulator of VM '%s' (pid %d) does not answer", vm->config.name,
                 (int)run_pid(vm->run));
    }
}

static void ask(struct op *op)
{
    ask_with(op, NULL);
}

/* False after the op was failed: the VM is in none of the states (a mask). */
static bool in_state(struct op *op, unsigned mask, const char *remedy)
{
    struct vm *vm = op->vm;
    if (vm->run && (mask & (1u << vm->state))) {
        return true;
    }
    op_failf(op, API_E_BAD_STATE, remedy, "VM '%s' is %s", vm->config.name,
             api_vm_state_name(vm->state));
    return false;
}

#define S_RUNNING (1u << API_VM_STATE_RUNNING)
#define S_PAUSED (1u << API_VM_STATE_PAUSED)
#define S_LIVE (S_RUNNING | S_PAUSED | (1u << API_VM_STATE_STOPPING))
#define S_WEDGED (1u << API_VM_STATE_UNRESPONSIVE)

void vmop_ask(struct op *op, struct json_object *take_params)
{
    if (in_state(op, S_LIVE | S_WEDGED, "start it first: 'vmctl start'")) {
        ask_with(op, take_params);
    } else {
        json_object_put(take_params);
    }
}

/* The agent that will not: the button is left, unless the agent alone was meant. */
static void on_agent_down(void *arg, struct json_object *result, const struct api_error *x)
{
    struct op *op = arg;
    const struct api_vm_shutdown_in *in = op->in;
    (void)result;
    if (x && in->method == API_SHUTDOWN_METHOD_AUTO && op->vm->run) {
        run_on_end_cancel(op->vm->run, op);
        ask(op);
        return;
    }
    on_answer(op, NULL, x);
}

static void pause_begin(struct op *op)
{
    op->method = "emu.pause";
    if (in_state(op, S_RUNNING | S_WEDGED, "only a running VM can be paused")) {
        ask(op);
    }
}

static void resume_begin(struct op *op)
{
    op->method = "emu.resume";
    if (in_state(op, S_PAUSED | S_WEDGED, "only a paused VM can be resumed")) {
        ask(op);
    }
}

static void reset_begin(struct op *op)
{
    op->method = "emu.reset";
    if (in_state(op, S_LIVE | S_WEDGED, "start it first: 'vmctl start'")) {
        ask(op);
    }
}

static void wake_begin(struct op *op)
{
    op->method = "emu.wake";
    if (in_state(op, S_LIVE, "start it first: 'vmctl start'")) {
        ask(op);
    }
}

static void shutdown_begin(struct op *op)
{
    const struct api_vm_shutdown_in *in = op->in;
    struct vm *vm = op->vm;
    op->method = "emu.powerdown";
    if (!in_state(op, S_LIVE | S_WEDGED, "only a running VM can be asked")) {
        return;
    }
    bool agent = in->method == API_SHUTDOWN_METHOD_AGENT ||
                 (in->method == API_SHUTDOWN_METHOD_AUTO && agent_listens(vm));
    if (!agent || vm->state == API_VM_STATE_UNRESPONSIVE) {
        ask(op);
        return;
    }
    op->held = true;
    run_on_end(vm->run, ended_meanwhile, op);
    run_asked(vm->run); /* it may be gone before the agent is heard of again */
    struct json_object *how = json_object_new_object();
    api_json_set_str(how, "mode", "powerdown");
    agent_ask(vm, "guest-shutdown", how, AGENT_MS, true, on_agent_down, op);
}

static void on_agent_reboots(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)result;
    on_answer(arg, NULL, x);
}

/* No button of a machine asks for it. */
static void reboot_begin(struct op *op)
{
    struct vm *vm = op->vm;
    op->method = "emu.reset"; /* what is done, by the guest itself */
    if (!in_state(op, S_RUNNING, "only the guest of a running VM can be asked")) {
        return;
    }
    if (!agent_listens(vm)) {
        op_failf(op, API_E_UNSUPPORTED, "'vmctl reset' ('virsh reset') resets it at once",
                 "the guest of VM '%s' cannot be asked to reboot: no guest agent listens",
                 vm->config.name);
        return;
    }
    op->held = true;
    run_on_end(vm->run, ended_meanwhile, op);
    struct json_object *how = json_object_new_object();
    api_json_set_str(how, "mode", "reboot");
    agent_ask(vm, "guest-shutdown", how, AGENT_MS, true, on_agent_reboots, op);
}

void api_handle_vm_reboot(struct api_call *call, struct api_vm_reboot_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, reboot_begin, false);
    }
}

static void forget_begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct err e = ERR_INIT;
    if (vm->run) {
        op_failf(op, API_E_BAD_STATE, NULL, "VM '%s' is %s", vm->config.name,
                 api_vm_state_name(vm->state));
    } else if (!vm->saved) {
        op_failf(op, API_E_BAD_STATE, "'vmctl save' makes one", "VM '%s' has no saved state",
                 vm->config.name);
    } else if (save_drop(vm, &e) < 0) {
        op_failf(op, API_E_FILE_ERROR, "mend the folder", "VM '%s': %s", vm->config.name,
                 e.msg);
    } else {
        op_reply_info(op);
    }
}

void api_handle_vm_forget(struct api_call *call, struct api_vm_forget_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, forget_begin, false);
    }
}

void api_handle_vm_pause(struct api_call *call, struct api_vm_pause_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, pause_begin, false);
    }
}

void api_handle_vm_resume(struct api_call *call, struct api_vm_resume_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, resume_begin, false);
    }
}

void api_handle_vm_reset(struct api_call *call, struct api_vm_reset_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, reset_begin, false);
    }
}

void api_handle_vm_wake(struct api_call *call, struct api_vm_wake_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, wake_begin, false);
    }
}

void api_handle_vm_shutdown(struct api_call *call, struct api_vm_shutdown_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, shutdown_begin, in->force);
    }
}

/* ---- ending ---- */

static void stop_ended(void *arg, struct vm *vm, bool gone)
{
    struct op *op = arg;
    op->held = false;
    if (gone) { /* answered here: the op goes with the VM */
        call_finish(vm->d, op->call, vm->config.name, vm_info_raw(vm, false, false));
        op->call = NULL;
        return;
    }
    if (op->then) {
        loop_timer_free(op->timer);
        op->timer = NULL;
        op->then(op);
        return;
    }
    op_reply_info(op);
}

static void stop_timeout(void *arg)
{
    struct op *op = arg;
    struct vm *vm = op->vm;
    if (op->flag) {
        op->flag = false;
        run_kill(vm->run);
        loop_timer_arm(op->timer, KILL_NS);
        return;
    }
    run_on_end_cancel(vm->run, op);
    op->held = false;
    op_failf(op, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
             "the emulator of VM '%s' (pid %d) was asked to quit and has not ended within 30 s",
             vm->config.name, (int)run_pid(vm->run));
}

static void on_quit(void *arg, struct json_object *result, const struct api_error *x)
{
    struct op *op = arg;
    (void)result;
    if (x && !op->flag && (x->code == API_E_UNSUPPORTED || x->code == API_E_BAD_STATE)) {
        run_on_end_cancel(op->vm->run, op);
        op->held = false;
        ask_fail(op, x);
    }
    /* Otherwise its end, or the timer, answers. */
}

/* It was told, or (told false) is to be killed now. */
static void stop_told(struct op *op, bool told)
{
    struct vm *vm = op->vm;
    run_expect_end(vm->run, "quit");
    if (vm->state != API_VM_STATE_STOPPING) {
        vm_tell_state(vm, API_VM_STATE_STOPPING, "quit");
    }
    loop_timer_free(op->timer);
    op->timer = loop_timer_new(vm->d->loop, stop_timeout, op);
    loop_timer_arm(op->timer, told ? QUIT_NS : 0);
}

/* There may be no connection for a moment: the emulator is being taken up again, or about to end. */
static void stop_reach(void *arg)
{
    struct op *op = arg;
    struct vm *vm = op->vm;
    if (run_call(vm->run, "emu.quit", QUIT_NS / 2, on_quit, op)) {
        stop_told(op, true);
    } else if (op->tries++ < REACH_TRIES && !run_is_mute(vm->run)) {
        loop_timer_arm(op->timer, REACH_NS);
    } else {
        run_on_end_cancel(vm->run, op);
        op->held = false;
        op_failf(op, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
                 "the emulator of VM '%s' (pid %d) does not answer", vm->config.name,
                 (int)run_pid(vm->run));
    }
}

/* flag: killed when it does not quit. */
static void stop_begin(struct op *op)
{
    struct vm *vm = op->vm;
    if (!vm->run && (policy_cancel(vm) || op->flag)) {
        op_reply_info(op);
        return;
    }
    if (!in_state(op, S_LIVE | S_WEDGED, "it is not running")) {
        return;
    }
    op->held = true;
    run_on_end(vm->run, stop_ended, op);
    if (op->flag) {
        stop_told(op, run_call(vm->run, "emu.quit", QUIT_NS / 2, on_quit, op));
        return;
    }
    op->timer = loop_timer_new(vm->d->loop, stop_reach, op);
    stop_reach(op);
}

void vmop_stop_then(struct op *op, void (*then)(struct op *op))
{
    op->then = then;
    op->flag = false;
    stop_begin(op);
}

/* Forced: waits for no other operation and for no emulator. */
struct kill {
    struct api_call *call;
    struct vm *vm;
    struct loop_timer *timer;
};

static void kill_ended(void *arg, struct vm *vm, bool gone)
{
    struct kill *k = arg;
    (void)gone;
    loop_timer_free(k->timer);
    call_finish(vm->d, k->call, vm->config.name, vm_info_raw(vm, false, false));
    free(k);
}

static void kill_timeout(void *arg)
{
    struct kill *k = arg;
    struct vm *vm = k->vm;
    run_on_end_cancel(vm->run, k);
    loop_timer_free(k->timer);
    api_fail(
        k->call, API_E_UNRESPONSIVE, vm->config.name,
        "see what its process waits for: /proc/PID/stack; often a disk that does not answer",
        "the emulator of VM '%s' (pid %d) was killed, but the kernel has not ended it yet",
        vm->config.name, (int)run_pid(vm->run));
    free(k);
}

static void stop_forced(struct api_call *call, struct vm *vm)
{
    if (!vm->run && policy_cancel(vm)) {
        call_finish(vm->d, call, vm->config.name, vm_info_raw(vm, false, false));
        return;
    }
    if (!vm->run) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, NULL, "VM '%s' is %s", vm->config.name,
                 api_vm_state_name(vm->state));
        return;
    }
    struct kill *k = xnew(struct kill);
    *k = (struct kill){ .call = call, .vm = vm };
    k->timer = loop_timer_new(vm->d->loop, kill_timeout, k);
    loop_timer_arm(k->timer, KILL_NS);
    run_on_end(vm->run, kill_ended, k);
    run_kill(vm->run);
}

void api_handle_vm_stop(struct api_call *call, struct api_vm_stop_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm && in->force) {
        stop_forced(call, vm);
    } else if (vm) {
        op_queue(vm, call, NULL, in, stop_begin, false);
    }
}
