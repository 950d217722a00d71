/* SPDX-License-Identifier: Apache-2.0 */
/* Named networks. */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/procs.h"

#include <string.h>
#include <time.h>

static struct json_object *which(const struct lv_call *c)
{
    return lv_object("network", api_json_get_str(api_json_get(c->args, "net"), "uuid"));
}

static struct json_object *handle(struct json_object *info)
{
    struct json_object *one = lv_object("name", api_json_get_str(info, "name"));

    api_json_set_str(one, "uuid", api_json_get_str(info, "uuid"));
    return one;
}

static void reply_network(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "net", handle(info));
    lv_reply(c, o);
}

void lv_do_network_by_name(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", lv_object("network", lv_str(c, "name")), reply_network);
}

void lv_do_network_by_uuid(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", lv_object("network", lv_str(c, "uuid")), reply_network);
}

static void on_xml(struct lv_call *c, struct json_object *result)
{
    lv_reply(c, lv_object("xml", api_json_get_str(result, "xml")));
}

void lv_do_network_xml(struct lv_call *c)
{
    lv_ask(c, "network", "network.xml", which(c), on_xml);
}

/* --- definitions -------------------------------------------------------------------------------------- */

static void define(struct lv_call *c, const char *method)
{
    struct json_object *params = json_object_new_object();

    api_json_set(params, "config", json_object_get(c->kept));
    lv_ask(c, "network", method, params, reply_network);
}

/* When there is one of that UUID already its definition is replaced. */
static void on_known(struct lv_call *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "networks"), *params;
    const char *uuid = api_json_get_str(c->kept, "uuid");

    for (size_t i = 0; uuid && i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        if (strcmp(api_json_get_str(one, "uuid"), uuid) == 0) {
            params = lv_object("network", uuid);
            api_json_set(params, "config", json_object_get(c->kept));
            lv_ask(c, "network", "network.update", params, reply_network);
            return;
        }
    }
    define(c, "network.define");
}

void lv_do_network_define(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_network, lv_str(c, "xml"));

    if (definition) {
        c->kept = definition;
        lv_ask(c, NULL, "network.list", NULL, on_known);
    }
}

void lv_do_network_create_xml(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_network, lv_str(c, "xml"));

    if (definition) {
        c->kept = definition;
        define(c, "network.create");
    }
}

/* --- what it is ----------------------------------------------------------------------------------------- */

static void reply_int(struct lv_call *c, const char *name, int64_t value)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, name, value);
    lv_reply(c, o);
}

static void on_autostart(struct lv_call *c, struct json_object *info)
{
    reply_int(c, "autostart", api_json_get_bool(info, "autostart", false));
}

void lv_do_network_autostart(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", which(c), on_autostart);
}

void lv_do_network_set_autostart(struct lv_call *c)
{
    struct json_object *params = which(c);

    api_json_set_str(params, "autostart", lv_int(c, "autostart") ? "on" : "off");
    lv_ask(c, "network", "network.set", params, lv_done);
}

static void on_bridge(struct lv_call *c, struct json_object *info)
{
    const char *bridge = api_json_get_str(info, "bridge");

    if (bridge) {
        lv_reply(c, lv_object("name", bridge));
    } else {
        lv_fail(c, LV_E_OPERATION_FAILED, "network '%s' has no bridge of the host",
                api_json_get_str(info, "name"));
    }
}

void lv_do_network_bridge(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", which(c), on_bridge);
}

static void on_active(struct lv_call *c, struct json_object *info)
{
    reply_int(c, "active", strcmp(api_json_get_str(info, "state"), "active") == 0);
}

void lv_do_network_is_active(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", which(c), on_active);
}

void lv_do_yes_persistent(struct lv_call *c)
{
    reply_int(c, "persistent", 1);
}

static void on_leases(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "leases"), *o = json_object_new_object(),
                       *list = json_object_new_array();
    const char *only = lv_str(c, "mac");

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *one = json_object_array_get_idx(from, i), *to;
        const char *mac = api_json_get_str(one, "mac"), *ip = api_json_get_str(one, "ip"),
                   *name = api_json_get_str(one, "name");
        if (only && (!mac || strcasecmp(only, mac) != 0)) {
            continue;
        }
        to = lv_object("iface", api_json_get_str(api_json_get(c->args, "net"), "name"));
        api_json_set_int(to, "expirytime", time(NULL) + api_json_get_int(one, "seconds", 0));
        api_json_set_int(to, "type", ip && strchr(ip, ':') != NULL);
        if (mac) {
            api_json_set_str(to, "mac", mac);
        }
        api_json_set_str(to, "ipaddr", ip ? ip : "");
        api_json_set_int(to, "prefix", ip && strchr(ip, ':') ? 64 : 24);
        if (name) {
            api_json_set_str(to, "hostname", name);
        }
        json_object_array_add(list, to);
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    api_json_set(o, "leases", list);
    lv_reply(c, o);
}

void lv_do_network_leases(struct lv_call *c)
{
    lv_ask(c, "network", "network.leases", which(c), on_leases);
}
