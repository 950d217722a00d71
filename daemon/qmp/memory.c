/* SPDX-License-Identifier: Apache-2.0 */
/* QMP commands about memory that comes and goes: the balloon. Loop thread. */
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/qmp.h"

/* Answers the command of a VM without one. */
static bool no_balloon(struct qmp_cmd *c)
{
    if (!c->vm->config.balloon) {
        qmp_error(c, "DeviceNotActive", "No balloon device has been activated");
    }
    return !c->vm->config.balloon;
}

static void on_looked(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "actual", api_json_get_int(result, "actual", 0));
    qmp_return(c, o);
}

void qmp_do_query_balloon(struct qmp_cmd *c)
{
    if (!no_balloon(c)) {
        qmp_ask(c, "emu.balloon", NULL, on_looked);
    }
}

static void on_set(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

void qmp_do_balloon(struct qmp_cmd *c)
{
    int64_t value = api_json_get_int(c->args, "value", 0), all = c->vm->config.memory;

    if (no_balloon(c)) {
        return;
    }
    if (value <= 0) {
        qmp_error(c, "GenericError", "Parameter 'value' expects a size greater than 0");
        return;
    }
    struct json_object *p = json_object_new_object();
    value = value < INT64_C(1048576) ? INT64_C(1048576) : value;
    api_json_set_int(p, "memory", value < all ? value : all);
    qmp_ask(c, "emu.balloon", p, on_set);
}
