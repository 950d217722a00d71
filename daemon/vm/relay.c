/* SPDX-License-Identifier: Apache-2.0 */
/* See relay.h. Owns struct asking, one for each call at work. Loop thread. */
#include "daemon/vm/relay.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "engine/base/mem.h"

#include <stdio.h>

#define ASK_NS INT64_C(10000000000)

struct asking {
    struct api_call *call;
    struct run *run;
    char vm[64];
};

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct asking *k = arg;

    (void)vm;
    (void)gone;
    api_fail(k->call, API_E_BAD_STATE, k->vm, NULL, "VM '%s' ended meanwhile", k->vm);
    free(k);
}

/* What the emulator found wrong with the call; all else is about the emulator. */
static enum api_code code_of(const struct api_error *x)
{
    static const enum api_code passed[] = { API_E_NOT_FOUND, API_E_UNSUPPORTED,
                                            API_E_INVALID_PARAMS, API_E_BUSY };

    for (unsigned i = 0; i < ARRAY_LEN(passed); i++) {
        if (x->code == passed[i]) {
            return passed[i];
        }
    }
    return API_E_UNRESPONSIVE;
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct asking *k = arg;

    run_on_end_cancel(k->run, k);
    if (x) {
        api_fail(k->call, code_of(x), k->vm, x->remedy[0] ? x->remedy : NULL, "VM '%s': %s",
                 k->vm, x->message);
    } else {
        call_finish(call_daemon(k->call), k->call, k->vm, json_object_get(result));
    }
    free(k);
}

void relay_call(struct api_call *call, struct vm *vm, const char *method,
                struct json_object *take_params)
{
    struct asking *k;

    if (!vm->run || run_has_ended(vm->run)) {
        json_object_put(take_params);
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it", "VM '%s' does not run",
                 vm->config.name);
        return;
    }
    k = xnew(struct asking);
    *k = (struct asking){ .call = call, .run = vm->run };
    snprintf(k->vm, sizeof(k->vm), "%s", vm->config.name);
    run_on_end(vm->run, vm_ended, k);
    if (!run_call_with(vm->run, method, take_params, ASK_NS, on_answer, k)) {
        run_on_end_cancel(vm->run, k);
        free(k);
        api_fail(call, API_E_UNRESPONSIVE, vm->config.name,
                 "'vmctl stop --force' ends it whatever it does",
                 "the emulator of VM '%s' does not answer", vm->config.name);
    }
}
