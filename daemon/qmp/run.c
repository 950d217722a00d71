/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands that run, stop and end a VM: each is the method of the API that does the same, called on behalf of
 * the client. Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "daemon/run/supervise.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

const char *qmp_run_state(const struct vm *vm)
{
    const char *reason = vm->reason ? vm->reason : "";

    switch (vm->state) {
    case API_VM_STATE_RUNNING:
        return strcmp(reason, "suspended") == 0 ? "suspended" : "running";
    case API_VM_STATE_STARTING:
        return "prelaunch";
    case API_VM_STATE_PAUSED:
        return strcmp(reason, "start") == 0       ? "prelaunch"
               : strcmp(reason, "debug") == 0     ? "debug"
               : strcmp(reason, "panic") == 0     ? "guest-panicked"
               : strcmp(reason, "io-error") == 0  ? "io-error"
               : run_is_kept(vm->state, reason)   ? "shutdown"
               : strcmp(reason, "migrating") == 0 ? "finish-migrate"
                                                  : "paused";
    case API_VM_STATE_STOPPING: /* the guest may be at work on it */
        return strcmp(reason, "asked to power off") == 0 ? "running" : "shutdown";
    case API_VM_STATE_CRASHED:
        return "internal-error";
    case API_VM_STATE_UNRESPONSIVE: /* what it was when it last answered is not known to be over */
        return "running";
    default:
        return "shutdown";
    }
}

/* --- through the API -------------------------------------------------------------------------------- */

static void answer(struct qmp_cmd *c, const struct api_error *x)
{
    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_return_nothing(c);
    }
}

/* Stopping what stands, letting run what runs: QEMU has no objection, and another client may have been
 * first. */
static void moved(struct qmp_cmd *c, enum api_vm_state to, const struct api_error *x)
{
    struct vm *vm = vm_by_id(c->d, *(int64_t *)c->data);

    answer(c, x && x->code == API_E_BAD_STATE && vm && vm->state == to ? NULL : x);
}

static void on_stopped(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)result;
    moved(arg, API_VM_STATE_PAUSED, x);
}

static void on_running(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct vm *vm = x ? vm_by_id(c->d, *(int64_t *)c->data) : NULL;

    (void)result;
    if (vm && run_is_kept(vm->state, vm->reason)) {
        qmp_error(c, "GenericError", "Resetting the Virtual Machine is required");
        return;
    }
    moved(c, API_VM_STATE_RUNNING, x);
}

static void move(struct qmp_cmd *c, const char *method,
                 void (*fn)(void *, struct json_object *, const struct api_error *))
{
    int64_t *id = xnew(int64_t);

    *id = c->vm->id;
    c->data = id;
    api_call_nested(c->call, method, qmp_vm_param(c), fn, c);
}

void qmp_do_stop(struct qmp_cmd *c)
{
    move(c, "vm.pause", on_stopped);
}

void qmp_do_cont(struct qmp_cmd *c)
{
    move(c, "vm.resume", on_running);
}

void qmp_do_system_reset(struct qmp_cmd *c)
{
    api_call_nested(c->call, "vm.reset", qmp_vm_param(c), qmp_on_done, c);
}

void qmp_do_system_powerdown(struct qmp_cmd *c)
{
    api_call_nested(c->call, "vm.shutdown", qmp_vm_param(c), qmp_on_done, c);
}

/* Answered as soon as it was accepted: the end of the VM is the end of the connection, too. */
struct quit {
    struct qmp_cmd *c; /* NULL once answered */
    bool called, failed;
};

static void on_quit(void *arg, struct json_object *result, const struct api_error *x)
{
    struct quit *q = arg;

    (void)result;
    if (q->c) {
        q->called = true;
        q->failed = x != NULL;
        if (x) {
            answer(q->c, x);
        }
        return;
    }
    if (x) {
        log_warn("daemon", "QMP quit: %s", x->message);
    }
    free(q);
}

void qmp_do_quit(struct qmp_cmd *c)
{
    struct quit *q = xnew(struct quit);

    q->c = c;
    api_call_nested(c->call, "vm.stop", qmp_vm_param(c), on_quit, q);
    q->c = NULL;
    if (!q->failed) {
        qmp_return_nothing(c);
    }
    if (q->called) {
        free(q);
    }
}

/* --- without an API method ---------------------------------------------------------------------------- */

bool qmp_guest_sleeps(const struct vm *vm)
{
    return vm->config.machine == API_MACHINE_Q35 && vm->config.n_flash == 0;
}

void qmp_do_system_wakeup(struct qmp_cmd *c)
{
    if (!qmp_guest_sleeps(c->vm)) {
        qmp_error(c, "GenericError", "wake-up from suspend is not supported by this guest");
        return;
    }
    if (strcmp(qmp_run_state(c->vm), "suspended") != 0) {
        qmp_error(c, "GenericError", "Unable to wake up: guest is not in suspended state");
        return;
    }
    api_call_nested(c->call, "vm.wake", qmp_vm_param(c), qmp_on_done, c);
}

void qmp_do_inject_nmi(struct qmp_cmd *c)
{
    qmp_error(c, "GenericError", "this feature or command is not currently supported");
}

static void on_action(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

/* Does the emulator know that action of a watchdog that is not fed? */
static bool watchdog_knows(const char *action)
{
    static const char *const known[] = { "reset", "poweroff", "pause", "none" };

    for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(action, known[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The emulator keeps what resets, power-offs, panics and watchdogs do. All or nothing. */
void qmp_do_set_action(struct qmp_cmd *c)
{
    static const char *const kept[] = { "reboot", "shutdown", "panic", "watchdog" };
    const char *watchdog = qmp_arg(c, "watchdog"), *panic = qmp_arg(c, "panic");
    const char *never = watchdog && !watchdog_knows(watchdog)         ? watchdog
                        : panic && strcmp(panic, "exit-failure") == 0 ? panic
                                                                      : NULL;
    struct json_object *params;

    if (never) {
        qmp_error(c, "GenericError", "Action '%s' of '%s' is not supported", never,
                  never == watchdog ? "watchdog" : "panic");
        return;
    }
    params = json_object_new_object();
    for (unsigned i = 0; i < ARRAY_LEN(kept); i++) {
        if (qmp_arg(c, kept[i])) {
            api_json_set_str(params, kept[i], qmp_arg(c, kept[i]));
        }
    }
    qmp_ask(c, "emu.set_action", params, on_action);
}
