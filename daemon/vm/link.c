/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of vm.set_link and vm.nic_filter: the cards of a VM that runs. Loop thread. */
#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/vm/relay.h"

void api_handle_vm_set_link(struct api_call *call, struct api_vm_set_link_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o;

    if (vm) {
        o = json_object_new_object();
        api_json_set_str(o, "nic", in->nic);
        api_json_set_bool(o, "up", in->link == API_NIC_LINK_UP);
        relay_call(call, vm, "emu.nic_link", o);
    }
}

void api_handle_vm_nic_filter(struct api_call *call, struct api_vm_nic_filter_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    struct json_object *o;

    if (vm) {
        o = json_object_new_object();
        if (in->nic) {
            api_json_set_str(o, "nic", in->nic);
        }
        relay_call(call, vm, "emu.nic_filter", o);
    }
}
