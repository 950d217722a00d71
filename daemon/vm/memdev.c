/* SPDX-License-Identifier: Apache-2.0 */
/* See memdev.h. Owns nothing. */
#include "daemon/vm/memdev.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/vm/relay.h"

void memory_told(struct vm *vm, const char *name, int64_t plugged)
{
    struct json_object *detail = json_object_new_object();
    struct change *c = change_new(vm->d);

    api_json_set_str(detail, "name", name);
    api_json_set_int(detail, "plugged", plugged);
    change_must_tell(c);
    vm_event(vm, c, API_EVENT_TYPE_VM_MEMORY, NULL, detail);
    change_commit(c, NULL, NULL);
    json_object_put(detail);
}

void api_handle_vm_memory_resize(struct api_call *call, struct api_vm_memory_resize_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o;

    if (!vm) {
        return;
    }
    o = json_object_new_object();
    if (in->has_requested) {
        api_json_set_int(o, "requested", in->requested);
    }
    if (in->name) {
        api_json_set_str(o, "name", in->name);
    }
    relay_call(call, vm, "emu.memory_devices", o);
}
