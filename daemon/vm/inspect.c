/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.inspect, vm.memory, vm.memory_search and snapshot.diff. A VM that has an emulator is asked; stored states are
 * opened here and read by vmd-state, a confined process: the daemon takes from it an answer of the method's type and no
 * more. Loop thread, but for look_run().
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/save.h"
#include "daemon/vm/snapshot.h"
#include "daemon/vm/state_tool.h"
#include "daemon/vm/vmops.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <unistd.h>

/* One look into stored states. */
struct look {
    struct work w;
    struct works *works;
    struct api_call *call;
    const struct api_type *out;
    struct json_object *request; /* owned; the thread adds the key */
    char *path[WORKS_FILES], *key_file, *uuid, *program;
    struct buf answer;
};

static void look_free(struct look *k)
{
    for (unsigned i = 0; i < WORKS_FILES; i++) {
        free(k->path[i]);
    }
    json_object_put(k->request);
    buf_done(&k->answer);
    free(k->key_file);
    free(k->uuid);
    free(k->program);
    free(k);
}

static int look(struct look *k, struct err *e)
{
    int files[WORKS_FILES] = { -1, -1 }, rc = 0;
    unsigned n = 0;
    uint8_t key[STATE_KEY_BYTES];

    for (; n < WORKS_FILES && k->path[n] && rc == 0; n++) {
        files[n] = open(k->path[n], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        rc = files[n] < 0 ? err_errno(e, errno, "cannot read '%s'", k->path[n]) : 0;
    }
    rc = rc == 0 ? save_key(k->key_file, k->uuid, key, e) : rc;
    if (rc == 0) {
        rc = state_tool(k->works, k->program, k->request, key, files, n, &k->answer, e);
        OPENSSL_cleanse(key, sizeof(key));
    }
    for (unsigned i = 0; i < n; i++) {
        fd_autoclose(&files[i]);
    }
    return rc;
}

static void look_run(struct work *w)
{
    struct look *k = container_of(w, struct look, w);

    w->failed = look(k, &w->e) < 0;
}

static void look_ended(struct work *w)
{
    struct look *k = container_of(w, struct look, w);
    AUTO_JSON o = NULL;
    struct api_error x = API_ERROR_INIT;
    struct err e = ERR_INIT;
    void *out = xalloc(k->out->size);

    memset(out, 0, k->out->size);
    if (w->failed) {
        api_fail(k->call, w->e.code == -ESHUTDOWN ? API_E_OVERLOAD : API_E_FILE_ERROR, k->uuid,
                 NULL, "%s", w->e.msg);
    } else if (api_json_parse(k->answer.data, k->answer.len, &o, &e) < 0 ||
               api_decode(k->out, o, API_LENIENT, "", out, &x) < 0) {
        api_fail(k->call, API_E_FILE_ERROR, k->uuid, NULL, "the state cannot be read: %s",
                 e.code ? e.msg : x.message);
    } else {
        api_reply(k->call, out);
        api_release(k->out, out);
    }
    free(out);
    look_free(k);
}

/* Looks into the file at take_path, and the other one. Answers the call. */
static void look_begin(struct api_call *call, const struct vm *vm, const struct api_type *out,
                       struct json_object *take_request, char *take_path, char *take_other)
{
    struct look *k = xnew(struct look);

    k->w.run = look_run;
    k->w.ended = look_ended;
    k->works = vm->d->pools->works;
    k->call = call;
    k->out = out;
    k->request = take_request;
    k->path[0] = take_path;
    k->path[1] = take_other;
    k->key_file = xasprintf("%s/state.key", vm->d->opt.lib);
    k->uuid = xstrdup(vm->config.uuid);
    k->program = xstrdup(vm->d->opt.state);
    if (!works_start(k->works, &k->w)) {
        api_fail(call, API_E_HOST_LIMIT, vm->config.name, "try again later",
                 "too much is under way");
        look_free(k);
    }
}

/* Path of a snapshot's file; NULL after the call was answered. */
static char *snapshot_path(struct api_call *call, const struct vm *vm, const char *name)
{
    const struct snapshot *s = snapshot_find(vm->d, vm->config.uuid, name);
    AUTO_FREE char *dir = snapshots_dir(vm);

    if (!s) {
        api_fail(call, API_E_NOT_FOUND, name, "'vmctl snapshot list' shows what there is",
                 "VM '%s' has no snapshot '%s'", vm->config.name, name);
    } else if (!s->info.memory) {
        api_fail(call, API_E_BAD_STATE, name, "'vmctl image info' tells of its disks",
                 "snapshot '%s' is of disks alone: it holds no memory and no devices", name);
    } else if (s->info.state != API_SNAPSHOT_STATE_KEPT &&
               s->info.state != API_SNAPSHOT_STATE_REVERTING) {
        api_fail(call, API_E_BAD_STATE, name, "wait for it",
                 "snapshot '%s' is not whole: it is being %s", name,
                 s->info.state == API_SNAPSHOT_STATE_MAKING ? "taken" : "deleted");
    } else {
        return snapshot_file(dir, s);
    }
    return NULL;
}

/* The stored state that is meant: *stored false when the emulator is to be asked. NULL and *stored: the call was answered. */
static char *stored_path(struct api_call *call, const struct vm *vm, const char *snapshot,
                         bool *stored)
{
    *stored = snapshot || (vm->saved && !vm->run);
    if (!*stored) {
        return NULL;
    }
    return snapshot ? snapshot_path(call, vm, snapshot)
                    : xasprintf("%s/%s/%lld/%s", vm->d->opt.lib, SPAWN_VM_DIR,
                                (long long)vm->id, VM_STATE);
}

/* Asks vmd-state to `what`, with the parameters as they are. */
static void look_stored(struct api_call *call, const struct vm *vm, const char *what,
                        const struct api_type *in_type, const void *in,
                        const struct api_type *out, char *take_path)
{
    struct json_object *request = api_encode(in_type, in);

    api_json_set_str(request, "do", what);
    look_begin(call, vm, out, request, take_path, NULL);
}

static void ask_emulator(struct op *op, const char *method, const struct api_type *in_type,
                         const struct api_type *out)
{
    struct json_object *params = api_encode(in_type, op->in);

    json_object_object_del(params, "vm");
    op->method = method;
    op->out = out;
    vmop_ask(op, params);
}

#define LOOK(name, ask, what)                                                                  \
    static void name##_begin(struct op *op)                                                    \
    {                                                                                          \
        ask_emulator(op, ask, &api_type_vm_##name##_in, &api_type_vm_##name##_out);            \
    }                                                                                          \
    static void look_##name(struct api_call *call, struct api_vm_##name##_in *in)              \
    {                                                                                          \
        struct vm *vm = call_vm(call, in->vm);                                                 \
        bool stored;                                                                           \
        if (!vm || !call_owns(call, vm)) {                                                     \
            return;                                                                            \
        }                                                                                      \
        char *path = stored_path(call, vm, in->snapshot, &stored);                             \
        if (!stored) {                                                                         \
            op_queue(vm, call, NULL, in, name##_begin, false);                                 \
        } else if (path) {                                                                     \
            look_stored(call, vm, what, &api_type_vm_##name##_in, in,                          \
                        &api_type_vm_##name##_out, path);                                      \
        }                                                                                      \
    }

LOOK(inspect, "emu.state", "fields")
LOOK(memory, "emu.memory", "memory")
LOOK(memory_search, "emu.memory_search", "search")

void api_handle_vm_inspect(struct api_call *call, struct api_vm_inspect_in *in)
{
    look_inspect(call, in);
}

void api_handle_vm_memory(struct api_call *call, struct api_vm_memory_in *in)
{
    struct vm *vm = in->has_vcpu ? call_vm(call, in->vm) : NULL;

    if (in->has_vcpu && !vm) {
        return;
    }
    if (vm && (in->snapshot || (vm->saved && !vm->run))) {
        api_fail(call, API_E_INVALID_PARAMS, "vcpu", "use a physical address",
                 "virtual addresses are known of VMs that run or are paused");
        return;
    }
    look_memory(call, in);
}

void api_handle_vm_memory_search(struct api_call *call, struct api_vm_memory_search_in *in)
{
    look_memory_search(call, in);
}

void api_handle_snapshot_diff(struct api_call *call, struct api_snapshot_diff_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *request;
    char *from, *to;

    if (!vm || !call_owns(call, vm)) {
        return;
    }
    from = snapshot_path(call, vm, in->from);
    to = from ? snapshot_path(call, vm, in->to) : NULL;
    if (!to) {
        free(from);
        return;
    }
    request = json_object_new_object();
    api_json_set_str(request, "do", "diff");
    api_json_set_int(request, "limit", in->limit);
    look_begin(call, vm, &api_type_snapshot_diff_out, request, from, to);
}
