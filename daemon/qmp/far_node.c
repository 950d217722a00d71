/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes of blockdev-add with the driver nbd: QEMU's description of a server and its export, as the address that a definition has. Inside of
 * daemon/qmp. Loop thread.
 */
#include "api-schema/net/nbdaddr.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/plug.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>

/* server: {"type": "inet", "host", "port"} or {"type": "unix", "path"}; QEMU's other members of an inet address change how it listens
 * or looks for addresses, and are refused by name. */
static bool server_of(struct qmp_cmd *c, struct json_object *server, const char *where,
                      struct nbd_addr *a)
{
    const char *type = api_json_get_str(server, "type"),
               *host = api_json_get_str(server, "host"),
               *port = api_json_get_str(server, "port"),
               *path = api_json_get_str(server, "path");
    bool inet = type && strcmp(type, "inet") == 0, local = type && strcmp(type, "unix") == 0;

    if (!json_object_is_type(server, json_type_object)) {
        qmp_error(c, "GenericError", "Parameter '%sserver' is missing", where);
        return false;
    }
    json_object_object_foreach(server, key, value)
    {
        bool known = strcmp(key, "type") == 0 ||
                     (inet ? strcmp(key, "host") == 0 || strcmp(key, "port") == 0
                           : strcmp(key, "path") == 0);

        (void)value;
        if (!known) {
            qmp_error(c, "GenericError", "Parameter '%sserver.%s' is unexpected", where, key);
            return false;
        }
    }
    if (inet ? !host || !port : !local || !path) {
        qmp_error(c, "GenericError",
                  "'%sserver' is {\"type\": \"inet\", \"host\", \"port\"} or {\"type\": "
                  "\"unix\", \"path\"}, all of them text",
                  where);
        return false;
    }
    if (!str_copy(a->host, sizeof(a->host), inet ? host : "") ||
        !str_copy(a->port, sizeof(a->port), inet ? port : "10809") ||
        !str_copy(a->path, sizeof(a->path), local ? path : "")) {
        qmp_error(c, "GenericError", "'%sserver' is too long", where);
        return false;
    }
    return true;
}

/* tls-creds: an object of ours; tls-hostname. */
static bool tls_of(struct qmp_cmd *c, struct json_object *o, const char *where,
                   struct nbd_addr *a)
{
    const char *creds = api_json_get_str(o, "tls-creds"),
               *name = api_json_get_str(o, "tls-hostname");
    const struct qmp_back *b = creds ? qmp_back_find(c->vm, QMP_BACK_OBJECT, creds) : NULL;

    if (name && !creds) {
        qmp_error(c, "GenericError", "'%stls-hostname' goes with 'tls-creds'", where);
    } else if (creds && !b) {
        qmp_error(c, "GenericError", "No TLS credentials with id '%s'", creds);
    } else if (creds && strcmp(b->type, "tls-creds-x509") != 0) {
        qmp_error(c, "GenericError", "Object with id '%s' is not TLS credentials", creds);
    } else if ((creds && !str_copy(a->certificates, sizeof(a->certificates), b->path)) ||
               (name && !str_copy(a->tls_host, sizeof(a->tls_host), name))) {
        qmp_error(c, "GenericError", "'%stls-creds' or '%stls-hostname' is too long", where,
                  where);
    } else {
        a->tls = creds != NULL;
        return true;
    }
    return false;
}

char *qmp_far_file(struct qmp_cmd *c, struct json_object *o, const char *where)
{
    static const char *const refused[] = { "path",         "host",
                                           "port",         "reconnect-delay",
                                           "open-timeout", "x-dirty-bitmap" };
    const char *export = api_json_get_str(o, "export");
    struct nbd_addr a = { .host = "" }, again;
    struct err e = ERR_INIT;

    for (unsigned i = 0; i < ARRAY_LEN(refused); i++) {
        if (api_json_get(o, refused[i])) {
            qmp_error(c, "GenericError", "Parameter '%s%s' is unexpected", where, refused[i]);
            return NULL;
        }
    }
    if (!server_of(c, api_json_get(o, "server"), where, &a) || !tls_of(c, o, where, &a)) {
        return NULL;
    }
    if (export && !str_copy(a.export, sizeof(a.export), export)) {
        qmp_error(c, "GenericError", "'%sexport' is too long", where);
        return NULL;
    }
    char *text = nbd_addr_text(&a);
    if (nbd_addr_parse(text, &again, &e) < 0) {
        qmp_error(c, "GenericError", "%s", e.msg);
        free(text);
        return NULL;
    }
    return text;
}
