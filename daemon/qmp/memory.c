/* SPDX-License-Identifier: Apache-2.0 */
/* QMP commands about memory that comes and goes: the balloon, memory devices. Loop thread. */
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/qmp.h"
#include "engine/base/str.h"

#include <stdlib.h>

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

/* --- memory devices ------------------------------------------------------------------------------------------ */

static int64_t number(struct json_object *device, const char *name)
{
    return api_json_get_int(device, name, 0);
}

static struct json_object *memory_device(struct json_object *device)
{
    struct json_object *o = json_object_new_object(), *data = json_object_new_object();
    const char *name = api_json_get_str(device, "name"), *at = api_json_get_str(device, "address");

    api_json_set_str(data, "id", name ? name : "");
    api_json_set_int(data, "memaddr", at ? (int64_t)strtoull(at, NULL, 16) : 0);
    api_json_set_int(data, "requested-size", number(device, "requested"));
    api_json_set_int(data, "size", number(device, "plugged"));
    api_json_set_int(data, "max-size", number(device, "size"));
    api_json_set_int(data, "block-size", number(device, "block"));
    api_json_set_int(data, "node", 0);
    api_json_set_str(data, "memdev", "/objects/ram");
    api_json_set_str(o, "type", "virtio-mem");
    api_json_set(o, "data", data);
    return o;
}

static void on_devices(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *out = json_object_new_array(), *list = api_json_get(result, "devices");

    for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list); i++) {
        json_object_array_add(out, memory_device(json_object_array_get_idx(list, i)));
    }
    qmp_return(c, out);
}

void qmp_do_query_memory_devices(struct qmp_cmd *c)
{
    if (c->vm->config.n_memory_devices == 0 && !c->vm->config.has_memory_max) {
        qmp_return(c, json_object_new_array());
    } else {
        qmp_ask(c, "emu.memory_devices", NULL, on_devices);
    }
}

void qmp_resize_memory(struct qmp_cmd *c, const char *name, struct json_object *value)
{
    struct json_object *p = json_object_new_object();

    if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0) {
        json_object_put(p);
        qmp_error(c, "GenericError", "Invalid parameter type for 'requested-size', expected: size");
        return;
    }
    api_json_set_str(p, "name", name);
    api_json_set_int(p, "requested", json_object_get_int64(value));
    qmp_ask(c, "emu.memory_devices", p, on_set);
}
