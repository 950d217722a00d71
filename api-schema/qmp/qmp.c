/* SPDX-License-Identifier: Apache-2.0 */
/* Form and arguments of QMP commands. Pure functions. */
#include "api-schema/qmp/qmp.h"

#include "api-schema/json/json.h"

#include <stdio.h>
#include <string.h>

enum { PATH_MAX_LEN = 160 };

static bool wrong(char desc[QMP_DESC_MAX], const char *fmt, const char *a, const char *b)
    __attribute__((format(printf, 2, 0)));

static bool wrong(char desc[QMP_DESC_MAX], const char *fmt, const char *a, const char *b)
{
    snprintf(desc, QMP_DESC_MAX, fmt, a, b);
    return false;
}

/* --- the form ---------------------------------------------------------------------------------- */

static bool take_name(struct qmp_request *r, const char *key, struct json_object *value,
                      bool oob, char desc[QMP_DESC_MAX])
{
    if (!json_object_is_type(value, json_type_string)) {
        return wrong(desc, "QMP input member '%.100s' must be a string%s", key, "");
    }
    if (r->name) {
        return wrong(desc, "QMP input member '%.100s' clashes with '%s'",
                     r->oob ? "exec-oob" : "execute", key);
    }
    r->name = json_object_get_string(value);
    r->oob = oob;
    return true;
}

static bool take_member(struct qmp_request *r, const char *key, struct json_object *value,
                        bool oob, char desc[QMP_DESC_MAX])
{
    if (strcmp(key, "execute") == 0 || (oob && strcmp(key, "exec-oob") == 0)) {
        return take_name(r, key, value, strcmp(key, "exec-oob") == 0, desc);
    }
    if (strcmp(key, "arguments") == 0) {
        r->args = value;
        return json_object_is_type(value, json_type_object) ||
               wrong(desc, "QMP input member '%s' must be an object%s", key, "");
    }
    return strcmp(key, "id") == 0 ||
           wrong(desc, "QMP input member '%.100s' is unexpected%s", key, "");
}

bool qmp_parse(struct json_object *msg, bool oob, struct qmp_request *r,
               char desc[QMP_DESC_MAX])
{
    memset(r, 0, sizeof(*r));
    if (!json_object_is_type(msg, json_type_object)) {
        return wrong(desc, "QMP input must be a JSON object%s%s", "", "");
    }
    r->has_id = json_object_object_get_ex(msg, "id", &r->id);
    json_object_object_foreach(msg, key, value)
    {
        if (!take_member(r, key, value, oob, desc)) {
            return false;
        }
    }
    return r->name || wrong(desc, "QMP input lacks member 'execute'%s%s", "", "");
}

const struct qmp_command *qmp_find(const char *name)
{
    size_t low = 0, high = QMP_N_COMMANDS;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int way = strcmp(name, qmp_commands[mid].name);
        if (way == 0) {
            return &qmp_commands[mid];
        }
        if (way < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

/* --- arguments ----------------------------------------------------------------------------------- */

static bool check_object(const struct qmp_type *t, struct json_object *o, const char *path,
                         char desc[QMP_DESC_MAX]);

static bool check_enum(const struct qmp_type *t, struct json_object *v, const char *path,
                       char desc[QMP_DESC_MAX])
{
    const char *word = json_object_get_string(v);

    for (const char *const *p = t->values; *p; p++) {
        if (strcmp(*p, word) == 0) {
            return true;
        }
    }
    return wrong(desc, "Parameter '%s' does not accept value '%.100s'", path, word);
}

static bool check_value(const struct qmp_member *m, struct json_object *v, const char *path,
                        char desc[QMP_DESC_MAX])
{
    static const struct {
        const char *word;
        enum json_type type;
    } kinds[] = {
        [QMP_STR] = { "string", json_type_string },
        [QMP_INT] = { "integer", json_type_int },
        [QMP_NUMBER] = { "number", json_type_double },
        [QMP_BOOL] = { "boolean", json_type_boolean },
        [QMP_ANY] = { "any", json_type_null },
        [QMP_ENUM] = { "string", json_type_string },
        [QMP_OBJECT] = { "object", json_type_object },
    };
    bool fits = m->kind == QMP_ANY || json_object_is_type(v, kinds[m->kind].type) ||
                (m->kind == QMP_NUMBER && json_object_is_type(v, json_type_int));

    if (!fits) {
        return wrong(desc, "Invalid parameter type for '%s', expected: %s", path,
                     kinds[m->kind].word);
    }
    if (m->kind == QMP_ENUM) {
        return check_enum(m->type, v, path, desc);
    }
    return m->kind != QMP_OBJECT || check_object(m->type, v, path, desc);
}

static bool check_list(const struct qmp_member *m, struct json_object *v, const char *path,
                       char desc[QMP_DESC_MAX])
{
    if (!json_object_is_type(v, json_type_array)) {
        return wrong(desc, "Invalid parameter type for '%s', expected: %s", path, "array");
    }
    for (size_t i = 0; i < json_object_array_length(v); i++) {
        char at[PATH_MAX_LEN];

        snprintf(at, sizeof(at), "%.140s[%zu]", path, i);
        if (!check_value(m, json_object_array_get_idx(v, i), at, desc)) {
            return false;
        }
    }
    return true;
}

static bool check_object(const struct qmp_type *t, struct json_object *o, const char *path,
                         char desc[QMP_DESC_MAX])
{
    char at[PATH_MAX_LEN];

    for (unsigned i = 0; i < t->n_members; i++) {
        const struct qmp_member *m = &t->members[i];
        struct json_object *v = NULL;
        bool there = o && json_object_object_get_ex(o, m->name, &v);

        snprintf(at, sizeof(at), "%.60s%s%.90s", path, *path ? "." : "", m->name);
        if (!there && !m->optional) {
            return wrong(desc, "Parameter '%s' is missing%s", at, "");
        }
        if (there && !(m->list ? check_list(m, v, at, desc) : check_value(m, v, at, desc))) {
            return false;
        }
    }
    if (!o) {
        return true;
    }
    json_object_object_foreach(o, key, value)
    {
        bool known = false;

        (void)value;
        for (unsigned i = 0; i < t->n_members; i++) {
            known |= strcmp(t->members[i].name, key) == 0;
        }
        if (!known) {
            snprintf(at, sizeof(at), "%.60s%s%.90s", path, *path ? "." : "", key);
            return wrong(desc, "Parameter '%s' is unexpected%s", at, "");
        }
    }
    return true;
}

bool qmp_check(const struct qmp_command *c, struct json_object *args, char desc[QMP_DESC_MAX])
{
    return check_object(c->args, args, "", desc);
}
