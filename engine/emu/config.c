/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the configuration: bounded JSON, changes by --set, decode by the schema. Main thread.
 */
#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <string.h>

static int config_error(struct err *e, const struct api_error *x)
{
    bool named = x->object[0] == 0 || strncmp(x->message, x->object, strlen(x->object)) == 0;

    return err_set(e, -EINVAL, "%s%s%s%s%s", named ? "" : x->object, named ? "" : ": ",
                   x->message, x->remedy[0] ? "; " : "", x->remedy);
}

/* The value of --set: a size where the member is one, JSON where it reads as such, else
 * text. */
static struct json_object *set_value(const struct api_member *member, const char *text)
{
    struct json_object *value = NULL;
    uint64_t bytes;

    if (member && (member->flags & API_F_SIZE) && str_to_size(text, "", &bytes, NULL) == 0 &&
        bytes <= INT64_MAX) {
        return json_object_new_int64((int64_t)bytes);
    }
    if (member && (member->kind == API_STRING || member->kind == API_ENUM) &&
        !(member->flags & API_F_LIST)) {
        return json_object_new_string(text);
    }
    return api_json_parse(text, strlen(text), &value, NULL) == 0 && value
               ? value
               : json_object_new_string(text);
}

/* "a.b=value"; objects on the way are made. */
static int apply_set(struct json_object *root, const char *text, struct err *e)
{
    const char *eq = strchr(text, '=');
    const struct api_type *type = &api_type_vm_config;
    const struct api_member *member = NULL;
    struct json_object *o = root, *next;
    AUTO_FREE char *key = NULL;
    char *part, *rest;

    if (!eq || eq == text) {
        return err_set(e, -EINVAL, "--set %s: expected KEY=VALUE", text);
    }
    key = rest = xstrndup(text, (size_t)(eq - text));
    for (;;) {
        part = strsep(&rest, ".");
        member = type ? api_member_find(type, part) : NULL;
        if (!rest) {
            break;
        }
        if (!json_object_object_get_ex(o, part, &next) ||
            !json_object_is_type(next, json_type_object)) {
            next = json_object_new_object();
            json_object_object_add(o, part, next);
        }
        o = next;
        type = member ? member->type : NULL;
    }
    if (eq[1] == 0) {
        json_object_object_del(o, part); /* back to the default */
    } else {
        json_object_object_add(o, part, set_value(member, eq + 1));
    }
    return 0;
}

static int read_json(struct emu *m, struct json_object **out, struct err *e)
{
    const char *what = m->opt.config_path ? m->opt.config_path : "the configuration";
    AUTO_BUF b = BUF_INIT;
    int rc;

    if (m->opt.config_path) {
        rc = strcmp(what, "-") == 0 ? fd_slurp(0, &b, API_JSON_MAX_SIZE, "standard input", e)
                                    : file_slurp(what, &b, API_JSON_MAX_SIZE, e);
    } else {
        rc = fd_slurp(m->opt.config_fd, &b, API_JSON_MAX_SIZE, what, e);
    }
    if (rc != 0) {
        return rc;
    }
    rc = api_json_parse(b.data ? b.data : "", b.len, out, e);
    if (rc != 0) {
        err_prefix(e, "%s: ", what);
    } else if (!json_object_is_type(*out, json_type_object)) {
        rc = err_set(e, -EINVAL, "%s: expected a JSON object", what);
        json_object_put(*out);
    }
    return rc;
}

int config_load(struct emu *m, struct err *e)
{
    struct api_error x = API_ERROR_INIT;
    struct json_object *json = NULL;
    int rc = read_json(m, &json, e);

    if (rc != 0) {
        return rc;
    }
    for (unsigned i = 0; i < m->opt.n_sets && rc == 0; i++) {
        rc = apply_set(json, m->opt.sets[i], e);
    }
    /* A name is what the daemon needs; a configuration run by hand may do without. */
    if (m->opt.config_path && !json_object_object_get(json, "name")) {
        json_object_object_add(json, "name", json_object_new_string("vm"));
    }
    if (rc == 0 && api_vm_config_decode(json, API_STRICT, "", &m->config, &x) != 0) {
        rc = config_error(e, &x);
    }
    m->has_config = rc == 0;
    json_object_put(json);
    return rc;
}
