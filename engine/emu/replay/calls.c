/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control methods of recordings and replays, and those that are refused meanwhile: what they do would reach the guest without
 * standing on the tape. Main thread.
 */
#include "engine/emu/replay/replay.h"

#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"

#include <string.h>

/* Methods that look at the machine, or change what the guest sees nothing of. All others are refused, also those that are to come. */
static const char *const allowed[] = {
    "emu.hello",          "emu.status",        "emu.stats",
    "emu.engine",         "emu.replay_status", "emu.replay_to",
    "emu.state_hash",     "emu.pause",         "emu.resume",
    "emu.quit",           "emu.set_action",    "emu.trace_start",
    "emu.trace_read",     "emu.trace_stop",    "emu.coverage",
    "emu.channels",       "emu.exports",       "emu.jobs",
    "emu.dump",           "emu.dump_status",   "emu.dump_cancel",
    "emu.state_status",   "emu.state_cancel",  "emu.migrate_status",
    "emu.migrate_cancel", "emu.fault_list",    "emu.state",
    "emu.memory_search",  "emu.blocks",        "emu.registers",
    "emu.memory",         "emu.screenshot",    "emu.pci",
    "emu.devices",        "emu.device_class",  "emu.file_drop",
};

bool record_refuses(struct api_call *call)
{
    struct emu *m = control_emu(call);
    const char *name = api_call_method(call)->name;

    if (!record_active(m)) {
        return false;
    }
    for (unsigned i = 0; i < ARRAY_LEN(allowed); i++) {
        if (strcmp(allowed[i], name) == 0) {
            return false;
        }
    }
    api_fail(call, API_E_BAD_STATE, m->vm->name, "stop it, and start it without a recording",
             "%s would reach the guest past its recording: the VM is %s", name,
             m->opt.replay ? "replayed" : "recorded");
    return true;
}

void api_handle_emu_replay_status(struct api_call *call, struct api_emu_replay_status_in *in)
{
    struct emu *m = control_emu(call);
    struct api_emu_replay_status_out out = { .mode = API_REPLAY_MODE_NONE };

    (void)in;
    record_status(m, &out);
    api_reply_emu_replay_status(call, &out);
}

void api_handle_emu_replay_to(struct api_call *call, struct api_emu_replay_to_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;

    if (!m->opt.replay || m->vm->state == VM_STOPPED) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "start it by 'vmctl replay'",
                 "the VM is not replayed");
        return;
    }
    if (record_begin(m, &e) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, NULL, &e);
        return;
    }
    if (in->has_count && (uint64_t)in->count < replay_count(m->vm)) {
        api_fail(call, API_E_INVALID_PARAMS, "count", "start the replay anew",
                 "the machine is past it: at instruction %llu",
                 (unsigned long long)replay_count(m->vm));
        return;
    }
    replay_until(m->vm, in->has_count ? (uint64_t)in->count : UINT64_MAX);
    if (in->run) {
        vm_resume(m->vm);
    }
    api_reply_emu_replay_to(call);
}

void api_handle_emu_state_hash(struct api_call *call, struct api_emu_state_hash_in *in)
{
    struct emu *m = control_emu(call);
    char hex[4][2 * REPLAY_HASH_LEN + 1];
    struct replay_hashes h;
    struct err e = ERR_INIT;

    (void)in;
    if (m->vm->state == VM_RUNNING) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "pause it first: 'vmctl pause'",
                 "the VM is running, and its state is another at every instruction");
        return;
    }
    if (replay_hash(m, &h, &e) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, NULL, &e);
        return;
    }
    replay_hex(h.all, hex[0]);
    replay_hex(h.cpus, hex[1]);
    replay_hex(h.devices, hex[2]);
    replay_hex(h.memory, hex[3]);
    api_reply_emu_state_hash(
        call, &(struct api_emu_state_hash_out){
                  .state = hex[0],
                  .cpus = hex[1],
                  .devices = hex[2],
                  .memory = hex[3],
                  .has_count = record_active(m),
                  .count = record_active(m) ? (int64_t)replay_count(m->vm) : 0 });
}
