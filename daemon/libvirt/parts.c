/* SPDX-License-Identifier: Apache-2.0 */
/* See parts.h. */
#include "daemon/libvirt/parts.h"

#include "api-schema/json/codec.h"
#include "daemon/libvirt/call.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <string.h>

/* --- answers ----------------------------------------------------------------------------------------- */

void lv_reply_int(struct lv_call *c, const char *name, int64_t value)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, name, value);
    lv_reply(c, o);
}

void lv_reply_str(struct lv_call *c, const char *name, const char *text)
{
    lv_reply(c, lv_object(name, text));
}

void lv_reply_xml(struct lv_call *c, struct json_object *result)
{
    lv_reply(c, lv_object("xml", api_json_get_str(result, "xml")));
}

/* --- typed parameters ----------------------------------------------------------------------------------- */

static struct json_object *param(struct json_object *list, const char *field, char type)
{
    struct json_object *o = lv_object("field", field);
    const char word[2] = { type, 0 };

    api_json_set_str(o, "type", word);
    json_object_array_add(list, o);
    return o;
}

void lv_param(struct json_object *list, const char *field, char type, int64_t value)
{
    struct json_object *o = param(list, field, type);

    if (type == 'b') {
        api_json_set_bool(o, "value", value);
    } else {
        api_json_set_int(o, "value", value);
    }
}

void lv_param_str(struct json_object *list, const char *field, const char *text)
{
    api_json_set_str(param(list, field, 's'), "value", text);
}

struct json_object *lv_given(const struct lv_call *c, const char *field)
{
    struct json_object *list = api_json_get(c->args, "params");

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        if (strcmp(api_json_get_str(o, "field"), field) == 0) {
            return api_json_get(o, "value");
        }
    }
    return NULL;
}

bool lv_only(struct lv_call *c, const char *const *fields)
{
    struct json_object *list = api_json_get(c->args, "params");

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        const char *name = api_json_get_str(json_object_array_get_idx(list, i), "field");
        size_t k = 0;
        while (fields[k] && strcmp(fields[k], name) != 0) {
            k++;
        }
        if (!fields[k]) {
            lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "'%s' cannot be set here", name);
            return false;
        }
    }
    return true;
}

void lv_reply_params(struct lv_call *c, struct json_object *take_list)
{
    struct json_object *o = json_object_new_object();
    int64_t n = (int64_t)json_object_array_length(take_list);

    api_json_set_int(o, "nparams", lv_int(c, "nparams") ? 0 : n);
    if (lv_int(c, "nparams") == 0) {
        json_object_put(take_list);
    } else if (lv_int(c, "nparams") < n) {
        json_object_put(take_list);
        json_object_put(o);
        lv_fail(c, LV_E_INVALID_ARG, "there is no room for all %lld parameters", (long long)n);
        return;
    } else {
        api_json_set_int(o, "nparams", n);
        api_json_set(o, "params", take_list);
    }
    lv_reply(c, o);
}

/* --- devices -------------------------------------------------------------------------------------------- */

struct json_object *lv_config(const struct vm *vm)
{
    return api_encode(&api_type_vm_config, &vm->config);
}

static bool is(const char *a, const char *b)
{
    return a && b && strcasecmp(a, b) == 0;
}

void lv_disk_name(const struct vm *vm, int at, char *name, size_t size)
{
    const char *own = vm->config.disks[at].name;

    if (own) {
        snprintf(name, size, "%s", own);
    } else {
        snprintf(name, size, "disk%d", at);
    }
}

void lv_nic_name(const struct vm *vm, int at, char *name, size_t size)
{
    const char *own = vm->config.nics[at].name;

    if (own) {
        snprintf(name, size, "%s", own);
    } else {
        snprintf(name, size, "nic%d", at);
    }
}

char *lv_disk_dev(const struct vm *vm, int at)
{
    AUTO_JSON config = lv_config(vm);
    char **devs = xml_disk_devs(config), *its = NULL;

    for (int i = 0; devs[i]; i++) {
        if (i == at) {
            its = devs[i];
        } else {
            free(devs[i]);
        }
    }
    free(devs);
    return its ? its : xstrdup("");
}

int lv_disk(struct lv_call *c, const struct vm *vm, const char *what)
{
    AUTO_JSON config = vm ? lv_config(vm) : NULL;
    char **devs = vm ? xml_disk_devs(config) : NULL, name[80];
    int found = -1;

    for (size_t i = 0; vm && i < vm->config.n_disks && what; i++) {
        lv_disk_name(vm, (int)i, name, sizeof(name));
        if (is(name, what) ||
            (vm->config.disks[i].file && strcmp(vm->config.disks[i].file, what) == 0) ||
            is(devs[i], what)) {
            found = (int)i;
            break;
        }
    }
    for (size_t i = 0; devs && devs[i]; i++) {
        free(devs[i]);
    }
    free(devs);
    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
    } else if (found < 0) {
        lv_fail(c, LV_E_INVALID_ARG, "domain '%s' has no disk '%s'", vm->config.name,
                what ? what : "");
    }
    return found;
}

int lv_nic(struct lv_call *c, const struct vm *vm, const char *what)
{
    char name[80];

    for (size_t i = 0; vm && i < vm->config.n_nics; i++) {
        const struct api_nic *n = &vm->config.nics[i];
        lv_nic_name(vm, (int)i, name, sizeof(name));
        if (is(name, what) || is(n->ifname, what) || is(n->mac, what)) {
            return (int)i;
        }
    }
    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
    } else {
        lv_fail(c, LV_E_INVALID_ARG, "domain '%s' has no network card '%s'", vm->config.name,
                what);
    }
    return -1;
}

int64_t lv_bytes(int64_t kib)
{
    return kib < 0 || kib > INT64_MAX / 1024 ? INT64_MAX : kib * 1024;
}

/* --- calls ------------------------------------------------------------------------------------------------ */

void lv_change(struct lv_call *c, const char *member, struct json_object *take_value)
{
    struct json_object *params = lv_vm(c), *set = json_object_new_object();

    json_object_object_add(set, member, take_value);
    api_json_set(params, "set", set);
    lv_ask(c, "domain", "vm.set", params, lv_done);
}

bool lv_where(struct lv_call *c, const struct vm *vm, bool *live, bool *config)
{
    int64_t flags = lv_int(c, "flags");
    bool active = vm && lv_active(vm->state);

    *live = flags & LV_LIVE;
    *config = flags & LV_CONFIG;
    if (!*live && !*config) {
        *live = active;
        *config = !active;
    }
    if (*live && !active) {
        lv_fail(c, LV_E_OPERATION_INVALID, "the domain is not running");
        return false;
    }
    return true;
}

void lv_agent(struct lv_call *c, const char *execute, struct json_object *take_arguments,
              void (*then)(struct lv_call *c, struct json_object *result))
{
    struct json_object *params = lv_vm(c);

    api_json_set_str(params, "execute", execute);
    if (take_arguments) {
        api_json_set(params, "arguments", take_arguments);
    }
    lv_ask(c, "domain", "agent.command", params, then);
}
