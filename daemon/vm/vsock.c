/* SPDX-License-Identifier: Apache-2.0 */
/* Handler of vm.vsock: where the sockets of a guest are. Loop thread. */
#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/spawn/proto.h"
#include "engine/base/mem.h"

#include <unistd.h>

void api_handle_vm_vsock(struct api_call *call, struct api_vm_vsock_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);

    if (!vm) {
        return;
    }
    if (!vm->run || run_pid(vm->run) == 0 || vm->state == API_VM_STATE_STARTING) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s, its sockets are there while it runs", vm->config.name,
                 api_vm_state_name(vm->state));
        return;
    }
    AUTO_FREE char *path = runfs_path(&d->opt, vm->id, VM_VSOCK);
    AUTO_FREE char *listen = xasprintf("%s_", path);
    if (!vm->config.vsock || access(path, F_OK) != 0) {
        api_fail(call, API_E_UNSUPPORTED, vm->config.name,
                 "give it some: 'vmctl set VM --vsock 3', then start it anew",
                 "VM '%s' has no sockets to its guest", vm->config.name);
        return;
    }
    api_reply_vm_vsock(call, &(struct api_vm_vsock_out){ .cid = vm->config.vsock->cid,
                                                         .path = path,
                                                         .listen = listen });
}
