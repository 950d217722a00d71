/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels of definitions and of VMs that run (channels.h). Owns nothing. Loop thread.
 */
#include "daemon/vm/channels.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/auth/stream.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ASK_NS INT64_C(10000000000)

static const char *name_at(const struct api_vm_config *c, size_t i)
{
    return i < c->n_channels ? c->channels[i].name : AGENT_CHANNEL;
}

int channels_check(const struct api_vm_config *c, struct api_error *x)
{
    size_t n = c->n_channels + (c->agent ? 1 : 0);
    for (size_t i = 0; i < n; i++) {
        char mine[VM_CHANNEL_LEN + 1], other[VM_CHANNEL_LEN + 1];
        vm_channel_socket(mine, name_at(c, i));
        for (size_t k = 0; k < i; k++) {
            vm_channel_socket(other, name_at(c, k));
            if (strcmp(mine, other) == 0) {
                AUTO_FREE char *member = xasprintf("config.channels[%zu].name", k);
                return api_error_set(
                    x, API_E_INVALID_PARAMS, member, "give it another name",
                    "channels %zu and %zu of VM '%s' cannot both be there: '%s' "
                    "and '%s'",
                    k, i, c->name, name_at(c, k), name_at(c, i));
            }
        }
    }
    return 0;
}

struct json_object *channels_request(const struct api_vm_config *c)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < c->n_channels + (c->agent ? 1 : 0); i++) {
        json_object_array_add(list, json_object_new_string(name_at(c, i)));
    }
    return list;
}

int channels_listen(struct vm *vm, const char *name, struct err *e)
{
    AUTO_FREE char *path = runfs_channel(&vm->d->opt, vm->id, name);
    return unix_listen(path, 0660, 8, e);
}

/* ---- vm.channel ---- */

struct looking {
    struct vmd *d;
    struct vm *vm;
    struct api_call *call;
    const struct api_vm_channel_in *in; /* the call's */
};

static void on_end(void *arg, struct vm *vm, bool gone)
{
    struct looking *k = arg;
    (void)gone;
    api_fail(k->call, API_E_BAD_STATE, vm->config.name, NULL, "VM '%s' ended meanwhile",
             vm->config.name);
    free(k);
}

static const struct api_emu_channel *find(const struct api_emu_channels_out *out,
                                          const char *name)
{
    for (size_t i = 0; i < out->n_channels; i++) {
        if (strcmp(out->channels[i].name, name) == 0) {
            return &out->channels[i];
        }
    }
    return NULL;
}

static void ignore(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void resize(struct looking *k, const struct api_vm_channel_in *in)
{
    struct json_object *p = json_object_new_object();
    api_json_set_str(p, "name", in->channel);
    api_json_set_int(p, "columns", in->columns);
    api_json_set_int(p, "rows", in->rows);
    run_call_with(k->vm->run, "emu.channel_resize", p, ASK_NS, ignore, NULL);
}

static void tell_where(struct looking *k, const struct api_vm_channel_in *in,
                       const struct api_emu_channel *c)
{
    AUTO_FREE char *path = runfs_channel(&k->d->opt, k->vm->id, in->channel);
    AUTO_FREE char *ticket = stream_ticket(k->d, api_call_peer(k->call), path,
                                           k->vm->config.name);
    if (c->console && in->has_columns && in->has_rows) {
        resize(k, in);
    }
    api_reply_vm_channel(k->call, &(struct api_vm_channel_out){ .path = path,
                                                                .console = c->console,
                                                                .open = c->open,
                                                                .connected = c->connected,
                                                                .ticket = ticket });
}

static void on_channels(void *arg, struct json_object *result, const struct api_error *x)
{
    struct looking *k = arg;
    const struct api_vm_channel_in *in = k->in;
    struct api_emu_channels_out out;
    run_on_end_cancel(k->vm->run, k);
    if (x) {
        api_fail(k->call, API_E_UNRESPONSIVE, in->vm, NULL, "VM '%s' does not answer", in->vm);
    } else if (api_decode(&api_type_emu_channels_out, result, API_LENIENT, "", &out, NULL) !=
               0) {
        api_fail(k->call, API_E_UNRESPONSIVE, in->vm, NULL,
                 "the emulator of VM '%s' cannot be understood", in->vm);
    } else {
        const struct api_emu_channel *c = find(&out, in->channel);
        if (c) {
            tell_where(k, in, c);
        } else {
            api_fail(k->call, API_E_NOT_FOUND, in->channel,
                     "'vmctl attach --channel' adds one while it runs",
                     "VM '%s' has no channel '%s'", in->vm, in->channel);
        }
        api_release(&api_type_emu_channels_out, &out);
    }
    free(k);
}

void api_handle_vm_channel(struct api_call *call, struct api_vm_channel_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (!vm) {
        return;
    }
    if (!vm->run || run_pid(vm->run) == 0 || vm->state == API_VM_STATE_STARTING) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s, its channels are there while it runs", vm->config.name,
                 api_vm_state_name(vm->state));
        return;
    }
    struct looking *k = xnew(struct looking);
    *k = (struct looking){ .d = vm->d, .vm = vm, .call = call, .in = in };
    run_on_end(vm->run, on_end, k);
    if (!run_call_with(vm->run, "emu.channels", NULL, ASK_NS, on_channels, k)) {
        run_on_end_cancel(vm->run, k);
        free(k);
        api_fail(call, API_E_UNRESPONSIVE, vm->config.name, NULL, "VM '%s' does not answer",
                 vm->config.name);
    }
}
