/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text as people write it to JSON, guided by the member's table entry. What a value may be is
 * checked later by the codec; here only the form is. Pure, but for members whose values people keep in files.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "engine/base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_duration(const char *text, int64_t *ms, struct err *e)
{
    static const struct {
        const char *suffix;
        double ms;
    } units[] = {
        { "ms", 1 },     { "s", 1e3 },     { "m", 60e3 },
        { "h", 3600e3 }, { "d", 86400e3 }, { "", 1e3 },
    };
    char *end;
    double v;

    errno = 0;
    v = strtod(text, &end);
    if (end == text || errno || !(v >= 0) ||
        strspn(text, "0123456789.") != (size_t)(end - text)) {
        return err_set(e, -EINVAL, "'%s' is no time; write 500ms, 30s, 5m or 2h", text);
    }
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (strcmp(end, units[i].suffix) == 0) {
            v *= units[i].ms;
            if (v > 1e15) {
                return err_set(e, -ERANGE, "'%s' is too long", text);
            }
            *ms = (int64_t)(v + 0.5);
            return 0;
        }
    }
    return err_set(e, -EINVAL, "'%s' is no time; write 500ms, 30s, 5m or 2h", text);
}

const struct api_member *cli_member(const struct api_type *t, const char *path)
{
    const struct api_member *m = NULL;

    while (*path) {
        size_t n = strcspn(path, ".");
        AUTO_FREE char *name = xstrndup(path, n);

        m = t ? api_member_find(t, name) : NULL;
        if (!m) {
            return NULL;
        }
        t = m->type;
        path += n + (path[n] == '.');
    }
    return m;
}

static struct json_object *bool_value(const char *text, struct err *e)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            return json_object_new_boolean(i % 2);
        }
    }
    err_set(e, -EINVAL, "'%s' is neither yes nor no", text);
    return NULL;
}

static struct json_object *int_value(const struct api_member *m, const char *kind,
                                     const char *text, struct err *e)
{
    uint64_t size;
    int64_t ms;
    long long n;
    char *end;

    if (kind && strcmp(kind, "duration") == 0) {
        return cli_duration(text, &ms, e) < 0 ? NULL : json_object_new_int64(ms);
    }
    if (m->flags & API_F_SIZE) {
        if (str_to_size(text, "the size", &size, e) < 0) {
            return NULL;
        }
        if (size > INT64_MAX) {
            err_set(e, -ERANGE, "%s '%s' is too large", m->name, text);
            return NULL;
        }
        return json_object_new_int64((int64_t)size);
    }
    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || *end || errno) {
        err_set(e, -EINVAL, "'%s' is no number", text);
        return NULL;
    }
    return json_object_new_int64(n);
}

/* What stands for a file here. */
static bool is_path(const struct api_member *m, const char *text)
{
    return m->check == API_PATH || (m->check == API_IMAGE && !nbd_addr_is(text));
}

static struct json_object *string_value(const struct api_member *m, const char *text,
                                        struct err *e)
{
    AUTO_FREE char *whole = NULL;
    char cwd[PATH_MAX];

    if (m->flags & API_F_CONTENTS) {
        return cli_text_of(text, &whole, e) < 0 ? NULL : json_object_new_string(whole);
    }
    for (const char *w = m->words; w && *w; w += strlen(w) + 1) {
        if (strcmp(w, text) == 0) {
            return json_object_new_string(text);
        }
    }
    if (is_path(m, text) && text[0] && text[0] != '/' && getcwd(cwd, sizeof(cwd))) {
        while (str_starts(text, "./")) {
            text += 2;
        }
        whole = xasprintf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, text);
        return json_object_new_string(whole);
    }
    return json_object_new_string(text);
}

static const struct api_member *bare_member(const struct api_type *t)
{
    for (size_t i = 0; i < t->n_members; i++) {
        if (t->members[i].flags & API_F_BARE) {
            return &t->members[i];
        }
    }
    return NULL;
}

/* The next item of a comma-separated list, ",," being a comma; NULL at the end. The caller's. */
static char *next_item(const char **at)
{
    AUTO_BUF b = BUF_INIT;
    const char *p = *at;

    if (!p) {
        return NULL;
    }
    for (; *p && !(p[0] == ',' && p[1] != ','); p++) {
        p += p[0] == ',';
        buf_add_char(&b, *p);
    }
    *at = *p ? p + 1 : NULL;
    return buf_take(&b);
}

static bool is_bool(const struct api_type *t, const char *name)
{
    const struct api_member *m = api_member_find(t, name);

    return m && m->kind == API_BOOL;
}

/* Of "throttle.group_name": goes into the struct that the first word is, and says the rest. */
static char *inner(const struct api_type **t, char *item, struct json_object **o)
{
    char *dot;

    while ((dot = strchr(item, '.'))) {
        AUTO_FREE char *name = xstrndup(item, (size_t)(dot - item));
        const struct api_member *m = api_member_find(*t, name);
        struct json_object *sub;

        if (!m || m->kind != API_STRUCT || m->flags & API_F_LIST) {
            break;
        }
        sub = api_json_get(*o, name);
        if (!sub) {
            sub = json_object_new_object();
            api_json_set(*o, name, sub);
        }
        *t = m->type;
        *o = sub;
        item = dot + 1;
    }
    return item;
}

/* One "key=value", "flag" or bare value into o. */
static int struct_item(const struct api_type *t, char *item, struct json_object *o,
                       struct err *e)
{
    char *equals = strchr(item, '='), *value;
    const struct api_member *m;
    struct json_object *v;

    if (equals && memchr(item, '/', (size_t)(equals - item))) {
        equals = NULL; /* a path with '=' in it */
    }
    if (equals) {
        *equals = 0;
        value = equals + 1;
        item = inner(&t, item, &o);
        m = api_member_find(t, item);
    } else if (is_bool(t, item)) {
        value = "yes";
        m = api_member_find(t, item);
    } else {
        value = item;
        m = bare_member(t);
    }
    if (!m) {
        AUTO_BUF known = BUF_INIT;
        for (size_t i = 0; i < t->n_members; i++) {
            buf_printf(&known, "%s%s", i ? ", " : "", t->members[i].name);
        }
        return err_set(e, -EINVAL, "'%s' is none of %s", item, known.data);
    }
    if (api_json_get(o, m->name) && !(m->flags & API_F_LIST)) {
        return err_set(e, -EINVAL, "%s is given twice", m->name);
    }
    v = cli_value(m, NULL, value, e);
    if (!v) {
        return -EINVAL;
    }
    if (m->flags & API_F_LIST) { /* each time it is given is one of it */
        struct json_object *list = api_json_get(o, m->name);

        if (!list) {
            list = json_object_new_array();
            api_json_set(o, m->name, list);
        }
        json_object_array_add(list, v);
        return 0;
    }
    api_json_set(o, m->name, v);
    return 0;
}

static struct json_object *struct_value(const struct api_type *t, const char *text,
                                        struct err *e)
{
    struct json_object *o;
    const char *at = text;
    char *item;

    if (text[0] == '{') {
        o = NULL;
        return api_json_parse(text, strlen(text), &o, e) < 0 ? NULL : o;
    }
    o = json_object_new_object();
    while ((item = next_item(&at))) {
        int rc = item[0] ? struct_item(t, item, o, e) : err_set(e, -EINVAL, "an item is empty");
        free(item);
        if (rc < 0) {
            json_object_put(o);
            return NULL;
        }
    }
    return o;
}

struct json_object *cli_value(const struct api_member *m, const char *kind, const char *text,
                              struct err *e)
{
    struct json_object *o = NULL;

    switch (m->kind) {
    case API_BOOL:
        return bool_value(text, e);
    case API_INT:
        return int_value(m, kind, text, e);
    case API_STRING:
        return string_value(m, text, e);
    case API_ENUM:
        return json_object_new_string(text);
    case API_STRUCT:
        return struct_value(m->type, text, e);
    default:
        if (api_json_parse(text, strlen(text), &o, e) == 0 && !o) {
            err_set(e, -EINVAL, "null is no value");
        }
        return o;
    }
}
