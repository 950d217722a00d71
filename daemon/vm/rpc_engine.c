/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.* that look into the execution engine of a running VM, change one of its disks, look at
 * its screen or type, and of disk.* that look at disks or their exports. Each is an operation that asks the emulator and
 * passes its answer on. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/ops.h"
#include "daemon/vm/vmops.h"

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

/* ---- traces and coverage: the parameters but the VM go on as they are ---- */

static void ask_as(struct op *op, const char *method, const struct api_type *in_type,
                   const struct api_type *out)
{
    struct json_object *params = api_encode(in_type, op->in);
    json_object_object_del(params, "vm");
    op->method = method;
    op->out = out;
    vmop_ask(op, params);
}

#define FORWARD(name, changes)                                                                 \
    static void name##_begin(struct op *op)                                                    \
    {                                                                                          \
        ask_as(op, "emu." #name, &api_type_vm_##name##_in, &api_type_vm_##name##_out);         \
    }                                                                                          \
    void api_handle_vm_##name(struct api_call *call, struct api_vm_##name##_in *in)            \
    {                                                                                          \
        struct vm *vm = call_vm(call, in->vm);                                                 \
        if (vm) {                                                                              \
            op_queue(vm, call, NULL, in, name##_begin, changes);                               \
        }                                                                                      \
    }

FORWARD(disk_resize, true)
FORWARD(trace_start, true)
FORWARD(trace_read, false)
FORWARD(trace_stop, true)
FORWARD(coverage, false)

/* ---- screen and keyboard ---- */

FORWARD(screenshot, false)
FORWARD(send_key, true)
FORWARD(type_text, true)
FORWARD(input, true)

/* ---- faults on purpose ---- */

#define FORWARD_FAULT(name, changes)                                                           \
    static void fault_##name##_begin(struct op *op)                                            \
    {                                                                                          \
        ask_as(op, "emu.fault_" #name, &api_type_fault_##name##_in,                            \
               &api_type_fault_##name##_out);                                                  \
    }                                                                                          \
    void api_handle_fault_##name(struct api_call *call, struct api_fault_##name##_in *in)      \
    {                                                                                          \
        struct vm *vm = call_vm(call, in->vm);                                                 \
        if (vm) {                                                                              \
            op_queue(vm, call, NULL, in, fault_##name##_begin, changes);                       \
        }                                                                                      \
    }

FORWARD_FAULT(add, true)
FORWARD_FAULT(list, false)
FORWARD_FAULT(remove, true)

/* ---- disks: looking at them, exports ---- */

#define FORWARD_DISK(name, ask, changes)                                                       \
    static void disk_##name##_begin(struct op *op)                                             \
    {                                                                                          \
        ask_as(op, "emu." ask, &api_type_disk_##name##_in, &api_type_disk_##name##_out);       \
    }                                                                                          \
    void api_handle_disk_##name(struct api_call *call, struct api_disk_##name##_in *in)        \
    {                                                                                          \
        struct vm *vm = call_vm(call, in->vm);                                                 \
        if (vm) {                                                                              \
            op_queue(vm, call, NULL, in, disk_##name##_begin, changes);                        \
        }                                                                                      \
    }

FORWARD_DISK(bitmaps, "disk_bitmaps", false)
FORWARD_DISK(snapshots, "disk_snapshots", false)
FORWARD_DISK(snapshot_delete, "disk_snapshot_delete", true)
FORWARD_DISK(export_add, "export_add", true)
FORWARD_DISK(export_remove, "export_remove", true)
FORWARD_DISK(exports, "exports", false)
FORWARD_DISK(export_stop, "export_stop", true)
