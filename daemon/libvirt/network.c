/* SPDX-License-Identifier: Apache-2.0 */
/* Named networks. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"

#include <stdio.h>
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

void lv_do_network_xml(struct lv_call *c)
{
    lv_ask(c, "network", "network.xml", which(c), lv_reply_xml);
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

static void on_autostart(struct lv_call *c, struct json_object *info)
{
    lv_reply_int(c, "autostart", api_json_get_bool(info, "autostart", false));
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
    lv_reply_int(c, "active", strcmp(api_json_get_str(info, "state"), "active") == 0);
}

void lv_do_network_is_active(struct lv_call *c)
{
    lv_ask(c, "network", "network.get", which(c), on_active);
}

void lv_do_yes_persistent(struct lv_call *c)
{
    lv_reply_int(c, "persistent", 1);
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

/* --- parts of definitions ----------------------------------------------------------------------------- */

/* virNetworkUpdateSection, how such a part stands in a network, and where it is in the definition. */
static const struct section {
    int number;
    const char *before, *behind, *list, *key,
        *other; /* key, other: what names an element of the list */
    bool of_ip;
} sections[] = { { 4, "<ip address='192.0.2.1' prefix='24'><dhcp>", "</dhcp></ip>", "hosts",
                   "mac", "ip", true },
                 { 5, "<ip address='192.0.2.1' prefix='24'><dhcp>", "</dhcp></ip>", "dhcp",
                   "start", "end", true },
                 { 9, "", "", "portgroups", "name", NULL, false },
                 { 10, "<dns>", "</dns>", "dns_hosts", "ip", NULL, false } };

enum { MODIFY = 1, DELETE = 2, ADD_LAST = 3, ADD_FIRST = 4 };

static const struct section *section_of(const struct lv_call *c)
{
    for (unsigned i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        if (sections[i].number == lv_int(c, "section")) {
            return &sections[i];
        }
    }
    return NULL;
}

/* Where the lists of the section are in a definition: in it, or in one of its addresses. */
static struct json_object *holder(const struct section *s, struct json_object *config,
                                  int64_t parent)
{
    struct json_object *ips = api_json_get(config, "ips"), *one;

    if (!s->of_ip) {
        return config;
    }
    for (size_t i = 0; ips && parent < 0 && i < json_object_array_length(ips); i++) {
        one = json_object_array_get_idx(ips, i);
        struct json_object *ranges = api_json_get(one, "dhcp");
        if (ranges && json_object_array_length(ranges)) {
            return one;
        }
    }
    return ips ? json_object_array_get_idx(ips, parent < 0 ? 0 : (size_t)parent) : NULL;
}

static bool alike(const struct section *s, struct json_object *a, struct json_object *b)
{
    const char *x = api_json_get_str(a, s->key), *y = api_json_get_str(b, s->key),
               *p = s->other ? api_json_get_str(a, s->other) : NULL,
               *q = s->other ? api_json_get_str(b, s->other) : NULL;

    if (x || y) {
        return x && y && strcasecmp(x, y) == 0;
    }
    return p && q && strcmp(p, q) == 0;
}

/* `list` with the part added, changed or without it; the caller's. NULL: the call has failed. */
static struct json_object *changed_list(struct lv_call *c, const struct section *s,
                                        struct json_object *list, struct json_object *part)
{
    int64_t command = lv_int(c, "command");
    struct json_object *out = json_object_new_array();
    bool found = false;

    if (command == ADD_FIRST) {
        json_object_array_add(out, json_object_get(part));
    }
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *one = json_object_array_get_idx(list, i);
        bool is = alike(s, one, part);
        found |= is;
        if (!is || command == ADD_FIRST || command == ADD_LAST) {
            json_object_array_add(out, json_object_get(one));
        } else if (command == MODIFY) {
            json_object_array_add(out, json_object_get(part));
        }
    }
    if (command == ADD_LAST) {
        json_object_array_add(out, json_object_get(part));
    }
    if (found == (command == ADD_FIRST || command == ADD_LAST)) {
        json_object_put(out);
        lv_fail(c, LV_E_OPERATION_INVALID,
                found ? "the network has such a part already" : "the network has no such part");
        return NULL;
    }
    return out;
}

static void on_to_update(struct lv_call *c, struct json_object *info)
{
    const struct section *s = section_of(c);
    struct json_object *params, *config = api_json_get(info, "config"), *in, *part, *list;

    in = holder(s, c->kept, 0);
    part = in ? json_object_array_get_idx(api_json_get(in, s->list), 0) : NULL;
    in = holder(s, config, lv_int(c, "parent_index"));
    if (!part || !in) {
        lv_fail(c, LV_E_OPERATION_INVALID, "there is no such part, or no place for it");
        return;
    }
    list = changed_list(c, s, api_json_get(in, s->list), part);
    if (list) {
        api_json_set(in, s->list, list);
        params = which(c);
        api_json_set(params, "config", json_object_get(config));
        lv_ask(c, "network", "network.update", params, lv_done);
    }
}

void lv_do_network_update(struct lv_call *c)
{
    const struct section *s = section_of(c);
    AUTO_BUF text = BUF_INIT;

    if (!s || lv_int(c, "command") < MODIFY || lv_int(c, "command") > ADD_FIRST) {
        lv_fail(c, LV_E_OPERATION_UNSUPPORTED,
                "reservations and ranges of DHCP, names of DNS and port groups are changed in "
                "place; "
                "else 'net-edit' or 'net-define'");
        return;
    }
    buf_printf(&text, "<network><name>x</name>%s%s%s</network>", s->before, lv_str(c, "xml"),
               s->behind);
    c->kept = lv_read_xml(c, &xml_network, text.data);
    if (c->kept) {
        lv_ask(c, "network", "network.get", which(c), on_to_update);
    }
}

/* --- ports ---------------------------------------------------------------------------------------------- */

/* A port has no UUID of its own: it is made of the network's, the VM's name and the card's. */
static void port_uuid(const struct lv_call *c, struct json_object *port, char uuid[37])
{
    const char *words[3] = { api_json_get_str(api_json_get(c->args, "net"), "uuid"),
                             api_json_get_str(port, "vm"), api_json_get_str(port, "nic") };
    uint64_t h[2] = { UINT64_C(0xcbf29ce484222325), UINT64_C(0x9ae16a3b2f90404f) };

    for (unsigned i = 0; i < 3; i++) {
        for (const char *p = words[i] ? words[i] : "";; p++) { /* FNV-1a, the ends too */
            h[0] = (h[0] ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
            h[1] = (h[1] ^ (unsigned char)*p) * UINT64_C(0x100000001b3) + h[0];
            if (!*p) {
                break;
            }
        }
    }
    snprintf(uuid, 37, "%08x-%04x-8%03x-%04x-%012llx", (unsigned)(h[0] >> 32),
             (unsigned)(h[0] >> 16) & 0xffff, (unsigned)h[0] & 0xfff,
             ((unsigned)(h[1] >> 48) & 0x3fff) | 0x8000,
             (unsigned long long)(h[1] & UINT64_C(0xffffffffffff)));
}

static struct json_object *port_handle(struct lv_call *c, const char *uuid)
{
    struct json_object *o = lv_object("uuid", uuid);

    api_json_set(o, "net", json_object_get(api_json_get(c->args, "net")));
    return o;
}

static void on_ports(struct lv_call *c, struct json_object *result)
{
    struct json_object *from = api_json_get(result, "ports"), *o = json_object_new_object(),
                       *list = json_object_new_array();
    char uuid[37];

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *port = json_object_array_get_idx(from, i);
        if (api_json_get_str(port, "vm")) { /* the others are the network's own */
            port_uuid(c, port, uuid);
            json_object_array_add(list, port_handle(c, uuid));
        }
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "ports", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_network_ports(struct lv_call *c)
{
    lv_ask(c, "network", "network.ports", which(c), on_ports);
}

/* The port of the wanted UUID; NULL: the call has failed. */
static struct json_object *port_of(struct lv_call *c, struct json_object *result,
                                   const char *wanted)
{
    struct json_object *from = api_json_get(result, "ports");
    char uuid[37];

    for (size_t i = 0; i < json_object_array_length(from); i++) {
        struct json_object *port = json_object_array_get_idx(from, i);
        port_uuid(c, port, uuid);
        if (api_json_get_str(port, "vm") && strcmp(uuid, wanted) == 0) {
            return port;
        }
    }
    lv_fail(c, LV_E_NO_PORT, "no network port with matching uuid '%s'", wanted);
    return NULL;
}

static void on_port(struct lv_call *c, struct json_object *result)
{
    struct json_object *o;

    if (port_of(c, result, lv_str(c, "uuid"))) {
        o = json_object_new_object();
        api_json_set(o, "port", port_handle(c, lv_str(c, "uuid")));
        lv_reply(c, o);
    }
}

void lv_do_network_port_by_uuid(struct lv_call *c)
{
    lv_ask(c, "network", "network.ports", which(c), on_port);
}

static void on_port_xml(struct lv_call *c, struct json_object *result)
{
    const char *uuid = api_json_get_str(api_json_get(c->args, "port"), "uuid");
    struct json_object *port = port_of(c, result, uuid);
    AUTO_BUF b = BUF_INIT;

    if (port) {
        buf_printf(&b, "<networkport>\n  <uuid>%s</uuid>\n  <owner>\n    <name>%s</name>\n",
                   uuid, api_json_get_str(port, "vm"));
        const struct vm *vm = vm_find(c->d, api_json_get_str(port, "vm"), false);
        if (vm) {
            buf_printf(&b, "    <uuid>%s</uuid>\n", vm->config.uuid);
        }
        buf_add_str(&b, "  </owner>\n");
        if (api_json_get_str(port, "mac")) {
            buf_printf(&b, "  <mac address='%s'/>\n", api_json_get_str(port, "mac"));
        }
        buf_add_str(&b, "</networkport>\n");
        lv_reply_str(c, "xml", b.data);
    }
}

void lv_do_network_port_xml(struct lv_call *c)
{
    struct json_object *port = api_json_get(c->args, "port");

    api_json_set(c->args, "net", json_object_get(api_json_get(port, "net")));
    lv_ask(c, "network", "network.ports", which(c), on_port_xml);
}
