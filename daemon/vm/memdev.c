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
#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

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

int memory_file(int64_t size, struct err *e)
{
    AUTO_FD fd = memfd_create("vmd-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        return err_errno(e, errno, "cannot make a file of %lld bytes in memory",
                         (long long)size);
    }
    return take_fd(&fd);
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
