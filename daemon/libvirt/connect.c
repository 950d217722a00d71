/* SPDX-License-Identifier: Apache-2.0 */
/* The connection and the host. */
#include "api-schema/qmp/qmp.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/libvirt/session.h"
#include "daemon/vm/preflight.h"

#include <stdio.h>
#include <string.h>

enum {
    /* VIR_DRV_FEATURE_*: what the server's side can do. */
    FEATURE_MIGRATION_P2P = 4,
    FEATURE_MIGRATION_V3 = 6, /* in five steps */
    FEATURE_CHANGE_PROTECTION = 7,
    FEATURE_FD_PASSING = 8,
    FEATURE_PARAM_STRING = 9, /* typed parameters may be strings */
    FEATURE_KEEPALIVE = 10,
    FEATURE_MIGRATION_PARAMS = 13,
    FEATURE_EVENT_CALLBACK = 14, /* handles of callbacks */
    FEATURE_CLOSE_CALLBACK = 15,
    FEATURE_NETWORK_UPDATE = 16, /* its arguments are in their order */
    LIB_VERSION = 9 * 1000000,   /* of the protocol that is spoken */
};

void lv_do_nothing(struct lv_call *c)
{
    lv_reply(c, NULL);
}

void lv_do_auth_list(struct lv_call *c)
{
    struct json_object *o = json_object_new_object(), *types = json_object_new_array();

    json_object_array_add(types, json_object_new_int(0)); /* none: the socket or TLS did it */
    api_json_set(o, "types", types);
    lv_reply(c, o);
}

/* A client may ask to only look. */
static void look_only(struct rpc_session *s)
{
    s->most = API_ROLE_VIEWER;
    s->role = s->role < s->most ? s->role : s->most;
}

void lv_do_connect_open(struct lv_call *c)
{
    enum { READONLY = 1 };

    if (c->q) {
        c->q->opened = true;
        if (lv_int(c, "flags") & READONLY) {
            look_only(c->q->s);
        }
    }
    lv_reply(c, NULL);
}

void lv_do_connect_feature(struct lv_call *c)
{
    static const int known[] = { FEATURE_MIGRATION_P2P,  FEATURE_MIGRATION_PARAMS,
                                 FEATURE_MIGRATION_V3,   FEATURE_CHANGE_PROTECTION,
                                 FEATURE_PARAM_STRING,   FEATURE_KEEPALIVE,
                                 FEATURE_EVENT_CALLBACK, FEATURE_CLOSE_CALLBACK,
                                 FEATURE_NETWORK_UPDATE };
    struct json_object *o = json_object_new_object();
    bool has = false;

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        has |= lv_int(c, "feature") == known[i];
    }
    has |= lv_int(c, "feature") == FEATURE_FD_PASSING && c->q && lv_passes_fds(c->q);
    api_json_set_int(o, "supported", has);
    lv_reply(c, o);
}

void lv_do_connect_type(struct lv_call *c)
{
    lv_reply(c,
             lv_object("type", "QEMU")); /* what tools know: domains are of type qemu or kvm */
}

/* Of the QEMU whose QMP is spoken: tools take from it what they may ask for. */
void lv_do_connect_version(struct lv_call *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "hv_ver",
                     qmp_version[0] * INT64_C(1000000) + qmp_version[1] * 1000 +
                         qmp_version[2]);
    lv_reply(c, o);
}

void lv_do_connect_lib_version(struct lv_call *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "lib_ver", LIB_VERSION);
    lv_reply(c, o);
}

void lv_do_connect_uri(struct lv_call *c)
{
    lv_reply(c, lv_object("uri", "qemu:///system"));
}

void lv_do_connect_is_secure(struct lv_call *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "secure", 1);
    lv_reply(c, o);
}

void lv_do_connect_max_vcpus(struct lv_call *c)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "max_vcpus", preflight_max_cpus());
    lv_reply(c, o);
}

static void on_hostname(struct lv_call *c, struct json_object *info)
{
    lv_reply(c, lv_object("hostname", api_json_get_str(info, "hostname")));
}

void lv_do_connect_hostname(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_hostname);
}

/* --- the host ------------------------------------------------------------------------------------ */

static void on_node(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();
    int64_t cpus = api_json_get_int(info, "cpus", 1);

    api_json_set_str(o, "model", api_json_get_str(info, "arch"));
    api_json_set_int(o, "memory", api_json_get_int(info, "memory", 0) / 1024);
    api_json_set_int(o, "cpus", cpus);
    api_json_set_int(o, "nodes",
                     1); /* of all CPUs: what tools compute from these is then right */
    api_json_set_int(o, "sockets", 1);
    api_json_set_int(o, "cores", cpus);
    api_json_set_int(o, "threads", 1);
    lv_reply(c, o);
}

void lv_do_node_info(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_node);
}

static void on_free_memory(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "free_mem", api_json_get_int(info, "memory_free", 0));
    lv_reply(c, o);
}

void lv_do_node_free_memory(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_free_memory);
}

static void on_cpu_map(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();
    int64_t cpus = api_json_get_int(info, "cpus", 1);
    AUTO_BUF map = BUF_INIT;

    for (int64_t i = 0; i < cpus; i += 8) {
        buf_add_char(&map, (char)(cpus - i >= 8 ? 0xff : (1 << (cpus - i)) - 1));
    }
    if (lv_int(c, "need_map")) {
        api_json_set(o, "cpumap", json_object_new_string_len(map.data, (int)map.len));
    }
    api_json_set_int(o, "online", cpus);
    api_json_set_int(o, "ret", cpus);
    lv_reply(c, o);
}

void lv_do_node_cpu_map(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_cpu_map);
}
