/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.* that look into the execution engine of a running VM. Each is an operation that asks the emulator and
 * passes its answer on. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/ops.h"
#include "daemon/vmops.h"

static void engine_begin(struct op *op)
{
    op->method = "emu.engine";
    op->out = &api_type_engine_stats;
    vmop_ask(op, NULL);
}

void api_handle_vm_engine(struct api_call *call, struct api_vm_engine_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        op_queue(vm, call, NULL, in, engine_begin, false);
    }
}
