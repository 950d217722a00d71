/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of replay.*: looking at a VM that is recorded or replayed, and moving one that is replayed. What lies behind is reached by
 * ending the emulator, which has changed nothing, and replaying anew. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/vmops.h"
#include "engine/base/mem.h"

#include <string.h>

#define ASK_NS INT64_C(10000000000) /* the emulator's answer */

/* ---- looking ---- */

static void status_begin(struct op *op)
{
    op->method = "emu.replay_status";
    op->out = &api_type_replay_status_out;
    vmop_ask(op, NULL);
}

void api_handle_replay_status(struct api_call *call, struct api_replay_status_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, status_begin, false);
    }
}

static void digest_begin(struct op *op)
{
    op->method = "emu.state_hash";
    op->out = &api_type_replay_digest_out;
    vmop_ask(op, NULL);
}

void api_handle_replay_digest(struct api_call *call, struct api_replay_digest_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, digest_begin, false);
    }
}

/* ---- moving ---- */

/* The parameters of a start; their text stands behind them. */
struct again {
    struct api_vm_start_in in;
    char file[];
};

static void start_again(struct op *op)
{
    struct again *k = op->own;
    op->flag = false;
    op->tape = &k->in;
    vmop_start(op);
}

static void go_back(struct op *op, int64_t count)
{
    struct vm *vm = op->vm;
    const char *file = run_replay_file(vm->run);
    if (!file || vm->transient) {
        op_failf(
            op, API_E_BAD_STATE, "start the replay anew: 'vmctl stop', 'vmctl start --replay'",
            file ? "VM '%s' is transient: it would be gone on the way back"
                 : "the recording of VM '%s' is not known: another vmd has started its replay",
            vm->config.name);
        return;
    }
    struct again *k = xalloc(sizeof(*k) + strlen(file) + 1);
    strcpy(k->file, file);
    k->in = (struct api_vm_start_in){ .replay = k->file, .has_to = true, .to = count };
    op->own = k;
    vmop_stop_then(op, start_again);
}

static void ended_before(void *arg, struct vm *vm, bool gone)
{
    struct op *op = arg;
    op->held = false;
    if (!gone) {
        op_failf(op, API_E_BAD_STATE, NULL, "VM '%s' ended meanwhile", vm->config.name);
    }
}

static void on_where(void *arg, struct json_object *result, const struct api_error *x)
{
    struct op *op = arg;
    const struct api_replay_seek_in *in = op->in;
    run_on_end_cancel(op->vm->run, op);
    op->held = false;
    if (x) {
        op_failf(op, API_E_UNRESPONSIVE, NULL, "VM '%s' could not be asked where it is: %s",
                 op->vm->config.name, x->message);
        return;
    }
    if (in->has_count && in->count < api_json_get_int(result, "count", 0)) {
        go_back(op, in->count);
        return;
    }
    struct json_object *params = api_encode(&api_type_replay_seek_in, in);
    json_object_object_del(params, "vm");
    op->method = "emu.replay_to";
    vmop_ask(op, params);
}

static void seek_begin(struct op *op)
{
    struct vm *vm = op->vm;
    if (!vm_is_live(vm) || run_replay_mode(vm->run) != API_REPLAY_MODE_REPLAY) {
        op_failf(op, API_E_BAD_STATE, "start it by 'vmctl start --replay'",
                 "VM '%s' is not replayed", vm->config.name);
        return;
    }
    op->held = true;
    run_on_end(vm->run, ended_before, op);
    if (!run_call(vm->run, "emu.replay_status", ASK_NS, on_where, op)) {
        run_on_end_cancel(vm->run, op);
        op->held = false;
        op_failf(op, API_E_UNRESPONSIVE, NULL, "the emulator of VM '%s' does not answer",
                 vm->config.name);
    }
}

void api_handle_replay_seek(struct api_call *call, struct api_replay_seek_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, seek_begin, false);
    }
}
