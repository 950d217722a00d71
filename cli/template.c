/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --format: each record through a template, as docker and incus users write it.
 *
 *   {{.name}}             a member; {{.config.disks.0.file}} goes deeper, {{.}} is all of it as JSON
 *   {{size .memory}}      through a function: json, size, ago, time, upper, lower, len
 *   \t \n \\              a tab, a newline, a backslash
 *   table A\tB            columns aligned under their members' names
 *
 * Checked against the type of the record before anything is asked. One thread.
 */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* One {{...}}: function (may be empty) and path without its first dot. */
struct action {
    char function[16];
    char path[256];
};

static void with_json(struct buf *b, struct json_object *v)
{
    buf_add_str(b, v ? json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN |
                                                             JSON_C_TO_STRING_NOSLASHESCAPE)
                     : "null");
}

static void with_size(struct buf *b, struct json_object *v)
{
    cli_size(b, json_object_get_int64(v));
}

static void with_ago(struct buf *b, struct json_object *v)
{
    cli_ago(b, json_object_get_int64(v));
}

static void with_time(struct buf *b, struct json_object *v)
{
    cli_time(b, json_object_get_int64(v));
}

static void with_case(struct buf *b, struct json_object *v, int (*change)(int))
{
    AUTO_BUF text = BUF_INIT;

    cli_value_text(&text, v);
    for (size_t i = 0; i < text.len; i++) {
        text.data[i] = (char)change((unsigned char)text.data[i]);
    }
    buf_add(b, text.data, text.len);
}

static void with_upper(struct buf *b, struct json_object *v)
{
    with_case(b, v, toupper);
}

static void with_lower(struct buf *b, struct json_object *v)
{
    with_case(b, v, tolower);
}

static void with_len(struct buf *b, struct json_object *v)
{
    size_t n = json_object_is_type(v, json_type_array)    ? json_object_array_length(v)
               : json_object_is_type(v, json_type_object) ? (size_t)json_object_object_length(v)
               : json_object_is_type(v, json_type_string)
                   ? (size_t)json_object_get_string_len(v)
                   : 0;

    buf_printf(b, "%zu", n);
}

static const struct function {
    const char *name;
    void (*add)(struct buf *b, struct json_object *v);
    bool absent; /* has something to say of a member that is not there */
} functions[] = {
    { "ago", with_ago, false },     { "json", with_json, true },  { "len", with_len, true },
    { "lower", with_lower, false }, { "size", with_size, false }, { "time", with_time, false },
    { "upper", with_upper, false }, { "", cli_value_text, true },
};

static const struct function *find_function(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}

/* Reads the action after "{{"; returns what follows "}}", or NULL with a reason. */
static const char *read_action(const char *at, struct action *a, const char **why)
{
    const char *end = strstr(at, "}}");
    char text[sizeof(a->function) + sizeof(a->path)];

    if (!end) {
        *why = "'{{' without '}}'";
        return NULL;
    }
    for (; at < end && *at == ' '; at++) {
    }
    size_t n = (size_t)(end - at);
    for (; n > 0 && at[n - 1] == ' '; n--) {
    }
    *why =
        "between {{ and }} stands a member with its dot, as in {{.name}}, or a function and a "
        "member: ago, json, len, lower, size, time, upper";
    if (n == 0 || n >= sizeof(text)) {
        return NULL;
    }
    memcpy(text, at, n);
    text[n] = 0;
    const char *dot = strchr(text, '.');
    size_t f = dot ? (size_t)(dot - text) : 0;
    for (; f > 0 && text[f - 1] == ' '; f--) {
    }
    if (!dot || f >= sizeof(a->function) || strlen(dot + 1) >= sizeof(a->path) ||
        strchr(dot, ' ')) {
        return NULL;
    }
    memcpy(a->function, text, f);
    a->function[f] = 0;
    memcpy(a->path, dot + 1, strlen(dot + 1) + 1);
    return find_function(a->function) ? end + 2 : NULL;
}

static struct json_object *member_of(struct json_object *o, const char *path)
{
    while (o && *path) {
        size_t n = strcspn(path, ".");
        AUTO_FREE char *name = xstrndup(path, n);

        if (json_object_is_type(o, json_type_array)) {
            char *end;
            unsigned long i = strtoul(name, &end, 10);
            o = *end || i >= json_object_array_length(o) ? NULL
                                                         : json_object_array_get_idx(o, i);
        } else {
            o = api_json_get(o, name);
        }
        path += n + (path[n] == '.');
    }
    return o;
}

static void add_action(struct buf *b, const struct action *a, struct json_object *row,
                       bool heading)
{
    const struct function *f = find_function(a->function);
    const char *last = strrchr(a->path, '.');
    struct json_object *v;

    if (heading) {
        for (const char *c = last ? last + 1 : a->path; *c; c++) {
            buf_add_char(b, (char)toupper((unsigned char)*c));
        }
        return;
    }
    v = member_of(row, a->path);
    if (!a->path[0]) {
        with_json(b, row);
    } else if (v || f->absent) {
        f->add(b, v);
    } else {
        buf_add_char(b, '-');
    }
}

/* The template for one record, or its headings. It was checked. */
static void expand(struct buf *b, const char *at, struct json_object *row, bool heading)
{
    while (*at) {
        if (at[0] == '{' && at[1] == '{') {
            struct action a;
            const char *why;
            at = read_action(at + 2, &a, &why);
            if (!at) {
                return;
            }
            add_action(b, &a, row, heading);
        } else if (at[0] == '\\' && at[1] && strchr("nt\\", at[1])) {
            buf_add_char(b, at[1] == 'n' ? '\n' : at[1] == 't' ? '\t' : '\\');
            at += 2;
        } else {
            buf_add_char(b, *at++);
        }
    }
}

/* --- checking ----------------------------------------------------------------------------- */

static const char *member_name(const void *arg, size_t i)
{
    return ((const struct api_member *)arg)[i].name;
}

/* Whether records of that type can have this member. */
static int check_path(struct cli *c, const struct api_type *t, const char *path)
{
    bool in_list = false;

    while (t && *path) {
        size_t n = strcspn(path, ".");
        AUTO_FREE char *name = xstrndup(path, n);

        if (in_list) { /* an index */
            if (strspn(name, "0123456789") != n) {
                return cli_fail(c, CLI_USAGE, NULL,
                                "--format: '%s' stands where the number of a list's element is "
                                "wanted, as in .disks.0.file",
                                name);
            }
            in_list = false;
        } else {
            const struct api_member *m = api_member_find(t, name);
            if (!m) {
                const char *near = api_nearest(name, member_name, t->members, t->n_members);
                return cli_fail(c, CLI_USAGE, near ? NULL : "'--json' shows all members",
                                "--format: %s has no member '%s'%s%s%s", t->name, name,
                                near ? "; did you mean '" : "", near ? near : "",
                                near ? "'?" : "");
            }
            in_list = m->flags & API_F_LIST;
            t = m->kind == API_STRUCT || m->kind == API_PATCH ? m->type : NULL;
        }
        path += n + (path[n] == '.');
    }
    return CLI_OK;
}

/* "table " in front of the rest. */
static const char *body_of(const char *format, bool *table)
{
    *table = str_starts(format, "table ");
    return *table ? format + 6 : format;
}

const struct api_type *cli_record_type(const struct cli_verb *v)
{
    const struct api_type *t = v->method ? v->method->out : NULL;

    if (t && v->rows) {
        const struct api_member *m = api_member_find(t, v->rows);
        t = m ? m->type : NULL;
    }
    return t;
}

int cli_format_check(struct cli *c, const struct api_type *t)
{
    bool table;
    const char *at = c->format ? body_of(c->format, &table) : "";

    if (c->format && c->json) {
        return cli_fail(c, CLI_USAGE, NULL, "--format and --json exclude each other");
    }
    while ((at = strstr(at, "{{"))) {
        struct action a;
        const char *why;
        int rc;

        at = read_action(at + 2, &a, &why);
        if (!at) {
            return cli_fail(c, CLI_USAGE, NULL, "--format: %s", why);
        }
        rc = check_path(c, t, a.path);
        if (rc != CLI_OK) {
            return rc;
        }
    }
    return CLI_OK;
}

/* --- printing ----------------------------------------------------------------------------- */

/* Lines of cells with tabs between them, aligned. */
static void print_aligned(char **lines, size_t n)
{
    size_t width[32] = { 0 };

    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            const char *at = lines[i];
            for (size_t k = 0;; k++) {
                size_t len = strcspn(at, "\t"), w = cli_width(at, len);
                size_t *most = &width[k < ARRAY_LEN(width) ? k : ARRAY_LEN(width) - 1];
                bool last = at[len] == 0;
                *most = w > *most ? w : *most;
                if (pass) {
                    printf("%.*s%*s", (int)len, at, last ? 0 : (int)(*most - w + 2), "");
                }
                if (last) {
                    break;
                }
                at += len + 1;
            }
            if (pass) {
                putchar('\n');
            }
        }
    }
}

void cli_format_print(struct cli *c, struct json_object *o)
{
    bool table, list = json_object_is_type(o, json_type_array);
    const char *body = body_of(c->format, &table);
    size_t n = list ? json_object_array_length(o) : 1;
    char **lines = xnew_n(char *, n + 1);
    size_t used = 0;

    if (table && !c->format_begun) {
        AUTO_BUF b = BUF_INIT;
        expand(&b, body, NULL, true);
        lines[used++] = buf_take(&b);
    }
    c->format_begun = true;
    for (size_t i = 0; i < n; i++) {
        AUTO_BUF b = BUF_INIT;
        expand(&b, body, list ? json_object_array_get_idx(o, i) : o, false);
        lines[used++] = buf_take(&b);
    }
    if (table) {
        print_aligned(lines, used);
    }
    for (size_t i = 0; i < used; i++) {
        if (!table) {
            printf("%s\n", lines[i] ? lines[i] : "");
        }
        free(lines[i]);
    }
    free(lines);
    fflush(stdout);
}
