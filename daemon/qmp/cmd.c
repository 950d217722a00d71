/* SPDX-License-Identifier: Apache-2.0 */
/* The method vm.qmp, and how its commands answer and ask. Owns struct qmp_cmd. Loop thread. */
#include "daemon/qmp/cmd.h"

#include "api-schema/gen/methods.h"
#include "api-schema/qmp/qmp.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/qmp/qmp.h"
#include "daemon/run/supervise.h"
#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ASK_NS INT64_C(5000000000)

/* A command's arguments stay until it has begun, whatever it answered before. */
static void cmd_free(struct qmp_cmd *c)
{
    if (c->beginning) {
        c->over = true;
        return;
    }
    json_object_put(c->kept);
    free(c->data);
    free(c);
}

static void finish(struct qmp_cmd *c, const char *what, struct json_object *take_value)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, what, take_value);
    api_reply_json(c->call, o);
    cmd_free(c);
}

void qmp_return(struct qmp_cmd *c, struct json_object *take_value)
{
    finish(c, "result", take_value);
}

void qmp_return_nothing(struct qmp_cmd *c)
{
    qmp_return(c, json_object_new_object());
}

struct json_object *qmp_error_object(const char *class, const char *fmt, va_list ap)
{
    struct json_object *e = json_object_new_object();
    char desc[1024];

    vsnprintf(desc, sizeof(desc), fmt, ap);
    api_json_set_str(e, "class", class);
    api_json_set_str(e, "desc", desc);
    return e;
}

void qmp_error(struct qmp_cmd *c, const char *class, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    finish(c, "error", qmp_error_object(class, fmt, ap));
    va_end(ap);
}

const char *qmp_arg(const struct qmp_cmd *c, const char *name)
{
    return api_json_get_str(c->args, name);
}

struct json_object *qmp_named(const char *name)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", name);
    return o;
}

void qmp_on_done(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;

    (void)result;
    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_return_nothing(c);
    }
}

struct json_object *qmp_vm_param(const struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "vm", c->vm->config.uuid);
    return o;
}

/* --- asking the emulator ------------------------------------------------------------------------------- */

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct qmp_cmd *c = arg;

    (void)gone;
    qmp_error(c, "GenericError", "VM '%s' ended meanwhile", vm->config.name);
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;

    run_on_end_cancel(c->vm->run, c);
    c->asking = false;
    if (!x) {
        c->then(c, result);
    } else if (x->code == API_E_TIMEOUT) {
        qmp_error(c, "GenericError", "the emulator of VM '%s' does not answer",
                  c->vm->config.name);
    } else if (x->code == API_E_NOT_FOUND) {
        qmp_error(c, "DeviceNotFound", "Device '%s' not found", x->object);
    } else {
        qmp_error(c, "GenericError", "%s", x->message);
    }
}

void qmp_ask(struct qmp_cmd *c, const char *method, struct json_object *take_params,
             void (*then)(struct qmp_cmd *c, struct json_object *result))
{
    struct vm *vm = c->vm;

    if (!vm->run || run_has_ended(vm->run)) {
        json_object_put(take_params);
        qmp_error(c, "GenericError", "VM '%s' is %s", vm->config.name,
                  api_vm_state_name(vm->state));
        return;
    }
    c->then = then;
    c->asking = true;
    run_on_end(vm->run, on_vm_end, c);
    if (!run_call_with(vm->run, method, take_params, ASK_NS, on_answer, c)) {
        run_on_end_cancel(vm->run, c);
        qmp_error(c, "GenericError", "the emulator of VM '%s' does not answer",
                  vm->config.name);
    }
}

/* --- vm.qmp --------------------------------------------------------------------------------------------- */

static void refuse(struct api_call *call, const char *class, const char *desc)
{
    struct qmp_cmd *c = xnew(struct qmp_cmd);

    c->call = call;
    qmp_error(c, class, "%s", desc);
}

void api_handle_vm_qmp(struct api_call *call, struct api_vm_qmp_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    const struct qmp_command *row;
    char desc[QMP_DESC_MAX];
    struct qmp_cmd *c;

    if (!vm) {
        return; /* answered, and `in` is gone */
    }
    row = qmp_find(in->execute);
    if (!row || row->session) {
        snprintf(desc, sizeof(desc), "The command %.64s has not been found", in->execute);
        refuse(call, "CommandNotFound", desc);
    } else if (access_role_of(call, vm->config.project) < row->role) {
        char who[160];
        snprintf(desc, sizeof(desc), "%s needs role %s in project %s", row->name,
                 api_role_names[row->role], vm->config.project);
        access_who(api_call_peer(call), who, sizeof(who));
        access_audit(call_daemon(call), who, "vm.qmp", row->name, "refused: denied");
        refuse(call, "GenericError", desc);
    } else if (!qmp_check(row, in->arguments, desc)) {
        refuse(call, "GenericError", desc);
    } else {
        c = xnew(struct qmp_cmd);
        c->call = call;
        c->d = call_daemon(call);
        c->vm = vm;
        c->args = in->arguments;
        c->beginning = true;
        row->run(c);
        c->beginning = false;
        if (c->over) {
            cmd_free(c);
        }
    }
}
