/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object tree of QMP over our devices:
 *
 *   /                      container: machine
 *   /machine               the board: its vCPUs and `peripheral`
 *   /machine/cpu[N]
 *   /machine/peripheral    the devices
 *   /machine/peripheral/ID properties of the device, and state.NAME for what it holds now
 *
 * Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include "api-schema/gen/types.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>

static const char peripheral[] = "/machine/peripheral";

static const char *machine_class(const struct qmp_cmd *c)
{
    static const char *const classes[] = { [API_MACHINE_RV_VIRT] = "rv-virt-machine",
                                           [API_MACHINE_MICROVM] = "microvm-machine",
                                           [API_MACHINE_Q35] = "q35-machine" };

    return classes[c->vm->config.machine];
}

static void add(struct json_object *list, const char *name, const char *type, const char *doc)
{
    struct json_object *o = qmp_named(name);

    api_json_set_str(o, "type", type);
    if (doc) {
        api_json_set_str(o, "description", doc);
    }
    json_object_array_add(list, o);
}

static void not_found(struct qmp_cmd *c, const char *path)
{
    qmp_error(c, "DeviceNotFound", "Device '%.200s' not found", path);
}

/* The device a path names, NULL: none. */
static const char *device_of(const char *path)
{
    size_t n = sizeof(peripheral) - 1;
    bool below = str_starts(path, peripheral) && path[n] == '/' && path[n + 1];

    return below && strlen(path + n + 1) <= 64 ? path + n + 1 : NULL;
}

static void ask_device(struct qmp_cmd *c, const char *id,
                       void (*then)(struct qmp_cmd *c, struct json_object *result))
{
    struct json_object *params = NULL;

    if (id) {
        params = json_object_new_object();
        api_json_set_str(params, "id", id);
    }
    qmp_ask(c, "emu.devices", params, then);
}

/* The i-th device of an answer; what the emulator sends is looked at with care. */
static struct json_object *device_at(struct json_object *result, size_t i)
{
    struct json_object *list = api_json_get(result, "devices");

    return json_object_is_type(list, json_type_array) && i < json_object_array_length(list)
               ? json_object_array_get_idx(list, i)
               : NULL;
}

/* Calls fn(arg, name, value) for the lines "name = value" of a state; sub-objects are indented, and left out. */
static void each_state(struct json_object *device,
                       void (*fn)(void *arg, const char *name, const char *value), void *arg)
{
    const char *state = api_json_get_str(device, "state");
    AUTO_FREE char *text = xstrdup(state ? state : "");
    char *rest = text, *line;

    while ((line = strsep(&rest, "\n"))) {
        char *equals = strstr(line, " = ");
        if (equals && line[0] != ' ') {
            *equals = 0;
            fn(arg, line, equals + 3);
        }
    }
}

static void add_state(void *arg, const char *name, const char *value)
{
    AUTO_FREE char *full = xasprintf("state.%s", name);

    (void)value;
    add(arg, full, "string", NULL);
}

static struct json_object *properties_of(struct json_object *o)
{
    struct json_object *list = api_json_get(o, "properties");

    return json_object_is_type(list, json_type_array) ? list : NULL;
}

static void add_properties(struct json_object *to, struct json_object *from, bool defaults)
{
    for (size_t i = 0; from && i < json_object_array_length(from); i++) {
        struct json_object *p = json_object_array_get_idx(from, i);
        const char *name = api_json_get_str(p, "name"), *type = api_json_get_str(p, "type");
        struct json_object *value = api_json_get(p, "value");

        if (!name || !type) {
            continue;
        }
        add(to, name, type, api_json_get_str(p, "doc"));
        if (defaults && value) {
            api_json_set(json_object_array_get_idx(to, json_object_array_length(to) - 1),
                         "default-value", json_object_get(value));
        }
    }
}

static void with_device_list(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *device = device_at(result, 0), *list;

    if (!device) {
        not_found(c, qmp_arg(c, "path"));
        return;
    }
    list = json_object_new_array();
    add(list, "type", "string", NULL);
    add_properties(list, properties_of(device), false);
    each_state(device, add_state, list);
    qmp_return(c, list);
}

static void with_all_devices(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = json_object_new_array(), *device;

    add(list, "type", "string", NULL);
    for (size_t i = 0; (device = device_at(result, i)); i++) {
        const char *id = api_json_get_str(device, "id");
        const char *class = api_json_get_str(device, "device_class");
        AUTO_FREE char *type = xasprintf("child<%s>", class ? class : "device");
        add(list, id ? id : "", type, NULL);
    }
    qmp_return(c, list);
}

static void list_machine(struct qmp_cmd *c)
{
    struct json_object *list = json_object_new_array();
    char name[24];

    add(list, "type", "string", NULL);
    add(list, "kernel", "string", NULL);
    add(list, "initrd", "string", NULL);
    add(list, "append", "string", NULL);
    add(list, "firmware", "string", NULL);
    add(list, "peripheral", "child<container>", NULL);
    for (int64_t i = 0; i < c->vm->config.cpus; i++) {
        snprintf(name, sizeof(name), "cpu[%d]", (int)i);
        add(list, name, "child<cpu>", NULL);
    }
    qmp_return(c, list);
}

/* Number of the vCPU, -1: the path names none that there is. */
static int64_t cpu_of(const struct qmp_cmd *c, const char *path)
{
    int64_t index = -1;
    int end = 0;

    if (sscanf(path, "/machine/cpu[%" SCNd64 "]%n", &index, &end) != 1 || end == 0 ||
        path[end] || index >= c->vm->config.cpus) {
        return -1;
    }
    return index;
}

void qmp_do_qom_list(struct qmp_cmd *c)
{
    const char *path = qmp_arg(c, "path"), *device = device_of(path);
    struct json_object *list;

    if (device) {
        ask_device(c, device, with_device_list);
    } else if (strcmp(path, peripheral) == 0) {
        ask_device(c, NULL, with_all_devices);
    } else if (strcmp(path, "/machine") == 0) {
        list_machine(c);
    } else if (strcmp(path, "/") == 0 || cpu_of(c, path) >= 0) {
        list = json_object_new_array();
        add(list, "type", "string", NULL);
        if (strcmp(path, "/") == 0) {
            AUTO_FREE char *type = xasprintf("child<%s>", machine_class(c));
            add(list, "machine", type, NULL);
        } else {
            add(list, "core-id", "int", NULL);
        }
        qmp_return(c, list);
    } else {
        not_found(c, path);
    }
}

/* --- qom-get --------------------------------------------------------------------------------------------------- */

static void no_property(struct qmp_cmd *c, const char *type)
{
    qmp_error(c, "GenericError", "Property '%.64s.%.100s' not found", type,
              qmp_arg(c, "property"));
}

struct wanted {
    const char *name;
    char *value; /* owned, NULL: not met */
};

static void match_state(void *arg, const char *name, const char *value)
{
    struct wanted *w = arg;

    if (!w->value && str_starts(w->name, "state.") && strcmp(w->name + 6, name) == 0) {
        w->value = xstrdup(value);
    }
}

static void with_device_get(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *device = device_at(result, 0), *props = properties_of(device);
    struct wanted w = { .name = qmp_arg(c, "property") };
    const char *class = api_json_get_str(device, "device_class");

    if (!device || !class) {
        not_found(c, qmp_arg(c, "path"));
        return;
    }
    if (strcmp(w.name, "type") == 0) {
        qmp_return(c, json_object_new_string(class));
        return;
    }
    for (size_t i = 0; props && i < json_object_array_length(props); i++) {
        struct json_object *p = json_object_array_get_idx(props, i);
        const char *name = api_json_get_str(p, "name");
        struct json_object *value = api_json_get(p, "value");
        if (name && strcmp(name, w.name) == 0) {
            qmp_return(c, value ? json_object_get(value) : json_object_new_string(""));
            return;
        }
    }
    each_state(device, match_state, &w);
    if (w.value) {
        qmp_return(c, json_object_new_string(w.value));
        free(w.value);
    } else {
        no_property(c, class);
    }
}

static void get_machine(struct qmp_cmd *c)
{
    const struct api_vm_config *v = &c->vm->config;
    const struct {
        const char *name, *value;
    } props[] = {
        { "type", machine_class(c) }, { "kernel", v->kernel },     { "initrd", v->initrd },
        { "append", v->append },      { "firmware", v->firmware },
    };
    const char *name = qmp_arg(c, "property");

    for (unsigned i = 0; i < ARRAY_LEN(props); i++) {
        if (strcmp(name, props[i].name) == 0) {
            qmp_return(c, json_object_new_string(props[i].value ? props[i].value : ""));
            return;
        }
    }
    no_property(c, machine_class(c));
}

void qmp_do_qom_get(struct qmp_cmd *c)
{
    const char *path = qmp_arg(c, "path"), *device = device_of(path);
    const char *name = qmp_arg(c, "property");
    int64_t cpu = cpu_of(c, path);

    if (device) {
        ask_device(c, device, with_device_get);
    } else if (strcmp(path, "/machine") == 0) {
        get_machine(c);
    } else if (cpu >= 0 && strcmp(name, "core-id") == 0) {
        qmp_return(c, json_object_new_int64(cpu));
    } else if (cpu >= 0 || strcmp(path, "/") == 0 || strcmp(path, peripheral) == 0) {
        const char *type = cpu >= 0 ? "cpu" : "container";
        if (strcmp(name, "type") == 0) {
            qmp_return(c, json_object_new_string(type));
        } else {
            no_property(c, type);
        }
    } else {
        not_found(c, path);
    }
}

static void with_device_set(struct qmp_cmd *c, struct json_object *result)
{
    const char *class = api_json_get_str(device_at(result, 0), "device_class");

    if (class && strcmp(class, "virtio-mem") == 0 &&
        strcmp(qmp_arg(c, "property"), "requested-size") == 0) {
        qmp_resize_memory(c, device_of(qmp_arg(c, "path")), api_json_get(c->args, "value"));
    } else if (class) {
        qmp_error(c, "GenericError", "Property '%.64s.%.100s' is not writable", class,
                  qmp_arg(c, "property"));
    } else {
        not_found(c, qmp_arg(c, "path"));
    }
}

void qmp_do_qom_set(struct qmp_cmd *c)
{
    const char *path = qmp_arg(c, "path"), *device = device_of(path);

    if (device) {
        ask_device(c, device, with_device_set);
    } else if (strcmp(path, "/") == 0 || strcmp(path, "/machine") == 0 ||
               strcmp(path, peripheral) == 0 || cpu_of(c, path) >= 0) {
        qmp_error(c, "GenericError", "Property '%.100s' is not writable",
                  qmp_arg(c, "property"));
    } else {
        not_found(c, path);
    }
}

/* --- classes and devices ------------------------------------------------------------------------------------ */

static void with_class(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = json_object_new_array();

    add_properties(list, properties_of(result), true);
    qmp_return(c, list);
}

void qmp_do_device_list_properties(struct qmp_cmd *c)
{
    const char *name = qmp_arg(c, "typename");
    struct json_object *params;

    if (strlen(name) > 64) {
        not_found(c, name);
        return;
    }
    params = json_object_new_object();
    api_json_set_str(params, "name", name);
    qmp_ask(c, "emu.device_class", params, with_class);
}
