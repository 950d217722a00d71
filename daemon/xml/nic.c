/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards in libvirt's XML: words that take more than a table. Owns nothing. Any thread.
 */
#include "daemon/xml/nic.h"

#include "api-schema/json/json.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

static int link_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    (void)row;
    (void)n;
    if (strcmp(text, "up") != 0 && strcmp(text, "down") != 0) {
        return err_set(e, -EINVAL, "not supported: '%.20s' is neither up nor down", text);
    }
    *out = json_object_new_boolean(strcmp(text, "up") == 0);
    return 0;
}

static bool link_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, json_object_get_boolean(v) ? "up" : "down");
    return true;
}

/* The other ways a card is connected are none of libvirt's: they stand in <metadata>, over this word. */
static const char *const cards[][2] = {
    { "user", "user" },    { "network", "network" },      { "bridge", "bridge" },
    { "ethernet", "tap" }, { "vhostuser", "vhost-user" },
};

static int card_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    (void)row;
    (void)n;
    for (size_t i = 0; i < ARRAY_LEN(cards); i++) {
        if (strcmp(text, cards[i][0]) == 0) {
            *out = json_object_new_string(cards[i][1]);
            return 0;
        }
    }
    return err_set(e, -EINVAL,
                   "not supported: how the card is connected; vmd knows 'user', 'network', "
                   "'bridge', 'ethernet' and 'vhostuser' here");
}

static bool card_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    const char *type = json_object_get_string(v), *word = "user";
    (void)row;
    (void)n;
    for (size_t i = 0; i < ARRAY_LEN(cards); i++) {
        word = strcmp(type, cards[i][1]) == 0 ? cards[i][0] : word;
    }
    buf_add_str(text, word);
    return true;
}

/* A card in user mode has no device on the host, though libvirt gives it a name. */
static int target_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                      struct json_object **out, struct err *e)
{
    const char *type = n->parent ? xml_get_attr(n->parent, "type") : NULL;
    (void)row;
    (void)e;
    *out = type && strcmp(type, "user") != 0 ? json_object_new_string(text) : NULL;
    return 0;
}

static bool target_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                       struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, json_object_get_string(v));
    return true;
}

const struct xml_conv xml_as_target = { target_get, target_put,
                                        "name of an interface; a card in user mode has none" };
const struct xml_conv xml_as_card = { card_get, card_put,
                                      "`user`, `network`, `bridge`, `ethernet`, `vhostuser`" };

static bool is_vhost(const struct xml_node *source)
{
    const char *type = source->parent ? xml_get_attr(source->parent, "type") : NULL;

    return type && strcmp(type, "vhostuser") == 0;
}

/* The socket of a vhost-user back end; cards with sockets of other kinds have no place in libvirt's XML. */
static int vhost_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const char *type = xml_get_attr(n, "type");

    if (!is_vhost(n) || !type || strcmp(type, "unix") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: only an interface of type 'vhostuser' has a path, of "
                       "type='unix'");
    }
    return xml_as_path.get(row, n, text, out, e);
}

static bool vhost_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    if (!is_vhost(n)) {
        return false;
    }
    xml_set_attr(n, "type", "unix");
    return xml_as_path.put(row, v, n, text);
}

static int mode_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    bool server = strcmp(text, "server") == 0;

    (void)row;
    if (!is_vhost(n) || (!server && strcmp(text, "client") != 0)) {
        return err_set(e, -EINVAL,
                       "not supported: an interface of type 'vhostuser' has the mode 'client' "
                       "or 'server'");
    }
    *out = server ? json_object_new_boolean(true) : NULL;
    return 0;
}

static bool mode_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    if (!is_vhost(n)) {
        return false;
    }
    buf_add_str(text, v && json_object_get_boolean(v) ? "server" : "client");
    return true;
}

const struct xml_conv xml_as_vhost = { vhost_get, vhost_put, "an absolute path" };
const struct xml_conv xml_as_vhost_mode = { mode_get, mode_put, "`client`, `server`: of vmd" };
const struct xml_conv xml_as_link = { link_get, link_put, "`up`, `down`" };
