/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output: errors, tables, objects, times and sizes. Everything that came from elsewhere is
 * cleaned of control characters before it reaches a terminal. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BOLD "\033[1m"
#define RED "\033[31m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define PLAIN "\033[0m"

/* --- errors ------------------------------------------------------------------------------- */

static void print_error(struct cli *c, const char *message, const char *remedy)
{
    AUTO_BUF b = BUF_INIT;

    buf_printf(&b, "%svmctl:%s ", c->color_err ? RED : "", c->color_err ? PLAIN : "");
    cli_clean(&b, message);
    buf_add_char(&b, '\n');
    for (const char *line = remedy; line && *line;) {
        size_t n = strcspn(line, "\n");
        AUTO_FREE char *one = xstrndup(line, n);
        buf_add_str(&b, "  ");
        cli_clean(&b, one);
        buf_add_char(&b, '\n');
        line += n + (line[n] == '\n');
    }
    fflush(stdout);
    fputs(b.data, stderr);
}

int cli_error(struct cli *c, const struct api_error *x)
{
    if (c->json) {
        AUTO_JSON o = json_object_new_object();
        api_json_set(o, "error", api_error_encode(x));
        fprintf(stderr, "%s\n", api_json_text(o));
    } else if (x->object[0] && !strstr(x->message, x->object)) {
        AUTO_FREE char *whole = xasprintf("%s: %s", x->object, x->message);
        print_error(c, whole, x->remedy);
    } else {
        print_error(c, x->message, x->remedy);
    }
    return api_code_exit(x->code);
}

int cli_fail(struct cli *c, int status, const char *remedy, const char *fmt, ...)
{
    AUTO_BUF text = BUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (c->json) {
        struct api_error x = API_ERROR_INIT;
        AUTO_JSON o = json_object_new_object();
        struct json_object *inner;
        api_error_set(&x, API_E_INTERNAL_ERROR, NULL, remedy, "%s", text.data);
        inner = api_error_encode(&x);
        json_object_object_del(inner, "code"); /* vmctl's own: there is no code of the daemon */
        json_object_object_del(api_json_get(inner, "data"), "error");
        api_json_set_int(inner, "exit", status);
        api_json_set(o, "error", inner);
        fprintf(stderr, "%s\n", api_json_text(o));
    } else {
        print_error(c, text.data, remedy);
    }
    return status;
}

/* --- values ------------------------------------------------------------------------------- */

void cli_clean(struct buf *b, const char *text)
{
    size_t n = strlen(text);

    for (size_t at = 0; at < n;) {
        size_t len = api_utf8_len(text + at, n - at);
        unsigned char c = (unsigned char)text[at];
        /* U+0080..U+009F are control characters too. */
        bool bad = len == 0 || c < 0x20 || c == 0x7f ||
                   (c == 0xc2 && (unsigned char)text[at + 1] < 0xa0);

        len = len ? len : 1;
        if (bad) {
            buf_add_char(b, '?');
        } else {
            buf_add(b, text + at, len);
        }
        at += len;
    }
}

void cli_nanoseconds(struct buf *b, int64_t ns)
{
    int64_t s = ns / 1000000000;

    if (ns < 0) {
        buf_add_char(b, '-');
    } else if (ns < 1000000) {
        buf_printf(b, "%.1fus", (double)ns / 1e3);
    } else if (s < 1) {
        buf_printf(b, "%.1fms", (double)ns / 1e6);
    } else if (s < 60) {
        buf_printf(b, "%.2fs", (double)ns / 1e9);
    } else if (s < 3600) {
        buf_printf(b, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    } else if (s < 86400) {
        buf_printf(b, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    } else {
        buf_printf(b, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
    }
}

void cli_size(struct buf *b, int64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    unsigned u = 0;
    double v = bytes > 0 ? (double)bytes : 0;

    while (v >= 1024 && u + 1 < ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    buf_printf(b, v == (double)(int64_t)v ? "%.0f %s" : "%.1f %s", v, units[u]);
}

void cli_ago(struct buf *b, int64_t since_ms)
{
    struct timespec t;
    int64_t s;

    clock_gettime(CLOCK_REALTIME, &t);
    s = since_ms > 0 ? t.tv_sec - since_ms / 1000 : -1;
    if (s < 0) {
        buf_add_char(b, '-');
    } else if (s < 60) {
        buf_printf(b, "%" PRId64 "s", s);
    } else if (s < 3600) {
        buf_printf(b, "%" PRId64 "m", s / 60);
    } else if (s < 86400) {
        buf_printf(b, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    } else {
        buf_printf(b, "%" PRId64 "d", s / 86400);
    }
}

void cli_time(struct buf *b, int64_t ms)
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];

    if (ms <= 0 || !localtime_r(&s, &tm)) {
        buf_add_char(b, '-');
        return;
    }
    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    buf_printf(b, "%s.%03d", text, (int)(ms % 1000));
}

const char *cli_state_color(const char *state)
{
    static const struct {
        const char *state, *color;
    } colors[] = {
        { "running", GREEN },    { "done", GREEN },      { "paused", YELLOW },
        { "starting", YELLOW },  { "stopping", YELLOW }, { "queued", YELLOW },
        { "crashed", RED },      { "failed", RED },      { "cancelled", YELLOW },
        { "unresponsive", RED },
    };

    for (size_t i = 0; i < ARRAY_LEN(colors); i++) {
        if (strcmp(colors[i].state, state) == 0) {
            return colors[i].color;
        }
    }
    return "";
}

static void add_progress(struct buf *b, const struct json_object *job)
{
    int64_t done = api_json_get_int(job, "done", 0), total = api_json_get_int(job, "total", 0);

    if (total > 0) {
        buf_printf(b, "%" PRId64 "/%" PRId64 " ", done, total);
        cli_clean(b, api_json_get_str(job, "unit") ?: "");
    } else {
        buf_add_char(b, '-');
    }
}

void cli_value_text(struct buf *b, struct json_object *v)
{
    if (!v) {
        buf_add_char(b, '-');
    } else if (json_object_is_type(v, json_type_boolean)) {
        buf_add_str(b, json_object_get_boolean(v) ? "yes" : "no");
    } else if (json_object_is_type(v, json_type_string)) {
        cli_clean(b, json_object_get_string(v)[0] ? json_object_get_string(v) : "-");
    } else if (json_object_is_type(v, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(v); i++) {
            buf_add_str(b, i ? ", " : "");
            cli_value_text(b, json_object_array_get_idx(v, i));
        }
    } else {
        cli_clean(b, api_json_text(v));
    }
}

/* "web:operator *:viewer" */
static void add_grants(struct buf *b, struct json_object *list)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *g = json_object_array_get_idx(list, i);
        const char *project = api_json_get_str(g, "project"),
                   *role = api_json_get_str(g, "role");
        AUTO_FREE char *text = xasprintf("%s%s:%s", i ? " " : "", project ? project : "?",
                                         role ? role : "?");
        cli_clean(b, text);
    }
}

void cli_text(struct buf *b, const struct json_object *row, const char *member,
              const char *style)
{
    struct json_object *v = api_json_get(row, member);

    if (style && strcmp(style, "progress") == 0) {
        add_progress(b, row);
    } else if (v && style && strcmp(style, "size") == 0) {
        cli_size(b, json_object_get_int64(v));
    } else if (v && style && strcmp(style, "time") == 0) {
        cli_time(b, json_object_get_int64(v));
    } else if (v && style && strcmp(style, "grants") == 0) {
        add_grants(b, v);
    } else if (v && style && strcmp(style, "ago") == 0) {
        cli_ago(b, json_object_get_int64(v));
    } else {
        cli_value_text(b, v);
    }
}

/* --- JSON, tables, objects ---------------------------------------------------------------- */

void cli_print_json(struct json_object *o)
{
    int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
                (isatty(1) ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
                           : JSON_C_TO_STRING_PLAIN);

    printf("%s\n", o ? json_object_to_json_string_ext(o, flags) : "null");
}

/* Characters shown: good enough for names, which are ASCII. */
size_t cli_width(const char *s, size_t bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    }
    return n;
}

static size_t columns_of(const char *s)
{
    return cli_width(s, strlen(s));
}

static void add_cell(struct buf *b, const char *text, size_t width, const char *color,
                     bool last)
{
    size_t n = columns_of(text);

    buf_printf(b, "%s%s%s", color, text, color[0] ? PLAIN : "");
    for (; !last && n < width + 2; n++) {
        buf_add_char(b, ' ');
    }
}

/* Text of each cell, row after row; each is the caller's. Widens the columns. */
static char **make_cells(struct json_object *rows, size_t n_rows,
                         const struct cli_column *columns, size_t n, size_t *width)
{
    char **cells = xnew_n(char *, n_rows *n + 1);

    for (size_t k = 0; k < n; k++) {
        width[k] = columns_of(columns[k].title);
        for (size_t i = 0; i < n_rows; i++) {
            AUTO_BUF b = BUF_INIT;
            cli_text(&b, json_object_array_get_idx(rows, i), columns[k].member,
                     columns[k].style);
            cells[i * n + k] = buf_take(&b);
            size_t w = columns_of(cells[i * n + k]);
            width[k] = w > width[k] ? w : width[k];
        }
    }
    return cells;
}

static void add_table(struct cli *c, struct buf *out, struct json_object *rows,
                      const struct cli_column *columns, size_t n, int indent)
{
    size_t n_rows = json_object_is_type(rows, json_type_array) ? json_object_array_length(rows)
                                                               : 0;
    size_t *width = xnew_n(size_t, n);
    char **cells = make_cells(rows, n_rows, columns, n, width);

    buf_printf(out, "%*s", indent, "");
    for (size_t k = 0; k < n; k++) {
        add_cell(out, columns[k].title, width[k], c->color_out ? BOLD : "", k + 1 == n);
    }
    buf_add_char(out, '\n');
    for (size_t i = 0; i < n_rows; i++) {
        buf_printf(out, "%*s", indent, "");
        for (size_t k = 0; k < n; k++) {
            bool state = columns[k].style && strcmp(columns[k].style, "state") == 0;
            const char *color = c->color_out && state ? cli_state_color(cells[i * n + k]) : "";
            add_cell(out, cells[i * n + k], width[k], color, k + 1 == n);
            free(cells[i * n + k]);
        }
        buf_add_char(out, '\n');
    }
    free(cells);
    free(width);
}

void cli_table(struct cli *c, struct json_object *rows, const struct cli_column *columns,
               size_t n)
{
    AUTO_BUF out = BUF_INIT;

    add_table(c, &out, rows, columns, n, 0);
    fputs(out.data, stdout);
}

/* Value of a member as its table entry says. */
static void add_member(struct buf *b, const struct api_member *m, struct json_object *v)
{
    if (m && m->flags & API_F_SIZE && json_object_is_type(v, json_type_int)) {
        cli_size(b, json_object_get_int64(v));
    } else if (m && m->flags & API_F_CONTENTS && json_object_is_type(v, json_type_string)) {
        buf_printf(b, "%d bytes", json_object_get_string_len(v)); /* --json has all of it */
    } else if (m && m->unit && strcmp(m->unit, "ms since 1970") == 0) {
        cli_time(b, json_object_get_int64(v));
    } else if (m && m->unit && strcmp(m->unit, "ns") == 0) {
        cli_nanoseconds(b, json_object_get_int64(v));
    } else if (m && m->unit && strcmp(m->unit, "ms") == 0) {
        buf_printf(b, "%" PRId64 " ms", json_object_get_int64(v));
    } else {
        cli_value_text(b, v);
    }
}

/* A list of objects as a table with the members that its elements have. */
static void add_list(struct cli *c, struct buf *b, const struct api_type *t,
                     struct json_object *list, int indent)
{
    struct cli_column *columns;
    AUTO_JSON members = json_object_new_object();
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        if (json_object_is_type(o, json_type_object)) {
            json_object_object_foreach(o, key, v)
            {
                (void)v;
                json_object_object_add(members, key, NULL);
            }
        }
    }
    columns = xnew_n(struct cli_column, (size_t)json_object_object_length(members) + 1);
    json_object_object_foreach(members, name, none)
    {
        const struct api_member *m = t ? api_member_find(t, name) : NULL;
        (void)none;
        columns[n++] = (struct cli_column){ name, name,
                                            m && m->flags & API_F_SIZE ? "size" : NULL };
    }
    add_table(c, b, list, columns, n, indent);
    free(columns);
}

/* The unit is shown with the value, so it goes from the name: uptime_ns is uptime. */
static size_t name_length(const struct api_member *m, const char *key)
{
    size_t n = strlen(key);

    return m && m->unit && n > 3 && (!strcmp(key + n - 3, "_ms") || !strcmp(key + n - 3, "_ns"))
               ? n - 3
               : n;
}

static void add_object(struct cli *c, struct buf *b, const struct api_type *t,
                       const struct json_object *o, int indent);

static void add_scalars(struct cli *c, struct buf *b, const struct api_member *m,
                        const char *key, struct json_object *v)
{
    bool state = strcmp(key, "state") == 0 && json_object_is_type(v, json_type_string);
    const char *color = c->color_out && state ? cli_state_color(json_object_get_string(v)) : "";

    if (!json_object_is_type(v, json_type_array)) {
        buf_add_str(b, color);
        add_member(b, m, v);
        buf_add_str(b, color[0] ? PLAIN : "");
        return;
    }
    for (size_t i = 0; i < json_object_array_length(v); i++) {
        buf_add_str(b, i ? ", " : "");
        add_member(b, m, json_object_array_get_idx(v, i));
    }
    buf_add_str(b, json_object_array_length(v) ? "" : "-");
}

static void add_line(struct cli *c, struct buf *b, const struct api_member *m, const char *key,
                     struct json_object *v, int indent)
{
    const struct api_type *inner = m && (m->kind == API_STRUCT || m->kind == API_PATCH)
                                       ? m->type
                                       : NULL;
    AUTO_FREE char *name = xstrndup(key, name_length(m, key));
    bool objects = json_object_is_type(v, json_type_array) && json_object_array_length(v) > 0 &&
                   json_object_is_type(json_object_array_get_idx(v, 0), json_type_object);

    buf_printf(b, "%*s", indent, "");
    cli_clean(b, name);
    if (json_object_is_type(v, json_type_object) || objects) {
        buf_add_char(b, '\n');
        if (objects) {
            add_list(c, b, inner, v, indent + 2);
        } else {
            add_object(c, b, inner, v, indent + 2);
        }
        return;
    }
    for (size_t n = columns_of(name) + (size_t)indent; n < 16; n++) {
        buf_add_char(b, ' ');
    }
    buf_add_str(b, "  ");
    add_scalars(c, b, m, key, v);
    buf_add_char(b, '\n');
}

static void add_object(struct cli *c, struct buf *b, const struct api_type *t,
                       const struct json_object *o, int indent)
{
    json_object_object_foreach((struct json_object *)o, key, v)
    {
        add_line(c, b, t ? api_member_find(t, key) : NULL, key, v, indent);
    }
}

void cli_object(struct cli *c, const struct api_type *t, const struct json_object *o)
{
    AUTO_BUF b = BUF_INIT;

    if (json_object_is_type(o, json_type_object)) {
        add_object(c, &b, t, o, 0);
    }
    fputs(b.data ? b.data : "", stdout);
}

void cli_progress(struct cli *c, struct json_object *job)
{
    AUTO_BUF b = BUF_INIT;
    int64_t done, total;

    if (c->quiet || c->json || !isatty(2)) {
        return;
    }
    if (!job) {
        fputs("\r\033[K", stderr);
        return;
    }
    done = api_json_get_int(job, "done", 0);
    total = api_json_get_int(job, "total", 0);
    buf_add_str(&b, "\r\033[K");
    if (total > 0) {
        int filled = (int)(done * 20 / total);
        filled = filled < 0 ? 0 : filled > 20 ? 20 : filled;
        buf_printf(&b, "[%.*s%.*s] ", filled, "####################", 20 - filled,
                   "                    ");
    }
    cli_clean(&b, api_json_get_str(job, "kind") ?: "job");
    buf_add_char(&b, ' ');
    add_progress(&b, job);
    fputs(b.data, stderr);
}
