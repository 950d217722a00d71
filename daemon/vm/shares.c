/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders of definitions (shares.h). Owns nothing. Loop thread.
 */
#include "daemon/vm/shares.h"

#include "api-schema/gen/errors.h"
#include "api-schema/json/json.h"
#include "engine/base/mem.h"

#include <string.h>

static int bad(struct api_error *x, const struct api_vm_config *c, size_t i, const char *member,
               const char *text)
{
    AUTO_FREE char *what = xasprintf("config.shares[%zu].%s", i, member);
    return api_error_set(x, API_E_INVALID_PARAMS, what, "see 'vmctl help create'",
                         "shared folder '%s' of VM '%s': %s", c->shares[i].tag, c->name, text);
}

static int check_one(const struct api_vm_config *c, size_t i, struct api_error *x)
{
    const struct api_share *s = &c->shares[i];
    bool nine = s->driver == API_SHARE_DRIVER_9P;
    if (nine && s->socket) {
        return bad(x, c, i, "socket", "only virtiofs has servers that somebody else runs");
    }
    if (!nine && s->has_security) {
        return bad(x, c, i, "security", "only 9p has security models");
    }
    if (!s->path == !s->socket) {
        return bad(x, c, i, "path",
                   nine ? "it has no path" : "give either its path or a socket");
    }
    if (s->socket && s->readonly) {
        return bad(x, c, i, "readonly", "its server is somebody else's: ask for it there");
    }
    for (size_t k = 0; k < i; k++) {
        if (strcmp(c->shares[k].tag, s->tag) == 0) {
            return bad(x, c, i, "tag", "another one has that tag, too; give each its own");
        }
    }
    return 0;
}

int shares_check(const struct api_vm_config *c, struct api_error *x)
{
    int rc = 0;
    for (size_t i = 0; i < c->n_shares && rc == 0; i++) {
        rc = check_one(c, i, x);
    }
    return rc;
}

struct json_object *shares_request(const struct api_share *s, size_t n)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();
        api_json_set_str(o, "tag", s[i].tag);
        if (s[i].socket) {
            api_json_set_str(o, "socket", s[i].socket);
        } else {
            api_json_set_str(o, "path", s[i].path);
            api_json_set_str(o, "driver", api_share_driver_name(s[i].driver));
            api_json_set_bool(o, "readonly", s[i].readonly);
            api_json_set_bool(o, "mapped",
                              !s[i].has_security || s[i].security == API_SHARE_SECURITY_MAPPED);
        }
        json_object_array_add(list, o);
    }
    return list;
}
