/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <source protocol='nbd' name='EXPORT'><host .../></source> and the address of an export, which is one text in a definition.
 * The element is read and written as a whole, by the row of its protocol. Owns nothing; any thread.
 */
#include "daemon/xml/export.h"

#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

static int host_get(const struct xml_node *host, struct nbd_addr *a, struct err *e)
{
    const char *name = xml_get_attr(host, "name"), *port = xml_get_attr(host, "port"),
               *transport = xml_get_attr(host, "transport"),
               *path = xml_get_attr(host, "socket");
    bool local = transport && strcmp(transport, "unix") == 0;

    if (transport && !local && strcmp(transport, "tcp") != 0) {
        return err_set(e, -EINVAL, "not supported: transport '%.20s'; vmd knows tcp and unix",
                       transport);
    }
    if (local ? !path || name || port : !name || path) {
        return err_set(e, -EINVAL,
                       local ? "a unix socket is <host transport='unix' socket='PATH'/>"
                             : "a server is <host name='HOST' port='PORT'/>");
    }
    if (!str_copy(a->path, sizeof(a->path), local ? path : "") ||
        !str_copy(a->host, sizeof(a->host), local ? "" : name) ||
        !str_copy(a->port, sizeof(a->port), local || !port ? "10809" : port)) {
        return err_set(e, -EINVAL, "the server's name, port or socket is too long");
    }
    return 0;
}

static int export_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                      struct json_object **out, struct err *e)
{
    const struct xml_node *host = xml_get_kid(n, "host");
    const char *name = xml_get_attr(n, "name"),
               *type = n->parent ? xml_get_attr(n->parent, "type") : NULL;
    struct nbd_addr a = { .host = "" }, again;
    unsigned hosts = 0;
    AUTO_FREE char *uri = NULL;

    (void)row;
    for (size_t i = 0; i < n->n_kids; i++) {
        hosts += n->kids[i]->name && strcmp(n->kids[i]->name, "host") == 0;
    }
    if (strcmp(text, "nbd") != 0) {
        return err_set(e, -EINVAL, "not supported: protocol '%.20s'; vmd knows nbd", text);
    }
    if (!type || strcmp(type, "network") != 0) {
        return err_set(e, -EINVAL, "a disk of a server is <disk type='network'>");
    }
    if (hosts != 1) {
        return err_set(e, -EINVAL, "an NBD server has one <host>");
    }
    if (!str_copy(a.export, sizeof(a.export), name ? name : "")) {
        return err_set(e, -EINVAL, "the name of the export is too long");
    }
    if (host_get(host, &a, e) != 0) {
        return -1;
    }
    uri = nbd_addr_text(&a);
    if (nbd_addr_parse(uri, &again, e) != 0) {
        return -1;
    }
    *out = json_object_new_string(uri);
    return 0;
}

static bool export_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                       struct buf *text)
{
    const char *uri = json_object_get_string(v);
    struct nbd_addr a;
    struct xml_node *host;

    (void)row;
    if (!uri || !nbd_addr_is(uri) || nbd_addr_parse(uri, &a, NULL) != 0 ||
        !xml_can_say(a.export) || !xml_can_say(a.host) || !xml_can_say(a.path) ||
        !xml_can_say(a.tls_host)) {
        return false;
    }
    xml_set_attr(n->parent, "type", "network");
    buf_add_str(text, "nbd");
    host = xml_node_new(n, "host");
    if (a.path[0]) {
        xml_set_attr(host, "transport", "unix");
        xml_set_attr(host, "socket", a.path);
    } else {
        xml_set_attr(host, "name", a.host);
        xml_set_attr(host, "port", a.port);
    }
    if (a.export[0]) {
        xml_set_attr(n, "name", a.export);
    }
    if (a.tls) { /* which is not read again: there is no place for the folder */
        xml_set_attr(n, "tls", "yes");
    }
    if (a.tls_host[0]) {
        xml_set_attr(n, "tlsHostname", a.tls_host);
    }
    return true;
}

const struct xml_conv xml_as_export = { export_get, export_put, "`nbd`" };
